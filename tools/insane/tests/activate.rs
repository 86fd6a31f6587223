//! `insane schedule activate` with two real daemons in namespaces of their own: a schedule is
//! in force on both from one instant, messages go on through the change, and a host that
//! refuses or dies leaves the other as it was. The clock of this kernel need not be
//! disciplined: both daemons read the same one, and say so.

mod common;

use common::plant::{MS, PERIOD, Pair, every, slot};
use common::{Process, insane, text, wait_for};
use insane_rt::{ChannelId, Code, Emit, Nanos, Qos, RequestError, Session, SinkOptions, SourceOptions};
use std::time::Duration;

#[test]
fn a_schedule_takes_over_on_both_hosts_while_messages_go_on() {
    let Some(pair) = Pair::new("acta") else { return };
    let (here, there) = (&pair.hosts[0], &pair.hosts[1]);
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let axis = a.stream("axis", every(PERIOD, 64)).unwrap();
    let source = axis.source(ChannelId(1), SourceOptions::default()).unwrap();
    let sink = b.stream("axis", every(PERIOD, 64)).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("they are joined", || source.receivers() == 1);
    let before = slot(here, "axis").expect("it was admitted");
    assert!(before.start_ns < MS, "first fit is at the start: {before:?}");

    let certificate = pair.certificate("acta", 4, 100);
    let mut activating = Process::spawn(&mut pair.command(&certificate, 1_000));
    let (mut emitted, mut received, mut after) = (0_u64, 0_u64, 0);
    // All through the change, and a little longer.
    while after < 20 {
        let mut buffer = source.get_buffer(8).unwrap();
        buffer.copy_from_slice(&emitted.to_le_bytes());
        assert!(matches!(source.emit(buffer), Emit::Sent(_)), "there is room for one a period");
        emitted += 1;
        std::thread::sleep(Duration::from_millis(10));
        while let Some(message) = sink.consume().unwrap() {
            assert_eq!(message.to_vec(), received.to_le_bytes(), "in order, none lost");
            received += 1;
        }
        after += u32::from(activating.has_ended());
    }
    let output = activating.wait();
    assert!(output.status.success(), "{}{}", text(&output.stderr), here.log());
    assert!(text(&output.stdout).contains("in force on acta1, acta2"), "{}", text(&output.stdout));
    let planned = slot(here, "axis").unwrap();
    assert_eq!((planned.start_ns, planned.bytes), (4 * MS, 256), "its slot is the schedule's");
    assert!(planned.reserved && !before.reserved);
    let shown = text(&here.command("status", &["--once"]).output().unwrap().stdout);
    assert!(shown.contains("is in force, 3 streams on all hosts"), "{shown}");
    let schedule = here.status().schedule.unwrap();
    assert_eq!((schedule.counts["activated"], schedule.counts["failed"]), (1, 0));
    assert!(received > 100, "{received} of {emitted}");
    assert_eq!(here.status().datapaths[0].counters["slots_oversize"], 0);

    // Who is named takes what is reserved; who differs is refused, with what differs.
    let valve = a.stream("valve", every(PERIOD, 64)).unwrap();
    let _valve = valve.source(ChannelId(7), SourceOptions::default()).unwrap();
    assert_eq!(slot(here, "valve").unwrap().start_ns, 7 * MS);
    let refused = |stream: &str, qos: Qos, session: &Session, words: &str| {
        let stream = session.stream(stream, qos).unwrap();
        match stream.source(ChannelId(1), SourceOptions::default().buffers(2_000, 2)).map(|_| ()) {
            Err(RequestError::Refused { code: Code::NotAdmitted, reason }) => {
                assert!(reason.contains(words), "{words:?} is missing in {reason}");
            }
            other => panic!("{other:?}"),
        }
    };
    refused("axis", every(PERIOD, 64), &a, "another source has the slots");
    refused("answer", every(Nanos::from_millis(5), 64), &b, "a period of 10.00 ms");
    let larger = Session::attach(there.socket(), "large").unwrap();
    drop(b);
    wait_for("the stream is free", || slot(there, "answer").is_none());
    refused("answer", every(PERIOD, 2_000), &larger, "256 bytes of the link");
    // Who is not named is admitted beside.
    let other = a.stream("other", every(PERIOD, 64)).unwrap();
    let _other = other.source(ChannelId(9), SourceOptions::default()).unwrap();
    assert!(slot(here, "other").is_some());
    // The same schedule again changes nothing, and holds.
    let again = pair.activate(&certificate);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert_eq!(slot(here, "axis").unwrap().start_ns, 4 * MS);
    drop(pair.namespaces);
}

#[test]
fn a_host_that_is_not_what_is_assumed_refuses_and_nobody_changes() {
    let Some(pair) = Pair::new("actb") else { return };
    let a = Session::attach(pair.hosts[0].socket(), "plc").unwrap();
    let axis = a.stream("axis", every(PERIOD, 64)).unwrap();
    let _source = axis.source(ChannelId(1), SourceOptions::default()).unwrap();
    // The second host's link is slower than the schedule thinks.
    let output = pair.activate(&pair.certificate("actb", 4, 1_000));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["in force on no host", "actb2: the old schedule (link \"l2\" takes 80000 ps a byte", "rate_mbps"] {
        assert!(said.contains(words), "{words:?} is missing in {said}");
    }
    assert!(slot(&pair.hosts[0], "axis").unwrap().start_ns < MS);
    // Not all hosts, or one twice: nobody is asked to stage.
    let certificate = pair.certificate("actb", 5, 100);
    let only = pair.hosts[0].socket().display().to_string();
    for (sockets, words) in [(only.clone(), "is missing"), (format!("{only},{only}"), "given twice")] {
        let output = insane().args(["schedule", "activate", &certificate, "--hosts", &sockets]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
}

#[test]
fn a_host_that_acknowledges_and_dies_leaves_the_other_as_it_was_and_is_named() {
    let Some(mut pair) = Pair::new("actc") else { return };
    let a = Session::attach(pair.hosts[0].socket(), "plc").unwrap();
    let axis = a.stream("axis", every(PERIOD, 64)).unwrap();
    let _source = axis.source(ChannelId(1), SourceOptions::default()).unwrap();
    let certificate = pair.certificate("actc", 4, 100);
    let activating = Process::spawn(&mut pair.command(&certificate, 10_000));
    // Armed: its slots are the schedule's already, from the instant on.
    wait_for("both have committed", || pair.hosts.iter().all(|host| host.log().contains("Committed")));
    pair.hosts.pop();
    let output = activating.wait();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["actc1: the old schedule", "actc2: not known"] {
        assert!(said.contains(words), "{words:?} is missing in {said}");
    }
    wait_for("the old slots are back", || slot(&pair.hosts[0], "axis").is_some_and(|slot| slot.start_ns < MS));
    // Slots are given again.
    let more = a.stream("more", every(PERIOD, 64)).unwrap();
    let _more = more.source(ChannelId(1), SourceOptions::default()).unwrap();
}
