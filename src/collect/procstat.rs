//! `procstat`: what `/proc/<pid>/stat` says, in taskstats_exporter's fields.

use serde::{Deserialize, Serialize};

use super::Samples;
use super::accounts::{Accounts, Lacking, Lacks};
use crate::account::{Deaths, Sight};
use crate::encode::{Value, kibibytes, known};
use crate::kernel::stat::{Field, Identity, Stat};
use crate::processes::Presence;

/// User and system time by themselves: the accounting rule, applied to each.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Procstat {
    user: Accounts,
    system: Accounts,
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
        let lacking = |own, reaped| -> Lacking {
            let of = |stat: &&Stat| (stat.id, Lacks { own: !stat.knows(own), reaped: !stat.knows(reaped) });
            stats.iter().map(of).filter(|(_, lacks)| lacks.any()).collect()
        };
        let user = (mode(|stat| stat.utime, |stat| stat.cutime), lacking(Field::Utime, Field::Cutime));
        let system = (mode(|stat| stat.stime, |stat| stat.cstime), lacking(Field::Stime, Field::Cstime));
        let user = self.user.settle(&user.0, &user.1, died_in_user_mode, presence);
        let system = self.system.settle(&system.0, &system.1, died_in_system_mode, presence);
        samples.take_in(user, |sample, user| sample.user = user);
        samples.take_in(system, |sample, system| sample.system = system);
    }
}

/// The fields of a tree: ns, ns, count, bytes. Times only grow.
#[must_use]
pub fn fields_of_tree(user: u64, system: u64, threads: Option<u64>, rss: Option<u64>) -> Vec<(&'static str, Value)> {
    known([("utime", Some(user)), ("stime", Some(system)), ("num_threads", threads), ("rss", rss.map(kibibytes))])
}

/// The fields of one process, as the kernel has them; `rss` in bytes.
#[must_use]
pub fn fields_of_process(stat: &Stat, rss: Option<u64>) -> Vec<(&'static str, Value)> {
    let time = |field, time| stat.knows(field).then_some(time);
    known([
        ("utime", time(Field::Utime, stat.utime)),
        ("stime", time(Field::Stime, stat.stime)),
        ("cutime", time(Field::Cutime, stat.cutime)),
        ("cstime", time(Field::Cstime, stat.cstime)),
        ("num_threads", stat.known_threads().map(u64::from)),
        ("rss", rss.map(kibibytes)),
    ])
}
