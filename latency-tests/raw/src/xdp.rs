//! A bare AF_XDP loop: one socket on one queue, and a program that hands it every frame.
//!
//! What a competent engineer would write for one conversation: each chunk for sending has
//! its headers written once and one message length; frames that came are given back in
//! batches; a call of the system only where frames are to go. Copy mode, which is what a veth
//! pair has.

use std::ffi::CString;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{NonNull, null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Entries of each ring.
const RING: u32 = 1024;
const CHUNK_BYTES: usize = 2048;
/// Frames that are given back at a time while more are waiting.
const BATCH: u32 = 32;
/// An interface or queue that was closed a moment ago is tried again so often.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// Commands and values of bpf(2), from linux/bpf.h and linux/if_link.h.
const BPF_MAP_CREATE: i32 = 0;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_PROG_LOAD: i32 = 5;
const BPF_LINK_CREATE: i32 = 28;
const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// One ring as the kernel laid it out; `E` is its entry.
struct Ring<E> {
    start: NonNull<u8>,
    bytes: usize,
    offsets: libc::xdp_ring_offset,
    /// Our counter, and the other side's as it was read last.
    mine: u32,
    theirs: u32,
    entries: std::marker::PhantomData<E>,
}

// SAFETY: the mapping belongs to the process and is reached through `&mut` only.
unsafe impl<E> Send for Ring<E> {}

impl<E> Drop for Ring<E> {
    fn drop(&mut self) {
        // SAFETY: mapped by `Ring::map`, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

impl<E: Copy> Ring<E> {
    fn map(socket: &OwnedFd, page: i64, offsets: libc::xdp_ring_offset) -> io::Result<Self> {
        let bytes = offsets.desc as usize + RING as usize * size_of::<E>();
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping where the kernel likes.
        let start = unsafe { libc::mmap(null_mut(), bytes, protection, flags, socket.as_raw_fd(), page) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Ring { start, bytes, offsets, mine: 0, theirs: 0, entries: std::marker::PhantomData })
    }

    fn word(&self, at: u64) -> &AtomicU32 {
        // SAFETY: the kernel gave the offset of an aligned word inside the mapping.
        unsafe { self.start.add(at as usize).cast().as_ref() }
    }

    fn entry(&self, number: u32) -> NonNull<E> {
        let at = self.offsets.desc as usize + (number & (RING - 1)) as usize * size_of::<E>();
        // SAFETY: inside the mapping, which holds RING entries.
        unsafe { self.start.add(at).cast() }
    }

    /// As producer: room for one more.
    #[inline(always)]
    fn has_room(&mut self) -> bool {
        if self.mine.wrapping_sub(self.theirs) < RING {
            return true;
        }
        self.theirs = self.word(self.offsets.consumer).load(Ordering::Acquire);
        self.mine.wrapping_sub(self.theirs) < RING
    }

    /// As producer, where there is room.
    #[inline(always)]
    fn put(&mut self, entry: E) {
        // SAFETY: inside the mapping; the kernel reads it after it is published.
        unsafe { self.entry(self.mine).write_volatile(entry) };
        self.mine = self.mine.wrapping_add(1);
    }

    #[inline(always)]
    fn publish_put(&self) {
        self.word(self.offsets.producer).store(self.mine, Ordering::Release);
    }

    /// As consumer.
    #[inline(always)]
    fn take(&mut self) -> Option<E> {
        if self.mine == self.theirs {
            self.theirs = self.word(self.offsets.producer).load(Ordering::Acquire);
            if self.mine == self.theirs {
                return None;
            }
        }
        // SAFETY: inside the mapping, written before the counter that was read.
        let entry = unsafe { self.entry(self.mine).read_volatile() };
        self.mine = self.mine.wrapping_add(1);
        Some(entry)
    }

    #[inline(always)]
    fn publish_taken(&self) {
        self.word(self.offsets.consumer).store(self.mine, Ordering::Release);
    }
}

/// Memory of all chunks.
struct Memory(NonNull<u8>);

const MEMORY_BYTES: usize = 2 * RING as usize * CHUNK_BYTES;

// SAFETY: as of `Ring`.
unsafe impl Send for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `XdpSocket::open`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), MEMORY_BYTES) };
    }
}

/// See the module's documentation. Fields go in this order: the program is detached first.
pub struct XdpSocket {
    _link: OwnedFd,
    _program: OwnedFd,
    _map: OwnedFd,
    rx: Ring<libc::xdp_desc>,
    tx: Ring<libc::xdp_desc>,
    fill: Ring<u64>,
    completion: Ring<u64>,
    memory: Memory,
    socket: OwnedFd,
    /// Bytes of a frame, and of its headers.
    frame_bytes: usize,
    head_bytes: usize,
    /// Frames that were taken and not given back.
    held: u32,
    /// Chunks for sending that the kernel has.
    under_way: u32,
    unsent: u32,
}

/// Hardware address of an interface.
///
/// # Errors
/// There is none of that name.
pub fn mac_of(interface: &str) -> io::Result<[u8; 6]> {
    // SAFETY: a plain call.
    let socket = owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(room)) {
        *to = from as libc::c_char;
    }
    // SAFETY: the kernel reads and writes one `ifreq` that lives during the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) })?;
    let mut mac = [0; 6];
    // SAFETY: the kernel filled in this member.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
    mac.iter_mut().zip(data).for_each(|(to, from)| *to = from as u8);
    Ok(mac)
}

impl XdpSocket {
    /// Takes queue 0 of an interface, in the driver or behind it, for frames that begin with
    /// `head` and have `message_bytes` behind it.
    ///
    /// # Errors
    /// A right is missing, or the interface is another program's.
    pub fn open(interface: &str, in_driver: bool, head: &[u8], message_bytes: usize) -> io::Result<Self> {
        let name = CString::new(interface)?;
        // SAFETY: the text ends with a zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 || head.len() + message_bytes > CHUNK_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        patiently(|| Self::attempt(index, in_driver, head, message_bytes))
    }

    fn attempt(index: u32, in_driver: bool, head: &[u8], message_bytes: usize) -> io::Result<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE);
        // SAFETY: a new mapping where the kernel likes.
        let start = unsafe { libc::mmap(null_mut(), MEMORY_BYTES, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = Memory(NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?);
        // SAFETY: a plain call.
        let socket = owned(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        let umem = libc::xdp_umem_reg {
            addr: memory.0.as_ptr() as u64,
            len: MEMORY_BYTES as u64,
            chunk_size: CHUNK_BYTES as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&socket, libc::XDP_UMEM_REG, &umem)?;
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING] {
            set(&socket, ring, &RING)?;
        }
        // SAFETY: a structure of numbers, for which zero is a value.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { zeroed() };
        let mut len = size_of::<libc::xdp_mmap_offsets>() as libc::socklen_t;
        // SAFETY: the kernel writes `len` bytes at most into a value that lives during the call.
        check(unsafe {
            let into = (&raw mut offsets).cast();
            libc::getsockopt(socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, into, &raw mut len)
        })?;
        let rx = Ring::map(&socket, libc::XDP_PGOFF_RX_RING, offsets.rx)?;
        let tx = Ring::map(&socket, libc::XDP_PGOFF_TX_RING, offsets.tx)?;
        let mut fill = Ring::map(&socket, libc::XDP_UMEM_PGOFF_FILL_RING as i64, offsets.fr)?;
        let completion = Ring::map(&socket, libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64, offsets.cr)?;
        for chunk in 0..RING {
            fill.put(u64::from(chunk) * CHUNK_BYTES as u64);
        }
        fill.publish_put();
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_COPY | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: index,
            sxdp_queue_id: 0,
            sxdp_shared_umem_fd: 0,
        };
        let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
        // SAFETY: the kernel reads `len` bytes of a value that lives during the call.
        check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
        let (map, program) = redirect_all(&socket)?;
        let link = attach(&program, index, in_driver)?;
        for chunk in RING..2 * RING {
            // SAFETY: the chunk lies inside the mapping, and nobody else refers to it.
            unsafe {
                let at = memory.0.as_ptr().add(chunk as usize * CHUNK_BYTES);
                std::ptr::copy_nonoverlapping(head.as_ptr(), at, head.len());
            }
        }
        Ok(XdpSocket {
            _link: link,
            _program: program,
            _map: map,
            rx,
            tx,
            fill,
            completion,
            memory,
            socket,
            frame_bytes: head.len() + message_bytes,
            head_bytes: head.len(),
            held: 0,
            under_way: 0,
            unsent: 0,
        })
    }

    /// Writes one message, which goes with the next [`kick`](Self::kick). False: no room.
    #[inline(always)]
    pub fn put(&mut self, write: impl FnOnce(&mut [u8])) -> bool {
        if self.under_way == RING {
            // All go in the order in which they were given.
            while self.completion.take().is_some() {
                self.under_way -= 1;
            }
            self.completion.publish_taken();
        }
        if self.under_way == RING || !self.tx.has_room() {
            return false;
        }
        let at = (RING + (self.tx.mine & (RING - 1))) as usize * CHUNK_BYTES;
        // SAFETY: the chunk lies inside the mapping; the kernel is done with it, and nobody
        // else refers to it.
        let frame = unsafe { std::slice::from_raw_parts_mut(self.memory.0.as_ptr().add(at), self.frame_bytes) };
        write(&mut frame[self.head_bytes..]);
        self.tx.put(libc::xdp_desc { addr: at as u64, len: self.frame_bytes as u32, options: 0 });
        self.under_way += 1;
        self.unsent += 1;
        true
    }

    /// Frames that wait for [`kick`](Self::kick).
    #[must_use]
    #[inline(always)]
    pub fn unsent(&self) -> u32 {
        self.unsent
    }

    /// Sends what was put.
    ///
    /// # Errors
    /// The interface is gone or down.
    #[inline(always)]
    pub fn kick(&mut self) -> io::Result<()> {
        self.tx.publish_put();
        loop {
            // SAFETY: no memory is handed over.
            let sent = unsafe { libc::sendto(self.socket.as_raw_fd(), null(), 0, libc::MSG_DONTWAIT, null(), 0) };
            if sent < 0 {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => {}
                    _ => return Err(error),
                }
            }
            if self.tx.word(self.tx.offsets.consumer).load(Ordering::Acquire) == self.tx.mine {
                self.unsent = 0;
                return Ok(());
            }
            if sent < 0 {
                // What is left goes with the next call.
                return Ok(());
            }
        }
    }

    /// Reads the next message, if it is of this conversation.
    #[inline(always)]
    pub fn take<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let Some(entry) = self.rx.take() else {
            if self.held > 0 {
                self.give_back();
            }
            return None;
        };
        let (at, len) = (entry.addr as usize, entry.len as usize);
        // Others' frames (the kernel's questions) have other lengths or begin otherwise.
        let is_ours = len == self.frame_bytes && at + len <= MEMORY_BYTES;
        let message = is_ours.then(|| {
            // SAFETY: inside the mapping; the kernel wrote it and has given it to us.
            let frame = unsafe { std::slice::from_raw_parts(self.memory.0.as_ptr().add(at), len) };
            read(&frame[self.head_bytes..])
        });
        self.fill.put((at / CHUNK_BYTES * CHUNK_BYTES) as u64);
        self.held += 1;
        if self.held == BATCH {
            self.give_back();
        }
        message
    }

    #[inline(always)]
    fn give_back(&mut self) {
        self.rx.publish_taken();
        self.fill.publish_put();
        self.held = 0;
    }
}

fn patiently<T>(mut action: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match action() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    action()
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just made the descriptor for us.
    check(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set<T>(socket: &OwnedFd, option: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of a value that lives during the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, option, std::ptr::from_ref(value).cast(), len) };
    check(result).map(drop)
}

/// bpf(2) with an attribute of so many words of 32 bits, zero behind those given.
fn bpf(command: i32, words: &[u32]) -> io::Result<libc::c_int> {
    let mut attribute = [0u32; 32];
    attribute[..words.len()].copy_from_slice(words);
    // SAFETY: the attribute is larger than the kernel needs, zero behind what is given, and lives
    // during the call, as what it points to does in each caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size_of_val(&attribute)) };
    check(result as libc::c_int)
}

fn halves(pointer: *const impl Sized) -> [u32; 2] {
    let address = pointer as u64;
    [address as u32, (address >> 32) as u32]
}

/// A program that redirects each frame to the socket, and its map.
fn redirect_all(socket: &OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    // Type, bytes of a key, bytes of a value, entries.
    let map = owned(bpf(BPF_MAP_CREATE, &[BPF_MAP_TYPE_XSKMAP, 4, 4, 1])?)?;
    let (key, value) = (0u32, socket.as_raw_fd() as u32);
    let (key_at, value_at) = (halves(&raw const key), halves(&raw const value));
    bpf(BPF_MAP_UPDATE_ELEM, &[map.as_raw_fd() as u32, 0, key_at[0], key_at[1], value_at[0], value_at[1], 0, 0])?;
    let instructions: [u64; 6] = [
        // r2 = the queue's number, 16 bytes into the context (struct xdp_md)
        0x61 | 0x12 << 8 | 16 << 16,
        // r1 = the map, in two instructions
        0x18 | 0x11 << 8 | (map.as_raw_fd() as u64) << 32,
        0,
        // r3 = XDP_PASS, for a queue without a socket
        0xb7 | 0x03 << 8 | 2 << 32,
        // bpf_redirect_map
        0x85 | 51 << 32,
        0x95,
    ];
    let license = c"Dual MIT/GPL";
    let (code, text) = (halves(instructions.as_ptr()), halves(license.as_ptr()));
    let program =
        bpf(BPF_PROG_LOAD, &[BPF_PROG_TYPE_XDP, instructions.len() as u32, code[0], code[1], text[0], text[1]])?;
    Ok((map, owned(program)?))
}

/// Attached as long as what is returned is open.
fn attach(program: &OwnedFd, interface: u32, in_driver: bool) -> io::Result<OwnedFd> {
    let flags = if in_driver { XDP_FLAGS_DRV_MODE } else { XDP_FLAGS_SKB_MODE };
    owned(bpf(BPF_LINK_CREATE, &[program.as_raw_fd() as u32, interface, BPF_XDP, flags])?)
}
