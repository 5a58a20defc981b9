//! `psstat`: a tree as a few small fields.

use std::io;

use crate::account::Sight;
use crate::encode::Value;
use crate::kernel::procfs::Proc;
use crate::kernel::stat::Stat;
use crate::output::PsstatField;
use crate::processes::Processes;
use crate::series::Series;

/// What a member has used, for the accounting rule.
///
/// utime + stime are in ticks rounded down: a hundred zombies of 5 ms each show nothing. The leader's schedstat, exact to
/// the ns, is a lower bound too, and is read where it can matter: for the dead and for the young.
///
/// Where schedstat cannot be read, the ticks stand alone; `complain` hears why.
pub fn sight(stat: &Stat, processes: &Processes, proc: &mut Proc, complain: impl FnOnce(io::Error)) -> Sight {
    let matters = stat.is_zombie() || processes.is_young(stat.id);
    let exact = if matters { proc.schedstat(stat.id.pid) } else { Ok(None) };
    let exact = exact.unwrap_or_else(|error| {
        complain(error);
        None
    });
    Sight {
        id: stat.id,
        ppid: stat.ppid,
        own: stat.utime.saturating_add(stat.stime).max(exact.unwrap_or(0)),
        reaped: stat.cutime.saturating_add(stat.cstime),
        zombie: stat.is_zombie(),
        newborn: processes.is_newborn(stat.id),
        stale: processes.is_stale(stat.id),
    }
}

/// Resident memory of a member, bytes.
///
/// # Errors
/// A file of one of its threads cannot be read; the process being gone is no error.
pub fn rss(stat: &Stat, proc: &mut Proc) -> io::Result<u64> {
    let pages = if stat.is_leaderless() { proc.leaderless_rss(stat.id.pid)?.unwrap_or(0) } else { stat.rss };
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// The fields of a series that are known: of one with a hidden process, those that its cgroups tell. Asking for `p_cpu` begins
/// its next interval.
#[must_use]
pub fn fields(series: &mut Series, mem_total: Option<u64>) -> Vec<(&'static str, Value)> {
    if series.unknown {
        return Vec::new();
    }
    let cpu_is_known = series.metered || !series.hidden;
    let p_cpu = if cpu_is_known { series.p_cpu() } else { None };
    let asked = &series.output.psstat_fields;
    let asked = PsstatField::ALL.into_iter().filter(|field| asked.contains(field));
    let known = asked.filter(|field| match field {
        PsstatField::PCpu | PsstatField::CpuTime => cpu_is_known,
        _ => !series.hidden,
    });
    let values = known.filter_map(|field| {
        let value = match field {
            PsstatField::PCpu => Value::Float(rounded(p_cpu?, 1e6)),
            PsstatField::PMem => Value::Float(rounded(share(series.rss?, mem_total?), 1e9)),
            PsstatField::NProc => Value::Integer(series.live),
            PsstatField::NZombie => Value::Integer(series.zombies),
            PsstatField::CpuTime => Value::Integer(series.cpu_time),
            PsstatField::Started => Value::Integer(series.started),
            PsstatField::Exited => Value::Integer(series.exited),
            PsstatField::Restarts => Value::Integer(series.restarts),
        };
        Some((field.name(), value))
    });
    values.collect()
}

#[allow(clippy::cast_precision_loss)] // bytes of memory are below 2^53
fn share(bytes: u64, of: u64) -> f64 {
    bytes as f64 / of as f64
}

/// Without the digits that mean nothing: they would only cost bytes in every line.
fn rounded(number: f64, digits: f64) -> f64 {
    (number * digits).round() / digits
}
