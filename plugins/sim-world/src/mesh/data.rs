//! The data half of a mesh's host: flows and reassembly of production, and as little
//! around them as takes frames in.

use crate::defect::Defect;
use crate::ledger::Delivery;
use insane_core::{HostId, Incarnation, MonoTime, Nanos, PeerIndex};
use insane_engine::Topic;
use insane_link::FrameSink;
use insane_overlay::flow::{FlowKey, FlowTable, Verdict};
use insane_overlay::reassembly::{Arrival, Begin, Reassembler};
use insane_wire::data::{DataHeader, Kind};
use insane_wire::overlay::KIND_DELTA;
use std::collections::{BTreeSet, VecDeque};

/// Flows that a host remembers.
pub const FLOWS_MAX: usize = 1024;
/// Fragmented messages that a host collects at once.
pub const PLACES: usize = 16;
/// Buffers of a host; each holds the largest message.
pub const BUFFERS: usize = 24;
/// Largest message, bytes.
pub const MESSAGE_BYTES_MAX: usize = 20_000;
/// Overlay frames that wait for the control plane. The queue of an engine has a place for
/// each of its 64 peers; here hosts have more peers.
pub const OVERLAY_FRAMES_MAX: usize = 256;
/// As an engine gives up messages, and forgets flows.
const REASSEMBLY_TIMEOUT: Nanos = Nanos::from_millis(200);
const FLOW_TIMEOUT: Nanos = Nanos::from_secs(60);

/// What the data half counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DataCounts {
    /// Frames taken in.
    pub frames: u64,
    /// Frames of no peer.
    pub unknown: u64,
    /// Frames that no rule accepts.
    pub malformed: u64,
    /// Frames of another life than the control plane knows.
    pub other_life: u64,
    /// Frames of a conversation without a sink.
    pub no_listener: u64,
    /// Frames and messages that were there already.
    pub duplicate: u64,
    /// Frames and messages older than what was released.
    pub late: u64,
    /// Frames that do not fit their message.
    pub inconsistent: u64,
    /// Fragments for which no buffer was free.
    pub no_buffer: u64,
    /// Words that a source has closed, which are of a flow that is known, and could be.
    pub closings: u64,
    /// Messages given up: fragments missing.
    pub incomplete: u64,
    /// Fragments stored.
    pub stored: u64,
    /// Messages delivered.
    pub delivered: u64,
    /// Sequence numbers told as lost.
    pub lost: u64,
    /// Overlay frames passed on.
    pub overlay: u64,
    /// Overlay frames dropped: the queue was full.
    pub overlay_dropped: u64,
}

/// Memory for messages under way.
#[derive(Debug)]
struct Pool {
    buffers: Vec<Option<Vec<u8>>>,
    lent: usize,
}

impl Pool {
    fn lend(&mut self, len: usize) -> Option<usize> {
        let at = self.buffers.iter().position(Option::is_none)?;
        self.buffers[at] = Some(vec![0; len]);
        self.lent += 1;
        Some(at)
    }

    fn give_back(&mut self, at: usize) -> Option<Vec<u8>> {
        let bytes = self.buffers[at].take()?;
        self.lent -= 1;
        Some(bytes)
    }
}

/// The data half. See the module.
pub struct Data {
    /// The host's own clock at this step.
    pub now: MonoTime,
    /// Conversations with a sink here.
    pub sinks: BTreeSet<Topic>,
    /// Which runtime, in which life, the control plane knows at each peer's address.
    pub lives: Vec<Option<(HostId, Incarnation)>>,
    /// Overlay frames for the control plane.
    pub overlay: VecDeque<(PeerIndex, Vec<u8>)>,
    /// Messages for the sinks.
    pub deliveries: Vec<Delivery>,
    /// What was counted.
    pub counts: DataCounts,
    defect: Option<Defect>,
    flows: FlowTable,
    reassembler: Reassembler<usize>,
    pool: Pool,
}

impl Data {
    /// Of a host with so many peers.
    #[must_use]
    pub fn new(peers: usize, seed: u64, defect: Option<Defect>) -> Self {
        Data {
            now: MonoTime(0),
            sinks: BTreeSet::new(),
            lives: vec![None; peers],
            overlay: VecDeque::new(),
            deliveries: Vec::new(),
            counts: DataCounts::default(),
            defect,
            flows: FlowTable::new(FLOWS_MAX, seed),
            reassembler: Reassembler::new(PLACES, MESSAGE_BYTES_MAX as u32),
            pool: Pool { buffers: (0..BUFFERS).map(|_| None).collect(), lent: 0 },
        }
    }

    /// Buffers in use, messages being collected, flows remembered.
    #[must_use]
    pub fn in_use(&self) -> (usize, usize, usize) {
        (self.pool.lent, self.reassembler.len(), self.flows.len())
    }

    /// Gives up what stands still.
    pub fn housekeeping(&mut self, now: MonoTime) {
        while let Some(buffer) = self.reassembler.expire(now, REASSEMBLY_TIMEOUT) {
            self.give_up(buffer);
        }
        self.flows.expire(now, FLOW_TIMEOUT, u32::MAX);
    }

    /// Learns which life a peer is of; forgets those of its runtime that are no peer's.
    pub fn set_life(&mut self, peer: PeerIndex, host: HostId, life: Incarnation) {
        self.lives[peer.index()] = Some((host, life));
        let lives = self.lives.clone();
        let keeps = |life| lives.contains(&Some((host, life)));
        self.flows.retire_host(host, keeps);
        let is_old = |key: &FlowKey, _, _| key.host == host && !keeps(key.incarnation);
        while let Some(buffer) = self.reassembler.give_up(is_old) {
            self.give_up(buffer);
        }
    }

    /// Whether it is of the runtime and life that is known at this address; or none is, and no
    /// other peer is that runtime in another life.
    fn is_of_this_life(&self, peer: PeerIndex, header: &DataHeader) -> bool {
        let life = (header.host, header.incarnation);
        match self.lives[peer.index()] {
            Some(known) => known == life,
            None => self.lives.iter().flatten().all(|known| known.0 != life.0 || *known == life),
        }
    }

    fn give_up(&mut self, buffer: usize) {
        self.counts.incomplete += 1;
        if self.defect != Some(Defect::Kept) {
            self.pool.give_back(buffer);
        }
    }

    fn data(&mut self, header: &DataHeader, payload: &[u8]) {
        let topic = Topic { key: header.stream, channel: header.channel };
        if !self.sinks.contains(&topic) {
            self.counts.no_listener += 1;
            return;
        }
        let key = FlowKey {
            host: header.host,
            incarnation: header.incarnation,
            source: header.source,
            stream: header.stream,
        };
        let whole =
            if header.is_whole(payload.len()) { Some(payload.to_vec()) } else { self.collect(&key, header, payload) };
        if let Some(payload) = whole {
            self.release(key, topic, header.sequence, payload);
        }
    }

    /// A source says that it has closed.
    fn close(&mut self, header: &DataHeader) {
        let DataHeader { host, incarnation, source, stream, sequence, .. } = *header;
        let key = FlowKey { host, incarnation, source, stream };
        self.counts.closings += u64::from(self.flows.close(self.now, &key, sequence));
    }

    fn release(&mut self, key: FlowKey, topic: Topic, sequence: u64, mut payload: Vec<u8>) {
        let verdict = self.flows.classify(self.now, &key, sequence, || false);
        let passes = match verdict {
            Verdict::New { lost } => {
                self.counts.lost += lost;
                true
            }
            Verdict::Duplicate => {
                self.counts.duplicate += 1;
                self.defect == Some(Defect::Twice)
            }
            Verdict::Ahead | Verdict::Late | Verdict::Past { .. } | Verdict::Suspect | Verdict::NoRoom => {
                self.counts.late += 1;
                self.defect == Some(Defect::Late)
            }
        };
        if !passes {
            return;
        }
        self.counts.delivered += 1;
        if self.defect == Some(Defect::Swallowed) && self.counts.delivered.is_multiple_of(100) {
            return;
        }
        if self.defect == Some(Defect::Torn) && self.counts.delivered.is_multiple_of(100) {
            payload[0] ^= 1;
        }
        self.deliveries.push(Delivery { key, topic, sequence, payload });
        while let Some(older) = self.reassembler.give_up(|other, number, _| *other == key && number < sequence) {
            self.give_up(older);
        }
    }

    /// Puts a fragment where it belongs; the message, if it is now whole.
    fn collect(&mut self, key: &FlowKey, header: &DataHeader, payload: &[u8]) -> Option<Vec<u8>> {
        let (sequence, len) = (header.sequence, header.message_len);
        let (at, count) = (header.fragment_offset, payload.len() as u32);
        let mut arrival = self.reassembler.fragment(self.now, key, sequence, len, at, count);
        if arrival == Arrival::Unknown {
            if !self.flows.expects(self.now, key, sequence, || false) {
                self.counts.late += 1;
                return None;
            }
            self.begin(key, sequence, len)?;
            arrival = self.reassembler.fragment(self.now, key, sequence, len, at, count);
        }
        let (buffer, complete) = match arrival {
            Arrival::Store { handle } => (handle, false),
            Arrival::Complete { handle } => (handle, true),
            Arrival::Duplicate => {
                self.counts.duplicate += 1;
                return None;
            }
            Arrival::Inconsistent | Arrival::Unknown => {
                self.counts.inconsistent += 1;
                return None;
            }
        };
        self.counts.stored += 1;
        if let Some(bytes) = &mut self.pool.buffers[buffer] {
            bytes[at as usize..at as usize + payload.len()].copy_from_slice(payload);
        }
        if complete { self.pool.give_back(buffer) } else { None }
    }

    fn begin(&mut self, key: &FlowKey, sequence: u64, len: u32) -> Option<()> {
        if len as usize > MESSAGE_BYTES_MAX {
            self.counts.inconsistent += 1;
            return None;
        }
        let Some(buffer) = self.pool.lend(len as usize) else {
            self.counts.no_buffer += 1;
            return None;
        };
        match self.reassembler.begin(self.now, key, sequence, len, buffer) {
            Begin::Started { evicted } => {
                if let Some(evicted) = evicted {
                    self.give_up(evicted);
                }
                Some(())
            }
            Begin::TooLarge { refused } | Begin::Present { refused } => {
                self.pool.give_back(refused);
                self.counts.inconsistent += 1;
                None
            }
        }
    }
}

impl FrameSink for Data {
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        self.counts.frames += 1;
        let Some(peer) = from else {
            self.counts.unknown += 1;
            return;
        };
        match DataHeader::decode_frame(frame) {
            Ok((header, payload)) if header.kind == Kind::Data || header.closes_flow() => {
                if !self.is_of_this_life(peer, &header) {
                    self.counts.other_life += 1;
                } else if header.kind == Kind::Data {
                    self.data(&header, payload);
                } else {
                    self.close(&header);
                }
            }
            Ok((header, body)) if header.kind == Kind::Overlay => {
                let bounded = self.defect != Some(Defect::Unbounded);
                if bounded && self.overlay.len() >= OVERLAY_FRAMES_MAX {
                    self.counts.overlay_dropped += 1;
                } else if self.defect != Some(Defect::Deaf) || body.first() != Some(&KIND_DELTA) {
                    self.counts.overlay += 1;
                    self.overlay.push_back((peer, body.to_vec()));
                }
            }
            Ok(_) | Err(_) => self.counts.malformed += 1,
        }
    }
}
