//! What the tests watch: real processes that only sleep, and made-up ones in a /proc of their own.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of it

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use tempfile::TempDir;

/// A process that sleeps until the value is dropped.
pub struct Sleeper {
    child: Child,
}

impl Sleeper {
    pub fn new() -> Self {
        Self::named(b"sleeper")
    }

    /// A sleeper whose comm is `comm`: the kernel takes it from the name of the executed file.
    pub fn named(comm: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(OsStr::from_bytes(comm));
        std::os::unix::fs::symlink("/bin/sleep", &path).unwrap();
        // It is running, with its name, when spawn returns: the link is needed no longer.
        let child = Command::new(path).arg0("sleep").arg("600").spawn().unwrap();
        Self { child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pid of a process that has come and gone.
pub fn dead_pid() -> u32 {
    Sleeper::new().pid()
}

/// What a made-up /proc/<pid>/stat says, as far as the plugin reads it.
#[derive(Clone, Copy)]
pub struct Stat {
    pub pid: u32,
    pub comm: &'static str,
    pub ppid: u32,
    /// Ticks of 10 ms.
    pub utime: u64,
    /// Ticks since boot.
    pub start: u64,
}

impl Stat {
    /// A child of init that has long been there.
    pub fn old(pid: u32, comm: &'static str) -> Self {
        Self { pid, comm, ppid: 1, utime: 0, start: 1000 }
    }

    /// The line as the kernel writes it: 52 fields, 100 pages resident.
    pub fn text(&self) -> String {
        let Self { pid, comm, ppid, utime, start } = self;
        let rest = "0 ".repeat(27);
        format!("{pid} ({comm}) S {ppid} {pid} {pid} 0 -1 0 0 0 0 0 {utime} 0 0 0 20 0 1 0 {start} 0 100 {rest}0\n")
    }
}

/// A /proc made up for a test: this host's meminfo, a boot id and the processes put into it.
pub struct FakeProc {
    root: TempDir,
}

impl FakeProc {
    pub fn new() -> Self {
        let fake = Self { root: tempfile::tempdir().unwrap() };
        fake.write("meminfo", std::fs::read("/proc/meminfo").unwrap());
        fake.write("sys/kernel/random/boot_id", "b0070000-0000-4000-8000-000000000000\n");
        fake
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Puts the process there, or another state of it.
    pub fn put(&self, stat: &Stat) {
        self.write(&format!("{}/stat", stat.pid), stat.text());
        self.write(&format!("{}/schedstat", stat.pid), "0 0 0\n");
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Removes a file, or a whole process.
    pub fn remove(&self, name: &str) {
        let path = self.path().join(name);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
}
