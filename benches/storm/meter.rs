//! What the kernel says of the plugin's threads, and of the host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Directories of the threads of a process, and whether each is the main thread's, which takes events and gathers.
fn threads(pid: u32) -> Result<Vec<(PathBuf, bool)>> {
    let mut threads = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        threads.push((task.path(), task.file_name().to_str() == Some(&pid.to_string())));
    }
    Ok(threads)
}

/// CPU that the main thread has used, exact if it sleeps.
pub fn main_cpu(pid: u32) -> Result<Duration> {
    let schedstat = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat"))?;
    let cpu = schedstat.split(' ').next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(cpu.parse()?))
}

/// How often threads have gone to sleep: the main thread, and all others.
pub fn switches(pid: u32) -> Result<[u64; 2]> {
    let mut switches = [0, 0];
    for (path, is_main) in threads(pid)? {
        switches[usize::from(!is_main)] += number_in(&path.join("status"), "voluntary_ctxt_switches:")?;
    }
    Ok(switches)
}

/// Resident memory of a process, now and at most, in KiB.
pub fn rss_kib(pid: u32) -> Result<[u64; 2]> {
    let status = PathBuf::from(format!("/proc/{pid}/status"));
    Ok([number_in(&status, "VmRSS:")?, number_in(&status, "VmHWM:")?])
}

/// Processes and threads made since boot.
pub fn forks_of_the_host() -> Result<u64> {
    number_in("/proc/stat".as_ref(), "processes ")
}

pub fn pid_max() -> Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/pid_max")?.trim_end().to_owned())
}

/// The number after `key` in a file of lines with a key each.
fn number_in(file: &Path, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(file)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}
