//! Raw verbs: one reliable connection, through the same binding as ours.
//!
//! What a competent engineer would write for one conversation: memory that is registered once,
//! small messages inline, a completion asked for every so many sends, receive buffers posted
//! again as soon as they are read, a grant every half window where messages flow, and nothing
//! but looking (no interrupts).

use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload;
use crate::ours::fault;
use insane_rdma_sys::{
    CmEvent, CmEvents, CmId, Connecting, Cq, Device, Inbox, Notice, Outbox, Qp, QpOptions, VerbsError,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages that may be under way.
const WINDOW: u32 = 16;
/// A completion is asked for so often; a window holds several.
const NOTICE_EVERY: u32 = 4;
/// Receive buffers: a window, and two grants.
const RECEIVES: u32 = WINDOW + 2;
/// Bytes of a message that only grants; no payload is as short.
const GRANT_BYTES: usize = 4;
/// What goes inline, bytes: as much as the rdma plugin asks for.
const INLINE_BYTES: u32 = 128;
const WAY_MS: u32 = 2_000;
const CONNECT_BOUND: Duration = Duration::from_secs(20);

/// One end of a conversation by messages of one size.
pub struct VerbsEnd {
    qp: Arc<Qp>,
    sent: Arc<Cq>,
    came: Arc<Cq>,
    inbox: Inbox,
    outbox: Outbox,
    size: usize,
    is_flow: bool,
    /// Messages posted, those that the device is done with, and those that may go in all.
    posted: u32,
    done: u32,
    granted: u32,
    /// Messages taken since the last grant.
    taken: u32,
}

/// One side before it is connected.
struct Side {
    device: Device,
    sent: Arc<Cq>,
    came: Arc<Cq>,
    inbox: Inbox,
    events: CmEvents,
    connecting: Connecting,
}

impl Side {
    fn open(at: IpAddr, size: usize) -> Result<Self, Fault> {
        let device = Device::at((at, 0).into()).map_err(|error| match error {
            VerbsError::Os(_) => Fault::Party(error.to_string()),
            missing => Fault::Unavailable(missing.to_string()),
        })?;
        let party = fault::<VerbsError>;
        let queue = || Cq::new(&device, 4 * RECEIVES, None, 0).map_err(party("a completion queue"));
        let (sent, came) = (queue()?, queue()?);
        let bytes = size.next_multiple_of(64);
        let mut inbox = Inbox::new(&device, bytes, RECEIVES, 1).map_err(party("a receive queue"))?;
        let region = Inbox::region(&device, bytes, RECEIVES).map_err(party("memory to receive into"))?;
        inbox.add(region).map_err(|_| Fault::Party("receive buffers that do not fit".into()))?;
        let events = CmEvents::new().map_err(party("events of connections"))?;
        // A window and the grants of another.
        let options = QpOptions { sends_max: 2 * WINDOW, inline_bytes: INLINE_BYTES };
        let connecting = Connecting::into(&inbox, options);
        Ok(Side { device, sent, came, inbox, events, connecting })
    }

    fn cqs(&self) -> [Arc<Cq>; 2] {
        [Arc::clone(&self.sent), Arc::clone(&self.came)]
    }

    fn end(self, qp: Arc<Qp>, size: usize, is_flow: bool) -> Result<VerbsEnd, Fault> {
        let bytes = size.next_multiple_of(64) * WINDOW as usize + 64;
        let outbox = Outbox::new(&self.device, bytes).map_err(fault("memory to send from"))?;
        let Side { sent, came, inbox, .. } = self;
        Ok(VerbsEnd { qp, sent, came, inbox, outbox, size, is_flow, posted: 0, done: 0, granted: WINDOW, taken: 0 })
    }
}

/// Two ends on one device, connected.
///
/// # Errors
/// `Unavailable` without the libraries or the device.
pub fn pair(at: IpAddr, size: usize, is_flow: bool) -> Result<(VerbsEnd, VerbsEnd), Fault> {
    let (calling, answering) = (Side::open(at, size)?, Side::open(at, size)?);
    let listener = CmId::new(&answering.events, 1).map_err(fault("a listener"))?;
    listener.bind((at, 0).into()).map_err(fault("bind a listener"))?;
    listener.listen(1).map_err(fault("listen"))?;
    let to = SocketAddr::new(at, listener.port());
    let id = CmId::new(&calling.events, 2).map_err(fault("an end to call from"))?;
    id.resolve_address((at, 0).into(), to, WAY_MS).map_err(fault("look for the way"))?;
    let (caller, answerer) = connect(&calling, &answering, id)?;
    Ok((calling.end(caller, size, is_flow)?, answering.end(answerer, size, is_flow)?))
}

/// Carries out what events of both sides ask for, until both stand.
fn connect(calling: &Side, answering: &Side, id: CmId) -> Result<(Arc<Qp>, Arc<Qp>), Fault> {
    let (mut seeking, mut caller, mut answerer) = (Some(id), None, None);
    let mut standing = 0;
    let end = Instant::now() + CONNECT_BOUND;
    while standing < 2 {
        if Instant::now() > end {
            return Err(Fault::Party("two raw ends do not connect".into()));
        }
        match calling.events.take() {
            Some(CmEvent::AddressResolved { .. }) => {
                seeking.as_ref().map(|id| id.resolve_route(WAY_MS)).transpose().map_err(fault("look for the way"))?;
            }
            Some(CmEvent::RouteResolved { .. }) => {
                let Some(id) = seeking.take() else { continue };
                let qp = id.queues(&calling.device, calling.cqs(), &calling.connecting).map_err(fault("queues"))?;
                qp.connect(b"raw").map_err(fault("call"))?;
                caller = Some(qp);
            }
            Some(CmEvent::Established { .. }) => standing += 1,
            Some(CmEvent::Failed { .. } | CmEvent::Ended { .. }) => {
                return Err(Fault::Party("a raw call is not answered".into()));
            }
            Some(CmEvent::Call(_) | CmEvent::Other) | None => std::thread::sleep(Duration::from_millis(1)),
        }
        match answering.events.take() {
            Some(CmEvent::Call(arrived)) => {
                let queues = arrived.queues(3, &answering.device, answering.cqs(), &answering.connecting);
                let qp = queues.map_err(fault("queues"))?;
                qp.accept(b"raw").map_err(fault("answer"))?;
                answerer = Some(qp);
            }
            Some(CmEvent::Established { .. }) => standing += 1,
            _ => {}
        }
    }
    caller.zip(answerer).ok_or_else(|| Fault::Party("connected without a connection".into()))
}

impl VerbsEnd {
    /// Learns what the device is done with.
    fn reap(&mut self) -> Result<(), Fault> {
        for completion in self.sent.poll().map_err(fault("look at what was sent"))? {
            if !completion.is_good() {
                return Err(Fault::Party(format!("a send failed with status {}", completion.status())));
            }
            self.done = self.done.wrapping_add(completion.mark().unwrap_or(0));
        }
        Ok(())
    }

    /// What came next. A grant is none, and is taken.
    fn look(&mut self) -> Result<Option<u64>, Fault> {
        // One at a time: who asks for a message wants the first.
        let Some(completion) = self.came.poll_one().map_err(fault("look at what came"))? else { return Ok(None) };
        if !completion.is_good() {
            return Err(Fault::Party(format!("a receive failed with status {}", completion.status())));
        }
        let len = completion.len();
        let buffer = self.inbox.buffer(completion).ok_or_else(|| Fault::Party("a strange buffer".into()))?;
        let found = (len != GRANT_BYTES).then(|| payload::read(self.inbox.bytes(&buffer, len))).transpose();
        self.inbox.give_back(buffer).map_err(fault("post a buffer again"))?;
        if len == GRANT_BYTES {
            self.granted = self.granted.wrapping_add(WINDOW / 2);
        }
        found
    }

    fn grant(&mut self) -> Result<(), Fault> {
        self.taken += 1;
        if self.is_flow && self.taken == WINDOW / 2 {
            self.taken = 0;
            let at = self.size.next_multiple_of(64) * WINDOW as usize;
            let sent = self.qp.post(&self.outbox, at, GRANT_BYTES, 0, Notice::Wanted);
            sent.map_err(fault("grant"))?;
            self.reap()?;
        }
        Ok(())
    }
}

impl End for VerbsEnd {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        if self.posted.wrapping_sub(self.done) > WINDOW - NOTICE_EVERY {
            self.reap()?;
        }
        if self.is_flow && self.posted == self.granted {
            // Nothing but grants comes here.
            self.look()?;
        }
        let is_full = self.posted.wrapping_sub(self.done) >= WINDOW || self.is_flow && self.posted == self.granted;
        if is_full {
            return Ok(false);
        }
        let at = (self.posted % WINDOW) as usize * self.size.next_multiple_of(64);
        payload::write(&mut self.outbox.bytes()[at..at + self.size], number);
        self.posted = self.posted.wrapping_add(1);
        let notice = if self.posted.is_multiple_of(NOTICE_EVERY) { Notice::Wanted } else { Notice::None };
        self.qp.post(&self.outbox, at, self.size, NOTICE_EVERY, notice).map_err(fault("send"))?;
        Ok(true)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        let found = self.look()?;
        if found.is_some() {
            self.grant()?;
        }
        Ok(found)
    }
}
