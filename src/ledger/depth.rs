//! Depth of accounts: the order in which the lives of exited processes go up. A child comes before its parent, whose life contains
//! the life of the child.

use std::cmp::Reverse;

use super::Ledger;

/// Number of ancestors with accounts of each account, computed when it is first needed.
pub(super) struct Depths(Vec<Option<u32>>);

impl Depths {
    /// Returns depths of `count` accounts, none of them computed.
    pub(super) fn new(count: usize) -> Self {
        Self(vec![None; count])
    }

    /// Returns accounts with their depths, the deepest first.
    pub(super) fn deepest_first(&mut self, indexes: impl Iterator<Item = usize>, ledger: &Ledger) -> Vec<(u32, usize)> {
        let mut order: Vec<_> = indexes.map(|index| (self.get(index, ledger), index)).collect();
        order.sort_unstable_by_key(|(depth, index)| Reverse((*depth, *index)));
        order
    }

    /// Returns the depth of one account, and computes those of its ancestors. Parents may form a circle, in theory, since /proc is not read
    /// at one moment: an account that is met again ends the search.
    fn get(&mut self, index: usize, ledger: &Ledger) -> u32 {
        let mut unknown = Vec::new();
        let mut next = Some(index);
        let mut depth = 0;
        while let Some(index) = next {
            let Some(known) = self.0.get_mut(index) else { break };
            if let Some(known) = known {
                depth = known.saturating_add(1);
                break;
            }
            *known = Some(0); // ends the search if parents form a circle
            unknown.push(index);
            next = ledger.parent(index);
        }
        for index in unknown.into_iter().rev() {
            if let Some(known) = self.0.get_mut(index) {
                *known = Some(depth);
            }
            depth = depth.saturating_add(1);
        }
        self.0.get(index).copied().flatten().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use crate::kernel::stat::Identity;
    use crate::ledger::tests::{gather, old};
    use crate::ledger::{Ledger, MemberTimes};

    #[test]
    fn lives_go_up_deepest_first_to_the_process_that_is_alive() {
        let mut ledger = Ledger::default();
        let tree = [old(1, 0, 0, 0), old(2, 1, 50, 0), old(3, 2, 70, 0), old(4, 3, 90, 0)];
        gather(&mut ledger, &tree, &[]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 211)], &[]), [1]);
    }

    #[test]
    fn depth_follows_parents_not_pids() {
        let mut ledger = Ledger::default();
        let tree = [old(2, 9, 50, 0), old(5, 7, 90, 0), old(7, 2, 70, 0), old(9, 0, 0, 0)];
        gather(&mut ledger, &tree, &[]);
        assert_eq!(gather(&mut ledger, &[old(9, 0, 0, 211)], &[]), [1]);
    }

    #[test]
    fn a_deep_chain_whose_pids_wrapped_is_charged_once() {
        const DEEP: u32 = 3000;
        // From the top: 1500, 1499, … 1, 3000, 2999, …
        let pid = |depth: u32| (2 * DEEP - depth + DEEP / 2 - 1) % DEEP + 1;
        let link = |depth: u32| {
            let parent = if depth == 0 { 9999 } else { pid(depth - 1) };
            MemberTimes { id: Identity { pid: pid(depth), start: u64::from(depth) }, ..old(1, parent, 2, 0) }
        };
        let root = |reaped| MemberTimes { id: Identity { pid: 9999, start: 0 }, ..old(1, 0, 0, reaped) };
        let mut all: Vec<_> = (0..DEEP).map(link).chain([root(0)]).collect();
        all.sort_unstable_by_key(|member| member.id);
        let mut ledger = Ledger::default();
        gather(&mut ledger, &all, &[]);
        assert_eq!(gather(&mut ledger, &[root(u64::from(DEEP) * 2 + 7)], &[]), [7]);
    }

    #[test]
    fn parents_that_go_round_in_a_circle_end() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 2, 5, 0), old(2, 1, 5, 0)], &[]);
        assert_eq!(gather(&mut ledger, &[], &[]), [0; 0]);
    }
}
