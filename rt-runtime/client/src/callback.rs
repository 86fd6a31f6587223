//! Sinks that call back: one thread a session, waiting for all of them.

use crate::message::Message;
use crate::sink::Sink;
use insane_core::{MonoTime, Nanos};
use insane_sys::clock;
use insane_sys::event::{Epoll, Event, Interest, Ready, Trigger};
use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

/// What the thread looks after.
pub(crate) trait Attended: Send {
    /// Readable when messages may wait.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Calls back for what waits, and for what is due; says whether more may wait.
    fn attend(&mut self) -> bool;

    /// When to look again though nothing came.
    fn deadline(&self) -> Option<MonoTime>;
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

enum Order {
    Add(u64, Box<dyn Attended>),
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
    /// Where the callback thread is; a forked child has none to wait for.
    process: u32,
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
        let _ = self.orders.send(Order::Add(token, attended));
        let _ = self.bell.signal();
        CallbackSink { token, orders: self.orders.clone(), bell: Arc::clone(&self.bell), process: std::process::id() }
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
    /// Waits until a running callback has returned; none is called afterwards.
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let (done, finished) = mpsc::channel();
        if self.orders.send(Order::Remove(self.token, done)).is_ok() {
            let _ = self.bell.signal();
            let _ = finished.recv();
        }
    }
}

impl std::fmt::Debug for CallbackSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallbackSink")
    }
}

fn run(epoll: &Epoll, bell: &Event, orders: &Receiver<Order>) {
    let mut sinks: HashMap<u64, Box<dyn Attended>> = HashMap::new();
    let mut ready = [Ready::NONE; 16];
    loop {
        let _ = bell.clear();
        loop {
            match orders.try_recv() {
                Ok(Order::Add(token, sink)) => {
                    if let Some(fd) = sink.fd() {
                        let _ = epoll.add(fd, token, Interest::Read, Trigger::Level);
                    }
                    sinks.insert(token, sink);
                }
                Ok(Order::Remove(token, done)) => {
                    if let Some(sink) = sinks.remove(&token)
                        && let Some(fd) = sink.fd()
                    {
                        let _ = epoll.remove(fd);
                    }
                    let _ = done.send(());
                }
                Ok(Order::Stop) | Err(mpsc::TryRecvError::Disconnected) => return,
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
        let mut more = false;
        for sink in sinks.values_mut() {
            more |= sink.attend();
        }
        if !more {
            let next = sinks.values().filter_map(|sink| sink.deadline()).min();
            let patience = next.map_or(SLEEP_MAX, |next| next.since(clock::mono_now()).min(SLEEP_MAX));
            let _ = epoll.wait(&mut ready, Some(patience));
        }
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
}
