//! The network stack of links that bypass the kernel's: Ethernet with one VLAN tag, ARP,
//! neighbour discovery of IPv6, IPv4, IPv6, UDP, and the answer to an echo.
//!
//! It is what a datagram needs to reach an ordinary socket on another host, and no more: no
//! fragments, no extension headers, no routing table. Pure: no allocation, no clock, no
//! device. Frames are slices, time is an argument, memory is the caller's or of fixed size.
//!
//! | part | what it does |
//! |---|---|
//! | [`Stack`] | takes received frames, asks for neighbours and answers them |
//! | [`Template`] | headers of one flow, made once, written in front of each payload |
//! | [`Neighbours`] | who has which hardware address: a table of fixed size; asked for by frames, or of the kernel ([`Stack::borrowing`]) |
//! | [`Peers`] | who the peers of one link are, and which of them sent a datagram |
//! | [`Marks`] | what a lane becomes on the wire: priority and code point |
//!
//! # Invariants
//! - No frame makes it panic, and none is believed beyond its length and its checksums.
//! - A stranger cannot take a place in the table of neighbours: places are taken by the
//!   caller, for its peers. Who claims the address of a neighbour that is known is not
//!   believed until the known one has been asked and is silent.
//! - Each call does work bounded by the length of one frame, or by the number of places.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod arp;
mod checksum;
mod ethernet;
mod icmp;
mod ip;
mod known;
mod marks;
#[cfg(feature = "mutants")]
pub mod mutants;
mod neighbour;
mod outgoing;
mod peers;
mod spread;
mod stack;

pub use checksum::Sum;
pub use ethernet::{ETHERNET_BYTES, Mac, TAG_BYTES, VlanId};
pub use ip::{IPV4_BYTES, IPV6_BYTES, UDP_BYTES};
pub use known::Known;
pub use marks::Marks;
pub use neighbour::{NeighbourId, Neighbours, Question, Told};
pub use outgoing::{HEAD_BYTES_MAX, Template};
pub use peers::{Class, NEIGHBOURS, NoPlace, Peer, Peers, SIDES};
pub use spread::source_port;
pub use stack::{Checksums, Dropped, Host, HostError, Received, Stack};
