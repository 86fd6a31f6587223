//! Raw spinning UDP sockets: connected, non-blocking, one system call a message.

use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// One end of a conversation between two sockets, by messages of one size.
pub struct UdpEnd {
    socket: UdpSocket,
    composed: Vec<u8>,
    message: Vec<u8>,
}

impl UdpEnd {
    /// A socket at `here` that talks to `there` alone. Opened in the network
    /// namespace of the calling thread.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn open(here: SocketAddr, there: SocketAddr, size: usize) -> Result<Self, Fault> {
        let socket = UdpSocket::bind(here).map_err(Fault::os("bind a UDP socket"))?;
        Self::connected(socket, there, size)
    }

    /// Two sockets on one address of this host.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn pair(address: IpAddr, size: usize) -> Result<(Self, Self), Fault> {
        let open = || UdpSocket::bind((address, 0)).map_err(Fault::os("bind a UDP socket"));
        let local = |socket: &UdpSocket| socket.local_addr().map_err(Fault::os("read a socket's address"));
        let (here, there) = (open()?, open()?);
        let (at_here, at_there) = (local(&here)?, local(&there)?);
        Ok((Self::connected(here, at_there, size)?, Self::connected(there, at_here, size)?))
    }

    /// One socket that talks to itself.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn to_itself(address: IpAddr, size: usize) -> Result<Self, Fault> {
        let socket = UdpSocket::bind((address, 0)).map_err(Fault::os("bind a UDP socket"))?;
        let own = socket.local_addr().map_err(Fault::os("read a socket's address"))?;
        Self::connected(socket, own, size)
    }

    fn connected(socket: UdpSocket, there: SocketAddr, size: usize) -> Result<Self, Fault> {
        socket.connect(there).map_err(Fault::os("connect a UDP socket"))?;
        socket.set_nonblocking(true).map_err(Fault::os("make a UDP socket non-blocking"))?;
        Ok(UdpEnd { socket, composed: vec![0; size], message: vec![0; size] })
    }
}

impl End for UdpEnd {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        payload::write(&mut self.composed, number);
        match self.socket.send(&self.composed) {
            Ok(_) => Ok(true),
            // Refused: the other end has not opened its socket yet.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => Ok(false),
            Err(error) => Err(Fault::os("send on a UDP socket")(error)),
        }
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        match self.socket.recv(&mut self.message) {
            Ok(length) if length == self.message.len() => payload::read(&self.message).map(Some),
            Ok(length) => Err(Fault::Corrupt { expected: self.message.len() as u64, found: length as u64 }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(Fault::os("receive on a UDP socket")(error)),
        }
    }
}
