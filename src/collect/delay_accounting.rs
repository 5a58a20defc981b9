//! kernel.task_delayacct: what has to be on for the kernel to count what is waited for.

use serde::{Deserialize, Serialize};

use super::Look;
use crate::kernel::stat::TICK;
use crate::log::{Level, Trouble, say};

/// How much the kernel counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DelayAccounting {
    /// Everything, of what was started after it was seen to be off for the last time.
    On {
        /// When that was, ticks since boot; 0: it never was.
        since: u64,
    },
    /// No waiting for block I/O, swapping, reclaim and the like.
    Off,
    /// No waiting at all: it is built without.
    Absent,
}

/// The first kernel with the switch, and with everything off.
const SWITCH_SINCE: (u32, u32) = (5, 14);

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
    /// How much the kernel counts of what was started at a time, ticks since boot.
    #[must_use]
    pub fn of(self, start: u64) -> Self {
        match self {
            Self::On { since } if start < since => Self::Off,
            other => other,
        }
    }

    /// What it is now, and what to say of it.
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
                look.complaints.add(Trouble::Absent, OFF.to_owned()); // as it is on every host that nobody has changed
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

    /// Whether a field of taskstat or thread is counted.
    #[must_use]
    pub(super) fn counts(self, field: &str) -> bool {
        match self {
            Self::On { .. } => true,
            Self::Off => matches!(field, "cpu_count" | "cpu_delay_total" | "nvcsw" | "nivcsw"),
            Self::Absent => matches!(field, "nvcsw" | "nivcsw"),
        }
    }
}

/// Major and minor version of the running kernel.
fn kernel_version() -> Option<(u32, u32)> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
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
