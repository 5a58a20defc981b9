//! The accounting rule against a simulated kernel that keeps its own books.
//!
//! Processes fork, burn, exit, wait, ignore SIGCHLD, leave orphans, become subreapers and are killed in groups, at random,
//! also while a gather is being read. What the ledger sees is what /proc would show: texts rounded down to ticks. What it
//! reports is held against what was really burnt.

// A test says what went wrong by panicking.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;

use telegraf_taskstats::account::{Charge, Deaths, Ledger, Sight};
use telegraf_taskstats::kernel::stat::{Identity, TICK};
use telegraf_taskstats::processes::Presence;

const INIT: u32 = 1;
const ROOT: u32 = 10;

/// What may happen besides forking, burning and being waited for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum World {
    /// Nothing: each process outlives its children and reaps them. The rule is exact here.
    Orderly,
    /// Orphans too, but subreapers adopt them: all are reaped within the tree.
    Adopting,
    /// Orphans to init, SIGCHLD ignored, groups killed. Never too much.
    Wild,
}

/// xorshift64*: the same in every run for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[usize::try_from(self.below(of.len() as u64)).unwrap()])
    }
}

/// User and system time, ns.
#[derive(Clone, Copy, Default, Debug)]
struct Times {
    user: u64,
    system: u64,
}

impl Times {
    fn add(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
    }

    fn exact(self) -> u64 {
        self.user + self.system
    }

    /// As /proc writes it: each in whole ticks.
    fn text(self) -> u64 {
        (self.user / TICK + self.system / TICK) * TICK
    }
}

#[derive(Clone, Debug)]
struct Process {
    start: u64,
    ppid: u32,
    own: Times,
    reaped: Times,
    zombie: bool,
    ignores_children: bool,
    subreaper: bool,
}

/// The kernel: who exists, and what the tree below ROOT has really used.
struct Kernel {
    world: World,
    chance: Chance,
    now: u64,
    next_pid: u32,
    processes: BTreeMap<u32, Process>,
    /// CPU used since the first gather by the root and all that ever descended from it, ns.
    burnt: u64,
    orphans: u64,
}

impl Kernel {
    fn new(world: World, seed: u64) -> Self {
        let root = Process {
            start: 5,
            ppid: INIT,
            own: Times { user: 123 * TICK, system: 7 * TICK },
            reaped: Times { user: 456 * TICK + 3, system: TICK },
            zombie: false,
            ignores_children: false,
            subreaper: world == World::Adopting,
        };
        let processes = BTreeMap::from([(ROOT, root)]);
        Self {
            world,
            chance: Chance(seed * 2 + 1),
            now: 1000 * TICK,
            next_pid: ROOT + 1,
            processes,
            burnt: 0,
            orphans: 0,
        }
    }

    fn alive(&self) -> Vec<u32> {
        self.processes.iter().filter(|(_, process)| !process.zombie).map(|(pid, _)| *pid).collect()
    }

    fn children(&self, pid: u32) -> Vec<u32> {
        self.processes.iter().filter(|(_, process)| process.ppid == pid).map(|(pid, _)| *pid).collect()
    }

    /// Something happens.
    fn step(&mut self) {
        self.now += self.chance.below(TICK);
        let Some(pid) = self.chance.pick(&self.alive()) else { return };
        match self.chance.below(10) {
            0..=2 => self.fork(pid),
            3..=5 => self.burn(pid),
            6..=7 => self.wait(pid),
            8 => self.exit_if_it_may(pid),
            _ if self.world == World::Wild => self.misbehave(pid),
            _ => self.burn(pid),
        }
    }

    fn fork(&mut self, ppid: u32) {
        if self.processes.len() > 40 {
            return;
        }
        let child = Process {
            start: self.now / TICK,
            ppid,
            own: Times::default(),
            reaped: Times::default(),
            zombie: false,
            ignores_children: false,
            subreaper: self.world == World::Adopting && self.chance.one_in(4),
        };
        self.processes.insert(self.next_pid, child);
        self.next_pid += 1;
    }

    fn burn(&mut self, pid: u32) {
        let scale = [TICK / 50, TICK / 2, 8 * TICK][usize::try_from(self.chance.below(3)).unwrap()];
        let times = Times { user: self.chance.below(scale), system: self.chance.below(scale) };
        self.now += times.exact();
        self.burnt += times.exact();
        self.processes.get_mut(&pid).unwrap().own.add(times);
    }

    /// wait(2): one dead child is charged to its parent, its whole life and what it had reaped.
    fn wait(&mut self, pid: u32) {
        let dead: Vec<_> = self.children(pid).into_iter().filter(|child| self.processes[child].zombie).collect();
        let Some(child) = self.chance.pick(&dead) else { return };
        let Process { own, reaped, .. } = self.processes.remove(&child).unwrap();
        let parent = self.processes.get_mut(&pid).unwrap();
        parent.reaped.add(own);
        parent.reaped.add(reaped);
    }

    fn exit_if_it_may(&mut self, pid: u32) {
        let outlived = self.world == World::Orderly && !self.children(pid).is_empty();
        if pid != ROOT && !outlived {
            self.exit(pid);
        }
    }

    /// exit(2): the children go to the nearest subreaper above, else to init, which reaps at once; the parent may not care.
    fn exit(&mut self, pid: u32) {
        let heir = self.heir(pid);
        for child in self.children(pid) {
            self.processes.get_mut(&child).unwrap().ppid = heir;
            self.orphans += 1;
            if heir == INIT && self.processes[&child].zombie {
                self.processes.remove(&child);
            }
        }
        let ppid = self.processes[&pid].ppid;
        let unwanted = ppid == INIT || self.processes.get(&ppid).is_some_and(|parent| parent.ignores_children);
        if unwanted {
            self.processes.remove(&pid);
        } else {
            self.processes.get_mut(&pid).unwrap().zombie = true;
        }
    }

    fn heir(&self, pid: u32) -> u32 {
        let above = |pid: &u32| self.processes.get(pid).map(|process| process.ppid);
        let is_heir = |pid: &u32| self.processes.get(pid).is_some_and(|process| process.subreaper && !process.zombie);
        std::iter::successors(above(&pid), above).find(is_heir).unwrap_or(INIT)
    }

    fn misbehave(&mut self, pid: u32) {
        match self.chance.below(3) {
            0 => self.processes.get_mut(&pid).unwrap().ignores_children ^= true,
            1 if pid != ROOT => self.kill_group(pid),
            _ => self.exit_if_it_may(pid),
        }
    }

    /// A process and all below it die at once.
    fn kill_group(&mut self, pid: u32) {
        let mut group = vec![pid];
        let mut next = 0;
        while next < group.len() {
            group.extend(self.children(group[next]));
            next += 1;
        }
        for pid in group {
            if self.processes.get(&pid).is_some_and(|process| !process.zombie) {
                self.exit(pid);
            }
        }
    }
}

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
            if known.get(&id.pid) == Some(&id.start) {
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
    let mut kernel = Kernel::new(world, seed);
    for _ in 0..kernel.chance.below(60) {
        kernel.step();
    }
    let mut plugin = Plugin::new();
    plugin.gather(&mut kernel, false);
    // The base is in whole ticks too: what it hides shows later.
    let hidden = |times: Times| times.exact() - times.text();
    kernel.burnt = kernel.processes.values().map(|process| hidden(process.own) + hidden(process.reaped)).sum();
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

const SEEDS: std::ops::Range<u64> = 0..2000;

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
