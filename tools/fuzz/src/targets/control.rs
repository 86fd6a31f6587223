//! Packets of the control socket, whose other end is any process of the host.
//!
//! ```text
//!   0    what the packet is taken for | 1.. the packet
//! ```

use insane_wire::control::{
    Event, Hello, Request, decode, decode_hello, decode_hello_prefix, encode, encode_hello, name_fits, negotiate,
};

pub(crate) fn feed(input: &[u8]) {
    let Some((&what, packet)) = input.split_first() else { return };
    match what % 3 {
        0 => {
            let Ok(prefix) = decode_hello_prefix(packet) else { return };
            if let Some(version) = negotiate(prefix) {
                assert!(
                    (prefix.version_min..=prefix.version_max).contains(&version),
                    "a version that one does not speak"
                );
            }
            if let Ok(hello) = decode_hello(packet) {
                assert!(name_fits(&hello.name), "a name out of range");
                let again: Hello = decode_hello(&encode_hello(&hello)).expect("what was read can be written");
                assert_eq!(again, hello);
            }
        }
        1 => {
            if let Ok(request) = decode::<Request>(packet) {
                let again: Request = decode(&encode(&request)).expect("what was read can be written");
                assert_eq!(format!("{again:?}"), format!("{request:?}"));
            }
        }
        _ => {
            if let Ok(event) = decode::<Event>(packet) {
                let again: Event = decode(&encode(&event)).expect("what was read can be written");
                assert_eq!(format!("{again:?}"), format!("{event:?}"));
            }
        }
    }
}
