//! `thread`: how the threads of a process are scheduled, by nice value; and the busiest of them.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::delay_accounting::DelayAccounting;
use super::{Bounds, Look, Needs};
use crate::account::{Counter, Counters, Outcome, Rate};
use crate::encode::Value;
use crate::kernel::procfs::{Proc, Schedstat};
use crate::kernel::stat::{Identity, Stat};
use crate::log::Trouble;

/// The fields: ns, ns, ns, count.
const NAMES: [&str; 4] = ["blkio_delay", "schedstat_oncpu", "schedstat_waiting", "schedstat_slices"];

/// What threads have counted, in the order of the fields.
type Counts = [u64; NAMES.len()];

/// Counters by nice value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByNice(BTreeMap<i8, Counts>);

impl ByNice {
    /// Each nice value that threads have had, and what they counted while they had it.
    pub fn iter(&self) -> impl Iterator<Item = (i8, &Counts)> {
        self.0.iter().map(|(nice, counts)| (*nice, counts))
    }

    fn gain(&mut self, nice: i8, gained: Counts) {
        let total = self.0.entry(nice).or_default();
        for (total, gained) in total.iter_mut().zip(gained) {
            *total = total.saturating_add(gained);
        }
    }
}

impl Counter for ByNice {
    fn since(&self, earlier: &Self) -> Self {
        let gained = |(nice, counts): (&i8, &Counts)| {
            let earlier = earlier.0.get(nice).copied().unwrap_or_default();
            (*nice, since(*counts, earlier))
        };
        Self(self.0.iter().map(gained).collect())
    }

    fn add(&mut self, gained: &Self) {
        for (nice, gained) in &gained.0 {
            self.gain(*nice, *gained);
        }
    }
}

fn since(mut counts: Counts, earlier: Counts) -> Counts {
    for (now, earlier) in counts.iter_mut().zip(earlier) {
        *now = now.saturating_sub(earlier);
    }
    counts
}

/// A thread as remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Task {
    tid: u32,
    /// Ticks since boot when it started, if that was read.
    start: Option<u64>,
    /// ns that it has run, if that was read.
    ran: Option<u64>,
    /// The same when the interval of the busiest began.
    base: Option<u64>,
    /// What was counted of it, if its nice value was one that counts.
    counted: Option<Counts>,
}

/// A thread as read.
#[derive(Debug, Clone, Copy)]
struct Sight {
    tid: u32,
    start: Option<u64>,
    nice: i8,
    blkio_delay: u64,
    schedstat: Option<Schedstat>,
}

/// The threads of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Threads {
    id: Identity,
    /// Sorted by tid.
    tasks: Vec<Task>,
    /// What they have counted, those included that are gone: never falls.
    counted: ByNice,
    /// Whether they could not be read now.
    unknown: bool,
    /// Whether they could not be read when the interval of the busiest began.
    unknown_at_base: bool,
}

impl Task {
    /// Whether this is the thread that is read now. A tid may have been used again: another one starts at another time, and
    /// what a thread has run does not fall.
    fn is(&self, sight: &Sight) -> bool {
        let ran = sight.schedstat.map(|schedstat| schedstat.oncpu);
        self.start.zip(sight.start).is_none_or(|(before, now)| before == now)
            && self.ran.zip(ran).is_none_or(|(before, now)| before <= now)
    }
}

impl Threads {
    fn new(id: Identity) -> Self {
        Self { id, tasks: Vec::new(), counted: ByNice::default(), unknown: false, unknown_at_base: false }
    }

    /// Takes in what was read. `new`: whether a thread not seen before is new, and not only new to us.
    fn take_in(&mut self, sights: &[Sight], is_new: bool, counts: impl Fn(i8) -> bool) {
        let tasks = sights.iter().map(|sight| {
            let ran = sight.schedstat.map(|schedstat| schedstat.oncpu);
            let known = self.tasks.binary_search_by_key(&sight.tid, |task| task.tid).ok();
            let known = known.and_then(|index| self.tasks.get(index)).filter(|task| task.is(sight)).copied();
            let base = match known {
                Some(task) => task.base.or(ran),
                None if is_new => Some(0),
                None => ran,
            };
            let counted = counts(sight.nice).then(|| sight.counts());
            if let Some(now) = counted {
                let gained = match known {
                    Some(task) => since(now, task.counted.unwrap_or(now)), // it did not count before
                    None => now,
                };
                self.counted.gain(sight.nice, gained);
            }
            Task { tid: sight.tid, start: sight.start, ran, base, counted }
        });
        self.tasks = tasks.collect();
    }

    /// ns that the busiest of them has run in the interval; 0 at first sight.
    fn busiest(&self) -> Option<u64> {
        if self.unknown || self.unknown_at_base {
            return None;
        }
        let run = self.tasks.iter().filter_map(|task| Some(task.ran?.saturating_sub(task.base?)));
        Some(run.max().unwrap_or(0))
    }

    /// Begins the next interval of the busiest.
    fn begin_interval(&mut self) {
        self.unknown_at_base = self.unknown;
        for task in &mut self.tasks {
            task.base = task.ran;
        }
    }
}

impl Sight {
    fn counts(&self) -> Counts {
        let Schedstat { oncpu, waiting, slices } = self.schedstat.unwrap_or_default();
        [self.blkio_delay, oncpu, waiting, slices]
    }
}

/// Reads threads, and remembers them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Thread {
    #[serde(skip)]
    bounds: Bounds,
    /// Sorted by pid.
    processes: Vec<Threads>,
    counters: Counters<ByNice>,
    /// CLOCK_MONOTONIC (ns) when the interval of the busiest began.
    begun: Option<u64>,
    /// Whether this kernel has schedstat.
    #[serde(skip)]
    has_schedstat: bool,
}

impl Thread {
    pub(super) fn new(bounds: Bounds) -> Self {
        let (processes, counters, begun) = Default::default();
        Self { bounds, processes, counters, begun, has_schedstat: true }
    }

    /// Goes on from what was remembered, within the own bounds.
    pub(super) fn resume(&mut self, remembered: Self) {
        *self = Self { bounds: self.bounds, ..remembered };
    }

    /// What was counted of each process.
    #[must_use]
    pub fn counters(&self) -> &Counters<ByNice> {
        &self.counters
    }

    /// One gather: reads the threads of each member (sorted by pid) of which they are needed.
    pub(super) fn sample(&mut self, members: &[(Identity, Needs)], look: &mut Look) {
        let mut before = std::mem::take(&mut self.processes).into_iter().peekable();
        let mut schedstats = Schedstats::default();
        for (id, needs) in members.iter().filter(|(_, needs)| needs.thread || needs.busiest) {
            while before.next_if(|threads| threads.id < *id).is_some() {} // both are sorted
            let known = before.next_if(|threads| threads.id == *id);
            let is_new = known.as_ref().is_some_and(|known| !known.unknown) || look.processes.is_newborn(*id);
            let mut threads = known.unwrap_or_else(|| Threads::new(*id));
            match self.read(*id, *needs, look, &mut schedstats) {
                Outcome::Known(sights) => {
                    threads.unknown = false;
                    threads.take_in(&sights, is_new, |nice| needs.thread && self.counts(nice));
                }
                Outcome::Gone => threads.unknown = false,
                Outcome::Unknown => threads.unknown = true,
            }
            self.processes.push(threads);
        }
        self.has_schedstat = schedstats.are_there();
        if !self.has_schedstat {
            let why = "the kernel has no schedstat: it takes one built with CONFIG_SCHED_INFO";
            look.complaints.add(Trouble::Failed, format!("What threads have run and waited is left out: {why}"));
        }
        let outcomes = self.processes.iter().map(|threads| {
            let outcome = if threads.unknown { Outcome::Unknown } else { Outcome::Known(threads.counted.clone()) };
            (threads.id, look.processes.is_newborn(threads.id), outcome)
        });
        self.counters.settle(outcomes);
    }

    fn counts(&self, nice: i8) -> bool {
        nice != 0 || self.bounds.thread_all_nice
    }

    fn read(&self, id: Identity, needs: Needs, look: &mut Look, schedstats: &mut Schedstats) -> Outcome<Vec<Sight>> {
        let Some(stat) = look.processes.get_exactly(id) else { return Outcome::Gone };
        if stat.num_threads > self.bounds.thread_max {
            let called = format!("process {} ({})", id.pid, stat.comm.to_text());
            let bound = format!("more threads than thread_max = {}: raise it", self.bounds.thread_max);
            look.complaints.add(Trouble::Bounded, format!("Threads are left out of {called}, which has {bound}"));
            return Outcome::Unknown;
        }
        let wants_schedstat = |nice| needs.busiest || self.counts(nice);
        let sights = if stat.num_threads > 1 {
            many(look.proc, id.pid, needs, wants_schedstat, schedstats)
        } else {
            one(look.proc, stat, wants_schedstat, schedstats).map(|sight| Some(vec![sight]))
        };
        match sights {
            Ok(Some(sights)) => Outcome::Known(sights),
            Ok(None) => Outcome::Gone,
            Err(error) => {
                let message = format!("Threads of some processes cannot be read, and are left out: {error}");
                look.complaints.add(Trouble::of(&error), message);
                Outcome::Unknown
            }
        }
    }

    /// ns that the busiest thread of a process has run in the interval; `None` if that could not be read. 0 for a process at its
    /// first sight, as with its CPU.
    #[must_use]
    pub fn busiest(&self, id: Identity) -> Option<u64> {
        let index = self.processes.binary_search_by_key(&id, |threads| threads.id).ok()?;
        self.processes.get(index).filter(|_| self.has_schedstat)?.busiest()
    }

    /// How long the interval of the busiest has been by now, ns; `None` if it is too short to say.
    #[must_use]
    pub fn interval(&self, now: u64) -> Option<u64> {
        now.checked_sub(self.begun?).filter(|elapsed| *elapsed >= Rate::SHORTEST)
    }

    /// What was busiest is written now: begins the next interval, if this one was long enough to say.
    pub fn begin_interval(&mut self, now: u64) {
        if self.begun.is_some() && self.interval(now).is_none() {
            return;
        }
        self.begun = Some(now);
        self.processes.iter_mut().for_each(Threads::begin_interval);
    }

    /// The fields that are known.
    #[must_use]
    pub fn fields(&self, counts: &Counts, delays: DelayAccounting) -> Vec<(&'static str, Value)> {
        let is_known = |name: &str| if name == "blkio_delay" { delays.counts(name) } else { self.has_schedstat };
        let fields = NAMES.into_iter().zip(counts).filter(|(name, _)| is_known(name));
        fields.map(|(name, value)| (name, Value::Integer(*value))).collect()
    }
}

/// Whether there is such a file at all: a single one that is missing is of a thread that is gone.
#[derive(Default)]
struct Schedstats {
    read: bool,
    missed: bool,
}

impl Schedstats {
    fn add(&mut self, schedstat: Option<Schedstat>) -> Option<Schedstat> {
        self.read |= schedstat.is_some();
        self.missed |= schedstat.is_none();
        schedstat
    }

    fn are_there(&self) -> bool {
        self.read || !self.missed
    }
}

/// The only thread of a process: its stat is the process's.
fn one(
    proc: &mut Proc,
    stat: &Stat,
    wants_schedstat: impl Fn(i8) -> bool,
    schedstats: &mut Schedstats,
) -> io::Result<Sight> {
    let schedstat = if wants_schedstat(stat.nice) { schedstats.add(proc.schedstat(stat.id.pid)?) } else { None };
    let blkio_delay = stat.blkio_delay.unwrap_or(0);
    Ok(Sight { tid: stat.id.pid, start: Some(stat.id.start), nice: stat.nice, blkio_delay, schedstat })
}

/// The threads of a process, sorted; those that went away meanwhile are not among them. Without the need for their nice values
/// they read as nice 0, whatever they are.
fn many(
    proc: &mut Proc,
    pid: u32,
    needs: Needs,
    wants_schedstat: impl Fn(i8) -> bool,
    schedstats: &mut Schedstats,
) -> io::Result<Option<Vec<Sight>>> {
    let Some(tids) = proc.threads(pid)? else { return Ok(None) };
    let mut sights = Vec::with_capacity(tids.len());
    for tid in tids {
        let (start, nice, blkio_delay) = if needs.thread {
            let Some(stat) = proc.thread_stat(pid, tid)? else { continue };
            (Some(stat.id.start), stat.nice, stat.blkio_delay.unwrap_or(0))
        } else {
            (None, 0, 0)
        };
        let schedstat = if wants_schedstat(nice) { schedstats.add(proc.thread_schedstat(pid, tid)?) } else { None };
        sights.push(Sight { tid, start, nice, blkio_delay, schedstat });
    }
    Ok(Some(sights))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread as read: tid, nice value, and ns that it ran; it waited the same and was put on a CPU once.
    fn sight(tid: u32, nice: i8, oncpu: u64) -> Sight {
        Sight {
            tid,
            start: None,
            nice,
            blkio_delay: 0,
            schedstat: Some(Schedstat { oncpu, waiting: oncpu, slices: 1 }),
        }
    }

    /// Readings of one process, and the oncpu by nice value after each.
    #[test]
    fn what_a_thread_gains_goes_to_the_nice_value_that_it_has() {
        type Gathers<'a> = &'a [(&'a [Sight], &'a [(i8, u64)])];
        let cases: [(&str, Gathers); 6] = [
            ("first seen: all of it", &[(&[sight(1, 0, 5), sight(2, 3, 70)], &[(3, 70)])]),
            ("exits", &[(&[sight(1, 3, 5), sight(2, 3, 70)], &[(3, 75)]), (&[sight(1, 3, 6)], &[(3, 76)])]),
            ("is new", &[(&[sight(1, 3, 5)], &[(3, 5)]), (&[sight(1, 3, 5), sight(2, 3, 9)], &[(3, 14)])]),
            ("3 to 7", &[(&[sight(1, 3, 50)], &[(3, 50)]), (&[sight(1, 7, 51)], &[(3, 50), (7, 1)])]),
            ("0 to 5", &[(&[sight(1, 0, 50)], &[]), (&[sight(1, 5, 51)], &[(5, 0)]), (&[sight(1, 5, 53)], &[(5, 2)])]),
            ("its tid is used again", &[(&[sight(1, 3, 50)], &[(3, 50)]), (&[sight(1, 3, 4)], &[(3, 54)])]),
        ];
        for (what, gathers) in cases {
            let mut threads = Threads::new(Identity { pid: 1, start: 1 });
            for (at, (sights, expected)) in gathers.iter().enumerate() {
                threads.take_in(sights, at > 0, |nice| nice != 0);
                let oncpu: Vec<_> = threads.counted.iter().map(|(nice, [_, oncpu, ..])| (nice, *oncpu)).collect();
                assert_eq!(oncpu, *expected, "{what}, gather {at}");
            }
        }
    }

    #[test]
    fn the_busiest_is_one_thread_since_the_interval_began() {
        let mut threads = Threads::new(Identity { pid: 1, start: 1 });
        threads.take_in(&[sight(1, 0, 100), sight(2, 0, 200)], false, |_| false);
        assert_eq!(threads.busiest(), Some(0), "nothing is known of before");
        threads.take_in(&[sight(1, 0, 130), sight(2, 0, 220), sight(3, 0, 25)], true, |_| false);
        assert_eq!(threads.busiest(), Some(30));
        threads.take_in(&[sight(2, 0, 220), sight(3, 0, 90)], true, |_| false);
        assert_eq!(threads.busiest(), Some(90), "a new one counts in full");
    }
}
