//! Unobserved processes: they started and exited between two gathers, so that they are known by events and exit records
//! alone.
//!
//! Each is folded as soon as it is reaped, and nothing of it is kept but its share in the sums at two other processes. Its
//! own time goes to its nearest ancestor by birth that is known, or alive and not read yet: it belongs to that one's tree,
//! wherever it was reparented to. Its life goes to its parent at its exit, whose reaped time has it if that one reaped it.
//! So the memory is bounded by the processes that exist, not by those that existed.

use super::lifecycle::{Journal, Newborn, ProcessRef};
use crate::kernel::exit_records::ExitRecord;
use crate::kernel::taskstats::COUNTERS;

/// CPU, ns: all of it, and the parts in user and in system mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// User and system time together.
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

/// Sums over the unobserved processes below one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unobserved {
    /// Number of those whose nearest ancestor by birth it is.
    pub count: u64,
    /// Own times of these processes.
    pub used: CpuTimes,
    /// Delays of these processes.
    pub delays: [u64; COUNTERS],
    /// Lives of those whose parent it was when they exited: own times, with the lives of their own exited children.
    pub lives: CpuTimes,
    /// Part of `lives` that came through a process which has exited too.
    pub orphaned: CpuTimes,
    /// Part of `lives` that came while the tracked processes were read: the reaped time of the parent shows it now or
    /// later.
    pub late: CpuTimes,
    /// An orphan became its child.
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

    /// Adds the sums that came later for the same process.
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

/// Fields of an exit record that are kept until the process is reaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The process.
    pub pid: u32,
    /// Pid of the parent at the exit; 0 if it had none.
    pub parent: u32,
    /// Own time.
    pub used: CpuTimes,
    /// Delays, if they are wanted: they are four fifths of a record, and there can be thousands.
    pub delays: Option<Box<[u64; COUNTERS]>>,
}

impl Record {
    /// Takes the fields out of an exit record.
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
    /// Folds the reaped ones among the exited newborns.
    pub(super) fn prune(&mut self, is_reaped: &dyn Fn(u32) -> bool) {
        for pid in std::mem::take(&mut self.exited_newborns) {
            match self.new.get(&pid) {
                Some(Newborn { ended: true, .. }) if is_reaped(pid) => self.fold(pid),
                Some(Newborn { ended: true, .. }) => self.exited_newborns.push(pid),
                _ => {}
            }
        }
    }

    /// Takes a reaped newborn out. Newborns whose ancestor it is get its own ancestor.
    pub(super) fn take_out(&mut self, pid: u32) -> Option<(Newborn, Unobserved)> {
        let new = self.new.remove(&pid)?;
        self.pass_children(ProcessRef::Newborn(pid), new.ancestor);
        if let Some(ancestor) = new.ancestor {
            self.descent.remove(&(ancestor, pid));
        }
        Some((new, self.unobserved.remove(&ProcessRef::Newborn(pid)).unwrap_or_default()))
    }

    /// Folds a reaped newborn into its ancestor by birth and its parent.
    pub(super) fn fold(&mut self, pid: u32) {
        let Some((Newborn { ancestor, end, .. }, below)) = self.take_out(pid) else { return };
        let is_reparented = end.as_ref().is_some_and(|end| end.is_reparented);
        let (record, parent) = end.map_or((None, None), |end| (Some(end.record), end.parent));
        let parent = parent.and_then(|(parent, birth)| self.can_keep_sums(parent, birth).then_some(parent));
        if let Some(ancestor) = ancestor {
            self.unobserved.entry(ancestor).or_default().take_in(record.as_ref(), &below);
        }
        let mut life = record.map(|record| record.used).unwrap_or_default();
        life.add(below.lives);
        // Its parent has been reaped, so it was reaped as an orphan: it is unknown by which process.
        let (heir, orphaned) = if parent.is_some() { (parent, below.lives) } else { (ancestor, life) };
        if let Some(heir) = heir.filter(|_| life != CpuTimes::default()) {
            let unobserved = self.unobserved.entry(heir).or_default();
            unobserved.lives.add(life);
            unobserved.orphaned.add(orphaned);
            unobserved.is_subreaper |= is_reparented && parent.is_some();
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
