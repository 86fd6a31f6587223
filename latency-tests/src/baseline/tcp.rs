//! Raw spinning TCP sockets: connected, `TCP_NODELAY`, non-blocking, one system call a
//! message.

use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How long one end waits for the other to be there.
const CONNECT_BOUND: Duration = Duration::from_secs(10);

/// One end of a conversation over one connection, by messages of one size.
pub struct TcpEnd {
    stream: TcpStream,
    composed: Vec<u8>,
    message: Vec<u8>,
    /// Bytes of the next message that are here.
    have: usize,
}

impl TcpEnd {
    /// Waits at `here` for the other end. In the network namespace of the calling
    /// thread.
    ///
    /// # Errors
    /// The address cannot be had, or nobody comes.
    pub fn accept(here: SocketAddr, size: usize) -> Result<Self, Fault> {
        Ok(Self::new(accept(here)?, size))
    }

    /// Connects to the other end as soon as it is there.
    ///
    /// # Errors
    /// It is not there in time.
    pub fn connect(there: SocketAddr, size: usize) -> Result<Self, Fault> {
        Ok(Self::new(connect(there)?, size))
    }

    /// Both ends on one address of this host.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn pair(address: IpAddr, size: usize) -> Result<(Self, Self), Fault> {
        let listener = TcpListener::bind((address, 0)).map_err(Fault::os("listen on a TCP socket"))?;
        let at = listener.local_addr().map_err(Fault::os("read a socket's address"))?;
        // The kernel completes the connection before it is accepted.
        let here = TcpStream::connect(at).map_err(Fault::os("connect a TCP socket"))?;
        let (there, _) = listener.accept().map_err(Fault::os("accept a TCP connection"))?;
        Ok((Self::new(prepared(here)?, size), Self::new(prepared(there)?, size)))
    }

    fn new(stream: TcpStream, size: usize) -> Self {
        TcpEnd { stream, composed: vec![0; size], message: vec![0; size], have: 0 }
    }
}

/// Waits at `here` for a connection.
///
/// # Errors
/// The address cannot be had, or nobody comes.
pub fn accept(here: SocketAddr) -> Result<TcpStream, Fault> {
    let listener = TcpListener::bind(here).map_err(Fault::os("listen on a TCP socket"))?;
    listener.set_nonblocking(true).map_err(Fault::os("make a TCP socket non-blocking"))?;
    let accept = || listener.accept().map(|(stream, _)| stream);
    prepared(retry(accept, ErrorKind::WouldBlock).map_err(Fault::os("accept a TCP connection"))?)
}

/// Connects to `there` as soon as somebody listens.
///
/// # Errors
/// Nobody does in time.
pub fn connect(there: SocketAddr) -> Result<TcpStream, Fault> {
    let connect = || TcpStream::connect_timeout(&there, CONNECT_BOUND);
    prepared(retry(connect, ErrorKind::ConnectionRefused).map_err(Fault::os("connect a TCP socket"))?)
}

fn prepared(stream: TcpStream) -> Result<TcpStream, Fault> {
    stream.set_nodelay(true).map_err(Fault::os("make a TCP socket send at once"))?;
    stream.set_nonblocking(true).map_err(Fault::os("make a TCP socket non-blocking"))?;
    Ok(stream)
}

/// Attempts until something else than `not_yet` comes of it, within the bound.
fn retry<T>(attempt: impl Fn() -> std::io::Result<T>, not_yet: ErrorKind) -> std::io::Result<T> {
    let end = Instant::now() + CONNECT_BOUND;
    loop {
        match attempt() {
            Err(error) if error.kind() == not_yet && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

impl End for TcpEnd {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        payload::write(&mut self.composed, number);
        match self.stream.write(&self.composed) {
            Ok(length) if length == self.composed.len() => Ok(true),
            // Its buffer holds hundreds of messages, and one is under way.
            Ok(length) => Err(Fault::Corrupt { expected: self.composed.len() as u64, found: length as u64 }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(Fault::os("send on a TCP socket")(error)),
        }
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        match self.stream.read(&mut self.message[self.have..]) {
            // The other end was stopped first; the watch of this one ends it.
            Ok(0) => Ok(None),
            Ok(count) => {
                self.have += count;
                if self.have < self.message.len() {
                    return Ok(None);
                }
                self.have = 0;
                payload::read(&self.message).map(Some)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset) => Ok(None),
            Err(error) => Err(Fault::os("receive on a TCP socket")(error)),
        }
    }
}
