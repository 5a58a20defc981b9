//! What storms of forks do to the plugin when it is told of each birth and exit: `cargo bench --bench storm`.
//!
//! The stormers live in a cgroup of their own and are watched as one tree. Their forks are counted by themselves, and their
//! CPU by the kernel, so that both can be compared with what is reported. With `-- PHASE [SECONDS]` there is one phase only, for
//! so long: storm, flood, onset, threads, pace, idle, simulated or churn; churn is made for hours, as in `-- churn 600`.
//!
//! Pids wrap around meanwhile, where pid_max is 32768 every few seconds: that is part of it.
//!
//! A benchmark reports and does not assert: it ends with one line per goal, met or missed, and exit code 0.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a benchmark's result
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // what it shares with tests
#![allow(unreachable_pub)] // nothing in a benchmark is reached from elsewhere
#![allow(unsafe_code)] // fork(2) and memory that processes share have no safe wrapper

#[path = "../tests/truth/cgroup.rs"]
#[allow(dead_code)] // what only the tests need
mod cgroup;
#[path = "storm/goals.rs"]
mod goals;
#[path = "storm/meter.rs"]
mod meter;
#[path = "storm/simulated.rs"]
mod simulated;
#[path = "storm/storm.rs"]
mod storm;
#[path = "storm/stormers.rs"]
mod stormers;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "storm/watch.rs"]
mod watch;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use goals::Goals;
use meter::{forks_of_the_host, pid_max};
use storm::Storm;
use stormers::{Kind, POPULATION};
use watch::{Reading, Watch};

/// What is measured, one after the other, and for how long if nothing else is said.
const PHASES: [Phase; 8] = [
    ("storm", storm, 60),
    ("flood", flood, 30),
    ("onset", onset, 30),
    ("threads", threads, 30),
    ("pace", pace, 50),
    ("idle", idle, 10),
    ("simulated", simulated::simulated, 1),
    ("churn", churn, 60),
];

/// A name, what it does for so long, and the seconds.
type Phase = (&'static str, fn(Duration, &mut Goals) -> Result<()>, u64);

/// The interval of gathers.
const INTERVAL: Duration = Duration::from_secs(10);
/// In a churn that is short, or so short that few gathers would be left.
const SHORT_INTERVAL: Duration = Duration::from_secs(5);

/// The goals: the CPU of the main thread, which takes the events and gathers now and then, over the time;
const STORM_CPU: f64 = 0.01;
const FLOOD_CPU: f64 = 0.03;
/// the same by how many are born a second, if no more are than that;
const PACES: [(u32, f64); 5] = [(100, 0.002), (300, 0.004), (1_000, 0.008), (3_000, 0.02), (10_000, 0.05)];
/// how many forks a second a flood should be,
const FLOOD: f64 = 5_000.0;
/// what must be reported of the CPU that was charged. What an orphan's exit costs is in no record of it, and of a life so
/// short that is much; one fork in ten is one;
const SHARE: [f64; 2] = [0.95, 1.01];
/// how much more than all CPUs a gather may tell, whose reading takes its time;
const P_CPU_MORE: f64 = 0.05;
/// the peak RSS, and by how much it may be more at the end of a churn than when all processes were known.
const PEAK_KIB: u64 = 10 * 1024;
const GROWTH_KIB: u64 = 512;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [stormers, kind, cgroup] = &arguments[..]
        && stormers == "stormers"
    {
        return stormers::run(kind.parse()?, cgroup.as_ref());
    }
    let mut goals = Goals::default();
    for (name, measure, seconds) in chosen(&arguments)? {
        println!("\n{name}, {seconds} s");
        if let Err(error) = measure(Duration::from_secs(seconds), &mut goals) {
            goals.not_measured(name, &error);
        }
    }
    println!("\n{goals}");
    Ok(())
}

fn chosen(arguments: &[String]) -> Result<Vec<Phase>> {
    let [name, rest @ ..] = arguments else { return Ok(PHASES.to_vec()) };
    let names = PHASES.map(|(name, ..)| name).join(", ");
    let phase = PHASES.into_iter().find(|(known, ..)| known == name);
    let (name, measure, seconds) = phase.with_context(|| format!("no phase {name}: {names}"))?;
    Ok(vec![match rest {
        [] => (name, measure, seconds),
        [seconds] => (name, measure, seconds.parse().with_context(|| format!("{seconds}: not in seconds"))?),
        _ => bail!("at most a phase and its seconds"),
    }])
}

/// 2,000 forks a second, which none is lost of.
fn storm(time: Duration, goals: &mut Goals) -> Result<()> {
    let [first, .., last] = &readings(Kind::Storm, time, interval(time), goals)?[..] else { bail!("too short") };
    goals.add("events_lost", last.lost_since(first), "no event is lost at 2,000 forks a second", |lost| lost == 0.0);
    let cpu = Some(last.main_cpu_since(first));
    goals.add("cores", cpu, &format!("the main thread uses at most {STORM_CPU} of a core meanwhile"), |cpu| {
        cpu <= STORM_CPU
    });
    let wakeups = last.wakeups_since(first);
    let switches = last.main_switches_since(first);
    let ratio = wakeups.map(|wakeups| switches / wakeups);
    goals.add("switches for a wakeup", ratio, "wakeups is how often the main thread slept, within a tenth", |ratio| {
        (0.9..=1.1).contains(&ratio)
    });
    goals.truth(first, last, "storm", SHARE);
    goals.counts(first, last, "storm");
    Ok(())
}

/// As many forks as there can be. If events are lost by that, the counters must not show it by falling.
fn flood(time: Duration, goals: &mut Goals) -> Result<()> {
    let [first, .., last] = &readings(Kind::Flood, time, interval(time) / 2, goals)?[..] else { bail!("too short") };
    let rate = last.forks_since(first) / last.seconds_since(first);
    goals.add("forks/s", Some(rate), &format!("a flood is {FLOOD} forks a second"), |rate| rate >= FLOOD);
    let cpu = Some(last.main_cpu_since(first));
    goals.add("cores", cpu, &format!("the main thread uses at most {FLOOD_CPU} of a core in a flood"), |cpu| {
        cpu <= FLOOD_CPU
    });
    match last.lost_since(first) {
        Some(0.0) => goals.counts(first, last, "flood"),
        Some(lost) => println!("events were lost {lost} times"),
        None => println!("whether events were lost is not told"),
    }
    goals.truth(first, last, "flood", [0.0, SHARE[1]]);
    Ok(())
}

/// Births and deaths among thousands that are watched: what is remembered of the dead must be forgotten.
fn churn(time: Duration, goals: &mut Goals) -> Result<()> {
    let readings = readings(Kind::Churn, time, interval(time), goals)?;
    let [first, .., last] = &readings[..] else { bail!("too short") };
    let peak = readings.iter().map(|reading| reading.rss_kib).max().unwrap_or(0);
    println!(
        "RSS: {} KiB first, {} last, {peak} at most when sampled, {} peak (VmHWM)",
        first.rss_kib, last.rss_kib, last.peak_kib
    );
    let growth = last.rss_kib.saturating_sub(first.rss_kib) as f64;
    let what = format!("RSS grows by at most {GROWTH_KIB} KiB in a churn of {} s", time.as_secs());
    goals.add("KiB", Some(growth), &what, |growth| growth <= GROWTH_KIB as f64);
    let what = format!("the peak RSS of {POPULATION} processes is at most {PEAK_KIB} KiB");
    goals.add("KiB", Some(last.peak_kib as f64), &what, |peak| peak <= PEAK_KIB as f64);
    goals.add("events_lost", last.lost_since(first), "no event is lost in a churn", |lost| lost == 0.0);
    goals.truth(first, last, "churn", [0.0, SHARE[1]]);
    goals.counts(first, last, "churn");
    Ok(())
}

/// A flood that begins when nothing was to be heard for long: the first of it must not be lost either.
fn onset(time: Duration, goals: &mut Goals) -> Result<()> {
    let [first, .., last] = &readings(Kind::Onset, time, interval(time), goals)?[..] else { bail!("too short") };
    goals.add("events_lost", last.lost_since(first), "no event is lost at the onset of a flood", |lost| lost == 0.0);
    goals.counts(first, last, "onset");
    Ok(())
}

/// Threads are told of, too, and are none of the processes that are counted.
fn threads(time: Duration, goals: &mut Goals) -> Result<()> {
    let [first, .., last] = &readings(Kind::Threads, time, interval(time), goals)?[..] else { bail!("too short") };
    let rate = last.forks_since(first) / last.seconds_since(first);
    let what = format!("no event is lost at {rate:.0} threads a second");
    goals.add("events_lost", last.lost_since(first), &what, |lost| lost == 0.0);
    goals.add("started", Some(last.started_since(first)), "a thread is no process", |started| started == 0.0);
    goals.truth(first, last, "storm of threads", SHARE);
    Ok(())
}

/// What events cost by how many are born: a wake-up costs most where each brings little.
fn pace(time: Duration, goals: &mut Goals) -> Result<()> {
    println!(
        "{:>8}{:>10}{:>10}{:>10}{:>11}{:>12}{:>7}",
        "asked", "births/s", "host's", "cores", "wakeups/s", "us a birth", "lost"
    );
    for (rate, most) in PACES {
        let mut storm = Storm::begin(Kind::Paced(rate))?;
        let mut watch = Watch::begin(Some(storm.root()))?;
        let (first, forks) = (watch.read(&mut storm)?, forks_of_the_host()?);
        std::thread::sleep(time / PACES.len() as u32);
        let (last, forks) = (watch.read(&mut storm)?, forks_of_the_host()? - forks);
        let seconds = last.seconds_since(&first);
        let (births, cpu) = (last.forks_since(&first) / seconds, last.main_cpu_since(&first));
        println!(
            "{rate:8}{births:10.0}{:10.0}{:>10}{:>11}{:>12}{:>7}",
            forks as f64 / seconds,
            goals::or_unknown(Some(cpu)),
            goals::or_unknown(last.wakeups_since(&first).map(|wakeups| (wakeups / seconds).round())),
            goals::or_unknown(Some((cpu / births * 1e7).round() / 10.0)),
            goals::or_unknown(last.lost_since(&first)),
        );
        let what = format!("the main thread uses at most {most} of a core at {rate} births a second");
        goals.add("cores", Some(cpu), &what, |cpu| cpu <= most);
        goals.told(&watch);
    }
    Ok(())
}

/// At least three gathers.
fn interval(time: Duration) -> Duration {
    if time >= 6 * INTERVAL { INTERVAL } else { SHORT_INTERVAL.min(time / 3) }
}

/// Runs stormers, and gathers meanwhile. The first reading comes after a gather that does not count, when what grows once
/// has grown.
fn readings(kind: Kind, time: Duration, interval: Duration, goals: &mut Goals) -> Result<Vec<Reading>> {
    let mut storm = Storm::begin(kind)?;
    let mut watch = Watch::begin(Some(storm.root()))?;
    println!("pid_max is {}; accounting={}", pid_max()?, watch.accounting());
    println!(
        "{:>8}{:>10}{:>10}{:>12}{:>9}{:>9}{:>7}{:>10}{:>10}{:>10}{:>9}",
        "seconds",
        "forks/s",
        "charged",
        "reported",
        "p_cpu",
        "cores",
        "lost",
        "wakeups",
        "started",
        "exited",
        "RSS KiB"
    );
    let mut readings: Vec<Reading> = Vec::new();
    let began = Instant::now();
    while readings.last().is_none_or(|_| began.elapsed() + interval / 2 < time) {
        let now = watch.read(&mut storm)?;
        match readings.last() {
            Some(before) => println!("{}", now.since(before)),
            None => println!("{:>8}", "first"),
        }
        readings.push(now);
        std::thread::sleep(interval);
    }
    readings.push(watch.read(&mut storm)?);
    let [.., before, last] = &readings[..] else { bail!("too short") };
    println!("{}", last.since(before));
    let most = readings[1..].iter().filter_map(|reading| reading.p_cpu).fold(0.0, f64::max);
    let cpus = std::thread::available_parallelism()?.get() as f64;
    let what = format!("no p_cpu of a {kind:?} is above {cpus} CPUs and {P_CPU_MORE} of them");
    goals.add("cores", Some(most), &what, |most| most <= cpus * (1.0 + P_CPU_MORE));
    let falls = readings.windows(2).any(|pair| pair[1].falls_after(&pair[0]));
    goals.add("", Some(f64::from(u8::from(falls))), &format!("no counter falls in a {kind:?}"), |falls| falls == 0.0);
    goals.told(&watch);
    Ok(readings)
}

/// There is no trigger, and we fork nothing: the main thread wakes up for what the host does, and no other thread at all.
fn idle(time: Duration, goals: &mut Goals) -> Result<()> {
    let mut watch = Watch::begin(None)?;
    println!("accounting={}", watch.accounting());
    let first = watch.read_alone()?;
    std::thread::sleep(Duration::from_millis(500)); // what follows an answer
    let (forks, before) = (forks_of_the_host()?, watch.switches()?);
    std::thread::sleep(time);
    let (forks, after) = (forks_of_the_host()? - forks, watch.switches()?);
    let last = watch.read_alone()?;
    let [main, others] = [after[0] - before[0], after[1] - before[1]];
    let wakeups = last.wakeups_since(&first);
    println!(
        "{forks} forks of the host; voluntary context switches: {main} of the main thread, {others} of the others; \
         wakeups, of the time between two prompts: {}",
        goals::or_unknown(wakeups)
    );
    goals.add("switches", Some(others as f64), "no other thread wakes up while idle", |others| others == 0.0);
    // A prompt and what comes before and after it may wake it, too.
    let difference = wakeups.map(|wakeups| wakeups - main as f64);
    goals.add("wakeups more than switches", difference, "wakeups tells them all while idle", |more| {
        (-1.0..=10.0).contains(&more)
    });
    // Exits come in pairs of messages, so that one sleep may take in many.
    let allowed = 2.0 * forks as f64 + 2.0;
    goals.add(
        "switches",
        Some(main as f64),
        &format!("{forks} forks of the host wake it at most {allowed} times"),
        |n| n <= allowed,
    );
    goals.told(&watch);
    Ok(())
}
