//! What is watched: services of one process each, with a pidfile. They are this executable, run with `service NAME`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::process::{Process, scratch};

pub struct Services {
    /// `NAME.pid` for each.
    directory: TempDir,
    processes: Vec<Process>,
}

impl Services {
    /// So many that sleep and so many that stir.
    pub fn plant(still: usize, stirring: usize) -> Result<Self> {
        let mut services = Self { directory: scratch()?, processes: Vec::new() };
        for number in 1..=still {
            services.add(&format!("still-{number:04}"))?;
        }
        for number in 1..=stirring {
            services.add(&format!("stir-{number:05}"))?;
        }
        Ok(services)
    }

    fn add(&mut self, name: &str) -> Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("service").arg(name).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        ensure!(process.stdout()?.line()? == "ready", "a service does not start");
        std::fs::write(self.directory.path().join(name).with_extension("pid"), process.id().to_string())?;
        self.processes.push(process);
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.processes.len()
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn pidfiles(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(self.directory.path())?;
        let mut paths = entries.map(|entry| Ok(entry?.path().display().to_string())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }
}

/// A service: one that is still does nothing, one that stirs uses some ms of CPU and some hundred KiB of memory, others each time.
pub fn run(name: &str) -> Result<()> {
    rustix::thread::set_name(&std::ffi::CString::new(name)?)?;
    println!("ready");
    let mut chance = u64::from(std::process::id()) | 1 << 40;
    let mut below = |bound: u64| {
        chance ^= chance >> 12;
        chance ^= chance << 25;
        chance ^= chance >> 27;
        (chance.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    };
    loop {
        if name.starts_with("still") {
            std::thread::park();
            continue;
        }
        std::thread::sleep(Duration::from_millis(300 + below(900)));
        let mut memory = vec![0_u8; usize::try_from(4096 * below(128))?];
        let (began, work) = (Instant::now(), Duration::from_micros(200 + below(3000)));
        while began.elapsed() < work {
            memory.iter_mut().step_by(4096).for_each(|byte| *byte = byte.wrapping_add(1));
        }
        std::thread::sleep(Duration::from_millis(below(500)));
        drop(std::hint::black_box(memory));
    }
}
