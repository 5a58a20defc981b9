//! The plugin under measurement, prompted as Telegraf does it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

use crate::forest::{Forest, TREE_SIZE, TREES};

/// Before a prompt: keeps intervals above the 100 ms below which a gather has no p_cpu to work out.
pub const PAUSE: Duration = Duration::from_millis(150);
/// One that does not.
pub const SHORT_PAUSE: Duration = Duration::from_millis(10);
/// What the plugin does after its answer is part of the gather.
const AFTERWARDS: Duration = Duration::from_millis(10);

/// A way to run it.
pub struct Setup {
    pub what: &'static str,
    /// What it collects. psstat must be the last, so that its line of the last tree ends the answer.
    pub collect: &'static [&'static str],
    /// Other lines of its configuration.
    pub settings: &'static str,
    /// The nice value of all that is watched meanwhile.
    pub nice: i32,
    /// The lines of a tree.
    pub lines: usize,
}

/// It stops at the end of its stdin.
pub struct Plugin {
    pub setup: &'static Setup,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Its configuration.
    _file: NamedTempFile,
}

/// What a gather took.
pub struct Cost {
    /// CPU of the thread that gathers.
    pub cpu: Duration,
    /// From the prompt to the last line.
    pub wall: Duration,
    /// The part of it in which somebody else had the CPU.
    pub waiting: Duration,
}

/// One thread of it.
pub struct Thread(PathBuf);

impl Plugin {
    pub fn watching(forest: &Forest, setup: &'static Setup) -> Result<Self> {
        let mut file = NamedTempFile::new()?;
        let Setup { collect, settings, .. } = setup;
        writeln!(file, "[[inputs.taskstats]]\naccounting = \"scan\"\ncollect = {collect:?}\n{settings}")?;
        for (number, root) in forest.roots().iter().enumerate() {
            writeln!(file, "[[inputs.taskstats.target]]\nname = \"g{number}\"\npid = {root}")?;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_telegraf-taskstats"));
        command.arg("--config").arg(file.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        Ok(Self {
            setup,
            stdin: child.stdin.take().context("no stdin")?,
            stdout: BufReader::new(child.stdout.take().context("no stdout")?),
            child,
            _file: file,
        })
    }

    /// Gathers before the first that counts: first sights, and buffers that grow once.
    pub fn warm_up(&mut self) -> Result<()> {
        for _ in 0..3 {
            self.answer(PAUSE)?;
        }
        Ok(())
    }

    /// One prompt, and the lines that answer it: none may be missing. Returns the time from one to the other.
    pub fn gather(&mut self) -> Result<Duration> {
        self.gather_after(PAUSE)
    }

    fn gather_after(&mut self, pause: Duration) -> Result<Duration> {
        let (lines, wall) = self.answer(pause)?;
        let expected = TREES * self.setup.lines;
        ensure!(lines == expected, "{lines} lines instead of {expected}: {}", self.setup.what);
        Ok(wall)
    }

    /// The number of lines, and how long they took. Every process must be in them, and a p_cpu in each.
    fn answer(&mut self, pause: Duration) -> Result<(usize, Duration)> {
        std::thread::sleep(pause);
        let prompted = Instant::now();
        self.stdin.write_all(b"\n")?;
        let whole = format!("n_proc={TREE_SIZE}i");
        let (mut lines, mut trees, mut line) = (0, 0, String::new());
        while trees < TREES {
            line.clear();
            self.stdout.read_line(&mut line)?;
            lines += 1;
            let is_psstat = line.starts_with("psstat,");
            trees += usize::from(is_psstat);
            let has_all = line.contains(&whole) && (line.contains("p_cpu=") || pause < PAUSE);
            ensure!(line.ends_with('\n') && (has_all || !is_psstat), "not a whole answer: {line:?}");
        }
        Ok((lines, prompted.elapsed()))
    }

    /// A gather and what it took.
    pub fn measured_gather(&mut self, pause: Duration) -> Result<Cost> {
        let chain = [Thread(self.file(&format!("task/{}", self.child.id()))), Thread("/proc/thread-self".into())];
        let waiting = || chain.iter().map(Thread::waiting).sum::<Result<Duration>>();
        let [main, _] = &chain;
        let before = (main.cpu()?, waiting()?);
        let wall = self.gather_after(pause)?;
        let waiting = waiting()? - before.1;
        std::thread::sleep(AFTERWARDS);
        Ok(Cost { cpu: main.cpu()? - before.0, wall, waiting })
    }

    /// The CPU of all its threads so far, those that have ended included.
    pub fn cpu(&self) -> Result<Duration> {
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

    /// How often its threads were switched to.
    pub fn switches(&self) -> Result<u64> {
        let mut switches = 0;
        for task in std::fs::read_dir(self.file("task"))? {
            let status = task?.path().join("status");
            switches += number_in(&status, "voluntary_ctxt_switches:")?;
            switches += number_in(&status, "nonvoluntary_ctxt_switches:")?;
        }
        Ok(switches)
    }

    pub fn peak_rss_kib(&self) -> Result<u64> {
        number_in(&self.file("status"), "VmHWM:")
    }

    /// The thread of this name.
    pub fn thread(&self, name: &str) -> Result<Thread> {
        for task in std::fs::read_dir(self.file("task"))? {
            let path = task?.path();
            if std::fs::read_to_string(path.join("comm"))?.trim_end() == name {
                return Ok(Thread(path));
            }
        }
        anyhow::bail!("no thread {name}")
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(name)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Thread {
    /// The CPU it has used so far, exactly if it sleeps.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(self.schedstat()?.0)
    }

    /// How long it has waited for a CPU.
    fn waiting(&self) -> Result<Duration> {
        Ok(self.schedstat()?.1)
    }

    fn schedstat(&self) -> Result<(Duration, Duration)> {
        let text = std::fs::read_to_string(self.0.join("schedstat"))?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let mut next = || anyhow::Ok(Duration::from_nanos(numbers.next().context("schedstat is too short")??));
        Ok((next()?, next()?))
    }

    /// How often it has called read(2) and the like.
    pub fn reads(&self) -> Result<u64> {
        number_in(&self.0.join("io"), "syscr:")
    }
}

/// The number after `key` in a file of lines with a key each.
fn number_in(file: &Path, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(file)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
