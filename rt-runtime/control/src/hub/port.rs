//! Sources and sinks: creation, acknowledgement of their memory, closing.

use super::conn::{Tell, direct_charge, places};
use super::session::{numbers_used_up, unasked};
use super::tables::{Contract, Ends, Owner, Port, Sink, Source};
use super::{Hub, Refusal};
use crate::action::{Action, Beside, ObjectKind, Topic, Writer};
use crate::quota::Amounts;
use crate::spec::HeapSpec;
use insane_config::RELIABLE_SOURCES_OF_DATAPATH;
use insane_core::limits::{CLASSES_MAX, FANIN_MAX, FANOUT_MAX, MESSAGE_BYTES_MAX};
use insane_core::{ChannelId, ConnId, DomainIndex, Qos, Reliability, Schema, SessionId, SinkId, SourceId, StreamId};
use insane_wire::control::{ClassSpec, Code, Event, SinkWake};
use std::collections::{BTreeMap, BTreeSet};

/// Smallest and largest depth of a sink's rings.
const DEPTHS: std::ops::RangeInclusive<u32> = 2..=65_536;

/// Sinks of one channel on one host that only watch.
const TAPS_MAX: usize = 4;

/// What a new sink is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receives {
    /// It takes part, and is woken so.
    Fully(SinkWake),
    /// It only watches, and polls.
    Watching,
}

impl Receives {
    const fn wake(self) -> SinkWake {
        match self {
            Receives::Fully(wake) => wake,
            Receives::Watching => SinkWake::Never,
        }
    }
}

/// Where a new source or sink will be.
pub(super) struct Place {
    pub(super) domain: DomainIndex,
    pub(super) topic: Topic,
    pub(super) qos: Qos,
    pub(super) isolated: bool,
}

impl Hub {
    fn place(&self, session: SessionId, stream: StreamId, channel: ChannelId) -> Result<Place, Refusal> {
        let key = self.own_stream(session, stream)?.key;
        let Contract { domain, qos, isolated, .. } = self.contracts[&key];
        Ok(Place { domain, topic: Topic { key, channel }, qos, isolated })
    }

    fn members(&self, topic: Topic) -> (Vec<SourceId>, Vec<SinkId>) {
        self.channels.get(&topic).map_or_else(Default::default, |channel| {
            (channel.sources.iter().copied().collect(), channel.sinks.iter().copied().collect())
        })
    }

    fn check_uid(&self, domain: DomainIndex, port: Port, uid: u64) -> Result<(), Refusal> {
        if !self.uids.contains(&(domain, port, uid)) {
            return Ok(());
        }
        // Two ends of one uid could be taken for each other after a reattachment.
        Err(Refusal::new(Code::Invalid, "another source or sink of the domain has this uid"))
    }

    /// The line of its session's counters page that an end says it counts in. That no other end
    /// says the same is the session's business: it writes the page, and harms its own figures.
    fn check_line(&self, line: Option<u32>) -> Result<(), Refusal> {
        let lines = self.spec.counter_lines;
        match line.filter(|line| *line >= lines) {
            None => Ok(()),
            Some(line) => {
                let reason =
                    format!("a counters page has the lines 0 to {}; named was {line}", lines.saturating_sub(1));
                Err(Refusal::new(Code::Invalid, reason))
            }
        }
    }

    /// Every source and sink has a line of the session's counters page.
    fn take_line(&mut self, session: SessionId) -> Result<(), Refusal> {
        let most = self.spec.counter_lines;
        match self.sessions.get_mut(&session).filter(|row| row.ports < most) {
            Some(row) => row.ports += 1,
            None => {
                let reason = format!("a session has at most {most} sources and sinks");
                return Err(Refusal::new(Code::Resources, reason));
            }
        }
        Ok(())
    }

    fn give_line_back(&mut self, session: SessionId) {
        if let Some(row) = self.sessions.get_mut(&session) {
            row.ports -= 1;
        }
    }

    /// Ends of one channel that say what their messages are say the same.
    fn check_schema(&self, kind: Port, topic: Topic, schema: Option<Schema>) -> Result<(), Refusal> {
        let Some(schema) = schema else { return Ok(()) };
        if !schema.is_valid() {
            return Err(Refusal::new(Code::Invalid, "a schema's name has 1 to 32 bytes and no control characters"));
        }
        let (Some(channel), Some(contract)) = (self.channels.get(&topic), self.contracts.get(&topic.key)) else {
            return Ok(());
        };
        // Sinks here and there do not meet; a source meets both.
        let meant = channel.peers.iter().filter(|sinks| kind == Port::Source && sinks.check == contract.check);
        let of_peers = meant.filter_map(|sinks| sinks.schema.map(|other| ("sink of another host on", other)));
        let of_sources =
            channel.sources.iter().filter_map(|id| self.sources[id].schema.map(|other| ("source of", other)));
        let of_sinks = channel.sinks.iter().filter_map(|id| self.sinks[id].schema.map(|other| ("sink of", other)));
        match of_sources.chain(of_sinks).chain(of_peers).find(|(_, other)| !schema.matches(other)) {
            None => Ok(()),
            Some((whose, other)) => {
                let reason = format!("the schema {schema} does not match {other} of a {whose} the channel");
                Err(Refusal::new(Code::Schema, reason))
            }
        }
    }

    /// A datapath has room for so many reliable sources. Each domain may have its part of it,
    /// whoever else was there first; what cannot be divided is had by who asks first. As
    /// connections come and go with what peers listen to, the place is kept from the start.
    fn check_reliable(&self, place: &Place) -> Result<(), Refusal> {
        if place.qos.reliability != Reliability::Reliable {
            return Ok(());
        }
        let Some(datapath) = self.spec.tx_datapath(place.qos.lane(), place.isolated) else { return Ok(()) };
        let mut used = vec![0; self.spec.domains.len()];
        for source in self.sources.values() {
            let contract = &self.contracts[&source.topic.key];
            if contract.qos.reliability == Reliability::Reliable
                && self.spec.tx_datapath(contract.qos.lane(), contract.isolated) == Some(datapath)
            {
                used[source.domain.index()] += 1;
            }
        }
        let (most, own) = (RELIABLE_SOURCES_OF_DATAPATH, place.domain.index());
        let part = most / used.len() as u32;
        let others = used.iter().enumerate().filter(|(at, _)| *at != own);
        let kept: u32 = others.map(|(_, used)| part.max(*used)).sum();
        if used[own] + kept < most {
            return Ok(());
        }
        let reason = format!(
            "a datapath serves {most} reliable sources, {part} of each domain; {} of this one are in use",
            used[own]
        );
        Err(Refusal::new(Code::Resources, reason))
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one request")]
    pub(super) fn create_source(
        &mut self,
        session: SessionId,
        req: u32,
        stream: StreamId,
        channel: ChannelId,
        uid: u64,
        classes: &[ClassSpec],
        (schema, keeps, line): (Option<Schema>, bool, Option<u32>),
    ) -> Result<(), Refusal> {
        let place = self.place(session, stream, channel)?;
        self.check_line(line)?;
        let heap_spec = check_classes(classes)?;
        self.check_uid(place.domain, Port::Source, uid)?;
        self.check_schema(Port::Source, place.topic, schema)?;
        let (sources, sinks) = self.members(place.topic);
        let joined = if place.isolated { Vec::new() } else { sinks };
        if !joined.is_empty() {
            self.check_fan_in(&place, sources.len() + 1)?;
        }
        let direct =
            joined.iter().map(|sink| direct_charge(&self.spec.sizes, self.sinks[sink].depth, heap_spec.buffers));
        let direct = direct.fold(Amounts::default(), |sum, charge| sum + charge);
        let charge = self.source_charge(&place, &heap_spec);
        self.check_charge(place.domain, &(charge + direct))?;
        self.check_reliable(&place)?;
        let seat = self.admit_source(&place, session, uid)?;
        if let Err(refusal) = self.take_line(session) {
            self.dismiss(seat);
            return Err(refusal);
        }
        let Some(source) = self.ids.source() else {
            self.give_line_back(session);
            self.dismiss(seat);
            return Err(numbers_used_up());
        };
        self.seat(seat, source);
        self.account(place.domain).add(&charge);
        self.insert_source(session, req, source, stream, &place, uid, (schema, keeps, line), heap_spec, charge);
        for sink in joined {
            self.join(Ends::Direct { source, sink }, false);
        }
        self.update_routes(place.topic);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one row, named at the one call")]
    fn insert_source(
        &mut self,
        session: SessionId,
        req: u32,
        source: SourceId,
        stream: StreamId,
        place: &Place,
        uid: u64,
        (schema, keeps, line): (Option<Schema>, bool, Option<u32>),
        heap_spec: HeapSpec,
        charge: Amounts,
    ) {
        let heap_bytes = heap_spec.bytes;
        let kind = ObjectKind::Heap { classes: heap_spec.classes.clone() };
        let adopted = self.adopts;
        let writer = if adopted { Writer::Adopted } else { Writer::Session(session) };
        let heap = (heap_bytes > 0).then(|| self.create(Owner::Source(source), kind, writer));
        let row = Source {
            session,
            domain: place.domain,
            stream,
            topic: place.topic,
            uid,
            schema,
            keeps,
            line,
            heap_spec,
            heap,
            ready: heap.is_none() || adopted,
            direct: BTreeSet::new(),
            datapaths: BTreeMap::new(),
            charge,
        };
        self.sources.insert(source, row);
        self.uids.insert((place.domain, Port::Source, uid));
        self.channels.entry(place.topic).or_default().sources.insert(source);
        if let Some(row) = self.streams.get_mut(&stream) {
            row.sources.insert(source);
        }
        let created = Event::SourceCreated { req, source, heap_bytes };
        let beside = heap.filter(|_| !adopted).map(Beside::ReadWrite);
        self.send(session, created, beside.into_iter().collect());
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one request")]
    pub(super) fn create_sink(
        &mut self,
        session: SessionId,
        req: u32,
        stream: StreamId,
        channel: ChannelId,
        uid: u64,
        depth: u32,
        how: Receives,
        (schema, line): (Option<Schema>, Option<u32>),
    ) -> Result<(), Refusal> {
        let wake = how.wake();
        let place = self.place(session, stream, channel)?;
        self.check_line(line)?;
        if !depth.is_power_of_two() || !DEPTHS.contains(&depth) {
            let reason = format!("the depth of a sink is a power of two from 2 to 65536; asked for {depth}");
            return Err(Refusal::new(Code::Invalid, reason));
        }
        self.check_uid(place.domain, Port::Sink, uid)?;
        self.check_schema(Port::Sink, place.topic, schema)?;
        let (sources, sinks) = self.members(place.topic);
        if how == Receives::Watching && sinks.iter().filter(|sink| self.sinks[sink].observes).count() >= TAPS_MAX {
            let reason = format!("a channel has at most {TAPS_MAX} taps on one host");
            return Err(Refusal::new(Code::Resources, reason));
        }
        if sinks.len() >= FANOUT_MAX {
            let reason = format!("a channel has at most {FANOUT_MAX} sinks on one host");
            return Err(Refusal::new(Code::Resources, reason));
        }
        let joined = if place.isolated { Vec::new() } else { sources };
        self.check_fan_in(&place, joined.len())?;
        let direct =
            joined.iter().map(|source| direct_charge(&self.spec.sizes, depth, self.sources[source].heap_spec.buffers));
        let direct = direct.fold(Amounts::default(), |sum, charge| sum + charge);
        let charge = self.sink_charge(&place, depth, wake);
        self.check_charge(place.domain, &(charge + direct))?;
        self.take_line(session)?;
        let Some(sink) = self.ids.sink() else {
            self.give_line_back(session);
            return Err(numbers_used_up());
        };
        self.account(place.domain).add(&charge);
        self.insert_sink(session, req, sink, stream, &place, uid, depth, how, (schema, line), charge);
        for source in joined {
            self.join(Ends::Direct { source, sink }, false);
        }
        for datapath in self.spec.rx_datapaths(place.qos.lane(), place.isolated) {
            self.join(Ends::FromDatapath { datapath, sink }, false);
        }
        self.update_routes(place.topic);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one row, named at the one call")]
    fn insert_sink(
        &mut self,
        session: SessionId,
        req: u32,
        sink: SinkId,
        stream: StreamId,
        place: &Place,
        uid: u64,
        depth: u32,
        how: Receives,
        (schema, line): (Option<Schema>, Option<u32>),
        charge: Amounts,
    ) {
        let wake = how.wake();
        let owner = Owner::Sink(sink);
        let adopted = self.adopts;
        let writer = if adopted { Writer::Adopted } else { Writer::Session(session) };
        let wake_page = (wake != SinkWake::Never).then(|| self.create(owner, ObjectKind::WakePage, writer));
        let wake_socket = (wake == SinkWake::Fd).then(|| self.create(owner, ObjectKind::WakeSocket, writer));
        let row = Sink {
            session,
            domain: place.domain,
            stream,
            topic: place.topic,
            uid,
            schema,
            line,
            depth,
            wake,
            observes: how == Receives::Watching,
            has_joined: false,
            refused_by: None,
            wake_page,
            wake_socket,
            ready: wake_page.is_none() || adopted,
            direct: BTreeSet::new(),
            datapaths: BTreeMap::new(),
            charge,
        };
        self.sinks.insert(sink, row);
        self.uids.insert((place.domain, Port::Sink, uid));
        self.channels.entry(place.topic).or_default().sinks.insert(sink);
        if let Some(row) = self.streams.get_mut(&stream) {
            row.sinks.insert(sink);
        }
        let ends = |socket| [Beside::WakeReader(socket), Beside::WakeWriter(socket)];
        let page = wake_page.map(Beside::ReadWrite).into_iter();
        let beside = page.chain(wake_socket.into_iter().flat_map(ends)).filter(|_| !adopted);
        self.send(session, Event::SinkCreated { req, sink }, beside.collect());
    }

    fn check_charge(&mut self, domain: DomainIndex, charge: &Amounts) -> Result<(), Refusal> {
        self.account(domain).check(charge).map_err(|shortage| Refusal::new(Code::Quota, shortage.to_string()))
    }

    /// What each sink of the channel would be fed by, checked.
    fn check_fan_in(&self, place: &Place, sources: usize) -> Result<(), Refusal> {
        let datapaths = self.spec.rx_datapaths(place.qos.lane(), place.isolated).len();
        if sources + datapaths <= FANIN_MAX {
            return Ok(());
        }
        let reason = format!("a sink is fed by at most {FANIN_MAX} sources and datapaths of its host");
        Err(Refusal::new(Code::Resources, reason))
    }

    /// What a source uses. Its connection to a datapath comes and goes with remote
    /// interest; it is paid for from the start, so that it is never refused.
    fn source_charge(&self, place: &Place, heap: &HeapSpec) -> Amounts {
        let sizes = &self.spec.sizes;
        let rings = |depth| (sizes.cells)(depth) + (sizes.returns)(places(heap.buffers));
        let datapath = self.spec.tx_datapath(place.qos.lane(), place.isolated);
        Amounts {
            sources: 1,
            connections: u64::from(datapath.is_some()),
            bytes: heap.bytes + datapath.map_or(0, |at| rings(self.spec.datapath(at).tx_depth)),
            buffers: u64::from(heap.buffers),
            ..Amounts::default()
        }
    }

    fn sink_charge(&self, place: &Place, depth: u32, wake: SinkWake) -> Amounts {
        let sizes = &self.spec.sizes;
        let datapaths = self.spec.rx_datapaths(place.qos.lane(), place.isolated);
        let buffers = |at: &insane_core::DatapathIndex| self.spec.datapath(*at).heaps[place.domain.index()].buffers;
        let rings = datapaths.iter().map(|at| (sizes.cells)(depth) + (sizes.returns)(places(buffers(at))));
        let wake_page = if wake == SinkWake::Never { 0 } else { sizes.wake_page };
        Amounts {
            sinks: 1,
            connections: datapaths.len() as u64,
            bytes: rings.sum::<u64>() + wake_page,
            ..Amounts::default()
        }
    }

    pub(super) fn source_mapped(&mut self, session: SessionId, source: SourceId) -> Result<(), Refusal> {
        let what = format!("the heap of source {source}");
        let Some(row) = self.sources.get_mut(&source) else {
            return if self.ids.was_source(source) { self.take_stale(session, &what) } else { Err(unasked(&what)) };
        };
        if row.session != session || row.ready {
            return Err(unasked(&what));
        }
        row.ready = true;
        let (heap, conns) = (row.heap, conns_of(&row.direct, &row.datapaths));
        self.seal(heap);
        conns.into_iter().for_each(|conn| self.progress(conn));
        Ok(())
    }

    pub(super) fn sink_mapped(&mut self, session: SessionId, sink: SinkId) -> Result<(), Refusal> {
        let what = format!("the wake page of sink {sink}");
        let Some(row) = self.sinks.get_mut(&sink) else {
            return if self.ids.was_sink(sink) { self.take_stale(session, &what) } else { Err(unasked(&what)) };
        };
        if row.session != session || row.ready {
            return Err(unasked(&what));
        }
        row.ready = true;
        let (page, conns) = (row.wake_page, conns_of(&row.direct, &row.datapaths));
        self.seal(page);
        conns.into_iter().for_each(|conn| self.progress(conn));
        Ok(())
    }

    pub(super) fn close_source_request(
        &mut self,
        session: SessionId,
        req: u32,
        source: SourceId,
    ) -> Result<(), Refusal> {
        if self.sources.get(&source).is_none_or(|row| row.session != session) {
            return Err(Refusal::new(Code::Unknown, format!("this session has no source {source}")));
        }
        self.close_source(source);
        self.send(session, Event::Done { req }, Vec::new());
        Ok(())
    }

    pub(super) fn close_sink_request(&mut self, session: SessionId, req: u32, sink: SinkId) -> Result<(), Refusal> {
        if self.sinks.get(&sink).is_none_or(|row| row.session != session) {
            return Err(Refusal::new(Code::Unknown, format!("this session has no sink {sink}")));
        }
        self.close_sink(sink);
        self.send(session, Event::Done { req }, Vec::new());
        Ok(())
    }

    pub(super) fn close_source(&mut self, source: SourceId) {
        let Some(row) = self.sources.get(&source) else { return };
        let conns = conns_of(&row.direct, &row.datapaths);
        conns.iter().for_each(|conn| self.retire(*conn, Tell::NotSource));
        let Some(row) = self.sources.remove(&source) else { return };
        if !row.ready {
            self.expect_stale(row.session);
        }
        self.discard(row.heap);
        self.unseat(source);
        self.uids.remove(&(row.domain, Port::Source, row.uid));
        self.give_line_back(row.session);
        if let Some(channel) = self.channels.get_mut(&row.topic) {
            channel.sources.remove(&source);
        }
        if let Some(stream) = self.streams.get_mut(&row.stream) {
            stream.sources.remove(&source);
        }
        self.release_port(row.domain, row.charge, Amounts { sources: 1, ..Amounts::default() }, &conns);
        self.update_routes(row.topic);
    }

    pub(super) fn close_sink(&mut self, sink: SinkId) {
        let Some(row) = self.sinks.get(&sink) else { return };
        let conns = conns_of(&row.direct, &row.datapaths);
        conns.iter().for_each(|conn| self.retire(*conn, Tell::NotSink));
        let Some(row) = self.sinks.remove(&sink) else { return };
        if !row.ready {
            self.expect_stale(row.session);
        }
        self.discard(row.wake_page);
        self.discard(row.wake_socket);
        self.uids.remove(&(row.domain, Port::Sink, row.uid));
        self.give_line_back(row.session);
        if let Some(channel) = self.channels.get_mut(&row.topic) {
            channel.sinks.remove(&sink);
        }
        if let Some(stream) = self.streams.get_mut(&row.stream) {
            stream.sinks.remove(&sink);
        }
        self.release_port(row.domain, row.charge, Amounts { sinks: 1, ..Amounts::default() }, &conns);
        self.update_interest(row.topic);
        self.update_routes(row.topic);
    }

    /// Gives back what a closed source or sink used: at once, or, where a datapath
    /// still has its memory mapped, when the datapath has let go.
    fn release_port(&mut self, domain: DomainIndex, charge: Amounts, at_once: Amounts, conns: &[ConnId]) {
        let lingering = conns.iter().find(|conn| self.conns.contains_key(conn));
        match lingering.and_then(|conn| self.conns.get_mut(conn)) {
            Some(conn) => {
                conn.charge = conn.charge + Amounts { sources: 0, sinks: 0, ..charge };
                self.account(domain).release(&at_once);
            }
            None => self.account(domain).release(&charge),
        }
    }

    /// The heap of a source could not be made: its creation is refused after all.
    pub(super) fn fail_source(&mut self, source: SourceId, refusal: &Refusal) {
        let created = |event: &Event| match event {
            Event::SourceCreated { req, source: id, .. } if *id == source => Some(*req),
            _ => None,
        };
        self.replace_answer(created, refusal);
        self.close_source(source);
    }

    /// The wake page or socket of a sink could not be made: its creation is refused
    /// after all.
    pub(super) fn fail_sink(&mut self, sink: SinkId, refusal: &Refusal) {
        let created = |event: &Event| match event {
            Event::SinkCreated { req, sink: id, .. } if *id == sink => Some(*req),
            _ => None,
        };
        self.replace_answer(created, refusal);
        self.close_sink(sink);
    }

    /// Turns the queued answer for which `created` gives the request's number into a refusal.
    fn replace_answer(&mut self, created: impl Fn(&Event) -> Option<u32>, refusal: &Refusal) {
        for action in &mut self.actions {
            if let Action::Send { event, beside, .. } = action
                && let Some(req) = created(event)
            {
                *event = Event::Failed { req, code: refusal.code, reason: refusal.reason.clone() };
                beside.clear();
                return;
            }
        }
    }
}

fn conns_of(direct: &BTreeSet<ConnId>, datapaths: &BTreeMap<insane_core::DatapathIndex, ConnId>) -> Vec<ConnId> {
    direct.iter().chain(datapaths.values()).copied().collect()
}

fn check_classes(classes: &[ClassSpec]) -> Result<HeapSpec, Refusal> {
    HeapSpec::new(classes).ok_or_else(|| {
        let reason = format!(
            "a heap has at most {CLASSES_MAX} classes by rising size, each of 1 to {MESSAGE_BYTES_MAX} bytes, and 65536 buffers in all"
        );
        Refusal::new(Code::Invalid, reason)
    })
}
