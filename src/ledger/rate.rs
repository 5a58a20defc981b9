//! Rates: the growth of a counter between two lines, divided by the time between them.

use serde::{Deserialize, Serialize};

/// Returns `part` ÷ `of`. `of` must not be 0.
#[must_use]
#[allow(clippy::cast_precision_loss)] // below 2^53: ns of an interval are so for 104 days, bytes for ever
pub fn share(part: u64, of: u64) -> f64 {
    part as f64 / of as f64
}

/// Rate of a counter between two lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Counter and CLOCK_MONOTONIC (ns) at the last line.
    base: Option<(u64, u64)>,
}

impl Rate {
    /// Shortest interval that gives a rate, ns: for a shorter one, the ticks of /proc are too coarse.
    pub const SHORTEST: u64 = 100_000_000;

    /// Returns a rate whose first interval began with the counter at 0. `at` is CLOCK_MONOTONIC, ns.
    #[must_use]
    pub fn since(at: u64) -> Self {
        Self { base: Some((0, at)) }
    }

    /// Returns the growth of the counter per ns since the last line, and the ns since then; the counter is the new base. Less than
    /// [`Rate::SHORTEST`] after the last line it returns `None`, and the base stays.
    pub fn next(&mut self, counter: u64, at: u64) -> Option<(f64, u64)> {
        let (before, since) = self.base?;
        let elapsed = at.checked_sub(since).filter(|elapsed| *elapsed >= Self::SHORTEST)?;
        self.base = Some((counter, at));
        Some((share(counter.checked_sub(before)?, elapsed), elapsed))
    }

    /// Begins the first interval, unless there is one already.
    pub fn begin(&mut self, counter: u64, at: u64) {
        self.base.get_or_insert((counter, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_rate_needs_a_base_and_an_interval() {
        let mut rate = Rate::default();
        assert_eq!(rate.next(5, 0), None);
        rate.begin(0, 0);
        rate.begin(400, 50);
        assert_eq!(rate.next(50 * MS, 99 * MS), None, "too short: the base stays");
        assert_eq!(rate.next(50 * MS, 100 * MS), Some((0.5, 100 * MS)));
        assert_eq!(rate.next(50 * MS, 300 * MS), Some((0.0, 200 * MS)));
        assert_eq!(Rate::since(0).next(300 * MS, 100 * MS), Some((3.0, 100 * MS)));
    }
}
