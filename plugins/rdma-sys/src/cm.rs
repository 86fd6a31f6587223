//! Connections: who is called, who calls, and what becomes of it.

use crate::VerbsError;
use crate::abi::{self, CmChannel, CmEventHead, CmIdHead, ConnParam, Context, QpCap, QpInit};
use crate::api::{self, Api};
use crate::device::{Cq, Device, do_not_block};
use crate::memory::Inbox;
use crate::queue::{Qp, QpOptions};
use insane_sys::{Errno, OsError};
use libc::{c_int, c_void, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// What the two sides can tell each other while they connect, bytes: as much as every kind of
/// network carries with a call.
pub const PRIVATE_BYTES: usize = 32;

/// A call with its private words.
type Private = [u8; PRIVATE_BYTES];

/// Where events of connections come in.
#[derive(Clone, Debug)]
pub struct CmEvents(Arc<Events>);

#[derive(Debug)]
struct Events {
    api: &'static Api,
    channel: NonNull<CmChannel>,
}

// SAFETY: events are taken under the kernel's lock, and each belongs to who took it.
unsafe impl Send for Events {}
// SAFETY: as above.
unsafe impl Sync for Events {}

impl Drop for Events {
    fn drop(&mut self) {
        // SAFETY: made in `CmEvents::new`; identifiers hold it, so all are gone.
        unsafe { (self.api.rdma_destroy_event_channel)(self.channel.as_ptr()) };
    }
}

impl CmEvents {
    /// A channel; taking from it does not block.
    ///
    /// # Errors
    /// The libraries or the kernel's part are missing, or this process has no right to it.
    pub fn new() -> Result<Self, VerbsError> {
        let api = api::load()?;
        // SAFETY: takes nothing.
        let channel = unsafe { (api.rdma_create_event_channel)() };
        let channel = NonNull::new(channel)
            .ok_or_else(|| VerbsError::NoKernel { source: OsError::last("opening a channel for connections") })?;
        let events = CmEvents(Arc::new(Events { api, channel }));
        do_not_block(events.fd(), "preparing a channel for connections")?;
        Ok(events)
    }

    fn fd(&self) -> c_int {
        // SAFETY: the library keeps the structure until it is destroyed.
        unsafe { (*self.0.channel.as_ptr()).fd }
    }

    /// The next event, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<CmEvent> {
        let mut event: *mut CmEventHead = null_mut();
        // SAFETY: the channel lives, and the place takes a pointer.
        let answer = unsafe { (self.0.api.rdma_get_cm_event)(self.0.channel.as_ptr(), &raw mut event) };
        let event = NonNull::new(event).filter(|_| answer == 0)?;
        // SAFETY: the event is ours until it is acknowledged; its identifier lives as long as
        // an event of it is not.
        let (known, private) = unsafe { read_event(event) };
        // SAFETY: taken above, and not used afterwards.
        unsafe { (self.0.api.rdma_ack_cm_event)(event.as_ptr()) };
        Some(self.event(known, private))
    }

    fn event(&self, known: Known, private: Private) -> CmEvent {
        let Known { event, id, tag, status, from } = known;
        match event {
            abi::EVENT_ADDR_RESOLVED => CmEvent::AddressResolved { tag },
            abi::EVENT_ROUTE_RESOLVED => CmEvent::RouteResolved { tag },
            abi::EVENT_CONNECT_REQUEST => {
                // SAFETY: the library made this identifier for us: nobody else destroys it.
                let id = CmId { api: self.0.api, id, _events: self.clone() };
                match from {
                    Some(from) => CmEvent::Call(Arrived { id, from, private }),
                    None => CmEvent::Other,
                }
            }
            abi::EVENT_ESTABLISHED => CmEvent::Established { tag, private },
            abi::EVENT_DISCONNECTED | abi::EVENT_DEVICE_REMOVAL => CmEvent::Ended { tag },
            abi::EVENT_ADDR_ERROR
            | abi::EVENT_ROUTE_ERROR
            | abi::EVENT_CONNECT_ERROR
            | abi::EVENT_UNREACHABLE
            | abi::EVENT_REJECTED => CmEvent::Failed { tag, status },
            _ => CmEvent::Other,
        }
    }
}

/// What is read of an event before it is acknowledged.
struct Known {
    event: u32,
    id: NonNull<CmIdHead>,
    tag: u64,
    status: c_int,
    from: Option<SocketAddr>,
}

/// # Safety
/// The event was taken and not acknowledged.
unsafe fn read_event(event: NonNull<CmEventHead>) -> (Known, Private) {
    let mut private = [0; PRIVATE_BYTES];
    // SAFETY: by the contract; the library filled in the structure, and the private bytes are
    // part of it.
    unsafe {
        let event = event.as_ptr();
        let has_private = matches!((*event).event, abi::EVENT_CONNECT_REQUEST | abi::EVENT_ESTABLISHED);
        let (start, len) = ((*event).conn.private_data.cast::<u8>(), (*event).conn.private_data_len);
        if has_private && !start.is_null() {
            let len = usize::from(len).min(PRIVATE_BYTES);
            std::ptr::copy_nonoverlapping(start, private.as_mut_ptr(), len);
        }
        let id = NonNull::new_unchecked((*event).id);
        let known = Known {
            event: (*event).event,
            id,
            tag: (*id.as_ptr()).context.addr() as u64,
            status: (*event).status,
            from: read_address(&raw const (*id.as_ptr()).dst_addr),
        };
        (known, private)
    }
}

impl AsFd for CmEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open until the channel is dropped.
        unsafe { BorrowedFd::borrow_raw(self.fd()) }
    }
}

/// Something about connections. The tag is that of the identifier.
#[derive(Debug)]
pub enum CmEvent {
    /// The way to the address's device is known.
    AddressResolved {
        /// Whose.
        tag: u64,
    },
    /// The way is.
    RouteResolved {
        /// Whose.
        tag: u64,
    },
    /// Somebody calls.
    Call(Arrived),
    /// The connection stands. For who called, with the answer's private words.
    Established {
        /// Whose.
        tag: u64,
        /// What the other side said.
        private: [u8; PRIVATE_BYTES],
    },
    /// The attempt failed.
    Failed {
        /// Whose.
        tag: u64,
        /// The library's reason.
        status: i32,
    },
    /// The connection is over.
    Ended {
        /// Whose.
        tag: u64,
    },
    /// Nothing that matters.
    Other,
}

/// A call that was not answered yet.
#[derive(Debug)]
pub struct Arrived {
    id: CmId,
    /// The address that it comes from.
    pub from: SocketAddr,
    /// What it says.
    pub private: [u8; PRIVATE_BYTES],
}

impl Arrived {
    /// Gives the connection its queues. It is answered by [`Qp::accept`].
    ///
    /// # Errors
    /// It came to another device, or the device refuses; the call is refused, too.
    pub fn queues(self, tag: u64, device: &Device, cqs: [Arc<Cq>; 2], with: &Connecting) -> Result<Arc<Qp>, OsError> {
        self.id.set_tag(tag);
        self.id.queues(device, cqs, with)
    }

    /// As [`CmId::set_options`].
    pub fn set_options(&self, dscp: Option<u8>, ack_timeout: u8) {
        self.id.set_options(dscp, ack_timeout);
    }

    /// Refuses it.
    pub fn reject(self) {
        // SAFETY: the identifier lives and is that of a call. If it is refused, too, the call
        // is over already.
        unsafe { (self.id.api.rdma_reject)(self.id.as_ptr(), std::ptr::null(), 0) };
    }
}

/// What queue pairs of new connections share.
#[derive(Clone, Debug)]
pub struct Connecting {
    shared: Arc<crate::memory::SharedQueue>,
    options: QpOptions,
}

impl Connecting {
    /// Connections that receive into `inbox`.
    #[must_use]
    pub fn into(inbox: &Inbox, options: QpOptions) -> Self {
        Connecting { shared: Arc::clone(inbox.shared()), options }
    }
}

/// An end of a connection that may come to be.
#[derive(Debug)]
pub struct CmId {
    api: &'static Api,
    id: NonNull<CmIdHead>,
    /// Held so that it goes later.
    _events: CmEvents,
}

// SAFETY: librdmacm may be called from any thread, and locks what threads share.
unsafe impl Send for CmId {}
// SAFETY: as above; what is written through `&self` (the tag) is only by who owns it alone.
unsafe impl Sync for CmId {}

impl Drop for CmId {
    fn drop(&mut self) {
        // SAFETY: ours; its queue pair, if it had one, was destroyed before (`Qp`), and every
        // event that was taken is acknowledged.
        unsafe { (self.api.rdma_destroy_id)(self.id.as_ptr()) };
    }
}

impl CmId {
    /// An identifier whose events bear `tag`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(events: &CmEvents, tag: u64) -> Result<Self, VerbsError> {
        let api = events.0.api;
        let mut id = null_mut();
        let context = std::ptr::without_provenance_mut(tag as usize);
        // SAFETY: the channel lives as long as the identifier holds it.
        let answer =
            unsafe { (api.rdma_create_id)(events.0.channel.as_ptr(), &raw mut id, context, abi::PORT_SPACE_TCP) };
        match NonNull::new(id) {
            Some(id) if answer == 0 => Ok(CmId { api, id, _events: events.clone() }),
            _ => Err(VerbsError::NoKernel { source: OsError::last("creating an end of a connection") }),
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut CmIdHead {
        self.id.as_ptr()
    }

    /// The tag that its events bear.
    #[must_use]
    pub fn tag(&self) -> u64 {
        // SAFETY: the structure lives as long as the identifier.
        unsafe { (*self.as_ptr()).context.addr() as u64 }
    }

    fn set_tag(&self, tag: u64) {
        // SAFETY: as above; called before anybody else knows the identifier.
        unsafe { (*self.as_ptr()).context = std::ptr::without_provenance_mut(tag as usize) };
    }

    pub(crate) fn context(&self) -> Option<NonNull<Context>> {
        // SAFETY: the structure lives as long as the identifier.
        NonNull::new(unsafe { (*self.as_ptr()).verbs })
    }

    /// Binds it to an address of this host.
    ///
    /// # Errors
    /// No device has the address, or the port is taken.
    pub fn bind(&self, address: SocketAddr) -> Result<(), OsError> {
        let mut storage = write_address(address);
        // SAFETY: the identifier lives, and the address is one.
        let answer = unsafe { (self.api.rdma_bind_addr)(self.as_ptr(), (&raw mut storage).cast()) };
        checked(answer, "binding to an address of an RDMA device")
    }

    /// The port that it is bound to.
    #[must_use]
    pub fn port(&self) -> u16 {
        // SAFETY: the identifier lives.
        u16::from_be(unsafe { (self.api.rdma_get_src_port)(self.as_ptr()) })
    }

    /// Lets others call.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn listen(&self, backlog: u16) -> Result<(), OsError> {
        // SAFETY: the identifier lives.
        let answer = unsafe { (self.api.rdma_listen)(self.as_ptr(), c_int::from(backlog)) };
        checked(answer, "listening for RDMA connections")
    }

    /// Marks the packets of its connection with a code point (0 to 63), as far as the device
    /// can, and says after how long an unanswered packet is sent again: 4.096 us times two to
    /// the power of `ack_timeout`. A library that knows no such option keeps its own choice.
    pub fn set_options(&self, dscp: Option<u8>, ack_timeout: u8) {
        if let Some(dscp) = dscp {
            self.set_option(abi::OPTION_ID_TOS, dscp << 2);
        }
        self.set_option(abi::OPTION_ID_ACK_TIMEOUT, ack_timeout);
    }

    fn set_option(&self, option: c_int, mut value: u8) {
        // SAFETY: the identifier lives, and both options are one byte.
        unsafe {
            (self.api.rdma_set_option)(self.as_ptr(), abi::OPTION_ID, option, (&raw mut value).cast::<c_void>(), 1)
        };
    }

    /// Lets its address be bound again at once after it was used.
    pub fn reuse_address(&self) {
        let mut value: c_int = 1;
        // SAFETY: the identifier lives, and the option is a number.
        unsafe {
            (self.api.rdma_set_option)(
                self.as_ptr(),
                abi::OPTION_ID,
                abi::OPTION_ID_REUSEADDR,
                (&raw mut value).cast::<c_void>(),
                size_of::<c_int>(),
            )
        };
    }

    /// Begins to look for the way: [`CmEvent::AddressResolved`] tells.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn resolve_address(&self, from: SocketAddr, to: SocketAddr, limit_ms: u32) -> Result<(), OsError> {
        let (mut from, mut to) = (write_address(from), write_address(to));
        let limit = c_int::try_from(limit_ms).unwrap_or(c_int::MAX);
        // SAFETY: the identifier lives, and both are addresses.
        let answer = unsafe {
            (self.api.rdma_resolve_addr)(
                self.as_ptr(),
                (&raw mut from).cast::<sockaddr>(),
                (&raw mut to).cast::<sockaddr>(),
                limit,
            )
        };
        checked(answer, "looking for the way to an RDMA address")
    }

    /// Goes on with that: [`CmEvent::RouteResolved`] tells.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn resolve_route(&self, limit_ms: u32) -> Result<(), OsError> {
        let limit = c_int::try_from(limit_ms).unwrap_or(c_int::MAX);
        // SAFETY: the identifier lives.
        checked(unsafe { (self.api.rdma_resolve_route)(self.as_ptr(), limit) }, "looking for the way over RDMA")
    }

    /// Gives the connection its queues; `cqs` tell of what was sent and of what came.
    ///
    /// # Errors
    /// The way leads over another device, or the device refuses. The identifier is gone then.
    pub fn queues(self, device: &Device, cqs: [Arc<Cq>; 2], with: &Connecting) -> Result<Arc<Qp>, OsError> {
        if self.context() != Some(device.context()) {
            return Err(OsError::new("making queues on another device than the link's", Errno::EXDEV));
        }
        let cap = QpCap {
            max_send_wr: with.options.sends_max,
            max_recv_wr: 0,
            max_send_sge: 1,
            max_recv_sge: 0,
            max_inline_data: with.options.inline_bytes,
        };
        let mut init = QpInit {
            qp_context: null_mut(),
            send_cq: cqs[0].as_ptr(),
            recv_cq: cqs[1].as_ptr(),
            srq: with.shared.as_ptr(),
            cap,
            qp_type: abi::QP_RELIABLE,
            sq_sig_all: 0,
        };
        // SAFETY: all of them live, and are of one device.
        let answer = unsafe { (self.api.rdma_create_qp)(self.as_ptr(), device.pd().as_ptr(), &raw mut init) };
        checked(answer, "creating a queue pair")?;
        // SAFETY: the library has put it there.
        let qp = unsafe { (*self.as_ptr()).qp };
        let Some(qp) = NonNull::new(qp) else { return Err(OsError::new("creating a queue pair", Errno::ENOMEM)) };
        Qp::of(self, qp, init.cap.max_inline_data, cqs, Arc::clone(&with.shared), device.clone())
    }
}

impl Qp {
    /// Calls the other side, with private words: [`CmEvent::Established`] or
    /// [`CmEvent::Failed`] tells.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn connect(&self, private: &[u8]) -> Result<(), OsError> {
        let mut words = param(private);
        // SAFETY: the identifier lives; the words are read before it returns.
        let answer = unsafe { (self.id.api.rdma_connect)(self.id.as_ptr(), &raw mut words) };
        checked(answer, "calling over RDMA")
    }

    /// Answers a call, with private words.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn accept(&self, private: &[u8]) -> Result<(), OsError> {
        let mut words = param(private);
        // SAFETY: as above.
        let answer = unsafe { (self.id.api.rdma_accept)(self.id.as_ptr(), &raw mut words) };
        checked(answer, "answering a call over RDMA")
    }
}

/// Seven repetitions of what is not acknowledged, and six where the receiver has no buffer,
/// which credits exclude; nothing is read or written from afar.
fn param(private: &[u8]) -> ConnParam {
    let len = private.len().min(PRIVATE_BYTES) as u8;
    ConnParam {
        private_data: private.as_ptr().cast(),
        private_data_len: len,
        responder_resources: 1,
        initiator_depth: 1,
        flow_control: 1,
        retry_count: 7,
        rnr_retry_count: 6,
        srq: 1,
        qp_num: 0,
    }
}

fn checked(answer: c_int, attempted: &'static str) -> Result<(), OsError> {
    if answer == 0 { Ok(()) } else { Err(OsError::last(attempted)) }
}

fn write_address(address: SocketAddr) -> sockaddr_storage {
    // SAFETY: all zero is an address of no family.
    let mut storage: sockaddr_storage = unsafe { std::mem::zeroed() };
    let place = &raw mut storage;
    match address {
        SocketAddr::V4(v4) => {
            let sin = sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: a storage has room and alignment for every kind of address.
            unsafe { place.cast::<sockaddr_in>().write(sin) };
        }
        SocketAddr::V6(v6) => {
            let sin6 = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { place.cast::<sockaddr_in6>().write(sin6) };
        }
    }
    storage
}

/// # Safety
/// `storage` may be read, and holds an address or zeros.
unsafe fn read_address(storage: *const sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: by the contract; the family says which kind of address it is.
    unsafe {
        match c_int::from((*storage).ss_family) {
            libc::AF_INET => {
                let sin = storage.cast::<sockaddr_in>();
                let ip = Ipv4Addr::from(u32::from_be((*sin).sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be((*sin).sin_port)).into())
            }
            libc::AF_INET6 => {
                let sin6 = storage.cast::<sockaddr_in6>();
                let ip = Ipv6Addr::from((*sin6).sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be((*sin6).sin6_port), 0, (*sin6).sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["10.1.2.3:7400", "[fd00::1:2]:65535", "[fe80::1%3]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let storage = write_address(address);
            // SAFETY: just written.
            assert_eq!(unsafe { read_address(&raw const storage) }, Some(address));
        }
    }
}
