//! What is watched: trees of processes that sleep, but for roots that work. The roots are this executable, run with `tree NAME SIZE ROOT`.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::process::Process;

/// How often a root that does something does so: several times between two gathers.
const TURN: Duration = Duration::from_millis(50);

/// What the root of a tree does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Root {
    Sleeps,
    /// A little, again and again.
    Works,
}

impl Root {
    const WORKS: &str = "works";

    fn name(self) -> &'static str {
        match self {
            Self::Sleeps => "sleeps",
            Self::Works => Self::WORKS,
        }
    }
}

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

    fn plant(name: String, size: usize, root: Root) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("tree")
            .arg(&name)
            .args([&size.to_string(), root.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
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
pub fn plant(trees: usize, size: usize, name: &str, root: Root) -> Result<Vec<Tree>> {
    // The killed are reaped here, whether or not the host's init would do it.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    (0..trees).map(|number| Tree::plant(format!("{name}{number:02}"), size, root)).collect()
}

/// The root of a tree: forks the others, says so and does what it is to do.
pub fn grow(name: &str, size: &str, does: &str) -> Result<()> {
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
    if does == Root::WORKS { work() } else { sleep() }
}

/// A child of the root. It ends with it, also if that was killed before it was watched.
fn sleep_beside(root: Pid) -> ! {
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if tied.is_err() || rustix::process::getppid() != Some(root) {
        std::process::exit(1);
    }
    sleep()
}

fn work() -> ! {
    loop {
        std::thread::sleep(TURN);
    }
}

fn sleep() -> ! {
    loop {
        std::thread::park();
    }
}
