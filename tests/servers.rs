//! What the plugin prints is what a database stores: real servers, as `scripts/peers` fetches them, are sent
//! lines full of hostile names and asked for what they took.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking,
#![allow(clippy::indexing_slicing)] // also by an index out of bounds,
#![allow(clippy::print_stderr)] // and says what it skips

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/server.rs"]
mod server;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use influxdb_line_protocol::FieldValue;
use serde::Deserialize;
use serde_json::Value;

use hostile::{Hostile, SERIES, Tags, expected_names, expected_tags, parse, tags};
use peers::Running;
use server::{Server, influxdb, victoria_metrics};
use support::{wait, wait_for};

/// What the plugin prints of all the hostile names, in two gathers or more, running alone.
fn hostile_lines() -> Vec<String> {
    let hostile = Hostile::new();
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let mut command = support::command();
    command.args(["--interval", "1s", "--config"]).arg(hostile.config());
    command.stdin(Stdio::piped()).stdout(File::create(&out).unwrap());
    let mut plugin = Running::start(&mut command);
    wait_for("two gathers", || {
        assert!(plugin.try_wait().unwrap().is_none(), "the plugin has ended by itself");
        (newlines(&out) >= 2 * SERIES).then_some(())
    });
    drop(plugin.stdin.take());
    assert!(wait(&mut plugin).success());
    let text = String::from_utf8(fs::read(out).unwrap()).expect("UTF-8");
    text.split_terminator('\n').map(str::to_owned).collect()
}

fn newlines(file: &Path) -> usize {
    fs::read(file).unwrap().iter().filter(|byte| **byte == b'\n').count()
}

/// The values of one gather or more: by metric (measurement and field), tags and time.
type Samples = BTreeMap<(String, Tags, i64), f64>;

/// What `lines` say, as a parser reads them that is not ours.
fn samples(lines: &[String]) -> Samples {
    let mut samples = Samples::new();
    for line in lines {
        let parsed = parse(line);
        for (field, value) in &parsed.field_set {
            let metric = format!("{}_{field}", parsed.series.measurement);
            let key = (metric, tags(&parsed), parsed.timestamp.expect("a timestamp"));
            assert!(samples.insert(key, number(value)).is_none(), "for the second time: {line:?}");
        }
    }
    samples
}

fn number(value: &FieldValue<'_>) -> f64 {
    match value {
        FieldValue::I64(integer) => *integer as f64,
        FieldValue::F64(float) => *float,
        other => panic!("neither integer nor float: {other}"),
    }
}

/// Everything in the database `db`, as InfluxDB answers a query: a list of series, each a table.
fn read_influxdb(server: &Server) -> Samples {
    let query = [("db", "db"), ("epoch", "ns"), ("q", "SELECT * FROM /.*/ GROUP BY *")];
    let answer: Answer = serde_json::from_str(&server.get("/query", &query)).unwrap();
    let mut samples = Samples::new();
    for table in answer.results.into_iter().flat_map(|result| result.series) {
        for row in &table.values {
            let time = row.first().and_then(Value::as_i64).expect("the column time");
            for (field, value) in table.columns.iter().zip(row).skip(1).filter(|(_, value)| !value.is_null()) {
                let metric = format!("{}_{field}", table.name);
                samples.insert((metric, table.tags.clone(), time), value.as_f64().expect("a number"));
            }
        }
    }
    samples
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Statement>,
}

#[derive(Deserialize)]
struct Statement {
    series: Vec<Table>,
}

#[derive(Deserialize)]
struct Table {
    name: String,
    tags: Tags,
    columns: Vec<String>,
    values: Vec<Vec<Value>>,
}

/// Everything that VictoriaMetrics holds, as it exports it: a line of JSON for each series, times in ms.
fn read_victoria_metrics(server: &Server) -> Samples {
    server.get("/internal/force_flush", &[]); // else what is written can be read a second later
    let query = [("match[]", r#"{__name__!=""}"#), ("start", "0"), ("end", "4000000000")];
    let export = server.get("/api/v1/export", &query);
    let mut samples = Samples::new();
    for line in export.lines() {
        let mut series: Exported = serde_json::from_str(line).unwrap();
        let metric = series.metric.remove("__name__").expect("a name");
        for (time, value) in series.timestamps.iter().zip(&series.values) {
            samples.insert((metric.clone(), series.metric.clone(), *time), *value);
        }
    }
    samples
}

#[derive(Deserialize)]
struct Exported {
    metric: Tags,
    values: Vec<f64>,
    timestamps: Vec<i64>,
}

/// Fails, with the differing samples alone, unless the server gave back what was sent, its values to a relative
/// `precision`.
fn assert_same(sent: &Samples, stored: &Samples, precision: f64) {
    let only_in = |a: &Samples, b: &Samples| -> Samples {
        let has = |(key, x): &(_, &f64)| b.get(*key).is_some_and(|y| (*x - y).abs() <= precision * x.abs());
        a.iter().filter(|sample| !has(sample)).map(|(key, value)| (key.clone(), *value)).collect()
    };
    let (lost, foreign) = (only_in(sent, stored), only_in(stored, sent));
    assert!(lost.is_empty() && foreign.is_empty(), "sent: {lost:#?}\nstored: {foreign:#?}");
}

#[test]
fn each_hostile_name_arrives_in_every_gather() {
    let lines = hostile_lines();
    let mut gathers: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for line in lines.iter().map(|line| parse(line)) {
        let mut tags = tags(&line);
        let name = tags.remove("process_name").expect("a name");
        assert_eq!(tags, expected_tags(), "{name:?}");
        assert!(gathers.entry(line.timestamp.unwrap()).or_default().insert(name), "twice: {line:?}");
    }
    assert!(gathers.len() >= 2);
    for names in gathers.values() {
        assert_eq!(*names, expected_names());
    }
}

#[test]
fn influxdb_stores_every_line() {
    let Some(server) = influxdb() else { return };
    let lines = hostile_lines();
    server.agent.post(format!("{}/query?q=CREATE+DATABASE+db", server.url)).send_empty().unwrap();
    server.write("/write?db=db&precision=ns", &lines);
    assert_same(&samples(&lines), &read_influxdb(&server), 0.0);
}

#[test]
fn victoria_metrics_stores_every_line() {
    let Some(server) = victoria_metrics() else { return };
    let lines = hostile_lines();
    server.write("/api/v2/write?precision=ns", &lines);
    let in_ms = |((metric, tags, time), value)| ((metric, tags, time / 1_000_000), value);
    let sent = samples(&lines).into_iter().map(in_ms).collect();
    assert_same(&sent, &read_victoria_metrics(&server), 1e-12); // it keeps some 14 digits
}
