//! What the workloads are made of.

use std::ffi::CStr;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::{null, null_mut};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, wait, waitid, waitpid};
use rustix::time::{ClockId, clock_gettime};

/// What most short lives last.
pub const SHORT: Duration = Duration::from_millis(5);

/// Tells the test that the workload is what its name says: from now on it may be measured.
pub fn ready() {
    println!("ready");
}

/// Whether the test has given the next cue, a newline on stdin: it does so after every gather it measures from.
/// Takes it, so that only one process of the tree acts on it.
pub fn cued() -> bool {
    let stdin = std::io::stdin();
    rustix::io::ioctl_fionread(&stdin).unwrap() > 0 && rustix::io::read(&stdin, &mut [0; 1]).unwrap() > 0
}

/// Sleeps until the test gives the next cue; for ever when the test has ended.
pub fn await_cue() {
    if rustix::io::read(std::io::stdin(), &mut [0; 1]).unwrap() == 0 {
        sleep_forever();
    }
}

/// Uses CPU until this thread has used as much more.
pub fn burn(cpu: Duration) {
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let until = used() + cpu;
    while used() < until {
        (0..1000).for_each(|i| _ = std::hint::black_box(i)); // user time, not the clock's system time alone
    }
}

pub fn burn_until_cued() {
    while !cued() {
        burn(SHORT);
    }
}

pub fn burn_forever() -> ! {
    loop {
        burn(SHORT);
    }
}

pub fn sleep_forever() -> ! {
    loop {
        std::thread::park();
    }
}

pub fn waited_children(cpu: Duration) -> ! {
    loop {
        reap(fork(|| burn(cpu)));
    }
}

/// Forks a child that runs `life` and exits.
pub fn fork(life: impl FnOnce()) -> Pid {
    twin().unwrap_or_else(|| {
        life();
        std::process::exit(0)
    })
}

/// The same, with the pid that `last` had, if that can be.
pub fn fork_with_pid(last: Pid, life: impl FnOnce()) -> Pid {
    twin_with_pid(last).unwrap_or_else(|| {
        life();
        std::process::exit(0)
    })
}

/// Forks a child, which goes on from here too: to it, there is no pid.
pub fn twin() -> Option<Pid> {
    // SAFETY: only called while the process has one thread, so the child finds nothing locked or half done.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        pid => Pid::from_raw(pid),
    }
}

/// Like [`twin`], but the child has the pid that `last` had, which must be gone: what otherwise takes as many forks as there
/// are pids. If somebody else has it by now, or this may not be done here, it is any other.
pub fn twin_with_pid(last: Pid) -> Option<Pid> {
    let pid = last.as_raw_nonzero().get();
    // SAFETY: of this struct, all zeros are a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    (arguments.set_tid, arguments.set_tid_size) = ((&raw const pid).addr() as u64, 1);
    // SAFETY: as in `twin`, with the same stack; the structs outlive the call.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) } {
        -1 => twin(),
        pid => Pid::from_raw(pid.try_into().unwrap()),
    }
}

/// Runs `life` in a process whose parent leaves at once, so that its adopter reaps it, and waits until it is dying.
pub fn orphan(life: impl FnOnce()) {
    until_released(|| reap(fork(|| _ = fork(life))));
}

/// Does what makes processes, and waits until all of them have closed their files, as a process does when it dies.
pub fn until_released(make: impl FnOnce()) {
    let (mut held, holder) = std::io::pipe().unwrap();
    make();
    drop(holder);
    held.read_to_end(&mut Vec::new()).unwrap();
}

/// Runs `life` in a child of a process that has none that it must reap, and waits until it is gone.
pub fn auto_reaped(life: impl FnOnce()) {
    fork(life);
    await_no_children();
}

/// Waits until this process has no children, dead or alive.
pub fn await_no_children() {
    while wait(WaitOptions::empty()).is_ok() {}
}

/// What this process does about SIGCHLD: `handler` is SIG_DFL or SIG_IGN. Its children begin with the same.
pub fn on_sigchld(handler: libc::sighandler_t, flags: libc::c_int) {
    // SAFETY: of this struct, all zeros are a value: no flags and an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    // SAFETY: no function of ours becomes a handler, and the struct outlives the call.
    let failed = unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, null_mut()) };
    assert_eq!(failed, 0, "sigaction");
}

/// Ends the leader, which must be the caller; its process goes on with the other threads.
pub fn leave_to_the_others() -> ! {
    // SAFETY: ends this thread alone, with no unwinding. Nobody joins it, and what lies on its stack is never freed.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the leader thread has exited");
}

pub fn reap(child: Pid) {
    waitpid(Some(child), WaitOptions::empty()).unwrap();
}

/// Waits for `child`. Returns what the kernel says it used, in seconds.
pub fn reap_with_usage(child: Pid) -> f64 {
    // SAFETY: of this struct, all zeros are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct outlives the call.
    let reaped = unsafe { libc::wait4(child.as_raw_nonzero().get(), null_mut(), 0, &raw mut usage) };
    assert_eq!(reaped, child.as_raw_nonzero().get());
    [usage.ru_utime, usage.ru_stime].iter().map(|time| time.tv_sec as f64 + time.tv_usec as f64 / 1e6).sum()
}

/// Waits until `child` is dead, and leaves it a zombie.
pub fn await_death(child: Pid) {
    waitid(WaitId::Pid(child), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
}

pub fn await_stop(child: Pid) {
    waitpid(Some(child), WaitOptions::UNTRACED).unwrap();
}

/// Replaces the process by one step of this executable.
pub fn become_step(name: &str) -> ! {
    panic!("{}", Command::new("/proc/self/exe").args(["step", name]).exec())
}

/// Runs one step of this executable as a child. Written out, since whether `Command` uses posix_spawn is its
/// own affair.
pub fn spawn_step(name: &CStr) -> Pid {
    let arguments = [c"truth", c"step", name].map(|argument| argument.as_ptr().cast_mut());
    let argv = [arguments[0], arguments[1], arguments[2], null_mut()];
    let environment = [null_mut()];
    let (mut pid, exe) = (0, c"/proc/self/exe".as_ptr());
    // SAFETY: the strings end with NUL, the arrays with NULL, and all outlive the call.
    let error = unsafe { libc::posix_spawn(&mut pid, exe, null(), null(), argv.as_ptr(), environment.as_ptr()) };
    assert_eq!(error, 0, "posix_spawn");
    Pid::from_raw(pid).unwrap()
}
