//! The agent: one gather, and the only owner of the state that is kept from gather to gather.
//!
//! ```text
//! trigger → refresh → select → read → collect → settle → render → write
//! ```
//!
//! A selection stands until something happens to its members, and the series rest while all of these sleep.

mod reload;
mod run;
mod settle;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use crate::accounting::{Accounting, KeepsUp};
use crate::cache::Cache;
use crate::collect::{Collectors, Look, Plan, Samples};
use crate::config::Settings;
use crate::encode::{Lines, Tags};
use crate::host::Host;
use crate::log::{Complaints, Trouble};
use crate::output::Measurement;
use crate::points::{self, Sources};
use crate::processes::Processes;
use crate::select::{Member, Selection, Target, measurements, select, wants};
use crate::self_stats;
use crate::series::Series;
use crate::trigger::PRIMING;
pub use run::run;

/// Most looks until the base is taken, however many processes exit while they are read.
const BASE_LOOKS_MAX: usize = 10;

/// Everything the plugin knows.
pub struct Agent {
    host: Host,
    targets: Vec<Target>,
    processes: Processes,
    collectors: Collectors,
    series: BTreeMap<Tags, Series>,
    /// CPU and memory of the members at the last gather; kept only while all of them sleep.
    samples: Samples,
    /// The selection of the last gather, if only events can change it.
    standing: Option<Standing>,
    /// Tags of the line about the plugin itself, if it is written.
    self_stats: Option<Tags>,
    complaints: Complaints,
    cache: Option<Cache>,
    /// CLOCK_MONOTONIC (ns) of the last gather. `None` before the base: no process that exists at the next one counts as new.
    gathered: Option<u64>,
    /// Length of the lines of the last gather, bytes: those of the next will be about as long.
    length: usize,
}

/// A selection that only events can change.
struct Standing {
    selection: Selection,
    plan: Plan,
    /// Nothing had happened at the last gather, and nothing was wrong. That one still settled what was expected and forgot exited
    /// members: if nothing has happened since, the series are as it left them.
    is_at_rest: bool,
}

/// Returns the warning about processes that exist and cannot be read.
fn unreadable(error: &io::Error) -> String {
    let known = "those known from before count as they were, the others do not count";
    format!("Some processes cannot be read; {known}: {error}")
}

impl Agent {
    /// An agent for these settings, going on from the cache file if there is one.
    #[must_use]
    pub fn new(settings: Settings, host: Host) -> Self {
        let cache = settings.cache.and_then(|file| Cache::open(&file, &host, settings.digest));
        let mut agent = Self {
            host,
            targets: settings.targets,
            processes: Processes::default(),
            collectors: Collectors::new(settings.bounds),
            series: BTreeMap::new(),
            samples: Samples::default(),
            standing: None,
            self_stats: settings.self_stats,
            complaints: Complaints::default(),
            cache: None,
            gathered: None,
            length: 0,
        };
        if let Some((cache, state)) = cache {
            agent.cache = Some(cache);
            agent.resume(state);
        }
        agent
    }

    /// Takes the base of all counters, unless a cache file has it. Returns when the first gather can have rates and PSS.
    pub fn prime(&mut self) -> Instant {
        let resumed = self.gathered.is_some();
        let wants_procmaps = wants(&self.targets, Measurement::Procmaps);
        match self.gathered {
            None => {
                self.gathered = self.take_base();
                self.collectors.busiest.begin_interval(self.gathered.unwrap_or_default());
                self.complaints.say_changes();
            }
            Some(_) if wants_procmaps => self.observe(),
            Some(_) => return Instant::now(),
        }
        if resumed && !self.collectors.procmaps.is_pending() {
            return Instant::now();
        }
        Instant::now() + PRIMING
    }

    /// Looks at least twice: the last look is the base. A process that exits between being listed and being read is charged to its parent,
    /// perhaps after that was read: a charge for CPU from before the start. How much that is shows only if the process was read at the look
    /// before.
    fn take_base(&mut self) -> Option<u64> {
        self.observe();
        let mut looks = 1;
        loop {
            self.series.clear();
            self.processes.resume([None; 3]);
            let at = self.look();
            looks += 1;
            if looks == BASE_LOOKS_MAX || !self.processes.has_missed() {
                return at;
            }
            self.complaints.take_back();
        }
    }

    /// Looks at the processes between two gathers, without warnings: a pidfile that was just created and not written yet may be right at
    /// the next gather.
    fn observe(&mut self) {
        self.look();
        self.complaints.take_back();
    }

    /// Gathers once. Returns the lines.
    pub fn gather(&mut self) -> Vec<u8> {
        let (realtime, begun) = (self.host.clock.realtime(), self.host.clock.monotonic());
        let (mut lines, mut processes) = (Lines::at(realtime, self.length), 0);
        if let Some(at) = self.look() {
            self.write_lines(&mut lines, at);
            processes = self.samples.count();
            self.gathered = Some(at);
            if !self.standing.as_ref().is_some_and(|standing| standing.is_at_rest) {
                self.samples = Samples::default(); // of thousands they are half a megabyte
            }
        }
        self.host.accounting.complain(&mut self.complaints);
        self.save();
        if let Some(tags) = &self.self_stats {
            let gather = self_stats::Gather {
                time: self.host.clock.monotonic().saturating_sub(begun),
                targets: self.targets.len(),
                processes,
                accounting: self.host.accounting.name(),
                events: self.host.accounting.event_stats(),
            };
            self_stats::write(&mut lines, tags, gather, &self.complaints);
        }
        self.complaints.say_changes();
        let lines = lines.into_bytes();
        self.length = lines.len();
        lines
    }

    /// Selects, samples and accounts. Returns the middle of the time in which the members were read, CLOCK_MONOTONIC (ns). `None`: `/proc`
    /// could not be listed, and nothing has changed.
    fn look(&mut self) -> Option<u64> {
        let begun = self.host.clock.monotonic();
        self.refresh()?;
        let scan = (begun, self.host.clock.monotonic());
        let is_undisturbed =
            self.host.pidfiles.begin_gather(self.host.clock.realtime()) && !self.processes.has_changed();
        let (selection, plan, was_at_rest, members) = match self.standing.take().filter(|_| is_undisturbed) {
            Some(Standing { selection, plan, is_at_rest }) => (selection, plan, is_at_rest, None),
            None => {
                let (selection, plan, members) = self.select();
                (selection, plan, false, Some(members))
            }
        };
        let begun = self.host.clock.monotonic();
        self.read(&plan);
        // The steps before can take as long as an interval: in a storm thousands start, and others have the CPUs.
        let (begun, ended) = if self.processes.is_scanned() { scan } else { (begun, self.host.clock.monotonic()) };
        let at = u64::midpoint(begun, ended);
        let all_rest = members.is_none() && plan.is_of_cpu_and_memory() && self.processes.are_idle();
        if all_rest && was_at_rest {
            self.series.values_mut().for_each(|series| series.rest(at));
        } else {
            let mut members = members.unwrap_or_else(|| self.members_as_before(&selection.series));
            let vanished = self.take_vanished(&mut members);
            self.collect(&plan, at);
            self.settle(&selection.series, members.into_iter().zip(vanished), at);
            self.end_unselected(selection.complete, at);
        }
        self.processes.end_gather();
        let is_at_rest = all_rest && self.complaints.is_empty();
        self.standing = selection.stands.then_some(Standing { selection, plan, is_at_rest });
        Some(at)
    }

    /// Brings the process table up to date. `None`: `/proc` could not be listed.
    fn refresh(&mut self) -> Option<()> {
        let Host { source, clock, accounting, .. } = &mut self.host;
        match accounting.update(&mut self.processes, source.as_mut(), clock.boottime()) {
            Ok(None) => {}
            Ok(Some(error)) => {
                self.complaints.add(Trouble::of(&error), unreadable(&error));
            }
            Err(error) => {
                let root = self.host.proc.root().display();
                let message = format!("Cannot list {root}, so nothing is gathered: {error}");
                self.complaints.add(Trouble::of(&error), message);
                return None;
            }
        }
        Some(())
    }

    /// Returns the selection, the plan of what to read, and the members of each series in the order of the selection. From now on these
    /// are the processes that are read at each gather.
    fn select(&mut self) -> (Selection, Plan, Vec<Vec<Member>>) {
        let Self { targets, processes, host, complaints, .. } = self;
        let selection = select(targets, processes, host, complaints);
        let members = self.members(&selection.series);
        let series = selection.series.iter().zip(&members);
        let series = series.map(|((tags, selected), members)| (tags, selected, members.as_slice()));
        let plan = Plan::new(measurements(&self.targets), series);
        self.processes.track(&plan.ids(), self.host.source.as_mut());
        (selection, plan, members)
    }

    /// Reads the stats of the members and all that descends from them, each once.
    fn read(&mut self, plan: &Plan) {
        let Self { processes, host, complaints, .. } = self;
        let Host { source, accounting, .. } = host;
        let source = &mut KeepsUp::new(source.as_mut(), accounting);
        // Another process can change a nice value without an event.
        if let Some(error) = processes.read_tracked(source, !plan.wants(Measurement::Thread)) {
            complaints.add(Trouble::of(&error), unreadable(&error));
        }
        accounting.conclude(processes);
    }

    /// Reads from the members what the process table does not hold, and charges CPU to them.
    fn collect(&mut self, plan: &Plan, at: u64) {
        let Self { processes, host, collectors, complaints, .. } = self;
        let Host { proc, source, taskstats, accounting, .. } = host;
        let source = &mut KeepsUp::new(source.as_mut(), accounting);
        let look = &mut Look { processes, proc, source, taskstats: taskstats.as_mut(), complaints };
        self.samples = collectors.sample(plan, at, look);
    }

    /// Writes the lines of all series, and forgets those that are over.
    fn write_lines(&mut self, lines: &mut Lines, at: u64) {
        let Self { host, series, processes, samples, collectors, complaints, .. } = self;
        let mem_total = collectors.mem_total.get(&host.proc, at, complaints);
        let from = Sources { processes, samples, collectors, mem_total };
        for (tags, series) in series.iter_mut().filter(|(_, series)| series.is_worth_a_line()) {
            points::write(lines, tags, series, from);
        }
        series.retain(|_, series| !series.over);
        collectors.busiest.begin_interval(at);
    }

    /// The series as of the last gather, by their tags.
    pub fn series(&self) -> impl Iterator<Item = &Series> {
        self.series.values()
    }

    /// Returns how the agent learns which processes exist.
    pub fn accounting(&mut self) -> &mut Accounting {
        &mut self.host.accounting
    }

    /// Returns whether the last gather read every process of the host, instead of the members alone.
    #[must_use]
    pub fn has_scanned(&self) -> bool {
        self.processes.is_scanned()
    }

    fn watched_directories(&self) -> impl Iterator<Item = &Path> {
        self.targets.iter().filter_map(Target::watched_directory)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::process::{Child, Stdio};
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::cli::Arguments;
    use crate::config::values::AccountBy;
    use crate::events::{EventStream, Messages};
    use crate::kernel::clock::{Clock, SystemClock};
    use crate::kernel::elsewhere::skip;
    use crate::kernel::netlink::Drained;
    use crate::kernel::proc_connector::Event;
    use crate::processes::Record;

    /// What runs by events, as root; else there is none.
    fn agent(child: &Child) -> Option<Agent> {
        let arguments = ["telegraf-taskstats", "--pid", &child.id().to_string()].map(Into::into);
        let settings = Settings::load(&Arguments::of(arguments.into_iter()).unwrap()).unwrap();
        let mut host = Host::open(&settings.proc_root, &settings.sys_root, Box::new(SystemClock), 100).unwrap();
        host.listen(AccountBy::Auto, false);
        if host.accounting.name() == "scan" {
            skip("there are no events");
            return None;
        }
        Some(Agent::new(settings, host))
    }

    fn is_at_rest(agent: &Agent) -> bool {
        agent.standing.as_ref().is_some_and(|standing| standing.is_at_rest)
    }

    /// That it is so, and not only that the lines are as if it were.
    #[test]
    fn one_that_sleeps_is_at_rest_until_it_wakes_up() {
        let (stdin, stdout) = (Stdio::piped(), Stdio::piped());
        let mut child = std::process::Command::new("cat").stdin(stdin).stdout(stdout).spawn().unwrap();
        if let Some(mut agent) = agent(&child) {
            let deadline = Instant::now() + Duration::from_secs(60);
            for _ in 0..3 {
                child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
                child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
                agent.gather();
                assert!(!is_at_rest(&agent), "it has just run");
                while !is_at_rest(&agent) {
                    assert!(Instant::now() < deadline, "it has not run since long ago");
                    agent.gather();
                }
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Events of which none comes.
    #[derive(Debug)]
    struct Silence;

    impl Messages for Silence {
        fn has_records(&self) -> bool {
            true
        }

        fn records(&mut self, _: &mut dyn FnMut(Record)) -> io::Result<Drained> {
            Ok(Drained::Complete)
        }

        fn events(&mut self, _: &mut dyn FnMut(Event)) -> io::Result<Drained> {
            Ok(Drained::Complete)
        }

        fn is_due(&mut self, _: Duration) -> bool {
            false
        }

        fn is_reaped(&self, _: u32) -> bool {
            false
        }
    }

    /// A clock that goes on by itself when it is asked what it is since boot: just before it is looked who exists.
    struct Held {
        now: Rc<Cell<u64>>,
        by: Rc<Cell<u64>>,
    }

    impl Clock for Held {
        fn realtime(&self) -> u64 {
            self.now.get()
        }

        fn monotonic(&self) -> u64 {
            self.now.get()
        }

        fn boottime(&self) -> u64 {
            self.now.set(self.now.get() + self.by.take());
            self.now.get()
        }
    }

    #[test]
    fn the_interval_ends_when_the_members_are_read_however_long_that_was_held_up() {
        const SECOND: u64 = 1_000_000_000;
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/10")).unwrap();
        // utime in ticks of 10 ms.
        let burn = |ticks: u64| {
            let text = format!("10 (x) R 1 0 0 0 0 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 5 0 5\n");
            std::fs::write(root.path().join("proc/10/stat"), text).unwrap();
        };
        burn(0);
        let proc = root.path().join("proc");
        let words = ["telegraf-taskstats", "--pid", "10", "--proc-root", proc.to_str().unwrap()].map(Into::into);
        let settings = Settings::load(&Arguments::of(words.into_iter()).unwrap()).unwrap();
        let (now, by) = (Rc::new(Cell::new(1000 * SECOND)), Rc::new(Cell::new(0)));
        let clock = Held { now: Rc::clone(&now), by: Rc::clone(&by) };
        let mut host = Host::open(&settings.proc_root, root.path(), Box::new(clock), 0).unwrap();
        host.accounting = Accounting::by(EventStream::new(Box::new(Silence)));
        let mut agent = Agent::new(settings, host);
        agent.prime();
        // One CPU all the time; the gathers are asked for each 20 s, and held up for so many.
        for (step, held) in [0, 10, 0, 5].into_iter().enumerate() {
            now.set((1010 + 20 * step as u64) * SECOND);
            by.set(held * SECOND);
            burn(100 * (10 + 20 * step as u64 + held));
            let lines = String::from_utf8(agent.gather()).unwrap();
            assert!(!agent.has_scanned());
            assert!(lines.contains("p_cpu=1,") || lines.contains("p_cpu=1 "), "{step}: {lines}");
        }
    }
}
