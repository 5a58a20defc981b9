//! Figures of rounds, and what is made of them.

use std::time::Duration;

/// One measured thing, once per round.
pub struct Series {
    pub what: &'static str,
    /// µs.
    costs: Vec<f64>,
}

impl Series {
    pub fn new(what: &'static str) -> Self {
        Self { what, costs: Vec::new() }
    }

    pub fn push(&mut self, cost: Duration) {
        self.costs.push(cost.as_secs_f64() * 1e6);
    }

    pub fn is_empty(&self) -> bool {
        self.costs.is_empty()
    }

    /// The smallest, the median and the largest.
    pub fn spread(&self) -> [f64; 3] {
        spread(self.costs.iter().copied())
    }

    pub fn median(&self) -> f64 {
        let [_, median, _] = self.spread();
        median
    }

    /// The median of the rounds' ratios: what slows a round down slows both of its costs.
    pub fn ratio_to(&self, base: &Self) -> f64 {
        self.median_with(base, |cost, base| cost / base)
    }

    /// The median of what the rounds cost more than those of another.
    pub fn more_than(&self, base: &Self) -> f64 {
        self.median_with(base, |cost, base| cost - base)
    }

    fn median_with(&self, base: &Self, compare: impl Fn(f64, f64) -> f64) -> f64 {
        let [_, median, _] = spread(self.costs.iter().zip(&base.costs).map(|(cost, base)| compare(*cost, *base)));
        median
    }
}

fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    [0, last / 2, last].map(|at| values.get(at).copied().unwrap_or(f64::NAN))
}
