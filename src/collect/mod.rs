//! Measurements of the members, one per file.
//!
//! A process is read once in a gather, however many series it is in. Counters are kept by identity from gather to
//! gather, so that each series can add what a member has gained.

mod accounts;
pub mod busiest;
pub mod delay_accounting;
pub mod procmaps;
pub mod procstat;
pub mod psstat;
mod resident;
pub mod taskstat;
pub mod thread;
mod threads;
mod unknown;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::encode::Tags;
use crate::kernel::procfs::Proc;
use crate::kernel::stat::Identity;
use crate::kernel::taskstats::Ask;
use crate::ledger::{Charge, Charges, ExitedMember, Exits, UnobservedBelow};
use crate::log::{Complaints, Trouble};
use crate::output::{Measurement, Output, PsstatField, Scope};
use crate::processes::CpuTimes;
use crate::processes::{ProcessSource, Processes};
use crate::select::{Member, Selected};
use accounts::{Accounts, Lacking};
use busiest::Busiest;
use delay_accounting::DelayAccounting;
use procmaps::Procmaps;
use procstat::Procstat;
use psstat::MemTotal;
use resident::ResidentMemory;
use taskstat::Taskstat;
use thread::Thread;

/// Bounds of what collectors cost, from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Resident memory (bytes) above which procmaps leaves out a process.
    pub procmaps_max_rss: u64,
    /// Time between two measurings of procmaps.
    pub procmaps_interval: Duration,
    /// True if `thread` counts threads with nice value 0 too.
    pub thread_all_nice: bool,
    /// Number of threads of one process above which none of them is read.
    pub thread_max: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            procmaps_max_rss: 2 << 30,
            procmaps_interval: Duration::from_secs(60),
            thread_all_nice: false,
            thread_max: 4096,
        }
    }
}

/// Parts of a process that are to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a measurement of its own
pub struct Needs {
    /// Delays, by taskstats.
    pub taskstat: bool,
    /// User and system time by themselves.
    pub procstat: bool,
    /// Threads, by nice value.
    pub thread: bool,
    /// Run time of each thread, for the busiest.
    pub busiest: bool,
}

impl Needs {
    /// Returns the needs of a series for a member, which may be a root.
    #[must_use]
    pub fn of(output: &Output, is_root: bool) -> Self {
        let wants = |measurement| {
            output.wants(measurement, Scope::Tree) || (is_root && output.wants(measurement, Scope::Process))
        };
        Self {
            taskstat: wants(Measurement::Taskstat),
            procstat: output.wants(Measurement::Procstat, Scope::Tree),
            thread: wants(Measurement::Thread),
            busiest: output.psstat_fields.contains(&PsstatField::PCpuThreadMax)
                && output.wants(Measurement::Psstat, Scope::Tree),
        }
    }

    /// Returns the needs of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            taskstat: self.taskstat || other.taskstat,
            procstat: self.procstat || other.procstat,
            thread: self.thread || other.thread,
            busiest: self.busiest || other.busiest,
        }
    }
}

/// Processes that a gather reads, and the parts of each.
#[derive(Debug, Default)]
pub struct Plan {
    /// Measurements wanted by any target, also by one that matches nothing so far.
    measurements: Vec<Measurement>,
    /// Sorted by pid.
    processes: Vec<(Identity, Needs)>,
    /// Processes for procmaps, by series.
    pages: BTreeMap<Tags, Vec<Identity>>,
}

impl Plan {
    /// Creates a plan for some series, each with its selection and its members. `measurements` are those wanted by any
    /// target.
    #[must_use]
    pub fn new<'a>(
        measurements: Vec<Measurement>,
        series: impl Iterator<Item = (&'a Tags, &'a Selected, &'a [Member])>,
    ) -> Self {
        let (mut processes, mut pages) = (Vec::new(), BTreeMap::new());
        for (tags, Selected { output, ids: selected, .. }, members) in series {
            let [of_root, of_other] = [true, false].map(|is_root| Needs::of(output, is_root));
            let is_root = |member: &Member| selected.binary_search(&member.id).is_ok();
            let of = |member: &Member| (member.id, if is_root(member) { of_root } else { of_other });
            processes.extend(members.iter().map(of));
            if output.wants(Measurement::Procmaps, Scope::Tree) {
                pages.insert(tags.clone(), members.iter().map(|member| member.id).collect());
            } else if output.wants(Measurement::Procmaps, Scope::Process) {
                pages.insert(tags.clone(), selected.clone());
            }
        }
        processes.sort_unstable_by_key(|(id, _)| *id);
        processes.dedup_by(|(id, again), (kept, needs)| {
            let same = id == kept;
            if same {
                *needs = needs.or(*again);
            }
            same
        });
        Self { measurements, processes, pages }
    }

    /// Returns whether any target wants a measurement.
    #[must_use]
    pub fn wants(&self, measurement: Measurement) -> bool {
        self.measurements.contains(&measurement)
    }

    /// Returns whether the process table and `/proc/<pid>/schedstat` have all that is wanted.
    #[must_use]
    pub fn is_of_cpu_and_memory(&self) -> bool {
        let is_of_them = |measurement| matches!(measurement, &Measurement::Psstat | &Measurement::Procstat);
        self.measurements.iter().all(is_of_them) && !self.processes.iter().any(|(_, needs)| needs.busiest)
    }

    /// Returns the processes that need something, sorted by pid.
    fn ids_of(&self, is_needed: impl Fn(&Needs) -> bool) -> Vec<Identity> {
        self.processes.iter().filter(|(_, needs)| is_needed(needs)).map(|(id, _)| *id).collect()
    }

    /// Returns the processes, sorted by pid.
    #[must_use]
    pub fn ids(&self) -> Vec<Identity> {
        self.processes.iter().map(|(id, _)| *id).collect()
    }
}

/// Sources that a gather reads from.
pub struct Look<'a> {
    /// Process table, in which the members were just read.
    pub processes: &'a Processes,
    /// `/proc`, for what the table does not hold.
    pub proc: &'a mut Proc,
    /// Source that the table is read from.
    pub source: &'a mut dyn ProcessSource,
    /// Source of delays.
    pub taskstats: &'a mut dyn Ask,
    /// Complaints about what cannot be read.
    pub complaints: &'a mut Complaints,
}

/// Member as read and charged at one gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Identity of the process.
    pub id: Identity,
    /// CPU charged since the last gather, ns.
    pub cpu: Charge,
    /// Part of `cpu` in user mode; 0 unless procstat is wanted.
    pub user: Charge,
    /// Part of `cpu` in system mode; 0 unless procstat is wanted.
    pub system: Charge,
    /// True if `cpu` is all that the process used since then; false of an old process at its first member.
    pub complete: bool,
    /// Resident memory, bytes, if it could be read.
    pub rss: Option<u64>,
    /// True if the process is a zombie.
    pub zombie: bool,
    /// Number of threads, if known.
    pub threads: Option<u32>,
}

impl Sample {
    /// Creates a sample with nothing known but the identity.
    fn of(id: Identity) -> Self {
        let (cpu, user, system) = Default::default();
        Self { id, cpu, user, system, complete: false, rss: None, zombie: false, threads: None }
    }
}

/// Samples of all members of all series.
#[derive(Debug, Default)]
pub struct Samples {
    /// Sorted by pid.
    all: Vec<Sample>,
    /// Last charges of members that exited and were reaped since the last gather, sorted by pid.
    gone: Vec<Sample>,
}

impl Samples {
    /// Number of processes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Returns the sample of a process that is a member of any series.
    #[must_use]
    pub fn get(&self, id: Identity) -> Option<&Sample> {
        let index = self.all.binary_search_by_key(&id, |sample| sample.id).ok()?;
        self.all.get(index)
    }

    /// Returns the resident memory of a member, bytes, if known.
    #[must_use]
    pub fn rss(&self, id: Identity) -> Option<u64> {
        self.get(id)?.rss
    }

    /// Returns the last sample of a process that was reaped, if there is an exit record of it.
    #[must_use]
    pub fn get_gone(&self, id: Identity) -> Option<&Sample> {
        let index = self.gone.binary_search_by_key(&id, |sample| sample.id).ok()?;
        self.gone.get(index)
    }

    /// Adds the charge of each process: `set` puts it into the process's sample.
    fn take_in(&mut self, charges: Charges, mut set: impl FnMut(&mut Sample, Charge)) {
        for (sample, charge) in self.all.iter_mut().zip(charges.living) {
            set(sample, charge);
        }
        self.gone.reserve_exact(charges.exited.len().saturating_sub(self.gone.len()));
        for (id, charge) in charges.exited {
            let index = self.gone.partition_point(|sample| sample.id < id);
            if self.gone.get(index).is_none_or(|sample| sample.id != id) {
                self.gone.insert(index, Sample { complete: true, ..Sample::of(id) });
            }
            if let Some(sample) = self.gone.get_mut(index) {
                set(sample, charge);
            }
        }
    }
}

/// Collectors of all measurements, with their state between gathers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Collectors {
    #[serde(skip)]
    bounds: Bounds,
    /// MemTotal, the whole for p_mem.
    #[serde(skip)]
    pub mem_total: MemTotal,
    #[serde(skip)]
    resident: ResidentMemory,
    /// Accounts of CPU.
    cpu: Accounts,
    #[serde(skip)]
    unknown: unknown::Said,
    procstat: Procstat,
    /// State of taskstat.
    pub taskstat: Taskstat,
    /// State of thread.
    pub thread: Thread,
    /// State of psstat's `p_cpu_thread_max`.
    pub busiest: Busiest,
    /// Part of the delays that the kernel counts.
    pub delays: DelayAccounting,
    /// State of procmaps.
    pub procmaps: Procmaps,
}

impl Collectors {
    /// Creates collectors that have read nothing so far.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Takes over the state of another run, and keeps its own bounds.
    pub fn resume(&mut self, remembered: Self) {
        *self = Self { bounds: self.bounds, ..remembered };
    }

    /// Sets new bounds after a reload, which may also have brought other targets.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.busiest.expect_more();
    }

    /// Reads of each member what the table does not hold, and settles the accounts, once in a gather. `at` is
    /// CLOCK_MONOTONIC, ns.
    pub fn sample(&mut self, plan: &Plan, at: u64, look: &mut Look) -> Samples {
        let samples = self.sample_cpu(plan, at, look);
        if plan.wants(Measurement::Taskstat) || plan.wants(Measurement::Thread) {
            self.delays = self.delays.look(look);
        }
        self.taskstat.sample(plan, at, look);
        self.thread.sample(&plan.processes, self.bounds, at, look);
        self.busiest.sample(&plan.processes, self.bounds, at, look);
        self.procmaps.sample(&plan.pages, &samples, self.bounds, at, look);
        samples
    }

    /// Reads all that a measurement needs, for `--check`: the result is in the complaints.
    pub fn try_out(&mut self, measurement: Measurement, plan: &Plan, look: &mut Look) {
        match measurement {
            Measurement::Psstat => {
                psstat::mem_total(look.proc, look.complaints);
                self.sample_cpu(plan, 0, look);
                self.busiest.sample(&plan.processes, self.bounds, 0, look);
            }
            Measurement::Procstat => drop(self.sample_cpu(plan, 0, look)),
            Measurement::Taskstat => {
                self.delays = self.delays.look(look);
                self.taskstat.sample(plan, 0, look);
            }
            Measurement::Thread => {
                self.delays = self.delays.look(look);
                self.thread.sample(&plan.processes, self.bounds, 0, look);
            }
            Measurement::Procmaps => {
                let samples = self.sample_cpu(plan, 0, look);
                self.procmaps.sample(&plan.pages, &samples, self.bounds, 0, look);
                self.procmaps.wait();
                self.procmaps.complain(look.complaints);
                if plan.pages.values().all(Vec::is_empty) {
                    procmaps::foresee(look.complaints);
                }
            }
        }
    }

    /// Samples CPU and memory of the processes that are watched. `at` is CLOCK_MONOTONIC, ns.
    ///
    /// Descendants that are no members (of a cgroup's process, in another cgroup) have accounts too: when a member
    /// reaps them, their CPU must not count as the member's.
    fn sample_cpu(&mut self, plan: &Plan, at: u64, look: &mut Look) -> Samples {
        let stats: Vec<_> = look.processes.tracked().collect();
        self.unknown.complain(&stats, look);
        let (mut members, mut lacking) = (Vec::with_capacity(stats.len()), Lacking::new());
        let mut samples = Samples { all: Vec::with_capacity(stats.len()), gone: Vec::new() };
        let mut resident = self.resident.begin(stats.len(), at);
        for stat in &stats {
            let mut complain = |error: io::Error| {
                let what = "Something of some processes cannot be read, and is left out";
                look.complaints.add(Trouble::of(&error), format!("{what}: {error}"));
            };
            let (member, lacks) = psstat::times(stat, look.processes, look.source, &mut complain);
            let rss = resident.bytes_of(stat, look.source).map_err(complain).ok().flatten();
            let complete = member.newborn || self.cpu.knows(stat.id);
            let (zombie, threads) = (stat.is_zombie(), stat.known_threads());
            samples.all.push(Sample { complete, rss, zombie, threads, ..Sample::of(stat.id) });
            members.push(member);
            lacking.extend(Some((stat.id, lacks)).filter(|(_, lacks)| lacks.any()));
        }
        let presence = |id| look.processes.presence(id);
        let charges = self.cpu.settle(&members, &lacking, &exits(look.processes, |times| times.cpu), presence);
        samples.take_in(charges, |sample, charge| sample.cpu = charge);
        if plan.processes.iter().any(|(_, needs)| needs.procstat) {
            let user = exits(look.processes, |times| times.user);
            let system = exits(look.processes, |times| times.system);
            self.procstat.settle(&stats, &members, [&user, &system], presence, &mut samples);
        } else {
            self.procstat = Procstat::default(); // accounts have to be settled at every gather
        }
        samples
    }
}

/// Returns one kind of time of the processes that exited, from their exit records.
fn exits(processes: &Processes, of: fn(&CpuTimes) -> u64) -> Exits {
    let members = processes.exited().map(|(id, record)| ExitedMember {
        id,
        ppid: record.parent,
        own: of(&record.used),
        newborn: processes.is_newborn(id),
    });
    let unobserved = processes.unobserved().map(|(id, sums)| UnobservedBelow {
        id,
        used: of(&sums.used),
        lives: of(&sums.lives),
        orphaned: of(&sums.orphaned),
        late: of(&sums.late),
        is_subreaper: sums.is_subreaper,
    });
    Exits { members: members.collect(), unobserved: unobserved.collect() }
}
