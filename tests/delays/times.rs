//! `procstat`: user and system time.

use crate::cgroup::Cgroup;
use crate::kernel::TICK;
use crate::puppet::{Puppet, Stage};
use crate::support::skip;
use crate::watch::{Asked, Watch, assert_between, growth};

const PROCSTAT: Asked = Asked { collect: "procstat", scope: "process", options: "" };

/// What a process is told of itself and its children, user and system time each, as /proc rounds it.
fn usage(puppet: &mut Puppet) -> [u64; 4] {
    let usage: [u64; 4] = puppet.order("usage").try_into().unwrap();
    usage.map(|microseconds| microseconds * 1000 / TICK * TICK)
}

/// To the tick, of the process and of the children it waited for; and its memory and threads.
#[test]
fn times_are_those_of_getrusage() {
    let (stage, mut puppet) = Stage::new();
    let mut thread = stage.thread(&mut puppet);
    thread.order("burn 100");
    for order in ["burn 300", "burn_system 300", "children 60 5"] {
        puppet.order(order);
    }
    let mut watch = Watch::begin(PROCSTAT, &[puppet.pid]);
    let before = usage(&mut puppet);
    let lines = watch.gather();
    let reported = lines.fields("procstat", ["utime", "stime", "cutime", "cstime"]);
    assert_between(before, reported, usage(&mut puppet));
    let [user, system, children, _] = reported;
    assert!([user, system, children].into_iter().all(|time| time > 100_000_000), "{lines:?}");
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", puppet.pid)).unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    let kib = pages * rustix::param::page_size() as u64 / 1024;
    assert_eq!(lines.fields("procstat", ["num_threads", "rss"]), [2, kib]);
}

/// User and system time of a cgroup, µs.
fn charged(cgroup: &Cgroup) -> [u64; 2] {
    let stat = std::fs::read_to_string(cgroup.directory().join("cpu.stat")).unwrap();
    ["user_usec ", "system_usec "].map(|name| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        value.parse().unwrap()
    })
}

/// A tree in a cgroup of its own.
fn tree_in_a_cgroup(name: &str) -> Option<(Stage, Puppet, Cgroup)> {
    let cgroup = Cgroup::create(name).inspect_err(|reason| skip(reason)).ok()?;
    let (stage, root) = Stage::new();
    std::fs::write(cgroup.directory().join("cgroup.procs"), root.pid.to_string()).unwrap();
    Some((stage, root, cgroup))
}

/// Two hundred children of 5 ms, which no gather sees. How a cgroup splits them is another thing than how each of them is
/// split, since the kernel samples modes by the tick; together they are exact.
#[test]
fn a_tree_has_the_times_of_children_never_seen() {
    let Some((_stage, mut root, cgroup)) = tree_in_a_cgroup("delays-tree") else { return };
    let before = charged(&cgroup);
    let mut watch = Watch::begin(Asked { scope: "tree", ..PROCSTAT }, &[root.pid]);
    let start = watch.gather();
    assert_eq!(start.fields("procstat", ["utime", "stime"]), [0, 0]);
    for order in ["children 200 5", "burn_system 200", "threads 20 5"] {
        root.order(order);
    }
    let lines = watch.gather();
    let [user, system] = growth(before, charged(&cgroup));
    let reported = lines.fields("procstat", ["utime", "stime"]);
    let (all, told) = ((user + system) * 1000, reported[0] + reported[1]);
    assert!(all.abs_diff(told) <= all / 50 + 40_000_000, "{told} of {all} ns");
    for (charged, told) in [user, system].into_iter().zip(reported) {
        assert!(told.abs_diff(charged * 1000) <= all / 6, "{reported:?}, but {user} and {system} µs");
    }
    let line = lines.line("procstat", &[]).unwrap();
    assert!(!line.contains("cutime") && !line.contains("cstime"), "{line}");
}

/// A cgroup's are its own count, to the µs.
#[test]
fn a_cgroup_has_the_times_of_its_cpu_stat() {
    let Some((_stage, mut root, cgroup)) = tree_in_a_cgroup("delays-cgroup") else { return };
    root.order("burn 50");
    let before = charged(&cgroup);
    let name = cgroup.directory().file_name().unwrap().to_str().unwrap();
    let target = format!("name = \"w\"\ncgroup = \"{name}\"\n");
    let mut watch = Watch::begin_targets(Asked { scope: "tree", ..PROCSTAT }, &[target], root.pid);
    for order in ["children 40 5", "burn_system 200", "burn 100"] {
        root.order(order);
        let reported = watch.gather().fields("procstat", ["utime", "stime"]);
        assert_eq!(reported, growth(before, charged(&cgroup)).map(|us| us * 1000));
    }
}
