//! Raw TCP one way: connected, `TCP_NODELAY`, spinning; one write a message, and one read
//! of what is missing of it.

use super::tcp::{accept, connect};
use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// The sending end.
pub struct TcpPut {
    stream: TcpStream,
    message: Vec<u8>,
    /// Bytes of the message that have gone.
    gone: usize,
}

/// The receiving end.
pub struct TcpTake {
    stream: TcpStream,
    message: Vec<u8>,
    /// Bytes of the message that are here.
    have: usize,
}

impl TcpPut {
    /// Connects to the receiving end, which must be there within the bound; messages have
    /// `size` bytes. In the network namespace of the calling thread.
    ///
    /// # Errors
    /// It is not there in time.
    pub fn connect(there: SocketAddr, size: usize) -> Result<Self, Fault> {
        Ok(TcpPut { stream: connect(there)?, message: vec![0; size], gone: size })
    }
}

impl TcpTake {
    /// Waits at `here` for the sending end. In the network namespace of the calling thread.
    ///
    /// # Errors
    /// The address cannot be had, or nobody comes.
    pub fn accept(here: SocketAddr, size: usize) -> Result<Self, Fault> {
        Ok(TcpTake { stream: accept(here)?, message: vec![0; size], have: 0 })
    }
}

impl End for TcpPut {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        if self.gone == self.message.len() {
            payload::write(&mut self.message, number);
            self.gone = 0;
        }
        match self.stream.write(&self.message[self.gone..]) {
            Ok(count) => self.gone += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The other end was stopped first; the stage ends this one.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            Err(error) => return Err(Fault::os("send on a TCP socket")(error)),
        }
        Ok(self.gone == self.message.len())
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

impl End for TcpTake {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        Ok(false)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        match self.stream.read(&mut self.message[self.have..]) {
            Ok(count) => self.have += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset) => {}
            Err(error) => return Err(Fault::os("receive on a TCP socket")(error)),
        }
        if self.have < self.message.len() {
            return Ok(None);
        }
        self.have = 0;
        payload::read(&self.message).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn messages_of_every_size_arrive() {
        for size in [64, 1_000, 65_536, 1 << 20] {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
            let (mut put, mut take) = std::thread::scope(|scope| {
                let take = scope.spawn(|| TcpTake::accept(free, size).unwrap());
                (TcpPut::connect(free, size).unwrap(), take.join().unwrap())
            });
            for number in 0..3 {
                let mut received = None;
                // A message may be larger than what is under way at a time.
                let mut sent = false;
                while received.is_none() {
                    sent = sent || put.send(number).unwrap();
                    received = take.receive().unwrap();
                }
                assert_eq!(received, Some(number), "{size} bytes");
            }
        }
    }
}
