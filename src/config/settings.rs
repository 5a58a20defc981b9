//! Files and flags, validated and put together.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, bail};
use toml::Spanned;

use super::file::{self, ConfigFile, Instance, TargetTable};
use super::values::{AccountBy, Bytes, Fields, Interval, Measurements, Named, TagKey, ThreadMax};
use crate::cache::{CacheFile, digest_of};
use crate::cli::Arguments;
use crate::collect::Bounds;
use crate::encode::{Tags, clean};
use crate::log::{Level, say};
use crate::output::{Measurement, Output, PsstatField, Scope, Wanted};
use crate::points::{NICE, PID};
use crate::select::{Filters, PidDir, PidFile, Source, Target, User};

/// Validated settings.
#[derive(Debug)]
pub struct Settings {
    /// `/proc`.
    pub proc_root: PathBuf,
    /// `/sys`.
    pub sys_root: PathBuf,
    /// Way to learn which processes exist.
    pub accounting: AccountBy,
    /// The clock to gather by, if it is not prompted.
    pub interval: Option<Duration>,
    /// The cache file, if there is to be one.
    pub cache: Option<CacheFile>,
    /// Limits to the cost of collectors.
    pub bounds: Bounds,
    /// The tags of the line about the plugin itself, if there is to be one.
    pub self_stats: Option<Tags>,
    /// The targets to gather.
    pub targets: Vec<Target>,
    /// Changes with the targets: a cache file of other targets is of no use.
    pub digest: u64,
}

impl Settings {
    /// Reads the files that the command line names and puts them together with its flags.
    ///
    /// # Errors
    /// A file cannot be read or is wrong: the message names file, line, key and remedy.
    pub fn load(arguments: &Arguments) -> anyhow::Result<Self> {
        let files = arguments.config.iter().map(|path| file::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
        let files: Vec<ConfigFile> = files.into_iter().flatten().collect();
        let one = |key| One { files: &files, key };
        let interval = one("interval").of(arguments.interval, |i| i.interval)?;
        let interval = interval.and_then(|Interval(period)| period).filter(|_| !arguments.once);
        let cache_dir = one("cache_dir").of(arguments.cache_dir.clone(), |i| i.cache_dir.clone())?;
        let cache_name = one("cache_name").of(arguments.cache_name.clone(), |i| i.cache_name.clone())?;
        let cache_name = cache_name.map_or_else(|| "telegraf-taskstats".to_owned(), |name| name.0);
        let directory = cache_dir.filter(|directory| !directory.as_os_str().is_empty());
        let proc_root = one("proc_root").of(arguments.proc_root.clone(), |i| i.proc_root.clone())?;
        let sys_root = one("sys_root").of(arguments.sys_root.clone(), |i| i.sys_root.clone())?;
        let accounting = one("accounting").of(arguments.accounting, |i| i.accounting)?.unwrap_or_default();
        let bounds = bounds(&files)?;
        let self_stats = one("self_stats").of(None, |i| i.self_stats)?;
        let flags = Flags { arguments, alone: interval.is_some() };
        // What flags select, and what is selected if nothing is, is written as the first instance says.
        let default = Instance::default();
        let first = files.iter().flat_map(|file| &file.instances).map(Spanned::as_ref).next().unwrap_or(&default);
        let targets = targets(&flags, &files, first)?;
        let self_stats = self_stats.filter(|wanted| *wanted).map(|_| flags.output(first)).transpose()?;
        let proc_root = proc_root.unwrap_or_else(|| from_environment("HOST_PROC", "/proc"));
        let sys_root = sys_root.unwrap_or_else(|| from_environment("HOST_SYS", "/sys"));
        if directory.is_none() && arguments.cache_name.is_some() {
            say(Level::Warning, "--cache-name does nothing without --cache-dir: no cache file is kept");
        }
        Ok(Self {
            interval,
            cache: directory.map(|directory| CacheFile { directory, name: cache_name }),
            digest: digest_of(format!("{proc_root:?}{sys_root:?}{targets:?}").as_bytes()),
            proc_root,
            sys_root,
            accounting,
            bounds,
            self_stats: self_stats.map(|output| output.tags),
            targets,
        })
    }
}

fn bounds(files: &[ConfigFile]) -> anyhow::Result<Bounds> {
    let default = Bounds::default();
    let one = |key| One { files, key };
    let max_rss = one("procmaps_max_rss").of(None, |i| i.procmaps_max_rss)?;
    let interval = one("procmaps_interval").of(None, |i| i.procmaps_interval)?;
    let all_nice = one("thread_all_nice").of(None, |i| i.thread_all_nice)?;
    let max = one("thread_max").of(None, |i| i.thread_max)?;
    Ok(Bounds {
        procmaps_max_rss: max_rss.map_or(default.procmaps_max_rss, |Bytes(bytes)| bytes),
        procmaps_interval: interval.and_then(|Interval(period)| period).unwrap_or(default.procmaps_interval),
        thread_all_nice: all_nice.unwrap_or(default.thread_all_nice),
        thread_max: max.map_or(default.thread_max, |ThreadMax(count)| count),
    })
}

fn from_environment(variable: &str, default: &str) -> PathBuf {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    value.map_or_else(|| PathBuf::from(default), PathBuf::from)
}

/// A setting of the whole plugin: a flag, or what the files say of it, which must be the same in each that does.
struct One<'a> {
    files: &'a [ConfigFile],
    key: &'a str,
}

impl One<'_> {
    fn of<T: PartialEq>(&self, flag: Option<T>, get: impl Fn(&Instance) -> Option<T>) -> anyhow::Result<Option<T>> {
        let mut found: Option<(T, &ConfigFile)> = None;
        for file in self.files {
            for value in file.instances.iter().filter_map(|instance| get(instance.as_ref())) {
                match &found {
                    Some((first, at)) if *first != value => bail!(
                        "{} is set in {} and otherwise in {}: it is one for the whole plugin, set it once",
                        self.key,
                        at.path.display(),
                        file.path.display()
                    ),
                    Some(_) => {}
                    None => found = Some((value, file)),
                }
            }
        }
        Ok(flag.or(found.map(|(value, _)| value)))
    }
}

fn targets(flags: &Flags, files: &[ConfigFile], first: &Instance) -> anyhow::Result<Vec<Target>> {
    let mut written = Vec::new();
    for file in files {
        let at = |span: Range<usize>, error: anyhow::Error| anyhow!("{}: {error}", file.place(span.start));
        for spanned in &file.instances {
            let instance = spanned.as_ref();
            let output = flags.output(instance).map_err(|error| at(spanned.span(), error))?;
            for table in &instance.target {
                written.push(flags.target(table.as_ref(), instance, &output).map_err(|error| at(table.span(), error))?);
            }
        }
    }
    let mut targets = flags.targets(first)?;
    targets.extend(written);
    if targets.is_empty() {
        let output = flags.output(first)?;
        targets.push(Target::new("services".to_owned(), None, Source::Services, Filters::default(), output));
    }
    Ok(targets)
}

/// The command line's part in it.
struct Flags<'a> {
    arguments: &'a Arguments,
    /// The plugin runs without Telegraf, which would add a host tag.
    alone: bool,
}

impl Flags<'_> {
    /// Returns the output of an instance's series; flags override it.
    fn output(&self, instance: &Instance) -> anyhow::Result<Output> {
        let name_tag = self.arguments.name_tag.as_ref().or(instance.name_tag.as_ref());
        let fields = self.arguments.psstat_fields.as_ref().or(instance.psstat_fields.as_ref());
        let mut tags = Tags::default();
        if self.alone && instance.omit_hostname != Some(true) {
            let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
            tags.set("host", instance.hostname.as_ref().filter(|name| !name.is_empty()).unwrap_or(&own));
        }
        for (key, value) in &instance.tags {
            tags.set(&key.0, value);
        }
        for tag in &self.arguments.tag {
            tags.set(&tag.key.0, &tag.value);
        }
        if let Some(host) = &self.arguments.host {
            tags.set("host", host);
        }
        let name_tag = name_tag.map_or_else(|| "process_name".to_owned(), |key| clean(&key.0));
        let collect = self.wanted(instance, &TargetTable::default());
        let output = Output { name_tag, tags, collect, psstat_fields: fields_or(fields, &PsstatField::DEFAULT) };
        refuse_clashes(&output)?;
        Ok(output)
    }

    /// The measurements wanted of a target, in its scope: as it says, else as flags or the instance do.
    fn wanted(&self, instance: &Instance, table: &TargetTable) -> Vec<Wanted> {
        let flag = Some(&self.arguments.collect).filter(|list| !list.is_empty());
        let list = |measurements: &Option<Measurements>| measurements.as_ref().map(|Measurements(list)| list.clone());
        let collect = list(&table.collect).or(flag.cloned()).or(list(&instance.collect));
        let collect = collect.unwrap_or_else(|| vec![Measurement::Psstat]);
        let scope = table.scope.or(self.arguments.scope).or(instance.scope).unwrap_or_default();
        collect.into_iter().map(|measurement| Wanted::new(measurement, scope)).collect()
    }

    /// The targets that flags select, as an instance says where flags do not.
    fn targets(&self, instance: &Instance) -> anyhow::Result<Vec<Target>> {
        let output = self.output(instance)?;
        let Arguments { pid, pid_file, pid_dir, pattern, systemd, .. } = self.arguments;
        let table = |name: &Option<String>| TargetTable { name: name.clone(), ..TargetTable::default() };
        let pids = pid.iter().map(|Named { name, value }| TargetTable { pid: Some(*value), ..table(name) });
        let pid_files =
            pid_file.iter().map(|Named { name, value }| TargetTable { pid_file: Some(value.clone()), ..table(name) });
        let pid_dirs = pid_dir.iter().map(|path| TargetTable { pid_dir: Some(path.clone()), ..table(&None) });
        let patterns =
            pattern.iter().map(|Named { name, value }| TargetTable { pattern: Some(value.clone()), ..table(name) });
        let units = systemd
            .iter()
            .map(|Named { name, value }| TargetTable { systemd_unit: Some(value.clone()), ..table(name) });
        let tables = pids.chain(pid_files).chain(pid_dirs).chain(patterns).chain(units);
        tables.map(|table| self.target(&table, instance, &output)).collect()
    }

    /// Validates one target.
    fn target(&self, table: &TargetTable, instance: &Instance, defaults: &Output) -> anyhow::Result<Target> {
        let mut output = defaults.clone();
        if let Some(TagKey(key)) = &table.name_tag {
            output.name_tag = clean(key);
        }
        output.collect = self.wanted(instance, table);
        output.psstat_fields = fields_or(table.psstat_fields.as_ref(), &output.psstat_fields);
        for (key, value) in &table.tags {
            output.tags.set(&key.0, value);
        }
        refuse_clashes(&output)?;
        refuse_empty(table)?;
        let filters = Filters {
            pattern: table.pattern.clone(),
            cmdline: table.cmdline.clone(),
            exe: table.exe.clone(),
            user: table.user.clone().map(User::new),
        };
        let (label, source) = source(table, instance, &filters)?;
        Ok(Target::new(label, table.name.clone(), source, filters, output))
    }
}

fn refuse_empty(table: &TargetTable) -> anyhow::Result<()> {
    let is_empty = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new(""));
    let empty = [
        ("name", table.name.as_ref().is_some_and(|name| clean(name).is_empty())),
        ("pid_file", is_empty(&table.pid_file)),
        ("pid_dir", is_empty(&table.pid_dir)),
        ("user", table.user.as_deref() == Some("")),
    ];
    match empty.iter().find(|(_, is_empty)| *is_empty) {
        Some((key, _)) => bail!("{key} is empty: give one, or leave it out"),
        None => Ok(()),
    }
}

fn fields_or(fields: Option<&Fields>, default: &[PsstatField]) -> Vec<PsstatField> {
    fields.map_or_else(|| default.to_vec(), |Fields(fields)| fields.clone())
}

/// Refuses two tags with one name: one would hide the other.
fn refuse_clashes(output: &Output) -> anyhow::Result<()> {
    let Output { name_tag, tags, .. } = output;
    if tags.get(name_tag).is_some() {
        bail!("the tag {name_tag:?} holds the name of the target: set name, or another name_tag");
    }
    let of_processes = output.collect.iter().any(|wanted| wanted.scope == Scope::Process);
    let of_threads = output.collect.iter().any(|wanted| wanted.measurement == Measurement::Thread);
    let own = [(PID, of_processes, "a process"), (NICE, of_threads, "a nice value")];
    for (key, is_written, of) in own {
        if is_written && (tags.get(key).is_some() || name_tag == key) {
            bail!("the tag {key:?} is that of {of}: give yours another key");
        }
    }
    Ok(())
}

/// The one selector of a target, and what to call it.
fn source(table: &TargetTable, instance: &Instance, filters: &Filters) -> anyhow::Result<(String, Source)> {
    let stale = instance.pid_file_stale.unwrap_or_default();
    let mut sources = Vec::new();
    if let Some(pid) = table.pid {
        sources.push(("pid", pid.0.to_string(), Source::Pid(pid.0)));
    }
    if let Some(path) = &table.pid_file {
        sources.push(("pid_file", path.display().to_string(), Source::PidFile(PidFile::new(path.clone(), stale))));
    }
    if let Some(path) = &table.pid_dir {
        sources.push(("pid_dir", path.display().to_string(), Source::PidDir(PidDir::new(path.clone(), stale))));
    }
    if let Some(glob) = &table.systemd_unit {
        sources.push(("systemd_unit", glob.as_str().to_owned(), Source::SystemdUnit(glob.clone())));
    }
    if let Some(glob) = &table.cgroup {
        sources.push(("cgroup", glob.as_str().to_owned(), Source::Cgroup(glob.clone())));
    }
    if table.children_of_init == Some(true) {
        sources.push(("children_of_init", "children_of_init".to_owned(), Source::ChildrenOfInit));
    }
    if table.services == Some(true) {
        sources.push(("services", "services".to_owned(), Source::Services));
    }
    let keys: Vec<_> = sources.iter().map(|(key, _, _)| *key).collect();
    match (sources.pop(), sources.is_empty()) {
        (Some((_, label, source)), true) => Ok((label, source)),
        (Some(_), false) => bail!("a target has one of {}: make a target of each", keys.join(" and ")),
        (None, _) => match filters.label() {
            Some(label) => Ok((label, Source::All)),
            None => bail!(
                "this target selects nothing: give it a pid, pid_file, pid_dir, pattern, cmdline, exe, user, \
                 systemd_unit, cgroup, children_of_init or services"
            ),
        },
    }
}
