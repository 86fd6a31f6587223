//! A small client on real sockets and real memory: one thread, step by step.
#![allow(dead_code, reason = "each test uses its part")]

use insane_core::heap::{ClassSpec, Geometry};
use insane_core::{ChannelId, ConnId, Nanos, Qos, SinkId, SourceId, StreamId};
use insane_shm::cell::{Meta, cells_bytes, returns_bytes};
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::heap::{ForeignHeap, SenderHeap};
use insane_shm::region::Region;
use insane_shm::returns::places;
use insane_shm::ring::{Payload, Popped};
use insane_shm::wake::{How, WAKE_PAGE_BYTES, Waker};
use insane_sys::event::{Epoll, Interest, Ready, Trigger};
use insane_sys::seqpacket::{self, RecvOutcome, SendOutcome};
use insane_wire::control::{
    Code, Event, Hello, PACKET_BYTES_MAX, Receiver, Request, Role, SinkWake, WakeKind, decode, encode, encode_hello,
};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How long a test waits for what must come.
const PATIENCE: Nanos = Nanos::from_secs(20);
/// How long it waits to see that nothing comes.
pub const NOTHING: Nanos = Nanos::from_millis(50);

pub struct Peer {
    pub socket: OwnedFd,
    epoll: Epoll,
    pub counters: Option<Arc<Region>>,
    pub heaps: BTreeMap<SourceId, (SenderHeap, u32)>,
    pub sinks: Vec<SinkId>,
    prepared_tx: BTreeMap<ConnId, (SourceId, Receiver, Arc<Region>, u32)>,
    opened_tx: BTreeMap<ConnId, (SourceId, TxConn)>,
    prepared_rx: BTreeMap<ConnId, (Arc<Region>, u32)>,
    /// Connections in use; the producer's are those of datapaths if the flag is set.
    pub tx: BTreeMap<ConnId, (SourceId, TxConn)>,
    pub tx_to_datapath: BTreeMap<ConnId, bool>,
    pub rx: BTreeMap<ConnId, RxConn>,
    pub retired: Vec<ConnId>,
    pub closed: Option<(Code, String)>,
    pub gone: bool,
    /// By which it wakes a datapath, as it was given last.
    pub doorbell: Option<OwnedFd>,
    /// Everything that this peer writes.
    pub regions: Vec<Arc<Region>>,
    /// Where the next sources and sinks say that they count.
    pub line: Option<u32>,
    req: u32,
    uid: u64,
}

impl Peer {
    pub fn new(socket: OwnedFd) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let epoll = Epoll::new().unwrap();
        epoll.add(&socket, 0, Interest::Read, Trigger::Level).unwrap();
        Peer {
            socket,
            epoll,
            counters: None,
            heaps: BTreeMap::new(),
            sinks: Vec::new(),
            prepared_tx: BTreeMap::new(),
            opened_tx: BTreeMap::new(),
            prepared_rx: BTreeMap::new(),
            tx: BTreeMap::new(),
            tx_to_datapath: BTreeMap::new(),
            rx: BTreeMap::new(),
            retired: Vec::new(),
            closed: None,
            gone: false,
            doorbell: None,
            regions: Vec::new(),
            line: None,
            req: 0,
            // No two peers of a test name a source or sink alike.
            uid: u64::from(std::process::id()) << 32 | u64::from(COUNT.fetch_add(1, Ordering::Relaxed)) << 16,
        }
    }

    /// Attached and welcomed.
    pub fn attach(socket: OwnedFd) -> Self {
        let mut peer = Peer::new(socket);
        peer.hello(Role::Application);
        peer
    }

    pub fn hello(&mut self, role: Role) {
        let hello = Hello { name: "peer".into(), domain: None, role };
        self.send_bytes(&encode_hello(&hello));
        match self.wait() {
            Some((Event::Welcome { counters_bytes, .. }, fds)) => {
                if counters_bytes > 0 {
                    self.counters = Some(Region::map_writable(fds[0].as_fd(), counters_bytes as usize).unwrap());
                    self.send(&Request::SessionMapped);
                }
            }
            Some((Event::Closing { code, reason }, _)) => self.closed = Some((code, reason)),
            other => panic!("{other:?}"),
        }
    }

    pub fn send(&self, request: &Request) {
        self.send_bytes(&encode(request));
    }

    pub fn send_bytes(&self, bytes: &[u8]) {
        let _: SendOutcome = seqpacket::send(&self.socket, bytes, &[]).unwrap();
    }

    /// The next event, whatever it is; `None` when the runtime has closed the socket.
    pub fn wait(&mut self) -> Option<(Event, Vec<OwnedFd>)> {
        self.next(PATIENCE).unwrap_or_else(|| panic!("the runtime says nothing"))
    }

    /// The outer `None`: nothing came. The inner: the end.
    pub fn next(&mut self, patience: Nanos) -> Option<Option<(Event, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let until = insane_sys::clock::mono_now() + patience;
        loop {
            match seqpacket::recv(&self.socket, &mut buffer) {
                Ok(RecvOutcome::Packet(packet)) => {
                    let event = decode(&buffer[..packet.len]).expect("an event");
                    return Some(Some((event, packet.fds.into_iter().collect())));
                }
                Ok(RecvOutcome::WouldBlock) => {}
                Ok(RecvOutcome::Closed) | Err(_) => return Some(None),
            }
            let left = until.since(insane_sys::clock::mono_now());
            if left == Nanos::ZERO {
                return None;
            }
            self.epoll.wait(&mut [Ready::NONE], Some(left)).unwrap();
        }
    }

    /// Handles events until `done`.
    pub fn until(&mut self, mut done: impl FnMut(&Peer, &Event) -> bool) -> Event {
        loop {
            let (event, fds) = self.wait().expect("the runtime has closed the session");
            self.handle(&event, fds);
            if done(self, &event) {
                return event;
            }
        }
    }

    /// Handles what comes until nothing comes for a while; notes the end.
    pub fn settle(&mut self) {
        while let Some(next) = self.next(NOTHING) {
            match next {
                Some((event, fds)) => self.handle(&event, fds),
                None => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// Handles what is there already.
    pub fn poll(&mut self) {
        while let Some(Some((event, fds))) = self.next(Nanos::ZERO) {
            self.handle(&event, fds);
        }
    }

    fn answer(&mut self, request: &Request, req: u32) -> Event {
        self.send(request);
        let is_answer = |event: &Event| match event {
            Event::StreamOpened { req: of, .. }
            | Event::SourceCreated { req: of, .. }
            | Event::SinkCreated { req: of, .. }
            | Event::Done { req: of }
            | Event::Failed { req: of, .. } => *of == req,
            _ => false,
        };
        self.until(|_, event| is_answer(event))
    }

    pub fn open(&mut self, name: &str, qos: Qos, isolated: bool) -> StreamId {
        self.req += 1;
        let request = Request::OpenStream { req: self.req, name: name.into(), qos, isolated };
        match self.answer(&request, self.req) {
            Event::StreamOpened { stream, .. } => stream,
            other => panic!("{other:?}"),
        }
    }

    pub fn source(&mut self, stream: StreamId, classes: &[ClassSpec]) -> Result<SourceId, (Code, String)> {
        self.req += 1;
        self.uid += 1;
        let classes = classes.to_vec();
        let request = Request::CreateSource {
            req: self.req,
            stream,
            channel: ChannelId(1),
            uid: self.uid,
            classes: classes.clone(),
            schema: None,
            keeps: false,
            line: self.line,
        };
        match self.answer(&request, self.req) {
            Event::SourceCreated { source, .. } => Ok(source),
            Event::Failed { code, reason, .. } => Err((code, reason)),
            other => panic!("{other:?}"),
        }
    }

    pub fn sink(&mut self, stream: StreamId, wake: SinkWake) -> Result<SinkId, (Code, String)> {
        self.req += 1;
        self.uid += 1;
        let request = Request::CreateSink {
            req: self.req,
            stream,
            channel: ChannelId(1),
            uid: self.uid,
            depth: 64,
            wake,
            schema: None,
            line: self.line,
        };
        match self.answer(&request, self.req) {
            Event::SinkCreated { sink, .. } => Ok(sink),
            Event::Failed { code, reason, .. } => Err((code, reason)),
            other => panic!("{other:?}"),
        }
    }

    pub fn close_source(&mut self, source: SourceId) {
        self.req += 1;
        let request = Request::CloseSource { req: self.req, source };
        assert!(matches!(self.answer(&request, self.req), Event::Done { .. }));
        self.tx.retain(|_, (of, _)| *of != source);
        self.heaps.remove(&source);
    }

    pub fn close_sink(&mut self, sink: SinkId) {
        self.req += 1;
        let request = Request::CloseSink { req: self.req, sink };
        assert!(matches!(self.answer(&request, self.req), Event::Done { .. }));
    }

    fn map_written(&mut self, fd: &OwnedFd, bytes: u64) -> Arc<Region> {
        let region = Region::map_writable(fd.as_fd(), bytes as usize).unwrap();
        self.regions.push(Arc::clone(&region));
        region
    }

    pub fn handle(&mut self, event: &Event, fds: Vec<OwnedFd>) {
        match event.clone() {
            Event::SourceCreated { source, heap_bytes, .. } if heap_bytes > 0 => {
                self.map_written(&fds[0], heap_bytes);
                self.send(&Request::SourceMapped { source });
                self.heap_of(source);
            }
            Event::SinkCreated { sink, .. } => {
                self.sinks.push(sink);
                if let Some(page) = fds.first() {
                    self.map_written(page, WAKE_PAGE_BYTES as u64);
                    self.send(&Request::SinkMapped { sink });
                }
            }
            Event::TxPrepare { conn, source, to, depth } => {
                let cells = self.map_written(&fds[0], cells_bytes(depth));
                self.prepared_tx.insert(conn, (source, to, cells, depth));
                self.send(&Request::Mapped { conn, step: 1 });
            }
            Event::RxPrepare { conn, depth, returns, .. } => {
                let region = self.map_written(&fds[0], returns_bytes(returns));
                self.prepared_rx.insert(conn, (region, depth));
                self.send(&Request::Mapped { conn, step: 1 });
            }
            Event::TxOpen { conn, returns, wake } => self.tx_open(conn, returns, wake, fds),
            Event::RxOpen { conn, heap_bytes, classes, trusted } => {
                let (returns, depth) = self.prepared_rx.remove(&conn).expect("prepared");
                let cells = Region::map_read_only(fds[0].as_fd(), cells_bytes(depth) as usize).unwrap();
                let heap = (heap_bytes > 0).then(|| {
                    let region = Region::map_read_only(fds[1].as_fd(), heap_bytes as usize).unwrap();
                    ForeignHeap::new(region, Geometry::new(&classes).unwrap()).unwrap()
                });
                self.rx.insert(conn, RxConn::new(conn, cells, returns, depth, heap, trusted));
                self.send(&Request::Mapped { conn, step: 2 });
            }
            Event::Activate { conn } => {
                let opened = self.opened_tx.remove(&conn).expect("opened");
                self.tx.insert(conn, opened);
            }
            Event::Retire { conn } => {
                self.retired.push(conn);
                self.tx.remove(&conn);
            }
            Event::Closing { code, reason } => self.closed = Some((code, reason)),
            _ => {}
        }
    }

    fn heap_of(&mut self, source: SourceId) {
        // Sources of these tests have this heap or none.
        let region = Arc::clone(self.regions.last().expect("just mapped"));
        let geometry = Geometry::new(&HEAP).unwrap();
        let buffers = geometry.buffers();
        self.heaps.insert(source, (SenderHeap::new(region, geometry), buffers));
    }

    fn tx_open(&mut self, conn: ConnId, returns_places: u32, wake: WakeKind, fds: Vec<OwnedFd>) {
        let (source, to, cells, depth) = self.prepared_tx.remove(&conn).expect("prepared");
        let returns = Region::map_read_only(fds[0].as_fd(), returns_bytes(returns_places) as usize).unwrap();
        let page = fds.get(1).map(|fd| Region::map_read_only(fd.as_fd(), WAKE_PAGE_BYTES).unwrap());
        let last = fds.into_iter().nth(2);
        let how = match (wake, last) {
            (WakeKind::Never, None) => None,
            (WakeKind::Page, None) => Some(How::Futex),
            (WakeKind::Fd, Some(fd)) => Some(How::Socket(fd)),
            (WakeKind::Event, Some(fd)) => {
                self.doorbell = Some(fd.try_clone().unwrap());
                Some(How::Event(fd))
            }
            other => panic!("{other:?}"),
        };
        let waker = how.zip(page).map(|(how, page)| match wake {
            WakeKind::Event => Waker::of_datapath(page, Arc::clone(&returns), how),
            _ => Waker::new(page, how),
        });
        let buffers = self.heaps.get(&source).map_or(0, |(_, buffers)| *buffers);
        assert_eq!(returns_places, places(buffers));
        self.tx_to_datapath.insert(conn, to == Receiver::Datapath);
        self.opened_tx.insert(conn, (source, TxConn::new(conn, cells, returns, depth, buffers, waker)));
        self.send(&Request::Mapped { conn, step: 2 });
    }

    /// Sends a small message on every connection.
    pub fn emit(&mut self, sequence: u64, payload: &[u8]) {
        for (_, conn) in self.tx.values_mut() {
            assert!(conn.has_room().unwrap());
            conn.push_inline(Meta { sequence, ..Meta::default() }, payload);
            if conn.wants_wake() {
                conn.wake();
            }
        }
    }

    /// Sends a large message on every connection.
    pub fn emit_large(&mut self, sequence: u64, payload: &[u8]) {
        for (source, conn) in self.tx.values_mut() {
            let (heap, _) = self.heaps.get_mut(source).expect("a heap");
            let id = heap.loan(payload.len() as u32).expect("a buffer");
            heap.bytes_mut(id)[..payload.len()].copy_from_slice(payload);
            heap.lend(id);
            conn.push_heap(heap, Meta { sequence, ..Meta::default() }, id, payload.len() as u32);
            heap.release(id);
            if conn.wants_wake() {
                conn.wake();
            }
        }
    }

    /// Takes the next message of any connection, with patience.
    pub fn consume(&mut self) -> Vec<u8> {
        let until = insane_sys::clock::mono_now() + PATIENCE;
        loop {
            if let Some(message) = self.try_consume() {
                return message;
            }
            assert!(insane_sys::clock::mono_now() < until, "no message came");
            std::thread::yield_now();
        }
    }

    pub fn try_consume(&mut self) -> Option<Vec<u8>> {
        let mut popped = Popped::EMPTY;
        for conn in self.rx.values_mut() {
            if conn.pop(&mut popped).unwrap() {
                return Some(match popped.payload {
                    Payload::Inline => popped.inline.0[..popped.len as usize].to_vec(),
                    Payload::Heap(id) => {
                        let bytes = conn.view(id, popped.len).to_vec();
                        conn.give_back(id);
                        conn.flush();
                        bytes
                    }
                });
            }
        }
        None
    }
}

/// The heap that sources of these tests have.
pub const HEAP: [ClassSpec; 1] = [ClassSpec { size: 4096, count: 8 }];
