//! Our cells, in the form that the scenarios set beside the baselines.
//!
//! Everything is opened on a thread that is not pinned, so that the runtime's own
//! threads are not bound to the measured core, and then moved to the pinned ones.
//! Every cell has runtimes of its own: while a baseline is measured, none of ours runs.

use super::{Cost, flow_pace, network_flow_pace, pace};
use crate::cli::Plugin;
use crate::harness::Bench;
use crate::harness::birth::{Birth, births};
use crate::harness::converse::{BothEnds, Duplex, End};
use crate::harness::fault::Fault;
use crate::harness::netns::Hosts;
use crate::harness::paced::paced;
use crate::harness::sample::Sample;
use crate::harness::topology::{flow, flow_t3, t1, t2, t3};
use crate::harness::watch::Idle;
use crate::ours::daemon::{Daemon, Wanted};
use crate::ours::end::{Both, ComposePut, Contract, Flood, Handling, Put, Sleepy, Take};
use crate::ours::fault;
use crate::ours::plan::{self, Seat};
use insane_config::raw::XdpMode;
use insane_rt::{Hosting, Plan, Session};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// First port of the runtimes on two hosts.
const PORT: u16 = 7_400;
pub const STREAM: &str = "latency";

/// Two sessions of one runtime inside this process, whose datapath sleeps.
fn siblings() -> Result<(Session, Session), Fault> {
    let first = embed(plan::local(Seat::ASLEEP), Hosting::Thread)?;
    let second = first.sibling("second").map_err(fault("one more session"))?;
    Ok((first, second))
}

pub fn embed(plan: Plan, hosting: Hosting) -> Result<Session, Fault> {
    Session::embedded_with(plan, hosting, "latency-tests").map_err(fault("start a runtime"))
}

/// Both ends of a conversation, connected.
fn conversation(sessions: (Session, Session), contract: Contract) -> Result<(Both, Both), Fault> {
    let asking = Both::open(sessions.0, STREAM, contract, true)?;
    let answering = Both::open(sessions.1, STREAM, contract, false)?;
    Ok((asking.connect()?, answering.connect()?))
}

/// T1: two sessions, direct rings.
pub fn local_t1(bench: &Bench, contract: Contract) -> Result<Sample, Fault> {
    let (asking, answering) = conversation(siblings()?, contract)?;
    t1(bench, &pace(bench, Cost::Memory, Idle::Spin), move || Ok(asking), move || Ok(answering))
}

/// T1: two sessions of a daemon in another process, direct rings.
pub fn attached_t1(bench: &Bench, program: Option<&Path>) -> Result<Sample, Fault> {
    let daemon = daemon_alone(Seat::ASLEEP, program)?;
    let (asking, answering) = conversation((daemon.attach("first")?, daemon.attach("second")?), Contract::SMALL)?;
    t1(bench, &pace(bench, Cost::Memory, Idle::Spin), move || Ok(asking), move || Ok(answering))
}

/// T1: two sessions of one runtime, direct rings, both ends asleep between messages.
pub fn blocking_t1(bench: &Bench) -> Result<Sample, Fault> {
    let contract = Contract { sleepy: true, ..Contract::SMALL };
    let (asking, answering) = conversation(siblings()?, contract)?;
    let pace = super::idle::sleepy_pace(bench);
    t1(bench, &pace, move || Ok(Sleepy(asking)), move || Ok(Sleepy(answering)))
}

/// What is open beside an active stream and does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Crowd {
    /// Streams, each with a sink and a source that sends nothing.
    pub streams: usize,
    /// So many of them belong to one session.
    pub a_session: usize,
}

impl Crowd {
    /// Nothing.
    pub const NOBODY: Crowd = Crowd::of(0);

    /// So many streams, of as few sessions as there is room for.
    #[must_use]
    pub const fn of(streams: usize) -> Self {
        Crowd { streams, a_session: 120 }
    }
}

/// T3: one isolated stream through the datapath of a runtime in this process, in a crowd.
pub fn hop_among(bench: &Bench, seat: Seat, crowd: Crowd) -> Result<Sample, Fault> {
    let first = embed(plan::roomy(seat), Hosting::Thread)?;
    let mut others = Vec::new();
    let mut left = crowd.streams;
    while left > 0 {
        let session = first.sibling("idle").map_err(fault("one more session"))?;
        for number in 0..left.min(crowd.a_session) {
            let stream = HOP.stream(&session, &format!("idle-{}", left - number))?;
            // With a sink, so that the datapath serves the source.
            let (take, put) = (Take::open(&stream, 1, HOP)?, Put::open(&stream, 1, HOP)?);
            put.connect()?;
            others.push((put, take));
        }
        left -= left.min(crowd.a_session);
    }
    let second = first.sibling("second").map_err(fault("one more session"))?;
    let (asking, answering) = conversation((first, second), HOP)?;
    let pace = pace(bench, Cost::Memory, Idle::Spin);
    t3(bench, &pace, move || Ok(BothEnds::new(asking, answering)), None)
}

/// A source and its local sinks, on one thread.
pub struct FanOut {
    put: Put,
    sinks: Vec<Take>,
    _session: Session,
}

/// A source with so many local sinks.
pub fn fan_out(sinks: usize) -> Result<FanOut, Fault> {
    let session = embed(plan::local(Seat::ASLEEP), Hosting::Thread)?;
    let stream = Contract::SMALL.stream(&session, STREAM)?;
    let takes = (0..sinks).map(|_| Take::open(&stream, 1, Contract::SMALL)).collect::<Result<Vec<_>, _>>()?;
    let put = Put::open(&stream, 1, Contract::SMALL)?;
    put.connect_to(sinks)?;
    Ok(FanOut { put, sinks: takes, _session: session })
}

impl FanOut {
    /// Sends message `number` to all.
    #[inline(always)]
    pub fn emit(&mut self, number: u64) -> Result<(), Fault> {
        if self.put.send(number)? { Ok(()) } else { Err(Fault::Party("a ring is full".into())) }
    }

    /// Takes and verifies `count` messages at each sink.
    pub fn drain(&mut self, count: u64) -> Result<(), Fault> {
        for sink in &mut self.sinks {
            for _ in 0..count {
                sink.receive()?.ok_or_else(|| Fault::Party("a message is missing".into()))?;
            }
        }
        Ok(())
    }
}

/// Two applications of a daemon, each waiting for the other's message, which does not come;
/// `meanwhile` is given the daemon's process.
pub fn idle_applications<T>(
    program: Option<&Path>,
    meanwhile: impl FnOnce(u32) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let contract = Contract { sleepy: true, ..Contract::SMALL };
    let daemon = daemon_alone(Seat::ASLEEP, program)?;
    let (asking, answering) = conversation((daemon.attach("first")?, daemon.attach("second")?), contract)?;
    let stop = AtomicBool::new(false);
    let stop = &stop;
    std::thread::scope(|scope| {
        for mut end in [asking, answering].map(Sleepy) {
            scope.spawn(move || while !stop.load(Ordering::Relaxed) && end.0.wait(IDLE_WAIT).is_ok() {});
        }
        std::thread::sleep(IDLE_WAIT);
        let result = meanwhile(daemon.process());
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// How long an application waits at a time for what does not come.
const IDLE_WAIT: Duration = Duration::from_secs(1);

/// Buffers of a source of tokens, whatever their size: what differs is the size alone.
const TOKEN_BUFFERS: u32 = 8;

/// The contract of a token: a buffer of `size` bytes that nobody writes or reads.
#[must_use]
pub fn token(size: usize) -> Contract {
    Contract { size, handling: Handling::Token, buffers: Some(TOKEN_BUFFERS), ..Contract::SMALL }
}

/// A daemon with one udp link open and no peer.
fn daemon_alone(seat: Seat, program: Option<&Path>) -> Result<Daemon, Fault> {
    let bind = plan::free_ports(LOOPBACK)?;
    let (name, plugin) = ("latency-tests", Plugin::Udp);
    Daemon::start(&Wanted { name, bind, plugin, peer: None, seat, rate: None, namespace: None, program })
}

/// Every message through the daemon's datapath.
const HOP: Contract = Contract { isolated: true, ..Contract::SMALL };

/// T3: through the daemon, both ends in one thread.
pub fn hop_t3(bench: &Bench, program: Option<&Path>) -> Result<Sample, Fault> {
    let daemon = daemon_alone(Seat::alone(bench.cores.other), program)?;
    let (asking, answering) = conversation((daemon.attach("first")?, daemon.attach("second")?), HOP)?;
    let pace = pace(bench, Cost::Memory, Idle::Spin);
    t3(bench, &pace, move || Ok(BothEnds::new(asking, answering)), None)
}

/// T2: through the daemon, both ends yield to each other.
pub fn hop_t2(bench: &Bench, program: Option<&Path>) -> Result<Sample, Fault> {
    let daemon = daemon_alone(Seat::alone(bench.cores.other), program)?;
    let (asking, answering) = conversation((daemon.attach("first")?, daemon.attach("second")?), HOP)?;
    let pace = pace(bench, Cost::Kernel, Idle::Yield);
    t2(bench, &pace, move || Ok(asking), move || Ok(answering), None)
}

/// Where the two runtimes of a network cell live.
#[derive(Clone, Copy)]
pub enum Place<'h> {
    /// On this host, over loopback.
    Loopback,
    /// On two hosts joined by veth.
    Veth(&'h Hosts),
}

impl Place<'_> {
    pub fn addresses(self) -> Result<[SocketAddr; 2], Fault> {
        match self {
            Place::Loopback => Ok([plan::free_ports(LOOPBACK)?, plan::free_ports(LOOPBACK)?]),
            Place::Veth(_) => Ok(Hosts::ADDRESSES.map(|address| SocketAddr::new(address, PORT))),
        }
    }

    /// As [`addresses`](Self::addresses), those that a plugin can have.
    pub fn addresses_for(self, plugin: Plugin) -> Result<[SocketAddr; 2], Fault> {
        match plugin {
            Plugin::Udp | Plugin::Tcp => self.addresses(),
            Plugin::XdpNative | Plugin::XdpSkb => {
                Ok(Hosts::BYPASS_ADDRESSES.map(|address| SocketAddr::new(address, PORT)))
            }
            Plugin::Dpdk | Plugin::DpdkAfXdp | Plugin::DpdkMemif => Ok(crate::ours::dpdk::ADDRESSES),
            Plugin::Rdma => crate::ours::rdma::addresses(),
        }
    }

    /// Runs `make` where host `host` is; threads that it starts stay there.
    pub fn on<T: Send>(self, host: usize, make: impl FnOnce() -> Result<T, Fault> + Send) -> Result<T, Fault> {
        match self {
            Place::Loopback => make(),
            Place::Veth(hosts) => hosts.on(host, make),
        }
    }

    /// Moves this thread to where host `host` is: a link opens sockets where its engine is
    /// turned, which with inline hosting is the application's thread.
    pub fn enter(self, host: usize) -> Result<(), Fault> {
        match self {
            Place::Loopback => Ok(()),
            Place::Veth(hosts) => hosts.enter(host),
        }
    }
}

/// T1: two runtimes inside this process, whose engines the applications turn.
pub fn network_inline(bench: &Bench, place: Place<'_>, plugin: Plugin) -> Result<Sample, Fault> {
    network_inline_of(bench, place, plugin, Contract::SMALL)
}

/// As [`network_inline`], by other messages than small ones.
pub fn network_inline_of(bench: &Bench, place: Place<'_>, plugin: Plugin, contract: Contract) -> Result<Sample, Fault> {
    // Two that never sleep: a link that can do without interrupts does.
    let seat = if plugin == Plugin::Rdma { Seat { idle: plan::NEVER_SLEEPS, ..Seat::ASLEEP } } else { Seat::ASLEEP };
    let sessions = embedded_pair(place, [seat; 2], [Hosting::Inline; 2], plugin)?;
    let asking = Both::open(sessions.0, STREAM, contract, true)?;
    let answering = Both::open(sessions.1, STREAM, contract, false)?;
    let connect = move |end: Both, host| place.enter(host).and_then(|()| end.connect());
    t1(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || connect(asking, 0), move || connect(answering, 1))
}

/// T1: two runtimes inside this process, each with a thread that shares the core of
/// its application and sleeps when it has nothing to do.
pub fn network_thread(bench: &Bench, place: Place<'_>) -> Result<Sample, Fault> {
    let sessions = embedded_pair(place, shared_seats(bench), [Hosting::Thread; 2], Plugin::Udp)?;
    let (asking, answering) = conversation(sessions, Contract::SMALL)?;
    t1(bench, &pace(bench, Cost::Kernel, Idle::Yield), move || Ok(asking), move || Ok(answering))
}

/// T1 or T4: two daemons, each on the core of its application, there and as the seats say.
pub fn network_daemon(
    bench: &Bench,
    hosts: &Hosts,
    program: Option<&Path>,
    plugin: Plugin,
    seats: [Seat; 2],
) -> Result<Sample, Fault> {
    let addresses = Place::Veth(hosts).addresses_for(plugin)?;
    let names = ["a", "b"];
    let start = |host: usize| {
        let peer = Some((names[1 - host], addresses[1 - host]));
        let (bind, seat) = (addresses[host], seats[host]);
        Daemon::start(&Wanted {
            name: names[host],
            bind,
            plugin,
            peer,
            seat,
            rate: None,
            namespace: Some(hosts.name(host)),
            program,
        })
    };
    let (first, second) = (start(0)?, start(1)?);
    // A daemon's socket is a file, so both are reached from here.
    let (asking, answering) = conversation((first.attach("asking")?, second.attach("answering")?), Contract::SMALL)?;
    t1(bench, &pace(bench, Cost::Kernel, Idle::Yield), move || Ok(asking), move || Ok(answering))
}

/// One host to itself: out through the daemon's udp link on cpu1, in through the
/// link of a second runtime that the same application thread on cpu0 turns.
pub fn network_self(bench: &Bench, program: Option<&Path>) -> Result<Sample, Fault> {
    let [there, here] = Place::Loopback.addresses()?;
    let seat = Seat::alone(bench.cores.other);
    let (name, plugin, peer) = ("daemon", Plugin::Udp, Some(("own", here)));
    let wanted = Wanted { name, bind: there, plugin, peer, seat, rate: None, namespace: None, program };
    let daemon = Daemon::start(&wanted)?;
    let own = embed(plan::peer(("own", here), ("daemon", there), Seat::ASLEEP, Plugin::Udp), Hosting::Inline)?;
    let (sender, receiver) = (daemon.attach("sender")?, own);
    let take = Take::open(&Contract::SMALL.stream(&receiver, STREAM)?, 1, Contract::SMALL)?;
    let put = Put::open(&Contract::SMALL.stream(&sender, STREAM)?, 1, Contract::SMALL)?;
    put.connect()?;
    let end = Duplex::new(put, take);
    t3(bench, &pace(bench, Cost::Kernel, Idle::Spin), move || Ok(end), None)
}

/// The cores of both applications, for datapaths that sleep there.
pub fn shared_seats(bench: &Bench) -> [Seat; 2] {
    [bench.cores.app, bench.cores.other].map(|core| Seat { core: Some(core), ..Seat::ASLEEP })
}

fn embedded_pair(
    place: Place<'_>,
    seats: [Seat; 2],
    hostings: [Hosting; 2],
    plugin: Plugin,
) -> Result<(Session, Session), Fault> {
    embedded_pair_for(place, seats, hostings, plugin, 0)
}

/// Two runtimes joined by a plugin, which carries `frame_bytes` in one frame if it can.
fn embedded_pair_for(
    place: Place<'_>,
    seats: [Seat; 2],
    hostings: [Hosting; 2],
    plugin: Plugin,
    frame_bytes: u32,
) -> Result<(Session, Session), Fault> {
    let addresses = place.addresses_for(plugin)?;
    let names = ["a", "b"];
    let start = |host: usize| {
        let (own, peer) = ((names[host], addresses[host]), (names[1 - host], addresses[1 - host]));
        let mut plan = plan::peer(own, peer, seats[host], plugin);
        plan::widen_tcp_frames(&mut plan, frame_bytes);
        place.on(host, move || embed(plan, hostings[host]))
    };
    Ok((start(0)?, start(1)?))
}

/// In front of a message on the network, with room to spare, bytes.
const HEADER_BYTES: usize = 256;
/// Buffers of a source whose messages are larger than one frame of Ethernet: as many as are
/// under way. With more of them it would write each message into memory that it has not
/// touched for long, which the baseline, with its one buffer, never does.
const LARGE_BUFFERS: u32 = 4;

/// T3, one way, between two hosts, as fast as it goes: the sender's runtime has cpu1, both
/// applications are one thread on cpu0, which turns the receiver's engine. Over tcp, a
/// message is one frame.
pub fn network_flow(bench: &Bench, place: Place<'_>, plugin: Plugin, size: usize) -> Result<Sample, Fault> {
    let seats = [Seat::alone(bench.cores.other), Seat::ASLEEP];
    let hostings = [Hosting::Thread, Hosting::Inline];
    let sessions = embedded_pair_for(place, seats, hostings, plugin, (size + HEADER_BYTES) as u32)?;
    let buffers = (plugin == Plugin::Tcp && size > 1_500).then_some(LARGE_BUFFERS);
    let (put, take) = ends(&sessions, Contract { size, buffers, ..Contract::SMALL })?;
    let sample = flow_t3(bench, &network_flow_pace(bench, size), (Flood::new(put), take));
    // What a driver of DPDK has on an interface it looks for where it is closed.
    let (sender, receiver) = sessions;
    let close = |host, session: Session| {
        place.on(host, move || {
            drop(session);
            Ok(())
        })
    };
    close(0, sender).and(close(1, receiver)).and(sample)
}

/// As [`network_flow`], over rdma, by frames of so many bytes.
pub fn network_flow_framed(bench: &Bench, size: usize, frame_bytes: u32) -> Result<Sample, Fault> {
    let [own, peer] = Place::Loopback.addresses_for(Plugin::Rdma)?;
    let start = |(own, peer), seat, hosting| {
        let mut plan = plan::peer(own, peer, seat, Plugin::Rdma);
        plan::set_rdma_frames(&mut plan, frame_bytes);
        embed(plan, hosting)
    };
    let put = start((("a", own), ("b", peer)), Seat::alone(bench.cores.other), Hosting::Thread)?;
    let take = start((("b", peer), ("a", own)), Seat::ASLEEP, Hosting::Inline)?;
    let sessions = (put, take);
    let (put, take) = ends(&sessions, Contract { size, ..Contract::SMALL })?;
    flow_t3(bench, &network_flow_pace(bench, size), (Flood::new(put), take))
}

/// T1, one way, between two hosts, over tcp, as fast as it goes: both applications turn
/// their own engines, so that each payload is composed on the core that sends it. A message
/// is one frame.
pub fn network_flow_inline(bench: &Bench, hosts: &Hosts, size: usize) -> Result<Sample, Fault> {
    let frame_bytes = (size + HEADER_BYTES) as u32;
    let seats = [Seat::ASLEEP; 2];
    let sessions = embedded_pair_for(Place::Veth(hosts), seats, [Hosting::Inline; 2], Plugin::Tcp, frame_bytes)?;
    let buffers = (size > 1_500).then_some(LARGE_BUFFERS);
    let contract = Contract { size, buffers, ..Contract::SMALL };
    let take = Take::open(&contract.stream(&sessions.1, STREAM)?, 1, contract)?;
    let put = Put::open(&contract.stream(&sessions.0, STREAM)?, 1, contract)?;
    let place = Place::Veth(hosts);
    let connect = move || {
        place.enter(0)?;
        put.connect()?;
        Ok(Flood::new(put))
    };
    flow(bench, &network_flow_pace(bench, size), connect, move || place.enter(1).map(|()| take))
}

/// T1, one way, between two hosts, one message after the other has arrived: both
/// applications turn their own engines.
pub fn network_paced(bench: &Bench, hosts: &Hosts, size: usize) -> Result<Sample, Fault> {
    let sessions = embedded_pair(Place::Veth(hosts), [Seat::ASLEEP; 2], [Hosting::Inline; 2], Plugin::Udp)?;
    let (put, take) = ends(&sessions, Contract { size, ..Contract::SMALL })?;
    let (put, take) = paced(put, take);
    flow(bench, &network_flow_pace(bench, size), move || Ok(put), move || Ok(take))
}

/// One channel between two runtimes of this thread, on this host.
pub fn to_a_sibling(plugin: Plugin) -> Result<(Put, Take, (Session, Session)), Fault> {
    let seat = if plugin == Plugin::Rdma { Seat { idle: plan::NEVER_SLEEPS, ..Seat::ASLEEP } } else { Seat::ASLEEP };
    let sessions = embedded_pair(Place::Loopback, [seat; 2], [Hosting::Inline; 2], plugin)?;
    let (put, take) = ends(&sessions, Contract::SMALL)?;
    Ok((put, take, sessions))
}

/// One channel between two runtimes of this thread, on two hosts joined by veth, by xdp in the
/// driver. Each knows so many other peers, who never answer.
pub fn to_a_sibling_over_xdp(hosts: &Hosts, others: usize) -> Result<(Put, Take, (Session, Session)), Fault> {
    let addresses = Hosts::BYPASS_ADDRESSES.map(|address| SocketAddr::new(address, PORT));
    let start = |host: usize| {
        let technology = plan::xdp_at(Hosts::INTERFACE, XdpMode::Native, addresses[host]);
        let mut plan = Plan::embedded_over(["a", "b"][host], technology);
        for other in 0..others {
            let address = Ipv4Addr::new(10, 231, 7, 100 + other as u8).into();
            plan.add_peer(&format!("silent-{other}"), &[(technology.name(), SocketAddr::new(address, PORT))]);
        }
        plan.add_peer(["b", "a"][host], &[(technology.name(), addresses[1 - host])]);
        Place::Veth(hosts).on(host, move || embed(plan, Hosting::Inline))
    };
    let sessions = (start(0)?, start(1)?);
    let (put, take) = ends(&sessions, Contract::SMALL)?;
    Ok((put, take, sessions))
}

/// Both ends of one channel, connected.
fn ends(sessions: &(Session, Session), contract: Contract) -> Result<(Put, Take), Fault> {
    let take = Take::open(&contract.stream(&sessions.1, STREAM)?, 1, contract)?;
    let put = Put::open(&contract.stream(&sessions.0, STREAM)?, 1, contract)?;
    put.connect()?;
    Ok((put, take))
}

/// T1, one way, between two sessions of one runtime inside this process: payloads are
/// read in place.
pub fn flow_in_process(bench: &Bench, size: usize, handling: Handling) -> Result<Sample, Fault> {
    one_way(bench, siblings()?, Contract { size, handling, reliable: true, ..Contract::SMALL })
}

/// As [`flow_in_process`], each payload composed in the application's own memory and copied
/// by the emit.
pub fn flow_composed(bench: &Bench, size: usize) -> Result<Sample, Fault> {
    let sessions = siblings()?;
    let (put, take) = ends(&sessions, Contract { size, reliable: true, ..Contract::SMALL })?;
    let put = ComposePut::new(put);
    flow(bench, &flow_pace(bench, size), move || Ok(put), move || Ok(take))
}

/// T1, one way, between two sessions of a daemon: the sender's memory is foreign, and
/// the safe interface copies payloads out.
pub fn flow_foreign(bench: &Bench, size: usize, program: Option<&Path>) -> Result<Sample, Fault> {
    let daemon = daemon_alone(Seat::ASLEEP, program)?;
    let sessions = (daemon.attach("sender")?, daemon.attach("receiver")?);
    one_way(bench, sessions, Contract { size, reliable: true, ..Contract::SMALL })
}

fn one_way(bench: &Bench, sessions: (Session, Session), contract: Contract) -> Result<Sample, Fault> {
    let (put, take) = ends(&sessions, contract)?;
    flow(bench, &flow_pace(bench, contract.size), move || Ok(put), move || Ok(take))
}

/// From create_stream to the first message, between two sessions of a daemon.
pub fn birth(bench: &Bench, birth: Birth, program: Option<&Path>) -> Result<Sample, Fault> {
    let daemon = daemon_alone(Seat::ASLEEP, program)?;
    // Names are never used twice: a stream of the last repeat may still be closing.
    let repeat = Mutex::new(0_u32);
    births(bench, birth, || {
        let (writing, reading) = (daemon.attach("writer")?, daemon.attach("reader")?);
        let mut repeat = repeat.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *repeat += 1;
        let (of_writer, of_reader) = (format!("birth-{repeat}"), format!("birth-{repeat}"));
        let open_writer = move |number| {
            let stream = Contract::SMALL.stream(&writing, &format!("{of_writer}-{number}"))?;
            Ok(Heard(Put::open(&stream, 1, Contract::SMALL)?))
        };
        let open_reader = move |number| {
            let stream = Contract::SMALL.stream(&reading, &format!("{of_reader}-{number}"))?;
            Take::open(&stream, 1, Contract::SMALL)
        };
        Ok((open_writer, open_reader))
    })
}

/// A write end that has no room until somebody hears it: the first message must not
/// be lost.
struct Heard(Put);

impl End for Heard {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        if self.0.is_heard() { self.0.send(number) } else { Ok(false) }
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

/// Two ends of one channel on one thread, for the counting tools, and the session
/// that they live in.
pub fn to_itself() -> Result<(Put, Take, Session), Fault> {
    let session = embed(plan::local(Seat::ASLEEP), Hosting::Thread)?;
    let stream = Contract::SMALL.stream(&session, STREAM)?;
    let take = Take::open(&stream, 1, Contract::SMALL)?;
    let put = Put::open(&stream, 1, Contract::SMALL)?;
    put.connect()?;
    Ok((put, take, session))
}
