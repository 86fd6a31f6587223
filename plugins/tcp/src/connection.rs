//! One class of one peer: its connection, or the attempt at one.

use crate::backoff::{self, Backoff};
use crate::hello::{HELLO_BYTES, Hello};
use crate::input::{Input, Next, input_bytes};
use crate::output::{Output, output_bytes};
use crate::placing::{AHEAD_BYTES, Filled, PLACED_BYTES_MIN, Placing};
use insane_core::{MonoTime, Nanos, PeerIndex};
use insane_link::FrameSink;
use insane_sys::event::Epoll;
use insane_sys::tcp::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// How long either side of a new connection may take to be known.
pub(crate) const HANDSHAKE_MAX: Nanos = Nanos::from_secs(2);
/// How long a connection that the kernel takes nothing for is busy, before its frames
/// fail: longer than a receiver on a shared core is kept waiting, and short beside the
/// time until its connection is given up, for all receivers of a source wait with it.
const STALL_MAX: Nanos = Nanos::from_millis(100);

/// Bytes of this process that one connection takes; a peer has two. The kernel's
/// socket buffers come on top.
#[must_use]
pub const fn connection_bytes(frame_bytes_max: u32) -> usize {
    input_bytes(frame_bytes_max as usize) + output_bytes(frame_bytes_max as usize)
}

/// Who makes the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Connects,
    Accepts,
}

/// How far it is.
pub(crate) enum Phase {
    /// Not there; to be tried at this instant by whoever connects.
    Down { retry_at: MonoTime },
    /// Under way.
    Connecting { stream: TcpStream, since: MonoTime },
    /// Our hello is sent, the other is awaited.
    Greeting { stream: TcpStream, since: MonoTime, hearing: Hearing },
    /// It carries frames.
    Live { stream: TcpStream, since: MonoTime },
    /// It ended, and nobody has looked at the clock since.
    Lost { lived_since: MonoTime },
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Closed, reset, or out of reach.
    Gone,
    /// What came was no frame.
    Garbage,
}

/// How [`Connection::take`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Took {
    /// The kernel had no more.
    All,
    /// The budget ended; frames are left in this process.
    Part,
    /// The connection did.
    Ended(End),
}

/// See the module.
pub(crate) struct Connection {
    /// Where the peer listens for this class.
    pub(crate) address: SocketAddr,
    /// The peer's first port: what its hello says.
    pub(crate) port: u16,
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    pub(crate) input: Input,
    intake: Box<Intake>,
    pub(crate) output: Output,
    pub(crate) backoff: Backoff,
    /// The kernel is asked to tell when it has room.
    pub(crate) watches_room: bool,
    stall: Stall,
}

/// How what comes is taken.
#[derive(Default)]
struct Intake {
    /// The frame that is read straight to its place; the input is empty then.
    placing: Option<Placing>,
    /// The last frame was placed, so the next one probably will be: little is read into the
    /// input.
    placed: bool,
    /// There is no place for the cut frame at the front.
    gathering: bool,
}

/// Notices, with the few looks at the clock that there are, that the kernel takes
/// nothing.
#[derive(Clone, Copy, Default)]
struct Stall {
    /// Bytes written when it was last seen to move, and when that was.
    moved: (u64, MonoTime),
    /// A frame was refused since.
    refused: bool,
    stalled: bool,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr, port: u16, role: Role, frame_bytes_max: usize, seed: u64) -> Self {
        Connection {
            address,
            port,
            role,
            phase: Phase::Down { retry_at: MonoTime(0) },
            input: Input::new(frame_bytes_max),
            intake: Box::default(),
            output: Output::new(frame_bytes_max),
            backoff: Backoff::new(seed),
            watches_room: false,
            stall: Stall::default(),
        }
    }

    /// The connection carries frames from now on.
    pub(crate) fn go_live(&mut self, stream: TcpStream, now: MonoTime) {
        self.reset();
        self.stall = Stall { moved: (self.output.written(), now), ..Stall::default() };
        self.phase = Phase::Live { stream, since: now };
    }

    /// The connection is over; its socket closes here.
    pub(crate) fn lose(&mut self, epoll: &Epoll) {
        let mut lived_since = MonoTime(u64::MAX);
        if let Phase::Live { stream, since } = &self.phase {
            lived_since = *since;
            // Closing takes it out only where no forked child has it, too: its end would be told
            // for ever then, and the datapath never sleep.
            let _ = epoll.remove(stream);
            // Nor would the peer hear of the end: a socket that a child has, too, is not closed.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.phase = Phase::Lost { lived_since };
        self.reset();
    }

    /// What was to be sent and what came belongs to one connection only.
    fn reset(&mut self) {
        self.input.clear();
        *self.intake = Intake::default();
        self.output.clear();
        self.watches_room = false;
    }

    /// After a loss or a failed attempt: when to try again. One that lived for long begins
    /// with the first wait.
    pub(crate) fn retry_after(&mut self, lived_since: MonoTime, now: MonoTime) {
        if now.since(lived_since) >= backoff::LONGEST {
            self.backoff.reset();
        }
        self.phase = Phase::Down { retry_at: now + self.backoff.next() };
    }

    /// A frame found no room. Returns whether that has gone on for too long.
    #[inline]
    pub(crate) fn refuse(&mut self) -> bool {
        self.stall.refused = true;
        self.stall.stalled && self.stall.moved.0 == self.output.written()
    }

    /// Looks whether the kernel still takes what it is given.
    pub(crate) fn watch(&mut self, now: MonoTime) {
        let written = self.output.written();
        let stall = &mut self.stall;
        if !stall.refused || stall.moved.0 != written {
            *stall = Stall { moved: (written, now), refused: false, stalled: false };
        } else {
            stall.stalled = now.since(stall.moved.1) >= STALL_MAX;
        }
    }

    /// Hands out frames, at most `budget`, until the kernel has no more. Every read fills
    /// the room, so that a frame comes of it, or its head, or is the last: the budget bounds
    /// them too.
    #[inline]
    pub(crate) fn take<S: FrameSink>(&mut self, from: PeerIndex, budget: u32, sink: &mut S) -> (u32, Took) {
        let Phase::Live { stream, .. } = &self.phase else { return (0, Took::All) };
        let mut handed = 0;
        let mut is_last = false;
        loop {
            if let Some(placing) = &mut self.intake.placing {
                match placing.fill(stream, &mut self.input, from, sink) {
                    Filled::Whole { is_last: last } => is_last = last,
                    Filled::Part => return (handed, Took::All),
                    Filled::Ended => return (handed, Took::Ended(End::Gone)),
                }
                *self.intake = Intake { placed: true, ..Intake::default() };
                handed += 1;
            }
            while handed < budget {
                match self.input.next() {
                    Next::Frame(frame) => sink.frame(Some(from), frame),
                    Next::Cut => break,
                    Next::Garbage => return (handed, Took::Ended(End::Garbage)),
                }
                *self.intake = Intake::default();
                handed += 1;
            }
            if handed == budget {
                return (handed, if self.input.has_next() { Took::Part } else { Took::All });
            }
            if S::HEAD_BYTES > 0 {
                self.intake.seek(&mut self.input, from, sink);
            }
            if is_last {
                return (handed, Took::All);
            }
            if self.intake.placing.is_some() {
                continue;
            }
            let room = self.input.room(self.intake.limit());
            let len = room.len();
            match tcp::read(stream, room) {
                Read::Bytes(count) => {
                    self.input.filled(count);
                    is_last = count < len;
                }
                Read::Empty => return (handed, Took::All),
                Read::Closed | Read::Broken(_) => return (handed, Took::Ended(End::Gone)),
            }
        }
    }
}

impl Intake {
    /// Looks for a place for a large frame at the front of the input that is cut.
    #[inline]
    fn seek<S: FrameSink>(&mut self, input: &mut Input, from: PeerIndex, sink: &mut S) {
        let Some((len, there)) = input.cut() else { return };
        if len < PLACED_BYTES_MIN {
            self.placed = false;
        } else if !self.gathering && there.len() >= S::HEAD_BYTES {
            self.placing = Placing::begin(input, from, sink);
            self.gathering = self.placing.is_none();
        }
    }

    /// How much may be read into the input.
    const fn limit(&self) -> usize {
        if self.placed && !self.gathering { AHEAD_BYTES } else { usize::MAX }
    }
}

/// A hello that is being read, and not a byte more.
#[derive(Clone, Copy, Default)]
pub(crate) struct Hearing {
    bytes: [u8; HELLO_BYTES],
    have: usize,
}

/// What was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    Hello(Hello),
    NotYet,
    /// Something else, or the end.
    Wrong,
}

impl Hearing {
    pub(crate) fn listen(&mut self, stream: &TcpStream) -> Heard {
        match tcp::read(stream, &mut self.bytes[self.have..]) {
            Read::Bytes(count) => self.have += count,
            Read::Empty => return Heard::NotYet,
            Read::Closed | Read::Broken(_) => return Heard::Wrong,
        }
        if self.have < HELLO_BYTES {
            return Heard::NotYet;
        }
        Hello::decode(&self.bytes).map_or(Heard::Wrong, Heard::Hello)
    }
}
