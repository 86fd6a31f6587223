//! ZeroMQ: PAIR sockets over `ipc://`, a context for each end, as two processes have.
//!
//! PAIR is the pattern of one writer and one reader, without routing or subscriptions;
//! `inproc://` would be faster but cannot leave a process. Both ends wait inside the
//! library: its I/O threads need the cores that spinning ends would keep from them. The
//! endpoint has an abstract name, so there is no file to leave behind.

use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload;
use insane_zeromq_sys::{Context, Library, Pair, Role, ZeroMqError};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Messages that may wait on either side of a connection.
const HIGH_WATER: i32 = 1_000;
/// How long an end waits before it looks at the stop flag and its bound.
const PATIENCE: Duration = Duration::from_millis(1);

/// One end.
pub struct ZeroMqEnd {
    pair: Pair,
    message: Vec<u8>,
}

/// Both ends of one connection for messages of `size` bytes. Opened where the caller runs,
/// so that the I/O threads are bound to no core.
///
/// # Errors
/// `Unavailable` without the library; or it refused.
pub fn pair(size: usize) -> Result<(ZeroMqEnd, ZeroMqEnd), Fault> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let endpoint = format!("ipc://@latency-tests/{}/{count}", std::process::id());
    let library = Library::load().map_err(fault)?;
    let open = |role| -> Result<ZeroMqEnd, Fault> {
        let context = Context::new(&library).map_err(fault)?;
        let pair = Pair::open(&context, &endpoint, role, HIGH_WATER, PATIENCE).map_err(fault)?;
        Ok(ZeroMqEnd { pair, message: vec![0; size] })
    };
    Ok((open(Role::Bind)?, open(Role::Connect)?))
}

fn fault(error: ZeroMqError) -> Fault {
    match error {
        ZeroMqError::Absent(_) => Fault::Unavailable(error.to_string()),
        ZeroMqError::Call { .. } => Fault::Party(format!("ZeroMQ, {error}")),
    }
}

impl End for ZeroMqEnd {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        payload::write(&mut self.message, number);
        self.pair.send(&self.message).map_err(fault)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        let size = self.message.len();
        let read = |bytes: &[u8]| {
            let (expected, found) = (size as u64, bytes.len() as u64);
            if bytes.len() == size { payload::read(bytes) } else { Err(Fault::Corrupt { expected, found }) }
        };
        self.pair.receive(read).map_err(fault)?.transpose()
    }
}
