//! The process table: the processes that exist, with their parents and start times.
//!
//! It is brought up to date once per gather, by a scan of `/proc` or by events ([`crate::events`]); then only the tracked
//! processes are read. The order of reading carries the accounting. First the processes that exist are known, by the
//! listing or by events; *then* stats are read, that of a parent *before* those of its children. So the reaped time of a
//! parent never contains a child that was read alive, and always contains one that did not exist any more. It may or may
//! not contain a child that existed and was reaped before it could be read: [`Presence::Vanished`].

mod lifecycle;
mod reader;
mod refresh;
mod scan;
mod source;
mod table;
mod unobserved;

use std::collections::BTreeMap;

use crate::kernel::stat::{Identity, Stat, TICK};
pub use lifecycle::{Birth, Changes, Journal, LateEvents, ProcessRef};
pub use reader::Reader;
pub use source::{ProcessSource, Read};
use table::Table;
pub use unobserved::{CpuTimes, Record, Unobserved};

/// Fate of a process seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Read at this gather, or not tracked.
    Present,
    /// Reaped before the reading began: the reaped time of its parent, read after it, contains its life.
    Reaped,
    /// Reaped before it could be read: the reaped time of its parent may contain its life, or not.
    Vanished,
}

/// The processes of the host as of the last gather.
#[derive(Debug, Default)]
pub struct Processes {
    table: Table,
    /// Every pid that a scan found there before it read any, sorted.
    listed: Vec<u32>,
    /// Pids of processes that could not be read, and are as they were. Sorted.
    stale: Vec<u32>,
    /// CLOCK_BOOTTIME just before this listing and the two before it, ns.
    listings: [Option<u64>; 3],
    /// This gather read every process, and not the tracked ones alone.
    is_scanned: bool,
    /// A new process exited before it could be read for the first time, and no exit record has its life.
    has_missed: bool,
    /// Processes that are read at each gather, sorted by pid.
    tracked: Vec<Identity>,
    /// The descendants of the tracked processes may be others, or have other parents or comms, than when these were chosen.
    has_changed: bool,
    /// Every tracked process sleeps, and none had to be read at this gather.
    all_sleep: bool,
    /// Exit records of zombies.
    records: BTreeMap<Identity, Box<Record>>,
    /// Processes that were reaped since the last gather, with their exit records. Sorted by pid.
    exited: Vec<(Identity, Record)>,
    /// Processes that were reaped before they could be read, sorted by pid.
    vanished: Vec<Identity>,
    /// The parents of those of them that were zombies: who has adopted one since its record was made is what its stat says.
    zombie_parents: BTreeMap<Identity, u32>,
    /// Processes that were reaped by this gather: events until the next one may name their pids. Sorted by pid.
    recently_exited: Vec<Identity>,
    /// Exited processes that are ancestors of some that were born and have not been read so far. Sorted by pid.
    exited_ancestors: Vec<Identity>,
    /// Sums of unobserved processes, at processes that are known.
    unobserved: BTreeMap<Identity, Unobserved>,
    /// Newborns with their nearest ancestors by birth, sorted by pid.
    birth_ancestors: Vec<(Identity, Identity)>,
    /// Newborns among them that have another parent.
    reparented: Vec<(Identity, Identity)>,
}

impl Processes {
    /// Goes on from a table whose last listings were taken at these times.
    pub fn resume(&mut self, listings: [Option<u64>; 3]) {
        self.listings = listings;
    }

    /// Returns the times of the last listings, newest first: CLOCK_BOOTTIME, ns.
    #[must_use]
    pub fn listings(&self) -> [Option<u64>; 3] {
        self.listings
    }

    fn is_tracked(&self, pid: u32) -> bool {
        with_pid(&self.tracked, pid).is_some()
    }

    /// Returns whether a process, or its parent, is tracked.
    fn concerns_tracked(&self, pid: u32) -> bool {
        self.is_tracked(pid) || self.get(pid).is_some_and(|stat| self.is_tracked(stat.ppid))
    }

    /// Returns whether this gather read every process, and not the tracked ones alone.
    #[must_use]
    pub fn is_scanned(&self) -> bool {
        self.is_scanned
    }

    /// Returns whether a new process exited before it could be read for the first time, without an exit record. Its parent may reap it after
    /// that one was read: an unknown amount of CPU from before the refresh.
    #[must_use]
    pub fn has_missed(&self) -> bool {
        self.has_missed
    }

    /// Returns whether the descendants of the processes of [`Processes::track`] may be others, or have other parents or
    /// comms, than then. Always true after a scan.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// Returns whether a process was reaped at this gather before it could be read.
    #[must_use]
    pub fn has_vanished(&self, id: Identity) -> bool {
        self.vanished.binary_search(&id).is_ok()
    }

    /// Returns the number of processes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table.len()
    }

    /// The processes, by pid.
    pub fn iter(&self) -> impl Iterator<Item = &Stat> {
        self.table.iter()
    }

    /// Returns whether the tracked processes are as they were at the last gather, without an event of a child of theirs:
    /// then no CPU was used or reaped by them. (A fork while they were read belongs to the next gather, as always.)
    #[must_use]
    pub fn are_idle(&self) -> bool {
        let is_tracked_or_exited = |id: &Identity| self.is_tracked(id.pid) || self.get_exactly(*id).is_none();
        self.all_sleep && !self.has_changed && !self.unobserved.keys().any(is_tracked_or_exited)
    }

    /// The tracked processes, by pid.
    pub fn tracked(&self) -> impl Iterator<Item = &Stat> {
        self.tracked.iter().filter_map(|id| self.get_exactly(*id))
    }

    /// The process with this pid.
    #[must_use]
    pub fn get(&self, pid: u32) -> Option<&Stat> {
        self.table.get(pid)
    }

    /// The process with this identity.
    #[must_use]
    pub fn get_exactly(&self, id: Identity) -> Option<&Stat> {
        self.get(id.pid).filter(|stat| stat.id == id)
    }

    /// A number below [`Self::count`] that is this process's own, until the table changes.
    #[must_use]
    pub fn place(&self, id: Identity) -> Option<usize> {
        let place = self.table.place(id.pid)?;
        self.table.at(place).filter(|stat| stat.id == id).map(|_| place)
    }

    /// The processes whose parent is `pid`.
    pub fn children(&self, pid: u32) -> impl Iterator<Item = &Stat> {
        self.table.children(pid)
    }

    /// These processes and all their descendants, by pid.
    #[must_use]
    pub fn with_descendants(&self, ids: &[Identity]) -> Vec<Identity> {
        let mut found = Vec::with_capacity(ids.len());
        let mut marks = Marks::of(self.count());
        let mut pending = ids.to_vec();
        while let Some(id) = pending.pop() {
            if marks.set(self.place(id)) {
                found.push(id);
                pending.extend(self.children(id.pid).map(|child| child.id));
            }
        }
        found.sort_unstable();
        found
    }

    /// Returns the fate of a process seen before.
    #[must_use]
    pub fn presence(&self, id: Identity) -> Presence {
        let was_there = || self.listed.binary_search(&id.pid).is_ok() || with_pid(&self.vanished, id.pid).is_some();
        match self.get(id.pid) {
            Some(stat) if stat.id == id => Presence::Present,
            Some(_) => Presence::Vanished,
            None if was_there() => Presence::Vanished,
            None => Presence::Reaped,
        }
    }

    /// The processes that were reaped since the last gather and have an exit record, sorted by pid.
    pub fn exited(&self) -> impl Iterator<Item = (Identity, &Record)> {
        self.exited.iter().map(|(id, record)| (*id, record))
    }

    /// Returns whether an exited process is an ancestor of newborns that have not been read so far.
    #[must_use]
    pub fn is_exited_ancestor(&self, id: Identity) -> bool {
        self.exited_ancestors.binary_search(&id).is_ok()
    }

    /// Returns the exit record of a process that was reaped since the last gather, or is a zombie.
    #[must_use]
    pub fn record(&self, id: Identity) -> Option<&Record> {
        let gone = self.exited.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|index| self.exited.get(index));
        gone.map(|(_, record)| record).or_else(|| self.records.get(&id).map(Box::as_ref))
    }

    /// Sums of unobserved processes, each with the process that it is kept for. Sorted by pid.
    pub fn unobserved(&self) -> impl Iterator<Item = (Identity, &Unobserved)> {
        self.unobserved.iter().map(|(id, unobserved)| (*id, unobserved))
    }

    /// Newborns whose parent is not their birth parent, each with its nearest ancestor by birth that is alive or known.
    #[must_use]
    pub fn reparented(&self) -> &[(Identity, Identity)] {
        &self.reparented
    }

    /// The pid of the nearest ancestor by birth of a process born since the last gather; of others, that of the parent.
    #[must_use]
    pub fn birth_parent(&self, stat: &Stat) -> u32 {
        let birth = self.birth_ancestors.binary_search_by_key(&stat.id, |(id, _)| *id);
        birth.ok().and_then(|index| self.birth_ancestors.get(index)).map_or(stat.ppid, |(_, ancestor)| ancestor.pid)
    }

    /// Returns whether a process could not be read at this gather, and is as it was at the one before.
    #[must_use]
    pub fn is_stale(&self, id: Identity) -> bool {
        self.stale.binary_search(&id.pid).is_ok()
    }

    /// Returns whether a scan found a process with this pid that could not be read, now or before.
    #[must_use]
    pub fn is_unreadable(&self, pid: u32) -> bool {
        self.stale.binary_search(&pid).is_ok() && self.get(pid).is_none()
    }

    /// Returns whether a process was born since the gather before this one; false at the first gather.
    #[must_use]
    pub fn is_newborn(&self, id: Identity) -> bool {
        let [now, previous, _] = self.listings;
        born_between(id, previous, now)
    }

    /// Returns whether a process was born since the gather before the last one: its CPU may still be less than one tick.
    #[must_use]
    pub fn is_young(&self, id: Identity) -> bool {
        let [now, previous, before] = self.listings;
        born_between(id, before.or(previous), now)
    }
}

/// Returns the identity with this pid, of identities sorted by it.
fn with_pid(ids: &[Identity], pid: u32) -> Option<Identity> {
    let index = ids.binary_search_by_key(&pid, |id| id.pid).ok()?;
    ids.get(index).copied()
}

/// A mark for each of the processes, by place.
#[derive(Debug)]
pub struct Marks(Vec<u64>);

impl Marks {
    /// For so many, none set.
    #[must_use]
    pub fn of(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// Unsets all.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }

    /// Returns whether the mark of a place is set.
    #[must_use]
    pub fn has(&self, place: Option<usize>) -> bool {
        place.is_some_and(|place| self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1))
    }

    /// Sets that of a place. False: it was set already, or there is no such place.
    pub fn set(&mut self, place: Option<usize>) -> bool {
        let Some(place) = place.filter(|place| !self.has(Some(*place))) else { return false };
        self.0.get_mut(place / 64).map(|word| *word |= 1 << (place % 64)).is_some()
    }
}

/// Compared in whole ticks, since field 22 is rounded down to one. In a time namespace whose clock was set back, a process
/// from before it seems to start in a far future: it is not new.
fn born_between(id: Identity, listing: Option<u64>, now: Option<u64>) -> bool {
    const SCAN: u64 = 60 * 100; // ticks that a scan may take after its listing
    let future = now.map_or(u64::MAX, |now| now / TICK + SCAN);
    listing.is_some_and(|listing| (listing / TICK..future).contains(&{ id.start }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::kernel::clock::{Clock, SystemClock};
    use crate::kernel::elsewhere::skip;
    use crate::kernel::proc_connector::Event;
    use crate::kernel::procfs::Proc;
    use std::fs;
    use std::io;
    use std::path::Path;
    use std::time::{Duration, Instant};

    fn read_from(root: &Path) -> Reader {
        Reader::new(Proc::open(root).unwrap(), 100)
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
        let mut source = read_from(root.path());
        let mut processes = Processes::default();
        processes.scan(&mut source, TICK * 100).unwrap();
        fs::remove_dir_all(root.path().join("11")).unwrap();
        fs::remove_file(root.path().join("12/stat")).unwrap();
        let new = process(root.path(), 13, 1, 120);
        assert!(processes.scan(&mut source, TICK * 200).unwrap().is_none());
        let presence = [here, gone, vanished, replaced, new].map(|id| processes.presence(id));
        assert_eq!(
            presence,
            [Presence::Present, Presence::Reaped, Presence::Vanished, Presence::Vanished, Presence::Present]
        );
    }

    #[test]
    fn newborn_is_who_started_since_the_listing_before_in_whole_ticks() {
        let root = tempfile::tempdir().unwrap();
        let mut source = read_from(root.path());
        let mut processes = Processes::default();
        let [old, same_tick, new] = [(10, 99), (11, 100), (12, 150)].map(|(pid, at)| process(root.path(), pid, 1, at));
        processes.scan(&mut source, TICK * 100 + TICK / 2).unwrap();
        assert!(![old, same_tick, new].iter().any(|id| processes.is_newborn(*id)), "nothing is new at first");
        processes.scan(&mut source, TICK * 200).unwrap();
        assert_eq!([old, same_tick, new].map(|id| processes.is_newborn(id)), [false, true, true]);
        processes.scan(&mut source, TICK * 300).unwrap();
        assert_eq!([old, same_tick, new].map(|id| processes.is_newborn(id)), [false; 3]);
        assert_eq!([old, same_tick, new].map(|id| processes.is_young(id)), [false, true, true]);
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        let id = process(root.path(), 10, 1, 5);
        let mut source = read_from(root.path());
        let mut processes = Processes::default();
        processes.scan(&mut source, 0).unwrap();
        fs::write(root.path().join("10/stat"), "nonsense").unwrap();
        let error = processes.scan(&mut source, 0).unwrap().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(processes.is_stale(id) && processes.presence(id) == Presence::Present);
        process(root.path(), 10, 1, 5);
        processes.scan(&mut source, 0).unwrap();
        assert!(!processes.is_stale(id));
    }

    #[test]
    fn parents_are_read_before_their_children_whatever_their_pids() {
        let root = tempfile::tempdir().unwrap();
        for (pid, start) in [(10, 300), (20, 100), (30, 200)] {
            process(root.path(), pid, 1, start);
        }
        let mut source = read_from(root.path());
        let mut processes = Processes::default();
        processes.scan(&mut source, 0).unwrap();
        process(root.path(), 5, 30, 400);
        source.list(&mut processes.listed).unwrap();
        let order: Vec<_> = processes.parents_first().into_iter().map(|(_, pid)| pid).collect();
        assert_eq!(order, [20, 30, 10, 5]);
    }

    #[test]
    fn as_many_files_are_held_as_may_be_and_those_of_others_are_closed() {
        let root = tempfile::tempdir().unwrap();
        let ids = [10, 11, 12].map(|pid| process(root.path(), pid, 1, 5));
        let mut source = read_from(root.path());
        let mut processes = Processes::default();
        source.hold_at_most(2);
        let mut held = |hold: &[Identity]| {
            processes.scan(&mut source, 0).unwrap();
            processes.track(hold, &mut source);
            processes.read_tracked(&mut source, false);
            processes.scan(&mut source, 0).unwrap();
            source.held_count()
        };
        assert_eq!([held(&[]), held(&ids), held(&ids), held(&ids[..1]), held(&[])], [0, 2, 2, 1, 0]);
    }

    /// A table that follows events, with this process and one child that waits for input; and the child is dozing.
    fn with_dozing_child(journal: &mut Journal) -> (Reader, Processes, std::process::Child) {
        let mut source = read_from(Path::new("/proc"));
        let mut processes = Processes::default();
        let stdio = || std::process::Stdio::piped();
        let mut child = std::process::Command::new("cat").stdin(stdio()).stdout(stdio()).spawn().unwrap();
        say_and_hear(&mut child); // from now on it waits
        processes.scan(&mut source, SystemClock.boottime()).unwrap();
        journal.begin(false, processes.iter());
        journal.settled();
        let deadline = deadline();
        while !source.is_dozing(child.id()) {
            assert!(Instant::now() < deadline, "it has not run since long ago");
            gather(&mut processes, journal, &mut source, child.id());
        }
        (source, processes, child)
    }

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn say_and_hear(child: &mut std::process::Child) {
        use std::io::{Read, Write};
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }

    fn gather(processes: &mut Processes, journal: &mut Journal, source: &mut Reader, pid: u32) {
        assert!(processes.follow(journal, &|_| false, source, SystemClock.boottime()).is_none());
        let id = processes.get(pid).unwrap().id;
        processes.track(&[id], source);
        assert!(processes.read_tracked(source, true).is_none());
    }

    #[test]
    fn one_that_sleeps_is_read_again_when_it_has_run() {
        let mut journal = Journal::default();
        let (mut source, mut processes, mut child) = with_dozing_child(&mut journal);
        gather(&mut processes, &mut journal, &mut source, child.id());
        assert!(source.is_dozing(child.id()), "it has not run");
        say_and_hear(&mut child);
        gather(&mut processes, &mut journal, &mut source, child.id());
        assert!(!source.is_dozing(child.id()), "it has");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Events were lost meanwhile: nobody has told that the one that slept is gone, and its pid another's.
    #[test]
    fn whoever_has_the_pid_of_one_that_slept_is_not_gone() {
        let mut journal = Journal::default();
        let (mut source, mut processes, mut child) = with_dozing_child(&mut journal);
        let (pid, before) = (child.id(), processes.get(child.id()).unwrap().id);
        child.kill().unwrap();
        child.wait().unwrap();
        let deadline = deadline();
        let mut other = loop {
            assert!(Instant::now() < deadline, "others take the pid each time");
            if let Err(error) = fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()) {
                return skip(format_args!("no pid can be chosen: {error}"));
            }
            let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
            // Another start too: two lives can begin within a tick.
            if other.id() == pid && !matches!(source.stat(pid), Ok(Some(stat)) if stat.id == before) {
                break other;
            }
            other.kill().unwrap();
            other.wait().unwrap();
        };
        processes.scan(&mut source, SystemClock.boottime()).unwrap();
        journal.begin(false, processes.iter());
        journal.settled();
        for _ in 0..3 {
            gather(&mut processes, &mut journal, &mut source, pid);
            assert!(processes.get(pid).is_some_and(|stat| stat.id != before));
        }
        other.kill().unwrap();
        other.wait().unwrap();
    }

    /// A table just scanned, from which on events are told.
    fn scanned(root: &Path) -> (Reader, Processes, Journal) {
        let mut source = read_from(root);
        let (mut processes, mut journal) = (Processes::default(), Journal::default());
        processes.scan(&mut source, 0).unwrap();
        journal.begin(true, processes.iter());
        journal.settled();
        (source, processes, journal)
    }

    fn become_another(root: &Path, pid: u32, state: char, ppid: u32) {
        let text = format!("{pid} (x) {state} {ppid} 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 1 0 5 0 5\n");
        fs::write(root.join(format!("{pid}/stat")), text).unwrap();
    }

    fn record(pid: u32, parent: u32) -> Record {
        Record { pid, parent, used: crate::processes::CpuTimes { cpu: 7, user: 7, system: 0 }, delays: None }
    }

    /// 1 has the children 10, 13 and 14; 10, which is tracked, has the child 11, and 13 has 12.
    #[test]
    fn what_happens_to_those_that_are_watched_disturbs_and_what_happens_to_others_does_not() {
        type Change = fn(&Path, &mut Journal);
        let changes: [(&str, Change, &[u32], bool); 10] = [
            ("nothing", |_, _| {}, &[], false),
            ("a birth", |root, journal| born(root, journal, 13, 20, 13), &[], false),
            ("a birth below", |root, journal| born(root, journal, 11, 20, 11), &[], true),
            ("a birth below, of one that was left to init", |root, journal| born(root, journal, 11, 20, 1), &[], true),
            ("a birth elsewhere, of one that was adopted", |root, journal| born(root, journal, 13, 20, 10), &[], true),
            ("another runs another program", |_, journal| journal.event(Event::Exec { pid: 13 }), &[], false),
            ("one of them runs another program", |_, journal| journal.event(Event::Exec { pid: 11 }), &[], true),
            ("another goes", |_, journal| journal.record(record(14, 1)), &[14], false),
            ("one of them goes", |_, journal| journal.record(record(11, 10)), &[11], true),
            (
                "another goes, and one of them adopts its child",
                |root, journal| {
                    become_another(root, 12, 'S', 10);
                    journal.record(record(13, 1));
                },
                &[13],
                true,
            ),
        ];
        for (what, change, gone, expected) in changes {
            let root = tempfile::tempdir().unwrap();
            let ids = [(1, 0), (10, 1), (11, 10), (12, 13), (13, 1), (14, 1)]
                .map(|(pid, ppid)| process(root.path(), pid, ppid, 5));
            let (mut source, mut processes, mut journal) = scanned(root.path());
            let follow = |processes: &mut Processes, journal: &mut Journal, source: &mut Reader| {
                processes.follow(journal, &|pid| gone.contains(&pid), source, TICK);
            };
            assert!(processes.has_changed(), "by a scan");
            follow(&mut processes, &mut journal, &mut source);
            processes.track(&ids[1..2], &mut source);
            assert!(!processes.has_changed(), "when they were just chosen");
            change(root.path(), &mut journal);
            follow(&mut processes, &mut journal, &mut source);
            assert_eq!(processes.has_changed(), expected, "{what}");
        }
    }

    #[test]
    fn one_that_has_another_parent_or_is_gone_when_it_is_read_disturbs() {
        type Change = fn(&Path);
        let changes: [(&str, Change, bool); 4] = [
            ("nothing", |_| {}, false),
            ("another parent", |root| become_another(root, 10, 'S', 11), true),
            (
                "another name",
                |root| {
                    let stat = fs::read_to_string(root.join("10/stat")).unwrap();
                    fs::write(root.join("10/stat"), stat.replace("(x)", "(y)")).unwrap();
                },
                true,
            ),
            ("gone", |root| fs::remove_dir_all(root.join("10")).unwrap(), true),
        ];
        for (what, change, expected) in changes {
            let root = tempfile::tempdir().unwrap();
            let [_, id, _] = [(1, 0), (10, 1), (11, 1)].map(|(pid, ppid)| process(root.path(), pid, ppid, 5));
            let (mut source, mut processes, mut journal) = scanned(root.path());
            processes.follow(&mut journal, &|_| false, &mut source, TICK);
            processes.track(&[id], &mut source);
            change(root.path());
            processes.read_tracked(&mut source, false);
            assert_eq!(processes.has_changed(), expected, "{what}");
        }
    }

    /// It could not be read at the gather at which its parent was gone, and so it is told of at the next.
    #[test]
    fn a_late_birth_below_one_that_has_gone_disturbs() {
        let root = tempfile::tempdir().unwrap();
        let [_, id, _] = [(1, 0), (10, 1), (11, 10)].map(|(pid, ppid)| process(root.path(), pid, ppid, 5));
        let (mut source, mut processes, mut journal) = scanned(root.path());
        processes.follow(&mut journal, &|_| false, &mut source, TICK);
        processes.track(&[id], &mut source);
        born(root.path(), &mut journal, 11, 20, 1);
        fs::write(root.path().join("20/stat"), "nonsense").unwrap();
        journal.record(record(11, 10));
        assert!(processes.follow(&mut journal, &|pid| pid == 11, &mut source, TICK).is_some());
        processes.track(&[id], &mut source);
        assert!(!processes.has_changed());
        process(root.path(), 20, 1, 6);
        assert!(processes.follow(&mut journal, &|_| false, &mut source, TICK).is_none());
        assert!(processes.has_changed());
    }

    fn born(root: &Path, journal: &mut Journal, parent: u32, child: u32, ppid: u32) {
        journal.event(Event::Fork { parent, child });
        process(root, child, ppid, 6);
    }

    #[test]
    fn the_orphans_of_a_zombie_have_another_parent_and_so_has_a_zombie_that_was_adopted() {
        let root = tempfile::tempdir().unwrap();
        let [_, _, parent, child] =
            [(1, 0), (10, 1), (11, 10), (12, 11)].map(|(pid, ppid)| process(root.path(), pid, ppid, 5));
        let (mut source, mut processes, mut journal) = scanned(root.path());
        let mut follow = |processes: &mut Processes, source: &mut Reader, is_reaped: &dyn Fn(u32) -> bool| {
            journal.record(record(11, 10));
            assert!(processes.follow(&mut journal, is_reaped, source, TICK).is_none());
        };
        become_another(root.path(), 11, 'Z', 10);
        become_another(root.path(), 12, 'S', 1);
        follow(&mut processes, &mut source, &|_| false);
        assert_eq!(processes.children(1).map(|stat| stat.id.pid).collect::<Vec<_>>(), [10, 12]);
        assert_eq!(processes.record(parent), Some(&record(11, 10)));
        // Its parent leaves, too: init waits for it.
        become_another(root.path(), 11, 'Z', 1);
        processes.track(&[parent, child], &mut source);
        processes.read_tracked(&mut read_from(root.path()), false);
        follow(&mut processes, &mut source, &|pid| pid == 11);
        let gone: Vec<_> = processes.exited().map(|(id, record)| (id, record.parent)).collect();
        assert_eq!((gone, processes.presence(parent)), (vec![(parent, 1)], Presence::Reaped));
    }

    #[test]
    fn who_goes_away_while_being_read_goes_with_its_record() {
        let root = tempfile::tempdir().unwrap();
        let [_, id] = [(1, 0), (10, 1)].map(|(pid, ppid)| process(root.path(), pid, ppid, 5));
        let (mut source, mut processes, mut journal) = scanned(root.path());
        processes.follow(&mut journal, &|_| false, &mut source, TICK);
        fs::remove_dir_all(root.path().join("10")).unwrap();
        processes.track(&[id], &mut source);
        processes.read_tracked(&mut source, true);
        assert!(processes.has_vanished(id) && processes.presence(id) == Presence::Vanished);
        journal.record(record(10, 1));
        processes.take_late_events(&mut journal, &|_| true);
        assert!(processes.exited().map(|(id, _)| id).eq([id]) && journal.has_begun());
        // At the next gather, who was born to it is told by its pid.
        processes.end_gather();
        journal.event(Event::Fork { parent: 10, child: 20 });
        let child = process(root.path(), 20, 1, 6);
        processes.follow(&mut journal, &|pid| pid == 10, &mut source, TICK);
        assert_eq!(processes.reparented(), [(child, id)]);
    }

    /// It did not die: it could only not be seen.
    #[test]
    fn who_is_not_there_without_having_died_takes_a_scan() {
        let root = tempfile::tempdir().unwrap();
        let id = process(root.path(), 10, 1, 5);
        let (mut source, mut processes, mut journal) = scanned(root.path());
        processes.follow(&mut journal, &|_| false, &mut source, TICK);
        fs::remove_dir_all(root.path().join("10")).unwrap();
        processes.track(&[id], &mut source);
        processes.read_tracked(&mut source, true);
        processes.take_late_events(&mut journal, &|_| false);
        assert!(!journal.has_begun());
    }
}
