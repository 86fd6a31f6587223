//! One port: a device that was opened, its mbufs, and the frames in them.

use crate::abi::{self, RawCounts, RawFrame, RawInfo, RawOptions};
use crate::eal::{Eal, PortPointer, control, quoted};
use insane_sys::Errno;
use std::ffi::{CStr, CString};

/// Most frames that one call of the driver moves.
pub const BURST: usize = abi::BURST;
/// Frames that are taken from, or given back to, the port's memory at once.
const BATCH: usize = 32;

/// How a port is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortOptions {
    /// `net_af_packet0,iface=eth0`, or a PCI address.
    pub device: String,
    /// Largest IP packet to be carried, bytes.
    pub packet_bytes: u32,
    /// Wanted length of the device's rings, frames.
    pub ring_frames: u32,
    /// Frames that the port has memory for.
    pub pool_frames: u32,
    /// Whether frames for hardware addresses of others are heard.
    pub is_promiscuous: bool,
}

/// What a port is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortInfo {
    /// Largest IP packet that the device carries, bytes.
    pub packet_bytes_max: u32,
    /// Memory of its mbufs, bytes.
    pub pool_bytes: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// It is not on a PCI bus.
    pub is_vdev: bool,
    /// It has a carrier.
    pub is_up: bool,
    /// Name of its driver: `net_af_packet`.
    pub driver: String,
}

/// What the device counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Frames that it took.
    pub sent: u64,
    /// Frames that its driver threw away.
    pub send_errors: u64,
    /// Frames that came.
    pub received: u64,
    /// Frames that came and found no room.
    pub missed: u64,
    /// Frames that came damaged.
    pub receive_errors: u64,
    /// Frames for which the port had no memory.
    pub no_memory: u64,
    /// Frames in several pieces, which were thrown away.
    pub chained: u64,
}

/// Why a port does not open.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{stage}: {errno}{}", quoted(.said))]
pub struct PortError {
    /// What was attempted.
    pub stage: String,
    /// What the driver returned.
    pub errno: Errno,
    /// What DPDK had to say.
    pub said: String,
    /// Where packets of the size asked for are too large for the device: the largest, bytes.
    pub packet_bytes_max: Option<u32>,
}

/// One frame of a port. Whoever has it owns it; one that is dropped, and neither sent nor
/// released, is lost to its port for ever.
#[repr(transparent)]
#[derive(Debug)]
#[must_use]
pub struct Frame(RawFrame);

// SAFETY: the memory behind it belongs to no thread, and to this frame alone.
unsafe impl Send for Frame {}

impl Frame {
    /// Bytes of it.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len as usize
    }

    /// There is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// How long it is when it is sent.
    ///
    /// # Panics
    /// There is no room for that.
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.0.room as usize, "a frame of {len} bytes in room for {}", self.0.room);
        self.0.len = len as u32;
    }
}

/// Some frames that wait for a call of the shim.
#[derive(Debug)]
struct Batch {
    frames: [RawFrame; BURST],
    first: usize,
    end: usize,
}

// SAFETY: as for `Frame`.
unsafe impl Send for Batch {}

impl Batch {
    const fn new() -> Self {
        Batch { frames: [const { RawFrame::NONE }; BURST], first: 0, end: 0 }
    }

    #[inline]
    fn next(&mut self) -> Option<Frame> {
        if self.first == self.end {
            return None;
        }
        self.first += 1;
        Some(Frame(std::mem::replace(&mut self.frames[self.first - 1], RawFrame::NONE)))
    }
}

/// See the module's documentation. Its device is given back when it is dropped.
#[derive(Debug)]
pub struct Port {
    eal: Eal,
    port: PortPointer,
    number: u64,
    /// Came, and not handed out.
    came: Batch,
    /// Empty, and not handed out.
    ready: Batch,
    /// Not needed any more.
    done: Batch,
}

impl Port {
    /// Opens a device, in the network namespace of the calling thread. Takes milliseconds.
    ///
    /// # Errors
    /// The device is not to be had, or not like that.
    pub fn open(eal: Eal, options: &PortOptions) -> Result<(Port, PortInfo), PortError> {
        let device = CString::new(options.device.as_str()).map_err(|_| PortError {
            stage: "reading the device's name".to_owned(),
            errno: Errno::EINVAL,
            said: String::new(),
            packet_bytes_max: None,
        })?;
        let raw = RawOptions {
            device: device.as_ptr(),
            packet_bytes: options.packet_bytes,
            ring_frames: options.ring_frames,
            pool_frames: options.pool_frames,
            promiscuous: options.is_promiscuous.into(),
        };
        let (mut port, mut info, mut stage) = (std::ptr::null_mut(), RawInfo::default(), std::ptr::null());
        let _control = control();
        // What was said before is of no interest.
        let _ = eal.reason();
        // SAFETY: all four live during the call, and C keeps none of them.
        let result = unsafe { (eal.functions().open)(&raw const raw, &raw mut port, &raw mut info, &raw mut stage) };
        if result != 0 || port.is_null() {
            // SAFETY: it names what failed, by a text that lives as long as the library.
            let stage = if stage.is_null() { "opening" } else { &unsafe { CStr::from_ptr(stage) }.to_string_lossy() };
            let errno = Errno::from_raw(-result);
            let packet_bytes_max = (errno == Errno::EMSGSIZE && info.packet_bytes_max < options.packet_bytes)
                .then_some(info.packet_bytes_max);
            return Err(PortError { stage: stage.to_owned(), errno, said: eal.reason(), packet_bytes_max });
        }
        let port = Port {
            eal,
            port: PortPointer(port),
            number: info.number,
            came: Batch::new(),
            ready: Batch::new(),
            done: Batch::new(),
        };
        let name = info.driver.split(|byte| *byte == 0).next().unwrap_or_default();
        let info = PortInfo {
            packet_bytes_max: info.packet_bytes_max,
            pool_bytes: info.pool_bytes,
            mac: info.mac,
            is_vdev: info.is_vdev != 0,
            is_up: info.link_up != 0,
            driver: String::from_utf8_lossy(name).into_owned(),
        };
        Ok((port, info))
    }

    /// The next frame that came. Asks the driver when all that came before was handed out.
    #[inline]
    pub fn receive(&mut self) -> Option<Frame> {
        if self.came.first == self.came.end {
            // SAFETY: there is room for as many as are asked for, and nobody else uses the port.
            let count =
                unsafe { (self.eal.functions().receive)(self.port.0, self.came.frames.as_mut_ptr(), BATCH as u32) };
            (self.came.first, self.came.end) = (0, (count as usize).min(BATCH));
        }
        self.came.next()
    }

    /// An empty frame. `None`: the port has none left.
    #[inline]
    pub fn reserve(&mut self) -> Option<Frame> {
        if self.ready.first == self.ready.end {
            // What was released may be all there is.
            if self.done.end > 0 {
                self.give_back();
            }
            // SAFETY: as above.
            let count =
                unsafe { (self.eal.functions().reserve)(self.port.0, self.ready.frames.as_mut_ptr(), BATCH as u32) };
            (self.ready.first, self.ready.end) = (0, (count as usize).min(BATCH));
        }
        self.ready.next()
    }

    /// The bytes of a frame that came.
    ///
    /// # Panics
    /// It is another port's.
    #[inline]
    pub fn bytes(&mut self, frame: &Frame) -> &mut [u8] {
        self.check(frame);
        // SAFETY: the frame owns the memory (the driver has given it away, and `&mut self`
        // keeps from another slice of this port), which was mapped as zeros and lives while
        // the port does.
        unsafe { std::slice::from_raw_parts_mut(frame.0.bytes, frame.0.len as usize) }
    }

    /// All the room of a frame.
    ///
    /// # Panics
    /// It is another port's.
    #[inline]
    pub fn room(&mut self, frame: &Frame) -> &mut [u8] {
        self.check(frame);
        // SAFETY: as above; C says how much room there is behind its first byte.
        unsafe { std::slice::from_raw_parts_mut(frame.0.bytes, frame.0.room as usize) }
    }

    /// Hands the first of `frames` to the device, as many as it takes and at most [`BURST`];
    /// those are no longer in `frames` then. Returns how many.
    ///
    /// # Panics
    /// One is another port's.
    #[inline]
    pub fn send(&mut self, frames: &mut Vec<Frame>) -> usize {
        let offered = frames.len().min(BURST);
        for frame in &frames[..offered] {
            self.check(frame);
        }
        // SAFETY: a `Frame` is a `RawFrame`; there are as many as are offered, of this port and
        // owned by the caller.
        let sent = unsafe { (self.eal.functions().send)(self.port.0, frames.as_ptr().cast(), offered as u32) };
        let sent = (sent as usize).min(offered);
        frames.drain(..sent);
        sent
    }

    /// Takes a frame back.
    ///
    /// # Panics
    /// It is another port's.
    #[inline]
    pub fn release(&mut self, frame: Frame) {
        self.check(&frame);
        self.done.frames[self.done.end] = frame.0;
        self.done.end += 1;
        if self.done.end == BATCH {
            self.give_back();
        }
    }

    /// Whether the device says that it has a carrier. Does not wait.
    ///
    /// # Errors
    /// It cannot say.
    pub fn is_up(&mut self) -> Result<bool, Errno> {
        // SAFETY: the port is open, and nobody else uses it.
        match unsafe { (self.eal.functions().link_up)(self.port.0) } {
            failed if failed < 0 => Err(Errno::from_raw(-failed)),
            up => Ok(up > 0),
        }
    }

    /// What the device counted so far; zeros if it cannot say.
    pub fn counts(&mut self) -> Counts {
        let mut raw = RawCounts::default();
        // SAFETY: the counts live during the call.
        if unsafe { (self.eal.functions().counts)(self.port.0, &raw mut raw) } != 0 {
            return Counts::default();
        }
        Counts {
            sent: raw.sent,
            send_errors: raw.send_errors,
            received: raw.received,
            missed: raw.missed,
            receive_errors: raw.receive_errors,
            no_memory: raw.no_memory,
            chained: raw.chained,
        }
    }

    #[inline]
    fn check(&self, frame: &Frame) {
        assert_eq!(frame.0.owner, self.number, "a frame of another port");
    }

    fn give_back(&mut self) {
        // SAFETY: frames of this port that nobody has any more.
        unsafe { (self.eal.functions().release)(self.port.0, self.done.frames.as_ptr(), self.done.end as u32) };
        self.done.end = 0;
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        while self.came.first < self.came.end || self.ready.first < self.ready.end {
            if let Some(frame) = self.came.next().or_else(|| self.ready.next()) {
                self.release(frame);
            }
        }
        if self.done.end > 0 {
            self.give_back();
        }
        let _control = control();
        // SAFETY: it was opened, and is not used after this.
        unsafe { (self.eal.functions().close)(self.port.0) };
    }
}
