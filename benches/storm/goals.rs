//! What was to be reached, and what was.

use std::fmt;

use crate::stormers::PARENTS;
use crate::watch::{Reading, Watch};

/// One line each, in the end.
#[derive(Default)]
pub struct Goals(Vec<String>);

impl Goals {
    /// A goal, by what was measured in `unit`; nothing if the plugin does not tell it.
    pub fn add(&mut self, unit: &str, measured: Option<f64>, what: &str, is_met: impl Fn(f64) -> bool) {
        let met = if measured.is_some_and(is_met) { "met" } else { "missed" };
        let measured = or_unknown(measured);
        self.0.push(format!("{met} ({}): {what}", format!("{measured} {unit}").trim_end()));
    }

    pub fn not_measured(&mut self, what: &str, error: &anyhow::Error) {
        self.0.push(format!("not measured: {what} ({error:#})"));
    }

    /// That the plugin was told of births and exits, without which the rest says little.
    pub fn told(&mut self, watch: &Watch) {
        let accounting = watch.accounting();
        let met = if accounting == "events" { "met" } else { "missed" };
        let line = format!("{met} (accounting={accounting}): it is told of births and exits");
        if !self.0.contains(&line) {
            self.0.push(line);
        }
    }

    /// What was reported, of what was charged: each gather lies between two readings of the latter.
    pub fn truth(&mut self, first: &Reading, last: &Reading, phase: &str, [least, most]: [f64; 2]) {
        let (low, high) = last.charged_since(first);
        let reported = last.cpu_time - first.cpu_time;
        let share = reported / f64::midpoint(low, high);
        println!("{reported:.3} s of CPU reported, {:.1} % of {low:.3} to {high:.3} s charged", share * 100.0);
        let what = format!("of the CPU of a {phase}, {least} to {most} is reported");
        let is_met = (low * least - 0.02..=high * most + 0.02).contains(&reported);
        self.add("", Some(share), &what, |_| is_met);
    }

    /// Every birth is counted, and every exit.
    pub fn counts(&mut self, first: &Reading, last: &Reading, phase: &str) {
        // Each may be in the middle of one that it has not counted yet.
        let slack = (2 * PARENTS) as f64;
        let (low, high) = last.forks_between(first);
        let (low, high) = (low - slack, high + slack);
        println!("{low} to {high} forks, {} started, {} exited", last.started_since(first), last.exited_since(first));
        let what = format!("all births of a {phase} are counted: {low} to {high}");
        self.add("", Some(last.started_since(first)), &what, |count| (low..=high).contains(&count));
        // A zombie may count as alive or not.
        let missing = last.started_since(first) - last.exited_since(first) - (last.alive - first.alive);
        let what = format!("who was born in a {phase} and has not died is alive, but for {slack}");
        self.add("missing", Some(missing), &what, |missing| missing.abs() <= slack);
    }
}

impl fmt::Display for Goals {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

pub fn or_unknown(number: Option<f64>) -> String {
    number.map_or("not told".to_owned(), |number| format!("{}", (number * 1e4).round() / 1e4))
}
