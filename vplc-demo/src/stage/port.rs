//! A switch for the form without rights: a thread between the two runtimes that forwards
//! datagrams over loopback, each way at the rate of a port, first come first served, and
//! drops what the port has no room for. It knows nothing of what it forwards.
//!
//! ```text
//!   runtime a --> [facing a] ==queue to b==> [facing b] --> runtime b
//!             <--            <==queue to a==            <--
//! ```
//!
//! Each runtime takes the side that faces it for its peer. A link has two ports, and so has
//! each side. At most [`PORT_BYTES`] wait each way, and a turn takes [`BURST`] datagrams
//! from each socket.

use super::StageError;
use crate::course::{AROUND_BYTES, PORT_BYTES, PORT_MBPS};
use crate::roles::Stop;
use insane_core::{MonoTime, Nanos};
use insane_sys::clock::mono_now;
use insane_sys::event::{Epoll, Interest, Ready, Trigger};
use insane_sys::thread::{SchedPolicy, set_policy_current};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread::JoinHandle;

/// Datagrams taken from a socket at a time.
const BURST: usize = 32;
/// Largest datagram.
const DATAGRAM_BYTES: usize = 65_535;
/// Longest sleep, to see that it is to stop.
const SLEEP_MAX: Nanos = Nanos::from_millis(50);

/// The switch; ends with this value.
pub struct Switch {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// First ports of the four ends, on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The runtimes'.
    pub hosts: [u16; 2],
    /// The switch's, facing each.
    pub facing: [u16; 2],
}

impl Switch {
    /// Starts to forward; `fifo`: the thread's priority, where it may have one.
    pub fn start(ends: Ends, fifo: Option<u8>) -> Result<Self, StageError> {
        let bind =
            |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).and_then(|s| s.set_nonblocking(true).map(|()| s));
        let side = |first: u16| Ok([bind(first)?, bind(first + 1)?]);
        let [a, b] = ends.facing;
        let sides = side(a).and_then(|a| Ok([a, side(b)?]));
        let sides: [[UdpSocket; 2]; 2] = sides.map_err(StageError::system("opening the ports of a switch"))?;
        let stop = Stop::default();
        let asked = stop.clone();
        let body = move || {
            if let Some(priority) = fifo {
                // Without it the port is an ordinary thread, and as punctual as one.
                let _ = set_policy_current(SchedPolicy::Fifo(priority));
            }
            forward(&sides, ends, &asked);
        };
        let thread = std::thread::Builder::new().name("switch".into()).spawn(body);
        Ok(Switch { stop, thread: Some(thread.map_err(StageError::system("starting a thread"))?) })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn forward(sides: &[[UdpSocket; 2]; 2], ends: Ends, stop: &Stop) {
    let Ok(epoll) = Epoll::new() else { return };
    for socket in sides.iter().flatten() {
        let _ = epoll.add(socket, 0, Interest::Read, Trigger::Level);
    }
    let mut ways = [Queue::default(), Queue::default()];
    let mut bytes = vec![0; DATAGRAM_BYTES];
    while !stop.asked() {
        for (from, way) in ways.iter_mut().enumerate() {
            let (to, now) = (1 - from, mono_now());
            for (class, socket) in sides[from].iter().enumerate() {
                for _ in 0..BURST {
                    let Ok((len, sender)) = socket.recv_from(&mut bytes) else { break };
                    if sender.port() == ends.hosts[from] + class as u16 {
                        way.put(now, class, &bytes[..len]);
                    }
                }
            }
            while let Some(frame) = way.leaves(mono_now()) {
                let to_port = ends.hosts[to] + frame.class as u16;
                let there = SocketAddr::from((Ipv4Addr::LOCALHOST, to_port));
                // A receiver without room loses it, as on a cable.
                let _ = sides[to][frame.class].send_to(&frame.bytes, there);
                way.spare.push(frame.bytes);
            }
        }
        let next = ways.iter().filter_map(|way| way.frames.front()).map(|frame| frame.leaves).min();
        let rest = next.map_or(SLEEP_MAX, |at| at.since(mono_now()).min(SLEEP_MAX));
        let _ = epoll.wait(&mut [Ready::NONE; 4], Some(rest));
    }
}

/// What waits for one port.
#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    free_at: MonoTime,
    /// Memory of frames that have left.
    spare: Vec<Vec<u8>>,
}

struct Frame {
    /// When its last bit has left.
    leaves: MonoTime,
    class: usize,
    bytes: Vec<u8>,
}

impl Queue {
    /// A datagram came; dropped if there is no room.
    fn put(&mut self, now: MonoTime, class: usize, datagram: &[u8]) {
        let on_wire = datagram.len() + AROUND_BYTES;
        if self.bytes + on_wire > PORT_BYTES {
            return;
        }
        self.bytes += on_wire;
        let bits = on_wire as u64 * 8;
        self.free_at = self.free_at.max(now) + Nanos(bits * 1_000 / u64::from(PORT_MBPS));
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(datagram);
        self.frames.push_back(Frame { leaves: self.free_at, class, bytes });
    }

    /// The next that has left by `now`.
    fn leaves(&mut self, now: MonoTime) -> Option<Frame> {
        if self.frames.front()?.leaves > now {
            return None;
        }
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.bytes.len() + AROUND_BYTES;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_leave_in_order_at_the_rate_of_the_port() {
        let mut queue = Queue::default();
        let start = MonoTime(1_000_000);
        (0..10_u8).for_each(|n| queue.put(start, 0, &[n; 1_250 - AROUND_BYTES]));
        // 1,250 bytes are 100 us at 100 Mbit/s.
        assert!(queue.leaves(start + Nanos(99_999)).is_none());
        for n in 0..10_u8 {
            let frame = queue.leaves(start + Nanos::from_micros(100 * (u64::from(n) + 1))).expect("it has left");
            assert_eq!(frame.bytes[0], n);
            assert!(queue.leaves(start + Nanos::from_micros(100 * (u64::from(n) + 1))).is_none());
        }
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_port_that_is_full_drops_and_one_that_rested_owes_nothing() {
        let mut queue = Queue::default();
        (0..1_000).for_each(|_| queue.put(MonoTime(0), 1, &[0; 1_000]));
        assert_eq!(queue.frames.len(), PORT_BYTES / (1_000 + AROUND_BYTES));
        let late = MonoTime(1_000_000_000);
        while queue.leaves(late).is_some() {}
        queue.put(late, 0, &[0; 1_000]);
        assert_eq!(queue.frames[0].leaves, late + Nanos(1_066 * 80));
    }

    #[test]
    fn datagrams_of_a_peer_come_through_and_those_of_strangers_do_not() {
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        // Pairs of ports: any that are free.
        let pair = || loop {
            let first = socket();
            let port = first.local_addr().unwrap().port();
            if let Ok(second) = UdpSocket::bind(("127.0.0.1", port.wrapping_add(1))) {
                return (port, [first, second]);
            }
        };
        let ((a, of_a), (b, of_b)) = (pair(), pair());
        // A child that another test forks meanwhile has a copy of what is given back here.
        let mut tries = 0..50;
        let (facing_a, facing_b, _switch) = loop {
            let ((facing_a, x), (facing_b, y)) = (pair(), pair());
            drop((x, y));
            match Switch::start(Ends { hosts: [a, b], facing: [facing_a, facing_b] }, None) {
                Ok(switch) => break (facing_a, facing_b, switch),
                Err(error) => assert!(tries.next().is_some(), "{error}"),
            }
        };
        socket().send_to(b"stranger", ("127.0.0.1", facing_a)).unwrap();
        for class in 0..2 {
            of_a[class].send_to(b"there", ("127.0.0.1", facing_a + class as u16)).unwrap();
            let mut bytes = [0; 16];
            let (len, from) = of_b[class].recv_from(&mut bytes).unwrap();
            assert_eq!((&bytes[..len], from.port()), (&b"there"[..], facing_b + class as u16));
            of_b[class].send_to(b"back", from).unwrap();
            let (len, from) = of_a[class].recv_from(&mut bytes).unwrap();
            assert_eq!((&bytes[..len], from.port()), (&b"back"[..], facing_a + class as u16));
        }
    }
}
