//! What the tests against real peers share: where those are, and processes that end with the test.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of it

use std::ffi::OsStr;
use std::ops::{Deref, DerefMut};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::support::{skip, wait_for};

/// The program of a peer as `scripts/peers` put it into place; without it the test is skipped.
pub fn peer(program: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(program);
    if !path.exists() {
        skip(&format!("no {program} in target/peers; scripts/peers puts it there"));
        return None;
    }
    Some(path)
}

/// A child process that is killed when dropped.
pub struct Running(Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.id().cast_signed(), signal);
    }
}

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A shell that runs `script`, with a pipe on stdin: what waits there for input ends with the test, even
/// when that is killed.
pub fn shell(script: &str, argument: &OsStr) -> Running {
    Running::start(Command::new("sh").args(["-c", script, "sh"]).arg(argument).stdin(Stdio::piped()))
}

/// A tree of three processes: a shell and two of its children.
pub fn tree_of_three() -> Running {
    shell("cat | cat; true", OsStr::new(""))
}

/// An idle process that has given itself the name `comm`: any bytes, fifteen at most.
pub fn named(comm: &[u8]) -> Running {
    let process = shell(r#"printf %s "$1" >/proc/self/comm; read end"#, OsStr::from_bytes(comm));
    let file = format!("/proc/{}/comm", process.id());
    let shown = [comm, b"\n"].concat();
    wait_for("a process to take its name", || (std::fs::read(&file).ok()? == shown).then_some(()));
    process
}
