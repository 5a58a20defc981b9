//! Processes that end, and processes with hostile names.

use std::path::Path;

use crate::kernel::{TICK, schedstat, stat};
use crate::puppet::{Puppet, Stage};
use crate::support::{is_root, wait_for};
use crate::watch::{Asked, Lines, SCHEDSTAT, Watch, growth};

/// All that can be asked of a niced process: of taskstat, what this user is told.
fn measurements() -> &'static [&'static str] {
    if is_root() { &["taskstat", "procstat", "procmaps", "thread"] } else { &["procstat", "procmaps", "thread"] }
}

fn has_all(lines: &Lines, name: &str) -> bool {
    let name = format!("process_name={name} ");
    let has = |measurement: &&str| lines.0.iter().any(|line| line.starts_with(*measurement) && line.contains(&name));
    measurements().iter().all(has)
}

/// The times of a process, and what its thread of nice 5 counted.
fn assert_right(lines: &Lines, name: &str, puppet: &Puppet) {
    // The thread's own stat may split the same time otherwise.
    let process = format!("/proc/{}", puppet.pid);
    let times = [14, 15].map(|field| stat(Path::new(&process), field) * TICK);
    assert_eq!(lines.fields_of("procstat", &[("process_name", name)], ["utime", "stime"]), times, "{lines:?}");
    let tags = [("process_name", name), ("nice", "5")];
    assert_eq!(lines.fields_of("thread", &tags, SCHEDSTAT), schedstat(&puppet.task()), "{lines:?}");
}

/// Waits until whoever reaps it has done so.
fn end(puppet: Puppet) {
    let pid = puppet.pid;
    puppet.end();
    wait_for("the parent to reap a process", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

#[test]
fn a_process_that_ends_takes_its_lines_along_and_no_others() {
    let ((_one, mut ends), (_other, mut stays)) = (Stage::new(), Stage::new());
    for puppet in [&mut ends, &mut stays] {
        puppet.order("nice 5");
        puppet.order("burn 50");
    }
    let mut watch = Watch::begin(Asked::default(), &[ends.pid, stays.pid]);
    let lines = watch.gather();
    for (name, puppet) in [("w", &ends), ("x", &stays)] {
        assert!(has_all(&lines, name), "{lines:?}");
        assert_right(&lines, name, puppet);
    }
    end(ends);
    for _ in 0..2 {
        stays.order("burn 50");
        let lines = watch.gather();
        assert!(lines.0.iter().all(|line| line.contains("process_name=x ")), "{lines:?}");
        assert!(has_all(&lines, "x"), "{lines:?}");
        assert_right(&lines, "x", &stays);
    }
}

/// A tree of which nothing is left repeats what it counted, its end included where exit records tell of that.
#[test]
fn a_tree_that_ends_keeps_its_counters() {
    let (_stage, mut root) = Stage::new();
    root.order("nice 5");
    let mut watch = Watch::begin(Asked { scope: "tree", ..Asked::default() }, &[root.pid]);
    let base = schedstat(&root.task());
    root.order("burn 50");
    let counters = |lines: &Lines| {
        let mut counters = lines.fields("procstat", ["utime", "stime"]).to_vec();
        counters.extend(lines.nice(5));
        if is_root() {
            counters.extend(lines.fields("taskstat", ["cpu_count", "cpu_delay_total", "nvcsw", "nivcsw"]));
        }
        counters
    };
    let before = watch.gather();
    assert_eq!(before.nice(5), growth(base, schedstat(&root.task())));
    end(root);
    let last = counters(&watch.gather());
    assert!(last.iter().zip(counters(&before)).all(|(last, before)| *last >= before), "{last:?} after {before:?}");
    for _ in 0..2 {
        let lines = watch.gather();
        assert_eq!(counters(&lines), last, "{lines:?}");
        assert_eq!(lines.fields("procstat", ["num_threads", "rss"]), [0, 0]);
        assert_eq!(lines.fields("procmaps", ["pss"]), [0]);
    }
}

/// A name that looks like the rest of stat, on the process and on a thread of it.
#[test]
fn a_hostile_comm_costs_nobody_anything() {
    let ((stage, mut hostile), (_other, mut plain)) = (Stage::new(), Stage::new());
    let mut thread = stage.thread(&mut hostile);
    for (puppet, comm) in [(&mut hostile, b"x) Z 1\n2 (3\n) ".as_slice()), (&mut thread, b") S 1 2 3\n\n ((")] {
        assert!(comm.len() <= 15);
        puppet.order(&format!("name {}", comm.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
        let shown = std::fs::read(puppet.task().join("comm")).unwrap();
        assert_eq!(shown, [comm, b"\n"].concat());
    }
    thread.order("nice 7");
    for puppet in [&mut hostile, &mut plain] {
        puppet.order("nice 5");
        puppet.order("burn 50");
    }
    thread.order("burn 20");
    let mut watch = Watch::begin(Asked::default(), &[hostile.pid, plain.pid]);
    for _ in 0..2 {
        let lines = watch.gather();
        assert!(has_all(&lines, "w") && has_all(&lines, "x"), "{lines:?}");
        assert_right(&lines, "w", &hostile);
        assert_right(&lines, "x", &plain);
        let tags = [("process_name", "w"), ("nice", "7")];
        assert_eq!(lines.fields_of("thread", &tags, SCHEDSTAT), schedstat(&thread.task()));
        assert_eq!(lines.fields_of("procstat", &[("process_name", "w")], ["num_threads"]), [2]);
    }
}
