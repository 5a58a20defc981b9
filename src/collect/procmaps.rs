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
