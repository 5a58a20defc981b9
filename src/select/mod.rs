//! Which processes: each target's selector finds roots, and their trees become series.
//!
//! Targets that would write the same line are one series: the union of their members.

mod cgroup;
mod children_of_init;
mod filter;
mod pid;
mod pid_dir;
mod pid_file;
mod services;
mod systemd_unit;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cgroup::CgroupGlob;
pub use filter::{ExeGlob, Filters, ProcessPattern, User};
pub use pid_dir::PidDir;
pub use pid_file::{PidFile, StalePolicy};
pub use systemd_unit::UnitGlob;
pub use tree::{Member, Picked, Root, Trees};

use serde::{Deserialize, Serialize};

use crate::encode::Tags;
use crate::host::Host;
use crate::kernel::clock::Clock;
use crate::kernel::pidfile::Pidfiles;
use crate::kernel::procfs::Proc;
use crate::kernel::stat::{Identity, Stat};
use crate::log::{Complaints, Trouble};
use crate::output::{Measurement, Output};
use crate::processes::Processes;

/// The pid of init.
const INIT: u32 = 1;

/// Where a target looks.
#[derive(Debug)]
pub enum Source {
    /// Every process; filters narrow it down.
    All,
    /// A pid.
    Pid(u32),
    /// The processes of a pidfile.
    PidFile(PidFile),
    /// The processes of each pidfile in a directory.
    PidDir(PidDir),
    /// The processes in the cgroups of systemd units.
    SystemdUnit(UnitGlob),
    /// The processes in cgroups.
    Cgroup(CgroupGlob),
    /// Each child of pid 1, grouped by comm.
    ChildrenOfInit,
    /// Each service of the host.
    Services,
}

/// A target: where it looks, what it matches there, and how its series are written.
#[derive(Debug)]
pub struct Target {
    /// Name in messages: the selector as written.
    pub label: String,
    /// The tags of its series, if it was given a name; else what is found names itself.
    tags: Option<Tags>,
    /// Where it looks.
    pub source: Source,
    /// Conditions that a selected process must meet besides.
    pub filters: Filters,
    /// Output of its series.
    pub output: Arc<Output>,
    /// The last name under which something was found, for a target that has no name of its own.
    last_name: Option<Arc<str>>,
}

/// State of a target that outlives a restart, besides its series.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// The last name under which something was found.
    last_name: Option<Arc<str>>,
    /// The processes that were accepted for each pidfile.
    accepted: BTreeMap<String, Vec<Identity>>,
}

/// Parts of the host that selectors look at.
pub struct View<'a> {
    /// The process table, just brought up to date.
    pub processes: &'a Processes,
    /// `/proc`, for what the table does not hold.
    pub proc: &'a mut Proc,
    /// Reader of pidfiles.
    pub pidfiles: &'a mut Pidfiles,
    /// `/sys`, below which cgroups are mounted.
    pub sys_root: &'a Path,
    /// The cgroup hierarchies, in the order in which they are asked.
    pub hierarchies: &'a [PathBuf],
    /// The wall clock and the time since boot.
    pub clock: &'a dyn Clock,
    /// This process, which never matches a filter; unknown where /proc is of another pid namespace.
    pub own_pid: Option<u32>,
    /// Part of the host could not be looked at for this target: a process that was not found may exist.
    pub incomplete: bool,
    /// Where to say what is wrong with a target.
    pub complaints: &'a mut Complaints,
}

impl View<'_> {
    /// Notes that some cgroups below a root could not be looked at.
    fn incomplete(&mut self, root: &Path, error: &std::io::Error) {
        self.incomplete = true;
        self.complaints.add(Trouble::of(error), format!("Some cgroups below {} are not seen: {error}", root.display()));
    }
}

/// Processes that a selector found under one name.
#[derive(Debug, Default)]
struct Found<'a> {
    /// The name it was found under; else each root's comm.
    name: Option<Arc<str>>,
    /// Roots: their trees are members.
    roots: Vec<&'a Stat>,
    /// Members without their trees.
    exact: Vec<&'a Stat>,
    /// Processes among them that were selected by themselves: each has lines of its own in scope "process".
    heads: Vec<Identity>,
    /// Cgroups whose processes these are, with the pids in each.
    cgroups: Vec<(PathBuf, Vec<u32>)>,
    /// A process exists that is hidden: its fields, and those of its tree, are unknown.
    hidden: bool,
    /// Part of the host could not be looked at: whether there is more is unknown.
    incomplete: bool,
    /// A process that was looked for does not exist now, and may come.
    awaited: bool,
}

impl Found<'_> {
    /// Takes in what was found under the same name.
    fn join(&mut self, other: Self) {
        self.roots.extend(other.roots);
        self.exact.extend(other.exact);
        self.heads.extend(other.heads);
        self.cgroups.extend(other.cgroups);
        self.hidden |= other.hidden;
        self.incomplete |= other.incomplete;
        self.awaited |= other.awaited;
    }
}

/// Selection for one series at one gather.
#[derive(Debug)]
pub struct Selected {
    /// Roots of trees, sorted by pid.
    pub roots: Vec<Picked>,
    /// Members without their trees, sorted by pid.
    pub exact: Vec<Picked>,
    /// The processes that were selected by themselves: the roots, and some of the others. Sorted by pid.
    pub ids: Vec<Identity>,
    /// Cgroups of the members, none within another, with the pids in each.
    pub cgroups: Vec<(PathBuf, Vec<u32>)>,
    /// A process of it exists that is hidden: the fields of its processes are unknown.
    pub hidden: bool,
    /// Part of the host could not be looked at: every field is unknown.
    pub incomplete: bool,
    /// Output of the series.
    pub output: Arc<Output>,
}

impl Target {
    /// A target that has found nothing so far.
    #[must_use]
    pub fn new(label: String, name: Option<String>, source: Source, filters: Filters, output: Output) -> Self {
        let tags = name.map(|name| output.tags_of(&name));
        Self { label, tags, source, filters, output: Arc::new(output), last_name: None }
    }

    /// Returns the selector as written.
    #[must_use]
    pub fn selector(&self) -> String {
        let key = match &self.source {
            Source::All => None,
            Source::Pid(_) => Some("pid"),
            Source::PidFile(_) => Some("pid_file"),
            Source::PidDir(_) => Some("pid_dir"),
            Source::SystemdUnit(_) => Some("systemd_unit"),
            Source::Cgroup(_) => Some("cgroup"),
            Source::ChildrenOfInit | Source::Services => Some(""), // the label says it
        };
        let source = key.map(|key| format!("{key} {}", self.label).trim_start().to_owned());
        let filters = self.filters.given().map(|(key, value)| format!("{key} {value}"));
        source.into_iter().chain(filters).collect::<Vec<_>>().join(", ")
    }

    /// Why it may have found nothing, if nothing is wrong.
    #[must_use]
    pub fn nothing(&self) -> &'static str {
        match &self.source {
            _ if !self.filters.are_empty() => "no process matches",
            Source::All | Source::Pid(_) | Source::ChildrenOfInit => "there is no such process",
            Source::PidFile(_) => "it names no process",
            Source::PidDir(_) => "there is no pidfile in it",
            Source::SystemdUnit(_) | Source::Services => "no such unit is running",
            Source::Cgroup(_) => "there is no such cgroup, or no process in it",
        }
    }

    /// Returns whether its matches depend on the matched processes and their pidfiles alone, as long as there are any.
    fn can_stand(&self) -> bool {
        matches!(self.source, Source::Pid(_) | Source::PidFile(_)) && self.filters.are_empty()
    }

    /// Returns whether it looks at cgroups.
    fn asks_for_cgroups(&self) -> bool {
        matches!(self.source, Source::SystemdUnit(_) | Source::Cgroup(_) | Source::Services)
    }

    /// The directory of pidfiles to watch.
    #[must_use]
    pub fn watched_directory(&self) -> Option<&Path> {
        match &self.source {
            Source::PidDir(directory) => Some(directory.path()),
            _ => None,
        }
    }

    /// Returns the state that outlives a restart.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let accepted = match &self.source {
            Source::PidFile(file) => BTreeMap::from([file.memory()]),
            Source::PidDir(directory) => directory.memory(),
            _ => BTreeMap::new(),
        };
        Memory { last_name: self.last_name.clone(), accepted }
    }

    /// Goes on from what an earlier one of the same selector remembered.
    pub fn remember(&mut self, memory: Memory) {
        self.last_name = memory.last_name;
        match &mut self.source {
            Source::PidFile(file) => file.remember(&memory.accepted),
            Source::PidDir(directory) => directory.remember(memory.accepted),
            _ => {}
        }
    }

    /// Finds this target's processes, by name. Not `complete` any more: some of what it looks for may be there unseen.
    fn find<'a>(&mut self, view: &mut View<'a>, complete: &mut bool) -> Vec<Found<'a>> {
        let mut found = match &mut self.source {
            Source::All => vec![all(view)],
            Source::Pid(pid) => vec![pid::find(*pid, view)],
            Source::PidFile(file) => vec![file.find(view)],
            Source::PidDir(directory) => directory.find(view),
            Source::SystemdUnit(glob) => glob.find(view),
            Source::Cgroup(glob) => glob.find(view),
            Source::ChildrenOfInit => children_of_init::find(view),
            Source::Services => services::find(view),
        };
        if !self.filters.are_empty() {
            for group in &mut found {
                // What is left of a cgroup is no cgroup: it is processes and their trees.
                group.roots.append(&mut group.exact);
                group.heads.clear();
                group.cgroups.clear();
                self.filters.narrow(&mut group.roots, view);
            }
        }
        let incomplete = std::mem::take(&mut view.incomplete);
        *complete &= !incomplete;
        self.give_names(found, incomplete)
    }

    /// Gives a name to each group of processes. For a target with a name everything found is one group. Else a group keeps
    /// its own name, or takes the comm of each root. A target that was written before and finds nothing is a group too,
    /// under its last name.
    fn give_names<'a>(&mut self, mut found: Vec<Found<'a>>, incomplete: bool) -> Vec<Found<'a>> {
        if self.tags.is_some() {
            let mut all = found.pop().unwrap_or_default();
            found.drain(..).for_each(|group| all.join(group));
            all.incomplete |= incomplete;
            found.push(all);
            return found;
        }
        let mut named = Vec::new();
        for mut group in found {
            group.incomplete |= incomplete && self.is_one();
            if group.hidden || group.incomplete {
                named.push(Found { name: group.name.clone().or_else(|| self.last_name.clone()), ..group });
            } else if group.name.is_some() {
                named.push(group);
            } else {
                named.extend(by_comm(group.roots));
            }
        }
        if named.is_empty() && self.is_one() {
            let name = self.last_name.clone().unwrap_or_else(|| self.label.as_str().into());
            named.push(Found { name: Some(name), incomplete, ..Found::default() });
        } else {
            self.last_name = named.last().and_then(|group| group.name.clone()).or_else(|| self.last_name.take());
        }
        named
    }

    /// Returns whether the target is one thing, for which the user expects a line at every gather, and not a directory or a
    /// glob of things that come and go.
    fn is_one(&self) -> bool {
        match &self.source {
            Source::All | Source::Pid(_) | Source::PidFile(_) => true,
            Source::SystemdUnit(glob) => glob.is_literal(),
            Source::Cgroup(glob) => glob.is_literal(),
            Source::PidDir(_) | Source::ChildrenOfInit | Source::Services => false,
        }
    }
}

/// Every process, for filters to narrow down.
fn all<'a>(view: &mut View<'a>) -> Found<'a> {
    if view.processes.get(INIT).is_none() && view.proc.is_hidden(INIT) {
        let root = view.proc.root().display();
        let hidden = format!("{root} hides processes of other users (hidepid), so no filter finds them");
        view.complaints.add(Trouble::Denied, format!("{hidden}; {}", pid::see_hidden()));
    }
    Found { roots: view.processes.iter().collect(), ..Found::default() }
}

fn by_comm(processes: Vec<&Stat>) -> Vec<Found<'_>> {
    let mut groups = BTreeMap::<String, Vec<&Stat>>::new();
    for process in processes {
        groups.entry(process.comm.to_text().into_owned()).or_default().push(process);
    }
    let groups = groups.into_iter();
    groups.map(|(comm, roots)| Found { name: Some(comm.into()), roots, ..Found::default() }).collect()
}

/// The measurements that are wanted of what targets find, or may find.
#[must_use]
pub fn measurements(targets: &[Target]) -> Vec<Measurement> {
    let wanted = targets.iter().flat_map(|target| &target.output.collect);
    let mut measurements: Vec<_> = wanted.map(|wanted| wanted.measurement).collect();
    measurements.sort_unstable();
    measurements.dedup();
    measurements
}

/// Returns whether a measurement is wanted of any process that targets find, or may find.
#[must_use]
pub fn wants(targets: &[Target], measurement: Measurement) -> bool {
    measurements(targets).contains(&measurement)
}

/// Result of all selectors at one gather.
#[derive(Debug)]
pub struct Selection {
    /// The selected processes of each series.
    pub series: BTreeMap<Tags, Selected>,
    /// Every part of the host could be looked at.
    pub complete: bool,
    /// Everything that was looked for was found, and stays the same for as long as the found processes and their pidfiles
    /// do.
    pub stands: bool,
}

/// Asks every target's selectors once.
pub fn select(
    targets: &mut [Target],
    processes: &Processes,
    host: &mut Host,
    complaints: &mut Complaints,
) -> Selection {
    let hierarchies = if targets.iter().any(Target::asks_for_cgroups) { host.hierarchies() } else { Vec::new() };
    let own_pid = host.proc.own_pid();
    host.pidfiles.begin_reading();
    let added = complaints.added();
    let mut stands = targets.iter().all(Target::can_stand);
    let view = &mut View {
        processes,
        proc: &mut host.proc,
        pidfiles: &mut host.pidfiles,
        sys_root: &host.sys_root,
        hierarchies: &hierarchies,
        clock: host.clock.as_ref(),
        own_pid,
        incomplete: false,
        complaints,
    };
    let mut complete = true;
    let mut series = BTreeMap::<Tags, Selected>::new();
    for target in targets {
        host.accounting.keep_up();
        for found in target.find(view, &mut complete) {
            let named = || target.output.tags_of(found.name.as_deref().unwrap_or(&target.label));
            let tags = target.tags.clone().unwrap_or_else(named);
            stands &= !found.hidden && !found.incomplete && !found.awaited;
            let selected = series.entry(tags).or_insert_with(|| Selected::none(Arc::clone(&target.output)));
            if selected.output != target.output {
                Arc::make_mut(&mut selected.output).join(&target.output);
            }
            selected.add(found);
        }
    }
    stands &= view.complaints.added() == added;
    for selected in series.values_mut() {
        selected.tidy();
    }
    Selection { series, complete, stands }
}

impl Selected {
    /// Nothing at all.
    fn none(output: Arc<Output>) -> Self {
        let (roots, exact, ids, cgroups) = Default::default();
        Self { roots, exact, ids, cgroups, hidden: false, incomplete: false, output }
    }

    fn add(&mut self, found: Found<'_>) {
        self.roots.extend(found.roots.iter().copied().map(Picked::from));
        self.exact.extend(found.exact.iter().copied().map(Picked::from));
        self.ids.extend(found.roots.iter().map(|stat| stat.id).chain(found.heads));
        self.cgroups.extend(found.cgroups);
        self.hidden |= found.hidden;
        self.incomplete |= found.incomplete;
    }

    /// A process counts once, and so does a cgroup: also one that lies in another.
    fn tidy(&mut self) {
        for picked in [&mut self.roots, &mut self.exact] {
            picked.sort_unstable();
            picked.dedup();
        }
        self.ids.sort_unstable();
        self.ids.dedup();
        self.cgroups.sort_unstable();
        let mut outermost: Vec<(PathBuf, Vec<u32>)> = Vec::new();
        for (path, pids) in self.cgroups.drain(..) {
            if !outermost.last().is_some_and(|(above, _)| path.starts_with(above)) {
                outermost.push((path, pids));
            }
        }
        self.cgroups = outermost;
    }

    /// Returns the members: the exact ones, the trees of the roots, and members of before that are still there. Where part
    /// of the host could not be looked at, every member of before that exists stays.
    #[must_use]
    pub fn members(&self, trees: &mut Trees, before: &[Member]) -> Vec<Member> {
        let mut members = trees.members(&self.roots, &self.exact, before);
        if self.incomplete {
            members.extend(before.iter().filter(|member| trees.processes.get_exactly(member.id).is_some()));
            members.sort_by_key(|member| member.id); // stable: one found now comes first
            members.dedup_by_key(|member| member.id);
        }
        members
    }

    /// The processes whose replacement by others is a restart.
    #[must_use]
    pub fn top(&self, members: &[Member]) -> Vec<Root> {
        tree::top(&self.roots, &self.exact, members)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kernel::clock::SystemClock;

    fn target(name: Option<&str>, unit: &str) -> Target {
        let glob = UnitGlob::try_from(unit.to_owned()).unwrap_or_else(|error| unreachable!("{error}"));
        let (tags, collect, psstat_fields) = Default::default();
        let output = Output { name_tag: "process_name".to_owned(), tags, collect, psstat_fields };
        let name = name.map(String::from);
        Target::new(unit.to_owned(), name, Source::SystemdUnit(glob), Filters::default(), output)
    }

    /// In a host of the processes 10 and 11, with pidfiles.
    #[test]
    fn what_stands_is_what_was_found_whole_and_can_change_only_by_what_is_told() {
        let [proc_root, files] = [0; 2].map(|_| tempfile::tempdir().unwrap());
        for pid in [10, 11] {
            let text = format!("{pid} (x) S 1 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 1 0 5 0 5\n");
            std::fs::create_dir(proc_root.path().join(pid.to_string())).unwrap();
            std::fs::write(proc_root.path().join(format!("{pid}/stat")), text).unwrap();
        }
        let file = |text: &str| {
            let path = files.path().join(text.replace('\n', "-"));
            std::fs::write(&path, text).unwrap();
            Source::PidFile(PidFile::new(path, StalePolicy::Warn))
        };
        let named_x = || Filters { pattern: "x".parse().ok(), ..Filters::default() };
        let cases = [
            ("a pid", Source::Pid(10), Filters::default(), true),
            ("a pid that is not there", Source::Pid(12), Filters::default(), false),
            ("a pidfile", file("10\n11\n"), Filters::default(), true),
            ("a pidfile of one that is not there", file("10\n12\n"), Filters::default(), false),
            ("a pidfile that is none", file("ten"), Filters::default(), false),
            ("no pidfile", Source::PidFile(PidFile::new("/none".into(), StalePolicy::Skip)), Filters::default(), false),
            ("a pid that must match", Source::Pid(10), named_x(), false),
            ("all that match", Source::All, named_x(), false),
            ("children of init", Source::ChildrenOfInit, Filters::default(), false),
        ];
        let mut host = Host::open(proc_root.path(), files.path(), Box::new(SystemClock), 0).unwrap();
        let mut processes = Processes::default();
        processes.scan(host.source.as_mut(), host.clock.boottime()).unwrap();
        for (what, source, filters, expected) in cases {
            let output = target(None, "x").output;
            let target = Target::new(what.into(), None, source, filters, Arc::unwrap_or_clone(output));
            let other = Target::new("10".into(), None, Source::Pid(10), Filters::default(), (*target.output).clone());
            let mut targets = [other, target];
            let selection = select(&mut targets, &processes, &mut host, &mut Complaints::default());
            assert_eq!(selection.stands, expected, "{what}");
        }
    }

    /// What stands for one thing is unknown when not everything could be looked at; of several things, those that were
    /// found are known.
    #[test]
    fn what_may_be_there_unseen_is_not_said_to_be_gone() {
        let found = || vec![Found { name: Some("nginx".into()), ..Found::default() }];
        let cases = [
            (target(None, "nginx"), found(), true),
            (target(Some("web"), "ng*"), found(), true),
            (target(Some("web"), "ng*"), Vec::new(), true),
            (target(None, "ng*"), found(), false),
        ];
        for (mut target, found, unknown) in cases {
            let label = target.label.clone();
            let named = target.give_names(found, true);
            assert!(named.len() == 1 && named.iter().all(|group| group.incomplete == unknown), "{label}: {named:?}");
        }
    }
}
