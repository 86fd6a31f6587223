/* What the runtime knows of DPDK: a few functions and three structures of its own.
 *
 * Most of what moves frames in DPDK is inline in its headers, and its structures differ from
 * version to version. Both end here. The runtime loads this library when it is asked for a
 * dpdk link, and compares INSANE_DPDK_ABI and the sizes below with its own
 * (plugins/dpdk-sys/src/abi.rs) before it calls anything else.
 *
 * Who may call what: functions that open, close and ask are serialised by the caller; those
 * that move frames of one port are called by one thread at a time. Nothing here allocates or
 * logs while frames move.
 */
#ifndef INSANE_DPDK_SHIM_H
#define INSANE_DPDK_SHIM_H

#include <stdint.h>

/* Raised with every change of what stands below. */
#define INSANE_DPDK_ABI 1

/* Most frames of one call of receive, reserve, send and release. */
#define INSANE_DPDK_BURST 64

/* One frame: whoever has it is the only one who has it.
 *
 *   0        8        16       20      24       32
 *   +--------+--------+--------+-------+--------+
 *   | bytes  | handle | len    | room  | owner  |
 *   +--------+--------+--------+-------+--------+
 */
struct insane_dpdk_frame {
	uint8_t *bytes;  /* where it begins */
	void *handle;    /* the mbuf */
	uint32_t len;    /* bytes of it; of one to be sent, set by the caller, at most room */
	uint32_t room;   /* bytes that may be written from `bytes` on */
	uint64_t owner;  /* the number of the port that handed it out */
};

struct insane_dpdk_options {
	const char *device;      /* "net_af_packet0,iface=eth0", or a PCI address */
	uint32_t packet_bytes;   /* largest IP packet to be carried */
	uint32_t ring_frames;    /* wanted length of both rings of a device that has rings */
	uint32_t pool_frames;    /* mbufs of the port */
	uint32_t promiscuous;    /* not 0: hear frames of other stations' addresses */
};

struct insane_dpdk_info {
	uint64_t number;           /* of the port; never given twice */
	uint32_t packet_bytes_max; /* largest IP packet that the device carries */
	uint32_t pool_bytes;       /* memory of the port's mbufs */
	uint8_t mac[6];
	uint8_t is_vdev;           /* 1: not on a PCI bus */
	uint8_t link_up;
	char driver[32];           /* its name, zero-terminated */
};

struct insane_dpdk_counts {
	uint64_t sent;        /* frames that the device took */
	uint64_t send_errors; /* frames that the driver threw away */
	uint64_t received;
	uint64_t missed;      /* frames that came and found no room */
	uint64_t receive_errors;
	uint64_t no_memory;   /* frames for which the port had no mbuf */
	uint64_t chained;     /* frames of several mbufs, thrown away here */
};

/* A port with its pool. */
struct insane_dpdk_port;

/* ABI << 32 | size of counts << 24 | info << 16 | options << 8 | frame. */
uint64_t insane_dpdk_abi(void);
/* Offsets of the fields in the order above, structure after structure; returns how many there
 * are, and writes at most `count`. For a test. */
uint32_t insane_dpdk_offsets(uint32_t *offsets, uint32_t count);
/* "DPDK 22.11.11" */
const char *insane_dpdk_version(void);

/* Starts DPDK, once a process. The texts must live for ever. Returns 0 or a negative errno. */
int insane_dpdk_init(int count, char **arguments);
/* The first line that DPDK had to say since the last call, at the level of errors, and forgets it. Returns its
 * length, and writes at most `room` bytes, the last of which is 0. */
uint32_t insane_dpdk_reason(char *text, uint32_t room);

/* Returns 0 or a negative errno; *stage names what failed. */
int insane_dpdk_open(const struct insane_dpdk_options *options, struct insane_dpdk_port **port,
		     struct insane_dpdk_info *info, const char **stage);
/* The device is removed from this process, except a memif, which stays as it is. Its mbufs are freed when all of them are
 * back. */
void insane_dpdk_close(struct insane_dpdk_port *port);
/* Two ports of these names, which begin with net_ring_, joined by two rings. */
int insane_dpdk_ring_pair(const char *first, const char *second, uint32_t frames);

/* Frames that came; each is to be released or sent. */
uint32_t insane_dpdk_receive(struct insane_dpdk_port *port, struct insane_dpdk_frame *frames, uint32_t count);
/* Empty frames to be filled, sent or released: `count` of them, or none. */
uint32_t insane_dpdk_reserve(struct insane_dpdk_port *port, struct insane_dpdk_frame *frames, uint32_t count);
/* Hands over the first frames, as many as there is room for; returns how many. */
uint32_t insane_dpdk_send(struct insane_dpdk_port *port, const struct insane_dpdk_frame *frames, uint32_t count);
void insane_dpdk_release(struct insane_dpdk_port *port, const struct insane_dpdk_frame *frames, uint32_t count);

/* Whether the device says that it has a carrier: 1, 0, or a negative errno. Does not wait. */
int insane_dpdk_link_up(struct insane_dpdk_port *port);
int insane_dpdk_counts(struct insane_dpdk_port *port, struct insane_dpdk_counts *counts);

#endif
