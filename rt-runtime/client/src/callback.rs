//! Sinks that call back: one thread a session, waiting for all of them.

use crate::message::Message;
use crate::sink::Sink;
use insane_core::Nanos;
use insane_sys::event::{Epoll, Event, Interest, Ready, Trigger};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

type Callback = Box<dyn FnMut(Message<'_>) + Send>;

/// Messages of one sink handled before the next sink has its turn.
const BURST: usize = 64;
/// Longest sleep without another look.
const SLEEP_MAX: Nanos = Nanos::from_millis(100);
const BELL_TOKEN: u64 = 0;

#[allow(clippy::large_enum_variant, reason = "one a sink, moved once")]
enum Order {
    Add(u64, Sink, Callback),
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

    pub fn add(&self, sink: Sink, callback: Callback) -> CallbackSink {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        let _ = self.orders.send(Order::Add(token, sink, callback));
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
    let mut sinks: HashMap<u64, (Sink, Callback)> = HashMap::new();
    let mut ready = [Ready::NONE; 16];
    loop {
        let _ = bell.clear();
        loop {
            match orders.try_recv() {
                Ok(Order::Add(token, sink, callback)) => {
                    if let Some(fd) = sink.fd() {
                        let _ = epoll.add(fd, token, Interest::Read, Trigger::Level);
                    }
                    sinks.insert(token, (sink, callback));
                }
                Ok(Order::Remove(token, done)) => {
                    if let Some((sink, _)) = sinks.remove(&token)
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
        for (sink, callback) in sinks.values_mut() {
            more |= drain(sink, callback);
        }
        if !more {
            let _ = epoll.wait(&mut ready, Some(SLEEP_MAX));
        }
    }
}

/// Calls back for what waits, at most [`BURST`] messages; says whether more may wait.
fn drain(sink: &Sink, callback: &mut Callback) -> bool {
    for _ in 0..BURST {
        match sink.consume() {
            Ok(Some(message)) => callback(message),
            Ok(None) | Err(_) => return false,
        }
    }
    true
}
