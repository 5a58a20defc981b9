//! Orphans: lives that an ancestor may have reaped instead of the parent.
//!
//! ```text
//! 1 is a subreaper, 2 its child, 3 the child of 2, 4 the child of 3; 3 and 4 exit between two gathers
//! the kernel adds the life of 4 to the reaped time of 1, but `pass_lives_up` adds it to the lives below 2, through 3
//! ```
//!
//! Without this file the CPU of 4 would be charged twice: while 4 was alive, and as growth of 1's reaped time that no life
//! explains, its *excess*. An orphan is reparented to an ancestor or to init. So the life moves to the nearest ancestor with
//! such an excess, or that is known as a subreaper. Where the excess may show later, the life is *possible* at every
//! ancestor: the sum of the charges may be too low, but is never too high.

use super::balance::{Account, Lives};
use super::depth::Depths;
use super::{Exits, Ledger, MemberTimes};

/// Lives below one process that an ancestor may have reaped instead, and that have not moved to one; ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Orphans {
    /// Recorded lives: the reaped time of the process that reaped them shows them, except for hidden ticks.
    pub(super) certain: u64,
    /// Lives that are not recorded, or that no reaped time may show yet.
    pub(super) uncertain: u64,
    /// Part of both that no reaped time may show yet.
    pub(super) late: u64,
}

impl Orphans {
    fn are_none(self) -> bool {
        self.certain == 0 && self.uncertain == 0
    }

    /// Compares the lives with the excess of an ancestor. Returns the part that the process below does not expect any more, and the lives
    /// for the ancestor.
    fn meet(&mut self, excess: u64, is_subreaper: bool) -> (u64, Lives) {
        let uncertain = self.uncertain.min(excess);
        let shown = self.certain.min(excess - uncertain);
        self.uncertain -= uncertain;
        self.certain -= shown;
        let (all, left) = (uncertain.saturating_add(shown), self.uncertain);
        if !is_subreaper {
            return (shown, Lives { all, possible: left, possible_late: self.late.min(left), ..Lives::default() });
        }
        // The rest will show here later, unless the subreaper was exiting, so that the orphan was reparented further up.
        let certain = std::mem::take(&mut self.certain);
        let all = all.saturating_add(certain).saturating_add(left);
        (shown.saturating_add(certain), Lives { all, late: self.late.min(all), ..Lives::default() })
    }
}

impl Ledger {
    /// Marks subreapers: processes to which a process with an account was reparented.
    pub(super) fn note_subreapers(&mut self, members: &[MemberTimes], exits: &Exits) {
        let now = members.iter().map(|member| (member.id, member.ppid));
        let now = now.chain(exits.members.iter().map(|exited| (exited.id, exited.ppid)));
        let reparented = now.filter(|(id, ppid)| {
            self.find(*id).and_then(|index| self.accounts.get(index)).is_some_and(|account| account.ppid != *ppid)
        });
        let subreapers: Vec<_> = reparented.filter_map(|(id, ppid)| self.find_before(ppid, id.start)).collect();
        let unobserved = exits.unobserved.iter().filter(|below| below.is_subreaper);
        let unobserved: Vec<_> = unobserved.filter_map(|below| self.find(below.id)).collect();
        for index in subreapers.into_iter().chain(unobserved) {
            if let Some(account) = self.accounts.get_mut(index) {
                account.is_subreaper = true;
            }
        }
    }

    /// Ends CPU that was possible at the ancestors of a member, where the lives below the member contain it by now.
    pub(super) fn resolve_possible(&mut self, members: &[MemberTimes]) {
        let resolved =
            self.lives.iter().filter(|(index, lives)| lives.resolved > 0 && self.is_member(**index, members));
        let resolved: Vec<_> = resolved.map(|(index, lives)| (*index, lives.resolved)).collect();
        for (index, resolved) in resolved {
            let ancestors: Vec<_> = self.ancestors(index).take(self.accounts.len()).collect();
            ancestors.into_iter().for_each(|above| self.add_lives(above, Lives { resolved, ..Lives::default() }));
        }
    }

    /// Moves the lives of orphans to ancestors that may have reaped them, those below the deepest process first.
    pub(super) fn place_orphans(&mut self, members: &[MemberTimes], depths: &mut Depths) {
        let with_lives = self.lives.iter().filter(|(_, lives)| lives.all > 0).map(|(index, _)| *index);
        let parents = depths.deepest_first(with_lives, self);
        let is_any_subreaper = self.accounts.iter().any(|account| account.is_subreaper);
        for (depth, index) in parents {
            let Some(member) = self.member(index, members) else { continue };
            let Some(Account { cpu, .. }) = self.accounts.get(index).copied() else { continue };
            let lives = self.lives.get(&index).copied().unwrap_or_default();
            let depth = depth as usize;
            let has_subreaper =
                || is_any_subreaper && self.ancestors(index).take(depth).any(|above| self.is_subreaper(above, members));
            let mut orphans = cpu.orphans(lives, member.reaped, member.zombie, has_subreaper);
            let mut next = self.parent(index);
            for _ in 0..depth {
                let Some(above) = next.filter(|_| !orphans.are_none()) else { break };
                next = self.parent(above);
                let Some(member) = self.member(above, members) else { continue };
                let Some(Account { cpu, .. }) = self.accounts.get(above).copied() else { continue };
                let lives = self.lives.get(&above).copied().unwrap_or_default();
                let is_subreaper = self.is_subreaper(above, members);
                let (moved, lives) = orphans.meet(cpu.excess(lives, member.reaped), is_subreaper);
                self.add_lives(above, lives);
                if let Some(lives) = self.lives.get_mut(&index) {
                    lives.all = lives.all.saturating_sub(moved);
                }
            }
            if let Some(lives) = self.lives.get_mut(&index) {
                lives.possible_above = orphans.uncertain.min(orphans.late);
            }
        }
    }

    /// Returns whether a process is known as a subreaper, and can still reap.
    fn is_subreaper(&self, index: usize, members: &[MemberTimes]) -> bool {
        let is_known = self.accounts.get(index).is_some_and(|account| account.is_subreaper);
        is_known && self.member(index, members).is_some_and(|member| !member.zombie)
    }

    fn is_member(&self, index: usize, members: &[MemberTimes]) -> bool {
        self.member(index, members).is_some()
    }

    /// Returns the times of the process with this account, if it is a member now.
    fn member<'a>(&self, index: usize, members: &'a [MemberTimes]) -> Option<&'a MemberTimes> {
        let id = self.accounts.get(index)?.id;
        let found = members.binary_search_by_key(&id, |member| member.id).ok()?;
        members.get(found)
    }

    /// Returns the indexes of the accounts of the ancestors, nearest first.
    fn ancestors(&self, index: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.parent(index), |above| self.parent(*above))
    }
}

#[cfg(test)]
mod tests {
    use crate::ledger::tests::{MS, gather, id, old};
    use crate::ledger::{Exits, Ledger, MemberTimes, UnobservedBelow};
    use crate::processes::Presence;

    #[test]
    fn orphans_that_a_subreaper_reaped_are_not_counted_again() {
        let mut ledger = Ledger::default();
        // 1 is a subreaper; 3 and its child 4 exit at once: 2 reaps 3, and 1 reaps 4
        let tree = [old(1, 0, 0, 0), old(2, 1, 0, 0), old(3, 2, 70, 0), old(4, 3, 9000, 0)];
        gather(&mut ledger, &tree, &[]);
        let charges = gather(&mut ledger, &[old(1, 0, 0, 9001), old(2, 1, 0, 72)], &[]);
        assert_eq!(charges.iter().sum::<u64>(), 3);
    }

    #[test]
    fn the_orphans_of_a_zombie_are_reaped_by_an_ancestor() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 0, 0), old(3, 2, 9000, 0)], &[]);
        let zombie = MemberTimes { zombie: true, ..old(2, 1, 0, 0) };
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 9001), zombie], &[]), [1, 0]);
    }

    /// Exit records of 30 ms of shells below a worker, of which 20 ms came through a shell that exited. The reaped time of the worker shows
    /// 20 ms, and that of its parent has grown by 10 ms that no life explains.
    #[test]
    fn ticks_hide_recorded_lives_unless_there_is_a_subreaper_above() {
        for (is_subreaper, above) in [(false, 10), (true, 0)] {
            let mut ledger = Ledger::default();
            gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 0, 0)], &[]);
            let below = |pid, lives, is_subreaper| {
                let (lives, orphaned) = (lives * MS, lives * MS * 2 / 3);
                UnobservedBelow { id: id(pid), used: lives, lives, orphaned, late: 0, is_subreaper }
            };
            let exits = Exits { members: Vec::new(), unobserved: vec![below(1, 0, is_subreaper), below(2, 30, false)] };
            let charges = ledger.settle(&[old(1, 0, 0, 10), old(2, 1, 0, 20)], &exits, |_| Presence::Present);
            let reaped: Vec<_> = charges.living.iter().map(|charge| charge.reaped / MS).collect();
            assert_eq!(reaped, [above, 30], "{is_subreaper}");
        }
    }

    /// The lower half of a chain vanishes at one gather, and the upper half is reaped by the next one, with 10 s of unobserved children. All
    /// of the 10 s count: the lower half, possible at every ancestor, came up within the life of the upper half.
    #[test]
    fn a_chain_that_exits_while_it_is_read_is_expected_once() {
        let chain = |from: u32, to: u32| (from..to).map(|pid| old(pid, pid - 1, 50, 0));
        let mut ledger = Ledger::default();
        gather(&mut ledger, &chain(1, 101).collect::<Vec<_>>(), &[]);
        let vanished: Vec<_> = (51..101).collect();
        assert_eq!(gather(&mut ledger, &chain(1, 51).collect::<Vec<_>>(), &vanished).iter().sum::<u64>(), 0);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 50, 99 * 50 + 10_000)], &[]), [10_000]);
    }
}
