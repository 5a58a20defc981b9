//! The three clocks of clock_gettime(2) that accounting needs.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the clocks; a trait so that tests can set the time.
pub trait Clock {
    /// CLOCK_REALTIME, ns since the epoch: what lines are stamped with.
    fn realtime(&self) -> u64;
    /// CLOCK_MONOTONIC, ns: what intervals are measured with.
    fn monotonic(&self) -> u64;
    /// CLOCK_BOOTTIME, ns since boot: what field 22 of `/proc/<pid>/stat` is compared with (Linux 2.6.39).
    fn boottime(&self) -> u64;
}

/// The clocks of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn realtime(&self) -> u64 {
        nanoseconds(ClockId::Realtime)
    }

    fn monotonic(&self) -> u64 {
        nanoseconds(ClockId::Monotonic)
    }

    fn boottime(&self) -> u64 {
        nanoseconds(ClockId::Boottime)
    }
}

pub(super) fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // A wall clock before 1970 is negative: it is taken as 1970.
    u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000) + u64::try_from(now.tv_nsec).unwrap_or(0)
}
