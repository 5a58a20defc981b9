//! What many services cost: in Telegraf, on the wire and in a database, beside Telegraf's procstat on the same processes.
//! `scripts/peers && cargo bench --bench scale`, as root.
//!
//! Services are measured by the hundred and by the thousand; what 10,000 of them take is worked out from that, in front of the
//! reader. docs/scale.md says how, and holds the tables, which are printed to go there as they are.
//!
//! This executable is the services too: `service NAME`.
#![allow(clippy::print_stdout)] // a benchmark's result
#![allow(clippy::print_stderr)] // and how far it is
#![allow(unreachable_pub)] // nothing in a benchmark is reached from elsewhere
#![allow(unsafe_code)] // pre_exec and the CPU clock of another process have no safe wrapper

// This is a test's, which may fail.
#[path = "../tests/support/delay_accounting.rs"]
#[allow(clippy::unwrap_used)]
mod delay_accounting;
#[path = "../tests/support/mod.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod support;

// This is the other benchmark's, of which not all is wanted.
#[path = "peers/process.rs"]
#[allow(dead_code)]
mod process;

#[path = "scale/database.rs"]
mod database;
#[path = "scale/disk.rs"]
mod disk;
#[path = "scale/gathers.rs"]
mod gathers;
#[path = "scale/lines.rs"]
mod lines;
#[path = "scale/report.rs"]
mod report;
#[path = "scale/services.rs"]
mod services;
#[path = "scale/telegraf.rs"]
mod telegraf;

use std::time::Instant;

use anyhow::{Context, Result};

use database::Kind;
use services::Services;
use telegraf::{Contender, Measured};

/// So many services are measured.
const MEASURED: [usize; 2] = [500, 2000];

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "service", name] => services::run(name),
        _ => bench(),
    }
}

fn bench() -> Result<()> {
    println!("{}\n", report::caption()?);
    let (began, births) = (Instant::now(), births()?);
    let [few, many] = MEASURED;

    report::note("services that stir, recorded");
    let recording = disk::record(&Services::plant(disk::SERVICES, disk::SERVICES)?)?;
    let disks = disk::measure(&recording)?;

    let lines_and_gathers = |count: usize| -> Result<_> {
        report::note(&format!("{count} services"));
        let services = Services::plant(count, 0)?;
        let gathers = gathers::Gathers {
            discarded: gathers::measure(&services, None)?,
            influx: gathers::measure(&services, Some(Kind::Influx))?,
            victoria: gathers::measure(&services, Some(Kind::Victoria))?,
        };
        Ok((lines::measure(&services)?, gathers))
    };
    let (lines_few, few) = lines_and_gathers(few)?;
    let (lines, many) = lines_and_gathers(many)?;
    report::note("indexes");
    let indexes = disk::indexes(&lines)?;
    let births = (self::births()? - births) as f64 / began.elapsed().as_secs_f64();
    println!("Meanwhile the host made {births:.0} processes and threads a second.\n");
    report::print(&report::Results { lines_few, lines, few, many, disks, indexes });
    Ok(())
}

/// How many processes and threads the host has made since it was booted.
fn births() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let births = stat.lines().find_map(|line| line.strip_prefix("processes "));
    Ok(births.context("no count of processes")?.parse()?)
}

/// What is compared.
static CONTENDERS: [Contender; 9] = [
    Contender { what: "psstat", ..Contender::PLUGIN },
    Contender { what: "psstat, to the second", block: SECONDS, measured: Measured::Disk, ..Contender::PLUGIN },
    Contender {
        what: "psstat, all fields",
        settings: "psstat_fields = [\"all\"]",
        measured: Measured::Lines,
        ..Contender::PLUGIN
    },
    Contender {
        what: "psstat, taskstat",
        settings: "collect = [\"psstat\", \"taskstat\"]",
        measured: Measured::Lines,
        ..Contender::PLUGIN
    },
    Contender { what: "all five, all fields", settings: EVERYTHING, ..Contender::PLUGIN },
    Contender {
        what: "all five, all fields, to the second",
        settings: EVERYTHING,
        block: SECONDS,
        measured: Measured::Disk,
        ..Contender::PLUGIN
    },
    Contender {
        what: "taskstat, procstat by process",
        settings: "collect = [\"taskstat\", \"procstat\"]\n  scope = \"process\"",
        measured: Measured::Lines,
        ..Contender::PLUGIN
    },
    Contender {
        what: "procstat, cpu and memory",
        settings: "properties = [\"cpu\", \"memory\"]",
        ..Contender::PROCSTAT
    },
    Contender { what: "procstat, as it comes", ..Contender::PROCSTAT },
];

const EVERYTHING: &str = "collect = [\"psstat\", \"taskstat\", \"procstat\", \"procmaps\", \"thread\"]\n  \
                          psstat_fields = [\"all\"]\n  thread_all_nice = true\n  procmaps_interval = \"10s\"";

/// procstat's timestamps are so anyway.
const SECONDS: &str = "precision = \"1s\"";

/// Those of which this is measured.
fn measured(least: Measured) -> impl Iterator<Item = &'static Contender> {
    CONTENDERS.iter().filter(move |contender| contender.measured == Measured::All || contender.measured == least)
}
