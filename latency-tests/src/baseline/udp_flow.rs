//! Raw UDP one way: one system call a datagram, one datagram a message. A message that
//! does not fit into one goes in several, each with its place in front.

use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload;
use insane_sys::udp::{SocketOptions, bind};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

/// Largest datagram on Ethernet with its usual MTU.
const DATAGRAM_BYTES: usize = 1500 - 20 - 8;
/// In front of a part: number of the message, offset of the part.
const PLACE_BYTES: usize = 16;
const PART_BYTES: usize = DATAGRAM_BYTES - PLACE_BYTES;

/// The sending end.
pub struct UdpPut {
    socket: UdpSocket,
    message: Vec<u8>,
    part: [u8; DATAGRAM_BYTES],
    /// Bytes of the message in `message` that have gone.
    gone: usize,
}

/// The receiving end.
pub struct UdpTake {
    socket: UdpSocket,
    message: Vec<u8>,
    part: [u8; DATAGRAM_BYTES],
    /// The message that is being put together, and how many bytes of it are there.
    number: u64,
    there: usize,
}

/// A connected socket with as much room as the runtime's has.
fn open(here: SocketAddr, there: SocketAddr) -> Result<UdpSocket, Fault> {
    let options = SocketOptions {
        receive_buffer_bytes: Some(4 << 20),
        send_buffer_bytes: Some(1 << 20),
        ..SocketOptions::default()
    };
    let socket = bind(here, &options).map_err(|error| Fault::Party(error.to_string()))?;
    socket.connect(there).map_err(Fault::os("connect a UDP socket"))?;
    Ok(socket)
}

impl UdpPut {
    /// The end at `here` that sends messages of `size` bytes to `there`.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn open(here: SocketAddr, there: SocketAddr, size: usize) -> Result<Self, Fault> {
        Ok(UdpPut { socket: open(here, there)?, message: vec![0; size], part: [0; DATAGRAM_BYTES], gone: size })
    }

    fn send_bytes(socket: &UdpSocket, bytes: &[u8]) -> Result<bool, Fault> {
        match socket.send(bytes) {
            Ok(_) => Ok(true),
            // Refused: the other end has not opened its socket yet.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => Ok(false),
            Err(error) => Err(Fault::os("send on a UDP socket")(error)),
        }
    }
}

impl End for UdpPut {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        let size = self.message.len();
        if self.gone == size {
            payload::write(&mut self.message, number);
            self.gone = 0;
        }
        if size <= DATAGRAM_BYTES {
            let sent = Self::send_bytes(&self.socket, &self.message)?;
            self.gone = if sent { size } else { 0 };
            return Ok(sent);
        }
        while self.gone < size {
            let bytes = &self.message[self.gone..size.min(self.gone + PART_BYTES)];
            self.part[..8].copy_from_slice(&number.to_le_bytes());
            self.part[8..PLACE_BYTES].copy_from_slice(&(self.gone as u64).to_le_bytes());
            self.part[PLACE_BYTES..PLACE_BYTES + bytes.len()].copy_from_slice(bytes);
            if !Self::send_bytes(&self.socket, &self.part[..PLACE_BYTES + bytes.len()])? {
                return Ok(false);
            }
            self.gone += bytes.len();
        }
        Ok(true)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

impl UdpTake {
    /// The end at `here` that receives messages of `size` bytes from `there`.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn open(here: SocketAddr, there: SocketAddr, size: usize) -> Result<Self, Fault> {
        let socket = open(here, there)?;
        Ok(UdpTake { socket, message: vec![0; size], part: [0; DATAGRAM_BYTES], number: 0, there: 0 })
    }

    fn next(&mut self) -> Result<Option<usize>, Fault> {
        match self.socket.recv(&mut self.part) {
            Ok(length) => Ok(Some(length)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(Fault::os("receive on a UDP socket")(error)),
        }
    }
}

impl End for UdpTake {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        Ok(false)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        let size = self.message.len();
        let Some(length) = self.next()? else { return Ok(None) };
        let wrong = |length: usize| Fault::Corrupt { expected: size as u64, found: length as u64 };
        if size <= DATAGRAM_BYTES {
            return if length == size { payload::read(&self.part[..size]).map(Some) } else { Err(wrong(length)) };
        }
        let word = |at: usize| u64::from_le_bytes(self.part[at..at + 8].try_into().expect("eight bytes"));
        let (number, offset) = (word(0), word(8) as usize);
        let bytes = self.part.get(PLACE_BYTES..length).ok_or_else(|| wrong(length))?;
        let place = self.message.get_mut(offset..offset + bytes.len()).ok_or_else(|| wrong(offset))?;
        if number != self.number {
            (self.number, self.there) = (number, 0);
        }
        place.copy_from_slice(bytes);
        self.there += bytes.len();
        if self.there < size {
            return Ok(None);
        }
        self.there = 0;
        payload::read(&self.message).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn messages_of_every_size_arrive() {
        for size in [64, 1024, 1472, 1480, 65_536] {
            let free = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
            let (here, there) = (free(), free());
            let mut put = UdpPut::open(here, there, size).unwrap();
            let mut take = UdpTake::open(there, here, size).unwrap();
            for number in 0..3 {
                assert!(put.send(number).unwrap());
                let received = (0..100).find_map(|_| take.receive().unwrap());
                assert_eq!(received, Some(number), "{size} bytes");
            }
            assert_eq!(take.receive().unwrap(), None);
        }
    }
}
