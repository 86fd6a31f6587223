//! The state machine of the control plane.
//!
//! Pure and synchronous: it never blocks, sees no clock and makes no system call.
//! Every input changes the tables and queues [`Action`]s; the host carries them out
//! with [`Hub::next_action`] until there is none, before the next input.
//!
//! Invariants:
//! - every object that is created is dropped once, and not used after that;
//! - memory is shown to others only after its writer has mapped it and it is sealed;
//! - no connection joins two domains, and nothing is shown to another domain;
//! - a message of a client is carried out, refused with a reason, or ends the
//!   session; it harms no other session;
//! - what is charged to a domain's quota is given back when the thing is gone.
//!
//! Bounds: the tables are bounded by the quotas; no input does work beyond the
//! number of sources and sinks of one conversation, or of one session that ends.

mod conn;
mod declared;
mod links;
mod port;
mod refusal;
mod route;
pub mod schedule;
mod session;
pub mod slots;
pub mod stands;
mod stream;
mod tables;
pub mod view;

use crate::action::{Action, Beside, Note, ObjectId, ObjectKind, Topic, Writer};
use crate::quota::{Account, Amounts, Bucket};
use crate::spec::{DomainSpec, HubSpec};
use insane_core::{
    ConnId, DatapathIndex, DomainIndex, MonoTime, Nanos, PeerIndex, Schema, SessionId, SinkId, SourceId, StreamId,
    StreamKey,
};
use insane_wire::control::{Code, Event, Role};
pub use links::{MOVE_PERIOD, Reach, Way};
pub use schedule::Withheld;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tables::{Channel, Conn, Contract, Ends, Greeting, Ids, Owner, Port, RemoteSinks, Session, Sink, Source, Stream};

/// How long a client has for its HELLO.
pub const HELLO_TIMEOUT: Nanos = Nanos::from_secs(2);
/// Sockets of one user that have not said HELLO yet, at most.
pub const GREETING_MAX: usize = 16;
/// Observers at a time, at most: so many of all who do not run the runtime, and so many of
/// those who do, that nobody keeps these from looking.
pub const OBSERVERS_MAX: usize = 16;
/// Observers of one user who does not run the runtime, at most.
pub const OBSERVERS_OF_USER_MAX: usize = 4;
/// Conversations times peers whose interest is remembered, at most.
pub const INTEREST_MAX: usize = 65_536;
/// How long after a failure two ends are joined anew.
pub const RETRY_AFTER: Nanos = Nanos::from_secs(1);

/// Why a request is refused, or a session ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Which kind of reason.
    pub code: Code,
    /// The reason in words.
    pub reason: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, reason: impl Into<String>) -> Self {
        Refusal { code, reason: reason.into() }
    }
}

/// A packet as it came from a session's socket.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its bytes, cut at `PACKET_BYTES_MAX`.
    pub bytes: &'a [u8],
    /// How many descriptors came beside it.
    pub fds: usize,
    /// More bytes or descriptors came than are ever taken.
    pub truncated: bool,
}

impl<'a> Packet<'a> {
    /// A whole packet without descriptors.
    #[must_use]
    pub const fn plain(bytes: &'a [u8]) -> Self {
        Packet { bytes, fds: 0, truncated: false }
    }
}

/// The state machine. See the module's documentation.
#[derive(Debug)]
pub struct Hub {
    spec: HubSpec,
    ids: Ids,
    accounts: Vec<Account>,
    greeting: BTreeMap<SessionId, Greeting>,
    sessions: BTreeMap<SessionId, Session>,
    contracts: BTreeMap<StreamKey, Contract>,
    streams: BTreeMap<StreamId, Stream>,
    sources: BTreeMap<SourceId, Source>,
    sinks: BTreeMap<SinkId, Sink>,
    channels: BTreeMap<Topic, Channel>,
    conns: BTreeMap<ConnId, Conn>,
    uids: BTreeSet<(DomainIndex, Port, u64)>,
    objects: BTreeMap<ObjectId, Owner>,
    interest: usize,
    /// Counts the sinks that peers were told of.
    joins: u32,
    /// Conversations in which a peer is refused, and when they are told so again.
    refusing: BTreeSet<Topic>,
    refuse_at: MonoTime,
    /// Conversations in which a peer refuses sinks of this host.
    refused: BTreeSet<Topic>,
    unjoined: BTreeSet<Ends>,
    retry_at: MonoTime,
    actions: VecDeque<Action>,
    /// Memory of an earlier life of the runtime came beside the request under way.
    adopts: bool,
    /// When the request under way came.
    asked_at: MonoTime,
    /// How often each domain may ask for slots.
    admissions: Vec<Bucket>,
    /// Who has slots at each datapath.
    slots: Vec<Option<slots::SlotBook>>,
    /// Those that are being admitted anew, for other peers.
    widenings: BTreeMap<DatapathIndex, slots::Widening>,
    /// What `slots` was, while a schedule waits for its instant.
    armed: Option<Vec<Option<slots::SlotBook>>>,
    /// Datapaths whose tables are to be sent again after that.
    deferred: BTreeSet<DatapathIndex>,
    /// The schedule that `slots` rests on.
    schedule: Option<schedule::Installed>,
    /// What is not sent to peers for its sake.
    withheld: Withheld,
    /// The one before, while a schedule waits for its instant.
    schedule_before: Option<schedule::Installed>,
    /// What is known of the links to peers that are reached by several of one datapath.
    links: BTreeMap<(PeerIndex, DatapathIndex), Reach>,
    /// By which link streams go to peers because somebody wants it.
    placed: BTreeMap<(StreamKey, PeerIndex), usize>,
    /// By which link streams go to peers because the policy chose it, where it is another than
    /// that of whatever else goes there.
    chosen: BTreeMap<(StreamKey, PeerIndex), usize>,
    /// Counts what may have changed flows, or the links by which they go.
    changes: u64,
    /// When streams were last moved.
    moved_at: BTreeMap<StreamKey, MonoTime>,
    /// Where streams with slots stand.
    stands: BTreeMap<(StreamKey, DatapathIndex), stands::Standing>,
    /// Of which changes that was decided, if nothing had to wait.
    stands_of: Option<u64>,
    /// When they were last moved.
    moved_slots: BTreeMap<StreamKey, MonoTime>,
}

impl Hub {
    /// An empty hub.
    #[must_use]
    pub fn new(spec: HubSpec) -> Self {
        // Gates hold from the start, also where nobody has slots.
        let gated = spec
            .datapaths
            .iter()
            .enumerate()
            .filter(|(_, path)| path.slots.as_ref().is_some_and(|slots| slots.gates.is_some()));
        let gated = gated.map(|(at, _)| Action::StageSlots {
            datapath: DatapathIndex(at as u8),
            streams: Vec::new(),
            links: Vec::new(),
            arrivals: Box::default(),
            at: None,
        });
        Hub {
            actions: gated.collect(),
            accounts: spec.domains.iter().map(|domain| Account::new(domain.quota)).collect(),
            adopts: false,
            admissions: spec.domains.iter().map(|_| Bucket::new(slots::ADMISSIONS_PER_SECOND, MonoTime(0))).collect(),
            asked_at: MonoTime(0),
            armed: None,
            widenings: BTreeMap::new(),
            deferred: BTreeSet::new(),
            schedule: None,
            schedule_before: None,
            withheld: Withheld::Nothing,
            links: BTreeMap::new(),
            placed: BTreeMap::new(),
            chosen: BTreeMap::new(),
            changes: 0,
            moved_at: BTreeMap::new(),
            stands: BTreeMap::new(),
            stands_of: None,
            moved_slots: BTreeMap::new(),
            slots: spec.datapaths.iter().map(|path| path.slots.clone().and_then(slots::SlotBook::new)).collect(),
            spec,
            ids: Ids::default(),
            greeting: BTreeMap::new(),
            sessions: BTreeMap::new(),
            contracts: BTreeMap::new(),
            streams: BTreeMap::new(),
            sources: BTreeMap::new(),
            sinks: BTreeMap::new(),
            channels: BTreeMap::new(),
            conns: BTreeMap::new(),
            uids: BTreeSet::new(),
            objects: BTreeMap::new(),
            interest: 0,
            joins: 0,
            refusing: BTreeSet::new(),
            refuse_at: MonoTime(0),
            refused: BTreeSet::new(),
            unjoined: BTreeSet::new(),
            retry_at: MonoTime(0),
        }
    }

    /// What the hub is configured with now.
    #[must_use]
    pub const fn spec(&self) -> &HubSpec {
        &self.spec
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The time, at least every few hundred milliseconds.
    pub fn tick(&mut self, now: MonoTime) {
        let late: Vec<SessionId> = self.greeting.iter().filter(|(_, g)| g.deadline <= now).map(|(id, _)| *id).collect();
        for session in late {
            self.expel(session, Refusal::new(Code::Protocol, format!("no HELLO within {HELLO_TIMEOUT}")));
        }
        self.tend_refusals(now);
        if !self.unjoined.is_empty() && now >= self.retry_at {
            self.retry_at = now + RETRY_AFTER;
            for ends in std::mem::take(&mut self.unjoined) {
                self.rejoin(ends);
            }
        }
    }

    /// A peer has, or no longer has, a sink for a conversation. `check` is the second
    /// hash of its stream's name: only a local stream with the same one is meant. `schema`:
    /// what messages its sinks expect, if they say so. `joins`: another number whenever one
    /// of them has joined.
    pub fn remote_interest(
        &mut self,
        peer: PeerIndex,
        topic: Topic,
        check: u64,
        (schema, joins): (Option<Schema>, u32),
        on: bool,
    ) {
        self.change_interest(RemoteSinks { peer, check, schema, joins }, topic, on);
    }

    /// Other access rules, quotas and words about isolation hold from now on: one for each
    /// domain, in their order. Nobody loses anything by it: what exceeds them stays, and gets
    /// nothing more.
    pub fn reconfigure(&mut self, domains: Vec<DomainSpec>, now: MonoTime) {
        for (account, domain) in self.accounts.iter_mut().zip(&domains) {
            account.set_quota(domain.quota);
        }
        for session in self.sessions.values_mut() {
            if let Some(domain) = domains.get(session.domain.index()) {
                session.bucket.set_rate(domain.quota.requests_per_second, now);
            }
        }
        for (ours, new) in self.spec.domains.iter_mut().zip(domains) {
            *ours = new;
        }
        self.follow_declarations();
        self.changes += 1;
    }

    /// What these rules and quotas would leave outside: of each domain, in words.
    #[must_use]
    pub fn excess(&self, domains: &[DomainSpec]) -> Vec<(DomainIndex, String)> {
        let mut excess = Vec::new();
        for (id, row) in &self.sessions {
            let admits = domains.get(row.domain.index()).is_some_and(|domain| domain.admits(&row.origin));
            if row.role == Role::Application && !admits {
                let uid = row.origin.credentials().uid;
                let what = format!(
                    "session {id} \"{}\" of user {uid} would not be let in any more; it keeps what it has, and gets nothing new",
                    row.name
                );
                excess.push((row.domain, what));
            }
        }
        for (at, (account, domain)) in self.accounts.iter().zip(domains).enumerate() {
            for ((name, used), (_, most)) in account.used().named().zip(domain.quota.most.named()) {
                if used > most {
                    let what =
                        format!("{used} {name} are in use, {most} are the quota; they stay, and no more are given");
                    excess.push((DomainIndex(at as u16), what));
                }
            }
        }
        excess
    }

    /// By which datapaths a peer is reached from now on; none, if it is no peer any more: its
    /// interest is dropped with [`peer_gone`](Self::peer_gone).
    pub fn set_reach(&mut self, peer: PeerIndex, datapaths: &[DatapathIndex]) {
        for (at, datapath) in self.spec.datapaths.iter_mut().enumerate() {
            if datapaths.contains(&DatapathIndex(at as u8)) {
                datapath.peers.insert(peer);
            } else {
                datapath.peers.remove(&peer);
            }
        }
        // Its links are others, or it is: nothing is known of them.
        self.links.retain(|(other, _), _| *other != peer);
        self.placed.retain(|(_, other), _| *other != peer);
        self.chosen.retain(|(_, other), _| *other != peer);
        self.changes += 1;
        for at in 0..self.spec.datapaths.len() {
            self.readmit(DatapathIndex(at as u8));
        }
    }

    /// A peer is gone, and all its interest with it.
    pub fn peer_gone(&mut self, peer: PeerIndex) {
        self.drop_interest(peer);
    }

    /// A datapath could not take a connection that it was given.
    pub fn attach_failed(&mut self, conn: ConnId, why: &str) {
        let active = self.conns.get(&conn).is_some_and(|row| row.stage == tables::Stage::Active);
        if active {
            self.fail_conn(conn, &Refusal::new(Code::Resources, why));
        }
    }

    /// A datapath has a connection that it was given with [`Action::AddRx`] or
    /// [`Action::AddTx`].
    pub fn attached(&mut self, conn: ConnId) {
        self.note_attached(conn);
    }

    /// A datapath has let go of a connection that it was told to remove.
    pub fn detached(&mut self, conn: ConnId) {
        self.finish_retiring(conn);
    }

    /// A datapath found that a client wrote what it may not.
    pub fn violated(&mut self, conn: ConnId) {
        if self.conns.contains_key(&conn) {
            self.note(Note::Violated { conn, by: None });
            self.retire(conn, conn::Tell::Both);
        }
    }

    /// [`Action::Create`] failed; the host forgets the object.
    pub fn object_failed(&mut self, object: ObjectId, why: &str) {
        let refusal = Refusal::new(Code::Resources, format!("the runtime cannot make shared memory: {why}"));
        match self.objects.remove(&object) {
            Some(Owner::Session(session)) => {
                // It is refused, and not welcomed first.
                self.actions.retain(|action| !matches!(action, Action::Send { session: to, .. } if *to == session));
                self.expel(session, refusal);
            }
            Some(Owner::Source(source)) => self.fail_source(source, &refusal),
            Some(Owner::Sink(sink)) => self.fail_sink(sink, &refusal),
            Some(Owner::Conn(conn)) => self.fail_conn(conn, &refusal),
            Some(Owner::Doorbell(session, datapath)) => self.fail_doorbell(session, datapath, &refusal),
            // Its owner went before it came to be.
            None => {}
        }
        // After the owner is unwound: whatever is queued cannot be done without the object.
        self.actions.retain(|action| !uses(action, object));
    }

    fn note(&mut self, note: Note) {
        self.actions.push_back(Action::Note(note));
    }

    /// Queues an event, unless the session is over.
    fn send(&mut self, session: SessionId, event: Event, beside: Vec<Beside>) {
        if self.sessions.contains_key(&session) {
            self.actions.push_back(Action::Send { session, event, beside });
        }
    }

    fn create(&mut self, owner: Owner, kind: ObjectKind, writer: Writer) -> ObjectId {
        let object = self.ids.object();
        self.objects.insert(object, owner);
        self.actions.push_back(Action::Create { object, kind, writer });
        object
    }

    fn seal(&mut self, object: Option<ObjectId>) {
        self.actions.extend(object.map(Action::Seal));
    }

    /// Lets go of an object, unless it never came to be.
    fn discard(&mut self, object: Option<ObjectId>) {
        if let Some(object) = object
            && self.objects.remove(&object).is_some()
        {
            self.actions.push_back(Action::Drop(object));
        }
    }

    fn account(&mut self, domain: DomainIndex) -> &mut Account {
        &mut self.accounts[domain.index()]
    }

    fn charge(&mut self, domain: DomainIndex, charge: &Amounts) -> Result<(), Refusal> {
        let account = self.account(domain);
        account.check(charge).map_err(|shortage| Refusal::new(Code::Quota, shortage.to_string()))?;
        account.add(charge);
        Ok(())
    }
}

/// Whether an action cannot be done without the object.
fn uses(action: &Action, object: ObjectId) -> bool {
    match action {
        Action::Send { beside, .. } => beside.iter().any(|b| b.object() == Some(object)),
        Action::Seal(used) | Action::Drop(used) | Action::AddDoorbell { object: used, .. } => *used == object,
        _ => false,
    }
}
