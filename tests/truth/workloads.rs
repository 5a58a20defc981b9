//! The workloads: process trees that use CPU in all the ways an accounting of trees can go wrong.
//!
//! Each is a function of its own that sets its tree up, calls [`ready`] and goes on until it is killed. It runs
//! as the process that the plugin is told to watch, below called the root. Some have a turning point, which must
//! lie between two gathers: they wait for the test's cue ([`cued`]).

use std::collections::VecDeque;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{
    Resource, Rlimit, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper,
    set_parent_process_death_signal, setpgid, setrlimit, setsid, wait,
};

use crate::counted::COUNTED;
use crate::parts::{
    SHORT, await_cue, await_death, await_stop, become_step, burn, burn_forever, burn_until_cued, fork, fork_with_pid,
    leave_to_the_others, orphan, ready, reap, sleep_forever, spawn_step, waited_children,
};
use crate::unseen::UNSEEN;

/// Name and function of every workload whose CPU a scan can find, in the order in which they are run.
pub const WORKLOADS: [(&str, fn() -> !); 18] = [
    ("steady", steady),
    ("children_of_5ms", children_of_5ms),
    ("children_of_200us", children_of_200us),
    ("chains_three_deep", chains_three_deep),
    ("zombies", zombies),
    ("short_threads", short_threads),
    ("leader_gone", leader_gone),
    ("reexec", reexec),
    ("reexec_from_thread", reexec_from_thread),
    ("subreaper", subreaper),
    ("shell_pipelines", shell_pipelines),
    ("posix_spawn", posix_spawn),
    ("daemon", daemon),
    ("two_level_tree_dies", two_level_tree_dies),
    ("killed_process_group", killed_process_group),
    ("killed_children", killed_children),
    ("adopted_late", adopted_late),
    ("children_of_one_pid", children_of_one_pid),
];

/// What this executable does as one step of a workload that execs.
const STEPS: [(&str, fn() -> !); 4] = [
    ("burn", step_burn),
    ("reexec", step_reexec),
    ("reexec_from_thread", step_reexec_from_thread),
    ("exec_from_thread", step_exec_from_thread),
];

/// Half a gather interval: what happens this long after a gather is far from both its neighbours.
const HALF_AN_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the workload `name`, one of these or of `more`, in the cgroup at `cgroup`. Its root prints its pid, and "ready" when
/// it is. This process, outside the cgroup, is the init of the workload's orphans and reaps them at once, so that their fate
/// does not depend on the host's.
pub fn run(name: &str, cgroup: &str, more: &[(&'static str, fn() -> !)]) -> ! {
    end_with_the_test();
    set_child_subreaper(Some(getpid())).unwrap();
    let root = fork(|| run_root(name, cgroup, more));
    while wait(WaitOptions::empty()).unwrap().unwrap().0 != root {}
    panic!("{name} ended by itself");
}

/// Name and function of every workload that uses CPU, whoever can find it.
pub fn all() -> Vec<(&'static str, fn() -> !)> {
    [&WORKLOADS[..], &UNSEEN].concat()
}

fn run_root(name: &str, cgroup: &str, more: &[(&'static str, fn() -> !)]) -> ! {
    std::fs::write(format!("{cgroup}/cgroup.procs"), "0").unwrap(); // "0" is the writer
    end_with_the_test();
    println!("{}", getpid());
    named(&[&all()[..], &COUNTED, &[("execs_from_thread", execs_from_thread)], more].concat(), name)()
}

/// Runs the step `name`: the other end of [`become_step`] and [`spawn_step`].
pub fn step(name: &str) -> ! {
    named(&STEPS, name)()
}

fn named(table: &[(&str, fn() -> !)], name: &str) -> fn() -> ! {
    table.iter().find(|(n, _)| *n == name).unwrap().1
}

/// If the test itself is killed, nothing runs on for long: the init goes with it, the root with the init, and the
/// others have no more than a minute of CPU each.
fn end_with_the_test() {
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    setrlimit(Resource::Cpu, Rlimit { current: Some(60), maximum: Some(60) }).unwrap();
}

// The workloads.

/// One process that never stops: utime and stime alone must do.
fn steady() -> ! {
    ready();
    burn_forever()
}

/// Children of 5 ms, waited for. All of them are born and gone between two gathers: only the parent's cutime and
/// cstime know of them, and whoever rounds each one to a 10 ms tick has nothing.
fn children_of_5ms() -> ! {
    ready();
    waited_children(SHORT)
}

/// Children of 0.2 ms: most of what they cost is being forked and exiting. An exit record is written before the
/// exit is over; what the waiting parent is charged has all of it.
fn children_of_200us() -> ! {
    ready();
    waited_children(Duration::from_micros(200))
}

/// Child, grandchild and great-grandchild, each waiting for the next and with work of its own. What a child had
/// reaped is part of what its parent reaps: counted by level it is lost, or counted twice.
fn chains_three_deep() -> ! {
    fn link(depth: u32) {
        if depth > 0 {
            let below = fork(|| link(depth - 1));
            burn(SHORT / 2);
            reap(below);
        }
    }
    ready();
    loop {
        link(3);
    }
}

/// Children of 5 ms that stay zombies for one and a half gather intervals. There are some two hundred of them at
/// every gather, each showing 0 ticks: their CPU must be counted while they are dead, and not a second time when
/// they are reaped.
fn zombies() -> ! {
    let mut dead = VecDeque::new();
    ready();
    loop {
        let child = fork(|| burn(SHORT));
        await_death(child);
        dead.push_back((child, Instant::now()));
        while dead.front().is_some_and(|(_, since)| since.elapsed() > 3 * HALF_AN_INTERVAL) {
            reap(dead.pop_front().unwrap().0);
        }
    }
}

/// Threads of 5 ms, one after the other. The process keeps what they used, but neither the leader's own counters
/// nor any list of living threads does.
fn short_threads() -> ! {
    ready();
    loop {
        std::thread::spawn(|| burn(SHORT)).join().unwrap();
    }
}

/// The leader thread has exited and another one works on: the process looks like a zombie, and is none.
fn leader_gone() -> ! {
    std::thread::spawn(steady);
    leave_to_the_others()
}

/// The root replaces itself by exec every 5 ms: same pid, same start time, and the counters go on. It is no
/// new process.
fn reexec() -> ! {
    ready();
    step_reexec()
}

fn step_reexec() -> ! {
    burn(SHORT);
    become_step("reexec")
}

/// The same from a thread that is not the leader: it takes over the leader's pid, whose schedstat starts anew and
/// whose exit record looks like the death of the process.
fn reexec_from_thread() -> ! {
    ready();
    step_reexec_from_thread()
}

fn step_reexec_from_thread() -> ! {
    burn(SHORT / 2);
    let thread = std::thread::spawn(|| {
        burn(SHORT / 2);
        become_step("reexec_from_thread")
    });
    thread.join().unwrap()
}

/// The same without anything in between: for whoever wants to see the moment in which the threads change places.
pub fn execs_from_thread() -> ! {
    ready();
    step_exec_from_thread()
}

fn step_exec_from_thread() -> ! {
    std::thread::spawn(|| become_step("exec_from_thread")).join().unwrap()
}

/// A subreaper below the root adopts the children of those that leave before them, and is charged for both. A
/// hundred such pairs go by unseen; then one lives for so long that the child is seen with either parent.
fn subreaper() -> ! {
    fn adopt(cpu: Duration) {
        fork(|| {
            fork(|| burn(cpu));
            burn(cpu / 2);
        });
        for _ in 0..2 {
            wait(WaitOptions::empty()).unwrap();
        }
    }
    let _reaper = fork(|| {
        set_child_subreaper(Some(getpid())).unwrap();
        ready();
        loop {
            (0..100).for_each(|_| adopt(SHORT));
            adopt(3 * HALF_AN_INTERVAL);
        }
    });
    sleep_forever()
}

/// What a cron job looks like: subshells, pipelines and execs, with several children alive at a time.
fn shell_pipelines() -> ! {
    const SCRIPT: &str = "while :; do least=$(seq 3000 | sort -r | tail -n 1); seq $least 2000 | sort | wc -l; done";
    ready();
    panic!("{}", Command::new("sh").args(["-c", SCRIPT]).stdout(Stdio::null()).exec())
}

/// Children made by posix_spawn (vfork and exec, sharing the parent's memory in between), waited for.
fn posix_spawn() -> ! {
    ready();
    loop {
        reap(spawn_step(c"burn"));
    }
}

fn step_burn() -> ! {
    burn(SHORT);
    std::process::exit(0)
}

/// A daemon, forked twice and in a session of its own. It has been seen when its parent leaves; from then on it is
/// a child of init, and of this tree still. What the parent used since it was seen, only the root is charged for.
fn daemon() -> ! {
    let parent = fork(|| {
        setsid().unwrap();
        fork(|| burn_forever());
        ready();
        burn_until_cued();
        burn(HALF_AN_INTERVAL);
    });
    reap(parent);
    sleep_forever()
}

/// A child with a child of its own: both are seen at a gather, work on for half an interval and are SIGKILLed, so
/// that the next gather finds neither. Each is waited for, so the root is charged for two lives of which most has
/// been counted already: settled parent first, the inner one is counted twice.
fn two_level_tree_dies() -> ! {
    ready();
    loop {
        let outer = fork(|| {
            let inner = fork(|| burn_forever());
            burn_until_cued();
            burn(HALF_AN_INTERVAL);
            kill_process(inner, Signal::KILL).unwrap();
            reap(inner);
            kill_process(getpid(), Signal::KILL).unwrap();
        });
        reap(outer);
    }
}

/// A process group, a child and its two children with a second of CPU each, is killed at once. Nobody in the tree
/// is charged for the two orphans: an account that waits for that charge takes it from the waited children that come
/// after. The group has stopped itself before, since what orphans use between their last gather and their death
/// cannot be known. The children come an interval later, since in that of the kill it can hide what else is reaped.
fn killed_process_group() -> ! {
    let group = fork(|| {
        setpgid(None, None).unwrap();
        let members = [fork(burn_and_stop), fork(burn_and_stop)];
        members.into_iter().for_each(await_stop);
        burn_and_stop();
    });
    await_stop(group);
    ready();
    burn_until_cued();
    kill_process_group(group, Signal::KILL).unwrap();
    reap(group);
    burn_until_cued();
    waited_children(SHORT)
}

fn burn_and_stop() {
    burn(Duration::from_secs(1));
    kill_process(getpid(), Signal::STOP).unwrap();
}

/// Children that burn until they are SIGKILLed amid it, and are waited for then. What each used between the last tick
/// and its death is in no exit record, but its parent is charged for it.
fn killed_children() -> ! {
    ready();
    loop {
        let child = fork(|| burn_forever());
        burn(SHORT);
        kill_process(child, Signal::KILL).unwrap();
        reap(child);
    }
}

/// Orphans of 5 ms, adopted by a subreaper inside the tree that reaps none before the next cue: by then there are some
/// two hundred. Each counts when it dies, has another parent than the one that it was born to, and must not count again
/// when that one is charged for it.
fn adopted_late() -> ! {
    let _adopter = fork(|| {
        set_child_subreaper(Some(getpid())).unwrap();
        let _maker = fork(|| {
            loop {
                orphan(|| burn(SHORT));
            }
        });
        ready();
        loop {
            await_cue();
            while wait(WaitOptions::NOHANG).unwrap().is_some() {}
        }
    });
    sleep_forever()
}

/// Children of 5 ms, waited for, each with the pid of the last. Most begin in the same tick as the one before, or the next:
/// a start time hardly tells them apart.
fn children_of_one_pid() -> ! {
    let mut last = getpid();
    ready();
    loop {
        last = fork_with_pid(last, || burn(SHORT));
        reap(last);
    }
}
