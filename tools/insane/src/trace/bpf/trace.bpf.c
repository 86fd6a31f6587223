// SPDX-License-Identifier: MIT OR Apache-2.0
// What the kernel does on one core, into a ring buffer. The licence below is what the verifier
// asks of programs that use its helpers.
//
// Only the fields that are read are declared; where they lie, the loader finds out (CO-RE).

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define CO_RE __attribute__((preserve_access_index))
#define inline_always inline __attribute__((always_inline))

enum { MAP_RINGBUF = 27 };
// The reader looks by itself: to be woken for each event would be most of what it sees.
enum { NO_WAKEUP = 1 };

struct thread_info {
	u32 cpu;
} CO_RE;

struct task_struct {
	struct thread_info thread_info;
	int pid;
	char comm[16];
} CO_RE;

struct timerqueue_node {
	s64 expires;
} CO_RE;

struct hrtimer {
	struct timerqueue_node node;
} CO_RE;

static void *(*ringbuf_reserve)(void *map, u64 size, u64 flags) = (void *)131;
static void (*ringbuf_submit)(void *data, u64 flags) = (void *)132;
static u64 (*ktime_get_ns)(void) = (void *)5;
static u32 (*get_smp_processor_id)(void) = (void *)8;
static long (*probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;

// The same as `Kind` of events.rs.
enum kind { WAKEUP = 1, SWITCH, IRQ_BEGIN, IRQ_END, SOFTIRQ_BEGIN, SOFTIRQ_END, TIMER };

struct event {
	u64 ns; // monotonic clock
	u32 kind;
	u32 a; // wake-up: who; switch: who goes; interrupt, softirq: number; timer: zero
	u64 b; // switch: who comes, and 2^32 if the one that goes was preempted; timer: when it was due
	char name[16]; // wake-up, switch: who comes
};

struct {
	int (*type)[MAP_RINGBUF];
	int (*max_entries)[4 << 20];
} events SEC(".maps");

// Written by the loader.
const volatile u32 core = 0;
// Events for which there was no room.
u64 lost = 0;

static inline_always struct event *begin(u32 kind)
{
	struct event *event = ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	event->ns = ktime_get_ns();
	event->kind = kind;
	event->a = 0;
	event->b = 0;
	__builtin_memset(event->name, 0, sizeof(event->name));
	return event;
}

static inline_always int note(u32 kind, u32 a, u64 b)
{
	if (get_smp_processor_id() != core)
		return 0;
	struct event *event = begin(kind);
	if (!event)
		return 0;
	event->a = a;
	event->b = b;
	ringbuf_submit(event, NO_WAKEUP);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int on_wakeup(u64 *args)
{
	struct task_struct *task = (void *)args[0];
	if (task->thread_info.cpu != core)
		return 0;
	struct event *event = begin(WAKEUP);
	if (!event)
		return 0;
	event->a = task->pid;
	probe_read_kernel(event->name, sizeof(event->name), task->comm);
	ringbuf_submit(event, NO_WAKEUP);
	return 0;
}

SEC("tp_btf/sched_switch")
int on_switch(u64 *args)
{
	struct task_struct *goes = (void *)args[1], *comes = (void *)args[2];
	if (get_smp_processor_id() != core)
		return 0;
	struct event *event = begin(SWITCH);
	if (!event)
		return 0;
	event->a = goes->pid;
	event->b = (u64)(u32)comes->pid | (args[0] & 1) << 32;
	probe_read_kernel(event->name, sizeof(event->name), comes->comm);
	ringbuf_submit(event, NO_WAKEUP);
	return 0;
}

SEC("tp_btf/irq_handler_entry")
int on_irq_begin(u64 *args)
{
	return note(IRQ_BEGIN, args[0], 0);
}

SEC("tp_btf/irq_handler_exit")
int on_irq_end(u64 *args)
{
	return note(IRQ_END, args[0], 0);
}

SEC("tp_btf/softirq_entry")
int on_softirq_begin(u64 *args)
{
	return note(SOFTIRQ_BEGIN, args[0], 0);
}

SEC("tp_btf/softirq_exit")
int on_softirq_end(u64 *args)
{
	return note(SOFTIRQ_END, args[0], 0);
}

SEC("tp_btf/hrtimer_expire_entry")
int on_timer(u64 *args)
{
	struct hrtimer *timer = (void *)args[0];
	return note(TIMER, 0, timer->node.expires);
}

char licence[] SEC("license") = "Dual MIT/GPL";
