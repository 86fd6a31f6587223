//! A child that was forked from a process with ports is told so, harms nothing, and may
//! drop what it inherited. One test a file: the child of a process with more threads at
//! work could find the allocator locked.

mod common;

use common::{TestSink, TestSource, assert_pattern, join, send};
use insane_core::ConnId;
use insane_shm::port::{ConsumeError, Emit, GetBufferError, Outcome, Refusal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::time::Duration;

/// Runs `child` in a forked process; its answer comes back.
fn in_child(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child calls the ports and the allocator, and exits without running
    // anything else; no other thread of the test is at work.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // SAFETY: plain calls that end the child: after ten seconds, or when it is done.
            unsafe {
                nix::libc::alarm(10);
                let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
                nix::libc::_exit(if good { 17 } else { 1 })
            }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => code == 17,
            other => panic!("the child ended by {other:?}"),
        },
    }
}

#[test]
fn a_child_is_told_and_the_parent_is_unharmed() {
    let (source, sink) = (TestSource::new(&[(200, 8)], false), TestSink::new());
    let rings = join(&source, &sink, 1, 8);
    for len in [150, 150, 20] {
        assert!(send(&source.port, len));
    }
    let (first, second) = (sink.port.consume().unwrap().unwrap(), sink.port.consume().unwrap().unwrap());
    let token = source.port.emit_copy(b"x", 0).unwrap().sent().unwrap();
    let loan = source.port.get_buffer(8).unwrap();

    assert!(in_child(|| {
        let refused = matches!(source.port.emit_copy(b"y", 0), Some(Emit::Refused((), Refusal::Forked)));
        let no_buffer = source.port.get_buffer(8).is_err_and(|error| error == GetBufferError::Forked);
        let known = matches!(source.port.outcome(token), Outcome::Published { .. });
        let forked = Some(ConsumeError::Forked);
        let empty = first.shared().is_empty();
        refused
            && no_buffer
            && known
            && empty
            && !source.port.has_receivers()
            && !sink.port.has_senders()
            && sink.port.consume().err() == forked
            && sink.port.is_ready().err() == forked
            && sink.port.arm().err() == forked
            && sink.port.sleep(Duration::from_secs(1)).err() == forked
            && !source.mailbox.remove(ConnId(1))
            && sink.mailbox.collect().is_empty()
            // Still forked: the child's own posts do not make it current.
            && sink.port.consume().err() == forked
    }));

    // Dropping a message in the child touches no ring.
    let everything = std::mem::ManuallyDrop::new((first, second));
    assert!(in_child(|| {
        // SAFETY: the parent's values; in the child these copies are the only ones used.
        let (first, second) = unsafe { std::ptr::read(&*everything) };
        drop(first);
        drop(second);
        true
    }));

    // Neither a small buffer that was out makes the child believe that one is free, nor one that
    // is free in the parent.
    let is_told = || source.port.get_buffer(8).is_err_and(|error| error == GetBufferError::Forked);
    let loan = std::mem::ManuallyDrop::new(loan);
    assert!(in_child(|| {
        // SAFETY: the parent's value; in the child this copy is the only one used.
        drop(std::mem::ManuallyDrop::into_inner(unsafe { std::ptr::read(&loan) }));
        is_told()
    }));
    drop(std::mem::ManuallyDrop::into_inner(loan));
    assert!(in_child(is_told));

    // The child drops all it has, after it mapped something of its own where the regions
    // of the parent are: that is not unmapped.
    let holes = [&rings.cells.writer, &rings.returns.writer].map(|region| region.as_ptr().addr());
    assert!(in_child(|| {
        let own = holes.map(|at| {
            let flags = nix::libc::MAP_PRIVATE | nix::libc::MAP_ANONYMOUS | nix::libc::MAP_FIXED_NOREPLACE;
            let both = nix::libc::PROT_READ | nix::libc::PROT_WRITE;
            // SAFETY: a new mapping that replaces none.
            let start = unsafe { nix::libc::mmap(at as *mut _, 4096, both, flags, -1, 0) };
            assert!(start.addr() == at, "the region is not mapped in the child");
            start.cast::<u64>()
        });
        // SAFETY: mapped just now.
        own.iter().for_each(|word| unsafe { word.write_volatile(7) });
        // SAFETY: copies of the parent's values; in the child these are the only ones used.
        unsafe {
            drop(std::mem::ManuallyDrop::into_inner(std::ptr::read(&everything)));
            drop(std::ptr::read(&rings));
            drop(std::ptr::read(&source));
            drop(std::ptr::read(&sink));
        }
        // SAFETY: still mapped, if nothing unmapped it.
        own.iter().all(|word| unsafe { word.read_volatile() } == 7)
    }));

    let (first, second) = std::mem::ManuallyDrop::into_inner(everything);
    assert_pattern(&first.shared().to_vec(), 0);
    assert_pattern(&second.shared().to_vec(), 1);
    drop((first, second));
    assert_pattern(sink.port.consume().unwrap().unwrap().bytes().unwrap(), 2);
    assert_eq!(sink.port.consume().unwrap().unwrap().sequence(), 3);
    assert!(send(&source.port, 150));
    assert_eq!(sink.port.consume().unwrap().unwrap().sequence(), 4);
    assert_eq!(source.port.buffers_in_use(), 0);

    // Forked while the port was about to look at its mail.
    assert!(send(&source.port, 1) && sink.mailbox.remove(ConnId(1)));
    assert_eq!(sink.port.consume().unwrap().unwrap().sequence(), 5);
    assert!(sink.port.consume().unwrap().is_none(), "drained: it goes with the next call");
    assert!(in_child(|| sink.port.consume().err() == Some(ConsumeError::Forked)));
}
