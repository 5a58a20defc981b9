//! The process table: who exists, whose child, since when.
//!
//! One scan of `/proc` per gather. The order of reading carries the accounting: the directory is listed
//! completely *first*, and a parent is read *before* its children. So the kernel's charge to a parent for a child that
//! was read alive cannot be in what was read of the parent, and the charge for a child that is not in the listing must be.
//! The only ones in doubt are those that were listed and gone when they were read: [`Presence::Vanished`].

use std::io;

use crate::kernel::clock::Clock;
use crate::kernel::procfs::{Proc, StatFile};
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
    all: Vec<Process>,
    /// Their pids, to search in.
    pids: Vec<u32>,
    /// Parent's pid and place in `all` of each, sorted.
    by_parent: Vec<(u32, u32)>,
    /// Every pid of the listing, sorted.
    listed: Vec<u32>,
    /// The pids of those that are as they were, since they could not be read. Sorted.
    stale: Vec<u32>,
    /// CLOCK_BOOTTIME just before this listing and the two before it, ns.
    listings: [Option<u64>; 3],
    /// How many stat files may be held open.
    holdable: usize,
}

#[derive(Debug)]
struct Process {
    stat: Stat,
    /// Its stat file, for one that is held.
    file: Option<StatFile>,
    /// Whether its stat file is to be held open.
    hold: bool,
}

impl Processes {
    /// Holds no more than so many stat files open, from the next scan on.
    pub fn hold_at_most(&mut self, holdable: usize) {
        self.holdable = holdable;
    }

    /// Goes on from a table whose last listings were taken at these times.
    pub fn resume(&mut self, listings: [Option<u64>; 3]) {
        self.listings = listings;
    }

    /// When the last listings were taken, newest first: CLOCK_BOOTTIME, ns.
    #[must_use]
    pub fn listings(&self) -> [Option<u64>; 3] {
        self.listings
    }

    /// Scans. Returns the first error of a process that could not be read though it exists: such stay as they were.
    ///
    /// # Errors
    /// The directory cannot be listed: the table stays as it was.
    pub fn scan(&mut self, proc: &mut Proc, clock: &dyn Clock) -> io::Result<Option<io::Error>> {
        let now = clock.boottime();
        proc.pids(&mut self.listed)?;
        let [newest, older, _] = self.listings;
        self.listings = [Some(now), newest, older];
        self.stale.clear();
        let mut failed = None;
        let mut held = 0;
        let mut all = Vec::with_capacity(self.listed.len());
        for (_, pid, known) in self.parents_first() {
            let mut known = known.and_then(|place| self.all.get_mut(place));
            let hold = known.as_ref().is_some_and(|process| process.hold) && held < self.holdable;
            let file = known.as_mut().and_then(|process| process.file.take()).filter(|_| hold);
            match read(proc, pid, file) {
                Ok(Some((stat, file))) => {
                    held += usize::from(hold);
                    all.push(Process { stat, file: hold.then_some(file), hold });
                }
                Ok(None) => {}
                Err(error) => {
                    let as_it_was = known.map(|process| Process { stat: process.stat, file: None, hold });
                    all.extend(as_it_was);
                    self.stale.push(pid);
                    failed.get_or_insert(error);
                }
            }
        }
        all.sort_unstable_by_key(|process| process.stat.id.pid);
        self.all = all;
        self.stale.sort_unstable();
        self.index();
        Ok(failed)
    }

    /// Reading order, with the place in the table of each that is known: the known ones oldest first (a parent is never
    /// younger than its child), then the new ones by pid.
    fn parents_first(&self) -> Vec<(u64, u32, Option<usize>)> {
        let place = |pid: &u32| self.pids.binary_search(pid).ok();
        let start = |place: usize| self.all.get(place).map(|process| process.stat.id.start);
        let in_order = |pid: &u32| {
            let place = place(pid);
            (place.and_then(start).unwrap_or(u64::MAX), *pid, place)
        };
        let mut order: Vec<_> = self.listed.iter().map(in_order).collect();
        order.sort_unstable();
        order
    }

    fn index(&mut self) {
        let Self { pids, by_parent, all, .. } = self;
        pids.clear();
        pids.extend(all.iter().map(|process| process.stat.id.pid));
        by_parent.clear();
        by_parent.extend((0_u32..).zip(all.iter()).map(|(place, process)| (process.stat.ppid, place)));
        by_parent.sort_unstable();
    }

    /// Holds the stat files of these processes open from the next scan on, so far as the bound allows, and of no others.
    pub fn hold(&mut self, ids: &[Identity]) {
        for process in &mut self.all {
            process.hold = ids.binary_search(&process.stat.id).is_ok();
        }
    }

    /// All of them, by pid.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Stat> {
        self.all.iter().map(|process| &process.stat)
    }

    /// The process with this pid.
    #[must_use]
    pub fn get(&self, pid: u32) -> Option<&Stat> {
        let place = self.pids.binary_search(&pid).ok()?;
        self.all.get(place).map(|process| &process.stat)
    }

    /// The process with this identity.
    #[must_use]
    pub fn get_exactly(&self, id: Identity) -> Option<&Stat> {
        self.get(id.pid).filter(|stat| stat.id == id)
    }

    /// The place of the process with this identity in [`Self::iter`].
    #[must_use]
    pub fn place(&self, id: Identity) -> Option<usize> {
        let place = self.pids.binary_search(&id.pid).ok()?;
        self.all.get(place).filter(|process| process.stat.id == id).map(|_| place)
    }

    /// The processes whose parent is `pid`.
    pub fn children(&self, pid: u32) -> impl Iterator<Item = &Stat> {
        let from = self.by_parent.partition_point(|(parent, _)| *parent < pid);
        let rest = self.by_parent.get(from..).unwrap_or_default();
        rest.iter()
            .take_while(move |(parent, _)| *parent == pid)
            .filter_map(|(_, place)| self.all.get(usize::try_from(*place).ok()?))
            .map(|process| &process.stat)
    }

    /// These processes (sorted) and all their descendants, by pid.
    #[must_use]
    pub fn with_descendants(&self, ids: &[Identity]) -> Vec<&Stat> {
        let mut found = vec![false; self.all.len()];
        let mut pending: Vec<_> = ids.iter().filter_map(|id| self.place(*id)).collect();
        while let Some(place) = pending.pop() {
            if let (Some(found @ false), Some(pid)) = (found.get_mut(place), self.pids.get(place)) {
                *found = true;
                pending.extend(self.children(*pid).filter_map(|child| self.place(child.id)));
            }
        }
        self.iter().zip(found).filter(|(_, found)| *found).map(|(stat, _)| stat).collect()
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
        let [now, previous, _] = self.listings;
        born_between(id, previous, now)
    }

    /// Whether a process was born since the scan before the one before: its CPU may still be below what a tick shows.
    #[must_use]
    pub fn is_young(&self, id: Identity) -> bool {
        let [now, previous, before] = self.listings;
        born_between(id, before.or(previous), now)
    }
}

/// Compared in whole ticks, since field 22 is rounded down to one. In a time namespace whose clock was set back, a process
/// from before it seems to start in a far future: it is not new.
fn born_between(id: Identity, listing: Option<u64>, now: Option<u64>) -> bool {
    const SCAN: u64 = 60 * 100; // ticks that a scan may take after its listing
    let future = now.map_or(u64::MAX, |now| now / TICK + SCAN);
    listing.is_some_and(|listing| (listing / TICK..future).contains(&id.start))
}

/// Reads a process, through its stat file if that is held open; a new one may have taken the pid of that one since.
fn read(proc: &mut Proc, pid: u32, held: Option<StatFile>) -> io::Result<Option<(Stat, StatFile)>> {
    if let Some(file) = held
        && let Some(stat) = proc.stat(&file)?
    {
        return Ok(Some((stat, file)).filter(|_| !stat.is_being_released()));
    }
    let Some(file) = proc.open_stat(pid)? else { return Ok(None) };
    let stat = proc.stat(&file)?.filter(|stat| !stat.is_being_released());
    Ok(stat.map(|stat| (stat, file)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    struct At(u64);

    impl Clock for At {
        fn realtime(&self) -> u64 {
            self.0
        }

        fn monotonic(&self) -> u64 {
            self.0
        }

        fn boottime(&self) -> u64 {
            self.0
        }
    }

    fn process(root: &Path, pid: u32, ppid: u32, start: u64) -> Identity {
        let text = format!("{pid} (x) S {ppid} 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 1 0 {start} 0 5\n");
        fs::create_dir_all(root.join(pid.to_string())).unwrap();
        fs::write(root.join(format!("{pid}/stat")), text).unwrap();
        Identity { pid, start }
    }

    #[test]
    fn gone_and_vanished_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let [here, gone, vanished, replaced] = [10, 11, 12, 13].map(|pid| process(root.path(), pid, 1, 5));
        let mut proc = Proc::open(root.path()).unwrap();
        let mut processes = Processes::default();
        processes.scan(&mut proc, &At(TICK * 100)).unwrap();
        fs::remove_dir_all(root.path().join("11")).unwrap();
        fs::remove_file(root.path().join("12/stat")).unwrap();
        let new = process(root.path(), 13, 1, 120);
        assert!(processes.scan(&mut proc, &At(TICK * 200)).unwrap().is_none());
        let presence = [here, gone, vanished, replaced, new].map(|id| processes.presence(id));
        assert_eq!(presence, [Presence::Here, Presence::Gone, Presence::Vanished, Presence::Vanished, Presence::Here]);
    }

    #[test]
    fn newborn_is_who_started_since_the_listing_before_in_whole_ticks() {
        let root = tempfile::tempdir().unwrap();
        let mut proc = Proc::open(root.path()).unwrap();
        let mut processes = Processes::default();
        let [old, same_tick, new] = [(10, 99), (11, 100), (12, 150)].map(|(pid, at)| process(root.path(), pid, 1, at));
        processes.scan(&mut proc, &At(TICK * 100 + TICK / 2)).unwrap();
        assert!(![old, same_tick, new].iter().any(|id| processes.is_newborn(*id)), "nothing is new at first");
        processes.scan(&mut proc, &At(TICK * 200)).unwrap();
        assert_eq!([old, same_tick, new].map(|id| processes.is_newborn(id)), [false, true, true]);
        processes.scan(&mut proc, &At(TICK * 300)).unwrap();
        assert_eq!([old, same_tick, new].map(|id| processes.is_newborn(id)), [false; 3]);
        assert_eq!([old, same_tick, new].map(|id| processes.is_young(id)), [false, true, true]);
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let id = process(root.path(), 10, 1, 5);
        let mut proc = Proc::open(root.path()).unwrap();
        let mut processes = Processes::default();
        processes.scan(&mut proc, &At(0)).unwrap();
        fs::write(root.path().join("10/stat"), "nonsense").unwrap();
        let error = processes.scan(&mut proc, &At(0)).unwrap().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(processes.is_stale(id) && processes.presence(id) == Presence::Here);
        process(root.path(), 10, 1, 5);
        processes.scan(&mut proc, &At(0)).unwrap();
        assert!(!processes.is_stale(id));
    }

    #[test]
    fn parents_are_read_before_their_children_whatever_their_pids() {
        let root = tempfile::tempdir().unwrap();
        for (pid, start) in [(10, 300), (20, 100), (30, 200)] {
            process(root.path(), pid, 1, start);
        }
        let mut proc = Proc::open(root.path()).unwrap();
        let mut processes = Processes::default();
        processes.scan(&mut proc, &At(0)).unwrap();
        process(root.path(), 5, 30, 400);
        proc.pids(&mut processes.listed).unwrap();
        let order: Vec<_> = processes.parents_first().into_iter().map(|(_, pid, _)| pid).collect();
        assert_eq!(order, [20, 30, 10, 5]);
    }

    #[test]
    fn as_many_files_are_held_as_may_be_and_those_of_others_are_closed() {
        let root = tempfile::tempdir().unwrap();
        let ids = [10, 11, 12].map(|pid| process(root.path(), pid, 1, 5));
        let mut proc = Proc::open(root.path()).unwrap();
        let mut processes = Processes::default();
        processes.hold_at_most(2);
        let mut held = |hold: &[Identity]| {
            processes.hold(hold);
            processes.scan(&mut proc, &At(0)).unwrap();
            processes.all.iter().filter(|process| process.file.is_some()).count()
        };
        assert_eq!([held(&[]), held(&ids), held(&ids), held(&[ids[0]]), held(&[])], [0, 2, 2, 1, 0]);
    }
}
