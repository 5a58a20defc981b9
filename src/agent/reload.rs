//! State that outlives a restart, by the cache file, or a reload of the configuration.

use std::collections::BTreeMap;

use super::Agent;
use crate::cache::State;
use crate::cli::Arguments;
use crate::config::Settings;
use crate::host::Host;
use crate::kernel::clock::SystemClock;
use crate::log::{Level, Trouble, say};
use crate::output::Measurement;
use crate::processes::Processes;
use crate::select::{Memory, wants};
use crate::trigger::Triggers;

impl Agent {
    /// Goes on from what a cache file remembers.
    pub(super) fn resume(&mut self, state: Option<State>) {
        let Some(state) = state else { return };
        self.processes.resume(state.listings);
        self.collectors.resume(state.collectors);
        self.remember(state.memories);
        self.series = state.series.into_iter().collect();
        self.gathered = Some(state.gathered);
    }

    /// The processes that each target has accepted, by the target's label.
    pub(super) fn memories(&self) -> BTreeMap<String, Memory> {
        self.targets.iter().map(|target| (target.label.clone(), target.memory())).collect()
    }

    pub(super) fn remember(&mut self, mut memories: BTreeMap<String, Memory>) {
        for target in &mut self.targets {
            if let Some(memory) = memories.remove(&target.label) {
                target.remember(memory);
            }
        }
    }

    pub(super) fn save(&mut self) {
        let (Some(cache), Some(gathered)) = (&self.cache, self.gathered) else { return };
        let memories = self.memories();
        let listings = self.processes.listings();
        if let Err(error) = cache.save(gathered, listings, &memories, &self.collectors, self.series.iter()) {
            let message = format!("Cache file {} is not written: {error}", cache.path().display());
            self.complaints.add(Trouble::of(&error), message);
        }
    }

    /// Reads the configuration again. A bad one changes nothing.
    pub(super) fn reload(&mut self, arguments: &Arguments, triggers: &mut Triggers) {
        let settings = match arguments.can_be_read_again().and_then(|()| Settings::load(arguments)) {
            Ok(settings) => settings,
            Err(error) => {
                say(Level::Error, &format!("The configuration stays as it was: {error:#}"));
                return;
            }
        };
        match Host::open(&settings.proc_root, &settings.sys_root, Box::new(SystemClock), self.host.holdable) {
            Ok(mut host) => {
                host.listen(settings.accounting, wants(&settings.targets, Measurement::Taskstat));
                self.host = host;
            }
            Err(error) => {
                let root = settings.proc_root.display();
                say(Level::Error, &format!("The configuration stays as it was: cannot open {root}: {error}"));
                return;
            }
        }
        match settings.interval {
            Some(period) => triggers.set_interval(period),
            None => say(Level::Warning, "An interval cannot be taken away while running: it stays as it was"),
        }
        let same_cache = match &self.cache {
            Some(cache) => cache.is(settings.cache.as_ref()),
            None => settings.cache.is_none(),
        };
        if !same_cache {
            say(Level::Warning, "Another cache file requires a restart: it stays as it was");
        }
        let memories = self.memories();
        self.targets = settings.targets;
        self.remember(memories);
        self.collectors.set_bounds(settings.bounds);
        self.self_stats = settings.self_stats;
        if let Some(cache) = &mut self.cache {
            cache.set_digest(settings.digest);
        }
        let listings = self.processes.listings();
        self.processes = Processes::default(); // it may be another root
        self.processes.resume(listings);
        self.standing = None;
        self.gathered = None; // what the new targets find is not new
        self.gathered = self.look();
        self.complaints.say_changes();
        say(Level::Info, "The configuration was read again");
    }
}
