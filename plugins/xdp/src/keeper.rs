//! The half that gives the link its device, and notices that it went.

use crate::config::XdpConfig;
use crate::device::Exchange;
use crate::setup::{XdpError, check_address, fits, heard, open_device};
use insane_kernel_neighbours::KernelNeighbours;
use insane_link::{LinkHealth, LinkKeeper};
use insane_xdp_sys::attachment::Attachment;
use insane_xdp_sys::interface::Interface;
use std::sync::{Arc, Weak};

/// What a device was opened on.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// As it was then.
    pub(crate) interface: Interface,
    /// The program there; the device has it.
    pub(crate) attachment: Weak<Attachment>,
}

/// Looks after one link: opens its interface when it is to be had, and takes back what was
/// opened when the interface goes, goes down, or becomes another, has other queues, or the program
/// is taken from it.
#[derive(Debug)]
pub struct XdpKeeper {
    config: XdpConfig,
    frame_bytes_max: u32,
    exchange: Arc<Exchange>,
    borrowed: Option<Arc<KernelNeighbours>>,
    /// What is on the way or in use; `None`: no device is.
    opened: Option<Opened>,
}

impl XdpKeeper {
    pub(crate) fn new(
        config: XdpConfig,
        frame_bytes_max: u32,
        exchange: Arc<Exchange>,
        borrowed: Option<Arc<KernelNeighbours>>,
        opened: Option<Opened>,
    ) -> Self {
        XdpKeeper { config, frame_bytes_max, exchange, borrowed, opened }
    }

    fn open(&mut self) -> Result<(), XdpError> {
        let (device, opened) = open_device(&self.config, self.frame_bytes_max)?;
        // Before the link asks.
        if let Some(borrowed) = &self.borrowed {
            borrowed.set_interface(opened.interface.index);
        }
        self.exchange.give(device);
        self.opened = Some(opened);
        Ok(())
    }

    /// Whether the interface is still what was opened, and has the program.
    fn check(&self, opened: &Opened) -> Result<(), XdpError> {
        let interface = || self.config.interface.clone();
        let now = Interface::find(&self.config.interface)
            .map_err(|source| XdpError::Interface { interface: interface(), source })?;
        if !now.is_up {
            return Err(XdpError::Down { interface: interface() });
        }
        if (now.index, now.mac) != (opened.interface.index, opened.interface.mac) {
            return Err(XdpError::Changed { interface: interface() });
        }
        // A driver that does not answer once has the queues that it had.
        if let Some(queues) = now.receive_queues
            && heard(&self.config, &now) != heard(&self.config, &opened.interface)
        {
            return Err(XdpError::Queues { interface: interface(), queues });
        }
        // One that the link has closed is on its way back.
        if opened.attachment.upgrade().is_some_and(|attachment| !attachment.is_in_place()) {
            return Err(XdpError::Detached { interface: interface() });
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
