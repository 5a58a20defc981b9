//! The processes above a stressor: its supervisor, which is the root that is watched, and an init for orphans.
//!
//! The supervisor lives in the cgroup. It waits for a first cue before it starts the stressor, and is there until a second one, so that
//! the stressor's life lies between two gathers. Both say what the kernel's own accounts have of all that they waited for:
//! getrusage(2), `RUSAGE_CHILDREN`.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, Signal, WaitOptions, getpid};

/// The user and group of stressors. It is not the ordinary user that watches them, and nobody else's.
pub const USER: u32 = 65533;

/// The most processes and threads that a stressor may have, so that pids are left for the host: there are 32,768 by default.
const PROCESSES: u64 = 12_000;

/// Runs the init, which reaps what is left to it until the supervisor is gone.
pub fn run(cgroup: &str, program: &str, arguments: &[String]) -> Result<()> {
    end_with_the_parent()?;
    rustix::process::set_child_subreaper(Some(getpid()))?;
    // SAFETY: there is one thread, so that the child may go on as its parent would.
    let supervisor = match unsafe { libc::fork() } {
        0 => std::process::exit(supervise(cgroup, program, arguments).map_or(1, |()| 0)),
        pid => pid,
    };
    ensure!(supervisor > 0, "fork: {}", std::io::Error::last_os_error());
    while rustix::process::wait(WaitOptions::empty())?.is_some_and(|(pid, _)| pid.as_raw_nonzero().get() != supervisor)
    {
    }
    println!("{}", usage(libc::RUSAGE_CHILDREN)?);
    Ok(())
}

fn supervise(cgroup: &str, program: &str, arguments: &[String]) -> Result<()> {
    end_with_the_parent()?;
    std::fs::write(format!("{cgroup}/cgroup.procs"), "0").context(cgroup.to_owned())?; // "0" is the writer
    println!("{}", getpid());
    let before = usage(libc::RUSAGE_SELF)?;
    await_cue()?;
    let mut command = Command::new(program);
    command.args(arguments).uid(USER).gid(USER).stdin(Stdio::null());
    // SAFETY: the closure, which runs between fork and exec, makes two system calls and nothing else.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            let limit = Some(PROCESSES);
            Ok(rustix::process::setrlimit(Resource::Nproc, Rlimit { current: limit, maximum: limit })?)
        });
    }
    println!("{}", command.status()?.code().unwrap_or(-1));
    await_cue()?;
    println!("{before} {} {}", usage(libc::RUSAGE_SELF)?, usage(libc::RUSAGE_CHILDREN)?);
    Ok(())
}

/// Sleeps until the benchmark gives the next cue, and ends if the benchmark has.
fn await_cue() -> Result<()> {
    ensure!(rustix::io::read(std::io::stdin(), &mut [0; 1])? == 1, "the benchmark has ended");
    Ok(())
}

fn end_with_the_parent() -> Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// CPU by getrusage(2), in seconds.
fn usage(whose: libc::c_int) -> Result<f64> {
    // SAFETY: of this struct, all zeros are a value, and the call writes to it alone.
    let (failed, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(whose, &raw mut usage), usage)
    };
    ensure!(failed == 0, "getrusage: {}", std::io::Error::last_os_error());
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime))
}
