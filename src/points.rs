//! Lines of a series: one for each measurement, and one for each process or nice value where that is wanted.

use std::borrow::Cow;
use std::sync::Arc;

use crate::collect::{Collectors, Samples, procmaps, procstat};
use crate::encode::{Lines, Tags, Value};
use crate::kernel::stat::Identity;
use crate::ledger::share;
use crate::output::{Measurement, PsstatField, Scope};
use crate::processes::Processes;
use crate::series::Series;

/// The tag of a process, in scope "process".
pub const PID: &str = "pid";

/// The tag of a nice value.
pub const NICE: &str = "nice";

/// Readings of a gather that lines are made from, besides the series.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The process table.
    pub processes: &'a Processes,
    /// CPU and memory of each process.
    pub samples: &'a Samples,
    /// Other readings of each process.
    pub collectors: &'a Collectors,
    /// MemTotal, bytes, if it is known.
    pub mem_total: Option<u64>,
}

/// A line's fields.
type Fields = Vec<(&'static str, Value)>;

/// Writes the lines of a series. Those of psstat begin its next interval.
pub fn write(lines: &mut Lines, tags: &Tags, series: &mut Series, from: Sources) {
    if series.unknown {
        return;
    }
    let output = Arc::clone(&series.output);
    for wanted in &output.collect {
        let measurement = wanted.measurement;
        match wanted.scope {
            Scope::Tree if measurement == Measurement::Psstat => {
                lines.add(measurement.name(), tags, psstat(series, &output.psstat_fields, from));
            }
            Scope::Tree if series.hidden => {}
            Scope::Tree => {
                for (nice, fields) in of_tree(measurement, tags, series, from) {
                    lines.add(measurement.name(), &of_nice(tags, nice), fields);
                }
            }
            Scope::Process => {
                for id in series.selected() {
                    let of_process = of_process(measurement, tags, *id, from);
                    let tags = tags.with(PID, &id.pid.to_string());
                    for (nice, fields) in of_process {
                        lines.add(measurement.name(), &of_nice(&tags, nice), fields);
                    }
                }
            }
        }
    }
}

/// The tags of the threads with a nice value, if there is one.
fn of_nice(tags: &Tags, nice: Option<i8>) -> Cow<'_, Tags> {
    nice.map_or(Cow::Borrowed(tags), |nice| Cow::Owned(tags.with(NICE, &nice.to_string())))
}

/// The fields of a whole tree, by nice value where the measurement has them so.
fn of_tree(measurement: Measurement, tags: &Tags, series: &Series, from: Sources) -> Vec<(Option<i8>, Fields)> {
    let Collectors { taskstat, thread, procmaps, delays, .. } = from.collectors;
    let oldest = series.members().iter().map(|member| member.id.start).min();
    let delays = oldest.map_or(*delays, |start| delays.of(start));
    match measurement {
        Measurement::Psstat => Vec::new(),
        Measurement::Taskstat => {
            let total = series.taskstat.total();
            total.map(|counts| (None, taskstat.fields(counts, delays))).into_iter().collect()
        }
        Measurement::Procstat => {
            let (user, system) = (series.utime.total(), series.stime.total());
            vec![(None, procstat::fields_of_tree(user, system, series.threads, series.rss))]
        }
        Measurement::Procmaps => {
            let members = series.members().iter().map(|member| member.id);
            let pss =
                if series.live == 0 { Some(0) } else { procmaps.of_tree(tags, members, from.samples, series.rss) };
            vec![(None, procmaps::fields(pss))]
        }
        Measurement::Thread => {
            let by_nice = series.thread.total().into_iter().flat_map(|total| total.iter());
            // What was counted while all of them were asked for stays, but is not asked for any more.
            let by_nice = by_nice.filter(|(nice, _)| thread.counts(*nice));
            by_nice.map(|(nice, counts)| (Some(nice), thread.fields(counts, delays))).collect()
        }
    }
}

/// The fields of one process.
fn of_process(measurement: Measurement, tags: &Tags, id: Identity, from: Sources) -> Vec<(Option<i8>, Fields)> {
    let Collectors { taskstat, thread, procmaps, delays, .. } = from.collectors;
    let delays = delays.of(id.start);
    match measurement {
        Measurement::Psstat => Vec::new(),
        Measurement::Taskstat => {
            let counts = taskstat.counters().total(id);
            counts.map(|counts| (None, taskstat.fields(counts, delays))).into_iter().collect()
        }
        Measurement::Procstat => {
            let rss = from.samples.rss(id);
            let stat = from.processes.get_exactly(id);
            stat.map(|stat| (None, procstat::fields_of_process(stat, rss))).into_iter().collect()
        }
        Measurement::Procmaps => vec![(None, procmaps::fields(procmaps.of_process(tags, id, from.samples.rss(id))))],
        Measurement::Thread => {
            let by_nice = thread.counters().total(id).into_iter().flat_map(|counted| counted.iter());
            by_nice.map(|(nice, counts)| (Some(nice), thread.fields(counts, delays))).collect()
        }
    }
}

/// Returns the fields of a tree that are wanted and known. With a hidden process, only those that its cgroups have are
/// known.
fn psstat(series: &mut Series, asked: &[PsstatField], from: Sources) -> impl Iterator<Item = (&'static str, Value)> {
    let cpu_is_known = series.metered || !series.hidden;
    let p_cpu = if cpu_is_known { series.p_cpu() } else { None };
    let series = &*series;
    let asked = PsstatField::ALL.into_iter().filter(|field| asked.contains(field));
    let known = asked.filter(move |field| match field {
        PsstatField::PCpu | PsstatField::CpuTime => cpu_is_known,
        _ => !series.hidden,
    });
    let thread_max = move || {
        let (_, elapsed) = p_cpu?;
        from.collectors.busiest.of(series.members().iter().map(|member| member.id), elapsed)
    };
    known.filter_map(move |field| {
        let value = match field {
            PsstatField::PCpu => Value::Float(rounded(p_cpu?.0, 1e6)),
            PsstatField::PMem => Value::Float(rounded(share(series.rss?, from.mem_total?), 1e9)),
            PsstatField::NProc => Value::Integer(series.live),
            PsstatField::NZombie => Value::Integer(series.zombies),
            PsstatField::CpuTime => Value::Integer(series.cpu_time.total()),
            PsstatField::Started => Value::Integer(series.started),
            PsstatField::Exited => Value::Integer(series.exited),
            PsstatField::Restarts => Value::Integer(series.restarts),
            PsstatField::PCpuThreadMax => Value::Float(rounded(thread_max()?, 1e6)),
        };
        Some((field.name(), value))
    })
}

/// Without the digits that mean nothing: they would only cost bytes in every line.
fn rounded(number: f64, digits: f64) -> f64 {
    (number * digits).round() / digits
}
