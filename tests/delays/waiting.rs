//! `taskstat`: what processes wait for.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::delay_accounting::DelayAccounting;
use crate::kernel::{TICK, schedstat, stat, status};
use crate::puppet::{Puppet, Stage};
use crate::support::{is_root, skip, wait_for};
use crate::watch::{Asked, Lines, Watch, assert_between, growth, sum};

const TASKSTAT: Asked = Asked { collect: "taskstat", scope: "process", options: "" };
const TASKSTAT_OF_TREE: Asked = Asked { scope: "tree", ..TASKSTAT };

/// Whether netlink tells delays to this user; else it says that a test is skipped.
fn is_told_delays() -> bool {
    if !is_root() {
        skip("taskstats needs CAP_NET_ADMIN");
    }
    is_root()
}

/// Times on a CPU, and ns of waiting for one.
fn cpu(lines: &Lines) -> [u64; 2] {
    lines.fields("taskstat", ["cpu_delay_total", "cpu_count"])
}

/// The kernel's for a thread.
fn cpu_of(task: &Path) -> [u64; 2] {
    let [_, waiting, slices] = schedstat(task);
    [waiting, slices]
}

fn switches(lines: &Lines) -> [u64; 2] {
    lines.fields("taskstat", ["nvcsw", "nivcsw"])
}

fn switches_of(task: &Path) -> [u64; 2] {
    ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"].map(|name| status(task, name))
}

/// Of all living threads of a process.
fn switches_of_all(pid: u32) -> [u64; 2] {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    sum(tasks.map(|task| switches_of(&task.unwrap().path())))
}

/// Two that never stop have to share a CPU: each waits half of the time, whatever else there is to run.
#[test]
fn waiting_for_a_cpu_is_what_schedstat_says() {
    if !is_told_delays() {
        return;
    }
    let (mut one, mut other) = (Stage::new(), Stage::new());
    for puppet in [&mut one.1, &mut other.1] {
        puppet.order("pin");
        puppet.tell("spin");
    }
    let starved = &mut one.1;
    let mut watch = Watch::begin(TASKSTAT, &[starved.pid]);
    let much = 500_000_000;
    wait_for("a process to starve", || {
        let before = cpu_of(&starved.task());
        let reported = cpu(&watch.gather());
        assert_between(before, reported, cpu_of(&starved.task()));
        (reported[0] > much).then_some(())
    });
    starved.stop();
    other.1.stop();
    assert_eq!(cpu(&watch.gather()), cpu_of(&starved.task()));
}

/// And so are those of all threads together, each of which waits for the others.
#[test]
fn threads_that_wait_for_a_cpu_add_up() {
    if !is_told_delays() {
        return;
    }
    let (stage, mut root) = Stage::new();
    let mut threads = [stage.thread(&mut root), stage.thread(&mut root), stage.thread(&mut root)];
    let mut watch = Watch::begin(TASKSTAT, &[root.pid]);
    for thread in &mut threads {
        thread.order("pin");
        thread.tell("spin");
    }
    let waited = |threads: &[Puppet]| sum(threads.iter().map(|thread| cpu_of(&thread.task())));
    wait_for("threads to starve", || (waited(&threads)[0] > 500_000_000).then_some(()));
    threads.iter_mut().for_each(Puppet::stop);
    let of_root = cpu_of(&root.task());
    assert_eq!(cpu(&watch.gather()), sum([of_root, waited(&threads)]));
}

#[test]
fn context_switches_are_those_of_status() {
    if !is_told_delays() {
        return;
    }
    let (mut one, mut other) = (Stage::new(), Stage::new());
    let puppet = &mut one.1;
    let mut watch = Watch::begin(TASKSTAT, &[puppet.pid]);
    puppet.order("sleep_often 2000");
    puppet.order("pin");
    other.1.order("pin");
    other.1.tell("spin");
    wait_for("a process to lose its CPU often", || {
        puppet.order("burn 20");
        (switches_of(&puppet.task())[1] > 20).then_some(())
    });
    other.1.stop();
    let [voluntary, involuntary] = switches(&watch.gather());
    assert_eq!([voluntary, involuntary], switches_of(&puppet.task()));
    assert!(voluntary > 2000 && involuntary > 20, "{voluntary}, {involuntary}");
}

/// The sum over the threads that live falls when one of them exits. What is reported does not.
#[test]
fn threads_that_exited_still_count() {
    if !is_told_delays() {
        return;
    }
    let (stage, mut root) = Stage::new();
    let mut watch = Watch::begin(TASKSTAT, &[root.pid]);
    let (mut stays, mut goes) = (stage.thread(&mut root), stage.thread(&mut root));
    stays.order("sleep_often 500");
    goes.order("sleep_often 3000");
    let before = switches(&watch.gather());
    assert_eq!(before, switches_of_all(root.pid));
    let gone = switches_of(&goes.task());
    goes.end();
    let after = switches(&watch.gather());
    let living = switches_of_all(root.pid);
    assert!(living[0] < before[0] - 2900, "the thread is still there: {living:?}, {before:?}");
    // On its way out it may wait for a lock or lose its CPU, but not very often.
    assert_between(gone, growth(living, after), gone.map(|count| count + 100));
}

/// A tree's counters: a child's from its birth on, and to its end.
#[test]
fn a_tree_keeps_what_its_children_waited_for() {
    if !is_told_delays() {
        return;
    }
    let (stage, mut root) = Stage::new();
    let mut old = stage.child(&mut root);
    old.order("sleep_often 1000");
    let all = |task: &Path| -> [u64; 4] { [cpu_of(task), switches_of(task)].concat().try_into().unwrap() };
    let reported = |lines: &Lines| lines.fields("taskstat", ["cpu_delay_total", "cpu_count", "nvcsw", "nivcsw"]);
    let base = sum([all(&root.task()), all(&old.task())]);
    let mut watch = Watch::begin(TASKSTAT_OF_TREE, &[root.pid]);
    assert_eq!(reported(&watch.gather()), [0; 4], "nothing has happened since it watches");

    let mut young = stage.child(&mut root);
    young.order("sleep_often 2000");
    old.order("sleep_often 500");
    let living = sum([&root, &old, &young].map(|puppet| all(&puppet.task())));
    let with_young = reported(&watch.gather());
    assert_eq!(with_young, growth(base, living));

    let (old_pid, young_pid, of_root) = (old.pid, young.pid, all(&root.task()));
    old.end();
    let with_zombie = reported(&watch.gather());
    assert_grown_little(with_young, with_zombie);
    young.end();
    root.order(&format!("reap {old_pid}"));
    root.order(&format!("reap {young_pid}"));
    let root_alone = growth(of_root, all(&root.task()));
    let last = reported(&watch.gather());
    assert_grown_little(sum([with_zombie, root_alone]), last);
    assert_eq!(reported(&watch.gather()), last);
}

/// Exit records have what a process waited for on its way out: not less than when it was last seen, and not often. How long each
/// time is up to the host.
fn assert_grown_little([delay_before, before @ ..]: [u64; 4], [delay, after @ ..]: [u64; 4]) {
    assert!(delay >= delay_before, "{delay} after {delay_before}");
    assert_between(before, after, before.map(|count| count + 100));
}

/// A dead process that is not reaped has waited for no less than before: it has either what it had, or no line. (The kernel
/// answers for it, with zeros.)
#[test]
fn a_zombie_has_not_waited_for_less() {
    if !is_told_delays() {
        return;
    }
    let (stage, mut root) = Stage::new();
    let mut child = stage.child(&mut root);
    child.order("sleep_often 1000");
    let mut watch = Watch::begin(TASKSTAT, &[child.pid]);
    let before = switches(&watch.gather());
    assert_eq!(before, switches_of(&child.task()));
    child.end();
    let lines = watch.gather();
    if lines.line("taskstat", &[]).is_some() {
        growth(before, switches(&lines));
    }
}

/// A file of 4 MiB beside the build, if that lies on a block device.
fn file_on_a_device() -> Option<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), vec![1; 4 << 20]).unwrap();
    file.as_file().sync_all().unwrap();
    let device = file.as_file().metadata().unwrap().dev();
    if rustix::fs::major(device) == 0 {
        skip(&format!("{} is on no block device", env!("CARGO_TARGET_TMPDIR")));
        return None;
    }
    Some(file)
}

/// Field 42 of a task's stat: ticks that it has waited for devices. `None`: the kernel has made one up, as it does for a few that are
/// new (Linux 6.12 to at least 6.18): all the time since boot.
fn waited(task: &Path) -> Option<u64> {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    Some(stat(task, 42)).filter(|ticks| *ticks as f64 / 100.0 < uptime / 2.0)
}

/// Has it read from a device until it has waited for so many ticks.
fn read(puppet: &mut Puppet, file: &tempfile::NamedTempFile, ticks: u64) -> Option<()> {
    let enough = wait_for("a thread to have waited for its device", || {
        puppet.order(&format!("read {} 200", file.path().display()));
        Some(waited(&puppet.task())).filter(|waited| waited.is_none_or(|waited| waited >= ticks))
    });
    enough.map(drop)
}

/// Tries it with other processes as long as the kernel makes something up about these.
fn with_processes_that_are_told_the_truth(mut test: impl FnMut() -> Option<()>) {
    assert!((0..50).any(|_| test().is_some()), "the kernel makes up what everybody has waited for");
}

/// Direct I/O on a real device, against field 42 of stat: in whole ticks, rounded down, of the only thread.
#[test]
fn waiting_for_a_device_is_what_stat_says() {
    if !is_told_delays() {
        return;
    }
    let (Some(_on), Some(file)) = (DelayAccounting::switch(true), file_on_a_device()) else { return };
    with_processes_that_are_told_the_truth(|| {
        let (_stage, mut puppet) = Stage::new();
        puppet.order("nice 5");
        let asked = Asked { collect: "taskstat,thread", ..TASKSTAT };
        let mut watch = Watch::begin(asked, &[puppet.pid]);
        read(&mut puppet, &file, 5)?;
        let lines = watch.gather();
        let ticks = waited(&puppet.task())?;
        let [count, delay] = lines.fields("taskstat", ["blkio_count", "blkio_delay_total"]);
        assert_eq!(delay / TICK, ticks, "{delay} ns");
        assert!(count > 0, "{lines:?}");
        assert_eq!(lines.fields_of("thread", &[("nice", "5")], ["blkio_delay"]), [ticks * TICK]);
        let _there = lines.fields("taskstat", ["swapin_count", "swapin_delay_total", "freepages_delay_total"]);
        assert!(!watch.end().iter().any(|warning| warning.contains("task_delayacct")));
        Some(())
    });
}

/// The same of threads that are niced alike, in a tree whose device they waited for before and since.
#[test]
fn a_tree_waits_for_a_device() {
    if !is_told_delays() {
        return;
    }
    let (Some(_on), Some(file)) = (DelayAccounting::switch(true), file_on_a_device()) else { return };
    with_processes_that_are_told_the_truth(|| {
        let (stage, mut root) = Stage::new();
        let mut threads = [stage.thread(&mut root), stage.thread(&mut root)];
        for thread in &mut threads {
            thread.order("nice 4");
            read(thread, &file, 2)?;
        }
        let tasks = [threads[0].task(), threads[1].task()];
        let ticks = || Some(waited(&tasks[0])? + waited(&tasks[1])?);
        let base = ticks()?;
        let mut watch = Watch::begin(Asked { collect: "taskstat,thread", ..TASKSTAT_OF_TREE }, &[root.pid]);
        for thread in &mut threads {
            read(thread, &file, 8)?;
        }
        let mut child = stage.child(&mut root);
        child.order("nice 4");
        read(&mut child, &file, 3)?;
        let gained = ticks()? - base + waited(&child.task())?;
        let lines = watch.gather();
        assert_eq!(lines.fields_of("thread", &[("nice", "4")], ["blkio_delay"]), [gained * TICK]);
        // Each of the three is rounded down; what two had before is taken off, rounded too.
        let [delay] = lines.fields("taskstat", ["blkio_delay_total"]);
        assert_between([gained.saturating_sub(2) * TICK], [delay], [(gained + 3) * TICK]);
        Some(())
    });
}

/// What the kernel does not count is left out, not 0; once, a warning says what to do.
#[test]
fn what_is_not_counted_is_left_out() {
    if !is_told_delays() {
        return;
    }
    let Some(_off) = DelayAccounting::switch(false) else { return };
    let (_stage, mut puppet) = Stage::new();
    puppet.order("nice 5");
    let mut watch = Watch::begin(Asked { collect: "taskstat,thread", ..TASKSTAT }, &[puppet.pid]);
    for _ in 0..2 {
        let lines = watch.gather();
        let text = lines.0.concat();
        for kind in ["blkio", "swapin", "freepages", "thrashing", "compact", "wpcopy", "irq"] {
            assert!(!text.contains(kind), "{kind} in {lines:?}");
        }
        assert_eq!(cpu(&lines), cpu_of(&puppet.task()));
        assert_eq!(lines.nice(5), schedstat(&puppet.task()));
    }
    let warnings = watch.end();
    let [warning] = &warnings[..] else { panic!("not one warning: {warnings:?}") };
    assert!(warning.starts_with("W! ") && warning.contains("sysctl kernel.task_delayacct=1"), "{warning}");
}
