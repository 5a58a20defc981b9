//! The process table: who exists, whose child, since when.
//!
//! One scan of `/proc` per gather. The order of reading carries the accounting: the directory is listed
//! completely *first*, and a parent is read *before* its children. So the kernel's charge to a parent for a child that
//! was read alive cannot be in what was read of the parent, and the charge for a child that is not in the listing must be.
//! The only ones in doubt are those that were listed and gone when they were read: [`Presence::Vanished`].

use std::io;

use crate::kernel::clock::Clock;
use crate::kernel::procfs::Proc;
use crate::kernel::stat::{Identity, Stat, TICK};

/// What the last scan knows of a process seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It was read.
    Here,
    /// It was reaped before the listing: its parent's children's times, read after it, contain its life.
    Gone,
    /// It was reaped between the listing and the reading, and whether its parent was read before or after is not known.
    Vanished,
}

/// The processes of the host as of the last scan.
#[derive(Debug, Default)]
pub struct Processes {
    /// Sorted by pid.
    all: Vec<Stat>,
    /// Index of each process, sorted by its parent's pid.
    by_parent: Vec<(u32, u32)>,
    /// Every pid of the listing, sorted.
    listed: Vec<u32>,
    /// The pids of those that are as they were, since they could not be read. Sorted.
    stale: Vec<u32>,
    /// The scan before's, and the reading order: kept for their memory.
    before: Vec<Stat>,
    order: Vec<(u64, u32)>,
    /// CLOCK_BOOTTIME just before this listing and the two before it, ns.
    listings: [Option<u64>; 3],
}

impl Processes {
    /// Goes on from a table whose last listings were taken at these times.
    #[must_use]
    pub fn resume(listings: [Option<u64>; 3]) -> Self {
        Self { listings, ..Self::default() }
    }

    /// When the last listings were taken, newest first: CLOCK_BOOTTIME, ns.
    #[must_use]
    pub fn listings(&self) -> [Option<u64>; 3] {
        self.listings
    }

    /// Scans. Returns how many processes could not be read though they exist, with the first such error: they stay as
    /// they were.
    ///
    /// # Errors
    /// The directory cannot be listed: the table stays as it was.
    pub fn scan(&mut self, proc: &mut Proc, clock: &dyn Clock) -> io::Result<Option<(usize, io::Error)>> {
        let now = clock.boottime();
        proc.pids(&mut self.listed)?;
        let [newest, older, _] = self.listings;
        self.listings = [Some(now), newest, older];
        std::mem::swap(&mut self.all, &mut self.before);
        self.order_parents_first();
        self.all.clear();
        self.stale.clear();
        let mut failed = None;
        for &(_, pid) in &self.order {
            match proc.stat(pid) {
                Ok(Some(stat)) if !stat.is_being_released() => self.all.push(stat),
                Ok(_) => {}
                Err(error) => {
                    self.all.extend(find(&self.before, pid));
                    self.stale.push(pid);
                    let (count, _) = failed.get_or_insert((0, error));
                    *count += 1;
                }
            }
        }
        self.all.sort_unstable_by_key(|stat| stat.id.pid);
        self.stale.sort_unstable();
        self.index_parents();
        Ok(failed)
    }

    /// Reading order: those known, oldest first (a parent is never younger than its child), then the new ones by pid.
    fn order_parents_first(&mut self) {
        let Self { order, listed, before, .. } = self;
        order.clear();
        order.extend(listed.iter().map(|pid| (find(before, *pid).map_or(u64::MAX, |stat| stat.id.start), *pid)));
        order.sort_unstable();
    }

    fn index_parents(&mut self) {
        let Self { by_parent, all, .. } = self;
        by_parent.clear();
        by_parent.extend((0_u32..).zip(all.iter()).map(|(index, stat)| (stat.ppid, index)));
        by_parent.sort_unstable();
    }

    /// All of them, sorted by pid.
    #[must_use]
    pub fn all(&self) -> &[Stat] {
        &self.all
    }

    /// The process with this pid.
    #[must_use]
    pub fn get(&self, pid: u32) -> Option<&Stat> {
        find(&self.all, pid)
    }

    /// The process with this identity.
    #[must_use]
    pub fn get_exactly(&self, id: Identity) -> Option<&Stat> {
        self.get(id.pid).filter(|stat| stat.id == id)
    }

    /// The place of the process with this identity in [`Self::all`].
    #[must_use]
    pub fn index(&self, id: Identity) -> Option<usize> {
        let index = self.all.binary_search_by_key(&id.pid, |stat| stat.id.pid).ok()?;
        self.all.get(index).filter(|stat| stat.id == id).map(|_| index)
    }

    /// The processes whose parent is `pid`.
    pub fn children(&self, pid: u32) -> impl Iterator<Item = &Stat> {
        let from = self.by_parent.partition_point(|(parent, _)| *parent < pid);
        let rest = self.by_parent.get(from..).unwrap_or_default();
        rest.iter()
            .take_while(move |(parent, _)| *parent == pid)
            .filter_map(|(_, index)| self.all.get(usize::try_from(*index).ok()?))
    }

    /// What became of a process seen before.
    #[must_use]
    pub fn presence(&self, id: Identity) -> Presence {
        if self.get_exactly(id).is_some() {
            Presence::Here
        } else if self.listed.binary_search(&id.pid).is_ok() {
            Presence::Vanished
        } else {
            Presence::Gone
        }
    }

    /// Whether a process could not be read by this scan and is as the one before saw it.
    #[must_use]
    pub fn is_stale(&self, id: Identity) -> bool {
        self.stale.binary_search(&id.pid).is_ok()
    }

    /// Whether a process was born since the scan before this one (never so on the first scan).
    #[must_use]
    pub fn is_newborn(&self, id: Identity) -> bool {
        let [_, previous, _] = self.listings;
        born_since(id, previous)
    }

    /// Whether a process was born since the scan before the one before: its CPU may still be below what a tick shows.
    #[must_use]
    pub fn is_young(&self, id: Identity) -> bool {
        let [_, previous, before] = self.listings;
        born_since(id, before.or(previous))
    }
}

/// Compared in whole ticks, since field 22 is rounded down to one.
fn born_since(id: Identity, listing: Option<u64>) -> bool {
    listing.is_some_and(|listing| id.start >= listing / TICK)
}

fn find(sorted: &[Stat], pid: u32) -> Option<&Stat> {
    let index = sorted.binary_search_by_key(&pid, |stat| stat.id.pid).ok()?;
    sorted.get(index)
}
