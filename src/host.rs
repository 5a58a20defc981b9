//! The host as the settings describe it: its `/proc`, its cgroups, its clocks, and the kernel interfaces for delays and for
//! process events.

use std::io;
use std::path::{Path, PathBuf};

use crate::accounting::Accounting;
use crate::config::values::AccountBy;
use crate::kernel::cgroup;
use crate::kernel::clock::Clock;
use crate::kernel::pidfile::Pidfiles;
use crate::kernel::procfs::Proc;
use crate::kernel::taskstats::{Ask, AskKernel, AskNobody};
use crate::processes::{ProcessSource, Reader};

/// Where everything is read from.
pub struct Host {
    /// `/proc`, for what only some processes are asked.
    pub proc: Proc,
    /// The processes of the same `/proc`.
    pub source: Box<dyn ProcessSource>,
    /// Most files of processes that may be held open.
    pub holdable: usize,
    /// `/sys`.
    pub sys_root: PathBuf,
    /// Reader of pidfiles.
    pub pidfiles: Pidfiles,
    /// The clocks.
    pub clock: Box<dyn Clock>,
    /// Source of delays.
    pub taskstats: Box<dyn Ask>,
    /// Way to learn which processes exist.
    pub accounting: Accounting,
}

impl Host {
    /// Opens `/proc`, which is scanned at each gather unless [`Host::listen`] finds something better. At most `holdable` files of processes
    /// are held open.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(proc_root: &Path, sys_root: &Path, clock: Box<dyn Clock>, holdable: usize) -> io::Result<Self> {
        let mut proc = Proc::open(proc_root)?;
        let source = Box::new(Reader::new(Proc::open(proc_root)?, holdable));
        let taskstats: Box<dyn Ask> = if proc.is_of_our_pid_namespace() {
            Box::new(AskKernel::default())
        } else {
            Box::new(AskNobody(format!(
                "{} is of another pid namespace, whose pids netlink does not know; run the plugin in that namespace, as with \
                 docker run --pid=host",
                proc_root.display()
            )))
        };
        let (pidfiles, accounting) = Default::default();
        Ok(Self { proc, source, holdable, sys_root: sys_root.to_owned(), pidfiles, clock, taskstats, accounting })
    }

    /// Listens to births and deaths, if that is wanted and can be had. What the dead had waited for is kept if anybody asks for it.
    pub fn listen(&mut self, wanted: AccountBy, keeps_delays: bool) {
        self.accounting = Accounting::begin(wanted, keeps_delays, &mut self.proc, &self.sys_root);
    }

    /// The cgroup hierarchies mounted now.
    #[must_use]
    pub fn hierarchies(&self) -> Vec<PathBuf> {
        cgroup::hierarchies(&self.sys_root)
    }
}
