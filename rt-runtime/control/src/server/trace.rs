//! Traces: memory into which a datapath writes what it does, for as long as the tool that asked
//! for it is there.
//!
//! One trace a datapath: its memory has one reader's pace, and a second tool would take the
//! place of the first. A tool that dies ends its trace as any session ends.

use super::Server;
use crate::action::Beside;
use crate::hub::Refusal;
use insane_core::{DatapathIndex, SessionId};
use insane_wire::control::{Code, Event};
use tracing::info;

impl Server {
    /// Begins a trace of the datapath of this name, and answers.
    pub(super) fn take_trace(&mut self, session: SessionId, req: u32, name: &str) {
        match self.begin_trace(session, name) {
            Ok((at, bytes)) => {
                info!(%session, datapath = name, "a trace begins");
                self.send(session, &Event::Traced { req, bytes }, &[Beside::DatapathTrace(at)]);
            }
            Err(refusal) => self.answer_done(session, req, Err(refusal)),
        }
    }

    fn begin_trace(&mut self, session: SessionId, name: &str) -> Result<(DatapathIndex, u64), Refusal> {
        let found = self.parts.datapaths.iter_mut().enumerate().find(|(_, datapath)| datapath.plan.name == name);
        let Some((at, datapath)) = found else {
            return Err(Refusal { code: Code::Unknown, reason: format!("there is no datapath {name:?}") });
        };
        if !self.sockets.contains_key(&session) {
            // Nobody would end it.
            return Err(Refusal { code: Code::Unknown, reason: "the session is over".into() });
        }
        if let Some(other) = datapath.traced_by() {
            let known = self.parts.hub.name_of(other);
            let who = if other == session { "this very session" } else { known.unwrap_or("another session") };
            let reason = format!("datapath {name} is being traced by {who}, and can be by one at a time");
            return Err(Refusal { code: Code::Resources, reason });
        }
        let bytes = datapath.begin_trace(session).map_err(|error| {
            let reason = format!("there is no memory for a trace: {error}");
            Refusal { code: Code::Resources, reason }
        })?;
        Ok((DatapathIndex(at as u8), bytes))
    }

    /// The session is over, and so are its traces.
    pub(super) fn end_traces(&mut self, session: SessionId) {
        for datapath in self.parts.datapaths.iter_mut().filter(|datapath| datapath.traced_by() == Some(session)) {
            datapath.end_trace();
            info!(%session, datapath = datapath.plan.name, "a trace has ended");
        }
    }
}
