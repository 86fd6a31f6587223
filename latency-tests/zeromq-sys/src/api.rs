//! The function table of libzmq, and its messages.

use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};

/// `zmq_msg_t`: 64 bytes that only the library understands, aligned as a pointer.
#[repr(C, align(8))]
pub struct RawMessage([u8; 64]);

const _: () = assert!(size_of::<RawMessage>() == 64);

/// Reads one function of the table.
macro_rules! table {
    ($($field:ident = $symbol:literal: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions; valid while the library is loaded, which is as long as this lives.
        pub struct Api {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> $result,)*
            _library: Library,
        }

        impl Api {
            /// Loads the library of a name and finds all functions.
            pub fn load(name: &str) -> Result<Self, libloading::Error> {
                // SAFETY: libzmq's initialisers only prepare its own data.
                let library = unsafe { Library::new(name)? };
                // SAFETY: the types are those of zmq.h, unchanged since 4.0.
                $(let $field = unsafe {
                    *library.get::<unsafe extern "C" fn($($argument),*) -> $result>($symbol)?
                };)*
                Ok(Api { $($field,)* _library: library })
            }
        }
    };
}

table! {
    version = b"zmq_version\0": fn(*mut c_int, *mut c_int, *mut c_int) -> ();
    errno = b"zmq_errno\0": fn() -> c_int;
    strerror = b"zmq_strerror\0": fn(c_int) -> *const c_char;
    ctx_new = b"zmq_ctx_new\0": fn() -> *mut c_void;
    ctx_term = b"zmq_ctx_term\0": fn(*mut c_void) -> c_int;
    socket = b"zmq_socket\0": fn(*mut c_void, c_int) -> *mut c_void;
    close = b"zmq_close\0": fn(*mut c_void) -> c_int;
    setsockopt = b"zmq_setsockopt\0": fn(*mut c_void, c_int, *const c_void, usize) -> c_int;
    bind = b"zmq_bind\0": fn(*mut c_void, *const c_char) -> c_int;
    connect = b"zmq_connect\0": fn(*mut c_void, *const c_char) -> c_int;
    msg_init = b"zmq_msg_init\0": fn(*mut RawMessage) -> c_int;
    send = b"zmq_send\0": fn(*mut c_void, *const c_void, usize, c_int) -> c_int;
    msg_recv = b"zmq_msg_recv\0": fn(*mut RawMessage, *mut c_void, c_int) -> c_int;
    msg_close = b"zmq_msg_close\0": fn(*mut RawMessage) -> c_int;
    msg_data = b"zmq_msg_data\0": fn(*mut RawMessage) -> *mut c_void;
    msg_size = b"zmq_msg_size\0": fn(*const RawMessage) -> usize;
}

impl Api {
    /// Number and words of this thread's last error.
    #[cold]
    pub fn last_error(&self) -> (c_int, String) {
        // SAFETY: takes nothing.
        let number = unsafe { (self.errno)() };
        // SAFETY: the library's strings are constant and end with a zero.
        let words = unsafe { CStr::from_ptr((self.strerror)(number)) };
        (number, words.to_string_lossy().into_owned())
    }

    /// An empty message.
    pub fn message(&self) -> Message<'_> {
        let mut raw = RawMessage([0; 64]);
        // SAFETY: the place is ours; the call cannot fail.
        unsafe { (self.msg_init)(&raw mut raw) };
        Message { api: self, raw }
    }
}

/// A message that has been initialised, and is closed on drop. It may move in memory: the
/// library itself hands messages on by copying these 64 bytes.
pub struct Message<'a> {
    api: &'a Api,
    raw: RawMessage,
}

impl Message<'_> {
    /// For calls of the library.
    pub fn raw(&mut self) -> *mut RawMessage {
        &raw mut self.raw
    }

    /// The content.
    pub fn bytes(&mut self) -> &[u8] {
        // SAFETY: the message is initialised.
        let (data, len) = unsafe { ((self.api.msg_data)(self.raw()), (self.api.msg_size)(&raw const self.raw)) };
        if len == 0 {
            return &[];
        }
        // SAFETY: a message that was received keeps `len` bytes there, all of them written,
        // until it is closed, which needs this borrow to have ended.
        unsafe { std::slice::from_raw_parts(data.cast(), len) }
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        // SAFETY: the message is initialised and used no more.
        unsafe { (self.api.msg_close)(self.raw()) };
    }
}
