//! The plugin, as one of those who watch a workload.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Instant;

use tempfile::NamedTempFile;

use crate::cgroup::readable;
use crate::support::{self, Plugin, PublicBinary, field};
use crate::verdict::Reading;

#[path = "../support/events.rs"]
mod events;
use events::why_no_events;

/// How a workload is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As root, who is told of every birth and of what each process had used when it exited.
    Events,
    /// As root, by scans of /proc alone.
    Scan,
    /// As an ordinary user, who is told of births and exits since Linux 6.6, but not of what was used.
    Ordinary,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::Events, Self::Scan, Self::Ordinary];

    /// The ways that this machine allows; says so if that is not all of them.
    pub fn possible() -> Vec<Self> {
        let missing = why_no_events();
        if let Some(reason) = &missing {
            support::skip(&format!("exit records are not to be had: {reason}"));
        }
        Self::ALL.into_iter().filter(|way| *way != Self::Events || missing.is_none()).collect()
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Events => "root, by events",
            Self::Scan => "root, by scans",
            Self::Ordinary => "an ordinary user",
        }
    }

    /// What the tag `accounting` of the plugin's own line may say.
    fn told(self) -> &'static [&'static str] {
        match self {
            Self::Events => &["events"],
            Self::Scan => &["scan"],
            Self::Ordinary => &["connector", "scan"],
        }
    }
}

/// What is watched.
pub struct Target {
    /// Empty if it is to be named by what is found: then it has all series.
    pub name: String,
    /// As the configuration has it.
    pub selector: String,
}

/// A plugin that watches targets in one way, and what it has reported of each.
pub struct Watcher {
    pub way: Way,
    plugin: Plugin,
    targets: Vec<String>,
    /// By target, in the order in which they were given.
    pub readings: Vec<Vec<Reading>>,
    /// Of a target that has no name.
    sum: Sum,
    /// Read as long as the plugin may.
    _configuration: NamedTempFile,
    /// What it says of how it accounts, and how often it lost events.
    told: (String, String),
}

impl Watcher {
    pub fn start(way: Way, targets: &[Target], collect: &[&str], public: &PublicBinary) -> Self {
        let configuration = configuration(targets, collect);
        let mut command = match way {
            Way::Events | Way::Scan => support::command(),
            Way::Ordinary => public.command_as_ordinary_user(),
        };
        command.arg("--config").arg(configuration.path());
        // The others have what is there by default.
        if way == Way::Scan {
            command.args(["--accounting", "scan"]);
        }
        Self {
            way,
            plugin: Plugin::start(command),
            targets: targets.iter().map(|target| target.name.clone()).collect(),
            readings: targets.iter().map(|_| Vec::new()).collect(),
            sum: Sum::default(),
            _configuration: configuration,
            told: (String::new(), String::new()),
        }
    }

    /// One gather: the lines of each target, and the plugin's own, which is the last.
    pub fn gather(&mut self) -> Answer {
        self.plugin.prompt();
        let mut lines = vec![self.plugin.line()];
        while lines.last().is_none_or(|line| !line.starts_with("taskstats_agent,")) {
            lines.push(self.plugin.line());
        }
        let answer = Answer(lines);
        let own = answer.line("taskstats_agent,");
        let accounting = own.split([',', ' ']).find_map(|tag| tag.strip_prefix("accounting="));
        self.told = (accounting.unwrap().into(), field(own, "events_lost").unwrap_or("no idea how often").into());
        answer
    }

    /// One gather that counts; `charged` is asked before and after what each target had been charged.
    pub fn read(&mut self, charged: impl Fn() -> Vec<f64>) {
        let before = charged();
        let asked = Instant::now();
        let answer = self.gather();
        let took = asked.elapsed().as_secs_f64();
        let after = charged();
        for (index, target) in self.targets.iter().enumerate() {
            let mut reading = if target.is_empty() {
                self.sum.take_in(&answer);
                Reading::of_all(before[index], &answer, &self.sum, after[index])
            } else {
                Reading::new(before[index], &answer, target, after[index])
            };
            reading.took = took;
            self.readings[index].push(reading);
        }
    }

    /// How it accounts, and if that is not how it should, that it is wrong: then there is no need to wonder about the
    /// rest.
    pub fn accounting(&self) -> Result<String, String> {
        let (accounting, lost) = &self.told;
        let text = format!("accounting={accounting}, events lost: {lost}");
        let expected = self.way.told();
        if expected.contains(&accounting.as_str()) {
            Ok(text)
        } else {
            Err(format!("{text}; IT SHOULD BE {}", expected.join(" OR ").to_uppercase()))
        }
    }

    /// Whether it is told of births, by what it says itself.
    pub fn knows_births(&self) -> bool {
        self.told.0 != "scan"
    }
}

/// A configuration with these targets, which any user can read.
fn configuration(targets: &[Target], collect: &[&str]) -> NamedTempFile {
    let mut text = "[[inputs.taskstats]]\nself_stats = true\npsstat_fields = [\"all\"]\n".to_owned();
    writeln!(text, "collect = {collect:?}").unwrap();
    for Target { name, selector } in targets {
        writeln!(text, "[[inputs.taskstats.target]]\n{selector}").unwrap();
        if !name.is_empty() {
            writeln!(text, "name = \"{name}\"").unwrap();
        }
    }
    readable(&text)
}

/// What all series of psstat have reported together. Those that are there no more keep what they had.
#[derive(Default)]
pub struct Sum(BTreeMap<String, f64>);

impl Sum {
    fn take_in(&mut self, answer: &Answer) {
        self.0.extend(answer.psstat("cpu_time"));
    }

    /// ns.
    pub fn cpu_time(&self) -> f64 {
        self.0.values().sum()
    }
}

/// The lines of one gather.
pub struct Answer(Vec<String>);

impl Answer {
    /// The line that begins so.
    pub fn line(&self, begin: &str) -> &str {
        let line = self.0.iter().find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("no line {begin}... in {self:?}", self = self.0))
    }

    /// A field of a measurement of a target.
    pub fn number(&self, measurement: &str, target: &str, name: &str) -> f64 {
        let number = self.find(measurement, target, name);
        number.unwrap_or_else(|| panic!("{name} of {target} is missing: {:?}", self.0))
    }

    /// The same, if it is there.
    pub fn find(&self, measurement: &str, target: &str, name: &str) -> Option<f64> {
        let line = self.line(&format!("{measurement},process_name={target} "));
        field(line, name).and_then(|text| text.trim_end_matches('i').parse().ok())
    }

    /// Name and a field of each series of psstat.
    pub fn psstat(&self, name: &str) -> impl Iterator<Item = (String, f64)> {
        let series = self.0.iter().filter_map(|line| line.strip_prefix("psstat,process_name=")?.split(' ').next());
        series.map(move |series| (series.to_owned(), self.number("psstat", series, name)))
    }

    /// The timestamp, in seconds.
    pub fn time(&self) -> f64 {
        let time = self.0[0].rsplit(' ').next().and_then(|time| time.parse::<f64>().ok());
        time.unwrap_or_else(|| panic!("no timestamp: {}", self.0[0])) / 1e9
    }
}
