//! What a gather costs, as ratios to floors measured in the same run: `cargo bench --bench gather`.
//!
//! A forest of 20 trees with 250 sleeping processes each is watched by 20 targets, in several setups of the plugin that
//! run side by side. Rounds alternate between one gather of each and one pass of every floor, so that a change of the
//! machine's pace meets all of them alike. *The* floor is a scan of /proc that learns nothing: each `/proc/<pid>/stat`
//! opened, read and closed once, its pid known beforehand.
//!
//! procmaps has rounds of its own, since what is asked of it is another thing: that its thread does not hold up the one
//! that gathers.
//!
//! A benchmark reports and does not assert: it ends with one line per goal, met or missed, and exit code 0.
#![allow(clippy::print_stdout)] // a benchmark's result
#![allow(unreachable_pub)] // nothing in a benchmark is reached from elsewhere
#![allow(unsafe_code)] // fork(2) and the CPU clock of another process have no safe wrapper

#[path = "gather/floors.rs"]
mod floors;
#[path = "gather/forest.rs"]
mod forest;
#[path = "gather/plugin.rs"]
mod plugin;
#[path = "gather/series.rs"]
mod series;

use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use floors::Floors;
use forest::{Forest, LARGE, MUCH, TREE_SIZE, TREES};
use plugin::{Cost, PAUSE, Plugin, SHORT_PAUSE, Setup};
use series::Series;

const PROCESSES: usize = TREES * TREE_SIZE;
const ROUNDS: usize = 30;
const IDLE: Duration = Duration::from_secs(5);

/// The goals of psstat alone: its CPU over the floor's, and its peak RSS.
const GOAL_RATIO: f64 = 1.15;
const GOAL_RSS_KIB: u64 = 10 * 1024;
/// What procmaps may make of the time of a gather.
const GOAL_PROCMAPS: f64 = 1.10;

/// What a gather may cost over one of psstat alone.
enum Goal {
    /// So many µs more for each process.
    More(f64),
    /// So many times as much.
    Times(f64),
}

/// What the others are compared with: a stat file per process.
static PSSTAT: Setup = Setup { what: "psstat", collect: &["psstat"], settings: "", nice: 0, lines: 1 };

/// What is gathered in the same rounds. thread reads a file of each thread that counts, by default of the niced: so all of
/// them niced is its hardest case.
static SETUPS: [(Setup, Goal); 4] = [
    (
        Setup { what: "psstat, taskstat", collect: &["taskstat", "psstat"], settings: "", nice: 0, lines: 2 },
        Goal::More(3.0),
    ),
    (
        Setup {
            what: "psstat, taskstat, procstat, thread",
            collect: &["taskstat", "procstat", "thread", "psstat"],
            settings: "",
            nice: 0,
            lines: 3,
        },
        Goal::Times(2.5),
    ),
    (
        Setup {
            what: "the same, all processes niced",
            collect: &["taskstat", "procstat", "thread", "psstat"],
            settings: "",
            nice: 5,
            lines: 4,
        },
        Goal::Times(2.5),
    ),
    (
        Setup {
            what: "the same, thread_all_nice",
            collect: &["taskstat", "procstat", "thread", "psstat"],
            settings: "thread_all_nice = true",
            nice: 0,
            lines: 4,
        },
        Goal::Times(2.5),
    ),
];

/// Against psstat alone, whose time is the shortest and so the easiest to disturb.
static PROCMAPS: Setup = Setup {
    what: "psstat, procmaps",
    collect: &["procmaps", "psstat"],
    settings: "procmaps_interval = \"1s\"",
    nice: 0,
    lines: 2,
};
const PROCMAPS_INTERVAL: Duration = Duration::from_secs(1);
/// A little more, so that something is due in each round.
const PROCMAPS_ROUND: Duration = Duration::from_millis(1200);
/// Surely enough for what was begun to end.
const MEASURING: Duration = Duration::from_millis(300);

static EVERYTHING: Setup = Setup {
    what: "all measurements and fields",
    collect: &["taskstat", "procstat", "procmaps", "thread", "psstat"],
    settings: "psstat_fields = [\"all\"]\nprocmaps_interval = \"1s\"\nthread_all_nice = true",
    nice: 0,
    lines: 5,
};

fn main() -> Result<()> {
    let forest = Forest::plant()?;
    let anywhere = sched_getaffinity(None)?;
    println!("{PROCESSES} processes in {TREES} trees, {LARGE} of them of {} MiB; {ROUNDS} rounds", MUCH >> 20);

    let mut goals = Vec::new();
    // What disturbs one disturbs the other, and neither has the better CPU. The plugins inherit it.
    stay_on_this_cpu()?;
    let mut floors = Floors::over(&pids_in_proc()?)?;
    let refused = floors.taskstats_error().map(|error| format!("not measured: what collects taskstat ({error:#})"));
    let measurable = if refused.is_some() { &[] } else { SETUPS.as_slice() };
    let mut plugins = side_by_side(&forest, &mut floors, measurable, &mut goals)?;
    // Here too a thread of the plugin's own would have to wait for the CPU, which says nothing of a host with two.
    sched_setaffinity(None, &anywhere)?;
    plugins.push(with_procmaps(&forest, &mut goals)?);
    println!("\n{:46}{:>9}", "peak RSS", "KiB");
    for plugin in &plugins {
        println!("{:46}{:9}", plugin.setup.what, plugin.peak_rss_kib()?);
    }
    if refused.is_none() {
        println!("{:46}{:9}", EVERYTHING.what, peak_rss_of_everything(&forest)?);
    }
    println!();
    idle(&plugins, &mut goals)?;

    println!();
    for goal in goals.into_iter().chain(refused) {
        println!("{goal}");
    }
    Ok(())
}

fn goal(met: bool, measured: &str, what: &str) -> String {
    format!("{} ({measured}): {what}", if met { "met" } else { "missed" })
}

fn stay_on_this_cpu() -> Result<()> {
    let mut this = CpuSet::new();
    this.set(sched_getcpu());
    Ok(sched_setaffinity(None, &this)?)
}

/// Every process there is.
fn pids_in_proc() -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// The setups and the floors, in turn. Returns the plugins.
fn side_by_side(
    forest: &Forest,
    floors: &mut Floors,
    setups: &'static [(Setup, Goal)],
    goals: &mut Vec<String>,
) -> Result<Vec<Plugin>> {
    let setups = std::iter::once(&PSSTAT).chain(setups.iter().map(|(setup, _)| setup));
    let mut plugins = setups.map(|setup| Plugin::watching(forest, setup)).collect::<Result<Vec<_>>>()?;
    for plugin in &mut plugins {
        forest.renice(plugin.setup.nice)?;
        plugin.warm_up()?;
    }

    let mut gathers: Vec<_> = plugins.iter().map(|plugin| Series::new(plugin.setup.what)).collect();
    for _ in 0..ROUNDS {
        let before = plugins.iter().map(Plugin::cpu).collect::<Result<Vec<_>>>()?;
        for plugin in &mut plugins {
            forest.renice(plugin.setup.nice)?;
            plugin.gather()?;
        }
        floors.pass()?;
        // Taken late: what the plugin does after its answer is part of the gather.
        for ((series, plugin), before) in gathers.iter_mut().zip(&plugins).zip(before) {
            series.push(plugin.cpu()? - before);
        }
    }
    forest.renice(0)?;

    let floor = &floors.open_read_close;
    let Some((psstat, others)) = gathers.split_first() else { return Ok(plugins) };
    println!(
        "\n{:46}{:>9}{:>9}{:>9}{:>11}{:>7}{:>8}",
        "CPU in µs", "min", "median", "max", "a process", "floor", "psstat"
    );
    for series in floors.all().chain(&gathers) {
        let [min, median, max] = series.spread();
        let each = median / floors.processes() as f64;
        let [over_floor, over_psstat] = [floor, psstat].map(|base| series.ratio_to(base));
        println!("{:46}{min:9.0}{median:9.0}{max:9.0}{each:11.2}{over_floor:7.2}{over_psstat:8.2}", series.what);
    }
    let rss = plugins.first().map_or(Ok(0), Plugin::peak_rss_kib)?;

    let ratio = psstat.ratio_to(floor);
    let what = format!("a gather of psstat costs at most {GOAL_RATIO} x the floor");
    goals.push(goal(ratio <= GOAL_RATIO, &format!("{ratio:.2}"), &what));
    goals.push(goal(rss <= GOAL_RSS_KIB, &format!("{rss}"), &format!("its peak RSS is at most {GOAL_RSS_KIB} KiB")));
    for (series, (setup, bound)) in others.iter().zip(&SETUPS) {
        goals.push(match bound {
            Goal::More(bound) => {
                let more = series.more_than(psstat) / PROCESSES as f64;
                let what = format!("{} costs at most {bound} µs more for a process", setup.what);
                goal(more <= *bound, &format!("{more:.2}"), &what)
            }
            Goal::Times(bound) => {
                let ratio = series.ratio_to(psstat);
                goal(ratio <= *bound, &format!("{ratio:.2}"), &format!("{} costs at most {bound} x psstat", setup.what))
            }
        });
    }
    Ok(plugins)
}

/// Gathers that meet procmaps in one state.
struct Gathers {
    what: &'static str,
    cpu: Series,
    wall: Series,
    /// The time from the prompt to the last line in which somebody had a CPU.
    running: Series,
}

impl Gathers {
    fn new(what: &'static str) -> Self {
        let [cpu, wall, running] = [what; 3].map(Series::new);
        Self { what, cpu, wall, running }
    }

    fn push(&mut self, Cost { cpu, wall, waiting }: Cost) {
        self.cpu.push(cpu);
        self.wall.push(wall);
        self.running.push(wall.saturating_sub(waiting));
    }
}

/// What a thread that adds up pages does to the thread that gathers, and what it costs itself. Returns the plugin.
fn with_procmaps(forest: &Forest, goals: &mut Vec<String>) -> Result<Plugin> {
    let mut plain = Plugin::watching(forest, &PSSTAT)?;
    let mut plugin = Plugin::watching(forest, &PROCMAPS)?;
    plain.warm_up()?;
    plugin.warm_up()?;
    let meter = plugin.thread("procmaps")?;
    std::thread::sleep(PROCMAPS_INTERVAL);

    let mut without = Gathers::new("without procmaps");
    let mut kinds = ["as a measuring begins", "amid a measuring", "when it has ended"].map(Gathers::new);
    let [begins, amid, after] = &mut kinds;
    let (mut meanwhile, mut overlap) = (Duration::ZERO, Duration::ZERO);
    let (began, before) = (Instant::now(), (meter.cpu()?, meter.reads()?));
    for _ in 0..ROUNDS {
        let round = Instant::now();
        without.push(plain.measured_gather(PAUSE)?);
        begins.push(plugin.measured_gather(PAUSE)?);
        let (prompted, measured) = (Instant::now(), meter.cpu()?);
        amid.push(plugin.measured_gather(SHORT_PAUSE)?);
        overlap += meter.cpu()? - measured;
        meanwhile += prompted.elapsed();
        std::thread::sleep(MEASURING);
        after.push(plugin.measured_gather(PAUSE)?);
        std::thread::sleep(PROCMAPS_ROUND.saturating_sub(round.elapsed()));
    }
    // A measuring reads two files of each process: its stat, to know that it is the same, and its smaps_rollup.
    let measurings = (meter.reads()? - before.1) as f64 / (2 * PROCESSES) as f64;
    let periods = began.elapsed().as_secs_f64() / PROCMAPS_INTERVAL.as_secs_f64();
    let cpu = (meter.cpu()? - before.0).as_secs_f64() * 1e3;

    report_procmaps(&without, &kinds, goals);
    println!(
        "\nprocmaps: {measurings:.1} measurings in {periods:.1} periods of {PROCMAPS_INTERVAL:?}, {:.0} ms of CPU each, \
         {:.0} ms a period; it ran {:.0} % of the time of the gathers amid one",
        cpu / measurings,
        cpu / periods,
        overlap.div_duration_f64(meanwhile) * 100.0
    );
    let bounded = measurings <= periods + 1.0;
    goals.push(goal(bounded, &format!("{:.2}", measurings / periods), "procmaps measures at most once per period"));
    Ok(plugin)
}

fn report_procmaps(without: &Gathers, kinds: &[Gathers], goals: &mut Vec<String>) {
    println!(
        "\n{:46}{:>15}{:>18}{:>25}",
        "psstat, medians in µs, over those without", "CPU", "wall", "less waiting for a CPU"
    );
    for gathers in std::iter::once(without).chain(kinds) {
        let [cpu, wall, running] =
            [(&gathers.cpu, &without.cpu), (&gathers.wall, &without.wall), (&gathers.running, &without.running)]
                .map(|(series, base)| format!("{:10.0}{:6.2}", series.median(), series.ratio_to(base)));
        println!("{:46}{cpu:>15}{wall:>18}{running:>25}", gathers.what);
    }
    for gathers in kinds {
        let [cpu, wall] = [gathers.cpu.ratio_to(&without.cpu), gathers.wall.ratio_to(&without.wall)];
        let running = gathers.running.ratio_to(&without.running);
        let measured = format!("{cpu:.2}; wall {wall:.2}, less waiting for a CPU {running:.2}");
        let what = format!("a gather {} costs its thread at most {GOAL_PROCMAPS} x one without procmaps", gathers.what);
        goals.push(goal(cpu <= GOAL_PROCMAPS, &measured, &what));
    }
}

/// KiB, several measurings of procmaps included.
fn peak_rss_of_everything(forest: &Forest) -> Result<u64> {
    let mut plugin = Plugin::watching(forest, &EVERYTHING)?;
    plugin.warm_up()?;
    for _ in 0..6 {
        std::thread::sleep(PROCMAPS_INTERVAL / 2);
        plugin.gather()?;
    }
    plugin.peak_rss_kib()
}

/// What plugins use that nobody asks anything.
fn idle(plugins: &[Plugin], goals: &mut Vec<String>) -> Result<()> {
    let used = || -> Result<_> {
        let cpu = plugins.iter().map(Plugin::cpu).sum::<Result<Duration>>()?;
        let switches = plugins.iter().map(Plugin::switches).sum::<Result<u64>>()?;
        Ok((cpu, switches))
    };
    let before = used()?;
    std::thread::sleep(IDLE);
    let after = used()?;
    let (cpu, switches) = (after.0 - before.0, after.1 - before.1);
    println!("idle for {IDLE:?}, {} plugins: {cpu:?} of CPU, {switches} context switches", plugins.len());
    let measured = format!("{cpu:?}");
    goals.push(goal(cpu.is_zero() && switches == 0, &measured, "idle costs no CPU, whatever is collected"));
    Ok(())
}
