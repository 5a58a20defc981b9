//! A workload, as the tests run it.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::Skipped;
use crate::cgroup::Cgroup;
use crate::support;

/// A workload that runs, in its cgroup, until this is dropped.
pub struct Workload {
    /// The pid of the tree's root.
    pub root: u32,
    lines: Lines<BufReader<ChildStdout>>,
    /// Its init.
    pub process: Child,
    pub cgroup: Cgroup,
}

impl Workload {
    /// Starts the workload and waits until it says that it is ready; says why if it cannot be run here.
    pub fn start(name: &str) -> Result<Self, Skipped> {
        Self::start_in(name, Path::new("."))
    }

    /// The same in a working directory.
    pub fn start_in(name: &str, directory: &Path) -> Result<Self, Skipped> {
        let cgroup = Cgroup::create(name).map_err(|reason| {
            support::skip(&reason);
            Skipped
        })?;
        let mut process = Command::new("/proc/self/exe")
            .args(["workload", name])
            .arg(cgroup.directory())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut workload = Self { root: 0, lines, process, cgroup };
        workload.root = workload.line().parse().unwrap();
        assert_eq!(workload.line(), "ready");
        Ok(workload)
    }

    /// The next line that it says.
    pub fn line(&mut self) -> String {
        self.lines.next().expect("the workload ended").unwrap()
    }

    /// The sign for a turning point that must lie between two gathers.
    pub fn cue(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").expect("the workload ended by itself");
    }

    /// Waits until its init has reaped all that was left to it, and has nothing but the root.
    pub fn await_orphans(&self) {
        let init = self.process.id().to_string();
        support::wait_for("orphans to be reaped", || {
            let pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
            let stats = pids.filter_map(|path| fs::read_to_string(path.join("stat")).ok());
            let children = stats.filter(|stat| parent(stat) == Some(&init));
            (children.count() == 1).then_some(())
        });
    }

    /// What its init has used itself, in seconds.
    pub fn adopter_usage(&self) -> f64 {
        let schedstat = fs::read_to_string(format!("/proc/{}/schedstat", self.process.id())).unwrap();
        schedstat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
    }
}

/// The parent in the text of /proc/<pid>/stat, if that is text.
fn parent(stat: &str) -> Option<&str> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)
}

impl Drop for Workload {
    /// The workload's init, here because it is outside the cgroup, whose turn is next.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
