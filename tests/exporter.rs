//! Name for name what taskstats_exporter gave: the plugin in scope "process" under a real Telegraf, scraped as Prometheus does.
//! And `procmaps`, which is measured beside the gathers, over a made-up /proc.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking,
#![allow(clippy::indexing_slicing)] // also by an index out of bounds,
#![allow(clippy::print_stderr)] // and says what it skips

#[path = "support/delay_accounting.rs"]
mod delay_accounting;
#[path = "support/peers.rs"]
mod peers;
mod support;
#[path = "support/watched.rs"]
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use procfs::process::{ProcState, Process, all_processes};
use rustix::process::setpriority_process;
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use delay_accounting::DelayAccounting;
use peers::{Running, peer};
use support::{PATIENCE, Plugin, binary, field, wait_for};
use watched::{FakeProc, Sleeper, Stat, dead_pid};

/// What stands in telegraf.conf. `metric_version` is the default: 2 gives the same names and labels.
const TELEGRAF: &str = r#"
[agent]
  interval = "1s"
  flush_interval = "1s"
  round_interval = false
  omit_hostname = true
[[inputs.execd]]
  command = ["$PLUGIN", "--config", "$DIRECTORY/plugin.conf"]
  signal = "STDIN"
  data_format = "influx"
[[outputs.prometheus_client]]
  listen = "127.0.0.1:$PORT"
  expiration_interval = "3s"
  collectors_exclude = ["gocollector", "process"]
"#;

/// What stands in plugin.conf.
const PLUGIN: &str = r#"
[[inputs.taskstats]]
  collect = ["taskstat", "procstat", "procmaps", "thread"]
  scope = "process"
  name_tag = "name"
  procmaps_interval = "100ms"
  [[inputs.taskstats.target]]
    pid_dir = "$DIRECTORY/exporter_pidfiles"
"#;

/// What taskstats_exporter's README shows of a process.
const OF_PROCESS: [&str; 15] = [
    "taskstat_cpu_count",
    "taskstat_cpu_delay_total",
    "taskstat_blkio_count",
    "taskstat_blkio_delay_total",
    "taskstat_swapin_count",
    "taskstat_swapin_delay_total",
    "taskstat_nvcsw",
    "taskstat_nivcsw",
    "procstat_utime",
    "procstat_stime",
    "procstat_cutime",
    "procstat_cstime",
    "procstat_num_threads",
    "procstat_rss",
    "procmaps_pss",
];

/// And of its threads of a nice value.
const OF_THREADS: [&str; 4] =
    ["thread_blkio_delay", "thread_schedstat_oncpu", "thread_schedstat_waiting", "thread_schedstat_slices"];

/// The nice values of the threads of [`busy`].
const NICE: [i32; 3] = [3, 4, 3];

/// Set for the run of this executable that is watched.
const WATCHED: &str = "TASKSTATS_TEST_WATCHED";

/// Not a test but, run by one in a process of its own, what that watches: it has waited for a child, and has niced threads; all of
/// them have used some CPU, and wait.
#[test]
fn busy() {
    if std::env::var_os(WATCHED).is_none() {
        return;
    }
    let child = Command::new("sh").args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]).status();
    assert!(child.unwrap().success());
    let (sender, burnt) = channel();
    for nice in NICE {
        let sender = sender.clone();
        std::thread::spawn(move || {
            setpriority_process(None, nice).unwrap(); // of this thread, whatever POSIX says
            let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
            while used() < Duration::from_millis(50) {}
            sender.send(()).unwrap();
            loop {
                std::thread::park();
            }
        });
    }
    burnt.iter().take(NICE.len()).for_each(drop);
    eprintln!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new()); // it ends with the test, even when that is killed
}

/// Starts [`busy`] and waits until all its threads wait.
fn start_busy() -> Running {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "busy", "--nocapture"]).env(WATCHED, "");
    let mut process = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()));
    let mut stderr = BufReader::new(process.stderr.take().unwrap()).lines();
    stderr.find(|line| line.as_ref().unwrap().ends_with("ready")).expect("it is ready").unwrap();
    let of = Process::new(process.id().cast_signed()).unwrap();
    wait_for("its threads to wait", || {
        let mut tasks = of.tasks().unwrap();
        tasks.all(|task| task.unwrap().stat().unwrap().state().unwrap() == ProcState::Sleeping).then_some(())
    });
    process
}

/// A Telegraf that runs the plugin, and the pidfiles. What it says is shown when the test fails.
struct Telegraf {
    process: Running,
    directory: TempDir,
    url: String,
    agent: ureq::Agent,
}

impl Telegraf {
    /// Starts it in a directory that has the pidfiles.
    fn start(program: &Path, directory: TempDir) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let path = directory.path();
        let fill = |text: &str| {
            let text = text.replace("$PLUGIN", binary().to_str().unwrap()).replace("$PORT", &port.to_string());
            text.replace("$DIRECTORY", path.to_str().unwrap())
        };
        fs::write(path.join("telegraf.conf"), fill(TELEGRAF)).unwrap();
        fs::write(path.join("plugin.conf"), fill(PLUGIN)).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(path.join("telegraf.conf")).stdin(Stdio::null());
        let process = Running::start(command.stderr(File::create(path.join("log")).unwrap()));
        let config = ureq::Agent::config_builder().proxy(None).timeout_global(Some(PATIENCE));
        Self { process, directory, url: format!("http://127.0.0.1:{port}/metrics"), agent: config.build().into() }
    }

    /// What a scrape gives; nothing while it does not answer.
    fn scrape(&self) -> String {
        let answer = self.agent.get(&self.url).call();
        answer.and_then(|mut answer| answer.body_mut().read_to_string()).unwrap_or_default()
    }

    /// Waits for a scrape that has these series and, of the process called `without`, none.
    fn wait_for(&self, wanted: &[&[Series]], without: &str) -> Samples {
        wait_for(&format!("the series wanted, without {without:?}"), || {
            let samples = parse(&self.scrape());
            let is_there = |series| samples.contains_key(series);
            (wanted.iter().copied().flatten().all(is_there) && !names(&samples).contains(without)).then_some(samples)
        })
    }

    /// The pids of the plugins that it runs.
    fn plugins(&self) -> Vec<i32> {
        let parent = self.process.id().cast_signed();
        let stats = all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
        stats.filter(|stat| stat.ppid == parent).map(|stat| stat.pid).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl Drop for Telegraf {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Telegraf serves:\n{}\nIts log:\n{}", self.scrape(), self.log());
        }
    }
}

/// Pidfiles, and the links to them by which they are watched, as taskstats_exporter's README has it.
struct Links(PathBuf);

impl Links {
    fn new(directory: &Path) -> Self {
        for subdirectory in ["run", "exporter_pidfiles"] {
            fs::create_dir(directory.join(subdirectory)).unwrap();
        }
        Self(directory.to_owned())
    }

    /// Makes a pidfile, and then the link.
    fn link(&self, name: &str, content: &str) {
        fs::write(self.file(name), content).unwrap();
        symlink(self.file(name), self.0.join("exporter_pidfiles").join(name)).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join("run").join(format!("{name}.pid"))
    }

    fn unlink(&self, name: &str) {
        fs::remove_file(self.0.join("exporter_pidfiles").join(name)).unwrap();
    }
}

type Labels = BTreeMap<String, String>;

/// A metric's name and its labels.
type Series = (String, Labels);

type Samples = BTreeMap<Series, f64>;

fn series(metric: &str, labels: &[(&str, &str)]) -> Series {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    (metric.to_owned(), labels.collect())
}

/// The series of a process.
fn of_process(name: &str, pid: u32) -> Vec<Series> {
    OF_PROCESS.map(|metric| series(metric, &[("name", name), ("pid", &pid.to_string())])).into()
}

/// The series of its threads of a nice value.
fn of_threads(name: &str, nice: i32, pid: u32) -> Vec<Series> {
    let (nice, pid) = (nice.to_string(), pid.to_string());
    OF_THREADS.map(|metric| series(metric, &[("name", name), ("nice", &nice), ("pid", &pid)])).into()
}

/// The processes that have series.
fn names(samples: &Samples) -> BTreeSet<&str> {
    samples.keys().map(|(_, labels)| labels["name"].as_str()).collect()
}

/// The text format, of labels without commas or escapes.
fn parse(body: &str) -> Samples {
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.strip_suffix('}')?.split_once('{')?;
        let labels = labels.split(',').map(|label| {
            let (key, value) = label.strip_suffix('"')?.split_once("=\"")?;
            Some((key.to_owned(), value.to_owned()))
        });
        Some(((name.to_owned(), labels.collect::<Option<Labels>>()?), value.parse().ok()?))
    };
    lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect()
}

/// What /proc says now of a process all of whose threads wait, as read by another than the plugin. ns, and counts.
fn from_proc(name: &str, pid: u32) -> Samples {
    let tick = 1_000_000_000 / procfs::ticks_per_second();
    let process = Process::new(pid.cast_signed()).unwrap();
    let stat = process.stat().unwrap();
    let [cutime, cstime] = [stat.cutime, stat.cstime].map(|ticks| ticks.cast_unsigned() * tick);
    let metrics = [
        ("procstat_utime", stat.utime * tick),
        ("procstat_stime", stat.stime * tick),
        ("procstat_cutime", cutime),
        ("procstat_cstime", cstime),
        ("procstat_num_threads", stat.num_threads.cast_unsigned()),
    ];
    let of_process = |(metric, value)| (series(metric, &[("name", name), ("pid", &pid.to_string())]), value as f64);
    let mut samples: Samples = metrics.into_iter().map(of_process).collect();
    for task in process.tasks().unwrap().map(Result::unwrap) {
        let (stat, schedstat) = (task.stat().unwrap(), task.schedstat().unwrap());
        let blkio = stat.delayacct_blkio_ticks.unwrap() * tick;
        let counts = [blkio, schedstat.sum_exec_runtime, schedstat.run_delay, schedstat.pcount];
        let nice = i32::try_from(stat.nice).unwrap();
        for (series, count) in of_threads(name, nice, pid).into_iter().zip(counts).filter(|_| nice != 0) {
            *samples.entry(series).or_default() += count as f64;
        }
    }
    samples
}

#[test]
fn telegraf_serves_the_metrics_of_taskstats_exporter() {
    let (Some(program), Some(_on)) = (peer("telegraf"), DelayAccounting::switch(true)) else { return };
    let directory = tempfile::tempdir().unwrap();
    let links = Links::new(directory.path());
    let (busy, words, second) = (start_busy(), Sleeper::named(b"two words (x) S"), Sleeper::new());
    let pid = busy.id();
    links.link("cassandra", &format!("{pid}\n"));
    links.link("words", &words.pid().to_string());
    let useless = [("dead", dead_pid().to_string()), ("empty", String::new()), ("garbage", "no pid\n".to_owned())];
    for (name, content) in &useless {
        links.link(name, content);
    }
    links.link("nowhere", "");
    fs::remove_file(links.file("nowhere")).unwrap();

    let telegraf = Telegraf::start(&program, directory);
    let threads = [of_threads("cassandra", 3, pid), of_threads("cassandra", 4, pid)].concat();
    let (cassandra, words) = (of_process("cassandra", pid), of_process("words", words.pid()));
    let samples = telegraf.wait_for(&[&cassandra, &threads, &words], "second");
    assert_eq!(names(&samples), ["cassandra", "words"].into());
    for (metric, labels) in samples.keys() {
        let expected = if metric.starts_with("thread_") { vec!["name", "nice", "pid"] } else { vec!["name", "pid"] };
        assert!(labels.keys().eq(expected), "{metric} {labels:?}");
    }

    // What waits counts no further: they agree to the last digit.
    for (series, value) in from_proc("cassandra", pid) {
        assert_eq!(samples.get(&series), Some(&value), "{series:?}");
    }
    for nice in [3, 4] {
        let oncpu = &of_threads("cassandra", nice, pid)[1];
        assert!(samples[oncpu] >= 50e6, "less than the 50 ms it burnt: {oncpu:?}");
    }
    for metric in ["taskstat_cpu_count", "procstat_utime", "procstat_cutime", "procstat_rss", "procmaps_pss"] {
        let series = cassandra.iter().find(|(name, _)| name == metric).unwrap();
        assert!(samples[series] > 0.0, "{metric}");
    }

    let plugins = telegraf.plugins();
    links.link("second", &second.pid().to_string());
    telegraf.wait_for(&[&cassandra, &words, &of_process("second", second.pid())], "none");
    links.unlink("second");
    telegraf.wait_for(&[&cassandra, &threads, &words], "second");
    assert_eq!((plugins.len(), telegraf.plugins()), (1, plugins), "the plugin was started anew");

    let log = telegraf.log();
    for name in ["dead", "empty", "garbage", "nowhere"] {
        assert!(log.contains(&format!("exporter_pidfiles/{name}: ")), "{name}: {log}");
    }
}

/// The configuration for a tree and its root by themselves. "zz" is the last of a gather's lines.
const PROCMAPS: &str = r#"
[[inputs.taskstats]]
  collect = ["psstat", "procmaps"]
  psstat_fields = ["n_proc"]
  procmaps_interval = "100ms"
  procmaps_max_rss = "1MiB"
  [[inputs.taskstats.target]]
    name = "root"
    pid = 10
    scope = "process"
  [[inputs.taskstats.target]]
    name = "tree"
    pid = 10
  [[inputs.taskstats.target]]
    name = "zz"
    pid = 10
    collect = ["psstat"]
"#;

/// A made-up process with so much PSS (kB), and 1 MiB of resident memory, since its PSS cannot be more.
fn put(proc: &FakeProc, stat: &Stat, pss: u32) {
    proc.put(stat);
    proc.write(&format!("{}/stat", stat.pid), stat.text().replace(" 0 100 0 ", " 0 256 0 "));
    let text = format!("1000-2000 ---p 00000000 00:00 0 [rollup]\nRss: 9000 kB\nPss: {pss} kB\nPss_Anon: 1 kB\n");
    proc.write(&format!("{}/smaps_rollup", stat.pid), text);
}

/// Gathers until the PSS of the process and of its tree are these (None: no line). The other measurements go on meanwhile.
fn wait_for_pss(plugin: &mut Plugin, root: Option<&str>, tree: Option<&str>) {
    wait_for(&format!("the PSS {root:?} and {tree:?}"), || {
        plugin.prompt();
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.starts_with("psstat,process_name=zz ")) {
            lines.push(plugin.line());
        }
        assert_eq!(lines.iter().filter(|line| line.starts_with("psstat,")).count(), 3, "{lines:?}");
        let pss = |series: &str| {
            let line = lines.iter().find(|line| line.starts_with(series))?;
            Some(field(line, "pss").unwrap_or_else(|| panic!("{line}")))
        };
        let found = (pss("procmaps,pid=10,process_name=root "), pss("procmaps,process_name=tree "));
        (found == (root, tree)).then_some(())
    });
}

#[test]
fn pss_is_measured_anew_and_left_out_where_it_cannot_be() {
    let proc = FakeProc::new();
    let (root, child) = (Stat::old(10, "root"), Stat { ppid: 10, ..Stat::old(11, "child") });
    put(&proc, &root, 643);
    put(&proc, &child, 57);
    proc.write("plugin.conf", PROCMAPS);
    let mut command = support::command();
    command.arg("--proc-root").arg(proc.path()).arg("--config").arg(proc.path().join("plugin.conf"));
    let mut plugin = Plugin::start(command);
    wait_for_pss(&mut plugin, Some("643i"), Some("700i"));
    put(&proc, &root, 1000);
    wait_for_pss(&mut plugin, Some("1000i"), Some("1057i"));

    // A kernel without the file; a tree of which a part is not known is not known.
    proc.remove("11/smaps_rollup");
    wait_for_pss(&mut plugin, Some("1000i"), None);
    plugin.wait_stderr("smaps_rollup");
    put(&proc, &child, 7);
    wait_for_pss(&mut plugin, Some("1000i"), Some("1007i"));

    proc.write("10/stat", root.text().replace(" 0 100 0 ", " 0 1000 0 "));
    wait_for_pss(&mut plugin, None, None);
    plugin.wait_stderr("procmaps_max_rss = 1 MiB");
    put(&proc, &root, 5);
    wait_for_pss(&mut plugin, Some("5i"), Some("12i"));

    proc.remove("11");
    wait_for_pss(&mut plugin, Some("5i"), Some("5i"));
    proc.remove("10");
    wait_for_pss(&mut plugin, None, Some("0i"));
}
