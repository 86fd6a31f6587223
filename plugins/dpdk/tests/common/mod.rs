//! What the tests of dpdk links share.

#[allow(dead_code, reason = "not every test binary has namespaces")]
#[path = "../../../xdp/tests/common/mod.rs"]
mod namespaces;

use insane_dpdk::{DpdkConfig, DpdkError, DpdkSetup, EalError, EalOptions, ShimError};
#[allow(unused_imports, reason = "not every test binary has namespaces")]
pub use namespaces::Namespace;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tests with ports are one at a time: DPDK has 32, and there are few cores.
static PORTS: Mutex<()> = Mutex::new(());

/// The right to open ports, if DPDK is there; otherwise a word on standard error.
pub fn dpdk() -> Option<MutexGuard<'static, ()>> {
    let guard = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    match dpdk_sys::Eal::start(&eal()) {
        Ok(_) => Some(guard),
        Err(EalError::Shim(reason @ ShimError::Missing { .. })) => {
            eprintln!("passed over: {reason}");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// DPDK as the tests of one process start it.
pub fn eal() -> EalOptions {
    EalOptions { memory_mib: 768, ..DpdkConfig::new("", ([10, 0, 0, 1], 1).into()).eal }
}

/// A link on this device, at this address.
#[allow(dead_code, reason = "not every test binary needs it")]
pub fn config(device: &str, bind: SocketAddr) -> DpdkConfig {
    DpdkConfig { eal: eal(), ..DpdkConfig::new(device, bind) }
}

/// Whether this build of DPDK has the driver; otherwise a word on standard error.
#[allow(dead_code, reason = "not every test binary needs it")]
pub fn has_driver(opened: &Result<DpdkSetup, DpdkError>) -> bool {
    let text = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let is_missing = text.contains("failed to parse device");
    if is_missing {
        eprintln!("passed over: {text}");
    }
    !is_missing
}
