//! A series: what is remembered of one tag set from gather to gather.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account::{Charge, CpuTime, Rate, Tally};
use crate::collect::taskstat::Counts;
use crate::collect::thread::ByNice;
use crate::collect::{Collectors, Samples};
use crate::journal::Unseen;
use crate::kernel::cgroup::Usage;
use crate::kernel::stat::{Identity, Stat};
use crate::output::{Measurement, Output, Scope};
use crate::processes::{Presence, Processes};
use crate::select::{Member, Root};

/// A series' members, counters and gauges.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// How it is written.
    pub output: Arc<Output>,
    members: Vec<Member>,
    /// Members that exited by the last gather, and earlier ones that still have descendants which were never read: events name those by
    /// them.
    #[serde(skip)]
    departed: Vec<Member>,
    top: Vec<Root>,
    /// Roots that went away and have not been replaced: no more than there ever were at once.
    vacant: Vec<Root>,
    /// The processes that were selected, and not only descend from one, sorted by pid.
    selected: Vec<Identity>,
    rate: Rate,
    /// CPU used, ns.
    pub cpu_time: CpuTime,
    /// The part of it in user mode, while somebody asks.
    pub utime: CpuTime,
    /// The part of it in system mode, while somebody asks.
    pub stime: CpuTime,
    /// What it has waited for.
    pub taskstat: Tally<Counts>,
    /// What its threads have counted.
    pub thread: Tally<ByNice>,
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
    /// Their threads, if they are known of all.
    pub threads: Option<u64>,
    /// Their resident memory, bytes, if it is known of all.
    pub rss: Option<u64>,
    /// Whether cgroups carry its CPU.
    pub metered: bool,
    /// CLOCK_MONOTONIC (ns) when the counters were read.
    at: u64,
    /// Whether nothing can be said of it now: some of it could not be looked at.
    pub unknown: bool,
    /// Whether nothing can be said of its processes now: one of them is hidden.
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
    /// Those that were found and went away before they could be read, sorted by pid.
    pub vanished: Vec<Member>,
    /// Those that are roots below no other member.
    pub top: Vec<Root>,
    /// Those that were selected, and not only descend from one, sorted by pid.
    pub selected: Vec<Identity>,
    /// The process table.
    pub processes: &'a Processes,
    /// What each member was charged and its memory.
    pub samples: &'a Samples,
    /// What else was read of each member.
    pub collectors: &'a Collectors,
    /// The cgroups that carry the series' CPU, if any do.
    pub cgroups: Option<CgroupReading>,
    /// Whether its members without a root are those of cgroups.
    pub of_cgroups: bool,
    /// CLOCK_MONOTONIC (ns) when the counters were read.
    pub at: u64,
    /// CLOCK_MONOTONIC (ns) of the last gather, unless this is the first look at what is selected: then nothing that exists
    /// counts as new.
    pub previous: Option<u64>,
}

/// What was read of the cgroups that carry a series' CPU.
#[derive(Debug, Default)]
pub struct CgroupReading {
    /// Inode and usage of each.
    pub usages: Vec<(u64, Usage)>,
    /// Whether these are all of them: none could not be read.
    pub all: bool,
    /// The pids whose CPU they carry, sorted.
    pub pids: Vec<u32>,
}

impl<'a> Reading<'a> {
    /// Whether a cgroup carries this process's CPU.
    fn in_cgroup(&self, pid: u32) -> bool {
        self.cgroups.as_ref().is_some_and(|cgroups| cgroups.pids.binary_search(&pid).is_ok())
    }

    /// The reading of a series of which nothing is left.
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
    /// A series not seen before.
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

    /// Whether there is anything to write: no last word of what was never heard of.
    #[must_use]
    pub fn is_worth_a_line(&self) -> bool {
        self.written || !self.over || self.exited > 0 || self.cpu_time.total() > 0
    }

    /// The members as of the last gather, sorted by pid.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The same, and those that had gone away by then.
    #[must_use]
    pub fn members_and_departed(&self) -> Cow<'_, [Member]> {
        if self.departed.is_empty() {
            return Cow::Borrowed(&self.members);
        }
        let mut members = [self.members.as_slice(), &self.departed].concat();
        members.sort_unstable_by_key(|member| member.id);
        Cow::Owned(members)
    }

    /// The processes that were selected, and not only descend from one, sorted by pid.
    #[must_use]
    pub fn selected(&self) -> &[Identity] {
        &self.selected
    }

    /// Takes in what a gather found. `is_new`: this series did not exist before.
    pub fn account(&mut self, mut reading: Reading, is_new: bool) {
        self.mark_reapers(&mut reading);
        if let (true, Some(previous)) = (is_new && self.misses_nothing(&reading), reading.previous) {
            self.rate = Rate::since(previous);
        }
        let unseen = self.unseen(&reading);
        self.credit_all(&reading, &unseen);
        let mut departed = self.departures(&reading);
        let (started, exited) = (self.births(&reading), departed.len() as u64);
        let is_ancestor = |member: &Member| reading.processes.is_exited_ancestor(member.id);
        departed.extend(self.departed.extract_if(.., |member| is_ancestor(member)));
        departed.sort_unstable_by_key(|member| member.id);
        let unseen = unseen.into_iter().map(|unseen| unseen.count).fold(0, u64::saturating_add);
        self.started = self.started.saturating_add(started).saturating_add(unseen);
        self.exited = self.exited.saturating_add(exited).saturating_add(unseen);
        self.count_restarts(&reading);
        self.gauge(&reading);
        self.metered = reading.cgroups.is_some() || self.is_metered_unseen();
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

    /// Takes in that nothing has happened to it or to its members since the last gather, nor had then.
    pub fn rest(&mut self, at: u64) {
        self.at = at;
    }

    /// Takes in what the members were charged and what they counted.
    fn credit_all(&mut self, reading: &Reading, unseen: &[&Unseen]) {
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
                for unseen in unseen {
                    self.taskstat.credit(&Counts::of(unseen));
                }
            }
            if thread {
                self.thread.take_in(&members, reading.collectors.thread.counters());
            }
        }
    }

    /// The members that went away since, of whom exit records tell, or of those whom they have left. Sorted by pid.
    fn gone(&self, reading: &Reading) -> Vec<Identity> {
        let told = reading.processes.gone().map(|(id, _)| id).chain(reading.processes.unseen().map(|(id, _)| id));
        let gone: BTreeSet<_> = told.filter(|id| self.has_gone(*id, reading)).collect();
        gone.into_iter().collect()
    }

    /// Whether it was a member and went away.
    fn has_gone(&self, id: Identity, reading: &Reading) -> bool {
        let was_member = [&self.members, &reading.vanished, &self.departed].iter().any(|of| find(of, id).is_some());
        was_member && reading.processes.presence(id) != Presence::Here
    }

    /// What stands for those that were born in it and died since the last gather, so that nobody has seen them.
    fn unseen<'a>(&self, reading: &Reading<'a>) -> Vec<&'a Unseen> {
        let processes = reading.processes;
        let is_of_it = |id| match find(&reading.members, id) {
            Some(member) => self.counts(member, reading),
            None => self.has_gone(id, reading),
        };
        processes.unseen().filter(|(id, _)| is_of_it(*id)).map(|(_, unseen)| unseen).collect()
    }

    /// Cores used since it was last written, and how long ago that was (ns); it is being written now.
    pub fn p_cpu(&mut self) -> Option<(f64, u64)> {
        self.written = true;
        self.rate.next(self.cpu_time.total(), self.at)
    }

    /// Whoever has, or had, a child in a cgroup that carries the CPU must not count what it reaps a second time; and who is
    /// in a cgroup, but has a child in another, must not count what that uses.
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

    /// Whether what a member has used since the last gather belongs here: it was a member before, or was born since, or, unless this is the
    /// base, was known at the last gather (as a member of another series), or belongs here by itself.
    fn counts(&self, member: &Member, reading: &Reading) -> bool {
        let is_known = || reading.samples.get(member.id).is_some_and(|sample| sample.complete);
        let is_new_here = || reading.previous.is_some() && (member.root.is_none() || is_known());
        self.has(member.id) || reading.processes.is_newborn(member.id) || is_new_here()
    }

    /// What a member adds to the CPU, and to the parts of it in user and in system mode, ns, unless a cgroup carries that.
    fn credit(&self, member: &Member, reading: &Reading) -> Option<[u64; 3]> {
        let sample = reading.samples.get(member.id)?;
        let elsewhere = (member.root.is_none() && self.is_metered_unseen()) || reading.in_cgroup(member.id.pid);
        let charges = [sample.cpu, sample.user, sample.system];
        (!elsewhere && self.counts(member, reading))
            .then(|| charges.map(|charge| if member.reaps_elsewhere { charge.own } else { charge.total() }))
    }

    /// What one that is gone adds in the end, unless cgroups carry the CPU of some: they have that of the dead, too.
    fn credit_gone(&self, id: Identity, reading: &Reading) -> Option<[u64; 3]> {
        let sample = reading.samples.get_gone(id).filter(|_| !self.metered && reading.cgroups.is_none())?;
        Some([sample.cpu, sample.user, sample.system].map(Charge::total))
    }

    /// Whether cgroups carried the CPU when they could last be looked at: their count goes on.
    fn is_metered_unseen(&self) -> bool {
        self.unknown && self.metered
    }

    /// Whether all that a new series used since the last gather is counted, so that a rate can be told.
    fn misses_nothing(&self, reading: &Reading) -> bool {
        let complete = |id| reading.samples.get(id).is_some_and(|sample| sample.complete);
        let mut members = reading.members.iter();
        members.all(|member| reading.in_cgroup(member.id.pid) || (self.counts(member, reading) && complete(member.id)))
    }

    fn births(&self, reading: &Reading) -> u64 {
        let new = without(&reading.members, &self.members).chain(without(&reading.vanished, &self.members));
        new.map(|member| u64::from(reading.processes.is_newborn(member.id))).sum()
    }

    /// The members of before that went away, and those that did before they could be read.
    fn departures(&self, reading: &Reading) -> Vec<Member> {
        let known = without(&self.members, &reading.members);
        let known = known.filter(|member| reading.processes.presence(member.id) != Presence::Here);
        let vanished = without(&reading.vanished, &self.members);
        known.chain(vanished).copied().collect()
    }

    /// A root that went away leaves a place; another that was no member before takes one. The same coming back takes its own.
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

/// A member, of those sorted by pid.
fn find(members: &[Member], id: Identity) -> Option<&Member> {
    let index = members.binary_search_by_key(&id, |member| member.id).ok()?;
    members.get(index)
}

/// Those of some members that are not among the others; all sorted by pid.
fn without<'a>(members: &'a [Member], others: &'a [Member]) -> impl Iterator<Item = &'a Member> {
    let mut others = others.iter().peekable();
    members.iter().filter(move |member| {
        while others.next_if(|other| other.id < member.id).is_some() {}
        others.peek().is_none_or(|other| other.id != member.id)
    })
}
