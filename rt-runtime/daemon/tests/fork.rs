//! An application that forks: the child may not use what its parent has, is told so, and
//! drops it without harm to the parent. One test a file, so that no other thread of this
//! program holds the allocator at the fork.

use insane_rt::{
    Attachment, ChannelId, Emit, GetBufferError, Qos, Refusal, RequestError, Session, SinkOptions, SourceOptions,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon and the directory of its socket, both gone at the end.
struct Daemon(Child, std::path::PathBuf);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

/// Runs `child` in a forked process; whether it ended well.
fn in_child(child: impl FnOnce() -> bool) -> bool {
    // SAFETY: the only other threads are agents that wait for their sockets; the child
    // takes none of their locks (that is what is tested), and ends by itself, or by the
    // alarm where it waits for a thread that is not there.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            nix::unistd::alarm::set(10);
            let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(false);
            // SAFETY: ends the child at once.
            unsafe { nix::libc::_exit(if good { 17 } else { 1 }) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, code) => code == 17,
            other => panic!("the child ended by {other:?}"),
        },
    }
}

#[test]
fn a_child_is_told_and_neither_its_calls_nor_its_end_harm_the_parent() {
    let place = std::env::temp_dir().join(format!("insaned-fork-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let (config, socket) = (place.join("insaned.ron"), place.join("insaned.sock"));
    let text = format!(
        "(host: (name: \"test\"), control: (socket: {socket:?}), domains: [(name: \"d\", members: [any])], \
         log: (level: error))"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_insaned"));
    command.arg("--config").arg(&config).env_remove("NOTIFY_SOCKET").stdout(Stdio::null());
    let _daemon = Daemon(command.spawn().unwrap(), place);
    let start = Instant::now();
    let mut session = loop {
        match Session::attach(&socket, "parent") {
            Ok(session) => break Some(session),
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let other = Session::attach(&socket, "other").unwrap();
    let mut stream = Some(session.as_ref().unwrap().stream("s", Qos::default()).unwrap());
    let of_other = other.stream("s", Qos::default()).unwrap();
    let sink = of_other.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let (calls, called) = std::sync::mpsc::channel();
    let callback = stream.as_ref().unwrap().sink_with_callback(ChannelId(2), SinkOptions::default(), move |_| {
        let _ = calls.send(());
    });
    let mut callback = Some(callback.unwrap());
    let mut source = Some(stream.as_ref().unwrap().source(ChannelId(1), SourceOptions::default()).unwrap());
    source.as_ref().unwrap().wait_for_receivers(PATIENCE).unwrap();

    assert!(in_child(|| {
        let (session, stream, source) = (session.take().unwrap(), stream.take().unwrap(), source.take().unwrap());
        let emitted = matches!(source.emit_copy(b"child"), Ok(Emit::Refused((), Refusal::Forked)));
        let loaned = matches!(source.get_buffer(500), Err(GetBufferError::Forked));
        let opened = matches!(session.stream("t", Qos::default()), Err(RequestError::Forked));
        let created = matches!(stream.source(ChannelId(1), SourceOptions::small()), Err(RequestError::Forked));
        let created = created && matches!(stream.sink(ChannelId(1), SinkOptions::default()), Err(RequestError::Forked));
        let consumed = sink.consume().is_err();
        // As an application does that returns from where it forked.
        drop((callback.take(), source, stream, session));
        emitted && loaned && opened && created && consumed
    }));

    let source = source.as_ref().unwrap();
    for number in 0..100_u8 {
        assert!(source.emit_copy(&[number; 1000]).unwrap().is_sent());
        let message = sink.consume_timeout(PATIENCE).unwrap().expect("every message");
        assert_eq!((message.to_vec(), message.lost()), (vec![number; 1000], 0));
    }
    assert_eq!(session.as_ref().unwrap().attachment(), Attachment::Attached);
    let again = stream.as_ref().unwrap().source(ChannelId(2), SourceOptions::small()).unwrap();
    again.wait_for_receivers(PATIENCE).unwrap();
    assert!(again.emit_copy(b"call").unwrap().is_sent());
    called.recv_timeout(PATIENCE).expect("the callback is called");
    drop(callback);
}
