//! The form without rights: two runtimes in this process, over loopback, a thread for
//! every part.

use super::{Side, StageError, cast, setup};
use crate::options::Options;
use crate::report::Report;
use crate::roles::{self, Context, Place, Stop};
use insane_rt::{Hosting, Plan, Session};
use std::net::UdpSocket;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

/// Two runtimes use two ports each.
const PORTS: u16 = 4;
const FIRST_PORT: u16 = 21_000;
const TRIES: u16 = 200;

/// The running threads.
pub struct Embedded {
    pub(super) reports: Receiver<Report>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
}

impl Embedded {
    pub(super) fn start(options: &Options) -> Result<Self, StageError> {
        let port = free_ports().ok_or(StageError::Ports)?;
        let (plan_a, plan_b) = Plan::loopback_pair(port, port + 2);
        let session_a = Session::embedded_with(plan_a, Hosting::Thread, "host-a")?;
        let session_b = Session::embedded_with(plan_b, Hosting::Thread, "host-b")?;
        let (tell, reports) = channel();
        let mut stage = Embedded { reports, stop: Stop::default(), threads: Vec::new() };
        let epoch = insane_sys::clock::mono_now();
        for (side, role) in cast(options) {
            let session = if side == Side::A { &session_a } else { &session_b };
            let setup = setup(options, role, Place::default(), epoch);
            let context = Context { setup, stop: stage.stop.clone(), tell: tell.clone() };
            let session = session.clone();
            let thread = std::thread::Builder::new().name(role.name().into()).spawn(move || play(&session, &context));
            stage.threads.push(thread.map_err(StageError::system("starting a thread"))?);
        }
        Ok(stage)
    }

    pub(super) fn end(&mut self) {
        self.stop.ask();
        for thread in self.threads.drain(..) {
            // A panic has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.end();
    }
}

fn play(session: &Session, context: &Context) {
    let from = context.setup.role.name();
    let told = context.tell.clone();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| roles::run(session, context)));
    let text = match ended {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "panicked".into(),
    };
    let _ = told.send(Report::Failed { from: from.into(), text });
}

/// Four free ports in a row; another process may still be quicker, then the runtime says so.
fn free_ports() -> Option<u16> {
    let pid = (std::process::id() % 1_000) as u16;
    (0..TRIES).map(|n| FIRST_PORT + (pid + n) % 1_000 * PORTS).find(|first| {
        let sockets: Vec<_> = (*first..first + PORTS).map(|port| UdpSocket::bind(("127.0.0.1", port))).collect();
        sockets.iter().all(Result::is_ok)
    })
}
