//! What the tests of dpdk links share.

use insane_dpdk::{DpdkConfig, EalError, EalOptions, ShimError};
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
pub fn config(device: &str, bind: SocketAddr) -> DpdkConfig {
    DpdkConfig { eal: eal(), ..DpdkConfig::new(device, bind) }
}
