//! `insane top`: a live view of a runtime, in a terminal.

mod rows;
mod view;

use crate::observer::{Observer, StatusError};
use crate::signals::Signals;
use insane_core::Nanos;
use ratatui::crossterm::event::{self, Event};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use view::{Asked, Sample, View};

/// What the session calls itself.
const NAME: &str = "insane top";
/// How often keys, reports and signals are looked for.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The runtime's control socket.
    #[arg(long, default_value = insane_config::raw::SOCKET)]
    socket: PathBuf,
    /// Milliseconds between two reports.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=3_600_000))]
    interval: u64,
    /// Milliseconds to wait for an answer.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
}

/// Shows the runtime until the user ends it.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let fail = |text: String| {
        writeln!(std::io::stderr(), "error: {text}")?;
        Ok(ExitCode::FAILURE)
    };
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return fail("top needs a terminal; `insane status` prints the same to anything".into());
    }
    let signals = Signals::take()?;
    // Before the screen is taken: whoever gave a wrong socket reads it as an ordinary line.
    let observer = match attach(arguments) {
        Ok(observer) => observer,
        Err(error) => return fail(error.to_string()),
    };
    let (tell, reports) = channel();
    let (end, ended) = channel();
    let reader = {
        let (socket, interval, timeout) = (arguments.socket.clone(), arguments.interval, arguments.timeout);
        let arguments = Arguments { socket, interval, timeout };
        std::thread::Builder::new().name("reports".into()).spawn(move || read(&arguments, observer, &tell, &ended))?
    };
    let shown = show(&reports, &signals);
    // The reader is not waited for: it may be waiting for a runtime that stands still.
    drop((end, reader));
    shown.map(|()| ExitCode::SUCCESS)
}

fn attach(arguments: &Arguments) -> Result<Observer, StatusError> {
    Observer::attach(&arguments.socket, Nanos::from_millis(arguments.timeout), NAME, None)
}

/// Asks for reports until the view has ended.
fn read(
    arguments: &Arguments,
    observer: Observer,
    tell: &Sender<Result<Sample, String>>,
    ended: &Receiver<std::convert::Infallible>,
) {
    let interval = Duration::from_millis(arguments.interval);
    let mut observer = Some(observer);
    loop {
        let at = Instant::now();
        let asked = match &mut observer {
            Some(observer) => observer.status(),
            None => attach(arguments).and_then(|new| observer.insert(new).status()),
        };
        if asked.is_err() {
            observer = None;
        }
        let told = asked.map(|report| Sample { report, at }).map_err(|error| error.to_string());
        let rest = interval.saturating_sub(at.elapsed());
        if tell.send(told).is_err() || ended.recv_timeout(rest) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Draws, and takes keys, until the user or a signal ends it. The terminal is as it was
/// before, whatever happens: a panic restores it, too.
fn show(reports: &Receiver<Result<Sample, String>>, signals: &Signals) -> std::io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let shown = (|| {
        let mut view = View::new();
        let mut changed = true;
        loop {
            for told in reports.try_iter() {
                view.take(told);
                changed = true;
            }
            if changed {
                terminal.draw(|frame| view.draw(frame))?;
            }
            changed = event::poll(LOOK_PERIOD)?;
            if changed
                && let Event::Key(key) = event::read()?
                && view.press(key) == Asked::End
            {
                return Ok(());
            }
            if signals.came() {
                return Ok(());
            }
        }
    })();
    ratatui::try_restore()?;
    shown
}

#[cfg(test)]
mod tests;
