//! Workloads of chains: each process is the only child of the last, and waits for its own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Pid;

use crate::parts::{await_cue, burn, ready, reap};

/// Name and function of each whose chains follow one another at once.
pub const CHAINS: [(&str, fn() -> !); 2] =
    [("chains_of_shells", chains_of_shells), ("chains_of_vforks", chains_of_vforks)];

/// The one whose chains come and go at a cue, and say "done".
pub const OUT_OF_ORDER: (&str, fn() -> !) = ("chains_out_of_order", chains_out_of_order);

/// The pid that was given last: the next is the first above it that is free.
pub const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// At a cue a chain of 2,000 comes, and at the next it dies, from the deepest up. Pids wrap within the first, those of the
/// second fall from the root's child to the deepest, as any pids may where they have wrapped.
fn chains_out_of_order() -> ! {
    let mut stacks = vec![[0; STACK]; 2_000];
    let top: usize = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
    let until_cued = || {
        println!("done");
        // When the test has ended, so does the chain.
        let _ = rustix::io::read(std::io::stdin(), &mut [0; 1]);
    };
    let last_pid = |pid: usize| fs::write(LAST_PID, pid.to_string()).unwrap();
    ready();
    loop {
        await_cue();
        last_pid(top - stacks.len() * 3 / 4);
        Chain { stacks: &mut stacks, before: &|_| (), work: LINK, at_the_end: &until_cued }.run();
        println!("done");
        await_cue();
        let falling = |left| last_pid(top - 10_000 + left);
        Chain { stacks: &mut stacks, before: &falling, work: LINK, at_the_end: &until_cued }.run();
        println!("done");
    }
}

/// What each of these uses, besides what it costs to be forked and to exit.
const LINK: Duration = Duration::from_micros(500);

/// Chains of 3,000. Each does some work: of a life without, some percent are in nobody's times, since the kernel charges the parent while
/// the child still leaves its CPU.
fn chains_of_vforks() -> ! {
    let mut stacks = vec![[0; STACK]; 3_000];
    ready();
    loop {
        let work = || burn(Duration::from_millis(10));
        Chain { stacks: &mut stacks, before: &|_| (), work: LINK, at_the_end: &work }.run();
    }
}

/// Chains of 1,500 shells, each of which starts the next.
fn chains_of_shells() -> ! {
    const CHAIN: &str = "[ $1 = 0 ] || sh -c \"$0\" \"$0\" $(($1 - 1)); :";
    const ALL: &str = "while :; do sh -c \"$0\" \"$0\" 1500; done";
    ready();
    panic!("{}", Command::new("sh").args(["-c", ALL, CHAIN]).exec())
}

/// What each process of a chain has as its stack.
const STACK: usize = 16 << 10;

/// A chain of processes that share the root's memory: each sleeps in vfork(2) until its child is gone. With fork(2) it takes
/// minutes, since the kernel remembers for each piece of memory in whom it may be.
struct Chain<'a> {
    /// One for each process.
    stacks: &'a mut [[u8; STACK]],
    /// What is done before each fork; it is told how many are to come.
    before: &'a dyn Fn(usize),
    /// How much CPU each process uses before it forks.
    work: Duration,
    /// What the deepest does.
    at_the_end: &'a dyn Fn(),
}

impl Chain<'_> {
    /// Forks the first, and waits for it.
    fn run(&mut self) {
        extern "C" fn life(chain: *mut libc::c_void) -> libc::c_int {
            // SAFETY: it is the argument below, and who made it sleeps until this process is gone.
            let chain = unsafe { &mut *chain.cast::<Chain>() };
            burn(chain.work);
            chain.run();
            0
        }
        let Some((stack, others)) = self.stacks.split_last_mut() else { return (self.at_the_end)() };
        (self.before)(others.len());
        let mut rest = Chain { stacks: others, ..*self };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the child has a stack of its own, and this process sleeps until it is gone.
        let pid = unsafe { libc::clone(life, stack.as_mut_ptr_range().end.cast(), flags, (&raw mut rest).cast()) };
        assert_ne!(pid, -1, "vfork: {}", std::io::Error::last_os_error());
        reap(Pid::from_raw(pid).unwrap());
    }
}
