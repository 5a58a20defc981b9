//! psstat's `p_cpu_thread_max`: the busiest single thread.

use serde::{Deserialize, Serialize};

use super::threads::Reader;
use super::{Bounds, Look, Needs};
use crate::account::{Outcome, Rate, share, take_known};
use crate::kernel::stat::{Identity, Stat, TICK};

/// What two texts in whole ticks (user and system time) can hide.
const SLACK: u64 = 2 * TICK;

/// A thread: ns that it has run, now and when the interval began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Task {
    tid: u32,
    ran: u64,
    base: u64,
}

/// The threads of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    id: Identity,
    /// CPU of all its threads, ns in ticks: now and when the interval began.
    own: u64,
    own_base: u64,
    /// Sorted by tid.
    tasks: Vec<Task>,
    /// Whether they could not be read now.
    unknown: bool,
    /// Whether they could not be read when the interval began.
    unknown_at_base: bool,
    /// CLOCK_MONOTONIC (ns) when the interval began.
    begun: u64,
}

impl Process {
    /// A process at its first sight, all of whose work is of the interval that began at a time.
    fn new(stat: &Stat, begun: u64) -> Self {
        let (tasks, unknown, unknown_at_base) = Default::default();
        Self { id: stat.id, own: stat.cpu(), own_base: 0, tasks, unknown, unknown_at_base, begun }
    }

    /// Takes in a thread, after those with a lower tid; `before` are those of the last gather.
    fn take_in(&mut self, tid: u32, ran: u64, before: &[Task]) {
        let known = before.binary_search_by_key(&tid, |task| task.tid).ok().and_then(|index| before.get(index));
        // A tid that is used again is of another thread: what one has run does not fall.
        let base = known.filter(|task| task.ran <= ran).map_or(0, |task| task.base);
        self.tasks.push(Task { tid, ran, base });
    }

    /// ns that the busiest thread has run in the interval: no more than all of them together, even if a tid is another thread's by
    /// now, as after an execve(2).
    fn busiest(&self) -> Option<u64> {
        if self.unknown || self.unknown_at_base {
            return None;
        }
        let most = self.tasks.iter().map(|task| task.ran.saturating_sub(task.base)).max();
        let all = self.own.saturating_sub(self.own_base).saturating_add(SLACK);
        Some(most.unwrap_or(0).min(all))
    }

    fn begin_interval(&mut self, now: u64) {
        (self.own_base, self.unknown_at_base, self.begun) = (self.own, self.unknown, now);
        for task in &mut self.tasks {
            task.base = task.ran;
        }
    }
}

/// Reads what each thread has run, and remembers it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Busiest {
    /// Sorted by pid.
    processes: Vec<Process>,
    /// CLOCK_MONOTONIC (ns) of the last gather, and when the interval began of those that were known then.
    now: u64,
    begun: Option<u64>,
    #[serde(skip)]
    lacks_schedstat: bool,
}

impl Busiest {
    /// One gather: reads the threads of each member (sorted by pid) of which that is needed.
    pub(super) fn sample(&mut self, members: &[(Identity, Needs)], bounds: Bounds, at: u64, look: &mut Look) {
        self.now = at;
        let mut before = std::mem::take(&mut self.processes).into_iter().peekable();
        let mut reader = Reader::default();
        for (id, _) in members.iter().filter(|(_, needs)| needs.busiest) {
            let known = take_known(&mut before, *id, |process| process.id);
            let Some(stat) = look.processes.get_exactly(*id) else { continue };
            let is_first = known.is_none() && !look.processes.is_newborn(*id);
            let mut process = known.unwrap_or_else(|| Process::new(stat, self.begun.unwrap_or(at)));
            let tasks = std::mem::take(&mut process.tasks);
            process.tasks.reserve_exact(tasks.len().max(1)); // mostly one, and room for four else
            let outcome = reader.visit(*id, bounds, look, |reader, proc, stat, tid| {
                if let Some(schedstat) = reader.schedstat(proc, stat, tid)? {
                    process.take_in(tid, schedstat.oncpu, &tasks);
                }
                Ok(())
            });
            if outcome != Outcome::Known(()) {
                process.tasks = tasks; // as they were
            }
            let own = stat.known_cpu();
            process.own = own.unwrap_or(0).max(process.own);
            process.unknown = outcome == Outcome::Unknown || own.is_none();
            if is_first {
                process.begin_interval(at); // what it did before is not known to be of this one
                process.unknown_at_base |= self.begun.is_none();
            }
            self.processes.push(process);
        }
        self.lacks_schedstat = reader.lacks_schedstat(look);
    }

    /// Cores used by the busiest thread of some processes, in an interval that has lasted for so long (ns) of the series that they
    /// are of. `None` if that is not known of one of them, or not of all of the interval.
    #[must_use]
    pub fn of(&self, ids: impl IntoIterator<Item = Identity>, elapsed: u64) -> Option<f64> {
        let own = self.now.saturating_sub(self.begun?);
        if elapsed > own.saturating_add(Rate::SHORTEST) {
            return None; // nobody looked at the series when this interval began
        }
        ids.into_iter().try_fold(0.0, |most: f64, id| {
            let index = self.processes.binary_search_by_key(&id, |process| process.id).ok()?;
            let process = self.processes.get(index).filter(|_| !self.lacks_schedstat)?;
            // Either may have begun later: the series, or the first sight of the process.
            let over = self.now.saturating_sub(process.begun).max(elapsed);
            Some(most.max(share(process.busiest()?, over).min(1.0)))
        })
    }

    /// More may be asked for from now on: what was not looked at when the interval began is not known in this one.
    pub(super) fn expect_more(&mut self) {
        self.begun = None;
    }

    /// What was busiest is written now: begins the next interval, if this one was long enough to say.
    pub fn begin_interval(&mut self, now: u64) {
        if self.begun.is_none_or(|begun| now.saturating_sub(begun) >= Rate::SHORTEST) {
            self.begun = Some(now);
            self.processes.iter_mut().for_each(|process| process.begin_interval(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A process that begins its interval with these threads (tid, ms), and has these at the next gather, when all of its threads
    /// have used `own` ms more: the busiest, in ms.
    fn busiest(before: &[(u32, u64)], own: u64, now: &[(u32, u64)]) -> Option<u64> {
        let id = Identity { pid: 1, start: 1 };
        let (unknown, unknown_at_base) = (false, false);
        let mut process = Process { id, own: 0, own_base: 0, tasks: Vec::new(), unknown, unknown_at_base, begun: 0 };
        for (tid, ran) in before {
            process.take_in(*tid, ran * MS, &[]);
        }
        process.begin_interval(0);
        let tasks = std::mem::take(&mut process.tasks);
        for (tid, ran) in now {
            process.take_in(*tid, ran * MS, &tasks);
        }
        process.own = own * MS;
        process.busiest().map(|busiest| busiest / MS)
    }

    #[test]
    fn the_busiest_is_one_thread_of_the_interval() {
        type Threads<'a> = &'a [(u32, u64)];
        let cases: [(&str, Threads, u64, Threads, u64); 6] = [
            ("idle", &[(1, 100), (2, 200)], 0, &[(1, 100), (2, 200)], 0),
            ("not the sum", &[(1, 100), (2, 200)], 500, &[(1, 300), (2, 500)], 300),
            ("a new one counts in full", &[(1, 100)], 90, &[(1, 100), (2, 90)], 90),
            ("so does one whose tid was used before", &[(1, 100), (2, 200)], 90, &[(1, 100), (2, 90)], 90),
            ("one gone since does not", &[(1, 100), (2, 200)], 90, &[(1, 130)], 30),
            ("execve by another thread: no more than all did", &[(1, 0), (2, 2000)], 10, &[(1, 2005)], 30),
        ];
        for (what, before, own, now, expected) in cases {
            assert_eq!(busiest(before, own, now), Some(expected), "{what}");
        }
    }

    /// Begun at 0; it is 10 s now. Process 1 was known when the interval began, 2 was first seen at 8 s; the busiest thread of each
    /// has run 2 s since. What is told of them in a series that was written so many seconds ago:
    #[test]
    fn the_interval_is_that_of_the_series_and_of_the_process() {
        const SECOND: u64 = 1000 * MS;
        let process = |pid, begun| {
            let (unknown, unknown_at_base) = (false, false);
            let tasks = vec![Task { tid: pid, ran: 5 * SECOND, base: 3 * SECOND }];
            let (own, own_base) = (5 * SECOND, 3 * SECOND);
            Process { id: Identity { pid, start: 1 }, own, own_base, tasks, unknown, unknown_at_base, begun }
        };
        let processes = vec![process(1, 0), process(2, 8 * SECOND)];
        let busiest = Busiest { processes, begun: Some(0), now: 10 * SECOND, lacks_schedstat: false };
        let told = |pid, seconds| busiest.of([Identity { pid, start: 1 }], seconds * SECOND);
        assert_eq!(told(1, 10), Some(0.2));
        assert_eq!(told(1, 2), Some(0.2), "the series is younger than what is known");
        assert_eq!(told(2, 2), Some(1.0), "both were first seen then");
        assert_eq!(told(2, 10), Some(0.2), "no more than p_cpu, which counts from first sight on too");
        assert_eq!(told(1, 20), None, "the interval before was not looked at");
        assert_eq!(busiest.of([], 10 * SECOND), Some(0.0));
        assert_eq!(told(3, 10), None, "never seen");
    }
}
