//! A scheduler of few flows, and what it is told and tells.

use insane_core::{Lane, MonoTime, TaiTime};
use insane_scheduler::{
    Action, FlowIndex, LatePolicy, Limits, LinkRate, LinkTiming, Now, Recurrence, Scheduler, TimedScheduler,
    TimedStream,
};

pub type Timed = TimedScheduler<8, 4, 8>;

/// TAI is ahead of monotonic time by so much.
pub const APART: u64 = 1_000_000;
pub const LAST: FlowIndex = FlowIndex(7);

/// One gigabit: a byte takes 8 ns. Frames of 100 bytes, chunks of 1,000.
pub fn timing() -> LinkTiming {
    let rate = LinkRate::from_bits_per_s(1_000_000_000).unwrap();
    LinkTiming { rate, turn_ns: 1_000, foreign_bytes: 0, in_flight_bytes: 100_000, lead_ns: 0, step_ns: 500 }
}

pub fn timed(timing: LinkTiming) -> Box<Timed> {
    let mut lanes = Scheduler::new(Limits::new(1_000, 100).unwrap());
    lanes.add(LAST, Lane::LAST, 100_000).unwrap();
    let mut timed = Box::new(Timed::new(timing, lanes));
    assert_eq!(timed.poll(now(0), 0), Action::Idle);
    timed
}

pub fn now(tai_ns: u64) -> Now {
    Now { mono: MonoTime(tai_ns), tai: TaiTime(tai_ns + APART) }
}

pub fn stream(flow: u16, period: u64, offset: u64, late: LatePolicy) -> TimedStream {
    TimedStream {
        flow: FlowIndex(flow),
        slots: Recurrence::new(period, offset, 3_000).unwrap(),
        bytes: 250,
        early_ns: period / 2,
        deadline_ns: 20_000,
        late,
    }
}

/// With the streams in force from TAI = APART on.
pub fn with(streams: &[TimedStream]) -> Box<Timed> {
    let mut timed = timed(timing());
    timed.stage(TaiTime(APART), streams, None, TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    timed
}
