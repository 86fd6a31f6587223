//! Process data over an embedded runtime. Time is the tests' own: looks are at instants
//! that they choose.

use insane_core::limits::INLINE_BYTES_MAX;
use insane_rt::{
    ChannelId, ClockQuality, Code, Consumption, Edge, Emit, GetBufferError, ImageOptions, ImageRead, MonoTime, Nanos,
    OnStale, ProcessImage, ProcessOptions, ProcessSink, ProcessSource, ProcessSourceOptions, Qos, RequestError, Schema,
    Session, SinkOptions, SourceInstant, SourceOptions, Stream, StreamOptions, Validity,
};
use insane_sys::guard::{self, GuardAllocator};
use std::sync::mpsc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: GuardAllocator = GuardAllocator;

const CHANNEL: ChannelId = ChannelId(1);
const PERIOD: Duration = Duration::from_millis(1);
const PERIOD_NS: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(10);

fn open(session: &Session, name: &str) -> Stream {
    session.stream(name, Qos { consumption: Consumption::Poll, ..Qos::default() }).expect("the stream opens")
}

fn isolated(session: &Session, name: &str) -> Stream {
    session.stream_with(name, Qos::default(), StreamOptions::default().isolated(true)).expect("the stream opens")
}

fn source(stream: &Stream, options: ProcessSourceOptions) -> ProcessSource {
    stream.process_source(CHANNEL, options).expect("the source opens")
}

fn sink(stream: &Stream, options: ProcessOptions) -> ProcessSink {
    stream.process_sink(CHANNEL, options).expect("the sink opens")
}

fn send(source: &mut ProcessSource, value: &[u8]) {
    assert!(source.emit(value).expect("room").is_sent());
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it does not happen: {what}");
}

/// An instant of the test's own clock: so many cycles after an arbitrary beginning.
fn cycle(number: u64) -> MonoTime {
    MonoTime(77_000_000_123 + number * PERIOD_NS)
}

#[test]
fn a_look_shows_the_newest_value_and_no_queue() {
    let session = Session::embedded("newest").unwrap();
    let stream = open(&session, "s");
    let mut sink = sink(&stream, ProcessOptions::new(8).depth(4));
    let mut source = source(&stream, ProcessSourceOptions::new(8));
    source.wait_for_receivers(PATIENCE).unwrap();

    let nothing = sink.poll(cycle(0)).unwrap();
    assert_eq!((nothing.validity, nothing.bytes, nothing.edge), (Validity::NeverReceived, &[][..], None));

    for number in 0..3_u8 {
        send(&mut source, &[number; 3]);
    }
    let newest = sink.poll(cycle(1)).unwrap();
    assert_eq!((newest.bytes, newest.sequence, newest.overtaken), (&[2; 3][..], 2, 2));
    assert_eq!((newest.validity, newest.is_new, newest.edge), (Validity::Fresh, true, Some(Edge::Fresh)));

    let again = sink.poll(cycle(2)).unwrap();
    assert_eq!((again.bytes, again.is_new, again.overtaken, again.edge), (&[2; 3][..], false, 0, None));

    // The ring holds four; the other two are lost, and told with the next that comes.
    for number in 3..9_u8 {
        let _ = source.emit(&[number]).unwrap();
    }
    let full = sink.poll(cycle(3)).unwrap();
    assert_eq!((full.bytes, full.lost.total), (&[6][..], 0));
    send(&mut source, &[9]);
    let lossy = sink.poll(cycle(4)).unwrap();
    assert_eq!((lossy.bytes, lossy.lost.since_last, lossy.lost.total), (&[9][..], 2, 2));
    let quiet = sink.poll(cycle(5)).unwrap();
    assert_eq!((quiet.lost.since_last, quiet.lost.total), (0, 2));
}

#[test]
fn staleness_is_an_edge_and_the_last_value_is_held_or_substituted() {
    let session = Session::embedded("stale").unwrap();
    let stream = open(&session, "s");
    let options = || ProcessOptions::new(4).period(PERIOD).max_missed(2);
    let mut holding = sink(&stream, options());
    let mut safe = sink(&stream, options().on_stale(OnStale::Substitute(vec![0xff])));
    let mut source = source(&stream, ProcessSourceOptions::new(4));
    wait_for("both sinks", || source.receivers() == 2);
    let never = safe.poll(cycle(0)).unwrap();
    assert_eq!((never.validity, never.bytes), (Validity::NeverReceived, &[0xff][..]));

    for round in 0..3 {
        let start = round * 10;
        send(&mut source, &[1]);
        for sink in [&mut holding, &mut safe] {
            let sample = sink.poll(cycle(start)).unwrap();
            assert_eq!((sample.validity, sample.edge, sample.bytes), (Validity::Fresh, Some(Edge::Fresh), &[1][..]));
        }
        // Two may be missing, and the third makes it stale: in that very cycle, and once.
        for missed in 1..=5 {
            let edge = (missed == 3).then_some(Edge::Stale);
            let held = holding.poll(cycle(start + missed)).unwrap();
            assert_eq!((held.validity, held.edge, held.is_stale), (Validity::Held { missed }, edge, missed >= 3));
            assert_eq!(held.bytes, [1]);
            let safe = safe.poll(cycle(start + missed)).unwrap();
            assert_eq!((safe.edge, safe.is_stale), (edge, missed >= 3));
            let shown = if missed >= 3 { (Validity::Substituted, &[0xff][..]) } else { (held.validity, &[1][..]) };
            assert_eq!((safe.validity, safe.bytes), shown);
        }
    }
}

#[test]
fn values_of_plain_sources_are_taken_and_too_large_ones_are_not() {
    let session = Session::embedded("plain").unwrap();
    let stream = open(&session, "s");
    let mut sink = sink(&stream, ProcessOptions::new(200).period(PERIOD));
    let plain = stream.source(CHANNEL, SourceOptions::default()).unwrap();
    plain.wait_for_receivers(PATIENCE).unwrap();
    assert!(plain.emit_copy(&[7; 200]).unwrap().is_sent());
    let sample = sink.poll(cycle(0)).unwrap();
    assert_eq!((sample.bytes, sample.instant, sample.age), (&[7; 200][..], SourceInstant::None, None));
    assert!(plain.emit_copy_at(&[8], 1_234).unwrap().is_sent());
    let sample = sink.poll(cycle(0)).unwrap();
    assert_eq!((sample.bytes, sample.instant, sample.age), (&[8][..], SourceInstant::Unnamed(1_234), None));

    assert!(plain.emit_copy(&[9; 201]).unwrap().is_sent());
    let sample = sink.poll(cycle(1)).unwrap();
    assert_eq!((sample.bytes, sample.edge, sample.is_new), (&[8][..], Some(Edge::Stale), false), "it is no value");
    assert_eq!(sink.unfit(), 1);
    let mut process = source(&stream, ProcessSourceOptions::new(200));
    assert_eq!(process.emit(&[0; 201]).unwrap_err(), GetBufferError::TooLarge { max: 200 });
}

#[test]
fn the_age_is_known_on_the_same_clock_only() {
    let session = Session::embedded("age").unwrap();
    for (stream, is_direct) in [(open(&session, "direct"), true), (isolated(&session, "isolated"), false)] {
        let mut sink = sink(&stream, ProcessOptions::new(8));
        let mut source = source(&stream, ProcessSourceOptions::new(8));
        source.wait_for_receivers(PATIENCE).unwrap();
        let at = source.monotonic(cycle(5)).expect("no time namespace");
        assert_eq!(at.quality(), ClockQuality::Monotonic);
        let mut is_new = false;
        wait_for("the value", || {
            assert!(source.emit_as(&[1], at).unwrap().is_sent());
            is_new |= sink.poll(cycle(7)).unwrap().is_new;
            is_new
        });
        let sample = sink.poll(cycle(9)).unwrap();
        assert_eq!(sample.instant, at);
        // What comes through the runtime may be another host's.
        assert_eq!(sample.age, is_direct.then_some(Nanos(4 * PERIOD_NS)));
    }
}

#[test]
fn a_late_joiner_gets_the_last_values_once_and_nobody_else_does() {
    for size in [INLINE_BYTES_MAX as u32, 5_000] {
        let value = |number: u64| vec![number as u8; size as usize];
        let session = Session::embedded("late").unwrap();
        let stream = open(&session, "s");
        let early = stream.sink(CHANNEL, SinkOptions::default()).unwrap();
        let mut source = source(&stream, ProcessSourceOptions::new(size).history(3));
        source.wait_for_receivers(PATIENCE).unwrap();
        let at = source.monotonic(cycle(1)).unwrap();
        for number in 0..5 {
            assert!(source.emit_as(&value(number), at).unwrap().is_sent());
        }

        let plain = stream.sink(CHANNEL, SinkOptions::default()).unwrap();
        let mut sample_sink = sink(&stream, ProcessOptions::new(size).period(PERIOD));
        wait_for("both late sinks", || source.receivers() == 3);
        let mut joined = 0;
        wait_for("both got it", || {
            joined += source.attend();
            joined == 2
        });
        assert_eq!(source.attend(), 0, "once");

        let sample = sample_sink.poll(cycle(20)).unwrap();
        assert_eq!((sample.bytes, sample.sequence, sample.instant), (&value(4)[..], 4, at));
        assert_eq!((sample.validity, sample.is_history), (Validity::Held { missed: 0 }, true));
        assert_eq!((sample.edge, sample.is_new, sample.lost.total), (None, true, 0), "the past is not fresh");
        assert_eq!(sample.age, Some(Nanos(19 * PERIOD_NS)));
        assert_eq!(sample_sink.poll(cycle(30)).unwrap().edge, None, "nor does it become stale");

        send(&mut source, &value(5));
        let sample = sample_sink.poll(cycle(31)).unwrap();
        assert_eq!((sample.bytes, sample.sequence, sample.is_history), (&value(5)[..], 5, false));
        assert_eq!((sample.validity, sample.edge), (Validity::Fresh, Some(Edge::Fresh)));

        let sequences = |sink: &insane_rt::Sink| {
            let mut all = Vec::new();
            while let Some(message) = sink.consume().unwrap() {
                assert_eq!(message.to_vec(), value(message.sequence()));
                all.push(message.sequence());
            }
            all
        };
        assert_eq!(sequences(&early), [0, 1, 2, 3, 4, 5]);
        assert_eq!(sequences(&plain), [2, 3, 4, 5]);
    }
}

#[test]
fn history_never_takes_the_place_of_a_value_of_now() {
    let session = Session::embedded("order").unwrap();
    let stream = open(&session, "s");
    let mut old = source(&stream, ProcessSourceOptions::new(8).history(1));
    let mut new = source(&stream, ProcessSourceOptions::new(8));
    send(&mut old, b"old");
    let mut sink = sink(&stream, ProcessOptions::new(8));
    wait_for("the sink is joined to both", || old.receivers() == 1 && new.receivers() == 1);
    send(&mut new, b"new");
    assert_eq!(sink.poll(cycle(0)).unwrap().bytes, b"new");
    wait_for("the old value is sent", || old.attend() == 1);
    let sample = sink.poll(cycle(1)).unwrap();
    assert_eq!((sample.bytes, sample.is_new), (&b"new"[..], false));
}

#[test]
fn a_callback_is_told_of_values_and_of_silence() {
    let session = Session::embedded("called").unwrap();
    let stream = open(&session, "s");
    let (tell, told) = mpsc::channel();
    let options = ProcessOptions::new(8).period(Duration::from_millis(20)).max_missed(1);
    let handle = stream
        .process_sink_with_callback(CHANNEL, options, move |sample| {
            let _ = tell.send((sample.bytes.to_vec(), sample.validity, sample.edge));
        })
        .unwrap();
    let mut source = source(&stream, ProcessSourceOptions::new(8));
    source.wait_for_receivers(PATIENCE).unwrap();
    for round in 0..3_u8 {
        send(&mut source, &[round]);
        let (bytes, validity, edge) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!((bytes, validity, edge), (vec![round], Validity::Fresh, Some(Edge::Fresh)));
        // Nothing comes any more, and yet it is called.
        let (bytes, validity, edge) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!((bytes, edge), (vec![round], Some(Edge::Stale)));
        assert!(matches!(validity, Validity::Held { missed } if missed >= 2), "{validity:?}");
        assert!(told.recv_timeout(Duration::from_millis(100)).is_err(), "once");
    }
    drop(handle);
    send(&mut source, &[9]);
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err(), "nobody is called any more");
}

/// Panics as it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("in a drop");
    }
}

/// The callback thread outlives what a callback throws, and does not wait for itself where a
/// callback holds the handle of another.
#[test]
fn what_a_callback_throws_and_what_it_holds_ends_no_other() {
    let session = Session::embedded("grenades").unwrap();
    let stream = open(&session, "s");
    let sink = |channel, callback: Box<dyn FnMut(insane_rt::Message<'_>) + Send>| {
        stream.sink_with_callback(channel, SinkOptions::default(), callback).unwrap()
    };
    let (held_channel, others) = (ChannelId(2), ChannelId(3));
    let (tell, told) = mpsc::channel();
    let goes_on = sink(others, Box::new(move |message| _ = tell.send(message.to_vec())));
    let held = sink(held_channel, Box::new(|_| ()));
    let throws = sink(CHANNEL, Box::new(|_| std::panic::panic_any(Grenade)));
    let holds = sink(
        CHANNEL,
        Box::new(move |_| {
            assert!(held.panicked().is_some(), "it holds a handle");
        }),
    );
    let sources = [CHANNEL, held_channel, others].map(|at| stream.source(at, SourceOptions::default()).unwrap());
    let [falls, of_held, plain] = &sources;
    wait_for("all sinks", || (falls.receivers(), of_held.receivers(), plain.receivers()) == (2, 1, 1));
    assert!(falls.emit_copy(b"fall").unwrap().is_sent());
    wait_for("both fall", || throws.panicked().is_some() && holds.panicked().is_some());
    wait_for("what one held is closed with it", || (falls.receivers(), of_held.receivers()) == (0, 0));
    assert!(plain.emit_copy(b"plain").unwrap().is_sent());
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), b"plain");
    drop(goes_on);
}

#[test]
fn a_callback_that_panics_silences_no_other() {
    let session = Session::embedded("panics").unwrap();
    let stream = open(&session, "s");
    let period = Duration::from_millis(20);
    let (tell, told) = mpsc::channel();
    let (plain_tell, plain_told) = mpsc::channel();
    let handle = |channel, callback: Box<dyn FnMut(insane_rt::Sample<'_>) + Send>| {
        stream.process_sink_with_callback(channel, ProcessOptions::new(8).period(period), callback).unwrap()
    };
    let others = ChannelId(2);
    // Three that panic, each in its way, between two that do not.
    let before = stream.sink_with_callback(others, SinkOptions::default(), move |message| {
        let _ = plain_tell.send(message.to_vec());
    });
    let before = before.unwrap();
    let falls = [
        handle(CHANNEL, Box::new(|_| panic!("first words"))),
        handle(CHANNEL, Box::new(|sample| panic!("{} last words", sample.bytes.len()))),
        stream.sink_with_callback(CHANNEL, SinkOptions::default(), |_| std::panic::panic_any(7)).unwrap(),
    ];
    let goes_on = handle(
        CHANNEL,
        Box::new(move |sample| {
            let _ = tell.send((sample.bytes.to_vec(), sample.edge));
        }),
    );
    let mut source = source(&stream, ProcessSourceOptions::new(8));
    wait_for("all four sinks", || source.receivers() == 4);
    send(&mut source, &[1]);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (vec![1], Some(Edge::Fresh)));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (vec![1], Some(Edge::Stale)), "it hears of silence, too");
    for (fallen, words) in falls.iter().zip(["first words", "1 last words", "no text"]) {
        wait_for("it is told", || fallen.panicked() == Some(words));
    }
    assert_eq!((goes_on.panicked(), before.panicked()), (None, None));
    wait_for("the sinks of those that fell are closed", || source.receivers() == 1);
    let status = session.runtime().unwrap().status().unwrap();
    assert_eq!(status.domains[0].sessions[0].counters["callback_panics"], 3);

    // Those that were there go on, and new ones are taken.
    let plain = stream.source(others, SourceOptions::default()).unwrap();
    plain.wait_for_receivers(PATIENCE).unwrap();
    assert!(plain.emit_copy(b"plain").unwrap().is_sent());
    assert_eq!(plain_told.recv_timeout(PATIENCE).unwrap(), b"plain");
    drop(falls);
    let (tell, told) = mpsc::channel();
    let _late = handle(
        CHANNEL,
        Box::new(move |sample| {
            let _ = tell.send(sample.bytes.to_vec());
        }),
    );
    wait_for("the late one", || source.receivers() == 2);
    send(&mut source, &[2]);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), [2]);
}

#[test]
fn an_image_is_of_one_cycle_or_not_shown() {
    let session = Session::embedded("image").unwrap();
    let stream = open(&session, "s");
    let channels = [ChannelId(1), ChannelId(2), ChannelId(3)];
    let mut image = ProcessImage::new(ImageOptions::new(PERIOD).cycles(4).max_missed(1)).unwrap();
    let members = channels.map(|channel| image.add(&stream, channel, 8).unwrap());
    let mut sources = channels.map(|channel| stream.process_source(channel, ProcessSourceOptions::new(8)).unwrap());
    // The sources' sequence numbers do not agree.
    for source in &mut sources {
        source.wait_for_receivers(PATIENCE).unwrap();
    }
    let earlier = sources[0].monotonic(cycle(1)).unwrap();
    assert!(sources[0].emit_as(b"earlier", earlier).unwrap().is_sent());
    let mut emit = |which: usize, number: u64, jitter: u64| {
        let at = sources[which].monotonic(cycle(number) + Nanos(jitter)).unwrap();
        assert!(sources[which].emit_as(&number.to_le_bytes(), at).unwrap().is_sent());
    };
    let at = |image: &ProcessImage, number| image.cycle_of(SourceInstant::Monotonic(cycle(number))).unwrap();

    emit(0, 10, 0);
    emit(1, 10, 300);
    let shown = image.poll(cycle(10)).unwrap();
    assert_eq!((shown.cycle, shown.validity, shown.edge), (None, Validity::NeverReceived, None));
    assert_eq!(shown.value(members[0]), None);
    assert!(matches!(image.read(at(&image, 10)), ImageRead::Incomplete { missing: 1 }));

    // Two members are a cycle ahead when the third one's value comes.
    emit(0, 11, 0);
    emit(1, 11, 0);
    emit(2, 10, 400);
    let shown = image.poll(cycle(11)).unwrap();
    assert_eq!((shown.edge, shown.is_new), (Some(Edge::Fresh), true));
    for member in members {
        assert_eq!(shown.value(member), Some(&10_u64.to_le_bytes()[..]), "all of one cycle");
    }
    emit(2, 11, 0);
    emit(0, 12, 0);
    let shown = image.poll(cycle(12)).unwrap();
    let cycle_11 = shown.cycle.unwrap();
    assert_eq!(members.map(|member| shown.value(member)), [Some(&11_u64.to_le_bytes()[..]); 3]);
    assert_eq!(cycle_11, at(&image, 11));
    let ImageRead::Whole(older) = image.read(at(&image, 10)) else { panic!("it is still kept") };
    assert_eq!(older.value(members[2]), 10_u64.to_le_bytes());

    // One member falls silent: the whole image becomes stale, and holds.
    for number in 13..17 {
        emit(0, number, 0);
        emit(1, number, 0);
        let shown = image.poll(cycle(number)).unwrap();
        assert_eq!(shown.edge, (number == 14).then_some(Edge::Stale), "{number}");
        assert_eq!(shown.cycle, Some(cycle_11));
        assert_eq!(members.map(|member| shown.value(member)), [Some(&11_u64.to_le_bytes()[..]); 3]);
    }
    assert!(matches!(image.read(cycle_11), ImageRead::Incomplete { missing: 2 }), "two have later values there");
    // What comes when its cycle is gone is told.
    emit(2, 16, 0);
    emit(2, 12, 0);
    let shown = image.poll(cycle(17)).unwrap();
    assert_eq!((shown.cycle.map(|cycle| cycle.number), shown.edge), (Some(cycle_11.number + 5), Some(Edge::Fresh)));
    assert_eq!(image.late(), 1);
}

#[test]
fn an_image_tells_of_each_member_what_a_sink_does() {
    let session = Session::embedded("parts").unwrap();
    let stream = open(&session, "s");
    let channels = [ChannelId(1), ChannelId(2)];
    let mut image = ProcessImage::new(ImageOptions::new(PERIOD)).unwrap();
    let members = channels.map(|channel| image.add(&stream, channel, 8).unwrap());
    let mut sources = channels.map(|channel| stream.process_source(channel, ProcessSourceOptions::new(8)).unwrap());
    for source in &mut sources {
        source.wait_for_receivers(PATIENCE).unwrap();
    }
    let mut emit = |which: usize, number: u64| {
        let at = sources[which].monotonic(cycle(number)).unwrap();
        let _ = sources[which].emit_as(&number.to_le_bytes(), at).unwrap();
        at
    };
    assert_eq!(image.poll(cycle(0)).unwrap().part(members[0]), None, "there is no image");
    // More than a ring holds: the second member loses some, which its next message tells.
    let emitted: u64 = 5_000;
    (0..emitted).for_each(|_| _ = emit(1, 1));
    image.poll(cycle(1)).unwrap();
    let ats = [emit(0, 2), emit(1, 2)];
    let shown = image.poll(cycle(5)).unwrap();
    let [first, second] = members.map(|member| shown.part(member).expect("whole"));
    assert_eq!((first.bytes, first.sequence, first.instant), (&2_u64.to_le_bytes()[..], 0, ats[0]));
    assert_eq!((second.bytes, second.sequence, second.instant), (&2_u64.to_le_bytes()[..], emitted, ats[1]));
    assert_eq!([first.age, second.age], [Some(Nanos(3 * PERIOD_NS)); 2], "the clock is this host's");
    let [none, some] = members.map(|member| shown.lost(member));
    assert_eq!((none.total, none.since_last), (0, 0));
    assert!(some.total > 0 && some.since_last == some.total, "{some:?}");
    let shown = image.poll(cycle(9)).unwrap();
    let later = shown.lost(members[1]);
    assert_eq!((later.total, later.since_last), (some.total, 0));
    assert_eq!(shown.part(members[1]).unwrap().age, Some(Nanos(7 * PERIOD_NS)), "it grows");
}

#[test]
fn an_image_takes_no_values_of_another_schema() {
    let session = Session::embedded("image-schemas").unwrap();
    let stream = open(&session, "s");
    let [one, two] = [("axis v1", 1), ("axis v2", 2)].map(|(name, hash)| Schema::new(name, hash).unwrap());
    let first = stream.process_source(ChannelId(1), ProcessSourceOptions::new(8).schema(one)).unwrap();
    let mut image = ProcessImage::new(ImageOptions::new(PERIOD)).unwrap();
    let refused = image.add_with(&stream, ChannelId(1), 8, two).unwrap_err();
    let RequestError::Refused { code: Code::Schema, reason } = &refused else { panic!("{refused:?}") };
    assert!(reason.contains("'axis v1'") && reason.contains("'axis v2'"), "{reason}");
    // What was refused is no member: the image is whole without it.
    let member = image.add_with(&stream, ChannelId(1), 8, one).unwrap();
    assert_eq!(image.refused(member), None);
    let other = stream.process_source(ChannelId(1), ProcessSourceOptions::new(8).schema(two));
    assert!(matches!(other, Err(RequestError::Refused { code: Code::Schema, .. })));
    let mut first = first;
    first.wait_for_receivers(PATIENCE).unwrap();
    send(&mut first, &[1; 8]);
    assert_eq!(image.latest().unwrap().value(member), Some(&[1; 8][..]));
}

#[test]
fn an_image_goes_on_soon_after_the_clock_was_set_back() {
    for back in [2, 100, 500, 5_000] {
        let session = Session::embedded("set-back").unwrap();
        let stream = open(&session, "s");
        let channels = [ChannelId(1), ChannelId(2)];
        let mut image = ProcessImage::new(ImageOptions::new(PERIOD).cycles(4)).unwrap();
        let members = channels.map(|channel| image.add(&stream, channel, 8).unwrap());
        let mut sources = channels.map(|channel| stream.process_source(channel, ProcessSourceOptions::new(8)).unwrap());
        for source in &mut sources {
            source.wait_for_receivers(PATIENCE).unwrap();
        }
        let start = 10_000;
        let mut shown_again = None;
        for number in 0..600 {
            // The receiver's own clock goes on; that of the sources is set back once.
            let theirs = if number < 10 { start + number } else { start + number - back };
            for source in &mut sources {
                let at = source.monotonic(cycle(theirs)).unwrap();
                assert!(source.emit_as(&number.to_le_bytes(), at).unwrap().is_sent());
            }
            let shown = image.poll(cycle(start + number)).unwrap();
            assert_eq!(shown.value(members[0]), shown.value(members[1]), "of one cycle");
            let newest = shown.value(members[0]).unwrap() == number.to_le_bytes();
            match shown_again {
                None if number >= 10 && newest => shown_again = Some(number - 10),
                None => assert!(number >= 10 || newest, "{number}"),
                Some(_) => assert!(newest, "{back} back: it goes on once it went on"),
            }
        }
        let after = shown_again.expect("it goes on");
        assert!(after <= 8 + 4, "{after} cycles after a step of {back}");
    }
}

/// Two hosts' clocks are not set back at the same moment, nor do both hosts' values come at once:
/// when the first step is noticed the other member may be anywhere in its own.
#[test]
fn an_image_goes_on_soon_after_two_clocks_were_set_back_one_after_the_other() {
    for (back, later, behind) in (0..=14).flat_map(|later| [(100, later, 0), (500, later, 0), (100, later, 3)]) {
        let session = Session::embedded("set-back-twice").unwrap();
        let stream = open(&session, "s");
        let mut image = ProcessImage::new(ImageOptions::new(PERIOD).cycles(4)).unwrap();
        let mut of_host = |number, steps_at, behind| {
            let member = image.add(&stream, ChannelId(number), 8).unwrap();
            let source = stream.process_source(ChannelId(number), ProcessSourceOptions::new(8)).unwrap();
            source.wait_for_receivers(PATIENCE).unwrap();
            (member, source, steps_at, behind)
        };
        // The second's values come as many cycles late as it is behind.
        let mut hosts = [of_host(1, 10, 0), of_host(2, 10 + later, behind)];
        let start = 10_000;
        let goes_on_by = 10 + later + behind + 8 + 4;
        for number in 0..60 {
            for (_, source, steps_at, behind) in &mut hosts {
                let Some(emitted) = u64::checked_sub(number, *behind) else { continue };
                let theirs = start + emitted - if emitted < *steps_at { 0 } else { back };
                let at = source.monotonic(cycle(theirs)).unwrap();
                assert!(source.emit_as(&theirs.to_le_bytes(), at).unwrap().is_sent());
            }
            let shown = image.poll(cycle(start + number)).unwrap();
            assert_eq!(shown.value(hosts[0].0), shown.value(hosts[1].0), "of one cycle");
            let is_newest =
                shown.is_new && shown.value(hosts[0].0) == Some(&(start + number - behind - back).to_le_bytes());
            let case = format!("{number}: {back} back, {later} later, {behind} behind");
            assert!(number < goes_on_by || is_newest, "each cycle is whole, after eight and four; {case}");
        }
    }
}

#[test]
fn values_of_no_known_clock_are_in_no_image() {
    let session = Session::embedded("clocks").unwrap();
    let stream = open(&session, "s");
    let mut image = ProcessImage::new(ImageOptions::new(PERIOD)).unwrap();
    image.add(&stream, CHANNEL, 8).unwrap();
    let mut source = source(&stream, ProcessSourceOptions::new(16));
    source.wait_for_receivers(PATIENCE).unwrap();
    assert!(source.emit_as(&[1], SourceInstant::None).unwrap().is_sent());
    assert!(source.emit_as(&[1], SourceInstant::Unnamed(5_000_000)).unwrap().is_sent());
    send(&mut source, &[1; 9]);
    assert_eq!(image.poll(cycle(0)).unwrap().cycle, None);
    assert_eq!(image.unplaced(), 3);
    send(&mut source, &[1; 8]);
    assert!(image.poll(cycle(0)).unwrap().cycle.is_some());
    for options in [ImageOptions::new(Duration::ZERO), ImageOptions::new(PERIOD).cycles(0)] {
        assert!(ProcessImage::new(options).is_err());
    }
}

#[test]
fn ends_of_different_schemas_do_not_come_together() {
    let session = Session::embedded("schemas").unwrap();
    let other = session.sibling("other").unwrap();
    let (here, there) = (open(&session, "s"), open(&other, "s"));
    let [one, two] = [("axis v1", 1), ("axis v2", 2)].map(|(name, hash)| Schema::new(name, hash).unwrap());
    let renamed = Schema::new("axis, the first", 1).unwrap();
    let source = here.process_source(CHANNEL, ProcessSourceOptions::new(8).schema(one)).unwrap();

    let is_refused = |result: Option<RequestError>| match result {
        Some(RequestError::Refused { code: Code::Schema, reason }) => {
            assert!(reason.contains("'axis v1'") && reason.contains("'axis v2'"), "{reason}");
        }
        other => panic!("{other:?}"),
    };
    is_refused(there.sink(CHANNEL, SinkOptions::default().schema(two)).err());
    is_refused(there.process_sink(CHANNEL, ProcessOptions::new(8).schema(two)).err());
    is_refused(there.source(CHANNEL, SourceOptions::default().schema(two)).err());
    is_refused(there.process_source(CHANNEL, ProcessSourceOptions::new(8).schema(two)).err());
    assert_eq!(source.receivers(), 0);

    let _named = there.sink(CHANNEL, SinkOptions::default().schema(renamed)).unwrap();
    let _silent = there.sink(CHANNEL, SinkOptions::default()).unwrap();
    let _elsewhere = there.sink(ChannelId(2), SinkOptions::default().schema(two)).unwrap();
    wait_for("the hash decides, and who says nothing is joined", || source.receivers() == 2);

    // What is gone is no hindrance.
    drop((source, _named));
    wait_for("the channel is of the other schema", || {
        there.source(CHANNEL, SourceOptions::default().schema(two)).is_ok()
    });
}

#[test]
fn options_out_of_range_are_refused() {
    let session = Session::embedded("options").unwrap();
    let stream = open(&session, "s");
    let sinks = [
        ProcessOptions::new(0),
        ProcessOptions::new(8).period(Duration::ZERO),
        ProcessOptions::new(8).on_stale(OnStale::Substitute(vec![0; 9])),
        ProcessOptions::new(8).depth(1 << 20),
    ];
    for options in sinks {
        assert!(matches!(stream.process_sink(CHANNEL, options.clone()), Err(RequestError::Option(_))), "{options:?}");
    }
    for options in [ProcessSourceOptions::new(0), ProcessSourceOptions::new(8).history(17)] {
        assert!(matches!(stream.process_source(CHANNEL, options.clone()), Err(RequestError::Option(_))), "{options:?}");
    }
}

#[test]
fn after_creation_nothing_is_allocated() {
    let session = Session::embedded("guard").unwrap();
    let stream = open(&session, "s");
    let mut sink = sink(&stream, ProcessOptions::new(500).period(PERIOD).on_stale(OnStale::Substitute(vec![1; 500])));
    let mut source = source(&stream, ProcessSourceOptions::new(500).history(16));
    let mut image = ProcessImage::new(ImageOptions::new(PERIOD)).unwrap();
    image.add(&stream, CHANNEL, 500).unwrap();
    wait_for("both receivers", || source.receivers() == 2);
    // The first look reads the mail.
    sink.poll(cycle(0)).unwrap();
    image.poll(cycle(0)).unwrap();
    let before = guard::violations_here();
    guard::seal_thread();
    let (mut fresh, mut stale, mut whole) = (0, 0, 0);
    for number in 0..1_000_u64 {
        let at = source.monotonic(cycle(number)).unwrap();
        if number % 10 < 5 {
            let Ok(Emit::Sent(_)) = source.emit_as(&[number as u8; 500][..(number % 500) as usize], at) else {
                panic!("room")
            };
        }
        match sink.poll(cycle(number)).unwrap().edge {
            Some(Edge::Fresh) => fresh += 1,
            Some(Edge::Stale) => stale += 1,
            None => {}
        }
        whole += u64::from(image.poll(cycle(number)).unwrap().is_new);
    }
    guard::unseal_thread();
    assert_eq!((fresh, stale, whole), (100, 100, 500));
    assert_eq!(guard::violations_here(), before);
}
