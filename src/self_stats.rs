//! `taskstats_agent`: what the plugin itself costs, and what it cannot do.

use crate::encode::{Lines, Tags, kibibytes, known};
use crate::events::EventStats;
use crate::kernel::own;
use crate::log::{Complaints, Trouble};

/// Figures of one gather, besides its lines.
#[derive(Debug, Clone, Copy)]
pub struct Gather {
    /// Time from the trigger to the encoded lines, ns.
    pub time: u64,
    /// Number of targets.
    pub targets: usize,
    /// Number of processes that were read.
    pub processes: usize,
    /// Way to learn which processes exist.
    pub accounting: &'static str,
    /// Counters of process events, if there are any.
    pub events: Option<EventStats>,
}

/// Writes the line of a gather after its others. Its tags are those of `tags`, the version, and how the dead are accounted for.
pub fn write(lines: &mut Lines, tags: &Tags, gather: Gather, complaints: &Complaints) {
    let tags = tags.with("version", env!("CARGO_PKG_VERSION")).with("accounting", gather.accounting);
    let count = |count: usize| Some(count as u64);
    let errors = |kind| count(complaints.count(kind));
    let fields = known([
        ("gather_time", Some(gather.time)),
        ("cpu_time", Some(own::cpu_time())),
        ("rss", own::rss().ok().map(kibibytes)),
        ("targets", count(gather.targets)),
        ("processes", count(gather.processes)),
        ("lines", count(lines.count())),
        ("errors_absent", errors(Trouble::Absent)),
        ("errors_denied", errors(Trouble::Denied)),
        ("errors_failed", errors(Trouble::Failed)),
        ("errors_bounded", errors(Trouble::Bounded)),
        ("events_lost", gather.events.map(|events| events.overruns)),
        ("wakeups", gather.events.map(|events| events.wakeups)),
    ]);
    lines.add("taskstats_agent", &tags, fields);
}
