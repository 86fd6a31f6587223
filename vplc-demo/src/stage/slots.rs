//! What the runtimes say of the slots of process data: asked once, at the end of a run.

use super::Side;
use crate::course::{COMMANDS, SAMPLES};
use insane_certificate::{Certificate, Class};
use insane_core::Nanos;
use insane_sys::clock::mono_now;
use insane_sys::seqpacket::{self, RecvOutcome, SendOutcome};
use insane_wire::control::{self, Event, Hello, PACKET_BYTES_MAX, Request, Role};
use insane_wire::status::{DatapathStatus, StatusReport};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// How long a daemon may take to answer.
const PATIENCE: Nanos = Nanos::from_secs(2);
/// Largest report that is put together, bytes.
const REPORT_BYTES_MAX: usize = 16 << 20;

/// Counters of what became of late messages; the others of their kind are causes.
const FATES: [&str; 4] = ["late_sent", "late_dropped", "late_replaced", "late_launch"];

/// The slots of one way of process data.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Slots {
    /// Its stream.
    pub stream: String,
    /// On what it was admitted; `None`: there is no certificate to be read.
    pub basis: Option<Basis>,
    /// Start in the cycle, nanoseconds.
    pub start_ns: u64,
    /// Length, nanoseconds.
    pub length_ns: u64,
    /// The cycle, nanoseconds.
    pub period_ns: u64,
    /// Bytes of the link that fit.
    pub bytes: u32,
    /// By which clock.
    pub clock: String,
    /// Slots that were used.
    pub used: u64,
    /// Slots or messages that were late, by cause as the runtime counts them, since its start.
    pub late: Vec<(String, u64)>,
    /// Assumptions of the certificate that did not hold, and how often.
    pub violated: Vec<(String, u64)>,
}

/// What the certificate says of a stream and its host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Basis {
    /// `statistical`: it rests on the quantile of e_turn; `assured`: on its longest.
    pub class: &'static str,
    /// That quantile, nanoseconds.
    pub turn_quantile_ns: u64,
    /// That longest, nanoseconds.
    pub turn_max_ns: u64,
    /// Samples behind the two; 0: they were configured.
    pub turn_samples: u64,
}

/// What a report says of the slots of the sources on that host.
pub fn slots_of(side: Side, report: &StatusReport) -> Option<Slots> {
    let name = match side {
        Side::A => COMMANDS,
        Side::B => SAMPLES,
    };
    let stream = report.streams.iter().find(|stream| stream.name == name)?;
    let slot = stream.channels.iter().flat_map(|channel| &channel.sources).find_map(|source| source.slot.as_ref())?;
    let datapath = report.datapaths.iter().find(|datapath| datapath.slot_clock.is_some())?;
    let count = |counter: &str| datapath.counters.get(counter).copied().unwrap_or(0);
    let is_cause = |name: &str| name.starts_with("late_") && !FATES.contains(&name);
    let late = datapath.counters.iter().filter(|(name, count)| is_cause(name) && **count > 0);
    let violated = datapath.monitors.iter().filter(|monitor| monitor.violations > 0);
    Some(Slots {
        stream: name.into(),
        basis: basis(datapath, name),
        start_ns: slot.start_ns,
        length_ns: slot.length_ns,
        period_ns: slot.period_ns,
        bytes: slot.bytes,
        clock: datapath.slot_clock.clone().unwrap_or_default(),
        used: count("slots_sent"),
        late: late.map(|(name, count)| (name.clone(), *count)).collect(),
        violated: violated.map(|monitor| (monitor.assumption.clone(), monitor.violations)).collect(),
    })
}

fn basis(datapath: &DatapathStatus, stream: &str) -> Option<Basis> {
    let certificate: Certificate = insane_certificate::text::read(datapath.certificate.as_ref()?).ok()?;
    let stream = certificate.plant.streams.iter().find(|placed| placed.name.starts_with(stream))?;
    let host = certificate.plant.links.get(stream.path.first()?.link)?.host?;
    let turn = &certificate.plant.hosts.get(host)?.turn;
    let class = match stream.class {
        Class::Assured => "assured",
        Class::Statistical => "statistical",
    };
    let (turn_quantile_ns, turn_max_ns) = (turn.quantile_ns, turn.max_ns);
    Some(Basis { class, turn_quantile_ns, turn_max_ns, turn_samples: turn.samples })
}

/// Asks the daemon at a socket for its state; `None`: it does not answer as it should.
pub fn ask(socket: &Path) -> Option<StatusReport> {
    let socket = seqpacket::connect(socket).ok()?;
    let deadline = mono_now() + PATIENCE;
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let send = |bytes: &[u8]| matches!(seqpacket::send(&socket, bytes, &[]), Ok(SendOutcome::Sent));
    let mut event = || loop {
        match seqpacket::recv(&socket, &mut packet) {
            Ok(RecvOutcome::Packet(told)) => return control::decode::<Event>(&packet[..told.len]).ok(),
            Ok(RecvOutcome::WouldBlock) if mono_now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            _ => return None,
        }
    };
    let hello = Hello { name: "demo".into(), domain: None, role: Role::Observer };
    if !send(&control::encode_hello(&hello)) || !matches!(event()?, Event::Welcome { .. }) {
        return None;
    }
    if !send(&control::encode(&Request::Status { req: 1 })) {
        return None;
    }
    let mut json = Vec::new();
    loop {
        if let Event::Status { req: 1, last, piece } = event()? {
            json.extend(piece);
            if last {
                return serde_json::from_slice(&json).ok();
            }
        }
        if json.len() > REPORT_BYTES_MAX {
            return None;
        }
    }
}
