//! The half that gives the link its device, and notices that it went.

use crate::config::RdmaConfig;
use crate::device::{Exchange, Registry};
use crate::setup::{Bound, RdmaError};
use insane_link::{LinkHealth, LinkKeeper};
use std::sync::Arc;

/// Looks after one link: opens the device when there is one with the link's address, and takes
/// it back when it is removed or has the address no more.
#[derive(Debug)]
pub struct RdmaKeeper {
    /// With the port that the link has.
    config: RdmaConfig,
    registry: Arc<Registry>,
    exchange: Arc<Exchange>,
    /// It was recalled, for this reason, and is not back yet.
    recalled: Option<RdmaError>,
}

impl RdmaKeeper {
    pub(crate) fn new(config: RdmaConfig, registry: Arc<Registry>, exchange: Arc<Exchange>) -> Self {
        RdmaKeeper { config, registry, exchange, recalled: None }
    }

    fn open(&self) -> Result<(), RdmaError> {
        let running = Bound::open(&self.config)?.start_for_all(&self.config, &self.registry)?;
        self.exchange.give(running);
        Ok(())
    }

    fn look_once(&mut self) -> Result<(), RdmaError> {
        if let Some(device) = self.exchange.take_back() {
            // Its connections end here, and their memory goes.
            drop(device);
            self.recalled = None;
        }
        if let Some(why) = &self.recalled {
            return Err(why.clone());
        }
        let Some(opened) = self.registry.opened() else { return self.open() };
        opened.device.check(self.config.bind).map_err(|why| {
            let why = RdmaError::from(why);
            // Nothing new is made of it.
            self.registry.withdraw();
            self.exchange.recall();
            self.recalled = Some(why.clone());
            why
        })
    }
}

impl LinkKeeper for RdmaKeeper {
    fn look(&mut self) -> LinkHealth {
        match self.look_once() {
            Ok(()) => LinkHealth::Up,
            Err(why) => LinkHealth::Missing(why.to_string()),
        }
    }
}
