//! Reads processes from `/proc`. One file of each tracked process is held open, and read again at each gather.
//!
//! For a process that runs now and then this is its stat file. Most processes of a host sleep for minutes, though. For one
//! that has not run it is schedstat, which costs a fifth to read and changes when, and only when, the thread is put on a
//! CPU. Without that, nothing that a process uses or waits for can change, but for its resident memory, which others can
//! take away: so a sleeper is read every 30 s. Events report that a sleeper has another parent or comm.

use std::collections::HashMap;
use std::io;

use super::source::{ProcessSource, Read};
use crate::kernel::procfs::{Proc, Schedstat, SchedstatFile, StatFile};
use crate::kernel::stat::{Identity, Stat};

/// After this time a process is read although it has not run, ns.
const REFRESH: u64 = 30_000_000_000;

/// Number of gathers in a row without a change after which a process counts as a sleeper; doubled each time that it then
/// runs.
const PATIENCE: u8 = 2;
const PATIENCE_MAX: u8 = 128;

#[derive(Debug)]
struct Held {
    file: File,
    /// Number of gathers in a row without a change that it takes to count as a sleeper.
    patience: u8,
}

#[derive(Debug)]
enum File {
    Stat {
        file: StatFile,
        /// Number of gathers in a row without a change.
        still: u8,
    },
    Schedstat(Box<Doze>),
}

/// A sleeper, as it was when its stat was read.
#[derive(Debug)]
struct Doze {
    file: SchedstatFile,
    seen: Schedstat,
    /// Time of that reading, ns.
    read: u64,
}

/// A mounted `/proc`, with the files that are held open.
#[derive(Debug)]
pub struct Reader {
    proc: Proc,
    held: HashMap<u32, Held>,
    /// Most files that may be held.
    max: usize,
}

impl Reader {
    /// Reads from this `/proc`, with at most `max` files held open. None is held of a directory that is not a real `/proc`:
    /// its files read on after a process has exited.
    #[must_use]
    pub fn new(proc: Proc, max: usize) -> Self {
        let max = if proc.is_procfs() { max } else { 0 };
        Self { proc, held: HashMap::new(), max }
    }

    #[cfg(test)]
    pub(super) fn held_count(&self) -> usize {
        self.held.len()
    }

    #[cfg(test)]
    pub(super) fn is_dozing(&self, pid: u32) -> bool {
        matches!(self.held.get(&pid), Some(Held { file: File::Schedstat(_), .. }))
    }

    #[cfg(test)]
    pub(super) fn hold_at_most(&mut self, max: usize) {
        self.max = max;
    }

    /// Holds the schedstat of one that seems to sleep, read before its stat: what it does in between shows next time.
    fn doze(&mut self, known: &Stat, now: u64) -> io::Result<Read> {
        let pid = known.id.pid;
        let file = self.proc.open_schedstat(pid).ok().flatten();
        let schedstat = file.and_then(|file| Some((self.proc.schedstat_in(&file).ok()??, file)));
        // Some kernels have the file, and count nothing.
        let schedstat = schedstat.filter(|(seen, _)| seen.slices > 0);
        let Some(stat) = self.stat_again(pid, &|_| true)? else { return Ok(Read::Gone) };
        if let Some(Held { file, .. }) = self.held.get_mut(&pid) {
            match (schedstat, file) {
                (Some((seen, schedstat)), file) if sleeps(&stat, known) => {
                    *file = File::Schedstat(Box::new(Doze { file: schedstat, seen, read: now }));
                }
                (_, File::Stat { still, .. }) => *still = 0,
                (_, File::Schedstat(_)) => {}
            }
        }
        Ok(Read::Stat(stat))
    }
}

impl ProcessSource for Reader {
    fn list(&mut self, pids: &mut Vec<u32>) -> io::Result<()> {
        self.proc.pids(pids)
    }

    fn stat(&mut self, pid: u32) -> io::Result<Option<Stat>> {
        Ok(self.proc.find(pid)?.map(|(stat, _)| stat))
    }

    fn is_process(&mut self, pid: u32) -> bool {
        self.proc.is_process(pid)
    }

    fn leader_time(&mut self, pid: u32) -> io::Result<Option<u64>> {
        Ok(self.proc.schedstat(pid)?.map(|schedstat| schedstat.oncpu))
    }

    fn resident(&mut self, pid: u32) -> io::Result<Option<u64>> {
        self.proc.resident(pid)
    }

    fn leaderless_rss(&mut self, pid: u32) -> io::Result<Option<u64>> {
        self.proc.leaderless_rss(pid)
    }

    /// Through its file if that is held open; a file that had to be opened is held if the process lasts.
    fn stat_again(&mut self, pid: u32, lasts: &dyn Fn(&Stat) -> bool) -> io::Result<Option<Stat>> {
        if let Some(Held { file: File::Stat { file, .. }, .. }) = self.held.get(&pid) {
            if let Some(stat) = self.proc.stat(file)? {
                return Ok(Some(stat));
            }
            self.held.remove(&pid);
        }
        let Some((stat, file)) = self.proc.find(pid)? else { return Ok(None) };
        if lasts(&stat) && (self.held.len() < self.max || self.held.contains_key(&pid)) {
            self.held.insert(pid, Held { file: File::Stat { file, still: 0 }, patience: PATIENCE });
        }
        Ok(Some(stat))
    }

    fn read(&mut self, known: &Stat, now: u64, lasts: &dyn Fn(&Stat) -> bool) -> io::Result<Read> {
        let pid = known.id.pid;
        let patience = match self.held.get_mut(&pid) {
            Some(Held { file: File::Stat { still, .. }, patience }) if *still >= *patience => {
                return self.doze(known, now);
            }
            Some(Held { file: File::Schedstat(doze), patience }) => match self.proc.schedstat_in(&doze.file)? {
                Some(same) if same == doze.seen && now.saturating_sub(doze.read) < REFRESH => return Ok(Read::Same),
                Some(same) if same == doze.seen => {
                    (doze.read, *patience) = (now, PATIENCE);
                    return Ok(self.stat(pid)?.map_or(Read::Gone, Read::Stat));
                }
                // It has run, or the file is of one that had this pid before.
                _ => patience.saturating_mul(2).min(PATIENCE_MAX),
            },
            Some(Held { patience, .. }) => *patience,
            None => PATIENCE,
        };
        let Some(stat) = self.stat_again(pid, lasts)? else { return Ok(Read::Gone) };
        if let Some(Held { file: File::Stat { still, .. }, patience: before }) = self.held.get_mut(&pid) {
            *before = patience;
            *still = if sleeps(&stat, known) { still.saturating_add(1) } else { 0 };
        }
        Ok(Read::Stat(stat))
    }

    fn keep(&mut self, ids: &[Identity]) {
        self.held.retain(|pid, _| ids.binary_search_by_key(pid, |id| id.pid).is_ok());
        self.held.shrink_to_fit(); // the places of those that were closed would make it grow
    }

    fn close(&mut self, pid: u32) {
        self.held.remove(&pid);
    }
}

/// Returns whether a process shows no activity, and can have none without being put on a CPU: its only thread is not on
/// one. (A zombie can change without that: it is reaped.)
fn sleeps(now: &Stat, before: &Stat) -> bool {
    let used = |stat: &Stat| [stat.utime, stat.stime, stat.cutime, stat.cstime];
    let is_known = now.unknown.is_empty() && before.unknown.is_empty();
    let sleeps = now.num_threads == 1 && now.state != b'R' && !now.is_zombie();
    is_known && now.id == before.id && sleeps && used(now) == used(before)
}
