//! What is printed: on stdout Markdown for docs/benchmark.md, on stderr how far it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Error, Result, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cost::{Cost, Costs};
use crate::machine::{machine, said_by};
use crate::process::peer;
use crate::series::Series;
use crate::truth::Row;

/// Goals of the plugin's CPU: at most this much of another's.
const FEW_TO_PROCSTAT: f64 = 1.0 / 20.0;
const FEW_TO_FLOOR: f64 = 1.0 / 100.0;
const WHOLE_TO_FLOOR: f64 = 0.75;
const WHOLE_TO_PROCSTAT: f64 = 1.0 / 20.0;
const WHOLE_TO_EXPORTER: f64 = 1.0 / 20.0;
const WHOLE_TO_APPS_PLUGIN: f64 = 1.0 / 4.0;
const PEAK_KIB: u64 = 10 * 1024;

static STOPPED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Has SIGINT and SIGTERM end the benchmark in a way that cleans up.
pub fn heed_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, STOPPED.clone())?;
    }
    Ok(())
}

/// Fails if the benchmark is to end.
pub fn go_on() -> Result<()> {
    ensure!(!STOPPED.load(Ordering::Relaxed), "stopped by a signal");
    Ok(())
}

pub fn note(text: &str) {
    eprintln!("peers: {text}");
}

pub fn leave_out(what: &str, error: &Error) {
    eprintln!("\n*** LEFT OUT: {what}: {error:#} ***\n");
}

/// Machine, kernel, date and versions.
pub fn caption() -> String {
    // Built from source, it does not know its version.
    let telegraf = include_str!("../../scripts/peers").lines().find_map(|line| line.strip_prefix("telegraf_version=v"));
    let exporter = said_by_peer("process-exporter", "-version");
    let exporter = exporter.split_once("revision: ").and_then(|(_, rest)| rest.split([')', '-']).next());
    let netdata = said_by_peer("apps.plugin", "-v");
    let netdata = netdata.trim().strip_prefix("apps.plugin v");
    format!(
        "{}. telegraf-taskstats {}, Telegraf {}, process-exporter {}, \
         netdata's apps.plugin {}.",
        machine(),
        env!("CARGO_PKG_VERSION"),
        telegraf.unwrap_or("unknown"),
        exporter.unwrap_or("unknown"),
        netdata.unwrap_or("unknown")
    )
}

fn said_by_peer(program: &str, argument: &str) -> String {
    peer(program).map(|mut command| said_by(command.arg(argument))).unwrap_or_default()
}

/// The tables of the costs, a column for each.
pub fn print_costs(all: &[Costs]) {
    println!("### Cost\n");
    for costs in all {
        println!("- {}: {}; medians of {} rounds.", costs.scenario.what, costs.describe(), costs.rounds);
    }
    table(
        "CPU of one gather, ms",
        all,
        &[
            ("listing /proc", &|costs| in_ms(&costs.floors.listing)),
            ("reading each stat, held open", &|costs| in_ms(&costs.floors.pread)),
            ("opening, reading and closing each stat: the floor", &|costs| in_ms(&costs.floors.open_read_close)),
            ("**telegraf-taskstats**", &|costs| format!("**{}**", in_ms(&costs.plugin.cpu))),
            ("procstat, in Telegraf", &|costs| of(costs.procstat.as_ref(), |cost| in_ms(&cost.cpu))),
            ("Telegraf without it", &|costs| of(costs.telegraf_alone.as_ref(), |cost| in_ms(&cost.cpu))),
            ("process-exporter", &|costs| of(costs.exporter.as_ref(), |cost| in_ms(&cost.cpu))),
            ("apps.plugin", &|costs| of(costs.apps_plugin.as_ref(), |cost| in_ms(&cost.cpu))),
        ],
    );
    table(
        "peak memory, MiB",
        all,
        &[
            ("**telegraf-taskstats**", &|costs| format!("**{}**", in_mib(&costs.plugin))),
            ("Telegraf with procstat", &|costs| of(costs.procstat.as_ref(), in_mib)),
            ("Telegraf without it", &|costs| of(costs.telegraf_alone.as_ref(), in_mib)),
            ("process-exporter", &|costs| of(costs.exporter.as_ref(), in_mib)),
            ("apps.plugin", &|costs| of(costs.apps_plugin.as_ref(), in_mib)),
        ],
    );
}

type Cell<'a> = &'a dyn Fn(&Costs) -> String;

/// Rows in which there is nothing are left out.
fn table(title: &str, all: &[Costs], rows: &[(&str, Cell)]) {
    let columns: Vec<_> = all.iter().map(|costs| costs.scenario.what).collect();
    println!("\n| {title} | {} |\n|---|{}", columns.join(" | "), "---:|".repeat(columns.len()));
    for (what, cell) in rows {
        let cells: Vec<_> = all.iter().map(cell).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            println!("| {what} | {} |", cells.join(" | "));
        }
    }
}

fn of(cost: Option<&Cost>, cell: impl Fn(&Cost) -> String) -> String {
    cost.map(cell).unwrap_or_default()
}

fn in_ms(series: &Series) -> String {
    if series.is_empty() {
        return String::new();
    }
    match series.median() / 1e3 {
        ms if ms < 10.0 => format!("{ms:.2}"),
        ms if ms < 100.0 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}

fn in_mib(cost: &Cost) -> String {
    format!("{:.1}", cost.peak_kib as f64 / 1024.0)
}

/// How much each contender reported of what the kernel charged.
pub fn print_truth(contenders: &[&str], rows: &[Row]) {
    println!("\n### Truth\n");
    println!("| CPU reported, of what the kernel charged the cgroup | {} |", contenders.join(" | "));
    println!("|---|{}", "---:|".repeat(contenders.len()));
    for row in rows {
        let cells = contenders.iter().zip(&row.shares).map(|(_, share)| match share {
            Some(share) if (0.0005..0.0995).contains(share) => format!("{:.1} %", share * 100.0),
            Some(share) => format!("{:.0} %", share * 100.0),
            None => "none".to_owned(),
        });
        println!("| {} | {} |", row.workload, cells.collect::<Vec<_>>().join(" | "));
    }
}

pub fn print_goals(few: &Costs, whole: &Costs) {
    println!("\n### Goals\n");
    let goals = [
        ratio(few, cpu(&few.procstat), FEW_TO_PROCSTAT, "procstat's"),
        ratio(few, Some(&few.floors.open_read_close), FEW_TO_FLOOR, "the floor's"),
        Some(memory(few)),
        ratio(whole, Some(&whole.floors.open_read_close), WHOLE_TO_FLOOR, "the floor's"),
        ratio(whole, cpu(&whole.procstat), WHOLE_TO_PROCSTAT, "procstat's"),
        ratio(whole, cpu(&whole.exporter), WHOLE_TO_EXPORTER, "process-exporter's"),
        ratio(whole, cpu(&whole.apps_plugin), WHOLE_TO_APPS_PLUGIN, "apps.plugin's"),
        Some(memory(whole)),
    ];
    for goal in goals.iter().flatten() {
        println!("{goal}");
    }
}

fn cpu(cost: &Option<Cost>) -> Option<&Series> {
    cost.as_ref().map(|cost| &cost.cpu)
}

/// None if there is nothing to compare with.
fn ratio(costs: &Costs, base: Option<&Series>, bound: f64, whose: &str) -> Option<String> {
    let ratio = costs.plugin.cpu.ratio_to(base?);
    let what = format!("its CPU is at most {} of {whose}", fraction(bound));
    Some(goal(ratio <= bound, &fraction(ratio), costs, &what))
}

fn memory(costs: &Costs) -> String {
    let measured = format!("{} MiB", in_mib(&costs.plugin));
    goal(costs.plugin.peak_kib <= PEAK_KIB, &measured, costs, &format!("its peak is at most {} MiB", PEAK_KIB >> 10))
}

fn goal(met: bool, measured: &str, costs: &Costs, what: &str) -> String {
    format!("- {} ({measured}): {}: {what}", if met { "met" } else { "missed" }, costs.scenario.what)
}

/// 1/20 says more than 0.05, and 0.75 more than 1/1.3.
fn fraction(ratio: f64) -> String {
    match 1.0 / ratio {
        inverse if inverse >= 9.5 => format!("1/{inverse:.0}"),
        inverse if inverse >= 3.0 => format!("1/{}", (inverse * 10.0).round() / 10.0),
        _ => format!("{ratio:.2}"),
    }
}
