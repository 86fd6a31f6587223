//! What one socket brought and was not handed out yet.
//!
//! A call may bring far more frames than the engine asked for: many datagrams, each a
//! train that the kernel joined, each segment of it a bundle. The inbox remembers where
//! in them the last call ended, so nothing is lost and nothing is copied.

use crate::link::UdpCounts;
use insane_core::PeerIndex;
use insane_core::peers::PeerTable;
use insane_link::FrameSink;
use insane_sys::udp::{self, Batch, DATAGRAM_BYTES_MAX};
use insane_wire::bundle::{Opener, is_bundle};
use std::net::{SocketAddr, UdpSocket};

/// Datagrams that one call takes when many wait. 32 share the cost of the call to
/// a few per cent of a datagram's own.
const BATCH: usize = 32;

/// How much one call may still do, and what it did.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Frames and drops that the budget leaves.
    left: u32,
    /// Frames handed out.
    pub(crate) handed: u32,
    /// Datagrams that came, frames or not.
    pub(crate) taken: u32,
}

impl Tally {
    pub(crate) const fn new(budget: u32) -> Self {
        Tally { left: budget, handed: 0, taken: 0 }
    }

    #[inline]
    pub(crate) const fn is_spent(&self) -> bool {
        self.left == 0
    }

    #[inline]
    fn hand<S: FrameSink>(&mut self, sink: &mut S, from: Option<PeerIndex>, frame: &[u8]) {
        sink.frame(from, frame);
        self.left -= 1;
        self.handed += 1;
    }

    fn drop_one(&mut self) {
        self.left -= 1;
    }
}

/// In whose memory a datagram stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Single,
    Batch,
    Joined,
}

/// The datagram that is being handed out.
#[derive(Debug)]
struct Open {
    place: Place,
    number: usize,
    from: Option<PeerIndex>,
    len: usize,
    segment: usize,
    /// Where the next segment begins.
    at: usize,
    /// What is left of the bundle in the segment before `at`, and where that begins.
    bundle: Option<(Opener, usize)>,
}

/// Whether the kernel joins datagrams for this socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Joining {
    /// Nobody asked yet.
    Untried,
    On,
    Refused,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Inbox {
    frame_bytes_max: usize,
    /// For a datagram that comes alone.
    single: Box<[u8]>,
    batch: Batch,
    /// For one train of datagrams that the kernel joined.
    joined: Batch,
    joining: Joining,
    open: Option<Open>,
    /// Datagrams of the last call that were not opened yet.
    waiting: std::ops::Range<usize>,
    place: Place,
}

/// Whom datagrams may come from.
pub(crate) struct Senders<'a> {
    pub(crate) table: &'a mut PeerTable,
    /// The only one that this socket can have heard, and has been for all that is in it.
    pub(crate) alone: Option<PeerIndex>,
    /// One's own address, where one's own frames may come back.
    pub(crate) own: Option<SocketAddr>,
}

/// Who sent a datagram.
pub(crate) enum Sender {
    Known(PeerIndex),
    Stranger,
    Oneself,
}

impl Senders<'_> {
    #[inline]
    fn find(&mut self, from: SocketAddr) -> Sender {
        match self.table.find(from) {
            Some(peer) => Sender::Known(peer),
            None if self.own == Some(from) => Sender::Oneself,
            None => Sender::Stranger,
        }
    }
}

impl Sender {
    #[inline]
    const fn peer(&self) -> Option<PeerIndex> {
        match self {
            Sender::Known(peer) => Some(*peer),
            Sender::Stranger | Sender::Oneself => None,
        }
    }
}

impl Inbox {
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        Inbox {
            frame_bytes_max,
            single: vec![0; frame_bytes_max].into_boxed_slice(),
            batch: Batch::new(BATCH, frame_bytes_max),
            joined: Batch::new(1, DATAGRAM_BYTES_MAX),
            joining: Joining::Untried,
            open: None,
            waiting: 0..0,
            place: Place::Batch,
        }
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.open.is_none() && self.waiting.start >= self.waiting.end
    }

    /// A peer has left: what is open of it is nobody's.
    pub(crate) fn forget(&mut self, peer: PeerIndex) {
        if let Some(open) = self.open.as_mut().filter(|open| open.from == Some(peer)) {
            open.from = None;
        }
    }

    /// The memory for a datagram that comes alone, where the next one may be taken with a plain
    /// call: nothing is left of earlier ones, and the kernel joins none.
    #[inline]
    pub(crate) fn plain_room(&mut self) -> Option<&mut [u8]> {
        if self.is_empty() && self.joining != Joining::On { Some(&mut self.single) } else { None }
    }

    /// Takes one datagram with one call, and hands out what is in it; false if there is
    /// none. The inbox is empty before.
    pub(crate) fn take_one<S: FrameSink>(
        &mut self,
        socket: &UdpSocket,
        senders: &mut Senders<'_>,
        counts: &mut UdpCounts,
        tally: &mut Tally,
        sink: &mut S,
    ) -> bool {
        if self.joining == Joining::On {
            return self.take_many(socket, 1, senders, counts, tally, sink) > 0;
        }
        let taken = match senders.alone {
            Some(peer) => udp::recv(socket, &mut self.single).map(|len| (len, Sender::Known(peer))),
            None => udp::recv_from(socket, &mut self.single).map(|(len, from)| (len, senders.find(from))),
        };
        let Some((len, sender)) = taken else { return false };
        self.open_single(len, &sender, socket, senders, counts, tally, sink);
        true
    }

    /// Hands out what is in the datagram of `len` bytes that came alone.
    #[expect(clippy::too_many_arguments, reason = "the parts of a link, and what came")]
    pub(crate) fn open_single<S: FrameSink>(
        &mut self,
        len: usize,
        sender: &Sender,
        socket: &UdpSocket,
        senders: &mut Senders<'_>,
        counts: &mut UdpCounts,
        tally: &mut Tally,
        sink: &mut S,
    ) {
        tally.taken += 1;
        let from = sender.peer();
        if matches!(sender, Sender::Oneself) {
            tally.drop_one();
        } else if len > self.single.len() {
            counts.truncated += 1;
            tally.drop_one();
        } else if is_bundle(&self.single[..len]) {
            let place = Place::Single;
            self.open = Some(Open { place, number: 0, from, len, segment: len, at: 0, bundle: None });
            self.hand_out(socket, senders, counts, tally, sink);
        } else {
            tally.hand(sink, from, &self.single[..len]);
        }
    }

    /// Takes what the budget allows, many datagrams a call, until one call brings fewer
    /// than asked. The inbox is empty before.
    pub(crate) fn take_burst<S: FrameSink>(
        &mut self,
        socket: &UdpSocket,
        senders: &mut Senders<'_>,
        counts: &mut UdpCounts,
        tally: &mut Tally,
        sink: &mut S,
    ) {
        while !tally.is_spent() {
            let most = if self.joining == Joining::On { self.joined.capacity() } else { self.batch.capacity() };
            let asked = most.min(tally.left as usize);
            let got = self.take_many(socket, asked, senders, counts, tally, sink);
            if got < asked {
                break;
            }
            if got == BATCH {
                self.join(socket, counts);
            }
        }
    }

    #[inline(never)]
    fn take_many<S: FrameSink>(
        &mut self,
        socket: &UdpSocket,
        asked: usize,
        senders: &mut Senders<'_>,
        counts: &mut UdpCounts,
        tally: &mut Tally,
        sink: &mut S,
    ) -> usize {
        let got = if self.joining == Joining::On {
            self.place = Place::Joined;
            self.joined.receive(socket, asked)
        } else {
            self.place = Place::Batch;
            self.batch.receive(socket, asked)
        };
        tally.taken += got as u32;
        self.waiting = 0..got;
        self.hand_out(socket, senders, counts, tally, sink);
        got
    }

    /// Hands out what is here, up to the budget.
    #[inline(never)]
    pub(crate) fn hand_out<S: FrameSink>(
        &mut self,
        socket: &UdpSocket,
        senders: &mut Senders<'_>,
        counts: &mut UdpCounts,
        tally: &mut Tally,
        sink: &mut S,
    ) {
        while !tally.is_spent() {
            if self.open.is_some() {
                self.hand_out_open(socket, counts, tally, sink);
            } else if let Some(number) = self.waiting.next() {
                self.open = self.datagram(number, senders, counts, tally);
            } else {
                break;
            }
        }
    }

    /// Datagram `number` of the last call, if it is to be opened.
    fn datagram(
        &mut self,
        number: usize,
        senders: &mut Senders<'_>,
        counts: &mut UdpCounts,
        tally: &mut Tally,
    ) -> Option<Open> {
        let place = self.place;
        let batch = if place == Place::Joined { &self.joined } else { &self.batch };
        let datagram = batch.datagram(number)?;
        if datagram.truncated {
            counts.truncated += 1;
            tally.drop_one();
            return None;
        }
        let sender = senders.find(datagram.from);
        if matches!(sender, Sender::Oneself) {
            tally.drop_one();
            return None;
        }
        let from = sender.peer();
        let segment = datagram.segment_bytes.unwrap_or(datagram.len);
        Some(Open { place, number, from, len: datagram.len, segment, at: 0, bundle: None })
    }

    /// Hands out of the open datagram, and closes it at its end.
    fn hand_out_open<S: FrameSink>(
        &mut self,
        socket: &UdpSocket,
        counts: &mut UdpCounts,
        tally: &mut Tally,
        sink: &mut S,
    ) {
        let mut has_bundles = false;
        let Some(open) = &mut self.open else { return };
        let room = match open.place {
            Place::Single => &mut self.single[..],
            Place::Batch => self.batch.room(open.number),
            Place::Joined => self.joined.room(open.number),
        };
        let bytes = &mut room[..open.len];
        while !tally.is_spent() {
            if let Some((opener, start)) = &mut open.bundle {
                let segment = &mut bytes[*start..open.at];
                while !tally.is_spent()
                    && let Some(frame) = opener.next(segment)
                    && let Some(frame) = segment.get(frame)
                {
                    tally.hand(sink, open.from, frame);
                }
                if !opener.is_done() {
                    break;
                }
                open.bundle = None;
            }
            // A datagram without a byte is a segment, too.
            if open.at >= open.len && (open.at > 0 || open.len > 0) {
                break;
            }
            let start = open.at;
            let end = open.len.min(start + open.segment.max(1));
            let segment = &bytes[start..end];
            open.at = end.max(start + 1);
            if segment.len() > self.frame_bytes_max {
                counts.truncated += 1;
                tally.drop_one();
            } else if is_bundle(segment) && open.from.is_some() {
                has_bundles = true;
                match Opener::new(segment) {
                    Some(opener) => open.bundle = Some((opener, start)),
                    None => {
                        counts.bundles_malformed += 1;
                        tally.drop_one();
                    }
                }
            } else {
                // Also a stranger's bundle: not opened, so that it costs what a frame does.
                tally.hand(sink, open.from, segment);
            }
        }
        if open.at >= open.len && open.at > 0 && open.bundle.as_ref().is_none_or(|(opener, _)| opener.is_done()) {
            self.open = None;
        }
        if has_bundles {
            self.join(socket, counts);
        }
    }

    /// A peer sends trains: from now on the kernel need not cut them. Asked once, and not
    /// before: a lone datagram is taken at less cost without.
    fn join(&mut self, socket: &UdpSocket, counts: &mut UdpCounts) {
        if self.joining == Joining::Untried {
            self.joining = match udp::receive_joined(socket) {
                Ok(()) => Joining::On,
                Err(_) => Joining::Refused,
            };
            counts.joining_refused += u64::from(self.joining == Joining::Refused);
        }
    }
}
