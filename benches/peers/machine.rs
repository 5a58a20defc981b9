//! What a benchmark says of the machine that it ran on.

use std::process::Command;

/// CPUs, kernel and date.
pub fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("CPUs of an unknown model", |(_, model)| model);
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let date = said_by(Command::new("date").args(["-u", "+%Y-%m-%d"]));
    format!("{cpus} CPUs ({model}), Linux {kernel}, {date}")
}

pub fn said_by(command: &mut Command) -> String {
    let output = command.output().map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
