//! The plugin under a real Telegraf, as `scripts/peers` builds it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking,
#![allow(clippy::indexing_slicing)] // also by an index out of bounds,
#![allow(clippy::print_stderr)] // and says what it skips

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/peers.rs"]
mod peers;
mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use procfs::process::{ProcState, Process};
use rustix::process::Signal;
use tempfile::TempDir;

use hostile::{Hostile, SERIES, expected_names, parse, tags};
use peers::{Running, kill, named, peer, shell, tree_of_three};
use support::{binary, command, field, wait, wait_for};

/// A Telegraf with a configuration: `inputs` gathered every second and written to a file.
struct Telegraf {
    program: PathBuf,
    directory: TempDir,
}

impl Telegraf {
    /// None, after saying so, where there is no Telegraf.
    fn with(inputs: &str) -> Option<Self> {
        let telegraf = Self { program: peer("telegraf")?, directory: tempfile::tempdir().unwrap() };
        let config = format!(
            r#"[agent]
  interval = "1s"
  flush_interval = "1s"
  precision = "1ns"
  round_interval = false
  omit_hostname = true
[[outputs.file]]
  files = ["{}"]
  data_format = "influx"
{inputs}"#,
            telegraf.file("metrics").display()
        );
        fs::write(telegraf.file("telegraf.conf"), config).unwrap();
        Some(telegraf)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.file("telegraf.conf")).stdin(Stdio::null());
        command
    }

    /// Runs Telegraf for one gather, as `--test` and `--once` do; returns what it prints.
    fn run(&self, mode: &str) -> String {
        let output = self.command().arg(mode).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {log}", output.status);
        assert_calm(&log);
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(self) -> RunningTelegraf {
        let log = File::create(self.file("log")).unwrap();
        let process = Running::start(self.command().stderr(log));
        RunningTelegraf { process, telegraf: self }
    }

    /// The metrics delivered so far; a line that is still being written is not one yet.
    fn metrics(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file("metrics")).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| Some(line.strip_suffix('\n')?.to_owned())).collect()
    }
}

/// A Telegraf that gathers until it is stopped. Its log is shown when the test fails.
struct RunningTelegraf {
    process: Running,
    telegraf: Telegraf,
}

impl RunningTelegraf {
    fn log(&self) -> String {
        fs::read_to_string(self.telegraf.file("log")).unwrap()
    }

    /// Waits for `count` metrics that are `wanted`.
    fn wait_metrics(&self, count: usize, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        wait_for(&format!("{count} metrics"), || {
            let mut metrics = self.telegraf.metrics();
            metrics.retain(|line| wanted(line));
            (metrics.len() >= count).then_some(metrics)
        })
    }

    /// Waits for two metrics that are gathered from now on.
    fn wait_for_more(&self) {
        let now = UNIX_EPOCH.elapsed().unwrap().as_nanos();
        self.wait_metrics(2, |line| timestamp(line).cast_unsigned() as u128 > now);
    }

    /// Waits for a plugin other than `previous`, the only one that Telegraf then runs.
    fn wait_plugin(&self, previous: Option<&Process>) -> Process {
        wait_for("the one plugin of this Telegraf", || {
            let mut plugins = children(self.process.id());
            let plugin = plugins.pop()?;
            (plugins.is_empty() && previous.is_none_or(|p| p.pid != plugin.pid)).then_some(plugin)
        })
    }

    /// Stops Telegraf as its service manager does; returns its log.
    fn stop(mut self) -> String {
        self.process.signal(Signal::TERM);
        let status = wait(&mut self.process);
        assert!(status.success(), "{status}");
        self.log()
    }
}

impl Drop for RunningTelegraf {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Telegraf's log:\n{}", self.log());
        }
    }
}

/// The children of a process.
fn children(parent: u32) -> Vec<Process> {
    let is_child = |process: &Process| process.stat().is_ok_and(|stat| stat.ppid == parent.cast_signed());
    procfs::process::all_processes().unwrap().flatten().filter(is_child).collect()
}

/// An `[[inputs.execd]]` that runs the plugin. (A list of strings is the same in JSON and in TOML.)
fn execd(signal: &str, arguments: &[&str]) -> String {
    let command = [&[binary().to_str().unwrap()], arguments].concat();
    format!(
        r#"[[inputs.execd]]
  command = {}
  signal = "{signal}"
  restart_delay = "100ms"
  data_format = "influx"
"#,
        serde_json::to_string(&command).unwrap()
    )
}

/// An `[[inputs.exec]]` that runs the plugin, as psstat is run.
fn exec(arguments: &str) -> String {
    let words: Vec<_> = std::iter::once(binary().to_str().unwrap()).chain(arguments.split(' ')).collect();
    format!(
        r#"[[inputs.exec]]
  commands = [{}]
  data_format = "influx"
"#,
        serde_json::to_string(&words).unwrap()
    )
}

/// That Telegraf found nothing to complain of, nor did the plugin. Not counted: Telegraf's warnings of its own
/// future, and what it says when it has closed the pipe of a plugin that ended before it saw the end of it.
fn assert_calm(log: &str) {
    let is_complaint = |line: &str| line.contains(" E! ") || line.contains(" W! [inputs.");
    let is_close = |line: &str| line.ends_with("read |0: file already closed");
    let complaints: Vec<_> = log.lines().filter(|line| is_complaint(line) && !is_close(line)).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

fn timestamp(line: &str) -> i64 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn float(line: &str, name: &str) -> f64 {
    field(line, name).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name}: {line}"))
}

/// A process that uses a whole core whenever it is not stopped; not for ever, should the tests be killed.
struct Burner(Running);

impl Burner {
    fn start() -> Self {
        Self(shell("ulimit -t 300; while :; do :; done", OsStr::new("")))
    }

    fn process(&self) -> Process {
        Process::new(self.0.id().cast_signed()).unwrap()
    }

    /// The CPU seconds it has used.
    fn used(&self) -> f64 {
        let stat = self.process().stat().unwrap();
        (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
    }

    /// Stops it once it has used half a second more of CPU.
    fn burn(&self) {
        let enough = self.used() + 0.5;
        self.0.signal(Signal::CONT);
        wait_for("half a second of CPU", || (self.used() >= enough).then_some(()));
        self.0.signal(Signal::STOP);
        wait_for("the process to stop", || {
            (self.process().stat().unwrap().state().unwrap() == ProcState::Stopped).then_some(())
        });
    }
}

/// Each gather by `signal` delivers the line of a tree of three processes. Without an offset Telegraf gathers
/// the moment it has started the plugin: no process could have installed a signal handler by then.
fn assert_gathers_by(signal: &str) {
    let tree = tree_of_three();
    let inputs = execd(signal, &["--pid", &format!("tree:{}", tree.id())]) + "  collection_offset = \"1s\"\n";
    let Some(telegraf) = Telegraf::with(&inputs) else { return };
    let telegraf = telegraf.start();
    let metrics = telegraf.wait_metrics(3, |line| field(line, "n_proc") == Some("3i"));
    assert!(metrics.iter().all(|line| line.starts_with("psstat,process_name=tree ")), "{metrics:#?}");
    assert!(metrics.iter().all(|line| float(line, "p_mem") > 0.0), "{metrics:#?}");
    assert!(metrics.iter().any(|line| field(line, "p_cpu").is_some()), "{metrics:#?}"); // not soon after another
    assert!(metrics.is_sorted_by(|a, b| timestamp(a) < timestamp(b)), "{metrics:#?}");
    assert_calm(&telegraf.stop());
}

#[test]
fn gathers_by_stdin() {
    assert_gathers_by("STDIN");
}

#[test]
fn gathers_by_sigusr1() {
    assert_gathers_by("SIGUSR1");
}

#[test]
fn gathers_by_sighup() {
    assert_gathers_by("SIGHUP");
}

#[test]
fn test_mode_shows_the_cpu_of_a_busy_process() {
    let burner = Burner::start();
    let inputs = execd("STDIN", &["--pid", &format!("busy:{}", burner.0.id())]);
    let Some(telegraf) = Telegraf::with(&inputs) else { return };
    let output = telegraf.run("--test");
    let metrics: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    assert_eq!(metrics.len(), 1, "{output}");
    assert!(metrics[0].starts_with("psstat,process_name=busy "), "{output}");
    assert!(float(metrics[0], "p_cpu") > 0.0, "{output}");
}

/// The first block of README.md that configures execd, the plugin being where it was built: without any configuration of its
/// own it watches the services of this host, of which there are some.
#[test]
fn the_block_of_the_readme_delivers() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let block = readme.split("```").find(|block| block.starts_with("toml\n[[inputs.execd]]")).unwrap();
    let block = block.replacen("toml", "", 1).replace("/usr/local/bin/telegraf-taskstats", binary().to_str().unwrap());
    assert!(block.contains(binary().to_str().unwrap()));
    let Some(telegraf) = Telegraf::with(&block) else { return };
    let running = telegraf.start();
    let is_psstat = |line: &str| line.starts_with("psstat,") && line.contains("process_name=");
    let metrics = running.wait_metrics(2, is_psstat);
    assert!(metrics.iter().all(|line| line.contains("n_proc=") && line.contains("p_mem=")), "{metrics:?}");
    assert_calm(&running.stop());
}

#[test]
fn stop_leaves_no_plugin_behind() {
    let tree = tree_of_three();
    let Some(telegraf) = Telegraf::with(&execd("STDIN", &["--pid", &tree.id().to_string()])) else { return };
    let telegraf = telegraf.start();
    telegraf.wait_for_more();
    let plugin = telegraf.wait_plugin(None);
    assert_calm(&telegraf.stop());
    assert!(!plugin.is_alive());
}

#[test]
fn reload_starts_the_plugin_anew() {
    let tree = tree_of_three();
    let Some(telegraf) = Telegraf::with(&execd("STDIN", &["--pid", &tree.id().to_string()])) else { return };
    let telegraf = telegraf.start();
    telegraf.wait_for_more();
    let before = telegraf.wait_plugin(None);
    telegraf.process.signal(Signal::HUP);
    let after = telegraf.wait_plugin(Some(&before));
    assert!(!before.is_alive());
    telegraf.wait_for_more();
    assert_calm(&telegraf.stop());
    assert!(!after.is_alive());
}

#[test]
fn two_instances_both_deliver() {
    let (one, two) = (tree_of_three(), tree_of_three());
    let instance = |name: &str, process: &Running| {
        let (pid, tag) = (format!("{name}:{}", process.id()), format!("instance={name}"));
        execd("STDIN", &["--pid", &pid, "--tag", &tag])
    };
    let Some(telegraf) = Telegraf::with(&(instance("one", &one) + &instance("two", &two))) else { return };
    let telegraf = telegraf.start();
    telegraf.wait_metrics(2, |line| line.starts_with("psstat,instance=one,process_name=one "));
    telegraf.wait_metrics(2, |line| line.starts_with("psstat,instance=two,process_name=two "));
    assert_calm(&telegraf.stop());
}

#[test]
fn a_killed_plugin_is_started_again() {
    let tree = tree_of_three();
    let Some(telegraf) = Telegraf::with(&execd("STDIN", &["--pid", &tree.id().to_string()])) else { return };
    let telegraf = telegraf.start();
    telegraf.wait_for_more();
    let killed = telegraf.wait_plugin(None);
    kill(killed.pid, Signal::KILL);
    let next = telegraf.wait_plugin(Some(&killed));
    telegraf.wait_for_more();
    telegraf.stop();
    assert!(!next.is_alive());
}

/// Arguments that name `pid` 500 times, at such length that the lines fill a pipe more than once.
fn five_hundred_targets(pid: u32) -> Vec<String> {
    (0..500).flat_map(|i| ["--pid".to_owned(), format!("{i:x>200}:{pid}")]).collect()
}

/// That each of the 500 targets is in `lines` once, and nothing else.
fn assert_all_five_hundred(lines: &[String]) {
    let names: BTreeSet<_> = lines.iter().filter_map(|line| line.split([',', ' ', '=']).nth(2)).collect();
    assert_eq!((lines.len(), names.len()), (500, 500));
    assert!(lines.iter().all(|line| timestamp(line) == timestamp(&lines[0])));
}

#[test]
fn once_delivers_all_of_500_lines() {
    let tree = tree_of_three();
    let arguments = five_hundred_targets(tree.id());
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let Some(telegraf) = Telegraf::with(&execd("STDIN", &arguments)) else { return };
    telegraf.run("--once");
    assert_all_five_hundred(&telegraf.metrics());
}

#[test]
fn hostile_names_pass_through_telegraf() {
    let hostile = Hostile::new();
    let Some(telegraf) = Telegraf::with(&execd("STDIN", &["--config", hostile.config().to_str().unwrap()])) else {
        return;
    };
    telegraf.run("--once");
    let metrics = telegraf.metrics();
    let names = metrics.iter().map(|line| tags(&parse(line)).remove("process_name").expect(line));
    assert_eq!(names.collect::<BTreeSet<_>>(), expected_names());
    assert_eq!(metrics.len(), SERIES);
}

/// Telegraf closes its end of the pipe as soon as the plugin has exited: what it has not read by then is
/// lost. The reader here does the same, slowly.
#[test]
fn a_slow_reader_gets_all_of_500_lines() {
    let tree = tree_of_three();
    let mut command = support::command();
    command.args(five_hundred_targets(tree.id())).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut plugin = Running::start(&mut command);
    plugin.stdin.take().unwrap().write_all(b"\n").unwrap(); // which closes it, too

    let mut stdout = plugin.stdout.take().unwrap();
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while plugin.try_wait().unwrap().is_none() {
        let count = stdout.read(&mut chunk).unwrap();
        text.extend_from_slice(&chunk[..count]);
        std::thread::sleep(Duration::from_millis(10)); // this is what makes it slow
    }
    drop(stdout);

    assert!(wait(&mut plugin).success());
    let text = String::from_utf8(text).unwrap();
    assert!(text.ends_with('\n'), "the last line is cut: {:?}", text.lines().last());
    assert_all_five_hundred(&text.lines().map(str::to_owned).collect::<Vec<_>>());
}

/// With a cache file p_cpu is the CPU used since the run before: here all of it between the two runs, so that a
/// run which began anew would say 0. Not to the digit: a timestamp is not quite when the counters were read.
#[test]
fn exec_with_a_cache_file_covers_the_time_between_two_runs() {
    let burner = Burner::start();
    burner.burn();
    let cache = tempfile::tempdir().unwrap();
    let inputs = exec(&format!("--once --cache-dir {} --pid burner:{}", cache.path().display(), burner.0.id()));
    let Some(telegraf) = Telegraf::with(&inputs) else { return };

    telegraf.run("--once");
    let used_before = burner.used();
    burner.burn();
    let used = burner.used() - used_before;
    telegraf.run("--once");

    let metrics = telegraf.metrics();
    assert_eq!(metrics.len(), 2, "{metrics:#?}");
    let seconds = (timestamp(&metrics[1]) - timestamp(&metrics[0])) as f64 / 1e9;
    let reported = float(&metrics[1], "p_cpu") * seconds;
    assert!((reported / used - 1.0).abs() < 0.25, "used {used} s of CPU, reported {reported}: {metrics:#?}");
}

/// The command of psstat's README, and the renaming by which older dashboards keep their field names.
#[test]
fn exec_takes_the_command_line_of_psstat() {
    let nginx = tree_of_three();
    let _mysql = named(b"mysqld_safe");
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("nginx.pid");
    fs::write(&pid_file, nginx.id().to_string()).unwrap();
    let arguments = format!("--tag env=production --pid-file {} --pattern mysql:mysqld_safe", pid_file.display());
    let Some(telegraf) = Telegraf::with(&(exec(&arguments) + RENAME)) else { return };
    telegraf.run("--once");

    let metrics = telegraf.metrics();
    assert_eq!(metrics.len(), 2, "{metrics:#?}");
    for name in ["nginx", "mysql"] {
        let series = format!("psstat,env=production,process_name={name} ");
        let line = metrics.iter().find(|line| line.starts_with(&series)).expect(&series);
        assert!(float(line, "pcpu") >= 0.0 && float(line, "pmem") > 0.0, "{line}");
        assert!(field(line, "n_proc").is_some(), "{line}");
    }
}

const RENAME: &str = r#"
[[processors.rename]]
  [[processors.rename.replace]]
    field = "p_cpu"
    dest = "pcpu"
  [[processors.rename.replace]]
    field = "p_mem"
    dest = "pmem"
"#;

/// Strings that ask for variables of the environment, and what becomes of them.
const VARIABLES: [(&str, &str); 11] = [
    ("${HOST}", "web1"),
    ("$HOST.$HOST-${HOST}", "web1.web1-web1"),
    ("x$$HOST$$", "x$HOST$"),
    ("${NONE:-x}${EMPTY:-y}${NONE-z}<${EMPTY-z}>", "xyz<>"),
    ("${HOST:-x}${HOST-x}", "web1web1"),
    ("${HOST:+x}${HOST+x}<${EMPTY:+y}>${EMPTY+z}<${NONE:+y}${NONE+y}>", "xx<>z<>"),
    ("${HOST:?must_be_set}", "web1"),
    ("${NONE:-${EMPTY:-<${HOST}>}}}", "<web1>}"),
    ("${PRICE}", "$HOST/${HOST}"),
    ("^(a|b$)$|^1$2", "^(a|b$)$|^1$2"),
    ("$NONE", "$NONE"),
];

#[test]
fn a_variable_of_the_environment_is_what_telegraf_makes_of_it() {
    let environment = [("HOST", "web1"), ("EMPTY", ""), ("PRICE", "$HOST/${HOST}")];
    let cases = || VARIABLES.iter().enumerate();
    let echo = |(case, (text, _)): (usize, &(&str, &str))| format!("variable,case={case} text=\"{text}\"");
    let commands: Vec<_> = cases().map(|case| ["echo".to_owned(), echo(case)]).collect();
    let commands = serde_json::to_string(&commands).unwrap();
    let Some(telegraf) =
        Telegraf::with(&format!("[[inputs.exec]]\n  commands = {commands}\n  data_format = \"influx\"\n"))
    else {
        return;
    };
    let output = telegraf.command().arg("--test").envs(environment).env_remove("NONE").output().unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();

    let tags: Vec<_> = cases().map(|(case, (text, _))| format!("    case_{case} = '{text}'\n")).collect();
    let own = std::process::id();
    let text = format!(
        "[[inputs.taskstats]]\n  [inputs.taskstats.tags]\n{}  [[inputs.taskstats.target]]\n    pid = {own}\n",
        tags.concat()
    );
    fs::write(telegraf.file("plugin.conf"), text).unwrap();
    let mut plugin = command();
    plugin.arg("--config").arg(telegraf.file("plugin.conf")).arg("--once");
    let output = plugin.envs(environment).env_remove("NONE").output().unwrap();
    let (ours, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());

    for (case, (text, becomes)) in cases() {
        assert!(theirs.contains(&format!("variable,case={case} text=\"{becomes}\" ")), "{text}: {theirs}");
        assert!(ours.contains(&format!(",case_{case}={becomes},")), "{text}: {ours}");
    }
    let warnings: Vec<_> = stderr.lines().collect();
    assert!(
        matches!(warnings[..], [line] if line.contains(".conf:13: ") && line.contains("\"$NONE\" stays")),
        "{warnings:?}"
    );
}
