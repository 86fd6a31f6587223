//! One class: its listener and its connections to all peers.

use crate::class::Class;
use crate::connection::{Connection, End, HANDSHAKE_MAX, Heard, Hearing, Phase, Role};
use crate::door::{CALLERS, Door, Guest};
use crate::hello::{HELLO_BYTES, Hello};
use crate::output::Push;
use insane_core::MonoTime;
use insane_core::limits::PEERS_MAX;
use insane_link::LinkCounts;
use insane_sys::event::{Epoll, Interest, Trigger};
use insane_sys::tcp::{self, StreamOptions, Written};
use std::net::{SocketAddr, TcpStream};

/// Sets of peers are one word.
const _: () = assert!(PEERS_MAX <= 64);

/// Connections that are begun at a time.
const DIALS: usize = 4;

/// What the link counts that no outcome tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpCounts {
    /// Connections that came to carry frames.
    pub connected: u64,
    /// Connections that did, and ended.
    pub lost: u64,
    /// Of those: ended because what came was no frame, or one over `frame_bytes_max`.
    pub garbage: u64,
    /// Of those: replaced by a newer one of the same peer.
    pub replaced: u64,
    /// Attempts to connect that failed: refused, unanswered, or answered by another.
    pub attempts_failed: u64,
    /// Connections closed because they came from an address that no peer has.
    pub strangers: u64,
    /// Connections closed because they began with no hello, one of another version, or
    /// one of nobody that is expected (other port, class, `frame_bytes_max`).
    pub hellos_refused: u64,
    /// Connections closed because they said nothing for two seconds.
    pub silent: u64,
    /// Connections closed because too many others were to be listened to.
    pub crowded_out: u64,
    /// Connections that could not be accepted: no descriptor or memory was left.
    pub accept_errors: u64,
}

impl TcpCounts {
    /// With the names that they have in reports.
    pub(crate) fn named(&self) -> LinkCounts {
        let names = &[
            "connections_made",
            "connections_lost",
            "connections_ended_by_garbage",
            "connections_replaced",
            "attempts_failed",
            "strangers_closed",
            "hellos_refused",
            "callers_silent",
            "callers_crowded_out",
            "accepts_failed",
        ];
        LinkCounts::new(
            names,
            [
                self.connected,
                self.lost,
                self.garbage,
                self.replaced,
                self.attempts_failed,
                self.strangers,
                self.hellos_refused,
                self.silent,
                self.crowded_out,
                self.accept_errors,
            ],
        )
    }
}

/// See the module.
pub(crate) struct Side {
    class: Class,
    own: Hello,
    /// This host's address, any port: where connections come from.
    source: SocketAddr,
    options: StreamOptions,
    door: Door,
    /// By peer.
    pub(crate) connections: Box<[Option<Connection>]>,
    /// Peers whose connection holds frames that came.
    pub(crate) holding: u64,
    /// Peers whose connection holds frames to be sent.
    pub(crate) unsent: u64,
    /// Where the next look for connections to be begun starts.
    dial_at: usize,
}

impl Side {
    pub(crate) fn new(
        own: Hello,
        source: SocketAddr,
        options: StreamOptions,
        door: Door,
        connections: Box<[Option<Connection>]>,
    ) -> Self {
        Side { class: own.class, own, source, options, door, connections, holding: 0, unsent: 0, dial_at: 0 }
    }

    /// What epoll gives back for a peer's connection.
    fn token(&self, peer: usize) -> u64 {
        (self.class as u64) << 32 | peer as u64
    }

    /// Class and peer of a token.
    pub(crate) fn of_token(token: u64) -> (usize, usize) {
        ((token >> 32) as usize, (token & u64::from(u32::MAX)) as usize)
    }

    /// Pushes out what is held for a peer; what the kernel has no room for goes when it
    /// says so.
    #[inline]
    pub(crate) fn push(&mut self, peer: usize, epoll: &Epoll, counts: &mut TcpCounts) {
        let Some(Some(connection)) = self.connections.get_mut(peer) else { return };
        let Phase::Live { stream, .. } = &connection.phase else { return };
        let is_full = match connection.output.push(stream) {
            Push::Done => false,
            Push::Full => true,
            Push::Broken(_) => return self.lose(peer, End::Gone, epoll, counts),
        };
        if !is_full {
            self.unsent &= !(1 << peer);
        }
        if is_full != connection.watches_room {
            self.watch_room(peer, is_full, epoll, counts);
        }
    }

    #[cold]
    fn watch_room(&mut self, peer: usize, watch: bool, epoll: &Epoll, counts: &mut TcpCounts) {
        let token = self.token(peer);
        let Some(Some(connection)) = self.connections.get_mut(peer) else { return };
        let Phase::Live { stream, .. } = &connection.phase else { return };
        let interest = if watch { Interest::ReadWrite } else { Interest::Read };
        connection.watches_room = watch;
        if epoll.modify(stream, token, interest, Trigger::Level).is_err() {
            // Its frames would be found late, or never.
            self.lose(peer, End::Gone, epoll, counts);
        }
    }

    /// A connection is over.
    #[cold]
    pub(crate) fn lose(&mut self, peer: usize, end: End, epoll: &Epoll, counts: &mut TcpCounts) {
        let Some(Some(connection)) = self.connections.get_mut(peer) else { return };
        connection.lose(epoll);
        self.forget(peer);
        counts.lost += 1;
        counts.garbage += u64::from(end == End::Garbage);
    }

    /// Puts a peer's connection, or none, in its place; `with` holds what was there. What the
    /// kernel had no room for until now is lost with it.
    pub(crate) fn swap(&mut self, peer: usize, with: &mut Option<Connection>, epoll: &Epoll, counts: &mut TcpCounts) {
        self.push(peer, epoll, counts);
        let token = self.token(peer);
        let Some(place) = self.connections.get_mut(peer) else { return };
        if let Some(Phase::Live { stream, .. }) = place.as_ref().map(|old| &old.phase) {
            // It is closed on the control plane, and must not be heard here until then.
            let _ = epoll.remove(stream);
        }
        std::mem::swap(place, with);
        self.forget(peer);
        // One that comes back is as it was.
        let Some(back) = &mut self.connections[peer] else { return };
        back.watches_room = false;
        let Phase::Live { stream, .. } = &back.phase else { return };
        let is_heard = epoll.add(stream, token, Interest::Read, Trigger::Level).is_ok();
        self.unsent |= u64::from(!back.output.is_empty()) << peer;
        self.holding |= u64::from(back.input.has_next()) << peer;
        if !is_heard {
            self.lose(peer, End::Gone, epoll, counts);
        }
    }

    fn forget(&mut self, peer: usize) {
        self.holding &= !(1 << peer);
        self.unsent &= !(1 << peer);
    }

    /// Accepts, connects, gives up; a bounded piece. Returns whether something is under
    /// way.
    pub(crate) fn tend(&mut self, now: MonoTime, epoll: &Epoll, counts: &mut TcpCounts) -> bool {
        let connections = &self.connections;
        let expected = |from| accepting(connections).any(|(_, connection)| is_same_host(connection.address, from));
        let accepted = self.door.accept(now, &self.options, expected, counts);
        for place in 0..CALLERS {
            if let Some(guest) = self.door.guest(place, now, counts) {
                self.welcome(guest, now, epoll, counts);
            }
        }
        let dialling = self.dial(now, epoll, counts);
        for connection in self.connections.iter_mut().flatten() {
            connection.watch(now);
        }
        accepted || dialling || self.door.has_callers()
    }

    /// Makes a guest's connection its peer's. It replaces one that is there: the peer would
    /// not call if that one still served it.
    fn welcome(&mut self, guest: Guest, now: MonoTime, epoll: &Epoll, counts: &mut TcpCounts) {
        let Guest { stream, from, hello } = guest;
        let is_it = |connection: &Connection| {
            is_same_host(connection.address, from) && hello == Hello { port: connection.port, ..self.own }
        };
        let peer = accepting(&self.connections).find(|(_, connection)| is_it(connection)).map(|(peer, _)| peer);
        let answer = self.own.encode();
        match peer {
            Some(peer) if tcp::write(&stream, &answer) == Written::Bytes(HELLO_BYTES) => {
                self.go_live(peer, stream, now, epoll, counts);
            }
            _ => counts.hellos_refused += 1,
        }
    }

    fn go_live(&mut self, peer: usize, stream: TcpStream, now: MonoTime, epoll: &Epoll, counts: &mut TcpCounts) {
        let token = self.token(peer);
        self.forget(peer);
        let Some(Some(connection)) = self.connections.get_mut(peer) else { return };
        if matches!(connection.phase, Phase::Live { .. }) {
            connection.lose(epoll);
            counts.lost += 1;
            counts.replaced += 1;
        }
        if epoll.add(&stream, token, Interest::Read, Trigger::Level).is_err() {
            connection.retry_after(now, now);
            counts.attempts_failed += 1;
            return;
        }
        connection.go_live(stream, now);
        counts.connected += 1;
    }

    /// Goes on with all connections that this side makes. Returns whether one is under way.
    fn dial(&mut self, now: MonoTime, epoll: &Epoll, counts: &mut TcpCounts) -> bool {
        let mut under_way = false;
        let mut begun = 0;
        let count = self.connections.len();
        for step in 0..count {
            let peer = (self.dial_at + step) % count;
            let Some(connection) = &mut self.connections[peer] else { continue };
            if let Phase::Lost { lived_since } = connection.phase {
                connection.retry_after(lived_since, now);
            }
            if connection.role == Role::Accepts {
                continue;
            }
            if let Phase::Down { retry_at } = connection.phase
                && retry_at <= now
                && begun < DIALS
            {
                begun += 1;
                match tcp::connect(self.source, connection.address, &self.options) {
                    Ok(stream) => connection.phase = Phase::Connecting { stream, since: now },
                    Err(_) => {
                        connection.retry_after(now, now);
                        counts.attempts_failed += 1;
                    }
                }
            }
            match greet(connection, &self.own, now) {
                Greeted::Idle => {}
                Greeted::UnderWay => under_way = true,
                Greeted::Failed => {
                    connection.retry_after(now, now);
                    counts.attempts_failed += 1;
                }
                Greeted::Known(stream) => self.go_live(peer, stream, now, epoll, counts),
            }
        }
        self.dial_at = (self.dial_at + 1) % count.max(1);
        under_way
    }
}

/// How far an attempt is.
enum Greeted {
    /// There is none.
    Idle,
    UnderWay,
    Failed,
    /// Both sides have said hello.
    Known(TcpStream),
}

/// Goes on with one attempt.
fn greet(connection: &mut Connection, own: &Hello, now: MonoTime) -> Greeted {
    let attempt = std::mem::replace(&mut connection.phase, Phase::Down { retry_at: now });
    let (stream, since, mut hearing) = match attempt {
        Phase::Connecting { stream, since } => match tcp::write(&stream, &own.encode()) {
            Written::Bytes(HELLO_BYTES) => (stream, since, Hearing::default()),
            Written::Full if now.since(since) < HANDSHAKE_MAX => {
                connection.phase = Phase::Connecting { stream, since };
                return Greeted::UnderWay;
            }
            _ => return Greeted::Failed,
        },
        Phase::Greeting { stream, since, hearing } => (stream, since, hearing),
        other => {
            connection.phase = other;
            return Greeted::Idle;
        }
    };
    match hearing.listen(&stream) {
        Heard::Hello(hello) if hello == (Hello { port: connection.port, ..*own }) => Greeted::Known(stream),
        Heard::NotYet if now.since(since) < HANDSHAKE_MAX => {
            connection.phase = Phase::Greeting { stream, since, hearing };
            Greeted::UnderWay
        }
        _ => Greeted::Failed,
    }
}

fn accepting(connections: &[Option<Connection>]) -> impl Iterator<Item = (usize, &Connection)> {
    let known = connections.iter().enumerate().filter_map(|(peer, connection)| Some((peer, connection.as_ref()?)));
    known.filter(|(_, connection)| connection.role == Role::Accepts)
}

/// Whether both are of one host, whatever the port.
fn is_same_host(a: SocketAddr, b: SocketAddr) -> bool {
    let scope = |address| if let SocketAddr::V6(v6) = address { v6.scope_id() } else { 0 };
    a.ip() == b.ip() && scope(a) == scope(b)
}
