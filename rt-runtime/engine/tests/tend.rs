//! What the engine does for links that need the time, or hold frames themselves.

use insane_core::time::Clock;
use insane_core::{HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex};
use insane_engine::{Command, Engine, EngineConfig, EngineParts, Port};
use insane_link::{FrameSink, Link, LinkCapabilities, LinkCounts, SendOutcome, SwapRefused};
use insane_shm::counters::CounterBlock;
use insane_sys::SharedBytes;
use insane_sys::event::Event;
use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;

/// The longest sleep while a link keeps what it has or takes nothing.
const NAP: Nanos = Nanos::from_micros(100);

/// What a test and its link and clock share.
#[derive(Default)]
struct State {
    now: Cell<u64>,
    tended: Cell<u32>,
    is_busy: Cell<bool>,
    holds: Cell<bool>,
    /// How often links were flushed.
    flushed: Cell<u32>,
    /// How often a link was asked for its descriptors, and whether they are new.
    asked: Cell<u32>,
    is_new: Cell<bool>,
    sleep_max: Cell<Option<Nanos>>,
}

struct Fake(Rc<State>);

impl Clock for Fake {
    fn now(&self) -> MonoTime {
        MonoTime(self.0.now.get())
    }
}

impl Link for Fake {
    type Peer = ();

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "fake",
            frame_bytes_max: 1472,
            ordered: true,
            lossless: true,
            launch_time: false,
            multicast: false,
        }
    }

    fn send(&mut self, _: PeerIndex, _: Lane, _: &[u8], _: SharedBytes<'_>) -> SendOutcome {
        SendOutcome::Failed
    }

    fn flush(&mut self) {
        self.0.flushed.set(self.0.flushed.get() + 1);
    }

    fn swap_peer(&mut self, _: PeerIndex, _: &mut Option<()>) -> Result<(), SwapRefused> {
        Ok(())
    }

    fn receive<S: FrameSink>(&mut self, _: u32, _: bool, _: &mut S) -> u32 {
        0
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.asked.set(self.0.asked.get() + 1);
        std::iter::empty()
    }

    fn take_new_fds(&mut self) -> bool {
        self.0.is_new.take()
    }

    fn holds_frames(&self) -> bool {
        self.0.holds.get()
    }

    fn link_counts(&self) -> LinkCounts {
        LinkCounts::new(&["frames_odd", "frames_tended"], [7, self.0.tended.get().into()])
    }

    fn sleep_max(&self) -> Option<Nanos> {
        self.0.sleep_max.get()
    }

    fn tend(&mut self, now: MonoTime) -> bool {
        assert_eq!(now, MonoTime(self.0.now.get()));
        self.0.tended.set(self.0.tended.get() + 1);
        self.0.is_busy.get()
    }
}

/// An engine with two links that share their state.
fn engine() -> (Engine<Fake, Fake>, Rc<State>) {
    let state = Rc::new(State::default());
    let parts = EngineParts {
        links: vec![Fake(Rc::clone(&state)), Fake(Rc::clone(&state))],
        link_of_peer: Vec::new(),
        domains: Vec::new(),
        counters: CounterBlock::private(),
        port: Port::new(Arc::new(Event::new().unwrap())).unwrap(),
        waker: None,
    };
    let config = EngineConfig::new(HostId(1), Incarnation(1));
    (Engine::new(config, parts, Fake(Rc::clone(&state))), state)
}

#[test]
fn every_link_is_tended_every_ten_milliseconds_by_turns_and_before_sleep() {
    let (mut engine, state) = engine();
    let millisecond = Nanos::from_millis(1).0;
    for _ in 0..100 {
        state.now.set(state.now.get() + millisecond);
        engine.housekeeping();
    }
    assert_eq!(state.tended.get(), 2 * 10);
    for _ in 0..100_000 {
        state.now.set(state.now.get() + millisecond / 100);
        engine.turn();
    }
    // A second of turns of 10 us each; the clock is looked at every 1024 of them.
    let by_turns = state.tended.get() - 20;
    assert!((2 * 48..=2 * 100).contains(&by_turns), "{by_turns}");
}

/// As with inline hosting, where the keeper tells the time and the application turns once
/// a cycle.
#[test]
fn a_link_is_tended_however_seldom_turns_come() {
    let (mut engine, state) = engine();
    for _ in 0..1000 {
        state.now.set(state.now.get() + Nanos::from_millis(1).0);
        engine.note_time(MonoTime(state.now.get()));
        engine.turn();
    }
    assert_eq!(state.tended.get(), 2 * 100);
}

#[test]
fn a_link_with_something_under_way_keeps_sleep_short() {
    let (mut engine, state) = engine();
    let mut housekeep = || {
        state.now.set(state.now.get() + Nanos::from_millis(10).0);
        engine.housekeeping();
        engine.is_tending()
    };
    assert!(!housekeep());
    state.is_busy.set(true);
    assert!(housekeep());
    state.is_busy.set(false);
    assert!(!housekeep());
}

#[test]
fn a_datapath_does_not_sleep_while_a_link_holds_frames_and_but_shortly_where_it_keeps_them() {
    let (mut engine, state) = engine();
    assert!(!engine.has_work());
    state.holds.set(true);
    for _ in 0..256 {
        assert!(engine.has_work());
        assert_eq!(engine.sleep_max(), None);
        engine.turn();
    }
    assert!(!engine.has_work(), "nothing moves");
    assert_eq!(engine.sleep_max(), Some(NAP));
    state.holds.set(false);
    assert!(!engine.has_work());
    assert_eq!(engine.sleep_max(), None);
}

#[test]
fn what_found_no_room_is_tried_again_in_each_turn_though_nobody_sends() {
    let (mut engine, state) = engine();
    let turn = |engine: &mut Engine<Fake, Fake>| {
        engine.turn();
        state.flushed.take()
    };
    // What is not plain at first is over.
    assert_eq!((0..5).map(|_| turn(&mut engine)).last(), Some(0));
    state.holds.set(true);
    let overlay =
        Command::SendOverlay { peer: PeerIndex(0), link: 0, lane: Lane::CONTROL, body: [1].into_iter().collect() };
    assert!(engine.port().send(overlay).is_ok());
    assert!(turn(&mut engine) > 0);
    for _ in 0..10 {
        assert_eq!(turn(&mut engine), 2, "both links");
    }
    state.holds.set(false);
    assert_eq!([turn(&mut engine), turn(&mut engine)], [2, 0]);
}

#[test]
fn what_links_count_is_left_for_reports() {
    let (mut engine, state) = engine();
    let told = |engine: &Engine<Fake, Fake>, link| engine.port().link_counts(link).collect::<Vec<_>>();
    assert_eq!(told(&engine, 0), [("frames_odd", 0), ("frames_tended", 0)], "the names are there at once");
    for round in 1..=3 {
        state.now.set(state.now.get() + Nanos::from_millis(10).0);
        engine.housekeeping();
        for link in 0..2 {
            assert_eq!(told(&engine, link), [("frames_odd", 7), ("frames_tended", 2 * round)]);
        }
    }
    assert_eq!(told(&engine, 2), [], "there is no such link");
    assert_eq!(told(&engine, usize::MAX), []);
}

#[test]
fn new_descriptors_are_waited_for() {
    let (mut engine, state) = engine();
    let mut asked_after = |is_new: bool, watches: bool| {
        state.is_new.set(is_new);
        if watches {
            engine.watch_links();
        }
        state.now.set(state.now.get() + Nanos::from_millis(10).0);
        engine.housekeeping();
        state.asked.take()
    };
    assert_eq!(asked_after(true, false), 0, "an application that turns the engine does not sleep by them");
    assert_eq!(asked_after(true, true), 2, "once each: what is new was just asked for");
    assert_eq!(asked_after(false, false), 0);
    assert_eq!(asked_after(true, false), 2);
    assert_eq!(asked_after(false, false), 0);
}

#[test]
fn a_datapath_looks_often_enough_at_a_link_that_tells_of_nothing() {
    let (engine, state) = engine();
    assert_eq!(engine.sleep_max(), None);
    state.sleep_max.set(Some(Nanos::from_micros(70)));
    assert_eq!(engine.sleep_max(), Some(Nanos::from_micros(70)));
}
