//! The public API over an embedded runtime: what an application sees.

use insane_rt::{
    Attachment, ChannelId, ClassSpec, Consumption, Emit, GetBufferError, Hosting, Outcome, Plan, Qos, Refusal,
    Reliability, RequestError, Session, SinkOptions, Source, SourceOptions, Stream, StreamOptions,
};
use std::sync::mpsc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(5);

fn polled() -> Qos {
    Qos { consumption: Consumption::Poll, ..Qos::default() }
}

fn reliable() -> Qos {
    Qos { reliability: Reliability::Reliable, ..Qos::default() }
}

fn emit(source: &Source, bytes: &[u8]) -> u64 {
    let mut buffer = source.get_buffer(bytes.len()).expect("a buffer is free");
    buffer.copy_from_slice(bytes);
    source.emit(buffer).sent().expect("not refused").sequence()
}

fn open(session: &Session, name: &str) -> Stream {
    session.stream(name, Qos::default()).expect("the stream opens")
}

#[test]
fn several_sources_and_sinks_share_a_channel() {
    let session = Session::embedded("many").unwrap();
    let other = session.sibling("other").unwrap();
    let (here, there) = (open(&session, "s"), open(&other, "s"));
    let sinks = [&here, &there, &there].map(|s| s.sink(ChannelId(1), SinkOptions::default()).unwrap());
    let elsewhere = here.sink(ChannelId(2), SinkOptions::default()).unwrap();
    let sources = [&here, &there].map(|s| s.source(ChannelId(1), SourceOptions::default()).unwrap());
    for source in &sources {
        wait_for(|| source_reaches(source, 3));
    }
    for (number, source) in sources.iter().enumerate() {
        emit(source, &[number as u8; 5]);
        emit(source, &[number as u8; 500]);
    }
    for sink in &sinks {
        let mut got = Vec::new();
        for _ in 0..4 {
            let message = sink.consume_timeout(SECOND).unwrap().expect("four messages");
            got.push((message.to_vec()[0], message.len(), message.sequence()));
        }
        got.sort_unstable();
        let all: Vec<u64> = got.iter().map(|(_, _, sequence)| *sequence).collect();
        assert_eq!(got.iter().map(|(s, len, _)| (*s, *len)).collect::<Vec<_>>(), [(0, 5), (0, 500), (1, 5), (1, 500)]);
        assert_eq!(all, [0, 1, 0, 1]);
    }
    assert!(elsewhere.consume().unwrap().is_none(), "another channel hears nothing");
}

fn source_reaches(source: &Source, receivers: usize) -> bool {
    source.receivers() == receivers
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the condition did not come true within two seconds");
}

#[test]
fn buffers_come_in_sizes_and_run_out_and_come_back() {
    let session = Session::embedded("sizes").unwrap();
    let stream = open(&session, "s");
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let classes = [ClassSpec { size: 1000, count: 2 }, ClassSpec { size: 100_000, count: 2 }];
    let source = stream.source(ChannelId(1), SourceOptions::default().classes(&classes)).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    assert_eq!(source.get_buffer(100_001).unwrap_err(), GetBufferError::TooLarge { max: 100_000 });
    {
        let held: Vec<_> = (0..4).map(|_| source.get_buffer(500).expect("small, then large ones")).collect();
        assert_eq!(source.get_buffer(500).unwrap_err(), GetBufferError::Exhausted);
        assert!(source.get_buffer_timeout(500, Duration::from_millis(5)).is_err());
        drop(held);
    }
    let token = source.emit(source.get_buffer(100_000).unwrap()).sent().unwrap();
    let published = |released| Outcome::Published { receivers: 1, dropped: 0, released };
    assert_eq!(source.outcome(token), published(false));
    let message = sink.consume_timeout(SECOND).unwrap().unwrap();
    assert_eq!(source.buffers_in_use(), 1);
    message.release();
    assert!(sink.consume().unwrap().is_none(), "an idle look gives back what waits for a batch");
    assert_eq!(source.outcome(token), published(true));
    assert_eq!(source.buffers_in_use(), 0);
    for _ in 0..64 {
        let _ = source.emit_copy(&[]).unwrap();
    }
    assert_eq!(source.outcome(token), Outcome::Unknown, "64 emits later it is forgotten");
}

#[test]
fn unreliable_drops_and_counts_reliable_refuses() {
    let session = Session::embedded("full").unwrap();
    for (qos, name) in [(Qos::default(), "loose"), (reliable(), "tight")] {
        let stream = session.stream(name, qos).unwrap();
        let sink = stream.sink(ChannelId(1), SinkOptions::default().depth(8)).unwrap();
        let source = stream.source(ChannelId(1), SourceOptions::small()).unwrap();
        source.wait_for_receivers(SECOND).unwrap();
        let mut refused = 0;
        for number in 0..20_u8 {
            match source.emit_copy(&[number]).unwrap() {
                Emit::Sent(_) => {}
                Emit::Refused((), refusal) => {
                    assert_eq!(refusal, Refusal::NoRoom);
                    refused += 1;
                }
            }
        }
        let mut got = 0;
        while let Some(message) = sink.consume().unwrap() {
            assert_eq!(message.bytes(), Some(&[got][..]));
            got += 1;
        }
        assert_eq!(got, 8);
        assert_eq!(refused, if name == "tight" { 12 } else { 0 });
        let _ = source.emit_copy(&[99]).unwrap();
        let next = sink.consume_timeout(SECOND).unwrap().unwrap();
        assert_eq!(next.lost(), if name == "tight" { 0 } else { 12 });
    }
}

#[test]
fn a_refused_buffer_comes_back_with_its_content() {
    let session = Session::embedded("back").unwrap();
    let stream = session.stream("s", reliable()).unwrap();
    let _sink = stream.sink(ChannelId(1), SinkOptions::default().depth(2)).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    for _ in 0..2 {
        emit(&source, &[1; 300]);
    }
    let mut buffer = source.get_buffer(300).unwrap();
    buffer.fill(7);
    let Emit::Refused(buffer, Refusal::NoRoom) = source.emit(buffer) else { panic!("no room is left") };
    assert!(buffer.iter().all(|byte| *byte == 7));
}

#[test]
fn blocking_consume_sleeps_and_is_woken() {
    let session = Session::embedded("sleepy").unwrap();
    let stream = open(&session, "s");
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::small()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    assert!(sink.consume_timeout(Duration::from_millis(20)).unwrap().is_none());
    let waiter = std::thread::spawn(move || sink.consume_timeout(SECOND).unwrap().map(|message| message.to_vec()));
    std::thread::sleep(Duration::from_millis(50));
    emit(&source, b"wake");
    assert_eq!(waiter.join().unwrap().as_deref(), Some(&b"wake"[..]));
}

#[test]
fn a_pollable_sink_has_a_descriptor_for_event_loops() {
    use nix::poll::{PollFd, PollFlags, poll};
    let session = Session::embedded("pollable").unwrap();
    let stream = open(&session, "s");
    let sink = stream.sink(ChannelId(1), SinkOptions::default().pollable()).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::small()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    let fd = sink.fd().expect("a pollable sink has one");
    let readable = |millis: u16| poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], millis).unwrap() > 0;
    for round in 0..50_u8 {
        assert!(sink.consume().unwrap().is_none());
        assert!(!readable(0), "round {round}: nothing waits");
        emit(&source, &[round]);
        assert!(readable(2000), "round {round}: a message waits");
        assert_eq!(sink.consume().unwrap().unwrap().bytes(), Some(&[round][..]));
    }
}

#[test]
fn callbacks_run_until_their_handle_is_dropped() {
    let session = Session::embedded("callback").unwrap();
    let stream = open(&session, "s");
    let (seen, calls) = mpsc::channel();
    let handle = stream
        .sink_with_callback(ChannelId(1), SinkOptions::default(), move |message| {
            let _ = seen.send((message.sequence(), message.to_vec()));
        })
        .unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    for number in 0..100_u64 {
        emit(&source, &number.to_le_bytes());
        assert_eq!(calls.recv_timeout(SECOND).unwrap(), (number, number.to_le_bytes().to_vec()));
    }
    drop(handle);
    let _ = source.emit_copy(b"late").unwrap();
    assert!(calls.recv_timeout(Duration::from_millis(50)).is_err());
}

#[test]
fn a_consumed_message_is_emitted_on() {
    let session = Session::embedded("relay").unwrap();
    let stream = open(&session, "s");
    let first = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    let relay_in = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let relay_out = stream.source(ChannelId(2), SourceOptions::default()).unwrap();
    let last = stream.sink(ChannelId(2), SinkOptions::default()).unwrap();
    first.wait_for_receivers(SECOND).unwrap();
    relay_out.wait_for_receivers(SECOND).unwrap();
    for len in [10, 96, 97, 2048] {
        emit(&first, &vec![len as u8; len]);
        let message = relay_in.consume_timeout(SECOND).unwrap().unwrap();
        assert!(relay_out.emit_message(&message).unwrap().is_sent());
        assert_eq!(last.consume_timeout(SECOND).unwrap().unwrap().to_vec(), vec![len as u8; len]);
    }
}

/// Whoever sees a receiver can send to it: the memory of a large ring is touched before the
/// datapath has it, and nothing that comes meanwhile may be lost.
#[test]
fn the_first_message_after_a_receiver_is_seen_arrives() {
    let session = Session::embedded("first").unwrap();
    let other = session.sibling("other").unwrap();
    for round in 0..40 {
        let name = format!("s{round}");
        let open = |session: &Session| session.stream_with(&name, polled(), StreamOptions::default().isolated(true));
        let (here, there) = (open(&session).unwrap(), open(&other).unwrap());
        let source = here.source(ChannelId(1), SourceOptions::default()).unwrap();
        let sink = there.sink(ChannelId(1), SinkOptions::default().depth(65_536)).unwrap();
        // Without the pauses of `wait_for_receivers`, which would hide a gap.
        let give_up = std::time::Instant::now() + SECOND;
        while !source.has_receivers() {
            assert!(std::time::Instant::now() < give_up, "no receiver in round {round}");
        }
        emit(&source, b"first");
        let message = sink.consume_timeout(SECOND).unwrap();
        assert!(message.is_some(), "the first message of round {round} is lost");
    }
}

#[test]
fn an_isolated_stream_goes_through_the_runtime() {
    let session = Session::embedded("isolated").unwrap();
    let stream = session.stream_with("s", polled(), StreamOptions::default().isolated(true)).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    for len in [0, 1, 96, 97, 2000] {
        emit(&source, &vec![3; len]);
        let message = sink.consume_timeout(SECOND).unwrap().expect("through the datapath");
        assert_eq!(message.bytes(), Some(&vec![3; len][..]));
    }
}

/// Nobody wakes such a datapath: it finds by itself what came, on the one core that it shares
/// with its application, and that application with it.
#[test]
fn a_datapath_that_yields_shares_the_core_of_its_application() {
    let mut plan = Plan::embedded_default();
    let core = insane_config::Machine::detect().cores.and_then(|cores| cores.last().copied());
    plan.datapaths[0].idle = insane_config::Idle::Yield;
    plan.datapaths[0].core = core;
    let session = Session::embedded_with(plan, Hosting::Thread, "yields").unwrap();
    insane_sys::thread::pin_current(core.expect("a core").into()).unwrap();
    let stream = session.stream_with("s", polled(), StreamOptions::default().isolated(true)).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    let wakes = || session.runtime().unwrap().status().unwrap().datapaths[0].counters["sleeps"];
    let before = wakes();
    for number in 0..1_000_u32 {
        emit(&source, &number.to_le_bytes());
        let message = sink.consume_timeout(SECOND).unwrap().expect("through the datapath");
        assert_eq!(message.bytes(), Some(&number.to_le_bytes()[..]));
    }
    assert_eq!(wakes(), before, "it never slept");
    assert_eq!(session.runtime().unwrap().status().unwrap().datapaths[0].idle, "yield");
}

#[test]
fn two_runtimes_are_peers_over_loopback() {
    let (port_a, port_b) = two_ports();
    for hosting in [Hosting::Thread, Hosting::Inline] {
        let (plan_a, plan_b) = Plan::loopback_pair(port_a, port_b);
        let a = Session::embedded_with(plan_a, hosting, "a").unwrap();
        let b = Session::embedded_with(plan_b, Hosting::Thread, "b").unwrap();
        let source = open(&a, "s").source(ChannelId(1), SourceOptions::default().buffers(1_000_000, 4)).unwrap();
        let sink = open(&b, "s").sink(ChannelId(1), SinkOptions::default()).unwrap();
        source.wait_for_receivers(SECOND).unwrap_or_else(|e| panic!("{hosting:?}: {e}"));
        for len in [0, 8, 96, 97, 1400, 60_000, 1_000_000] {
            let mut buffer = source.get_buffer_timeout(len, SECOND).unwrap();
            buffer.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7) as u8);
            assert!(source.emit(buffer).is_sent());
            if hosting == Hosting::Inline {
                while !a_has_sent(&source) {
                    a.turn();
                }
            }
            let message = sink.consume_timeout(SECOND).unwrap().unwrap_or_else(|| panic!("{hosting:?}: {len} bytes"));
            assert_eq!(message.len(), len);
            let bytes = message.bytes().expect("the runtime wrote it");
            assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == (at * 7) as u8), "{hosting:?}: {len} bytes");
        }
    }
}

/// The keeper may be at work just when the application wants to turn, so not every try counts.
#[test]
fn what_a_quiet_source_emits_inline_leaves_within_its_call() {
    let session = Session::embedded_with(Plan::embedded_default(), Hosting::Inline, "inline").unwrap();
    let options = StreamOptions::default().isolated(true);
    let stream = session.stream_with("s", Qos::default(), options).unwrap();
    let ends: Vec<_> = (1..=20)
        .map(|channel| {
            let sink = stream.sink(ChannelId(channel), SinkOptions::default()).unwrap();
            let source = stream.source(ChannelId(channel), SourceOptions::default()).unwrap();
            source.wait_for_receivers(SECOND).unwrap();
            (source, sink)
        })
        .collect();
    let (busy, busy_sink) = &ends[0];
    let mut at_once = 0;
    for (source, sink) in &ends[5..15] {
        // Each turn has something to do, and none to spare for a look at who is quiet.
        for _ in 0..1_500 {
            assert!(busy.emit_copy(b"busy").unwrap().is_sent());
            while busy_sink.consume().unwrap().is_some() {}
        }
        assert!(source.emit_copy(b"seldom").unwrap().is_sent());
        // This looks at the ring, and turns nothing.
        at_once += u32::from(sink.data_available().unwrap());
    }
    assert!(at_once >= 7, "{at_once} of 10 left within the call");
}

fn a_has_sent(source: &Source) -> bool {
    source.buffers_in_use() == 0
}

/// Two free pairs of UDP ports on loopback (a runtime uses its port and the next).
fn two_ports() -> (u16, u16) {
    let base = 20_000 + (std::process::id() % 20_000) as u16;
    let free = |port: u16| {
        std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok()
            && std::net::UdpSocket::bind(("127.0.0.1", port + 1)).is_ok()
    };
    let mut ports = (base..60_000).step_by(2).filter(|port| free(*port));
    (ports.next().expect("a free pair"), ports.next().expect("another free pair"))
}

#[test]
fn a_contract_is_one_for_all_who_open_it() {
    let session = Session::embedded("contract").unwrap();
    let _first = open(&session, "s");
    let other = session.sibling("other").unwrap();
    let error = other.stream("s", reliable()).unwrap_err();
    assert!(matches!(error, RequestError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("reliab"), "the reason names the difference: {error}");
}

#[test]
fn out_of_range_options_are_named() {
    let session = Session::embedded("range").unwrap();
    let stream = open(&session, "s");
    assert!(matches!(session.stream("", Qos::default()), Err(RequestError::Option(_))));
    assert!(matches!(session.stream(&"x".repeat(65), Qos::default()), Err(RequestError::Option(_))));
    assert!(stream.sink(ChannelId(1), SinkOptions::default().depth(1)).is_err());
    assert!(stream.sink(ChannelId(1), SinkOptions::default().depth(65_537)).is_err());
    let zero = stream.source(ChannelId(1), SourceOptions::default().buffers(0, 1));
    assert!(matches!(zero, Err(RequestError::Option(_))));
    let huge = stream.source(ChannelId(1), SourceOptions::default().buffers(100_000_001, 1));
    assert!(matches!(huge, Err(RequestError::Option(_))));
}

#[test]
fn ports_come_and_go_a_thousand_times() {
    let session = Session::embedded("churn").unwrap();
    let stream = open(&session, "s");
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    for round in 0..1000_u32 {
        let source = stream.source(ChannelId(1), SourceOptions::small()).unwrap();
        if round % 50 == 0 {
            source.wait_for_receivers(SECOND).unwrap();
            emit(&source, &round.to_le_bytes());
            let message = sink.consume_timeout(SECOND).unwrap().expect("the newest source is heard");
            assert_eq!(message.bytes(), Some(&round.to_le_bytes()[..]));
        }
    }
    for _ in 0..1000 {
        let _sink = stream.sink(ChannelId(2), SinkOptions::default()).unwrap();
    }
    assert_eq!(session.attachment(), Attachment::Attached);
}

#[test]
fn what_is_emitted_before_a_source_closes_is_still_received() {
    let session = Session::embedded("drain").unwrap();
    let stream = open(&session, "s");
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    for number in 0..10_u8 {
        emit(&source, &[number; 1000]);
    }
    drop(source);
    std::thread::sleep(Duration::from_millis(50));
    for number in 0..10_u8 {
        let message = sink.consume_timeout(SECOND).unwrap().expect("all ten");
        assert_eq!(message.to_vec(), [number; 1000]);
    }
    wait_for(|| sink.consume().unwrap().is_none() && !sink.has_senders());
}

#[test]
fn sources_and_sinks_move_between_threads() {
    let session = Session::embedded("threads").unwrap();
    let stream = open(&session, "s");
    let sink = stream.sink(ChannelId(1), SinkOptions::default().depth(1024)).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    source.wait_for_receivers(SECOND).unwrap();
    let sender = std::thread::spawn(move || {
        for number in 0..500_u64 {
            emit(&source, &number.to_le_bytes());
        }
        source
    });
    for number in 0..500_u64 {
        let message = sink.consume_timeout(SECOND).unwrap().expect("every message");
        assert_eq!(message.bytes(), Some(&number.to_le_bytes()[..]));
    }
    drop(sender.join().unwrap());
}

#[test]
fn a_sink_that_hoards_leaves_buffers_to_the_others() {
    let session = Session::embedded("hoard").unwrap();
    for (qos, name) in [(Qos::default(), "loose"), (reliable(), "tight")] {
        let stream = session.stream(name, qos).unwrap();
        let hoarder = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
        let quick = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
        let source = stream.source(ChannelId(1), SourceOptions::default().buffers(1_000, 9)).unwrap();
        wait_for(|| source.receivers() == 2 && hoarder.has_senders() && quick.has_senders());
        let (mut hoard, mut refused) = (Vec::new(), 0);
        for number in 0..50_u64 {
            let mut buffer = source.get_buffer(500).expect("some buffers are left");
            buffer.fill(number as u8);
            if !source.emit(buffer).is_sent() {
                refused += 1;
                continue;
            }
            hoard.extend(hoarder.consume().unwrap());
            let message = quick.consume().unwrap().expect("the quick one gets every message that is sent");
            assert_eq!((message.lost(), message.to_vec()), (0, vec![number as u8; 500]));
        }
        assert_eq!(hoard.len(), 4, "its share of nine buffers");
        assert_eq!(refused, if name == "tight" { 46 } else { 0 });
        for (number, message) in hoard.iter().enumerate() {
            assert_eq!(message.to_vec(), vec![number as u8; 500], "what it holds stays as it was");
        }
    }
}

/// Emits until one is taken, for some seconds at most; how many were refused.
fn emit_until_taken(source: &Source, len: usize) -> usize {
    for refused in 0.. {
        if source.get_buffer(len).is_ok_and(|buffer| source.emit(buffer).is_sent()) {
            return refused;
        }
        assert!(refused < 20_000, "refused for ever");
        std::thread::sleep(Duration::from_millis(1));
    }
    unreachable!("there is an end")
}

/// In line, and in buffers.
#[test]
fn a_reliable_source_does_not_wait_for_ever_for_who_takes_nothing() {
    let session = Session::embedded("stalled").unwrap();
    for len in [8, 800] {
        let stream = session.stream(&format!("of {len}"), reliable()).unwrap();
        let stalled = stream.sink(ChannelId(1), SinkOptions::default().depth(4)).unwrap();
        let source = stream.source(ChannelId(1), SourceOptions::default().buffers(1_000, 32)).unwrap();
        // It has read its mail: a sink that the agent is just writing to finds nothing.
        wait_for(|| source.receivers() == 1 && stalled.has_senders());
        // Alone it keeps nobody waiting, and loses nothing, however slow it is.
        assert!((0..4).all(|_| source.emit(source.get_buffer(len).unwrap()).is_sent()));
        for _ in 0..70 {
            assert!(!source.emit(source.get_buffer(len).unwrap()).is_sent());
            std::thread::sleep(Duration::from_millis(10));
        }
        // Beside another one it is waited for some time, and then no more.
        let quick = stream.sink(ChannelId(1), SinkOptions::default().depth(4)).unwrap();
        wait_for(|| source.receivers() == 2 && quick.has_senders());
        let mut next = 4;
        let mut take = || {
            let message = quick.consume().unwrap().expect("the quick one gets every message");
            assert_eq!((message.lost(), message.sequence()), (0, next));
            next += 1;
        };
        emit_until_taken(&source, len);
        take();
        for _ in 0..100 {
            assert!(source.emit(source.get_buffer(len).unwrap()).is_sent(), "at once");
            take();
        }
        // It is told how much it has missed, and waited for again.
        for sequence in 0..4 {
            let message = stalled.consume().unwrap().expect("what its ring had room for");
            assert_eq!((message.lost(), message.sequence()), (0, sequence));
        }
        assert!(stalled.consume().unwrap().is_none());
        assert_eq!(emit_until_taken(&source, len), 0);
        take();
        let message = stalled.consume().unwrap().expect("it gets messages again");
        assert_eq!((message.lost(), message.sequence()), (101, 105));
        drop(message);
        for _ in 0..4 {
            assert!(source.emit(source.get_buffer(len).unwrap()).is_sent());
            take();
        }
        assert!(!source.emit(source.get_buffer(len).unwrap()).is_sent(), "for some time");
    }
    let report = session.runtime().and_then(|runtime| runtime.status()).expect("a report");
    assert_eq!(report.domains[0].sessions[0].counters["put_out"], 2, "once each");
}

#[test]
fn a_reliable_source_goes_on_without_who_keeps_its_buffers() {
    let session = Session::embedded("keeper").unwrap();
    let stream = session.stream("s", reliable()).unwrap();
    let [keeper, quick] = [(); 2].map(|()| stream.sink(ChannelId(1), SinkOptions::default()).unwrap());
    let source = stream.source(ChannelId(1), SourceOptions::default().buffers(1_000, 9)).unwrap();
    wait_for(|| source.receivers() == 2 && keeper.has_senders() && quick.has_senders());
    let mut kept = Vec::new();
    for number in 0..20_u8 {
        emit_until_taken(&source, 500);
        let message = quick.consume().unwrap().expect("the quick one gets every message");
        assert_eq!((message.lost(), message.sequence()), (0, 2 * u64::from(number)));
        kept.extend(keeper.consume().unwrap());
        // Small ones reach both all the while.
        assert!(source.emit_copy(&[number]).unwrap().is_sent());
        for sink in [&quick, &keeper] {
            drop(sink.consume().unwrap());
        }
    }
    assert_eq!(kept.len(), 4, "its share");
    kept.clear();
    emit_until_taken(&source, 500);
    assert!(keeper.consume().unwrap().is_some_and(|message| message.len() == 500));
}
