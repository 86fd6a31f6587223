//! A device, and where it says what is done.

use crate::VerbsError;
use crate::abi::{CompChannel, Context, CqHead, DeviceAttr, Pd, WorkDone};
use crate::api::{self, Api};
use crate::cm::{CmEvent, CmEvents, CmId};
use crate::queue::{Batch, Completion};
use insane_sys::{Errno, OsError};
use libc::c_int;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// What a device can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Work requests of one queue.
    pub queue_max: u32,
    /// Entries of one completion queue.
    pub completions_max: u32,
    /// Work requests of one shared receive queue; 0: it has none.
    pub shared_receives_max: u32,
}

/// A device that has an address of this host, and a protection domain on it.
#[derive(Clone, Debug)]
pub struct Device(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    api: &'static Api,
    context: NonNull<Context>,
    pd: NonNull<Pd>,
    limits: Limits,
    /// What is bound to the address keeps the context open, and hears when the device goes.
    _anchor: CmId,
    events: CmEvents,
}

// SAFETY: verbs may be called from any thread, and lock what threads share.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: made in `Device::at`; all that was made of it holds the device, so it is gone.
        unsafe { (self.api.ibv_dealloc_pd)(self.pd.as_ptr()) };
    }
}

impl Device {
    /// The device that has this address.
    ///
    /// # Errors
    /// The libraries or the kernel's part are missing, no device has the address, or it refuses.
    pub fn at(address: SocketAddr) -> Result<Self, VerbsError> {
        let api = api::load()?;
        let events = CmEvents::new()?;
        let anchor = CmId::new(&events, 0)?;
        let mut any_port = address;
        any_port.set_port(0);
        let no_device = |source| VerbsError::NoDevice { address: address.ip(), source };
        anchor.bind(any_port).map_err(no_device)?;
        let context = anchor.context();
        let context = context.ok_or_else(|| no_device(OsError::new("binding to a device", Errno::ENODEV)))?;
        let mut attr = MaybeUninit::<DeviceAttr>::zeroed();
        // SAFETY: the context is open as long as the anchor lives, and the structure has the
        // size that the library fills.
        let answer = unsafe { (api.ibv_query_device)(context.as_ptr(), attr.as_mut_ptr()) };
        if answer != 0 {
            return Err(OsError::new("asking an RDMA device what it can hold", Errno::from_raw(answer)).into());
        }
        // SAFETY: numbers, zero until the library filled them in.
        let attr = unsafe { attr.assume_init() };
        let number = |given: c_int| u32::try_from(given).unwrap_or(0);
        let limits = Limits {
            queue_max: number(attr.max_qp_wr),
            completions_max: number(attr.max_cqe),
            shared_receives_max: if attr.max_srq > 0 { number(attr.max_srq_wr) } else { 0 },
        };
        // SAFETY: as above.
        let pd = unsafe { (api.ibv_alloc_pd)(context.as_ptr()) };
        let pd = NonNull::new(pd).ok_or_else(|| OsError::last("allocating a protection domain"))?;
        Ok(Device(Arc::new(Opened { api, context, pd, limits, _anchor: anchor, events })))
    }

    /// Whether it is still there, and has the address. Takes system calls.
    ///
    /// # Errors
    /// It was removed, or has the address no more: all that was made of it should be let go, for
    /// the kernel may wait for that.
    pub fn check(&self, address: SocketAddr) -> Result<(), VerbsError> {
        let no_device = |source| VerbsError::NoDevice { address: address.ip(), source };
        let gone = |attempted| no_device(OsError::new(attempted, Errno::ENODEV));
        // The only end of a connection there calls nobody.
        if matches!(self.0.events.take(), Some(CmEvent::Ended { .. })) {
            return Err(gone("the device was removed"));
        }
        let events = CmEvents::new()?;
        let probe = CmId::new(&events, 0)?;
        let mut any_port = address;
        any_port.set_port(0);
        probe.bind(any_port).map_err(no_device)?;
        if probe.context() == Some(self.0.context) { Ok(()) } else { Err(gone("another device has it now")) }
    }

    /// What it can hold.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    pub(crate) fn api(&self) -> &'static Api {
        self.0.api
    }

    pub(crate) fn context(&self) -> NonNull<Context> {
        self.0.context
    }

    pub(crate) fn pd(&self) -> NonNull<Pd> {
        self.0.pd
    }
}

/// A descriptor that becomes readable when something was done on an armed queue.
#[derive(Debug)]
pub struct Channel {
    channel: NonNull<CompChannel>,
    device: Device,
}

// SAFETY: as for the device; events are taken under the kernel's lock.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    /// A channel on the device; taking from it does not block.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(device: &Device) -> Result<Self, VerbsError> {
        // SAFETY: the context is open as long as the device is held.
        let channel = unsafe { (device.api().ibv_create_comp_channel)(device.context().as_ptr()) };
        let channel = NonNull::new(channel).ok_or_else(|| OsError::last("creating a completion channel"))?;
        let channel = Channel { channel, device: device.clone() };
        do_not_block(channel.fd(), "preparing a completion channel")?;
        Ok(channel)
    }

    fn fd(&self) -> c_int {
        // SAFETY: the library keeps the structure until it is destroyed.
        unsafe { (*self.channel.as_ptr()).fd }
    }

    /// Takes one event: the number of the queue (that it got in [`Cq::new`]) that is not armed
    /// any more. Costs a system call.
    pub fn take(&self) -> Option<usize> {
        let (mut cq, mut number) = (null_mut(), null_mut());
        // SAFETY: the channel lives; both places take a pointer.
        let answer =
            unsafe { (self.device.api().ibv_get_cq_event)(self.channel.as_ptr(), &raw mut cq, &raw mut number) };
        if answer != 0 {
            return None;
        }
        // SAFETY: the queue of an event that was not acknowledged is not destroyed yet:
        // destroying it waits for that.
        unsafe { (self.device.api().ibv_ack_cq_events)(cq, 1) };
        Some(number.addr())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open until the channel is dropped.
        unsafe { BorrowedFd::borrow_raw(self.fd()) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: made in `new`; queues that use it hold it.
        unsafe { (self.device.api().ibv_destroy_comp_channel)(self.channel.as_ptr()) };
    }
}

pub(crate) fn do_not_block(fd: c_int, attempted: &'static str) -> Result<(), OsError> {
    // SAFETY: changes flags of a descriptor that the caller has open.
    let is_done = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) == 0
    };
    if is_done { Ok(()) } else { Err(OsError::last(attempted)) }
}

/// A completion queue.
#[derive(Debug)]
pub struct Cq {
    cq: NonNull<CqHead>,
    poll: unsafe extern "C" fn(*mut CqHead, c_int, *mut WorkDone) -> c_int,
    notify: unsafe extern "C" fn(*mut CqHead, c_int) -> c_int,
    channel: Option<Arc<Channel>>,
    device: Device,
}

// SAFETY: the driver locks the queue.
unsafe impl Send for Cq {}
// SAFETY: as above.
unsafe impl Sync for Cq {}

impl Cq {
    /// A queue of at least `entries`; its events, if there is a channel, bear `number`.
    ///
    /// # Errors
    /// The device refuses.
    pub fn new(
        device: &Device,
        entries: u32,
        channel: Option<&Arc<Channel>>,
        number: usize,
    ) -> Result<Arc<Self>, VerbsError> {
        // SAFETY: the driver has filled in its functions before the context was handed out.
        let (poll, notify) = unsafe {
            let ops = &raw const (*device.context().as_ptr()).ops;
            ((*ops).poll_cq, (*ops).req_notify_cq)
        };
        let missing = || OsError::new("looking for the driver's functions", Errno::ENOSYS);
        let (poll, notify) = (poll.ok_or_else(missing)?, notify.ok_or_else(missing)?);
        let of_channel = channel.map_or(null_mut(), |channel| channel.channel.as_ptr());
        let entries = c_int::try_from(entries).unwrap_or(c_int::MAX);
        let number = std::ptr::without_provenance_mut(number);
        // SAFETY: context and channel live; the number comes back as it is.
        let cq = unsafe { (device.api().ibv_create_cq)(device.context().as_ptr(), entries, number, of_channel, 0) };
        let cq = NonNull::new(cq).ok_or_else(|| OsError::last("creating a completion queue"))?;
        Ok(Arc::new(Cq { cq, poll, notify, channel: channel.cloned(), device: device.clone() }))
    }

    pub(crate) fn as_ptr(&self) -> *mut CqHead {
        self.cq.as_ptr()
    }

    /// Takes what was done, at most [`Batch::LEN`].
    ///
    /// # Errors
    /// The queue is broken (it overflowed, or the device is gone).
    #[inline]
    pub fn poll(&self) -> Result<Batch, OsError> {
        let mut batch = Batch::empty();
        // SAFETY: the queue lives, and the array has room for as many.
        let count = unsafe { (self.poll)(self.as_ptr(), Batch::LEN as c_int, batch.room()) };
        match usize::try_from(count) {
            Ok(count) => Ok(batch.filled(count)),
            Err(_) => Err(OsError::new("looking at a completion queue", Errno::EIO)),
        }
    }

    /// Takes the first of what was done.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    #[inline]
    pub fn poll_one(&self) -> Result<Option<Completion>, OsError> {
        let mut done = WorkDone::default();
        // SAFETY: the queue lives, and there is room for one.
        match unsafe { (self.poll)(self.as_ptr(), 1, &raw mut done) } {
            0 => Ok(None),
            1.. => Ok(Some(Completion::of(&done))),
            _ => Err(OsError::new("looking at a completion queue", Errno::EIO)),
        }
    }

    /// Asks for an event when something is done from now on. What was done before, and not
    /// taken, brings none: look once more afterwards.
    ///
    /// # Errors
    /// The device refuses.
    pub fn arm(&self) -> Result<(), OsError> {
        // SAFETY: the queue lives.
        let answer = unsafe { (self.notify)(self.as_ptr(), 0) };
        if answer == 0 { Ok(()) } else { Err(OsError::new("arming a completion queue", Errno::from_raw(answer))) }
    }
}

impl Drop for Cq {
    fn drop(&mut self) {
        // SAFETY: made in `new`; queue pairs that use it hold it.
        unsafe { (self.device.api().ibv_destroy_cq)(self.as_ptr()) };
        drop(self.channel.take());
    }
}
