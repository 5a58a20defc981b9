//! `taskstat`: what processes wait for, by the kernel's delay accounting.

use std::io;

use serde::{Deserialize, Serialize};

use super::delay_accounting::DelayAccounting;
use super::{Look, Plan};
use crate::account::{Counter, Counters, Outcome};
use crate::encode::Value;
use crate::kernel::capability::Capability;
use crate::kernel::procfs::Proc;
use crate::kernel::taskstats::{COUNTERS, NAMES, Taskstats};
use crate::log::Trouble;
use crate::output::Measurement;

/// What the kernel counts of a process: counts, and ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts([u64; COUNTERS]);

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

/// Asks the kernel for the delays of each process, and remembers what it said.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Taskstat {
    #[serde(skip)]
    socket: Option<Taskstats>,
    counters: Counters<Counts>,
    /// How many of the counters the kernel has.
    #[serde(skip)]
    known: usize,
}

impl Taskstat {
    /// What was read of each process.
    #[must_use]
    pub fn counters(&self) -> &Counters<Counts> {
        &self.counters
    }

    /// One gather: asks for each process of which it is needed. If there is none so far, it asks for the plugin's own, since
    /// what the kernel can tell has to be known all the same.
    pub(super) fn sample(&mut self, plan: &Plan, look: &mut Look) {
        let ids = plan.ids_of(|needs| needs.taskstat);
        let mut outcomes = vec![Outcome::Unknown; ids.len()];
        if !ids.is_empty() || (plan.wants(Measurement::Taskstat) && self.known == 0) {
            let mut pids: Vec<_> = ids.iter().map(|id| id.pid).collect();
            if pids.is_empty() {
                pids.push(std::process::id());
            }
            if let Err(error) = self.ask(&pids, look.proc, &mut outcomes) {
                let (trouble, remedy) = remedy(&error);
                look.complaints.add(trouble, format!("taskstat is left out: {remedy}"));
            }
        }
        let newborn = |id| look.processes.is_newborn(id);
        self.counters.settle(ids.into_iter().zip(outcomes).map(|(id, outcome)| (id, newborn(id), outcome)));
    }

    fn ask(&mut self, pids: &[u32], proc: &mut Proc, outcomes: &mut [Outcome<Counts>]) -> io::Result<()> {
        if !proc.is_of_our_pid_namespace() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{} is of another pid namespace, whose pids netlink does not know; run the plugin in that namespace, \
                     as with docker run --pid=host",
                    proc.root().display()
                ),
            ));
        }
        let socket = match &mut self.socket {
            Some(socket) => socket,
            none => none.insert(Taskstats::open()?),
        };
        let (known, mut failed) = (&mut self.known, None);
        socket.query(pids, |index, answer| {
            let outcome = match answer {
                Ok(Some(delays)) => {
                    *known = delays.known;
                    Outcome::Known(Counts(delays.values))
                }
                Ok(None) => Outcome::Gone,
                Err(error) => {
                    failed.get_or_insert(error);
                    Outcome::Unknown
                }
            };
            if let Some(place) = outcomes.get_mut(index) {
                *place = outcome;
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// The fields that are known, of a process or of a tree.
    #[must_use]
    pub fn fields(&self, counts: &Counts, delays: DelayAccounting) -> Vec<(&'static str, Value)> {
        let fields = NAMES.into_iter().zip(counts.0).take(self.known);
        let counted = fields.filter(|(name, _)| delays.counts(name));
        counted.map(|(name, value)| (name, Value::Integer(value))).collect()
    }
}

/// Why nothing can be asked, and what to do.
fn remedy(error: &io::Error) -> (Trouble, String) {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let remedy = Capability::NetAdmin.remedy();
            (Trouble::Denied, format!("it takes {}; {remedy}", Capability::NetAdmin))
        }
        io::ErrorKind::NotFound => {
            (Trouble::Failed, "the kernel has none: it takes one built with CONFIG_TASKSTATS".to_owned())
        }
        _ => (Trouble::Failed, error.to_string()),
    }
}
