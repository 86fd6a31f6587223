use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// A path of its own for each test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("insane-sys-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Scratch(folder)
    }
    fn path(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn packet(outcome: RecvOutcome) -> Received {
    match outcome {
        RecvOutcome::Packet(received) => received,
        other => panic!("expected a packet, got {other:?}"),
    }
}

#[test]
fn packets_keep_their_bounds_and_bring_descriptors() {
    let (near, far) = pair().unwrap();
    let region = crate::memfd::create("test", 4096).unwrap();
    assert_eq!(send(&near, b"one", &[region.as_fd(), near.as_fd()]).unwrap(), SendOutcome::Sent);
    assert_eq!(send(&near, b"three", &[]).unwrap(), SendOutcome::Sent);
    let mut buffer = [0; 64];
    let first = packet(recv(&far, &mut buffer).unwrap());
    assert_eq!((&buffer[..first.len], first.truncated, first.fds.len()), (&b"one"[..], false, 2));
    assert_eq!(crate::memfd::len(&first.fds[0]).unwrap(), 4096);
    let flags = nix::fcntl::fcntl(&first.fds[0], nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_ne!(flags & libc::FD_CLOEXEC, 0);
    let second = packet(recv(&far, &mut buffer).unwrap());
    assert_eq!((&buffer[..second.len], second.fds.len()), (&b"three"[..], 0));
    assert!(matches!(recv(&far, &mut buffer).unwrap(), RecvOutcome::WouldBlock));
    drop(first);
    drop(near);
    assert!(matches!(recv(&far, &mut buffer).unwrap(), RecvOutcome::Closed));
    assert_eq!(send(&far, b"x", &[]).unwrap(), SendOutcome::Closed);
}

#[test]
fn a_packet_that_does_not_fit_is_reported_as_truncated() {
    let (near, far) = pair().unwrap();
    assert_eq!(send(&near, &[7; 100], &[]).unwrap(), SendOutcome::Sent);
    let mut buffer = [0; 10];
    let received = packet(recv(&far, &mut buffer).unwrap());
    assert!(received.truncated);
    assert_eq!(received.len, 10);
}

/// Sends `count` copies of descriptor 2, more than `send` allows.
fn send_many_fds(fd: &OwnedFd, bytes: &[u8], count: usize) {
    let fds = vec![2; count];
    let rights = [nix::sys::socket::ControlMessage::ScmRights(&fds)];
    let parts = [std::io::IoSlice::new(bytes)];
    nix::sys::socket::sendmsg::<()>(fd.as_raw_fd(), &parts, &rights, nix::sys::socket::MsgFlags::empty(), None)
        .unwrap();
}

/// Counting descriptors needs a process without other tests: this one runs itself.
#[test]
fn no_descriptor_leaks_whatever_a_peer_sends() {
    const CHILD: &str = "INSANE_SYS_FD_LEAK_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "seqpacket::tests::no_descriptor_leaks_whatever_a_peer_sends", "--test-threads=1"]);
        let output = command.env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let (near, far) = pair().unwrap();
    let before = open_fds();
    let mut buffer = [0; 4];
    for count in [1, 7, 8, 9, 20, 253] {
        send_many_fds(&near, b"more", count);
        let received = packet(recv(&far, &mut buffer).unwrap());
        assert_eq!(received.truncated, count > FDS_MAX);
        assert_eq!(received.fds.len(), count.min(FDS_MAX));
        drop(received);
        assert_eq!(open_fds(), before, "{count} descriptors");
        send_many_fds(&near, b"longer than the buffer", count);
        assert!(packet(recv(&far, &mut buffer).unwrap()).truncated);
        assert_eq!(open_fds(), before, "{count} descriptors beside a long packet");
        send_many_fds(&near, b"", count);
        assert!(matches!(recv(&far, &mut buffer).unwrap(), RecvOutcome::Closed));
        assert_eq!(open_fds(), before, "{count} descriptors beside an empty packet");
    }
}

#[test]
fn what_send_cannot_carry_is_refused() {
    let (near, _far) = pair().unwrap();
    assert_eq!(send(&near, b"", &[]).unwrap_err().errno, Errno::EINVAL);
    assert_eq!(send(&near, b"x", &[near.as_fd(); FDS_MAX + 1]).unwrap_err().errno, Errno::EINVAL);
}

#[test]
fn a_full_queue_is_an_outcome() {
    let (near, _far) = pair().unwrap();
    let full = (0..100_000).any(|_| send(&near, &[0; 1000], &[]).unwrap() == SendOutcome::WouldBlock);
    assert!(full);
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let scratch = Scratch::new();
    let path = scratch.path();
    assert!(matches!(connect(&path), Err(PathError::NobodyThere { errno: Errno::ENOENT, .. })));
    let first = listen(&path).unwrap();
    assert_eq!(listen(&path).unwrap_err(), PathError::InUse { path: path.clone() });
    assert!(connect(&path).is_ok(), "the live one still answers");
    drop(first);
    assert!(matches!(connect(&path), Err(PathError::NobodyThere { errno: Errno::ECONNREFUSED, .. })));
    let second = listen(&path).unwrap();
    let client = connect(&path).unwrap();
    let server = accept(&second).unwrap().unwrap();
    assert!(accept(&second).unwrap().is_none());
    assert_eq!(send(&client, b"hello", &[]).unwrap(), SendOutcome::Sent);
    assert_eq!(packet(recv(&server, &mut [0; 8]).unwrap()).len, 5);
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path(), "precious").unwrap();
    assert_eq!(listen(&scratch.path()).unwrap_err(), PathError::NotASocket { path: scratch.path() });
    assert_eq!(std::fs::read_to_string(scratch.path()).unwrap(), "precious");
}

#[test]
fn the_kernel_says_who_is_there() {
    let (near, _far) = pair().unwrap();
    let credentials = peer_credentials(&near).unwrap();
    assert_eq!(credentials.pid, i32::try_from(std::process::id()).unwrap());
    assert_eq!(credentials.uid, nix::unistd::geteuid().as_raw());
    let by_socket = peer_pidfd(&near).expect("a descriptor of this process");
    let by_number = open_pidfd(credentials.pid).expect("a descriptor of this process");
    let mut waits = [&by_socket, &by_number].map(|fd| nix::poll::PollFd::new(fd.as_fd(), nix::poll::PollFlags::POLLIN));
    assert_eq!(nix::poll::poll(&mut waits, 0u8).unwrap(), 0, "this process lives");
}

#[test]
fn wakes_never_block_and_clear_with_few_calls() {
    let (waiter, waker) = wake_socket_pair().unwrap();
    for _ in 0..10_000 {
        assert_eq!(wake_send(&waker), SendOutcome::Sent);
    }
    let mut calls = 0;
    loop {
        let mut waits = [nix::poll::PollFd::new(waiter.as_fd(), nix::poll::PollFlags::POLLIN)];
        if nix::poll::poll(&mut waits, 0u8).unwrap() == 0 {
            break;
        }
        assert!(wake_clear(&waiter));
        calls += 1;
    }
    assert!(calls > 0 && calls < 100, "{calls}");
    assert!(wake_clear(&waiter), "nothing pending is not an end");
    drop(waker);
    assert!(!wake_clear(&waiter));
    assert_eq!(wake_send(&waiter), SendOutcome::Closed);
}
