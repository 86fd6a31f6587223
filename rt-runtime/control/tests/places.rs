//! Tables of a datapath that no quota bounds are bounded when somebody asks for one place more.

mod world;

use insane_config::RELIABLE_SOURCES_OF_DATAPATH;
use insane_core::{Qos, Reliability, SessionId, StreamId};
use insane_wire::control::{Code, Request};
use world::script::{last_failure, open_as, source, source_request};
use world::{World, datapath, spec};

fn reliable() -> Qos {
    Qos { reliability: Reliability::Reliable, ..Qos::default() }
}

/// A session of the user with this stream.
fn opened(world: &mut World, uid: u32, name: &str, qos: Qos) -> (SessionId, StreamId) {
    let session = world.attach(uid);
    (session, open_as(world, session, name, qos, false).expect("opened"))
}

fn is_refused(world: &mut World, (session, stream): (SessionId, StreamId), uid: u64) -> Option<(Code, String)> {
    let failures = world.clients[&session].failures.len();
    let request = source_request(world, session, stream, uid);
    world.request(session, &request);
    world.settle();
    (world.clients[&session].failures.len() > failures).then(|| last_failure(world, session))
}

/// Who asks for one more is told; nobody else loses anything, and what is closed makes room.
#[test]
fn a_domain_has_its_part_of_the_reliable_sources_and_one_more_is_refused() {
    let mut world = World::new({
        let mut spec = spec(vec![datapath(&[1], false)]);
        spec.counter_lines = 256;
        spec
    });
    let part = u64::from(RELIABLE_SOURCES_OF_DATAPATH) / 2;
    let mine = opened(&mut world, 1, "mine", reliable());
    for uid in 0..part {
        assert_eq!(is_refused(&mut world, mine, uid), None, "{uid}");
    }
    let (code, reason) = is_refused(&mut world, mine, 900).expect("one too many");
    assert_eq!(code, Code::Resources);
    assert_eq!(reason, "a datapath serves 256 reliable sources, 128 of each domain; 128 of this one are in use");
    // An unreliable one needs no such place.
    let plain = opened(&mut world, 1, "plain", Qos::default());
    assert_eq!(is_refused(&mut world, plain, 901), None);
    // The other domain has its own part, all of it.
    let others = opened(&mut world, 11, "others", reliable());
    for uid in 0..part {
        assert_eq!(is_refused(&mut world, others, uid), None, "{uid}");
    }
    assert!(is_refused(&mut world, others, 900).is_some());
    let source_id = *world.clients[&mine.0].sources.keys().next().unwrap();
    world.request(mine.0, &Request::CloseSource { req: 9, source: source_id });
    world.settle();
    source(&mut world, mine.0, mine.1, 902);
}

/// Without peers, messages never go through the datapath.
#[test]
fn who_can_only_be_local_needs_no_place() {
    let mut world = World::new({
        let mut spec = spec(vec![datapath(&[], false)]);
        spec.counter_lines = 512;
        spec
    });
    let mine = opened(&mut world, 1, "mine", reliable());
    for uid in 0..=u64::from(RELIABLE_SOURCES_OF_DATAPATH) {
        assert_eq!(is_refused(&mut world, mine, uid), None, "{uid}");
    }
}
