//! What a gather costs, as ratios to floors measured in the same run: `cargo bench --bench gather`.
//!
//! A forest of 20 trees with 250 sleeping processes each is watched by 20 targets. Rounds alternate between
//! one gather of the plugin and one pass of every floor, so that a change of the machine's pace meets all of
//! them alike. *The* floor is a scan of /proc that learns nothing: each `/proc/<pid>/stat` opened, read and closed
//! once, its pid known beforehand.
//!
//! A benchmark reports and does not assert: it ends with one line per goal, met or missed, and exit code 0.
#![allow(clippy::print_stdout)] // a benchmark's result
#![allow(unsafe_code)] // fork(2) and the CPU clock of another process have no safe wrapper

use std::ffi::{CStr, CString};
use std::io::{BufRead, BufReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, RawDir};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use rustix::time::ClockId;

const TREES: usize = 20;
/// Processes of one tree, its root included.
const TREE_SIZE: usize = 250;
const ROUNDS: usize = 30;
/// Gathers before the first that counts: first sights, and buffers that grow once.
const WARM_UP: usize = 3;
/// Keeps intervals above the 100 ms below which a gather has no p_cpu to work out.
const PAUSE: Duration = Duration::from_millis(150);
const IDLE: Duration = Duration::from_secs(5);

/// The goals of a gather: its CPU over the floor's, and the peak RSS.
const GOAL_RATIO: f64 = 1.15;
const GOAL_RSS_KIB: u64 = 10 * 1024;

fn main() -> Result<()> {
    let forest = Forest::plant()?;
    // What disturbs one disturbs the other, and neither has the better CPU. The plugin inherits it.
    stay_on_this_cpu()?;
    let pids = pids_in_proc()?;
    let mut floors = Floors::over(&pids)?;
    let mut plugin = Plugin::watching(&forest)?;
    for _ in 0..WARM_UP {
        plugin.gather()?;
    }

    let mut gathers = Series::new("a gather of the plugin");
    for _ in 0..ROUNDS {
        let before = plugin.cpu()?;
        plugin.gather()?;
        floors.pass()?;
        // Taken late: what the plugin does after its answer is part of the gather.
        gathers.push(plugin.cpu()? - before);
    }
    let (idle, peak_rss) = (plugin.idle()?, plugin.peak_rss_kib()?);
    report(&floors, &gathers, pids.len(), idle, peak_rss);
    Ok(())
}

fn report(floors: &Floors, gathers: &Series, processes: usize, (idle, switches): (Duration, u64), peak_rss: u64) {
    let floor = &floors.open_read_close;
    println!("{} processes in {TREES} trees, {processes} in /proc; {ROUNDS} rounds\n", TREES * TREE_SIZE);
    println!("{:40}{:>9}{:>9}{:>9}{:>11}{:>7}", "CPU in µs", "min", "median", "max", "a process", "ratio");
    for series in [&floors.listing, &floors.pread, floor, gathers] {
        let [min, median, max] = spread(series.costs.iter().copied());
        let (each, ratio) = (median / processes as f64, series.ratio_to(floor));
        println!("{:40}{min:9.0}{median:9.0}{max:9.0}{each:11.2}{ratio:7.2}", series.what);
    }
    println!("\npeak RSS {peak_rss} KiB; idle for {IDLE:?}: {idle:?} of CPU, {switches} context switches\n");

    let ratio = gathers.ratio_to(floor);
    goal(&format!("a gather costs at most {GOAL_RATIO} x the floor"), ratio <= GOAL_RATIO);
    goal(&format!("peak RSS is at most {GOAL_RSS_KIB} KiB"), peak_rss <= GOAL_RSS_KIB);
    goal("idle costs no CPU", idle.is_zero() && switches == 0);
}

fn goal(what: &str, met: bool) {
    println!("{}: {what}", if met { "met" } else { "missed" });
}

fn stay_on_this_cpu() -> Result<()> {
    let mut this = CpuSet::new();
    this.set(sched_getcpu());
    Ok(sched_setaffinity(None, &this)?)
}

/// Process trees that sleep until they are killed: with this value, or with the benchmark itself.
struct Forest {
    roots: Vec<Pid>,
}

impl Forest {
    fn plant() -> Result<Self> {
        // The killed are reaped here, whether or not the host's init would do it.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let mut forest = Self { roots: Vec::new() };
        for _ in 0..TREES {
            let (mut grown, mut sign) = std::io::pipe()?;
            forest.roots.push(fork_into(|| grow(&mut sign))?);
            let mut whole = [0];
            grown.read_exact(&mut whole)?;
            ensure!(whole == [1], "not as many processes may be forked here");
        }
        Ok(forest)
    }
}

impl Drop for Forest {
    fn drop(&mut self) {
        for &root in &self.roots {
            // The root's children die with it.
            let _ = rustix::process::kill_process(root, Signal::KILL);
        }
        while rustix::process::wait(WaitOptions::empty()).is_ok() {}
    }
}

/// What a root does first: forks the rest of its tree, and tells whether it could.
fn grow(sign: &mut impl Write) {
    let whole = (1..TREE_SIZE).all(|_| fork_into(|| ()).is_ok());
    let _ = sign.write_all(&[u8::from(whole)]);
}

/// Forks a child that does `first`, then sleeps until it is killed or its parent dies.
fn fork_into(first: impl FnOnce()) -> Result<Pid> {
    let parent = rustix::process::getpid();
    // SAFETY: there is one thread, so that the child may go on as its parent would.
    let pid = unsafe { libc::fork() };
    ensure!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if let Some(child) = Pid::from_raw(pid) {
        return Ok(child);
    }
    let tied = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // The parent may have died before it was watched.
    if tied.is_err() || rustix::process::getppid() != Some(parent) {
        std::process::exit(1);
    }
    first();
    loop {
        std::thread::park();
    }
}

/// Every process there is.
fn pids_in_proc() -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// What is compared with: passes over all of /proc that do one thing each.
struct Floors {
    paths: Vec<CString>,
    /// The same files, held open; none where the limit of open files is too low for them.
    held: Vec<OwnedFd>,
    listing: Series,
    pread: Series,
    open_read_close: Series,
}

impl Floors {
    fn over(pids: &[u32]) -> Result<Self> {
        let paths = pids.iter().map(|pid| CString::new(format!("/proc/{pid}/stat"))).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            held: hold(&paths),
            paths,
            listing: Series::new("getdents of /proc alone"),
            pread: Series::new("pread of every stat, held open"),
            open_read_close: Series::new("open, read, close every stat: the floor"),
        })
    }

    /// Each floor once. A process that has ended meanwhile is no failure.
    fn pass(&mut self) -> Result<()> {
        let mut text = [0; 4096];
        self.listing.push(cost_of(list_proc)?);
        if !self.held.is_empty() {
            self.pread.push(cost_of(|| {
                for fd in &self.held {
                    let _ = rustix::io::pread(fd, &mut text, 0);
                }
                Ok(())
            })?);
        }
        self.open_read_close.push(cost_of(|| {
            for path in &self.paths {
                let _ = open(path).and_then(|fd| rustix::io::read(fd, &mut text));
            }
            Ok(())
        })?);
        Ok(())
    }
}

fn open(path: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens them all, if the hard limit of open files allows it.
fn hold(paths: &[CString]) -> Vec<OwnedFd> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let needed = u64::try_from(paths.len()).map_or(u64::MAX, |files| files + 16);
    let raised = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if raised.is_err() || limit.maximum.is_some_and(|maximum| maximum < needed) {
        return Vec::new();
    }
    paths.iter().filter_map(|path| open(path).ok()).collect()
}

fn list_proc() -> Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let proc = rustix::fs::open("/proc", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = RawDir::new(proc, &mut buffer);
    while let Some(entry) = entries.next() {
        entry?;
    }
    Ok(())
}

/// The CPU that this thread spends on `work`.
fn cost_of(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let now = || Duration::try_from(rustix::time::clock_gettime(ClockId::ThreadCPUTime));
    let before = now()?;
    work()?;
    Ok(now()? - before)
}

/// The plugin under measurement, prompted as Telegraf does it. It stops at the end of its stdin.
struct Plugin {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Plugin {
    fn watching(forest: &Forest) -> Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_telegraf-taskstats"));
        command.args(["--accounting", "scan"]);
        for (number, root) in forest.roots.iter().enumerate() {
            command.arg("--pid").arg(format!("g{number}:{root}"));
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Self {
            stdin: child.stdin.take().context("no stdin")?,
            stdout: BufReader::new(child.stdout.take().context("no stdout")?),
            child,
        })
    }

    /// One prompt, and the lines that answer it: every process must be in them, and a p_cpu in each.
    fn gather(&mut self) -> Result<()> {
        std::thread::sleep(PAUSE);
        self.stdin.write_all(b"\n")?;
        let whole = format!("n_proc={TREE_SIZE}i");
        for _ in 0..TREES {
            let mut line = String::new();
            self.stdout.read_line(&mut line)?;
            ensure!(line.contains(&whole) && line.contains("p_cpu="), "not a whole answer: {line:?}");
        }
        Ok(())
    }

    /// The CPU of all its threads so far, those that have ended included.
    fn cpu(&self) -> Result<Duration> {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both calls write to the local they are given, and to nothing else.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.child.id().cast_signed(), &raw mut clock) != 0
                || libc::clock_gettime(clock, &raw mut time) != 0
        };
        ensure!(!failed, "the CPU clock of the plugin cannot be read");
        Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
    }

    /// The CPU and the context switches of a plugin that nobody asks anything.
    fn idle(&self) -> Result<(Duration, u64)> {
        let before = (self.cpu()?, self.switches()?);
        std::thread::sleep(IDLE);
        Ok((self.cpu()? - before.0, self.switches()? - before.1))
    }

    fn switches(&self) -> Result<u64> {
        let mut switches = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let status = task?.path().join("status");
            switches += number_in(&status, "voluntary_ctxt_switches:")?;
            switches += number_in(&status, "nonvoluntary_ctxt_switches:")?;
        }
        Ok(switches)
    }

    fn peak_rss_kib(&self) -> Result<u64> {
        number_in(Path::new(&format!("/proc/{}/status", self.child.id())), "VmHWM:")
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number after `key` in a /proc/<pid>/status.
fn number_in(status: &Path, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(status)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

/// One measured thing, once per round.
struct Series {
    what: &'static str,
    /// CPU, µs.
    costs: Vec<f64>,
}

impl Series {
    fn new(what: &'static str) -> Self {
        Self { what, costs: Vec::new() }
    }

    fn push(&mut self, cost: Duration) {
        self.costs.push(cost.as_secs_f64() * 1e6);
    }

    /// The median of the rounds' ratios: what slows a round down slows both of its costs.
    fn ratio_to(&self, floor: &Self) -> f64 {
        let ratios = self.costs.iter().zip(&floor.costs).map(|(cost, floor)| cost / floor);
        spread(ratios)[1]
    }
}

/// The smallest, the middle and the largest.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    [0, last / 2, last].map(|at| values.get(at).copied().unwrap_or(f64::NAN))
}
