//! `thread`, and psstat's busiest one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::kernel::schedstat;
use crate::puppet::{Puppet, Stage};
use crate::support::{field, wait_for};
use crate::watch::{Asked, Lines, Watch, growth, sum};

const THREAD: Asked = Asked { collect: "thread", scope: "process", options: "" };

fn all(threads: &[&Puppet]) -> [u64; 3] {
    sum(threads.iter().map(|thread| schedstat(&thread.task())))
}

/// By nice value what schedstat says of the threads that have it; of nice 0 if it is asked for.
#[test]
fn schedstat_adds_up_by_nice_value() {
    let (stage, mut root) = Stage::new();
    let [mut one, mut two, mut three] = [(); 3].map(|()| stage.thread(&mut root));
    for (thread, nice) in [(&mut one, 3), (&mut two, 3), (&mut three, 4)] {
        thread.order("pin");
        thread.order(&format!("nice {nice}"));
    }
    let mut niced = Watch::begin(THREAD, &[root.pid]);
    let mut all_nice = Watch::begin(Asked { options: "thread_all_nice = true", ..THREAD }, &[root.pid]);
    for _ in 0..2 {
        root.order("burn 50");
        let threads = [&mut one, &mut two, &mut three];
        for thread in threads {
            thread.tell("spin");
        }
        root.order("burn 100");
        [&mut one, &mut two, &mut three].into_iter().for_each(Puppet::stop);
        for watch in [&mut niced, &mut all_nice] {
            let lines = watch.gather();
            assert_eq!(lines.nice(3), all(&[&one, &two]));
            assert_eq!(lines.nice(4), all(&[&three]));
        }
    }
    assert!(all(&[&one, &two]).into_iter().all(|count| count > 0), "nothing was counted");
    assert_eq!(niced.gather().line("thread", &[("nice", "0")]), None);
    assert_eq!(all_nice.gather().nice(0), all(&[&root]));
}

/// What threads counted goes to the nice value they have, in both scopes; and what was counted once stays.
#[test]
fn a_thread_takes_nothing_along_to_another_nice_value() {
    for scope in ["process", "tree"] {
        let (stage, mut root) = Stage::new();
        let [mut changes, mut exits, mut begins] = [(); 3].map(|()| stage.thread(&mut root));
        changes.order("nice 3");
        exits.order("nice 3");
        [&mut changes, &mut exits, &mut begins].into_iter().for_each(|thread| _ = thread.order("burn 100"));
        let before = if scope == "tree" { all(&[&changes, &exits]) } else { [0; 3] };
        let mut watch = Watch::begin(Asked { scope, ..THREAD }, &[root.pid]);
        [&mut changes, &mut exits].into_iter().for_each(|thread| _ = thread.order("burn 30"));
        let at_three = watch.gather().nice(3);
        assert_eq!(at_three, growth(before, all(&[&changes, &exits])), "{scope}");

        let (of_changes, of_begins) = (all(&[&changes]), all(&[&begins]));
        changes.order("nice 7");
        changes.order("burn 50");
        begins.order("nice 5");
        begins.order("burn 50");
        exits.end();
        let lines = watch.gather();
        assert_eq!(lines.nice(3), at_three, "{scope}: neither lost nor gained");
        assert_eq!(lines.nice(7), growth(of_changes, all(&[&changes])), "{scope}: since the last gather");
        // What it did since the last gather may have been at nice 0, but not what it did before.
        let at_five = lines.nice(5);
        growth(at_five, growth(of_begins, all(&[&begins])));

        let of_begins = all(&[&begins]);
        begins.order("burn 20");
        let lines = watch.gather();
        assert_eq!(growth(at_five, lines.nice(5)), growth(of_begins, all(&[&begins])), "{scope}");
        // And back again: nobody counts at nice 0. (Nobody may lower a nice value but with CAP_SYS_NICE.)
        if crate::support::is_root() {
            begins.order("nice 0");
            begins.order("burn 20");
            let at_zero = watch.gather();
            assert_eq!(at_zero.nice(5), lines.nice(5), "{scope}");
            assert_eq!(at_zero.line("thread", &[("nice", "0")]), None);
        }
        assert_eq!(watch.gather().nice(3), at_three, "{scope}");
    }
}

/// A tree's counters: a child's from its birth on, and a dead one's as last seen. Of two with the same nice value, one's
/// death takes nothing from the other.
#[test]
fn a_tree_keeps_what_its_threads_ran() {
    let (stage, mut root) = Stage::new();
    let mut old = stage.child(&mut root);
    old.order("nice 4");
    old.order("burn 100");
    let base = all(&[&old]);
    let mut watch = Watch::begin(Asked { scope: "tree", ..THREAD }, &[root.pid]);
    let mut young = stage.child(&mut root);
    young.order("nice 4");
    young.order("burn 50");
    let mut thread = stage.thread(&mut young); // inherits the nice value
    thread.order("burn 50");
    let living = growth(base, all(&[&old, &young, &thread]));
    let seen = watch.gather().nice(4);
    assert_eq!(seen, living);
    let pid = young.pid;
    young.end();
    assert!(growth(seen, watch.gather().nice(4))[0] < 50_000_000, "a zombie's threads counted twice");
    root.order(&format!("reap {pid}"));
    let reaped = watch.gather().nice(4);
    growth(seen, reaped);
    let before = all(&[&old]);
    old.order("burn 30");
    let later = watch.gather().nice(4);
    assert_eq!(growth(reaped, later), growth(before, all(&[&old])));
    let pid = old.pid;
    old.end();
    root.order(&format!("reap {pid}"));
    assert_eq!(watch.gather().nice(4), later, "the counters of none go on");
}

/// Too many threads are not read, which costs nothing but what is said of them; once, a warning says what to do.
#[test]
fn too_many_threads_are_left_out() {
    let (stage, mut root) = Stage::new();
    root.order("nice 3");
    let [one, two, three] = [(); 3].map(|()| stage.thread(&mut root));
    let options = "thread_max = 2\npsstat_fields = [\"p_cpu\", \"n_proc\", \"p_cpu_thread_max\"]";
    let asked = Asked { collect: "psstat,procstat,thread", options, ..THREAD };
    let mut watches = ["process", "tree"].map(|scope| Watch::begin(Asked { scope, ..asked }, &[root.pid]));
    for watch in &mut watches {
        for _ in 0..3 {
            let lines = watch.gather();
            let there = ["psstat", "procstat", "thread"].map(|name| lines.line(name, &[]).is_some());
            assert_eq!(there, [true, true, false], "{lines:?}");
            let psstat = lines.line("psstat", &[]).unwrap();
            assert_eq!((field(psstat, "n_proc"), field(psstat, "p_cpu_thread_max")), (Some("1i"), None), "{psstat}");
            assert_eq!(lines.fields("procstat", ["num_threads"]), [4]);
        }
    }
    // Fewer are read again.
    [two, three].into_iter().for_each(Puppet::end);
    watches.iter_mut().for_each(|watch| _ = watch.gather());
    let [of_process, of_tree] = watches.each_mut().map(|watch| watch.gather().nice(3));
    assert_eq!(of_process, all(&[&root, &one]));
    assert_eq!(of_tree, [0; 3], "a first sight counts for nothing");
    for watch in watches {
        let warnings = watch.end();
        let of_threads: Vec<_> = warnings.iter().filter(|warning| warning.contains("thread_max")).collect();
        let [warning] = of_threads[..] else { panic!("not one warning: {warnings:?}") };
        let parts = ["W! ", "of puppets_play_he ", "thread_max = 2", "raise it"];
        assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
    }
}

/// What a test knows of some threads at one time: ns since some time, and ns that each has run.
struct Mark {
    at: Instant,
    ran: Vec<u64>,
}

impl Mark {
    fn now(tasks: &[PathBuf]) -> Self {
        let ran = tasks.iter().map(|task| schedstat(task)[0]).collect();
        Self { at: Instant::now(), ran }
    }
}

/// The limits of what may be said of the busiest and of all, cores.
struct Limits {
    busiest: [f64; 2],
    all: [f64; 2],
}

/// One interval, by what was seen before and after each of its two gathers. It begins with one that has a p_cpu: a gather just
/// after another does not begin any.
fn interval(watch: &mut Watch, tasks: &[PathBuf]) -> (Lines, Limits) {
    let (outer, inner) = wait_for("a p_cpu", || {
        let outer = Mark::now(tasks);
        let lines = watch.gather();
        lines.line("psstat", &[]).map(|_| (outer, Mark::now(tasks)))
    });
    std::thread::sleep(Duration::from_secs(1)); // the interval that is measured
    let inner_end = Mark::now(tasks);
    let lines = watch.gather();
    let outer_end = Mark::now(tasks);
    let cores = |from: &Mark, to: &Mark, over: Duration| -> Vec<f64> {
        #[allow(clippy::cast_precision_loss)] // ns of a second
        let of = |(from, to): (&u64, &u64)| (to - from) as f64 / 1e9 / over.as_secs_f64();
        from.ran.iter().zip(&to.ran).map(of).collect()
    };
    let least = cores(&inner, &inner_end, outer_end.at - outer.at);
    let most = cores(&outer, &outer_end, inner_end.at - inner.at);
    // Two ticks are what texts in ticks may be off at each end, and schedstat may be a tick behind.
    let max = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    let all = [least.iter().sum::<f64>() - 0.06, most.iter().sum::<f64>() + 0.06];
    (lines, Limits { busiest: [max(&least) - 1e-5, max(&most) + 1e-5], all })
}

/// `p_cpu` and `p_cpu_thread_max`, which must be within the limits.
fn assert_within(lines: &Lines, limits: &Limits) -> [f64; 2] {
    let line = lines.line("psstat", &[]).unwrap();
    let [all, busiest] = ["p_cpu", "p_cpu_thread_max"].map(|name| field(line, name).unwrap().parse::<f64>().unwrap());
    let is_within = |value: f64, [least, most]: [f64; 2]| (least..=most).contains(&value);
    assert!(is_within(all, limits.all), "{all} is not in {:?}: {line}", limits.all);
    assert!(is_within(busiest, limits.busiest) && busiest <= 1.0, "{busiest} is not in {:?}: {line}", limits.busiest);
    [all, busiest]
}

/// Of four threads one that never stops, then two of which one does more: it is the busiest that is told, not the sum.
#[test]
fn the_busiest_thread_is_no_sum() {
    let (stage, mut root) = Stage::new();
    let mut threads = [(); 3].map(|()| stage.thread(&mut root));
    let tasks: Vec<_> = [&root].into_iter().chain(&threads).map(Puppet::task).collect();
    let options = "psstat_fields = [\"p_cpu\", \"p_cpu_thread_max\"]";
    let mut watch = Watch::begin(Asked { collect: "psstat", scope: "tree", options }, &[root.pid]);
    threads[0].tell("spin");
    wait_for("one thread to run", || {
        let (lines, limits) = interval(&mut watch, &tasks);
        assert_within(&lines, &limits);
        (limits.busiest[0] > 0.2).then_some(())
    });
    threads[0].stop();
    threads[1].tell("duty 5 5");
    threads[2].tell("duty 5 10");
    wait_for("two threads to run", || {
        let (lines, limits) = interval(&mut watch, &tasks);
        let [all, busiest] = assert_within(&lines, &limits);
        // Where the limits do not overlap, one number cannot pass for the other.
        (limits.all[0] > limits.busiest[1]).then(|| assert!(all > busiest, "{all}, {busiest}"))
    });
}

/// The busiest of a whole tree is looked for in all its processes; at rest it is 0.
#[test]
fn the_busiest_thread_is_of_any_process() {
    let (stage, mut root) = Stage::new();
    let mut child = stage.child(&mut root);
    let mut thread = stage.thread(&mut child);
    let tasks: Vec<_> = [&root, &child, &thread].map(Puppet::task).into();
    let options = "psstat_fields = [\"p_cpu\", \"p_cpu_thread_max\"]";
    let mut watch = Watch::begin(Asked { collect: "psstat", scope: "tree", options }, &[root.pid]);
    thread.tell("spin");
    let (lines, limits) = interval(&mut watch, &tasks);
    assert_within(&lines, &limits);
    thread.stop();
    let (lines, limits) = interval(&mut watch, &tasks);
    assert_eq!(assert_within(&lines, &limits), [0.0, 0.0]);
}
