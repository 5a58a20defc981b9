//! Workloads that do a known number of things at a cue, and say when they are done.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::time::Duration;

use rustix::process::getpid;

use crate::parts::{
    await_cue, await_death, await_no_children, fork, fork_with_pid, on_sigchld, orphan, ready, reap, sleep_forever,
    spawn_step, twin, until_released,
};

/// Name and function of each.
pub const COUNTED: [(&str, fn() -> !); 2] = [("lives", lives), ("naps", naps)];

/// How many processes each [`Turn`] makes, most of them.
pub const MANY: u32 = 500;
/// How many of them stay zombies until the last turn.
pub const ZOMBIES: u32 = 7;

/// What `lives` does at a cue.
pub struct Turn {
    pub what: &'static str,
    /// How many processes it makes, each of which dies in it too,
    pub lives: u32,
    /// but for so many that are zombies after it,
    pub zombies: u32,
    /// and how many that were zombies before are reaped.
    pub reaped: u32,
    run: fn(),
}

/// The turns of `lives`, one for each cue.
pub const TURNS: [Turn; 9] = [
    Turn { what: "waited for", lives: MANY, zombies: 0, reaped: 0, run: waited_for },
    Turn { what: "reaping themselves", lives: MANY, zombies: 0, reaped: 0, run: reaping_themselves },
    // And the parent that leaves them.
    Turn { what: "orphans", lives: MANY + 1, zombies: 0, reaped: 0, run: orphans },
    Turn { what: "a chain", lives: MANY, zombies: 0, reaped: 0, run: chain },
    Turn { what: "of one pid", lives: MANY, zombies: 0, reaped: 0, run: of_one_pid },
    Turn { what: "by posix_spawn", lives: 20, zombies: 0, reaped: 0, run: spawned },
    Turn { what: "threads, which are none", lives: 0, zombies: 0, reaped: 0, run: threads },
    Turn { what: "zombies", lives: ZOMBIES, zombies: ZOMBIES, reaped: 0, run: zombies },
    Turn { what: "zombies reaped", lives: 0, zombies: 0, reaped: ZOMBIES, run: await_no_children },
];

fn lives() -> ! {
    ready();
    for turn in TURNS {
        await_cue();
        (turn.run)();
        println!("done");
    }
    sleep_forever()
}

fn waited_for() {
    (0..MANY).for_each(|_| reap(fork(|| ())));
}

fn reaping_themselves() {
    on_sigchld(libc::SIG_IGN, 0);
    (0..MANY).for_each(|_| _ = fork(|| ()));
    await_no_children();
    on_sigchld(libc::SIG_DFL, 0);
}

fn orphans() {
    until_released(|| reap(fork(|| (0..MANY).for_each(|_| _ = fork(|| ())))));
}

/// Each makes the next and leaves.
fn chain() {
    until_released(|| reap(fork(|| _ = (1..MANY).all(|_| twin().is_none()))));
}

fn of_one_pid() {
    let mut last = getpid();
    for _ in 0..MANY {
        last = fork_with_pid(last, || ());
        reap(last);
    }
}

fn spawned() {
    (0..20).for_each(|_| reap(spawn_step(c"burn")));
}

fn threads() {
    (0..MANY).for_each(|_| std::thread::spawn(|| ()).join().unwrap());
}

fn zombies() {
    (0..ZOMBIES).for_each(|_| await_death(fork(|| ())));
}

/// How many processes sleep, and how often each.
pub const NAPPERS: u32 = 100;
const NAPS: u32 = 40;
const NAP: Duration = Duration::from_micros(100);

/// At the cue, children that nap and are waited for, then orphans that do. Each process, this one too, says by its own
/// getrusage(2) how often it was switched from; the sums are printed: voluntary and not.
fn naps() -> ! {
    ready();
    await_cue();
    let before = switches();
    let (mut said, mut say) = std::io::pipe().unwrap();
    for _ in 0..NAPPERS {
        reap(fork(|| nap(&mut say)));
    }
    for _ in 0..NAPPERS {
        orphan(|| nap(&mut say));
    }
    drop(say);
    let mut sum = sum_of(&mut said);
    let now = switches();
    (0..2).for_each(|kind| sum[kind] += now[kind] - before[kind]);
    println!("{} {}", sum[0], sum[1]);
    sleep_forever()
}

fn nap(say: &mut PipeWriter) {
    (0..NAPS).for_each(|_| std::thread::sleep(NAP));
    say.write_all(switches().map(u64::to_le_bytes).as_flattened()).unwrap();
}

fn sum_of(said: &mut PipeReader) -> [u64; 2] {
    let mut bytes = Vec::new();
    said.read_to_end(&mut bytes).unwrap();
    let numbers: Vec<_> = bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    assert_eq!(numbers.len(), 4 * NAPPERS as usize, "two numbers of each");
    numbers.as_chunks::<2>().0.iter().fold([0, 0], |[a, b], [voluntary, not]| [a + voluntary, b + not])
}

/// How often this process was switched from so far: voluntarily and not.
fn switches() -> [u64; 2] {
    // SAFETY: of this struct, all zeros are a value, and the call writes to it alone.
    let (failed, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), usage)
    };
    assert_eq!(failed, 0, "getrusage");
    [usage.ru_nvcsw, usage.ru_nivcsw].map(|count| count.try_into().unwrap())
}
