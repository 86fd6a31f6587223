//! A part as a process of its own: started by the demonstration with its set-up as an
//! argument, it reports in lines on standard output and ends when standard input
//! does, or when its parent dies.

use super::{Context, RoleError, Setup, Stop};
use crate::report::Report;
use insane_rt::Session;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// What a cyclic part may have in RAM, at most: its program, stacks and rings.
const LOCKED_BYTES: u64 = 256 << 20;
/// How long a part tries to reach its runtime.
const ATTACH: Duration = Duration::from_secs(5);

/// What a process of the demonstration is to do.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Be a part, attached to the runtime at this socket.
    Part {
        /// The runtime's control socket.
        socket: PathBuf,
        /// What the part needs to know.
        setup: Setup,
    },
    /// Become another program, but one that dies with its parent.
    Become {
        /// Its file.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// Carries out an order; `text` is its JSON.
#[must_use]
pub fn obey(text: &str) -> ExitCode {
    let order = match serde_json::from_str(text) {
        Ok(order) => order,
        Err(error) => {
            eprintln!("this is how the demonstration starts its own processes; not for use by hand: {error}");
            return ExitCode::from(2);
        }
    };
    // The thread that started this process lives as long as the demonstration.
    if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
        eprintln!("cannot bind this process's life to its parent's: {error}");
        return ExitCode::from(2);
    }
    match order {
        Order::Part { socket, setup } => part(socket, setup),
        Order::Become { program, arguments } => {
            let error = std::process::Command::new(&program).args(arguments).exec();
            eprintln!("cannot start {}: {error}", program.display());
            ExitCode::from(2)
        }
    }
}

fn part(socket: PathBuf, setup: Setup) -> ExitCode {
    let stop = Stop::default();
    let of_input = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        of_input.ask();
    });
    let (tell, told) = channel();
    let of_output = stop.clone();
    let output = std::thread::spawn(move || write_lines(&told, &of_output));
    let context = Context { setup, stop, tell };
    let ended = attach(&socket, &context).and_then(|session| {
        if setup.place.fifo.is_some()
            && let Err(error) = session.lock_memory(LOCKED_BYTES)
        {
            context.note(format!("its memory may be paged out: {error}"));
        }
        super::run(&session, &context)
    });
    if let Err(error) = &ended {
        context.report(Report::Failed { from: setup.role.name().into(), text: error.to_string() });
    }
    drop(context);
    let _ = output.join();
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The runtime may still be starting.
fn attach(socket: &PathBuf, context: &Context) -> Result<Session, RoleError> {
    let give_up = Instant::now() + ATTACH;
    loop {
        match Session::attach(socket, context.setup.role.name()) {
            Ok(session) => return Ok(session),
            Err(error) if Instant::now() >= give_up || context.stop.asked() => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn write_lines(told: &Receiver<Report>, stop: &Stop) {
    let mut output = std::io::stdout().lock();
    for report in told {
        let Ok(mut line) = serde_json::to_string(&report) else { continue };
        line.push('\n');
        if output.write_all(line.as_bytes()).and_then(|()| output.flush()).is_err() {
            // Nobody reads any more.
            stop.ask();
            return;
        }
    }
}
