//! `insane schedule activate`: a certificate into force on all its hosts, or on none.
//!
//! The coordinator's machine (`insane_overlay::activation`) decides; here are one thread a
//! host, which carries orders to its control socket and words back, and the clock. A host
//! that does not answer makes no other one wait.

use super::{Failure, read_certificate, read_text, words};
use crate::observer::{Observer, StatusError};
use crate::told::date;
use insane_certificate::{Certificate, text};
use insane_core::Nanos;
use insane_overlay::activation::{Coordinator, Fate, Order, Outcome, ScheduleId, Timing, Word, gap_ns};
use insane_sys::clock::{mono_now, tai_now};
use insane_wire::control::{ScheduleOrder, ScheduleWord};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// What the sessions call themselves.
pub(super) const NAME: &str = "insane schedule";
/// For one answer; an order without one is given again.
const PATIENCE: Nanos = Nanos::from_secs(1);
/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(5);

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The certificate.
    #[arg(value_name = "CERT")]
    certificate: PathBuf,
    /// The control sockets of all hosts of the schedule.
    #[arg(long, required = true, value_delimiter = ',', value_name = "SOCKET,...")]
    hosts: Vec<PathBuf>,
    /// How long after all hosts have staged it takes over, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1_000..=50_000))]
    lead: u64,
    /// The hosts share one kernel, so it does not matter that nobody disciplines its clock.
    #[arg(long)]
    local_clock: bool,
    /// The certificate that is in force: say how long each stream waits at most at the change.
    #[arg(long, value_name = "CERT")]
    before: Option<PathBuf>,
}

enum News {
    Heard(Word),
    Lost(String),
}

/// Activates it. An error where it is not in force on all hosts.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let certificate = read_certificate(&arguments.certificate)?;
    let text = read_text(&arguments.certificate)?;
    let plant = &certificate.plant;
    let cycle_ns =
        words::cycle_ns(plant).ok_or_else(|| Failure::Other("the schedule has no cycle that can be counted".into()))?;
    let names = attach_all(&certificate, &arguments.hosts)?;
    if let Some(before) = &arguments.before {
        tell_gaps(&read_certificate(before)?, &certificate)?;
    }
    let timing = Timing { cycle_ns, lead: Nanos::from_millis(arguments.lead), ..Timing::default() };
    let id = ScheduleId(text::digest(text.as_bytes()));
    let mut coordinator = Coordinator::new(id, names.len(), timing, mono_now());
    let (news, incoming) = channel();
    let mut workers: Vec<Sender<Order>> = Vec::new();
    for (host, socket) in arguments.hosts.iter().enumerate() {
        let (orders, work) = channel();
        let (news, socket, text, local) = (news.clone(), socket.clone(), text.clone(), arguments.local_clock);
        let work = move || serve(&socket, &text, local, &work, &mut |one| news.send((host, one)).is_ok());
        std::thread::Builder::new().name("insane-host".into()).spawn(work)?;
        workers.push(orders);
    }
    let outcome = conduct(&mut coordinator, &workers, &incoming);
    tell(&names, &outcome)
}

fn conduct(coordinator: &mut Coordinator, workers: &[Sender<Order>], incoming: &Receiver<(usize, News)>) -> Outcome {
    loop {
        coordinator.poll(mono_now(), tai_now());
        while let Some((host, order)) = coordinator.next_order() {
            // A worker that has ended has said why.
            let _ = workers[host].send(order);
        }
        if let Some(outcome) = coordinator.outcome() {
            return outcome.clone();
        }
        match incoming.recv_timeout(LOOK) {
            Ok((host, News::Heard(word))) => coordinator.heard(host, word),
            Ok((host, News::Lost(why))) => coordinator.lost(host, &why),
            Err(_) => {}
        }
    }
}

/// The names of the hosts behind the sockets: all that the schedule has, each once.
fn attach_all(certificate: &Certificate, sockets: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for socket in sockets {
        let failed = |error: StatusError| Failure::Other(format!("{}: {error}", socket.display()));
        let status = Observer::attach(socket, PATIENCE, NAME, None).and_then(|mut observer| observer.status());
        let name = status.map_err(failed)?.host.name;
        let what = if names.contains(&name) {
            format!("host {name:?} is given twice")
        } else if certificate.plant.hosts.iter().all(|host| host.name != name) {
            format!("the schedule is not about host {name:?}")
        } else {
            names.push(name);
            continue;
        };
        return Err(Failure::Other(format!("{}: {what}", socket.display())));
    }
    match certificate.plant.hosts.iter().find(|host| !names.contains(&host.name)) {
        Some(host) => {
            Err(Failure::Other(format!("host {:?} of the schedule is missing: give its control socket", host.name)))
        }
        None => Ok(names),
    }
}

/// Carries orders to one host until there are no more.
fn serve(socket: &Path, text: &str, local_clock: bool, work: &Receiver<Order>, tell: &mut dyn FnMut(News) -> bool) {
    let mut observer = match Observer::attach(socket, PATIENCE, NAME, None) {
        Ok(observer) => observer,
        Err(error) => {
            let _ = tell(News::Lost(error.to_string()));
            return;
        }
    };
    while let Ok(order) = work.recv() {
        let said = match order {
            Order::Stage(_) => observer.stage(text.as_bytes(), local_clock),
            Order::Commit(id, at) => observer.order(ScheduleOrder::Commit { schedule: id.0, at }),
            Order::Abort(id) => observer.order(ScheduleOrder::Abort { schedule: id.0 }),
            Order::Ask(id) => observer.order(ScheduleOrder::Ask { schedule: id.0 }),
        };
        let news = match said {
            Ok(word) => News::Heard(heard(word)),
            // It is asked again.
            Err(StatusError::Silent(_)) => continue,
            Err(error) => News::Lost(error.to_string()),
        };
        let is_over = matches!(news, News::Lost(_));
        if !tell(news) || is_over {
            return;
        }
    }
}

fn heard(word: ScheduleWord) -> Word {
    match word {
        ScheduleWord::Staged => Word::Staged,
        ScheduleWord::Refused(why) => Word::Refused(why),
        ScheduleWord::Committed => Word::Committed,
        ScheduleWord::Cannot(why) => Word::Cannot(why),
        ScheduleWord::Aborted => Word::Aborted,
        ScheduleWord::InForce => Word::InForce,
    }
}

fn tell(names: &[String], outcome: &Outcome) -> Result<(), Failure> {
    let each = |fates: &[Fate]| -> String {
        let one = |(name, fate): (&String, &Fate)| match fate {
            Fate::InForce => format!("\n  {name}: the new schedule"),
            Fate::Old(why) => format!("\n  {name}: the old schedule ({why})"),
            Fate::Unknown(why) => format!("\n  {name}: not known ({why})"),
        };
        names.iter().zip(fates).map(one).collect()
    };
    match outcome {
        Outcome::Activated(at) => {
            writeln!(std::io::stdout(), "in force on {} since {}", names.join(", "), date(*at))?;
            Ok(())
        }
        Outcome::Aborted(fates) => Err(Failure::Other(format!("in force on no host:{}", each(fates)))),
        Outcome::Partly(at, fates) => Err(Failure::Other(format!(
            "out of spec since {}: not every host has the new schedule:{}",
            date(*at),
            each(fates)
        ))),
    }
}

/// What the change costs each stream that is in both schedules.
fn tell_gaps(old: &Certificate, new: &Certificate) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    for (stream, placed) in new.plant.streams.iter().zip(&new.placed) {
        let Some(at) = old.plant.streams.iter().position(|one| one.name == stream.name) else { continue };
        let before = (old.placed[at].start_ns, old.plant.streams[at].period_ns);
        let (gap, extension) = gap_ns(before, (placed.start_ns, stream.period_ns));
        let longer = Nanos(before.1.max(stream.period_ns));
        writeln!(
            out,
            "{}: at most {} from slot to slot at the change: {longer} and {} more",
            stream.name,
            Nanos(gap),
            Nanos(extension)
        )?;
    }
    Ok(())
}
