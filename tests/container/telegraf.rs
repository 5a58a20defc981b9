//! Telegraf, and nginx for it to watch.

use std::collections::BTreeMap;

use crate::booted::{Container, Ran};
use crate::support::{field, wait_for};

const UNIT: &str = include_str!("telegraf.service");
/// What is to be run as root where Telegraf is to be.
pub const INSTALL: &str = include_str!("telegraf.sh");
/// What links the packaged snippet to where Telegraf reads it.
pub const ENABLE: &str =
    "ln -s /usr/share/telegraf-taskstats/telegraf.d/taskstats.conf /etc/telegraf/telegraf.d/taskstats.conf";
pub const METRICS: &str = "/var/lib/telegraf/metrics";

/// nginx, in three ways.
const PLUGIN: &str = r#"
[[inputs.taskstats]]
  collect = ["psstat", "taskstat"]
  psstat_fields = ["all"]
  self_stats = true
  [[inputs.taskstats.target]]
    name = "unit"
    systemd_unit = "nginx"
  [[inputs.taskstats.target]]
    name = "pidfile"
    pid_file = "/run/nginx.pid"
  [[inputs.taskstats.target]]
    name = "pattern"
    pattern = "^nginx$"
"#;
const NAMES: [&str; 3] = ["unit", "pidfile", "pattern"];

/// Puts Telegraf into a container, as its package does.
pub fn install(container: &Container) -> Option<()> {
    container.place_peer("telegraf")?;
    container.run(INSTALL);
    container.write("/lib/systemd/system/telegraf.service", UNIT);
    container.run("systemctl daemon-reload");
    Some(())
}

/// A container with Telegraf, the package and nginx.
pub struct Host(pub Container);

impl Host {
    pub fn new() -> Option<Self> {
        let container = Container::with_package()?;
        install(&container)?;
        container.write("/etc/telegraf-taskstats/plugin.conf", PLUGIN);
        Some(Self(container))
    }

    /// Telegraf anew, with none of its metrics.
    pub fn restart_telegraf(&self) {
        self.0.run(&format!("systemctl stop telegraf; rm -f {METRICS}; journalctl --quiet --rotate"));
        self.0.run("journalctl --quiet --vacuum-time=1s; systemctl start telegraf");
    }

    /// The metrics since Telegraf was restarted, of the plugin's measurements, in order.
    pub fn metrics(&self) -> Vec<String> {
        let text = self.0.read(METRICS);
        text.split_inclusive('\n').filter_map(|line| Some(line.strip_suffix('\n')?.to_owned())).collect()
    }

    /// The metrics of a target.
    pub fn lines(&self, measurement: &str, name: &str) -> Vec<String> {
        let series = format!("{measurement},process_name={name} ");
        self.metrics().into_iter().filter(|line| line.starts_with(&series)).collect()
    }

    /// Waits until the last line of each of the three targets is as wanted: these lines, by target.
    pub fn wait_lines(&self, measurement: &str, wanted: impl Fn(&str) -> bool) -> BTreeMap<&'static str, String> {
        let mut last = BTreeMap::new();
        wait_for("lines of all three targets", || {
            let now = NAMES.iter().filter_map(|name| Some((*name, self.lines(measurement, name).pop()?))).collect();
            if now != last {
                eprintln!("{now:?}"); // for a test that waits in vain
                last = now;
            }
            (last.len() == NAMES.len() && last.values().all(|line| wanted(line))).then_some(())
        });
        last
    }

    /// Waits for a line about the plugin that was gathered from now on, so that all else has been too.
    pub fn wait_gather(&self) {
        let gathers = || self.metrics().iter().filter(|line| line.starts_with("taskstats_agent,")).count();
        let now = gathers();
        wait_for("two gathers", || (gathers() >= now + 2).then_some(()));
    }

    /// The number of processes that nginx has, by its cgroup.
    pub fn processes_of_nginx(&self) -> u64 {
        self.0.read("/sys/fs/cgroup/system.slice/nginx.service/cgroup.procs").lines().count() as u64
    }

    /// The CPU that nginx has used since it was started, ns, by its cgroup.
    pub fn cpu_of_nginx(&self) -> u64 {
        let stat = self.0.read("/sys/fs/cgroup/system.slice/nginx.service/cpu.stat");
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
        usage.parse::<u64>().unwrap() * 1000
    }

    /// Runs the plugin as the user telegraf, with its packaged configuration.
    pub fn as_telegraf(&self, arguments: &str) -> Ran {
        let program = "/usr/bin/telegraf-taskstats --config /etc/telegraf-taskstats/plugin.conf";
        self.0.attempt(&format!("setpriv --reuid telegraf --regid telegraf --init-groups {program} {arguments}"))
    }
}

/// An integer of a line.
pub fn integer(line: &str, name: &str) -> u64 {
    let text = field(line, name).unwrap_or_else(|| panic!("no {name}: {line}"));
    text.strip_suffix('i').and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name}: {line}"))
}
