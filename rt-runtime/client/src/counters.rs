//! The session's counters page: made by the runtime, written and divided by the session.
//!
//! It outlives the runtime. A session that reattaches hands the page over, so that the
//! next life of the runtime shows what was counted before it, and while there was none;
//! the ports notice nothing. Each block has one writer, the port whose line it is.

use crate::agent::lock;
use crate::ports::PartsError;
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

    /// A line for a new port; what a port before it counted there stays in the sum. `None`
    /// if every line has a port.
    pub fn take(self: &Arc<Self>) -> Option<Line> {
        let mut taken = lock(&self.taken);
        let at = taken.iter().position(|taken| !taken)?;
        taken[at] = true;
        Some(Line { page: Arc::clone(self), at })
    }
}

/// A line of the page, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    page: Arc<CounterPage>,
    at: usize,
}

impl Line {
    /// The counters in it.
    pub fn block(&self) -> Option<CounterBlock> {
        CounterBlock::new(Arc::clone(&self.page.region), self.at as u32)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        lock(&self.page.taken)[self.at] = false;
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
}
