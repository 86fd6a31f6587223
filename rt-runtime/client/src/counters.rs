//! The session's counters page: made by the runtime, written and divided by the session.
//!
//! The runtime shows all of it as the session's, and each line as the source's or sink's that
//! says it counts there.
//!
//! It outlives the runtime. A session that reattaches hands the page over, so that the
//! next life of the runtime shows what was counted before it, and while there was none;
//! the ports notice nothing. Each block has one writer, the port whose line it is.

use crate::agent::lock;
use crate::ports::PartsError;
use insane_core::counters::{PORT_BASE, PortCounter};
use insane_shm::counters::{BLOCK_BYTES, CounterBlock};
use insane_shm::region::Region;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// The page, and which of its lines have a port.
#[derive(Debug)]
pub(crate) struct CounterPage {
    region: Arc<Region>,
    fd: OwnedFd,
    taken: Mutex<Vec<bool>>,
}

impl CounterPage {
    /// Maps a page that the runtime passed. Nobody else writes it.
    pub fn map(fd: OwnedFd, bytes: u32) -> Result<Arc<Self>, PartsError> {
        let region = Region::map_writable(fd.as_fd(), bytes as usize)?;
        let taken = Mutex::new(vec![false; region.len() / BLOCK_BYTES]);
        Ok(Arc::new(CounterPage { region, fd, taken }))
    }

    /// The page's memory, for the runtime's next life.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A line for a new port; what a port before it counted there stays in the sum, and is not
    /// the new one's. `None` if every line has a port.
    pub fn take(self: &Arc<Self>) -> Option<Line> {
        let mut taken = lock(&self.taken);
        let at = taken.iter().position(|taken| !taken)?;
        taken[at] = true;
        let line = Line { page: Arc::clone(self), at: at as u32 };
        // Nobody else writes there: no port has the line.
        if let Some(block) = line.block() {
            for counter in PortCounter::ALL.iter().map(|counter| *counter as usize) {
                let base = PORT_BASE + counter;
                block.add(base, block.get(counter).wrapping_sub(block.get(base)));
            }
        }
        Some(line)
    }
}

/// A line of the page, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    page: Arc<CounterPage>,
    at: u32,
}

impl Line {
    /// The counters in it.
    pub fn block(&self) -> Option<CounterBlock> {
        CounterBlock::new(Arc::clone(&self.page.region), self.at)
    }

    /// Its number, for a runtime that has this page. `None`: it has another, since it did not
    /// take this one.
    pub fn number(&self, page: Option<&Arc<CounterPage>>) -> Option<u32> {
        page.is_some_and(|page| Arc::ptr_eq(page, &self.page)).then_some(self.at)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        lock(&self.page.taken)[self.at as usize] = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_one_port_at_a_time() {
        let fd = insane_sys::memfd::create("test", 4096).unwrap();
        let page = CounterPage::map(fd, 4096).unwrap();
        let mut lines: Vec<Line> = std::iter::from_fn(|| page.take()).collect();
        assert_eq!(lines.len(), 4096 / BLOCK_BYTES);
        lines.iter().enumerate().for_each(|(at, line)| line.block().unwrap().add(0, at as u64));
        for (at, line) in lines.iter().enumerate() {
            assert_eq!(line.block().unwrap().get(0), at as u64);
        }
        drop(lines.remove(3));
        assert_eq!(page.take().unwrap().at, 3);
    }

    #[test]
    fn what_a_port_before_counted_in_a_line_is_kept_beside_it() {
        let page = || CounterPage::map(insane_sys::memfd::create("test", 4096).unwrap(), 4096).unwrap();
        let (ours, other) = (page(), page());
        let (messages, stale) = (PortCounter::Messages as usize, PortCounter::Stale as usize);
        for (already, more) in [(0, 7), (7, 5), (12, 0)] {
            let line = ours.take().unwrap();
            let block = line.block().unwrap();
            assert_eq!((line.number(Some(&ours)), block.get(messages)), (Some(0), already));
            assert_eq!((block.get(PORT_BASE + messages), block.get(PORT_BASE + stale)), (already, 0));
            block.add(messages, more);
            assert_eq!((line.number(Some(&other)), line.number(None)), (None, None), "of another page");
        }
    }
}
