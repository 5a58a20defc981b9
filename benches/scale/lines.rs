//! What is sent: the lines of one gather, as Telegraf writes them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use influxdb_line_protocol::parse_lines;

use crate::delay_accounting::DelayAccounting;
use crate::measured;
use crate::services::Services;
use crate::telegraf::{Measured, Telegraf};

const INTERVAL: u64 = 5;

/// The last line of each series.
pub struct Lines {
    pub what: &'static str,
    pub services: usize,
    pub lines: Vec<String>,
}

impl Lines {
    pub fn bytes(&self) -> usize {
        self.lines.iter().map(|line| line.len() + 1).sum()
    }

    /// Fields of all lines: what a database of the kind of Prometheus calls series.
    pub fn values(&self) -> usize {
        self.lines.iter().map(|line| fields(line)).sum()
    }

    /// What falls to each.
    pub fn per_service(&self, number: usize) -> f64 {
        number as f64 / self.services as f64
    }
}

/// How many fields a line has. Telegraf wrote it: it can be read.
pub fn fields(line: &str) -> usize {
    parse_lines(line).flatten().map(|line| line.field_set.len()).sum()
}

/// All contenders at once; three gathers, of which the last counts: some fields come with the second.
pub fn measure(services: &Services) -> Result<Vec<Lines>> {
    // So that taskstat has all of its fields. It is put back in the end.
    let _delays = DelayAccounting::switch(true).context("kernel.task_delayacct cannot be set")?;
    let output = "[[outputs.file]]\n  files = [\"$DIR/lines\"]\n  data_format = \"influx\"\n";
    let contenders: Vec<_> = measured(Measured::Lines).collect();
    let start = |contender| Telegraf::start(contender, services, [INTERVAL, 0], output);
    let mut all = contenders.iter().map(|contender| start(contender)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(INTERVAL * 4));
    for telegraf in &mut all {
        telegraf.stop()?;
    }
    let mut measured = Vec::new();
    for (contender, telegraf) in contenders.iter().zip(&all) {
        let text = std::fs::read_to_string(telegraf.file("lines"))?;
        let mut last = BTreeMap::new();
        for line in text.lines() {
            // No tag has a space in it, here.
            let (series, _) = line.split_once(' ').context("a line without fields")?;
            last.insert(series, line.to_owned());
        }
        let lines: Vec<_> = last.into_values().collect();
        ensure!(lines.len().is_multiple_of(services.count()), "{}: {} lines", contender.what, lines.len());
        measured.push(Lines { what: contender.what, services: services.count(), lines });
    }
    Ok(measured)
}
