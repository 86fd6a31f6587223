//! Sinks that call back: one thread a session, waiting for all of them.
//!
//! A callback that panics is called no more, and what it was for (its sink) is closed as if
//! it had been dropped. All others go on: the staleness of their values must be told.

use crate::message::Message;
use crate::sink::Sink;
use insane_core::counters::PortCounter;
use insane_core::{MonoTime, Nanos};
use insane_sys::clock;
use insane_sys::event::{Epoll, Event, Interest, Ready, Trigger};
use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, ThreadId};

/// What the thread looks after.
pub(crate) trait Attended: Send {
    /// Readable when messages may wait.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Calls back for what waits, and for what is due; says whether more may wait.
    fn attend(&mut self) -> bool;

    /// When to look again though nothing came.
    fn deadline(&self) -> Option<MonoTime>;

    /// Counts that its callback panicked, where there is a counter for it.
    fn count_panic(&self) {}
}

/// A sink whose every message is called back for.
pub(crate) struct Called<C> {
    pub sink: Sink,
    pub callback: C,
}

/// Messages of one sink handled before the next sink has its turn.
const BURST: usize = 64;
/// Longest sleep without another look.
const SLEEP_MAX: Nanos = Nanos::from_millis(100);
const BELL_TOKEN: u64 = 0;

/// What a callback said as it panicked; empty while it did not.
type Panicked = Arc<OnceLock<String>>;

enum Order {
    Add(u64, Box<dyn Attended>, Panicked),
    Remove(u64, Sender<()>),
    Stop,
}

/// The session's callback thread.
pub(crate) struct Callbacks {
    orders: Sender<Order>,
    bell: Arc<Event>,
    next: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

/// A sink whose messages go to a callback, until this is dropped.
pub struct CallbackSink {
    token: u64,
    orders: Sender<Order>,
    bell: Arc<Event>,
    panicked: Panicked,
    /// Where the callback thread is; a forked child has none to wait for.
    process: u32,
    /// The callback thread, which cannot wait for itself.
    thread: Option<ThreadId>,
}

impl Callbacks {
    pub fn start() -> io::Result<Self> {
        let bell = Arc::new(Event::new().map_err(io::Error::other)?);
        let epoll = Epoll::new().map_err(io::Error::other)?;
        epoll.add(&*bell, BELL_TOKEN, Interest::Read, Trigger::Level).map_err(io::Error::other)?;
        let (orders, incoming) = mpsc::channel();
        let of_thread = Arc::clone(&bell);
        let thread = std::thread::Builder::new()
            .name("insane-callback".into())
            .spawn(move || run(&epoll, &of_thread, &incoming))?;
        Ok(Callbacks { orders, bell, next: AtomicU64::new(1), thread: Some(thread) })
    }

    pub fn add(&self, attended: Box<dyn Attended>) -> CallbackSink {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let panicked = Panicked::default();
        let _ = self.orders.send(Order::Add(token, attended, Arc::clone(&panicked)));
        let _ = self.bell.signal();
        let (orders, bell) = (self.orders.clone(), Arc::clone(&self.bell));
        let thread = self.thread.as_ref().map(|thread| thread.thread().id());
        CallbackSink { token, orders, bell, panicked, process: std::process::id(), thread }
    }
}

impl CallbackSink {
    /// What the callback said as it panicked. It is called no more then, and its sink is
    /// closed: nobody hears of its messages or of its silence. The session's counter
    /// `callback_panics` and the log tell it, too. `None`: it did not.
    #[must_use]
    pub fn panicked(&self) -> Option<&str> {
        self.panicked.get().map(String::as_str)
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        let _ = self.bell.signal();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for CallbackSink {
    /// Waits until a running callback has returned; none is called afterwards. On the callback
    /// thread itself, as in a callback of this session or with what one holds, it does not wait:
    /// the callback may be called for what has come already.
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let (done, finished) = mpsc::channel();
        if self.orders.send(Order::Remove(self.token, done)).is_ok() {
            let _ = self.bell.signal();
            if self.thread != Some(std::thread::current().id()) {
                let _ = finished.recv();
            }
        }
    }
}

impl std::fmt::Debug for CallbackSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallbackSink")
    }
}

fn run(epoll: &Epoll, bell: &Event, orders: &Receiver<Order>) {
    let mut all: HashMap<u64, (Box<dyn Attended>, Panicked)> = HashMap::new();
    let mut ready = [Ready::NONE; 16];
    loop {
        let _ = bell.clear();
        loop {
            match orders.try_recv() {
                Ok(Order::Add(token, attended, panicked)) => {
                    if let Some(fd) = attended.fd() {
                        let _ = epoll.add(fd, token, Interest::Read, Trigger::Level);
                    }
                    all.insert(token, (attended, panicked));
                }
                Ok(Order::Remove(token, done)) => {
                    if let Some((attended, panicked)) = all.remove(&token) {
                        end(epoll, attended, &panicked);
                    }
                    let _ = done.send(());
                }
                Ok(Order::Stop) | Err(mpsc::TryRecvError::Disconnected) => {
                    // One by one: what one throws must not keep the others' sinks from closing.
                    for (attended, panicked) in all.into_values() {
                        end(epoll, attended, &panicked);
                    }
                    return;
                }
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
        let (mut more, mut fallen) = (false, None);
        for (token, (attended, panicked)) in &mut all {
            // What a panic may have left half done is dropped, and looked at by nobody.
            match catch_unwind(AssertUnwindSafe(|| attended.attend())) {
                Ok(waits) => more |= waits,
                Err(payload) => {
                    note_panic(&**attended, panicked, &*payload);
                    // A payload whose drop panics would end the thread.
                    std::mem::forget(payload);
                    fallen = Some(*token);
                    break;
                }
            }
        }
        if let Some((attended, panicked)) = fallen.and_then(|token| all.remove(&token)) {
            end(epoll, attended, &panicked);
            // The others were not all looked at.
            continue;
        }
        if !more {
            let next = all.values().filter_map(|(attended, _)| attended.deadline()).min();
            let patience = next.map_or(SLEEP_MAX, |next| next.since(clock::mono_now()).min(SLEEP_MAX));
            let _ = epoll.wait(&mut ready, Some(patience));
        }
    }
}

fn note_panic(attended: &dyn Attended, panicked: &Panicked, payload: &(dyn Any + Send)) {
    let text = text_of(payload);
    attended.count_panic();
    tracing::error!(panic = text, "a callback panicked: it is called no more, and its sink is closed");
    let _ = panicked.set(text.to_owned());
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// Nothing is called back any more. What the callback holds is dropped with it, and that is the
/// application's code, too.
fn end(epoll: &Epoll, attended: Box<dyn Attended>, panicked: &Panicked) {
    if let Some(fd) = attended.fd() {
        let _ = epoll.remove(fd);
    }
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(attended))) {
        tracing::error!(panic = text_of(&*payload), "what a callback held panicked as it was dropped");
        let _ = panicked.set("what the callback held panicked as it was dropped".to_owned());
        // A payload whose drop panics again would end the thread.
        std::mem::forget(payload);
    }
}

impl<C: FnMut(Message<'_>) + Send> Attended for Called<C> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.sink.fd()
    }

    /// At most [`BURST`] messages.
    fn attend(&mut self) -> bool {
        for _ in 0..BURST {
            match self.sink.consume() {
                Ok(Some(message)) => (self.callback)(message),
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    fn deadline(&self) -> Option<MonoTime> {
        None
    }

    fn count_panic(&self) {
        self.sink.count(PortCounter::CallbackPanics, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tracing::span;

    /// Whatever holds this throws as it is dropped.
    struct Throws(Arc<AtomicUsize>);

    impl Drop for Throws {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("at its end");
        }
    }

    impl Attended for Throws {
        fn fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }

        fn attend(&mut self) -> bool {
            false
        }

        fn deadline(&self) -> Option<MonoTime> {
            None
        }
    }

    /// Counts errors that are logged.
    struct Errors(Arc<AtomicUsize>);

    impl tracing::Subscriber for Errors {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::ERROR
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn what_panics_as_it_is_dropped_is_logged_and_keeps_no_other_from_its_end() {
        let (drops, logged) = (Arc::default(), Arc::default());
        let epoll = Epoll::new().unwrap();
        tracing::subscriber::with_default(Errors(Arc::clone(&logged)), || {
            let panicked = Panicked::default();
            end(&epoll, Box::new(Throws(Arc::clone(&drops))), &panicked);
            assert_eq!(logged.load(Ordering::Relaxed), 1);
            assert!(panicked.get().is_some_and(|text| text.contains("dropped")));
            // What was told first stays.
            let panicked = Panicked::from(OnceLock::from("the callback".to_owned()));
            end(&epoll, Box::new(Throws(Arc::clone(&drops))), &panicked);
            assert_eq!(panicked.get().map(String::as_str), Some("the callback"));
        });
        assert_eq!((drops.load(Ordering::Relaxed), logged.load(Ordering::Relaxed)), (2, 2));
        // At the end of a session each is dropped, whatever another throws. In this test, since
        // which places log is decided for all threads by whichever comes to one first.
        let callbacks = Callbacks::start().unwrap();
        let handles = [(); 5].map(|()| callbacks.add(Box::new(Throws(Arc::clone(&drops)))));
        drop(callbacks);
        assert_eq!(drops.load(Ordering::Relaxed), 2 + 5);
        drop(handles);
    }
}
