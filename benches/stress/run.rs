//! One stressor, from before its first process until after its last.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::births::{Births, Tracepoint};
use crate::cgroup::Cgroup;
use crate::outcome::{Outcome, Seen};
use crate::program::Program;
use crate::support::{PublicBinary, field};
use crate::watcher::{Answer, Target, Watcher, Way};

/// What stress-ng is told besides the stressor's name: how many of it, for how many seconds, and files that fill no disk.
const ARGUMENTS: &str = "2 --timeout 2 --no-rand-seed --copy-file-bytes 128m --fallocate-bytes 64m --hdd-bytes 64m \
                         --iomix-bytes 64m --readahead-bytes 64m --revio-bytes 64m --sync-file-bytes 64m";

/// The interval of gathers.
const INTERVAL: Duration = Duration::from_secs(1);
/// Before the last gather, which takes in what the one before it left open.
const LAST_INTERVAL: Duration = Duration::from_millis(250);
/// How long a stressor may take to end, what it clears away included.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the one target.
const TARGET: &str = "stressor";

/// Runs a stressor, watched in these ways.
pub fn run(
    name: &str,
    program: &Program,
    ways: &[Way],
    public: &PublicBinary,
    tracepoint: Option<&Tracepoint>,
) -> Result<Outcome> {
    let mut running = Running::start(name, program)?;
    let mut births = tracepoint.map(|tracepoint| Births::begin(tracepoint, running.cgroup.directory())).transpose()?;
    let targets = [Target { name: TARGET.into(), selector: format!("pid = {}", running.root) }];
    let mut watched = begin_all(ways, &targets, public)?;
    let charged = running.cgroup.usage();
    let born = births.as_mut().map(Births::count).transpose()?;

    running.cue()?;
    let began = Instant::now();
    let mut status = running.line(INTERVAL)?;
    while status.is_none() {
        watched.iter_mut().for_each(Watched::gather);
        if began.elapsed() > PATIENCE {
            running.kill_all_but_the_root();
        }
        status = running.line(INTERVAL)?;
    }
    running.await_the_rest()?;
    watched.iter_mut().for_each(Watched::gather);
    std::thread::sleep(LAST_INTERVAL);
    watched.iter_mut().for_each(Watched::gather);

    let charged = running.cgroup.usage() - charged;
    let born = births.as_mut().map(Births::count).transpose()?.zip(born).map(|(now, before)| now - before);
    running.cue()?;
    let supervisor = numbers(running.line(PATIENCE)?)?;
    let init = numbers(running.line(PATIENCE)?)?;
    let ([before, own, reaped], [all]) = (supervisor, init);
    Ok(Outcome {
        name: name.to_owned(),
        status: status.unwrap_or_default(),
        charged,
        reaped: own + reaped - before,
        orphans: all - own - reaped,
        born,
        seen: watched.into_iter().map(Watched::end).collect(),
    })
}

/// At once, since a plugin takes a second until it has gathered first.
fn begin_all(ways: &[Way], targets: &[Target], public: &PublicBinary) -> Result<Vec<Watched>> {
    let begin = |way: Way| Watched::begin(Watcher::start(way, targets, &["psstat"], public));
    std::thread::scope(|scope| {
        let threads: Vec<_> = ways.iter().map(|way| scope.spawn(move || begin(*way))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a plugin does not start"))).collect()
    })
}

fn numbers<const N: usize>(line: Option<String>) -> Result<[f64; N]> {
    let line = line.context("nothing was said of what was used")?;
    let numbers = line.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    numbers.try_into().map_err(|_| anyhow!("not {N} numbers: {line}"))
}

/// A stressor that runs, in its cgroup, until this is dropped.
struct Running {
    /// The pid of the supervisor.
    root: u32,
    init: Child,
    lines: Receiver<String>,
    cgroup: Cgroup,
}

impl Running {
    /// Starts the processes above the stressor, which itself begins at the first cue.
    fn start(name: &str, program: &Program) -> Result<Self> {
        let cgroup = Cgroup::create(name).map_err(|reason| anyhow!(reason))?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("above").arg(cgroup.directory()).arg(program.program());
        command.arg(format!("--{name}")).args(ARGUMENTS.split_whitespace()).args(["--temp-path", &program.work()]);
        program.prepare(&mut command);
        let mut init = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut stdout = BufReader::new(init.stdout.take().context("no stdout")?).lines();
        let (sender, lines) = channel();
        std::thread::spawn(
            move || while stdout.next().is_some_and(|line| line.is_ok_and(|line| sender.send(line).is_ok())) {},
        );
        let mut running = Self { root: 0, init, lines, cgroup };
        running.root = running.line(PATIENCE)?.context("the supervisor does not begin")?.parse()?;
        Ok(running)
    }

    fn cue(&mut self) -> Result<()> {
        Ok(self.init.stdin.as_mut().context("no stdin")?.write_all(b"\n")?)
    }

    /// The next line that the supervisor or the init says; none if there is none in this time.
    fn line(&mut self, time: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(time) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(anyhow!("the supervisor has ended")),
        }
    }

    /// Everybody in the cgroup but the supervisor.
    fn others(&self) -> Vec<Pid> {
        let members = fs::read_to_string(self.cgroup.directory().join("cgroup.procs")).unwrap_or_default();
        let pids = members.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        pids.filter(|pid| pid.as_raw_nonzero().get().cast_unsigned() != self.root).collect()
    }

    fn kill_all_but_the_root(&self) {
        for pid in self.others() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Waits until what the stressor leaves behind is gone. That it should be by itself; it is killed where it is not.
    fn await_the_rest(&self) -> Result<()> {
        let began = Instant::now();
        while !self.others().is_empty() {
            if began.elapsed() > 3 * INTERVAL {
                self.kill_all_but_the_root();
            }
            ensure!(began.elapsed() < PATIENCE, "what it leaves behind cannot be killed");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    /// The init, here because it is outside the cgroup, whose turn is next.
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

/// A watcher, and what it has reported.
struct Watched {
    watcher: Watcher,
    first: Told,
    last: Told,
    fell: bool,
}

/// What one gather tells.
#[derive(Clone, Copy)]
struct Told {
    cpu: f64,
    started: Option<f64>,
    lost: f64,
}

impl Watched {
    fn begin(mut watcher: Watcher) -> Self {
        let answer = watcher.gather();
        let first = Told::by(&watcher, &answer);
        Self { watcher, first, last: first, fell: false }
    }

    fn gather(&mut self) {
        let answer = self.watcher.gather();
        let now = Told::by(&self.watcher, &answer);
        self.fell |= now.cpu < self.last.cpu || now.started < self.last.started;
        self.last = now;
    }

    fn end(self) -> Seen {
        let Self { first, last, fell, .. } = self;
        let started = last.started.zip(first.started).map(|(last, first)| last - first);
        Seen { way: self.watcher.way, reported: last.cpu - first.cpu, started, lost: last.lost - first.lost, fell }
    }
}

impl Told {
    fn by(watcher: &Watcher, answer: &Answer) -> Self {
        let number = |name| answer.number("psstat", TARGET, name);
        let lost = field(answer.line("taskstats_agent,"), "events_lost");
        Self {
            cpu: number("cpu_time") / 1e9,
            started: watcher.knows_births().then(|| number("started")),
            // By a scan there are no events to lose.
            lost: lost.and_then(|lost| lost.trim_end_matches('i').parse().ok()).unwrap_or_default(),
        }
    }
}
