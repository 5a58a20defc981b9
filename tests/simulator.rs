//! The accounting rule against a simulated kernel that keeps its own books.
//!
//! Processes fork, burn, exit, wait, ignore SIGCHLD, leave orphans, become subreapers and are killed in groups, at random,
//! also while a gather is being read. What the ledger sees is what /proc would show: texts rounded down to ticks. What it
//! reports is held against what was really burnt.

// A test says what went wrong by panicking.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere

#[path = "simulator/events.rs"]
mod events;
#[path = "simulator/follower.rs"]
mod follower;
#[path = "simulator/kernel.rs"]
mod kernel;

use std::collections::BTreeMap;

use telegraf_taskstats::account::{Charge, Deaths, Ledger, Sight};
use telegraf_taskstats::kernel::stat::{Identity, TICK};
use telegraf_taskstats::processes::Presence;

use kernel::{Kernel, Process, ROOT, World};

/// The plugin's side: what it remembers between gathers.
struct Plugin {
    ledger: Ledger,
    known: BTreeMap<u32, u64>,
    listings: [Option<u64>; 2],
    reported: u64,
}

impl Plugin {
    fn new() -> Self {
        Self { ledger: Ledger::default(), known: BTreeMap::new(), listings: [None; 2], reported: 0 }
    }

    /// Lists, then reads parents first while the world goes on, then settles.
    fn gather(&mut self, kernel: &mut Kernel, things_happen: bool) {
        let listing = kernel.now;
        let listed: Vec<u32> = kernel.processes.keys().copied().collect();
        let mut order: Vec<_> = listed.iter().map(|pid| (self.known.get(pid).unwrap_or(&u64::MAX), *pid)).collect();
        order.sort_unstable();
        let mut sights = Vec::new();
        for (_, pid) in order {
            while things_happen && kernel.chance.one_in(6) {
                kernel.step();
            }
            if let Some(process) = kernel.processes.get(&pid)
                && kernel.descends_from_root_or_stays(pid, &self.known)
            {
                sights.push(self.sight(pid, process));
            }
        }
        sights.sort_unstable_by_key(|sight| sight.id);
        let known: BTreeMap<_, _> = sights.iter().map(|sight| (sight.id.pid, sight.id.start)).collect();
        let presence = |id: Identity| {
            if known.get(&id.pid) == Some(&{ id.start }) {
                Presence::Here
            } else if listed.contains(&id.pid) {
                Presence::Vanished
            } else {
                Presence::Gone
            }
        };
        let charges = self.ledger.settle(&sights, &Deaths::default(), presence);
        self.reported += charges.living.into_iter().map(Charge::total).sum::<u64>();
        self.known = known;
        self.listings = [Some(listing), self.listings[0]];
    }

    fn sight(&self, pid: u32, process: &Process) -> Sight {
        let born_since = |listing: Option<u64>| listing.is_some_and(|listing| process.start >= listing / TICK);
        let young = born_since(self.listings[1].or(self.listings[0]));
        let exact = if young || process.zombie { process.own.exact() } else { 0 };
        Sight {
            id: Identity { pid, start: process.start },
            ppid: process.ppid,
            origin: process.ppid,
            own: process.own.text().max(exact),
            reaped: process.reaped.text(),
            zombie: process.zombie,
            newborn: born_since(self.listings[0]),
            stale: false,
        }
    }
}

impl Kernel {
    /// Membership is sticky: who was re-parented to init stays.
    fn descends_from_root_or_stays(&self, pid: u32, known: &BTreeMap<u32, u64>) -> bool {
        let parent = |pid: &u32| self.processes.get(pid).map(|process| process.ppid);
        let is_member = |pid: &u32| self.processes.get(pid).is_some_and(|p| known.get(pid) == Some(&p.start));
        std::iter::successors(Some(pid), parent).any(|above| above == ROOT || is_member(&above))
    }
}

/// Runs a world for some gathers and hands each moment after one to `check`, with the CPU that was burnt before it began.
fn run(world: World, seed: u64, mut check: impl FnMut(&Plugin, &Kernel, u64)) {
    let mut kernel = Kernel::new(world, seed, false);
    for _ in 0..kernel.chance.below(60) {
        kernel.step();
    }
    let mut plugin = Plugin::new();
    plugin.gather(&mut kernel, false);
    // The base is in whole ticks too: what it hides shows later.
    kernel.burnt = kernel.processes.values().map(|process| process.own.hidden() + process.reaped.hidden()).sum();
    let things_happen = seed.is_multiple_of(2);
    for _ in 0..12 {
        for _ in 0..kernel.chance.below(120) {
            kernel.step();
        }
        let before = kernel.burnt;
        plugin.gather(&mut kernel, things_happen);
        check(&plugin, &kernel, before);
    }
}

const SEEDS: std::ops::Range<u64> = 0..700;

#[test]
fn nothing_is_ever_counted_twice() {
    for world in [World::Orderly, World::Adopting, World::Wild] {
        for seed in SEEDS {
            run(world, seed, |plugin, kernel, _| {
                let burnt = kernel.burnt;
                assert!(plugin.reported <= burnt, "{world:?} {seed}: {} of {burnt} ns", plugin.reported);
            });
        }
    }
}

#[test]
fn the_total_is_exact_where_each_child_is_waited_for() {
    for world in [World::Orderly, World::Adopting] {
        for seed in SEEDS {
            run(world, seed, |plugin, kernel, before| {
                // Two texts in ticks, own and reaped, for each process that lives; and an orphan's life may be held against
                // two ancestors, by as much as a text can hide.
                let texts = 4 * kernel.processes.len() as u64 + 2 * kernel.orphans;
                let least = before.saturating_sub(texts * TICK);
                assert!(plugin.reported >= least, "{world:?} {seed}: {} of {before} ns", plugin.reported);
            });
        }
    }
}
