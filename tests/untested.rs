//! What a whole `cargo test` has not tested: cargo runs the executables by name, this one last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere

#[path = "support/skip.rs"]
mod skip;

use std::collections::BTreeMap;
use std::process::Command;

use skip::{say, skip, skipped};

/// Set where something is to be skipped.
const SKIPS: &str = "TASKSTATS_TEST_SKIPS";

/// Not a test: what the other runs in a process of its own. Nothing, unless asked for.
#[test]
fn a_part() {
    if std::env::var_os(SKIPS).is_some() {
        skip("there is no such thing");
    }
}

#[test]
fn a_skip_is_seen_and_counted_and_a_failure_where_nothing_may_be_skipped() {
    let run = |no_skip: Option<&str>| {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "a_part"]).env(SKIPS, "").env_remove("TASKSTATS_TEST_NO_SKIP");
        let output = command.envs(no_skip.map(|value| ("TASKSTATS_TEST_NO_SKIP", value))).output().unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.success(), stdout, stderr)
    };
    let (succeeds, stdout, stderr) = run(None);
    assert!(succeeds && stdout.contains("1 passed"), "{stdout}{stderr}");
    let said: Vec<_> = stderr.lines().filter(|line| !line.is_empty()).collect();
    let [reason, count] = said[..] else { panic!("{stderr}") };
    assert!(reason.ends_with(": there is no such thing ***"), "{reason}");
    assert!(count.starts_with("*** untested: 1 skipped, "), "{count}");
    let (succeeds, stdout, _) = run(Some("1"));
    assert!(!succeeds && stdout.contains("nothing may be skipped here, but: there is no such thing"), "{stdout}");
}

/// Not a test either, but the place to say it.
#[test]
fn the_sum_of_what_was_skipped() {
    let reasons = skipped();
    let mut counts = BTreeMap::<&str, usize>::new();
    for reason in &reasons {
        *counts.entry(reason.split(':').next().unwrap()).or_default() += 1;
    }
    let counts: Vec<_> = counts.into_iter().map(|(executable, count)| format!("{count} in {executable}")).collect();
    if !reasons.is_empty() {
        say(&format!("this cargo test skipped {} in all: {}", reasons.len(), counts.join(", ")));
    }
}
