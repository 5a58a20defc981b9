//! The host as the plugin is told to see it: its `/proc`, its cgroups, its clocks.

use std::io;
use std::path::{Path, PathBuf};

use crate::kernel::cgroup;
use crate::kernel::clock::Clock;
use crate::kernel::procfs::Proc;

/// Where everything is read from.
pub struct Host {
    /// `/proc`.
    pub proc: Proc,
    /// `/sys`.
    pub sys_root: PathBuf,
    /// The clocks.
    pub clock: Box<dyn Clock>,
}

impl Host {
    /// Opens `/proc`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(proc_root: &Path, sys_root: &Path, clock: Box<dyn Clock>) -> io::Result<Self> {
        Ok(Self { proc: Proc::open(proc_root)?, sys_root: sys_root.to_owned(), clock })
    }

    /// The cgroup hierarchies mounted now.
    #[must_use]
    pub fn hierarchies(&self) -> Vec<PathBuf> {
        cgroup::hierarchies(&self.sys_root)
    }
}
