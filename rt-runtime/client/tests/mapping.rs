//! What a session maps. One test a file: it looks at the maps of the whole process.

use insane_rt::{ChannelId, Qos, Session, SinkOptions, SourceOptions, StreamOptions};
use std::time::Duration;

#[test]
fn sinks_behind_a_datapath_share_one_mapping_of_its_heap() {
    let session = Session::embedded("many-sinks").unwrap();
    let mut ends = Vec::new();
    for number in 0..8 {
        let options = StreamOptions::default().isolated(true);
        let stream = session.stream_with(&format!("mapped-{number}"), Qos::default(), options).unwrap();
        let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
        let source = stream.source(ChannelId(1), SourceOptions::small()).unwrap();
        source.wait_for_receivers(Duration::from_secs(5)).unwrap();
        ends.push((sink, source));
    }
    // address perms offset dev inode path
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut seen = std::collections::BTreeMap::new();
    for line in maps.lines().filter(|line| line.contains("memfd:")) {
        let mut fields = line.split_whitespace();
        let (range, perms, inode) = (fields.next().unwrap(), fields.next().unwrap(), fields.nth(2).unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let bytes = usize::from_str_radix(to, 16).unwrap() - usize::from_str_radix(from, 16).unwrap();
        if perms.starts_with("r--") && bytes >= 1 << 20 {
            *seen.entry(inode.to_owned()).or_insert(0) += 1;
        }
    }
    assert!(!seen.is_empty(), "a receive heap is mapped");
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
}
