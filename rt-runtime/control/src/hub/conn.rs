//! Connections: the two steps of their set-up, and their end.
//!
//! ```text
//!            both mapped, heap and                both mapped
//!            wake page sealed                     
//! Preparing ----------------------> Opening ----------------------> Active
//!     |  both kept: Active at once     |                               |
//!     +--------------------------------+--> gone <---------------------+
//!                                             ^                        | datapath's
//!                                             +----- Retiring <--------+ end
//! ```
//! What the control plane itself holds of a connection's memory it drops when the
//! connection is active: from then on both ends have their mappings.

use super::session::unasked;
use super::tables::{Answer, Conn, Ends, Owner, Stage};
use super::{Hub, Refusal};
use crate::action::{Action, AddRx, AddTx, Beside, Note, ObjectId, ObjectKind, Rings, Topic, Writer};
use crate::quota::Amounts;
use crate::spec::RegionSizes;
use insane_core::{ConnId, DatapathIndex, DomainIndex, MonoTime, SessionId, SourceId};
use insane_wire::control::{ClassSpec, Code, Event, Receiver, Sender, SinkWake, WakeKind};

/// Which clients hear that a connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tell {
    /// Both ends.
    Both,
    /// The source is being closed: its client knows.
    NotSource,
    /// The sink is being closed: its client knows.
    NotSink,
}

/// Places of a completion ring for a heap of so many buffers: enough for all of
/// them, so that it never fills; a power of two.
pub(super) const fn places(buffers: u32) -> u32 {
    if buffers == 0 { 0 } else { buffers.next_power_of_two() }
}

/// What a direct connection uses.
pub(super) fn direct_charge(sizes: &RegionSizes, depth: u32, buffers: u32) -> Amounts {
    Amounts { connections: 1, bytes: (sizes.cells)(depth) + (sizes.returns)(places(buffers)), ..Amounts::default() }
}

/// What both ends of a new connection say about it.
struct Shape {
    domain: DomainIndex,
    topic: Topic,
    depth: u32,
    buffers: u32,
    charge: Amounts,
}

impl Hub {
    /// Starts a connection. Where it cannot be had now, it is tried again later.
    pub(super) fn join(&mut self, ends: Ends, replacement: bool) {
        let Some(shape) = self.shape(ends) else { return };
        if let Err(refusal) = self.charge(shape.domain, &shape.charge) {
            self.postpone(ends, None, &refusal.reason);
            return;
        }
        let Some(conn) = self.ids.conn() else {
            self.account(shape.domain).release(&shape.charge);
            return;
        };
        let places = places(shape.buffers);
        let (tx_writer, rx_writer) = self.writers(ends);
        let cells = self.create(Owner::Conn(conn), ObjectKind::Cells { depth: shape.depth }, tx_writer);
        let returns = self.create(Owner::Conn(conn), ObjectKind::Returns { places }, rx_writer);
        let owed = |writer| if matches!(writer, Writer::Session(_)) { Answer::Owed } else { Answer::Mapped };
        let row = Conn {
            ends,
            domain: shape.domain,
            topic: shape.topic,
            stage: Stage::Preparing { tx: owed(tx_writer), rx: owed(rx_writer) },
            attached: false,
            cells: Some(cells),
            returns: Some(returns),
            depth: shape.depth,
            places,
            charge: shape.charge,
            replacement,
        };
        self.conns.insert(conn, row);
        self.attach(conn, ends);
        self.prepare(conn, ends, cells, returns, shape.depth, places);
    }

    /// `None` if an end is gone.
    fn shape(&self, ends: Ends) -> Option<Shape> {
        let source = ends.source().map(|source| self.sources.get(&source));
        let sink = ends.sink().map(|sink| self.sinks.get(&sink));
        let (domain, topic) = match (source, sink) {
            (Some(source), _) => (source?.domain, source?.topic),
            (None, sink) => (sink??.domain, sink??.topic),
        };
        let depth = match ends {
            Ends::ToDatapath { datapath, .. } => self.spec.datapath(datapath).tx_depth,
            Ends::Direct { .. } | Ends::FromDatapath { .. } => sink??.depth,
        };
        let buffers = match ends {
            Ends::FromDatapath { datapath, .. } => self.spec.datapath(datapath).heaps[domain.index()].buffers,
            Ends::Direct { .. } | Ends::ToDatapath { .. } => source??.heap_spec.buffers,
        };
        // Connections with datapaths are paid for by the source or sink.
        let charge = match ends {
            Ends::Direct { .. } => direct_charge(&self.spec.sizes, depth, buffers),
            Ends::ToDatapath { .. } | Ends::FromDatapath { .. } => Amounts::default(),
        };
        Some(Shape { domain, topic, depth, buffers, charge })
    }

    fn writers(&self, ends: Ends) -> (Writer, Writer) {
        match ends {
            Ends::Direct { source, sink } => {
                (Writer::Session(self.sources[&source].session), Writer::Session(self.sinks[&sink].session))
            }
            Ends::ToDatapath { source, datapath } => {
                (Writer::Session(self.sources[&source].session), Writer::Datapath(datapath))
            }
            Ends::FromDatapath { datapath, sink } => {
                (Writer::Datapath(datapath), Writer::Session(self.sinks[&sink].session))
            }
        }
    }

    fn attach(&mut self, conn: ConnId, ends: Ends) {
        if let Some(source) = ends.source().and_then(|source| self.sources.get_mut(&source)) {
            match ends {
                Ends::ToDatapath { datapath, .. } => drop(source.datapaths.insert(datapath, conn)),
                _ => drop(source.direct.insert(conn)),
            }
        }
        if let Some(sink) = ends.sink().and_then(|sink| self.sinks.get_mut(&sink)) {
            match ends {
                Ends::FromDatapath { datapath, .. } => drop(sink.datapaths.insert(datapath, conn)),
                _ => drop(sink.direct.insert(conn)),
            }
        }
    }

    fn detach(&mut self, conn: ConnId, ends: Ends) {
        if let Some(source) = ends.source().and_then(|source| self.sources.get_mut(&source)) {
            source.direct.remove(&conn);
            source.datapaths.retain(|_, id| *id != conn);
        }
        if let Some(sink) = ends.sink().and_then(|sink| self.sinks.get_mut(&sink)) {
            sink.direct.remove(&conn);
            sink.datapaths.retain(|_, id| *id != conn);
        }
    }

    /// Sends step 1 to the clients.
    fn prepare(&mut self, conn: ConnId, ends: Ends, cells: ObjectId, returns: ObjectId, depth: u32, places: u32) {
        if let Some(source) = ends.source() {
            let to = ends.sink().map_or(Receiver::Datapath, |sink| match &self.sinks[&sink] {
                tap if tap.observes => Receiver::Tap(tap.uid),
                sink => Receiver::Sink(sink.uid),
            });
            let event = Event::TxPrepare { conn, source, to, depth };
            self.send(self.sources[&source].session, event, vec![Beside::ReadWrite(cells)]);
        }
        if let Some(sink) = ends.sink() {
            let from = ends.source().map_or(Sender::Datapath, |source| Sender::Source(self.sources[&source].uid));
            let event = Event::RxPrepare { conn, sink, from, depth, returns: places };
            self.send(self.sinks[&sink].session, event, vec![Beside::ReadWrite(returns)]);
        }
    }

    /// Whose the two ends are; `None` for a datapath's.
    fn sessions_of(&self, ends: Ends) -> (Option<SessionId>, Option<SessionId>) {
        let tx = ends.source().and_then(|source| self.sources.get(&source)).map(|row| row.session);
        let rx = ends.sink().and_then(|sink| self.sinks.get(&sink)).map(|row| row.session);
        (tx, rx)
    }

    /// A client has mapped what came with a step. Where both ends are of one session,
    /// it says so twice.
    pub(super) fn mapped(&mut self, session: SessionId, conn: ConnId, step: u8) -> Result<(), Refusal> {
        let what = format!("step {step} of connection {conn}");
        if !matches!(step, 1 | 2) {
            return Err(unasked(&what));
        }
        let Some(ends) = self.live_ends(session, conn, &what)? else { return Ok(()) };
        let (is_tx, is_rx) = self.owned(session, ends);
        let Some(row) = self.conns.get_mut(&conn) else { return Ok(()) };
        let taken = match (&mut row.stage, step) {
            (Stage::Preparing { tx, rx }, 1) => take(tx, is_tx, Answer::Mapped) || take(rx, is_rx, Answer::Mapped),
            (Stage::Opening { tx, rx }, 2) => take_flag(tx, is_tx) || take_flag(rx, is_rx),
            _ => false,
        };
        if !taken {
            return Err(unasked(&what));
        }
        self.progress(conn);
        Ok(())
    }

    /// A client says that the two ends have a ring from before.
    pub(super) fn kept(&mut self, session: SessionId, conn: ConnId) -> Result<(), Refusal> {
        let what = format!("connection {conn} as kept");
        let Some(ends) = self.live_ends(session, conn, &what)? else { return Ok(()) };
        let (is_tx, is_rx) = self.owned(session, ends);
        let Some(row) = self.conns.get_mut(&conn) else { return Ok(()) };
        let taken = match (&mut row.stage, ends) {
            (Stage::Preparing { tx, rx }, Ends::Direct { .. }) => {
                take(tx, is_tx, Answer::Kept) || take(rx, is_rx, Answer::Kept)
            }
            _ => false,
        };
        if !taken {
            return Err(unasked(&what));
        }
        self.progress(conn);
        Ok(())
    }

    /// The ends of a connection that the session has a part in; `None` if it is gone
    /// and the acknowledgement crossed with that.
    fn live_ends(&mut self, session: SessionId, conn: ConnId, what: &str) -> Result<Option<Ends>, Refusal> {
        let Some(row) = self.conns.get(&conn) else {
            if !self.ids.was_conn(conn) {
                return Err(unasked(what));
            }
            return self.take_stale(session, what).map(|()| None);
        };
        let ends = row.ends;
        let retiring = row.stage == Stage::Retiring;
        let (is_tx, is_rx) = self.owned(session, ends);
        // A connection retires only when it was active, and then nothing is owed.
        if retiring || !(is_tx || is_rx) { Err(unasked(what)) } else { Ok(Some(ends)) }
    }

    fn owned(&self, session: SessionId, ends: Ends) -> (bool, bool) {
        let (tx, rx) = self.sessions_of(ends);
        (tx == Some(session), rx == Some(session))
    }

    /// Takes a connection to its next stage if everything for that is there.
    pub(super) fn progress(&mut self, conn: ConnId) {
        let Some(row) = self.conns.get(&conn) else { return };
        let ends = row.ends;
        match row.stage {
            Stage::Preparing { tx: Answer::Mapped, rx: Answer::Mapped } => {
                let heap = ends.source().is_none_or(|source| self.sources[&source].ready);
                let wake = ends.sink().is_none_or(|sink| self.sinks[&sink].ready);
                if heap && wake {
                    self.open(conn);
                }
            }
            Stage::Preparing { tx: Answer::Kept, rx: Answer::Kept } => self.keep(conn),
            Stage::Preparing { tx, rx } if tx != Answer::Owed && rx != Answer::Owed => self.replace(conn),
            Stage::Opening { tx: true, rx: true } => self.activate(conn),
            _ => {}
        }
    }

    /// Both ends have a ring of their own.
    fn keep(&mut self, conn: ConnId) {
        let Some(row) = self.conns.get_mut(&conn) else { return };
        row.stage = Stage::Active;
        let (cells, returns) = (row.cells.take(), row.returns.take());
        self.discard(cells);
        self.discard(returns);
    }

    /// One end has a ring from before and the other does not: they start anew, once.
    fn replace(&mut self, conn: ConnId) {
        let Some(row) = self.conns.get(&conn) else { return };
        let (ends, replacement) = (row.ends, row.replacement);
        self.retire(conn, Tell::Both);
        if !replacement {
            self.join(ends, true);
        }
    }

    /// Step 2: seals, and shows each end what the other writes.
    fn open(&mut self, conn: ConnId) {
        let Some(row) = self.conns.get_mut(&conn) else { return };
        let (ends, places, domain) = (row.ends, row.places, row.domain);
        let (cells, returns) = (row.cells, row.returns);
        row.stage = Stage::Opening { tx: ends.source().is_none(), rx: ends.sink().is_none() };
        self.seal(cells);
        self.seal(returns);
        let (tx, rx) = self.sessions_of(ends);
        if let Some(tx) = tx {
            let (wake, mut beside) = self.waker(tx, ends);
            beside.splice(0..0, returns.map(Beside::ReadOnly));
            self.send(tx, Event::TxOpen { conn, returns: places, wake }, beside);
        }
        if let Some(rx) = rx {
            let (heap_bytes, classes, heap) = self.heap_seen(ends, domain);
            let beside = cells.map(Beside::ReadOnly).into_iter().chain(heap).collect();
            let trusted = self.trusts(rx, tx);
            self.send(rx, Event::RxOpen { conn, heap_bytes, classes, trusted }, beside);
        }
    }

    /// How the producer `tx` wakes the other end, and the descriptors for that.
    fn waker(&mut self, tx: SessionId, ends: Ends) -> (WakeKind, Vec<Beside>) {
        match ends {
            Ends::ToDatapath { datapath, .. } if self.spec.datapath(datapath).may_sleep => {
                let doorbell = self.doorbell(tx, datapath);
                (WakeKind::Event, vec![Beside::DatapathWakePage(datapath), Beside::Doorbell(doorbell)])
            }
            Ends::Direct { sink, .. } => {
                let sink = &self.sinks[&sink];
                let page = sink.wake_page.map(Beside::ReadOnly);
                let socket = sink.wake_socket.map(Beside::WakeWriter);
                let kind = match sink.wake {
                    SinkWake::Never => WakeKind::Never,
                    SinkWake::Page => WakeKind::Page,
                    SinkWake::Fd => WakeKind::Fd,
                };
                (kind, page.into_iter().chain(socket).collect())
            }
            Ends::ToDatapath { .. } | Ends::FromDatapath { .. } => (WakeKind::Never, Vec::new()),
        }
    }

    fn doorbell(&mut self, session: SessionId, datapath: DatapathIndex) -> ObjectId {
        if let Some(object) = self.sessions.get(&session).and_then(|row| row.doorbells.get(&datapath)) {
            return *object;
        }
        let owner = Owner::Doorbell(session, datapath);
        let object = self.create(owner, ObjectKind::Doorbell, Writer::Session(session));
        self.actions.push_back(Action::AddDoorbell { datapath, session, object });
        if let Some(row) = self.sessions.get_mut(&session) {
            row.doorbells.insert(datapath, object);
        }
        object
    }

    /// The sender's heap as its receiver sees it.
    fn heap_seen(&self, ends: Ends, domain: DomainIndex) -> (u64, Vec<ClassSpec>, Option<Beside>) {
        let (spec, beside) = match ends {
            Ends::FromDatapath { datapath, .. } => {
                (&self.spec.datapath(datapath).heaps[domain.index()], Some(Beside::DatapathHeap(datapath, domain)))
            }
            Ends::Direct { source, .. } | Ends::ToDatapath { source, .. } => {
                let source = &self.sources[&source];
                (&source.heap_spec, source.heap.map(Beside::ReadOnly))
            }
        };
        (spec.bytes, spec.classes.clone(), beside.filter(|_| spec.bytes > 0))
    }

    /// Whether `reader` may take what `writer` wrote as written by itself: the runtime
    /// (`None`), the same session, or another one of the hosting process.
    fn trusts(&self, reader: SessionId, writer: Option<SessionId>) -> bool {
        let in_process = |session| self.sessions.get(&session).is_some_and(|row| row.origin.in_process());
        writer.is_none_or(|writer| writer == reader || (in_process(writer) && in_process(reader)))
    }

    fn activate(&mut self, conn: ConnId) {
        let Some(row) = self.conns.get_mut(&conn) else { return };
        row.stage = Stage::Active;
        let (cells, returns) = (row.cells.take(), row.returns.take());
        let ends = row.ends;
        if let (Some(cells), Some(returns)) = (cells, returns) {
            let rings = Rings { cells, returns, depth: row.depth, places: row.places };
            self.hand_to_datapath(conn, ends, rings);
        }
        self.discard(cells);
        self.discard(returns);
        if let (Some(tx), _) = self.sessions_of(ends) {
            self.send(tx, Event::Activate { conn }, Vec::new());
        }
    }

    /// A datapath has a connection that it was given: what comes for its sink finds it.
    pub(super) fn note_attached(&mut self, conn: ConnId) {
        let Some(row) = self.conns.get_mut(&conn) else { return };
        row.attached = true;
        let topic = row.topic;
        if let (Stage::Active, Ends::FromDatapath { .. }) = (row.stage, row.ends) {
            self.update_interest(topic);
            self.update_routes(topic);
        }
    }

    fn hand_to_datapath(&mut self, conn: ConnId, ends: Ends, rings: Rings) {
        match ends {
            Ends::Direct { .. } => {}
            Ends::ToDatapath { source, datapath } => {
                let row = &self.sources[&source];
                let qos = self.contracts[&row.topic.key].qos;
                let add = AddTx {
                    datapath,
                    conn,
                    source,
                    session: row.session,
                    domain: row.domain,
                    topic: row.topic,
                    qos,
                    lane: qos.lane(),
                    slots: self.slot_number(datapath, source),
                    rings,
                    heap: row.heap,
                    classes: row.heap_spec.classes.clone(),
                    keeps: row.keeps,
                };
                self.actions.push_back(Action::AddTx(Box::new(add)));
            }
            Ends::FromDatapath { datapath, sink } => {
                let row = &self.sinks[&sink];
                let add = AddRx {
                    datapath,
                    conn,
                    sink,
                    session: row.session,
                    domain: row.domain,
                    topic: row.topic,
                    qos: self.contracts[&row.topic.key].qos,
                    rings,
                    wake: row.wake,
                    wake_page: row.wake_page,
                    wake_socket: row.wake_socket,
                    observes: row.observes,
                };
                self.actions.push_back(Action::AddRx(Box::new(add)));
            }
        }
    }

    /// Ends a connection, at whatever stage.
    ///
    /// A source that goes on without its datapath has its buffers for itself when it is told, so
    /// it is told when the datapath reads them no more, and that is at once: who was to get what
    /// is left there is gone.
    pub(super) fn retire(&mut self, conn: ConnId, tell: Tell) {
        let Some(row) = self.conns.get_mut(&conn) else { return };
        let (ends, stage, topic) = (row.ends, row.stage, row.topic);
        if stage == Stage::Retiring {
            return;
        }
        let (cells, returns) = (row.cells.take(), row.returns.take());
        let (tx, rx) = self.sessions_of(ends);
        let (tx_owes, rx_owes) = match stage {
            Stage::Preparing { tx, rx } => (tx == Answer::Owed, rx == Answer::Owed),
            Stage::Opening { tx, rx } => (!tx, !rx),
            Stage::Active | Stage::Retiring => (false, false),
        };
        let is_read = stage == Stage::Active && matches!(ends, Ends::ToDatapath { .. });
        for (session, owes, silent) in [(tx, tx_owes, Tell::NotSource), (rx, rx_owes, Tell::NotSink)] {
            let Some(session) = session else { continue };
            if owes {
                self.expect_stale(session);
            }
            if tell != silent && !(is_read && silent == Tell::NotSource) {
                self.send(session, Event::Retire { conn }, Vec::new());
            }
        }
        self.discard(cells);
        self.discard(returns);
        match ends {
            Ends::ToDatapath { datapath, .. } if stage == Stage::Active => {
                *self.channels.entry(topic).or_default().draining.entry(datapath).or_default() += 1;
                let at_once = tell != Tell::NotSource;
                self.linger(conn, Action::RemoveTx { datapath, conn, at_once });
            }
            Ends::FromDatapath { datapath, .. } if stage == Stage::Active => {
                self.linger(conn, Action::RemoveRx { datapath, conn });
                self.update_interest(topic);
            }
            _ => self.forget(conn),
        }
    }

    /// Keeps the row until the datapath has let go.
    fn linger(&mut self, conn: ConnId, remove: Action) {
        if let Some(row) = self.conns.get_mut(&conn) {
            row.stage = Stage::Retiring;
        }
        self.actions.push_back(remove);
    }

    fn forget(&mut self, conn: ConnId) {
        let Some(row) = self.conns.remove(&conn) else { return };
        self.detach(conn, row.ends);
        self.account(row.domain).release(&row.charge);
    }

    pub(super) fn finish_retiring(&mut self, conn: ConnId) {
        let Some(row) = self.conns.get(&conn) else { return };
        let (ends, topic) = (row.ends, row.topic);
        if row.stage != Stage::Retiring {
            return;
        }
        // Of a source that was closed nobody waits to hear this.
        if let (Ends::ToDatapath { .. }, (Some(tx), _)) = (ends, self.sessions_of(ends)) {
            self.send(tx, Event::Retire { conn }, Vec::new());
        }
        self.forget(conn);
        if let Ends::ToDatapath { datapath, .. } = ends
            && let Some(channel) = self.channels.get_mut(&topic)
            && let Some(count) = channel.draining.get_mut(&datapath)
        {
            *count -= 1;
            channel.draining.retain(|_, count| *count > 0);
        }
        self.update_routes(topic);
    }

    /// A client says that the other end of a connection wrote what it may not. Of one that it has
    /// not mapped yet it says that it cannot: that is tried again later.
    ///
    /// It costs the session's pace: one with a datapath is made anew, memory and all, and one that
    /// is over nobody asked about. Only that another client lied is free: it ends the connection
    /// for good, and who has many liars for peers must not be put out for them.
    pub(super) fn violation(&mut self, session: SessionId, conn: ConnId, now: MonoTime) -> Result<(), Refusal> {
        let what = format!("connection {conn}");
        let Some(row) = self.conns.get(&conn) else {
            // It crossed with the connection's end.
            return if self.ids.was_conn(conn) { self.pace(session, 1, now).map(drop) } else { Err(unasked(&what)) };
        };
        let (ends, stage) = (row.ends, row.stage);
        let (is_tx, is_rx) = self.owned(session, ends);
        // The row outlives a closed source or sink while its datapath lets go.
        if !(is_tx || is_rx || stage == Stage::Retiring) {
            return Err(unasked(&what));
        }
        let has_mapped = match stage {
            Stage::Preparing { .. } | Stage::Retiring => false,
            Stage::Opening { tx, rx } => (tx || !is_tx) && (rx || !is_rx),
            Stage::Active => true,
        };
        if !(has_mapped && matches!(ends, Ends::Direct { .. })) {
            // Too fast: what is to end ends all the same, and a flood ends the session.
            let _ = self.pace(session, 1, now)?;
        }
        if stage == Stage::Retiring {
            return Ok(());
        }
        if has_mapped {
            self.note(Note::Violated { conn, by: Some(session) });
            self.retire(conn, Tell::Both);
        } else {
            let reason = format!("session {session} cannot map it");
            self.fail_conn(conn, &Refusal::new(Code::Resources, reason));
        }
        Ok(())
    }

    /// Notes that two ends are to be joined later.
    fn postpone(&mut self, ends: Ends, conn: Option<ConnId>, reason: &str) {
        self.unjoined.insert(ends);
        if let Some(conn) = conn {
            self.note(Note::Unjoined { conn, reason: reason.to_owned() });
        }
    }

    /// The memory of a connection could not be made.
    pub(super) fn fail_conn(&mut self, conn: ConnId, refusal: &Refusal) {
        let Some(row) = self.conns.get(&conn) else { return };
        let ends = row.ends;
        self.postpone(ends, Some(conn), &refusal.reason);
        self.retire(conn, Tell::Both);
    }

    /// A session's doorbell could not be made: what was to be opened with it waits.
    pub(super) fn fail_doorbell(&mut self, session: SessionId, datapath: DatapathIndex, refusal: &Refusal) {
        let Some(row) = self.sessions.get_mut(&session) else { return };
        row.doorbells.remove(&datapath);
        let opening = |conn: &Conn| matches!(conn.stage, Stage::Opening { .. });
        let mine = |source: SourceId| self.sources.get(&source).is_some_and(|row| row.session == session);
        let failed: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| opening(conn))
            .filter(|(_, conn)| matches!(conn.ends, Ends::ToDatapath { source, datapath: d } if d == datapath && mine(source)))
            .map(|(id, _)| *id)
            .collect();
        failed.into_iter().for_each(|conn| self.fail_conn(conn, refusal));
    }

    /// Joins two ends that could not be joined before, if they are still there.
    pub(super) fn rejoin(&mut self, ends: Ends) {
        match ends {
            Ends::ToDatapath { source, .. } => {
                if let Some(topic) = self.sources.get(&source).map(|row| row.topic) {
                    self.update_routes(topic);
                }
            }
            Ends::Direct { .. } => self.join(ends, false),
            Ends::FromDatapath { datapath, sink } => {
                if self.sinks.get(&sink).is_some_and(|row| !row.datapaths.contains_key(&datapath)) {
                    self.join(ends, false);
                }
            }
        }
    }
}

/// Puts an answer that is owed in its place.
fn take(answer: &mut Answer, mine: bool, given: Answer) -> bool {
    let owed = mine && *answer == Answer::Owed;
    if owed {
        *answer = given;
    }
    owed
}

fn take_flag(done: &mut bool, mine: bool) -> bool {
    let owed = mine && !*done;
    *done |= owed;
    owed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_ring_has_a_place_for_every_buffer() {
        assert_eq!([0, 1, 3, 64, 65].map(places), [0, 1, 4, 64, 128]);
    }

    #[test]
    fn an_answer_is_taken_once_and_only_from_its_end() {
        let mut answer = Answer::Owed;
        assert!(!take(&mut answer, false, Answer::Mapped));
        assert!(take(&mut answer, true, Answer::Mapped));
        assert!(!take(&mut answer, true, Answer::Kept));
        assert_eq!(answer, Answer::Mapped);
    }
}
