//! The contenders: how each is started, and how a gather is had from it.
//!
//! Two of them gather when they are asked, the plugin and process-exporter. Telegraf and apps.plugin gather by the clock.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::{Output, Process, peer, scratch};

/// How long a contender may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// The plugin, prompted by newlines.
pub struct Plugin {
    pub process: Process,
    stdin: ChildStdin,
    stdout: Output,
    _directory: TempDir,
}

impl Plugin {
    /// What `settings` does not say is as it comes.
    pub fn start(settings: &str) -> Result<Self> {
        let directory = scratch()?;
        let configuration = directory.path().join("plugin.conf");
        std::fs::write(&configuration, format!("[[inputs.taskstats]]\n{settings}"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_telegraf-taskstats"));
        command.arg("--config").arg(configuration).env_remove("HOST_PROC").env_remove("HOST_SYS");
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        Ok(Self { stdin: process.stdin()?, stdout: process.stdout()?, process, _directory: directory })
    }

    /// One prompt, and the lines that answer it.
    pub fn gather(&mut self, lines: usize) -> Result<Vec<String>> {
        self.stdin.write_all(b"\n")?;
        (0..lines).map(|_| self.stdout.line()).collect()
    }
}

/// process-exporter, scraped as Prometheus does it, but without smaps and threads, which it would read too.
pub struct Exporter {
    pub process: Process,
    url: String,
    agent: ureq::Agent,
    _directory: TempDir,
}

impl Exporter {
    pub fn start(groups: &str) -> Result<Self> {
        let directory = scratch()?;
        let configuration = directory.path().join("groups.yml");
        std::fs::write(&configuration, format!("process_names:\n{groups}"))?;
        // Another may take the port before it does; then it ends, and is given another.
        (0..3).find_map(|_| Self::listening(&configuration).transpose()).context("it does not listen")?.map(
            |(process, url)| {
                // Of each step but the look-up of the name, for which it would start a thread: an event, that costs the plugin.
                let config = ureq::Agent::config_builder().proxy(None).timeout_connect(Some(PATIENCE));
                let config = config.timeout_recv_response(Some(PATIENCE)).timeout_recv_body(Some(PATIENCE)).build();
                Self { process, url, agent: config.into(), _directory: directory }
            },
        )
    }

    /// None if it ended before it listened.
    fn listening(configuration: &std::path::Path) -> Result<Option<(Process, String)>> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = peer("process-exporter")?;
        command.arg("-config.path").arg(configuration).arg(format!("-web.listen-address={address}"));
        let mut process =
            Process::start(command.args(["-threads=false", "-gather-smaps=false"]).stdout(Stdio::null()))?;
        let started = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(started.elapsed() < PATIENCE, "it does not listen");
            if process.has_ended()? {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Some((process, format!("http://{address}/metrics"))))
    }

    pub fn scrape(&mut self) -> Result<String> {
        Ok(self.agent.get(&self.url).call()?.body_mut().with_config().limit(u64::MAX).read_to_string()?)
    }
}

/// A sample of an exposition: its value, if the line is one of `metric` with `label` in its labels.
pub fn sample(line: &str, metric: &str, label: &str) -> Option<f64> {
    let (labels, value) = line.strip_prefix(metric)?.strip_prefix('{')?.rsplit_once("} ")?;
    labels.contains(label).then(|| value.parse().ok())?
}

/// A contender that gathers by the clock, and writes what it finds.
pub struct Clocked {
    pub process: Process,
    pub stdout: Output,
    pub directory: TempDir,
}

/// Telegraf. It hands on its metrics when there are `batch` of them, so that a gather of so many is written as soon as it is
/// complete; it keeps to full seconds and an offset, or to none of them.
pub fn telegraf(batch: usize, offset: Option<Duration>, inputs: &str) -> Result<Clocked> {
    let directory = scratch()?;
    let configuration = directory.path().join("telegraf.conf");
    let (round, offset) = (offset.is_some(), offset.unwrap_or_default());
    let text = format!(
        r#"[agent]
  interval = "1s"
  round_interval = {round}
  collection_offset = "{}ms"
  flush_interval = "1h"
  metric_batch_size = {batch}
  metric_buffer_limit = {}
  precision = "1ns"
  omit_hostname = true
[[outputs.file]]
  files = ["stdout"]
  data_format = "influx"
{inputs}"#,
        offset.as_millis(),
        batch.max(1000) * 3,
    );
    std::fs::write(&configuration, text)?;
    let mut command = peer("telegraf")?;
    // It would warn that this is the default.
    command.args(["--quiet", "--strict-env-handling", "--config"]).arg(configuration);
    let mut process = Process::start(&mut command)?;
    Ok(Clocked { stdout: process.stdout()?, process, directory })
}

/// netdata's apps.plugin, as netdata runs it once a second, but without the charts that are not asked for: of files, users
/// and user groups. A parent without a group is put into that of its child, and so would be the benchmark with all that it
/// has started: so it has a group of its own.
pub fn apps_plugin(groups: &str) -> Result<Clocked> {
    let directory = scratch()?;
    let comm = std::fs::read_to_string("/proc/self/comm")?;
    std::fs::write(directory.path().join("apps_groups.conf"), format!("benchmark: {comm}{groups}"))?;
    let mut command = peer("apps.plugin")?;
    // It ends with what is at the other end of its stdin.
    command.args(["1", "without-files", "without-users", "without-groups"]).stdin(Stdio::piped());
    for variable in ["NETDATA_USER_CONFIG_DIR", "NETDATA_STOCK_CONFIG_DIR"] {
        command.env(variable, directory.path());
    }
    let mut process = Process::start(&mut command)?;
    Ok(Clocked { stdout: process.stdout()?, process, directory })
}

/// What a line of apps.plugin sets a dimension to: `SET name = 5`.
pub fn setting(line: &str) -> Option<(&str, f64)> {
    let (name, value) = line.strip_prefix("SET ")?.split_once(" = ")?;
    Some((name.trim_matches('\''), value.parse().ok()?))
}
