//! Configuration, fed to what it is for.

use std::collections::BTreeSet;
use std::fs;

use crate::document::{Block, repository};
use crate::host::Host;
use crate::peers::peer;

/// Where Telegraf finds a block.
const BLOCK: &str = "/etc/telegraf/telegraf.d/block.conf";

/// What Telegraf warns of in a file, as what will be gone in a release to come; without the time. Of any file it says something of its own
/// future.
fn warnings(host: &Host, file: &str) -> Vec<String> {
    let printed = host.run(&format!("telegraf config check --config {file} 2>&1"));
    let lines = printed.lines().filter(|line| [" W! ", " E! "].iter().any(|level| line.contains(level)));
    lines.filter_map(|line| line.split_once(' ')).map(|(_, line)| line.to_owned()).collect()
}

/// The plugin's, which is gathered by once; or Telegraf's, which is tested by the user telegraf. What has no input of its own goes with
/// the last that has, or with what the packages give.
pub fn toml(host: &Host, block: &Block, telegraf: &mut String) {
    if block.text.contains("[[inputs.taskstats]]") {
        host.write("/etc/telegraf-taskstats/plugin.conf", &block.text);
        let lines = host.run("sudo -u telegraf telegraf-taskstats --config /etc/telegraf-taskstats/plugin.conf --once");
        let watches_nginx = ["/run/nginx.pid", "/etc/exporter_pidfiles"].iter().any(|path| block.text.contains(path));
        let is_nginx = |line: &str| line.contains("name=nginx");
        assert!(!watches_nginx || lines.lines().any(is_nginx), "{block}: {lines}");
        return;
    }
    if block.text.contains("[[inputs.") {
        telegraf.clear();
    } else if telegraf.is_empty() {
        telegraf.push_str(&fs::read_to_string(repository().join("dist/telegraf.d/taskstats.conf")).unwrap());
    }
    telegraf.push_str(&block.text);
    // A file of the host's own, since only one [agent] may say something.
    host.write(BLOCK, telegraf);
    let own = warnings(host, "/etc/telegraf/telegraf.conf");
    let of_block: Vec<_> = warnings(host, BLOCK).into_iter().filter(|warning| !own.contains(warning)).collect();
    assert!(of_block.is_empty(), "{block}: {of_block:#?}");
    let printed = host.run("sudo -u telegraf telegraf --test 2>&1");
    let is_complaint = |line: &&str| line.contains(" E! ") && !line.ends_with("read |0: file already closed");
    assert_eq!(printed.lines().find(is_complaint), None, "{block}: {printed}");
    let metrics: Vec<_> = printed.lines().filter_map(|line| line.strip_prefix("> ")).collect();
    let is_ours = |line: &&&str| line.contains("name=");
    assert!(metrics.iter().any(|line| is_ours(&line)), "{block}: {printed}");

    let values = |key: &str| {
        let lines =
            block.text.lines().filter_map(move |line| line.trim_start().strip_prefix(key)?.strip_prefix(" = \""));
        lines.map(|value| value.trim_end_matches('"').to_owned()).collect::<Vec<_>>()
    };
    for renamed in values("dest") {
        assert!(metrics.iter().any(|line| line.contains(&format!("{renamed}="))), "{block}: {renamed}: {printed}");
    }
    for prefix in values("name_prefix") {
        assert!(metrics.iter().any(|line| line.starts_with(&prefix)), "{block}: {prefix}: {printed}");
    }
    let named = |field: &str| -> BTreeSet<_> {
        let lines = metrics.iter().filter(|line| line.contains(field));
        lines.map(|line| line.split([',', ' ']).next().unwrap()).collect()
    };
    let (theirs, ours) = (named("cpu_time_user="), named("utime="));
    assert!(theirs.is_disjoint(&ours), "{block}: both write {theirs:?}");
    let both = block.text.contains("[[inputs.procstat]]");
    assert!(!both || !(theirs.is_empty() || ours.is_empty()), "{block}: {printed}");
}

/// Prometheus's.
pub fn yaml(host: &Host, block: &Block) {
    assert!(block.text.contains("scrape_configs:"), "{block}: nothing takes it");
    let Some(promtool) = peer("promtool") else { return };
    fs::copy(promtool, host.path("/usr/bin/promtool")).unwrap();
    host.write("/etc/prometheus.yml", &block.text);
    host.run("promtool check config /etc/prometheus.yml");
}

/// A drop-in for one of our units, which systemd reads: what it ignores, it says, besides programs that are not here. Or an environment
/// file, which a shell reads. The first line says where it belongs.
pub fn ini(host: &Host, block: &Block) {
    let first = block.text.lines().next().unwrap();
    let path = first.strip_prefix("# /").unwrap_or_else(|| panic!("{block}: where does it belong?"));
    host.run(&format!("install -D /dev/null /{path}"));
    host.write(&format!("/{path}"), &block.text);
    let Some((unit, _)) = path.split_once(".d/") else {
        host.run(&format!("set -eu\n. /{path}"));
        return;
    };
    host.run(&format!("cp -n dist/systemd/*.service dist/systemd/*.socket /{}", unit.rsplit_once('/').unwrap().0));
    let said = host.run(&format!("systemd-analyze verify --man=no /{unit} 2>&1 || true"));
    assert!(!said.contains(path), "{block}: {said}");
}
