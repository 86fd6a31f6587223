//! The half that gives the link its port, and notices that the device went.

use crate::config::DpdkConfig;
use crate::device::Exchange;
use crate::setup::{DpdkError, fits, interface, open_device};
use insane_link::{LinkHealth, LinkKeeper};
use insane_xdp_sys::interface::Interface;
use std::sync::Arc;

/// What an operator is told behind a reason that no waiting changes.
const FINAL: &str = "; not tried again: this needs a restart of the runtime";

/// Looks after one link: starts DPDK and opens the device when they are to be had, and takes
/// the port back when the interface below it goes, or becomes another. One that is merely down
/// keeps its port, which works again when it is up.
///
/// DPDK starts once a process: what it refused then is final, and is said to be.
#[derive(Debug)]
pub struct DpdkKeeper {
    /// With the size of frames that the link has.
    config: DpdkConfig,
    exchange: Arc<Exchange>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// A port is on the way or in use: on this interface, if it is one of the kernel's.
    Opened(Option<Interface>),
    /// It was recalled, for this reason, and is not back yet.
    Recalled(DpdkError),
    Closed,
    /// It cannot be had in this process any more.
    Final(DpdkError),
}

impl DpdkKeeper {
    pub(crate) fn new(
        config: DpdkConfig,
        exchange: Arc<Exchange>,
        opened: Result<Option<Interface>, &DpdkError>,
    ) -> Self {
        let state = match opened {
            Ok(interface) => State::Opened(interface),
            Err(why) if why.is_final() => State::Final(why.clone()),
            Err(_) => State::Closed,
        };
        DpdkKeeper { config, exchange, state }
    }

    fn open(&mut self) -> Result<(), DpdkError> {
        match open_device(&self.config) {
            Ok(opened) => {
                self.state = State::Opened(opened.interface);
                self.exchange.give(opened.device);
                Ok(())
            }
            Err(why) => {
                if why.is_final() {
                    self.state = State::Final(why.clone());
                }
                Err(why)
            }
        }
    }

    /// Whether the interface below the device is still what was opened.
    fn check(&self, opened: Option<&Interface>) -> Result<(), DpdkError> {
        let device = || self.config.device.clone();
        if let (Some(opened), Some(now)) = (opened, interface(&self.config)?) {
            // The link may have a hardware address of its own.
            let has_other_mac = self.config.mac.is_none() && now.mac != opened.mac;
            if now.index != opened.index || has_other_mac {
                let interface = self.config.interface().unwrap_or_default().to_owned();
                return Err(DpdkError::Changed { device: device(), interface });
            }
            fits(&self.config, &now)?;
        }
        if self.exchange.is_failing() { Err(DpdkError::Failing { device: device() }) } else { Ok(()) }
    }
}

impl LinkKeeper for DpdkKeeper {
    /// In the network namespace of the calling thread.
    fn look(&mut self) -> LinkHealth {
        if let Some(device) = self.exchange.ports.take_back() {
            // Closed here, with its memory.
            drop(device);
            self.state = State::Closed;
        }
        let looked = match &self.state {
            State::Opened(opened) => self.check(opened.as_ref()),
            State::Recalled(why) | State::Final(why) => Err(why.clone()),
            State::Closed => self.open(),
        };
        match looked {
            Ok(()) => LinkHealth::Up,
            Err(why) => {
                if matches!(self.state, State::Opened(_)) && why.is_of_another() {
                    self.exchange.ports.recall();
                    self.state = State::Recalled(why.clone());
                }
                let last = if matches!(self.state, State::Final(_)) { FINAL } else { "" };
                LinkHealth::Missing(format!("{why}{last}"))
            }
        }
    }
}
