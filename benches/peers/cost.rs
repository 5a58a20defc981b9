//! What a gather costs: all contenders and the floors, in alternating rounds.
//!
//! Whoever gathers by the clock is stopped by a signal while it is not its turn. In its turn it goes on until the next
//! gather's end, so that there is one gather in each round, whatever its interval; and none disturbs another.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::contenders::{Clocked, Exporter, Plugin, apps_plugin, sample, setting, telegraf};
use crate::floors::Floors;
use crate::forest::{self, Root, Tree};
use crate::process::{Process, scratch};
use crate::report::{go_on, leave_out, note};
use crate::series::Series;

/// Before the first round: first sights, and buffers that grow once.
const WARM_UP: usize = 3;
/// The plugin has no p_cpu to work out if gathers are less than 100 ms apart.
const PAUSE: Duration = Duration::from_millis(150);

/// What is watched.
pub struct Scenario {
    pub what: &'static str,
    trees: usize,
    size: usize,
    root: Root,
    /// Processes beside those, which nobody has asked about.
    others: usize,
    rounds: usize,
}

pub static FEW_OF_MANY: Scenario =
    Scenario { what: "few of many", trees: 20, size: 1, root: Root::Sleeps, others: 5000, rounds: 30 };
pub static FEW_THAT_WORK: Scenario = Scenario { what: "few that work", root: Root::Works, ..FEW_OF_MANY };
pub static WHOLE_FOREST: Scenario =
    Scenario { what: "whole forest", trees: 20, size: 250, root: Root::Sleeps, others: 0, rounds: 10 };

/// What came of it. A contender that is not here could not be run.
pub struct Costs {
    pub scenario: &'static Scenario,
    pub rounds: usize,
    pub floors: Floors,
    pub plugin: Cost,
    pub telegraf_alone: Option<Cost>,
    /// Less what Telegraf costs without it.
    pub procstat: Option<Cost>,
    pub exporter: Option<Cost>,
    pub apps_plugin: Option<Cost>,
}

pub struct Cost {
    pub cpu: Series,
    pub peak_kib: u64,
}

pub fn measure(scenario: &'static Scenario) -> Result<Costs> {
    note(&format!("{}: planting", scenario.what));
    let trees = forest::plant(scenario.trees, scenario.size, "tree", scenario.root)?;
    let others = forest::plant(scenario.others.div_ceil(250), scenario.others.min(250), "other", Root::Sleeps)?;
    let host = Host { trees, size: scenario.size, directory: scratch()? };
    host.write_pidfiles()?;
    let mut floors = Floors::over(&crate::pids_in_proc()?)?;

    let mut plugin = Runner::start("telegraf-taskstats", &host, plugin(&host))?;
    let mut alone = Runner::try_start("telegraf", &host, telegraf_alone());
    let mut procstat = Runner::try_start("procstat", &host, procstat(&host));
    let mut exporter = Runner::try_start("process-exporter", &host, exporter(&host));
    let mut apps_plugin = Runner::try_start("apps.plugin", &host, netdata(&host));

    for round in 1..=scenario.rounds {
        note(&format!("{}: round {round} of {}", scenario.what, scenario.rounds));
        go_on()?;
        let others = [&mut alone, &mut procstat, &mut exporter, &mut apps_plugin];
        let mut runners: Vec<_> = std::iter::once(&mut plugin).chain(others.into_iter().flatten()).collect();
        for runner in &mut runners {
            runner.gather(&host)?;
        }
        floors.pass()?;
        for runner in runners {
            runner.settle()?;
        }
    }
    drop(others);

    let procstat = procstat.map(|procstat| procstat.less(alone.as_ref())).transpose()?;
    let cost = |runner: Option<Runner>| runner.map(|runner| runner.cost()).transpose();
    Ok(Costs {
        scenario,
        rounds: scenario.rounds,
        floors,
        plugin: plugin.cost()?,
        telegraf_alone: cost(alone)?,
        procstat,
        exporter: cost(exporter)?,
        apps_plugin: cost(apps_plugin)?,
    })
}

/// The processes, and where their pidfiles are.
struct Host {
    trees: Vec<Tree>,
    size: usize,
    directory: TempDir,
}

impl Host {
    fn write_pidfiles(&self) -> Result<()> {
        for tree in &self.trees {
            std::fs::write(self.pidfile(tree), tree.root().to_string())?;
        }
        Ok(())
    }

    fn pidfile(&self, tree: &Tree) -> String {
        self.directory.path().join(&tree.name).with_extension("pid").display().to_string()
    }

    fn processes(&self) -> usize {
        self.trees.len() * self.size
    }

    /// A piece of configuration for each tree, given its name and its pidfile.
    fn for_each_tree(&self, piece: impl Fn(&str, &str) -> String) -> String {
        self.trees.iter().map(|tree| piece(&tree.name, &self.pidfile(tree))).collect()
    }
}

/// A contender at work.
trait Contender {
    fn process(&self) -> &Process;

    /// One gather, from what causes it to its end. Returns how many processes were found in the trees, if that can be told.
    fn gather(&mut self) -> Result<Option<usize>>;
}

fn plugin(host: &Host) -> Result<Box<dyn Contender>> {
    let targets = host
        .for_each_tree(|name, file| format!("[[inputs.taskstats.target]]\nname = \"{name}\"\npid_file = \"{file}\"\n"));
    Ok(Box::new((Plugin::start(&targets)?, host.trees.len())))
}

impl Contender for (Plugin, usize) {
    fn process(&self) -> &Process {
        &self.0.process
    }

    fn gather(&mut self) -> Result<Option<usize>> {
        std::thread::sleep(PAUSE);
        let lines = self.0.gather(self.1)?;
        let count = |line: &String| line.split_once("n_proc=")?.1.split_once('i')?.0.parse::<usize>().ok();
        Ok(lines.iter().map(count).sum())
    }
}

/// A Telegraf that gathers, but not procstat. It wants some input; this is its own state.
fn telegraf_alone() -> Result<Box<dyn Contender>> {
    let inputs = "[[inputs.internal]]\n  collect_memstats = false\n";
    Ok(Box::new(Telegraf { clocked: telegraf(1, None, inputs)?, end: "internal_agent", ends: 1, count: None }))
}

/// procstat at its cheapest: of what it can tell only CPU and memory, and without running pgrep. Single processes are named
/// by their pidfiles. For trees it is one pattern that matches every process of all of them: the filters that know trees
/// cost more than twice as much, since they read every stat of the host for each process whose children they look for.
fn procstat(host: &Host) -> Result<Box<dyn Contender>> {
    let input = |selector: &str| {
        format!("[[inputs.procstat]]\n  pid_finder = \"native\"\n  properties = [\"cpu\", \"memory\"]\n  {selector}\n")
    };
    let (inputs, ends) = if host.size == 1 {
        (host.for_each_tree(|_, file| input(&format!("pid_file = \"{file}\""))), host.trees.len())
    } else {
        (input("pattern = \" tree tree[0-9]+ \""), 1)
    };
    let clocked = telegraf(host.processes() + ends, None, &inputs)?;
    Ok(Box::new(Telegraf { clocked, end: "procstat_lookup", ends, count: Some("pid_count=") }))
}

struct Telegraf {
    clocked: Clocked,
    /// The measurement that comes at the end of what an input gathers, and how many of its lines make a gather.
    end: &'static str,
    ends: usize,
    /// Its field with the number of processes.
    count: Option<&'static str>,
}

impl Contender for Telegraf {
    fn process(&self) -> &Process {
        &self.clocked.process
    }

    fn gather(&mut self) -> Result<Option<usize>> {
        self.clocked.process.thaw()?;
        let (mut ends, mut found) = (0, self.count.map(|_| 0));
        while ends < self.ends {
            let line = self.clocked.stdout.line()?;
            if line.starts_with(self.end) {
                ends += 1;
                let count = |field| line.split_once(field)?.1.split_once('i')?.0.parse::<usize>().ok();
                found = found.zip(self.count.and_then(count)).map(|(sum, count)| sum + count);
            }
        }
        self.clocked.process.freeze()?;
        Ok(found)
    }
}

/// Groups by comm, which only the roots have; it counts their children with them.
fn exporter(host: &Host) -> Result<Box<dyn Contender>> {
    let groups = host.for_each_tree(|name, _| format!("  - name: {name}\n    comm:\n    - {name}\n"));
    Ok(Box::new(Exporter::start(&groups)?))
}

impl Contender for Exporter {
    fn process(&self) -> &Process {
        &self.process
    }

    fn gather(&mut self) -> Result<Option<usize>> {
        let text = self.scrape()?;
        let count = |line| sample(line, "namedprocess_namegroup_num_procs", "tree");
        Ok(Some(text.lines().filter_map(count).sum::<f64>() as usize))
    }
}

/// The same.
fn netdata(host: &Host) -> Result<Box<dyn Contender>> {
    Ok(Box::new(Netdata(apps_plugin(&host.for_each_tree(|name, _| format!("{name}: {name}\n")))?)))
}

struct Netdata(Clocked);

impl Contender for Netdata {
    fn process(&self) -> &Process {
        &self.0.process
    }

    /// It writes when it has read everything, and the first of it says that it did; the rest comes in the next turn.
    fn gather(&mut self) -> Result<Option<usize>> {
        self.0.process.thaw()?;
        let (mut found, mut counting) = (0.0, false);
        loop {
            let line = self.0.stdout.line()?;
            if line.starts_with("BEGIN netdata.apps_cpu ") {
                break;
            }
            if line.starts_with("BEGIN ") {
                counting = line.starts_with("BEGIN apps.processes ");
            }
            if let Some((_, count)) = setting(&line).filter(|(name, _)| counting && name.starts_with("tree")) {
                found += count;
            }
        }
        self.0.process.freeze()?;
        Ok(Some(found as usize))
    }
}

/// A contender, and what its gathers have cost.
struct Runner {
    contender: Box<dyn Contender>,
    /// At the end of the round before.
    before: Duration,
    costs: Vec<Duration>,
    what: &'static str,
}

impl Runner {
    fn start(what: &'static str, host: &Host, contender: Result<Box<dyn Contender>>) -> Result<Self> {
        let mut runner = Self { contender: contender?, before: Duration::ZERO, costs: Vec::new(), what };
        for _ in 1..WARM_UP {
            runner.contender.gather()?;
        }
        runner.gather(host)?;
        runner.before = runner.contender.process().cpu()?;
        Ok(runner)
    }

    fn try_start(what: &'static str, host: &Host, contender: Result<Box<dyn Contender>>) -> Option<Self> {
        Self::start(what, host, contender).map_err(|error| leave_out(what, &error)).ok()
    }

    fn gather(&mut self, host: &Host) -> Result<()> {
        let found = self.contender.gather().with_context(|| self.what.to_owned())?;
        let all = host.processes();
        ensure!(found.is_none_or(|found| found == all), "{} found {found:?} of {all} processes", self.what);
        Ok(())
    }

    /// Taken late: what a contender does after its answer is part of the gather.
    fn settle(&mut self) -> Result<()> {
        let now = self.contender.process().cpu()?;
        self.costs.push(now - std::mem::replace(&mut self.before, now));
        Ok(())
    }

    fn cost(self) -> Result<Cost> {
        let mut cpu = Series::new(self.what);
        self.costs.into_iter().for_each(|cost| cpu.push(cost));
        Ok(Cost { cpu, peak_kib: self.contender.process().peak_kib()? })
    }

    /// What it costs more than another, round by round.
    fn less(mut self, other: Option<&Self>) -> Result<Cost> {
        if let Some(other) = other {
            for (cost, other) in self.costs.iter_mut().zip(&other.costs) {
                *cost = cost.saturating_sub(*other);
            }
        }
        self.cost()
    }
}

impl Costs {
    /// Title and processes, for a caption.
    pub fn describe(&self) -> String {
        let Scenario { trees, size, root, others, .. } = self.scenario;
        let mut text = if *size == 1 {
            format!("{trees} pidfiles of one process each")
        } else {
            format!("{trees} trees of {size} processes each")
        };
        if *root == Root::Works {
            text.push_str(", which has run since the last gather");
        }
        if *others > 0 {
            let _ = write!(text, ", on a host with {others} others");
        }
        text
    }
}
