//! A real Telegraf with one input: the plugin, or its own procstat.

use std::fmt::Write;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process::{Process, cpu_of, peak_kib_of, peer, scratch};
use crate::services::Services;

/// How long it may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// An input, set up in one of the usual ways.
pub struct Contender {
    pub what: &'static str,
    pub is_plugin: bool,
    /// What differs from how it comes.
    pub settings: &'static str,
    /// The same in Telegraf's block for the plugin.
    pub block: &'static str,
    pub measured: Measured,
}

/// What is measured of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    Lines,
    Disk,
    All,
}

impl Contender {
    pub const PLUGIN: Self = Self { what: "", is_plugin: true, settings: "", block: "", measured: Measured::All };
    pub const PROCSTAT: Self = Self { is_plugin: false, ..Self::PLUGIN };

    /// The plugin looks at a directory of pidfiles; procstat wants an input for each.
    fn input(&self, services: &Services, directory: &TempDir) -> Result<String> {
        if self.is_plugin {
            let file = directory.path().join("plugin.conf");
            let pid_dir = services.directory().display();
            let (settings, target) = (self.settings, "[[inputs.taskstats.target]]");
            std::fs::write(
                &file,
                format!("[[inputs.taskstats]]\n  {settings}\n{target}\n  pid_dir = \"{pid_dir}\"\n"),
            )?;
            let binary = env!("CARGO_BIN_EXE_telegraf-taskstats");
            return Ok(format!(
                "[[inputs.execd]]\n  command = [\"{binary}\", \"--config\", \"{}\"]\n  signal = \"STDIN\"\n  \
                 data_format = \"influx\"\n  {}\n",
                file.display(),
                self.block
            ));
        }
        let mut inputs = String::new();
        for file in services.pidfiles()? {
            writeln!(inputs, "[[inputs.procstat]]\n  pid_file = \"{file}\"\n  {}", self.settings)?;
        }
        Ok(inputs)
    }
}

pub struct Telegraf {
    process: Process,
    /// The plugin, if it is that.
    plugin: Option<u32>,
    directory: TempDir,
}

/// CPU used so far, ns, and the peak of memory, KiB.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub peak_kib: u64,
}

impl Telegraf {
    /// `outputs`: what is written in place of `$DIR` is its directory.
    pub fn start(
        contender: &Contender,
        services: &Services,
        [interval, offset]: [u64; 2],
        outputs: &str,
    ) -> Result<Self> {
        let directory = scratch()?;
        let outputs = outputs.replace("$DIR", &directory.path().display().to_string());
        // As it comes, but for the buffer: it holds 10,000 metrics, fewer than procstat makes of 10,000 services.
        let text = format!(
            "[agent]\n  interval = \"{interval}s\"\n  collection_offset = \"{offset}s\"\n  flush_interval = \"{interval}s\"\n  \
             metric_buffer_limit = 100000\n  hostname = \"host-01\"\n{outputs}\n{}",
            contender.input(services, &directory)?
        );
        let configuration = directory.path().join("telegraf.conf");
        std::fs::write(&configuration, text)?;
        let mut command = peer("telegraf")?;
        command.args(["--quiet", "--strict-env-handling", "--config"]).arg(configuration);
        command.stderr(File::create(directory.path().join("log"))?);
        let process = Process::start(&mut command)?;
        let mut telegraf = Self { process, plugin: None, directory };
        if contender.is_plugin {
            telegraf.plugin = Some(telegraf.find_plugin()?);
        }
        Ok(telegraf)
    }

    fn find_plugin(&self) -> Result<u32> {
        let started = Instant::now();
        loop {
            for thread in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
                let children = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
                if let Some(child) = children.split_whitespace().next() {
                    return Ok(child.parse()?);
                }
            }
            ensure!(started.elapsed() < PATIENCE, "Telegraf does not start the plugin");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Of Telegraf, and of the plugin.
    pub fn usage(&self) -> Result<[Usage; 2]> {
        let telegraf = Usage { cpu: self.process.cpu()?, peak_kib: self.process.peak_kib()? };
        let plugin = self.plugin.map(|pid| anyhow::Ok(Usage { cpu: cpu_of(pid)?, peak_kib: peak_kib_of(pid)? }));
        Ok([telegraf, plugin.transpose()?.unwrap_or_default()])
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Fails if it has complained: of a gather that took too long, or of something it could not write.
    pub fn is_calm(&self) -> Result<()> {
        let log = std::fs::read_to_string(self.file("log"))?;
        match log.lines().find(|line| line.contains(" E! ") || line.contains(" W! ")) {
            Some(line) => bail!("Telegraf says: {line}"),
            None => Ok(()),
        }
    }

    /// Stops it as its service manager does: it writes what it has. Its files are there as long as it is.
    pub fn stop(&mut self) -> Result<()> {
        let pid = Pid::from_raw(self.process.id().cast_signed()).context("no pid")?;
        kill_process(pid, Signal::TERM)?;
        let started = Instant::now();
        while !self.process.has_ended()? {
            ensure!(started.elapsed() < PATIENCE, "Telegraf does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}
