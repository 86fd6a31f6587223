//! The check: three containers on host a (two controllers and a camera) beside each other,
//! their counterparts on host b. Each container is killed in turn and started again, and the
//! others' counterparts miss nothing meanwhile: every sample is answered once and in order,
//! every picture comes whole. Nothing is judged by time.

use crate::cell::Part;
use crate::stage::{Daemon, Folder, Host, Process, Technology, USERS, Voice, arguments, hosts, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;
use vplc_containers::bundle::{Bundle, Contents, SOCKET_FOLDER};
use vplc_containers::engine::{Container, Engine};

/// Answers or pictures that are waited for to see that somebody goes on.
const PROGRESS: u64 = 200;
const PICTURES: u64 = 20;
/// What plays in the containers.
const CAST: [(&str, Part); 3] =
    [("controller-1", Part::Controller), ("controller-2", Part::Controller), ("camera", Part::Camera)];
/// Who hears of it on the other host.
const COUNTERPARTS: [Part; 3] = [Part::Plant, Part::Plant, Part::Recorder];

/// What is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

macro_rules! from {
    ($($error:ty)*) => { $(impl From<$error> for Failure {
        fn from(error: $error) -> Self {
            Failure(error.to_string())
        }
    })* };
}

from!(std::io::Error nix::errno::Errno vplc_containers::bundle::BundleError);

fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure(what())) }
}

/// The programs, beside this one.
struct Programs {
    own: PathBuf,
    insaned: PathBuf,
    insane: PathBuf,
}

impl Programs {
    fn find() -> Result<Self, Failure> {
        let own = std::env::current_exe()?;
        let beside = |name: &str| {
            let path = own.with_file_name(name);
            expect(path.is_file(), || {
                format!(
                    "{} is missing: build insaned and insane-cli by the same profile, or run cargo xtask containers",
                    path.display()
                )
            })?;
            Ok::<_, Failure>(path)
        };
        Ok(Programs { insaned: beside("insaned")?, insane: beside("insane")?, own: own.clone() })
    }
}

/// One container with who speaks in it.
struct Cell {
    engine: Child,
    container: Container,
    voice: Voice,
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.container.remove();
        let _ = self.engine.wait();
    }
}

/// Everything that plays. Dropped in this order: parts before daemons before hosts.
struct Play {
    cells: Vec<Cell>,
    counterparts: Vec<Process>,
    daemons: Vec<Daemon>,
    bundles: Vec<Bundle>,
    hosts: [Host; 2],
    programs: Programs,
    engine: Engine,
    folder: Folder,
}

/// Runs the check with one engine, the controllers' messages by one technology.
///
/// # Errors
/// The first thing that is not as it should be.
pub fn run(engine: Engine, technology: Technology) -> Result<(), Failure> {
    let mut play = Play::start(engine, technology)?;
    play.all_go_on([0; 3])?;
    play.controllers_go_by(technology)?;
    let title = format!("{}, {}", engine.name(), technology.name());
    println!("{title}: two controllers and a camera play in containers");
    for at in 0..CAST.len() {
        play.is_contained(at)?;
    }
    play.only_controllers_are_placed()?;
    println!("{title}: no rights, no network, nothing of the host but the control socket");
    for (victim, (name, _)) in CAST.iter().enumerate() {
        play.survives_without(victim)?;
        println!("{title}: {name} was killed and came back; the others missed nothing");
    }
    Ok(())
}

impl Play {
    fn start(engine: Engine, technology: Technology) -> Result<Self, Failure> {
        let programs = Programs::find()?;
        let folder = Folder::new()?;
        let hosts = hosts(&folder.0, insane_sys::thread::cores())?;
        let mut daemons = Vec::new();
        for (host, own) in hosts.iter().zip([1, 2]) {
            daemons.push(host.daemon(&programs.insaned, own, technology)?);
        }
        let mut bundles = Vec::new();
        for ((name, part), user) in CAST.into_iter().zip(USERS) {
            let socket = Path::new(SOCKET_FOLDER).join("insaned.sock");
            let arguments = arguments(part, &socket, hosts[0].core());
            let sockets = hosts[0].sockets();
            let contents = Contents { name, program: &programs.own, arguments: &arguments, user, sockets: &sockets };
            bundles.push(Bundle::create(&folder.0.join(name), &contents)?);
        }
        let mut play =
            Play { cells: Vec::new(), counterparts: Vec::new(), daemons, bundles, hosts, programs, engine, folder };
        // The counterparts' program, too, must be where everybody may read it.
        let program = play.bundles[0].folder().join("rootfs/bin/program");
        for (part, user) in COUNTERPARTS.into_iter().zip(USERS) {
            play.counterparts.push(play.hosts[1].part(&program, part, user)?);
        }
        for at in 0..CAST.len() {
            let cell = play.container(at)?;
            play.cells.push(cell);
        }
        Ok(play)
    }

    fn container(&self, at: usize) -> Result<Cell, Failure> {
        let name = format!("insane-{}-{}", std::process::id(), CAST[at].0);
        let log = self.bundles[at].folder().join("log");
        let (mut engine, container) = self.engine.run(
            &self.bundles[at],
            &name,
            &self.folder.0.join("state"),
            File::options().append(true).create(true).open(&log)?.into(),
        )?;
        let voice = Voice::new(&mut engine);
        until("a container runs", || {
            if let Some(status) = engine.try_wait()? {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(Failure(format!("{name} has ended ({status}): {said}")));
            }
            Ok(voice.place().map(drop))
        })?;
        Ok(Cell { engine, container, voice })
    }

    fn counts(&mut self) -> Result<[(u64, u64); 3], Failure> {
        self.daemons.iter_mut().try_for_each(Daemon::check)?;
        let mut counts = [(0, 0); 3];
        for (count, counterpart) in counts.iter_mut().zip(&mut self.counterparts) {
            *count = counterpart.counts()?;
        }
        Ok(counts)
    }

    /// Everybody counts on, but for those that are at `u64::MAX`.
    fn all_go_on(&mut self, from: [u64; 3]) -> Result<(), Failure> {
        until("everybody goes on", || {
            let counts = self.counts()?;
            let more = [PROGRESS, PROGRESS, PICTURES];
            let goes_on = |at: usize| from[at] == u64::MAX || counts[at].0 >= from[at] + more[at];
            Ok((0..3).all(goes_on).then_some(()))
        })
    }

    /// Kills a container and starts it again; the others' counterparts miss nothing.
    fn survives_without(&mut self, victim: usize) -> Result<(), Failure> {
        let before = self.counts()?;
        let pid = self.cells[victim].container.pid().ok_or_else(|| Failure("a container has no process".into()))?;
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        let engine = &mut self.cells[victim].engine;
        until("the engine notices", || Ok(engine.try_wait()?.map(drop)))?;
        let mut others = before.map(|(count, _)| count);
        others[victim] = u64::MAX;
        self.all_go_on(others)?;
        drop(self.cells.remove(victim));
        let cell = self.container(victim)?;
        self.cells.insert(victim, cell);
        let now = self.counts()?;
        self.all_go_on(now.map(|(count, _)| count))?;
        let after = self.counts()?;
        for at in (0..CAST.len()).filter(|at| *at != victim) {
            let (missed, so_far) = (after[at].1 - before[at].1, before[at].1);
            let (who, killed) = (CAST[at].0, CAST[victim].0);
            expect(missed == 0 && so_far == 0, || {
                format!("the counterpart of {who} missed {missed} messages while {killed} was killed ({so_far} before)")
            })?;
            // Its own misses count from now on only.
        }
        self.forgive(victim)
    }

    /// A new counterpart for the one whose container was killed: it begins with nothing missed.
    fn forgive(&mut self, victim: usize) -> Result<(), Failure> {
        let program = self.bundles[0].folder().join("rootfs/bin/program");
        drop(self.counterparts.remove(victim));
        let counterpart = self.hosts[1].part(&program, COUNTERPARTS[victim], USERS[victim])?;
        self.counterparts.insert(victim, counterpart);
        self.all_go_on([0; 3])
    }

    /// What the kernel says of a container's process.
    fn is_contained(&self, at: usize) -> Result<(), Failure> {
        let (name, user) = (CAST[at].0, USERS[at]);
        let pid = self.cells[at].container.pid().ok_or_else(|| Failure(format!("{name} has no process")))?;
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        let status = read("status")?;
        let field = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or("?").trim();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            expect(u64::from_str_radix(field(set), 16) == Ok(0), || format!("{name} has {set} {}", field(set)))?;
        }
        let users = [user; 4].map(|user| user.to_string()).join("\t");
        expect(field("Uid:") == users && field("NoNewPrivs:") == "1", || format!("{name}: {status}"))?;
        for kind in ["pid", "mnt", "ipc", "uts", "net"] {
            let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{kind}"));
            expect(of("self")? != of(&pid.to_string())?, || format!("{name} shares the host's {kind} namespace"))?;
        }
        let net = read("net/dev")?;
        let interfaces: Vec<&str> =
            net.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
        expect(interfaces == ["lo"], || format!("{name} sees the interfaces {interfaces:?}"))?;
        sees_nothing_of_the_host(name, &read("mountinfo")?)
    }

    /// The link of the controllers is of that technology and in use, at both hosts.
    fn controllers_go_by(&self, technology: Technology) -> Result<(), Failure> {
        for daemon in &self.daemons {
            let report = daemon.status(&self.programs.insane)?;
            let links = report.datapaths.iter().flat_map(|datapath| &datapath.links);
            let cyclic: Vec<_> = links.filter(|link| link.name == "cyclic").collect();
            let is_right = matches!(cyclic[..], [link] if link.technology == technology.name() && link.up);
            expect(is_right, || format!("the controllers' link is {cyclic:?}"))?;
            for domain in report.domains.iter().filter(|domain| domain.name.starts_with("cell")) {
                let is_used = |name| domain.counters.get(name).is_some_and(|count| *count >= PROGRESS / 2);
                let went = is_used("frames_sent") && is_used("frames_received");
                expect(went, || format!("what went between the hosts: {:?}", domain.counters))?;
            }
        }
        Ok(())
    }

    /// The daemon gave the controllers their places, and the camera none.
    fn only_controllers_are_placed(&self) -> Result<(), Failure> {
        for (at, (name, part)) in CAST.into_iter().enumerate() {
            let place = self.cells[at].voice.place().unwrap_or_default();
            let expected = if part == Part::Controller { "placed by the runtime" } else { "ready" };
            expect(place == expected, || format!("{name} says: {place}"))?;
        }
        let report = self.daemons[0].status(&self.programs.insane)?;
        // Who asks for the report is a session, too.
        let sessions = report.domains.iter().flat_map(|domain| &domain.sessions);
        let sessions = sessions.filter(|session| USERS.contains(&session.uid));
        let threads: Vec<_> = sessions.map(|session| (session.uid, session.threads.clone())).collect();
        for (user, threads) in &threads {
            let fits = match threads.as_slice() {
                [] => *user == USERS[2],
                [thread] => thread.policy == "fifo" && thread.priority == 50 && *user != USERS[2],
                _ => false,
            };
            expect(fits, || format!("user {user} has the threads {threads:?}"))?;
        }
        expect(threads.len() == CAST.len(), || format!("the sessions are {threads:?}"))
    }
}

/// Mounts: the root, which cannot be written, and what the bundle says.
fn sees_nothing_of_the_host(name: &str, mounts: &str) -> Result<(), Failure> {
    let mut places = BTreeSet::new();
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, _, _, _, place, options, ..] = words.as_slice() else { continue };
        if matches!(*place, "/" | SOCKET_FOLDER) {
            expect(options.split(',').any(|option| option == "ro"), || format!("{name} may write {place}: {options}"))?;
        }
        // Parts of /proc are hidden by mounts on them.
        if !place.starts_with("/proc/") {
            places.insert(*place);
        }
    }
    let expected = BTreeSet::from(["/", "/proc", "/dev", SOCKET_FOLDER]);
    expect(places == expected, || format!("{name} has the mounts {places:?}"))
}
