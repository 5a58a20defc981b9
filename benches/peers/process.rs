//! The process of a contender, which ends with the benchmark, and what it has used.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// It is killed when this is dropped, and by the kernel if the benchmark is killed.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Result<Self> {
        // SAFETY: the closure, which runs between fork and exec, makes one system call and nothing else.
        unsafe { command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)) };
        Ok(Self(command.spawn().with_context(|| format!("{command:?}"))?))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn stdin(&mut self) -> Result<ChildStdin> {
        self.0.stdin.take().context("stdin is no pipe")
    }

    pub fn stdout(&mut self) -> Result<Output> {
        Ok(Output(BufReader::new(self.0.stdout.take().context("stdout is no pipe")?).lines()))
    }

    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// Stops it, whatever it is about to do, until [`thaw`](Self::thaw).
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.id().cast_signed()).context("no pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// The CPU of all its threads so far, those that have ended included, and of the children it has waited for.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(cpu_of(self.id())? + self.cpu_of_children()?)
    }

    /// cutime and cstime: the 16th and 17th field of its stat, of which the 3rd is the first after comm.
    fn cpu_of_children(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(self.file("stat"))?;
        let (_, fields) = stat.rsplit_once(") ").context("stat has no comm")?;
        let ticks = fields.split(' ').skip(13).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
        Ok(Duration::from_secs_f64(ticks / rustix::param::clock_ticks_per_second() as f64))
    }

    pub fn peak_kib(&self) -> Result<u64> {
        peak_kib_of(self.id())
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.id().to_string()).join(name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The CPU of all threads of a process so far, those that have ended included.
pub fn cpu_of(pid: u32) -> Result<Duration> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write to the local they are given, and to nothing else.
    let failed = unsafe {
        libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) != 0
            || libc::clock_gettime(clock, &raw mut time) != 0
    };
    ensure!(!failed, "the CPU clock of process {pid} cannot be read");
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

/// The most memory that a process has had resident at once.
pub fn peak_kib_of(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix(" kB"));
    Ok(peak.context("no VmHWM")?.trim().parse()?)
}

/// The lines that a process writes.
pub struct Output(Lines<BufReader<ChildStdout>>);

impl Output {
    pub fn line(&mut self) -> Result<String> {
        match self.0.next() {
            Some(line) => Ok(line?),
            None => bail!("it has ended by itself"),
        }
    }
}

/// A command that runs a peer as `scripts/peers` put it into place. Its log is nobody's, unless the caller wants it.
pub fn peer(program: &str) -> Result<Command> {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    let path = peers.join(program);
    ensure!(path.exists(), "no {program} in target/peers; scripts/peers puts it there");
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // Where scripts/peers puts the shared libraries that the host lacks.
    if peers.join("lib").exists() {
        command.env("LD_LIBRARY_PATH", peers.join("lib"));
    }
    Ok(command)
}

/// A directory for what a contender reads. It is in target, so that even a benchmark that is killed leaves nothing
/// outside.
pub fn scratch() -> Result<TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}
