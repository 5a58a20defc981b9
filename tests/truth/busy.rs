//! What the CPUs of the host did, all together.

use std::fs;
use std::time::Instant;

/// The time that the CPUs were not idle, which nobody's accounts are needed for.
pub struct Busy {
    began: Instant,
    idle: f64,
}

impl Busy {
    pub fn begin() -> Self {
        let idle = idle();
        Self { began: Instant::now(), idle }
    }

    /// At most so many seconds. What /proc/stat has as user, nice, system, irq, softirq and steal would be the same, but it is
    /// what a timer tick finds: of processes that run between two ticks that can be too little. Idle time is measured.
    pub fn seconds(&self) -> f64 {
        let cpus = online_cpus() as f64;
        let elapsed = self.began.elapsed().as_secs_f64();
        // Two texts of two columns of each CPU, in ticks of 10 ms.
        elapsed * cpus - (idle() - self.idle) + 0.04 * cpus
    }
}

/// How many CPUs /proc/stat adds up.
pub fn online_cpus() -> usize {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count()
}

/// The columns idle and iowait of /proc/stat, over all CPUs, in seconds.
fn idle() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let columns: Vec<_> = stat.lines().next().unwrap().split_whitespace().collect();
    [4, 5].map(|column: usize| columns[column].parse::<f64>().unwrap()).iter().sum::<f64>() / 100.0
}
