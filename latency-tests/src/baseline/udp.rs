//! Raw spinning UDP sockets: connected, non-blocking, one system call a message.

use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

const MESSAGE_BYTES: usize = super::ring::MESSAGE_BYTES;

/// One end of a conversation between two sockets.
pub struct UdpEnd {
    socket: UdpSocket,
    message: [u8; MESSAGE_BYTES],
}

impl UdpEnd {
    /// A socket at `here` that talks to `there` alone. Opened in the network
    /// namespace of the calling thread.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn open(here: SocketAddr, there: SocketAddr) -> Result<Self, Fault> {
        let socket = UdpSocket::bind(here).map_err(Fault::os("bind a UDP socket"))?;
        Self::connected(socket, there)
    }

    /// Two sockets on one address of this host.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn pair(address: IpAddr) -> Result<(Self, Self), Fault> {
        let open = || UdpSocket::bind((address, 0)).map_err(Fault::os("bind a UDP socket"));
        let local = |socket: &UdpSocket| socket.local_addr().map_err(Fault::os("read a socket's address"));
        let (here, there) = (open()?, open()?);
        let (at_here, at_there) = (local(&here)?, local(&there)?);
        Ok((Self::connected(here, at_there)?, Self::connected(there, at_here)?))
    }

    /// One socket that talks to itself.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn to_itself(address: IpAddr) -> Result<Self, Fault> {
        let socket = UdpSocket::bind((address, 0)).map_err(Fault::os("bind a UDP socket"))?;
        let own = socket.local_addr().map_err(Fault::os("read a socket's address"))?;
        Self::connected(socket, own)
    }

    fn connected(socket: UdpSocket, there: SocketAddr) -> Result<Self, Fault> {
        socket.connect(there).map_err(Fault::os("connect a UDP socket"))?;
        socket.set_nonblocking(true).map_err(Fault::os("make a UDP socket non-blocking"))?;
        Ok(UdpEnd { socket, message: [0; MESSAGE_BYTES] })
    }
}

impl End for UdpEnd {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        let mut message = [0; MESSAGE_BYTES];
        payload::write(&mut message, number);
        match self.socket.send(&message) {
            Ok(_) => Ok(true),
            // Refused: the other end has not opened its socket yet.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => Ok(false),
            Err(error) => Err(Fault::os("send on a UDP socket")(error)),
        }
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        match self.socket.recv(&mut self.message) {
            Ok(MESSAGE_BYTES) => payload::read(&self.message).map(Some),
            Ok(length) => Err(Fault::Corrupt { expected: MESSAGE_BYTES as u64, found: length as u64 }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(Fault::os("receive on a UDP socket")(error)),
        }
    }
}
