//! Frames that a link reads straight into their places, and places that are taken away
//! meanwhile. The link does what the test says.

mod world;

use insane_core::counters::DatapathCounter;
use insane_core::time::Clock;
use insane_core::{HostId, Incarnation, Lane, Nanos, PeerIndex, SourceId};
use insane_engine::EngineConfig;
use insane_link::{FrameSink, Link, LinkCapabilities, SendOutcome, SwapRefused, Ticket};
use insane_shm::port::SinkPort;
use insane_sim::{SimClock, SimConfig, SimNet};
use insane_sys::SharedBytes;
use insane_wire::data::{CLOSING, DataHeader, Flags, HEADER_BYTES, Kind};
use insane_wire::reliable::{Body, Position, Sync};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use world::{Host, TOPIC, data_header, pattern};

const LEN: usize = 20_000;
const SENDER: HostId = HostId(2);
const LIFE: Incarnation = Incarnation(7);

/// What the link does in its next receive call.
enum Act {
    Frame(Vec<u8>),
    /// Asks for a place for this frame.
    Place(Vec<u8>),
    /// Fills the place that was given at this position of all answers with this frame's payload.
    Fill(usize, Vec<u8>),
    /// Says that it is full.
    Report(usize, Vec<u8>),
}

#[derive(Default)]
struct Script {
    acts: VecDeque<Act>,
    tickets: Vec<Option<Ticket>>,
    /// Whether there was memory, for each look.
    looks: Vec<bool>,
}

struct Scripted(Arc<Mutex<Script>>);

const PEER: PeerIndex = PeerIndex(0);

impl Link for Scripted {
    type Peer = ();

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "script",
            frame_bytes_max: 65_536,
            ordered: true,
            lossless: false,
            launch_time: false,
            multicast: false,
        }
    }

    fn send(&mut self, _: PeerIndex, _: Lane, _: &[u8], _: SharedBytes<'_>) -> SendOutcome {
        SendOutcome::Sent
    }

    fn flush(&mut self) {}

    fn receive<S: FrameSink>(&mut self, _budget: u32, _thorough: bool, sink: &mut S) -> u32 {
        let mut script = self.0.lock().unwrap();
        let Some(act) = script.acts.pop_front() else { return 0 };
        let ticket = |script: &Script, at: usize| script.tickets[at].expect("a place was given");
        match act {
            Act::Frame(frame) => sink.frame(Some(PEER), &frame),
            Act::Place(frame) => {
                let ticket = sink.place(PEER, &frame[..HEADER_BYTES], frame.len() - HEADER_BYTES);
                script.tickets.push(ticket);
            }
            Act::Fill(at, frame) => {
                let (head, payload) = frame.split_at(HEADER_BYTES);
                let memory = sink.memory(PEER, head, payload.len(), ticket(&script, at));
                script.looks.push(memory.is_some());
                if let Some(memory) = memory {
                    memory.copy_from_slice(payload);
                }
            }
            Act::Report(at, frame) => {
                sink.placed(PEER, &frame[..HEADER_BYTES], frame.len() - HEADER_BYTES, ticket(&script, at));
            }
        }
        1
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::empty()
    }

    fn swap_peer(&mut self, _: PeerIndex, _: &mut Option<()>) -> Result<(), SwapRefused> {
        Err(SwapRefused::NoPlace)
    }
}

struct World {
    net: SimNet,
    host: Host<Scripted, SimClock>,
    script: Arc<Mutex<Script>>,
    sink: SinkPort,
}

impl World {
    /// With two buffers for what comes, so that each one lost shows.
    fn new() -> World {
        let net = SimNet::new(1, SimConfig::default());
        let script = Arc::new(Mutex::new(Script::default()));
        let config = EngineConfig::new(HostId(1), Incarnation(1));
        let mut host = Host::of(config, Scripted(Arc::clone(&script)), net.clock(), 1, &[(LEN as u32, 2)], None);
        let (sink, _) = host.sink(TOPIC);
        host.route(TOPIC, &[], true);
        World { net, host, script, sink }
    }

    fn act(&mut self, act: Act) {
        self.script.lock().unwrap().acts.push_back(act);
        for _ in 0..40 {
            self.host.engine.turn();
        }
        assert!(self.script.lock().unwrap().acts.is_empty(), "the engine receives");
    }

    fn place(&mut self, frame: &[u8]) -> Option<usize> {
        self.act(Act::Place(frame.to_vec()));
        let script = self.script.lock().unwrap();
        script.tickets.last().unwrap().map(|_| script.tickets.len() - 1)
    }

    /// Whether the place is still there.
    fn fill(&mut self, at: usize, frame: &[u8]) -> bool {
        self.act(Act::Fill(at, frame.to_vec()));
        *self.script.lock().unwrap().looks.last().unwrap()
    }

    fn wait(&mut self, time: Nanos) {
        let end = self.net.clock().now() + time;
        while self.net.clock().now() < end {
            self.net.advance(Nanos::from_millis(5));
            self.host.engine.turn();
        }
    }

    /// What came: numbers and losses; content is checked.
    fn read(&mut self) -> Vec<(u64, u16)> {
        let mut came = Vec::new();
        while let Some(message) = self.sink.consume().unwrap() {
            assert_eq!(message.bytes(), Some(&pattern(message.sequence(), LEN)[..]), "torn");
            came.push((message.sequence(), message.lost()));
        }
        came
    }

    /// Passes `number` on as one whole frame, and by a place; both come, so no buffer is lost.
    fn is_whole_again(&mut self, flags: Flags, numbers: [u64; 3]) {
        for number in numbers {
            let frame = frame(flags, number, 0, LEN);
            let at = self.place(&frame).expect("a place");
            assert!(self.fill(at, &frame));
            self.act(Act::Report(at, frame));
            assert!(self.read().iter().any(|(came, _)| *came == number), "message {number}");
        }
    }
}

fn header(flags: Flags, sequence: u64) -> DataHeader {
    DataHeader { flags, ..data_header((SENDER.0, LIFE.0), sequence, LEN) }
}

/// Bytes `from` to `to` of message `sequence`.
fn frame(flags: Flags, sequence: u64, from: usize, to: usize) -> Vec<u8> {
    let header = DataHeader { fragment_offset: from as u32, ..header(flags, sequence) };
    [&header.encode()[..], &pattern(sequence, LEN)[from..to]].concat()
}

fn sync(base: u64, sent: u64) -> Vec<u8> {
    let own = (SENDER, LIFE);
    let header = DataHeader::reliable(own, (TOPIC.key, TOPIC.channel), SourceId(1));
    let body = Body::Sync(Sync {
        token: 1,
        base,
        sent: Position::start_of(sent),
        fresh: false,
        keeps: false,
        recap: 0,
        past: 0,
    });
    [&header.encode()[..], &body.encode()[..]].concat()
}

#[test]
fn a_message_is_collected_from_places_and_frames_in_any_order() {
    for flags in [Flags::NONE, Flags::RELIABLE] {
        let mut world = World::new();
        world.act(Act::Frame(sync(0, 0)));
        let [first, middle, last] =
            [(0, 6_400), (6_400, 12_800), (12_800, LEN)].map(|(from, to)| frame(flags, 0, from, to));
        let at = world.place(&first).expect("a place");
        assert!(world.fill(at, &first));
        world.act(Act::Report(at, first));
        world.act(Act::Frame(middle));
        let at = world.place(&last).expect("a place");
        assert!(world.fill(at, &last));
        assert_eq!(world.read(), [], "not before it is reported");
        world.act(Act::Report(at, last));
        assert_eq!(world.read(), [(0, 0)]);
        world.is_whole_again(flags, [1, 2, 3]);
    }
}

#[test]
fn a_place_that_was_taken_away_is_not_the_next_one_of_the_same_message() {
    let mut world = World::new();
    let (whole, first) = (frame(Flags::NONE, 0, 0, LEN), frame(Flags::NONE, 0, 0, 6_400));
    let old = world.place(&first).expect("a place");
    assert!(world.fill(old, &first));
    world.wait(Nanos::from_secs(1));
    assert!(world.fill(old, &first), "a connection may take its time");
    world.wait(Nanos::from_secs(4));
    assert!(!world.fill(old, &first), "but not for ever");
    // The same message comes once more.
    let new = world.place(&whole).expect("a place");
    assert!(!world.fill(old, &first));
    world.act(Act::Report(old, first));
    assert_eq!(world.read(), []);
    assert!(world.fill(new, &whole));
    world.act(Act::Report(new, whole));
    assert_eq!(world.read(), [(0, 0)]);
    world.is_whole_again(Flags::NONE, [1, 2, 3]);
}

#[test]
fn looks_without_a_byte_keep_no_place_for_ever() {
    let mut world = World::new();
    let (whole, first) = (frame(Flags::NONE, 0, 0, LEN), frame(Flags::NONE, 0, 0, 6_400));
    let at = world.place(&first).expect("a place");
    // As a link does whose peer has stopped in the midst of a frame.
    for _ in 0..50 {
        world.fill(at, &first);
        world.wait(Nanos::from_millis(100));
    }
    assert!(!world.fill(at, &first));
    assert!(world.place(&whole).is_some(), "the message may come anew");
}

/// How long a flow was at rest says nothing of the message that comes in now.
#[test]
fn the_first_message_after_a_rest_keeps_its_place() {
    let mut world = World::new();
    world.act(Act::Frame(sync(0, 0)));
    for number in 0..3 {
        let frame = frame(Flags::RELIABLE, number, 0, LEN);
        let at = world.place(&frame).expect("a place");
        // The rest of it is under way for longer than from one housekeeping to the next.
        world.wait(Nanos::from_millis(50));
        assert!(world.fill(at, &frame), "message {number}");
        world.act(Act::Report(at, frame));
        assert_eq!(world.read(), [(number, 0)]);
        world.wait(Nanos::from_secs(3));
    }
    // One that never comes wholly has its place no longer than a second.
    let never = frame(Flags::RELIABLE, 3, 0, LEN);
    let at = world.place(&never).expect("a place");
    world.wait(Nanos::from_millis(1_100));
    assert!(!world.fill(at, &never));
}

/// The frame as another source would send it.
fn of(source: u32, mut frame: Vec<u8>) -> Vec<u8> {
    let (header, _) = DataHeader::decode_frame(&frame).unwrap();
    frame[..HEADER_BYTES].copy_from_slice(&DataHeader { source: SourceId(source), ..header }.encode());
    frame
}

/// What is still under way to it finds it for a moment.
#[test]
fn without_a_free_place_a_flow_whose_source_has_closed_gives_way_first() {
    const PLACES: u32 = 256;
    let mut world = World::new();
    let hears = |world: &mut World, source, number| {
        world.act(Act::Frame(of(source, frame(Flags::RELIABLE, number, 0, LEN))));
        !world.read().is_empty()
    };
    for source in 0..PLACES {
        world.act(Act::Frame(of(source, sync(0, 0))));
        assert!(hears(&mut world, source, 0));
    }
    let end = DataHeader { kind: Kind::Fence, source_instant: CLOSING, message_len: 0, ..header(Flags::RELIABLE, 1) };
    let false_end = DataHeader { sequence: 0, source: SourceId(100), ..end };
    let early_end = DataHeader { sequence: 2, source: SourceId(101), ..end };
    for end in [DataHeader { source: SourceId(200), ..end }, false_end, early_end] {
        world.act(Act::Frame(end.encode().to_vec()));
    }
    world.wait(Nanos::from_millis(90));
    world.act(Act::Frame(of(PLACES, sync(0, 0))));
    assert_eq!(world.host.count(DatapathCounter::DroppedNoFlow), 1, "not at once");
    world.wait(Nanos::from_millis(10));
    world.act(Act::Frame(of(PLACES, sync(0, 0))));
    assert!(hears(&mut world, PLACES, 0), "the new one");
    for source in 0..PLACES {
        assert_eq!(hears(&mut world, source, 1), source != 200, "{source}");
    }
    // Now 101 is complete, too.
    world.wait(Nanos::from_millis(100));
    world.act(Act::Frame(of(PLACES + 1, sync(0, 0))));
    assert!(hears(&mut world, PLACES + 1, 0));
    assert!(!hears(&mut world, 101, 2) && hears(&mut world, 100, 2));
    assert_eq!(world.host.count(DatapathCounter::DroppedNoFlow), 1);
}

/// A flow at rest is forgotten for a new one, if there is no place else, and for nothing less.
#[test]
fn without_a_free_place_the_flow_that_was_silent_for_longest_gives_way() {
    const PLACES: u32 = 256;
    let mut world = World::new();
    let first = frame(Flags::RELIABLE, 0, 0, LEN);
    let hears = |world: &mut World, source| {
        world.act(Act::Frame(of(source, first.clone())));
        !world.read().is_empty()
    };
    for source in 0..PLACES {
        world.act(Act::Frame(of(source, sync(0, 0))));
    }
    world.act(Act::Frame(of(PLACES, sync(0, 0))));
    assert_eq!(world.host.count(DatapathCounter::DroppedNoFlow), 1, "all were heard of just now");
    assert!(!hears(&mut world, PLACES));
    world.wait(Nanos::from_secs(90));
    assert!(hears(&mut world, 1), "none is forgotten without need");
    world.act(Act::Frame(of(0, sync(0, 0))));
    world.act(Act::Frame(of(PLACES, sync(0, 0))));
    assert_eq!(world.host.count(DatapathCounter::DroppedNoFlow), 1);
    assert!(hears(&mut world, PLACES), "the new one");
    assert!(hears(&mut world, 0), "it was heard of");
    let gone = (2..PLACES).filter(|source| !hears(&mut world, *source)).count();
    assert_eq!(gone, 1, "and one had to go");
}

#[test]
fn what_comes_by_another_way_meanwhile_voids_the_place() {
    let mut world = World::new();
    let (slow, quick) = (frame(Flags::NONE, 0, 0, LEN), frame(Flags::NONE, 1, 0, LEN));
    let at = world.place(&slow).expect("a place");
    world.act(Act::Frame(quick));
    assert!(!world.fill(at, &slow), "it is older than what was released");
    world.act(Act::Report(at, slow.clone()));
    assert_eq!(world.read(), [(1, 0)], "the flow begins with what comes first");
    assert_eq!(world.place(&slow), None, "no place for what is late");
    world.is_whole_again(Flags::NONE, [2, 3, 4]);
}

#[test]
fn a_reliable_flow_that_goes_on_elsewhere_voids_the_place() {
    let mut world = World::new();
    let [zero, five] = [0, 5].map(|number| frame(Flags::RELIABLE, number, 0, LEN));
    assert_eq!(world.place(&zero), None, "a flow begins with a heartbeat");
    world.act(Act::Frame(sync(0, 0)));
    assert_eq!(world.place(&five), None, "not the next one");
    let old = world.place(&zero).expect("a place");
    let new = world.place(&zero).expect("the same frame by another way");
    assert!(!world.fill(old, &zero), "the later one has it");
    assert!(world.fill(new, &zero));
    world.act(Act::Report(old, zero.clone()));
    assert_eq!(world.read(), [], "nothing of it is in the memory that the report is about");
    world.act(Act::Frame(sync(5, 5)));
    assert!(!world.fill(new, &zero));
    world.act(Act::Report(new, zero));
    assert_eq!(world.read(), []);
    let at = world.place(&five).expect("a place");
    assert!(world.fill(at, &five));
    world.act(Act::Report(at, five));
    assert_eq!(world.read(), [(5, 5)], "the gap is told");
    world.is_whole_again(Flags::RELIABLE, [6, 7, 8]);
}

#[test]
fn what_nobody_hears_has_no_place() {
    let mut world = World::new();
    let here = frame(Flags::NONE, 0, 0, LEN);
    let elsewhere = DataHeader { channel: insane_core::ChannelId(9), ..header(Flags::NONE, 0) };
    let too_large = DataHeader { message_len: LEN as u32 + 64, ..header(Flags::NONE, 0) };
    let payload = pattern(0, LEN);
    for head in [elsewhere, too_large] {
        assert_eq!(world.place(&[&head.encode()[..], &payload[..LEN - LEN % 64]].concat()), None);
    }
    let mut damaged = here.clone();
    damaged[9] ^= 1;
    assert_eq!(world.place(&damaged), None);
    // Both buffers are on loan; whoever never reports does not keep them.
    let two = [here, frame(Flags::NONE, 1, 0, LEN)];
    let places = two.each_ref().map(|frame| world.place(frame).expect("a place"));
    assert_eq!(world.place(&frame(Flags::NONE, 2, 0, LEN)), None);
    world.wait(Nanos::from_secs(5));
    assert_eq!([0, 1].map(|at| world.fill(places[at], &two[at])), [false; 2]);
    assert_eq!(world.read(), []);
    world.is_whole_again(Flags::NONE, [2, 3, 4]);
}

/// A flow goes by the time that passes, whatever its thread was kept from.
#[test]
fn a_forged_number_ends_no_flow_of_large_messages_after_a_pause() {
    for by_place in [false, true] {
        let mut world = World::new();
        world.wait(Nanos::from_millis(10));
        world.host.engine.housekeeping();
        world.net.advance(Nanos::from_secs(5));
        world.host.engine.housekeeping();
        for came in [(0, 0), (1_000, 999)] {
            world.act(Act::Frame(frame(Flags::NONE, came.0, 0, LEN)));
            assert_eq!(world.read(), [came]);
        }
        let mut came = Vec::new();
        for number in 1..7 {
            world.wait(Nanos::from_millis(260));
            let whole = frame(Flags::NONE, number, 0, LEN);
            if by_place {
                let at = world.place(&whole).expect("a place");
                assert!(world.fill(at, &whole));
                world.act(Act::Report(at, whole));
            } else {
                world.act(Act::Frame(frame(Flags::NONE, number, 0, 6_400)));
                world.act(Act::Frame(frame(Flags::NONE, number, 6_400, LEN)));
            }
            came.extend(world.read());
        }
        assert_eq!(came, [(4, 0), (5, 0), (6, 0)], "by place: {by_place}");
    }
}
