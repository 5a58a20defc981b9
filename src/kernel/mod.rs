//! What the kernel tells: one kernel interface per file, read and parsed, in base units (ns, bytes).
//!
//! Nothing here knows targets or configuration. Roots and clocks are arguments, so that a test can hand in
//! a made-up `/proc`. Three outcomes are kept apart everywhere: `Ok(Some(_))`, `Ok(None)` for "gone" (the
//! process or cgroup no longer exists), and `Err(_)` for "failed".

pub mod capability;
pub mod cgroup;
pub mod clock;
pub mod exit_records;
pub mod netlink;
pub mod own;
pub mod pidfile;
pub mod pidfile_watch;
pub mod proc_connector;
pub mod procfs;
pub mod stat;
pub mod taskstats;

use std::io;

/// Whether an error says that we are short of something, and nothing of what was asked for.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOMEM))
}

/// Turns the two errors that mean "it went away" into `Ok(None)`.
///
/// ENOENT comes from opening a file of a process that is gone, ESRCH from reading one that was opened
/// before, ENODEV from reading a file of a cgroup that was removed.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match rustix::io::Errno::from_io_error(&error) {
            Some(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH | rustix::io::Errno::NODEV) => Ok(None),
            _ => Err(error),
        },
    }
}
