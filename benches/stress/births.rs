//! Births in a cgroup, counted by the kernel: the tracepoint `task:task_newtask` by perf_event_open(2), one counter for each CPU.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::ioctl::opcode;

/// linux/sched.h: `!CLONE_THREAD`.
const PROCESSES_ONLY: &std::ffi::CStr = c"!(clone_flags & 65536)";

/// linux/perf_event.h: `PERF_TYPE_TRACEPOINT` and `PERF_FLAG_PID_CGROUP`.
const TRACEPOINT: u32 = 2;
const IN_A_CGROUP: libc::c_ulong = 4;

/// The number of a tracepoint, as tracefs tells it.
pub struct Tracepoint(u64);

impl Tracepoint {
    pub fn of_births() -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let is_tracefs = |mount: &&str| mount.split(' ').nth(2) == Some("tracefs");
        let mount = mounts.lines().find(is_tracefs).and_then(|mount| mount.split(' ').nth(1));
        let mount = mount.context("no tracefs is mounted: mount -t tracefs tracefs /sys/kernel/tracing")?;
        let path = Path::new(mount).join("events/task/task_newtask/id");
        let id = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Self(id.trim_end().parse()?))
    }
}

/// The first version of the `perf_event_attr` of linux/perf_event.h, which is all that counting takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    unused: [u64; 6],
}

/// Counts the processes that are born in a cgroup.
pub struct Births(Vec<File>);

impl Births {
    pub fn begin(tracepoint: &Tracepoint, cgroup: &Path) -> Result<Self> {
        let cgroup = File::open(cgroup)?;
        // SAFETY: asks for a number.
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        let size = u32::try_from(size_of::<Attributes>())?;
        let attributes = Attributes { kind: TRACEPOINT, size, config: tracepoint.0, ..Attributes::default() };
        let mut counters = Vec::new();
        for cpu in 0..libc::c_int::try_from(cpus)? {
            let (cgroup, any_group) = (cgroup.as_raw_fd(), -1);
            // SAFETY: the struct outlives the call, and has the size that it says.
            let counter = unsafe {
                libc::syscall(libc::SYS_perf_event_open, &raw const attributes, cgroup, cpu, any_group, IN_A_CGROUP)
            };
            let error = std::io::Error::last_os_error();
            if counter < 0 && error.raw_os_error() == Some(libc::ENODEV) {
                continue; // a CPU that is off
            }
            ensure!(counter >= 0, "perf_event_open: {error}");
            // SAFETY: the descriptor is new, and nobody else's.
            let counter = unsafe { File::from_raw_fd(counter.try_into()?) };
            let request = opcode::write::<*const libc::c_char>(b'$', 6); // PERF_EVENT_IOC_SET_FILTER
            // SAFETY: the text ends with NUL and outlives the call.
            let failed = unsafe { libc::ioctl(counter.as_raw_fd(), request.into(), PROCESSES_ONLY.as_ptr()) };
            ensure!(failed == 0, "a filter of births: {}", std::io::Error::last_os_error());
            counters.push(counter);
        }
        Ok(Self(counters))
    }

    pub fn count(&mut self) -> Result<u64> {
        let mut sum = 0;
        for counter in &mut self.0 {
            let mut number = [0; 8];
            counter.read_exact(&mut number)?;
            sum += u64::from_ne_bytes(number);
        }
        Ok(sum)
    }
}
