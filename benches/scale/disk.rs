//! What is stored: bytes on disk of a value, and memory of a series.
//!
//! What many gathers of services have given is written as if it had been gathered every 10 s: the first half, and then the rest.
//! What the second half adds is what values take; the remainder is what series take.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::database::{Database, Kind};
use crate::lines::{Lines, fields};
use crate::measured;
use crate::services::Services;
use crate::telegraf::{Measured, Telegraf};

/// So many of each kind, still and stirring.
pub const SERVICES: usize = 100;
/// Gathers, one a second.
const GATHERS: u64 = 180;
const SECOND: u64 = 1_000_000_000;
/// As which they are written.
const INTERVAL: u64 = 10 * SECOND;

pub struct Recording {
    what: &'static str,
    lines: Vec<String>,
}

/// All at once.
pub fn record(services: &Services) -> Result<Vec<Recording>> {
    let output = "[[outputs.file]]\n  files = [\"$DIR/lines\"]\n  data_format = \"influx\"\n";
    let start = |contender| Telegraf::start(contender, services, [1, 0], output);
    let contenders: Vec<_> = measured(Measured::Disk).collect();
    let mut all = contenders.iter().map(|contender| start(contender)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(GATHERS));
    let mut recordings = Vec::new();
    for (contender, telegraf) in contenders.iter().zip(&mut all) {
        telegraf.stop()?;
        let text = std::fs::read_to_string(telegraf.file("lines"))?;
        recordings.push(Recording { what: contender.what, lines: spread(&text)? });
    }
    Ok(recordings)
}

/// Gathers of every second as if there had been one every 10 s, all of them yesterday: in one shard. By how much a timestamp
/// missed its second, it misses its 10 s.
fn spread(text: &str) -> Result<Vec<String>> {
    let day = 86_400 * SECOND;
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
    let yesterday = now / day * day - day;
    let mut first = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        let (rest, time) = line.rsplit_once(' ').context("a line without a timestamp")?;
        let time: u64 = time.parse()?;
        let first = *first.get_or_insert(time / SECOND * SECOND);
        let nth = (time + SECOND / 2).saturating_sub(first) / SECOND;
        // At least a second after midnight, since it may be early.
        let time = (yesterday + SECOND + nth * INTERVAL + time).saturating_sub(first + nth * SECOND);
        lines.push(format!("{rest} {time}"));
    }
    Ok(lines)
}

/// Bytes on disk of one value, in services that are still and that stir.
pub struct Disk {
    pub what: &'static str,
    pub influx: [f64; 2],
    pub victoria: [f64; 2],
}

const STIRRING: [&str; 2] = ["still-", "stir-"];

pub fn measure(recordings: &[Recording]) -> Result<Vec<Disk>> {
    let parts = |recording: &Recording| STIRRING.map(|kind| of_kind(recording, kind));
    let parts: Vec<_> = recordings.iter().flat_map(parts).collect();
    let influx = bytes_of_values(Kind::Influx, "data/telegraf", &parts)?;
    let victoria = bytes_of_values(Kind::Victoria, "data/data", &parts)?;
    let pairs = |all: Vec<f64>| all.as_chunks().0.to_vec();
    let disks = recordings.iter().zip(pairs(influx)).zip(pairs(victoria));
    Ok(disks.map(|((recording, influx), victoria)| Disk { what: recording.what, influx, victoria }).collect())
}

fn of_kind(recording: &Recording, kind: &str) -> Vec<String> {
    recording.lines.iter().filter(|line| line.contains(kind)).cloned().collect()
}

/// Of each part, in a database of its own; all of them at once, since they rest most of the time.
///
/// InfluxDB: what the second half adds to the first. VictoriaMetrics, which merges when it likes: all of it, which is
/// more, since it contains what it keeps of each series.
fn bytes_of_values(kind: Kind, directory: &str, parts: &[Vec<String>]) -> Result<Vec<f64>> {
    let databases = parts.iter().map(|_| Database::start(kind, true)).collect::<Result<Vec<_>>>()?;
    let sizes_with = |half: fn(&[String]) -> &[String]| -> Result<Vec<u64>> {
        for (database, part) in databases.iter().zip(parts) {
            database.write(half(part))?;
        }
        databases.iter().map(|database| database.settle().and_then(|()| database.size(directory))).collect()
    };
    let values = |lines: &[String]| lines.iter().map(|line| fields(line)).sum::<usize>() as f64;
    let first = sizes_with(|part| part.split_at(part.len() / 2).0)?;
    let all = sizes_with(|part| part.split_at(part.len() / 2).1)?;
    let of_each = parts.iter().zip(first.iter().zip(all)).map(|(part, (first, all))| match kind {
        Kind::Influx => (all as f64 - *first as f64) / values(part.split_at(part.len() / 2).1),
        Kind::Victoria => all as f64 / values(part),
    });
    Ok(of_each.collect())
}

/// What a database keeps of each series, whatever its values.
pub struct Index {
    pub what: &'static str,
    /// Bytes of memory for each service.
    pub influx: f64,
    pub victoria: f64,
    /// Bytes of VictoriaMetrics' index on disk for each service.
    pub on_disk: f64,
}

/// One gather of as many services on five hosts, by their lines.
pub fn indexes(all: &[Lines]) -> Result<Vec<Index>> {
    const HOSTS: usize = 5;
    let mut indexes = Vec::new();
    for of in all.iter().filter(|of| measured(Measured::All).any(|contender| contender.what == of.what)) {
        let hosts = (1..=HOSTS).map(|host| format!("host=host-{host:02}"));
        let lines: Vec<_> =
            hosts.flat_map(|host| of.lines.iter().map(move |line| line.replace("host=host-01", &host))).collect();
        let of_each = |bytes: u64| bytes as f64 / (of.services * HOSTS) as f64;
        let memory = |kind| {
            let database = Database::start(kind, true)?;
            // What it needs for any line at all is not counted.
            database.write(lines.get(..1).unwrap_or_default())?;
            database.settle()?;
            let before = database.memory()?;
            database.write(&lines)?;
            database.settle()?;
            let memory = database.memory()?.saturating_sub(before);
            anyhow::Ok((of_each(memory), of_each(database.size("data/indexdb")?)))
        };
        let (influx, _) = memory(Kind::Influx)?;
        let (victoria, on_disk) = memory(Kind::Victoria)?;
        indexes.push(Index { what: of.what, influx, victoria, on_disk });
    }
    Ok(indexes)
}
