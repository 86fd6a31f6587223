//! Who may attach, and how much each tenant may use.

use crate::world::{Daemon, Helper, OPEN, Place, closing, open_to_all, until};
use insane_rt::{
    ChannelId, Code, Qos, RequestError, Session, SessionError, SinkOptions, Source, SourceOptions, Stream,
};
use insane_wire::control::{Hello, Role, encode_hello};
use std::os::unix::process::CommandExt;
use std::process::Command;

const QUIET: &str = "log: (level: error)";
/// The user whose other rights are none.
const NOBODY: u32 = 65_534;

fn own_uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

#[test]
fn who_is_no_member_is_refused_in_words() {
    let place = Place::new("access");
    let daemon = Daemon::start(
        &place,
        "(name: \"theirs\", members: [uid(12345)]), (name: \"group\", members: [gid(54321)])",
        QUIET,
    );
    for domain in [None, Some("theirs"), Some("group"), Some("none such")] {
        let attached = match domain {
            None => Session::attach(daemon.socket(), "x"),
            Some(domain) => Session::attach_in(daemon.socket(), "x", domain),
        };
        let Err(SessionError::Refused { code, reason }) = attached else { panic!("{domain:?} is refused") };
        assert_eq!(code, Code::Access);
        assert!(reason.contains(&format!("user {}", own_uid())), "{reason}");
        assert!(domain.is_none_or(|domain| reason.contains(domain)), "{reason}");
    }
    // Who runs it may watch it.
    assert_eq!(daemon.status().domains.len(), 2);
}

#[test]
fn another_user_gets_its_own_domain_only() {
    if own_uid() != 0 {
        eprintln!("passed over: only root can become another user");
        return;
    }
    let place = Place::new("users");
    let program = place.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open_to_all(&program);
    let daemon =
        Daemon::start(&place, "(name: \"root\", members: [uid(0)]), (name: \"nobody\", members: [uid(65534)])", QUIET);
    let as_nobody =
        |command: &mut Command| Helper::spawn("attach", daemon.socket(), &[], command.uid(NOBODY).gid(NOBODY)).finish();
    assert_eq!(as_nobody(Command::new(&program).current_dir(place.path())), "in nobody");
    assert_eq!(daemon.attach("root").domain(), "root");
    drop(daemon);
    let daemon = Daemon::start(&place, "(name: \"root\", members: [uid(0)])", QUIET);
    let said = Helper::spawn(
        "attach",
        daemon.socket(),
        &[],
        Command::new(&program).current_dir(place.path()).uid(NOBODY).gid(NOBODY),
    )
    .finish();
    assert!(said.starts_with("out") && said.contains("no access rule lets user 65534"), "{said}");
}

#[test]
fn a_member_that_holds_all_its_places_keeps_no_operator_from_looking() {
    if own_uid() != 0 {
        eprintln!("passed over: only root can become another user");
        return;
    }
    let place = Place::new("watchers");
    let program = place.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open_to_all(&program);
    let daemon = Daemon::start(&place, OPEN, QUIET);
    let mut command = Command::new(&program);
    let mut watchers =
        Helper::spawn("watch", daemon.socket(), &[], command.current_dir(place.path()).uid(NOBODY).gid(NOBODY));
    let said = watchers.hear("ready");
    assert!(said.starts_with("4 ") && said.contains("at most 4 tools of user 65534"), "{said}");
    // This process is root's.
    assert_eq!(daemon.status().domains[0].sessions.iter().filter(|row| row.uid == NOBODY).count(), 4);
    watchers.finish();
}

#[test]
fn a_name_that_is_no_name_is_refused() {
    let place = Place::new("names");
    let daemon = Daemon::start(&place, OPEN, QUIET);
    for name in ["", "a\nb", &"x".repeat(65)] {
        assert!(matches!(Session::attach(daemon.socket(), name), Err(SessionError::Name)));
        let mut peer = crate::peer::Peer::new(daemon.connect());
        peer.send_bytes(&encode_hello(&Hello { name: name.into(), domain: None, role: Role::Application }));
        assert_eq!(closing(&mut peer).expect("a reason").0, Code::Protocol);
    }
}

#[test]
fn two_domains_with_a_stream_of_one_name_never_meet() {
    let place = Place::new("domains");
    let daemon = Daemon::start(&place, "(name: \"a\", members: [any]), (name: \"b\", members: [any])", QUIET);
    let open = |domain: &str| {
        let session = Session::attach_in(daemon.socket(), "x", domain).unwrap();
        (session.stream("one name", Qos::default()).unwrap(), session)
    };
    let ((a, _in_a), (b, _in_b)) = (open("a"), open("b"));
    let sinks = [&a, &b].map(|stream| stream.sink(ChannelId(1), SinkOptions::default()).unwrap());
    let sources = [&a, &b].map(|stream| source(stream, SourceOptions::default()).unwrap());
    until("each is joined", || sources.iter().all(|source| source.receivers() == 1));
    for (word, source) in [b"a", b"b"].iter().zip(&sources) {
        assert!(source.emit_copy(*word).unwrap().is_sent());
    }
    for (word, sink) in [b"a", b"b"].iter().zip(&sinks) {
        let patience = std::time::Duration::from_secs(20);
        assert_eq!(sink.consume_timeout(patience).unwrap().unwrap().to_vec(), *word);
        assert!(sink.consume().unwrap().is_none(), "and nothing of the other's");
    }
    assert!(sources.iter().all(|source| source.receivers() == 1));
}

fn quota_of(refused: Result<impl Sized, RequestError>) -> String {
    match refused {
        Err(RequestError::Refused { code: Code::Quota, reason }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is beyond the quota"),
    }
}

fn source(stream: &Stream, options: SourceOptions) -> Result<Source, RequestError> {
    stream.source(ChannelId(1), options)
}

#[test]
fn every_quota_is_refused_with_limit_and_use_and_freed_again() {
    let place = Place::new("quotas");
    let quota = "sessions: 2, streams: 2, sources: 2, sinks: 2, bytes: 4_000_000, buffers: 300";
    let domain = format!("(name: \"d\", members: [any], quota: ({quota}))");
    let daemon = Daemon::start(&place, &domain, QUIET);
    let session = daemon.attach("first");

    let second = daemon.attach("second");
    let Err(SessionError::Refused { code, reason }) = Session::attach(daemon.socket(), "third") else {
        panic!("beyond the quota")
    };
    assert_eq!(code, Code::Quota);
    assert!(reason.contains("quota of sessions is 2; 2 in use"), "{reason}");
    drop(second);
    until("the second session is gone", || daemon.used("sessions") == 1);
    drop(daemon.attach("third"));

    for _ in 0..3 {
        let (one, _two) = (session.stream("1", Qos::default()).unwrap(), session.stream("2", Qos::default()).unwrap());
        let reason = quota_of(session.stream("3", Qos::default()));
        assert!(reason.contains("quota of streams is 2; 2 in use"), "{reason}");

        let (_a, _b) = (source(&one, SourceOptions::small()).unwrap(), source(&one, SourceOptions::small()).unwrap());
        let reason = quota_of(source(&one, SourceOptions::small()));
        assert!(reason.contains("quota of sources is 2; 2 in use"), "{reason}");

        let sink = || one.sink(ChannelId(2), SinkOptions::default());
        let (_c, _d) = (sink().unwrap(), sink().unwrap());
        let reason = quota_of(sink());
        assert!(reason.contains("quota of sinks is 2; 2 in use"), "{reason}");
    }
    for _ in 0..3 {
        let stream = session.stream("1", Qos::default()).unwrap();
        let large = source(&stream, SourceOptions::default().buffers(1_000_000, 3)).unwrap();
        let reason = quota_of(source(&stream, SourceOptions::default().buffers(1_000_000, 3)));
        assert!(reason.contains("quota of bytes is 4000000; "), "{reason}");
        drop(large);
        let many = source(&stream, SourceOptions::default().buffers(64, 200)).unwrap();
        let reason = quota_of(source(&stream, SourceOptions::default().buffers(64, 200)));
        assert!(reason.contains("quota of buffers is 300; 200 in use"), "{reason}");
        drop(many);
    }
    until("all is given back", || {
        ["streams", "sources", "sinks", "buffers", "connections"].iter().all(|what| daemon.used(what) == 0)
    });
    let quotas = &daemon.status().domains[0].quotas;
    for what in ["sessions", "streams", "sources", "sinks", "bytes", "buffers"] {
        assert!(quotas[what].refused > 0, "{what}: refusals are counted");
    }
}

#[test]
fn the_quota_of_connections_is_refused_and_freed_again() {
    let place = Place::new("connections");
    let daemon = Daemon::start(&place, "(name: \"d\", members: [any], quota: (connections: 3))", QUIET);
    let session = daemon.attach("joiner");
    let stream = session.stream("s", Qos::default()).unwrap();
    let sink = || stream.sink(ChannelId(1), SinkOptions::default());
    for _ in 0..3 {
        let source = source(&stream, SourceOptions::default()).unwrap();
        let sinks = [(); 3].map(|()| sink().unwrap());
        let reason = quota_of(sink());
        assert!(reason.contains("quota of connections is 3; 3 in use"), "{reason}");
        drop((source, sinks));
        until("all is given back", || daemon.used("connections") == 0);
    }
    assert!(daemon.status().domains[0].quotas["connections"].refused >= 3);
}
