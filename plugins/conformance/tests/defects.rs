//! The suite notices: for each kind of defect, the case that is there for it fails.

use insane_conformance::{Fixture, cases, watch_allocations};
use insane_core::{Lane, Nanos, PeerIndex};
use insane_link::{
    FrameSink, Link, LinkCapabilities, LinkSetup, PeerSetup, SendOutcome, SwapRefused, Ticket, Unfinished,
};
use insane_sim::{SimConfig, SimLink, SimNet, SimPeer};
use insane_sys::SharedBytes;
use insane_sys::event::Event;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::ThreadId;

watch_allocations!();

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Defect {
    None,
    LosesTheFirstPayloadByte,
    CutsFullFrames,
    TakesTooLarge,
    CarriesChangedBytes,
    TakesUnknownPeers,
    SwallowsALane,
    SwapsFrames,
    MixesUpLanes,
    IgnoresTheBudget,
    DropsInHurriedCalls,
    IsOneWay,
    NamesTheWrongPeer,
    BelievesStrangers,
    HandsOutTwice,
    StaysBusy,
    KeepsWhatLeft,
    IsNeverReadable,
    IsAlwaysReadable,
    Allocates,
    LivesOnOneThread,
    ChangesItsMind,
    LiesAboutTheCount,
    KeepsThePeerThatLeft,
    LosesFramesWhenOthersGo,
    ForgetsWhoWasRefused,
    TakesNobodyBack,
    AllocatesForPeers,
    ForgetsPlaces,
    ReportsPlacesTwice,
    SendsToTheGroupTwice,
    CutsFramesToTheGroup,
    TellsAllWhatIsForOne,
    AllocatesForTheGroup,
}

struct Defective {
    inner: SimLink,
    defect: Defect,
    index: usize,
    home: ThreadId,
    sent: u32,
    was_busy: bool,
    held: Option<(PeerIndex, Lane, Vec<u8>)>,
    event: Event,
}

impl Defective {
    fn forward(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let outcome = self.inner.send(peer, lane, head, payload);
        self.was_busy |= outcome == SendOutcome::Busy;
        outcome
    }

    /// Holds every fourth frame until the next was sent.
    fn swap(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        if self.sent.is_multiple_of(4) && self.held.is_none() {
            self.held = Some((peer, lane, [head, &payload.to_vec()].concat()));
            return SendOutcome::Sent;
        }
        let outcome = self.forward(peer, lane, head, payload);
        self.flush();
        outcome
    }
}

impl Link for Defective {
    type Peer = SimPeer;

    fn capabilities(&self) -> LinkCapabilities {
        let mut capabilities = self.inner.capabilities();
        if self.defect == Defect::ChangesItsMind {
            capabilities.frame_bytes_max -= self.sent;
        }
        capabilities
    }

    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        self.sent += 1;
        let len = head.len() + payload.len();
        let limit = self.inner.capabilities().frame_bytes_max as usize;
        match self.defect {
            Defect::LosesTheFirstPayloadByte => self.forward(peer, lane, head, payload.part(1, usize::MAX)),
            Defect::CutsFullFrames if len == limit => {
                self.forward(peer, lane, head, payload.part(0, payload.len().saturating_sub(1)))
            }
            Defect::TakesTooLarge if len > limit => SendOutcome::Sent,
            Defect::CarriesChangedBytes => {
                let changed: Vec<u8> = payload.to_vec().iter().map(|byte| !byte).collect();
                self.forward(peer, lane, head, changed.as_slice().into())
            }
            Defect::TakesUnknownPeers => match self.forward(peer, lane, head, payload) {
                SendOutcome::Failed => SendOutcome::Sent,
                other => other,
            },
            Defect::SwallowsALane if lane.get() == 5 => SendOutcome::Sent,
            Defect::SwapsFrames => self.swap(peer, lane, head, payload),
            Defect::MixesUpLanes => {
                let other = Lane::new(7 - lane.get()).unwrap();
                self.forward(peer, other, head, payload)
            }
            Defect::IsOneWay if self.index == 1 => SendOutcome::Sent,
            Defect::StaysBusy if self.was_busy => SendOutcome::Busy,
            Defect::Allocates => {
                drop(std::hint::black_box(vec![1u8; 10]));
                self.forward(peer, lane, head, payload)
            }
            Defect::TellsAllWhatIsForOne => self.inner.send_group(lane, head, payload),
            Defect::LivesOnOneThread if std::thread::current().id() != self.home => SendOutcome::Failed,
            _ => self.forward(peer, lane, head, payload),
        }
    }

    fn send_group(&mut self, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        match self.defect {
            Defect::SendsToTheGroupTwice => drop(self.inner.send_group(lane, head, payload) == SendOutcome::Sent),
            Defect::CutsFramesToTheGroup => {
                return self.inner.send_group(lane, head, payload.part(0, payload.len().saturating_sub(1)));
            }
            Defect::AllocatesForTheGroup => drop(std::hint::black_box(vec![1u8; 10])),
            _ => {}
        }
        self.inner.send_group(lane, head, payload)
    }

    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<SimPeer>) -> Result<(), SwapRefused> {
        match self.defect {
            Defect::KeepsThePeerThatLeft => return Ok(()),
            Defect::TakesNobodyBack if with.is_some() => {
                *with = None;
                return Ok(());
            }
            Defect::LosesFramesWhenOthersGo => drop(self.inner.receive(1, true, &mut Nobody)),
            Defect::AllocatesForPeers => drop(std::hint::black_box(vec![1u8; 10])),
            _ => {}
        }
        let swapped = self.inner.swap_peer(peer, with);
        if self.defect == Defect::ForgetsWhoWasRefused && swapped.is_err() {
            *with = None;
        }
        swapped
    }

    fn flush(&mut self) {
        if let Some((peer, lane, frame)) = self.held.take() {
            let _ = self.inner.send(peer, lane, &frame, SharedBytes::EMPTY);
        }
    }

    fn unfinished(&mut self, _best_effort: bool) -> Option<Unfinished> {
        let amount = if self.defect == Defect::KeepsWhatLeft { u64::from(self.sent) } else { 0 };
        Some(Unfinished { amount, lag: Nanos::ZERO })
    }

    fn receive<S: FrameSink>(&mut self, budget: u32, thorough: bool, sink: &mut S) -> u32 {
        let budget = if self.defect == Defect::IgnoresTheBudget && budget > 0 { budget + 1 } else { budget };
        let mut spoiled = Spoil { sink, defect: self.defect, thorough };
        let count = self.inner.receive(budget, thorough, &mut spoiled);
        if self.defect == Defect::LiesAboutTheCount { count + 1 } else { count }
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let offers = matches!(self.defect, Defect::IsNeverReadable | Defect::IsAlwaysReadable);
        offers.then(|| self.event.as_fd()).into_iter()
    }
}

struct Nobody;

impl FrameSink for Nobody {
    fn frame(&mut self, _from: Option<PeerIndex>, _frame: &[u8]) {}
}

struct Spoil<'a, S> {
    sink: &'a mut S,
    defect: Defect,
    thorough: bool,
}

impl<S: FrameSink> FrameSink for Spoil<'_, S> {
    const HEAD_BYTES: usize = S::HEAD_BYTES;

    fn place(&mut self, from: PeerIndex, head: &[u8], rest: usize) -> Option<Ticket> {
        self.sink.place(from, head, rest)
    }

    fn memory(&mut self, from: PeerIndex, head: &[u8], rest: usize, ticket: Ticket) -> Option<&mut [u8]> {
        self.sink.memory(from, head, rest, ticket)
    }

    fn placed(&mut self, from: PeerIndex, head: &[u8], rest: usize, ticket: Ticket) {
        if self.defect == Defect::ReportsPlacesTwice {
            self.sink.placed(from, head, rest, ticket);
        }
        if self.defect != Defect::ForgetsPlaces {
            self.sink.placed(from, head, rest, ticket);
        }
    }

    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        match self.defect {
            Defect::DropsInHurriedCalls if !self.thorough => {}
            Defect::NamesTheWrongPeer => self.sink.frame(from.map(|peer| PeerIndex(peer.0 / 2)), frame),
            Defect::BelievesStrangers => self.sink.frame(from.or(Some(PeerIndex(0))), frame),
            Defect::HandsOutTwice => {
                self.sink.frame(from, frame);
                self.sink.frame(from, frame);
            }
            _ => self.sink.frame(from, frame),
        }
    }
}

struct Spoiled {
    defect: Defect,
    net: SimNet,
}

fn address(number: usize) -> SocketAddr {
    ([10, 0, 0, number as u8], 7000).into()
}

impl Fixture for Spoiled {
    type Link = Defective;

    fn open(&mut self, count: usize) -> Vec<Defective> {
        self.open_with(count, false)
    }

    fn open_group(&mut self, count: usize) -> Option<Vec<Defective>> {
        Some(self.open_with(count, true))
    }

    fn prepare(&mut self, of: usize, peer: PeerIndex, to: usize) -> SimPeer {
        self.net.setup(address(of)).peers().prepare(peer, address(to)).unwrap()
    }

    fn settle(&mut self) {
        self.net.advance(Nanos::from_micros(10));
    }

    fn send_as_stranger(&mut self, to: usize, bytes: &[u8]) {
        let _ = self.net.inject("192.0.2.1:9".parse().unwrap(), address(to), Lane::LAST, bytes);
    }
}

impl Spoiled {
    fn open_with(&mut self, count: usize, in_group: bool) -> Vec<Defective> {
        self.net = SimNet::new(1, SimConfig::default());
        let link = |index| {
            let peers: Vec<_> = (0..count).map(|peer| (peer != index).then(|| address(peer))).collect();
            let event = Event::new().unwrap();
            if self.defect == Defect::IsAlwaysReadable {
                event.signal().unwrap();
            }
            let setup = self.net.setup(address(index));
            Defective {
                inner: if in_group { setup.in_group() } else { setup }.open(&peers).unwrap(),
                defect: self.defect,
                index,
                home: std::thread::current().id(),
                sent: 0,
                was_busy: false,
                held: None,
                event,
            }
        };
        (0..count).map(link).collect()
    }
}

fn passes(case: fn(&mut Spoiled), defect: Defect) -> bool {
    let mut fixture = Spoiled { defect, net: SimNet::new(0, SimConfig::default()) };
    catch_unwind(AssertUnwindSafe(|| case(&mut fixture))).is_ok()
}

macro_rules! noticed {
    ($($case:ident: $($defect:ident),+;)*) => {
        $(#[test]
        fn $case() {
            assert!(passes(cases::$case, Defect::None), "the case fails on a sound link");
            $(assert!(!passes(cases::$case, Defect::$defect), "{:?} passed", Defect::$defect);)+
        })*
    };
}

noticed! {
    a_frame_is_head_and_payload: LosesTheFirstPayloadByte, CarriesChangedBytes, LiesAboutTheCount;
    every_size_up_to_the_limit_passes: CutsFullFrames;
    a_frame_over_the_limit_is_refused: TakesTooLarge;
    a_sent_payload_may_change: CarriesChangedBytes;
    frames_in_their_places_are_whole: ForgetsPlaces, ReportsPlacesTwice, CutsFullFrames;
    a_peer_that_is_none_is_refused: TakesUnknownPeers;
    every_lane_arrives: SwallowsALane;
    order_is_kept_within_peer_and_lane: SwapsFrames;
    a_frame_sent_alone_keeps_its_place: SwapsFrames, CutsFullFrames, TakesTooLarge, TakesUnknownPeers;
    real_time_goes_first: MixesUpLanes;
    the_budget_is_respected: IgnoresTheBudget;
    hurried_calls_find_everything: DropsInHurriedCalls;
    both_directions_at_once: IsOneWay;
    every_peer_is_told_apart: NamesTheWrongPeer;
    strangers_are_no_peers: BelievesStrangers;
    a_burst_loses_nothing_unseen: HandsOutTwice, SwapsFrames;
    a_full_link_recovers: StaysBusy;
    what_has_left_is_told_as_gone: KeepsWhatLeft;
    waiting_is_possible: IsNeverReadable, IsAlwaysReadable;
    nothing_is_allocated: Allocates;
    a_link_moves_between_threads: LivesOnOneThread;
    what_it_can_do_is_fixed: ChangesItsMind;
    peers_come_and_go_unnoticed_by_others: LosesFramesWhenOthersGo;
    a_peer_that_left_can_come_back: KeepsThePeerThatLeft;
    a_refused_peer_changes_nothing: ForgetsWhoWasRefused;
    a_swap_is_undone_by_the_same_call: TakesNobodyBack;
    peers_are_swapped_without_allocation: AllocatesForPeers;
    a_group_frame_reaches_every_member_once: SendsToTheGroupTwice, NamesTheWrongPeer;
    a_group_has_every_size_and_lane: CutsFramesToTheGroup;
    frames_to_the_group_and_to_one_are_apart: TellsAllWhatIsForOne;
    nothing_is_allocated_for_a_group: AllocatesForTheGroup;
}
