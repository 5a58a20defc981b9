//! A series: what is remembered of one tag set from gather to gather.

use serde::{Deserialize, Serialize};

use crate::account::{CgroupMeter, Rate};
use crate::kernel::stat::Identity;
use crate::output::Output;
use crate::processes::{Presence, Processes};
use crate::select::{Member, Root};

/// A series' members, counters and gauges.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// How it is written.
    pub output: Output,
    members: Vec<Member>,
    top: Vec<Root>,
    /// Roots that went away and have not been replaced.
    vacancies: u64,
    cgroups: CgroupMeter,
    rate: Rate,
    /// CPU used, ns.
    pub cpu_time: u64,
    /// Processes born in it.
    pub started: u64,
    /// Processes that are gone.
    pub exited: u64,
    /// Roots replaced.
    pub restarts: u64,
    /// Processes that are alive.
    pub live: u64,
    /// Processes that are dead and not reaped.
    pub zombies: u64,
    /// Their resident memory, bytes.
    pub rss: u64,
    /// CLOCK_MONOTONIC (ns) when the counters were read.
    at: u64,
    /// Whether nothing can be said of it now: a process of it is hidden.
    pub hidden: bool,
    /// Whether what it was found by is no longer there: it is written once more, then forgotten.
    pub over: bool,
    /// Whether it was ever written.
    written: bool,
}

/// What one gather found of a series.
#[derive(Debug)]
pub struct Reading<'a> {
    /// The members now, sorted by pid.
    pub members: Vec<Member>,
    /// Those that are roots below no other member.
    pub top: Vec<Root>,
    /// The process table.
    pub processes: &'a Processes,
    /// What each member was charged and its memory.
    pub samples: &'a Samples,
    /// Inode and usage (ns) of the cgroups that carry the series' CPU, if any do.
    pub usages: Option<Vec<(u64, u64)>>,
    /// The pids whose CPU these cgroups carry, sorted.
    pub in_cgroups: &'a [u32],
    /// CLOCK_MONOTONIC (ns) when the counters were read.
    pub at: u64,
    /// CLOCK_MONOTONIC (ns) of the last gather, unless this is the first look at what is selected: then nothing that exists
    /// counts as new.
    pub previous: Option<u64>,
}

impl<'a> Reading<'a> {
    /// The reading of a series of which nothing is left.
    #[must_use]
    pub fn nothing(processes: &'a Processes, samples: &'a Samples, at: u64, previous: Option<u64>) -> Self {
        let (members, top) = Default::default();
        Self { members, top, processes, samples, usages: None, in_cgroups: &[], at, previous }
    }
}

/// What was read of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Which process.
    pub id: Identity,
    /// CPU charged since the last gather, ns.
    pub charge: u64,
    /// Whether that is all it used since then: not so of an old process at its first sight.
    pub complete: bool,
    /// Resident memory, bytes.
    pub rss: u64,
}

/// The samples of all members of all series.
#[derive(Debug, Default)]
pub struct Samples {
    /// Sorted by pid.
    all: Vec<Sample>,
}

impl Samples {
    /// Takes samples that are sorted by pid.
    #[must_use]
    pub fn sorted(all: Vec<Sample>) -> Self {
        Self { all }
    }

    fn get(&self, id: Identity) -> Option<&Sample> {
        let index = self.all.binary_search_by_key(&id, |sample| sample.id).ok()?;
        self.all.get(index)
    }
}

impl Series {
    /// A series not seen before.
    #[must_use]
    pub fn new(output: Output) -> Self {
        Self {
            output,
            members: Vec::new(),
            top: Vec::new(),
            vacancies: 0,
            cgroups: CgroupMeter::default(),
            rate: Rate::default(),
            cpu_time: 0,
            started: 0,
            exited: 0,
            restarts: 0,
            live: 0,
            zombies: 0,
            rss: 0,
            at: 0,
            hidden: false,
            over: false,
            written: false,
        }
    }

    /// Whether there is anything to write: not of what is hidden, and no last word of what was never heard of.
    #[must_use]
    pub fn is_worth_a_line(&self) -> bool {
        let unheard = !self.written && self.exited == 0 && self.cpu_time == 0;
        !(self.hidden || self.over && unheard)
    }

    /// The members as of the last gather, sorted by pid.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Takes in what a gather found. `is_new`: this series did not exist before.
    pub fn account(&mut self, reading: Reading, is_new: bool) {
        if let (true, Some(previous)) = (is_new && self.misses_nothing(&reading), reading.previous) {
            self.rate = Rate::since(previous);
        }
        let credits = reading.members.iter().filter_map(|member| self.credit(member, &reading));
        self.cpu_time = credits.fold(self.cpu_time, |sum, sample| sum.saturating_add(sample.charge));
        let (started, exited) = (self.births(&reading), self.deaths(&reading));
        self.started = self.started.saturating_add(started);
        self.exited = self.exited.saturating_add(exited);
        self.count_restarts(&reading);
        self.gauge(&reading);
        if let Some(usages) = reading.usages {
            self.cpu_time += self.cgroups.settle(usages, reading.previous.is_none());
        }
        (self.members, self.top, self.at) = (reading.members, reading.top, reading.at);
        self.rate.begin(self.cpu_time, self.at);
    }

    /// Cores used since it was last written; it is being written now.
    pub fn p_cpu(&mut self) -> Option<f64> {
        self.written = true;
        self.rate.next(self.cpu_time, self.at)
    }

    /// The sample of a member whose CPU counts: one that no cgroup carries, and that was a member before, or was born since,
    /// or belongs here by itself, wherever it was before.
    fn credit<'a>(&self, member: &Member, reading: &Reading<'a>) -> Option<&'a Sample> {
        let by_cgroup = reading.usages.is_some() && reading.in_cgroups.binary_search(&member.id.pid).is_ok();
        let counts = member.root.is_none() || self.has(member.id) || reading.processes.is_newborn(member.id);
        if by_cgroup || !counts { None } else { reading.samples.get(member.id) }
    }

    /// Whether all that a new series used since the last gather is counted, so that a rate can be told.
    fn misses_nothing(&self, reading: &Reading) -> bool {
        let by_cgroup =
            |member: &Member| reading.usages.is_some() && reading.in_cgroups.binary_search(&member.id.pid).is_ok();
        let complete = |member: &Member| self.credit(member, reading).is_some_and(|sample| sample.complete);
        reading.members.iter().all(|member| by_cgroup(member) || complete(member))
    }

    fn births(&self, reading: &Reading) -> u64 {
        let is_newborn = |id| reading.processes.is_newborn(id) && !self.has(id);
        count(&reading.members, |member| is_newborn(member.id))
    }

    fn deaths(&self, reading: &Reading) -> u64 {
        count(&self.members, |member| reading.processes.presence(member.id) != Presence::Here)
    }

    /// A root that went away leaves a place; a root that was no member before takes one.
    fn count_restarts(&mut self, reading: &Reading) {
        let is_member = |id: &Root| reading.members.binary_search_by_key(id, |member| member.id).is_ok();
        let lost = count(&self.top, |root| !is_member(root));
        let gained = count(&reading.top, |root| !self.has(*root));
        self.vacancies = self.vacancies.saturating_add(lost);
        let replaced = self.vacancies.min(gained);
        self.vacancies -= replaced;
        self.restarts = self.restarts.saturating_add(replaced);
    }

    fn gauge(&mut self, reading: &Reading) {
        let stats = || reading.members.iter().filter_map(|member| reading.processes.get_exactly(member.id));
        self.zombies = stats().map(|stat| u64::from(stat.is_zombie())).sum();
        self.live = stats().map(|stat| u64::from(!stat.is_zombie())).sum();
        let samples = reading.members.iter().filter_map(|member| reading.samples.get(member.id));
        self.rss = samples.fold(0, |sum: u64, sample| sum.saturating_add(sample.rss));
    }

    fn has(&self, id: Identity) -> bool {
        self.members.binary_search_by_key(&id, |member| member.id).is_ok()
    }
}

fn count<T>(of: &[T], is: impl Fn(&T) -> bool) -> u64 {
    of.iter().map(|one| u64::from(is(one))).sum()
}
