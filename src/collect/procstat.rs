//! `procstat`: what `/proc/<pid>/stat` says, in taskstats_exporter's fields.

use serde::{Deserialize, Serialize};

use super::Samples;
use crate::account::{Deaths, Ledger, Sight};
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
        [died_in_user_mode, died_in_system_mode]: [&Deaths; 2],
        presence: impl Fn(Identity) -> Presence + Copy,
        samples: &mut Samples,
    ) {
        let mode = |own: fn(&Stat) -> u64, reaped: fn(&Stat) -> u64| -> Vec<Sight> {
            let sights = stats.iter().zip(sights);
            sights.map(|(stat, sight)| Sight { own: own(stat), reaped: reaped(stat), ..*sight }).collect()
        };
        let user = self.user.settle(&mode(|stat| stat.utime, |stat| stat.cutime), died_in_user_mode, presence);
        let system = self.system.settle(&mode(|stat| stat.stime, |stat| stat.cstime), died_in_system_mode, presence);
        samples.take_in(user, |sample, user| sample.user = user);
        samples.take_in(system, |sample, system| sample.system = system);
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
