//! The sockets of sessions: packets in, queued packets out.

use insane_core::{MonoTime, Nanos, SessionId};
use insane_sys::OsError;
use insane_sys::event::{Epoll, Interest, Trigger};
use insane_sys::seqpacket::{self, RecvOutcome, SendOutcome};
use insane_wire::control::PACKET_BYTES_MAX;
use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Packets that wait for a session that does not read, at most. Beyond, it is closed.
/// A status report of the largest plan is some dozens of packets.
pub(crate) const QUEUE_MAX: usize = 1024;
/// How long a session may leave packets waiting. What is under way holds descriptors
/// that all sessions share a limit for.
pub(crate) const STALL_MAX: Nanos = Nanos::from_secs(10);
/// Packets that a client can leave unread in a socket, at most: some hundreds at the
/// usual size of its buffer.
const UNREAD_MAX: usize = 16 * 1024;

/// What an event's token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token {
    /// Somebody connects.
    Listener,
    /// A datapath has an answer.
    Answer,
    /// A letter from the runtime's handle.
    Mailbox,
    /// A session's socket.
    Session(SessionId),
    /// A session's process is gone.
    Process(SessionId),
}

impl Token {
    pub(crate) const fn encode(self) -> u64 {
        let (kind, id) = match self {
            Token::Listener => (0, 0),
            Token::Answer => (1, 0),
            Token::Mailbox => (2, 0),
            Token::Session(session) => (3, session.0),
            Token::Process(session) => (4, session.0),
        };
        kind << 32 | id as u64
    }

    pub(crate) const fn decode(token: u64) -> Option<Token> {
        let session = SessionId(token as u32);
        match token >> 32 {
            0 => Some(Token::Listener),
            1 => Some(Token::Answer),
            2 => Some(Token::Mailbox),
            3 => Some(Token::Session(session)),
            4 => Some(Token::Process(session)),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    fds: Vec<Arc<OwnedFd>>,
}

/// The socket of one session.
#[derive(Debug)]
pub(crate) struct SessionSocket {
    session: SessionId,
    socket: OwnedFd,
    /// Readable when the process is gone, even where a child still holds the socket.
    process: Option<OwnedFd>,
    queue: VecDeque<Outgoing>,
    /// Whether epoll is asked to say when there is room.
    awaits_room: bool,
    /// Since when packets wait and none has gone.
    stalled: Option<MonoTime>,
}

/// What became of the queue.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flushed {
    /// It is empty, or waits for room.
    Fine,
    /// The other side is gone.
    Gone,
    /// The other side does not read.
    Stuck,
}

impl SessionSocket {
    /// Takes a socket into the epoll set.
    pub(crate) fn new(
        session: SessionId,
        socket: OwnedFd,
        process: Option<OwnedFd>,
        epoll: &Epoll,
    ) -> Result<Self, OsError> {
        epoll.add(&socket, Token::Session(session).encode(), Interest::Read, Trigger::Level)?;
        if let Some(process) = &process {
            epoll.add(process, Token::Process(session).encode(), Interest::Read, Trigger::Level)?;
        }
        Ok(SessionSocket { session, socket, process, queue: VecDeque::new(), awaits_room: false, stalled: None })
    }

    /// The process at the other end, as long as the kernel knows one.
    pub(crate) const fn process(&self) -> Option<&OwnedFd> {
        self.process.as_ref()
    }

    /// Takes one packet.
    pub(crate) fn receive(&self, buffer: &mut [u8; PACKET_BYTES_MAX]) -> RecvOutcome {
        // A broken socket is a closed one.
        seqpacket::recv(&self.socket, buffer).unwrap_or(RecvOutcome::Closed)
    }

    /// Sends a packet, after those that wait.
    pub(crate) fn send(&mut self, bytes: Vec<u8>, fds: Vec<Arc<OwnedFd>>, now: MonoTime, epoll: &Epoll) -> Flushed {
        if self.queue.len() >= QUEUE_MAX {
            return Flushed::Stuck;
        }
        self.queue.push_back(Outgoing { bytes, fds });
        if self.queue.len() > 1 { Flushed::Fine } else { self.flush(now, epoll) }
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn flush(&mut self, now: MonoTime, epoll: &Epoll) -> Flushed {
        while let Some(packet) = self.queue.front() {
            let fds: Vec<BorrowedFd<'_>> = packet.fds.iter().map(|fd| fd.as_fd()).collect();
            match seqpacket::send(&self.socket, &packet.bytes, &fds) {
                Ok(SendOutcome::Sent) => {
                    self.queue.pop_front();
                    self.stalled = None;
                }
                Ok(SendOutcome::WouldBlock) => break,
                Ok(SendOutcome::Closed) => return Flushed::Gone,
                // Too many descriptors are under way: they are taken in time, or the
                // queue fills.
                Err(error) if error.errno == insane_sys::Errno::ETOOMANYREFS => break,
                Err(_) => return Flushed::Gone,
            }
        }
        self.await_room(!self.queue.is_empty(), epoll);
        if self.queue.is_empty() {
            return Flushed::Fine;
        }
        let stalled = *self.stalled.get_or_insert(now);
        if now.since(stalled) >= STALL_MAX { Flushed::Stuck } else { Flushed::Fine }
    }

    /// Whether packets wait.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    fn await_room(&mut self, wanted: bool, epoll: &Epoll) {
        if wanted == self.awaits_room {
            return;
        }
        let interest = if wanted { Interest::ReadWrite } else { Interest::Read };
        let token = Token::Session(self.session).encode();
        if epoll.modify(&self.socket, token, interest, Trigger::Level).is_ok() {
            self.awaits_room = wanted;
        }
    }

    /// Sends a last packet if there is room, and closes.
    pub(crate) fn close(mut self, last: Vec<u8>, now: MonoTime, epoll: &Epoll) {
        let _ = self.send(last, Vec::new(), now, epoll);
        // What is unread when a socket closes turns the other side's next read into an
        // error, before it has seen the last packet. So nothing more is let in, and what
        // is there is taken.
        let socket = UnixStream::from(self.socket);
        let _ = socket.shutdown(Shutdown::Read);
        let mut buffer = [0; 64];
        for _ in 0..UNREAD_MAX {
            if !matches!(seqpacket::recv(&socket, &mut buffer), Ok(RecvOutcome::Packet(_))) {
                break;
            }
        }
    }

    pub(crate) fn leave(&self, epoll: &Epoll) {
        let _ = epoll.remove(&self.socket);
        if let Some(process) = &self.process {
            let _ = epoll.remove(process);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_their_encoding() {
        let session = SessionId(u32::MAX);
        let all = [Token::Listener, Token::Answer, Token::Mailbox, Token::Session(session), Token::Process(session)];
        for token in all {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(u64::MAX), None);
    }

    #[test]
    fn who_does_not_read_is_stuck_and_costs_no_more() {
        let epoll = Epoll::new().unwrap();
        let (ours, theirs) = seqpacket::pair().unwrap();
        let mut socket = SessionSocket::new(SessionId(1), ours, None, &epoll).unwrap();
        let mut sent = 0;
        let now = MonoTime(1);
        while socket.send(vec![1; 1000], Vec::new(), now, &epoll) == Flushed::Fine {
            sent += 1;
            assert!(sent < 10_000);
        }
        assert!(sent >= QUEUE_MAX && socket.awaits_room);
        assert_eq!(socket.flush(now + STALL_MAX, &epoll), Flushed::Stuck);
        // One packet that goes is progress.
        assert!(matches!(seqpacket::recv(&theirs, &mut [0; 1000]), Ok(RecvOutcome::Packet(_))));
        assert_eq!(socket.flush(now + STALL_MAX, &epoll), Flushed::Fine);
        drop(theirs);
        assert_eq!(socket.flush(now, &epoll), Flushed::Gone);
    }

    #[test]
    fn the_last_word_is_read_even_when_packets_were_not() {
        let epoll = Epoll::new().unwrap();
        let (ours, theirs) = seqpacket::pair().unwrap();
        let socket = SessionSocket::new(SessionId(1), ours, None, &epoll).unwrap();
        let mut sent = 0;
        while seqpacket::send(&theirs, b"never read", &[]).unwrap() == SendOutcome::Sent {
            sent += 1;
        }
        assert!(sent > 100);
        socket.close(b"bye".to_vec(), MonoTime(1), &epoll);
        let mut buffer = [0; 16];
        let Ok(RecvOutcome::Packet(packet)) = seqpacket::recv(&theirs, &mut buffer) else { panic!("the last word") };
        assert_eq!(&buffer[..packet.len], b"bye");
    }
}
