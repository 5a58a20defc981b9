//! kernel.task_delayacct: the switch that has to be on for the kernel to count delays.

use procfs::KernelVersion;
use serde::{Deserialize, Serialize};

use super::Look;
use crate::kernel::stat::TICK;
use crate::log::{Level, Trouble, say};

/// Part of the delays that the kernel counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DelayAccounting {
    /// Every delay, of processes that started after the switch was last seen to be off.
    On {
        /// Time at which it was last off, ticks since boot; 0 if it never was.
        since: u64,
    },
    /// Only waiting for a CPU: not for block I/O, swapping, reclaim and the like.
    Off,
    /// No delay at all: the kernel is built without delay accounting.
    Absent,
}

/// First kernel that has the switch, and has it off by default.
const SWITCH_SINCE: KernelVersion = KernelVersion { major: 5, minor: 14, patch: 0 };

const OFF: &str = "blkio, swapin, freepages, thrashing, compact, wpcopy and irq of taskstat and blkio_delay of thread are left \
                   out, since kernel.task_delayacct is 0: run as root: sysctl kernel.task_delayacct=1, then restart what is \
                   watched; what was started before is not counted";

const ABSENT: &str = "Delays are left out, since there is no kernel.task_delayacct: the kernel is built without \
                      CONFIG_TASK_DELAY_ACCT, or /proc/sys is not to be seen here";

impl Default for DelayAccounting {
    fn default() -> Self {
        Self::On { since: 0 }
    }
}

impl DelayAccounting {
    /// Returns the part that is counted of a process that started at a time, ticks since boot.
    #[must_use]
    pub fn of(self, start: u64) -> Self {
        match self {
            Self::On { since } if start < since => Self::Off,
            other => other,
        }
    }

    /// Reads the switch and returns the new state; reports what is left out because of it.
    pub(super) fn look(self, look: &mut Look) -> Self {
        match look.proc.delay_accounting() {
            Ok(Some(true)) if matches!(self, Self::On { .. }) => self,
            Ok(Some(true)) if self == Self::Absent => Self::default(),
            Ok(Some(true)) => {
                let rest = "delays of what was started before are left out until it is restarted";
                say(Level::Info, &format!("kernel.task_delayacct is on now: {rest}"));
                let [_, previous, _] = look.processes.listings();
                Self::On { since: previous.unwrap_or(0) / TICK }
            }
            Ok(Some(false)) => {
                look.complaints.add(Trouble::Absent, OFF.to_owned()); // the default of every host
                Self::Off
            }
            Ok(None) if kernel_version().is_some_and(|version| version >= SWITCH_SINCE) => {
                look.complaints.add(Trouble::Failed, ABSENT.to_owned());
                Self::Absent
            }
            Ok(None) => Self::default(),
            Err(error) => {
                look.complaints.add(Trouble::of(&error), format!("kernel.task_delayacct cannot be read: {error}"));
                self
            }
        }
    }

    /// Returns whether the kernel counts a field of taskstat or thread.
    #[must_use]
    pub(super) fn counts(self, field: &str) -> bool {
        match self {
            Self::On { .. } => true,
            Self::Off => matches!(field, "cpu_count" | "cpu_delay_total" | "nvcsw" | "nivcsw"),
            Self::Absent => matches!(field, "nvcsw" | "nivcsw"),
        }
    }
}

/// Version of the running kernel (uname(2)).
fn kernel_version() -> Option<KernelVersion> {
    rustix::system::uname().release().to_string_lossy().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_started_before_it_was_seen_to_be_on_is_not_counted() {
        use DelayAccounting::{Absent, Off, On};
        let cases = [
            (On { since: 0 }, [true; 3]),
            (On { since: 100 }, [true, true, false]),
            (Off, [true, true, false]),
            (Absent, [true, false, false]),
        ];
        for (delays, expected) in cases {
            let counts = ["nvcsw", "cpu_delay_total", "blkio_delay_total"].map(|field| delays.of(99).counts(field));
            assert_eq!(counts, expected, "{delays:?}");
        }
        assert!(On { since: 100 }.of(100).counts("blkio_delay"));
    }
}
