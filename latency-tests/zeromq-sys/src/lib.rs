//! The few calls of libzmq that latency-tests needs: one pair of sockets, messages copied
//! in, as most programs do, and read in the library's own memory.
//!
//! The library is loaded when it is asked for, never linked: a machine without it
//! builds everything and is told what is missing, and none of its code becomes part of
//! ours. Only functions that libzmq has had unchanged since 4.0 are used.
//!
//! Invariants: every function pointer stays valid because [`Library`] is held by each
//! [`Context`], and each context by its [`Pair`]s; a socket is used by one thread at a
//! time because a `Pair` is not `Sync` and its methods take `&mut self`.

mod api;

use api::Api;
use std::ffi::{CString, c_int, c_void};
use std::sync::Arc;
use std::time::Duration;

/// Names under which the library is looked for.
const NAMES: &[&str] = &["libzmq.so.5", "libzmq.so"];

const TYPE_PAIR: c_int = 0;
const OPTION_LINGER: c_int = 17;
const OPTION_SEND_HIGH_WATER: c_int = 23;
const OPTION_RECEIVE_HIGH_WATER: c_int = 24;
const OPTION_RECEIVE_TIMEOUT: c_int = 27;
const OPTION_SEND_TIMEOUT: c_int = 28;
/// `EAGAIN` of Linux: a timeout passed.
const ERROR_AGAIN: c_int = 11;
/// `EINTR` of Linux: a signal came.
const ERROR_INTERRUPTED: c_int = 4;

/// Why there is no ZeroMQ, or it refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ZeroMqError {
    /// The library cannot be loaded.
    #[error("libzmq cannot be loaded (Debian: apt install libzmq5): {0}")]
    Absent(String),
    /// A call failed, in the library's words.
    #[error("{call}: {reason}")]
    Call {
        /// Which.
        call: &'static str,
        /// Why.
        reason: String,
    },
}

/// The loaded library.
#[derive(Clone)]
pub struct Library(Arc<Api>);

impl Library {
    /// Loads libzmq.
    ///
    /// # Errors
    /// [`ZeroMqError::Absent`].
    pub fn load() -> Result<Self, ZeroMqError> {
        let mut last = String::new();
        for name in NAMES {
            match Api::load(name) {
                Ok(api) => return Ok(Library(Arc::new(api))),
                Err(error) => last = error.to_string(),
            }
        }
        Err(ZeroMqError::Absent(last))
    }

    /// Major, minor and patch number.
    #[must_use]
    pub fn version(&self) -> [i32; 3] {
        let mut version = [0; 3];
        let [major, minor, patch] = &mut version;
        // SAFETY: the three places are ours and outlive the call.
        unsafe { (self.0.version)(major, minor, patch) };
        version
    }

    fn fault(&self, call: &'static str) -> ZeroMqError {
        ZeroMqError::Call { call, reason: self.0.last_error().1 }
    }
}

/// A context, with an I/O thread of its own: what a process has.
pub struct Context {
    library: Library,
    raw: *mut c_void,
}

// SAFETY: contexts of libzmq are safe to use from any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// A new context.
    ///
    /// # Errors
    /// The library refused.
    pub fn new(library: &Library) -> Result<Arc<Self>, ZeroMqError> {
        // SAFETY: takes nothing.
        let raw = unsafe { (library.0.ctx_new)() };
        if raw.is_null() {
            return Err(library.fault("zmq_ctx_new"));
        }
        Ok(Arc::new(Context { library: library.clone(), raw }))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Every socket holds the context, so all are closed and nothing lingers.
        // SAFETY: the pointer came from `zmq_ctx_new` and is used no more.
        unsafe { (self.library.0.ctx_term)(self.raw) };
    }
}

/// How an endpoint is to be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It is made here.
    Bind,
    /// It is made by the other end.
    Connect,
}

/// One end of a PAIR: one partner, both ways, nothing lost.
pub struct Pair {
    context: Arc<Context>,
    raw: *mut c_void,
}

// SAFETY: a socket may move between threads if there is a full fence between their uses,
// which whatever hands a `Pair` to another thread brings.
unsafe impl Send for Pair {}

impl Pair {
    /// Opens an end whose calls wait for at most `patience` (whole milliseconds), with room
    /// for `high_water` messages on either side.
    ///
    /// # Errors
    /// The library refused.
    pub fn open(
        context: &Arc<Context>,
        endpoint: &str,
        role: Role,
        high_water: i32,
        patience: Duration,
    ) -> Result<Self, ZeroMqError> {
        let library = &context.library;
        let api = &library.0;
        // SAFETY: the context lives.
        let raw = unsafe { (api.socket)(context.raw, TYPE_PAIR) };
        if raw.is_null() {
            return Err(library.fault("zmq_socket"));
        }
        let pair = Pair { context: Arc::clone(context), raw };
        let patience = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        for (option, value) in [
            (OPTION_LINGER, 0),
            (OPTION_SEND_HIGH_WATER, high_water),
            (OPTION_RECEIVE_HIGH_WATER, high_water),
            (OPTION_SEND_TIMEOUT, patience),
            (OPTION_RECEIVE_TIMEOUT, patience),
        ] {
            pair.set(option, value)?;
        }
        let refused = |reason: String| ZeroMqError::Call { call: "endpoint", reason };
        let endpoint = CString::new(endpoint).map_err(|error| refused(error.to_string()))?;
        let (call, done) = match role {
            // SAFETY: socket and string live.
            Role::Bind => ("zmq_bind", unsafe { (api.bind)(pair.raw, endpoint.as_ptr()) }),
            // SAFETY: as above.
            Role::Connect => ("zmq_connect", unsafe { (api.connect)(pair.raw, endpoint.as_ptr()) }),
        };
        if done == 0 { Ok(pair) } else { Err(library.fault(call)) }
    }

    fn set(&self, option: c_int, value: c_int) -> Result<(), ZeroMqError> {
        let library = &self.context.library;
        // SAFETY: these options are ints, and the value lives during the call.
        let done = unsafe { (library.0.setsockopt)(self.raw, option, (&raw const value).cast(), size_of::<c_int>()) };
        if done == 0 { Ok(()) } else { Err(library.fault("zmq_setsockopt")) }
    }

    /// Sends a copy of a message; false when there was no room in time.
    ///
    /// # Errors
    /// The library refused.
    pub fn send(&mut self, message: &[u8]) -> Result<bool, ZeroMqError> {
        let api = &self.context.library.0;
        // SAFETY: socket and message live; the library copies the bytes.
        if unsafe { (api.send)(self.raw, message.as_ptr().cast(), message.len(), 0) } >= 0 {
            return Ok(true);
        }
        self.not_now("zmq_send").map(|()| false)
    }

    /// The next message, read by `read`; `None` when none came in time.
    ///
    /// # Errors
    /// The library refused.
    pub fn receive<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, ZeroMqError> {
        let api = &self.context.library.0;
        let mut message = api.message();
        // SAFETY: socket and message live.
        if unsafe { (api.msg_recv)(message.raw(), self.raw, 0) } >= 0 {
            return Ok(Some(read(message.bytes())));
        }
        self.not_now("zmq_msg_recv").map(|()| None)
    }

    /// Tells "not in time" from a failure.
    fn not_now(&self, call: &'static str) -> Result<(), ZeroMqError> {
        match self.context.library.0.last_error() {
            (ERROR_AGAIN | ERROR_INTERRUPTED, _) => Ok(()),
            (_, reason) => Err(ZeroMqError::Call { call, reason }),
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // SAFETY: the socket is open and used no more.
        unsafe { (self.context.library.0.close)(self.raw) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The library, or a word that it is not here.
    fn library() -> Option<Library> {
        Library::load().inspect_err(|absent| eprintln!("passed over: {absent}")).ok()
    }

    fn open(library: &Library, role: Role, name: &str) -> Result<Pair, ZeroMqError> {
        let endpoint = format!("ipc://@insane-zeromq-sys-{}-{name}", std::process::id());
        Pair::open(&Context::new(library)?, &endpoint, role, 16, Duration::from_millis(1))
    }

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let Some(library) = library() else { return };
        assert!(library.version()[0] >= 4);
        let mut bound = open(&library, Role::Bind, "order").unwrap();
        let mut connected = open(&library, Role::Connect, "order").unwrap();
        for (number, len) in (1..=10_u8).zip([0, 8, 33, 34, 64, 1_000, 8_192, 8_193, 100_000, 1_000_000]) {
            let message = vec![number; len];
            while !connected.send(&message).unwrap() {}
            let read = |bytes: &[u8]| bytes.len() == len && bytes.iter().all(|byte| *byte == number);
            let whole = (0..10_000).find_map(|_| bound.receive(read).unwrap());
            assert_eq!(whole, Some(true), "{len} bytes");
        }
        assert_eq!(bound.receive(<[u8]>::len), Ok(None));
    }

    #[test]
    fn room_ends_and_what_is_refused_says_why() {
        let Some(library) = library() else { return };
        let mut alone = open(&library, Role::Bind, "alone").unwrap();
        assert_eq!(alone.send(&[0; 8]), Ok(false), "nobody is there");
        let twice = open(&library, Role::Bind, "alone").err().unwrap();
        assert!(twice.to_string().contains("zmq_bind"), "{twice}");
        let context = Context::new(&library).unwrap();
        let wrong = Pair::open(&context, "nonsense", Role::Bind, 1, Duration::ZERO);
        assert!(matches!(wrong, Err(ZeroMqError::Call { call: "zmq_bind", .. })));
    }
}
