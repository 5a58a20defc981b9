//! Lifecycle of processes between two gathers: fork, exec, comm, exit (process events) and exit record. The only state
//! transitions.
//!
//! Events and records come in two streams, whose order between each other is unknown. There is no event when a process is
//! reaped: an exited one counts as a zombie, which is in the reaped time of no parent, until kill(2) finds nobody with its
//! pid, or the pid is given to another.
//!
//! The invariant: each process is a *known* one, which was read at an earlier gather, or a *newborn*, or folded into others
//! ([`super::unobserved`]).

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use crate::kernel::proc_connector::Event;
use crate::kernel::stat::{Identity, Stat};

use super::unobserved::{Record, Unobserved};

/// Number of exited newborns that are kept before the reaped ones among them are looked for.
const PRUNE_MIN: usize = 1024;

/// A process. A pid can be two in one interval: one that was known when it began, and one born since; and an ancestor that was known
/// and has exited long ago can have had the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProcessRef {
    /// Known since an earlier gather.
    Known(u32),
    /// Born since.
    Newborn(u32),
    /// Known at an earlier gather, and exited since: an ancestor of a process that has not been read so far.
    Exited(Identity),
}

/// Newborn that exists, or is a zombie.
#[derive(Debug, Clone, PartialEq)]
pub struct Birth {
    /// Which.
    pub id: Identity,
    /// Nearest ancestor by birth that was read now or is known.
    pub ancestor: Option<ProcessRef>,
    /// Exit record, if it is a zombie.
    pub record: Option<Box<Record>>,
}

/// Changes since the last gather.
#[derive(Debug, Default)]
pub struct Changes {
    /// Pids of known processes to read again: they execute another program, or are zombies (with the record).
    pub changed: Vec<(u32, Option<Box<Record>>)>,
    /// Newborns, sorted by pid.
    pub births: Vec<Birth>,
    /// Sums of unobserved processes.
    pub unobserved: Vec<(ProcessRef, Unobserved)>,
}

/// Events and records that came while the tracked processes were read.
#[derive(Debug, Default)]
pub struct LateEvents {
    /// Exit records of known processes that could not be read any more, or whose records came after they were reaped; with
    /// their pids.
    pub records: Vec<(u32, Box<Record>)>,
    /// Sums of unobserved processes, beyond those of [`Changes`].
    pub unobserved: Vec<(ProcessRef, Unobserved)>,
}

/// Process that was born since the last gather.
#[derive(Debug)]
pub(super) struct Newborn {
    /// Nearest ancestor by birth that is alive or known.
    pub(super) ancestor: Option<ProcessRef>,
    /// The birth parent has been reaped.
    pub(super) is_orphan: bool,
    /// The process has exited.
    pub(super) ended: bool,
    /// Exit record, if there is one.
    pub(super) end: Option<Box<NewbornExit>>,
    /// Number of this birth: the pid may be another process's soon.
    pub(super) birth: u32,
}

/// Exit of a newborn, by its record.
#[derive(Debug)]
pub(super) struct NewbornExit {
    pub(super) record: Record,
    /// Parent in the record, and its birth number if it is a newborn.
    pub(super) parent: Option<(ProcessRef, Option<u32>)>,
    /// The parent at the exit is not the birth parent.
    pub(super) is_reparented: bool,
}

/// Exit of a known process, or of its leader alone.
#[derive(Debug, Default)]
struct KnownExit {
    /// The process has exited for sure, and no record of it is to come.
    is_recorded: bool,
    record: Option<Box<Record>>,
    /// The process has been reaped for sure: its pid was given to another.
    is_reaped: bool,
}

/// Agreement of the journal with the process table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Sync {
    /// Events are missing: it takes none until a scan has read every process.
    #[default]
    Lost,
    /// The scan is going on: an event may be older than the reading of its process.
    Syncing,
    /// It has every event since the last gather.
    Live,
}

/// Process events and exit records since the last gather, as far as they are not folded.
#[derive(Debug, Default)]
pub struct Journal {
    sync: Sync,
    /// Exit records come. Without them a newborn has exited when its leader has.
    has_records: bool,
    /// Pids of the processes that were read at an earlier gather.
    known: HashSet<u32>,
    /// Known processes whose exit was reported.
    ended: BTreeMap<u32, KnownExit>,
    /// Known processes to read again.
    changed: BTreeSet<u32>,
    /// Newborns that are not folded, by pid.
    pub(super) new: BTreeMap<u32, Newborn>,
    /// Number of births, modulo 2^32: fewer happen in one interval.
    births: u32,
    /// Pids of known processes that were reaped just now, before their records came.
    awaited: BTreeMap<u32, Option<Box<Record>>>,
    /// Pids that were given to another before the record of the previous process came: the next record of such a pid is
    /// that one's. Those of the last drain, and of this one.
    overdue: (BTreeSet<u32>, BTreeSet<u32>),
    /// Ancestor and pid of each newborn that has an ancestor.
    pub(super) descent: BTreeSet<(ProcessRef, u32)>,
    /// Newborns that exited, in this order; may have others among them.
    pub(super) exited_newborns: Vec<u32>,
    /// Length of that list at which the reaped ones are looked for.
    prune_at: usize,
    /// Sums of unobserved processes, by the process that they are kept for.
    pub(super) unobserved: BTreeMap<ProcessRef, Unobserved>,
    /// Records whose events may be yet to come, in the order in which they came.
    records: VecDeque<Record>,
}

impl Journal {
    /// Returns whether it has every event since the last gather. Before [`Journal::begin`], and after an overrun, it takes
    /// none.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.sync != Sync::Lost
    }

    /// Begins with the processes that a scan has found. Events up to [`Journal::settled`] may be older than the scan.
    pub fn begin<'a>(&mut self, has_records: bool, known: impl Iterator<Item = &'a Stat>) {
        *self = Self { sync: Sync::Syncing, has_records, prune_at: PRUNE_MIN, ..Self::default() };
        for stat in known {
            self.known.insert(stat.id.pid);
            // An exiting process has sent its record, or is about to: a later one may be that of another with its pid.
            let is_recorded = stat.is_zombie() || (stat.exiting && stat.num_threads <= 1);
            if is_recorded || stat.is_leaderless() {
                self.ended.insert(stat.id.pid, KnownExit { is_recorded, ..KnownExit::default() });
            }
        }
    }

    /// Ends the beginning: later events happened after the scan. Unobserved processes of before are forgotten, since their
    /// parents may have been read after reaping them.
    pub fn settled(&mut self) {
        self.flush();
        for pid in std::mem::take(&mut self.exited_newborns) {
            self.take_out(pid);
        }
        self.sync = Sync::Live;
    }

    /// Takes a record. The fork event of its process may come after it, up to the next [`Journal::flush`].
    pub fn record(&mut self, record: Record) {
        if self.has_begun() {
            self.records.push_back(record);
        }
    }

    /// Takes an event.
    pub fn event(&mut self, event: Event) {
        match event {
            _ if !self.has_begun() => {}
            Event::Fork { parent, child } => self.fork(parent, child),
            Event::Exec { pid } | Event::Comm { pid } => {
                if let Some(ProcessRef::Known(pid)) = self.who(pid) {
                    self.changed.insert(pid);
                }
            }
            Event::Exit { pid, .. } => self.exit(pid),
        }
    }

    /// Applies the records taken so far: every event that happened before them has come.
    pub fn flush(&mut self) {
        for record in std::mem::take(&mut self.records) {
            self.end(record);
        }
        self.overdue = (std::mem::take(&mut self.overdue.1), BTreeSet::new());
    }

    /// Folds the reaped ones among the exited newborns, if there are many.
    pub fn prune_if_many(&mut self, is_reaped: &dyn Fn(u32) -> bool) {
        if self.exited_newborns.len() > self.prune_at {
            self.prune(is_reaped);
            self.prune_at = PRUNE_MIN.max(2 * self.exited_newborns.len()); // so that each is asked for about once
        }
    }

    /// Begins to end the interval. Returns the known processes that were reaped, with their records, sorted by pid.
    /// `is_reaped` is asked about processes that exited.
    pub fn take_reaped(&mut self, is_reaped: &dyn Fn(u32) -> bool) -> Vec<(u32, Option<Box<Record>>)> {
        self.flush();
        self.prune(is_reaped);
        let Self { ended, known, changed, awaited, .. } = self;
        let gone = ended.extract_if(.., |pid, ended| ended.is_reaped || is_reaped(*pid));
        awaited.clear();
        let gone = gone.map(|(pid, ended)| {
            if ended.record.is_none() {
                awaited.insert(pid, None);
            }
            known.remove(&pid);
            changed.remove(&pid);
            (pid, ended.record)
        });
        gone.collect()
    }

    /// Ends the interval. `read` reads a process; its second argument is whether the process may have exited, so that a
    /// thread may have its pid. `born` takes each newborn that could be read, which is known from now on. `exited` returns
    /// the known process that had a pid and was reaped.
    pub fn settle(
        &mut self,
        read: impl FnMut(u32, bool) -> Option<Stat>,
        born: impl FnMut(Stat),
        exited: impl Fn(u32) -> Option<Identity>,
    ) -> Changes {
        let births = self.read_the_new(read, born);
        self.make_known(&births, exited);
        let changed = std::mem::take(&mut self.changed).into_iter();
        let changed = changed.map(|pid| (pid, self.ended.get(&pid).and_then(|ended| ended.record.clone()))).collect();
        let new = &self.new;
        let unobserved =
            self.unobserved.extract_if(.., |who, _| !matches!(who, ProcessRef::Newborn(pid) if new.contains_key(pid)));
        let unobserved = unobserved.collect();
        self.prune_at = PRUNE_MIN;
        Changes { changed, births, unobserved }
    }

    /// Has a known process read again at the next gather.
    pub fn read_again(&mut self, pid: u32) {
        self.changed.insert(pid);
    }

    /// Takes the events and records that came while the tracked processes were read, of which `vanished` could not be read
    /// any more. They are complete for every child in the reaped times that were read.
    pub fn take_late_events(
        &mut self,
        is_reaped: &dyn Fn(u32) -> bool,
        vanished: impl Iterator<Item = u32>,
    ) -> LateEvents {
        self.flush();
        self.prune(is_reaped);
        // A process that does not exist and did not exit is hidden, or was taken for another: that requires a scan.
        let (vanished, unexplained): (Vec<_>, Vec<_>) = vanished.partition(|pid| self.ended.contains_key(pid));
        if !unexplained.is_empty() {
            self.sync = Sync::Lost;
        }
        let ended = &mut self.ended;
        let records = vanished.into_iter().filter_map(|pid| Some((pid, ended.get_mut(&pid)?.record.take()?)));
        let latecomers = std::mem::take(&mut self.awaited).into_iter().filter_map(|(pid, record)| Some((pid, record?)));
        let records = records.chain(latecomers).collect();
        let unobserved =
            self.unobserved.extract_if(.., |who, _| matches!(who, ProcessRef::Known(_) | ProcessRef::Exited(_)));
        LateEvents { records, unobserved: unobserved.collect() }
    }

    /// Returns whether there are newborns that exited before they could be read, and whose lives stay unknown, since there are no exit records.
    pub fn misses_newborns(&self) -> bool {
        !self.has_records && !self.new.is_empty()
    }

    /// The exited processes that are ancestors of some that have not been read so far.
    pub fn exited_ancestors(&self) -> impl Iterator<Item = Identity> {
        self.new.values().filter_map(|new| match new.ancestor? {
            ProcessRef::Exited(id) => Some(id),
            ProcessRef::Known(_) | ProcessRef::Newborn(_) => None,
        })
    }

    /// Which of the processes that have had this pid is there now.
    fn who(&self, pid: u32) -> Option<ProcessRef> {
        if self.new.contains_key(&pid) {
            return Some(ProcessRef::Newborn(pid));
        }
        let is_reaped = self.ended.get(&pid).is_some_and(|ended| ended.is_reaped);
        (self.known.contains(&pid) && !is_reaped).then_some(ProcessRef::Known(pid))
    }

    /// Returns whether sums can be kept for a process: it exists, or was known. `birth` is the number of a newborn, whose
    /// pid may be another's by now.
    pub(super) fn can_keep_sums(&self, who: ProcessRef, birth: Option<u32>) -> bool {
        match who {
            ProcessRef::Known(pid) => self.known.contains(&pid),
            ProcessRef::Newborn(pid) => self.birth(pid) == birth,
            ProcessRef::Exited(_) => true,
        }
    }

    /// Which of those born so far the one with this pid is, if it is one of the new.
    fn birth(&self, pid: u32) -> Option<u32> {
        self.new.get(&pid).map(|new| new.birth)
    }

    fn fork(&mut self, parent: u32, child: u32) {
        if self.sync == Sync::Syncing && self.known.contains(&child) {
            return;
        }
        if let Some(before) = self.who(child) {
            self.replace(child, before);
        }
        let ancestor = self.who(parent);
        self.descent.extend(ancestor.map(|ancestor| (ancestor, child)));
        self.births = self.births.wrapping_add(1);
        self.new.insert(child, Newborn { ancestor, is_orphan: false, ended: false, end: None, birth: self.births });
    }

    /// Gives a pid to another process: the previous one has been reaped.
    fn replace(&mut self, pid: u32, before: ProcessRef) {
        self.end_early(pid);
        if self.has_records && !self.is_recorded(before) {
            self.overdue.1.insert(pid);
        }
        match before {
            ProcessRef::Newborn(pid) => self.fold(pid),
            ProcessRef::Known(pid) => self.ended.entry(pid).or_default().is_reaped = true,
            ProcessRef::Exited(_) => {} // it has no pid any more
        }
    }

    /// Applies the record of the process that has this pid before other records, since a record names its parent as of its
    /// time.
    fn end_early(&mut self, pid: u32) {
        if self.who(pid).is_none_or(|who| self.is_recorded(who)) {
            return;
        }
        let record = self.records.iter().position(|record| record.pid == pid);
        if let Some(record) = record.and_then(|index| self.records.remove(index)) {
            self.end(record);
        }
    }

    /// Returns whether no record of a process is to come.
    fn is_recorded(&self, who: ProcessRef) -> bool {
        match who {
            ProcessRef::Newborn(pid) => self.new.get(&pid).is_some_and(|new| new.ended),
            ProcessRef::Known(pid) => self.ended.get(&pid).is_some_and(|ended| ended.is_recorded),
            ProcessRef::Exited(_) => true,
        }
    }

    /// A leader exits.
    fn exit(&mut self, pid: u32) {
        self.end_early(pid);
        match self.who(pid) {
            Some(ProcessRef::Known(pid)) => {
                self.ended.entry(pid).or_default();
                self.changed.insert(pid);
            }
            Some(ProcessRef::Newborn(pid)) if !self.has_records => {
                if let Some(new) = self.new.get_mut(&pid) {
                    new.ended = true;
                    self.exited_newborns.push(pid);
                }
            }
            _ => {}
        }
    }

    /// A process ended.
    fn end(&mut self, exit: Record) {
        if self.overdue.0.remove(&exit.pid) {
            return; // its process counts as one without a record
        }
        match self.who(exit.pid) {
            Some(ProcessRef::Known(pid)) => {
                let ended = self.ended.entry(pid).or_default();
                if !ended.is_recorded {
                    (ended.is_recorded, ended.record) = (true, Some(Box::new(exit)));
                    self.changed.insert(pid);
                }
            }
            Some(ProcessRef::Newborn(pid)) => {
                let parent = self.who(exit.parent).map(|parent| (parent, self.birth(exit.parent)));
                if let Some(new) = self.new.get_mut(&pid).filter(|new| !new.ended) {
                    let is_reparented = new.is_orphan || parent.is_some_and(|(parent, _)| new.ancestor != Some(parent));
                    (new.ended, new.end) = (true, Some(Box::new(NewbornExit { record: exit, parent, is_reparented })));
                    self.exited_newborns.push(pid);
                }
            }
            // A record that is not awaited has an unknown begin: its process may have been hidden, or counted already.
            Some(ProcessRef::Exited(_)) | None => {
                if let Some(record) = self.awaited.get_mut(&exit.pid) {
                    *record = Some(Box::new(exit));
                }
            }
        }
    }

    /// Reads those of the new that exist.
    fn read_the_new(
        &mut self,
        mut read: impl FnMut(u32, bool) -> Option<Stat>,
        mut born: impl FnMut(Stat),
    ) -> Vec<Birth> {
        let is_dead = |stat: &Stat| stat.is_zombie() || stat.exiting;
        let mut births = Vec::with_capacity(self.new.len());
        let (mut others, mut subreapers) = (Vec::new(), Vec::new());
        for (pid, new) in &self.new {
            match read(*pid, new.ended) {
                Some(stat) if new.end.is_some() && !is_dead(&stat) => others.push(*pid),
                Some(stat) => {
                    let record = new.end.as_ref().map(|end| Box::new(end.record.clone()));
                    births.push(Birth { id: stat.id, ancestor: new.ancestor, record });
                    subreapers.extend(new.is_orphan.then_some(stat.ppid));
                    born(stat);
                }
                None => {}
            }
        }
        for pid in others {
            self.fold(pid); // a thread of another process has its pid
        }
        for subreaper in subreapers {
            if let Some(subreaper) = self.who(subreaper) {
                self.unobserved.entry(subreaper).or_default().is_subreaper = true;
            }
        }
        for place in 0..births.len() {
            let ancestor = births.get(place).and_then(|birth| self.read_ancestor(birth.id.pid, &births));
            if let Some(birth) = births.get_mut(place) {
                birth.ancestor = ancestor;
            }
        }
        births
    }

    /// Returns the nearest ancestor by birth of a newborn that was read (`births`, sorted by pid) or is known.
    fn read_ancestor(&self, pid: u32, births: &[Birth]) -> Option<ProcessRef> {
        let is_read = |pid: &u32| births.binary_search_by_key(pid, |birth| birth.id.pid).is_ok();
        let above = |pid: &u32| match self.new.get(pid)?.ancestor {
            Some(ProcessRef::Newborn(pid)) => Some(pid),
            _ => None,
        };
        let unread = std::iter::successors(Some(pid), |pid| above(pid).filter(|pid| !is_read(pid)));
        self.new.get(&unread.last()?)?.ancestor
    }

    fn make_known(&mut self, births: &[Birth], exited: impl Fn(u32) -> Option<Identity>) {
        let Self { known, ended, new, descent, .. } = self;
        let ends = births.iter().filter_map(|birth| Some((birth.id.pid, new.remove(&birth.id.pid)?)));
        for (pid, Newborn { end, .. }) in ends.filter(|(_, new)| new.ended) {
            let record = end.map(|end| Box::new(end.record));
            ended.insert(pid, KnownExit { is_recorded: record.is_some(), record, is_reaped: false });
        }
        let is_read = |pid: &u32| births.binary_search_by_key(pid, |birth| birth.id.pid).is_ok();
        descent.clear();
        for (pid, new) in new {
            // Before the newborns that were read become known: they may have the pids of exited processes.
            new.ancestor = match new.ancestor {
                Some(ProcessRef::Newborn(above)) if is_read(&above) => Some(ProcessRef::Known(above)),
                Some(ProcessRef::Known(above)) if !known.contains(&above) => exited(above).map(ProcessRef::Exited),
                ancestor => ancestor,
            };
            descent.extend(new.ancestor.map(|ancestor| (ancestor, *pid)));
        }
        known.extend(births.iter().map(|birth| birth.id.pid));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::super::unobserved::CpuTimes;
    use super::*;
    use crate::kernel::taskstats::COUNTERS;
    use ProcessRef::{Known, Newborn as Born};

    /// A host in which 1, 10 and 11 were known when it began; 10 is the parent of 11.
    struct Told {
        journal: Journal,
        /// Those that exist, zombies included.
        there: Vec<(u32, char)>,
    }

    struct Settled {
        gone: Vec<(u32, Option<Box<Record>>)>,
        changed: Vec<(u32, Option<Box<Record>>)>,
        births: Vec<Birth>,
        unobserved: Vec<(ProcessRef, Unobserved)>,
    }

    fn stat(pid: u32, state: char) -> Stat {
        Stat::parse(format!("{pid} (x) {state} 1 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 1 0 {pid} 0 5\n").as_bytes()).unwrap()
    }

    fn id(pid: u32) -> Identity {
        Identity { pid, start: pid.into() }
    }

    fn record(pid: u32, parent: u32, cpu: u64) -> Record {
        Record { pid, parent, used: CpuTimes { cpu, user: cpu, system: 0 }, delays: Some(Box::new([cpu; COUNTERS])) }
    }

    impl Told {
        fn begin(has_records: bool) -> Self {
            let mut journal = Journal::default();
            journal.begin(has_records, [1, 10, 11].map(|pid| stat(pid, 'S')).iter());
            journal.settled();
            Self { journal, there: vec![(1, 'S'), (10, 'S'), (11, 'S')] }
        }

        fn fork(&mut self, parent: u32, child: u32) -> &mut Self {
            self.there.push((child, 'S'));
            self.journal.event(Event::Fork { parent, child });
            self
        }

        fn exit(&mut self, pid: u32) -> &mut Self {
            self.journal.event(Event::Exit { pid, parent: None });
            self.become_zombie(pid)
        }

        fn end(&mut self, pid: u32, parent: u32, cpu: u64) -> &mut Self {
            self.journal.record(record(pid, parent, cpu));
            self.become_zombie(pid)
        }

        fn become_zombie(&mut self, pid: u32) -> &mut Self {
            self.there.iter_mut().filter(|(there, _)| *there == pid).for_each(|(_, state)| *state = 'Z');
            self
        }

        /// Waited for.
        fn reap(&mut self, pid: u32) -> &mut Self {
            self.there.retain(|(there, _)| *there != pid);
            self
        }

        /// A life from birth to being waited for.
        fn live(&mut self, parent: u32, pid: u32, cpu: u64) -> &mut Self {
            self.fork(parent, pid).end(pid, parent, cpu).reap(pid)
        }

        fn flush(&mut self) -> &mut Self {
            self.journal.flush();
            self
        }

        fn settle(&mut self) -> Settled {
            let there = self.there.clone();
            let find = |pid: u32| there.iter().find(|(there, _)| *there == pid);
            let gone = self.journal.take_reaped(&|pid| find(pid).is_none());
            let read = |pid: u32, _| Some(stat(pid, find(pid)?.1));
            let Changes { changed, births, mut unobserved } = self.journal.settle(read, drop, |pid| Some(id(pid)));
            unobserved.sort_by_key(|(who, _)| *who);
            Settled { gone, changed, births, unobserved }
        }

        /// Sums by the process that they are kept for: count, own times, lives and orphaned lives.
        fn sums(&mut self) -> Vec<(ProcessRef, u64, u64, u64, u64)> {
            let unobserved = self.settle().unobserved.into_iter();
            unobserved.map(|(who, u)| (who, u.count, u.used.cpu, u.lives.cpu, u.orphaned.cpu)).collect()
        }
    }

    #[test]
    fn who_was_born_and_died_stands_at_its_parent() {
        assert_eq!(Told::begin(true).live(10, 20, 5).live(10, 21, 7).sums(), [(Known(10), 2, 12, 12, 0)]);
    }

    #[test]
    fn delays_go_to_whose_tree_it_was() {
        let unobserved = Told::begin(true).live(10, 20, 5).fork(10, 21).live(21, 22, 3).settle().unobserved;
        let delays: Vec<_> =
            unobserved.iter().map(|(who, unobserved)| (*who, unobserved.delays[0], unobserved.used.user)).collect();
        assert_eq!(delays, [(Known(10), 5, 5), (Born(21), 3, 3)]);
    }

    #[test]
    fn an_orphan_belongs_to_the_tree_it_was_born_in_and_its_life_to_whoever_adopted_it() {
        // forked twice: 20 leaves before its child 21, which init adopts
        let mut told = Told::begin(true);
        told.fork(10, 20).fork(20, 21).end(20, 10, 1).reap(20).flush().end(21, 1, 5).reap(21);
        assert_eq!(told.sums(), [(Known(1), 0, 0, 5, 0), (Known(10), 2, 6, 1, 0)]);
    }

    #[test]
    fn parent_and_child_go_in_either_order() {
        // 20 waits for its child and is waited for: both lives are in what 10 is charged
        let mut told = Told::begin(true);
        told.fork(10, 20).live(20, 21, 5).end(20, 10, 1).reap(20);
        assert_eq!(told.sums(), [(Known(10), 2, 6, 6, 5)]);
        // 20 dies first, without having waited for its dead child: whoever waits for that one, 20 does not
        let mut told = Told::begin(true);
        told.fork(10, 20).fork(20, 21).end(21, 20, 5).end(20, 10, 1).reap(20).flush();
        told.journal.prune(&|pid| pid == 20);
        assert_eq!(told.reap(21).sums(), [(Known(10), 2, 6, 6, 5)]);
        // at once, told in one go
        let mut told = Told::begin(true);
        told.fork(10, 20).fork(20, 21).end(20, 10, 1).end(21, 1, 5).reap(20).reap(21);
        assert_eq!(told.sums(), [(Known(1), 0, 0, 5, 0), (Known(10), 2, 6, 1, 0)]);
    }

    #[test]
    fn a_record_may_be_read_before_the_birth_is() {
        let mut told = Told::begin(true);
        told.journal.record(record(20, 10, 5));
        told.journal.event(Event::Fork { parent: 10, child: 20 });
        assert_eq!(told.sums(), [(Known(10), 1, 5, 5, 0)]);
    }

    #[test]
    fn a_pid_is_used_again_within_one_drain() {
        // each life under another parent; the third is alive
        let mut told = Told::begin(true);
        told.live(10, 20, 5).live(11, 20, 7).fork(1, 20);
        let changes = told.settle();
        let sums: Vec<_> =
            changes.unobserved.iter().map(|(who, unobserved)| (*who, unobserved.count, unobserved.used.cpu)).collect();
        assert_eq!(sums, [(Known(10), 1, 5), (Known(11), 1, 7)]);
        assert_eq!(changes.births.len(), 1);
        assert_eq!((changes.births[0].id.pid, changes.births[0].ancestor), (20, Some(Known(1))));
    }

    #[test]
    fn the_pid_of_one_that_was_known_is_used_again() {
        let mut told = Told::begin(true);
        // 11 dies and is waited for; the new 11 has a child, and dies; what stood at the old one stays there
        told.live(11, 20, 3).end(11, 10, 50).reap(11).fork(10, 11).live(11, 21, 4);
        let changes = told.settle();
        assert_eq!(changes.gone, [(11, Some(Box::new(record(11, 10, 50))))]);
        assert_eq!(changes.births.iter().map(|birth| birth.id.pid).collect::<Vec<_>>(), [11]);
        let sums: Vec<_> = changes.unobserved.iter().map(|(who, unobserved)| (*who, unobserved.used.cpu)).collect();
        assert_eq!(sums, [(Known(11), 3), (Born(11), 4)]);
        // From now on the new one is the known one.
        assert_eq!(told.live(11, 22, 9).sums(), [(Known(11), 1, 9, 9, 0)]);
    }

    /// A daemon leaves its work to a child and exits, again and again, and at no gather is there anybody who can be read.
    #[test]
    fn an_ancestor_that_has_exited_is_known_as_long_as_nobody_below_it_was_read() {
        let mut told = Told::begin(true);
        told.fork(11, 20).end(11, 10, 50).reap(11).reap(20);
        assert_eq!(told.sums(), []);
        for pid in 21..25 {
            told.fork(pid - 1, pid).end(pid - 1, 1, 5).reap(pid);
            // Another gets the pid of the ancestor, which does not make it one.
            told.live(10, 11, 1);
            let sums = told.sums().into_iter().filter(|(_, count, ..)| *count > 0);
            let sums: Vec<_> = sums.map(|(who, count, used, ..)| (who, count, used)).collect();
            assert_eq!(sums, [(Known(10), 1, 1), (ProcessRef::Exited(id(11)), 1, 5)]);
        }
        assert_eq!(told.journal.exited_ancestors().collect::<Vec<_>>(), [id(11)]);
    }

    #[test]
    fn a_zombie_is_there_until_it_was_waited_for() {
        let mut told = Told::begin(true);
        told.fork(10, 20).end(20, 10, 5).end(11, 10, 70);
        let changes = told.settle();
        assert_eq!(changes.births[0].record, Some(Box::new(record(20, 10, 5))));
        assert_eq!(
            (changes.changed, changes.gone, changes.unobserved.len()),
            (vec![(11, Some(Box::new(record(11, 10, 70))))], vec![], 0)
        );
        let changes = told.settle();
        assert!(changes.gone.is_empty() && changes.changed.is_empty() && changes.births.is_empty());
        let changes = told.reap(20).reap(11).settle();
        assert_eq!(changes.gone, [(11, Some(Box::new(record(11, 10, 70)))), (20, Some(Box::new(record(20, 10, 5))))]);
    }

    #[test]
    fn who_was_a_zombie_when_it_began_is_asked_for() {
        let mut journal = Journal::default();
        journal.begin(true, [stat(10, 'S'), stat(11, 'Z')].iter());
        journal.settled();
        assert!(journal.take_reaped(&|_| false).is_empty());
        assert_eq!(journal.take_reaped(&|pid| pid == 11), [(11, None)]);
    }

    #[test]
    fn an_exec_by_another_thread_than_the_leader_is_no_death() {
        for has_records in [true, false] {
            let mut told = Told::begin(has_records);
            told.fork(10, 20);
            for pid in [11, 20] {
                told.journal.event(Event::Exit { pid, parent: Some(10) });
                told.journal.event(Event::Exec { pid });
            }
            let changes = told.settle();
            assert_eq!(changes.births.iter().map(|birth| birth.id.pid).collect::<Vec<_>>(), [20]);
            assert_eq!((changes.changed, changes.gone), (vec![(11, None)], vec![]));
        }
    }

    #[test]
    fn exec_and_comm_are_changes_of_what_was_known() {
        let mut told = Told::begin(true);
        told.fork(10, 20);
        for event in
            [Event::Exec { pid: 10 }, Event::Comm { pid: 11 }, Event::Exec { pid: 20 }, Event::Exec { pid: 99 }]
        {
            told.journal.event(event);
        }
        assert_eq!(told.settle().changed, [(10, None), (11, None)]);
        assert_eq!(told.settle().changed, []);
    }

    #[test]
    fn a_thread_with_the_pid_of_a_dead_process_is_not_that() {
        let mut told = Told::begin(true);
        told.fork(10, 20).journal.record(record(20, 10, 5)); // and 20 is "there" still, alive
        assert_eq!(told.sums(), [(Known(10), 1, 5, 5, 0)]);
        assert!(told.settle().births.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_kept_until_it_can() {
        let mut told = Told::begin(true);
        told.fork(10, 20).fork(20, 21).reap(20).live(20, 22, 3); // 20 is hidden
        let changes = told.settle();
        assert_eq!((changes.births.len(), changes.births[0].ancestor), (1, Some(Known(10))));
        assert!(changes.unobserved.is_empty());
        assert_eq!(told.end(20, 10, 5).sums(), [(Known(10), 2, 8, 8, 3)]);
    }

    #[test]
    fn what_happened_while_the_table_was_read_is_not_told_twice() {
        let mut journal = Journal::default();
        journal.begin(true, [stat(10, 'S'), stat(11, 'S')].iter());
        // The scan has found 11 already; 12 has come and gone; 13 was born after the listing.
        journal.event(Event::Fork { parent: 10, child: 11 });
        journal.record(record(12, 10, 5));
        journal.event(Event::Fork { parent: 10, child: 13 });
        journal.flush();
        journal.settled();
        assert!(journal.take_reaped(&|_| false).is_empty());
        let changes = journal.settle(|pid, _| Some(stat(pid, 'S')), drop, |_| None);
        assert!(changes.unobserved.is_empty());
        assert_eq!(changes.births.iter().map(|birth| birth.id.pid).collect::<Vec<_>>(), [13]);
    }

    #[test]
    fn without_records_the_leaders_exit_is_an_end_of_which_nothing_is_known() {
        let mut told = Told::begin(false);
        told.fork(10, 20).exit(20).reap(20).fork(10, 21).exit(21);
        let changes = told.exit(11).reap(11).settle();
        assert_eq!(changes.gone, [(11, None)]);
        assert_eq!(changes.births.iter().map(|birth| birth.id.pid).collect::<Vec<_>>(), [21]);
        assert_eq!(changes.unobserved, [(Known(10), Unobserved { count: 1, ..Unobserved::default() })]);
    }

    #[test]
    fn who_descends_from_nobody_known_stands_nowhere() {
        assert_eq!(Told::begin(true).live(99, 20, 5).sums(), []);
    }

    #[test]
    fn what_is_kept_does_not_grow_with_what_has_been() {
        let mut told = Told::begin(true);
        for round in 0..200_000_u32 {
            let pid = 100 + round % 30_000;
            told.journal.event(Event::Fork { parent: 10, child: pid });
            told.journal.event(Event::Fork { parent: pid, child: pid + 40_000 });
            told.journal.record(record(pid, 10, 1));
            told.journal.record(record(pid + 40_000, 1, 1));
            told.journal.flush();
            told.journal.prune_if_many(&|_| true);
            let Journal { new, descent, exited_newborns, unobserved, ended, .. } = &told.journal;
            let kept = [new.len(), descent.len(), exited_newborns.len(), unobserved.len(), ended.len()];
            assert!(kept.iter().all(|kept| *kept <= PRUNE_MIN + 2), "{kept:?} after {round}");
        }
        assert_eq!(told.sums(), [(Known(1), 0, 0, 200_000, 0), (Known(10), 400_000, 400_000, 200_000, 0)]);
    }

    #[test]
    fn a_record_is_not_that_of_one_whose_end_was_told() {
        let mut told = Told::begin(true);
        told.fork(10, 20).end(20, 10, 5).flush().reap(20);
        told.journal.record(record(20, 11, 7)); // records are read first
        assert_eq!(told.fork(11, 20).reap(20).sums(), [(Known(10), 1, 5, 5, 0), (Known(11), 1, 7, 7, 0)]);
        // So it is with a zombie that was there in the beginning.
        let mut told = Told::begin(true);
        told.journal.begin(true, [stat(10, 'S'), stat(11, 'Z')].iter());
        told.journal.settled();
        told.reap(11).journal.record(record(11, 10, 7));
        let changes = told.fork(10, 11).reap(11).settle();
        assert_eq!((changes.gone, changes.unobserved.len()), (vec![(11, None)], 1));
    }

    #[test]
    fn who_cannot_be_read_is_nobodys_ancestor() {
        // forked twice, and the one in the middle was waited for after it was asked for and before it was read
        let mut told = Told::begin(true);
        told.fork(10, 20).fork(20, 21).end(20, 10, 1);
        told.journal.take_reaped(&|_| false);
        let changes = told.journal.settle(|pid, _| (pid == 21).then(|| stat(21, 'S')), drop, |_| None);
        assert_eq!(changes.births[0].ancestor, Some(Known(10)));
    }

    #[test]
    fn what_is_told_while_the_living_are_read_is_told_by_pid() {
        let mut told = Told::begin(true);
        told.settle();
        told.live(10, 20, 5).live(11, 21, 7).end(11, 10, 70).reap(11);
        let there = told.there.clone();
        let is_reaped = |pid| !there.iter().any(|(there, _)| *there == pid);
        let LateEvents { records, unobserved } = told.journal.take_late_events(&is_reaped, [11].into_iter());
        assert_eq!(records, [(11, Box::new(record(11, 10, 70)))]);
        let counts: Vec<_> =
            unobserved.iter().map(|(pid, unobserved)| (*pid, unobserved.count, unobserved.used.cpu)).collect();
        assert_eq!(counts, [(Known(10), 1, 5), (Known(11), 1, 7)]);
        let changes = told.settle();
        assert_eq!((changes.gone, changes.unobserved), (vec![(11, None)], vec![]));
    }

    /// The exit of the first life is told a drain later than its record.
    #[test]
    fn a_late_exit_takes_no_record_of_the_next_life() {
        let mut told = Told::begin(true);
        told.fork(10, 20).end(20, 10, 5).flush().reap(20);
        told.journal.record(record(20, 11, 7));
        told.journal.event(Event::Exit { pid: 20, parent: None });
        assert_eq!(told.fork(11, 20).reap(20).sums(), [(Known(10), 1, 5, 5, 0), (Known(11), 1, 7, 7, 0)]);
    }

    #[test]
    fn a_life_does_not_go_to_whoever_has_the_pid_of_its_parent_next() {
        let mut told = Told::begin(true);
        told.fork(10, 20).live(20, 21, 5).end(20, 10, 1).reap(20).flush().fork(11, 20);
        assert_eq!(told.sums(), [(Known(10), 2, 6, 6, 5)]);
    }

    #[test]
    fn a_record_told_after_its_process_was_found_gone_is_not_lost() {
        let mut told = Told::begin(true);
        assert_eq!(told.exit(11).reap(11).settle().gone, [(11, None)]);
        told.journal.record(record(11, 10, 7));
        let later = told.journal.take_late_events(&|_| true, std::iter::empty());
        assert_eq!(later.records, [(11, Box::new(record(11, 10, 7)))]);
    }

    /// Between its record and being a zombie.
    #[test]
    fn whoever_was_exiting_in_the_beginning_has_no_record_to_come() {
        let exiting = Stat { exiting: true, ..stat(11, 'S') };
        let mut told = Told::begin(true);
        told.journal.begin(true, [stat(10, 'S'), exiting].iter());
        told.journal.settled();
        told.reap(11).journal.record(record(11, 10, 7));
        let changes = told.fork(10, 11).reap(11).settle();
        assert_eq!((changes.gone, changes.unobserved.len()), (vec![(11, None)], 1));
    }

    /// The record of the first life is told a drain after the birth of the second.
    #[test]
    fn an_overdue_record_is_not_that_of_the_next_life() {
        let mut told = Told::begin(true);
        told.fork(10, 20).reap(20).fork(11, 20).flush();
        told.journal.record(record(20, 10, 5));
        let changes = told.flush().settle();
        assert_eq!(changes.births.iter().map(|birth| (birth.id.pid, &birth.record)).collect::<Vec<_>>(), [(20, &None)]);
        assert_eq!(told.end(20, 11, 7).reap(20).settle().gone, [(20, Some(Box::new(record(20, 11, 7))))]);
    }

    #[test]
    fn of_one_that_may_have_ended_it_is_made_sure_that_it_is_itself() {
        let mut told = Told::begin(false);
        told.fork(10, 20).fork(10, 21).exit(21);
        let mut asked = Vec::new();
        told.journal.take_reaped(&|_| false);
        let read = |pid, may_have_ended| {
            asked.push((pid, may_have_ended));
            None
        };
        told.journal.settle(read, drop, |_| None);
        assert_eq!(asked, [(20, false), (21, true)]);
    }
}
