//! The plugin beside its peers, on the same processes in the same run: `scripts/peers && cargo bench --bench peers`.
//!
//! Two parts: what a gather costs ([`cost`]), and how much of the CPU that was used it reports ([`truth`]); `-- cost` or
//! `-- truth` after the command asks for one alone. The peers are Telegraf's procstat, process-exporter and netdata's
//! apps.plugin, each at its cheapest that does what is asked for. docs/benchmark.md tells more, and holds the tables, which
//! are printed to go there as they are.
//!
//! A benchmark reports and does not assert: a peer that is missing is left out, which is said, and goals are met or missed.
//!
//! This executable is the processes that are watched too: `tree NAME SIZE ROOT`, `workload NAME CGROUP` and `step NAME`.
#![allow(clippy::print_stdout)] // a benchmark's result
#![allow(clippy::print_stderr)] // and how far it is
#![allow(unreachable_pub)] // nothing in a benchmark is reached from elsewhere
#![allow(unsafe_code)] // fork(2), pre_exec and the CPU clock of another process have no safe wrapper

// These are a test's, which may fail.
#[path = "../tests/truth/cgroup.rs"]
#[allow(clippy::unwrap_used, dead_code)]
mod cgroup;
#[path = "../tests/truth/counted.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]
mod counted;
#[path = "../tests/truth/parts.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]
mod parts;
#[path = "../tests/support/mod.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod support;
#[path = "../tests/truth/unseen.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]
mod unseen;
#[path = "../tests/truth/workloads.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]
mod workloads;

// These are the other benchmark's, of which not all is wanted.
#[path = "gather/floors.rs"]
#[allow(dead_code)]
mod floors;
#[path = "gather/series.rs"]
#[allow(dead_code)]
mod series;

#[path = "peers/contenders.rs"]
mod contenders;
#[path = "peers/cost.rs"]
mod cost;
#[path = "peers/forest.rs"]
mod forest;
#[path = "peers/machine.rs"]
mod machine;
#[path = "peers/process.rs"]
mod process;
#[path = "peers/report.rs"]
mod report;
#[path = "peers/truth.rs"]
mod truth;

use anyhow::Result;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "tree", name, size, root] => forest::grow(name, size, root),
        [_, "workload", name, cgroup] => truth::run(name, cgroup),
        [_, "step", name] => workloads::step(name),
        // cargo adds --bench.
        [_, "cost", ..] => bench(true, false),
        [_, "truth", ..] => bench(false, true),
        _ => bench(true, true),
    }
}

fn bench(cost: bool, truth: bool) -> Result<()> {
    report::heed_signals()?;
    println!("{}\n", report::caption());
    if cost {
        let [few, work, whole] = [&cost::FEW_OF_MANY, &cost::FEW_THAT_WORK, &cost::WHOLE_FOREST];
        let costs = [cost::measure(few)?, cost::measure(work)?, cost::measure(whole)?];
        report::print_costs(&costs);
        let [few, _, whole] = &costs;
        report::print_goals(few, whole);
    }
    if truth {
        rustix::process::set_child_subreaper(None)?;
        match truth::measure() {
            Ok((contenders, rows)) => report::print_truth(&contenders, &rows),
            Err(error) => report::leave_out("truth", &error),
        }
    }
    Ok(())
}

/// Every process there is.
fn pids_in_proc() -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}
