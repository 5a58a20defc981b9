//! psstat's `p_cpu_thread_max`: the busiest single thread.

use serde::{Deserialize, Serialize};

use super::threads::Reader;
use super::{Bounds, Look, Needs};
use crate::kernel::stat::{Identity, Stat, TICK};
use crate::ledger::{Outcome, Rate, share, take_known};

/// CPU that two texts in whole ticks (user and system time) can hide, ns.
const SLACK: u64 = 2 * TICK;

/// Thread of a process: ns that it has run, now and when the interval began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Task {
    tid: u32,
    ran: u64,
    base: u64,
}

/// Process with its threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    id: Identity,
    /// CPU of all its threads, ns in whole ticks: now and when the interval began.
    own: u64,
    own_base: u64,
    /// Sorted by tid.
    tasks: Vec<Task>,
    /// True if the threads could not be read now.
    unknown: bool,
    /// True if the threads could not be read when the interval began.
    unknown_at_base: bool,
    /// CLOCK_MONOTONIC (ns) when the interval began.
    begun: u64,
}

impl Process {
    /// Creates a process at its first sight, in an interval that began at `begun`. All it has done counts in this
    /// interval.
    fn new(stat: &Stat, begun: u64) -> Self {
        let (tasks, unknown, unknown_at_base) = Default::default();
        Self { id: stat.id, own: stat.cpu(), own_base: 0, tasks, unknown, unknown_at_base, begun }
    }

    /// Adds a thread, in the order of tids; `before` are the threads of the last gather.
    fn take_in(&mut self, tid: u32, ran: u64, before: &[Task]) {
        let known = before.binary_search_by_key(&tid, |task| task.tid).ok().and_then(|index| before.get(index));
        // A run time that falls is another thread's, with the same tid.
        let base = known.filter(|task| task.ran <= ran).map_or(0, |task| task.base);
        self.tasks.push(Task { tid, ran, base });
    }

    /// Returns the ns that the busiest thread has run in the interval, at most what all threads together have used: a
    /// tid may be another thread's by now, as after an execve(2).
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

/// Run times of the members' threads (schedstat), at the last gather and when the interval began.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Busiest {
    /// Sorted by pid.
    processes: Vec<Process>,
    /// CLOCK_MONOTONIC of the last gather, ns.
    now: u64,
    /// CLOCK_MONOTONIC when the interval of the processes that were known then began, ns.
    begun: Option<u64>,
    #[serde(skip)]
    lacks_schedstat: bool,
}

impl Busiest {
    /// Reads the threads of each member (sorted by pid) that needs it, once in a gather.
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
                process.begin_interval(at); // its run time so far may be from before the interval
                process.unknown_at_base |= self.begun.is_none();
            }
            self.processes.push(process);
        }
        self.lacks_schedstat = reader.lacks_schedstat(look);
    }

    /// Returns the cores used by the busiest thread of some processes, in an interval of their series that has lasted
    /// `elapsed` ns. `None` if that is unknown of one process, or of part of the interval.
    #[must_use]
    pub fn of(&self, ids: impl IntoIterator<Item = Identity>, elapsed: u64) -> Option<f64> {
        let own = self.now.saturating_sub(self.begun?);
        if elapsed > own.saturating_add(Rate::SHORTEST) {
            return None; // the interval of the series began before this one
        }
        ids.into_iter().try_fold(0.0, |most: f64, id| {
            let index = self.processes.binary_search_by_key(&id, |process| process.id).ok()?;
            let process = self.processes.get(index).filter(|_| !self.lacks_schedstat)?;
            // Over the longer of two intervals: that of the series may have begun before or after the process was first
            // seen.
            let over = self.now.saturating_sub(process.begun).max(elapsed);
            Some(most.max(share(process.busiest()?, over).min(1.0)))
        })
    }

    /// Forgets when the interval began, since processes may be needed from now on that were not read then. Nothing is
    /// known of this interval.
    pub(super) fn expect_more(&mut self) {
        self.begun = None;
    }

    /// Begins the next interval, since a value is being written, unless this one is too short for a rate.
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

    /// A process that begins its interval with these threads (tid, ms), and has these at the next gather, when all of
    /// its threads have used `own` ms more: the busiest, in ms.
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

    /// Begun at 0; it is 10 s now. Process 1 was known when the interval began, 2 was first seen at 8 s; the busiest
    /// thread of each has run 2 s since. What is told of them in a series that was written so many seconds ago:
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
