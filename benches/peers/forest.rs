//! What is watched: trees of processes that sleep. The roots are this executable, run with `tree NAME SIZE`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::process::Process;

/// A tree of which each process is a child of the root. All of it is a process group.
pub struct Tree {
    /// comm of the root: process-exporter and apps.plugin know no pids. Its children have another.
    pub name: String,
    root: Process,
}

impl Tree {
    pub fn root(&self) -> u32 {
        self.root.id()
    }

    fn plant(name: String, size: usize) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("tree").arg(&name).arg(size.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut root = Process::start(&mut command)?;
        let grown = root.stdout()?.line();
        let tree = Self { name, root };
        ensure!(grown? == "grown", "not as many processes may be forked here");
        Ok(tree)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let Some(group) = Pid::from_raw(self.root().cast_signed()) else { return };
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        // The root first, then its children, which the benchmark has adopted.
        while rustix::process::waitpgid(group, WaitOptions::empty()).is_ok() {}
    }
}

/// So many trees of so many processes each, numbered after `name`.
pub fn plant(trees: usize, size: usize, name: &str) -> Result<Vec<Tree>> {
    // The killed are reaped here, whether or not the host's init would do it.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    (0..trees).map(|number| Tree::plant(format!("{name}{number:02}"), size)).collect()
}

/// The root of a tree: forks the others, says so and sleeps.
pub fn grow(name: &str, size: &str) -> Result<()> {
    rustix::process::setpgid(None, None)?;
    let root = rustix::process::getpid();
    for _ in 1..size.parse()? {
        // SAFETY: there is one thread, so that the child may go on as its parent would.
        match unsafe { libc::fork() } {
            0 => sleep_beside(root),
            -1 => return Err(std::io::Error::last_os_error()).context("fork"),
            _ => (),
        }
    }
    rustix::thread::set_name(&std::ffi::CString::new(name)?)?;
    println!("grown");
    sleep()
}

/// A child of the root. It ends with it, also if that was killed before it was watched.
fn sleep_beside(root: Pid) -> ! {
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if tied.is_err() || rustix::process::getppid() != Some(root) {
        std::process::exit(1);
    }
    sleep()
}

fn sleep() -> ! {
    loop {
        std::thread::park();
    }
}
