//! Building ports and connection ends from what the runtime passed.

use crate::counters::Line;
use crate::error::RequestError;
use crate::registry::Heaps;
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_core::heap::{ClassSpec, Geometry};
use insane_shm::cell::{cells_bytes, returns_bytes};
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::counters::CounterBlock;
use insane_shm::heap::{ForeignHeap, SenderHeap};
use insane_shm::port::{Mailbox, SinkPort, SourcePort};
use insane_shm::region::Region;
use insane_shm::returns::places;
use insane_shm::wake::{How, Sleeper, WAKE_PAGE_BYTES, Waker};
use insane_sys::memfd;
use insane_wire::control::WakeKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long a new source may work at its huge pages: the agent does nothing else meanwhile,
/// and whoever wants the source waits. Enough for some 200 MB, on a machine as of 2025.
const HUGE_LIMIT: Duration = Duration::from_millis(500);

/// Why something that the runtime passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartsError {
    #[error("the runtime passed {got} descriptors where {wanted} belong")]
    Descriptors { got: usize, wanted: usize },
    #[error("a size or number that the runtime passed is out of range")]
    Range,
    #[error("the system refuses a mapping: {0}")]
    Map(#[from] std::io::Error),
}

impl From<PartsError> for RequestError {
    fn from(error: PartsError) -> Self {
        RequestError::Resources(error.to_string())
    }
}

/// The descriptors beside an event, handed out in their order.
pub(crate) struct Beside {
    fds: std::vec::IntoIter<OwnedFd>,
}

impl Beside {
    pub fn new(fds: Vec<OwnedFd>) -> Self {
        Beside { fds: fds.into_iter() }
    }

    pub fn next(&mut self) -> Result<OwnedFd, PartsError> {
        self.fds.next().ok_or(PartsError::Descriptors { got: 0, wanted: 1 })
    }
}

fn map_writable(fd: &OwnedFd, bytes: u64) -> Result<Arc<Region>, PartsError> {
    let bytes = usize::try_from(bytes).map_err(|_| PartsError::Range)?;
    Ok(Region::map_writable(fd.as_fd(), bytes)?)
}

fn map_read_only(fd: &OwnedFd, bytes: u64) -> Result<Arc<Region>, PartsError> {
    let bytes = usize::try_from(bytes).map_err(|_| PartsError::Range)?;
    Ok(Region::map_read_only(fd.as_fd(), bytes)?)
}

/// The counters of one port; private ones if the session's page has no line left.
pub(crate) fn counters(line: Option<&Line>) -> CounterBlock {
    line.and_then(Line::block).unwrap_or_else(CounterBlock::private)
}

/// A new source's port, and what its agent keeps of it.
pub(crate) struct SourceParts {
    pub port: SourcePort,
    pub mailbox: Arc<Mailbox<TxConn>>,
    pub buffers: u32,
    pub heap: Option<OwnedFd>,
}

pub(crate) fn source_port(
    beside: &mut Beside,
    classes: &[ClassSpec],
    heap_bytes: u64,
    reliable: bool,
    counters: CounterBlock,
) -> Result<SourceParts, PartsError> {
    let geometry = Geometry::new(classes).ok_or(PartsError::Range)?;
    if heap_bytes != geometry.bytes() {
        return Err(PartsError::Range);
    }
    let buffers = geometry.buffers();
    let heap = match heap_bytes {
        0 => None,
        bytes => {
            let fd = beside.next()?;
            let region = map_writable(&fd, bytes)?;
            region.prefault()?;
            if let Some(is_huge) = region.make_huge(HUGE_LIMIT) {
                counters.add(PortCounter::HeapsLarge as usize, 1);
                counters.add(PortCounter::HeapsHuge as usize, u64::from(is_huge));
            }
            Some((SenderHeap::new(region, geometry), fd))
        }
    };
    let (heap, fd) = heap.unzip();
    let (port, mailbox) = SourcePort::new(heap, reliable, counters)?;
    Ok(SourceParts { port, mailbox, buffers, heap: fd })
}

pub(crate) fn sink_port(
    wake_page: Option<&OwnedFd>,
    counters: CounterBlock,
) -> Result<(SinkPort, Arc<Mailbox<RxConn>>), PartsError> {
    let sleeper = match wake_page {
        Some(fd) => Some(Sleeper::new(map_writable(fd, WAKE_PAGE_BYTES as u64)?)),
        None => None,
    };
    Ok(SinkPort::new(sleeper, counters)?)
}

pub(crate) fn cells(beside: &mut Beside, depth: u32) -> Result<Arc<Region>, PartsError> {
    let region = map_writable(&beside.next()?, checked_cells(depth)?)?;
    region.prefault()?;
    Ok(region)
}

fn checked_cells(depth: u32) -> Result<u64, PartsError> {
    if insane_shm::ring::depth_fits(depth) { Ok(cells_bytes(depth)) } else { Err(PartsError::Range) }
}

fn checked_places(places: u32) -> Result<u64, PartsError> {
    let fits = places == 0 || (places.is_power_of_two() && places <= 65_536);
    if fits { Ok(returns_bytes(places)) } else { Err(PartsError::Range) }
}

/// The returns of a consuming end, and its hold on them. Without one (there is no `/proc`) the
/// sender never knows that what was not given back is read no more.
pub(crate) fn returns(beside: &mut Beside, places: u32) -> Result<(Arc<Region>, Option<OwnedFd>), PartsError> {
    let fd = beside.next()?;
    let region = map_writable(&fd, checked_places(places)?)?;
    region.prefault()?;
    Ok((region, memfd::hold(&fd).ok()))
}

/// The producing end, from its cells and what `TxOpen` brought; and the receiver's memory.
pub(crate) fn tx_conn(
    id: ConnId,
    cells: Arc<Region>,
    depth: u32,
    buffers: u32,
    returns: u32,
    wake: WakeKind,
    beside: &mut Beside,
) -> Result<(TxConn, OwnedFd), PartsError> {
    if returns != places(buffers) {
        return Err(PartsError::Range);
    }
    let memory = beside.next()?;
    let returns = map_read_only(&memory, checked_places(returns)?)?;
    returns.prefault()?;
    let waker = match wake {
        WakeKind::Never => None,
        WakeKind::Page | WakeKind::Fd | WakeKind::Event => {
            let page = map_read_only(&beside.next()?, WAKE_PAGE_BYTES as u64)?;
            let how = match wake {
                WakeKind::Fd => How::Socket(beside.next()?),
                WakeKind::Event => How::Event(beside.next()?),
                WakeKind::Page | WakeKind::Never => How::Futex,
            };
            Some(match wake {
                WakeKind::Event => Waker::of_datapath(page, Arc::clone(&returns), how),
                _ => Waker::new(page, how),
            })
        }
    };
    Ok((TxConn::new(id, cells, returns, depth, buffers, waker), memory))
}

/// The consuming end, from its returns and what `RxOpen` brought.
pub(crate) fn rx_conn(
    id: ConnId,
    returns: Arc<Region>,
    depth: u32,
    classes: &[ClassSpec],
    heap_bytes: u64,
    trusted: bool,
    (beside, heaps): (&mut Beside, &mut Heaps),
) -> Result<RxConn, PartsError> {
    let cells = map_read_only(&beside.next()?, checked_cells(depth)?)?;
    cells.prefault()?;
    let geometry = Geometry::new(classes).ok_or(PartsError::Range)?;
    if heap_bytes != geometry.bytes() {
        return Err(PartsError::Range);
    }
    let needed = returns_bytes(places(geometry.buffers()));
    if (returns.len() as u64) < needed {
        return Err(PartsError::Range);
    }
    let heap = match heap_bytes {
        0 => None,
        bytes => {
            let region = heaps.map(beside.next()?, usize::try_from(bytes).map_err(|_| PartsError::Range)?)?;
            Some(ForeignHeap::new(region, geometry).ok_or(PartsError::Range)?)
        }
    };
    Ok(RxConn::new(id, cells, returns, depth, heap, trusted))
}
