//! Resident memory, of processes and of trees, against what smaps_rollup adds up page by page.
//!
//! What is compared are processes that the test has made: that nothing else runs on the host is not needed. Each is watched from before
//! it has come to rest, since what was read of a process that has just been born is the easiest to keep for too long.

// A test says what went wrong by panicking.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use support::{Plugin, command, field, skip, wait_for};

/// How the plugin learns of births and exits.
const WAYS: [&str; 2] = ["events", "scan"];

/// A process that was started by the test, with all that it has started. It waits for a line once it is ready.
struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Workload {
    fn start(program: impl AsRef<Path>, arguments: &[&str]) -> Self {
        let mut command = Command::new(program.as_ref());
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        Self { stdin: child.stdin.take(), stdout: BufReader::new(child.stdout.take().unwrap()), child }
    }

    /// One that a shell runs: it says which other processes there are, and waits.
    fn shell(script: &str) -> Self {
        Self::start("/bin/sh", &["-c", script])
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of pids, and returns them and its own.
    fn pids(&mut self) -> Vec<u32> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let others = line.split_whitespace().map(|pid| pid.parse().unwrap());
        [self.pid()].into_iter().chain(others).collect()
    }

    fn go_on(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.pid().cast_signed()).unwrap();
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A plugin that watches a pid in a way.
struct Watch {
    plugin: Plugin,
    collect: &'static [&'static str],
}

impl Watch {
    /// Writes a line of each of these measurements. `None`: it cannot be watched so here, as was said.
    fn start(pid: u32, way: &str, collect: &'static [&'static str], scope: &str) -> Option<Self> {
        let mut config = tempfile::NamedTempFile::new().unwrap();
        let options = format!("accounting = {way:?}\ncollect = {collect:?}\nscope = {scope:?}\nself_stats = true");
        let target = format!("[[inputs.taskstats.target]]\nname = \"w\"\npid = {pid}");
        write!(config, "[[inputs.taskstats]]\n{options}\n{target}\n").unwrap();
        let mut command = command();
        command.arg("--config").arg(config.path());
        let mut plugin = Plugin::start(command);
        let lines = plugin.gather(collect.len() + 1);
        if !lines.iter().any(|line| line.contains(&format!("accounting={way}"))) {
            skip(&format!("there is no accounting by {way} here: {lines:?}"));
            return None;
        }
        Some(Self { plugin, collect })
    }

    fn gather(&mut self) -> Vec<String> {
        self.plugin.gather(self.collect.len() + 1)
    }
}

/// A field of the line of a measurement.
fn find<'a>(lines: &'a [String], measurement: &str, name: &str) -> Option<&'a str> {
    field(lines.iter().find(|line| line.starts_with(&format!("{measurement},")))?, name)
}

fn number(lines: &[String], measurement: &str, name: &str) -> Option<u64> {
    find(lines, measurement, name)?.trim_end_matches('i').parse().ok()
}

/// "Rss:" of smaps_rollup, KiB. `None`: the process has no memory (yet).
fn truth(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let rss = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    rss.trim().strip_suffix(" kB")?.parse().ok()
}

/// Whether the processes are in a state that they stay in.
fn rest(pids: &[u32]) -> bool {
    let is_asleep = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" S"))
    };
    pids.iter().all(is_asleep)
}

/// What the plugin says of the processes, all of which the target selects, is what they have.
fn compare(what: &str, watch: &mut Watch, pids: &[u32], is_still: impl Fn() -> bool) {
    let of_all = || pids.iter().map(|pid| truth(*pid)).sum::<Option<u64>>();
    let (rss, share, expected) = wait_for("processes that rest", || {
        let before = of_all()?;
        let was_still = is_still();
        let lines = watch.gather();
        let is_still = was_still && is_still() && of_all()? == before;
        let share = find(&lines, "psstat", "p_mem").map(|share| share.parse::<f64>().unwrap());
        is_still.then(|| (number(&lines, "procstat", "rss").unwrap(), share, before))
    });
    assert!(rss.abs_diff(expected) * 100 <= expected, "{what}: rss {rss} KiB, but smaps_rollup has {expected}");
    if let Some(share) = share {
        let text = fs::read_to_string("/proc/meminfo").unwrap();
        let total = text.lines().next().unwrap().split_whitespace().nth(1).unwrap().parse::<f64>().unwrap();
        #[allow(clippy::cast_precision_loss)]
        let expected = expected as f64 / total;
        assert!((share - expected).abs() * 100.0 <= expected, "{what}: p_mem {share} is not {expected}");
    }
}

/// The same, of a tree of processes that sleep.
fn compare_tree(what: &str, start: impl Fn() -> Workload) {
    for way in WAYS {
        let mut workload = start();
        let Some(mut watch) = Watch::start(workload.pid(), way, &["procstat", "psstat"], "tree") else { continue };
        let pids = workload.pids();
        compare(&format!("{what}, by {way}"), &mut watch, &pids, || rest(&pids));
    }
}

#[test]
fn of_a_shell() {
    compare_tree("a shell", || Workload::shell("echo; read line"));
}

#[test]
fn of_a_tree_of_61_processes() {
    let script =
        "i=0; while [ $i -lt 60 ]; do sleep 600 & pids=\"$pids $!\"; i=$((i + 1)); done; echo $pids; read line";
    compare_tree("61 processes", || Workload::shell(script));
}

/// The dynamic loader is a program without libraries; it runs one that has some as if it were a static one.
#[test]
fn of_a_program_without_libraries() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let is_loader = |path: &&str| path.rsplit('/').next().is_some_and(|name| name.starts_with("ld-"));
    let Some(loader) = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(is_loader) else {
        return skip("the test is static itself: there is no loader");
    };
    compare_tree("a static program", || Workload::start(loader, &["/bin/sh", "-c", "echo; read line"]));
}

#[test]
fn of_an_interpreter() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let perl = std::env::split_paths(&path).map(|directory| directory.join("perl")).find(|perl| perl.is_file());
    let Some(perl) = perl else { return skip("there is no perl") };
    compare_tree("perl", || Workload::start(&perl, &["-e", "$| = 1; my @a = (1 .. 20000); print qq(\\n); <STDIN>"]));
}

/// This process itself.
#[test]
fn of_a_gibibyte_that_four_threads_have_touched() {
    const PART: usize = (1 << 30) / 4;
    for way in WAYS {
        let me = std::process::id();
        let Some(mut watch) = Watch::start(me, way, &["procstat"], "process") else { continue };
        let parts: Vec<_> = (0..4).map(|_| std::thread::spawn(|| vec![1_u8; PART])).collect();
        let parts: Vec<_> = parts.into_iter().map(|part| part.join().unwrap()).collect();
        compare(&format!("a GiB, by {way}"), &mut watch, &[me], || truth(me) > Some(1 << 20));
        assert_eq!(parts.iter().map(|part| usize::from(part[PART - 1])).sum::<usize>(), 4);
    }
}

/// What was measured of it a while ago is not what it has now: it has become another program.
#[test]
fn pss_is_never_above_rss() {
    let script = "x=$(head -c 50000000 /dev/zero | tr '\\0' x); echo; read line; exec sleep 600";
    for (way, scope) in WAYS.into_iter().flat_map(|way| [(way, "tree"), (way, "process")]) {
        let mut workload = Workload::shell(script);
        let pids = workload.pids();
        let Some(mut watch) = Watch::start(pids[0], way, &["procmaps", "procstat"], scope) else { continue };
        let mut sizes = || {
            let lines = watch.gather();
            let [pss, rss] = [number(&lines, "procmaps", "pss"), number(&lines, "procstat", "rss")];
            assert!(pss <= rss, "by {way}, {scope}: pss {pss:?} KiB, rss {rss:?}");
            pss
        };
        wait_for("a large pss", || sizes().filter(|pss| *pss > 40_000));
        workload.go_on();
        wait_for("another program", || rest(&pids).then(|| truth(pids[0]).filter(|rss| *rss < 10_000)).flatten());
        assert!(sizes().is_some_and(|pss| pss < 10_000), "by {way}, {scope}");
    }
}
