//! Where tapped messages go: a pcap-ng file, or lines for people.

use super::pcapng::{Packet, Statistics, Writer};
use insane_core::{ChannelId, HostId, Incarnation, Lane, SourceId, StreamKey};
use insane_rt::Message;
use insane_wire::data::{DataHeader, FRAGMENT_UNIT, Flags, HEADER_BYTES, Kind};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most that is kept of a packet, header included, bytes: what readers of the format take.
const KEPT_MAX: usize = 256 * 1024;
const PAYLOAD_MAX: usize = KEPT_MAX - HEADER_BYTES;
/// Bytes of a payload that a line shows.
const SHOWN: usize = 16;

const _: () = assert!(PAYLOAD_MAX.is_multiple_of(FRAGMENT_UNIT as usize), "a cut message is a first fragment");

/// A channel that is tapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// `DOMAIN/STREAM:CHANNEL`.
    pub name: String,
    /// Wire name of the stream.
    pub key: StreamKey,
    /// The channel.
    pub channel: ChannelId,
    /// Lane of the stream.
    pub lane: Lane,
    /// Whether the stream is reliable.
    pub reliable: bool,
}

/// Names a channel in the output.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place(usize);

#[derive(Debug)]
struct Row {
    origin: Origin,
    seen: Statistics,
}

enum Form {
    File(Writer<BufWriter<Box<dyn Write>>>),
    Lines(BufWriter<io::Stdout>),
}

/// The output.
pub struct Output {
    form: Form,
    rows: Vec<Row>,
    started: u64,
    frame: Vec<u8>,
}

impl Output {
    /// Opens the file, `-` for standard output; lines without one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let form = match path {
            None => Form::Lines(BufWriter::new(io::stdout())),
            Some(path) => {
                let into: Box<dyn Write> =
                    if path == Path::new("-") { Box::new(io::stdout()) } else { Box::new(File::create(path)?) };
                let application = concat!("insane tap ", env!("CARGO_PKG_VERSION"));
                Form::File(Writer::new(BufWriter::new(into), application)?)
            }
        };
        Ok(Output { form, rows: Vec::new(), started: now(), frame: Vec::new() })
    }

    /// The place of a channel, made at the first call for it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn place(&mut self, origin: &Origin) -> io::Result<Place> {
        if let Some(at) = self.rows.iter().position(|row| row.origin == *origin) {
            return Ok(Place(at));
        }
        if let Form::File(writer) = &mut self.form {
            let reliability = if origin.reliable { "reliable" } else { "unreliable" };
            let description = format!(
                "stream {:016x}, channel {}, lane {}, {reliability}",
                origin.key.0, origin.channel, origin.lane
            );
            writer.interface(&origin.name, &description, KEPT_MAX as u32)?;
        }
        let now = now();
        self.rows.push(Row { origin: origin.clone(), seen: Statistics { start: now, end: now, received: 0, lost: 0 } });
        Ok(Place(self.rows.len() - 1))
    }

    /// Writes one message.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn message(&mut self, place: Place, message: &Message<'_>) -> io::Result<()> {
        let at = now();
        let row = &mut self.rows[place.0];
        let lost = u64::from(message.lost());
        row.seen.received += 1 + lost;
        row.seen.lost += lost;
        row.seen.end = at;
        match &mut self.form {
            Form::File(writer) => {
                let kept = message.len().min(PAYLOAD_MAX);
                self.frame.clear();
                self.frame.extend_from_slice(&header(&row.origin, message).encode());
                self.frame.resize(HEADER_BYTES + kept, 0);
                message.copy_to(&mut self.frame[HEADER_BYTES..]);
                let len = (HEADER_BYTES + message.len()) as u32;
                writer.packet(&Packet { interface: place.0 as u32, at, bytes: &self.frame, len, lost })
            }
            Form::Lines(into) => {
                let mut bytes = [0; SHOWN];
                let shown = message.copy_to(&mut bytes);
                let hex: String = bytes[..shown].iter().map(|byte| format!("{byte:02x}")).collect();
                let more = if message.len() > shown { ".." } else { "" };
                let lost = if lost > 0 { format!(" ({lost} lost before it)") } else { String::new() };
                let after = at.saturating_sub(self.started);
                let (seconds, nanos) = (after / 1_000_000_000, after % 1_000_000_000);
                let (name, sequence, len) = (&row.origin.name, message.sequence(), message.len());
                writeln!(into, "{seconds}.{nanos:09} {name} #{sequence} {len} B{lost} {hex}{more}")
            }
        }
    }

    /// Hands on what is buffered.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.form {
            Form::File(writer) => writer.flush(),
            Form::Lines(into) => into.flush(),
        }
    }

    /// Writes what each channel saw, and hands everything on.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Form::File(writer) = &mut self.form {
            let end = now();
            for (at, row) in self.rows.iter().enumerate() {
                writer.statistics(at as u32, Statistics { end, ..row.seen })?;
            }
        }
        self.flush()
    }

    /// How much it was, in words.
    pub fn summary(&self) -> String {
        let lost: u64 = self.rows.iter().map(|row| row.seen.lost).sum();
        let taken: u64 = self.rows.iter().map(|row| row.seen.received).sum::<u64>() - lost;
        format!("{taken} messages of {} channels, {lost} lost", self.rows.len())
    }
}

/// The header that the message would have between runtimes. A tap is not told which host
/// and source it came from: these fields are 0.
fn header(origin: &Origin, message: &Message<'_>) -> DataHeader {
    DataHeader {
        kind: Kind::Data,
        lane: origin.lane,
        flags: if origin.reliable { Flags::RELIABLE } else { Flags::NONE },
        stream: origin.key,
        host: HostId(0),
        incarnation: Incarnation(0),
        sequence: message.sequence(),
        source_instant: message.source_ns().unwrap_or(0),
        channel: origin.channel,
        source: SourceId(0),
        message_len: message.len() as u32,
        fragment_offset: 0,
    }
}

/// Nanoseconds since 1970, of the clock that people read.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
