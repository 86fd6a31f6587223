/*
 * Which frames leave the kernel: those to the link's own IP address, and the questions and
 * answers about where that address is, in the link's VLAN. All others pass, so that ssh and
 * ptp4l on the same interface go on; also those with two tags. Where the address is the kernel's
 * (BORROWED), whole datagrams to the link's two ports leave it, and nothing else.
 *
 * Side 0 gets datagrams to the real-time port, side 1 the rest. A bounded number of questions and
 * answers about neighbours goes to side 0 as well: without them real time loses its way, and they
 * must not wait in a ring that best effort has filled. What exceeds the bound goes to side 1, so
 * that no storm of them fills side 0. Each queue that is heard has both sides in the map, since a
 * socket gets nothing of another queue than its own. What is filled in below is set before the
 * program is loaded.
 *
 * No header is included, so that the same compiler makes the same bytes everywhere. Numbers
 * are those of the kernel's interface (linux/bpf.h).
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

enum { XDP_PASS = 2 };
enum { BPF_MAP_TYPE_XSKMAP = 17 };

struct bpf_map_def {
	u32 type;
	u32 key_size;
	u32 value_size;
	u32 max_entries;
	u32 map_flags;
};

static u64 (*ktime_get_ns)(void) = (void *)5;
static long (*redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

/* What a frame is: of a side, or the kernel's. */
enum { REAL_TIME = 0, BEST_EFFORT = 1, SIDES = 2, KERNEL = SIDES };
/* Queues that a link hears at most. */
enum { QUEUES_MAX = 8 };

struct bpf_map_def SECTION("maps") SOCKETS = { BPF_MAP_TYPE_XSKMAP, 4, 4, SIDES * QUEUES_MAX, 0 };

/* The address, as it stands in headers; of IPv4 the first four bytes. */
const volatile u8 ADDRESS[16] = { 0 };
const volatile u8 IS_IPV6 = 0;
const volatile u8 BORROWED = 0;
/* The real-time port; the next one is that of all others. */
const volatile u16 PORT = 0;
/* The first of the queues that are heard, and how many follow each other from there. */
const volatile u32 QUEUE = 0;
const volatile u32 QUEUES = 1;
/* The VLAN; 0: without one, be it that a tag bears a priority only. */
const volatile u16 VLAN = 0;

enum { ETHERNET = 14, TAG = 4, IPV4 = 20, IPV6 = 40, ARP = 28, SOLICITATION = 24 };
enum { UDP = 17, ICMPV6 = 58 };
/* Messages of ARP, and of neighbour discovery, which no router passes on: their hop limit is full. */
enum { REQUEST = 1, REPLY = 2, SOLICIT = 135, ADVERTISE = 136, ALL_HOPS = 255 };

/*
 * What side 0 takes of questions, and as many of answers: one a millisecond, and BURST_MS of them
 * at once where none came for a while. Each kind has a bound of its own, since a storm of
 * questions is common, and the answers that the link waits for must not be lost in it.
 */
#define EACH_NS 1000000ull
#define BURST_MS 16
enum { QUESTION = 0, ANSWER = 1, KINDS = 2 };

/* Up to when the bound of each kind is used, by the kernel's monotonic clock, ns. */
u64 used_until[KINDS] = { 0 };

static __attribute__((always_inline)) u32 word(const u8 *at)
{
	return (u32)at[0] << 8 | at[1];
}

static __attribute__((always_inline)) int is_own(const u8 *at, int bytes)
{
	u8 differ = 0;

#pragma unroll
	for (int i = 0; i < bytes; i++)
		differ |= at[i] ^ ADDRESS[i];
	return !differ;
}

/* A question or an answer about where a neighbour is. */
static __attribute__((always_inline)) int neighbour(u32 kind)
{
	/*
	 * Cores that are here at once may take the same place. A queue is one core's at a time,
	 * and a card that spreads flows puts all of ARP into one queue, so that is rare, and costs
	 * side 0 a frame.
	 */
	volatile u64 *used = &used_until[kind];
	u64 now = ktime_get_ns(), until = *used;

	if (until < now)
		until = now;
	if (until - now > (BURST_MS - 1) * EACH_NS)
		return BEST_EFFORT;
	*used = until + EACH_NS;
	return REAL_TIME;
}

/* What is for the address and no datagram to one of the ports. */
static __attribute__((always_inline)) int other(void)
{
	return BORROWED ? KERNEL : BEST_EFFORT;
}

static __attribute__((always_inline)) int datagram(const u8 *udp, const u8 *end)
{
	u32 port;

	if (udp + 4 > end)
		return other();
	port = word(udp + 2);
	if (port == PORT)
		return REAL_TIME;
	return port == (u32)PORT + 1 ? BEST_EFFORT : other();
}

static __attribute__((always_inline)) int ipv4(const u8 *ip, const u8 *end)
{
	u32 length;

	if (ip + IPV4 > end || !is_own(ip + 16, 4))
		return KERNEL;
	length = (ip[0] & 15) * 4;
	/* A piece of a packet has no port, or not for long. */
	if (ip[9] != UDP || word(ip + 6) & 0x3fff || length < IPV4)
		return other();
	return datagram(ip + length, end);
}

/* Neighbour discovery, of whole and unroutable messages; of all others the caller decides. */
static __attribute__((always_inline)) int is_discovery(const u8 *ip, const u8 *end)
{
	return ip[6] == ICMPV6 && ip[7] == ALL_HOPS && ip + IPV6 + SOLICITATION <= end;
}

static __attribute__((always_inline)) int ipv6(const u8 *ip, const u8 *end)
{
	const u8 *message = ip + IPV6;

	if (message > end)
		return KERNEL;
	if (is_own(ip + 24, 16)) {
		if (ip[6] == UDP)
			return datagram(message, end);
		if (!BORROWED && is_discovery(ip, end)) {
			if (message[0] == SOLICIT && is_own(message + 8, 16))
				return neighbour(QUESTION);
			if (message[0] == ADVERTISE)
				return neighbour(ANSWER);
		}
		return other();
	}
	/* Who has the address? Asked of a group, which other addresses may be in as well. */
	if (!BORROWED && ip[24] == 0xff && is_discovery(ip, end) && message[0] == SOLICIT && is_own(message + 8, 16))
		return neighbour(QUESTION);
	return KERNEL;
}

static __attribute__((always_inline)) int arp(const u8 *at, const u8 *end)
{
	/* Questions about the address, and answers to who has it. */
	if (at + ARP > end || !is_own(at + 24, 4))
		return KERNEL;
	if (word(at + 6) == REQUEST)
		return neighbour(QUESTION);
	return word(at + 6) == REPLY ? neighbour(ANSWER) : BEST_EFFORT;
}

static __attribute__((always_inline)) int ethernet(const u8 *frame, const u8 *end)
{
	u32 type, vlan = 0;

	if (frame + ETHERNET > end)
		return KERNEL;
	type = word(frame + 12);
	if (type == 0x8100) {
		if (frame + ETHERNET + TAG > end)
			return KERNEL;
		vlan = word(frame + 14) & 0xfff;
		type = word(frame + 16);
		frame += TAG;
	}
	if (vlan != VLAN)
		return KERNEL;
	if (IS_IPV6)
		return type == 0x86dd ? ipv6(frame + ETHERNET, end) : KERNEL;
	if (type == 0x0800)
		return ipv4(frame + ETHERNET, end);
	if (type == 0x0806 && !BORROWED)
		return arp(frame + ETHERNET, end);
	return KERNEL;
}

int SECTION("xdp.frags") redirect(struct xdp_md *context)
{
	const u8 *frame = (const u8 *)(long)context->data;
	const u8 *end = (const u8 *)(long)context->data_end;
	/* One in front of the first is a very large number. */
	u32 queue = context->rx_queue_index - QUEUE;
	u32 side;

	if (queue >= QUEUES)
		return XDP_PASS;
	side = ethernet(frame, end);
	if (side == KERNEL)
		return XDP_PASS;
	/* Where no socket is in the map (yet, or any more) the kernel has the frame. */
	return redirect_map(&SOCKETS, SIDES * queue + side, XDP_PASS);
}

char SECTION("license") LICENSE[] = "Dual MIT/GPL";
