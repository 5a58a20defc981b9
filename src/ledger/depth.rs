//! Depth of accounts: the order in which the lives of exited processes go up.

use super::Ledger;

/// Number of ancestors of each account that have accounts; computed once for each account that it is asked of.
pub(super) struct Depths(Vec<Option<u32>>);

impl Depths {
    /// Depths of so many accounts, none of them computed.
    pub(super) fn new(count: usize) -> Self {
        Self(vec![None; count])
    }

    /// Returns the depth of one account, and computes those of its ancestors. Ends even if parents go round in a circle, which is possible
    /// in theory: /proc is not read all at one moment.
    pub(super) fn get(&mut self, index: usize, ledger: &Ledger) -> u32 {
        let mut unknown = Vec::new();
        let mut next = Some(index);
        let mut depth = 0;
        while let Some(index) = next {
            let Some(known) = self.0.get_mut(index) else { break };
            if let Some(known) = known {
                depth = known.saturating_add(1);
                break;
            }
            *known = Some(0); // if this one is met again, it is a circle
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
