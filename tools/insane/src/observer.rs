//! A session that only watches: HELLO as an observer, then one question at a time.

use insane_core::{Datapath, MonoTime, Nanos, Priority};
use insane_shm::region::Region;
use insane_shm::trace::TraceReader;
use insane_sys::clock::mono_now;
use insane_sys::event::{Epoll, Interest, Ready, Trigger};
use insane_sys::seqpacket::{self, PathError, RecvOutcome, SendOutcome};
use insane_sys::{Errno, OsError};
use insane_wire::control::{self, Event, Hello, PACKET_BYTES_MAX, Request, Role, ScheduleOrder, ScheduleWord};
use insane_wire::reload::ReloadReport;
use insane_wire::status::StatusReport;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Bytes of one piece of a file.
const PIECE_BYTES: usize = 8 * 1024;
/// Between two attempts to send a piece for which there was no room.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);
/// Largest report that is put together, bytes.
const REPORT_BYTES_MAX: usize = 64 << 20;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody listens.
    #[error(
        "no runtime answers at {path}\n\
         Is insaned running? If its configuration has another `control.socket`, give that one."
    )]
    NobodyThere {
        /// Where.
        path: PathBuf,
    },
    /// The permissions of the socket say no.
    #[error("this user may not open {path}: its mode is `control.mode` of the runtime's configuration")]
    NoAccess {
        /// Where.
        path: PathBuf,
    },
    /// Another failure to connect.
    #[error(transparent)]
    Connect(PathError),
    /// The runtime says no.
    #[error("the runtime refuses: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// The connection ended.
    #[error("the runtime is gone")]
    Gone,
    /// Nothing came in time.
    #[error("the runtime did not answer within {0}")]
    Silent(Nanos),
    /// What came is no answer.
    #[error("what answers there is no runtime of this version: {0}")]
    Nonsense(&'static str),
    /// What it handed over cannot be mapped.
    #[error("the memory that the runtime handed over cannot be mapped: {0}")]
    Memory(std::io::Error),
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// An attached observer.
pub struct Observer {
    socket: OwnedFd,
    epoll: Epoll,
    timeout: Nanos,
    requests: u32,
    buffer: Vec<u8>,
}

/// Options of commands that ask a runtime for something in a domain.
#[derive(clap::Args)]
pub struct Asked {
    /// The domain of the stream; the first that the access rules allow, if none is given.
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// The runtime's control socket.
    #[arg(long, default_value = insane_config::raw::SOCKET)]
    socket: PathBuf,
    /// Milliseconds to wait for an answer.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
}

impl Asked {
    /// Attaches there as `name`.
    pub fn attach(&self, name: &str) -> Result<Observer, StatusError> {
        Observer::attach(&self.socket, Nanos::from_millis(self.timeout), name, self.domain.as_deref())
    }
}

impl Observer {
    /// Connects as `name` and says HELLO, in the domain of that name or the first that lets
    /// this user in.
    pub fn attach(path: &Path, timeout: Nanos, name: &str, domain: Option<&str>) -> Result<Observer, StatusError> {
        let socket = seqpacket::connect(path).map_err(|error| why_not(path, error))?;
        let epoll = Epoll::new()?;
        epoll.add(&socket, 0, Interest::Read, Trigger::Level)?;
        let mut observer = Observer { socket, epoll, timeout, requests: 0, buffer: vec![0; PACKET_BYTES_MAX] };
        let hello = Hello { name: name.into(), domain: domain.map(Into::into), role: Role::Observer };
        observer.send(&control::encode_hello(&hello))?;
        match observer.event(mono_now() + timeout)? {
            Event::Welcome { .. } => Ok(observer),
            _ => Err(StatusError::Nonsense("its first packet is no WELCOME")),
        }
    }

    /// Asks for the state of the runtime.
    pub fn status(&mut self) -> Result<StatusReport, StatusError> {
        self.status_as()
    }

    /// As [`status`](Self::status), with what else the answer holds.
    pub fn status_as<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, StatusError> {
        self.requests = self.requests.wrapping_add(1);
        self.send(&control::encode(&Request::Status { req: self.requests }))?;
        let deadline = mono_now() + self.timeout;
        let mut json = Vec::new();
        loop {
            match self.event(deadline)? {
                Event::Status { req, last, piece } if req == self.requests => {
                    json.extend(piece);
                    if json.len() > REPORT_BYTES_MAX {
                        return Err(StatusError::Nonsense("its report has no end"));
                    }
                    if last {
                        return serde_json::from_slice(&json)
                            .map_err(|_| StatusError::Nonsense("its report is no status report"));
                    }
                }
                Event::Failed { reason, .. } => return Err(StatusError::Refused { reason }),
                // What this version does not ask for, a later runtime may still tell.
                _ => {}
            }
        }
    }

    /// Asks for a configuration to hold, or only what it would change. `file`: how the
    /// runtime calls it, and its text; `None`: the one that the runtime was started with.
    pub fn reload(&mut self, file: Option<(&str, &[u8])>, dry_run: bool) -> Result<ReloadReport, StatusError> {
        self.requests = self.requests.wrapping_add(1);
        let req = self.requests;
        let deadline = mono_now() + self.timeout;
        let (name, text) = file.map_or((None, &[][..]), |(name, text)| (Some(name.to_owned()), text));
        let pieces = text.len().div_ceil(PIECE_BYTES).max(1);
        for at in 0..pieces {
            let piece = text[at * PIECE_BYTES..text.len().min((at + 1) * PIECE_BYTES)].to_vec();
            let request = Request::Reload { req, dry_run, file: name.clone(), last: at + 1 == pieces, piece };
            self.send_patiently(&control::encode(&request), deadline)?;
        }
        let mut json = Vec::new();
        loop {
            match self.event(deadline)? {
                Event::Reload { req: answered, last, piece } if answered == req => {
                    json.extend(piece);
                    if json.len() > REPORT_BYTES_MAX {
                        return Err(StatusError::Nonsense("its report has no end"));
                    }
                    if last {
                        return serde_json::from_slice(&json)
                            .map_err(|_| StatusError::Nonsense("its report is no report of a reload"));
                    }
                }
                Event::Failed { reason, .. } => return Err(StatusError::Refused { reason }),
                _ => {}
            }
        }
    }

    /// Lets a stream go by another link.
    pub fn move_stream(&mut self, stream: &str, link: Option<&str>, peer: Option<&str>) -> Result<(), StatusError> {
        self.requests = self.requests.wrapping_add(1);
        let (req, deadline) = (self.requests, mono_now() + self.timeout);
        let (stream, link, peer) = (stream.to_owned(), link.map(str::to_owned), peer.map(str::to_owned));
        self.send_patiently(&control::encode(&Request::MoveStream { req, stream, link, peer }), deadline)?;
        self.done(req, deadline)
    }

    /// Changes what an open stream asks for.
    pub fn set_qos(
        &mut self,
        stream: &str,
        datapath: Option<Datapath>,
        priority: Option<Priority>,
    ) -> Result<(), StatusError> {
        self.requests = self.requests.wrapping_add(1);
        let (req, deadline) = (self.requests, mono_now() + self.timeout);
        let stream = stream.to_owned();
        self.send_patiently(&control::encode(&Request::SetQos { req, stream, datapath, priority }), deadline)?;
        self.done(req, deadline)
    }

    /// Lets a datapath record its turns and slots, until this session ends.
    pub fn trace(&mut self, datapath: &str) -> Result<TraceReader, StatusError> {
        self.requests = self.requests.wrapping_add(1);
        let (req, deadline) = (self.requests, mono_now() + self.timeout);
        self.send(&control::encode(&Request::Trace { req, datapath: datapath.to_owned() }))?;
        loop {
            match self.event_beside(deadline)? {
                (Event::Traced { req: answered, bytes }, Some(memory)) if answered == req => {
                    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                    let region = Region::map_read_only(memory.as_fd(), bytes).map_err(StatusError::Memory)?;
                    return TraceReader::new(region)
                        .ok_or(StatusError::Nonsense("its record of a trace has another layout"));
                }
                (Event::Traced { .. }, _) => return Err(StatusError::Nonsense("its record of a trace is missing")),
                (Event::Failed { reason, .. }, _) => return Err(StatusError::Refused { reason }),
                _ => {}
            }
        }
    }

    /// Whether the runtime has ended, or closed this session, since it was last heard of.
    pub fn is_gone(&mut self) -> bool {
        match seqpacket::recv(&self.socket, &mut self.buffer) {
            Ok(RecvOutcome::Packet(packet)) => {
                matches!(control::decode(&self.buffer[..packet.len]), Ok(Event::Closing { .. }))
            }
            Ok(RecvOutcome::WouldBlock) => false,
            Ok(RecvOutcome::Closed) | Err(_) => true,
        }
    }

    fn done(&mut self, req: u32, deadline: MonoTime) -> Result<(), StatusError> {
        loop {
            match self.event(deadline)? {
                Event::Done { req: answered } if answered == req => return Ok(()),
                Event::Failed { reason, .. } => return Err(StatusError::Refused { reason }),
                _ => {}
            }
        }
    }

    /// Gives a runtime a certificate to keep aside.
    pub fn stage(&mut self, text: &[u8], local_clock: bool) -> Result<ScheduleWord, StatusError> {
        self.requests = self.requests.wrapping_add(1);
        let deadline = mono_now() + self.timeout;
        let pieces = text.len().div_ceil(PIECE_BYTES).max(1);
        for at in 0..pieces {
            let piece = text[at * PIECE_BYTES..text.len().min((at + 1) * PIECE_BYTES)].to_vec();
            let order = ScheduleOrder::Stage { local_clock, last: at + 1 == pieces, piece };
            self.send_patiently(&control::encode(&Request::Schedule { req: self.requests, order }), deadline)?;
        }
        self.word(deadline)
    }

    /// Gives any other order about a schedule.
    pub fn order(&mut self, order: ScheduleOrder) -> Result<ScheduleWord, StatusError> {
        self.requests = self.requests.wrapping_add(1);
        self.send(&control::encode(&Request::Schedule { req: self.requests, order }))?;
        self.word(mono_now() + self.timeout)
    }

    fn word(&mut self, deadline: MonoTime) -> Result<ScheduleWord, StatusError> {
        loop {
            match self.event(deadline)? {
                Event::Schedule { req, word } if req == self.requests => return Ok(word),
                Event::Failed { req, reason, .. } if req == self.requests => {
                    return Err(StatusError::Refused { reason });
                }
                _ => {}
            }
        }
    }

    /// Sends one of several packets, as soon as there is room.
    fn send_patiently(&self, packet: &[u8], deadline: MonoTime) -> Result<(), StatusError> {
        loop {
            match seqpacket::send(&self.socket, packet, &[])? {
                SendOutcome::Sent => return Ok(()),
                SendOutcome::Closed => return Err(StatusError::Gone),
                SendOutcome::WouldBlock if mono_now() >= deadline => return Err(StatusError::Silent(self.timeout)),
                SendOutcome::WouldBlock => std::thread::sleep(PAUSE),
            }
        }
    }

    fn send(&self, packet: &[u8]) -> Result<(), StatusError> {
        match seqpacket::send(&self.socket, packet, &[])? {
            SendOutcome::Sent => Ok(()),
            SendOutcome::Closed => Err(StatusError::Gone),
            // One small packet at a time is under way: no room means nobody takes it.
            SendOutcome::WouldBlock => Err(StatusError::Silent(self.timeout)),
        }
    }

    /// The next event, however many other wake-ups come before it.
    fn event(&mut self, deadline: MonoTime) -> Result<Event, StatusError> {
        self.event_beside(deadline).map(|(event, _)| event)
    }

    /// As [`event`](Self::event), with the first descriptor beside it.
    fn event_beside(&mut self, deadline: MonoTime) -> Result<(Event, Option<OwnedFd>), StatusError> {
        loop {
            match seqpacket::recv(&self.socket, &mut self.buffer)? {
                RecvOutcome::Packet(packet) if packet.truncated => {
                    return Err(StatusError::Nonsense("its packet is too large"));
                }
                RecvOutcome::Packet(packet) => {
                    let event = control::decode(&self.buffer[..packet.len])
                        .map_err(|_| StatusError::Nonsense("its packet cannot be decoded"))?;
                    return match event {
                        Event::Closing { reason, .. } => Err(StatusError::Refused { reason }),
                        event => Ok((event, packet.fds.into_iter().next())),
                    };
                }
                RecvOutcome::Closed => return Err(StatusError::Gone),
                RecvOutcome::WouldBlock => {}
            }
            let left = deadline.since(mono_now());
            if left == Nanos::ZERO {
                return Err(StatusError::Silent(self.timeout));
            }
            match self.epoll.wait(&mut [Ready::NONE], Some(left)) {
                Ok(_) => {}
                Err(error) if error.errno == Errno::EINTR => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn why_not(path: &Path, error: PathError) -> StatusError {
    match error {
        PathError::NobodyThere { .. } => StatusError::NobodyThere { path: path.to_owned() },
        PathError::Os { source, .. } if source.errno == Errno::EACCES => {
            StatusError::NoAccess { path: path.to_owned() }
        }
        error => StatusError::Connect(error),
    }
}
