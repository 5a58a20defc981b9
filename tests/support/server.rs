//! Databases as `scripts/peers` fetches them, each started for one test.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of it

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::peers::{Running, peer};
use super::support::{PATIENCE, wait_for};

/// A server on a port of the loopback device, with its files in a directory of its own.
pub struct Server {
    pub process: Running,
    _directory: TempDir,
    pub url: String,
    pub agent: ureq::Agent,
}

impl Server {
    /// Starts what `command` says of a port and a directory; waits until `ready` answers.
    pub fn start(ready: &str, command: impl FnOnce(u16, &Path) -> Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let port = free_port();
        let mut command = command(port, directory.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let config =
            ureq::Agent::config_builder().proxy(None).http_status_as_error(false).timeout_global(Some(PATIENCE));
        let server = Self {
            process: Running::start(&mut command),
            _directory: directory,
            url: format!("http://127.0.0.1:{port}"),
            agent: config.build().into(),
        };
        let answer = || server.agent.get(format!("{}{ready}", server.url)).call().ok();
        wait_for("the server to be ready", || answer().filter(|answer| answer.status().is_success()));
        server
    }

    pub fn get(&self, path: &str, query: &[(&str, &str)]) -> String {
        let request = self.agent.get(format!("{}{path}", self.url)).query_pairs(query.iter().copied());
        let mut response = request.call().unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        assert_eq!(response.status(), 200, "{path}: {body}");
        body
    }

    /// Posts each line by itself: all of them are to be taken.
    pub fn write(&self, path: &str, lines: &[String]) {
        for line in lines {
            let mut response = self.agent.post(format!("{}{path}", self.url)).send(line).unwrap();
            let body = response.body_mut().read_to_string().unwrap();
            assert_eq!(response.status(), 204, "{line:?}: {body}");
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub fn influxdb() -> Option<Server> {
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

pub fn victoria_metrics() -> Option<Server> {
    let program = peer("victoria-metrics")?;
    let command = |port, directory: &Path| {
        let mut command = Command::new(program);
        command.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
        command.arg(format!("-storageDataPath={}", directory.join("data").display()));
        command.arg("-search.latencyOffset=0s"); // else it hides what is younger than half a minute
        command
    };
    Some(Server::start("/health", command))
}

/// A Prometheus with this configuration.
pub fn prometheus(config: &str) -> Option<Server> {
    let program = peer("prometheus")?;
    let command = |port, directory: &Path| {
        let file = directory.join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command
    };
    Some(Server::start("/-/ready", command))
}
