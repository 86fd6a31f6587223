//! What may come through the control socket.

use crate::peer::Peer;
use crate::world::{Daemon, Helper, Noise, OPEN, Place, closing, until};
use insane_core::{ChannelId, ConnId, Nanos, Qos, SinkId, SourceId, StreamId};
use insane_rt::{Attachment, RequestError, SinkOptions, SourceOptions};
use insane_sys::seqpacket;
use insane_wire::control::{
    Code, Event, Hello, PACKET_BYTES_MAX, Request, Role, SinkWake, VERSION_MAX, VERSION_MIN, encode, encode_hello,
};
use nix::sys::signal::{Signal, kill};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const QUIET: &str = "log: (level: error)";

fn hello() -> Vec<u8> {
    encode_hello(&Hello { name: "attacker".into(), domain: None, role: Role::Application })
}

/// A session that was there before the attack, and is served after it.
struct Bystander(Peer, StreamId);

impl Bystander {
    fn new(daemon: &Daemon) -> Self {
        let mut peer = daemon.peer();
        let stream = peer.open("bystander", Qos::default(), false);
        Bystander(peer, stream)
    }

    fn is_served(&mut self) {
        let source = self.0.source(self.1, &[]).unwrap();
        let sink = self.0.sink(self.1, SinkWake::Page).unwrap();
        until("its source and sink are joined", || {
            self.0.poll();
            !self.0.tx.is_empty()
        });
        self.0.emit(1, b"still here");
        assert_eq!(self.0.consume(), b"still here");
        self.0.close_source(source);
        self.0.close_sink(sink);
        self.0.poll();
        self.0.rx.clear();
        assert_eq!(self.0.closed, None);
    }
}

/// Sends raw bytes; what does not even fit the socket is no attack.
fn send_raw(peer: &Peer, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
    seqpacket::send(&peer.socket, bytes, fds).is_ok()
}

#[test]
fn garbage_of_every_length_ends_the_session_that_sent_it() {
    let place = Place::new("garbage");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let mut bystander = Bystander::new(&daemon);
    let before = daemon.footprint();
    let mut noise = Noise(1);
    let lengths = (1..40).chain([100, 1000, PACKET_BYTES_MAX, PACKET_BYTES_MAX + 1, 100_000, 200_000]);
    for len in lengths {
        for greeted in [false, true] {
            let mut peer = if greeted { daemon.peer() } else { Peer::new(daemon.connect()) };
            let mut bytes = noise.bytes(len);
            // No request has so high a number.
            bytes[0] |= 0x80;
            if send_raw(&peer, &bytes, &[]) {
                let (code, reason) = closing(&mut peer).expect("a reason");
                assert!(code == Code::Protocol && !reason.is_empty(), "{len} bytes: {code:?} {reason}");
            }
        }
    }
    for cut in 1..hello().len() {
        let mut peer = Peer::new(daemon.connect());
        peer.send_bytes(&hello()[..cut]);
        assert_eq!(closing(&mut peer).expect("a reason").0, Code::Protocol, "a HELLO of {cut} bytes");
    }
    // An empty packet cannot be told from the end.
    let mut peer = daemon.peer();
    nix::sys::socket::send(peer.socket.as_raw_fd(), &[], nix::sys::socket::MsgFlags::empty()).unwrap();
    assert_eq!(closing(&mut peer), None);
    assert!(daemon.is_alive());
    bystander.is_served();
    daemon.returns_to(before);
}

#[test]
fn requests_with_random_fields_are_refused_or_end_the_session() {
    let place = Place::new("fields");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let mut bystander = Bystander::new(&daemon);
    let before = daemon.footprint();
    let mut noise = Noise(2);
    for _ in 0..60 {
        let mut peer = daemon.peer();
        let stream = peer.open("s", Qos::default(), false);
        let source = peer.source(stream, &[]).unwrap();
        let samples = [
            Request::OpenStream { req: 1, name: "x".repeat(30), qos: Qos::default(), isolated: false },
            Request::CreateSource {
                req: 2,
                stream,
                channel: ChannelId(1),
                uid: 7,
                classes: crate::peer::HEAP.to_vec(),
                schema: None,
                keeps: false,
                line: None,
            },
            Request::CreateSink {
                req: 3,
                stream,
                channel: ChannelId(1),
                uid: 7,
                depth: 64,
                wake: SinkWake::Fd,
                schema: None,
                line: None,
            },
            Request::CloseSource { req: 4, source },
            Request::Status { req: 5 },
        ];
        for _ in 0..20 {
            let mut bytes = encode(&samples[noise.below(5) as usize]);
            for _ in 0..noise.below(4) {
                let at = noise.below(bytes.len() as u64) as usize;
                bytes[at] = noise.next() as u8;
            }
            // The session may be over by now.
            let _ = send_raw(&peer, &bytes, &[]);
        }
        while let Some(Some(_)) = peer.next(Nanos::from_millis(2)) {}
    }
    assert!(daemon.is_alive());
    bystander.is_served();
    daemon.returns_to(before);
}

#[test]
fn versions_that_do_not_meet_are_told_so() {
    let place = Place::new("versions");
    let daemon = Daemon::start(&place, OPEN, "");
    let mut bystander = Bystander::new(&daemon);
    for (min, max) in [(VERSION_MAX + 1, VERSION_MAX + 9), (0, 0), (1, VERSION_MIN - 1), (u16::MAX, u16::MAX), (9, 0)] {
        let mut packet = hello();
        packet[4..6].copy_from_slice(&min.to_le_bytes());
        packet[6..8].copy_from_slice(&max.to_le_bytes());
        let mut peer = Peer::new(daemon.connect());
        peer.send_bytes(&packet);
        let (code, reason) = closing(&mut peer).expect("a reason");
        assert_eq!(code, Code::Version);
        let (ours, theirs) = (format!("{VERSION_MIN} to {VERSION_MAX}"), format!("the client {min} to {max}"));
        assert!(reason.contains(&ours) && reason.contains(&theirs), "both are named: {reason}");
        assert!(reason.contains("run both from one build"), "what helps: {reason}");
        until("the log says it", || daemon.log().contains(&theirs));
        // What comes behind the prefix may be of any form in another version.
        let mut peer = Peer::new(daemon.connect());
        peer.send_bytes(&packet[..8]);
        assert_eq!(closing(&mut peer).expect("a reason").0, Code::Version);
    }
    let mut peer = Peer::new(daemon.connect());
    let mut packet = hello();
    packet[0] ^= 1;
    peer.send_bytes(&packet);
    assert_eq!(closing(&mut peer).expect("a reason").0, Code::Protocol);
    bystander.is_served();
}

#[test]
fn descriptors_that_nobody_asked_for_end_the_session_and_are_closed() {
    let place = Place::new("fds");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let mut bystander = Bystander::new(&daemon);
    let before = daemon.footprint();
    let file = std::fs::File::open("/dev/null").unwrap();
    for count in [1, 2, 3, 8] {
        let fds = vec![file.as_fd(); count];
        let mut peer = Peer::new(daemon.connect());
        assert!(send_raw(&peer, &hello(), &fds));
        // One might be a counters page of an earlier life; this is none.
        let code = if count == 1 { Code::Resources } else { Code::Protocol };
        assert_eq!(closing(&mut peer).expect("a reason").0, code);
        for request in [
            Request::OpenStream { req: 1, name: "x".into(), qos: Qos::default(), isolated: false },
            Request::Status { req: 1 },
            Request::SessionMapped,
            Request::CloseSink { req: 1, sink: SinkId(1) },
        ] {
            let mut peer = daemon.peer();
            assert!(send_raw(&peer, &encode(&request), &fds));
            assert_eq!(closing(&mut peer).expect("a reason").0, Code::Protocol, "{request:?}");
        }
    }
    // More than are ever taken.
    let mut peer = daemon.peer();
    let many = [file.as_raw_fd(); 100];
    let (bytes, beside) = (encode(&Request::Status { req: 1 }), [nix::sys::socket::ControlMessage::ScmRights(&many)]);
    let parts = [std::io::IoSlice::new(&bytes)];
    let flags = nix::sys::socket::MsgFlags::empty();
    nix::sys::socket::sendmsg::<()>(peer.socket.as_raw_fd(), &parts, &beside, flags, None).unwrap();
    assert_eq!(closing(&mut peer).expect("a reason").0, Code::Protocol);
    // A socket that holds itself in its own queue.
    let peer = Peer::new(daemon.connect());
    let _ = send_raw(&peer, &hello(), &[peer.socket.as_fd()]);
    drop(peer);
    assert!(daemon.is_alive());
    bystander.is_served();
    daemon.returns_to(before);
}

#[test]
fn a_caller_that_never_says_hello_is_sent_away_and_one_that_says_it_twice_too() {
    let place = Place::new("hello");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let mut silent = Peer::new(daemon.connect());
    let mut twice = daemon.peer();
    twice.send_bytes(&hello());
    assert_eq!(closing(&mut twice).expect("a reason").0, Code::Protocol);
    let (code, reason) = closing(&mut silent).expect("a reason");
    assert!(code == Code::Protocol && reason.contains("HELLO"), "{reason}");
}

#[test]
fn what_belongs_to_another_session_cannot_be_touched() {
    let place = Place::new("others");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let mut owner = daemon.peer();
    let stream = owner.open("bystander", Qos::default(), false);
    let source = owner.source(stream, &[]).unwrap();
    let sink = owner.sink(stream, SinkWake::Page).unwrap();
    until("they are joined", || {
        owner.poll();
        !owner.tx.is_empty()
    });
    let conn = *owner.tx.keys().next().unwrap();
    // Refused, and the session lives.
    let mut thief = daemon.peer();
    for request in [
        Request::CloseStream { req: 1, stream },
        Request::CreateSource {
            req: 1,
            stream,
            channel: ChannelId(1),
            uid: 1,
            classes: Vec::new(),
            schema: None,
            keeps: false,
            line: None,
        },
        Request::CreateSink {
            req: 1,
            stream,
            channel: ChannelId(1),
            uid: 1,
            depth: 8,
            wake: SinkWake::Never,
            schema: None,
            line: None,
        },
        Request::CloseSource { req: 1, source },
        Request::CloseSink { req: 1, sink },
    ] {
        thief.send(&request);
        let Some((Event::Failed { code, reason, .. }, _)) = thief.wait() else { panic!("{request:?} is refused") };
        assert!(code == Code::Unknown && !reason.is_empty(), "{request:?}: {code:?} {reason}");
    }
    // Acknowledgements of what it was never asked end the session.
    let mut lies = vec![Request::SourceMapped { source }, Request::SinkMapped { sink }, Request::SessionMapped];
    for conn in [conn, ConnId(0), ConnId(conn.0 + 1000), ConnId(u32::MAX)] {
        lies.extend([0, 1, 2, 3, 255].map(|step| Request::Mapped { conn, step }));
        lies.push(Request::Kept { conn });
    }
    lies.push(Request::SourceMapped { source: SourceId(u32::MAX) });
    for lie in &lies {
        let mut thief = daemon.peer();
        thief.send(lie);
        let (code, reason) = closing(&mut thief).unwrap_or_else(|| panic!("{lie:?}: a reason"));
        assert!(code == Code::Violation && !reason.is_empty(), "{lie:?}: {code:?} {reason}");
    }
    // Accusing a connection of others has no effect on it.
    let accuser = daemon.peer();
    for _ in 0..3 {
        accuser.send(&Request::Violation { conn });
    }
    drop(accuser);
    owner.settle();
    assert!(owner.retired.is_empty() && owner.closed.is_none(), "{:?} {:?}", owner.retired, owner.closed);
    owner.emit(1, b"mine");
    assert_eq!(owner.consume(), b"mine");
}

#[test]
fn a_thousand_sudden_ends_leave_nothing_behind() {
    let place = Place::new("ends");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let mut bystander = Bystander::new(&daemon);
    bystander.is_served();
    let before = daemon.footprint();
    for round in 0..1000_u32 {
        let socket = daemon.connect();
        let say = |bytes: &[u8]| {
            let _ = seqpacket::send(&socket, bytes, &[]);
        };
        match round % 4 {
            0 => {}
            1 => say(&hello()),
            2 => {
                say(&hello());
                say(&encode(&Request::SessionMapped));
                say(&encode(&Request::OpenStream { req: 1, name: "gone".into(), qos: Qos::default(), isolated: true }));
            }
            _ => {
                say(&hello());
                let flags = nix::sys::socket::Shutdown::Both;
                let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), flags);
                let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), flags);
            }
        }
    }
    bystander.is_served();
    until("all sessions are gone", || daemon.used("sessions") == 1);
    daemon.returns_to(before);
    assert!(daemon.is_alive());
}

#[test]
fn a_client_that_does_not_read_is_closed_and_nobody_waits_for_it() {
    let place = Place::new("deaf");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let mut bystander = Bystander::new(&daemon);
    bystander.is_served();
    let before = daemon.footprint();
    // Answers pile up, as fast as it may ask.
    let mut asks = daemon.peer();
    let mut req = 0;
    until("the one who asks is closed", || {
        for _ in 0..50 {
            req += 1;
            match seqpacket::send(&asks.socket, &encode(&Request::Status { req }), &[]) {
                Ok(seqpacket::SendOutcome::Sent) => {}
                Ok(seqpacket::SendOutcome::WouldBlock) => break,
                Ok(seqpacket::SendOutcome::Closed) | Err(_) => return true,
            }
        }
        false
    });
    // So does news of others, with descriptors beside it.
    let mut deaf = daemon.peer();
    let stream = deaf.open("bystander", Qos::default(), false);
    deaf.sink(stream, SinkWake::Fd).unwrap();
    deaf.settle();
    let rounds = 1500;
    for _ in 0..rounds {
        let source = bystander.0.source(bystander.1, &[]).unwrap();
        bystander.0.close_source(source);
    }
    bystander.0.poll();
    bystander.is_served();
    until("the other one is closed, too", || daemon.used("sessions") == 1);
    for peer in [&mut asks, &mut deaf] {
        // The last word finds no room where nobody reads; the end is seen.
        while peer.wait().is_some() {}
    }
    drop((asks, deaf));
    bystander.is_served();
    daemon.returns_to(before);
}

#[test]
fn a_flood_of_requests_is_refused_and_then_ends_the_session() {
    let place = Place::new("flood");
    let domain = "(name: \"d\", members: [any], quota: (control_messages_per_second: 100))";
    let daemon = Daemon::start(&place, domain, QUIET);
    let mut calm = daemon.peer();
    let mut flood = daemon.peer();
    for req in 0..1000 {
        if !send_raw(&flood, &encode(&Request::CloseStream { req, stream: StreamId(99) }), &[]) {
            break;
        }
    }
    let mut refused = 0;
    while let Some((event, _)) = flood.wait() {
        match event {
            Event::Failed { code: Code::Quota, reason, .. } => {
                assert!(reason.contains("100 requests a second"), "{reason}");
                refused += 1;
            }
            Event::Closing { code, reason } => flood.closed = Some((code, reason)),
            _ => {}
        }
    }
    assert!(refused > 0, "refused before it is ended");
    assert_eq!(flood.closed.as_ref().unwrap().0, Code::Quota);
    calm.open("calm", Qos::default(), false);
    assert!(daemon.status().domains[0].quotas["control_messages_per_second"].refused >= refused);
}

#[test]
fn descriptors_that_run_out_are_a_refusal_and_come_back() {
    let place = Place::new("nofile");
    let config = place.config(OPEN, QUIET);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 80; exec \"$0\" --config \"$1\"", env!("CARGO_BIN_EXE_insaned")]).arg(config);
    let mut daemon = Daemon::spawn(&place, &mut command);
    let mut bystander = Bystander::new(&daemon);
    bystander.is_served();
    let before = daemon.footprint();
    let mut greedy = daemon.peer();
    let stream = greedy.open("greedy", Qos::default(), false);
    let mut refusal = None;
    for _ in 0..50 {
        if let Err(refused) = greedy.sink(stream, SinkWake::Fd) {
            refusal = Some(refused);
            break;
        }
    }
    let (code, reason) = refusal.expect("80 descriptors are not enough for 50 wake sockets");
    assert!(code == Code::Resources && reason.contains("shared memory"), "{code:?} {reason}");
    // Nor is one left for a caller, who waits.
    let callers: Vec<OwnedFd> = (0..40).map(|_| daemon.connect()).collect();
    assert!(daemon.is_alive());
    drop(callers);
    drop(greedy);
    bystander.is_served();
    daemon.returns_to(before);
    Bystander::new(&daemon).is_served();
}

/// The runtime does late what nobody waits for any more.
#[test]
fn what_is_opened_too_late_is_closed_again() {
    let place = Place::new("late");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let session = daemon.attach("impatient");
    let stream = session.stream("s", Qos::default()).unwrap();
    kill(daemon.pid(), Signal::SIGSTOP).unwrap();
    // Its threads stop one after the other.
    let tasks = format!("/proc/{}/task", daemon.pid());
    until("all of it stands still", || {
        let task = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(entry?.path().join("status"));
        let is_stopped = |status: std::io::Result<String>| status.is_ok_and(|text| text.contains("State:\tT"));
        std::fs::read_dir(&tasks).unwrap().map(task).all(is_stopped)
    });
    let silent = [
        session.stream("t", Qos::default()).err(),
        stream.source(ChannelId(1), SourceOptions::default()).err(),
        stream.sink(ChannelId(1), SinkOptions::default()).err(),
        stream.sink(ChannelId(1), SinkOptions::default().pollable()).err(),
    ];
    kill(daemon.pid(), Signal::SIGCONT).unwrap();
    assert!(silent.iter().all(|error| *error == Some(RequestError::Silent)), "{silent:?}");
    // All of it came about before this one.
    let source = stream.source(ChannelId(2), SourceOptions::default()).unwrap();
    until("only what is in use is left", || ["streams", "sources", "sinks"].map(|what| daemon.used(what)) == [1, 1, 0]);
    drop((source, stream));
    until("nothing is left", || ["streams", "bytes"].map(|what| daemon.used(what))[0] == 0);
    assert_eq!(session.attachment(), Attachment::Attached);
}

/// Its application has as many descriptors as it may: what would need more fails, and nothing else.
#[test]
fn a_client_without_descriptors_loses_what_it_cannot_have_and_keeps_the_rest() {
    let place = Place::new("narrow");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let mut narrow = Helper::start("narrow", daemon.socket(), &[]);
    narrow.hear("ready");
    let number = || {
        let report = daemon.status();
        report.domains[0].sessions.iter().find(|row| row.name == "narrow").map(|row| row.id)
    };
    let before = number();
    assert!(before.is_some());
    let (sinks, reason) = {
        let words = narrow.hear("narrow");
        let (sinks, reason) = words.split_once(' ').unwrap();
        (sinks.parse::<u64>().unwrap(), reason.to_owned())
    };
    assert!(reason.contains("descriptors"), "{reason}");
    until("what it could not take is closed", || daemon.used("sinks") == sinks);
    // It cannot map what comes with another source, either.
    let session = daemon.attach("other");
    let source = session.stream("s", Qos::default()).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(source.receivers(), 0);
    narrow.tell();
    narrow.hear("wide");
    until("it can be joined now", || source.receivers() > 0);
    assert_eq!(number(), before, "the same session all the while");
    until("it hears", || source.emit_copy(b"wide").unwrap().is_sent());
    narrow.hear("done");
}
