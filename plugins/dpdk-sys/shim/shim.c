/* See shim.h. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_version.h>

#define EXPORT __attribute__((visibility("default")))

/* Frames in front of which DPDK keeps room, and that a frame is rounded up to. */
#define DATA_STEP 64
/* What the names of ports on rings begin with. */
#define RINGS "net_ring_"

struct insane_dpdk_port {
	struct rte_mempool *pool;
	struct rte_device *device;
	uint64_t number;
	uint64_t chained;
	uint16_t id;
	uint8_t is_started;
	uint8_t is_af_xdp;
	uint8_t is_memif;
};

/* ---- what is said ------------------------------------------------------------------- */

static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;
static char said[256];

/* DPDK writes one line a call. Only errors come here; they go on to standard error. */
static ssize_t hear(void *unused, const char *text, size_t len)
{
	(void)unused;
	size_t kept = len < sizeof(said) - 1 ? len : sizeof(said) - 1;
	while (kept > 0 && (text[kept - 1] == '\n' || text[kept - 1] == ' '))
		kept--;
	pthread_mutex_lock(&said_lock);
	/* What is said first is nearest to the cause. */
	if (kept > 0 && said[0] == 0) {
		memcpy(said, text, kept);
		said[kept] = 0;
	}
	pthread_mutex_unlock(&said_lock);
	fwrite(text, 1, len, stderr);
	return (ssize_t)len;
}

EXPORT uint32_t insane_dpdk_reason(char *text, uint32_t room)
{
	if (room == 0)
		return 0;
	pthread_mutex_lock(&said_lock);
	size_t len = strlen(said);
	if (len > room - 1)
		len = room - 1;
	memcpy(text, said, len);
	text[len] = 0;
	said[0] = 0;
	pthread_mutex_unlock(&said_lock);
	return (uint32_t)len;
}

/* ---- version ------------------------------------------------------------------------ */

EXPORT uint64_t insane_dpdk_abi(void)
{
	_Static_assert(sizeof(struct insane_dpdk_counts) < 256, "sizes are told in a byte");
	return (uint64_t)INSANE_DPDK_ABI << 32 | (uint64_t)sizeof(struct insane_dpdk_counts) << 24 |
	       sizeof(struct insane_dpdk_info) << 16 | sizeof(struct insane_dpdk_options) << 8 |
	       sizeof(struct insane_dpdk_frame);
}

#define AT(type, field) (uint32_t)offsetof(struct insane_dpdk_##type, field)

EXPORT uint32_t insane_dpdk_offsets(uint32_t *offsets, uint32_t count)
{
	static const uint32_t all[] = {
		AT(frame, bytes), AT(frame, handle), AT(frame, len), AT(frame, room), AT(frame, owner),
		AT(options, device), AT(options, packet_bytes), AT(options, ring_frames),
		AT(options, pool_frames), AT(options, promiscuous),
		AT(info, number), AT(info, packet_bytes_max), AT(info, pool_bytes), AT(info, mac), AT(info, is_vdev),
		AT(info, link_up), AT(info, driver),
		AT(counts, sent), AT(counts, send_errors), AT(counts, received), AT(counts, missed),
		AT(counts, receive_errors), AT(counts, no_memory), AT(counts, chained),
	};
	uint32_t there = sizeof(all) / sizeof(all[0]);
	memcpy(offsets, all, sizeof(all[0]) * (count < there ? count : there));
	return there;
}

EXPORT const char *insane_dpdk_version(void)
{
	return rte_version();
}

/* ---- starting ----------------------------------------------------------------------- */

EXPORT int insane_dpdk_init(int count, char **arguments)
{
	static const cookie_io_functions_t functions = { .write = hear };
	FILE *stream = fopencookie(NULL, "w", functions);
	if (stream == NULL)
		return -ENOMEM;
	setvbuf(stream, NULL, _IOLBF, 256);
	/* Otherwise DPDK writes to the system's log, too. */
	rte_openlog_stream(stream);
	rte_log_set_global_level(RTE_LOG_ERR);
	if (rte_eal_init(count, arguments) < 0)
		return rte_errno > 0 ? -rte_errno : -EINVAL;
	rte_log_set_global_level(RTE_LOG_ERR);
	return 0;
}

/* ---- ports -------------------------------------------------------------------------- */

/* Ports that were opened here and not closed. */
static uint8_t is_open[RTE_MAX_ETHPORTS];

/* The name of a device is what stands before its arguments. */
static int find_port(const char *device, uint16_t *id)
{
	char name[RTE_ETH_NAME_MAX_LEN];
	size_t len = strcspn(device, ",");
	if (len == 0 || len >= sizeof(name))
		return -ENAMETOOLONG;
	memcpy(name, device, len);
	name[len] = 0;
	return rte_eth_dev_get_port_by_name(name, id);
}

/* Without caches: they belong to threads that DPDK knows, and ours it does not. Frames are taken
 * and given back many at a time. Devices without a bus need no frame to stay inside a page: so
 * the frames lie close, which af_xdp relies on without saying so. */
static int make_pool(struct insane_dpdk_port *port, const char *name, uint32_t frames, uint16_t room, int is_vdev)
{
	struct rte_pktmbuf_pool_private private = { .mbuf_data_room_size = room };

	port->pool = rte_mempool_create_empty(name, frames, sizeof(struct rte_mbuf) + room, 0, sizeof(private),
					      SOCKET_ID_ANY, is_vdev ? RTE_MEMPOOL_F_NO_IOVA_CONTIG : 0);
	if (port->pool == NULL)
		return rte_errno > 0 ? -rte_errno : -ENOMEM;
	int failed = rte_mempool_set_ops_byname(port->pool, rte_mbuf_best_mempool_ops(), NULL);
	if (failed)
		return failed;
	rte_pktmbuf_pool_init(port->pool, &private);
	int made = rte_mempool_populate_default(port->pool);
	if (made < 0)
		return made;
	rte_mempool_obj_iter(port->pool, rte_pktmbuf_init, NULL);
	return 0;
}

static int set_up(struct insane_dpdk_port *port, const struct insane_dpdk_options *options,
		  struct insane_dpdk_info *info, const char **stage)
{
	struct rte_eth_dev_info about;
	struct rte_eth_conf conf;
	struct rte_ether_addr mac;
	uint16_t receive_ring = (uint16_t)options->ring_frames, send_ring = receive_ring;
	char name[RTE_MEMPOOL_NAMESIZE];
	static unsigned int pools;
	int failed;

	*stage = "asking the device what it is";
	failed = rte_eth_dev_info_get(port->id, &about);
	if (failed)
		return failed;
	port->device = about.device;
	info->is_vdev = strcmp(rte_bus_name(rte_dev_bus(about.device)), "vdev") == 0;
	snprintf(info->driver, sizeof(info->driver), "%s", about.driver_name);
	port->is_af_xdp = strcmp(about.driver_name, "net_af_xdp") == 0;
	port->is_memif = strcmp(about.driver_name, "net_memif") == 0;
	/* Largest frame of the device, less Ethernet's header, and less what its MTU may be. */
	info->packet_bytes_max = UINT16_MAX;
	if (about.max_rx_pktlen > RTE_ETHER_HDR_LEN && about.max_rx_pktlen - RTE_ETHER_HDR_LEN < UINT16_MAX)
		info->packet_bytes_max = about.max_rx_pktlen - RTE_ETHER_HDR_LEN;
	if (about.max_mtu != 0 && about.max_mtu < info->packet_bytes_max)
		info->packet_bytes_max = about.max_mtu;
	if (options->packet_bytes > info->packet_bytes_max) {
		*stage = "carrying packets of that size";
		return -EMSGSIZE;
	}

	*stage = "configuring the device";
	memset(&conf, 0, sizeof(conf));
	if (options->packet_bytes > RTE_ETHER_MTU)
		conf.rxmode.mtu = options->packet_bytes;
	/* All mbufs of the queue are of one pool, and nobody else refers to them. */
	conf.txmode.offloads = about.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
	failed = rte_eth_dev_configure(port->id, 1, 1, &conf);
	if (failed)
		return failed;
	failed = rte_eth_dev_adjust_nb_rx_tx_desc(port->id, &receive_ring, &send_ring);
	if (failed)
		return failed;

	*stage = "taking memory for frames (-m in the arguments of EAL gives more)";
	uint32_t room = options->packet_bytes < RTE_ETHER_MTU ? RTE_ETHER_MTU : options->packet_bytes;
	/* With a tag, and a second one. */
	room = RTE_ALIGN(room + RTE_ETHER_HDR_LEN + 8, DATA_STEP);
	if (room < RTE_MBUF_DEFAULT_DATAROOM)
		room = RTE_MBUF_DEFAULT_DATAROOM;
	snprintf(name, sizeof(name), "insane_%u_%u", port->id, pools++);
	failed = make_pool(port, name, options->pool_frames, (uint16_t)(room + RTE_PKTMBUF_HEADROOM), info->is_vdev);
	if (failed)
		return failed;
	*stage = "taking memory in one piece";
	if (port->is_af_xdp && port->pool->nb_mem_chunks != 1)
		return -ENOMEM;
	info->pool_bytes = 0;
	for (struct rte_mempool_memhdr *part = STAILQ_FIRST(&port->pool->mem_list); part != NULL;
	     part = STAILQ_NEXT(part, next))
		info->pool_bytes += (uint32_t)part->len;

	*stage = "setting up the queues";
	failed = rte_eth_rx_queue_setup(port->id, 0, receive_ring, SOCKET_ID_ANY, NULL, port->pool);
	if (failed)
		return failed;
	failed = rte_eth_tx_queue_setup(port->id, 0, send_ring, SOCKET_ID_ANY, NULL);
	if (failed)
		return failed;

	*stage = "starting the device";
	failed = rte_eth_dev_start(port->id);
	if (failed)
		return failed;
	port->is_started = 1;
	/* Devices that cannot hear everything, or only that, are left as they are. */
	if (options->promiscuous)
		(void)rte_eth_promiscuous_enable(port->id);
	(void)rte_eth_allmulticast_enable(port->id);

	*stage = "asking for the hardware address";
	failed = rte_eth_macaddr_get(port->id, &mac);
	if (failed)
		return failed;
	memcpy(info->mac, mac.addr_bytes, sizeof(info->mac));
	info->link_up = insane_dpdk_link_up(port) == 1;
	return 0;
}

EXPORT int insane_dpdk_open(const struct insane_dpdk_options *options, struct insane_dpdk_port **opened,
			    struct insane_dpdk_info *info, const char **stage)
{
	static uint64_t numbers;
	struct insane_dpdk_port *port = calloc(1, sizeof(*port));
	int failed = 0;

	*stage = "taking memory";
	if (port == NULL)
		return -ENOMEM;
	memset(info, 0, sizeof(*info));
	info->number = port->number = ++numbers;
	*stage = "finding the device";
	if (options->ring_frames > UINT16_MAX || options->packet_bytes > UINT16_MAX)
		failed = -EINVAL;
	else if (find_port(options->device, &port->id) != 0) {
		failed = rte_dev_probe(options->device);
		if (failed == 0)
			failed = find_port(options->device, &port->id);
	}
	if (failed == 0 && is_open[port->id]) {
		*stage = "taking the device, which is another link's";
		failed = -EBUSY;
	}
	if (failed) {
		free(port);
		return failed;
	}
	is_open[port->id] = 1;
	failed = set_up(port, options, info, stage);
	if (failed) {
		insane_dpdk_close(port);
		return failed;
	}
	*opened = port;
	return 0;
}

/* Frees a pool when all of its mbufs are back: those that a port sent by a ring may be with
 * another port yet. Such pools are looked at again whenever a port is closed. */
static void free_pool(struct rte_mempool *pool, int at_once)
{
	static struct rte_mempool *waiting[64];

	if (at_once) {
		rte_mempool_free(pool);
		pool = NULL;
	}

	for (size_t at = 0; at < sizeof(waiting) / sizeof(waiting[0]); at++) {
		if (waiting[at] == NULL) {
			waiting[at] = pool;
			pool = NULL;
		}
		if (waiting[at] != NULL && rte_mempool_full(waiting[at])) {
			rte_mempool_free(waiting[at]);
			waiting[at] = NULL;
		}
	}
	/* Without a place in the list, it stays for ever. */
}

EXPORT void insane_dpdk_close(struct insane_dpdk_port *port)
{
	struct rte_mbuf *mbufs[INSANE_DPDK_BURST];
	uint16_t came = 1;

	/* What came, and may be another port's. As much as a ring holds, and not for ever. */
	for (int bursts = 0; port->is_started && came > 0 && bursts < UINT16_MAX / INSANE_DPDK_BURST; bursts++) {
		came = rte_eth_rx_burst(port->id, 0, mbufs, INSANE_DPDK_BURST);
		rte_pktmbuf_free_bulk(mbufs, came);
	}
	/* That driver closes descriptors which DPDK's thread for interrupts still waits for, and
	 * that thread then ends the process. So the device stays until the process ends anyway. */
	if (port->is_memif) {
		free(port);
		return;
	}
	is_open[port->id] = 0;
	(void)rte_eth_dev_stop(port->id);
	(void)rte_eth_dev_close(port->id);
	if (port->device != NULL)
		(void)rte_dev_remove(port->device);
	/* That driver does not return what the kernel had, and neither has it any more. */
	free_pool(port->pool, port->is_af_xdp);
	free(port);
}

EXPORT int insane_dpdk_ring_pair(const char *first, const char *second, uint32_t frames)
{
	static unsigned int pairs;
	struct rte_ring *there, *back;
	char name[RTE_RING_NAMESIZE];
	unsigned int number = pairs++;

	if (strncmp(first, RINGS, strlen(RINGS)) != 0 || strncmp(second, RINGS, strlen(RINGS)) != 0)
		return -EINVAL;
	snprintf(name, sizeof(name), "insane_there_%u", number);
	there = rte_ring_create(name, frames, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
	snprintf(name, sizeof(name), "insane_back_%u", number);
	back = rte_ring_create(name, frames, SOCKET_ID_ANY, RING_F_SP_ENQ | RING_F_SC_DEQ);
	if (there == NULL || back == NULL)
		return rte_errno > 0 ? -rte_errno : -ENOMEM;
	/* DPDK puts the driver's name in front of the name itself. */
	if (rte_eth_from_rings(first + strlen(RINGS), &back, 1, &there, 1, 0) < 0 ||
	    rte_eth_from_rings(second + strlen(RINGS), &there, 1, &back, 1, 0) < 0)
		return rte_errno > 0 ? -rte_errno : -EINVAL;
	return 0;
}

/* ---- frames ------------------------------------------------------------------------- */

static inline void show(const struct insane_dpdk_port *port, struct insane_dpdk_frame *frame, struct rte_mbuf *mbuf)
{
	frame->bytes = rte_pktmbuf_mtod(mbuf, uint8_t *);
	frame->handle = mbuf;
	frame->len = mbuf->data_len;
	frame->room = (uint32_t)mbuf->data_len + rte_pktmbuf_tailroom(mbuf);
	frame->owner = port->number;
}

EXPORT uint32_t insane_dpdk_receive(struct insane_dpdk_port *port, struct insane_dpdk_frame *frames, uint32_t count)
{
	struct rte_mbuf *mbufs[INSANE_DPDK_BURST];
	uint16_t came, shown = 0;

	if (count > INSANE_DPDK_BURST)
		count = INSANE_DPDK_BURST;
	came = rte_eth_rx_burst(port->id, 0, mbufs, (uint16_t)count);
	for (uint16_t at = 0; at < came; at++) {
		if (likely(mbufs[at]->nb_segs == 1)) {
			show(port, &frames[shown++], mbufs[at]);
		} else {
			rte_pktmbuf_free(mbufs[at]);
			port->chained++;
		}
	}
	return shown;
}

EXPORT uint32_t insane_dpdk_reserve(struct insane_dpdk_port *port, struct insane_dpdk_frame *frames, uint32_t count)
{
	struct rte_mbuf *mbufs[INSANE_DPDK_BURST];

	if (count > INSANE_DPDK_BURST)
		count = INSANE_DPDK_BURST;
	if (rte_pktmbuf_alloc_bulk(port->pool, mbufs, count) != 0)
		return 0;
	for (uint32_t at = 0; at < count; at++)
		show(port, &frames[at], mbufs[at]);
	return count;
}

EXPORT uint32_t insane_dpdk_send(struct insane_dpdk_port *port, const struct insane_dpdk_frame *frames, uint32_t count)
{
	struct rte_mbuf *mbufs[INSANE_DPDK_BURST];

	if (count > INSANE_DPDK_BURST)
		count = INSANE_DPDK_BURST;
	for (uint32_t at = 0; at < count; at++) {
		mbufs[at] = frames[at].handle;
		mbufs[at]->data_len = (uint16_t)frames[at].len;
		mbufs[at]->pkt_len = frames[at].len;
		mbufs[at]->ol_flags = 0;
	}
	return rte_eth_tx_burst(port->id, 0, mbufs, (uint16_t)count);
}

EXPORT void insane_dpdk_release(struct insane_dpdk_port *port, const struct insane_dpdk_frame *frames, uint32_t count)
{
	struct rte_mbuf *mbufs[INSANE_DPDK_BURST];

	(void)port;
	if (count > INSANE_DPDK_BURST)
		count = INSANE_DPDK_BURST;
	for (uint32_t at = 0; at < count; at++)
		mbufs[at] = frames[at].handle;
	rte_pktmbuf_free_bulk(mbufs, count);
}

/* ---- state -------------------------------------------------------------------------- */

EXPORT int insane_dpdk_link_up(struct insane_dpdk_port *port)
{
	struct rte_eth_link link;
	int failed = rte_eth_link_get_nowait(port->id, &link);

	return failed ? failed : link.link_status == RTE_ETH_LINK_UP;
}

EXPORT int insane_dpdk_counts(struct insane_dpdk_port *port, struct insane_dpdk_counts *counts)
{
	struct rte_eth_stats stats;
	int failed = rte_eth_stats_get(port->id, &stats);

	if (failed)
		return failed;
	counts->sent = stats.opackets;
	counts->send_errors = stats.oerrors;
	counts->received = stats.ipackets;
	counts->missed = stats.imissed;
	counts->receive_errors = stats.ierrors;
	counts->no_memory = stats.rx_nombuf;
	counts->chained = port->chained;
	return 0;
}
