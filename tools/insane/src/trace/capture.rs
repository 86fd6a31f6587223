//! The program in the kernel: loaded, attached, and its ring read.
//!
//! Its bytecode is kept beside its source, so that building needs no clang; a test compares
//! the two where clang is there.

use super::events::Event;
use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder, RingBufferBuilder};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const PROGRAM: &[u8] = include_bytes!("bpf/trace.bpf.o");
/// Events that are kept, at most: what comes after is counted as lost.
const EVENTS_MAX: usize = 4 << 20;

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The kernel says no.
    #[error(
        "the kernel does not let this user load a BPF program; run it as root (CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN)"
    )]
    NoRight,
    /// It cannot be done here.
    #[error(
        "the kernel takes no BPF tracing program: {0}\nIt needs BTF (/sys/kernel/btf/vmlinux) and BPF tracing of tracepoints."
    )]
    Kernel(String),
}

impl From<libbpf_rs::Error> for CaptureError {
    fn from(error: libbpf_rs::Error) -> Self {
        match error.kind() {
            libbpf_rs::ErrorKind::PermissionDenied => CaptureError::NoRight,
            _ => CaptureError::Kernel(format!("{error:#}")),
        }
    }
}

#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    dropped: u64,
}

/// A core that is being watched.
pub struct Capture {
    object: Object,
    /// As long as they live, the programs run.
    links: Vec<Link>,
    ring: libbpf_rs::RingBuffer<'static>,
    kept: Rc<RefCell<Kept>>,
}

impl Capture {
    /// Begins.
    pub fn start(core: u32) -> Result<Capture, CaptureError> {
        // What libbpf prints about a kernel that refuses is in its error, too.
        libbpf_rs::set_print(None);
        // Who watches stays off the core, where there is another.
        if let Some(other) = insane_sys::thread::cores().iter().find(|other| **other != core as usize) {
            let _ = insane_sys::thread::pin_current(*other);
        }
        let mut open = ObjectBuilder::default().name("insane_trace")?.open_memory(PROGRAM)?;
        for mut map in open.maps_mut() {
            if map.name().to_string_lossy().ends_with(".rodata") {
                map.set_initial_value(&core.to_ne_bytes())?;
            }
        }
        let object = open.load()?;
        let kept = Rc::new(RefCell::new(Kept::default()));
        let ring = {
            let into = Rc::clone(&kept);
            let events = object.maps().find(|map| map.name() == "events");
            let events = events.ok_or_else(|| CaptureError::Kernel("the program has no ring".into()))?;
            let mut builder = RingBufferBuilder::new();
            builder.add(&events, move |bytes| {
                let mut kept = into.borrow_mut();
                match Event::decode(bytes) {
                    Some(event) if kept.events.len() < EVENTS_MAX => kept.events.push(event),
                    _ => kept.dropped += 1,
                }
                0
            })?;
            builder.build()?
        };
        let links = object.progs_mut().map(|program| program.attach()).collect::<Result<Vec<Link>, _>>()?;
        Ok(Capture { object, links, ring, kept })
    }

    /// Lets so much time pass and takes what came: the ring wakes nobody, since whoever is woken
    /// for each event is most of what there is to see.
    pub fn poll(&mut self, time: Duration) -> Result<(), CaptureError> {
        std::thread::sleep(time);
        Ok(self.ring.consume()?)
    }

    /// Ends: the events in order, and how many were lost.
    pub fn finish(mut self) -> Result<(Vec<Event>, u64), CaptureError> {
        self.links.clear();
        self.ring.consume()?;
        let bss = self.object.maps().find(|map| map.name().to_string_lossy().ends_with(".bss"));
        let lost = bss.and_then(|map| map.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY).ok().flatten());
        let lost = lost.and_then(|bytes| Some(u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?))).unwrap_or(0);
        let mut kept = self.kept.take();
        // Wake-ups come from other cores, and may overtake.
        kept.events.sort_by_key(|event| event.at);
        Ok((kept.events, lost + kept.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::What;
    use super::*;
    use std::process::Command;

    #[test]
    fn the_bytecode_is_that_of_its_source() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/trace/bpf");
        let version = Command::new("clang").arg("--version").output();
        let is_14 = version.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("clang version 14."));
        let can_strip = Command::new("llvm-strip").arg("--version").output().is_ok();
        if !is_14 || !can_strip {
            eprintln!("passed over: clang 14 or llvm-strip is not here, so bytecode and source are not compared");
            return;
        }
        let into = std::env::temp_dir().join(format!("insane-trace-{}", std::process::id()));
        std::fs::create_dir_all(&into).unwrap();
        let made = Command::new("sh").arg(dir.join("build")).arg(into.join("trace.bpf.o")).status().unwrap();
        assert!(made.success());
        let is_same = std::fs::read(into.join("trace.bpf.o")).unwrap() == PROGRAM;
        std::fs::remove_dir_all(&into).unwrap();
        assert!(is_same, "run {}/build", dir.display());
    }

    #[test]
    fn a_thread_that_sleeps_is_seen_to_be_woken_and_to_run() {
        let mut capture = match Capture::start(0) {
            Ok(capture) => capture,
            Err(error @ (CaptureError::NoRight | CaptureError::Kernel(_))) => {
                assert!(
                    !nix::unistd::geteuid().is_root() || !std::path::Path::new("/sys/kernel/btf/vmlinux").exists(),
                    "{error}"
                );
                eprintln!("passed over: {error}");
                return;
            }
        };
        let sleeper = std::thread::spawn(|| {
            insane_sys::thread::pin_current(0).unwrap();
            (0..20).for_each(|_| std::thread::sleep(Duration::from_millis(2)));
            insane_sys::thread::current_tid() as u32
        });
        while !sleeper.is_finished() {
            capture.poll(Duration::from_millis(5)).unwrap();
        }
        let tid = sleeper.join().unwrap();
        let (events, lost) = capture.finish().unwrap();
        assert_eq!(lost, 0);
        assert!(events.is_sorted_by_key(|event| event.at));
        let count = |accept: &dyn Fn(&What) -> bool| events.iter().filter(|event| accept(&event.what)).count();
        let woken = count(&|what| matches!(what, What::Wakeup { tid: woken } if *woken == tid));
        let ran = count(&|what| matches!(what, What::Switch { to, .. } if *to == tid));
        // Of a sleep whose timer fires before the thread is off its core there is not all: beside
        // load one of sixty runs has an event less.
        assert!(woken >= 15 && ran >= 15, "woken {woken} times, run {ran} times");
        assert!(count(&|what| matches!(what, What::Timer { .. })) >= 20);
    }
}
