//! A simulated network: seeded, in virtual time, the same for the same seed.
//!
//! A test makes a [`SimNet`], opens links from addresses as it would open sockets,
//! sets what each direction between two addresses does to frames ([`Faults`]), and
//! steps the time. Faults apply to frames that were filled already, so the code
//! under test is the code that runs in production.
//!
//! ```
//! use insane_core::{Lane, Nanos, PeerIndex};
//! use insane_link::{FrameSink, Link, LinkSetup, SendOutcome};
//! use insane_sim::{Faults, SimConfig, SimNet};
//!
//! struct Print;
//! impl FrameSink for Print {
//!     fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
//!         println!("{from:?}: {frame:?}");
//!     }
//! }
//!
//! let net = SimNet::new(7, SimConfig::default());
//! let (a, b) = ("10.0.0.1:7000".parse().unwrap(), "10.0.0.2:7000".parse().unwrap());
//! let mut sender = net.setup(a).open(&[Some(b)]).unwrap();
//! let mut receiver = net.setup(b).open(&[Some(a)]).unwrap();
//! net.set_faults(a, b, Faults { delay: Nanos::from_micros(50), ..Faults::NONE });
//!
//! assert_eq!(sender.send(PeerIndex(0), Lane::LAST, b"hello", (&[][..]).into()), SendOutcome::Sent);
//! assert_eq!(receiver.receive(8, true, &mut Print), 0);
//! net.advance(Nanos::from_micros(50));
//! assert_eq!(receiver.receive(8, true, &mut Print), 1);
//! ```
//!
//! Everything has a bound ([`SimConfig`]), and after the links are open neither
//! `send` nor `receive` allocates.
#![forbid(unsafe_code)]

mod clock;
mod faults;
mod link;
mod net;
mod random;
mod state;

pub use clock::SimClock;
pub use faults::{Chance, Faults, PathCounts, WhenFull};
pub use link::{SimLink, SimPeer};
pub use net::{SimConfig, SimError, SimNet, SimPeers, SimSetup};
