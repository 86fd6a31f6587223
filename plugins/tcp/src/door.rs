//! Where connections come in: accepted, and not yet known.

use crate::connection::{HANDSHAKE_MAX, Heard, Hearing};
use crate::hello::Hello;
use crate::side::TcpCounts;
use insane_core::MonoTime;
use insane_sys::tcp::{self, StreamOptions};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Connections accepted at a time: 800 a second while the datapath is awake.
const ACCEPTS: usize = 8;
/// Callers that are listened to at once.
pub(crate) const CALLERS: usize = 16;
/// Connections that the kernel keeps until they are accepted.
pub(crate) const BACKLOG: u16 = 128;

/// See the module.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    callers: Box<[Option<Caller>; CALLERS]>,
}

/// A connection from a peer's address that has not said which peer.
struct Caller {
    stream: TcpStream,
    from: SocketAddr,
    since: MonoTime,
    hearing: Hearing,
}

/// A caller that said hello.
pub(crate) struct Guest {
    pub(crate) stream: TcpStream,
    pub(crate) from: SocketAddr,
    pub(crate) hello: Hello,
}

impl Door {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Door { listener, callers: Box::new([const { None }; CALLERS]) }
    }

    /// Takes new connections of hosts that are `expected`, and closes others. Returns
    /// whether there were any.
    pub(crate) fn accept(
        &mut self,
        now: MonoTime,
        options: &StreamOptions,
        expected: impl Fn(SocketAddr) -> bool,
        counts: &mut TcpCounts,
    ) -> bool {
        for number in 0..ACCEPTS {
            match tcp::accept(&self.listener, options) {
                Ok(Some((_, from))) if !expected(from) => counts.strangers += 1,
                Ok(Some((stream, from))) => {
                    self.seat(Caller { stream, from, since: now, hearing: Hearing::default() }, counts)
                }
                Ok(None) => return number > 0,
                Err(_) => {
                    counts.accept_errors += 1;
                    return false;
                }
            }
        }
        true
    }

    /// Gives the caller a place: a free one, or that of who has waited longest. A host that
    /// floods thus cannot keep others out.
    fn seat(&mut self, caller: Caller, counts: &mut TcpCounts) {
        let eldest = |place: &&mut Option<Caller>| place.as_ref().map_or(MonoTime(0), |caller| caller.since);
        if let Some(place) = self.callers.iter_mut().min_by_key(eldest) {
            counts.crowded_out += u64::from(place.is_some());
            *place = Some(caller);
        }
    }

    /// Listens to the caller in this place: what it is if it has said hello. Closes it if it
    /// said something else, or nothing for too long.
    pub(crate) fn guest(&mut self, place: usize, now: MonoTime, counts: &mut TcpCounts) -> Option<Guest> {
        let place = self.callers.get_mut(place)?;
        let caller = place.as_mut()?;
        let heard = caller.hearing.listen(&caller.stream);
        if heard == Heard::NotYet && now.since(caller.since) < HANDSHAKE_MAX {
            return None;
        }
        let Caller { stream, from, .. } = place.take()?;
        match heard {
            Heard::Hello(hello) => return Some(Guest { stream, from, hello }),
            Heard::Wrong => counts.hellos_refused += 1,
            Heard::NotYet => counts.silent += 1,
        }
        None
    }

    /// Whether anybody is being listened to.
    pub(crate) fn has_callers(&self) -> bool {
        self.callers.iter().any(Option::is_some)
    }
}
