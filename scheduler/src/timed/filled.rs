//! A table that is filled where there is time for it.

use super::table::Table;
use super::words::{LinkTiming, TableError, TimedStream};
use insane_core::TaiTime;

/// A table for [`TimedScheduler::stage_filled`](super::TimedScheduler::stage_filled). The value is
/// as large as one of the scheduler's tables: make it where it will stay.
pub struct FilledTable<const FLOWS: usize, const STREAMS: usize, const SLOTS: usize> {
    pub(super) table: Table<FLOWS, STREAMS, SLOTS>,
    pub(super) timing: LinkTiming,
}

impl<const FLOWS: usize, const STREAMS: usize, const SLOTS: usize> FilledTable<FLOWS, STREAMS, SLOTS> {
    /// Without streams, for a link of this timing.
    #[must_use]
    pub const fn new(timing: LinkTiming) -> Self {
        FilledTable { table: Table::new(), timing }
    }

    /// Fills it anew. O(streams squared).
    ///
    /// # Errors
    /// [`TableError`]; what was in it before is still there.
    pub fn fill(&mut self, base: TaiTime, streams: &[TimedStream]) -> Result<(), TableError> {
        self.table.fill(base, streams, &self.timing)
    }
}

impl<const FLOWS: usize, const STREAMS: usize, const SLOTS: usize> core::fmt::Debug
    for FilledTable<FLOWS, STREAMS, SLOTS>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("FilledTable")
    }
}
