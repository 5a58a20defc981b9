//! Scan: reconciles the table with a listing of `/proc`.

use std::io;

use super::Processes;
use super::source::ProcessSource;
use super::table::Table;
use crate::kernel::stat::Stat;

impl Processes {
    /// Scans, at `now` (CLOCK_BOOTTIME, ns). Returns the first error of a process that could not be read though it exists: such stay as they were.
    ///
    /// # Errors
    /// The directory cannot be listed: the table stays as it was.
    pub fn scan(&mut self, source: &mut dyn ProcessSource, now: u64) -> io::Result<Option<io::Error>> {
        source.list(&mut self.listed)?;
        self.begin(now);
        (self.is_scanned, self.has_changed) = (true, true);
        let mut failed = None;
        let mut all: Vec<Stat> = Vec::with_capacity(self.listed.len());
        let tracked = std::mem::take(&mut self.tracked);
        for (_, pid) in self.parents_first() {
            match source.stat_again(pid, &|stat| tracked.binary_search(&stat.id).is_ok()) {
                Ok(stat) => {
                    self.has_missed |= stat.is_none() && self.table.get(pid).is_none();
                    all.extend(stat);
                }
                Err(error) => {
                    all.extend(self.table.get(pid));
                    self.stale.push(pid);
                    failed.get_or_insert(error);
                }
            }
        }
        self.tracked = tracked;
        self.table = Table::of(all);
        self.stale.sort_unstable();
        let mut records = std::mem::take(&mut self.records);
        records.retain(|id, _| self.get_exactly(*id).is_some());
        self.records = records;
        Ok(failed)
    }

    /// Reading order: the known ones oldest first (a parent is never younger than its child), then the new ones by pid.
    pub(super) fn parents_first(&self) -> Vec<(u64, u32)> {
        let start = |pid: u32| self.table.get(pid).map_or(u64::MAX, |stat| stat.id.start);
        let mut order: Vec<_> = self.listed.iter().map(|pid| (start(*pid), *pid)).collect();
        order.sort_unstable();
        order
    }
}
