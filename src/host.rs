//! The host as the plugin is told to see it: its `/proc`, its cgroups, its clocks, and whom to ask for delays.

use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::cgroup;
use crate::kernel::clock::Clock;
use crate::kernel::procfs::Proc;
use crate::kernel::taskstats::{Ask, AskKernel, AskNobody};

/// Where everything is read from.
pub struct Host {
    /// `/proc`.
    pub proc: Proc,
    /// `/sys`.
    pub sys_root: PathBuf,
    /// The clocks.
    pub clock: Box<dyn Clock>,
    /// Who tells what processes have waited for.
    pub taskstats: Box<dyn Ask>,
}

impl Host {
    /// Opens `/proc`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(proc_root: &Path, sys_root: &Path, clock: Box<dyn Clock>) -> io::Result<Self> {
        let mut proc = Proc::open(proc_root)?;
        let taskstats: Box<dyn Ask> = if proc.is_of_our_pid_namespace() {
            Box::new(AskKernel::default())
        } else {
            Box::new(AskNobody(format!(
                "{} is of another pid namespace, whose pids netlink does not know; run the plugin in that namespace, as with \
                 docker run --pid=host",
                proc_root.display()
            )))
        };
        Ok(Self { proc, sys_root: sys_root.to_owned(), clock, taskstats })
    }

    /// The cgroup hierarchies mounted now.
    #[must_use]
    pub fn hierarchies(&self) -> Vec<PathBuf> {
        cgroup::hierarchies(&self.sys_root)
    }
}
