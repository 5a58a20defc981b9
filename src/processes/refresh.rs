//! Refresh: brings the table up to date by the events since the last gather, and reads the tracked processes.

use std::collections::BTreeMap;
use std::io;

use super::lifecycle::{Changes, Journal, LateEvents, ProcessRef};
use super::source::{ProcessSource, Read};
use super::unobserved::Record;
use super::{Processes, born_between, with_pid};
use crate::kernel::own;
use crate::kernel::stat::{Identity, Stat};

/// After so many births it is worth a fifth of a millisecond to give back what is free.
const BIRTHS_TRIMMED: usize = 1000;

impl Processes {
    /// Applies the events and records since the last gather, as of `now` (CLOCK_BOOTTIME, ns). `is_reaped` is asked about
    /// processes that exited. Returns the first error of a process that could not be read though it exists: it stays as it
    /// was, or is read at the next gather.
    pub fn follow(
        &mut self,
        journal: &mut Journal,
        is_reaped: &dyn Fn(u32) -> bool,
        source: &mut dyn ProcessSource,
        now: u64,
    ) -> Option<io::Error> {
        let recently_exited = std::mem::take(&mut self.recently_exited);
        self.begin(now);
        (self.is_scanned, self.listed) = (false, Vec::new());
        let (mut failed, mut unread) = (None, Vec::new());
        let gone = journal.take_reaped(is_reaped);
        gone.iter().for_each(|(pid, _)| source.close(*pid));
        let mut look = |pid, may_have_ended| match source.stat(pid) {
            // A thread's stat has what all the threads of its process have used.
            Ok(Some(_)) if may_have_ended && !source.is_process(pid) => None,
            Ok(read) => read,
            Err(error) => {
                unread.push(pid);
                failed.get_or_insert(error);
                None
            }
        };
        let orphans = gone.iter().flat_map(|(pid, _)| self.children(*pid)).map(|child| (child.id.pid, None));
        let orphans: Vec<_> = orphans.collect();
        self.take_reaped(gone);
        let now_or_before = |pid| with_pid(&self.recently_exited, pid).or_else(|| with_pid(&recently_exited, pid));
        let Changes { changed, births, unobserved } =
            journal.settle(&mut look, |stat| self.table.add(stat), now_or_before);
        self.exited_ancestors = journal.exited_ancestors().collect();
        self.has_missed = journal.misses_newborns();
        self.exited_ancestors.sort_unstable();
        // As of the table before newborns are found in it: one may have the pid of a known process.
        let before = |who| match who {
            ProcessRef::Known(pid) => self.get(pid).map(|stat| stat.id).or_else(|| now_or_before(pid)),
            ProcessRef::Newborn(_) => None,
            ProcessRef::Exited(id) => Some(id),
        };
        let unobserved: Vec<_> = unobserved.into_iter().map(|(who, sums)| (who, before(who), sums)).collect();
        let ancestors = births.iter().filter_map(|birth| Some((birth.id, birth.ancestor?)));
        let ancestors: Vec<_> = ancestors.map(|(id, who)| (id, who, before(who))).collect();
        self.table.find_added();
        if births.len() > BIRTHS_TRIMMED {
            own::give_all_memory_back(); // what the journal knew of them was in small pieces
        }
        let is_tracked_or_exited = |id: Identity| self.is_tracked(id.pid) || self.get_exactly(id).is_none();
        self.has_changed = self.has_changed
            || births.iter().any(|birth| self.concerns_tracked(birth.id.pid))
            || ancestors.iter().any(|(.., before)| before.is_some_and(is_tracked_or_exited));
        self.records.extend(births.into_iter().filter_map(|birth| Some((birth.id, birth.record?))));
        for (pid, record) in orphans.into_iter().chain(changed) {
            self.look_again(pid, record, &mut look);
            // A zombie has no children: they were reparented.
            if self.get(pid).is_some_and(Stat::is_zombie) {
                let orphans: Vec<_> = self.children(pid).map(|child| child.id.pid).collect();
                orphans.into_iter().for_each(|orphan| self.look_again(orphan, None, &mut look));
            }
        }
        // A newborn whose parent was reaped between the events and the reading has another parent now.
        let has_vanished_parent = |stat: &&Stat| stat.ppid > 0 && self.table.get(stat.ppid).is_none();
        let orphans_of_vanished = ancestors.iter().filter_map(|(id, ..)| self.get(id.pid)).filter(has_vanished_parent);
        orphans_of_vanished.map(|stat| stat.id.pid).chain(unread).for_each(|pid| journal.read_again(pid));
        let now = |who, before: Option<Identity>| match who {
            ProcessRef::Known(_) | ProcessRef::Exited(_) => before,
            ProcessRef::Newborn(pid) => self.get(pid).map(|stat| stat.id),
        };
        let unobserved = unobserved.into_iter().filter_map(|(who, before, sums)| Some((now(who, before)?, sums)));
        let unobserved = unobserved.collect();
        let birth_ancestors = ancestors.into_iter().filter_map(|(id, who, before)| Some((id, now(who, before)?)));
        let mut birth_ancestors: Vec<_> = birth_ancestors.collect();
        birth_ancestors.sort_unstable();
        let is_elsewhere = |(id, ancestor): &&(Identity, Identity)| {
            self.get_exactly(*id).is_some_and(|stat| stat.ppid != ancestor.pid)
        };
        self.reparented = birth_ancestors.iter().filter(is_elsewhere).copied().collect();
        self.birth_ancestors = birth_ancestors;
        self.unobserved = unobserved;
        failed
    }

    /// Takes reaped processes out of the table.
    fn take_reaped(&mut self, gone: Vec<(u32, Option<Box<Record>>)>) {
        for (pid, record) in gone {
            if let Some(Stat { id, ppid, .. }) = self.table.remove(pid) {
                self.has_changed |= self.is_tracked(pid);
                self.recently_exited.push(id);
                // A zombie may have been reparented since its record: its stat has the parent.
                let parent = self.records.remove(&id).map(|_| ppid);
                self.exited.extend(record.map(|mut record| {
                    record.parent = parent.unwrap_or(record.parent);
                    (id, *record)
                }));
            }
        }
        self.recently_exited.sort_unstable();
        self.exited.sort_unstable_by_key(|(id, _)| *id);
    }

    /// Reads one that is not what it was.
    fn look_again(&mut self, pid: u32, record: Option<Box<Record>>, look: &mut impl FnMut(u32, bool) -> Option<Stat>) {
        let Some(known) = self.table.get(pid).map(|stat| stat.id) else { return };
        if let Some(stat) = look(pid, false).filter(|stat| stat.id == known) {
            self.records.extend(record.map(|record| (stat.id, record)));
            self.table.update(&stat);
            self.has_changed |= self.concerns_tracked(pid);
        }
    }

    /// Tracks these processes and all that descend from them now.
    pub fn track(&mut self, ids: &[Identity], source: &mut dyn ProcessSource) {
        let tracked = self.with_descendants(ids);
        if tracked != self.tracked {
            source.keep(&tracked);
            self.tracked = tracked;
        }
        self.has_changed = self.is_scanned;
    }

    /// Reads the tracked processes, unless a scan has: parents first, which is oldest first, as a parent is never younger
    /// than its child. Returns the first error of a process that could not be read though it exists: it stays as it was.
    ///
    /// If they `may_doze`, one that has not run need not be read: its resident memory and its nice value can be up to 30 s
    /// old.
    pub fn read_tracked(&mut self, source: &mut dyn ProcessSource, may_doze: bool) -> Option<io::Error> {
        self.all_sleep = !self.is_scanned;
        if self.is_scanned {
            return None;
        }
        let mut order: Vec<_> = self.tracked.iter().map(|id| (id.start, id.pid)).collect();
        order.sort_unstable();
        let mut failed = None;
        let [now, previous, _] = self.listings;
        // A newborn may have exited by the next gather.
        let lasts = |stat: &Stat| !born_between(stat.id, previous, now);
        for (start, pid) in order {
            let id = Identity { pid, start };
            let Some(known) = self.get_exactly(id).copied() else { continue };
            let read = if may_doze {
                source.read(&known, now.unwrap_or_default(), &lasts)
            } else {
                source.stat_again(pid, &lasts).map(|stat| stat.map_or(Read::Gone, Read::Stat))
            };
            match read {
                Ok(Read::Stat(stat)) if stat.id == id => {
                    self.all_sleep = false;
                    self.has_changed |= (stat.ppid, stat.comm) != (known.ppid, known.comm);
                    self.table.update(&stat);
                }
                Ok(Read::Same) => {}
                Ok(Read::Stat(_) | Read::Gone) => self.vanished.push(id),
                Err(error) => {
                    self.stale.push(pid);
                    failed.get_or_insert(error);
                }
            }
        }
        self.all_sleep &= self.vanished.is_empty() && self.stale.is_empty();
        self.stale.sort_unstable();
        self.vanished.sort_unstable();
        self.has_changed |= !self.vanished.is_empty();
        for id in &self.vanished {
            source.close(id.pid);
            let stat = self.table.remove(id.pid);
            self.zombie_parents.extend(stat.filter(|_| self.records.remove(id).is_some()).map(|stat| (*id, stat.ppid)));
        }
        let vanished = &self.vanished;
        self.tracked.retain(|id| vanished.binary_search(id).is_err());
        failed
    }

    /// Takes the events and records that came while the tracked processes were read. The lives in them may be in the reaped
    /// times that were read, or will be later.
    pub fn take_late_events(&mut self, journal: &mut Journal, is_reaped: &dyn Fn(u32) -> bool) {
        let LateEvents { records, unobserved } =
            journal.take_late_events(is_reaped, self.vanished.iter().map(|id| id.pid));
        self.recently_exited.extend(&self.vanished);
        self.recently_exited.sort_unstable();
        for (pid, mut record) in records {
            if let Some(id) = with_pid(&self.recently_exited, pid) {
                record.parent = self.zombie_parents.get(&id).copied().unwrap_or(record.parent);
                self.exited.push((id, *record));
            }
        }
        self.exited.sort_unstable_by_key(|(id, _)| *id);
        for (who, later) in unobserved {
            let id = match who {
                ProcessRef::Known(pid) | ProcessRef::Newborn(pid) => {
                    self.get(pid).map(|stat| stat.id).or_else(|| with_pid(&self.recently_exited, pid))
                }
                ProcessRef::Exited(id) => Some(id),
            };
            if let Some(id) = id {
                self.unobserved.entry(id).or_default().add_late(&later);
            }
        }
    }

    /// Ends a gather: what happened in it is of no use any more.
    pub fn end_gather(&mut self) {
        self.exited = Vec::new();
        self.unobserved = BTreeMap::new();
        self.birth_ancestors = Vec::new();
        self.reparented = Vec::new();
    }

    /// Begins a gather.
    pub(super) fn begin(&mut self, now: u64) {
        let [newest, older, _] = self.listings;
        self.listings = [Some(now), newest, older];
        self.stale.clear();
        self.vanished.clear();
        self.zombie_parents.clear();
        self.recently_exited.clear();
        self.exited_ancestors.clear();
        self.has_missed = false;
    }
}
