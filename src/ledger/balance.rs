//! The account of one process, and the rule: its reaped time is compared with the lives of its children.
//!
//! ```text
//! a child was last read with 100 ms, all of them charged; then it exits, and its parent reaps it
//! Δreaped = 135 ms   due = 100 − 135 = −35 ms   35 ms are charged: the child used them after it was last read
//! Δreaped =  90 ms   due = 100 −  90 =  10 ms   10 ms are expected: the ticks of the reaped time do not show them yet
//! ```
//!
//! CPU that was charged stays expected, or possible, as long as a reaped time may still grow by it: at most [`HIDDEN`], and for
//! one gather all that is late.

use serde::{Deserialize, Serialize};

use super::orphans::Orphans;
use super::{Charge, ExitedMember, MemberTimes};
use crate::kernel::stat::{Identity, TICK};

/// Largest part of a reaped time that cutime and cstime, each in whole ticks, do not show; ns.
pub(super) const HIDDEN: u64 = 2 * TICK;

/// Account of one process: whose child it is, and its balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) id: Identity,
    pub(super) ppid: u32,
    pub(super) cpu: Balance,
    /// An orphan was reparented to this process at some gather: it is a subreaper.
    #[serde(default, rename = "adopts")]
    pub(super) is_subreaper: bool,
}

impl Account {
    /// Returns the account of a process born since the last gather, whose times count from 0.
    pub(super) fn of_newborn(id: Identity, ppid: u32) -> Self {
        Self { id, ppid, cpu: Balance::default(), is_subreaper: false }
    }

    /// Returns the account of an older process, whose times count from its first reading.
    pub(super) fn of_first_reading(member: &MemberTimes) -> Self {
        let cpu = Balance { own: member.own, reaped: member.reaped, ..Balance::default() };
        Self { id: member.id, ppid: member.ppid, cpu, is_subreaper: false }
    }

    /// Takes in an exit record. Returns the own time since the last gather, ns.
    pub(super) fn take_in_exit(&mut self, exited: &ExitedMember) -> u64 {
        let own = exited.own.saturating_sub(self.cpu.own);
        self.cpu.own = self.cpu.own.saturating_add(own);
        self.ppid = exited.ppid;
        own
    }
}

/// CPU of one process as of the last gather, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Balance {
    /// Own time.
    pub(super) own: u64,
    /// Reaped time.
    pub(super) reaped: u64,
    /// CPU that was charged before, and that the kernel will still add to the reaped time.
    #[serde(rename = "owed")]
    pub(super) expected: u64,
    /// CPU of orphans that was charged before, and that the kernel will add to the reaped time if it is this process that reaps them.
    /// Unlike `expected`, it is no part of the life of this process.
    #[serde(default, rename = "doubt")]
    pub(super) possible: u64,
    /// Part of `expected` that is `possible` at every ancestor as well. It ends there when the life of this process goes up, which
    /// contains it.
    #[serde(default, rename = "raised")]
    pub(super) possible_above: u64,
}

/// Lives of the children of one process that exited since the last gather, which the rule compares with its Δreaped; ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lives {
    /// Sum of the lives that this process is expected to reap.
    pub(super) all: u64,
    /// Part of `all` that Δreaped may not show yet, since the child exited while the gather was reading.
    pub(super) late: u64,
    /// Part of `all` that is known by exit records.
    pub(super) recorded: u64,
    /// Part of `all` that went up through a child which exited as well: it may be the life of an orphan that a subreaper has reaped.
    pub(super) orphaned: u64,
    /// Part of `orphaned` that is known by exit records.
    pub(super) orphaned_recorded: u64,
    /// Lives of orphans below a descendant that this process may have reaped.
    pub(super) possible: u64,
    /// Part of `possible` that Δreaped may not show yet.
    pub(super) possible_late: u64,
    /// Part of `late` that becomes `possible` at every ancestor.
    pub(super) possible_above: u64,
    /// CPU that was `possible` here since an earlier gather, and is no more.
    pub(super) resolved: u64,
}

impl Lives {
    /// Adds other lives, part by part.
    pub(super) fn add(&mut self, other: Self) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.all, other.all);
        add(&mut self.late, other.late);
        add(&mut self.recorded, other.recorded);
        add(&mut self.orphaned, other.orphaned);
        add(&mut self.orphaned_recorded, other.orphaned_recorded);
        add(&mut self.possible, other.possible);
        add(&mut self.possible_late, other.possible_late);
        add(&mut self.possible_above, other.possible_above);
        add(&mut self.resolved, other.resolved);
    }
}

impl Balance {
    /// Returns the life of this process, as far as it is known: with the lives of its children, and the CPU that is still expected of
    /// earlier ones.
    fn life(self, lives: Lives) -> u64 {
        self.own.saturating_add(self.reaped).saturating_add(self.expected).saturating_add(lives.all)
    }

    /// Returns the life of this process, which exited, as one of the lives below its parent.
    pub(super) fn life_with(self, lives: Lives, is_late: bool, is_recorded: bool) -> Lives {
        let life = self.life(lives);
        let recorded = if is_recorded { life.saturating_sub(lives.all) } else { 0 };
        Lives {
            all: life,
            late: if is_late { life } else { lives.late },
            recorded: recorded.saturating_add(lives.recorded),
            orphaned: lives.all.saturating_add(self.possible_above),
            orphaned_recorded: lives.recorded,
            resolved: lives.resolved.saturating_add(self.possible_above),
            ..Lives::default()
        }
    }

    /// Returns the CPU that a reaped time does not show: `due` where it is positive, else 0.
    pub(super) fn due(self, lives: Lives, reaped: u64) -> u64 {
        (self.expected.saturating_add(lives.all)).saturating_sub(reaped.saturating_sub(self.reaped))
    }

    /// Returns the growth of a reaped time that no life explains: −`due` where that is positive, else 0.
    pub(super) fn excess(self, lives: Lives, reaped: u64) -> u64 {
        reaped.saturating_sub(self.reaped).saturating_sub(self.expected.saturating_add(lives.all))
    }

    /// Returns the part of the lives that an ancestor may have reaped instead of this process.
    ///
    /// No exit record names the process that reaps an orphan. Up to [`HIDDEN`] of the recorded lives count as reaped by this process, since
    /// its ticks may hide as much, unless an ancestor is a subreaper.
    pub(super) fn orphans(
        self,
        lives: Lives,
        reaped: u64,
        is_zombie: bool,
        has_subreaper: impl FnOnce() -> bool,
    ) -> Orphans {
        let due = self.due(lives, reaped);
        let (orphaned, recorded) =
            if is_zombie { (lives.all, lives.recorded) } else { (lives.orphaned, lives.orphaned_recorded) };
        if due.min(orphaned) == 0 {
            return Orphans::default();
        }
        let unrecorded = orphaned.saturating_sub(recorded);
        let hidden = if has_subreaper() { 0 } else { HIDDEN };
        let all = due.min(unrecorded.saturating_add(recorded.min(due.saturating_sub(hidden))));
        let uncertain = all.min(unrecorded.max(lives.late));
        Orphans { certain: all - uncertain, uncertain, late: lives.late }
    }

    /// Takes in the times of a gather, by the rule. Returns the charge. A time that fell counts as one that has not grown.
    pub(super) fn settle(&mut self, lives: Lives, own: u64, reaped: u64, is_stale: bool) -> Charge {
        let own = own.max(self.own);
        let reaped = reaped.max(self.reaped);
        let used = own - self.own;
        let unexplained = self.excess(lives, reaped);
        let possible = self.possible.saturating_sub(lives.resolved).saturating_add(lives.possible);
        let (counted, possible) = (unexplained.saturating_sub(possible), possible.saturating_sub(unexplained));
        let due = self.due(lives, reaped);
        // Both together are no more than the ticks can hide, except for late lives.
        let remembered = |due: u64, late, besides| {
            let hidden = HIDDEN.saturating_sub(besides);
            if is_stale { due } else { due.min(hidden.saturating_add(late)) }
        };
        let expected = remembered(due, lives.late, 0);
        let possible = remembered(possible, lives.possible_late, expected);
        *self = Self { own, reaped, expected, possible, possible_above: lives.possible_above.min(expected) };
        Charge { own: used, reaped: counted }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Account, Balance};
    use crate::kernel::stat::Identity;
    use crate::ledger::tests::{gather, newborn, old};
    use crate::ledger::{Ledger, MemberTimes};

    #[test]
    fn unobserved_children_are_charged_to_their_parent() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0)], &[]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 10, 90)], &[]), [100]);
    }

    #[test]
    fn a_life_counted_before_does_not_count_again_when_it_is_reaped() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 40, 0)], &[]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 100, 0)], &[]), [0, 60]);
        // 5 ms more before it exited, and 30 ms of unobserved children
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 135)], &[]), [35]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 135)], &[]), [0]);
    }

    #[test]
    fn lives_hidden_by_ticks_are_expected_and_lives_reaped_by_no_parent_are_forgotten() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0), newborn(2, 1, 15, 0), newborn(3, 1, 500, 0)], &[]);
        // 2 is reaped: the ticks show 10 of its 15 ms, the other 5 ms come with the next tick
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 10), old(3, 1, 500, 0)], &[]), [0, 0]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 20), old(3, 1, 500, 0)], &[]), [5, 0]);
        // no parent reaps 3: its 500 ms hide the 100 ms of this interval, and 20 ms of the next
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 120)], &[]), [0]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 220)], &[]), [80]);
    }

    #[test]
    fn nothing_expected_is_forgotten_while_a_process_cannot_be_read() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 300, 0)], &[]);
        let stale = MemberTimes { stale: true, ..old(1, 0, 0, 0) };
        assert_eq!(gather(&mut ledger, &[stale], &[]), [0]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 310)], &[]), [10]);
    }

    #[test]
    fn times_that_fall_are_charged_nothing() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 100, 100)], &[]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 50, 50)], &[]), [0]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 101, 102)], &[]), [3]);
    }

    /// A cache file that an earlier version wrote is still read, also without the fields that came later.
    #[test]
    fn an_account_is_cached_under_its_first_names() {
        let cpu = Balance { own: 1, reaped: 2, expected: 3, possible: 4, possible_above: 3 };
        let account = Account { id: Identity { pid: 7, start: 5 }, ppid: 1, cpu, is_subreaper: true };
        let text = concat!(
            r#"{"id":{"pid":7,"start":5},"ppid":1,"#,
            r#""cpu":{"own":1,"reaped":2,"owed":3,"doubt":4,"raised":3},"adopts":true}"#,
        );
        assert_eq!(serde_json::to_string(&account).unwrap(), text);
        assert_eq!(serde_json::from_str::<Account>(text).unwrap(), account);
        let oldest = r#"{"id":{"pid":7,"start":5},"ppid":1,"cpu":{"own":1,"reaped":2,"owed":3}}"#;
        let cpu = Balance { possible: 0, possible_above: 0, ..cpu };
        assert_eq!(serde_json::from_str::<Account>(oldest).unwrap(), Account { cpu, is_subreaper: false, ..account });
    }
}
