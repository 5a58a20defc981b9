//! What is printed: on stdout Markdown for docs/scale.md, on stderr how far it is.

use std::process::Command;

use anyhow::Result;

use crate::disk::{Disk, Index};
use crate::gathers::{Gather, Gathers};
use crate::lines::Lines;
use crate::telegraf::{Measured, Usage};
use crate::{MEASURED, measured};

/// So many services are spoken of.
const SPOKEN_OF: f64 = 10_000.0;
/// Gathers of a day, one every 10 s.
const PER_DAY: f64 = 8640.0;
/// What the names of those end with whose timestamps are so.
const TO_THE_SECOND: &str = ", to the second";
const MIB: f64 = 1_048_576.0;

/// All that was measured.
pub struct Results {
    pub lines_few: Vec<Lines>,
    pub lines: Vec<Lines>,
    pub few: Gathers,
    pub many: Gathers,
    pub disks: Vec<Disk>,
    pub indexes: Vec<Index>,
}

pub fn note(text: &str) {
    eprintln!("scale: {text}");
}

/// Machine, kernel, date and versions.
pub fn caption() -> Result<String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("CPUs of an unknown model", |(_, model)| model);
    let cpus = std::thread::available_parallelism()?;
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let date = String::from_utf8(Command::new("date").args(["-u", "+%Y-%m-%d"]).output()?.stdout)?;
    // Built from source, it does not know its version.
    let telegraf = include_str!("../../scripts/peers").lines().find_map(|line| line.strip_prefix("telegraf_version=v"));
    let influxd = said_by("influxd", "version")?;
    let influxd = influxd.split_whitespace().nth(1).unwrap_or("of an unknown version").to_owned();
    Ok(format!(
        "{cpus} CPUs ({model}), Linux {kernel}, {}. telegraf-taskstats {}, Telegraf {}, InfluxDB {influxd} and VictoriaMetrics as \
         Debian packages them.",
        date.trim(),
        env!("CARGO_PKG_VERSION"),
        telegraf.unwrap_or("unknown"),
    ))
}

fn said_by(program: &str, argument: &str) -> Result<String> {
    let output = crate::process::peer(program)?.arg(argument).output()?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned())
}

pub fn print(results: &Results) {
    print_lines(results);
    print_gathers(results);
    print_sent(results);
    print_disks(&results.disks);
    print_indexes(&results.indexes);
    print_extrapolated(results);
}

fn print_lines(results: &Results) {
    let [few, many] = MEASURED;
    println!("### Lines of one service\n");
    println!(
        "| in a gather | lines | values | bytes, of {few} services | bytes, of {many} |\n|---|---:|---:|---:|---:|"
    );
    for (few, many) in results.lines_few.iter().zip(&results.lines) {
        let [lines, values] = [many.lines.len(), many.values()].map(|number| figure(many.per_service(number)));
        let bytes = [few, many].map(|of| figure(of.per_service(of.bytes())));
        println!("| {} | {lines} | {values} | {} | {} |", many.what, bytes[0], bytes[1]);
    }
}

fn print_gathers(results: &Results) {
    println!("\n### A gather, discarded\n");
    println!("| | services | CPU of Telegraf, ms | of the plugin | peak of Telegraf, MiB | of the plugin |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (index, contender) in measured(Measured::All).enumerate() {
        for (services, all) in MEASURED.iter().zip([&results.few, &results.many]) {
            let Some(Gather { telegraf, plugin, .. }) = all.discarded.get(index) else { continue };
            let cells = [ms(telegraf), ms(plugin), mib(telegraf), mib(plugin)].map(figure_or_nothing);
            println!("| {} | {services} | {} |", contender.what, cells.join(" | "));
        }
    }
}

fn print_sent(results: &Results) {
    println!("\n### A gather, sent to a database\n");
    println!(
        "| CPU, ms | services | Telegraf and plugin, discarding | sending to InfluxDB | InfluxDB | VictoriaMetrics |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (index, contender) in measured(Measured::All).enumerate() {
        for (services, all) in MEASURED.iter().zip([&results.few, &results.many]) {
            let of = |all: &[Gather], cell: fn(&Gather) -> f64| all.get(index).map_or(f64::NAN, cell);
            let cells = [
                of(&all.discarded, sender),
                of(&all.influx, sender),
                of(&all.influx, |gather| ms(&gather.database)),
                of(&all.victoria, |gather| ms(&gather.database)),
            ];
            println!("| {} | {services} | {} |", contender.what, cells.map(figure).join(" | "));
        }
    }
}

fn print_disks(disks: &[Disk]) {
    println!("\n### Bytes on disk of one value\n");
    println!("| | InfluxDB, still | stirring | VictoriaMetrics, still | stirring |\n|---|---:|---:|---:|---:|");
    for Disk { what, influx, victoria } in disks {
        let cells = [influx[0], influx[1], victoria[0], victoria[1]].map(figure);
        println!("| {what} | {} |", cells.join(" | "));
    }
}

fn print_indexes(indexes: &[Index]) {
    println!("\n### Bytes of the series of one service\n");
    println!("| | InfluxDB, memory | VictoriaMetrics, memory | VictoriaMetrics, disk |\n|---|---:|---:|---:|");
    for Index { what, influx, victoria, on_disk } in indexes {
        println!("| {what} | {} |", [*influx, *victoria, *on_disk].map(figure).join(" | "));
    }
}

/// What is worked out: docs/scale.md says how.
fn print_extrapolated(results: &Results) {
    println!("\n### 10,000 services, on paper\n");
    let names: Vec<_> = measured(Measured::All).map(|contender| contender.what).collect();
    println!("| | {} |\n|---|{}", names.join(" | "), "---:|".repeat(names.len()));
    let of_lines = |name: &str, number: fn(&Lines) -> usize| {
        let lines = results.lines.iter().find(|lines| lines.what == name);
        lines.map_or(f64::NAN, |lines| lines.per_service(number(lines)) * SPOKEN_OF)
    };
    let per_day = |name: &str, bytes: fn(&Disk) -> f64| {
        let disk = results.disks.iter().find(|disk| disk.what == name);
        let values = name.strip_suffix(TO_THE_SECOND).unwrap_or(name);
        disk.map_or(f64::NAN, |disk| bytes(disk) * of_lines(values, Lines::values) * PER_DAY / MIB)
    };
    let to_the_second = |name: &str, bytes: fn(&Disk) -> f64| {
        let rounded = per_day(&format!("{name}{TO_THE_SECOND}"), bytes);
        if rounded.is_nan() { per_day(name, bytes) } else { rounded }
    };
    let index = |at: usize, bytes: fn(&Index) -> f64| results.indexes.get(at).map_or(f64::NAN, bytes) * SPOKEN_OF / MIB;
    let grown = |at: usize, of: fn(&Gathers) -> &[Gather], cell: fn(&Gather) -> f64| {
        let [few, many] = [&results.few, &results.many].map(|all| of(all).get(at).map_or(f64::NAN, cell));
        extrapolated(few, many)
    };
    let discarding = |at: usize| grown(at, |all| &all.discarded, sender);
    type Cell<'a> = &'a dyn Fn(usize, &str) -> f64;
    let rows: [(&str, Cell); 16] = [
        ("lines of a gather: series in InfluxDB", &|_, name| of_lines(name, |lines| lines.lines.len())),
        ("values of a gather: series in VictoriaMetrics", &|_, name| of_lines(name, Lines::values)),
        ("line protocol of a gather, MiB", &|_, name| of_lines(name, Lines::bytes) / MIB),
        ("CPU of a gather, Telegraf and plugin, ms", &|at, _| discarding(at)),
        ("the same of a core, with one every 10 s, %", &|at, _| discarding(at) / 100.0),
        ("peak of memory, Telegraf and plugin, MiB", &|at, _| {
            grown(at, |all| &all.discarded, |gather| mib(&gather.telegraf) + mib(&gather.plugin))
        }),
        ("InfluxDB: CPU of a gather, ms", &|at, _| grown(at, |all| &all.influx, |gather| ms(&gather.database))),
        ("InfluxDB: memory of its index, MiB", &|at, _| index(at, |index| index.influx)),
        ("InfluxDB: disk a day, all still, MiB", &|_, name| per_day(name, |disk| disk.influx[0])),
        ("InfluxDB: disk a day, all stirring, MiB", &|_, name| per_day(name, |disk| disk.influx[1])),
        ("the same to the second, all still, MiB", &|_, name| to_the_second(name, |disk| disk.influx[0])),
        ("the same to the second, all stirring, MiB", &|_, name| to_the_second(name, |disk| disk.influx[1])),
        ("VictoriaMetrics: CPU of a gather, ms", &|at, _| {
            grown(at, |all| &all.victoria, |gather| ms(&gather.database))
        }),
        ("VictoriaMetrics: memory of its series, MiB", &|at, _| index(at, |index| index.victoria)),
        ("VictoriaMetrics: disk a day, all still, MiB", &|_, name| per_day(name, |disk| disk.victoria[0])),
        ("VictoriaMetrics: disk a day, all stirring, MiB", &|_, name| per_day(name, |disk| disk.victoria[1])),
    ];
    for (what, cell) in rows {
        let cells: Vec<_> = names.iter().enumerate().map(|(at, name)| figure(cell(at, name))).collect();
        println!("| {what} | {} |", cells.join(" | "));
    }
}

/// A straight line through what was measured.
fn extrapolated(at_few: f64, at_many: f64) -> f64 {
    let [few, many] = MEASURED.map(|services| services as f64);
    at_many + (at_many - at_few) / (many - few) * (SPOKEN_OF - many)
}

fn sender(gather: &Gather) -> f64 {
    ms(&gather.telegraf) + ms(&gather.plugin)
}

fn ms(usage: &Usage) -> f64 {
    usage.cpu.as_secs_f64() * 1e3
}

fn mib(usage: &Usage) -> f64 {
    usage.peak_kib as f64 / 1024.0
}

/// Three digits, and thousands apart.
fn figure(number: f64) -> String {
    match number.abs() {
        _ if number.fract() == 0.0 && number.abs() < 1000.0 => format!("{number}"),
        size if size < 10.0 => format!("{number:.2}"),
        size if size < 100.0 => format!("{number:.1}"),
        size if size < 1000.0 => format!("{number:.0}"),
        _ => {
            let digits = format!("{number:.0}");
            let (head, tail) = digits.split_at(digits.len() - 3);
            format!("{head},{tail}")
        }
    }
}

fn figure_or_nothing(number: f64) -> String {
    if number == 0.0 { String::new() } else { figure(number) }
}
