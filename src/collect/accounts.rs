//! Accounts of the members' CPU, also of members one of whose times is unknown.
//!
//! A member with an account whose time becomes unknown keeps the account: for the ledger the time stands still, since a
//! time that falls counts as one that stands, and the CPU used meanwhile counts once the time is known again. But no
//! account is opened while a time is unknown: all that the process ever used would count as new later. Until every time
//! of such a process is known, its own time is counted aside, without the accounting rule.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kernel::stat::Identity;
use crate::ledger::{Charge, Charges, Counter, Counters, Exits, Ledger, MemberTimes, Outcome, Tally};
use crate::processes::Presence;

/// Times of a member that are unknown; the member has lower bounds instead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lacks {
    pub own: bool,
    pub reaped: bool,
}

impl Lacks {
    /// Returns whether either is unknown.
    pub(super) fn any(self) -> bool {
        self.own || self.reaped
    }
}

/// Processes one of whose times is unknown.
pub(super) type Lacking = BTreeMap<Identity, Lacks>;

/// Own time of a process, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Own(u64);

impl Counter for Own {
    fn since(&self, earlier: &Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    fn add(&mut self, gained: &Self) {
        self.0 = self.0.saturating_add(gained.0);
    }
}

/// Ledger, and the own time of processes that have no account yet.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Accounts {
    #[serde(flatten)]
    ledger: Ledger,
    #[serde(default)]
    aside: Counters<Own>,
}

impl Accounts {
    /// Returns whether the process was counted at the last gather, so that all it has used since counts.
    pub(super) fn knows(&self, id: Identity) -> bool {
        self.ledger.knows(id) || self.aside.last(id).is_some()
    }

    /// Settles one gather, as [`Ledger::settle`] does.
    pub(super) fn settle(
        &mut self,
        members: &[MemberTimes],
        lacking: &Lacking,
        exits: &Exits,
        presence: impl Fn(Identity) -> Presence + Copy,
    ) -> Charges {
        if lacking.is_empty() && self.aside == Counters::default() {
            return self.ledger.settle(members, exits, presence);
        }
        let mut with_account = Vec::with_capacity(members.len());
        let (mut aside, mut outcomes) = (Vec::new(), Vec::new());
        for (place, member) in members.iter().enumerate() {
            let lacks = lacking.get(&member.id).copied().unwrap_or_default();
            let (last, has_account) = (self.aside.last(member.id), self.ledger.knows(member.id));
            let opens_none = lacks.any() && !has_account && !member.newborn;
            if opens_none || (last.is_some() && !has_account) {
                let own = Own(last.map_or(0, |last| last.0).max(member.own));
                let outcome = if lacks.own { Outcome::Unknown } else { Outcome::Known(own) };
                outcomes.push((member.id, false, outcome));
                aside.push((place, member.id, opens_none));
            }
            if !opens_none {
                with_account.push(MemberTimes { stale: member.stale || lacks.reaped, ..*member });
            }
        }
        self.aside.settle(outcomes);
        let Charges { mut living, exited } = self.ledger.settle(&with_account, exits, presence);
        for (place, id, opens_none) in aside {
            let mut own = Tally::default();
            own.take_in(&[(id, true)], &self.aside);
            let charge = Charge { own: own.total().map_or(0, |Own(own)| *own), reaped: 0 };
            if opens_none {
                living.insert(place.min(living.len()), charge);
            } else if let Some(first) = living.get_mut(place) {
                *first = charge; // its account was opened now, which charges nothing
            }
        }
        Charges { living, exited }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    const PID: u32 = 7;

    /// What one gather shows of a process: what it has used itself and was charged, if that is known.
    type Shown = (Option<u64>, Option<u64>);

    fn member(pid: u32, (own, reaped): Shown, newborn: bool) -> (MemberTimes, Lacks) {
        let (zombie, stale, ppid) = (false, false, 1);
        let lacks = Lacks { own: own.is_none(), reaped: reaped.is_none() };
        let (own, reaped) = (own.unwrap_or(0), reaped.unwrap_or(0));
        let id = Identity { pid, start: 5 };
        (MemberTimes { id, ppid, birth_parent: ppid, own, reaped, zombie, newborn, stale }, lacks)
    }

    /// What it is charged at each gather, between two neighbours that use one ns each.
    fn charges(gathers: &[Shown], newborn: bool) -> Vec<(u64, u64)> {
        let mut accounts = Accounts::default();
        let gather = |(at, shown): (u64, &Shown)| {
            let neighbour = |pid| member(pid, (Some(at), Some(0)), false).0;
            let (shown, lacks) = member(PID, *shown, newborn && at == 1);
            let lacking: Lacking = [(shown.id, lacks)].into_iter().filter(|(_, lacks)| lacks.any()).collect();
            if at == 1 && newborn {
                accounts.settle(&[], &lacking, &Exits::default(), |_| Presence::Present);
            }
            let members = [neighbour(PID - 1), shown, neighbour(PID + 1)];
            let living = accounts.settle(&members, &lacking, &Exits::default(), |_| Presence::Present).living;
            let of_neighbours = [living[0].total(), living[2].total()];
            assert_eq!(of_neighbours, [u64::from(at > 1); 2], "of the neighbours at {at} of {gathers:?}");
            (living[1].own, living[1].reaped)
        };
        (1..).zip(gathers).map(gather).collect()
    }

    #[test]
    fn an_unknown_time_counts_once_it_is_known_and_the_other_at_once() {
        let known = |own, reaped| (Some(own), Some(reaped));
        let (no_reaped, no_own) = (|own| (Some(own), None), |reaped| (None, Some(reaped)));
        type Case<'a> = (&'a str, &'a [Shown], bool, &'a [(u64, u64)]);
        let cases: [Case; 8] = [
            ("all known", &[known(10, 10), known(11, 12)], false, &[(0, 0), (1, 2)]),
            (
                "reaped unknown for a while",
                &[known(10, 10), no_reaped(13), known(14, 17)],
                false,
                &[(0, 0), (3, 0), (1, 7)],
            ),
            ("own unknown for a while", &[known(10, 10), no_own(11), known(14, 11)], false, &[(0, 0), (0, 1), (4, 0)]),
            (
                "reaped unknown from the first reading on: its value then never counts",
                &[no_reaped(10), no_reaped(13), known(15, 900), known(16, 902)],
                false,
                &[(0, 0), (3, 0), (2, 0), (1, 2)],
            ),
            (
                "own unknown from the first reading on",
                &[no_own(10), no_own(11), known(800, 12), known(801, 13)],
                false,
                &[(0, 0), (0, 0), (0, 0), (1, 1)],
            ),
            ("for ever", &[no_reaped(10), no_reaped(13), no_reaped(14)], false, &[(0, 0), (3, 0), (1, 0)]),
            ("nothing at a gather", &[no_reaped(10), (None, None), no_reaped(14)], false, &[(0, 0), (0, 0), (4, 0)]),
            ("of one just born all counts", &[no_reaped(10), known(11, 5)], true, &[(10, 0), (1, 5)]),
        ];
        for (what, gathers, newborn, expected) in cases {
            assert_eq!(charges(gathers, newborn), expected, "{what}");
        }
    }

    /// What a child had used was counted while it lived: the charge for it that shows late is not counted again,
    /// however much it is.
    #[test]
    fn nothing_expected_is_forgotten_while_a_time_is_unknown() {
        const LIFE: u64 = 10_000_000_000;
        let mut accounts = Accounts::default();
        let parent = |reaped| member(PID, (Some(1), reaped), false);
        let child = MemberTimes { ppid: PID, ..member(PID + 1, (Some(LIFE), Some(0)), false).0 };
        let presence = |id: Identity| if id.pid == PID { Presence::Present } else { Presence::Reaped };
        accounts.settle(&[parent(Some(0)).0, child], &Lacking::new(), &Exits::default(), |_| Presence::Present);
        for reaped in [None, None, Some(LIFE)] {
            let (parent, lacks) = parent(reaped);
            let lacking: Lacking = [(parent.id, lacks)].into_iter().filter(|(_, lacks)| lacks.any()).collect();
            let charges = accounts.settle(&[parent], &lacking, &Exits::default(), presence);
            assert_eq!(charges.living[0].total(), 0, "{reaped:?}");
        }
    }
}
