//! Where the process table reads processes from: the kernel's `/proc` ([`super::Reader`]), or a simulated kernel in the tests.

use std::fmt;
use std::io;

use crate::kernel::stat::{Identity, Stat};

/// The result of reading a tracked process.
#[derive(Debug)]
pub enum Read {
    /// The stat, read now. Another process may have the pid.
    Stat(Stat),
    /// The process has not run since it was last read.
    Same,
    /// The process has been reaped.
    Gone,
}

/// The processes of a host. `Ok(None)` is a process that has exited and was reaped; an error is one that exists and cannot be read.
pub trait ProcessSource: fmt::Debug {
    /// Lists the pids of all processes, ascending.
    ///
    /// # Errors
    /// The processes cannot be listed.
    fn list(&mut self, pids: &mut Vec<u32>) -> io::Result<()>;

    /// Reads the stat of the process, or of the process of the thread, that has this pid now.
    ///
    /// # Errors
    /// It cannot be read.
    fn stat(&mut self, pid: u32) -> io::Result<Option<Stat>>;

    /// Returns whether a pid is that of a process, and not that of a thread alone.
    fn is_process(&mut self, pid: u32) -> bool;

    /// Returns the CPU time of a process's leader thread, ns: exact where stat has ticks, and a lower bound of the
    /// process's. `Ok(None)` also where the kernel has no such file.
    ///
    /// # Errors
    /// The file cannot be read.
    fn leader_time(&mut self, pid: u32) -> io::Result<Option<u64>>;

    /// Returns the resident pages of a process, exact where stat has an estimate. `Ok(None)` also where only stat is there.
    ///
    /// # Errors
    /// The file cannot be read.
    fn resident(&mut self, pid: u32) -> io::Result<Option<u64>> {
        let _ = pid;
        Ok(None)
    }

    /// Returns the resident pages of a process whose leader thread has exited while others run: its stat has 0.
    ///
    /// # Errors
    /// The file cannot be read.
    fn leaderless_rss(&mut self, pid: u32) -> io::Result<Option<u64>>;

    /// Reads the stat of a process that is read at each gather. `lasts` returns whether the process is likely to exist at
    /// the next one.
    ///
    /// # Errors
    /// The file cannot be read.
    fn stat_again(&mut self, pid: u32, lasts: &dyn Fn(&Stat) -> bool) -> io::Result<Option<Stat>> {
        let _ = lasts;
        self.stat(pid)
    }

    /// Reads a process unless it has not run since it was read as `known`, at `now` (CLOCK_BOOTTIME, ns). `lasts` as in
    /// [`ProcessSource::stat_again`].
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&mut self, known: &Stat, now: u64, lasts: &dyn Fn(&Stat) -> bool) -> io::Result<Read> {
        let _ = now;
        Ok(self.stat_again(known.id.pid, lasts)?.map_or(Read::Gone, Read::Stat))
    }

    /// These processes, sorted by pid, will be read again; no others.
    fn keep(&mut self, ids: &[Identity]) {
        let _ = ids;
    }

    /// The process with this pid will not be read again.
    fn close(&mut self, pid: u32) {
        let _ = pid;
    }

    /// Takes the events that have come, if there are events: to be called now and then by what reads for long without this trait.
    fn keep_up(&mut self) {}
}
