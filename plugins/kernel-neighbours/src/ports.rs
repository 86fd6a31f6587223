//! The link's two ports, held in the kernel.

use insane_sys::OsError;
use insane_sys::udp::{SocketOptions, bind};
use std::net::{SocketAddr, UdpSocket};

/// Least room that the kernel grants a socket, bytes.
const ROOM_BYTES: u32 = 1;

/// Sockets at the link's address and ports, from which nobody reads. With them no other socket of
/// the host takes those ports, and what of the link's flow reaches the kernel all the same (a
/// piece of a packet, a frame by another queue, all of it where the kernel gets a copy) is thrown
/// away there, without word to the sender that nobody listens.
#[derive(Debug)]
pub struct HeldPorts {
    _sockets: [UdpSocket; 2],
}

impl HeldPorts {
    /// Port P of `at`, and P+1; `interface` is where a link-local address is.
    ///
    /// # Errors
    /// Another socket has one of them (`EADDRINUSE`), the host does not have the address
    /// (`EADDRNOTAVAIL`), or there is no port after P (`EINVAL`).
    pub fn bind(at: SocketAddr, interface: u32) -> Result<Self, OsError> {
        let no_port = OsError::new("finding the port after the last", insane_sys::Errno::EINVAL);
        let options = SocketOptions { receive_buffer_bytes: Some(ROOM_BYTES), ..SocketOptions::default() };
        let hold = |port| {
            let mut at = at;
            at.set_port(port);
            if let SocketAddr::V6(v6) = &mut at
                && v6.ip().is_unicast_link_local()
            {
                v6.set_scope_id(interface);
            }
            bind(at, &options)
        };
        let next = at.port().checked_add(1).ok_or(no_port)?;
        Ok(HeldPorts { _sockets: [hold(at.port())?, hold(next)?] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_sys::Errno;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    #[test]
    fn ports_are_held_until_they_are_given_back() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            // Two ports in a row that are free now.
            let mut tries = 0..50;
            let (at, held) = loop {
                tries.next().expect("two ports in a row");
                let Ok(free) = UdpSocket::bind(any) else { return };
                let at = free.local_addr().unwrap();
                drop(free);
                if let Ok(held) = HeldPorts::bind(at, 0) {
                    break (at, held);
                }
            };
            for port in [at.port(), at.port() + 1] {
                let at = SocketAddr::new(at.ip(), port);
                assert!(UdpSocket::bind(at).is_err(), "{at}");
                // A connected socket would be told that nobody listens.
                let sender = UdpSocket::bind(any).unwrap();
                sender.connect(at).unwrap();
                for _ in 0..3 {
                    assert_eq!(sender.send(&[0; 1000]).unwrap(), 1000);
                }
            }
            assert_eq!(HeldPorts::bind(at, 0).unwrap_err().errno, Errno::EADDRINUSE);
            drop(held);
            // A child that another test of this program forks has a copy of each descriptor until
            // it executes its own program, and whoever asks for any port may get this one meanwhile.
            let enough = Instant::now() + Duration::from_secs(10);
            while let Err(error) = HeldPorts::bind(at, 0) {
                assert_eq!(error.errno, Errno::EADDRINUSE);
                assert!(Instant::now() < enough, "{at} and the next were not given back");
                sleep(Duration::from_millis(5));
            }
        }
        let last = SocketAddr::from(([127, 0, 0, 1], u16::MAX));
        assert_eq!(HeldPorts::bind(last, 0).unwrap_err().errno, Errno::EINVAL);
        let elsewhere = SocketAddr::from(([192, 0, 2, 77], 7400));
        assert_eq!(HeldPorts::bind(elsewhere, 0).unwrap_err().errno, Errno::EADDRNOTAVAIL);
    }
}
