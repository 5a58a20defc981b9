//! What the kernel's own files say, read without any of the plugin's code.

use std::fs;
use std::path::Path;

/// Nanoseconds of a tick in the texts of /proc.
pub const TICK: u64 = 10_000_000;

/// `schedstat` of a task: ns on a CPU, ns of waiting for one, times on a CPU.
pub fn schedstat(task: &Path) -> [u64; 3] {
    let text = fs::read_to_string(task.join("schedstat")).unwrap();
    let numbers: Vec<_> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

/// A field of `stat`, by its number in proc(5), from 3 on.
pub fn stat(task: &Path, number: usize) -> u64 {
    let text = fs::read(task.join("stat")).unwrap();
    let close = text.iter().rposition(|byte| *byte == b')').unwrap();
    let rest = String::from_utf8(text[close + 2..].to_vec()).unwrap();
    rest.split(' ').nth(number - 3).unwrap().trim().parse().unwrap()
}

/// A number in `status`.
pub fn status(task: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(task.join("status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    value.trim().parse().unwrap()
}

/// Memory of a process by its mappings, KiB.
#[derive(Debug)]
pub struct Maps {
    /// The sum of all PSS, each rounded down.
    pub pss: u64,
    /// By how much PSS may be more at another time: what rounding takes from each mapping, and the files', which other
    /// processes map and unmap.
    pub uncertain: u64,
}

/// `smaps` of a process.
pub fn maps(pid: u32) -> Maps {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut maps, mut is_file) = (Maps { pss: 0, uncertain: 0 }, false);
    for line in text.lines() {
        let kib = |name| Some(line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().unwrap());
        if let Some(pss) = kib("Pss:") {
            maps.pss += pss;
            maps.uncertain += 1;
        } else if let Some(rss) = kib("Rss:").filter(|_| is_file) {
            maps.uncertain += rss;
        } else if !line.split(' ').next().unwrap().ends_with(':') {
            // "from-to rights offset device inode path": shared anonymous memory is a file of a device of its own.
            is_file = line.contains(" /") && !line.contains("/dev/zero");
        }
    }
    maps
}
