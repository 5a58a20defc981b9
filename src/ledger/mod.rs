//! The ledger: CPU that each member is charged at a gather, with the CPU of processes below it that were never read.
//!
//! Every ns of CPU is charged once, and no charge is negative. This is the only place that subtracts CPU times, and it does no I/O.
//!
//! A *life* is the own time and the reaped time of a process that exited: the CPU that the kernel adds to the reaped time of
//! the process that reaps it. For each member at each gather, in ns:
//!
//! ```text
//! own       utime + stime: CPU of the process itself
//! reaped    cutime + cstime: the lives of the children that it reaped
//! lives     the lives of its children that exited since the last gather, as last read or as recorded
//! due       = expected + lives − Δreaped      charged before, and not in its reaped time so far
//! used      own times of unobserved processes, by their exit records, if it is their nearest ancestor by birth
//! charge    = Δown + max(0, −due) + used
//! expected  = min(max(0, due), hidden)        CPU that the kernel will still add to its reaped time
//! ```
//!
//! A negative `due` is CPU of children that were never read, or that they used after they were last read. A positive `due` was
//! charged while the children were alive, and is not charged again when the reaped time of their parent shows it.
//! `balance.rs` has an example.
//!
//! A process whose parent exits as well is an orphan for a moment, and an ancestor that is a subreaper may reap it:
//! `orphans.rs`.

mod balance;
mod counters;
mod cpu_time;
mod depth;
mod orphans;
mod rate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::stat::Identity;
use crate::processes::Presence;
use balance::{Account, Lives};
pub use counters::{Counter, Counters, Outcome, Tally, take_known};
pub use cpu_time::{CgroupMeter, CpuTime};
use depth::Depths;
pub use rate::{Rate, share};

/// CPU times of a member, as read at one gather; ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberTimes {
    /// The process.
    pub id: Identity,
    /// Pid of the parent.
    pub ppid: u32,
    /// Pid of the parent; of a newborn that was reparented already, pid of its nearest ancestor by birth.
    pub birth_parent: u32,
    /// Own time, or a lower bound of it.
    pub own: u64,
    /// Reaped time.
    pub reaped: u64,
    /// The process is a zombie, which reaps no children any more. A zombie can be stale as well.
    pub zombie: bool,
    /// The process was born since the last gather: its first reading is charged in full. That of any other process is not
    /// charged.
    pub newborn: bool,
    /// A time could not be read at this gather: it is that of the last gather, and all that was expected stays expected.
    pub stale: bool,
}

/// CPU that a process is charged at one gather, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// Own time.
    pub own: u64,
    /// CPU of children that were never read, or that they used after they were last read.
    pub reaped: u64,
}

impl Charge {
    /// Returns the sum.
    #[must_use]
    pub fn total(self) -> u64 {
        self.own.saturating_add(self.reaped)
    }
}

/// Exit record of a process that was read before it exited: of a member, or of a newborn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitedMember {
    /// The process.
    pub id: Identity,
    /// Pid of the parent at the exit. 0: there was none.
    pub ppid: u32,
    /// Own time, or a lower bound of it, ns.
    pub own: u64,
    /// The process was born since the last gather.
    pub newborn: bool,
}

/// CPU of unobserved processes below a process, by their exit records; ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnobservedBelow {
    /// The process.
    pub id: Identity,
    /// Own times of unobserved processes whose nearest ancestor by birth is this process.
    pub used: u64,
    /// Lives of unobserved processes whose parent at their exit was this process. They are in its reaped time if it reaped them.
    pub lives: u64,
    /// Part of `lives` that went up through a process which exited too, so that an ancestor may have reaped it instead.
    pub orphaned: u64,
    /// Part of `lives` that the reaped time may not show yet.
    pub late: u64,
    /// An orphan was reparented to this process.
    pub is_subreaper: bool,
}

/// Exit records since the last gather, of which a scan has none. Both lists are sorted by pid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exits {
    /// Records of processes that have an account, or get one.
    pub members: Vec<ExitedMember>,
    /// Sums of the other records.
    pub unobserved: Vec<UnobservedBelow>,
}

impl Exits {
    /// Returns the own times of unobserved processes whose nearest ancestor by birth is this process.
    fn used_below(&self, id: Identity) -> u64 {
        let index = self.unobserved.binary_search_by_key(&id, |below| below.id);
        index.ok().and_then(|index| self.unobserved.get(index)).map_or(0, |below| below.used)
    }
}

/// Charges of one gather.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charges {
    /// Charges of the members, in their order.
    pub living: Vec<Charge>,
    /// Charges of processes that exited, sorted by pid: members, and ancestors of unobserved processes.
    pub exited: Vec<(Identity, Charge)>,
}

/// Accounts of the members: one for each, however many series it is in.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Sorted by pid.
    accounts: Vec<Account>,
    /// Lives below accounts, by index in `accounts`. Empty between two gathers.
    #[serde(skip)]
    lives: BTreeMap<usize, Lives>,
}

impl Ledger {
    /// Settles one gather: charges the members, which are sorted by pid, and exited processes with the CPU since the last gather.
    /// `presence` returns what became of a process that is no member now. A process that exists and is no member any more is
    /// forgotten.
    pub fn settle(
        &mut self,
        members: &[MemberTimes],
        exits: &Exits,
        presence: impl Fn(Identity) -> Presence + Copy,
    ) -> Charges {
        self.open_accounts(members, exits);
        self.note_subreapers(members, exits);
        let exited = self.charge_exited(exits, presence);
        let mut depths = Depths::new(self.accounts.len());
        self.add_unobserved_lives(exits);
        self.pass_lives_up(exits, presence, &mut depths);
        self.resolve_possible(members);
        self.place_orphans(members, &mut depths);
        let living = self.charge_members(members, exits);
        self.keep(members);
        Charges { living, exited }
    }

    /// Returns whether the process had an account after the last gather.
    #[must_use]
    pub fn knows(&self, id: Identity) -> bool {
        self.find(id).is_some()
    }

    /// Opens an account for each newborn, below its nearest ancestor by birth: its children may have exited, and have been reaped by a
    /// process between that ancestor and its parent now.
    fn open_accounts(&mut self, members: &[MemberTimes], exits: &Exits) {
        let newborn = members.iter().filter(|member| member.newborn).map(|member| (member.id, member.birth_parent));
        let exited = exits.members.iter().filter(|exited| exited.newborn).map(|exited| (exited.id, exited.ppid));
        let before = self.accounts.len();
        for (id, ppid) in newborn.chain(exited) {
            let known = self.accounts.get(..before).unwrap_or_default();
            if known.binary_search_by_key(&id, |account| account.id).is_err() {
                self.accounts.push(Account::of_newborn(id, ppid));
            }
        }
        if self.accounts.len() > before {
            self.accounts.sort_unstable_by_key(|account| account.id);
        }
    }

    /// Brings the accounts of exited processes up to their exit records. Returns their charges.
    fn charge_exited(&mut self, exits: &Exits, presence: impl Fn(Identity) -> Presence) -> Vec<(Identity, Charge)> {
        let mut charges = Vec::new();
        for exited in exits.members.iter().filter(|exited| presence(exited.id) != Presence::Present) {
            let reaped = exits.used_below(exited.id);
            if let Some(account) = self.find(exited.id).and_then(|index| self.accounts.get_mut(index)) {
                charges.push((exited.id, Charge { own: account.take_in_exit(exited), reaped }));
            }
        }
        // A process that exited before the last gather can be the ancestor of a daemon that walks, and has no account any more.
        let is_charged = |id: Identity| charges.binary_search_by_key(&id, |(id, _)| *id).is_ok();
        let ancestors = exits.unobserved.iter().filter(|below| presence(below.id) != Presence::Present);
        let ancestors = ancestors.filter(|below| !is_charged(below.id));
        let ancestors: Vec<_> = ancestors.map(|below| (below.id, Charge { own: 0, reaped: below.used })).collect();
        charges.extend(ancestors);
        charges.sort_unstable_by_key(|(id, _)| *id);
        charges
    }

    /// Adds the lives of unobserved processes to the lives below their parents.
    fn add_unobserved_lives(&mut self, exits: &Exits) {
        for UnobservedBelow { id, lives: all, orphaned, late, .. } in exits.unobserved.iter().copied() {
            if let Some(index) = self.find(id) {
                let recorded = Lives { recorded: all, orphaned_recorded: orphaned, ..Lives::default() };
                self.add_lives(index, Lives { all, late, orphaned, ..recorded });
            }
        }
    }

    /// Adds the life of each exited process to the lives below its parent, deepest first: so a life goes up through parents that exited
    /// as well to the first ancestor that is alive.
    fn pass_lives_up(&mut self, exits: &Exits, presence: impl Fn(Identity) -> Presence, depths: &mut Depths) {
        let exited = (0..).zip(&self.accounts).filter(|(_, account)| presence(account.id) != Presence::Present);
        for (_, index) in depths.deepest_first(exited.map(|(index, _)| index), self) {
            let Some(Account { id, cpu, .. }) = self.accounts.get(index).copied() else { continue };
            if let Some(parent) = self.parent(index) {
                let lives = self.lives.get(&index).copied().unwrap_or_default();
                let is_recorded = exits.members.binary_search_by_key(&id, |exited| exited.id).is_ok();
                self.add_lives(parent, cpu.life_with(lives, presence(id) == Presence::Vanished, is_recorded));
            }
        }
    }

    /// Adds lives below one account.
    fn add_lives(&mut self, index: usize, lives: Lives) {
        self.lives.entry(index).or_default().add(lives);
    }

    /// Charges the members by the rule, and forgets the lives below them, which are in the balances then. Returns the charges.
    fn charge_members(&mut self, members: &[MemberTimes], exits: &Exits) -> Vec<Charge> {
        let mut all_lives = std::mem::take(&mut self.lives);
        let charges = members.iter().map(|member| {
            let Some(index) = self.find(member.id) else { return Charge::default() };
            let lives = all_lives.remove(&index).unwrap_or_default();
            let Some(account) = self.accounts.get_mut(index) else { return Charge::default() };
            account.ppid = member.ppid;
            let mut charge = account.cpu.settle(lives, member.own, member.reaped, member.stale);
            charge.reaped = charge.reaped.saturating_add(exits.used_below(member.id));
            charge
        });
        charges.collect()
    }

    /// Closes all accounts but those of the members, and opens those that are missing.
    fn keep(&mut self, members: &[MemberTimes]) {
        let mut living = members.iter().peekable();
        self.accounts.retain(|account| {
            while living.next_if(|member| member.id < account.id).is_some() {}
            living.next_if(|member| member.id == account.id).is_some()
        });
        if self.accounts.len() < members.len() {
            let unknown = members.iter().filter(|member| !self.knows(member.id));
            let opened: Vec<_> = unknown.map(Account::of_first_reading).collect();
            self.accounts.extend(opened);
            self.accounts.sort_unstable_by_key(|account| account.id);
        }
        self.accounts.shrink_to_fit();
    }

    /// Returns the index of the account of a process.
    fn find(&self, id: Identity) -> Option<usize> {
        self.accounts.binary_search_by_key(&id, |account| account.id).ok()
    }

    /// Returns the index of the account of the parent.
    fn parent(&self, index: usize) -> Option<usize> {
        let Account { id, ppid, .. } = self.accounts.get(index)?;
        self.find_before(*ppid, id.start)
    }

    /// Returns the index of the account with a pid, for a child that started at `start`. Where several processes have had the pid since the
    /// last gather, the parent is the last one that started by then.
    fn find_before(&self, pid: u32, start: u64) -> Option<usize> {
        let end = self.accounts.partition_point(|account| account.id <= Identity { pid, start });
        let has_pid = |index: &usize| self.accounts.get(*index).is_some_and(|account| account.id.pid == pid);
        end.checked_sub(1).filter(has_pid).or(Some(end).filter(has_pid))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    pub(super) const MS: u64 = 1_000_000;

    pub(super) fn id(pid: u32) -> Identity {
        Identity { pid, start: u64::from(pid) }
    }

    /// Times of a process that is older than the last gather: pid, ppid, own and reaped time in ms.
    pub(super) fn old(pid: u32, ppid: u32, own: u64, reaped: u64) -> MemberTimes {
        let (own, reaped) = (own * MS, reaped * MS);
        MemberTimes { id: id(pid), ppid, birth_parent: ppid, own, reaped, zombie: false, newborn: false, stale: false }
    }

    pub(super) fn newborn(pid: u32, ppid: u32, own: u64, reaped: u64) -> MemberTimes {
        MemberTimes { newborn: true, ..old(pid, ppid, own, reaped) }
    }

    /// Settles one gather of these members; the pids vanished between listing and reading. Returns the charges in ms.
    pub(super) fn gather(ledger: &mut Ledger, members: &[MemberTimes], vanished: &[u32]) -> Vec<u64> {
        let presence = |id: Identity| match members.iter().any(|member| member.id == id) {
            true => Presence::Present,
            false if vanished.contains(&id.pid) => Presence::Vanished,
            false => Presence::Reaped,
        };
        let charges = ledger.settle(members, &Exits::default(), presence);
        charges.living.into_iter().map(|charge| charge.total() / MS).collect()
    }

    #[test]
    fn a_first_reading_counts_in_full_only_if_the_process_is_newborn() {
        let mut ledger = Ledger::default();
        assert_eq!(gather(&mut ledger, &[old(1, 0, 500, 300), newborn(2, 1, 7, 5)], &[]), [0, 12]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 510, 300), old(2, 1, 7, 5)], &[]), [10, 0]);
    }

    /// Daemon that walks: the child of a process that vanished forks on, and exits before the next gather.
    #[test]
    fn an_unobserved_child_of_a_process_that_vanished_is_charged_to_that_one() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0)], &[2]);
        let unobserved =
            vec![UnobservedBelow { id: id(2), used: 30 * MS, lives: 0, orphaned: 0, late: 0, is_subreaper: false }];
        let exits = Exits { members: Vec::new(), unobserved };
        let presence = |of| if of == id(1) { Presence::Present } else { Presence::Reaped };
        let charges = ledger.settle(&[old(1, 0, 0, 0)], &exits, presence);
        assert_eq!(charges.exited, [(id(2), Charge { own: 0, reaped: 30 * MS })]);
    }

    #[test]
    fn the_parent_is_the_last_process_with_its_pid_that_started_before() {
        let mut ledger = Ledger::default();
        let member = |(pid, start)| MemberTimes { id: Identity { pid, start }, ..newborn(pid, 10, 9, 0) };
        ledger.open_accounts(&[(10, 5), (10, 8), (11, 6), (12, 9)].map(member), &Exits::default());
        let parent = |index| ledger.parent(index).map(|parent| ledger.accounts[parent].id.start);
        assert_eq!([parent(2), parent(3)], [Some(5), Some(8)]);
    }

    #[test]
    fn a_process_that_vanished_is_in_a_reaped_time_now_or_at_the_next_gather() {
        for is_shown_at_once in [true, false] {
            let mut ledger = Ledger::default();
            gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 300, 0)], &[]);
            // 50 ms of an unobserved child, and perhaps the 300 ms already
            let first = if is_shown_at_once { 350 } else { 50 };
            let now = gather(&mut ledger, &[old(1, 0, 0, first)], &[2])[0];
            let next = gather(&mut ledger, &[old(1, 0, 0, 350)], &[])[0];
            assert_eq!(now + next, 50, "shown at once: {is_shown_at_once}");
        }
    }

    #[test]
    fn a_pid_used_again_is_another_process() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 300, 0)], &[]);
        let other = MemberTimes { id: Identity { pid: 2, start: 99 }, ..newborn(2, 1, 4, 0) };
        // the old 2 was listed, so it may have been reaped after 1 was read; here it was reaped before
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 305), other], &[2]), [5, 4]);
    }
}
