//! The accounting rule: what the members of a tree used, those included that were born and died unseen.
//!
//! This is the only place where anything is subtracted, and it does no I/O. In short, for each process at each gather:
//!
//! ```text
//! own     utime + stime: what it used itself
//! reaped  cutime + cstime: the whole lives of the children it waited for, and what those had reaped
//! gone    the lives, as last seen, of its children that went away since the last gather
//! due   = owed + gone − Δreaped          used by the gone and not charged to it so far
//! charge  Δown + max(0, −due)            only grows
//! owed  = min(max(0, due), slack)        what the kernel may still charge
//! ```
//!
//! A negative `due` is CPU of children never seen, or seen for the last time before they used it. A positive one was counted
//! while they lived and must not be counted again when it is charged.

use serde::{Deserialize, Serialize};

use crate::kernel::stat::{Identity, TICK};
use crate::processes::Presence;

/// What two texts in whole ticks (user and system time) can hide of a charge that the kernel has made.
const SLACK: u64 = 2 * TICK;

/// A process as read at one gather; times in ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Which process.
    pub id: Identity,
    /// Its parent's pid.
    pub ppid: u32,
    /// A lower bound of what it has used itself.
    pub own: u64,
    /// What the kernel has charged it for children it waited for.
    pub reaped: u64,
    /// Whether it was born since the last gather: then all of it counts, else a first sight counts nothing.
    pub newborn: bool,
    /// Whether it could not be read this time and is as it was: what is owed then waits for the next gather.
    pub stale: bool,
}

/// One process's balance with the rule, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Balance {
    own: u64,
    reaped: u64,
    owed: u64,
    /// Lives of children that went away, to be met with the next Δreaped. 0 between two gathers.
    #[serde(skip)]
    gone: u64,
    /// The part of `gone` whose charge the next Δreaped may not contain yet. 0 between two gathers.
    #[serde(skip)]
    late: u64,
}

impl Balance {
    /// What the parent is charged when this process is reaped, so far as it is known.
    fn life(&self) -> u64 {
        self.own + self.reaped + self.gone
    }

    /// Takes a child's life over.
    fn lose(&mut self, life: u64, late: bool) {
        self.gone += life;
        self.late += if late { life } else { 0 };
    }

    /// The rule. Returns the charge.
    fn settle(&mut self, own: u64, reaped: u64, stale: bool) -> u64 {
        let own = own.max(self.own);
        let reaped = reaped.max(self.reaped);
        let used = own - self.own;
        let charged = reaped - self.reaped;
        let known = self.owed + self.gone;
        let unseen = charged.saturating_sub(known);
        let due = known.saturating_sub(charged);
        let owed = if stale { due } else { due.min(SLACK + self.late) };
        *self = Self { own, reaped, owed, gone: 0, late: 0 };
        used + unseen
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    id: Identity,
    ppid: u32,
    cpu: Balance,
}

/// The accounts of all members, whatever series they are in: a process is accounted once.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Sorted by pid.
    accounts: Vec<Account>,
}

impl Ledger {
    /// One gather: `sights` are the members now, sorted by pid; `presence` tells what became of one that is not
    /// among them. Returns what is charged to each of `sights`, in their order, ns.
    ///
    /// A process that exists and is not a member any more is forgotten.
    pub fn settle(&mut self, sights: &[Sight], presence: impl Fn(Identity) -> Presence) -> Vec<u64> {
        self.bury_the_dead(presence);
        let mut accounts = Vec::with_capacity(sights.len());
        let charges = sights.iter().map(|sight| {
            let mut account = Account { id: sight.id, ppid: sight.ppid, cpu: Balance::default() };
            let known = self.find(sight.id.pid).filter(|known| known.id == sight.id);
            if let Some(known) = known {
                account.cpu = known.cpu;
            }
            let charge = account.cpu.settle(sight.own, sight.reaped, sight.stale);
            accounts.push(account);
            if known.is_some() || sight.newborn { charge } else { 0 }
        });
        let charges: Vec<_> = charges.collect();
        self.accounts = accounts;
        charges
    }

    /// Whether this process had an account after the last gather.
    #[must_use]
    pub fn knows(&self, id: Identity) -> bool {
        self.find(id.pid).is_some_and(|account| account.id == id)
    }

    /// Passes the life of each member that is gone to its parent, deepest first, so that a life goes up through parents
    /// that died with their children to the one that lives, if it is a member.
    fn bury_the_dead(&mut self, presence: impl Fn(Identity) -> Presence) {
        let fates: Vec<_> = self.accounts.iter().map(|account| presence(account.id)).collect();
        let mut dead: Vec<_> = (0..self.accounts.len())
            .filter(|index| fates.get(*index) != Some(&Presence::Here))
            .map(|index| (self.dead_above(index, &fates), index))
            .collect();
        dead.sort_unstable_by(|a, b| b.cmp(a));
        for (_, index) in dead {
            let Some(Account { ppid, cpu, .. }) = self.accounts.get(index).copied() else { continue };
            let late = fates.get(index) == Some(&Presence::Vanished);
            if let Some(parent) = self.index(ppid).and_then(|parent| self.accounts.get_mut(parent)) {
                parent.cpu.lose(cpu.life(), late);
            }
        }
    }

    /// How many dead ancestors in a row a dead member has. Bounded, since what is read of /proc is no snapshot and might
    /// in theory go round in a circle.
    fn dead_above(&self, index: usize, fates: &[Presence]) -> usize {
        let parent = |index: usize| self.index(self.accounts.get(index)?.ppid);
        let is_dead = |index: &usize| fates.get(*index) != Some(&Presence::Here);
        std::iter::successors(parent(index).filter(is_dead), |above| parent(*above).filter(is_dead))
            .take(self.accounts.len())
            .count()
    }

    fn index(&self, pid: u32) -> Option<usize> {
        self.accounts.binary_search_by_key(&pid, |account| account.id.pid).ok()
    }

    fn find(&self, pid: u32) -> Option<&Account> {
        self.accounts.get(self.index(pid)?)
    }
}

/// The CPU of a series' cgroups: each is its inode, and the kernel's own counter says what it used, its dead included.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMeter {
    /// inode and usage (ns) of each, as of the last gather.
    usages: Vec<(u64, u64)>,
}

impl CgroupMeter {
    /// One gather: inode and usage of each cgroup now. A cgroup that was not there at the last gather started at 0
    /// since, and counts in full, unless this is the first time that these cgroups are looked at. Returns the charge, ns.
    pub fn settle(&mut self, usages: Vec<(u64, u64)>, first: bool) -> u64 {
        let before = |inode| self.usages.iter().find(|(known, _)| *known == inode).map(|(_, usage)| *usage);
        let charge = usages.iter().map(|(inode, usage)| match before(*inode) {
            Some(before) => usage.saturating_sub(before),
            None if first => 0,
            None => *usage,
        });
        let charge = charge.sum();
        self.usages = usages;
        charge
    }
}

/// A counter's rate between two emissions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The counter and CLOCK_MONOTONIC (ns) when it was last emitted.
    base: Option<(u64, u64)>,
}

impl Rate {
    /// Shortest interval that gives a rate, ns: below it, the ticks of /proc are too coarse.
    pub const SHORTEST: u64 = 100_000_000;

    /// A rate whose first interval began at `at` with the counter at 0.
    #[must_use]
    pub fn since(at: u64) -> Self {
        Self { base: Some((0, at)) }
    }

    /// The counter's growth per ns since the last time, and the new base. After less than [`Rate::SHORTEST`], nothing,
    /// and the old base stays.
    pub fn next(&mut self, counter: u64, at: u64) -> Option<f64> {
        let (before, since) = self.base?;
        let elapsed = at.checked_sub(since).filter(|elapsed| *elapsed >= Self::SHORTEST)?;
        self.base = Some((counter, at));
        #[allow(clippy::cast_precision_loss)] // 2^53 ns are 104 days in one interval
        Some(counter.checked_sub(before)? as f64 / elapsed as f64)
    }

    /// Begins the first interval, unless one is running.
    pub fn begin(&mut self, counter: u64, at: u64) {
        self.base.get_or_insert((counter, at));
    }
}
