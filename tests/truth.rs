//! The truth: what is reported of a process tree, against what the kernel charged the cgroup it lives in.
//!
//! Every workload runs in a cgroup of its own and is watched at the same time as root by events, as root by scans, and as
//! an ordinary user. cpu.stat is read before each prompt and after its answer, so what is reported from the first gather to
//! the last must lie between [last before − first after] and [last after − first before], but for 1 % + 20 ms. Some are
//! watched by their cgroup, too, which must give all of it.
//!
//! What ordinary hosts have, servers of several levels and deep chains, is watched at 0.25, 1 and 2.5 s at once
//! (`truth/paced.rs`): what is lost or doubled at each gather shows most where there are many, and what builds up between two
//! where there are few.
//!
//! What only events can know of (`truth/unseen.rs`), scans need not find; but they may not find more than there is. Nor may
//! several targets together, of which each is judged by itself as well, have more than the host had.
//!
//! This executable is the test and, run with `workload NAME CGROUP`, the workload too. The tests run one after
//! the other, whatever is asked for. With `--nocapture` each says what it measured.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test may fail
#![allow(clippy::print_stdout, clippy::print_stderr)] // the streams are a test's own
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere
#![allow(unsafe_code)] // the workloads fork, which Rust cannot know to be safe

#[path = "support/peers.rs"]
mod peers;
mod support;

#[path = "truth/apache.rs"]
mod apache;
#[path = "truth/busy.rs"]
mod busy;
#[path = "truth/cgroup.rs"]
mod cgroup;
#[path = "truth/chains.rs"]
mod chains;
#[path = "truth/counted.rs"]
mod counted;
#[path = "truth/counting.rs"]
mod counting;
#[path = "truth/leaders.rs"]
mod leaders;
#[path = "truth/paced.rs"]
mod paced;
#[path = "truth/parts.rs"]
mod parts;
#[path = "truth/renamed.rs"]
mod renamed;
#[path = "truth/running.rs"]
mod running;
#[path = "truth/servers.rs"]
mod servers;
#[path = "truth/unseen.rs"]
mod unseen;
#[path = "truth/verdict.rs"]
mod verdict;
#[path = "truth/watcher.rs"]
mod watcher;
#[path = "truth/workloads.rs"]
mod workloads;

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use apache::APACHE;
use busy::Busy;
use chains::{CHAINS, OUT_OF_ORDER};
use renamed::RENAMED;
use running::Workload;
use servers::SERVERS;
use support::PublicBinary;
use unseen::{UNSEEN, recorded};
use verdict::{Standard, Verdict};
use watcher::{Target, Watcher, Way};
use workloads::WORKLOADS;

/// The gathers that are measured, and the interval before each: from the first to the last, more than 3 s.
const GATHERS: usize = 4;
const INTERVAL: Duration = Duration::from_secs(1);

/// The workloads that are watched by their cgroup, and how many processes each has. What is born and gone between two
/// gathers has its CPU in there, whoever reaped it; an orphan that is still exiting may be there beside the next.
const BY_CGROUP: [(&str, RangeInclusive<f64>); 3] =
    [("steady", 1.0..=1.0), ("children_of_5ms", 1.0..=2.0), ("orphans_of_5ms", 1.0..=8.0)];

/// Targets that have no process in common, and whether there is nothing but exit records of them.
const TOGETHER: [(&str, bool); 6] = [
    ("children_of_5ms", false),
    ("subreaper", false),
    ("orphans_of_5ms", true),
    ("autoreaped_of_5ms", true),
    ("multithreaded_orphans", true),
    ("walking_daemon", true),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "workload", name, cgroup] => {
            workloads::run(name, cgroup, &[&SERVERS[..], &CHAINS, &[OUT_OF_ORDER, APACHE, RENAMED]].concat())
        }
        [_, "step", name] => workloads::step(name),
        [_, "recorded"] => unseen::print_recorded(),
        _ => test(),
    }
}

fn test() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let show = arguments.nocapture;
    let mut trials = Vec::new();
    let mut add = |name: String, run: Box<dyn Fn() -> Result<Vec<Said>, Skipped> + Send>| {
        trials.push(Trial::ignorable_test(name, move || judge(run(), show)));
    };
    for (name, _) in WORKLOADS {
        add(name.into(), Box::new(move || by_root(name, 0.99, 0.99)));
    }
    for (name, _) in UNSEEN {
        let least = move || if name == "daemon_between_gathers" { 0.99 } else { recorded() };
        add(name.into(), Box::new(move || by_root(name, least(), 0.0)));
    }
    for (name, _) in SERVERS.into_iter().chain(CHAINS) {
        add(name.into(), Box::new(move || paced::by_root(name)));
    }
    add(OUT_OF_ORDER.0.into(), Box::new(paced::out_of_order));
    add(APACHE.0.into(), Box::new(apache::under_load));
    add(RENAMED.0.into(), Box::new(paced::renamed));
    for (name, processes) in BY_CGROUP {
        add(format!("{name}_by_cgroup"), Box::new(move || by_cgroup(name, processes.clone())));
    }
    add("adopter_and_tree".into(), Box::new(adopter_and_tree));
    add("targets_together".into(), Box::new(targets_together));
    add("births_and_deaths".into(), Box::new(counting::births_and_deaths));
    add("switches_of_the_unseen".into(), Box::new(counting::switches_of_the_unseen));
    add("there_while_another_leads".into(), Box::new(leaders::there_while_another_leads));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What was measured, and whether it is right.
type Said = Result<String, String>;

/// What a test needs is not here, which has been said.
struct Skipped;

fn judge(said: Result<Vec<Said>, Skipped>, show: bool) -> Result<Completion, Failed> {
    let Ok(said) = said else { return Ok(Completion::ignored_with("the reason is above")) };
    let text: String = said.iter().map(|said| format!("\n  {}", said.as_ref().unwrap_or_else(|fault| fault))).collect();
    if show {
        println!("{text}");
    }
    if said.iter().all(Result::is_ok) { Ok(Completion::Completed) } else { Err(text.into()) }
}

/// A workload, watched by its root: the least shares that are asked of events, and of the others.
fn by_root(name: &str, events: f64, others: f64) -> Result<Vec<Said>, Skipped> {
    let workload = Workload::start(name)?;
    let target = Watched { name: name.into(), workload: 0, what: What::Tree };
    Ok(measure(&mut [workload], &[target], |way, _| Standard::least(if way == Way::Events { events } else { others }))
        .0)
}

fn by_cgroup(name: &str, processes: RangeInclusive<f64>) -> Result<Vec<Said>, Skipped> {
    let workload = Workload::start(name)?;
    let target = Watched { name: format!("{name}_by_cgroup"), workload: 0, what: What::Cgroup };
    // cpu.stat counts in µs.
    let standard = Standard { shares: [1.0, 1.0], seconds: 1e-6, processes };
    Ok(measure(&mut [workload], &[target], |_, _| standard.clone()).0)
}

/// A tree whose orphans are all of its CPU, and another target of their adopter with all that descends from it: so the tree,
/// too. The orphans are counted in the first when they die. In the other the adopter is charged for each besides, when it
/// reaps it, and that is the same CPU.
fn adopter_and_tree() -> Result<Vec<Said>, Skipped> {
    let workload = Workload::start("orphans_of_5ms")?;
    let targets = [What::Tree, What::Adopter].map(|what| Watched { name: what.title().into(), workload: 0, what });
    let recorded = recorded();
    let standard = |way, target| {
        Standard::least(match (way, target) {
            (_, 1) => 0.99, // it waits for them, so that nothing is lost
            (Way::Events, _) => recorded,
            _ => 0.0,
        })
    };
    Ok(measure(&mut [workload], &targets, standard).0)
}

/// Several workloads at once: none is taken for a part of another, and the sum is not above what all CPUs did, whatever the
/// cgroups say.
fn targets_together() -> Result<Vec<Said>, Skipped> {
    let mut workloads = Vec::new();
    for (name, _) in TOGETHER {
        workloads.push(Workload::start(name)?);
    }
    let targets: Vec<_> = TOGETHER
        .iter()
        .enumerate()
        .map(|(workload, (name, _))| Watched { name: (*name).into(), workload, what: What::Tree })
        .collect();
    let recorded = recorded();
    let standard = |way, target: usize| {
        Standard::least(match TOGETHER[target] {
            (_, false) => 0.99,
            _ if way == Way::Events => recorded,
            _ => 0.0,
        })
    };
    let busy = Busy::begin();
    let (mut said, sums) = measure(&mut workloads, &targets, standard);
    let most = busy.seconds();
    for (way, sum) in sums {
        let text = format!("all, {}: {sum:.3} s of CPU reported, of {most:.3} s that all CPUs were busy", way.title());
        said.push(if sum <= most { Ok(text) } else { Err(format!("{text}; MORE THAN THERE WAS")) });
    }
    Ok(said)
}

/// A target, and the workload that is judged by.
struct Watched {
    name: String,
    /// Its index.
    workload: usize,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// The root and what descends from it.
    Tree,
    /// The cgroup's processes.
    Cgroup,
    /// The init of its orphans, and what descends from it.
    Adopter,
}

impl What {
    fn title(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Cgroup => "cgroup",
            Self::Adopter => "adopter",
        }
    }

    fn selector(self, workload: &Workload) -> String {
        match self {
            Self::Tree => format!("pid = {}", workload.root),
            Self::Cgroup => format!("cgroup = \"{}\"", workload.cgroup.name()),
            Self::Adopter => format!("pid = {}", workload.process.id()),
        }
    }

    /// What its processes were charged so far, in seconds.
    fn charged(self, workload: &Workload) -> f64 {
        let of_cgroup = workload.cgroup.usage();
        match self {
            Self::Tree | Self::Cgroup => of_cgroup,
            Self::Adopter => of_cgroup + workload.adopter_usage(),
        }
    }
}

/// Has the targets watched in all ways, and judges what each watcher was told of each of them; for every way, the CPU of
/// all targets together, too.
fn measure(
    workloads: &mut [Workload],
    watched: &[Watched],
    standard: impl Fn(Way, usize) -> Standard,
) -> (Vec<Said>, Vec<(Way, f64)>) {
    let targets: Vec<_> = watched
        .iter()
        .map(|w| Target { name: w.name.clone(), selector: w.what.selector(&workloads[w.workload]) })
        .collect();
    let public = PublicBinary::new();
    let start = |way| Watcher::start(way, &targets, &["psstat"], &public);
    let mut watchers: Vec<_> = Way::possible().into_iter().map(start).collect();
    // The first answer may be a second in coming, and cpu.stat around it says little: nothing is measured from it.
    for watcher in &mut watchers {
        watcher.gather();
    }
    for _ in 0..GATHERS {
        std::thread::sleep(INTERVAL);
        for watcher in &mut watchers {
            watcher.read(|| watched.iter().map(|w| w.what.charged(&workloads[w.workload])).collect());
        }
        for workload in &mut *workloads {
            workload.cue();
        }
    }
    for workload in workloads {
        assert!(workload.process.try_wait().unwrap().is_none(), "the workload ended by itself");
    }

    let (mut said, mut sums) = (Vec::new(), Vec::new());
    for watcher in &watchers {
        let mut sum = 0.0;
        for (index, (target, readings)) in watched.iter().zip(&watcher.readings).enumerate() {
            let title = format!("{}, {}", target.name, watcher.way.title());
            let verdict = Verdict::on(readings, &standard(watcher.way, index), title);
            said.push(if verdict.is_faultless() { Ok(verdict.to_string()) } else { Err(verdict.to_string()) });
            sum += readings[readings.len() - 1].cpu_time - readings[0].cpu_time;
        }
        sums.push((watcher.way, sum));
        said.push(watcher.accounting());
    }
    (said, sums)
}
