//! Which channels are tapped, and the sinks that do it.

use super::output::{Origin, Output, Place};
use crate::told::qos_of;
use insane_core::{ChannelId, Lane, Reliability, StreamKey};
use insane_rt::{RequestError, Session, Sink, SinkOptions, Stream, StreamOptions};
use insane_wire::status::{StatusReport, StreamStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// Messages of one sink before the next one's turn.
const BURST: u64 = 64;

/// What is to be tapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// This stream only.
    pub stream: Option<String>,
    /// This channel only.
    pub channel: Option<u32>,
    /// Messages that each ring holds.
    pub depth: u32,
}

impl Filter {
    /// That no channel is of interest; `is_open`: a stream is.
    fn nothing(&self, domain: &str, is_open: bool) -> String {
        let what = match (&self.stream, self.channel) {
            (Some(stream), None) if is_open => format!("stream {stream:?} has no channel in use"),
            (Some(stream), Some(channel)) if is_open => format!("stream {stream:?} has no channel {channel} in use"),
            (Some(stream), _) => format!("no stream {stream:?} is open"),
            (None, Some(channel)) => format!("no stream has a channel {channel} in use"),
            (None, None) => "no stream has a channel in use".to_owned(),
        };
        format!("nothing to tap yet: {what} in domain {domain:?}; waiting for it")
    }
}

struct Tap {
    sink: Sink,
    place: Place,
}

/// All sinks of the tap.
pub struct Watch {
    session: Session,
    filter: Filter,
    streams: BTreeMap<String, Stream>,
    taps: BTreeMap<(String, u32), Tap>,
    /// Channels that could not be tapped, which was said.
    refused: BTreeSet<(String, u32)>,
    /// Whether there is anything to tap is said once, at the first look.
    has_looked: bool,
}

impl Watch {
    /// Of nothing yet.
    pub fn new(session: Session, filter: Filter) -> Self {
        let (streams, taps, refused) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Watch { session, filter, streams, taps, refused, has_looked: false }
    }

    /// Opens a sink on every channel that is new, and lets go of what nobody else uses any
    /// more: a stream must not stay open for the tap's sake.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn update(&mut self, report: &StatusReport, output: &mut Output) -> io::Result<()> {
        let domain = self.session.domain();
        let wanted: Vec<&StreamStatus> = report
            .streams
            .iter()
            .filter(|stream| stream.domain == domain && stream.sources + stream.sinks > 0)
            .filter(|stream| self.filter.stream.as_ref().is_none_or(|name| *name == stream.name))
            .collect();
        let in_use: BTreeSet<(String, u32)> = wanted.iter().flat_map(|stream| self.channels(stream)).collect();
        self.taps.retain(|key, _| in_use.contains(key));
        self.streams.retain(|name, _| wanted.iter().any(|stream| stream.name == *name));
        self.refused.retain(|key| in_use.contains(key));
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        if is_first && in_use.is_empty() {
            writeln!(io::stderr(), "{}", self.filter.nothing(&domain, !wanted.is_empty()))?;
        }
        for stream in wanted {
            for key in self.channels(stream) {
                if !self.taps.contains_key(&key) && !self.refused.contains(&key) {
                    self.open(stream, key, output)?;
                }
            }
        }
        Ok(())
    }

    /// The channels of a stream that are in use and wanted.
    fn channels(&self, stream: &StreamStatus) -> Vec<(String, u32)> {
        let in_use = stream
            .channels
            .iter()
            .filter(|channel| !channel.sources.is_empty() || channel.sinks.iter().any(|sink| !sink.observes));
        let wanted = in_use.filter(|channel| self.filter.channel.is_none_or(|number| number == channel.channel));
        wanted.map(|channel| (stream.name.clone(), channel.channel)).collect()
    }

    fn open(&mut self, stream: &StreamStatus, key: (String, u32), output: &mut Output) -> io::Result<()> {
        let name = format!("{}/{}:{}", stream.domain, stream.name, key.1);
        let (sink, origin) = match self.sink(stream, key.1, &name) {
            Ok(opened) => opened,
            Err(reason) => {
                writeln!(io::stderr(), "not tapped: {name}: {reason}")?;
                self.refused.insert(key);
                return Ok(());
            }
        };
        let place = output.place(&origin)?;
        self.taps.insert(key, Tap { sink, place });
        Ok(())
    }

    fn sink(&mut self, stream: &StreamStatus, channel: u32, name: &str) -> Result<(Sink, Origin), String> {
        let told = |error: RequestError| error.to_string();
        let unknown = "the runtime is of another version: its report does not say what the stream is";
        let qos = stream.qos.as_ref().and_then(qos_of).ok_or(unknown)?;
        let key = u64::from_str_radix(&stream.key, 16).map_err(|_| unknown)?;
        let lane = Lane::new(stream.lane).ok_or(unknown)?;
        let opened = match self.streams.get(&stream.name) {
            Some(opened) => opened.clone(),
            None => {
                let options = StreamOptions::default().isolated(stream.isolated);
                let opened = self.session.stream_with(&stream.name, qos, options).map_err(told)?;
                self.streams.insert(stream.name.clone(), opened.clone());
                opened
            }
        };
        let options = SinkOptions::default().depth(self.filter.depth).observer();
        let sink = opened.sink(ChannelId(channel), options).map_err(told)?;
        let reliable = qos.reliability == Reliability::Reliable;
        let origin = Origin { name: name.to_owned(), key: StreamKey(key), channel: ChannelId(channel), lane, reliable };
        Ok((sink, origin))
    }

    /// Takes what waits, at most `most` messages; how many it took.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn take(&self, output: &mut Output, most: u64) -> io::Result<u64> {
        let mut took = 0;
        for tap in self.taps.values() {
            for _ in 0..BURST.min(most - took) {
                // Detached, with nobody local left: nothing comes until the session is back.
                let Ok(Some(message)) = tap.sink.consume() else { break };
                output.message(tap.place, &message)?;
                took += 1;
            }
        }
        Ok(took)
    }
}
