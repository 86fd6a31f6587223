//! Clients that misuse the memory that they share.

use crate::peer::{HEAP, Peer};
use crate::world::{Daemon, Helper, Noise, OPEN, PATIENCE, Pair, Place, until};
use insane_core::{Nanos, Qos};
use insane_rt::{ChannelId, SinkOptions, StreamOptions};
use insane_shm::cell::{CELL_WORDS, Cells};
use insane_shm::region::{Region, RegionCells};
use insane_sys::memfd;
use insane_wire::control::{Event, SinkWake};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const QUIET: &str = "log: (level: error)";

/// Writes noise over a region: any word, or numbers small enough to be believed.
fn scribble(region: &Arc<Region>, noise: &mut Noise) {
    let cells = RegionCells::new(Arc::clone(region));
    let believable = noise.below(2) == 0;
    let everywhere = noise.below(2) == 0;
    for at in 0..cells.cell_count() {
        for word in 0..CELL_WORDS {
            if everywhere || noise.below(8) == 0 {
                let value = noise.next();
                let small = noise.below(40) | (noise.below(3) << 32);
                cells.cell(at)[word].store(if believable { small } else { value }, Ordering::Release);
            }
        }
    }
}

#[test]
fn noise_in_every_page_a_client_can_write_costs_nobody_else_a_message() {
    let place = Place::new("noise");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let mut pair = Pair::start(&daemon, "direct,isolated");
    let before = daemon.footprint();
    let mut noise = Noise(3);
    let mut regions_written = 0;
    for round in 0..60_u64 {
        let isolated = round % 2 == 1;
        let mut peer = daemon.peer();
        // On the very channel of the pair: joined to both of them, or to the datapath.
        let stream = peer.open(if isolated { "pair-isolated" } else { "pair-direct" }, Qos::default(), isolated);
        let source = if round % 3 != 0 { &HEAP[..] } else { &[] };
        peer.source(stream, source).unwrap();
        peer.sink(stream, [SinkWake::Page, SinkWake::Fd, SinkWake::Never][round as usize % 3]).unwrap();
        until("it is joined", || {
            peer.poll();
            !peer.tx.is_empty() && !peer.rx.is_empty()
        });
        peer.emit(1, b"honest for once");
        for _ in 0..4 {
            let counters = peer.counters.clone();
            for region in peer.regions.iter().chain(&counters) {
                scribble(region, &mut noise);
                regions_written += 1;
            }
            // Those who sleep shall look at it.
            for (_, conn) in peer.tx.values_mut() {
                conn.wake();
            }
            let _ = peer.next(Nanos::from_millis(1)).flatten().map(|(event, fds)| peer.handle(&event, fds));
            // Reads what it wrote itself, and claims whatever comes of it.
            let _ = daemon.status();
        }
        assert!(pair.is_alive() && daemon.is_alive(), "round {round}");
    }
    assert!(regions_written > 1000, "{regions_written}");
    let violations = daemon.status().domains[0].counters["violations"];
    assert!(violations >= 15, "the datapath has put liars out: {violations}");
    let carried = pair.finish();
    assert!(carried.iter().all(|count| *count > 500), "{carried:?}");
    drop(pair);
    until("all are gone", || daemon.used("sessions") == 0);
    daemon.returns_to(before);
}

/// Every descriptor of memory that a client gets, beside the event that brought it.
fn all_memory(peer: &mut Peer) -> Vec<(String, OwnedFd)> {
    let mut memory = Vec::new();
    let mut keep = |event: &Event, fds: &[OwnedFd]| {
        let what = format!("{event:?}");
        let what = what.split(' ').next().unwrap_or_default().to_owned();
        memory.extend(fds.iter().filter_map(|fd| {
            memfd::seals(fd).ok()?;
            Some((what.clone(), fd.try_clone().unwrap()))
        }));
    };
    while let Some(Some((event, fds))) = peer.next(Nanos::from_millis(200)) {
        keep(&event, &fds);
        peer.handle(&event, fds);
    }
    memory
}

#[test]
fn what_is_sealed_cannot_be_shrunk_punched_written_or_mapped_again() {
    use insane_core::ChannelId;
    use insane_wire::control::{Hello, Request, Role, encode_hello};
    let place = Place::new("seals");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let mut peer = Peer::new(daemon.connect());
    peer.send_bytes(&encode_hello(&Hello { name: "seals".into(), domain: None, role: Role::Application }));
    let Some((Event::Welcome { counters_bytes, .. }, fds)) = peer.wait() else { panic!("welcome") };
    let mut memory: Vec<(String, OwnedFd)> =
        fds.iter().map(|fd| ("Welcome".to_owned(), fd.try_clone().unwrap())).collect();
    peer.counters = Some(Region::map_writable(fds[0].as_fd(), counters_bytes as usize).unwrap());
    peer.send(&Request::SessionMapped);
    for isolated in [false, true] {
        let name = if isolated { "isolated" } else { "direct" };
        peer.send(&Request::OpenStream { req: 1, name: name.into(), qos: Qos::default(), isolated });
        let Some((Event::StreamOpened { stream, .. }, _)) = peer.wait() else { panic!("opened") };
        let (channel, classes) = (ChannelId(1), HEAP.to_vec());
        peer.send(&Request::CreateSource {
            req: 2,
            stream,
            channel,
            uid: u64::from(isolated),
            classes,
            schema: None,
            keeps: false,
            line: None,
        });
        memory.extend(all_memory(&mut peer));
        let (uid, wake) = (u64::from(isolated), SinkWake::Page);
        peer.send(&Request::CreateSink { req: 3, stream, channel, uid, depth: 64, wake, schema: None, line: None });
        memory.extend(all_memory(&mut peer));
    }
    for what in ["Welcome", "SourceCreated", "SinkCreated", "TxPrepare", "RxPrepare", "TxOpen", "RxOpen"] {
        assert!(memory.iter().any(|(event, _)| event == what), "memory came beside {what}");
    }
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    for (what, fd) in &memory {
        let len = memfd::len(fd).unwrap() as i64;
        assert_eq!(nix::unistd::ftruncate(fd, 0), Err(Errno::EPERM), "{what}: shrink");
        assert_eq!(nix::unistd::ftruncate(fd, len * 2), Err(Errno::EPERM), "{what}: grow");
        assert_eq!(fallocate(fd, hole, 0, 4096), Err(Errno::EPERM), "{what}: a hole");
        assert_eq!(nix::unistd::write(fd, b"x"), Err(Errno::EPERM), "{what}: write");
        let refused = Region::map_writable(fd.as_fd(), len as usize).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EPERM as i32), "{what}: mapped for writing");
        assert_eq!(memfd::seal_writers(fd).unwrap_err().errno, Errno::EPERM, "{what}: other seals");
        // Opened anew by way of the file system it is no more writable.
        use std::os::fd::AsRawFd;
        if let Ok(again) =
            std::fs::File::options().read(true).write(true).open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        {
            assert!(Region::map_writable(again.as_fd(), len as usize).is_err(), "{what}: opened anew");
        }
    }
    assert!(daemon.is_alive());
}

/// KiB of a process's mappings of source heaps, and how much of that is huge pages.
fn heaps_of(process: &str) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let mut heaps = Vec::new();
    let mut is_heap = false;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (name, value) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if name.contains('-') && !name.ends_with(':') {
            is_heap = line.contains("insane-heap");
        } else if is_heap && name == "Rss:" {
            heaps.push((value.parse().unwrap(), 0));
        } else if is_heap && matches!(name, "ShmemPmdMapped:" | "FilePmdMapped:") {
            heaps.last_mut().unwrap().1 += value.parse::<u64>().unwrap();
        }
    }
    heaps
}

#[test]
fn large_heaps_are_of_huge_pages_for_everybody_where_the_kernel_has_any() {
    const SIZE: u32 = 1 << 20;
    let place = Place::new("huge");
    let daemon = Daemon::start(&place, OPEN, "log: (level: error), memory: (huge_pages: try)");
    let mut client = Helper::start("large", daemon.socket(), &[]);
    let session = daemon.attach("reader");
    let streams = ["large-direct", "large-isolated"].map(|name| {
        let options = StreamOptions::default().isolated(name == "large-isolated");
        session.stream_with(name, Qos::default(), options).unwrap()
    });
    let sinks = streams.each_ref().map(|stream| stream.sink(ChannelId(1), SinkOptions::default()).unwrap());
    client.hear("ready");
    for sink in &sinks {
        let message = sink.consume_timeout(PATIENCE).unwrap().expect("a large message");
        assert_eq!(message.to_vec(), vec![7; SIZE as usize]);
    }
    let report = daemon.status();
    let row = report.domains[0].sessions.iter().find(|row| row.name == "large").unwrap();
    assert_eq!(row.counters["heaps_large"], 2, "two of 5 MB, and a small one");
    if row.counters["heaps_huge"] < 2 {
        eprintln!("passed over: the kernel has no huge pages for shared memory");
        return;
    }
    // The client has three heaps, this process and the daemon one each of the large ones.
    for (who, process, count) in [
        ("the client", client.pid().to_string(), 2),
        ("the reader", "self".to_owned(), 1),
        ("the daemon", daemon.pid().to_string(), 1),
    ] {
        let huge = heaps_of(&process).into_iter().filter(|(rss, huge)| *rss >= 5120 && *huge >= 4096).count();
        assert!(huge >= count, "{who}: {:?}", heaps_of(&process));
    }
    assert_eq!(report.memory.huge_pages, "all", "receive heaps are, too");
}
