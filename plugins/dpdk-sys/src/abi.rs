//! What `shim/shim.h` says, once more. The two are compared whenever the shim is loaded, by
//! version and sizes, and by a test field by field.

use std::ffi::{c_char, c_int, c_void};

/// `INSANE_DPDK_ABI`.
pub(crate) const ABI: u32 = 1;
/// `INSANE_DPDK_BURST`.
pub(crate) const BURST: usize = 64;

/// `struct insane_dpdk_frame`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RawFrame {
    pub(crate) bytes: *mut u8,
    pub(crate) handle: *mut c_void,
    pub(crate) len: u32,
    pub(crate) room: u32,
    pub(crate) owner: u64,
}

impl RawFrame {
    /// None: what a place holds that is not filled.
    pub(crate) const NONE: RawFrame =
        RawFrame { bytes: std::ptr::null_mut(), handle: std::ptr::null_mut(), len: 0, room: 0, owner: 0 };
}

/// `struct insane_dpdk_options`.
#[repr(C)]
pub(crate) struct RawOptions {
    pub(crate) device: *const c_char,
    pub(crate) packet_bytes: u32,
    pub(crate) ring_frames: u32,
    pub(crate) pool_frames: u32,
    pub(crate) promiscuous: u32,
}

/// `struct insane_dpdk_info`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct RawInfo {
    pub(crate) number: u64,
    pub(crate) packet_bytes_max: u32,
    pub(crate) pool_bytes: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) is_vdev: u8,
    pub(crate) link_up: u8,
    pub(crate) driver: [u8; 32],
}

/// `struct insane_dpdk_counts`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct RawCounts {
    pub(crate) sent: u64,
    pub(crate) send_errors: u64,
    pub(crate) received: u64,
    pub(crate) missed: u64,
    pub(crate) receive_errors: u64,
    pub(crate) no_memory: u64,
    pub(crate) chained: u64,
}

/// What `insane_dpdk_abi` has to say.
pub(crate) const WORD: u64 = (ABI as u64) << 32
    | (size_of::<RawCounts>() as u64) << 24
    | (size_of::<RawInfo>() as u64) << 16
    | (size_of::<RawOptions>() as u64) << 8
    | size_of::<RawFrame>() as u64;

const _: () = assert!(size_of::<RawFrame>() == 32 && size_of::<RawOptions>() == 24);
const _: () = assert!(size_of::<RawInfo>() == 56 && size_of::<RawCounts>() == 56);

macro_rules! functions {
    ($($field:ident: $symbol:literal, fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of the shim.
        #[derive(Debug)]
        pub(crate) struct Functions {
            $(pub(crate) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            /// Looks each up.
            ///
            /// # Safety
            /// `library` is a shim that tells [`WORD`], and is never unloaded.
            pub(crate) unsafe fn of(library: &libloading::os::unix::Library) -> Result<Self, libloading::Error> {
                Ok(Functions {
                    $($field: {
                        // SAFETY: a function of this name has this type in the header of the
                        // version that `WORD` names.
                        unsafe { *library.get::<unsafe extern "C" fn($($argument),*) $(-> $result)?>($symbol)? }
                    },)*
                })
            }
        }
    };
}

/// The C side's `struct insane_dpdk_port`.
#[repr(C)]
pub(crate) struct RawPort {
    _opaque: [u8; 0],
}

functions! {
    version: b"insane_dpdk_version\0", fn() -> *const c_char;
    offsets: b"insane_dpdk_offsets\0", fn(*mut u32, u32) -> u32;
    init: b"insane_dpdk_init\0", fn(c_int, *mut *mut c_char) -> c_int;
    reason: b"insane_dpdk_reason\0", fn(*mut c_char, u32) -> u32;
    open: b"insane_dpdk_open\0", fn(*const RawOptions, *mut *mut RawPort, *mut RawInfo, *mut *const c_char) -> c_int;
    close: b"insane_dpdk_close\0", fn(*mut RawPort);
    ring_pair: b"insane_dpdk_ring_pair\0", fn(*const c_char, *const c_char, u32) -> c_int;
    receive: b"insane_dpdk_receive\0", fn(*mut RawPort, *mut RawFrame, u32) -> u32;
    reserve: b"insane_dpdk_reserve\0", fn(*mut RawPort, *mut RawFrame, u32) -> u32;
    send: b"insane_dpdk_send\0", fn(*mut RawPort, *const RawFrame, u32) -> u32;
    release: b"insane_dpdk_release\0", fn(*mut RawPort, *const RawFrame, u32);
    link_up: b"insane_dpdk_link_up\0", fn(*mut RawPort) -> c_int;
    counts: b"insane_dpdk_counts\0", fn(*mut RawPort, *mut RawCounts) -> c_int;
}

/// Where the fields are on this side, in the order of the header.
#[must_use]
pub(crate) fn offsets() -> Vec<u32> {
    use std::mem::offset_of;
    macro_rules! at {
        ($($kind:ident: $($field:ident)*;)*) => { vec![$($(offset_of!($kind, $field) as u32,)*)*] };
    }
    at! {
        RawFrame: bytes handle len room owner;
        RawOptions: device packet_bytes ring_frames pool_frames promiscuous;
        RawInfo: number packet_bytes_max pool_bytes mac is_vdev link_up driver;
        RawCounts: sent send_errors received missed receive_errors no_memory chained;
    }
}
