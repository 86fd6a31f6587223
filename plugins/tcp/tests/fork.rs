//! A process with tcp links that forks: the child has the sockets, too, and they stay open when
//! the parent closes them. One test a file, as nobody else may hold the allocator at the fork.

mod common;

use common::*;
use insane_core::Nanos;
use insane_link::Link;
use insane_sys::event::{Epoll, Interest, Ready, Trigger};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pause};
use std::io::{ErrorKind, Read};

/// A process that does nothing, killed at the end.
struct Child(Pid);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}

fn is_readable(epoll: &Epoll) -> bool {
    epoll.wait(&mut [Ready::NONE; 1], Some(Nanos::from_millis(20))).unwrap() == 1
}

#[test]
fn connections_that_ended_wake_nobody_though_a_child_has_them_too() {
    let mut link = waiting_link();
    let peer = RawPeer::connect(&mut link);
    let epoll = Epoll::new().unwrap();
    epoll.add(link.readable_fds().next().unwrap(), 1, Interest::Read, Trigger::Level).unwrap();
    // SAFETY: the child calls nothing but what waits for a signal.
    let _child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // Should its parent not come to killing it.
            nix::unistd::alarm::set(60);
            loop {
                pause();
            }
        }
        ForkResult::Parent { child } => Child(child),
    };
    assert!(!is_readable(&epoll), "nothing came");
    // A connection that ends, and one that a new one of the peer replaces.
    let [real_time, best_effort] = peer.0;
    let _ = real_time.shutdown(std::net::Shutdown::Both);
    until("the loss is noticed", || {
        link.receive(64, true, &mut Keep::default());
        link.counts().lost == 1
    });
    assert!(!is_readable(&epoll), "what ended is heard no more");
    let new = RawPeer::connect(&mut link);
    best_effort.set_nonblocking(true).unwrap();
    until("the peer hears that it was replaced", || match (&best_effort).read(&mut [0; 64]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    });
    let _ = best_effort.shutdown(std::net::Shutdown::Both);
    assert_eq!(link.counts().replaced, 1);
    assert!(!is_readable(&epoll), "nor what was replaced");
    drop(new);
    until("these are noticed", || is_readable(&epoll));
}
