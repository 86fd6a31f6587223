//! Another configuration for a running runtime: decided, prepared, carried out as a whole,
//! or undone.
//!
//! ```text
//! text -> plan                                          a thread of its own: it may take long
//!      -> difference -> everything prepared             here, at once; until then nothing changed
//!      -> links swap their peers (each datapath in its own turn)
//!           all did         -> the rest, which cannot fail: routes, membership, rules, quotas
//!           one refused     -> what was swapped is swapped back
//! ```
//! One reload at a time. A caller that goes away in the middle changes nothing of it.

use super::{Letter, PIECE_BYTES, Parts, Server};
use crate::datapath::Datapath;
use crate::plan_spec::domain_spec;
use crate::roster::{Entry, FORGET_TWICE, PeerSource, Roster};
use insane_config::diff::{self, Change, Takes};
use insane_config::{Budget, FILE_BYTES_MAX, LayoutSizes, Loaded, Machine, Plan, Severity};
use insane_core::{DatapathIndex, DomainIndex, PeerIndex, SessionId};
use insane_engine::{Command, PeerSwap};
use insane_link::SwapRefused;
use insane_overlay::discovery::Decision;
use insane_wire::control;
use insane_wire::reload::{ChangeReport, Excess, Outcome, ReloadReport, StreamEffect};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use tracing::{error, info, warn};

/// Who wants to know what became of it.
#[derive(Debug)]
pub(super) enum Asker {
    Session {
        session: SessionId,
        req: u32,
    },
    Handle(Sender<ReloadReport>),
    /// It is no reload: a host was found, moved or is forgotten.
    Discovery,
}

/// A file that is coming in pieces.
#[derive(Debug)]
pub(super) struct Upload {
    req: u32,
    text: Vec<u8>,
}

/// What reloads need to remember.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    /// The file that the runtime was started with.
    pub(super) own_file: Option<PathBuf>,
    uploads: std::collections::BTreeMap<SessionId, Upload>,
    /// A file is being read and checked, or was, and waits.
    is_reading: bool,
    /// A file that was read while discovery changed a peer.
    waiting: Option<Checked>,
    commit: Option<Commit>,
}

impl Reloads {
    /// A session is gone, and what it had not sent to its end.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.uploads.remove(&session);
    }
}

/// Where the text of a configuration is.
enum Text {
    /// In this file, to be read.
    File(PathBuf),
    /// It came from a file that is called so.
    Came(String, Vec<u8>),
}

/// A file that was read and checked, on its way back to the control thread.
#[derive(Debug)]
pub(crate) struct Checked {
    asker: Asker,
    dry_run: bool,
    file: String,
    machine: Machine,
    loaded: Result<Loaded, String>,
}

/// Everything that is needed, none of it done.
struct Prepared {
    plan: Plan,
    planned_bytes: u64,
    leaving: Vec<PeerIndex>,
    coming: Vec<(PeerIndex, Entry)>,
    /// By datapath; those of peers that leave first, since others may get their addresses.
    swaps: Vec<(usize, PeerSwap)>,
}

/// A reload whose links are being changed.
#[derive(Debug)]
struct Commit {
    asker: Asker,
    report: ReloadReport,
    plan: Plan,
    planned_bytes: u64,
    leaving: Vec<PeerIndex>,
    coming: Vec<(PeerIndex, Entry)>,
    /// Changes that datapaths have not answered.
    outstanding: usize,
    /// Changes that were made, with what undoes them, in the order of each datapath.
    done: Vec<(usize, PeerSwap)>,
    is_undoing: bool,
}

impl Server {
    /// A piece of a file has come; after the last the reload begins.
    pub(super) fn take_reload(
        &mut self,
        (session, req): (SessionId, u32),
        dry_run: bool,
        file: Option<String>,
        last: bool,
        piece: &[u8],
    ) {
        let asker = Asker::Session { session, req };
        let Some(file) = file else { return self.reload_own_file(dry_run, asker) };
        let upload = self.reloads.uploads.entry(session).or_insert(Upload { req, text: Vec::new() });
        if upload.req != req {
            *upload = Upload { req, text: Vec::new() };
        }
        let room = FILE_BYTES_MAX as usize + 1 - upload.text.len().min(FILE_BYTES_MAX as usize + 1);
        upload.text.extend(piece.iter().take(room));
        if !last {
            return;
        }
        let Some(upload) = self.reloads.uploads.remove(&session) else { return };
        self.check(Text::Came(file, upload.text), dry_run, asker);
    }

    /// Reads the file that the runtime was started with, and goes on with that.
    pub(super) fn reload_own_file(&mut self, dry_run: bool, asker: Asker) {
        match self.reloads.own_file.clone() {
            Some(path) => self.check(Text::File(path), dry_run, asker),
            None => {
                let why = "error: this runtime was not started with a configuration file; give one";
                self.refuse(asker, why.to_owned());
            }
        }
    }

    /// Reads and checks a file on a thread of its own: peers are to be answered meanwhile, and
    /// a file system may take its time.
    fn check(&mut self, text: Text, dry_run: bool, asker: Asker) {
        let is_reload = |commit: &Commit| !matches!(commit.asker, Asker::Discovery);
        if self.reloads.is_reading || self.reloads.commit.as_ref().is_some_and(is_reload) {
            return self.refuse(asker, "error: another reload is under way; try again when it is done".to_owned());
        }
        let (mailbox, bell) = (self.parts.mailbox.clone(), std::sync::Arc::clone(&self.parts.bell));
        let (job, work) = std::sync::mpsc::channel::<(Text, bool, Asker)>();
        let read = move || {
            let Ok((text, dry_run, asker)) = work.recv() else { return };
            let machine = Machine::detect();
            let (file, loaded) = read_and_check(text, &machine);
            // The runtime may have ended meanwhile.
            let _ = mailbox.send(Letter::Checked(Box::new(Checked { asker, dry_run, file, machine, loaded })));
            let _ = bell.signal();
        };
        match std::thread::Builder::new().name("insane-reload".into()).spawn(read) {
            Ok(_) => {
                self.reloads.is_reading = true;
                let _ = job.send((text, dry_run, asker));
            }
            Err(error) => self.refuse(asker, format!("error: no thread to read it: {error}")),
        }
    }

    fn refuse(&mut self, asker: Asker, why: String) {
        self.answer_reload(asker, ReloadReport { errors: vec![why], ..ReloadReport::default() });
    }

    /// A file was read: decides, and carries it out.
    pub(super) fn file_checked(&mut self, checked: Checked) {
        if self.reloads.commit.is_some() {
            self.reloads.waiting = Some(checked);
            return;
        }
        let Checked { asker, dry_run, file, machine, loaded } = checked;
        self.reloads.is_reading = false;
        let mut report = ReloadReport { file, ..ReloadReport::default() };
        match loaded.and_then(|loaded| self.prepare(loaded, &machine, &mut report)) {
            Err(why) => {
                report.errors.extend((!why.is_empty()).then_some(why));
                self.answer_reload(asker, report);
            }
            Ok(_) if report.changes.is_empty() => {
                report.outcome = Outcome::Unchanged;
                self.answer_reload(asker, report);
            }
            Ok(_) if dry_run => {
                report.outcome = Outcome::DryRun;
                self.answer_reload(asker, report);
            }
            Ok(prepared) => self.commit(prepared, report, asker),
        }
    }

    /// Decides, and takes everything that is needed; the report says what would change. An
    /// error says why nothing will.
    fn prepare(&mut self, loaded: Loaded, machine: &Machine, report: &mut ReloadReport) -> Result<Prepared, String> {
        let Loaded { plan: new, warnings } = loaded;
        report.warnings = warnings.0.iter().map(ToString::to_string).collect();
        let running = &self.parts.facts.plan;
        let changes = diff::between(running, &new);
        report.changes = changes.iter().map(change_report).collect();
        let domains: Vec<_> = new.domains.iter().map(domain_spec).collect();
        let fixed: Vec<&Change> = changes.iter().filter(|change| change.takes == Takes::Restart).collect();
        if !fixed.is_empty() {
            let why = |change: &&Change| format!("error: {} cannot change online: it needs a restart", change.path());
            report.errors.extend(fixed.iter().map(why));
            return Err(String::new());
        }
        report.excess = self.excess(&domains);
        report.streams = self.stream_effects(&domains);
        let plan = merged(running, new);
        let planned_bytes = self.check_memory(&plan, machine)?;
        let (leaving, coming) = moves(&self.parts.roster, running, &plan)?;
        let swaps = swaps(&self.parts.roster, &self.parts.datapaths, &leaving, &coming)?;
        Ok(Prepared { plan, planned_bytes, leaving, coming, swaps })
    }

    fn excess(&self, domains: &[crate::spec::DomainSpec]) -> Vec<Excess> {
        let name = |domain: DomainIndex| self.parts.facts.plan.domains[domain.index()].name.clone();
        let excess = self.parts.hub.excess(domains).into_iter();
        excess.map(|(domain, what)| Excess { domain: name(domain), what }).collect()
    }

    fn stream_effects(&self, domains: &[crate::spec::DomainSpec]) -> Vec<StreamEffect> {
        let name = |domain: DomainIndex| self.parts.facts.plan.domains[domain.index()].name.clone();
        let effects = self.parts.hub.effects(domains).into_iter();
        effects.map(|(domain, stream, what)| StreamEffect { domain: name(domain), stream, what }).collect()
    }

    /// Refuses what does not fit. What is in use beyond a narrower quota stays, so it counts.
    fn check_memory(&self, plan: &Plan, machine: &Machine) -> Result<u64, String> {
        let mut most = plan.clone();
        for (domain, account) in most.domains.iter_mut().zip(self.parts.hub.accounts()) {
            domain.quota.bytes = domain.quota.bytes.max(account.used().bytes);
        }
        let budget = Budget::of(&most, &LayoutSizes::default());
        let mut errors = budget.objections(&most, machine).into_iter();
        match errors.find(|objection| objection.severity == Severity::Error) {
            Some(objection) => Err(format!("error: it does not fit: {objection}")),
            None => Ok(budget.total_bytes),
        }
    }

    fn commit(&mut self, prepared: Prepared, report: ReloadReport, asker: Asker) {
        let Prepared { plan, planned_bytes, leaving, coming, mut swaps } = prepared;
        #[cfg(test)]
        tests::spoil(&mut swaps);
        let outstanding = swaps.len();
        let (done, is_undoing) = (Vec::new(), false);
        self.reloads.commit =
            Some(Commit { asker, report, plan, planned_bytes, leaving, coming, outstanding, done, is_undoing });
        for (datapath, swap) in swaps.drain(..) {
            self.parts.datapaths[datapath].send(Command::SwapPeer(swap));
        }
        self.go_on();
    }

    /// A link has changed a peer, or refused to.
    pub(super) fn peer_swapped(&mut self, datapath: usize, swap: PeerSwap, swapped: Result<(), SwapRefused>) {
        let Some(commit) = &mut self.reloads.commit else { return };
        commit.outstanding = commit.outstanding.saturating_sub(1);
        let place = || {
            let plan = &self.parts.facts.plan.datapaths[datapath];
            let link = plan.links.get(swap.link).map_or("?", |link| link.name.as_str());
            let coming = commit.coming.iter().find(|(peer, _)| *peer == swap.peer).map(|(_, entry)| entry);
            let name = coming.or(self.parts.roster.get(swap.peer)).map_or("?", |entry| entry.name.as_str());
            format!("peers[{name:?}].links[{link:?}] on datapath \"{}\"", plan.name)
        };
        match (swapped, commit.is_undoing) {
            (Ok(()), false) => commit.done.push((datapath, swap)),
            (Ok(()), true) => commit.report.undone.push(place()),
            (Err(why), is_undoing) => {
                let what = if is_undoing { "cannot be undone" } else { "cannot be done" };
                let line = format!("error: {} {what}: {why}", place());
                if is_undoing {
                    commit.report.outcome = Outcome::Broken;
                }
                commit.report.errors.push(line);
            }
        }
        self.go_on();
    }

    /// A datapath has forgotten a peer that left.
    pub(super) fn peer_forgotten(&mut self, datapath: usize, peer: PeerIndex) {
        self.parts.roster.forgotten(datapath, peer);
    }

    /// Takes the next step of the reload under way, once every datapath has answered.
    fn go_on(&mut self) {
        let Some(mut commit) = self.reloads.commit.take_if(|commit| commit.outstanding == 0) else { return };
        if commit.report.errors.is_empty() {
            return self.apply(commit);
        }
        if !commit.is_undoing && !commit.done.is_empty() {
            commit.is_undoing = true;
            commit.report.outcome = Outcome::RolledBack;
            commit.outstanding = commit.done.len();
            for (datapath, swap) in commit.done.drain(..).rev() {
                self.parts.datapaths[datapath].send(Command::SwapPeer(swap));
            }
            self.reloads.commit = Some(commit);
            return;
        }
        if commit.report.outcome != Outcome::Broken {
            commit.report.outcome = Outcome::RolledBack;
        }
        self.answer_reload(commit.asker, commit.report);
    }

    /// The links are as they should be: the rest, of which nothing can fail.
    fn apply(&mut self, commit: Commit) {
        let Commit { asker, mut report, plan, planned_bytes, leaving, coming, .. } = commit;
        self.forget_peers(&leaving);
        for peer in &leaving {
            self.parts.hub.set_reach(*peer, &[]);
            self.parts.hub.peer_gone(*peer);
            self.parts.overlay.remove_peer(*peer);
            self.parts.roster.remove(*peer, self.parts.datapaths.len());
            self.forget_standing(*peer);
        }
        // Routes without them are on their way, before they are forgotten for good.
        self.pump();
        for _ in 1..FORGET_TWICE {
            self.forget_peers(&leaving);
        }
        for (peer, entry) in coming {
            let reaching = (0..self.parts.datapaths.len()).filter(|at| entry.reach(*at).is_some());
            let reaching: Vec<_> = reaching.map(|at| DatapathIndex(at as u8)).collect();
            self.parts.hub.set_reach(peer, &reaching);
            self.parts.overlay.add_peer(peer, &entry, &plan);
            self.parts.roster.insert(peer, entry);
        }
        if !matches!(asker, Asker::Discovery) {
            let domains: Vec<_> = plan.domains.iter().map(domain_spec).collect();
            self.parts.hub.reconfigure(domains, self.now);
            self.parts.facts.plan = plan;
            // Its policy, and what it fixes of streams, may be others.
            self.choices_of = None;
            self.parts.facts.planned_bytes = planned_bytes;
            let Parts { discovery, facts, roster, .. } = &mut self.parts;
            if let Some(discovery) = discovery {
                discovery.reconfigure(&facts.plan, roster);
            }
        }
        report.outcome = Outcome::Applied;
        self.pump();
        self.answer_reload(asker, report);
    }

    fn forget_peers(&mut self, peers: &[PeerIndex]) {
        for datapath in &mut self.parts.datapaths {
            for peer in peers {
                datapath.send(Command::RemovePeer(*peer));
            }
        }
    }

    fn answer_reload(&mut self, asker: Asker, report: ReloadReport) {
        if matches!(asker, Asker::Discovery) {
            return self.discovered(&report);
        }
        log(&report);
        match asker {
            Asker::Discovery => {}
            // Who asked may have given up.
            Asker::Handle(reply) => drop(reply.send(report)),
            Asker::Session { session, req } => {
                let json = serde_json::to_vec(&report).unwrap_or_default();
                let pieces = json.len().div_ceil(PIECE_BYTES);
                for (at, piece) in json.chunks(PIECE_BYTES).enumerate() {
                    let event = control::Event::Reload { req, last: at + 1 == pieces, piece: piece.to_vec() };
                    self.send(session, &event, &[]);
                }
            }
        }
    }
}

impl Server {
    /// Takes what discovery has heard, and carries out what it decides, one thing at a time.
    pub(super) fn discover(&mut self) {
        let Some(discovery) = &mut self.parts.discovery else { return };
        discovery.hear(self.now);
        if self.reloads.commit.is_some() {
            return;
        }
        let Some(decision) = discovery.poll(self.now) else { return };
        let (leaving, coming) = match self.moves_of(&decision) {
            Ok(moves) => moves,
            Err(why) => return self.not_discovered(&why),
        };
        let (asker, report) = (Asker::Discovery, ReloadReport::default());
        let (plan, planned_bytes) = (self.parts.facts.plan.clone(), self.parts.facts.planned_bytes);
        match swaps(&self.parts.roster, &self.parts.datapaths, &leaving, &coming) {
            Ok(swaps) => {
                tell(&decision, &self.parts.roster, &leaving);
                self.commit(Prepared { plan, planned_bytes, leaving, coming, swaps }, report, asker);
            }
            Err(why) => self.not_discovered(&why),
        }
    }

    fn moves_of(&self, decision: &Decision) -> Result<Moves, String> {
        let (roster, host) = (&self.parts.roster, Some(decision.host()));
        let leaves = |known: &Entry| known.source == PeerSource::Discovery && known.host == host;
        let leaving: Vec<_> = roster.iter().filter(|(_, known)| leaves(known)).map(|(peer, _)| peer).collect();
        let (Decision::Add(found) | Decision::Move(found)) = decision else { return Ok((leaving, Vec::new())) };
        let Some(numbers) = roster.free(1) else {
            return Err(format!("\"{}\" was found, and no number is left for it", found.name));
        };
        let coming = numbers.into_iter().map(|peer| (peer, crate::discovery::entry(&self.parts.facts.plan, found)));
        Ok((leaving, coming.collect()))
    }

    fn not_discovered(&mut self, why: &str) {
        warn!(why, "discovery could not change a peer; it is tried again");
        if let Some(discovery) = &mut self.parts.discovery {
            discovery.answer(self.now, false);
        }
    }

    /// What discovery wanted is done, or undone; then a reload may go on that has waited.
    fn discovered(&mut self, report: &ReloadReport) {
        if report.outcome == Outcome::Applied {
            if let Some(discovery) = &mut self.parts.discovery {
                discovery.answer(self.now, true);
            }
        } else {
            self.not_discovered(&report.errors.join("; "));
        }
        if let Some(checked) = self.reloads.waiting.take() {
            self.file_checked(checked);
        }
    }
}

fn tell(decision: &Decision, roster: &Roster, leaving: &[PeerIndex]) {
    match decision {
        Decision::Add(peer) => info!(peer = peer.name, host = %peer.host, "a host was found; it becomes a peer"),
        Decision::Move(peer) => {
            info!(peer = peer.name, host = %peer.host, "a found host is elsewhere; it becomes a peer anew");
        }
        Decision::Remove(host) => {
            for entry in leaving.iter().filter_map(|peer| roster.get(*peer)) {
                info!(peer = entry.name, %host, "a found host is not heard of; it is no peer any more");
            }
        }
    }
}

fn read_and_check(text: Text, machine: &Machine) -> (String, Result<Loaded, String>) {
    let (file, text) = match text {
        Text::File(path) => (path.display().to_string(), insane_config::read(&path).map_err(|error| error.to_string())),
        Text::Came(file, bytes) if bytes.len() as u64 > FILE_BYTES_MAX => {
            let why = format!("error: {file} is no configuration: it has more than {FILE_BYTES_MAX} bytes");
            (file, Err(why))
        }
        Text::Came(file, bytes) => {
            let text = String::from_utf8(bytes);
            let text = text.map_err(|_| format!("error: {file} is no configuration: it is not UTF-8"));
            (file, text)
        }
    };
    let check = |text: String| insane_config::parse(&file, &text, machine).map_err(|findings| findings.to_string());
    let loaded = text.and_then(check);
    (file, loaded)
}

fn log(report: &ReloadReport) {
    let ReloadReport { file, outcome, .. } = report;
    match outcome {
        Outcome::Applied => {
            info!(file, changes = report.changes.len(), "the configuration has changed");
            for change in &report.changes {
                let (old, new) = (change.old.as_deref().unwrap_or("-"), change.new.as_deref().unwrap_or("-"));
                info!(path = change.path, old, new, "changed");
            }
            for StreamEffect { domain, stream, what } in &report.streams {
                info!(domain, stream, what, "an open stream");
            }
            for excess in &report.excess {
                warn!(domain = excess.domain, what = excess.what, "beyond the new configuration");
            }
        }
        Outcome::Unchanged => info!(file, "the configuration is the same"),
        Outcome::DryRun => info!(file, changes = report.changes.len(), "a configuration was tried"),
        Outcome::Refused | Outcome::RolledBack => {
            for why in &report.errors {
                // In the message: it has lines, which a field would not keep.
                warn!(file, "the configuration stays as it was: {}", why.trim_end());
            }
        }
        Outcome::Broken => {
            for why in &report.errors {
                let why = why.trim_end();
                error!(file, "the configuration has changed in part, and could not be changed back: {why}");
            }
        }
    }
}

fn change_report(change: &Change) -> ChangeReport {
    ChangeReport {
        path: change.path(),
        kind: change.kind().to_owned(),
        old: change.old.clone(),
        new: change.new.clone(),
        needs_restart: change.takes == Takes::Restart,
        holds_for: if let Takes::Later(text) = change.takes { Some(text.to_owned()) } else { None },
    }
}

/// The new plan with everything in the order of the running one: numbers go by it. Both have
/// the same datapaths, links and domains by name.
fn merged(running: &Plan, new: Plan) -> Plan {
    let mut plan = running.clone();
    let new_link = |name: &str| {
        let links = new.datapaths.iter().flat_map(|datapath| &datapath.links);
        links.into_iter().find(|link| link.name == name).map(|link| link.peers.clone())
    };
    for link in plan.datapaths.iter_mut().flat_map(|datapath| &mut datapath.links) {
        link.peers = new_link(&link.name).unwrap_or_default();
    }
    plan.peers = new.peers;
    plan.discovery = new.discovery;
    plan.domains = new.domains;
    plan.memory = new.memory;
    plan.policy = new.policy;
    plan
}

type Moves = (Vec<PeerIndex>, Vec<(PeerIndex, Entry)>);

/// Which peers leave, and which come with which numbers. One whose addresses change leaves
/// and comes: whoever answers there is another until it has said who it is. Discovered peers
/// stay, unless the file now has one of that name or address itself.
fn moves(roster: &Roster, running: &Plan, new: &Plan) -> Result<Moves, String> {
    let wanted: Vec<Entry> = (0..new.peers.len()).map(|at| Entry::of(running, new, at)).collect();
    let leaves = |known: &Entry| match known.source {
        PeerSource::Configuration => !wanted.contains(known),
        PeerSource::Discovery => wanted.iter().any(|wanted| wanted.is_like(known)),
    };
    let leaving: Vec<PeerIndex> = roster.iter().filter(|(_, known)| leaves(known)).map(|(peer, _)| peer).collect();
    let is_there = |entry: &Entry| roster.iter().any(|(_, known)| known == entry);
    let coming: Vec<Entry> = wanted.into_iter().filter(|entry| !is_there(entry)).collect();
    let Some(numbers) = roster.free(coming.len()) else {
        let (there, leaving) = roster.counts();
        return Err(format!(
            "error: {} peers come, and no numbers are left for them: {there} are in use and {leaving} are not free \
             yet; take peers out first, then add others",
            coming.len()
        ));
    };
    Ok((leaving, numbers.into_iter().zip(coming).collect()))
}

/// What the links are told.
fn swaps(
    roster: &Roster,
    datapaths: &[Datapath],
    leaving: &[PeerIndex],
    coming: &[(PeerIndex, Entry)],
) -> Result<Vec<(usize, PeerSwap)>, String> {
    let mut swaps = Vec::new();
    for peer in leaving {
        for (at, link, _) in roster.get(*peer).into_iter().flat_map(Entry::each) {
            let place = datapaths[at].makers[link].nobody();
            swaps.push((at, PeerSwap { peer: *peer, link, place, reach: None }));
        }
    }
    for (peer, entry) in coming {
        for (at, link, address) in entry.each() {
            let place = datapaths[at].makers[link].prepare(*peer, address).map_err(|why| {
                let link = &datapaths[at].links()[link].name;
                format!("error: peers[{:?}].links[{link:?}]: {why}", entry.name)
            })?;
            swaps.push((at, PeerSwap { peer: *peer, link, place, reach: entry.reach(at) }));
        }
    }
    Ok(swaps)
}

#[cfg(test)]
pub(super) mod tests;
