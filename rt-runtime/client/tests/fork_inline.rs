//! An application that forks and has its runtime inside its own calls: the child's engine is a
//! copy, but the sockets are the parent's. One test a file, as nobody else may hold the
//! allocator at the fork.

use insane_rt::{
    ChannelId, Emit, Hosting, Plan, Qos, Refusal, RequestError, Session, SinkOptions, SourceOptions, Stream,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::net::UdpSocket;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// Two ports in a row that are free now.
fn free_ports() -> u16 {
    (21_000..60_000)
        .step_by(2)
        .find(|port| [*port, port + 1].iter().all(|port| UdpSocket::bind(("127.0.0.1", *port)).is_ok()))
        .expect("free ports")
}

fn inline(name: &str, own: u16, peer: (&str, u16)) -> (Session, Stream) {
    let mut plan = Plan::embedded_udp(name, ([127, 0, 0, 1], own).into());
    plan.add_peer(peer.0, &[("udp", ([127, 0, 0, 1], peer.1).into())]);
    let session = Session::embedded_with(plan, Hosting::Inline, name).unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    (session, stream)
}

#[test]
fn a_child_takes_no_frame_that_is_its_parents() {
    let near = free_ports();
    let far = near + 2;
    let (near_session, near_stream) = inline("near", near, ("far", far));
    let (_far_session, far_stream) = inline("far", far, ("near", near));
    let sink = near_stream.sink(ChannelId(1), SinkOptions::default().polled()).unwrap();
    let source = far_stream.source(ChannelId(1), SourceOptions::small()).unwrap();
    source.wait_for_receivers(PATIENCE).unwrap();

    // A frame waits in the parent's socket while the child tries everything.
    assert!(source.emit_copy(b"for the parent").unwrap().is_sent());
    // SAFETY: the child calls what must not touch a thread of its parent, and ends at once.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            nix::unistd::alarm::set(10);
            let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let turned = (0..1_000).any(|_| near_session.turn());
                let consumed = sink.consume().is_err();
                let emitted = matches!(source.emit_copy(b"child"), Ok(Emit::Refused((), Refusal::Forked)));
                let waited = source.wait_for_receivers(Duration::from_millis(1));
                !turned && consumed && emitted && matches!(waited, Err(RequestError::NoReceiver))
            }));
            // SAFETY: ends the child at once.
            unsafe { nix::libc::_exit(if good.unwrap_or(false) { 17 } else { 1 }) }
        }
        ForkResult::Parent { child } => {
            assert!(matches!(waitpid(child, None).unwrap(), WaitStatus::Exited(_, 17)), "the child was told");
        }
    }
    let message = sink.consume_timeout(PATIENCE).unwrap().expect("the frame is still the parent's");
    assert_eq!(message.to_vec(), b"for the parent");
}
