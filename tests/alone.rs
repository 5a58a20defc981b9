//! The plugin without Telegraf, piped into `influx write`: what docs/alone.md says of it, with the real one, and VictoriaMetrics as
//! the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking,
#![allow(clippy::indexing_slicing)] // also by an index out of bounds,
#![allow(clippy::print_stderr)] // and says what it skips

#[path = "support/peers.rs"]
mod peers;
#[path = "support/server.rs"]
mod server;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use peers::{Running, peer};
use server::{Server, victoria_metrics};
use support::{PATIENCE, command, wait, wait_for};

/// A server, and where to find `influx`.
struct Sink {
    server: Server,
    directory: TempDir,
    influx: PathBuf,
}

impl Sink {
    fn start() -> Option<Self> {
        let influx = peer("influx")?;
        Some(Self { server: victoria_metrics()?, directory: tempfile::tempdir().unwrap(), influx })
    }

    /// `influx write` with `stdin` as its input.
    fn writer(&self, stdin: impl Into<Stdio>) -> Running {
        let mut influx = Command::new(&self.influx);
        influx.args(["write", "--bucket", "hosts", "--precision", "ns"]);
        influx.env("INFLUX_HOST", &self.server.url).env("INFLUX_TOKEN", "none").env("INFLUX_ORG", "example");
        influx.env("INFLUX_CONFIGS_PATH", self.directory.path().join("none"));
        Running::start(influx.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// How many gathers it has got so far.
    fn gathers(&self) -> usize {
        self.server.get("/internal/force_flush", &[]);
        let text = self.server.get("/api/v1/export", &[("match[]", "psstat_n_proc")]);
        let series = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        series.map(|series| series["timestamps"].as_array().unwrap().len()).sum()
    }
}

/// The plugin, which watches one process, with pipes for stdin and stdout.
fn plugin(interval: &str) -> Running {
    let mut plugin = command();
    plugin.args(["--interval", interval, "--pid", &std::process::id().to_string()]);
    Running::start(plugin.stdin(Stdio::piped()).stdout(Stdio::piped()))
}

/// With the interval of docs/alone.md each gather arrives, while the pipe stands.
#[test]
fn each_gather_arrives() {
    let Some(sink) = Sink::start() else { return };
    let mut plugin = plugin("5s");
    let mut influx = sink.writer(plugin.stdout.take().unwrap());
    let first = wait_for("the first lines", || Some(sink.gathers()).filter(|gathers| *gathers > 0));
    wait_for("more lines", || (sink.gathers() > first).then_some(()));
    drop(plugin.stdin.take());
    assert!(wait(&mut plugin).success() && wait(&mut influx).success());
}

/// Where no line comes for 10 s, influx waits for 500 kB, or for the end.
#[test]
fn a_longer_interval_stalls_it() {
    let Some(sink) = Sink::start() else { return };
    let mut plugin = plugin("11s");
    let copy = sink.directory.path().join("lines");
    let mut tee = Command::new("tee");
    let mut tee = Running::start(tee.arg(&copy).stdin(plugin.stdout.take().unwrap()).stdout(Stdio::piped()));
    let mut influx = sink.writer(tee.stdout.take().unwrap());
    let lines = || fs::read_to_string(&copy).unwrap_or_default().lines().count();
    // When the second comes, the first would have been sent, if it were after 10 s.
    wait_for("two lines", || (lines() >= 2).then_some(()));
    assert_eq!(sink.gathers(), 0);
    drop(plugin.stdin.take());
    assert!(wait(&mut plugin).success() && wait(&mut tee).success() && wait(&mut influx).success());
    wait_for("all of it", || (sink.gathers() == lines()).then_some(()));
}

/// A request that fails is the end of influx, and that is the end of the plugin; no failure of its own.
#[test]
fn when_the_server_goes_away_all_of_it_ends() {
    let Some(mut sink) = Sink::start() else { return };
    let mut plugin = plugin("1s");
    let mut influx = sink.writer(plugin.stdout.take().unwrap());
    wait_for("the first lines", || (sink.gathers() > 0).then_some(()));
    sink.server.process.kill().unwrap();
    assert!(!wait(&mut influx).success());
    let status = wait(&mut plugin);
    assert_eq!(status.code(), Some(0), "{status}");
}

/// What the writer's unit runs, and the token as it arrives: that of InfluxDB 1 has a password in it, which may have anything.
#[test]
fn the_writer_sends_what_comes_with_the_token() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd/writer.sh");
    let mut writer = Command::new("bash");
    writer.arg(script).env("WRITE_TOKEN", r#"us"er:p\w %s"#);
    writer.env("WRITE_URL", format!("http://{}/write", server.local_addr().unwrap()));
    let mut writer = Running::start(writer.stdin(Stdio::piped()).stdout(Stdio::null()));
    writer.stdin.take().unwrap().write_all(b"a b=1 1\nc d=2 2\n").unwrap();

    server.set_nonblocking(true).unwrap();
    let (mut request, _) = wait_for("the writer", || server.accept().ok());
    request.set_nonblocking(false).unwrap();
    request.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = String::new();
    let mut bytes = [0; 4096];
    while !said.contains("\r\n\r\na b=1 1\nc d=2 2") {
        let count = request.read(&mut bytes).unwrap();
        assert!(count > 0, "{said}");
        said.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    assert!(said.contains("\r\nAuthorization: Token us\"er:p\\w %s\r\n"), "{said}");
    request.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
    drop(request);
    assert!(wait(&mut writer).code().is_some(), "it ends with its input");
}
