//! What is watched: process trees that sleep until they are killed.

use std::cell::Cell;
use std::io::{Read, Write};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, WaitOptions};

pub const TREES: usize = 20;
/// Processes of one tree, its root included.
pub const TREE_SIZE: usize = 250;
/// Trees whose root has much memory, and how many bytes.
pub const LARGE: usize = 2;
pub const MUCH: usize = 512 << 20;

/// The trees; they end with this value, or with the benchmark itself.
pub struct Forest {
    roots: Vec<Pid>,
    nice: Cell<i32>,
}

impl Forest {
    pub fn plant() -> Result<Self> {
        // The killed are reaped here, whether or not the host's init would do it.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut forest = Self { roots: Vec::new(), nice: Cell::new(0) };
        for number in 0..TREES {
            let memory = if number < LARGE { MUCH } else { 0 };
            let (mut grown, mut sign) = std::io::pipe()?;
            forest.roots.push(fork_into(|| grow(memory, &mut sign))?);
            let mut whole = [0];
            grown.read_exact(&mut whole)?;
            ensure!(whole == [1], "not as many processes may be forked here");
        }
        Ok(forest)
    }

    pub fn roots(&self) -> &[Pid] {
        &self.roots
    }

    /// Gives every process this nice value.
    pub fn renice(&self, nice: i32) -> Result<()> {
        if self.nice.replace(nice) != nice {
            for &root in &self.roots {
                rustix::process::setpriority_pgrp(Some(root), nice)?;
            }
        }
        Ok(())
    }
}

impl Drop for Forest {
    fn drop(&mut self) {
        for &root in &self.roots {
            // The root's children die with it.
            let _ = rustix::process::kill_process(root, Signal::KILL);
        }
        while rustix::process::wait(WaitOptions::empty()).is_ok() {}
    }
}

/// What a root does first: forks the rest of its tree, a process group, and tells whether it could.
fn grow(memory: usize, sign: &mut impl Write) {
    let is_group = rustix::process::setpgid(None, None).is_ok();
    let whole = is_group && (1..TREE_SIZE).all(|_| fork_into(|| ()).is_ok());
    // Its own, so not before the forks, and in small pages, since those take long to add up.
    let whole = whole && rustix::thread::disable_transparent_huge_pages(true).is_ok();
    std::mem::forget(std::hint::black_box(vec![1_u8; memory]));
    let _ = sign.write_all(&[u8::from(whole)]);
}

/// Forks a child that does `first`, then sleeps until it is killed or its parent dies.
fn fork_into(first: impl FnOnce()) -> Result<Pid> {
    let parent = rustix::process::getpid();
    // SAFETY: there is one thread, so that the child may go on as its parent would.
    let pid = unsafe { libc::fork() };
    ensure!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if let Some(child) = Pid::from_raw(pid) {
        return Ok(child);
    }
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // The parent may have died before it was watched.
    if tied.is_err() || rustix::process::getppid() != Some(parent) {
        std::process::exit(1);
    }
    first();
    loop {
        std::thread::park();
    }
}
