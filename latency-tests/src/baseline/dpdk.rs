//! Raw DPDK: one port, through the same library in C as ours.
//!
//! What a competent engineer would write for one conversation: headers that are made once, a
//! frame to be sent taken from the port's memory, filled and handed over, with others where
//! there are more; of those that come, what is not of the conversation is thrown away.

use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload;
use crate::ours::dpdk::{self, Device};
use dpdk_sys::{Eal, EalError, EalOptions, Frame, Port, PortOptions, ShimError};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Ethernet, IPv4, UDP.
const HEAD_BYTES: usize = 14 + 20 + 8;
/// Both ports of a conversation.
const PORT: [u8; 2] = [0x5e, 0xb3];
/// Where the destination's port stands in a frame.
const AT_PORT: usize = 36;
/// Frames of a flow that go with one call.
const BATCH: usize = 32;
/// As the dpdk plugin has them.
const RING_FRAMES: u32 = 1024;
const POOL_FRAMES: u32 = 4095;

/// One end of a conversation by messages of one size.
pub struct DpdkEnd {
    port: Port,
    head: [u8; HEAD_BYTES],
    size: usize,
    batch: usize,
    unsent: Vec<Frame>,
}

impl DpdkEnd {
    /// An end on host `host`, in the network namespace of the calling thread. It knows its
    /// partner after [`meet`](Self::meet).
    ///
    /// # Errors
    /// `Unavailable` without DPDK.
    pub fn open(device: Device, host: usize, size: usize, is_flow: bool) -> Result<(Self, [u8; 6]), Fault> {
        let options = EalOptions { arguments: dpdk::arguments(), ..EalOptions::default() };
        let eal = Eal::start(&options).map_err(|error| match error {
            EalError::Shim(reason @ ShimError::Missing { .. }) => Fault::Unavailable(reason.to_string()),
            other => Fault::Party(other.to_string()),
        })?;
        let options = PortOptions {
            device: device.name(host),
            packet_bytes: 1500,
            ring_frames: RING_FRAMES,
            pool_frames: POOL_FRAMES,
            is_promiscuous: false,
        };
        let (port, info) = Port::open(eal, &options).map_err(|error| Fault::Party(error.to_string()))?;
        let batch = if is_flow { BATCH } else { 1 };
        let end = DpdkEnd { port, head: [0; HEAD_BYTES], size, batch, unsent: Vec::with_capacity(BATCH) };
        Ok((end, info.mac))
    }

    /// Waits until frames go somewhere: a memif is joined by threads of DPDK, and what is sent
    /// before that is gone.
    ///
    /// # Errors
    /// It is not up within five seconds.
    pub fn wait_until_up(&mut self) -> Result<(), Fault> {
        for _ in 0..500 {
            if self.port.is_up().is_ok_and(|is_up| is_up) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(Fault::Party("a device of DPDK is not up within five seconds".into()))
    }

    /// Makes the headers: a datagram without a checksum, which IPv4 allows.
    pub fn meet(&mut self, from: [u8; 6], to: [u8; 6]) {
        let head = &mut self.head;
        head[..6].copy_from_slice(&to);
        head[6..12].copy_from_slice(&from);
        head[12..14].copy_from_slice(&[8, 0]);
        let length = |bytes: usize| (bytes as u16).to_be_bytes();
        let ip = &mut head[14..34];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&length(28 + self.size));
        (ip[8], ip[9]) = (64, 17);
        ip[12..16].copy_from_slice(&Ipv4Addr::new(10, 231, 7, 41).octets());
        ip[16..20].copy_from_slice(&Ipv4Addr::new(10, 231, 7, 42).octets());
        let words = ip.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum: u32 = words.sum();
        let check = !(((sum & 0xffff) + (sum >> 16)) as u16);
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        head[34..36].copy_from_slice(&PORT);
        head[36..38].copy_from_slice(&PORT);
        head[38..40].copy_from_slice(&length(8 + self.size));
    }
}

impl End for DpdkEnd {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        if self.unsent.len() >= self.batch {
            self.port.send(&mut self.unsent);
            if self.unsent.len() >= self.batch {
                return Ok(false);
            }
        }
        let Some(mut frame) = self.port.reserve() else { return Ok(false) };
        let bytes = HEAD_BYTES + self.size;
        let room = &mut self.port.room(&frame)[..bytes];
        room[..HEAD_BYTES].copy_from_slice(&self.head);
        payload::write(&mut room[HEAD_BYTES..], number);
        frame.set_len(bytes);
        self.unsent.push(frame);
        if self.unsent.len() >= self.batch {
            self.port.send(&mut self.unsent);
        }
        Ok(true)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        let Some(frame) = self.port.receive() else { return Ok(None) };
        let bytes = self.port.bytes(&frame);
        let is_ours = bytes.len() >= HEAD_BYTES + self.size && bytes[AT_PORT..AT_PORT + 2] == PORT;
        let number = is_ours.then(|| payload::read(&bytes[HEAD_BYTES..HEAD_BYTES + self.size])).transpose();
        self.port.release(frame);
        number
    }
}

impl Drop for DpdkEnd {
    fn drop(&mut self) {
        self.unsent.drain(..).for_each(|frame| self.port.release(frame));
    }
}
