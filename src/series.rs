//! A series: the members, counters and gauges of one tag set, kept from gather to gather.
//!
//! Each gather hands it a [`Reading`]; [`Series::account`] is the only place that changes its counters. The invariant: a counter never
//! falls, and what a process used counts while the process is a member and at no other time.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::collect::taskstat::Counts;
use crate::collect::thread::ByNice;
use crate::collect::{Collectors, Samples};
use crate::kernel::cgroup::Usage;
use crate::kernel::stat::{Identity, Stat};
use crate::ledger::{Charge, CpuTime, Rate, Tally};
use crate::output::{Measurement, Output, Scope};
use crate::processes::Unobserved;
use crate::processes::{Presence, Processes};
use crate::select::{Member, Root};

/// A series' members, counters and gauges.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Tags, measurements and fields that are written.
    pub output: Arc<Output>,
    /// Sorted by pid, as of the last gather.
    members: Vec<Member>,
    /// Members that exited by the last gather, and earlier ones that still have descendants which were never read: events name those by
    /// them.
    #[serde(skip)]
    departed: Vec<Member>,
    /// Roots that are below no other member.
    top: Vec<Root>,
    /// Roots that exited and have not been replaced: never more than there were roots at once.
    vacant: Vec<Root>,
    /// Processes that a selector matched, sorted by pid; the other members descend from them.
    selected: Vec<Identity>,
    rate: Rate,
    /// CPU used, ns.
    pub cpu_time: CpuTime,
    /// CPU used in user mode, ns; counted while `procstat` is collected.
    pub utime: CpuTime,
    /// CPU used in system mode, ns; counted while `procstat` is collected.
    pub stime: CpuTime,
    /// Delays, from taskstats.
    pub taskstat: Tally<Counts>,
    /// Scheduling of the threads, by nice value.
    pub thread: Tally<ByNice>,
    /// Number of processes that were born as members.
    pub started: u64,
    /// Number of members that were reaped.
    pub exited: u64,
    /// Number of roots that were replaced by another process.
    pub restarts: u64,
    /// Number of members that have not exited.
    pub live: u64,
    /// Number of members that are zombies.
    pub zombies: u64,
    /// Number of threads of the live members; `None` if it could not be read of one.
    pub threads: Option<u64>,
    /// Resident memory of the live members, bytes; `None` if it could not be read of one.
    pub rss: Option<u64>,
    /// The CPU comes from the cpu.stat of cgroups.
    pub metered: bool,
    /// CLOCK_MONOTONIC (ns) when the counters were read.
    at: u64,
    /// No field can be written now: part of what is selected could not be looked at.
    pub unknown: bool,
    /// No field of its processes can be written now: one of them is hidden.
    pub hidden: bool,
    /// The pidfile, unit or process that it was found by is not there any more: written once more, then forgotten.
    pub over: bool,
    /// A line of it has been written.
    written: bool,
}

/// A series as one gather found it.
#[derive(Debug)]
pub struct Reading<'a> {
    /// The members now, sorted by pid.
    pub members: Vec<Member>,
    /// Processes that were found to be members and were reaped before they could be read, sorted by pid.
    pub vanished: Vec<Member>,
    /// Roots that are below no other member.
    pub top: Vec<Root>,
    /// Processes that a selector matched, sorted by pid.
    pub selected: Vec<Identity>,
    /// The process table.
    pub processes: &'a Processes,
    /// CPU charged to each member, and its memory.
    pub samples: &'a Samples,
    /// Everything else that was read of each member.
    pub collectors: &'a Collectors,
    /// The cgroups whose cpu.stat is the CPU of the series, if any.
    pub cgroups: Option<CgroupReading>,
    /// The members without a root are those of cgroups.
    pub of_cgroups: bool,
    /// CLOCK_MONOTONIC (ns) when the counters were read.
    pub at: u64,
    /// CLOCK_MONOTONIC (ns) of the last gather. `None` at the base: no process that exists then counts as new.
    pub previous: Option<u64>,
}

/// The cpu.stat of a series' cgroups at one gather.
#[derive(Debug, Default)]
pub struct CgroupReading {
    /// Inode and CPU of each cgroup.
    pub usages: Vec<(u64, Usage)>,
    /// Every cgroup could be read.
    pub all: bool,
    /// The pids in these cgroups, sorted.
    pub pids: Vec<u32>,
}

impl<'a> Reading<'a> {
    /// Returns whether the CPU of the process is in the cpu.stat of one of the cgroups.
    fn in_cgroup(&self, pid: u32) -> bool {
        self.cgroups.as_ref().is_some_and(|cgroups| cgroups.pids.binary_search(&pid).is_ok())
    }

    /// A reading without members: the series has ended.
    #[must_use]
    pub fn nothing(
        processes: &'a Processes,
        samples: &'a Samples,
        collectors: &'a Collectors,
        at: u64,
        previous: Option<u64>,
    ) -> Self {
        let (members, vanished, top, selected) = Default::default();
        let (cgroups, of_cgroups) = (None, false);
        Self { members, vanished, top, selected, processes, samples, collectors, cgroups, of_cgroups, at, previous }
    }
}

impl Series {
    /// A series without members, whose counters are 0.
    #[must_use]
    pub fn new(output: Arc<Output>) -> Self {
        Self {
            output,
            members: Vec::new(),
            departed: Vec::new(),
            top: Vec::new(),
            vacant: Vec::new(),
            selected: Vec::new(),
            rate: Rate::default(),
            cpu_time: CpuTime::default(),
            utime: CpuTime::default(),
            stime: CpuTime::default(),
            taskstat: Tally::default(),
            thread: Tally::default(),
            started: 0,
            exited: 0,
            restarts: 0,
            live: 0,
            zombies: 0,
            threads: None,
            rss: None,
            metered: false,
            at: 0,
            unknown: false,
            hidden: false,
            over: false,
            written: false,
        }
    }

    /// Returns whether a line is worth writing: a series that ended before its first line, without having used any CPU, is not.
    #[must_use]
    pub fn is_worth_a_line(&self) -> bool {
        self.written || !self.over || self.exited > 0 || self.cpu_time.total() > 0
    }

    /// The members as of the last gather, sorted by pid.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The members as of the last gather, and the exited ones that events still name. Sorted by pid.
    #[must_use]
    pub fn members_and_departed(&self) -> Cow<'_, [Member]> {
        if self.departed.is_empty() {
            return Cow::Borrowed(&self.members);
        }
        let mut members = [self.members.as_slice(), &self.departed].concat();
        members.sort_unstable_by_key(|member| member.id);
        Cow::Owned(members)
    }

    /// The processes that a selector matched at the last gather, sorted by pid.
    #[must_use]
    pub fn selected(&self) -> &[Identity] {
        &self.selected
    }

    /// Updates members, counters and gauges from one gather. `is_new`: the series did not exist at the one before.
    pub fn account(&mut self, mut reading: Reading, is_new: bool) {
        self.mark_reapers(&mut reading);
        if let (true, Some(previous)) = (is_new && self.misses_nothing(&reading), reading.previous) {
            self.rate = Rate::since(previous);
        }
        let unobserved = self.unobserved(&reading);
        self.credit_all(&reading, &unobserved);
        let mut departed = self.departures(&reading);
        let (started, exited) = (self.births(&reading), departed.len() as u64);
        let is_ancestor = |member: &Member| reading.processes.is_exited_ancestor(member.id);
        departed.extend(self.departed.extract_if(.., |member| is_ancestor(member)));
        departed.sort_unstable_by_key(|member| member.id);
        let unobserved = unobserved.into_iter().map(|unobserved| unobserved.count).fold(0, u64::saturating_add);
        self.started = self.started.saturating_add(started).saturating_add(unobserved);
        self.exited = self.exited.saturating_add(exited).saturating_add(unobserved);
        self.count_restarts(&reading);
        self.gauge(&reading);
        self.metered = reading.cgroups.is_some() || self.was_metered();
        if let Some(CgroupReading { usages, all, .. }) = &reading.cgroups {
            let of = |mode: fn(&Usage) -> u64| usages.iter().map(|(inode, usage)| (*inode, mode(usage))).collect();
            let first = reading.previous.is_none();
            self.cpu_time.meter(of(|usage| usage.cpu), *all, first);
            self.utime.meter(of(|usage| usage.user), *all, first);
            self.stime.meter(of(|usage| usage.system), *all, first);
        }
        (self.members, self.departed) = (reading.members, departed);
        (self.top, self.selected) = (reading.top, reading.selected);
        self.at = reading.at;
        self.rate.begin(self.cpu_time.total(), self.at);
    }

    /// Updates the time of its counters: neither a member nor a counter has changed since the last gather.
    pub fn rest(&mut self, at: u64) {
        self.at = at;
    }

    /// Adds to the counters what members were charged and what they counted.
    fn credit_all(&mut self, reading: &Reading, unobserved: &[&Unobserved]) {
        let gone = self.gone(reading);
        let living = reading.members.iter().filter_map(|member| self.credit(member, reading));
        let gone_too = gone.iter().filter_map(|id| self.credit_gone(*id, reading));
        let credits = living.chain(gone_too).fold([0; 3], |sums, credits| {
            let [cpu, user, system] = credits;
            let [sum_cpu, sum_user, sum_system] = sums;
            [cpu.saturating_add(sum_cpu), user.saturating_add(sum_user), system.saturating_add(sum_system)]
        });
        for (counter, credit) in [&mut self.cpu_time, &mut self.utime, &mut self.stime].into_iter().zip(credits) {
            counter.credit(credit);
        }
        let [taskstat, thread] =
            [Measurement::Taskstat, Measurement::Thread].map(|wanted| self.output.wants(wanted, Scope::Tree));
        if taskstat || thread {
            let members = reading.members.iter();
            let members: Vec<_> = members.map(|member| (member.id, self.counts(member, reading))).collect();
            if taskstat {
                let counters = reading.collectors.taskstat.counters();
                let with_last_words = gone.iter().filter(|id| counters.last(**id).is_some()).map(|id| (*id, true));
                let all: Vec<_> = members.iter().copied().chain(with_last_words).collect();
                self.taskstat.take_in(&all, counters);
                for unobserved in unobserved {
                    self.taskstat.credit(&Counts::of(unobserved));
                }
            }
            if thread {
                self.thread.take_in(&members, reading.collectors.thread.counters());
            }
        }
    }

    /// The reaped members for which there is an exit record, or below which unobserved processes exited. Sorted by pid.
    fn gone(&self, reading: &Reading) -> Vec<Identity> {
        let told = reading.processes.exited().map(|(id, _)| id).chain(reading.processes.unobserved().map(|(id, _)| id));
        let gone: BTreeSet<_> = told.filter(|id| self.has_gone(*id, reading)).collect();
        gone.into_iter().collect()
    }

    /// Returns whether the process was a member and has been reaped.
    fn has_gone(&self, id: Identity, reading: &Reading) -> bool {
        let was_member = [&self.members, &reading.vanished, &self.departed].iter().any(|of| find(of, id).is_some());
        was_member && reading.processes.presence(id) != Presence::Present
    }

    /// The sums of unobserved processes below its members.
    fn unobserved<'a>(&self, reading: &Reading<'a>) -> Vec<&'a Unobserved> {
        let processes = reading.processes;
        let is_of_it = |id| match find(&reading.members, id) {
            Some(member) => self.counts(member, reading),
            None => self.has_gone(id, reading),
        };
        processes.unobserved().filter(|(id, _)| is_of_it(*id)).map(|(_, unobserved)| unobserved).collect()
    }

    /// Returns the number of cores used since the last line, and the time since then (ns). A line is being written now.
    pub fn p_cpu(&mut self) -> Option<(f64, u64)> {
        self.written = true;
        self.rate.next(self.cpu_time.total(), self.at)
    }

    /// Marks the members whose reaped time must not count: those that have, or had, a child whose CPU comes from a cgroup, and those
    /// in a cgroup with a child outside it.
    fn mark_reapers(&self, reading: &mut Reading) {
        if !reading.of_cgroups {
            return;
        }
        let mut members = std::mem::take(&mut reading.members);
        let ids: Vec<_> = members.iter().map(|member| member.id).collect();
        for member in members.iter_mut().filter(|member| !reading.in_cgroup(member.id.pid)) {
            let before = self.member(member.id).is_some_and(|before| before.reaps_elsewhere);
            let mut children = reading.processes.children(member.id.pid);
            let is_elsewhere = |child: &Stat| {
                let outside = member.root.is_none() && ids.binary_search(&child.id).is_err();
                outside || reading.in_cgroup(child.id.pid)
            };
            member.reaps_elsewhere = before || children.any(is_elsewhere);
        }
        reading.members = members;
    }

    /// Returns whether the CPU that a member has used since the last gather counts here: it was a member before, or was born since. After
    /// the base, so does that of a process which was a member of another series, or which is a member without a root.
    fn counts(&self, member: &Member, reading: &Reading) -> bool {
        let is_known = || reading.samples.get(member.id).is_some_and(|sample| sample.complete);
        let is_new_here = || reading.previous.is_some() && (member.root.is_none() || is_known());
        self.has(member.id) || reading.processes.is_newborn(member.id) || is_new_here()
    }

    /// Returns the total, user and system time (ns) that a member adds. `None`: it comes from a cgroup, or does not count here.
    fn credit(&self, member: &Member, reading: &Reading) -> Option<[u64; 3]> {
        let sample = reading.samples.get(member.id)?;
        let elsewhere = (member.root.is_none() && self.was_metered()) || reading.in_cgroup(member.id.pid);
        let charges = [sample.cpu, sample.user, sample.system];
        (!elsewhere && self.counts(member, reading))
            .then(|| charges.map(|charge| if member.reaps_elsewhere { charge.own } else { charge.total() }))
    }

    /// Returns the total, user and system time (ns) that a reaped member adds. `None` where cgroups count: cpu.stat has it.
    fn credit_gone(&self, id: Identity, reading: &Reading) -> Option<[u64; 3]> {
        let sample = reading.samples.get_gone(id).filter(|_| !self.metered && reading.cgroups.is_none())?;
        Some([sample.cpu, sample.user, sample.system].map(Charge::total))
    }

    /// Returns whether cgroups counted its CPU when they could last be read: their counters go on.
    fn was_metered(&self) -> bool {
        self.unknown && self.metered
    }

    /// Returns whether everything that a new series has used since the last gather is counted, so that it has a rate.
    fn misses_nothing(&self, reading: &Reading) -> bool {
        let complete = |id| reading.samples.get(id).is_some_and(|sample| sample.complete);
        let mut members = reading.members.iter();
        members.all(|member| reading.in_cgroup(member.id.pid) || (self.counts(member, reading) && complete(member.id)))
    }

    fn births(&self, reading: &Reading) -> u64 {
        let new = without(&reading.members, &self.members).chain(without(&reading.vanished, &self.members));
        new.map(|member| u64::from(reading.processes.is_newborn(member.id))).sum()
    }

    /// The members that were reaped since the last gather, including those that could not be read once.
    fn departures(&self, reading: &Reading) -> Vec<Member> {
        let known = without(&self.members, &reading.members);
        let known = known.filter(|member| reading.processes.presence(member.id) != Presence::Present);
        let vanished = without(&reading.vanished, &self.members);
        known.chain(vanished).copied().collect()
    }

    /// Counts restarts: a root that exits leaves a vacancy, and a root that was no member before fills one. A root that comes back fills
    /// its own vacancy, which is no restart.
    fn count_restarts(&mut self, reading: &Reading) {
        let is_member = |id: &Root| reading.members.binary_search_by_key(id, |member| member.id).is_ok();
        let gained: Vec<Root> = reading.top.iter().filter(|root| !self.has(**root)).copied().collect();
        self.vacant.extend(self.top.iter().filter(|root| !is_member(root)));
        for root in gained {
            if let Some(own) = self.vacant.iter().position(|vacant| *vacant == root) {
                self.vacant.remove(own);
            } else if self.vacant.pop().is_some() {
                self.restarts = self.restarts.saturating_add(1);
            }
        }
    }

    fn gauge(&mut self, reading: &Reading) {
        (self.zombies, self.live, self.threads, self.rss) = (0, 0, Some(0), Some(0));
        for sample in reading.members.iter().filter_map(|member| reading.samples.get(member.id)) {
            if sample.zombie {
                self.zombies += 1;
            } else {
                self.live += 1;
                self.threads =
                    self.threads.zip(sample.threads).map(|(sum, threads)| sum.saturating_add(threads.into()));
            }
            self.rss = self.rss.zip(sample.rss).map(|(sum, rss)| sum.saturating_add(rss));
        }
    }

    fn member(&self, id: Identity) -> Option<&Member> {
        find(&self.members, id)
    }

    fn has(&self, id: Identity) -> bool {
        self.member(id).is_some()
    }
}

/// Returns the member with this identity, among members sorted by pid.
fn find(members: &[Member], id: Identity) -> Option<&Member> {
    let index = members.binary_search_by_key(&id, |member| member.id).ok()?;
    members.get(index)
}

/// The members that are not among the others; both sorted by pid.
fn without<'a>(members: &'a [Member], others: &'a [Member]) -> impl Iterator<Item = &'a Member> {
    let mut others = others.iter().peekable();
    members.iter().filter(move |member| {
        while others.next_if(|other| other.id < member.id).is_some() {}
        others.peek().is_none_or(|other| other.id != member.id)
    })
}
