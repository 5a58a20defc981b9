//! Resources that this process itself uses.

use std::io;

use rustix::time::ClockId;

use super::clock::nanoseconds;
use super::stat::decimal;

/// CPU of all its threads since its start, ns (CLOCK_PROCESS_CPUTIME_ID).
#[must_use]
pub fn cpu_time() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

/// Resident memory, bytes: the second number of `/proc/self/statm`.
///
/// # Errors
/// The file cannot be read, since no /proc is mounted.
pub fn rss() -> io::Result<u64> {
    let text = std::fs::read("/proc/self/statm")?;
    let pages = text.split(u8::is_ascii_whitespace).nth(1).and_then(decimal);
    let bytes = pages.and_then(|pages| pages.checked_mul(rustix::param::page_size() as u64));
    bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/self/statm has no second number"))
}

/// Has memory that is freed given back to the kernel at once, if it was a large piece: a gather needs some megabytes for a moment,
/// and what glibc keeps of them would only grow. Other C libraries do so by themselves.
pub fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Larger pieces are mapped each by itself; naming a number also stops glibc from raising it.
        const LARGE: libc::c_int = 32 * 1024;
        #[allow(unsafe_code)]
        // SAFETY: it sets two numbers of the allocator, before there is another thread.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}

/// Gives back whatever is free now, in small pieces too, so far as these are whole pages together: glibc keeps them otherwise.
pub fn give_all_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: it touches nothing but what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_uses_something() {
        let (cpu, rss) = (cpu_time(), rss().unwrap());
        let status = ::procfs::process::Process::myself().unwrap().status().unwrap();
        let high = status.vmhwm.unwrap() * 1024; // it may have been more since, and never more than this
        assert!(cpu > 0 && rss > 0 && rss <= high, "{cpu} ns, {rss} of {high} bytes");
    }
}
