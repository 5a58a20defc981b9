//! `procstat`: fields of `/proc/<pid>/stat`, named and scaled as in taskstats_exporter.

use serde::{Deserialize, Serialize};

use super::Samples;
use super::accounts::{Accounts, Lacking, Lacks};
use crate::encode::{Value, kibibytes, known};
use crate::kernel::stat::{Field, Identity, Stat};
use crate::ledger::{Exits, MemberTimes};
use crate::processes::Presence;

/// Accounts of user time and of system time: the accounting rule, applied to each.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Procstat {
    user: Accounts,
    system: Accounts,
}

impl Procstat {
    /// Settles one gather, and puts the charges in user and in system mode into the samples.
    pub(super) fn settle(
        &mut self,
        stats: &[&Stat],
        members: &[MemberTimes],
        [user_exits, system_exits]: [&Exits; 2],
        presence: impl Fn(Identity) -> Presence + Copy,
        samples: &mut Samples,
    ) {
        let mode = |own: fn(&Stat) -> u64, reaped: fn(&Stat) -> u64| -> Vec<MemberTimes> {
            let members = stats.iter().zip(members);
            members.map(|(stat, member)| MemberTimes { own: own(stat), reaped: reaped(stat), ..*member }).collect()
        };
        let lacking = |own, reaped| -> Lacking {
            let of = |stat: &&Stat| (stat.id, Lacks { own: !stat.knows(own), reaped: !stat.knows(reaped) });
            stats.iter().map(of).filter(|(_, lacks)| lacks.any()).collect()
        };
        let user = (mode(|stat| stat.utime, |stat| stat.cutime), lacking(Field::Utime, Field::Cutime));
        let system = (mode(|stat| stat.stime, |stat| stat.cstime), lacking(Field::Stime, Field::Cstime));
        let user = self.user.settle(&user.0, &user.1, user_exits, presence);
        let system = self.system.settle(&system.0, &system.1, system_exits, presence);
        samples.take_in(user, |sample, user| sample.user = user);
        samples.take_in(system, |sample, system| sample.system = system);
    }
}

/// Returns the fields of a tree, from ns, ns, a count and bytes. The times never fall.
#[must_use]
pub fn fields_of_tree(user: u64, system: u64, threads: Option<u64>, rss: Option<u64>) -> Vec<(&'static str, Value)> {
    known([("utime", Some(user)), ("stime", Some(system)), ("num_threads", threads), ("rss", rss.map(kibibytes))])
}

/// Returns the fields of one process, as the kernel has them; `rss` in bytes.
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
