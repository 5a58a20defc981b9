//! Unobserved processes: they started and exited between two gathers, so that only events and exit records know of them.
//!
//! Each is folded as soon as it is reaped, and nothing of it is kept but its share in the sums at two other processes. Its own time goes
//! to its nearest ancestor by birth that is observed, or alive and not read yet: it belongs to that one's tree, wherever it was
//! reparented to. Its life goes to its parent at its exit, whose reaped time has it if that one reaped it. So the memory is bounded by the
//! processes that exist, not by those that existed.

use super::lifecycle::{Journal, Newborn, ProcessRef};
use crate::kernel::exit_records::ExitRecord;
use crate::kernel::taskstats::COUNTERS;

/// CPU, ns: all of it, and the parts in user and in system mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// All of it.
    pub cpu: u64,
    /// In user mode.
    pub user: u64,
    /// In system mode.
    pub system: u64,
}

impl CpuTimes {
    pub(super) fn add(&mut self, other: Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.user = self.user.saturating_add(other.user);
        self.system = self.system.saturating_add(other.system);
    }
}

/// The sums of those that were born and died since the last gather, at a process that stands for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unobserved {
    /// How many there were, of whom it is the nearest ancestor by birth.
    pub count: u64,
    /// What these had used.
    pub used: CpuTimes,
    /// What these had waited for.
    pub delays: [u64; COUNTERS],
    /// The lives of those whose parent it was when they died: what they had used, and the lives of their own dead.
    pub lives: CpuTimes,
    /// The part of `lives` that came through one that is gone too.
    pub orphaned: CpuTimes,
    /// The part of `lives` that was told while the living were read: what their parents are charged for it shows now or later.
    pub late: CpuTimes,
    /// Whether an orphan was seen to have become its child.
    pub is_subreaper: bool,
}

impl Unobserved {
    /// Takes in one of its tree, with the sums that stood at that one.
    pub(super) fn take_in(&mut self, record: Option<&Record>, below: &Self) {
        self.count = self.count.saturating_add(below.count).saturating_add(1);
        self.used.add(below.used);
        add_all(&mut self.delays, &below.delays);
        if let Some(record) = record {
            self.used.add(record.used);
            if let Some(delays) = &record.delays {
                add_all(&mut self.delays, delays);
            }
        }
    }

    /// Takes in what was told later of the same.
    pub fn add_late(&mut self, later: &Self) {
        self.count = self.count.saturating_add(later.count);
        self.used.add(later.used);
        add_all(&mut self.delays, &later.delays);
        self.lives.add(later.lives);
        self.orphaned.add(later.orphaned);
        self.late.add(later.lives);
        self.is_subreaper |= later.is_subreaper;
    }
}

/// What is kept of an exit record, as long as its process is not gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The process.
    pub pid: u32,
    /// Its parent when it died; 0 if it had none.
    pub parent: u32,
    /// What it had used.
    pub used: CpuTimes,
    /// What it had waited for, if anybody asks: they are four fifths of a record, and there can be thousands.
    pub delays: Option<Box<[u64; COUNTERS]>>,
}

impl Record {
    /// What is kept of this one.
    #[must_use]
    pub fn of(record: &ExitRecord, keeps_delays: bool) -> Self {
        let ExitRecord { pid, parent, cpu, utime, stime, delays, .. } = *record;
        let used = CpuTimes { cpu, user: utime, system: stime };
        Self { pid, parent, used, delays: keeps_delays.then(|| Box::new(delays.values)) }
    }
}

fn add_all(sums: &mut [u64; COUNTERS], more: &[u64; COUNTERS]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(*more);
    }
}

impl Journal {
    /// Lets those of the dead go that are gone.
    pub(super) fn prune(&mut self, is_reaped: &dyn Fn(u32) -> bool) {
        for pid in std::mem::take(&mut self.dead) {
            match self.new.get(&pid) {
                Some(Newborn { ended: true, .. }) if is_reaped(pid) => self.fold(pid),
                Some(Newborn { ended: true, .. }) => self.dead.push(pid),
                _ => {}
            }
        }
    }

    /// One of the new is gone: those whose ancestor it is get its own.
    pub(super) fn take_out(&mut self, pid: u32) -> Option<(Newborn, Unobserved)> {
        let new = self.new.remove(&pid)?;
        self.pass_children(ProcessRef::Newborn(pid), new.ancestor);
        if let Some(ancestor) = new.ancestor {
            self.descent.remove(&(ancestor, pid));
        }
        Some((new, self.unobserved.remove(&ProcessRef::Newborn(pid)).unwrap_or_default()))
    }

    /// One of the new is gone: others stand for it from now on.
    pub(super) fn fold(&mut self, pid: u32) {
        let Some((Newborn { ancestor, end, .. }, below)) = self.take_out(pid) else { return };
        let is_adopted = end.as_ref().is_some_and(|end| end.is_adopted);
        let (record, parent) = end.map_or((None, None), |end| (Some(end.record), end.parent));
        let parent = parent.and_then(|(parent, birth)| self.stands(parent, birth).then_some(parent));
        if let Some(ancestor) = ancestor {
            self.unobserved.entry(ancestor).or_default().take_in(record.as_ref(), &below);
        }
        let mut life = record.map(|record| record.used).unwrap_or_default();
        life.add(below.lives);
        // ProcessRef was its parent is gone, so that it was an orphan when it was waited for: by whom, nobody knows.
        let (heir, orphaned) = if parent.is_some() { (parent, below.lives) } else { (ancestor, life) };
        if let Some(heir) = heir.filter(|_| life != CpuTimes::default()) {
            let unobserved = self.unobserved.entry(heir).or_default();
            unobserved.lives.add(life);
            unobserved.orphaned.add(orphaned);
            unobserved.is_subreaper |= is_adopted && parent.is_some();
        }
    }

    /// Gives those whose ancestor this one is another one.
    fn pass_children(&mut self, who: ProcessRef, heir: Option<ProcessRef>) {
        let descendants: Vec<_> = self.descent.range((who, 0)..=(who, u32::MAX)).copied().collect();
        for (_, child) in descendants {
            self.descent.remove(&(who, child));
            self.descent.extend(heir.map(|heir| (heir, child)));
            if let Some(child) = self.new.get_mut(&child) {
                (child.ancestor, child.is_orphan) = (heir, true);
            }
        }
    }
}
