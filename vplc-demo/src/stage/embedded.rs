//! The form without rights: two runtimes in this process, over loopback, a thread for
//! every part.
//!
//! Process data has a datapath of its own in each runtime, so that it does not wait
//! behind a video frame. Where the process may, device, controller and these datapaths
//! are `SCHED_FIFO`, host a on one core and host b on the other; elsewhere all threads
//! are ordinary ones, and the loop holds as well as the machine is quiet.

use super::port::{Ends, Switch};
use super::{FIFO_DATAPATH, FIFO_SWITCH, Instants, Side, StageError, cast, place, setup};
use crate::course::{Cable, Course, PORT_MBPS};
use crate::options::Options;
use crate::report::Report;
use crate::roles::{self, Context, Place, Stop};
use insane_config::plan::EPSILON_QUANTILE_PPM;
use insane_config::{
    DatapathPlan, HostPlan, Idle, LinkPlan, Policy, RatePlan, Serves, Technology, UdpPlan, plan::host_id,
};
use insane_core::Nanos;
use insane_rt::{Hosting, Plan, Session};
use insane_wire::status::StatusReport;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

/// Two runtimes have two links each, of two ports each; or one link each, and a switch
/// between them two sides.
const PORTS: u16 = 8;
/// Names of the links and their datapaths.
const PROCESS: &str = "process";
const BULK: &str = "bulk";
/// Name of the link to the switch.
const PORT: &str = "port";
/// Longest turn that slots allow for; as in the daemons' configurations.
const TURN: Nanos = Nanos::from_micros(50);
const FIRST_PORT: u16 = 21_000;
const TRIES: u16 = 200;

/// The running threads.
pub struct Embedded {
    pub(super) reports: Receiver<Report>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
    sessions: [Session; 2],
    _switch: Option<Switch>,
}

impl Embedded {
    pub(super) fn start(options: &Options, course: &Course) -> Result<Self, StageError> {
        let port = free_ports().ok_or(StageError::Ports)?;
        let fifo = insane_sys::privileges::can_use_fifo().is_ok();
        let switch = match course.cable {
            Cable::Own => None,
            Cable::Switched => Some(Switch::start(ends(port), fifo.then_some(FIFO_SWITCH))?),
        };
        let host = |side, name| {
            let plan = match course.cable {
                Cable::Own => plan(side, port, fifo),
                Cable::Switched => switched(side, ends(port), fifo),
            };
            Session::embedded_with(plan, Hosting::Thread, name)
        };
        let sessions = [host(Side::A, "host-a")?, host(Side::B, "host-b")?];
        let (tell, reports) = channel();
        let mut stage = Embedded { reports, stop: Stop::default(), threads: Vec::new(), sessions, _switch: switch };
        let instants = Instants::from_now(course.cable);
        for (side, role) in cast(course) {
            let session = &stage.sessions[usize::from(side == Side::B)];
            let place = if fifo { place(side, role) } else { Place::default() };
            let setup = setup(options, course, role, place, instants);
            let context = Context { setup, stop: stage.stop.clone(), tell: tell.clone() };
            let session = session.clone();
            let thread = std::thread::Builder::new().name(role.name().into()).spawn(move || play(&session, &context));
            stage.threads.push(thread.map_err(StageError::system("starting a thread"))?);
        }
        Ok(stage)
    }

    /// The state of host a's runtime and of host b's.
    pub(super) fn status(&self) -> [Option<StatusReport>; 2] {
        self.sessions.each_ref().map(|session| session.runtime()?.status())
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

/// One runtime: process data and everything else on a link and a datapath each.
fn plan(side: Side, first_port: u16, fifo: bool) -> Plan {
    let (own, other) = match side {
        Side::A => (("a", first_port), ("b", first_port + PORTS / 2)),
        Side::B => (("b", first_port + PORTS / 2), ("a", first_port)),
    };
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let datapath = |name: &str, port, serves| DatapathPlan {
        name: name.into(),
        core: None,
        policy: Policy::Other,
        idle: Idle::Block,
        serves,
        links: vec![LinkPlan {
            name: name.into(),
            technology: Technology::Udp(UdpPlan::at(at(port))),
            rate: None,
            peers: Vec::new(),
        }],
        // Loopback has no rate: a lane, and no slots.
        allows_unscheduled: true,
        epsilon_quantile_ppm: EPSILON_QUANTILE_PPM,
        gates: None,
    };
    let mut process = datapath(PROCESS, own.1, Serves::RealTime);
    process.idle = Idle::SpinThenBlock { spin: Nanos::from_micros(20) };
    if fifo {
        process.policy = Policy::Fifo(FIFO_DATAPATH);
        process.core = super::core(side).and_then(|core| u16::try_from(core).ok());
    }
    let mut plan = Plan::embedded_default();
    plan.host = HostPlan { name: own.0.into(), id: host_id(own.0) };
    plan.datapaths = vec![process, datapath(BULK, own.1 + 2, Serves::BestEffort)];
    plan.add_peer(other.0, &[(PROCESS, at(other.1)), (BULK, at(other.1 + 2))]);
    plan
}

/// The ends of two links that a switch joins.
const fn ends(first_port: u16) -> Ends {
    Ends { hosts: [first_port, first_port + 2], facing: [first_port + 4, first_port + 6] }
}

/// One runtime at a switch: one link and one datapath for everything, with a rate, so that
/// process data may have slots.
fn switched(side: Side, ends: Ends, fifo: bool) -> Plan {
    let ((own, other), at) = match side {
        Side::A => (("a", "b"), 0),
        Side::B => (("b", "a"), 1),
    };
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let link = LinkPlan {
        name: PORT.into(),
        technology: Technology::Udp(UdpPlan::at(address(ends.hosts[at]))),
        rate: Some(RatePlan { turn: TURN, ..RatePlan::of(PORT_MBPS) }),
        peers: Vec::new(),
    };
    let mut datapath = DatapathPlan {
        name: "main".into(),
        core: None,
        policy: Policy::Other,
        idle: Idle::Block,
        serves: Serves::All,
        links: vec![link],
        allows_unscheduled: false,
        epsilon_quantile_ppm: EPSILON_QUANTILE_PPM,
        gates: None,
    };
    if fifo {
        datapath.policy = Policy::Fifo(FIFO_DATAPATH);
        datapath.core = super::core(side).and_then(|core| u16::try_from(core).ok());
    }
    let mut plan = Plan::embedded_default();
    plan.host = HostPlan { name: own.into(), id: host_id(own) };
    plan.datapaths = vec![datapath];
    plan.add_peer(other, &[(PORT, address(ends.facing[at]))]);
    plan
}

/// Free ports in a row; another process may still be quicker, then the runtime says so.
fn free_ports() -> Option<u16> {
    let pid = (std::process::id() % 1_000) as u16;
    (0..TRIES).map(|n| FIRST_PORT + (pid + n) % 1_000 * PORTS).find(|first| {
        let sockets: Vec<_> = (*first..first + PORTS).map(|port| UdpSocket::bind(("127.0.0.1", port))).collect();
        sockets.iter().all(Result::is_ok)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_plans_name_each_other() {
        let (a, b) = (plan(Side::A, 21_000, false), plan(Side::B, 21_000, false));
        assert_ne!(a.host.id, b.host.id);
        for (one, other) in [(&a, &b), (&b, &a)] {
            for (datapath, opposite) in one.datapaths.iter().zip(&other.datapaths) {
                assert_eq!(datapath.links[0].peers, [Some(opposite.links[0].technology.bind())]);
            }
        }
    }

    #[test]
    fn rights_are_used_for_process_data_only() {
        let plan = plan(Side::A, 21_000, true);
        assert_eq!(plan.datapaths[0].policy, Policy::Fifo(FIFO_DATAPATH));
        assert_eq!(plan.datapaths[1].policy, Policy::Other);
    }

    #[test]
    fn ports_found_are_free() {
        // A child that another test forks meanwhile has a copy of what was tried.
        let all_free = |first: u16| (first..first + PORTS).all(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok());
        assert!((0..50).any(|_| all_free(free_ports().unwrap())));
    }
}
