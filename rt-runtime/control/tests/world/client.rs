//! A client in miniature: answers the runtime's events in order, as the real one does.

use insane_control::action::{Beside, ObjectId};
use insane_core::{ConnId, SinkId, SourceId, StreamId};
use insane_wire::control::{Code, Event, Receiver, Request, Sender, WakeKind};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How far the client's end of a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndState {
    Prepared,
    Opened,
    /// Producer: may send. Consumers stay `Opened`.
    Active,
    Kept,
}

/// Producer and consumer, by their uids; `None` is a datapath.
pub type Pair = (Option<u64>, Option<u64>);

#[derive(Debug)]
pub struct Client {
    pub uid: u32,
    /// Whether the test lets it do only what a correct client does.
    pub honest: bool,
    pub welcomed: bool,
    pub inbox: VecDeque<(Event, Vec<Beside>)>,
    pub streams: BTreeSet<StreamId>,
    pub sources: BTreeMap<SourceId, u64>,
    pub sinks: BTreeMap<SinkId, u64>,
    pub tx: BTreeMap<ConnId, (Pair, EndState)>,
    pub rx: BTreeMap<ConnId, (Pair, EndState)>,
    /// Direct rings that a former life of the runtime set up.
    pub rings_tx: BTreeSet<Pair>,
    pub rings_rx: BTreeSet<Pair>,
    pub failures: Vec<(u32, Code, String)>,
    pub events: Vec<Event>,
    /// Uids of the requests under way.
    pub asked: BTreeMap<u32, u64>,
}

type Answers = Vec<(Request, Option<ObjectId>)>;

impl Client {
    pub fn new(uid: u32) -> Self {
        Client {
            uid,
            honest: true,
            welcomed: false,
            inbox: VecDeque::new(),
            streams: BTreeSet::new(),
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            tx: BTreeMap::new(),
            rx: BTreeMap::new(),
            rings_tx: BTreeSet::new(),
            rings_rx: BTreeSet::new(),
            failures: Vec::new(),
            events: Vec::new(),
            asked: BTreeMap::new(),
        }
    }

    /// What it answers, and the memory that is mapped with that.
    pub fn handle(&mut self, event: &Event, beside: &[Beside]) -> Answers {
        self.events.push(event.clone());
        let object = beside.first().and_then(Beside::object);
        match event {
            Event::Welcome { .. } => {
                self.welcomed = true;
                object.map(|_| (Request::SessionMapped, object)).into_iter().collect()
            }
            Event::StreamOpened { stream, .. } => {
                self.streams.insert(*stream);
                Vec::new()
            }
            Event::SourceCreated { req, source, heap_bytes, .. } => {
                self.sources.insert(*source, self.asked[req]);
                assert!(beside.len() <= usize::from(*heap_bytes > 0));
                object.map(|_| (Request::SourceMapped { source: *source }, object)).into_iter().collect()
            }
            Event::SinkCreated { req, sink, .. } => {
                self.sinks.insert(*sink, self.asked[req]);
                object.map(|_| (Request::SinkMapped { sink: *sink }, object)).into_iter().collect()
            }
            Event::Failed { req, code, reason } => {
                self.failures.push((*req, *code, reason.clone()));
                Vec::new()
            }
            _ => self.handle_connection(event, beside, object),
        }
    }

    fn handle_connection(&mut self, event: &Event, beside: &[Beside], object: Option<ObjectId>) -> Answers {
        match event {
            Event::TxPrepare { conn, source, to, .. } => {
                // Sent before the runtime knew that the source is closed.
                let Some(uid) = self.sources.get(source) else { return Vec::new() };
                let to = if let Receiver::Sink(uid) | Receiver::Tap(uid) = to { Some(*uid) } else { None };
                self.prepare(*conn, (Some(*uid), to), true, object)
            }
            Event::RxPrepare { conn, sink, from, .. } => {
                let Some(uid) = self.sinks.get(sink) else { return Vec::new() };
                let from = if let Sender::Source(uid) = from { Some(*uid) } else { None };
                self.prepare(*conn, (from, Some(*uid)), false, object)
            }
            Event::TxOpen { conn, wake, .. } => {
                let descriptors = match wake {
                    WakeKind::Never => 1,
                    WakeKind::Page => 2,
                    WakeKind::Fd | WakeKind::Event => 3,
                };
                assert_eq!(beside.len(), descriptors);
                open(&mut self.tx, *conn)
            }
            Event::RxOpen { conn, heap_bytes, .. } => {
                assert_eq!(beside.len(), 1 + usize::from(*heap_bytes > 0));
                if let Some((pair, _)) = self.rx.get(conn).filter(|(pair, _)| pair.0.is_some()) {
                    self.rings_rx.insert(*pair);
                }
                open(&mut self.rx, *conn)
            }
            Event::Activate { conn } => {
                if let Some((pair, state)) = self.tx.get_mut(conn) {
                    assert_eq!(*state, EndState::Opened, "activated before it was open");
                    *state = EndState::Active;
                    if pair.1.is_some() {
                        self.rings_tx.insert(*pair);
                    }
                }
                Vec::new()
            }
            Event::Retire { conn } => {
                if let Some((pair, _)) = self.tx.remove(conn) {
                    self.rings_tx.remove(&pair);
                }
                if let Some((pair, _)) = self.rx.remove(conn) {
                    self.rings_rx.remove(&pair);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn prepare(&mut self, conn: ConnId, pair: Pair, producer: bool, object: Option<ObjectId>) -> Answers {
        let (ends, rings) = if producer { (&mut self.tx, &self.rings_tx) } else { (&mut self.rx, &self.rings_rx) };
        let kept = rings.contains(&pair);
        ends.insert(conn, (pair, if kept { EndState::Kept } else { EndState::Prepared }));
        let answer = if kept { Request::Kept { conn } } else { Request::Mapped { conn, step: 1 } };
        vec![(answer, object.filter(|_| !kept))]
    }

    /// Closes a source: the client forgets its connections at once.
    pub fn forget_source(&mut self, source: SourceId) {
        if let Some(uid) = self.sources.remove(&source) {
            self.tx.retain(|_, (pair, _)| pair.0 != Some(uid));
            self.rings_tx.retain(|pair| pair.0 != Some(uid));
        }
    }

    pub fn forget_sink(&mut self, sink: SinkId) {
        if let Some(uid) = self.sinks.remove(&sink) {
            self.rx.retain(|_, (pair, _)| pair.1 != Some(uid));
            self.rings_rx.retain(|pair| pair.1 != Some(uid));
        }
    }
}

fn open(ends: &mut BTreeMap<ConnId, (Pair, EndState)>, conn: ConnId) -> Answers {
    let Some((_, state)) = ends.get_mut(&conn) else { return Vec::new() };
    assert_eq!(*state, EndState::Prepared, "opened out of turn");
    *state = EndState::Opened;
    vec![(Request::Mapped { conn, step: 2 }, None)]
}
