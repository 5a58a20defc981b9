//! Ten million births and deaths that no kernel has to make: through the journal, into a table over a made-up `/proc`.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use telegraf_taskstats::kernel::clock::{Clock, SystemClock};
use telegraf_taskstats::kernel::own;
use telegraf_taskstats::kernel::proc_connector::Event;
use telegraf_taskstats::kernel::procfs::Proc;
use telegraf_taskstats::kernel::stat::TICK;
use telegraf_taskstats::kernel::taskstats::COUNTERS;
use telegraf_taskstats::processes::{CpuTimes, Journal, Record};
use telegraf_taskstats::processes::{Processes, Reader};

use crate::goals::Goals;
use crate::stormers::POPULATION;
use crate::{GROWTH_KIB, PEAK_KIB};

/// So many are born and die.
const LIVES: u64 = 10_000_000;
/// Between two gathers: those that live on, each in the place of one that dies, and those that are not seen.
const REPLACED: u64 = 240;
const UNSEEN: u64 = 9_760;
/// How many of these are told at once.
const AT_ONCE: u64 = 40;

const ROOT: u32 = 10;
/// The pids of the living begin here, those of the unobserved there; both wrap.
const LIVING: u32 = 100;
const SHORT_LIVED: u32 = 40_000;
const WRAPPED: u32 = 30_000;

/// What is to be reached with that, however long it takes; goes on for `time` at least.
pub fn simulated(time: Duration, goals: &mut Goals) -> Result<()> {
    let mut host = Host::new()?;
    let (mut gathers, mut first) = (0_u64, None);
    let began = Instant::now();
    while gathers * (REPLACED + UNSEEN) < LIVES || began.elapsed() < time {
        host.live()?;
        host.gather()?;
        gathers += 1;
        if gathers == 100 {
            first = Some(own::rss()? / 1024);
        }
    }
    let (first, last) = (first.context("too short")?, own::rss()? / 1024);
    println!(
        "{} births and deaths, {gathers} gathers, {POPULATION} alive; RSS {first} KiB first, {last} last",
        host.told
    );
    let what = format!("RSS grows by at most {GROWTH_KIB} KiB in {LIVES} simulated births and deaths");
    goals.add("KiB", Some(last.saturating_sub(first) as f64), &what, |growth| growth <= GROWTH_KIB as f64);
    let what = format!("RSS after them is at most {PEAK_KIB} KiB");
    goals.add("KiB", Some(last as f64), &what, |rss| rss <= PEAK_KIB as f64);
    let missing = host.told - host.counted;
    goals.add("missing", Some(missing as f64), "each simulated birth is counted once", |missing| missing == 0.0);
    Ok(())
}

/// A made-up host, and what the plugin knows of it.
struct Host {
    directory: tempfile::TempDir,
    source: Reader,
    processes: Processes,
    journal: Journal,
    alive: VecDeque<u32>,
    /// Those that have died since the last gather.
    gone: HashSet<u32>,
    next: u32,
    next_unseen: u32,
    told: u64,
    counted: u64,
}

impl Host {
    fn new() -> Result<Self> {
        // In memory, if that can be had: it is not the disk that is to be measured.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        let source = Reader::new(Proc::open(directory.path())?, 0);
        let (processes, journal, alive, gone) = Default::default();
        let (next, next_unseen, told, counted) = (0, 0, 0, 0);
        let mut host = Self { directory, source, processes, journal, alive, gone, next, next_unseen, told, counted };
        host.appear(ROOT, 1)?;
        for _ in 0..POPULATION {
            let pid = host.pid();
            host.appear(pid, ROOT)?;
            host.alive.push_back(pid);
        }
        host.processes.scan(&mut host.source, SystemClock.boottime())?;
        host.journal.begin(true, host.processes.iter());
        host.journal.settled();
        Ok(host)
    }

    /// A pid that nobody has.
    fn pid(&mut self) -> u32 {
        self.next = (self.next + 1) % WRAPPED;
        LIVING + self.next
    }

    fn appear(&self, pid: u32, parent: u32) -> Result<()> {
        let start = SystemClock.boottime() / TICK;
        let directory = self.directory.path().join(pid.to_string());
        fs::create_dir(&directory)?;
        let text = format!("{pid} (x) S {parent} 0 0 0 0 0 0 0 0 0 1 1 0 0 20 0 1 0 {start} 0 5\n");
        Ok(fs::write(directory.join("stat"), text)?)
    }

    /// What happens between two gathers, told as the kernel does it.
    fn live(&mut self) -> Result<()> {
        for _ in 0..REPLACED {
            let dead = self.alive.pop_front().context("nobody is alive")?;
            fs::remove_dir_all(self.directory.path().join(dead.to_string()))?;
            self.die(dead, ROOT);
            let pid = self.pid();
            self.appear(pid, ROOT)?;
            self.journal.event(Event::Fork { parent: ROOT, child: pid });
            self.gone.remove(&pid);
            self.alive.push_back(pid);
        }
        self.told += REPLACED;
        self.flush();
        for _ in 0..UNSEEN / AT_ONCE {
            for _ in 0..AT_ONCE / 2 {
                // One that has a child, which it leaves.
                let [pid, child] = [self.unseen_pid(), self.unseen_pid()];
                self.journal.event(Event::Fork { parent: ROOT, child: pid });
                self.journal.event(Event::Fork { parent: pid, child });
                self.die(pid, ROOT);
                self.die(child, 1);
            }
            self.told += AT_ONCE;
            self.flush();
        }
        Ok(())
    }

    fn unseen_pid(&mut self) -> u32 {
        self.next_unseen = (self.next_unseen + 1) % WRAPPED;
        SHORT_LIVED + self.next_unseen
    }

    fn die(&mut self, pid: u32, parent: u32) {
        let cpu = 5_000_000;
        let used = CpuTimes { cpu, user: cpu, system: 0 };
        self.journal.record(Record { pid, parent, used, delays: Some(Box::new([1; COUNTERS])) });
        self.journal.event(Event::Exit { pid, parent: Some(parent) });
        self.gone.insert(pid);
    }

    fn flush(&mut self) {
        let gone = &self.gone;
        self.journal.flush();
        self.journal.prune_if_many(&|pid| gone.contains(&pid));
    }

    fn gather(&mut self) -> Result<()> {
        let Self { source, processes, journal, gone, .. } = self;
        let is_gone = |pid| gone.contains(&pid);
        let known = processes.count();
        let failed = processes.follow(journal, &is_gone, source, SystemClock.boottime());
        ensure!(failed.is_none(), "{failed:?}");
        let root = processes.get(ROOT).context("the root is gone")?.id;
        processes.track(&[root], source);
        let failed = processes.read_tracked(source, true);
        ensure!(failed.is_none(), "{failed:?}");
        processes.take_late_events(journal, &is_gone);
        ensure!(processes.count() == known, "{} of {known} are known", processes.count());
        let unobserved: u64 = processes.unobserved().map(|(_, unobserved)| unobserved.count).sum();
        let born = self.alive.iter().rev().take(REPLACED as usize);
        let seen = born.filter(|pid| processes.get(**pid).is_some_and(|stat| processes.is_newborn(stat.id)));
        self.counted += unobserved + seen.count() as u64;
        processes.end_gather();
        self.gone.clear();
        Ok(())
    }
}
