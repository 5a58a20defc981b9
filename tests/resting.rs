//! Processes that do nothing from gather to gather, of which therefore little is looked at; and then something happens to them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)] // a test fails by panicking

mod support;
#[path = "support/watched.rs"]
mod watched;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{Plugin, command, field, wait_for};
use tempfile::TempDir;
use watched::Sleeper;

/// More gathers than it takes to believe that a process sleeps, and that nothing is left to do.
const GATHERS: usize = 24;
/// All but p_cpu_thread_max, for which threads are looked at at every gather.
const FIELDS: &str = "p_cpu,p_mem,n_proc,n_zombie,cpu_time,started,exited,restarts";
/// What a text in ticks hides of user and system time, ns, twice.
const TICKS: u64 = 40_000_000;

/// A shell that does what it is told, and answers with a number.
struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    fn new() -> Self {
        const LISTEN: &str = "while read -r line; do eval \"$line\"; done";
        let mut command = Command::new("sh");
        command.args(["-c", LISTEN]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Does this, and waits for the next order.
    fn tell(&mut self, order: &str) -> u32 {
        writeln!(self.stdin, "{order}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        wait_for("the worker to sleep", || state().contains(") S ").then_some(()));
        answer.trim().parse().unwrap()
    }

    /// What it has used, ns.
    fn used(&self) -> u64 {
        let schedstat = fs::read_to_string(format!("/proc/{}/schedstat", self.pid())).unwrap();
        schedstat.split(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A worker with a pidfile, by which the plugin knows it.
struct Run {
    worker: Worker,
    pidfile: PathBuf,
    /// Of the pidfile.
    _directory: TempDir,
    plugin: Plugin,
}

impl Run {
    fn new() -> Self {
        let (worker, directory) = (Worker::new(), tempfile::tempdir().unwrap());
        let pidfile = directory.path().join("worker.pid");
        fs::write(&pidfile, worker.pid().to_string()).unwrap();
        let mut command = command();
        command.args(["--psstat-fields", FIELDS, "--pid-file"]).arg(&pidfile);
        let mut run = Self { plugin: Plugin::start(command), worker, pidfile, _directory: directory };
        run.rest();
        run
    }

    fn gather(&mut self) -> String {
        self.plugin.gather(1).remove(0)
    }

    fn number(&mut self, name: &str) -> u64 {
        let line = self.gather();
        let number = field(&line, name).and_then(|number| number.trim_end_matches('i').parse().ok());
        number.unwrap_or_else(|| panic!("no {name}: {line}"))
    }

    /// So many gathers that there is nothing to do any more: the last says what the one before said.
    fn rest(&mut self) {
        let lines: Vec<_> = (0..GATHERS).map(|_| self.gather()).collect();
        let fields =
            |line: &str| ["n_proc", "cpu_time", "started", "exited"].map(|name| field(line, name).map(String::from));
        assert_eq!(fields(&lines[GATHERS - 2]), fields(&lines[GATHERS - 1]), "{lines:?}");
    }
}

/// Whether a process is gone, or a zombie.
fn is_dead(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// By its own schedstat, which counts in ns.
#[test]
fn one_that_wakes_up_has_used_what_it_has_used() {
    let mut run = Run::new();
    let before = [run.number("cpu_time"), run.worker.used()];
    while run.worker.used() < before[1] + 3 * TICKS {
        run.worker.tell("i=0; while [ $i -lt 10000 ]; do i=$((i+1)); done; echo $i");
    }
    let after = [run.number("cpu_time"), run.worker.used()];
    let [counted, used] = [0, 1].map(|of| after[of] - before[of]);
    assert!(counted.abs_diff(used) < TICKS, "{counted} of {used} ns");
    run.rest();
    assert_eq!(run.number("cpu_time"), after[0], "it has slept since");
}

/// A rate is told of every interval, also of those in which nothing was.
#[test]
fn one_that_sleeps_has_a_rate_of_0() {
    let mut run = Run::new();
    let rate = wait_for("a rate", || field(&run.gather(), "p_cpu").map(String::from));
    assert_eq!(rate, "0");
}

#[test]
fn its_children_are_counted_from_birth_to_death() {
    let mut run = Run::new();
    let started = run.number("started");
    let child = run.worker.tell("sleep 60 & echo $!");
    assert_eq!([run.number("n_proc"), run.number("started")], [2, started + 1]);
    run.rest();
    let exited = run.number("exited");
    kill_process(Pid::from_raw(child.cast_signed()).unwrap(), Signal::KILL).unwrap();
    wait_for("its end", || is_dead(child).then_some(()));
    assert_eq!(run.number("n_proc"), 1, "it is dead, waited for or not");
    run.worker.tell("wait; echo 0");
    assert_eq!([run.number("exited"), run.number("n_zombie")], [exited + 1, 0]);
    run.rest();
}

/// Nothing happens to the one that it was.
#[test]
fn the_pidfile_is_followed_to_another() {
    let mut run = Run::new();
    let other = Sleeper::new();
    fs::write(&run.pidfile, other.pid().to_string()).unwrap();
    assert_eq!([run.number("restarts"), run.number("n_proc")], [1, 1]);
    run.rest();
    fs::remove_file(&run.pidfile).unwrap();
    assert_eq!(run.number("n_proc"), 0);
}

#[test]
fn one_that_is_killed_in_its_sleep_is_gone() {
    let mut run = Run::new();
    run.worker.child.kill().unwrap();
    run.worker.child.wait().unwrap();
    assert_eq!([run.number("n_proc"), run.number("exited")], [0, 1]);
}

/// Of two pids in a pidfile one is not there: when it comes, it is found.
#[test]
fn one_that_is_missing_is_found_when_it_comes() {
    let mut run = Run::new();
    let missing = run.worker.tell("sleep 0 & child=$!; wait; echo $child");
    fs::write(&run.pidfile, format!("{}\n{missing}\n", run.worker.pid())).unwrap();
    assert_eq!(run.number("n_proc"), 1);
    run.rest();
    let mut tries = 0..1000;
    let come = loop {
        assert!(tries.next().is_some(), "another has the pid {missing}");
        if let Err(error) = fs::write("/proc/sys/kernel/ns_last_pid", (missing - 1).to_string()) {
            return support::skip(&format!("no pid can be chosen: {error}"));
        }
        let sleeper = Sleeper::new();
        if sleeper.pid() == missing {
            break sleeper;
        }
    };
    assert_eq!(run.number("n_proc"), 2);
    run.rest();
    let exited = run.number("exited");
    drop(come);
    assert_eq!([run.number("n_proc"), run.number("exited")], [1, exited + 1]);
}
