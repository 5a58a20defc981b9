//! Output of a series: its tags, the measurements that are wanted, and their fields.

use serde::{Deserialize, Serialize};

use crate::encode::Tags;

/// Output of a target's series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The key of the tag with the name.
    pub name_tag: String,
    /// The tags besides the name.
    pub tags: Tags,
    /// The measurements wanted.
    pub collect: Vec<Wanted>,
    /// psstat's fields.
    pub psstat_fields: Vec<PsstatField>,
}

impl Output {
    /// The tags of what is found under a name.
    #[must_use]
    pub fn tags_of(&self, name: &str) -> Tags {
        self.tags.with(&self.name_tag, name)
    }

    /// Returns whether a measurement is wanted in a scope.
    #[must_use]
    pub fn wants(&self, measurement: Measurement, scope: Scope) -> bool {
        self.collect.contains(&Wanted { measurement, scope })
    }

    /// Wants what another wants too.
    pub fn join(&mut self, other: &Self) {
        unite(&mut self.collect, &other.collect);
        unite(&mut self.psstat_fields, &other.psstat_fields);
    }
}

fn unite<T: Copy + PartialEq>(all: &mut Vec<T>, more: &[T]) {
    for one in more {
        if !all.contains(one) {
            all.push(*one);
        }
    }
}

/// A measurement that is wanted of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which.
    pub measurement: Measurement,
    /// Scope of its lines.
    pub scope: Scope,
}

impl Wanted {
    /// psstat is always of the tree.
    #[must_use]
    pub fn new(measurement: Measurement, scope: Scope) -> Self {
        let scope = if measurement == Measurement::Psstat { Scope::Tree } else { scope };
        Self { measurement, scope }
    }
}

/// Scope of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A whole tree: its members summed.
    #[default]
    Tree,
    /// Each root process by itself, with its pid as a tag.
    Process,
}

/// Measurement that can be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Measurement {
    /// The tree as a few small fields.
    Psstat,
    /// Delays: the kernel's delay accounting.
    Taskstat,
    /// Fields of /proc/PID/stat.
    Procstat,
    /// Proportional set size.
    Procmaps,
    /// Scheduling of threads, by nice value.
    Thread,
}

impl Measurement {
    /// Returns the name in a line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Psstat => "psstat",
            Self::Taskstat => "taskstat",
            Self::Procstat => "procstat",
            Self::Procmaps => "procmaps",
            Self::Thread => "thread",
        }
    }
}

/// The fields of psstat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum PsstatField {
    /// Cores (1.0 is one) used since the last gather.
    PCpu,
    /// Share of MemTotal by summed RSS.
    PMem,
    /// Live processes; zombies are not.
    NProc,
    /// Dead processes that wait to be reaped.
    NZombie,
    /// CPU used, ns; only grows.
    CpuTime,
    /// Processes born in the tree; only grows.
    Started,
    /// Number of processes of the tree that were reaped; only grows.
    Exited,
    /// Times that a root was replaced by another process; only grows.
    Restarts,
    /// Cores used by the busiest single thread since the last gather.
    PCpuThreadMax,
}

impl PsstatField {
    /// Every field, in the order of a line.
    pub const ALL: [Self; 9] = [
        Self::PCpu,
        Self::PMem,
        Self::NProc,
        Self::NZombie,
        Self::CpuTime,
        Self::Started,
        Self::Exited,
        Self::Restarts,
        Self::PCpuThreadMax,
    ];
    /// The fields that are written by default.
    pub const DEFAULT: [Self; 3] = [Self::PCpu, Self::PMem, Self::NProc];

    /// The field's key.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PCpu => "p_cpu",
            Self::PMem => "p_mem",
            Self::NProc => "n_proc",
            Self::NZombie => "n_zombie",
            Self::CpuTime => "cpu_time",
            Self::Started => "started",
            Self::Exited => "exited",
            Self::Restarts => "restarts",
            Self::PCpuThreadMax => "p_cpu_thread_max",
        }
    }
}
