//! The half that gives the link its device, and notices that it went.

use crate::config::XdpConfig;
use crate::device::Exchange;
use crate::setup::{XdpError, check_address, fits, open_device};
use insane_kernel_neighbours::KernelNeighbours;
use insane_link::{LinkHealth, LinkKeeper};
use insane_xdp_sys::interface::Interface;
use std::sync::Arc;

/// Looks after one link: opens its interface when it is to be had, and takes back what was
/// opened when the interface goes, goes down, or becomes another.
#[derive(Debug)]
pub struct XdpKeeper {
    config: XdpConfig,
    frame_bytes_max: u32,
    exchange: Arc<Exchange>,
    borrowed: Option<Arc<KernelNeighbours>>,
    /// The interface as it was opened; `None`: no device is on the way or in use.
    opened: Option<Interface>,
}

impl XdpKeeper {
    pub(crate) fn new(
        config: XdpConfig,
        frame_bytes_max: u32,
        exchange: Arc<Exchange>,
        borrowed: Option<Arc<KernelNeighbours>>,
        opened: Option<Interface>,
    ) -> Self {
        XdpKeeper { config, frame_bytes_max, exchange, borrowed, opened }
    }

    fn open(&mut self) -> Result<(), XdpError> {
        let (device, interface) = open_device(&self.config, self.frame_bytes_max)?;
        // Before the link asks.
        if let Some(borrowed) = &self.borrowed {
            borrowed.set_interface(interface.index);
        }
        self.exchange.give(device);
        self.opened = Some(interface);
        Ok(())
    }

    /// Whether the interface is still what was opened.
    fn check(&self, opened: &Interface) -> Result<(), XdpError> {
        let interface = || self.config.interface.clone();
        let now = Interface::find(&self.config.interface)
            .map_err(|source| XdpError::Interface { interface: interface(), source })?;
        if !now.is_up {
            return Err(XdpError::Down { interface: interface() });
        }
        if (now.index, now.mac) != (opened.index, opened.mac) {
            return Err(XdpError::Changed { interface: interface() });
        }
        check_address(&self.config)?;
        fits(&self.config, &now, self.frame_bytes_max)
    }
}

impl LinkKeeper for XdpKeeper {
    /// In the network namespace of the calling thread.
    fn look(&mut self) -> LinkHealth {
        if let Some(device) = self.exchange.take_back() {
            // Closed here.
            drop(device);
            self.opened = None;
            // Nobody takes the kernel's words now.
            if let Some(borrowed) = &self.borrowed {
                borrowed.set_interface(0);
            }
        }
        let looked = match &self.opened {
            None => self.open(),
            Some(opened) => self.check(opened).inspect_err(|_| self.exchange.recall()),
        };
        match looked {
            Ok(()) => LinkHealth::Up,
            Err(why) => LinkHealth::Missing(why.to_string()),
        }
    }
}
