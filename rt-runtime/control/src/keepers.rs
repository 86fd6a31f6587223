//! Looking after links whose interface may be missing, or go away and return.
//!
//! One thread calls the keepers of all such links: at once when the kernel tells of a change of
//! interfaces, and otherwise with a back-off. Opening may take long, so it is done neither on a
//! datapath nor on the control plane.

use insane_core::{MonoTime, Nanos};
use insane_link::{LinkHealth, LinkKeeper};
use insane_sys::clock::mono_now;
use insane_sys::event::{Epoll, Event, Interest, Ready, Trigger};
use insane_sys::interfaces::InterfaceEvents;
use insane_sys::thread;
use std::io;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks at a link that has what it runs on.
const LOOK_EACH: Nanos = Nanos::from_secs(1);
/// Between attempts for one that has not: from the first, doubled each time, to the second.
const RETRY_SOON: Nanos = Nanos::from_millis(50);
const RETRY_LATE: Nanos = Nanos::from_secs(5);
/// Between two rounds however many changes the kernel tells of.
const ROUND_EACH: Duration = Duration::from_millis(20);

/// How a link is, as its keeper found it last; shared with reports.
pub(crate) type Health = Arc<Mutex<LinkHealth>>;

/// How a link is now.
pub(crate) fn now(health: &Health) -> LinkHealth {
    health.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A link and who looks after it.
pub(crate) struct Kept {
    pub(crate) datapath: String,
    pub(crate) link: String,
    pub(crate) keeper: Box<dyn LinkKeeper>,
    pub(crate) health: Health,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Kept { datapath, link, health, .. } = self;
        f.debug_struct("Kept").field("datapath", datapath).field("link", link).field("health", health).finish()
    }
}

/// When a link is looked at next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Due {
    at: MonoTime,
    retry: Nanos,
}

impl Due {
    /// The look of `now` found it so.
    fn after(self, is_up: bool, now: MonoTime) -> Self {
        if is_up {
            Due { at: now + LOOK_EACH, retry: RETRY_SOON }
        } else {
            Due { at: now + self.retry, retry: Nanos((2 * self.retry.0).min(RETRY_LATE.0)) }
        }
    }

    /// Something has changed: who may profit from it is looked at, and soon again.
    fn hurried(self, now: MonoTime) -> Self {
        Due { at: now, retry: RETRY_SOON }
    }
}

impl Kept {
    /// Looks once; whether it is up.
    fn look(&mut self) -> bool {
        let found = self.keeper.look();
        let is_up = found == LinkHealth::Up;
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if *health != found {
            let (datapath, link) = (&self.datapath, &self.link);
            match &found {
                LinkHealth::Up => tracing::info!(datapath, link, "a link that was missing works"),
                LinkHealth::Missing(why) => tracing::warn!(datapath, link, why, "a link is missing"),
            }
            *health = found;
        }
        is_up
    }
}

/// The thread that looks after links; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Keepers {
    stop: Event,
    handle: Option<JoinHandle<()>>,
    pub(crate) tid: i32,
}

impl Keepers {
    /// Starts it in the network namespace of the calling thread; `None` if there is no such
    /// link.
    pub(crate) fn start(kept: Vec<Kept>) -> io::Result<Option<Self>> {
        if kept.is_empty() {
            return Ok(None);
        }
        let stop = Event::new()?;
        let epoll = Epoll::new()?;
        epoll.add(&stop, 0, Interest::Read, Trigger::Level)?;
        // Without word from the kernel it takes longer.
        let events = InterfaceEvents::new().ok();
        if let Some(events) = &events {
            epoll.add(events, 1, Interest::Read, Trigger::Level)?;
        }
        let (report, reported) = channel();
        let run = move || {
            let _ = report.send(thread::current_tid());
            look_after(kept, &epoll, events.as_ref());
        };
        let handle = std::thread::Builder::new().name("insane-links".into()).spawn(run)?;
        let tid = reported.recv().map_err(|_| io::Error::other("it ended while starting"))?;
        Ok(Some(Keepers { stop, handle: Some(handle), tid }))
    }

    /// Whether the thread still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| !handle.is_finished())
    }
}

impl Drop for Keepers {
    fn drop(&mut self) {
        let _ = self.stop.signal();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

/// Until the stop event is signalled.
fn look_after(mut kept: Vec<Kept>, epoll: &Epoll, events: Option<&InterfaceEvents>) {
    let start = Due { at: mono_now(), retry: RETRY_SOON };
    let mut due = vec![start; kept.len()];
    loop {
        for (kept, due) in kept.iter_mut().zip(&mut due) {
            if due.at <= mono_now() {
                let is_up = kept.look();
                *due = due.after(is_up, mono_now());
            }
        }
        let next = due.iter().map(|due| due.at).min().unwrap_or(MonoTime(0));
        let mut ready = [Ready::NONE; 2];
        let Ok(count) = epoll.wait(&mut ready, Some(next.since(mono_now()))) else { return };
        if ready[..count].iter().any(|ready| ready.token() == 0) {
            return;
        }
        if events.is_some_and(InterfaceEvents::clear) {
            due.iter_mut().for_each(|due| *due = due.hurried(mono_now()));
            std::thread::sleep(ROUND_EACH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    #[test]
    fn attempts_become_rarer_and_a_change_hurries_them() {
        let mut due = Due { at: MonoTime(0), retry: RETRY_SOON };
        let mut waits = Vec::new();
        for _ in 0..9 {
            let now = due.at;
            due = due.after(false, now);
            waits.push(due.at.since(now).0 / 1_000_000);
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000], "milliseconds");
        let now = due.at;
        due = due.hurried(now);
        assert_eq!(due.at, now);
        assert_eq!(due.after(false, now).at, now + RETRY_SOON);
        due = due.after(true, now);
        assert_eq!(due, Due { at: now + LOOK_EACH, retry: RETRY_SOON });
    }

    struct Third(Arc<AtomicU32>);

    impl LinkKeeper for Third {
        fn look(&mut self) -> LinkHealth {
            if self.0.fetch_add(1, Ordering::Relaxed) < 2 {
                LinkHealth::Missing("not yet".to_owned())
            } else {
                LinkHealth::Up
            }
        }
    }

    #[test]
    fn a_link_is_looked_at_until_it_is_up_and_the_thread_ends() {
        assert!(Keepers::start(Vec::new()).unwrap().is_none());
        let looks = Arc::new(AtomicU32::new(0));
        let health = Arc::new(Mutex::new(LinkHealth::Missing("never".to_owned())));
        let (datapath, link) = ("a".to_owned(), "b".to_owned());
        let keeper = Box::new(Third(Arc::clone(&looks)));
        let kept = Kept { datapath, link, keeper, health: Arc::clone(&health) };
        let keepers = Keepers::start(vec![kept]).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while now(&health) != LinkHealth::Up {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(looks.load(Ordering::Relaxed) >= 3);
        drop(keepers);
        let looks_then = looks.load(Ordering::Relaxed);
        assert_eq!(Arc::strong_count(&looks), 1, "the thread let go of it: {looks_then}");
    }
}
