//! A ring between two parties that share nothing but a socket: one makes a
//! memfd, both map it. What a hand-written program pays before its first message.

use crate::memory::Memory;
use crate::ring::{BytesConsumer, BytesProducer, memory_bytes};
use memmap2::MmapRaw;
use nix::cmsg_space;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Capacity and message size, as they cross the socket beside the descriptor.
const OFFER_BYTES: usize = 16;
/// What the accepting side answers once it has mapped the ring.
const MAPPED: u8 = 1;

/// Makes a ring of `capacity` messages of `size` bytes, passes it over the
/// socket and waits until the other side has mapped it.
///
/// # Errors
/// The socket, the memfd or the mapping failed.
pub fn offer_ring(mut socket: &UnixStream, capacity: usize, size: usize) -> io::Result<BytesProducer> {
    let file = File::from(memfd_create(c"raw-ring", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(memory_bytes(capacity, size) as u64)?;
    let memory = Arc::new(Memory::map(MmapRaw::map_raw(&file)?));
    let mut offer = [0; OFFER_BYTES];
    offer[..8].copy_from_slice(&(capacity as u64).to_le_bytes());
    offer[8..].copy_from_slice(&(size as u64).to_le_bytes());
    let fds = [file.as_raw_fd()];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&offer)],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::empty(),
        None,
    )?;
    let mut answer = [0];
    socket.read_exact(&mut answer)?;
    if answer[0] != MAPPED {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    // SAFETY: the memfd was made above and its only other mapping is that of the
    // accepting side, which builds a consumer.
    Ok(unsafe { BytesProducer::over(&memory, capacity, size) })
}

/// The other side of [`offer_ring`].
///
/// # Errors
/// The socket or the mapping failed, or no ring came.
pub fn accept_ring(mut socket: &UnixStream) -> io::Result<BytesConsumer> {
    let mut offer = [0; OFFER_BYTES];
    let file = receive_offer(socket, &mut offer)?;
    let word = |at: usize| u64::from_le_bytes(offer[at..at + 8].try_into().expect("eight bytes")) as usize;
    let (capacity, size) = (word(0), word(8));
    let memory = Arc::new(Memory::map(MmapRaw::map_raw(&file)?));
    // SAFETY: the descriptor came from `offer_ring`, which builds the producer, and
    // arrives once, so this is the only consumer.
    let consumer = unsafe { BytesConsumer::over(&memory, capacity, size) };
    socket.write_all(&[MAPPED])?;
    Ok(consumer)
}

fn receive_offer(socket: &UnixStream, offer: &mut [u8; OFFER_BYTES]) -> io::Result<File> {
    let mut space = cmsg_space!(RawFd);
    let mut buffers = [IoSliceMut::new(offer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut space), flags)?;
    let complete = message.bytes == OFFER_BYTES;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let (Some(&fd), true) = (fds.first(), complete)
        {
            // SAFETY: the kernel has just installed this descriptor for us and
            // nobody else knows its number.
            return Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Err(io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_passed_over_a_socket_carries_messages() {
        let (here, there) = UnixStream::pair().unwrap();
        let accepting = std::thread::spawn(move || {
            let mut take = accept_ring(&there).unwrap();
            let mut message = [0; 100];
            while !take.pop(&mut message) {
                std::thread::yield_now();
            }
            message
        });
        let mut put = offer_ring(&here, 8, 100).unwrap();
        assert!(put.push(&[7; 100]));
        assert_eq!(accepting.join().unwrap(), [7; 100]);
    }

    #[test]
    fn an_offer_without_a_descriptor_is_refused() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&[0; OFFER_BYTES]).unwrap();
        assert!(accept_ring(&there).is_err());
    }
}
