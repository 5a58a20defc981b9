//! The truth: what each contender reports of a workload, against what the kernel charges the workload's cgroup.
//!
//! The workloads are those of tests/truth.rs. All contenders watch one at the same time, once a second and in the same part
//! of the second, so that a workload's turning points can be put between the gathers of all.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, getpid};
use tempfile::TempDir;

use crate::cgroup::Cgroup;
use crate::contenders::{Clocked, Exporter, Plugin, apps_plugin, sample, setting, telegraf};
use crate::process::{Process, scratch};
use crate::report::{go_on, leave_out, note};
use crate::workloads::all;

/// The intervals of a second that are measured.
const INTERVALS: usize = 4;
/// When in the second those gather that can choose. apps.plugin chooses some time between 250 and 500 ms.
const GATHER: Duration = Duration::from_millis(400);
/// When all have gathered, and the workload is given its cue. What it does half a second later is before the next gather.
const CUE: Duration = Duration::from_millis(650);
/// How many seconds it may take until each has gathered twice, so that what is new is told from what was there.
const PATIENCE: usize = 20;

/// comm of the parent of a workload's root, by which apps.plugin finds the tree.
const COMM: &CStr = c"workload";
/// That of its init, which belongs to no tree.
const INIT: &CStr = c"workload-init";
/// The name of the one target.
const NAME: &str = "w";

/// A workload, and what share of its CPU each contender reported; none if it reported nothing at all.
pub struct Row {
    pub workload: &'static str,
    pub shares: Vec<Option<f64>>,
}

/// What a contender has reported so far and what the cgroup had been charged by then, in seconds.
#[derive(Clone, Copy)]
struct Reading {
    reported: f64,
    charged: f64,
}

/// The contenders' names, and a row for each workload.
pub fn measure() -> Result<(Vec<&'static str>, Vec<Row>)> {
    let mut starters: Vec<(&'static str, Starter)> = vec![
        ("telegraf-taskstats", plugin),
        ("procstat", procstat),
        ("process-exporter", exporter),
        ("apps.plugin", netdata),
    ];
    let mut rows = Vec::new();
    for (name, _) in all() {
        note(&format!("truth: {name}"));
        let mut workload = Workload::start(name)?;
        let mut watchers = Vec::new();
        starters.retain(|(what, start)| match start(&workload) {
            Ok(watcher) => {
                watchers.push(watcher);
                true
            }
            Err(error) => {
                leave_out(what, &error);
                // A column that began is not given up.
                !rows.is_empty()
            }
        });
        ensure!(watchers.len() == starters.len(), "a contender did not start");
        let shares = watch(&mut workload, &mut watchers).with_context(|| (*name).to_owned())?;
        rows.push(Row { workload: name, shares });
    }
    Ok((starters.into_iter().map(|(what, _)| what).collect(), rows))
}

fn watch(workload: &mut Workload, watchers: &mut [Box<dyn Watcher>]) -> Result<Vec<Option<f64>>> {
    for _ in 0..PATIENCE {
        gather(workload, watchers)?;
        if watchers.iter().all(|watcher| watcher.readings().len() >= 2) {
            break;
        }
    }
    sleep_until(CUE);
    let before: Vec<_> = watchers.iter().map(|watcher| watcher.readings().last().copied()).collect();
    for _ in 0..INTERVALS {
        workload.cue()?;
        gather(workload, watchers)?;
        sleep_until(CUE);
    }
    ensure!(workload.process.try_wait()?.is_none(), "the workload ended by itself");
    Ok(before.into_iter().zip(watchers).map(|(before, watcher)| share(before?, *watcher.readings().last()?)).collect())
}

/// Those that gather when they are asked; the others do at about the same time, or have nothing to say.
fn gather(workload: &Workload, watchers: &mut [Box<dyn Watcher>]) -> Result<()> {
    go_on()?;
    sleep_until(GATHER);
    watchers.iter_mut().try_for_each(|watcher| watcher.ask(&workload.cgroup))
}

/// None if there was no gather between.
fn share(before: Reading, after: Reading) -> Option<f64> {
    let charged = after.charged - before.charged;
    (charged > 0.0).then(|| (after.reported - before.reported) / charged)
}

/// Sleeps until this part of a second, of this or of the next.
fn sleep_until(part: Duration) {
    const SECOND: Duration = Duration::from_secs(1);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now = Duration::from_nanos(now.subsec_nanos().into());
    std::thread::sleep(part.checked_sub(now).unwrap_or(SECOND + part - now));
}

/// A contender that watches a workload.
trait Watcher {
    /// Has it gather, if that is how it is done.
    fn ask(&mut self, cgroup: &Cgroup) -> Result<()>;

    fn readings(&self) -> Vec<Reading>;
}

type Starter = fn(&Workload) -> Result<Box<dyn Watcher>>;

/// One that gathers when it is asked: a function that returns what has been reported so far.
struct Asked<F> {
    gather: F,
    readings: Vec<Reading>,
}

impl<F: FnMut() -> Result<f64>> Watcher for Asked<F> {
    fn ask(&mut self, cgroup: &Cgroup) -> Result<()> {
        let before = cgroup.usage();
        let reported = (self.gather)()?;
        self.readings.push(Reading { reported, charged: f64::midpoint(before, cgroup.usage()) });
        Ok(())
    }

    fn readings(&self) -> Vec<Reading> {
        self.readings.clone()
    }
}

fn plugin(workload: &Workload) -> Result<Box<dyn Watcher>> {
    let mut plugin = Plugin::start(&format!(
        "psstat_fields = [\"cpu_time\"]\n[[inputs.taskstats.target]]\nname = \"{NAME}\"\npid = {}\n",
        workload.root
    ))?;
    let gather = move || {
        let line = plugin.gather(1)?.concat();
        let cpu_time = line.split_once("cpu_time=").and_then(|(_, rest)| rest.split_once('i')?.0.parse::<f64>().ok());
        Ok(cpu_time.with_context(|| format!("no cpu_time: {line}"))? / 1e9)
    };
    Ok(Box::new(Asked { gather, readings: Vec::new() }))
}

/// Groups by cgroup: other than comm, that is the same whatever a process executes. Each process has its group, so that even
/// those are found that are re-parented.
fn exporter(workload: &Workload) -> Result<Box<dyn Watcher>> {
    let mut exporter = Exporter::start("  - name: \"{{.Cgroups}}\"\n    cmdline:\n    - '.+'\n")?;
    let cgroup = workload.cgroup.directory().file_name().context("no cgroup")?.to_string_lossy().into_owned();
    let gather = move || {
        let text = exporter.scrape()?;
        Ok(text.lines().filter_map(|line| sample(line, "namedprocess_namegroup_cpu_seconds_total", &cgroup)).sum())
    };
    Ok(Box::new(Asked { gather, readings: Vec::new() }))
}

/// One that gathers by the clock: a thread reads what it writes.
struct Listened {
    process: Option<(Process, TempDir)>,
    readings: Arc<Mutex<Vec<Reading>>>,
    thread: Option<JoinHandle<()>>,
}

impl Listened {
    /// `parse` is given each line, and returns what has been reported so far at the last of a gather.
    fn to(clocked: Clocked, cgroup: Arc<Cgroup>, mut parse: impl FnMut(&str) -> Option<f64> + Send + 'static) -> Self {
        let Clocked { process, mut stdout, directory } = clocked;
        let readings = Arc::<Mutex<Vec<Reading>>>::default();
        let written = readings.clone();
        let thread = std::thread::spawn(move || {
            while let Ok(line) = stdout.line() {
                if let Some(reported) = parse(&line) {
                    let reading = Reading { reported, charged: cgroup.usage() };
                    written.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
                }
            }
        });
        Self { process: Some((process, directory)), readings, thread: Some(thread) }
    }
}

impl Watcher for Listened {
    fn ask(&mut self, _: &Cgroup) -> Result<()> {
        Ok(())
    }

    fn readings(&self) -> Vec<Reading> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Listened {
    /// The thread ends with the process.
    fn drop(&mut self) {
        drop(self.process.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The whole tree, at any depth. Who adds up what it reports has to look at each process by itself: what one has more than
/// at the last gather, and all that a new one has.
fn procstat(workload: &Workload) -> Result<Box<dyn Watcher>> {
    let directory = scratch()?;
    let pidfile = directory.path().join("w.pid");
    std::fs::write(&pidfile, workload.root.to_string())?;
    let inputs = format!(
        r#"[[inputs.procstat]]
  properties = ["cpu"]
  tag_with = ["pid"]
  fieldinclude = ["cpu_time_user", "cpu_time_system", "created_at", "pid_count"]
  [[inputs.procstat.filter]]
    name = "{NAME}"
    pid_files = ["{}"]
    recursion_depth = -1
"#,
        pidfile.display()
    );
    let (mut before, mut now, mut total) = (HashMap::new(), HashMap::new(), 0.0);
    let mut parse = move |line: &str| {
        let _kept = &directory;
        if line.starts_with("procstat,") {
            let number = |key: &str| {
                let (_, rest) = line.split_once(key)?;
                rest.split([',', ' ', 'i']).next()?.parse::<f64>().ok()
            };
            let [pid, created] = [",pid=", "created_at="].map(|key| number(key).unwrap_or_default().to_bits());
            let cpu = ["cpu_time_user=", "cpu_time_system="].into_iter().filter_map(number).sum::<f64>();
            now.insert((pid, created), cpu);
        }
        line.starts_with("procstat_lookup,").then(|| {
            let more = |(process, cpu): (_, &f64)| cpu - before.get(process).copied().unwrap_or_default();
            total += now.iter().map(more).sum::<f64>();
            before = std::mem::take(&mut now);
            total
        })
    };
    let clocked = telegraf(1, Some(GATHER), &inputs)?;
    Ok(Box::new(Listened::to(clocked, workload.cgroup.clone(), move |line| parse(line))))
}

/// Shares of a CPU, in an interval that it says, exited children included.
fn netdata(workload: &Workload) -> Result<Box<dyn Watcher>> {
    let clocked = apps_plugin(&format!("init: {}\n{NAME}: {}\n", INIT.to_string_lossy(), COMM.to_string_lossy()))?;
    let (mut charted, mut divisor, mut interval, mut total) = (false, 1.0, None, 0.0);
    let parse = move |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["CHART", chart, ..] => charted = *chart == "apps.cpu",
            ["DIMENSION", NAME, _, _, _, by, ..] if charted => divisor = by.parse().unwrap_or(1.0),
            ["BEGIN", chart, since] => {
                interval = (*chart == "apps.cpu").then(|| since.parse::<f64>().unwrap_or(0.0) / 1e6)
            }
            ["END"] => return interval.take().map(|_| total),
            _ => {
                if let (Some(interval), Some((NAME, value))) = (interval, setting(line)) {
                    total += value / divisor / 100.0 * interval;
                }
            }
        }
        None
    };
    Ok(Box::new(Listened::to(clocked, workload.cgroup.clone(), parse)))
}

/// A workload that runs, in its cgroup, until this is dropped.
struct Workload {
    /// The pid of the tree's root.
    root: u32,
    process: Child,
    cgroup: Arc<Cgroup>,
}

impl Workload {
    /// Starts the workload and waits until it says that it is ready.
    fn start(name: &str) -> Result<Self> {
        let cgroup = Cgroup::create(name).map_err(|reason| anyhow!(reason))?;
        let process = Command::new("/proc/self/exe")
            .args(["workload", name])
            .arg(cgroup.directory())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut workload = Self { root: 0, process, cgroup: Arc::new(cgroup) };
        let mut lines = BufReader::new(workload.process.stdout.as_mut().context("no stdout")?).lines();
        let mut line = || anyhow::Ok(lines.next().context("it ended before it was ready")??);
        let root = line()?.parse()?;
        ensure!(line()? == "ready", "the workload is not ready");
        workload.root = root;
        Ok(workload)
    }

    /// The sign for a turning point that must lie between two gathers.
    fn cue(&mut self) -> Result<()> {
        Ok(self.process.stdin.as_mut().context("no stdin")?.write_all(b"\n")?)
    }
}

impl Drop for Workload {
    /// The workload-init, here because it is outside the cgroup, whose turn is next.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the workload `name` as tests/truth.rs has it run, but for a process between the init of its orphans and its root:
/// apps.plugin finds trees by comm, the root's may change, and the init's orphans are not the tree's.
pub fn run(name: &str, cgroup: &str) -> Result<()> {
    let (_, workload) = all().into_iter().find(|(n, _)| *n == name).context("no such workload")?;
    end_with_the_benchmark()?;
    rustix::process::set_child_subreaper(Some(getpid()))?;
    rustix::thread::set_name(INIT)?;
    let parent = fork(|| {
        end_with_the_benchmark()?;
        rustix::thread::set_name(COMM)?;
        let root = fork(|| {
            std::fs::write(format!("{cgroup}/cgroup.procs"), "0")?; // "0" is the writer
            end_with_the_benchmark()?;
            println!("{}", getpid());
            workload()
        })?;
        rustix::process::waitpid(Some(root), WaitOptions::empty())?;
        Ok(())
    })?;
    while rustix::process::wait(WaitOptions::empty())?.is_some_and(|(pid, _)| pid != parent) {}
    Err(anyhow!("{name} ended by itself"))
}

fn fork(life: impl FnOnce() -> Result<()>) -> Result<Pid> {
    // SAFETY: there is one thread, so that the child may go on as its parent would.
    match unsafe { libc::fork() } {
        0 => std::process::exit(life().map_or(1, |()| 0)),
        -1 => Err(std::io::Error::last_os_error()).context("fork"),
        pid => Pid::from_raw(pid).context("fork"),
    }
}

/// If the benchmark is killed, nothing runs on for long: the init goes with it, the root with that, and the others have no
/// more than a minute of CPU each.
fn end_with_the_benchmark() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(rustix::process::setrlimit(Resource::Cpu, Rlimit { current: Some(60), maximum: Some(60) })?)
}
