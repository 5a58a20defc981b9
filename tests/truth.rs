//! The truth: what is reported of a process tree, against what the kernel charged the cgroup it lives in.
//!
//! Every workload runs in a cgroup of its own and is watched as root and as an ordinary user. cpu.stat is read
//! before each prompt and after its answer, so what is reported from the first gather to the last must lie between
//! [last before − first after] and [last after − first before], but for 1 % + 20 ms. Some are watched by their cgroup, too,
//! which must give all of it.
//!
//! This executable is the test and, run with `workload NAME CGROUP`, the workload too. The tests run one after
//! the other, whatever is asked for. With `--nocapture` each says what it measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail
#![allow(clippy::print_stdout, clippy::print_stderr)] // the streams are a test's own
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere
#![allow(unsafe_code)] // the workloads fork, which Rust cannot know to be safe

mod support;

#[path = "truth/cgroup.rs"]
mod cgroup;
#[path = "truth/verdict.rs"]
mod verdict;
#[path = "truth/workloads.rs"]
mod workloads;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::ops::RangeInclusive;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use cgroup::Cgroup;
use support::{Plugin, PublicBinary};
use verdict::{Reading, Standard, Verdict};

/// The gathers that are measured, and the interval before each: from the first to the last, more than 3 s.
const GATHERS: usize = 4;
const INTERVAL: Duration = Duration::from_secs(1);

/// The workloads that are watched by their cgroup, and how many processes each has. What is born and gone between two
/// gathers has its CPU in there, whoever reaped it; an orphan that is still exiting may be there beside the next.
const BY_CGROUP: [(&str, RangeInclusive<f64>); 3] =
    [("steady", 1.0..=1.0), ("children_of_5ms", 1.0..=2.0), ("orphans_of_5ms", 1.0..=8.0)];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "workload", name, cgroup] => workloads::run(name, cgroup),
        [_, "step", name] => workloads::step(name),
        _ => test(),
    }
}

fn test() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let show = arguments.nocapture;
    let by_root = workloads::WORKLOADS.map(|(name, _)| {
        let standard = Standard { tolerance: (0.01, 0.02), processes: 1.0..=f64::INFINITY };
        Trial::test(name, move || trial(name, WatchedBy::Root, &standard, show))
    });
    let by_cgroup = BY_CGROUP.map(|(name, processes)| {
        let standard = Standard { tolerance: (0.0, 1e-6), processes }; // cpu.stat counts in µs
        Trial::test(format!("{name}_by_cgroup"), move || trial(name, WatchedBy::Cgroup, &standard, show))
    });
    libtest_mimic::run(&arguments, by_root.into_iter().chain(by_cgroup).collect()).exit_code()
}

/// What the plugin is told to watch of a workload.
#[derive(Clone, Copy, Debug)]
enum WatchedBy {
    Root,
    Cgroup,
}

/// Runs one workload with both users watching it, and judges what each was told.
fn trial(name: &str, by: WatchedBy, standard: &Standard, show: bool) -> Result<(), Failed> {
    let cgroup = match Cgroup::create(name) {
        Ok(cgroup) => cgroup,
        Err(reason) => {
            support::skip(&reason);
            return Ok(());
        }
    };
    let mut workload = Workload::start(name, cgroup);
    let (public, configuration) = (PublicBinary::new(), workload.cgroup.configuration());
    let target: [OsString; 2] = match by {
        WatchedBy::Root => ["--pid".into(), format!("w:{}", workload.root).into()],
        WatchedBy::Cgroup => ["--config".into(), configuration.path().into()],
    };
    let mut watchers = [
        Watcher::start("root", support::command(), &target),
        Watcher::start("an ordinary user", public.command_as_ordinary_user(), &target),
    ];
    measure(&mut workload, &mut watchers);
    let title = |user| format!("{name} by {by:?}, {user}").to_lowercase();
    let verdicts = watchers.map(|watcher| Verdict::on(&watcher.readings, standard, title(watcher.user)));
    let text: String = verdicts.iter().map(|verdict| format!("\n  {verdict}")).collect();
    if show {
        println!("{text}");
    }
    if verdicts.iter().all(Verdict::is_faultless) { Ok(()) } else { Err(text.into()) }
}

/// Has the watchers gather, one after the other, and gives the workload its cue after each time.
fn measure(workload: &mut Workload, watchers: &mut [Watcher]) {
    // The first answer may be a second in coming, and cpu.stat around it says little: nothing is measured from it.
    for watcher in &mut *watchers {
        watcher.plugin.gather(1);
    }
    for _ in 0..GATHERS {
        std::thread::sleep(INTERVAL);
        for watcher in &mut *watchers {
            watcher.gather(&workload.cgroup);
        }
        workload.cue();
    }
    assert!(workload.process.try_wait().unwrap().is_none(), "the workload ended by itself");
}

/// A workload that runs, in its cgroup, until this is dropped.
struct Workload {
    /// The pid of the tree's root.
    root: u32,
    process: Child,
    cgroup: Cgroup,
}

impl Workload {
    /// Starts the workload and waits until it says that it is ready.
    fn start(name: &str, cgroup: Cgroup) -> Self {
        let process = Command::new("/proc/self/exe")
            .args(["workload", name])
            .arg(cgroup.directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut workload = Self { root: 0, process, cgroup };
        let mut lines = BufReader::new(workload.process.stdout.as_mut().unwrap()).lines();
        let mut line = || lines.next().expect("the workload ended before it was ready").unwrap();
        workload.root = line().parse().unwrap();
        assert_eq!(line(), "ready");
        workload
    }

    /// The sign for a turning point that must lie between two gathers.
    fn cue(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").expect("the workload ended by itself");
    }
}

impl Drop for Workload {
    /// The workload's init, here because it is outside the cgroup, whose turn is next.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A plugin that watches a workload as one user, and what it has reported.
struct Watcher {
    user: &'static str,
    plugin: Plugin,
    readings: Vec<Reading>,
}

impl Watcher {
    fn start(user: &'static str, mut command: Command, target: &[OsString]) -> Self {
        command.args(target).args(["--accounting", "scan", "--psstat-fields", "all"]);
        Self { user, plugin: Plugin::start(command), readings: Vec::new() }
    }

    fn gather(&mut self, cgroup: &Cgroup) {
        let before = cgroup.usage();
        let line = self.plugin.gather(1).concat();
        let after = cgroup.usage();
        self.readings.push(Reading::new(before, &line, after));
    }
}
