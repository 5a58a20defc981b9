//! What is printed on stdout: Markdown for docs/benchmark.md.

use std::fmt::Write;

use crate::machine::machine;
use crate::outcome::{LEAST, Outcome, Seen};
use crate::program::Program;
use crate::stressors::{LEFT_OUT, RUN};
use crate::watcher::Way;

/// `busy` are the stressors that count, `idle` those that used too little CPU; `failed` could not be measured, and `there` are
/// all that stress-ng has.
pub fn print(
    program: &Program,
    ways: &[Way],
    busy: &[Outcome],
    idle: &[Outcome],
    failed: &[(&str, String)],
    there: &[String],
) {
    println!("{}. telegraf-taskstats {}, stress-ng {}.\n", machine(), env!("CARGO_PKG_VERSION"), program.version());
    print_shares(ways, busy);
    print_the_others(busy);
    print_births(busy);
    println!("\n### Which stressors\n");
    println!("{} counted: {}.", busy.len(), names(busy.iter().map(|outcome| outcome.name.as_str())));
    if !idle.is_empty() {
        let idle_names = names(idle.iter().map(|outcome| outcome.name.as_str()));
        println!("\n{} ran, but used less than {LEAST} s of CPU or cannot run here: {idle_names}.", idle.len());
    }
    for (name, error) in failed {
        println!("\nNot measured: {name}: {error}.");
    }
    println!("\n| not run, since it | |\n|---|---|");
    for (reason, left_out) in LEFT_OUT {
        println!("| {reason} | {} |", left_out.join(", "));
    }
    let is_known = |name: &&str| RUN.contains(name) || LEFT_OUT.iter().any(|(_, names)| names.contains(name));
    let unknown: Vec<_> = there.iter().map(String::as_str).filter(|name| !is_known(name)).collect();
    if !unknown.is_empty() {
        println!("| is not known to do no harm | {} |", unknown.join(", "));
    }
}

fn print_shares(ways: &[Way], busy: &[Outcome]) {
    println!(
        "| watched as | stressors within 1 % + 20 ms | CPU reported of all | births counted exactly |\n|---|---:|---:|---:|"
    );
    for way in ways {
        let seen: Vec<_> = busy.iter().filter_map(|outcome| Some((outcome, outcome.seen_by(*way)?))).collect();
        let within = seen.iter().filter(|(outcome, seen)| outcome.is_within(seen)).count();
        let reported: f64 = seen.iter().map(|(_, seen)| seen.reported).sum();
        let charged: f64 = seen.iter().map(|(outcome, _)| outcome.charged).sum();
        let births: Vec<_> = seen.iter().filter_map(|(outcome, seen)| outcome.counts_births(seen)).collect();
        let exact = births.iter().filter(|is_exact| **is_exact).count();
        let births = if births.is_empty() { "not told".to_owned() } else { format!("{exact} of {}", births.len()) };
        let share = 100.0 * reported / charged;
        println!("| {} | **{within} of {}** | {share:.2} % | {births} |", way.title(), seen.len());
    }
    let charged: f64 = busy.iter().map(|outcome| outcome.charged).sum();
    let by_the_kernel: f64 = busy.iter().map(|outcome| outcome.reaped + outcome.orphans).sum();
    println!("| the kernel's own accounts | | {:.2} % | |", 100.0 * by_the_kernel / charged);
}

/// Those that are not within the bounds.
fn print_the_others(busy: &[Outcome]) {
    let mut rows = String::new();
    for outcome in busy {
        for seen in outcome.seen.iter().filter(|seen| !outcome.is_within(seen)) {
            let _ = writeln!(
                rows,
                "| {} | {} | {:.2} s | {} | {} | {} | {} |",
                outcome.name,
                seen.way.title(),
                outcome.charged,
                outcome.percent(seen.reported),
                outcome.percent(outcome.reaped),
                outcome.percent(outcome.orphans),
                outcome.reason(seen)
            );
        }
    }
    if !rows.is_empty() {
        println!("\n### Not within the bounds\n");
        println!("| stressor | watched as | charged | reported | kernel: own and waited for | left to init | why |");
        println!("|---|---|---:|---:|---:|---:|---|\n{}", rows.trim_end());
    }
}

fn print_births(busy: &[Outcome]) {
    let born: u64 = busy.iter().filter_map(|outcome| outcome.born).sum();
    if born == 0 {
        return;
    }
    println!("\n### Births\n\n{born} processes were born.");
    let is_wrong = |(outcome, seen): &(&Outcome, &Seen)| outcome.counts_births(seen) == Some(false);
    let pairs = busy.iter().flat_map(|outcome| outcome.seen.iter().map(move |seen| (outcome, seen)));
    let wrong: Vec<_> = pairs.filter(is_wrong).collect();
    if !wrong.is_empty() {
        println!("\n| stressor | watched as | born | started | events lost |\n|---|---|---:|---:|---:|");
    }
    for (outcome, Seen { way, started, lost, .. }) in wrong {
        let (born, started) = (outcome.born.unwrap_or_default(), started.unwrap_or_default());
        println!("| {} | {} | {born} | {started} | {lost} times |", outcome.name, way.title());
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
