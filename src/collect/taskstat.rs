//! `taskstat`: the delays of processes (waiting for CPU, block I/O, swap, …), by the kernel's delay accounting.

use std::io;

use serde::{Deserialize, Serialize};

use super::delay_accounting::DelayAccounting;
use super::{Look, Plan};
use crate::encode::Value;
use crate::kernel::capability::Capability;
use crate::kernel::netlink;
use crate::kernel::procfs::Proc;
use crate::kernel::stat::{Identity, Stat, TICK};
use crate::kernel::taskstats::{Ask, BLKIO_DELAY, COUNTERS, NAMES, is_since_boot};
use crate::ledger::{Counter, Counters, Outcome};
use crate::log::{Complaint, Trouble};
use crate::output::Measurement;
use crate::processes::Processes;
use crate::processes::Unobserved;

/// Counters of a process, in the order of [`NAMES`]: counts, and ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts([u64; COUNTERS]);

impl Counts {
    /// Returns the sums over processes that started and exited unobserved.
    #[must_use]
    pub fn of(unobserved: &Unobserved) -> Self {
        Self(unobserved.delays)
    }

    /// Number of times that the process was put on a CPU.
    fn on_cpu(&self) -> u64 {
        self.0.first().copied().unwrap_or(0)
    }
}

impl Counter for Counts {
    fn since(&self, earlier: &Self) -> Self {
        let mut gained = *self;
        for (now, earlier) in gained.0.iter_mut().zip(earlier.0) {
            *now = now.saturating_sub(earlier);
        }
        gained
    }

    fn add(&mut self, gained: &Self) {
        for (total, gained) in self.0.iter_mut().zip(gained.0) {
            *total = total.saturating_add(gained);
        }
    }
}

/// Delays of each process as of the last gather, by taskstats over generic netlink.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Taskstat {
    counters: Counters<Counts>,
    /// Block I/O delay that the kernel has added wrongly ([`is_since_boot`]), ns, of each process that has any.
    #[serde(default)]
    made_up: Vec<(Identity, u64)>,
    /// Number of counters that the kernel has.
    #[serde(skip)]
    known: usize,
}

impl Taskstat {
    /// Returns the counters of each process.
    #[must_use]
    pub fn counters(&self) -> &Counters<Counts> {
        &self.counters
    }

    /// Asks the kernel for each process that needs it, once in a gather. `at` is CLOCK_MONOTONIC, ns. If no process
    /// needs it so far, the plugin's own is asked for, since the number of counters has to be known all the same.
    pub(super) fn sample(&mut self, plan: &Plan, at: u64, look: &mut Look) {
        let ids = plan.ids_of(|needs| needs.taskstat);
        let mut outcomes = vec![Outcome::Unknown; ids.len()];
        if !ids.is_empty() || (plan.wants(Measurement::Taskstat) && self.known == 0) {
            let mut pids: Vec<_> = ids.iter().map(|id| id.pid).collect();
            if pids.is_empty() {
                pids.push(std::process::id());
            }
            let (what, wrong) = match self.ask(&pids, look.taskstats, &mut outcomes) {
                Ok(failed) => ("taskstat of some is left out", failed),
                Err(error) => ("taskstat is left out", Some((None, error))),
            };
            if let Some((pid, error)) = wrong {
                let stat = pid.and_then(|pid| look.processes.get(pid));
                let with = stat.map(Stat::called).or_else(|| pid.map(|pid| format!("process {pid}")));
                let (trouble, why) = remedy(&error);
                look.complaints.complain(Complaint { trouble, what: what.to_owned(), with, why });
            }
        }
        for (id, outcome) in ids.iter().zip(&mut outcomes) {
            if let Some(delays) = look.processes.record(*id).and_then(|record| record.delays.as_ref()) {
                *outcome = Outcome::Known(Counts(**delays));
            } else if matches!(outcome, Outcome::Known(counts) if !self.is_of_the_living(*id, counts, look)) {
                *outcome = Outcome::Exited;
            }
        }
        let newborn = |id| look.processes.is_newborn(id);
        let mut all: Vec<_> = ids.into_iter().zip(outcomes).map(|(id, outcome)| (id, newborn(id), outcome)).collect();
        all.extend(self.last_words(look.processes));
        all.sort_by_key(|(id, ..)| *id);
        all.dedup_by_key(|(id, ..)| *id); // a process that exited while it was read is there twice
        self.made_up.retain(|(id, _)| all.binary_search_by_key(id, |(id, ..)| *id).is_ok());
        for (id, _, outcome) in &mut all {
            if let Outcome::Known(Counts(values)) = outcome {
                values[BLKIO_DELAY] = self.really_waited(*id, values[BLKIO_DELAY], at, look.processes);
            }
        }
        self.counters.settle(all);
    }

    /// Returns the block I/O delay of a process, ns: the kernel's number `said` without gains that it added wrongly
    /// ([`is_since_boot`]), now or at an earlier gather.
    fn really_waited(&mut self, id: Identity, said: u64, at: u64, processes: &Processes) -> u64 {
        let made_up = self.made_up.iter().find(|(of, _)| *of == id).map_or(0, |(_, made_up)| *made_up);
        let delay = said.saturating_sub(made_up);
        let earlier = self.counters.last(id).map(|Counts(values)| values[BLKIO_DELAY]);
        let [now, before, _] = processes.listings().map(Option::unwrap_or_default);
        let since = if earlier.is_some() { before } else { id.start.saturating_mul(TICK) };
        let threads =
            processes.get_exactly(id).map_or(1, |stat| u64::from(stat.known_threads().unwrap_or(u32::MAX).max(1)));
        let earlier = earlier.unwrap_or(0);
        let gained = delay.saturating_sub(earlier);
        if !is_since_boot(gained, now.saturating_sub(since).saturating_mul(threads), at) {
            return delay;
        }
        self.made_up.retain(|(of, _)| *of != id);
        self.made_up.push((id, made_up.saturating_add(gained)));
        earlier
    }

    /// Returns the counters in the exit records of processes that were counted before, or started since the last
    /// gather.
    fn last_words<'a>(
        &'a self,
        processes: &'a Processes,
    ) -> impl Iterator<Item = (Identity, bool, Outcome<Counts>)> + 'a {
        let known = processes.exited().filter(|(id, _)| self.counters.last(*id).is_some() || processes.is_newborn(*id));
        known.filter_map(|(id, record)| {
            let delays = record.delays.as_ref()?;
            Some((id, processes.is_newborn(id), Outcome::Known(Counts(**delays))))
        })
    }

    /// Returns whether an answer is that of a living process, and can be used.
    ///
    /// The kernel no longer counts the threads of a zombie, and for a while it counts an exiting thread twice, if the
    /// process ever had another. So the answer for an exiting process is not used. If the counters have grown by much
    /// or fallen, or are the first of a new process, its stat is read again, since it may be exiting by now.
    fn is_of_the_living(&self, id: Identity, counts: &Counts, look: &mut Look) -> bool {
        let Some(stat) = look.processes.get_exactly(id) else { return false };
        if is_dying(stat, look.proc) {
            return false;
        }
        let is_suspect = match self.counters.last(id).map(Counts::on_cpu) {
            Some(earlier) => counts.on_cpu() < earlier || counts.on_cpu() - earlier > earlier / 16,
            None => look.processes.is_newborn(id),
        };
        !is_suspect || matches!(look.proc.stat_of(id), Ok(Some(stat)) if !is_dying(&stat, look.proc))
    }

    /// Asks for some processes. Returns the first failure, with the pid.
    ///
    /// # Errors
    /// The kernel cannot be asked at all.
    fn ask(
        &mut self,
        pids: &[u32],
        taskstats: &mut dyn Ask,
        outcomes: &mut [Outcome<Counts>],
    ) -> io::Result<Option<(Option<u32>, io::Error)>> {
        let (known, mut failed) = (&mut self.known, None);
        taskstats.ask(pids, &mut |index, answer| {
            let outcome = match answer {
                Ok(Some(delays)) => {
                    *known = delays.known;
                    Outcome::Known(Counts(delays.values))
                }
                Ok(None) => Outcome::Exited,
                Err(error) => {
                    failed.get_or_insert((pids.get(index).copied(), error));
                    Outcome::Unknown
                }
            };
            if let Some(place) = outcomes.get_mut(index) {
                *place = outcome;
            }
        })?;
        Ok(failed)
    }

    /// Returns the fields that the kernel counts, of a process or of a tree.
    #[must_use]
    pub fn fields(&self, counts: &Counts, delays: DelayAccounting) -> Vec<(&'static str, Value)> {
        let fields = NAMES.into_iter().zip(counts.0).take(self.known);
        let counted = fields.filter(|(name, _)| delays.counts(name));
        counted.map(|(name, value)| (name, Value::Integer(value))).collect()
    }
}

/// Returns whether the last thread of a process is exiting or has exited. The stat shows the leader; where only the
/// leader has exited, each other thread is looked at.
fn is_dying(stat: &Stat, proc: &mut Proc) -> bool {
    if !stat.is_leaderless() {
        return stat.exiting || stat.is_zombie();
    }
    let mut tids = Vec::new();
    let listed = proc.threads(stat.id.pid, &mut tids);
    let mut lives = |tid| matches!(proc.thread_stat(stat.id.pid, tid), Ok(Some(thread)) if !thread.exiting);
    !matches!(listed, Ok(Some(()))) || !tids.into_iter().any(&mut lives)
}

/// Returns why the kernel cannot be asked, and what to do.
fn remedy(error: &io::Error) -> (Trouble, String) {
    match error.kind() {
        io::ErrorKind::PermissionDenied => (Trouble::Denied, Capability::NetAdmin.is_needed()),
        io::ErrorKind::NotFound => (Trouble::Failed, "the kernel was built without CONFIG_TASKSTATS".to_owned()),
        _ if netlink::is_forbidden(error) => (Trouble::Denied, netlink::IS_FORBIDDEN.to_owned()),
        _ => (Trouble::Failed, error.to_string()),
    }
}
