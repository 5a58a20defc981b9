//! Kernel interfaces: one per file, read and parsed into base units (ns, bytes).
//!
//! Targets and configuration are unknown here. Roots and clocks are arguments, so that a test can pass a made-up `/proc`.
//! Three outcomes are kept apart everywhere: `Ok(Some(_))`, `Ok(None)` for "gone" (the process or cgroup does not exist any
//! more), and `Err(_)` for "failed".

pub mod capability;
pub mod cgroup;
pub mod clock;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)] // it is of the tests
pub(crate) mod elsewhere;
pub mod epoll;
pub mod exit_records;
mod inotify;
pub mod netlink;
pub mod nonblocking;
pub mod own;
pub mod pidfile;
pub mod pidfile_watch;
pub mod pipe;
pub mod proc_connector;
pub mod procfs;
pub mod stat;
pub mod taskstats;
pub mod timer;

use std::io;

/// Returns whether an error is a lack of descriptors or memory of this process or host, and says nothing about the file
/// that was asked for.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOMEM))
}

/// kill(2) with signal 0: whether a signal could be sent to the process, or thread, with this pid. EPERM: it may not, ESRCH: there
/// is none.
///
/// # Errors
/// What the kernel said.
pub fn test_kill(pid: u32) -> rustix::io::Result<()> {
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::test_kill_process(process.ok_or(rustix::io::Errno::SRCH)?)
}

/// Turns the errors that mean "it does not exist any more" into `Ok(None)`.
///
/// ENOENT comes from opening a file of an exited process, ESRCH from reading one that was opened before, ENODEV from
/// reading a file of a cgroup that was removed.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH | rustix::io::Errno::NODEV) => Ok(None),
            _ => Err(error),
        },
    }
}
