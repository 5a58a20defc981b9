//! Real databases: InfluxDB 1.x and VictoriaMetrics, as `scripts/peers` puts them into place.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, peer, scratch};
use crate::telegraf::Usage;

/// How long one may take to start, or to bring its files in order.
const PATIENCE: Duration = Duration::from_secs(180);
/// Lines of one request.
const BATCH: usize = 5000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Influx,
    Victoria,
}

pub struct Database {
    kind: Kind,
    process: Process,
    directory: TempDir,
    url: String,
    agent: ureq::Agent,
}

impl Database {
    /// `is_hasty`: InfluxDB brings its files in order at once, not only when a shard has been left alone for hours.
    pub fn start(kind: Kind, is_hasty: bool) -> Result<Self> {
        let directory = scratch()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let path = directory.path().display();
        let mut command = match kind {
            Kind::Influx => {
                let hasty =
                    "  cache-snapshot-write-cold-duration = \"1s\"\n  compact-full-write-cold-duration = \"1s\"\n";
                let text = format!(
                    "reporting-disabled = true\nbind-address = \"127.0.0.1:0\"\n[meta]\n  dir = \"{path}/meta\"\n[data]\n  \
                     dir = \"{path}/data\"\n  wal-dir = \"{path}/wal\"\n{}[monitor]\n  store-enabled = false\n[http]\n  \
                     bind-address = \"127.0.0.1:{port}\"\n  log-enabled = false\n",
                    if is_hasty { hasty } else { "" }
                );
                let file = directory.path().join("influxdb.conf");
                std::fs::write(&file, text)?;
                let mut command = peer("influxd")?;
                command.arg("-config").arg(file);
                command
            }
            Kind::Victoria => {
                let mut command = peer("victoria-metrics")?;
                command.arg(format!("-httpListenAddr=127.0.0.1:{port}")).arg(format!("-storageDataPath={path}/data"));
                command
            }
        };
        let process = Process::start(command.stdout(Stdio::null()))?;
        let config = ureq::Agent::config_builder().proxy(None).timeout_global(Some(PATIENCE)).build();
        let url = format!("http://127.0.0.1:{port}");
        let database = Self { kind, process, directory, url, agent: config.into() };
        database.wait("it does not answer", || Ok(database.get("/ping").or_else(|_| database.get("/health")).ok()))?;
        if kind == Kind::Influx {
            database.agent.post(format!("{}/query?q=CREATE+DATABASE+telegraf", database.url)).send_empty()?;
        }
        Ok(database)
    }

    /// The block of configuration with which Telegraf writes to it.
    pub fn output(&self) -> String {
        format!(
            "[[outputs.influxdb]]\n  urls = [\"{}\"]\n  database = \"telegraf\"\n  skip_database_creation = true\n",
            self.url
        )
    }

    pub fn write(&self, lines: &[String]) -> Result<()> {
        for batch in lines.chunks(BATCH) {
            let response =
                self.agent.post(format!("{}/write?db=telegraf&precision=ns", self.url)).send(batch.join("\n"))?;
            ensure!(response.status() == 204, "{}", response.status());
        }
        Ok(())
    }

    /// How many it knows: by measurement and tags in InfluxDB, by field as well in VictoriaMetrics.
    pub fn series(&self) -> Result<usize> {
        match self.kind {
            Kind::Influx => {
                let answer = self.get("/query?db=telegraf&q=SHOW+SERIES+EXACT+CARDINALITY")?;
                let answer: Value = serde_json::from_str(&answer)?;
                let tables = answer.pointer("/results/0/series").and_then(Value::as_array).context("no series")?;
                let count = |table: &Value| table.pointer("/values/0/0")?.as_u64();
                Ok(usize::try_from(tables.iter().filter_map(count).sum::<u64>())?)
            }
            Kind::Victoria => {
                let answer: Value = serde_json::from_str(&self.get("/api/v1/status/tsdb")?)?;
                Ok(usize::try_from(answer.pointer("/data/totalSeries").and_then(Value::as_u64).context("no series")?)?)
            }
        }
    }

    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage { cpu: self.process.cpu()?, peak_kib: self.process.peak_kib()? })
    }

    /// Memory in use, bytes. InfluxDB: what its heap holds after a collection. VictoriaMetrics, which caches outside of it: what is
    /// resident.
    pub fn memory(&self) -> Result<u64> {
        self.agent.get(format!("{}/debug/pprof/heap?gc=1", self.url)).call()?.body_mut().read_to_vec()?;
        match self.kind {
            Kind::Influx => {
                let state: Value = serde_json::from_str(&self.get("/debug/vars")?)?;
                state.pointer("/memstats/HeapAlloc").and_then(Value::as_u64).context("no HeapAlloc")
            }
            Kind::Victoria => {
                let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
                let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB"));
                Ok(resident.context("no VmRSS")?.trim().parse::<u64>()? * 1024)
            }
        }
    }

    /// Has it bring its files in order.
    pub fn settle(&self) -> Result<()> {
        match self.kind {
            Kind::Victoria => {
                self.get("/internal/force_flush")?;
                self.get("/internal/force_merge")?;
            }
            Kind::Influx => self.wait("InfluxDB does not compact its files", || {
                let wal = files(&self.path("wal"))?.iter().map(|(_, bytes)| bytes).sum::<u64>();
                let is_tsm = |(path, _): &&(PathBuf, u64)| path.extension().is_some_and(|extension| extension == "tsm");
                let data = files(&self.path("data"))?;
                Ok((wal == 0 && data.iter().filter(is_tsm).count() == 1).then_some(()))
            })?,
        }
        // It is in order when nothing changes any more.
        let mut before = (0, Instant::now());
        self.wait("its files do not come to rest", || {
            let size = self.size("data")?;
            if size != before.0 {
                before = (size, Instant::now());
            }
            Ok((before.1.elapsed() > Duration::from_secs(2)).then_some(()))
        })
    }

    /// Bytes on disk, of everything below one of its directories.
    pub fn size(&self, directory: &str) -> Result<u64> {
        Ok(files(&self.path(directory))?.iter().map(|(_, bytes)| bytes).sum())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn get(&self, path: &str) -> Result<String> {
        Ok(self.agent.get(format!("{}{path}", self.url)).call()?.body_mut().read_to_string()?)
    }

    fn wait<T>(&self, what: &'static str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = condition()? {
                return Ok(found);
            }
            ensure!(started.elapsed() < PATIENCE, what);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// All files below a directory, with their sizes. What goes away meanwhile is not counted.
fn files(directory: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(found) };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push((entry.path(), metadata.len()));
        }
    }
    Ok(found)
}
