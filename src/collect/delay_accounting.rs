//! kernel.task_delayacct: what has to be on for the kernel to count what is waited for.

use super::Look;
use crate::log::{Level, Trouble, say};

/// How much the kernel counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DelayAccounting {
    /// Everything, for what was started since it does.
    #[default]
    On,
    /// No waiting for block I/O, swapping, reclaim and the like.
    Off,
    /// No waiting at all: it is built without.
    Absent,
}

/// The first kernel with the switch, and with everything off.
const SWITCH_SINCE: (u32, u32) = (5, 14);

const OFF: &str = "Delays by block I/O, swapping, reclaim and the like are left out, since kernel.task_delayacct is 0: sysctl \
                   kernel.task_delayacct=1, then restart what is watched; what was started before is not counted";

const ABSENT: &str = "Delays are left out, since there is no kernel.task_delayacct: the kernel is built without \
                      CONFIG_TASK_DELAY_ACCT, or /proc/sys is not to be seen here";

impl DelayAccounting {
    /// What it is now, and what to say of it.
    pub(super) fn look(self, look: &mut Look) -> Self {
        match look.proc.delay_accounting() {
            Ok(Some(true)) => {
                if self == Self::Off {
                    let rest = "what was started before is not counted until it is restarted";
                    say(Level::Info, &format!("kernel.task_delayacct is on now: {rest}"));
                }
                Self::On
            }
            Ok(Some(false)) => {
                look.complaints.add(Trouble::Denied, OFF.to_owned());
                Self::Off
            }
            Ok(None) if kernel_version().is_some_and(|version| version >= SWITCH_SINCE) => {
                look.complaints.add(Trouble::Failed, ABSENT.to_owned());
                Self::Absent
            }
            Ok(None) => Self::On,
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
            Self::On => true,
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
