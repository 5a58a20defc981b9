//! What came of a stressor, and why it is not what it should be.

use crate::watcher::Way;

/// What may be missing or too much: this share of what was charged, and so many seconds.
pub const SHARE: f64 = 0.01;
pub const SECONDS: f64 = 0.02;

/// The least CPU, in seconds, at which a stressor counts: of less, [`SECONDS`] would be much.
pub const LEAST: f64 = 0.2;

/// All CPU is in seconds.
pub struct Outcome {
    pub name: String,
    /// The exit status of stress-ng.
    pub status: String,
    /// By the cgroup.
    pub charged: f64,
    /// By the kernel's accounts: of the supervisor and of all that it, or who it waited for, waited for,
    pub reaped: f64,
    /// and of what was left to init.
    pub orphans: f64,
    /// The processes born, by the kernel's count.
    pub born: Option<u64>,
    pub seen: Vec<Seen>,
}

/// What was reported, watched in one way.
pub struct Seen {
    pub way: Way,
    pub reported: f64,
    pub started: Option<f64>,
    /// How often events were lost.
    pub lost: f64,
    /// Whether a counter fell.
    pub fell: bool,
}

impl Outcome {
    pub fn is_busy(&self) -> bool {
        self.charged >= LEAST
    }

    pub fn seen_by(&self, way: Way) -> Option<&Seen> {
        self.seen.iter().find(|seen| seen.way == way)
    }

    pub fn is_within(&self, seen: &Seen) -> bool {
        !seen.fell && self.is_about(seen.reported, self.charged)
    }

    /// Whether the births that were reported are those that the kernel counted; none where either is not known.
    pub fn counts_births(&self, seen: &Seen) -> Option<bool> {
        Some(seen.started? == self.born? as f64)
    }

    fn is_about(&self, one: f64, other: f64) -> bool {
        (one - other).abs() <= self.bound()
    }

    fn bound(&self) -> f64 {
        self.charged * SHARE + SECONDS
    }

    pub fn percent(&self, cpu: f64) -> String {
        format!("{:.1} %", cpu / self.charged * 100.0)
    }

    /// Why it is not within the bounds, as far as that is known.
    pub fn reason(&self, seen: &Seen) -> String {
        let mut reasons = Vec::new();
        let by_the_kernel = self.reaped + self.orphans;
        let is_low = seen.reported < self.charged;
        if seen.fell {
            reasons.push("a counter fell".to_owned());
        }
        if is_low && self.is_about(seen.reported, by_the_kernel) {
            reasons.push("the kernel's own accounts have no more".to_owned());
        } else if is_low && self.charged - seen.reported - self.orphans <= self.bound() {
            reasons.push(match seen.way {
                Way::Events => self.missing_of_each_birth(seen),
                Way::Scan | Way::Ordinary => "what was left to init ended between two gathers".to_owned(),
            });
        }
        if seen.lost > 0.0 {
            reasons.push(format!("events were lost {} times", seen.lost));
        }
        if reasons.is_empty() {
            reasons.push("not known".to_owned());
        }
        // By a signal: it ends by itself otherwise.
        if self.status == "-1" {
            reasons.push("killed, since it did not end".to_owned());
        }
        reasons.join("; ")
    }

    /// A record has no more than what a process had used at its last tick or switch. For those that are waited for there are the
    /// parent's times too; for those left to init there is nothing else.
    fn missing_of_each_birth(&self, seen: &Seen) -> String {
        let mut reason = "records of those left to init lack what came after their last tick or switch".to_owned();
        if let Some(born @ 1..) = self.born {
            let missing = (self.charged - seen.reported) / born as f64;
            reason += &format!(": {:.0} µs of each birth", missing * 1e6);
        }
        reason
    }

    /// For who watches the benchmark.
    pub fn in_a_line(&self) -> String {
        let births = self.born.map_or("births not counted".to_owned(), |born| format!("{born} births"));
        let mut line = format!(
            ": status {}, {:.3} s charged, {births}; the kernel's own {}, and {} left to init",
            self.status,
            self.charged,
            self.percent(self.reaped),
            self.percent(self.orphans)
        );
        for seen in &self.seen {
            line += &format!("; {}: {}", seen.way.title(), self.percent(seen.reported));
            if let Some(started) = seen.started {
                line += &format!(", {started} started");
            }
            if seen.lost > 0.0 {
                line += &format!(", events lost {} times", seen.lost);
            }
            if self.is_busy() && !self.is_within(seen) {
                line += &format!(" *** {}", self.reason(seen));
            }
        }
        line
    }
}
