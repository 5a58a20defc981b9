//! The plugin on a simulated kernel that keeps its own books.
//!
//! Processes fork, burn, exit, wait, ignore SIGCHLD, leave orphans, become subreapers and are killed in groups, at random,
//! also while a gather is being read. The plugin is the real one, from its agent to its series: it is shown what /proc would show, texts
//! rounded down to ticks, and told what the kernel would tell. What it reports is held against what was really burnt.

// A test says what went wrong by panicking.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere

#[path = "simulator/kernel.rs"]
mod kernel;
#[path = "simulator/mutations.rs"]
mod mutations;
#[path = "simulator/plugin.rs"]
mod plugin;
#[path = "simulator/run.rs"]
mod run;

use plugin::By;
use run::run_all;

#[test]
fn by_events_everything_is_reported_once() {
    run_all(By::Events, false);
}

#[test]
fn by_events_what_is_lost_is_reported_at_most_once() {
    run_all(By::Events, true);
}

#[test]
fn by_the_connector_nothing_is_reported_twice() {
    run_all(By::Connector, false);
}

#[test]
fn by_a_scan_nothing_is_reported_twice_and_all_that_is_waited_for_once() {
    run_all(By::Scan, false);
}
