//! Resident memory of the members, from `/proc/<pid>/statm`.
//!
//! Field 24 of stat is an estimate: since Linux 6.2 each CPU counts the pages of a process by itself, and adds its
//! count to the process's when it is large enough. The estimate may be low by 100 pages and more for each CPU, which is
//! all of a small process. statm adds the CPUs up (Linux 6.16, and stable kernels with the change backported; before,
//! it has the same estimate). It is another file to open, so it is read only of a process that has run or faulted
//! since, or whose field 24 has changed; and after 30 s anyway, since the kernel can take pages from a process that
//! sleeps.

use std::io;
use std::iter::Peekable;
use std::vec::IntoIter;

use crate::kernel::stat::{Field, Identity, Stat, TICK};
use crate::ledger::take_known;
use crate::processes::ProcessSource;

/// Time after which statm is read although nothing has changed, ns.
const GOOD_FOR: u64 = 30_000_000_000;

/// Memory of a process at the time its statm was read.
#[derive(Debug, Clone, Copy)]
struct Resident {
    id: Identity,
    /// Low 32 bits of field 24 of its stat.
    estimate: u32,
    /// CLOCK_MONOTONIC of the reading, ns.
    read: u64,
    /// Value of [`activity`] then.
    activity: u64,
    pages: u64,
}

/// Memory of each member at the last gather.
#[derive(Debug, Default)]
pub(super) struct ResidentMemory {
    /// Sorted by pid.
    all: Vec<Resident>,
}

impl ResidentMemory {
    /// Begins a gather of `count` processes at `at` (CLOCK_MONOTONIC, ns). Processes not asked for in it are forgotten.
    pub(super) fn begin(&mut self, count: usize, at: u64) -> Asking<'_> {
        let before = std::mem::take(&mut self.all).into_iter().peekable();
        self.all.reserve_exact(count);
        Asking { before, now: &mut self.all, at }
    }
}

/// Gather in progress; processes have to be asked for in the order of their pids.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    before: Peekable<IntoIter<Resident>>,
    now: &'a mut Vec<Resident>,
    at: u64,
}

impl Asking<'_> {
    /// Returns the resident memory of a process, bytes, if known: 0 for a zombie.
    ///
    /// # Errors
    /// A file of the process cannot be read, and the process exists.
    pub(super) fn bytes_of(&mut self, stat: &Stat, source: &mut dyn ProcessSource) -> io::Result<Option<u64>> {
        if stat.is_zombie() {
            return Ok(Some(0));
        }
        #[allow(clippy::cast_possible_truncation)] // only compared
        let (estimate, activity) = (stat.rss as u32, activity(stat));
        let before = take_known(&mut self.before, stat.id, |known| known.id);
        let still = before.filter(|before| {
            let is_same = (before.estimate, before.activity) == (estimate, activity);
            // The stat of a leader that has exited does not show what the other threads do.
            is_same && !stat.is_leaderless() && self.at.saturating_sub(before.read) < GOOD_FOR
        });
        let resident = match still {
            Some(resident) => resident,
            None => {
                let Some(pages) = pages(stat, source)? else { return Ok(None) };
                Resident { id: stat.id, estimate, read: self.at, activity, pages }
            }
        };
        self.now.push(resident);
        Ok(Some(resident.pages.saturating_mul(rustix::param::page_size() as u64)))
    }
}

/// Returns a number that grows when a process runs for a tick or is given a page.
fn activity(stat: &Stat) -> u64 {
    (stat.cpu() / TICK).wrapping_add(stat.faults)
}

/// Returns the resident pages: by statm, or by stat if there is no statm, since the process was reaped or the host is
/// made up.
fn pages(stat: &Stat, source: &mut dyn ProcessSource) -> io::Result<Option<u64>> {
    if stat.is_leaderless() {
        return Ok(Some(source.leaderless_rss(stat.id.pid)?.unwrap_or(0)));
    }
    let estimate = stat.knows(Field::Rss).then_some(stat.rss);
    Ok(source.resident(stat.id.pid)?.or(estimate))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A host whose statm files have these pages.
    #[derive(Debug, Default)]
    struct Statm {
        pages: Option<u64>,
        of_a_thread: Option<u64>,
        asked: usize,
    }

    impl ProcessSource for Statm {
        fn list(&mut self, _: &mut Vec<u32>) -> io::Result<()> {
            Ok(())
        }

        fn stat(&mut self, _: u32) -> io::Result<Option<Stat>> {
            Ok(None)
        }

        fn is_process(&mut self, _: u32) -> bool {
            true
        }

        fn leader_time(&mut self, _: u32) -> io::Result<Option<u64>> {
            Ok(None)
        }

        fn leaderless_rss(&mut self, _: u32) -> io::Result<Option<u64>> {
            Ok(self.of_a_thread)
        }

        fn resident(&mut self, _: u32) -> io::Result<Option<u64>> {
            self.asked += 1;
            Ok(self.pages)
        }
    }

    /// State, minor and major faults, utime (ticks), threads, start and field 24.
    fn stat(state: char, [minor, major, utime, threads, start, rss]: [u64; 6]) -> Stat {
        let text =
            format!("7 (x) {state} 1 0 0 0 0 0 {minor} 0 {major} 0 {utime} 0 0 0 20 0 {threads} 0 {start} 0 {rss}");
        Stat::parse(text.as_bytes()).unwrap()
    }

    fn gather(memory: &mut ResidentMemory, at: u64, stat: &Stat, source: &mut Statm) -> u64 {
        memory.begin(1, at).bytes_of(stat, source).unwrap().unwrap() / rustix::param::page_size() as u64
    }

    #[test]
    fn statm_is_read_where_the_pages_may_be_others() {
        let first = stat('S', [1, 1, 1, 1, 5, 10]);
        let cases = [
            ("nothing", first, 1, false),
            ("nothing, for long", first, 30, true),
            ("a minor fault", stat('S', [2, 1, 1, 1, 5, 10]), 1, true),
            ("a major fault", stat('S', [1, 2, 1, 1, 5, 10]), 1, true),
            ("a tick", stat('S', [1, 1, 2, 1, 5, 10]), 1, true),
            ("fewer pages", stat('S', [1, 1, 1, 1, 5, 9]), 1, true),
            ("another process", stat('S', [1, 1, 1, 1, 6, 10]), 1, true),
        ];
        for (what, second, after, is_read) in cases {
            let (mut memory, mut source) = (ResidentMemory::default(), Statm { pages: Some(12), ..Statm::default() });
            assert_eq!(gather(&mut memory, SECOND, &first, &mut source), 12, "{what}: at first sight");
            source.pages = Some(13);
            let pages = gather(&mut memory, SECOND + after * SECOND, &second, &mut source);
            assert_eq!(pages, if is_read { 13 } else { 12 }, "{what}");
            assert_eq!(source.asked, 1 + usize::from(is_read), "{what}");
        }
    }

    #[test]
    fn who_was_not_asked_for_is_forgotten() {
        let (mut memory, mut source) = (ResidentMemory::default(), Statm { pages: Some(12), ..Statm::default() });
        let process = stat('S', [1, 1, 1, 1, 5, 10]);
        gather(&mut memory, 0, &process, &mut source);
        drop(memory.begin(0, 1));
        gather(&mut memory, 2, &process, &mut source);
        assert_eq!(source.asked, 2);
    }

    #[test]
    fn without_statm_it_is_what_stat_says_and_the_dead_have_none() {
        let numbers = [0, 0, 0, 1, 5, 10];
        let cases = [
            ("no statm", stat('S', numbers), Statm::default(), 10),
            ("a zombie", stat('Z', numbers), Statm { pages: Some(3), ..Statm::default() }, 0),
            (
                "a leader that has exited before its threads",
                stat('Z', [0, 0, 0, 2, 5, 0]),
                Statm { pages: Some(0), of_a_thread: Some(8), asked: 0 },
                8,
            ),
        ];
        for (what, stat, mut source, expected) in cases {
            assert_eq!(gather(&mut ResidentMemory::default(), 0, &stat, &mut source), expected, "{what}");
        }
    }
}
