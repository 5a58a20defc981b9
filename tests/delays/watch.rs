//! The plugin, watching puppets: a gather is all its lines, however many those are.

use std::ops::AddAssign;

use tempfile::NamedTempFile;

use crate::support::{Plugin, command, field};

/// A series that is written last, of which every gather has one line.
const LAST: &str = "psstat,process_name=zz";

/// What the plugin is asked for.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub collect: &'a str,
    pub scope: &'a str,
    /// Of `[[inputs.taskstats]]`, in TOML.
    pub options: &'a str,
}

impl Default for Asked<'_> {
    fn default() -> Self {
        Self { collect: "taskstat,procstat,procmaps,thread", scope: "process", options: "" }
    }
}

/// A plugin that watches processes.
pub struct Watch {
    plugin: Plugin,
    _configuration: NamedTempFile,
}

impl Watch {
    /// Begins to watch the trees of `pids`, the first of them under the name "w". It is primed when this returns.
    pub fn begin(asked: Asked, pids: &[u32]) -> Self {
        let names = ["w", "x", "y"];
        let targets = pids.iter().zip(names).map(|(pid, name)| format!("pid = {pid}\nname = \"{name}\"\n"));
        Self::begin_targets(asked, &targets.collect::<Vec<_>>(), pids[0])
    }

    /// The same with targets in TOML; `pid` is any process that is there.
    pub fn begin_targets(asked: Asked, targets: &[String], pid: u32) -> Self {
        let Asked { collect, scope, options } = asked;
        let collect = collect.replace(',', "\", \"");
        let mut text = format!("[[inputs.taskstats]]\n{options}\n");
        for target in targets {
            text += "[[inputs.taskstats.target]]\n";
            text += &format!("{target}collect = [\"{collect}\"]\nscope = \"{scope}\"\n");
        }
        text += "[[inputs.taskstats.target]]\nname = \"zz\"\npsstat_fields = [\"n_proc\"]\ncollect = [\"psstat\"]\n";
        text += &format!("pid = {pid}\n");
        let configuration = NamedTempFile::new().unwrap();
        std::fs::write(configuration.path(), text).unwrap();
        let mut command = command();
        command.arg("--config").arg(configuration.path());
        let mut watch = Self { plugin: Plugin::start(command), _configuration: configuration };
        watch.gather();
        watch
    }

    pub fn gather(&mut self) -> Lines {
        self.plugin.prompt();
        let mut lines = Vec::new();
        loop {
            let line = self.plugin.line();
            if line.starts_with(LAST) {
                return Lines(lines);
            }
            lines.push(line);
        }
    }

    /// Ends it; its warnings.
    pub fn end(self) -> Vec<String> {
        let (status, rest, stderr) = self.plugin.stop();
        assert!(status.success() && rest.is_empty(), "{status}: {rest:?}, {stderr:?}");
        stderr
    }
}

/// Each number is not less than the kernel's before the gather and not more than after it.
pub fn assert_between<const N: usize>(before: [u64; N], reported: [u64; N], after: [u64; N]) {
    let is_between = |index| (before[index]..=after[index]).contains(&reported[index]);
    assert!((0..N).all(is_between), "{reported:?} is not between {before:?} and {after:?}");
}

/// The lines of a gather, without the last.
#[derive(Debug)]
pub struct Lines(pub Vec<String>);

impl Lines {
    /// The line of a measurement that has all these tags, if there is one.
    pub fn line(&self, measurement: &str, tags: &[(&str, &str)]) -> Option<&str> {
        let has = |line: &str| {
            let mut words = line.split(' ').next().unwrap().split(',');
            words.next() == Some(measurement) && {
                let there: Vec<_> = words.collect();
                tags.iter().all(|(key, value)| there.contains(&format!("{key}={value}").as_str()))
            }
        };
        let mut found = self.0.iter().filter(|line| has(line)).map(String::as_str);
        let first = found.next();
        assert_eq!(found.next(), None, "{measurement} twice: {self:?}");
        first
    }

    /// Fields of the one line of this measurement.
    pub fn fields<const N: usize>(&self, measurement: &str, fields: [&str; N]) -> [u64; N] {
        self.fields_of(measurement, &[], fields)
    }

    pub fn fields_of<const N: usize>(&self, measurement: &str, tags: &[(&str, &str)], fields: [&str; N]) -> [u64; N] {
        let line = self.line(measurement, tags).unwrap_or_else(|| panic!("no {measurement} {tags:?}: {self:?}"));
        fields.map(|name| integer(line, name).unwrap_or_else(|| panic!("no {name}: {line}")))
    }

    /// The schedstat of a nice value: ns on a CPU, ns of waiting for one, times on a CPU.
    pub fn nice(&self, nice: i32) -> [u64; 3] {
        self.fields_of("thread", &[("nice", &nice.to_string())], SCHEDSTAT)
    }
}

/// The fields of `thread` that are numbers of schedstat.
pub const SCHEDSTAT: [&str; 3] = ["schedstat_oncpu", "schedstat_waiting", "schedstat_slices"];

fn integer(line: &str, name: &str) -> Option<u64> {
    field(line, name)?.strip_suffix('i')?.parse().ok()
}

/// Number by number.
pub fn sum<const N: usize>(all: impl IntoIterator<Item = [u64; N]>) -> [u64; N] {
    let mut total = [0; N];
    for numbers in all {
        total.iter_mut().zip(numbers).for_each(|(total, number)| total.add_assign(number));
    }
    total
}

/// Number by number, what grew.
pub fn growth<const N: usize>(from: [u64; N], to: [u64; N]) -> [u64; N] {
    std::array::from_fn(|index| {
        to[index].checked_sub(from[index]).unwrap_or_else(|| panic!("a counter fell: {from:?}, {to:?}"))
    })
}
