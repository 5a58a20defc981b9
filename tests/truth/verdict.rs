//! What was reported against what was charged.

use std::fmt;
use std::ops::RangeInclusive;

use crate::busy::online_cpus;
use crate::watcher::{Answer, Sum};

/// One answer about a target, and what its processes had been charged just before its prompt and just after it: all in
/// seconds.
pub struct Reading {
    before: f64,
    after: f64,
    pub cpu_time: f64,
    /// None at the first gather, nor of a sum of which some part comes and goes.
    p_cpu: Option<f64>,
    n_proc: f64,
    time: f64,
    /// How long the answer took.
    pub took: f64,
}

impl Reading {
    pub fn new(before: f64, answer: &Answer, target: &str, after: f64) -> Self {
        let number = |field| answer.number("psstat", target, field);
        Self {
            before,
            after,
            cpu_time: number("cpu_time") / 1e9,
            p_cpu: answer.find("psstat", target, "p_cpu"),
            n_proc: number("n_proc"),
            time: answer.time(),
            took: 0.0,
        }
    }

    /// The same of all series together.
    pub fn of_all(before: f64, answer: &Answer, sum: &Sum, after: f64) -> Self {
        let n_proc = answer.psstat("n_proc").map(|(_, n_proc)| n_proc).sum();
        Self { before, after, cpu_time: sum.cpu_time() / 1e9, p_cpu: None, n_proc, time: answer.time(), took: 0.0 }
    }
}

/// What is asked of a report.
#[derive(Clone)]
pub struct Standard {
    /// The least and the most that may be reported, as shares of what was charged.
    pub shares: [f64; 2],
    /// And how many seconds it may be beyond them.
    pub seconds: f64,
    /// How many processes there may be at any gather.
    pub processes: RangeInclusive<f64>,
}

impl Standard {
    /// A share of at least `least`, at most 1 % too much, and 20 ms, for a target of any size.
    pub fn least(least: f64) -> Self {
        Self { shares: [least, 1.01], seconds: 0.02, processes: 1.0..=f64::INFINITY }
    }
}

/// What a series of readings amounts to, in seconds of CPU, and all that is wrong with it.
pub struct Verdict {
    title: String,
    reported: f64,
    /// The sum of p_cpu × interval: the same CPU, told in another way.
    by_p_cpu: Option<f64>,
    /// The most CPUs at any gather.
    most_cpus: Option<f64>,
    charged: (f64, f64),
    allowed: (f64, f64),
    faults: Vec<&'static str>,
}

impl Verdict {
    pub fn on(readings: &[Reading], standard: &Standard, title: String) -> Self {
        let (first, last) = (readings.first().unwrap(), readings.last().unwrap());
        let reported = last.cpu_time - first.cpu_time;
        let by_p_cpu: Option<f64> =
            readings.windows(2).map(|w| w[1].p_cpu.map(|p_cpu| p_cpu * (w[1].time - w[0].time))).sum();
        let charged = (last.before - first.after, last.after - first.before);
        let most_cpus = readings[1..].iter().filter_map(|reading| reading.p_cpu).max_by(f64::total_cmp);
        let (Standard { seconds, processes, .. }, [least, most]) = (standard, standard.shares);
        let allowed = (charged.0 * least - seconds, charged.1 * most + seconds);
        // The counters are read after the time of the line, within the gather.
        let within = |w: &[Reading]| w[1].p_cpu.unwrap_or(0.0) * w[0].took.max(w[1].took);
        let uncertain = charged.1 - charged.0 + readings.windows(2).map(within).sum::<f64>();
        let differ = |by_p_cpu: f64| (by_p_cpu - reported).abs() > reported * 0.02 + 0.03 + uncertain;
        // A process hides up to four texts in ticks of 10 ms, which may all show at one gather.
        let beyond_all_cpus = readings.windows(2).any(|w| {
            let hidden = 0.04 * w[0].n_proc.max(w[1].n_proc) / (w[1].time - w[0].time);
            w[1].p_cpu.is_some_and(|p_cpu| p_cpu > online_cpus() as f64 * 1.01 + hidden)
        });
        let checks = [
            (charged.0 < 0.1, "the workload did next to nothing"),
            (readings.windows(2).any(|w| w[1].cpu_time < w[0].cpu_time), "cpu_time fell"),
            (reported < allowed.0, "too little"),
            (reported > allowed.1, "too much"),
            (by_p_cpu.is_some_and(differ), "p_cpu disagrees with cpu_time"),
            (beyond_all_cpus, "more than all CPUs at one gather"),
            (readings.iter().any(|r| !processes.contains(&r.n_proc)), "wrong number of processes"),
        ];
        let faults = checks.into_iter().filter_map(|(wrong, fault)| wrong.then_some(fault)).collect();
        Self { title, reported, by_p_cpu, most_cpus, charged, allowed, faults }
    }

    pub fn is_faultless(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { title, reported, by_p_cpu, most_cpus, charged: (low, high), allowed: (least, most), faults } = self;
        let percent = reported / f64::midpoint(*low, *high) * 100.0;
        write!(f, "{title}: {reported:.3} s of CPU reported, {percent:.1} % of {low:.3} to {high:.3} s charged ")?;
        write!(f, "({least:.3} to {most:.3} allowed)")?;
        if let Some(by_p_cpu) = by_p_cpu {
            write!(f, "; p_cpu makes it {by_p_cpu:.3} s")?;
        }
        if let Some(most_cpus) = most_cpus {
            write!(f, ", {most_cpus:.2} CPUs at most")?;
        }
        faults.iter().try_for_each(|fault| write!(f, "; {}", fault.to_uppercase()))
    }
}
