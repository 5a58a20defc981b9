//! Whether what is reported is right, on loads that nobody made for the purpose: `scripts/peers && cargo bench --bench stress`.
//!
//! Each stressor of stress-ng that does no harm runs for some seconds in a cgroup of its own, and is watched at the same time as
//! root by events, as root by scans, and as an ordinary user, from before its first process until after its last. The CPU
//! that was reported of it is compared with the `usage_usec` of the cgroup's `cpu.stat`, and the births with the kernel's own
//! count. docs/benchmark.md tells more, and holds the result, which is printed to go there as it is.
//!
//! Stressors named after the command run alone: `-- fork vfork`. Another binary than that of this checkout is measured if
//! TASKSTATS_TEST_BINARY names it.
//!
//! A benchmark reports and does not assert: beside each stressor that is not within the bounds stands why.
//!
//! This executable is also the processes above a stressor: `above CGROUP PROGRAM ARGUMENT...`.
#![allow(clippy::print_stdout)] // a benchmark's result
#![allow(clippy::print_stderr)] // and how far it is
#![allow(unreachable_pub)] // nothing in a benchmark is reached from elsewhere
#![allow(unsafe_code)] // fork(2), pre_exec, getrusage(2) and perf_event_open(2) have no safe wrapper

// These are a test's, which may fail, and of which not all is wanted.
#[path = "../tests/truth/busy.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code)]
mod busy;
#[path = "../tests/truth/cgroup.rs"]
#[allow(clippy::unwrap_used, dead_code)]
mod cgroup;
#[path = "../tests/support/mod.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod support;
#[path = "../tests/truth/verdict.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code)]
mod verdict;
#[path = "../tests/truth/watcher.rs"]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, dead_code)]
mod watcher;

// These are the other benchmark's.
#[path = "peers/machine.rs"]
mod machine;
#[path = "peers/process.rs"]
#[allow(dead_code)]
mod process;

#[path = "stress/above.rs"]
mod above;
#[path = "stress/births.rs"]
mod births;
#[path = "stress/outcome.rs"]
mod outcome;
#[path = "stress/program.rs"]
mod program;
#[path = "stress/report.rs"]
mod report;
#[path = "stress/run.rs"]
mod run;
#[path = "stress/stressors.rs"]
mod stressors;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, anyhow, bail, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};

use births::Tracepoint;
use outcome::Outcome;
use program::Program;
use support::PublicBinary;
use watcher::Way;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [above, cgroup, program, rest @ ..] = &arguments[..]
        && above == "above"
    {
        return above::run(cgroup, program, rest);
    }
    bench(&arguments)
}

fn bench(wanted: &[String]) -> Result<()> {
    let stopped = Arc::<AtomicBool>::default();
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stopped.clone())?;
    }
    let program = Program::new()?;
    let there = program.stressors()?;
    let wanted = chosen(wanted, &there)?;
    let (ways, public, tracepoint) = (Way::possible(), PublicBinary::new(), Tracepoint::of_births());
    if let Err(error) = &tracepoint {
        eprintln!("\n*** LEFT OUT: births: {error:#} ***\n");
    }
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    for (index, name) in wanted.iter().enumerate() {
        eprint!("stress: {} of {}: {name}", index + 1, wanted.len());
        // What is shared with tests panics where it fails.
        let run = || run::run(name, &program, &ways, &public, tracepoint.as_ref().ok());
        match catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(anyhow!("see above"))) {
            Ok(outcome) => {
                eprintln!("{}", outcome.in_a_line());
                outcomes.push(outcome);
            }
            Err(error) => {
                eprintln!(": NOT MEASURED: {error:#}");
                failed.push((*name, format!("{error:#}")));
            }
        }
        ensure!(!stopped.load(Ordering::Relaxed), "stopped by a signal");
    }
    let (busy, idle): (Vec<Outcome>, _) = outcomes.into_iter().partition(Outcome::is_busy);
    report::print(&program, &ways, &busy, &idle, &failed, &there);
    Ok(())
}

/// The stressors that are asked for, or else all that are known to do no harm and that this stress-ng has.
fn chosen<'a>(wanted: &'a [String], there: &'a [String]) -> Result<Vec<&'a str>> {
    for name in wanted {
        if let Some((reason, _)) = stressors::LEFT_OUT.iter().find(|(_, names)| names.contains(&name.as_str())) {
            bail!("{name} is not run: {reason}");
        }
        ensure!(stressors::RUN.contains(&name.as_str()), "{name} is no stressor that this benchmark knows");
        ensure!(there.contains(name), "this stress-ng has no {name}");
    }
    let is_wanted =
        |name: &&String| stressors::RUN.contains(&name.as_str()) && (wanted.is_empty() || wanted.contains(name));
    Ok(there.iter().filter(is_wanted).map(String::as_str).collect())
}
