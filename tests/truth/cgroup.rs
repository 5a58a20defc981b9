//! A cgroup for one workload: what the kernel charges it is the truth that a report is judged by.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use crate::support;

/// A cgroup of the v2 hierarchy. Whatever lives in it is killed, and the cgroup removed, when this is dropped.
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// Makes the cgroup, or says what stands in the way on this machine.
    pub fn create(name: &str) -> Result<Self, String> {
        if !support::is_root() {
            return Err("a cgroup of one's own, and two users, need root".into());
        }
        let root = hierarchy().ok_or("no cgroup v2 hierarchy is mounted")?;
        let directory = root.join(format!("taskstats-truth-{name}-{}", std::process::id()));
        fs::create_dir(&directory).map_err(|e| format!("cannot create {}: {e}", directory.display()))?;
        Ok(Self { directory })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The cgroup as a target names it.
    pub fn name(&self) -> &str {
        self.directory.file_name().unwrap().to_str().unwrap()
    }

    /// A configuration, which any user can read, whose one target is the cgroup.
    #[allow(dead_code)] // not every test that has a cgroup watches it as such
    pub fn configuration(&self) -> NamedTempFile {
        let name = self.name();
        readable(&format!("[[inputs.taskstats]]\n[[inputs.taskstats.target]]\nname = \"w\"\ncgroup = \"{name}\"\n"))
    }

    /// The CPU charged to the cgroup so far, in seconds: `usage_usec` of cpu.stat, there in every cgroup v2
    /// since Linux 4.15, with or without controllers.
    pub fn usage(&self) -> f64 {
        let stat = fs::read_to_string(self.directory.join("cpu.stat")).unwrap();
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
        usage.parse::<f64>().unwrap() / 1e6
    }

    /// SIGKILL to everything in the cgroup. cgroup.kill does it without a race (Linux 5.14); before that
    /// the caller repeats it, for what was forked meanwhile.
    fn kill(&self) {
        if fs::write(self.directory.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        let members = fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

impl Drop for Cgroup {
    /// The dying still count as members for a moment, so it is tried until it works. Never panics: it
    /// cleans up after panics too.
    fn drop(&mut self) {
        for _ in 0..1000 {
            self.kill();
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        eprintln!("{} could not be removed", self.directory.display());
    }
}

/// A configuration that any user can read.
pub fn readable(text: &str) -> NamedTempFile {
    let file = tempfile::Builder::new().prefix("taskstats-").suffix(".conf").tempfile_in("/tmp").unwrap();
    fs::write(file.path(), text).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    file
}

/// Where cgroup v2 is mounted: /sys/fs/cgroup, or beside the v1 hierarchies on a hybrid machine.
fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|mount| match mount.split(' ').collect::<Vec<_>>()[..] {
        [_, directory, "cgroup2", ..] => Some(directory.into()),
        _ => None,
    })
}
