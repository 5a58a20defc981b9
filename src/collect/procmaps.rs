//! `procmaps`: proportional set size (PSS), from `/proc/<pid>/smaps_rollup`.
//!
//! The kernel adds it up page by page, 13 ms for a GiB, and holds the process's mmap lock meanwhile. A thread measures
//! at `procmaps_interval`; a gather writes the last result and never waits.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Bounds, Look, Samples};
use crate::encode::{Tags, Value, kibibytes, known};
use crate::kernel::capability::Capability;
use crate::kernel::procfs::Proc;
use crate::kernel::stat::Identity;
use crate::log::{Complaint, Complaints, Trouble};

/// Processes of each series.
type Series = BTreeMap<Tags, Vec<Identity>>;

/// PSS of each process, bytes (0 once it was reaped), or the reason why it could not be measured.
type Sizes = BTreeMap<Identity, Result<u64, Complaint>>;

/// Time after which a measuring without an answer counts as stuck, ns.
const LONG: u64 = 60_000_000_000;

/// Time that `--check` waits for a measuring.
const PATIENCE: Duration = Duration::from_secs(30);

/// Result of one measuring of a series.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measured {
    /// CLOCK_MONOTONIC when the measuring was asked for, ns.
    at: u64,
    /// PSS of each process that the series had then, bytes, if known. Sorted by pid.
    sizes: Vec<(Identity, Option<u64>)>,
    /// Complaints about processes that could not be measured.
    #[serde(skip)]
    troubles: BTreeSet<Complaint>,
}

/// Measuring that the thread has not answered yet.
#[derive(Debug)]
struct Pending {
    at: u64,
    series: Series,
    /// Complaints about processes that are left out, being too large.
    too_large: BTreeMap<Identity, Complaint>,
}

/// Last result of each series, and the thread that measures.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Procmaps {
    #[serde(skip)]
    meter: Option<Meter>,
    #[serde(skip)]
    pending: Option<Pending>,
    /// Sorted by tags.
    measured: Vec<(Tags, Measured)>,
    /// CLOCK_MONOTONIC (ns) of the first question that has no answer yet, which another run may have asked.
    unanswered: Option<u64>,
    /// Pid at which the thread is stuck. The last results mean nothing then.
    #[serde(skip)]
    stuck: Option<u32>,
}

impl Procmaps {
    /// Takes the thread's answer, if there is one, and asks for the series that are due. `at` is CLOCK_MONOTONIC, ns.
    pub(super) fn sample(&mut self, series: &Series, samples: &Samples, bounds: Bounds, at: u64, look: &mut Look) {
        if self.meter.as_ref().is_some_and(|meter| meter.root != look.proc.root()) {
            *self = Self::default(); // the results are of another /proc
        }
        self.measured.retain(|(tags, _)| series.contains_key(tags));
        self.unanswered = self.unanswered.filter(|_| !series.is_empty());
        let period = u64::try_from(bounds.procmaps_interval.as_nanos()).unwrap_or(u64::MAX);
        self.take_in();
        if self.pending.is_none() {
            let due = series.iter().filter(|(tags, _)| self.is_due(tags, at, period));
            let due: Series = due.map(|(tags, ids)| (tags.clone(), ids.clone())).collect();
            if !due.is_empty() {
                self.ask(due, samples, bounds, at, look);
            }
        }
        let is_stuck = |asked: u64| at.saturating_sub(asked) > period.saturating_mul(2).max(LONG);
        self.stuck = match self.unanswered {
            Some(asked) if is_stuck(asked) => self.stuck.or(Some(self.is_at())),
            _ => None,
        };
        self.complain(look.complaints);
    }

    /// Returns the pid that is being measured.
    fn is_at(&self) -> u32 {
        self.meter.as_ref().map_or(0, |meter| meter.at.load(Ordering::Relaxed))
    }

    /// Returns whether a measuring is going on.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Waits for the answer, at most [`PATIENCE`].
    pub(super) fn wait(&mut self) {
        if let (Some(meter), Some(pending)) = (&self.meter, self.pending.take()) {
            match meter.sizes.recv_timeout(PATIENCE) {
                Ok(sizes) => self.finish(pending, &sizes),
                Err(_) => (self.pending, self.stuck) = (Some(pending), Some(self.is_at())),
            }
        }
    }

    /// Complains about processes that could not be measured, and about a thread that is stuck.
    pub(super) fn complain(&self, complaints: &mut Complaints) {
        for complaint in self.measured.iter().flat_map(|(_, measured)| &measured.troubles) {
            complaints.complain(complaint.clone());
        }
        if let Some(pid) = self.stuck {
            let message =
                format!("procmaps is left out until process {pid} lets its memory be looked at (is it in state D?)");
            complaints.add(Trouble::Failed, message);
        }
    }

    fn of(&self, tags: &Tags) -> Option<&Measured> {
        let index = self.measured.binary_search_by(|(known, _)| known.cmp(tags)).ok()?;
        self.measured.get(index).map(|(_, measured)| measured)
    }

    fn is_due(&self, tags: &Tags, at: u64, period: u64) -> bool {
        self.of(tags).is_none_or(|measured| at >= measured.at.saturating_add(period))
    }

    fn take_in(&mut self) {
        let Some(meter) = &self.meter else { return };
        match meter.sizes.try_recv() {
            Ok(sizes) => {
                if let Some(pending) = self.pending.take() {
                    self.finish(pending, &sizes);
                }
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => (self.meter, self.pending) = (None, None),
        }
    }

    fn ask(&mut self, series: Series, samples: &Samples, bounds: Bounds, at: u64, look: &mut Look) {
        let root = look.proc.root();
        if self.meter.is_none() {
            self.meter = match Meter::start(root) {
                Ok(meter) => Some(meter),
                Err(error) => {
                    let message = format!("procmaps is left out: its thread cannot be started: {error}");
                    look.complaints.add(Trouble::Failed, message);
                    return;
                }
            };
        }
        let ids: BTreeSet<_> = series.values().flatten().copied().collect();
        let too_large = ids.iter().filter_map(|id| Some((*id, too_large(*id, samples, bounds, look)?)));
        let too_large: BTreeMap<_, _> = too_large.collect();
        let ids = ids.into_iter().filter(|id| !too_large.contains_key(id)).collect();
        if self.meter.as_ref().is_some_and(|meter| meter.asked.send(ids).is_ok()) {
            self.pending = Some(Pending { at, series, too_large });
            self.unanswered.get_or_insert(at);
        }
    }

    fn finish(&mut self, pending: Pending, sizes: &Sizes) {
        self.unanswered = None;
        for (tags, ids) in pending.series {
            let mut measured = Measured { at: pending.at, sizes: Vec::new(), troubles: BTreeSet::new() };
            for id in ids {
                let size = match (sizes.get(&id), pending.too_large.get(&id)) {
                    (Some(Ok(size)), _) => Some(*size),
                    (Some(Err(complaint)), _) | (None, Some(complaint)) => {
                        measured.troubles.insert(complaint.clone());
                        None
                    }
                    (None, None) => None,
                };
                measured.sizes.push((id, size));
            }
            match self.measured.binary_search_by(|(known, _)| known.cmp(&tags)) {
                Ok(index) => drop(self.measured.get_mut(index).map(|(_, last)| std::mem::replace(last, measured))),
                Err(index) => self.measured.insert(index, (tags, measured)),
            }
        }
    }

    /// Returns the PSS of a series, bytes: the sum over the processes it had when it was last measured, but no more
    /// than is resident now, of each and of all together. `None` if one of them could not be measured, or if none of
    /// the present members was measured.
    #[must_use]
    pub fn of_tree(
        &self,
        tags: &Tags,
        mut members: impl ExactSizeIterator<Item = Identity>,
        samples: &Samples,
        rss: Option<u64>,
    ) -> Option<u64> {
        if members.len() == 0 {
            return Some(0);
        }
        let sizes = &self.of(tags).filter(|_| self.stuck.is_none())?.sizes;
        if !members.any(|id| sizes.binary_search_by_key(&id, |(known, _)| *known).is_ok()) {
            return None;
        }
        let of = |id, size: Option<u64>| Some(at_most(size?, samples.rss(id)));
        let sum = sizes.iter().try_fold(0, |sum: u64, (id, size)| Some(sum.saturating_add(of(*id, *size)?)));
        sum.map(|sum| at_most(sum, rss))
    }

    /// Returns the PSS of a process of a series, bytes: as last measured, but no more than is resident now.
    #[must_use]
    pub fn of_process(&self, tags: &Tags, id: Identity, rss: Option<u64>) -> Option<u64> {
        let sizes = &self.of(tags).filter(|_| self.stuck.is_none())?.sizes;
        let index = sizes.binary_search_by_key(&id, |(known, _)| *known).ok()?;
        sizes.get(index)?.1.map(|size| at_most(size, rss))
    }
}

/// Returns a size that was measured earlier, but at most the present one, if that is known.
fn at_most(size: u64, now: Option<u64>) -> u64 {
    now.map_or(size, |now| size.min(now))
}

/// Returns the complaint about a process that is too large to be measured, or whose size could not be read.
fn too_large(id: Identity, samples: &Samples, bounds: Bounds, look: &Look) -> Option<Complaint> {
    let rss = samples.rss(id);
    if rss.is_some_and(|rss| rss <= bounds.procmaps_max_rss) {
        return None;
    }
    let stat = look.processes.get_exactly(id)?;
    let max = in_whole_units(bounds.procmaps_max_rss);
    let what = format!("procmaps leaves out {}, whose RSS is above procmaps_max_rss = {max}", stat.comm.to_text());
    Some(Complaint { trouble: Trouble::Bounded, what, with: Some(stat.called()), why: "raise it".to_owned() })
}

/// Formats bytes in the largest unit that gives a whole number, as a configuration has them. (bytesize takes a
/// logarithm, and with it 0.3 MB of libm would become resident.)
fn in_whole_units(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")];
    let (shift, unit) = units.into_iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift).unwrap_or((0, "B"));
    format!("{} {unit}", bytes >> shift)
}

/// Returns the field `pss`, KiB, from bytes.
#[must_use]
pub fn fields(pss: Option<u64>) -> Vec<(&'static str, Value)> {
    known([("pss", pss.map(kibibytes))])
}

/// Returns the complaint about a process that could not be measured.
fn unmeasured(id: Identity, proc: &mut Proc, error: &io::Error) -> Complaint {
    let stat = proc.stat_of(id).ok().flatten();
    let with = Some(stat.map_or_else(|| format!("process {}", id.pid), |stat| stat.called()));
    let what = "procmaps leaves out processes";
    match Trouble::of(error) {
        trouble @ Trouble::Denied => {
            let (what, why) = (format!("{what} of other users or groups"), Capability::SysPtrace.is_needed());
            Complaint { trouble, what, with, why }
        }
        trouble => Complaint { trouble, what: what.to_owned(), with, why: error.to_string() },
    }
}

/// Complains about a capability whose lack will matter once there is a process to measure.
pub(super) fn foresee(complaints: &mut Complaints) {
    if !Capability::SysPtrace.is_held() {
        let remedy = Capability::SysPtrace.is_needed();
        let message = format!("Processes of other users or groups will be left out: {remedy}");
        complaints.add(Trouble::Absent, message);
    }
}

/// Thread that measures.
#[derive(Debug)]
struct Meter {
    root: PathBuf,
    asked: Sender<Vec<Identity>>,
    sizes: Receiver<Sizes>,
    /// Pid that is being measured.
    at: Arc<AtomicU32>,
}

impl Meter {
    fn start(proc_root: &Path) -> io::Result<Self> {
        let mut proc = Proc::open(proc_root)?;
        let ((asked, questions), (answers, sizes)) = (channel::<Vec<Identity>>(), channel());
        let at = Arc::<AtomicU32>::default();
        let now_at = Arc::clone(&at);
        thread::Builder::new().name("procmaps".to_owned()).spawn(move || {
            while let Ok(ids) = questions.recv() {
                let size = |id: Identity| {
                    now_at.store(id.pid, Ordering::Relaxed);
                    let size = proc.pss(id).map(|size| size.unwrap_or(0));
                    (id, size.map_err(|error| unmeasured(id, &mut proc, &error)))
                };
                if answers.send(ids.into_iter().map(size).collect()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { root: proc_root.to_owned(), asked, sizes, at })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::collect::Sample;
    use crate::kernel::clock::{Clock, SystemClock};
    use crate::kernel::taskstats::AskNobody;
    use crate::processes::{Processes, Reader};
    use std::fs;

    const SECOND: u64 = 1_000_000_000;

    /// A made-up /proc, of which procmaps is asked for one series.
    struct World {
        root: tempfile::TempDir,
        proc: Proc,
        processes: Processes,
        procmaps: Procmaps,
        bounds: Bounds,
        complaints: Vec<String>,
        tags: Tags,
        samples: Samples,
    }

    impl World {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let proc = Proc::open(root.path()).unwrap();
            let bounds =
                Bounds { procmaps_max_rss: 100 << 20, procmaps_interval: Duration::from_secs(60), ..Bounds::default() };
            let (processes, procmaps, complaints, tags, samples) = Default::default();
            Self { root, proc, processes, procmaps, bounds, complaints, tags, samples }
        }

        /// Puts a process there; sizes in KiB.
        fn put(&self, pid: u32, rss: u64, pss: u64) -> Identity {
            let text = format!("{pid} (x) S 1 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 1 0 5 0 {}\n", rss / 4);
            fs::create_dir_all(self.root.path().join(pid.to_string())).unwrap();
            fs::write(self.root.path().join(format!("{pid}/stat")), text).unwrap();
            let smaps = format!("0-1 ---p 0 00:00 0 [rollup]\nRss: {rss} kB\nPss: {pss:>10} kB\nPss_Dirty: 1 kB\n");
            fs::write(self.root.path().join(format!("{pid}/smaps_rollup")), smaps).unwrap();
            Identity { pid, start: 5 }
        }

        /// A gather at a second, which waits for no measurement.
        fn ask(&mut self, second: u64, ids: &[Identity]) {
            let mut source = Reader::new(Proc::open(self.root.path()).unwrap(), 0);
            self.processes.scan(&mut source, SystemClock.boottime()).unwrap();
            let series = BTreeMap::from([(self.tags.clone(), ids.to_vec())]);
            let mut complaints = Complaints::default();
            let (taskstats, complaints) = (&mut AskNobody(String::new()), &mut complaints);
            let (processes, proc, source) = (&self.processes, &mut self.proc, &mut source);
            let mut look = Look { processes, proc, source, taskstats, complaints };
            let rss = |id: &Identity| self.processes.get_exactly(*id).map(|stat| stat.rss * 4096);
            let (cpu, user, system) = Default::default();
            let sample = |id: &Identity| Sample {
                id: *id,
                cpu,
                user,
                system,
                complete: true,
                rss: rss(id),
                zombie: false,
                threads: None,
            };
            self.samples = Samples { all: ids.iter().map(sample).collect(), ..Samples::default() };
            self.procmaps.sample(&series, &self.samples, self.bounds, second * SECOND, &mut look);
            self.complaints = complaints.iter().map(|(_, complaint)| complaint).collect();
        }

        /// A gather at a second, whose measurements are all there; what is then known of the series, in KiB.
        fn gather(&mut self, second: u64, ids: &[Identity]) -> Option<u64> {
            self.ask(second, ids);
            self.procmaps.wait();
            let mut complaints = Complaints::default();
            self.procmaps.complain(&mut complaints);
            self.complaints = complaints.iter().map(|(_, complaint)| complaint).collect();
            self.of_tree(ids).map(|bytes| bytes / 1024)
        }

        fn of_tree(&self, ids: &[Identity]) -> Option<u64> {
            let rss = ids.iter().map(|id| self.samples.rss(*id)).sum();
            self.procmaps.of_tree(&self.tags, ids.iter().copied(), &self.samples, rss)
        }
    }

    #[test]
    fn the_size_of_a_tree_is_measured_once_in_a_period() {
        let mut world = World::new();
        let [a, b] = [world.put(10, 400, 300), world.put(11, 800, 100)];
        assert_eq!(world.gather(0, &[a, b]), Some(400));
        world.put(10, 400, 350);
        assert_eq!(world.gather(59, &[a, b]), Some(400));
        assert_eq!(world.gather(60, &[a, b]), Some(450));
        assert_eq!(world.gather(61, &[b]), Some(450), "as it was when it was measured");
        assert_eq!(world.gather(62, &[]), Some(0));
    }

    #[test]
    fn what_was_measured_counts_at_most_as_what_is_resident_now() {
        let mut world = World::new();
        let [a, b] = [world.put(10, 400, 300), world.put(11, 400, 100)];
        assert_eq!(world.gather(0, &[a, b]), Some(400));
        world.put(10, 40, 30);
        assert_eq!(world.gather(1, &[a, b]), Some(140), "each by itself");
        assert_eq!(world.gather(2, &[b]), Some(400), "of one that has exited it stands");
        world.put(11, 200, 100);
        assert_eq!(world.gather(3, &[b]), Some(200), "within what the tree has");
        let of_process = |id, rss| world.procmaps.of_process(&world.tags, id, rss);
        assert_eq!(
            [of_process(a, Some(1)), of_process(a, Some(1 << 20)), of_process(a, None)],
            [Some(1), Some(300 << 10), Some(300 << 10)]
        );
    }

    #[test]
    fn nothing_is_said_of_processes_that_were_never_measured() {
        let mut world = World::new();
        let old = world.put(10, 400, 300);
        assert_eq!(world.gather(0, &[old]), Some(300));
        let new = world.put(11, 400, 200);
        assert_eq!(world.gather(10, &[new]), None, "not the size of those that are gone");
        assert_eq!(world.gather(60, &[new]), Some(200));
    }

    #[test]
    fn what_was_measured_last_means_nothing_if_no_answer_comes_for_long() {
        let mut world = World::new();
        let id = world.put(10, 400, 300);
        assert_eq!(world.gather(0, &[id]), Some(300));
        world.procmaps.unanswered = Some(60 * SECOND); // by another run, which has ended before the answer
        world.ask(200, &[id]);
        assert_eq!(world.of_tree(&[id]), None);
        assert_eq!(world.complaints.len(), 1, "{:?}", world.complaints);
        world.procmaps.wait();
        assert_eq!(world.gather(201, &[id]), Some(300));
        assert!(world.complaints.is_empty(), "{:?}", world.complaints);
    }

    #[test]
    fn what_is_too_large_or_cannot_be_read_makes_the_sum_unknown_and_is_named() {
        let mut world = World::new();
        let [small, large] = [world.put(10, 400, 300), world.put(11, 101 << 10, 5)];
        assert_eq!(world.gather(0, &[small, large]), None);
        let [complaint] = world.complaints.as_slice() else { unreachable!("{:?}", world.complaints) };
        let parts = ["leaves out x,", "procmaps_max_rss = 100 MiB, namely process 11 (x): raise it"];
        assert!(parts.iter().all(|part| complaint.contains(part)), "{complaint}");
        let by_itself = world.procmaps.of_process(&world.tags, small, world.samples.rss(small));
        assert_eq!(by_itself, Some(300 << 10), "by itself it is known");
        fs::write(world.root.path().join("10/smaps_rollup"), "Rss: 1 kB\n").unwrap();
        assert_eq!(world.gather(60, &[small]), None);
        let says = |complaint: &String| complaint.contains("no Pss") && complaint.contains("process 10 (x)");
        assert!(world.complaints.iter().any(says), "{:?}", world.complaints);
    }
}
