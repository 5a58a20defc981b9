//! Plain counters, such as the delays of a process: values that only grow, and that the kernel adds to no parent when the process
//! is reaped. The total of a process and that of a series never fall.

use std::iter::Peekable;
use std::vec::IntoIter;

use serde::{Deserialize, Serialize};

use crate::kernel::stat::Identity;

/// Counters of a process that only grow. The growth between two readings is of the same type, so that it can be added up.
pub trait Counter: Clone + Default {
    /// Returns the growth since an earlier reading: 0 of a value that fell.
    #[must_use]
    fn since(&self, earlier: &Self) -> Self;

    /// Adds growth.
    fn add(&mut self, gained: &Self);
}

/// Result of reading the counters of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The counters as read.
    Known(T),
    /// The process has exited since it was listed: its last reading stays.
    Exited,
    /// The counters could not be read.
    Unknown,
}

/// Counters of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counted<T> {
    id: Identity,
    /// Last reading, if there was one.
    value: Option<T>,
    /// First reading and the growth since. A reading may fall, the total does not.
    total: T,
    /// Growth since the last gather.
    #[serde(skip)]
    gained: T,
    /// The counters could not be read at this gather.
    #[serde(skip)]
    unknown: bool,
}

/// Takes the entry of a process out of entries sorted by pid. Processes are asked for in the same order.
pub fn take_known<T>(before: &mut Peekable<IntoIter<T>>, id: Identity, id_of: impl Fn(&T) -> Identity) -> Option<T> {
    while before.next_if(|known| id_of(known) < id).is_some() {}
    before.next_if(|known| id_of(known) == id)
}

/// Plain counters of processes: one entry for each, however many series it is in.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "T: Counter + Serialize + serde::de::DeserializeOwned")]
pub struct Counters<T> {
    /// Sorted by pid.
    all: Vec<Counted<T>>,
}

impl<T: Counter> Counters<T> {
    /// Settles one gather: for each process, sorted by pid, whether it was born since the last gather, and its counters.
    /// Other processes are forgotten. A first reading counts in full if the process was born since the last gather, else
    /// not at all.
    pub fn settle(&mut self, outcomes: impl IntoIterator<Item = (Identity, bool, Outcome<T>)>) {
        let mut before = std::mem::take(&mut self.all).into_iter().peekable();
        self.all.extend(outcomes.into_iter().map(|(id, newborn, outcome)| {
            let (earlier, mut total) = match take_known(&mut before, id, |counted| counted.id) {
                Some(Counted { value, total, .. }) => (value, total),
                None => (None, T::default()),
            };
            let unknown = matches!(outcome, Outcome::Unknown);
            let (value, gained) = match (outcome, earlier) {
                (Outcome::Known(value), Some(earlier)) => {
                    let gained = value.since(&earlier);
                    total.add(&gained);
                    (Some(value), gained)
                }
                (Outcome::Known(value), None) => {
                    total = value.clone();
                    let gained = if newborn { value.clone() } else { value.since(&value) };
                    (Some(value), gained)
                }
                (Outcome::Exited | Outcome::Unknown, earlier) => (earlier, T::default()),
            };
            Counted { id, value, total, gained, unknown }
        }));
    }

    /// Returns the last reading of a process.
    #[must_use]
    pub fn last(&self, id: Identity) -> Option<&T> {
        self.get(id)?.value.as_ref()
    }

    /// Returns the first reading of a process and the growth since, which never falls. `None`: the counters could not be read at
    /// this gather.
    #[must_use]
    pub fn total(&self, id: Identity) -> Option<&T> {
        let counted = self.get(id).filter(|counted| !counted.unknown && counted.value.is_some())?;
        Some(&counted.total)
    }

    fn get(&self, id: Identity) -> Option<&Counted<T>> {
        let index = self.all.binary_search_by_key(&id, |counted| counted.id).ok()?;
        self.all.get(index)
    }
}

/// Counter of a series: the growth of its members' counters while they were members. It keeps that of exited ones.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally<T> {
    total: T,
    /// The counters of a member could not be read now.
    unknown: bool,
}

impl<T: Counter> Tally<T> {
    /// Takes in one gather: the members, and for each whether its growth since the last gather counts.
    pub fn take_in(&mut self, members: &[(Identity, bool)], counters: &Counters<T>) {
        self.unknown = false;
        for (id, counts) in members {
            match counters.get(*id) {
                Some(counted) if !counted.unknown && *counts => self.total.add(&counted.gained),
                // Adds nothing, but makes every counter exist.
                Some(counted) if !counted.unknown => self.total.add(&counted.gained.since(&counted.gained)),
                _ => self.unknown = true,
            }
        }
    }

    /// Adds the growth of processes that have no counters of their own.
    pub fn credit(&mut self, gained: &T) {
        self.total.add(gained);
    }

    /// Returns the total. `None`: the counters of a member could not be read at this gather.
    #[must_use]
    pub fn total(&self) -> Option<&T> {
        Some(&self.total).filter(|_| !self.unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(pid: u32) -> Identity {
        Identity { pid, start: u64::from(pid) }
    }

    impl Counter for u64 {
        fn since(&self, earlier: &Self) -> Self {
            self.saturating_sub(*earlier)
        }

        fn add(&mut self, gained: &Self) {
            *self += gained;
        }
    }

    /// Series of one process, gather by gather: the reading, whether the process is newborn, and the total.
    #[test]
    fn a_counter_grows_by_the_difference_of_two_readings() {
        use Outcome::{Exited, Known, Unknown};
        type Gather = (Outcome<u64>, bool, Option<u64>);
        let cases: [&[Gather]; 7] = [
            &[(Known(70), false, Some(0)), (Known(75), false, Some(5)), (Known(75), false, Some(5))],
            &[(Known(70), true, Some(70)), (Known(75), false, Some(75))],
            &[(Known(70), false, Some(0)), (Known(60), false, Some(0)), (Known(65), false, Some(5))],
            &[(Known(70), false, Some(0)), (Unknown, false, None), (Known(80), false, Some(10))],
            &[(Known(70), false, Some(0)), (Exited, false, Some(0))],
            &[(Unknown, true, None), (Known(70), false, Some(0)), (Known(71), false, Some(1))],
            &[(Exited, false, Some(0)), (Known(70), false, Some(0))],
        ];
        for case in cases {
            let (mut counters, mut tally) = (Counters::default(), Tally::default());
            for (at, (outcome, newborn, total)) in case.iter().enumerate() {
                counters.settle([(id(7), *newborn, *outcome)]);
                tally.take_in(&[(id(7), true)], &counters);
                assert_eq!(tally.total().copied(), *total, "{case:?} at {at}");
            }
        }
    }

    /// A reading that falls is a new base: the total stays, and grows from there.
    #[test]
    fn the_total_of_a_process_never_falls() {
        let mut counters = Counters::default();
        let totals = [100_u64, 190, 110, 120, 200].map(|value| {
            counters.settle([(id(7), false, Outcome::Known(value))]);
            counters.total(id(7)).copied()
        });
        assert_eq!(totals, [100, 190, 190, 200, 280].map(Some));
    }

    #[test]
    fn a_tally_keeps_the_growth_of_exited_processes_and_leaves_out_growth_that_does_not_count() {
        let (mut counters, mut tally) = (Counters::default(), Tally::default());
        let known = |pid, value| (id(pid), true, Outcome::Known(value));
        counters.settle([known(1, 10_u64), known(2, 20), known(3, 40)]);
        tally.take_in(&[(id(1), true), (id(2), true), (id(3), false)], &counters);
        assert_eq!(tally.total(), Some(&30));
        counters.settle([known(1, 11)]);
        tally.take_in(&[(id(1), true)], &counters);
        assert_eq!(tally.total(), Some(&31));
        assert_eq!((counters.total(id(1)), counters.total(id(2))), (Some(&11), None));
        tally.take_in(&[(id(1), true), (id(9), true)], &counters);
        assert_eq!(tally.total(), None, "a member whose counters were never read");
    }
}
