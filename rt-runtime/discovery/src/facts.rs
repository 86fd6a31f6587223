//! What is told of a host, as pairs of text. Pure.
//!
//! | key | value |
//! |---|---|
//! | `name` | its name |
//! | `life` | its incarnation, decimal |
//! | `link.NAME` | technology, a blank, address with port: `udp 10.0.0.1:7400` |
//! | `format` | `1`, a number; told last, so that where it is, the others are |
//!
//! Only with its number can the rest be read: what the other keys hold is looked at behind it.
//!
//! The host's identifier is that of the node, 16 hexadecimal digits. Nothing fast is told.

use insane_core::{HostId, Incarnation};
use insane_overlay::discovery::{Fact, LINKS_MAX, LinkFact};
use std::net::SocketAddr;

/// The version of all this: raised when one of the pairs says another thing, or one is added
/// without which a host is misunderstood. A test below keeps what it looks like.
const FORMAT: u32 = 1;

/// Why what was told could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unread {
    /// It makes no sense.
    Malformed,
    /// It is of this version, another than what is told of this host.
    OtherFormat(u32),
}

/// The text for an identifier.
#[must_use]
pub fn node_id(host: HostId) -> String {
    format!("{:016x}", host.0)
}

/// What is told of a host, in the order in which it is told.
#[must_use]
pub fn to_pairs(name: &str, incarnation: Incarnation, links: &[LinkFact]) -> Vec<(String, String)> {
    let mut pairs = vec![("name".to_owned(), name.to_owned()), ("life".to_owned(), incarnation.0.to_string())];
    let link = |link: &LinkFact| (format!("link.{}", link.name), format!("{} {}", link.technology, link.address));
    pairs.extend(links.iter().map(link));
    pairs.push(("format".to_owned(), FORMAT.to_string()));
    pairs
}

/// Reads it again. `Ok(None)`: not all of it has come yet.
///
/// # Errors
/// It makes no sense, or is of another format.
pub fn from_pairs<'p>(
    node: &str,
    origin: SocketAddr,
    pairs: impl Iterator<Item = (&'p str, &'p str)>,
) -> Result<Option<Fact>, Unread> {
    let (mut name, mut life, mut format, mut links) = (None, None, None, Vec::new());
    for (key, value) in pairs {
        match key {
            "name" => name = Some(value),
            "life" => life = Some(value),
            "format" => format = Some(value),
            // One too many is enough to see that there are. What a later version adds without
            // raising the number is passed over.
            _ if links.len() <= LINKS_MAX => links.extend(key.strip_prefix("link.").map(|name| (name, value))),
            _ => {}
        }
    }
    if node.len() != 16 || !node.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Unread::Malformed);
    }
    match format.map(str::parse) {
        None => return Ok(None),
        Some(Ok(FORMAT)) => {}
        Some(Ok(other)) => return Err(Unread::OtherFormat(other)),
        Some(Err(_)) => return Err(Unread::Malformed),
    }
    let (Some(name), Some(life)) = (name, life) else { return Err(Unread::Malformed) };
    if links.len() > LINKS_MAX {
        return Err(Unread::Malformed);
    }
    let host = HostId(u64::from_str_radix(node, 16).map_err(|_| Unread::Malformed)?);
    let incarnation = Incarnation(life.parse().map_err(|_| Unread::Malformed)?);
    let links = links.into_iter().map(|(name, value)| link(name, value)).collect::<Result<_, _>>()?;
    Ok(Some(Fact { host, incarnation, name: name.to_owned(), origin, links }))
}

fn link(name: &str, value: &str) -> Result<LinkFact, Unread> {
    let (technology, address) = value.split_once(' ').ok_or(Unread::Malformed)?;
    let address = address.parse().map_err(|_| Unread::Malformed)?;
    Ok(LinkFact { name: name.to_owned(), technology: technology.to_owned(), address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(node: &str, pairs: &[(&str, &str)]) -> Result<Option<Fact>, Unread> {
        from_pairs(node, "10.0.0.1:7100".parse().unwrap(), pairs.iter().copied())
    }

    #[test]
    fn a_fact_survives_the_way() {
        let links = vec![
            LinkFact { name: "net".into(), technology: "udp".into(), address: "10.0.0.1:7400".parse().unwrap() },
            LinkFact { name: "a b.c".into(), technology: "tcp".into(), address: "[::1]:7500".parse().unwrap() },
        ];
        let pairs = to_pairs("press", Incarnation(u64::MAX), &links);
        let borrowed: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let fact = read(&node_id(HostId(0xab)), &borrowed).unwrap().unwrap();
        assert_eq!((fact.host, fact.incarnation, fact.name.as_str()), (HostId(0xab), Incarnation(u64::MAX), "press"));
        assert_eq!(fact.links, links);
        for told in 0..borrowed.len() {
            assert_eq!(read(&node_id(HostId(1)), &borrowed[..told]), Ok(None), "{told} pairs are not all");
        }
    }

    /// Who changes this raises [`FORMAT`], and writes down here what it is then.
    #[test]
    fn the_format_is_what_its_number_says() {
        let link = LinkFact { name: "net".into(), technology: "udp".into(), address: "10.0.0.1:7400".parse().unwrap() };
        let pairs = to_pairs("press", Incarnation(7), &[link]);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let kept = [("name", "press"), ("life", "7"), ("link.net", "udp 10.0.0.1:7400"), ("format", "1")];
        assert_eq!(pairs, kept, "it has changed: raise `FORMAT`, then this");
        assert_eq!(node_id(HostId(0xab)), "00000000000000ab");
    }

    #[test]
    fn another_format_is_told_from_nonsense() {
        let other = [("name", "a"), ("colour", "red"), ("format", "2")];
        assert_eq!(read("00000000000000ab", &other), Err(Unread::OtherFormat(2)));
        // There the other keys may hold anything. Nor is anything said of them while the number
        // is still on its way.
        let many: Vec<String> = (0..=LINKS_MAX).map(|at| format!("link.{at}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "udp 10.0.0.1:1")).collect();
        for told in [&[("link.net", "udp://somewhere")][..], &[("life", "soon")], &many] {
            assert_eq!(read("00000000000000ab", told), Ok(None), "{told:?}");
            let told = [told, &[("format", "2")]].concat();
            assert_eq!(read("00000000000000ab", &told), Err(Unread::OtherFormat(2)), "{told:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_said_so() {
        let good = [("name", "a"), ("life", "1"), ("format", "1")];
        assert!(read("00000000000000ab", &good).unwrap().is_some());
        for node in ["", "ab", "0000000000000000ab", "00000000000000xy", "+0000000000000ab"] {
            assert_eq!(read(node, &good), Err(Unread::Malformed), "{node}");
        }
        let many: Vec<String> = (0..17).map(|at| format!("link.{at}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|key| (key.as_str(), "udp 10.0.0.1:1")).collect();
        for bad in [
            &[("life", "soon"), ("format", "1")][..],
            &[("life", "1"), ("format", "1")],
            &[&good[..], &[("link.net", "udp")]].concat(),
            &[&good[..], &[("link.net", "udp somewhere")]].concat(),
            &[&good[..], &many].concat(),
            &[("name", "a"), ("life", "1"), ("format", "one")],
        ] {
            assert_eq!(read("00000000000000ab", bad), Err(Unread::Malformed), "{bad:?}");
        }
        let later = [("name", "a"), ("life", "1"), ("colour", "red"), ("format", "1")];
        assert!(read("00000000000000ab", &later).unwrap().is_some());
    }
}
