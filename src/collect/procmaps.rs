//! `procmaps`: proportional set size, which the kernel adds up page by page.
//!
//! That takes 13 ms for a GiB, and holds the process's mmap lock meanwhile. So a thread of its own does it, at a period of its
//! own; a gather writes what was last measured and waits for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use super::{Bounds, Look};
use crate::encode::{Tags, Value};
use crate::kernel::capability::Capability;
use crate::kernel::procfs::Proc;
use crate::kernel::stat::Identity;
use crate::log::{Complaints, Trouble};

/// PSS of each process, bytes; a process that is gone has none.
type Sizes = BTreeMap<Identity, io::Result<u64>>;

/// What was measured of a series.
#[derive(Debug)]
struct Measured {
    /// CLOCK_MONOTONIC (ns) when it was asked for.
    at: u64,
    /// PSS of each process that it had then, bytes, if it is known.
    sizes: BTreeMap<Identity, Option<u64>>,
    /// What is wrong with that.
    troubles: BTreeSet<(Trouble, String)>,
}

/// What is being measured.
#[derive(Debug)]
struct Pending {
    at: u64,
    series: BTreeMap<Tags, Vec<Identity>>,
    /// What to say of those that are left out, since they are too large.
    too_large: BTreeMap<Identity, String>,
}

/// Asks for measurements, and holds the last of each series.
#[derive(Debug, Default)]
pub struct Procmaps {
    bounds: Bounds,
    meter: Option<Meter>,
    pending: Option<Pending>,
    measured: BTreeMap<Tags, Measured>,
}

impl Procmaps {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// One gather: takes in what was measured, and asks for what is due. `series` has the processes of each series of which it
    /// is wanted; `at` is CLOCK_MONOTONIC, ns.
    pub(super) fn sample(&mut self, series: &BTreeMap<Tags, Vec<Identity>>, at: u64, look: &mut Look) {
        self.measured.retain(|tags, _| series.contains_key(tags));
        self.take_in();
        if self.pending.is_none()
            && let Err(error) = self.ask(series, at, look)
        {
            let message = format!("procmaps is left out: its thread cannot be started: {error}");
            look.complaints.add(Trouble::Failed, message);
        }
        self.complain(look.complaints);
    }

    /// Says what is wrong with what was measured.
    pub(super) fn complain(&self, complaints: &mut Complaints) {
        for (trouble, message) in self.measured.values().flat_map(|measured| &measured.troubles) {
            complaints.add(*trouble, message.clone());
        }
    }

    /// Waits until what was asked for is measured.
    pub(super) fn wait(&mut self) {
        if let (Some(meter), Some(pending)) = (&self.meter, self.pending.take()) {
            let sizes = meter.sizes.recv().unwrap_or_default();
            self.finish(pending, &sizes);
        }
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

    fn ask(&mut self, series: &BTreeMap<Tags, Vec<Identity>>, at: u64, look: &Look) -> io::Result<()> {
        let period = u64::try_from(self.bounds.procmaps_interval.as_nanos()).unwrap_or(u64::MAX);
        let is_due = |measured: &Measured| at >= measured.at.saturating_add(period);
        let due = series.iter().filter(|(tags, _)| self.measured.get(*tags).is_none_or(is_due));
        let series: BTreeMap<_, _> = due.map(|(tags, ids)| (tags.clone(), ids.clone())).collect();
        if series.is_empty() {
            return Ok(());
        }
        let ids: BTreeSet<_> = series.values().flatten().copied().collect();
        let too_large: BTreeMap<_, _> = ids.iter().filter_map(|id| Some((*id, self.too_large(*id, look)?))).collect();
        let ids = ids.into_iter().filter(|id| !too_large.contains_key(id)).collect();
        let meter = match &mut self.meter {
            Some(meter) => meter,
            none => none.insert(Meter::start(look.proc.root())?),
        };
        if meter.asked.send(ids).is_ok() {
            self.pending = Some(Pending { at, series, too_large });
        }
        Ok(())
    }

    /// What to say of a process that is too large to be measured.
    fn too_large(&self, id: Identity, look: &Look) -> Option<String> {
        let stat = look.processes.get_exactly(id)?;
        let rss = stat.rss.saturating_mul(rustix::param::page_size() as u64);
        (rss > self.bounds.procmaps_max_rss).then(|| {
            let bound = bytesize::ByteSize(self.bounds.procmaps_max_rss);
            let called = format!("process {} ({})", id.pid, stat.comm.to_text());
            format!("procmaps leaves out {called}, whose RSS is above procmaps_max_rss = {bound}: raise it")
        })
    }

    fn finish(&mut self, pending: Pending, sizes: &Sizes) {
        for (tags, ids) in pending.series {
            let mut measured = Measured { at: pending.at, sizes: BTreeMap::new(), troubles: BTreeSet::new() };
            for id in ids {
                let size = match (sizes.get(&id), pending.too_large.get(&id)) {
                    (Some(Ok(size)), _) => Some(*size),
                    (Some(Err(error)), _) => {
                        measured.troubles.insert(trouble(error));
                        None
                    }
                    (None, why) => {
                        measured.troubles.extend(why.map(|why| (Trouble::Bounded, why.clone())));
                        None
                    }
                };
                measured.sizes.insert(id, size);
            }
            self.measured.insert(tags, measured);
        }
    }

    /// PSS of a series, bytes: that of the processes it had when it was last measured. Unknown if one of them could not be
    /// measured, or if none of them is left but others came.
    #[must_use]
    pub fn of_tree(&self, tags: &Tags, mut members: impl ExactSizeIterator<Item = Identity>) -> Option<u64> {
        if members.len() == 0 {
            return Some(0);
        }
        let sizes = &self.measured.get(tags)?.sizes;
        if !members.any(|id| sizes.contains_key(&id)) {
            return None;
        }
        sizes.values().try_fold(0, |sum: u64, size| Some(sum.saturating_add((*size)?)))
    }

    /// PSS of a process of a series, bytes.
    #[must_use]
    pub fn of_process(&self, tags: &Tags, id: Identity) -> Option<u64> {
        *self.measured.get(tags)?.sizes.get(&id)?
    }
}

/// The field, from bytes.
#[must_use]
pub fn fields(pss: Option<u64>) -> Vec<(&'static str, Value)> {
    pss.map(|pss| ("pss", Value::Integer(pss / 1024))).into_iter().collect()
}

fn trouble(error: &io::Error) -> (Trouble, String) {
    let what = "procmaps leaves out some processes";
    match Trouble::of(error) {
        Trouble::Denied => {
            let (capability, remedy) = (Capability::SysPtrace, Capability::SysPtrace.remedy());
            (Trouble::Denied, format!("{what} of other users: it takes {capability}; {remedy}"))
        }
        other => (other, format!("{what}: {error}")),
    }
}

/// Says what will be wrong as soon as there is something to measure.
pub(super) fn foresee(complaints: &mut Complaints) {
    let (capability, remedy) = (Capability::SysPtrace, Capability::SysPtrace.remedy());
    if !capability.is_held() {
        complaints.add(
            Trouble::Absent,
            format!("Processes of other users will be left out: it takes {capability}; {remedy}"),
        );
    }
}

/// The thread that measures.
#[derive(Debug)]
struct Meter {
    asked: Sender<Vec<Identity>>,
    sizes: Receiver<Sizes>,
}

impl Meter {
    fn start(proc_root: &Path) -> io::Result<Self> {
        let mut proc = Proc::open(proc_root)?;
        let ((asked, questions), (answers, sizes)) = (channel::<Vec<Identity>>(), channel());
        thread::Builder::new().name("procmaps".to_owned()).spawn(move || {
            while let Ok(ids) = questions.recv() {
                let size = |id| (id, proc.pss(id).map(|size| size.unwrap_or(0)));
                if answers.send(ids.into_iter().map(size).collect()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { asked, sizes })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kernel::clock::SystemClock;
    use crate::processes::Processes;
    use std::fs;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    /// A made-up /proc, of which procmaps is asked for one series.
    struct World {
        root: tempfile::TempDir,
        proc: Proc,
        processes: Processes,
        procmaps: Procmaps,
        complaints: Vec<String>,
        tags: Tags,
    }

    impl World {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let proc = Proc::open(root.path()).unwrap();
            let bounds =
                Bounds { procmaps_max_rss: 100 << 20, procmaps_interval: Duration::from_secs(60), ..Bounds::default() };
            let procmaps = Procmaps::new(bounds);
            let (processes, complaints, tags) = Default::default();
            Self { root, proc, processes, procmaps, complaints, tags }
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

        /// A gather at a second, whose measurements are all there; what is then known of the series, in KiB.
        fn gather(&mut self, second: u64, ids: &[Identity]) -> Option<u64> {
            self.processes.scan(&mut self.proc, &SystemClock).unwrap();
            let series = BTreeMap::from([(self.tags.clone(), ids.to_vec())]);
            let mut complaints = Complaints::default();
            let mut look = Look { processes: &self.processes, proc: &mut self.proc, complaints: &mut complaints };
            self.procmaps.sample(&series, second * SECOND, &mut look);
            self.procmaps.wait();
            self.procmaps.complain(&mut complaints);
            self.complaints = complaints.iter().map(|(_, complaint)| complaint.to_owned()).collect();
            self.procmaps.of_tree(&self.tags, ids.iter().copied()).map(|bytes| bytes / 1024)
        }
    }

    #[test]
    fn the_size_of_a_tree_is_measured_once_in_a_period() {
        let mut world = World::new();
        let [a, b] = [world.put(10, 400, 300), world.put(11, 400, 100)];
        assert_eq!(world.gather(0, &[a, b]), Some(400));
        world.put(10, 400, 350);
        assert_eq!(world.gather(59, &[a, b]), Some(400));
        assert_eq!(world.gather(60, &[a, b]), Some(450));
        assert_eq!(world.gather(61, &[b]), Some(450), "as it was when it was measured");
        assert_eq!(world.gather(62, &[]), Some(0));
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
    fn what_is_too_large_or_cannot_be_read_makes_the_sum_unknown_and_is_named() {
        let mut world = World::new();
        let [small, large] = [world.put(10, 400, 300), world.put(11, 101 << 10, 5)];
        assert_eq!(world.gather(0, &[small, large]), None);
        let [complaint] = world.complaints.as_slice() else { unreachable!("{:?}", world.complaints) };
        assert!(
            complaint.contains("process 11 (x)") && complaint.contains("procmaps_max_rss = 100.0 MiB"),
            "{complaint}"
        );
        assert_eq!(world.procmaps.of_process(&world.tags, small), Some(300 << 10), "by itself it is known");
        fs::write(world.root.path().join("10/smaps_rollup"), "Rss: 1 kB\n").unwrap();
        assert_eq!(world.gather(60, &[small]), None);
        assert!(world.complaints.iter().any(|complaint| complaint.contains("no Pss")), "{:?}", world.complaints);
    }
}
