//! Moves of streams that somebody asks for: links and peers by their names.

use super::Server;
use crate::hub::Refusal;
use crate::hub::stands::{Stand, State};
use insane_core::{DatapathIndex, PeerIndex, SessionId};
use insane_wire::control::Code;
use tracing::info;

impl Server {
    /// Lets messages of a stream go by another link, to one peer or to all that it reaches.
    pub(super) fn move_stream(
        &mut self,
        session: SessionId,
        stream: &str,
        link: Option<&str>,
        peer: Option<&str>,
    ) -> Result<(), Refusal> {
        let Some(domain) = self.parts.hub.domain_of(session) else { return Ok(()) };
        let (key, datapath) = self.parts.hub.movable(domain, stream)?;
        let unknown = |what: String| Refusal::new(Code::Unknown, what);
        let links = &self.parts.facts.plan.datapaths[datapath.index()].links;
        let at = match link {
            None => None,
            Some(name) => Some(links.iter().position(|link| link.name == name).ok_or_else(|| {
                let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                unknown(format!("the datapath of stream {stream:?} has no link {name:?}; it has {names}"))
            })?),
        };
        let is_meant = |name: &str| peer.is_none_or(|wanted| wanted == name);
        let has_address = |addresses: &[Vec<Option<std::net::SocketAddr>>]| {
            at.is_none_or(|at| addresses[datapath.index()].get(at).is_some_and(Option::is_some))
        };
        let meant: Vec<_> = self.parts.roster.iter().filter(|(_, entry)| is_meant(&entry.name)).collect();
        if let (true, Some(name)) = (meant.is_empty(), peer) {
            return Err(unknown(format!("there is no peer {name:?}")));
        }
        let peers: Vec<PeerIndex> =
            meant.iter().filter(|(_, entry)| has_address(&entry.addresses)).map(|(peer, _)| *peer).collect();
        if peers.is_empty() {
            let whom = peer.map_or_else(|| "any peer".to_owned(), |name| format!("peer {name:?}"));
            let what = match link {
                Some(link) => format!("link {link:?} has no address of {whom}"),
                None => format!("there is no peer that stream {stream:?} could go to"),
            };
            return Err(unknown(what));
        }
        self.parts.hub.may_place((key, datapath), at, &peers)?;
        self.parts.hub.move_stream(key, &peers, at, self.now)?;
        info!(%session, stream, link, peer, "stream moved");
        Ok(())
    }

    /// Streams with slots that have lost something, in words.
    pub(super) fn alarms(&self) -> Vec<String> {
        let words = |(stream, at, stand): (&str, DatapathIndex, Stand)| {
            let links = &self.parts.facts.plan.datapaths[at.index()].links;
            let link = stand.link.and_then(|link| links.get(link)).map_or("the preferred link", |link| &link.name);
            match stand.state {
                State::Degraded => format!(
                    "stream {stream:?} has slots on {link}, which has failed, and holds no certificate for another: it goes without slots"
                ),
                _ => format!(
                    "stream {stream:?} has slots and stays with {link}, which has failed: it holds no certificate for another"
                ),
            }
        };
        self.parts.hub.alarms().into_iter().map(words).collect()
    }
}
