//! Workloads whose CPU, or part of it, nobody in the tree is ever charged for, and which is gone from /proc before
//! anybody looks: only who is told of every birth and every exit can know of it.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, ExitCode};

use rustix::process::{WaitOptions, getpid, set_child_subreaper, setsid, waitpid};

use crate::parts::{
    SHORT, auto_reaped, await_cue, await_no_children, burn, burn_forever, cued, fork, fork_with_pid,
    leave_to_the_others, on_sigchld, orphan, ready, reap, reap_with_usage, sleep_forever, twin,
};

/// Returns the least share where there is nothing but exit records: what the kernel itself has accounted of such lives when they exit, but
/// for 2 %. What a process used since its last tick and what its exit costs after the record is missing from that: of 5 ms 3 to 10 %, on
/// one machine within an hour, depending on what else its host does.
pub fn recorded() -> f64 {
    let output = Command::new(std::env::current_exe().unwrap()).arg("recorded").output().unwrap();
    let share: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    share - 0.02
}

/// Prints the share of lives of 5 ms that the kernel has accounted when they exit: their own schedstat, which is not brought up to
/// date when it is read, against what their parent is told by wait4(2).
pub fn print_recorded() -> ExitCode {
    const LIVES: usize = 100;
    let (mut accounted, mut used) = (0.0, 0.0);
    for _ in 0..LIVES {
        let (mut from, mut to) = std::io::pipe().unwrap();
        let child = fork(|| {
            burn(SHORT);
            to.write_all(&fs::read("/proc/self/schedstat").unwrap()).unwrap();
        });
        drop(to);
        let mut schedstat = String::new();
        from.read_to_string(&mut schedstat).unwrap();
        let ns: f64 = schedstat.split(' ').next().unwrap().parse().unwrap();
        accounted += ns / 1e9;
        used += reap_with_usage(child);
    }
    println!("{}", accounted / used);
    ExitCode::SUCCESS
}

/// Name, and function.
pub const UNSEEN: [(&str, fn() -> !); 9] = [
    ("daemon_between_gathers", daemon_between_gathers),
    ("orphans_of_5ms", orphans_of_5ms),
    ("autoreaped_of_5ms", autoreaped_of_5ms),
    ("autoreaped_of_one_pid", autoreaped_of_one_pid),
    ("not_to_be_waited_for", not_to_be_waited_for),
    ("multithreaded_orphans", multithreaded_orphans),
    ("ignores_then_waits", ignores_then_waits),
    ("adopted_and_autoreaped", adopted_and_autoreaped),
    ("walking_daemon", walking_daemon),
];

/// How far a daemon walks. If the test is killed, nothing else ends it: this is a minute.
const STEPS: usize = 12_000;

/// A daemon that forks twice after the first gather, and works on. When it is seen, it is a child of init like any
/// other: its parent, which alone says whose it is, has come and gone between two gathers.
fn daemon_between_gathers() -> ! {
    ready();
    await_cue();
    reap(fork(|| {
        setsid().unwrap();
        fork(|| burn_forever());
    }));
    sleep_forever()
}

/// Children of 5 ms, one at a time, whose parent leaves at once: they are the init's when they die, and no process of
/// the tree is charged for them. All of them are born and gone between two gathers.
fn orphans_of_5ms() -> ! {
    ready();
    loop {
        orphan(|| burn(SHORT));
    }
}

/// Children of 5 ms of a process that ignores SIGCHLD: they reap themselves, and nobody is charged for them.
fn autoreaped_of_5ms() -> ! {
    on_sigchld(libc::SIG_IGN, 0);
    ready();
    loop {
        auto_reaped(|| burn(SHORT));
    }
}

/// The same with the pid of the last, as where few pids are free: each has an exit record of its own.
fn autoreaped_of_one_pid() -> ! {
    on_sigchld(libc::SIG_IGN, 0);
    let mut last = getpid();
    ready();
    loop {
        last = fork_with_pid(last, || burn(SHORT));
        await_no_children();
    }
}

/// The first again, without ignoring the signal: SA_NOCLDWAIT.
fn not_to_be_waited_for() -> ! {
    on_sigchld(libc::SIG_DFL, libc::SA_NOCLDWAIT);
    ready();
    loop {
        auto_reaped(|| burn(SHORT));
    }
}

/// Orphans of four threads. In half of them the leader leaves first, so that the process is not over when its leader is.
fn multithreaded_orphans() -> ! {
    fn four_threads(leader_leaves: bool) {
        let others = [(); 3].map(|()| std::thread::spawn(|| burn(SHORT)));
        burn(SHORT / 2);
        if leader_leaves {
            leave_to_the_others();
        }
        burn(SHORT / 2);
        others.into_iter().for_each(|thread| thread.join().unwrap());
    }
    ready();
    loop {
        orphan(|| four_threads(false));
        orphan(|| four_threads(true));
    }
}

/// A parent of children of 5 ms that ignores SIGCHLD, from the next cue on waits for them, then ignores them again, and so
/// on. Each turn meets a living child, which ends the other way than it began.
fn ignores_then_waits() -> ! {
    let mut ignores = true;
    on_sigchld(libc::SIG_IGN, 0);
    ready();
    loop {
        let child = fork(|| burn(SHORT));
        if cued() {
            ignores = !ignores;
            on_sigchld(if ignores { libc::SIG_IGN } else { libc::SIG_DFL }, 0);
        }
        // If it reaps itself, this returns when it is gone, with an error.
        let _ = waitpid(Some(child), WaitOptions::empty());
    }
}

/// Orphans of 5 ms whose adopter, a subreaper inside the tree, ignores SIGCHLD: it is not charged for them either.
fn adopted_and_autoreaped() -> ! {
    let _adopter = fork(|| {
        set_child_subreaper(Some(getpid())).unwrap();
        on_sigchld(libc::SIG_IGN, 0);
        let _maker = fork(|| {
            on_sigchld(libc::SIG_DFL, 0);
            ready();
            loop {
                orphan(|| burn(SHORT));
            }
        });
        sleep_forever()
    });
    sleep_forever()
}

/// A daemon that from the first cue on leaves its work every 5 ms to a child and exits: an endless chain of orphans, of
/// which the root has known only the first. Nobody could tell whose it is that came when it was on its way.
fn walking_daemon() -> ! {
    ready();
    await_cue();
    reap(fork(|| {
        for _ in 0..STEPS {
            burn(SHORT);
            if twin().is_some() {
                return;
            }
        }
    }));
    sleep_forever()
}
