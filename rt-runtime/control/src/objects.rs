//! The kernel objects of sessions: memfds, wake sockets, doorbells.
//!
//! The hub says what is to be made, sealed and dropped; here it is done. What a
//! datapath or a queued packet still uses outlives the drop, by reference count.

use crate::action::{Beside, ObjectId, ObjectKind, Writer};
use crate::spec::RegionSizes;
use insane_core::heap::Geometry;
use insane_shm::cell::{cells_bytes, returns_bytes};
use insane_shm::counters::BLOCK_BYTES;
use insane_shm::region::Region;
use insane_shm::wake::WAKE_PAGE_BYTES;
use insane_sys::event::Event;
use insane_sys::{memfd, seqpacket};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Lines of the counters page of a session.
pub(crate) const COUNTER_LINES: u32 = 256;

/// Bytes of the regions, as the crate that maps them has it.
pub(crate) const SIZES: RegionSizes = RegionSizes {
    cells: cells_bytes,
    returns: returns_bytes,
    counters: |lines| (lines as u64 * BLOCK_BYTES as u64).next_multiple_of(4096),
    wake_page: WAKE_PAGE_BYTES as u64,
};

#[derive(Debug)]
struct Holding {
    kind: ObjectKind,
    fd: Arc<OwnedFd>,
    /// The writable end of a wake socket.
    writer: Option<Arc<OwnedFd>>,
    bytes: u64,
    sealed: bool,
    /// Mapped for writing: what a datapath writes.
    written: Option<Arc<Region>>,
    /// Mapped for reading.
    read: Option<Arc<Region>>,
}

/// All objects that the control plane holds.
#[derive(Debug)]
pub(crate) struct Objects {
    holdings: BTreeMap<ObjectId, Holding>,
    bytes: u64,
}

impl Objects {
    pub(crate) const fn new() -> Self {
        Objects { holdings: BTreeMap::new(), bytes: 0 }
    }

    /// How many there are, and the bytes of those that are memory.
    pub(crate) fn totals(&self) -> (usize, u64) {
        (self.holdings.len(), self.bytes)
    }

    /// Makes an object, or adopts the next of those that came beside a packet.
    pub(crate) fn create(
        &mut self,
        object: ObjectId,
        kind: ObjectKind,
        writer: Writer,
        adoptable: &mut VecDeque<OwnedFd>,
    ) -> io::Result<()> {
        let bytes = region_bytes(&kind);
        if writer == Writer::Adopted {
            return self.adopt(object, kind, bytes, adoptable.pop_front());
        }
        let mut holding = Holding {
            fd: Arc::new(descriptor_of(&kind, bytes)?),
            kind,
            writer: None,
            bytes,
            sealed: false,
            written: None,
            read: None,
        };
        match holding.kind {
            ObjectKind::WakeSocket => {
                let (reader, writer) = seqpacket::wake_socket_pair()?;
                holding.fd = Arc::new(reader);
                holding.writer = Some(Arc::new(writer));
            }
            _ if matches!(writer, Writer::Datapath(_)) => {
                holding.written = Some(Region::map_writable(holding.fd.as_fd(), bytes as usize)?);
            }
            // The client maps what it writes, and touches it.
            _ => {}
        }
        self.bytes += bytes;
        self.holdings.insert(object, holding);
        Ok(())
    }

    /// Memory that an earlier life of the runtime made and sealed. That its client made it
    /// itself is possible, and then it has every property that counts all the same: its
    /// size is fixed, nobody can punch holes, and what it holds is a claim as ever.
    fn adopt(&mut self, object: ObjectId, kind: ObjectKind, bytes: u64, fd: Option<OwnedFd>) -> io::Result<()> {
        let fd = fd.ok_or_else(missing)?;
        if kind.is_memory() {
            memfd::check_sealed(&fd, bytes).map_err(io::Error::other)?;
        } else if !seqpacket::is_unnamed(&fd) {
            return Err(io::Error::other("the descriptor is no end of a wake socket"));
        }
        let fd = Arc::new(fd);
        let writer = (!kind.is_memory()).then(|| Arc::clone(&fd));
        let sealed = kind.is_memory();
        self.bytes += bytes;
        self.holdings.insert(object, Holding { kind, fd, writer, bytes, sealed, written: None, read: None });
        Ok(())
    }

    pub(crate) fn seal(&mut self, object: ObjectId) -> io::Result<()> {
        let holding = self.holdings.get_mut(&object).ok_or_else(missing)?;
        memfd::seal_writers(holding.fd.as_fd())?;
        holding.sealed = true;
        Ok(())
    }

    pub(crate) fn remove(&mut self, object: ObjectId) {
        if let Some(holding) = self.holdings.remove(&object) {
            self.bytes -= holding.bytes;
        }
    }

    /// The descriptor that travels; `None` for what is the runtime's own.
    pub(crate) fn descriptor(&self, beside: &Beside) -> Option<Arc<OwnedFd>> {
        let holding = self.holdings.get(&beside.object()?)?;
        match beside {
            Beside::WakeWriter(_) => holding.writer.clone(),
            _ => Some(Arc::clone(&holding.fd)),
        }
    }

    /// The mapping of memory that a datapath writes.
    pub(crate) fn written(&self, object: ObjectId) -> io::Result<Arc<Region>> {
        self.holdings.get(&object).and_then(|holding| holding.written.clone()).ok_or_else(missing)
    }

    /// A mapping of memory that a client writes; made once.
    pub(crate) fn read(&mut self, object: ObjectId) -> io::Result<Arc<Region>> {
        let holding = self.holdings.get_mut(&object).ok_or_else(missing)?;
        if let Some(region) = &holding.read {
            return Ok(Arc::clone(region));
        }
        let region = Region::map_read_only(holding.fd.as_fd(), holding.bytes as usize)?;
        holding.read = Some(Arc::clone(&region));
        Ok(region)
    }

    /// A mapping for one look.
    pub(crate) fn look(&self, object: ObjectId) -> io::Result<Arc<Region>> {
        let holding = self.holdings.get(&object).ok_or_else(missing)?;
        Region::map_read_only(holding.fd.as_fd(), holding.bytes as usize)
    }

    /// Whether memory is sealed: only then nobody can punch holes under a reader.
    pub(crate) fn is_sealed(&self, object: ObjectId) -> bool {
        self.holdings.get(&object).is_some_and(|holding| holding.sealed)
    }

    /// The writable end of a wake socket, for a datapath to keep.
    pub(crate) fn wake_writer(&self, object: ObjectId) -> io::Result<OwnedFd> {
        let writer = self.holdings.get(&object).and_then(|holding| holding.writer.as_ref()).ok_or_else(missing)?;
        writer.try_clone()
    }

    /// The doorbell itself.
    pub(crate) fn doorbell(&self, object: ObjectId) -> Option<Arc<OwnedFd>> {
        self.holdings.get(&object).map(|holding| Arc::clone(&holding.fd))
    }
}

fn descriptor_of(kind: &ObjectKind, bytes: u64) -> io::Result<OwnedFd> {
    if kind.is_memory() {
        return Ok(memfd::create(region_name(kind), bytes)?);
    }
    Event::new()?.as_fd().try_clone_to_owned()
}

fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the object is gone")
}

fn region_bytes(kind: &ObjectKind) -> u64 {
    match kind {
        ObjectKind::Cells { depth } => (SIZES.cells)(*depth),
        ObjectKind::Returns { places } => (SIZES.returns)(*places),
        ObjectKind::WakePage => SIZES.wake_page,
        ObjectKind::Heap { classes } => Geometry::new(classes).map_or(0, |geometry| geometry.bytes()),
        ObjectKind::Counters { lines } => (SIZES.counters)(*lines),
        ObjectKind::WakeSocket | ObjectKind::Doorbell => 0,
    }
}

const fn region_name(kind: &ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Cells { .. } => "insane-cells",
        ObjectKind::Returns { .. } => "insane-returns",
        ObjectKind::WakePage => "insane-wake",
        ObjectKind::Heap { .. } => "insane-heap",
        ObjectKind::Counters { .. } => "insane-counters",
        ObjectKind::WakeSocket | ObjectKind::Doorbell => "insane",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_config::LayoutSizes;
    use insane_core::{DatapathIndex, SessionId};

    fn create(objects: &mut Objects, object: ObjectId, kind: ObjectKind, writer: Writer) -> io::Result<()> {
        objects.create(object, kind, writer, &mut VecDeque::new())
    }

    fn adopt(objects: &mut Objects, kind: ObjectKind, fd: OwnedFd) -> io::Result<()> {
        objects.create(ObjectId(1), kind, Writer::Adopted, &mut VecDeque::from([fd]))
    }

    #[test]
    fn only_memory_that_is_sealed_and_large_enough_is_adopted() {
        let mut objects = Objects::new();
        let bytes = SIZES.wake_page;
        let open = memfd::create("test", bytes).unwrap();
        assert!(adopt(&mut objects, ObjectKind::WakePage, open).is_err(), "others could still write");
        let small = memfd::create("test", bytes / 2).unwrap();
        memfd::seal_writers(&small).unwrap();
        assert!(adopt(&mut objects, ObjectKind::WakePage, small).is_err());
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(adopt(&mut objects, ObjectKind::WakePage, file.into()).is_err());
        assert!(create(&mut objects, ObjectId(1), ObjectKind::WakePage, Writer::Adopted).is_err(), "nothing came");
        assert_eq!(objects.totals(), (0, 0));
        let sealed = memfd::create("test", bytes).unwrap();
        memfd::seal_writers(&sealed).unwrap();
        adopt(&mut objects, ObjectKind::WakePage, sealed).unwrap();
        assert!(objects.is_sealed(ObjectId(1)) && objects.read(ObjectId(1)).is_ok());
        assert_eq!(objects.totals(), (1, bytes));
    }

    #[test]
    fn only_an_end_of_a_pair_is_adopted_as_a_wake_socket() {
        let mut objects = Objects::new();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(adopt(&mut objects, ObjectKind::WakeSocket, file.into()).is_err());
        let (_reader, writer) = seqpacket::wake_socket_pair().unwrap();
        adopt(&mut objects, ObjectKind::WakeSocket, writer).unwrap();
        assert!(objects.wake_writer(ObjectId(1)).is_ok());
    }

    #[test]
    fn the_planner_reckons_with_the_true_sizes() {
        let sizes = LayoutSizes::default();
        assert_eq!(sizes.trace_bytes, insane_shm::trace::TRACE_BYTES as u64);
        let depth = sizes.ring_depth as u32;
        let places = sizes.ring_returns as u32;
        assert_eq!((SIZES.cells)(depth) + (SIZES.returns)(places), sizes.ring_bytes());
        assert_eq!((SIZES.counters)(COUNTER_LINES), sizes.session_counters_bytes());
        assert_eq!(u64::from(COUNTER_LINES), sizes.session_counter_blocks);
        assert_eq!(SIZES.wake_page, sizes.wake_page_bytes);
    }

    #[test]
    fn what_a_client_writes_is_sealed_against_every_other_writer() {
        let mut objects = Objects::new();
        let id = ObjectId(1);
        create(&mut objects, id, ObjectKind::Cells { depth: 8 }, Writer::Session(SessionId(0))).unwrap();
        let fd = objects.descriptor(&Beside::ReadWrite(id)).unwrap();
        let client = Region::map_writable(fd.as_fd(), (SIZES.cells)(8) as usize).unwrap();
        assert!(!objects.is_sealed(id));
        objects.seal(id).unwrap();
        assert!(objects.is_sealed(id) && client.is_writable());
        assert!(Region::map_writable(fd.as_fd(), 4096).is_err(), "no second writer");
        objects.read(id).unwrap();
        assert!(objects.written(id).is_err(), "no datapath writes it");
        objects.remove(id);
        assert_eq!(objects.totals(), (0, 0));
        assert!(objects.descriptor(&Beside::ReadOnly(id)).is_none());
    }

    #[test]
    fn what_a_datapath_writes_is_mapped_before_it_is_sealed() {
        let mut objects = Objects::new();
        let id = ObjectId(1);
        create(&mut objects, id, ObjectKind::Returns { places: 16 }, Writer::Datapath(DatapathIndex(0))).unwrap();
        objects.seal(id).unwrap();
        assert!(objects.written(id).unwrap().is_writable());
    }

    #[test]
    fn the_two_ends_of_a_wake_socket_are_told_apart() {
        let mut objects = Objects::new();
        let id = ObjectId(1);
        create(&mut objects, id, ObjectKind::WakeSocket, Writer::Session(SessionId(0))).unwrap();
        let reader = objects.descriptor(&Beside::WakeReader(id)).unwrap();
        let writer = objects.wake_writer(id).unwrap();
        assert_eq!(seqpacket::wake_send(&writer), seqpacket::SendOutcome::Sent);
        assert!(seqpacket::wake_clear(&reader));
        assert!(create(&mut objects, ObjectId(2), ObjectKind::Doorbell, Writer::Session(SessionId(0))).is_ok());
        assert!(objects.doorbell(ObjectId(2)).is_some());
    }
}
