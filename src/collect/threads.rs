//! Reading the threads of a process, for the collectors that need each of them.

use std::io;

use super::{Bounds, Look};
use crate::kernel::procfs::{Proc, Schedstat};
use crate::kernel::stat::{Identity, Stat};
use crate::ledger::Outcome;
use crate::log::{Complaint, Trouble};

/// Reader of threads, of one process after the other.
#[derive(Debug, Default)]
pub(super) struct Reader {
    tids: Vec<u32>,
    /// True if a thread that exists has no schedstat.
    lacks_schedstat: bool,
}

impl Reader {
    /// Calls `visit` for each thread of a process, with the process's stat and the tid, ascending. A process with more
    /// threads than `thread_max` is left out, with a complaint.
    pub(super) fn visit(
        &mut self,
        id: Identity,
        bounds: Bounds,
        look: &mut Look,
        mut visit: impl FnMut(&mut Self, &mut Proc, &Stat, u32) -> io::Result<()>,
    ) -> Outcome<()> {
        look.source.keep_up();
        let Some(stat) = look.processes.get_exactly(id) else { return Outcome::Exited };
        if stat.num_threads > bounds.thread_max {
            let (comm, max) = (stat.comm.to_text(), bounds.thread_max);
            let what = format!("Threads of {comm} are left out");
            let (with, why) = (Some(stat.called()), format!("they are more than thread_max = {max}; raise it"));
            look.complaints.complain(Complaint { trouble: Trouble::Bounded, what, with, why });
            return Outcome::Unknown;
        }
        let listed =
            if stat.may_have_threads() { look.proc.threads(id.pid, &mut self.tids) } else { Ok(self.only(id.pid)) };
        let tids = std::mem::take(&mut self.tids);
        let read = match listed {
            Ok(Some(())) => tids.iter().try_for_each(|tid| visit(self, look.proc, stat, *tid)).map(Some),
            other => other,
        };
        self.tids = tids;
        match read {
            Ok(Some(())) => Outcome::Known(()),
            Ok(None) => Outcome::Exited,
            Err(error) => {
                let what = "Threads cannot be read, and are left out".to_owned();
                let (trouble, with, why) = (Trouble::of(&error), Some(stat.called()), error.to_string());
                look.complaints.complain(Complaint { trouble, what, with, why });
                Outcome::Unknown
            }
        }
    }

    fn only(&mut self, pid: u32) -> Option<()> {
        self.tids.clear();
        self.tids.push(pid);
        Some(())
    }

    /// Reads the schedstat of a thread. `None` if it has exited, or the kernel has no schedstat.
    pub(super) fn schedstat(&mut self, proc: &mut Proc, process: &Stat, tid: u32) -> io::Result<Option<Schedstat>> {
        let pid = process.id.pid;
        let is_one_of_many = process.may_have_threads();
        let schedstat = if is_one_of_many { proc.thread_schedstat(pid, tid)? } else { proc.schedstat(pid)? };
        if schedstat.is_none() && !self.lacks_schedstat {
            let still = if is_one_of_many { proc.thread_stat(pid, tid)? } else { proc.stat_of(process.id)? };
            self.lacks_schedstat = still.is_some();
        }
        Ok(schedstat)
    }

    /// Returns whether the kernel has no schedstat, with a complaint if so.
    pub(super) fn lacks_schedstat(&self, look: &mut Look) -> bool {
        if self.lacks_schedstat {
            let why = "the kernel was built without CONFIG_SCHED_INFO";
            look.complaints.add(Trouble::Failed, format!("What threads have run and waited is left out: {why}"));
        }
        self.lacks_schedstat
    }
}
