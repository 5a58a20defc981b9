//! `thread`: scheduling and block I/O delay of the threads of a process, by nice value.

use std::io;

use serde::{Deserialize, Serialize};

use super::delay_accounting::DelayAccounting;
use super::threads::Reader;
use super::{Bounds, Look, Needs};
use crate::encode::Value;
use crate::kernel::procfs::{Proc, Schedstat};
use crate::kernel::stat::{Field, Identity, Stat};
use crate::kernel::taskstats::is_since_boot;
use crate::ledger::{Counter, Counters, Outcome, take_known};

/// Names of the fields: ns, ns, ns, count.
const NAMES: [&str; 4] = ["blkio_delay", "schedstat_oncpu", "schedstat_waiting", "schedstat_slices"];

/// Counters of a thread, or sums of them, in the order of [`NAMES`].
type Counts = [u64; NAMES.len()];

/// Counters by nice value, sorted by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByNice(Vec<(i8, Counts)>);

impl ByNice {
    /// Returns each nice value that threads have had, with the sum of what they gained while they had it.
    pub fn iter(&self) -> impl Iterator<Item = (i8, &Counts)> {
        self.0.iter().map(|(nice, counts)| (*nice, counts))
    }

    fn get(&self, nice: i8) -> Option<&Counts> {
        self.iter().find(|(of, _)| *of == nice).map(|(_, counts)| counts)
    }

    fn gain(&mut self, nice: i8, gained: Counts) {
        let at = self.0.partition_point(|(of, _)| *of < nice);
        match self.0.get_mut(at).filter(|(of, _)| *of == nice) {
            Some((_, total)) => {
                for (total, gained) in total.iter_mut().zip(gained) {
                    *total = total.saturating_add(gained);
                }
            }
            None => self.0.insert(at, (nice, gained)),
        }
    }
}

impl Counter for ByNice {
    fn since(&self, earlier: &Self) -> Self {
        let gained = self.iter().map(|(nice, counts)| {
            let earlier = earlier.get(nice).copied().unwrap_or_default();
            (nice, since(*counts, earlier))
        });
        Self(gained.collect())
    }

    fn add(&mut self, gained: &Self) {
        for (nice, gained) in gained.iter() {
            self.gain(nice, *gained);
        }
    }
}

fn since(mut counts: Counts, earlier: Counts) -> Counts {
    for (now, earlier) in counts.iter_mut().zip(earlier) {
        *now = now.saturating_sub(earlier);
    }
    counts
}

/// Thread as of the last gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Task {
    tid: u32,
    /// Start time, ticks since boot: a tid may be used again.
    start: u64,
    /// Counters, if its nice value counts.
    counts: Option<Counts>,
}

/// Thread as read, with its nice value.
#[derive(Debug, Clone, Copy)]
struct TaskReading {
    task: Task,
    nice: i8,
}

/// Threads of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Threads {
    id: Identity,
    /// Sorted by tid.
    tasks: Vec<Task>,
    /// Sums over all threads, exited ones included: they never fall.
    counted: ByNice,
}

impl Threads {
    /// Adds what each thread has gained. The counters of a thread at its first sight count if it `is_new`.
    fn take_in(&mut self, readings: &[TaskReading], at: u64, is_new: impl Fn(Identity) -> bool) {
        for TaskReading { task, nice } in readings {
            let Some(now) = task.counts else { continue };
            let mut gained = match self.earlier(task) {
                Some(_) if self.may_be_another(task, readings) => self.least(now),
                Some(earlier) => since(now, earlier.counts.unwrap_or(now)), // None: its nice value did not count then
                None if is_new(Identity { pid: task.tid, start: task.start }) => now,
                None => Counts::default(),
            };
            if is_since_boot(gained[0], 0, at) {
                gained[0] = 0;
            }
            self.counted.gain(*nice, gained);
        }
        self.tasks.clear();
        self.tasks.extend(readings.iter().map(|reading| reading.task));
    }

    /// Returns a thread as of the last gather.
    fn earlier(&self, task: &Task) -> Option<&Task> {
        let index = self.tasks.binary_search_by_key(&task.tid, |earlier| earlier.tid).ok()?;
        self.tasks.get(index).filter(|earlier| earlier.start == task.start)
    }

    /// Returns whether the leader may be another thread than at the last gather: after execve(2) the calling thread has
    /// the leader's tid and start time, and is the only one.
    fn may_be_another(&self, task: &Task, readings: &[TaskReading]) -> bool {
        task.tid == self.id.pid && readings.len() == 1 && self.tasks.len() > 1
    }

    /// Returns the least that the one thread left can have gained, whichever of the earlier threads it is: nothing if
    /// the counters of one of them are unknown.
    fn least(&self, now: Counts) -> Counts {
        let earlier = self.tasks.iter().map(|task| task.counts.unwrap_or(now));
        let can_be = |earlier: &Counts| earlier.iter().zip(now).all(|(earlier, now)| *earlier <= now);
        let gains = earlier.filter(can_be).map(|earlier| since(now, earlier));
        gains
            .reduce(|mut least, gain| {
                for (least, gain) in least.iter_mut().zip(gain) {
                    *least = gain.min(*least);
                }
                least
            })
            .unwrap_or_default()
    }
}

/// Threads of each process as of the last gather, and the sums by nice value.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Thread {
    /// Sorted by pid.
    processes: Vec<Threads>,
    counters: Counters<ByNice>,
    /// True if threads with nice value 0 count too.
    all_nice: bool,
    #[serde(skip)]
    lacks_schedstat: bool,
}

impl Thread {
    /// Returns the sums of each process.
    #[must_use]
    pub fn counters(&self) -> &Counters<ByNice> {
        &self.counters
    }

    /// Reads the threads of each member (sorted by pid) that needs it, once in a gather. `at` is CLOCK_MONOTONIC, ns.
    pub(super) fn sample(&mut self, members: &[(Identity, Needs)], bounds: Bounds, at: u64, look: &mut Look) {
        if self.all_nice != bounds.thread_all_nice {
            *self = Self { all_nice: bounds.thread_all_nice, ..Self::default() }; // earlier sums are of other threads
        }
        let mut before = std::mem::take(&mut self.processes).into_iter().peekable();
        let (mut reader, mut readings, mut outcomes) = (Reader::default(), Vec::new(), Vec::new());
        for (id, _) in members.iter().filter(|(_, needs)| needs.thread) {
            readings.clear();
            let outcome = reader.visit(*id, bounds, look, |reader, proc, process, tid| {
                readings.extend(reading(reader, proc, process, tid, |nice| self.counts(nice))?);
                Ok(())
            });
            let known = take_known(&mut before, *id, |threads| threads.id);
            let first = known.is_none();
            let outcome = match outcome {
                Outcome::Known(()) => {
                    let (tasks, counted) = Default::default();
                    let mut threads = known.unwrap_or(Threads { id: *id, tasks, counted });
                    threads.take_in(&readings, at, |thread| first || look.processes.is_newborn(thread));
                    let counted = threads.counted.clone();
                    self.processes.push(threads);
                    Outcome::Known(counted)
                }
                Outcome::Exited => {
                    self.processes.extend(known);
                    Outcome::Exited
                }
                Outcome::Unknown => {
                    self.processes.extend(known);
                    Outcome::Unknown
                }
            };
            outcomes.push((*id, look.processes.is_newborn(*id), outcome));
        }
        self.lacks_schedstat = reader.lacks_schedstat(look);
        self.counters.settle(outcomes);
    }

    /// Returns whether threads with a nice value count.
    #[must_use]
    pub fn counts(&self, nice: i8) -> bool {
        nice != 0 || self.all_nice
    }

    /// Returns the fields that the kernel counts.
    #[must_use]
    pub fn fields(&self, counts: &Counts, delays: DelayAccounting) -> Vec<(&'static str, Value)> {
        let is_known = |name: &str| if name == "blkio_delay" { delays.counts(name) } else { !self.lacks_schedstat };
        let fields = NAMES.into_iter().zip(counts).filter(|(name, _)| is_known(name));
        fields.map(|(name, value)| (name, Value::Integer(*value))).collect()
    }
}

/// Reads a thread. `None` if it has exited. The stat of a process with one thread is also that of the thread.
fn reading(
    reader: &mut Reader,
    proc: &mut Proc,
    process: &Stat,
    tid: u32,
    counts: impl Fn(i8) -> bool,
) -> io::Result<Option<TaskReading>> {
    let stat = if process.may_have_threads() { proc.thread_stat(process.id.pid, tid)? } else { Some(*process) };
    let Some(stat) = stat else { return Ok(None) };
    if let Some(field) = [Field::Nice, Field::BlkioDelay].into_iter().find(|field| !stat.knows(*field)) {
        let (number, name) = field.number_and_name();
        let what = format!("process {tid} ({}): field {number} of its stat, {name}, is no number", stat.comm.to_text());
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let Stat { id, nice, blkio_delay, .. } = stat;
    let mut counted = None;
    if counts(nice) {
        let Schedstat { oncpu, waiting, slices } = reader.schedstat(proc, process, tid)?.unwrap_or_default();
        counted = Some([blkio_delay.unwrap_or(0), oncpu, waiting, slices]);
    }
    Ok(Some(TaskReading { task: Task { tid, start: id.start, counts: counted }, nice }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thread as read: tid, start, nice value, and ns on a CPU; as many ns waiting, and one time slice.
    fn reading(tid: u32, start: u64, nice: i8, oncpu: u64) -> TaskReading {
        let counts = (nice != 0).then_some([0, oncpu, oncpu, 1]);
        TaskReading { task: Task { tid, start, counts }, nice }
    }

    /// The leader waits long, the other thread runs long: whichever is left, no field gains more than that one may
    /// have.
    #[test]
    fn of_each_field_the_least_counts_if_a_thread_may_be_another() {
        let task = |tid, counts| TaskReading { task: Task { tid, start: 1, counts: Some(counts) }, nice: 3 };
        let (tasks, counted) = Default::default();
        let mut threads = Threads { id: Identity { pid: 1, start: 1 }, tasks, counted };
        threads.take_in(&[task(1, [0, 1000, 100_000, 50_000]), task(2, [0, 1500, 5, 3])], 1, |_| false);
        threads.take_in(&[task(1, [0, 1600, 100_050, 50_010])], 1, |_| false);
        assert_eq!(threads.counted.get(3), Some(&[0, 100, 50, 10]));
    }

    /// Readings of process 1, and the oncpu by nice value after each. A thread that started at 5 or later is new.
    #[test]
    fn what_a_thread_gains_goes_to_the_nice_value_that_it_has() {
        type Gathers<'a> = &'a [(&'a [TaskReading], &'a [(i8, u64)])];
        let cases: [(&str, Gathers); 10] = [
            ("first seen: all of it", &[(&[reading(1, 1, 0, 5), reading(2, 1, 3, 70)], &[(3, 70)])]),
            (
                "exits",
                &[(&[reading(1, 1, 3, 5), reading(2, 1, 3, 70)], &[(3, 75)]), (&[reading(1, 1, 3, 6)], &[(3, 76)])],
            ),
            ("born", &[(&[reading(1, 1, 3, 5)], &[(3, 5)]), (&[reading(1, 1, 3, 5), reading(2, 6, 3, 9)], &[(3, 14)])]),
            (
                "missed",
                &[(&[reading(1, 1, 3, 5)], &[(3, 5)]), (&[reading(1, 1, 3, 5), reading(2, 1, 3, 9)], &[(3, 5)])],
            ),
            ("3 to 7", &[(&[reading(1, 1, 3, 50)], &[(3, 50)]), (&[reading(1, 1, 7, 51)], &[(3, 50), (7, 1)])]),
            (
                "0 to 5",
                &[
                    (&[reading(1, 1, 0, 50)], &[]),
                    (&[reading(1, 1, 5, 51)], &[(5, 0)]),
                    (&[reading(1, 1, 5, 53)], &[(5, 2)]),
                ],
            ),
            (
                "its tid is used again",
                &[
                    (&[reading(1, 1, 3, 1), reading(2, 2, 3, 50)], &[(3, 51)]),
                    (&[reading(1, 1, 3, 1), reading(2, 6, 3, 60)], &[(3, 111)]),
                ],
            ),
            (
                "execve by another than the leader",
                &[
                    (&[reading(1, 1, 3, 1), reading(2, 1, 3, 2000)], &[(3, 2001)]),
                    (&[reading(1, 1, 3, 2003)], &[(3, 2004)]),
                ],
            ),
            (
                "the leader survives the others",
                &[
                    (&[reading(1, 1, 3, 1), reading(2, 1, 3, 2000)], &[(3, 2001)]),
                    (&[reading(1, 1, 3, 9)], &[(3, 2009)]),
                ],
            ),
            (
                "execve by one that did not count",
                &[(&[reading(1, 1, 3, 9), reading(2, 1, 0, 7)], &[(3, 9)]), (&[reading(1, 1, 3, 8)], &[(3, 9)])],
            ),
        ];
        for (what, gathers) in cases {
            let (tasks, counted) = Default::default();
            let mut threads = Threads { id: Identity { pid: 1, start: 1 }, tasks, counted };
            for (at, (readings, expected)) in gathers.iter().enumerate() {
                threads.take_in(readings, 1, |thread| at == 0 || thread.start >= 5);
                let oncpu: Vec<_> = threads.counted.iter().map(|(nice, [_, oncpu, ..])| (nice, *oncpu)).collect();
                assert_eq!(oncpu, *expected, "{what}, gather {at}");
            }
        }
    }
}
