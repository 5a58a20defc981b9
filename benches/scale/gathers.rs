//! What a gather costs Telegraf, the plugin in it, and the database that it is sent to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::database::{Database, Kind};
use crate::measured;
use crate::services::Services;
use crate::telegraf::{Measured, Telegraf, Usage};

/// s. All gather in the same intervals, one after the other.
const INTERVAL: u64 = 10;
const OFFSET: u64 = 2;
/// Whole intervals before, and those that are measured.
const WARM_UP: u64 = 1;
const GATHERS: u32 = 3;

/// Of one gather, with all that goes on until the next.
pub struct Gather {
    pub telegraf: Usage,
    /// With what it takes in of births and exits on the host.
    pub plugin: Usage,
    /// 0 if nothing is sent.
    pub database: Usage,
}

/// Of as many services, in the order of the contenders.
pub struct Gathers {
    pub discarded: Vec<Gather>,
    pub influx: Vec<Gather>,
    pub victoria: Vec<Gather>,
}

pub fn measure(services: &Services, sent_to: Option<Kind>) -> Result<Vec<Gather>> {
    let mut all = Vec::new();
    for (index, contender) in measured(Measured::All).enumerate() {
        let database = sent_to.map(|kind| Database::start(kind, false)).transpose()?;
        let outputs = database.as_ref().map_or_else(|| "[[outputs.discard]]\n".to_owned(), Database::output);
        let telegraf = Telegraf::start(contender, services, [INTERVAL, index as u64 * OFFSET], &outputs)?;
        all.push((telegraf, database));
    }
    // Its turn begins a moment before it gathers.
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let first = Duration::from_secs((now.as_secs() / INTERVAL + 1 + WARM_UP) * INTERVAL) - Duration::from_millis(500);
    let turn =
        |round: u32, index: usize| first + Duration::from_secs(u64::from(round) * INTERVAL + index as u64 * OFFSET);
    let mut before = Vec::new();
    for (index, (telegraf, database)) in all.iter().enumerate() {
        sleep_until(turn(0, index))?;
        before.push(Usages::read(telegraf, database.as_ref())?);
    }
    let mut gathers = Vec::new();
    for (index, ((telegraf, database), before)) in all.iter().zip(before).enumerate() {
        sleep_until(turn(GATHERS, index))?;
        let gather = Usages::read(telegraf, database.as_ref())?.since(&before);
        telegraf.is_calm()?;
        if let Some(database) = database {
            let (found, least) = (database.series()?, services.count());
            ensure!(found >= least, "{found} series arrived of at least {least}");
        }
        gathers.push(gather);
    }
    Ok(gathers)
}

/// What was used so far.
struct Usages {
    processes: [Usage; 3],
}

impl Usages {
    fn read(telegraf: &Telegraf, database: Option<&Database>) -> Result<Self> {
        let [telegraf, plugin] = telegraf.usage()?;
        let database = database.map(Database::usage).transpose()?.unwrap_or_default();
        Ok(Self { processes: [telegraf, plugin, database] })
    }

    /// For each gather since then.
    fn since(&self, before: &Self) -> Gather {
        let mut usages = self.processes;
        for (usage, before) in usages.iter_mut().zip(&before.processes) {
            usage.cpu = usage.cpu.saturating_sub(before.cpu) / GATHERS;
        }
        let [telegraf, plugin, database] = usages;
        Gather { telegraf, plugin, database }
    }
}

fn sleep_until(moment: Duration) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let pause = moment.checked_sub(now).context("the machine is too slow for this, or its clock was set")?;
    std::thread::sleep(pause);
    Ok(())
}
