//! What sources and sinks do, added up by stream, session and link, from two reports.
//!
//! Each is known by its number, which no other has in one life of the runtime. So what a new one
//! counts where another counted before it is never taken for growth; and what a client counts
//! backwards is no growth either, since counters of clients are claims.

use crate::status::table::{Before, of};
use insane_wire::status::{ChannelStatus, Counters, SinkStatus, SourceStatus, StatusReport, StreamStatus};
use std::collections::HashMap;

/// What each source and sink had counted by an earlier report.
pub struct Earlier<'r> {
    sources: HashMap<u32, &'r Counters>,
    sinks: HashMap<u32, &'r Counters>,
    seconds: f64,
}

impl<'r> Earlier<'r> {
    /// `None`: there is no earlier report.
    pub fn new(before: Before<'r>) -> Option<Self> {
        let (report, seconds) = before?;
        let channels = || report.streams.iter().flat_map(|stream| &stream.channels);
        let source = |source: &'r SourceStatus| Some((source.id, source.counters.as_ref()?));
        let sink = |sink: &'r SinkStatus| Some((sink.id, sink.counters.as_ref()?));
        Some(Earlier {
            sources: channels().flat_map(|channel| &channel.sources).filter_map(source).collect(),
            sinks: channels().flat_map(|channel| &channel.sinks).filter_map(sink).collect(),
            seconds,
        })
    }
}

/// What some sources and sinks do together.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Flow {
    /// Messages that the sources have sent since they were opened.
    pub sent: u64,
    /// Messages that the sinks have taken since they were opened.
    pub taken: u64,
    /// Messages sent in a second; `None`: no source was there at both reports.
    pub sent_rate: Option<f64>,
    /// Messages taken in a second; `None`: no sink was there at both reports.
    pub taken_rate: Option<f64>,
    /// Payload bytes in a second, of those sent and those taken.
    pub bytes_rate: Option<f64>,
    /// Deliveries dropped by the sources.
    pub dropped: u64,
    /// Messages that the sinks never saw.
    pub lost: u64,
    /// Sinks whose value is stale.
    pub stale: u64,
    /// How often sinks were refused for their schema, and peers that refuse the sources' now.
    pub schema: u64,
}

impl Flow {
    /// Both together. What clients say may be as large as it likes.
    #[must_use]
    pub fn and(self, other: Flow) -> Flow {
        let rate = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (one, other) => one.or(other),
        };
        Flow {
            sent: self.sent.saturating_add(other.sent),
            taken: self.taken.saturating_add(other.taken),
            sent_rate: rate(self.sent_rate, other.sent_rate),
            taken_rate: rate(self.taken_rate, other.taken_rate),
            bytes_rate: rate(self.bytes_rate, other.bytes_rate),
            dropped: self.dropped.saturating_add(other.dropped),
            lost: self.lost.saturating_add(other.lost),
            stale: self.stale.saturating_add(other.stale),
            schema: self.schema.saturating_add(other.schema),
        }
    }
}

fn grown(now: &Counters, earlier: Option<(&Counters, f64)>, name: &str) -> Option<f64> {
    let (earlier, seconds) = earlier?;
    Some(of(now, name).saturating_sub(of(earlier, name)) as f64 / seconds)
}

fn of_source(source: &SourceStatus, earlier: Option<&Earlier<'_>>) -> Flow {
    let Some(now) = &source.counters else { return Flow::default() };
    let before = earlier.and_then(|earlier| Some((*earlier.sources.get(&source.id)?, earlier.seconds)));
    Flow {
        sent: of(now, "messages"),
        sent_rate: grown(now, before, "messages"),
        bytes_rate: grown(now, before, "bytes"),
        dropped: of(now, "dropped"),
        ..Flow::default()
    }
}

fn of_sink(sink: &SinkStatus, earlier: Option<&Earlier<'_>>) -> Flow {
    let Some(now) = &sink.counters else { return Flow::default() };
    let before = earlier.and_then(|earlier| Some((*earlier.sinks.get(&sink.id)?, earlier.seconds)));
    Flow {
        taken: of(now, "messages"),
        taken_rate: grown(now, before, "messages"),
        bytes_rate: grown(now, before, "bytes"),
        lost: of(now, "lost"),
        stale: u64::from(of(now, "stale") > of(now, "recovered")),
        schema: of(now, "schema_refused"),
        ..Flow::default()
    }
}

fn sources(channel: &ChannelStatus, earlier: Option<&Earlier<'_>>) -> Flow {
    channel.sources.iter().map(|source| of_source(source, earlier)).fold(Flow::default(), Flow::and)
}

/// What a stream's sources and sinks on this host do.
pub fn of_stream(stream: &StreamStatus, earlier: Option<&Earlier<'_>>) -> Flow {
    let channel = |channel: &ChannelStatus| {
        // Those that only watch are no part of it.
        let sinks = channel.sinks.iter().filter(|sink| !sink.observes);
        let sinks = sinks.map(|sink| of_sink(sink, earlier)).fold(Flow::default(), Flow::and);
        let refusing = channel.mismatches.iter().filter(|mismatch| !mismatch.sinks_are_here).count() as u64;
        sources(channel, earlier).and(sinks).and(Flow { schema: refusing, ..Flow::default() })
    };
    stream.channels.iter().map(channel).fold(Flow::default(), Flow::and)
}

/// How many stale sinks sessions have, by their numbers.
pub fn stale_by_session(report: &StatusReport) -> HashMap<u32, u64> {
    let mut stale = HashMap::new();
    let channels = report.streams.iter().flat_map(|stream| &stream.channels);
    for sink in channels.flat_map(|channel| &channel.sinks) {
        *stale.entry(sink.session).or_default() += of_sink(sink, None).stale;
    }
    stale
}

/// What sources have for other hosts by a link, each message once for every peer that gets its
/// own, and once for a group; dropped on the way or not.
pub fn offered_to(report: &StatusReport, link: &str, earlier: Option<&Earlier<'_>>) -> Flow {
    let mut all = Flow::default();
    for stream in &report.streams {
        for channel in &stream.channels {
            let group = channel.group.as_ref();
            let in_group = |peer: &String| group.is_some_and(|group| group.peers.contains(peer));
            let alone = |peer: &&String| stream.links.get(*peer).is_some_and(|by| by == link) && !in_group(peer);
            let frames = channel.peers.iter().filter(alone).count()
                + usize::from(group.is_some_and(|group| group.link == link && !group.peers.is_empty()));
            if frames > 0 {
                let Flow { sent_rate, bytes_rate, .. } = sources(channel, earlier);
                let times = |rate: Option<f64>| rate.map(|rate| rate * frames as f64);
                all = all.and(Flow { sent_rate: times(sent_rate), bytes_rate: times(bytes_rate), ..Flow::default() });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_wire::status::{ChannelGroupStatus, MismatchStatus};

    fn counted(counts: &[(&str, u64)]) -> Option<Counters> {
        Some(counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    }

    fn source(id: u32, counts: &[(&str, u64)]) -> SourceStatus {
        SourceStatus { id, counters: counted(counts), ..SourceStatus::default() }
    }

    fn sink(id: u32, counts: &[(&str, u64)]) -> SinkStatus {
        SinkStatus { id, counters: counted(counts), ..SinkStatus::default() }
    }

    fn report(sources: Vec<SourceStatus>, sinks: Vec<SinkStatus>) -> StatusReport {
        let channels = vec![ChannelStatus { sources, sinks, ..ChannelStatus::default() }];
        StatusReport { streams: vec![StreamStatus { channels, ..StreamStatus::default() }], ..StatusReport::default() }
    }

    fn flow(now: &StatusReport, earlier: &StatusReport) -> Flow {
        of_stream(&now.streams[0], Earlier::new(Some((earlier, 2.0))).as_ref())
    }

    #[test]
    fn sources_and_sinks_are_followed_by_their_numbers_and_added_up() {
        let (messages, bytes) = ("messages", "bytes");
        let earlier = report(
            vec![source(1, &[(messages, 100), (bytes, 1_000)]), source(2, &[(messages, 10)])],
            vec![sink(1, &[(messages, 40)])],
        );
        let now = report(
            vec![source(1, &[(messages, 300), (bytes, 5_000), ("dropped", 3)]), source(2, &[(messages, 30)])],
            vec![sink(1, &[(messages, 50), (bytes, 20), ("lost", 4)])],
        );
        let flow = flow(&now, &earlier);
        assert_eq!((flow.sent, flow.taken), (330, 50));
        assert_eq!((flow.sent_rate, flow.taken_rate, flow.bytes_rate), (Some(110.0), Some(5.0), Some(2_010.0)));
        assert_eq!((flow.dropped, flow.lost), (3, 4));
        assert_eq!(of_stream(&now.streams[0], None).sent_rate, None);
    }

    #[test]
    fn nobody_gets_a_rate_out_of_what_another_has_counted() {
        let messages = "messages";
        let earlier = report(vec![source(1, &[(messages, 1_000_000)])], vec![sink(7, &[(messages, 5)])]);
        // Another source where the first one counted; the sink counts backwards.
        let now = report(vec![source(2, &[(messages, 2_000_000)])], vec![sink(7, &[(messages, 3)])]);
        assert_eq!(flow(&now, &earlier).sent_rate, None);
        assert_eq!(flow(&now, &earlier).taken_rate, Some(0.0));
        // One that stays beside a newcomer has its own rate alone.
        let both = report(vec![source(1, &[(messages, 1_000_100)]), source(2, &[(messages, 2_000_000)])], Vec::new());
        assert_eq!(flow(&both, &earlier).sent_rate, Some(50.0));
        // A source and a sink of one number are two.
        let sink_of_1 = report(Vec::new(), vec![sink(1, &[(messages, 9)])]);
        assert_eq!(flow(&sink_of_1, &earlier).taken_rate, None);
        // One that only watches is no part of the stream.
        let watching = SinkStatus { observes: true, ..sink(7, &[(messages, 500)]) };
        assert_eq!(flow(&report(Vec::new(), vec![watching]), &earlier).taken, 0);
        // Where a source counts is not known, or was not.
        let silent = report(vec![SourceStatus { id: 1, ..SourceStatus::default() }], Vec::new());
        assert_eq!(flow(&silent, &earlier), Flow::default());
        assert_eq!(flow(&earlier, &silent).sent_rate, None);
    }

    #[test]
    fn what_clients_claim_may_be_as_large_as_it_likes() {
        let all = [("messages", u64::MAX), ("dropped", u64::MAX), ("recovered", u64::MAX), ("stale", 1)];
        let now = report(vec![source(1, &all), source(2, &all)], vec![sink(1, &all)]);
        let earlier = report(vec![source(1, &[]), source(2, &[])], Vec::new());
        let flow = flow(&now, &earlier);
        assert_eq!((flow.sent, flow.dropped, flow.stale), (u64::MAX, u64::MAX, 0));
        assert!(flow.sent_rate.is_some_and(f64::is_finite));
    }

    #[test]
    fn a_sink_is_stale_until_it_has_recovered_as_often_and_refusals_count_on_both_sides() {
        let of_session = |session, counts: &[(&str, u64)]| SinkStatus { session, ..sink(session, counts) };
        let sinks = vec![
            of_session(1, &[("stale", 3), ("recovered", 3), ("schema_refused", 2)]),
            of_session(2, &[("stale", 3), ("recovered", 2)]),
            of_session(3, &[]),
        ];
        let mut now = report(Vec::new(), sinks);
        let mismatch = |sinks_are_here| MismatchStatus { sinks_are_here, ..MismatchStatus::default() };
        now.streams[0].channels[0].mismatches = vec![mismatch(true), mismatch(false)];
        let flow = of_stream(&now.streams[0], None);
        assert_eq!((flow.stale, flow.schema), (1, 3));
        assert_eq!(stale_by_session(&now), [(1, 0), (2, 1), (3, 0)].into());
    }

    #[test]
    fn a_link_is_offered_each_message_once_for_a_peer_or_a_group() {
        let (messages, bytes) = ("messages", "bytes");
        let earlier = report(vec![source(1, &[])], Vec::new());
        let mut now = report(vec![source(1, &[(messages, 20), (bytes, 200)])], Vec::new());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let stream = &mut now.streams[0];
        stream.links = [("a", "l0"), ("b", "l0"), ("c", "l1"), ("d", "l0")].map(|(p, l)| (p.into(), l.into())).into();
        stream.channels[0].peers = names(&["a", "b", "c"]);
        let offered = |now: &StatusReport, link: &str| {
            let flow = offered_to(now, link, Earlier::new(Some((&earlier, 2.0))).as_ref());
            (flow.sent_rate, flow.bytes_rate)
        };
        assert_eq!(offered(&now, "l0"), (Some(20.0), Some(200.0)), "d has no sink of that channel");
        assert_eq!(offered(&now, "l1"), (Some(10.0), Some(100.0)));
        assert_eq!(offered(&now, "l2"), (None, None));
        let group = ChannelGroupStatus { link: "l0".into(), peers: names(&["a", "b"]) };
        now.streams[0].channels[0].group = Some(group);
        assert_eq!(offered(&now, "l0"), (Some(10.0), Some(100.0)));
    }
}
