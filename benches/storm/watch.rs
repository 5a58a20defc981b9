//! The plugin, and what it says of a storm.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::goals::or_unknown;
use crate::meter;
use crate::storm::Storm;
use crate::support::{Plugin, command, field};

/// A plugin that watches one tree.
pub struct Watch {
    plugin: Plugin,
    accounting: String,
    /// Its configuration.
    _file: NamedTempFile,
}

/// One gather: what was reported, what the stormers and their cgroup say just before and just after it, and what the kernel
/// says of the plugin.
pub struct Reading {
    time: Instant,
    forks: [f64; 2],
    charged: [f64; 2],
    /// Seconds.
    pub cpu_time: f64,
    /// Cores, since the gather before, if that was long ago.
    pub p_cpu: Option<f64>,
    started: f64,
    exited: f64,
    pub alive: f64,
    lost: Option<f64>,
    wakeups: Option<f64>,
    main_cpu: Duration,
    /// Of the main thread and of the others.
    switches: [u64; 2],
    pub rss_kib: u64,
    pub peak_kib: u64,
}

impl Watch {
    /// Watches the tree of `root`, or else of this benchmark, which has no children then.
    pub fn begin(root: Option<u32>) -> Result<Self> {
        let root = root.unwrap_or_else(std::process::id);
        let mut text = "[[inputs.taskstats]]\nself_stats = true\npsstat_fields = [\"all\"]\n".to_owned();
        writeln!(text, "[[inputs.taskstats.target]]\nname = \"storm\"\npid = {root}")?;
        let file = NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        let mut command = command();
        command.arg("--config").arg(file.path());
        let mut watch = Self { plugin: Plugin::start(command), accounting: String::new(), _file: file };
        // First sights, and buffers that grow once.
        watch.gather()?;
        Ok(watch)
    }

    /// How it accounts, by what it says itself.
    pub fn accounting(&self) -> &str {
        &self.accounting
    }

    /// How often its threads have gone to sleep: the main thread, and the others.
    pub fn switches(&self) -> Result<[u64; 2]> {
        meter::switches(self.plugin.pid())
    }

    /// The line of the tree, and the plugin's own.
    fn gather(&mut self) -> Result<[String; 2]> {
        let mut lines = self.plugin.gather(2);
        lines.sort(); // psstat, taskstats_agent
        let [tree, own] = <[String; 2]>::try_from(lines).ok().context("not two lines")?;
        let accounting = own.split([',', ' ']).find_map(|tag| tag.strip_prefix("accounting="));
        self.accounting = accounting.context("no tag accounting")?.to_owned();
        Ok([tree, own])
    }

    pub fn read(&mut self, storm: &mut Storm) -> Result<Reading> {
        self.read_between(|| Ok((storm.forks()?, storm.charged())))
    }

    /// Without a storm.
    pub fn read_alone(&mut self) -> Result<Reading> {
        self.read_between(|| Ok((0.0, 0.0)))
    }

    fn read_between(&mut self, mut truth: impl FnMut() -> Result<(f64, f64)>) -> Result<Reading> {
        let before = truth()?;
        let [tree, own] = self.gather()?;
        let after = truth()?;
        let number = |line: &str, name| field(line, name)?.trim_end_matches('i').parse::<f64>().ok();
        let of_tree = |name| number(&tree, name).with_context(|| format!("no {name}: {tree}"));
        let pid = self.plugin.pid();
        let [rss_kib, peak_kib] = meter::rss_kib(pid)?;
        Ok(Reading {
            time: Instant::now(),
            forks: [before.0, after.0],
            charged: [before.1, after.1],
            cpu_time: of_tree("cpu_time")? / 1e9,
            p_cpu: number(&tree, "p_cpu"),
            started: of_tree("started")?,
            exited: of_tree("exited")?,
            alive: of_tree("n_proc")? + of_tree("n_zombie")?,
            lost: number(&own, "events_lost"),
            wakeups: number(&own, "wakeups"),
            main_cpu: meter::main_cpu(pid)?,
            switches: meter::switches(pid)?,
            rss_kib,
            peak_kib,
        })
    }
}

impl Reading {
    pub fn seconds_since(&self, first: &Self) -> f64 {
        (self.time - first.time).as_secs_f64()
    }

    /// The least and the most that it can have been between the two gathers.
    pub fn charged_since(&self, first: &Self) -> (f64, f64) {
        (self.charged[0] - first.charged[1], self.charged[1] - first.charged[0])
    }

    /// The same of forks.
    pub fn forks_between(&self, first: &Self) -> (f64, f64) {
        (self.forks[0] - first.forks[1], self.forks[1] - first.forks[0])
    }

    pub fn forks_since(&self, first: &Self) -> f64 {
        self.forks[1] - first.forks[1]
    }

    pub fn started_since(&self, first: &Self) -> f64 {
        self.started - first.started
    }

    pub fn exited_since(&self, first: &Self) -> f64 {
        self.exited - first.exited
    }

    pub fn lost_since(&self, first: &Self) -> Option<f64> {
        Some(self.lost? - first.lost?)
    }

    pub fn wakeups_since(&self, first: &Self) -> Option<f64> {
        Some(self.wakeups? - first.wakeups?)
    }

    /// The cores that the main thread used.
    pub fn main_cpu_since(&self, first: &Self) -> f64 {
        (self.main_cpu - first.main_cpu).as_secs_f64() / self.seconds_since(first)
    }

    pub fn main_switches_since(&self, first: &Self) -> f64 {
        (self.switches[0] - first.switches[0]) as f64
    }

    /// Whether anything is less that may only grow.
    pub fn falls_after(&self, before: &Self) -> bool {
        let counters = |reading: &Self| [reading.cpu_time, reading.started, reading.exited];
        let told = |reading: &Self| [reading.lost, reading.wakeups];
        let falls = |(now, before): (f64, f64)| now < before;
        counters(self).into_iter().zip(counters(before)).any(falls)
            || told(self).into_iter().zip(told(before)).filter_map(|(now, before)| now.zip(before)).any(falls)
    }

    /// A line of the table.
    pub fn since(&self, before: &Self) -> String {
        let seconds = self.seconds_since(before);
        let charged = (self.charged[1] - before.charged[1]) / seconds;
        let reported = (self.cpu_time - before.cpu_time) / seconds;
        let told = |number: Option<f64>| number.map_or("-".to_owned(), |number| or_unknown(Some(number)));
        format!(
            "{seconds:8.1}{:10.0}{charged:10.3}{reported:12.3}{:>9}{:>9}{:>7}{:>10}{:10.0}{:10.0}{:9}",
            self.forks_since(before) / seconds,
            told(self.p_cpu),
            told(Some(self.main_cpu_since(before))),
            told(self.lost_since(before)),
            told(self.wakeups_since(before)),
            self.started_since(before),
            self.exited_since(before),
            self.rss_kib
        )
    }
}
