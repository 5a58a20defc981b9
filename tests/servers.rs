//! What the plugin prints is what a database stores: real servers, as `scripts/peers` fetches them, are sent
//! lines full of hostile names and asked for what they took.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking,
#![allow(clippy::indexing_slicing)] // also by an index out of bounds,
#![allow(clippy::print_stderr)] // and says what it skips

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/peers.rs"]
mod peers;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use influxdb_line_protocol::FieldValue;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use hostile::{Hostile, SERIES, Tags, expected_names, expected_tags, parse, tags};
use peers::{Running, peer};
use support::{PATIENCE, wait, wait_for};

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

/// A server on a port of the loopback device, with its files in a directory of its own.
struct Server {
    _process: Running,
    _directory: TempDir,
    url: String,
    agent: ureq::Agent,
}

impl Server {
    /// Starts what `command` says of a port and a directory; waits until `ready` answers.
    fn start(ready: &str, command: impl FnOnce(u16, &Path) -> Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let port = free_port();
        let mut command = command(port, directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let config =
            ureq::Agent::config_builder().proxy(None).http_status_as_error(false).timeout_global(Some(PATIENCE));
        let server = Self {
            _process: Running::start(&mut command),
            _directory: directory,
            url: format!("http://127.0.0.1:{port}"),
            agent: config.build().into(),
        };
        wait_for("the server to be ready", || server.agent.get(format!("{}{ready}", server.url)).call().ok());
        server
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> String {
        let request = self.agent.get(format!("{}{path}", self.url)).query_pairs(query.iter().copied());
        let mut response = request.call().unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        assert_eq!(response.status(), 200, "{path}: {body}");
        body
    }

    /// Posts each line by itself: all of them are to be taken.
    fn write(&self, path: &str, lines: &[String]) {
        for line in lines {
            let mut response = self.agent.post(format!("{}{path}", self.url)).send(line).unwrap();
            let body = response.body_mut().read_to_string().unwrap();
            assert_eq!(response.status(), 204, "{line:?}: {body}");
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn influxdb() -> Option<Server> {
    let program = peer("influxd")?;
    let command = |port, directory: &Path| {
        let directory = directory.display();
        let config = format!(
            r#"reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
  dir = "{directory}/meta"
[data]
  dir = "{directory}/data"
  wal-dir = "{directory}/wal"
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
"#
        );
        let file = format!("{directory}/influxdb.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.args(["-config", &file]);
        command
    };
    Some(Server::start("/ping", command))
}

fn victoria_metrics() -> Option<Server> {
    let program = peer("victoria-metrics")?;
    let command = |port, directory: &Path| {
        let mut command = Command::new(program);
        command.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
        command.arg(format!("-storageDataPath={}", directory.join("data").display()));
        command
    };
    Some(Server::start("/health", command))
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
