//! `procstat`: what `/proc/<pid>/stat` says, in taskstats_exporter's fields.

use serde::{Deserialize, Serialize};

use super::Sample;
use crate::account::{Ledger, Sight};
use crate::encode::{Value, kibibytes, known};
use crate::kernel::stat::{Identity, Stat};
use crate::processes::Presence;

/// User and system time by themselves: the accounting rule, applied to each.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Procstat {
    user: Ledger,
    system: Ledger,
}

impl Procstat {
    /// One gather: splits what each of `sights` was charged.
    pub(super) fn settle(
        &mut self,
        stats: &[&Stat],
        sights: &[Sight],
        presence: impl Fn(Identity) -> Presence + Copy,
        samples: &mut [Sample],
    ) {
        let mode = |own: fn(&Stat) -> u64, reaped: fn(&Stat) -> u64| -> Vec<Sight> {
            let sights = stats.iter().zip(sights);
            sights.map(|(stat, sight)| Sight { own: own(stat), reaped: reaped(stat), ..*sight }).collect()
        };
        let user = self.user.settle(&mode(|stat| stat.utime, |stat| stat.cutime), presence);
        let system = self.system.settle(&mode(|stat| stat.stime, |stat| stat.cstime), presence);
        for ((sample, user), system) in samples.iter_mut().zip(user).zip(system) {
            (sample.user, sample.system) = (user, system);
        }
    }
}

/// The fields of a tree: ns, ns, count, bytes. Times only grow.
#[must_use]
pub fn fields_of_tree(user: u64, system: u64, threads: u64, rss: Option<u64>) -> Vec<(&'static str, Value)> {
    known([("utime", Some(user)), ("stime", Some(system)), ("num_threads", Some(threads)), ("rss", rss.map(kibibytes))])
}

/// The fields of one process, as the kernel has them; `rss` in bytes.
#[must_use]
pub fn fields_of_process(stat: &Stat, rss: Option<u64>) -> Vec<(&'static str, Value)> {
    known([
        ("utime", Some(stat.utime)),
        ("stime", Some(stat.stime)),
        ("cutime", Some(stat.cutime)),
        ("cstime", Some(stat.cstime)),
        ("num_threads", Some(u64::from(stat.num_threads))),
        ("rss", rss.map(kibibytes)),
    ])
}
