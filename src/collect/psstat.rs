//! `psstat`: CPU, memory and number of processes of a tree. Here are the times of a member, for its account of CPU, and
//! MemTotal.

use std::io;

use super::accounts::Lacks;
use crate::kernel::procfs::Proc;
use crate::kernel::stat::{Field, Stat};
use crate::ledger::MemberTimes;
use crate::log::{Complaints, Trouble};
use crate::processes::{ProcessSource, Processes};

/// Returns the times of a member for the accounting rule, and which of them are unknown.
///
/// utime + stime are in ticks, rounded down: a hundred zombies of 5 ms each show nothing. The own time is the largest
/// of three lower bounds: these ticks; the leader's schedstat, exact to the ns, which is read only where it can matter,
/// of zombies and young processes; and the exit record of a zombie, which has all its threads.
///
/// A schedstat that cannot be read goes to `complain`. The schedstat of a process with one thread replaces ticks that
/// are unknown.
pub(super) fn times(
    stat: &Stat,
    processes: &Processes,
    source: &mut dyn ProcessSource,
    complain: impl FnOnce(io::Error),
) -> (MemberTimes, Lacks) {
    let ticks = stat.known_cpu();
    let matters = stat.is_zombie() || processes.is_young(stat.id) || ticks.is_none();
    let exact = if matters { source.leader_time(stat.id.pid) } else { Ok(None) };
    let exact = exact.unwrap_or_else(|error| {
        complain(error);
        None
    });
    let recorded = processes.record(stat.id);
    let member = MemberTimes {
        id: stat.id,
        ppid: stat.ppid,
        birth_parent: processes.birth_parent(stat),
        own: stat.cpu().max(exact.unwrap_or(0)).max(recorded.map_or(0, |record| record.used.cpu)),
        reaped: stat.cutime.saturating_add(stat.cstime),
        zombie: stat.is_zombie(),
        newborn: processes.is_newborn(stat.id),
        stale: processes.is_stale(stat.id),
    };
    // Some kernels have the file, and count nothing.
    let is_exact = exact.is_some_and(|exact| exact > 0) && !stat.may_have_threads();
    let knows_reaped = stat.knows(Field::Cutime) && stat.knows(Field::Cstime);
    (member, Lacks { own: ticks.is_none() && !is_exact, reaped: !knows_reaped })
}

/// MemTotal, read once a minute: it hardly ever changes, and costs as much to read as ten processes.
#[derive(Debug, Default)]
pub struct MemTotal {
    /// CLOCK_MONOTONIC (ns) when it was read, and bytes.
    read: Option<(u64, u64)>,
}

impl MemTotal {
    /// Time after which it is read again, ns.
    const GOOD_FOR: u64 = 60_000_000_000;

    /// Returns MemTotal, bytes, if known. `now` is CLOCK_MONOTONIC, ns.
    pub fn get(&mut self, proc: &Proc, now: u64, complaints: &mut Complaints) -> Option<u64> {
        if self.read.is_none_or(|(at, _)| now.saturating_sub(at) >= Self::GOOD_FOR) {
            self.read = mem_total(proc, complaints).map(|bytes| (now, bytes));
        }
        self.read.map(|(_, bytes)| bytes)
    }
}

/// Reads MemTotal, bytes. A failure becomes a complaint.
pub fn mem_total(proc: &Proc, complaints: &mut Complaints) -> Option<u64> {
    let error = match proc.mem_total() {
        Ok(bytes) => return Some(bytes),
        Err(error) => error,
    };
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; in a systemd unit, ProcSubset=pid hides it: set ProcSubset=all",
        _ => "",
    };
    let meminfo = proc.root().join("meminfo");
    complaints.add(Trouble::Failed, format!("p_mem is left out: {}: {error}{remedy}", meminfo.display()));
    None
}
