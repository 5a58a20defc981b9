//! The storm itself: processes that do nothing but fork, and count it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, Write};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, kill_process, set_child_subreaper, set_parent_process_death_signal,
    wait, waitpid,
};
use rustix::time::{ClockId, clock_gettime};

/// How many processes are alive in a churn.
pub const POPULATION: usize = 5_000;
/// How many fork.
pub const PARENTS: usize = 4;
/// The forks of one of them in a second, in a storm and in a churn.
const RATE: f64 = 500.0;
/// How long an onset lasts, and from the beginning of one to that of the next.
const ONSET: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// One of so many forks makes an orphan.
const ORPHANS: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Paced.
    Storm,
    /// As fast as it goes.
    Flood,
    /// Paced, and each lives until as many others have been born as there are.
    Churn,
    /// A flood that begins all of a sudden, ends, and begins again.
    Onset,
    /// Threads instead of processes, as fast as it goes.
    Threads,
    /// So many a second, which do nothing.
    Paced(u32),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Storm => f.write_str("storm"),
            Self::Flood => f.write_str("flood"),
            Self::Churn => f.write_str("churn"),
            Self::Onset => f.write_str("onset"),
            Self::Threads => f.write_str("threads"),
            Self::Paced(rate) => write!(f, "{rate}"),
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let named = [Self::Storm, Self::Flood, Self::Churn, Self::Onset, Self::Threads];
        match (named.into_iter().find(|kind| kind.to_string() == name), name.parse()) {
            (Some(kind), _) => Ok(kind),
            (None, Ok(rate)) => Ok(Self::Paced(rate)),
            _ => bail!("no storm {name}"),
        }
    }
}

/// Runs a storm in the cgroup until it is killed. This process, outside the cgroup, is the init of its orphans. The root, which
/// prints its pid and then that all is there, says at each line of stdin how many forks there were.
pub fn run(kind: Kind, cgroup: &Path) -> Result<()> {
    end_with(None)?;
    set_child_subreaper(Some(getpid()))?;
    let root = fork(|| run_root(kind, cgroup))?;
    while wait(WaitOptions::empty())?.is_some_and(|(pid, _)| pid != root) {}
    bail!("the storm ended by itself")
}

fn run_root(kind: Kind, cgroup: &Path) -> Result<()> {
    end_with(None)?;
    std::fs::write(cgroup.join("cgroup.procs"), "0")?; // "0" is the writer
    println!("{}", getpid());
    let forks = shared()?;
    let (mut grown, mut sign) = std::io::pipe()?;
    let parent = getpid();
    for _ in 0..PARENTS {
        fork(|| {
            end_with(Some(parent))?;
            if kind == Kind::Churn {
                return churn(forks, &mut sign);
            }
            sign.write_all(&[1])?;
            match kind {
                Kind::Onset => onset(forks),
                Kind::Threads => threads(forks),
                Kind::Paced(rate) => paced(rate, forks),
                _ => storm(kind, forks),
            }
        })?;
    }
    drop(sign);
    std::io::Read::read_exact(&mut grown, &mut [0; PARENTS])?;
    println!("all there");
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{}", forks.load(Ordering::SeqCst));
    }
    Ok(())
}

/// Forks children that do a little and are waited for, or that leave a child behind.
fn storm(kind: Kind, forks: &AtomicU64) -> Result<()> {
    let mut pace = Pace::begin(RATE);
    for number in 1.. {
        let makes_orphan = number % ORPHANS == 0;
        let child = fork(|| {
            if makes_orphan {
                forks.fetch_add(1, Ordering::SeqCst);
                fork(work)?;
                Ok(())
            } else {
                work()
            }
        })?;
        forks.fetch_add(1, Ordering::SeqCst);
        waitpid(Some(child), WaitOptions::empty())?;
        if kind == Kind::Storm {
            pace.after(1.0 + f64::from(u8::from(makes_orphan)));
        }
    }
    Ok(())
}

/// Forks children that do nothing and are waited for: as many as are asked for of all parents.
fn paced(rate: u32, forks: &AtomicU64) -> Result<()> {
    let mut pace = Pace::begin(f64::from(rate) / PARENTS as f64);
    loop {
        one(forks)?;
        pace.after(1.0);
    }
}

/// The same as fast as it goes, for a while, after nothing for longer than that.
fn onset(forks: &AtomicU64) -> Result<()> {
    let [lasts, every] = ONSET;
    loop {
        let began = Instant::now();
        while began.elapsed() < lasts {
            one(forks)?;
        }
        std::thread::sleep(every.saturating_sub(began.elapsed()));
    }
}

fn one(forks: &AtomicU64) -> Result<()> {
    let child = fork(|| Ok(()))?;
    forks.fetch_add(1, Ordering::SeqCst);
    waitpid(Some(child), WaitOptions::empty())?;
    Ok(())
}

/// Makes threads that do a little.
fn threads(forks: &AtomicU64) -> Result<()> {
    loop {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(16 << 10).spawn_scoped(scope, work)?;
            forks.fetch_add(1, Ordering::SeqCst);
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        })?;
    }
}

/// Kills the oldest child for each that is born.
fn churn(forks: &AtomicU64, sign: &mut impl Write) -> Result<()> {
    let this = getpid();
    let born = || {
        forks.fetch_add(1, Ordering::SeqCst);
        fork(|| {
            end_with(Some(this))?;
            loop {
                std::thread::park();
            }
        })
    };
    // The root and the parents are of the population, too.
    let mut alive: VecDeque<_> = (0..POPULATION / PARENTS - 2).map(|_| born()).collect::<Result<_>>()?;
    sign.write_all(&[1])?;
    let mut pace = Pace::begin(RATE);
    while let Some(oldest) = alive.pop_front() {
        kill_process(oldest, Signal::KILL)?;
        waitpid(Some(oldest), WaitOptions::empty())?;
        alive.push_back(born()?);
        pace.after(1.0);
    }
    bail!("nobody is left")
}

/// What a child does. It looks at its CPU clock, so that the kernel has counted all of it when it exits.
fn work() -> Result<()> {
    const CPU: Duration = Duration::from_micros(100);
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime));
    let until = used()? + CPU;
    while used()? < until {
        (0..1000).for_each(|i| _ = std::hint::black_box(i));
    }
    Ok(())
}

/// Keeps forks at their rate.
struct Pace {
    /// A second.
    rate: f64,
    began: Instant,
    forks: f64,
}

impl Pace {
    fn begin(rate: f64) -> Self {
        Self { rate, began: Instant::now(), forks: 0.0 }
    }

    /// Sleeps until more forks are due. What a loaded machine is behind is not made up for, since that would be a flood.
    fn after(&mut self, forks: f64) {
        const BEHIND: Duration = Duration::from_millis(100);
        self.forks += forks;
        let due = Duration::from_secs_f64(self.forks / self.rate);
        let elapsed = self.began.elapsed();
        std::thread::sleep(due.saturating_sub(elapsed));
        if elapsed > due + BEHIND {
            *self = Self::begin(self.rate);
        }
    }
}

/// A number that this process shares with all that it forks. Never freed.
fn shared() -> Result<&'static AtomicU64> {
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let page = unsafe { libc::mmap(null_mut(), size_of::<AtomicU64>(), rights, flags, -1, 0) };
    ensure!(page != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    // SAFETY: a page that is all zeros, aligned, mapped for ever and used as this alone.
    Ok(unsafe { &*page.cast::<AtomicU64>() })
}

/// If the benchmark is killed, its init goes with it, and so on.
fn end_with(parent: Option<Pid>) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before it was watched.
    ensure!(parent.is_none() || getppid() == parent, "the parent has ended");
    Ok(())
}

/// Forks a child that does `life` and exits.
fn fork(life: impl FnOnce() -> Result<()>) -> Result<Pid> {
    // SAFETY: there is one thread, so that the child may go on as its parent would.
    let pid = unsafe { libc::fork() };
    ensure!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if let Some(child) = Pid::from_raw(pid) {
        return Ok(child);
    }
    std::process::exit(i32::from(life().is_err()))
}
