//! Bodies of frames between runtimes: who is interested in what, who hears a group, who lives,
//! and reports on reliable flows.
//!
//! ```text
//!   0    what the body is taken for; bit 7: the check is put right | 1.. the body
//! ```

use insane_wire::overlay::{
    BODY_BYTES_MAX, Body, CHANGES_MAX, Change, decode, encode_delta, encode_digest, encode_heartbeat,
};
use insane_wire::{data, group, link, overlay, reliable};

pub(crate) fn feed(input: &[u8]) {
    let Some((&what, body)) = input.split_first() else { return };
    let mut body = body.to_vec();
    if what & 0x80 != 0 {
        if what % 4 == 3 { data::seal(&mut body) } else { overlay::seal(&mut body) }
    }
    match what % 4 {
        0 => membership(&body),
        1 => {
            if let Ok(said) = group::GroupBody::decode(&body) {
                assert!(said.incarnation.0 != 0 && said.number != 0, "of no life, or without a number");
                assert_eq!(said.encode()[..], body, "a body that nobody writes");
            }
        }
        2 => {
            if let Ok(said) = link::LinkBeat::decode(&body) {
                assert!(said.incarnation.0 != 0 && said.stamp != 0, "of no life, or without an instant");
                assert_eq!(said.encode()[..], body, "a body that nobody writes");
            }
        }
        _ => {
            if let Ok(said) = reliable::Body::decode(&body) {
                assert_eq!(said.encode()[..], body, "a report that nobody writes");
            }
        }
    }
}

fn membership(body: &[u8]) {
    let Ok((head, said)) = decode(body) else { return };
    let mut again = [0; BODY_BYTES_MAX];
    let len = match said {
        Body::Heartbeat => encode_heartbeat(&head, &mut again),
        Body::Digest(digest) => encode_digest(&head, digest, &mut again),
        Body::Delta { base, to, changes } => {
            assert!(changes.len() <= CHANGES_MAX && changes.len() as u64 <= to - base, "more changes than versions");
            let list: Vec<Change> = changes.iter().collect();
            assert_eq!(list.len(), changes.len());
            encode_delta(&head, base, to, list.into_iter(), &mut again)
        }
    };
    assert_eq!(again[..len], *body, "a body that nobody writes");
}
