//! `interval`: gathers at a fixed pace, without a newline or signal.

use std::time::{Duration, Instant};

/// Ticks at a fixed distance. Ticks that passed while nothing waited for them are left out.
#[derive(Debug)]
pub(super) struct Interval {
    period: Duration,
    next: Instant,
}

impl Interval {
    /// Makes an interval whose first tick comes after another time than the later ones.
    pub(super) fn new(period: Duration, first: Duration) -> Self {
        Self { period, next: Instant::now() + first }
    }

    /// Time between two ticks.
    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// Time of the next tick.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Returns whether a tick has come since the last call that returned true.
    pub(super) fn ticks(&mut self, now: Instant) -> bool {
        let Some(late) = now.checked_duration_since(self.next) else { return false };
        let beat = late.as_nanos() % self.period.as_nanos().max(1);
        self.next = now + self.period - Duration::from_nanos_u128(beat);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_that_nothing_has_waited_for_ticks_once_and_keeps_its_beat() {
        let begun = Instant::now();
        let at = |tenths: u32| begun + tenths * Duration::from_millis(100);
        let mut interval = Interval { period: Duration::from_secs(1), next: at(10) };
        // Time of the call, whether a tick has come, time of the next tick.
        let cases = [(0, false, 10), (9, false, 10), (10, true, 20), (11, false, 20), (57, true, 60), (70, true, 80)];
        for (asked, ticked, next) in cases {
            assert_eq!((interval.ticks(at(asked)), interval.next()), (ticked, at(next)), "asked at {asked}");
        }
    }
}
