//! The plugin's side of events: the real journal and ledger, and between them, in short, what `Processes` does with
//! /proc and `Series` with what comes of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use telegraf_taskstats::account::{Charge, Deaths, LastSight, Ledger, Sight, Unseen};
use telegraf_taskstats::journal::{Birth, Changes, Journal, Later, Record, Unseen as Sums, Who};
use telegraf_taskstats::kernel::stat::{Identity, Stat, TICK};
use telegraf_taskstats::processes::Presence;

use crate::kernel::{INIT, Kernel, ROOT};

/// What it remembers between gathers.
#[derive(Default)]
pub struct Follower {
    has_records: bool,
    pub journal: Journal,
    pub ledger: Ledger,
    /// The process table.
    all: BTreeMap<u32, Stat>,
    listed: BTreeSet<u32>,
    listings: [Option<u64>; 3],
    records: BTreeMap<Identity, Record>,
    gone: BTreeMap<Identity, Record>,
    unseen: BTreeMap<Identity, Sums>,
    strays: Vec<(Identity, Identity)>,
    /// The parents of those that were dead when they were last read, and vanished: since their records were made they may
    /// have been adopted.
    adopters: BTreeMap<Identity, u32>,
    departed: BTreeSet<Identity>,
    /// The members that went away by the last gather.
    left: BTreeSet<Identity>,
    members: BTreeSet<Identity>,
    pub reported: u64,
    pub started: u64,
    pub exited: u64,
    /// For the books: what each had burnt when it was last seen, and who vanished, in which era.
    pub seen: BTreeMap<usize, u64>,
    pub vanished: BTreeMap<usize, u64>,
    books: BTreeMap<Identity, usize>,
    /// What the last sights did not show of what was used, ns.
    pub hidden: u64,
    /// Whether the last gather was a scan.
    pub has_scanned: bool,
}

impl Follower {
    pub fn new(has_records: bool) -> Self {
        Self { has_records, ..Self::default() }
    }

    pub fn member_count(&self) -> u64 {
        self.members.len() as u64
    }

    pub fn has(&self, id: Identity) -> bool {
        self.members.contains(&id)
    }

    /// Takes all that has come; what does while it does so, too.
    pub fn drain(&mut self, kernel: &mut Kernel) {
        kernel.be_watched(true);
        self.take(kernel);
        kernel.be_watched(false);
    }

    fn take(&mut self, kernel: &mut Kernel) {
        kernel.be_drained();
        for record in std::mem::take(&mut kernel.records) {
            if self.has_records {
                self.journal.record(record);
            }
        }
        kernel.be_between(true);
        kernel.go_on();
        kernel.be_between(false);
        for event in std::mem::take(&mut kernel.events) {
            self.journal.event(event);
        }
        self.journal.flush();
        self.journal.prune_if_many(&|pid| kernel.is_gone(pid));
    }

    /// Some of what has come is lost.
    pub fn lose(&mut self, kernel: &mut Kernel) {
        kernel.records.clear();
        kernel.events.clear();
        self.journal = Journal::default();
    }

    pub fn gather(&mut self, kernel: &mut Kernel) {
        kernel.be_watched(true);
        kernel.era += 1;
        let now = kernel.now;
        self.take(kernel);
        self.listings = [Some(now), self.listings[0], self.listings[1]];
        self.gone.clear();
        self.unseen.clear();
        self.strays.clear();
        let departed = std::mem::take(&mut self.departed);
        self.has_scanned = !self.journal.has_begun();
        if self.has_scanned {
            self.scan(kernel);
            self.journal.begin(self.has_records, self.all.values());
            self.take(kernel);
            self.journal.settled();
        } else {
            self.follow(kernel, &departed);
        }
        let mut members = self.descendants();
        let vanished = if self.has_scanned { BTreeSet::new() } else { self.watch(kernel, &mut members) };
        self.conclude(kernel, &vanished);
        let sights: Vec<_> = members.iter().map(|id| self.sight(kernel, &self.all[&id.pid])).collect();
        self.settle(kernel, &sights, members, &vanished);
        kernel.be_watched(false);
    }

    /// Parents first, as far as they are known.
    fn scan(&mut self, kernel: &mut Kernel) {
        self.listed = kernel.processes.keys().copied().chain([INIT]).collect();
        let start = |pid: &u32| self.all.get(pid).map_or(u64::MAX, |stat| stat.id.start);
        let mut order: Vec<_> = self.listed.iter().map(|pid| (start(pid), *pid)).collect();
        order.sort_unstable();
        let mut all = BTreeMap::new();
        for (_, pid) in order {
            kernel.go_on();
            all.extend(kernel.stat(pid).map(|stat| (pid, stat)));
            self.see(kernel, pid);
        }
        self.all = all;
        let all = &self.all;
        self.records.retain(|id, _| all.get(&id.pid).is_some_and(|stat| stat.id == *id));
    }

    fn follow(&mut self, kernel: &mut Kernel, departed: &BTreeSet<Identity>) {
        let world = RefCell::new(kernel);
        let books = RefCell::new(&mut self.books);
        let is_gone = |pid| {
            world.borrow_mut().go_on();
            world.borrow().is_gone(pid)
        };
        let look = |pid| {
            world.borrow_mut().go_on();
            let stat = world.borrow().stat(pid)?;
            books.borrow_mut().extend(world.borrow().processes.get(&pid).map(|process| (stat.id, process.book)));
            Some(stat)
        };
        let (gone, mut born) = (self.journal.let_go(&is_gone), Vec::new());
        let Changes { changed, births, unseen } = self.journal.settle(|pid, _| look(pid), |stat| born.push(stat));
        let before = |who| match who {
            Who::Known(pid) => id_at(&self.all, pid).or_else(|| with_pid(departed, pid)),
            Who::New(_) => None,
        };
        let unseen: Vec<_> = unseen.into_iter().map(|(who, sums)| (who, before(who), sums)).collect();
        let ancestors = births.iter().filter_map(|birth| Some((birth.id, birth.ancestor?)));
        let ancestors: Vec<_> = ancestors.map(|(id, who)| (id, who, before(who))).collect();
        let is_gone = |pid: u32| gone.iter().any(|(gone, _)| *gone == pid);
        let orphans = self.all.values().filter(|stat| is_gone(stat.ppid)).map(|stat| (stat.id.pid, None));
        let changed: Vec<_> = orphans.chain(changed).collect();
        for (pid, record) in gone {
            if let Some(stat) = self.all.remove(&pid) {
                self.departed.insert(stat.id);
                let was_dead = self.records.remove(&stat.id).is_some();
                // Who has adopted it since is told by its stat only.
                let parent = |record: &Record| if was_dead { stat.ppid } else { record.parent };
                self.gone.extend(record.map(|r| (stat.id, Record { parent: parent(&r), ..*r })));
            }
        }
        self.records.extend(births.into_iter().filter_map(|Birth { id, record, .. }| Some((id, *record?))));
        self.all.extend(born.into_iter().map(|stat| (stat.id.pid, stat)));
        for (pid, record) in changed {
            if let Some(known) = self.all.get_mut(&pid)
                && let Some(stat) = look(pid).filter(|stat| stat.id == known.id)
            {
                self.records.extend(record.map(|record| (stat.id, *record)));
                *known = stat;
            }
        }
        for (id, ..) in &ancestors {
            if self.all.get(&id.pid).is_some_and(|stat| stat.ppid > 0 && !self.all.contains_key(&stat.ppid)) {
                self.journal.doubt(id.pid);
            }
        }
        self.listed = self.all.keys().copied().collect();
        let now = |who, before: Option<Identity>| match who {
            Who::Known(_) => before,
            Who::New(pid) => id_at(&self.all, pid),
        };
        self.unseen = unseen.into_iter().filter_map(|(who, before, sums)| Some((now(who, before)?, sums))).collect();
        // With those that are no strays yet: they may be when they are read.
        let strays = ancestors.into_iter().filter_map(|(id, who, before)| Some((id, now(who, before)?)));
        self.strays = strays.collect();
    }

    /// The root and all below it, those of before, those born to either, and all below these.
    fn descendants(&self) -> BTreeSet<Identity> {
        let mut members = BTreeSet::new();
        let root = self.all.get(&ROOT).map(|stat| stat.id);
        let mut pending: Vec<_> = root.into_iter().collect();
        let is_here = |id: &Identity| self.all.get(&id.pid).is_some_and(|stat| stat.id == *id);
        let before: BTreeSet<_> = self.members.union(&self.left).copied().collect();
        loop {
            while let Some(id) = pending.pop() {
                if is_here(&id) && members.insert(id) {
                    pending.extend(self.all.values().filter(|stat| stat.ppid == id.pid).map(|stat| stat.id));
                }
            }
            pending.extend(before.iter().filter(|id| is_here(id) && !members.contains(id)));
            let is_ours = |id: &Identity| members.contains(id) || before.contains(id);
            let is_lost = |stray: &Identity| is_here(stray) && !members.contains(stray);
            let strays = self.strays.iter().filter(|(stray, ancestor)| is_ours(ancestor) && is_lost(stray));
            pending.extend(strays.map(|(stray, _)| *stray));
            if pending.is_empty() {
                return members;
            }
        }
    }

    /// Reads the members, parents first. Those that went away before are members no more.
    fn watch(&mut self, kernel: &mut Kernel, members: &mut BTreeSet<Identity>) -> BTreeSet<Identity> {
        let mut order: Vec<_> = members.iter().copied().collect();
        order.sort_unstable_by_key(|id| (id.start, id.pid));
        let mut vanished = BTreeSet::new();
        self.adopters.clear();
        for id in order {
            kernel.go_on();
            if let Some(stat) = kernel.stat(id.pid).filter(|stat| stat.id == id) {
                self.all.insert(id.pid, stat);
                self.see(kernel, id.pid);
            } else {
                vanished.insert(id);
            }
        }
        for id in &vanished {
            let stat = self.all.remove(&id.pid);
            let was_dead = self.records.remove(id).is_some();
            self.adopters.extend(stat.filter(|_| was_dead).map(|stat| (*id, stat.ppid)));
            members.remove(id);
            self.vanished.extend(self.books.get(id).map(|book| (*book, kernel.era)));
        }
        vanished
    }

    fn conclude(&mut self, kernel: &mut Kernel, vanished: &BTreeSet<Identity>) {
        self.take(kernel);
        let world = RefCell::new(kernel);
        let is_gone = |pid| {
            world.borrow_mut().go_on();
            world.borrow().is_gone(pid)
        };
        let Later { records, unseen } = self.journal.conclude(&is_gone, vanished.iter().map(|id| id.pid));
        self.departed.extend(vanished);
        for (pid, record) in records {
            if let Some(id) = with_pid(vanished, pid) {
                let parent = self.adopters.get(&id).copied().unwrap_or(record.parent);
                self.gone.insert(id, Record { parent, ..*record });
            }
        }
        for (pid, later) in unseen {
            if let Some(id) = id_at(&self.all, pid).or_else(|| with_pid(&self.departed, pid)) {
                self.unseen.entry(id).or_default().add_late(&later);
            }
        }
    }

    fn see(&mut self, kernel: &Kernel, pid: u32) {
        if let Some(process) = kernel.processes.get(&pid) {
            self.seen.insert(process.book, kernel.books[process.book].burnt);
            self.books.insert(Identity { pid, start: process.start }, process.book);
        }
    }

    fn sight(&self, kernel: &Kernel, stat: &Stat) -> Sight {
        let [_, previous, before] = self.listings;
        let exact = kernel.processes.get(&stat.id.pid);
        let matters = stat.is_zombie() || born_since(stat.id, before.or(previous));
        let exact = exact.filter(|_| matters).map_or(0, |process| process.own.exact());
        let stray = self.strays.iter().find(|(stray, _)| *stray == stat.id);
        let record = self.gone.get(&stat.id).or_else(|| self.records.get(&stat.id));
        Sight {
            id: stat.id,
            ppid: stat.ppid,
            origin: stray.map_or(stat.ppid, |(_, ancestor)| ancestor.pid),
            own: stat.cpu().max(exact).max(record.map_or(0, |record| record.used.cpu)),
            reaped: stat.cutime + stat.cstime,
            zombie: stat.is_zombie(),
            newborn: born_since(stat.id, previous),
            stale: false,
        }
    }

    fn settle(
        &mut self,
        kernel: &Kernel,
        sights: &[Sight],
        members: BTreeSet<Identity>,
        vanished: &BTreeSet<Identity>,
    ) {
        let own = |id: Identity| kernel.processes.get(&id.pid).map_or(0, |process| process.own.exact());
        self.hidden = sights.iter().map(|sight| own(sight.id).saturating_sub(sight.own).min(2 * TICK)).sum();
        let presence = |id: Identity| {
            if id_at(&self.all, id.pid) == Some(id) {
                Presence::Here
            } else if self.listed.contains(&id.pid) {
                Presence::Vanished
            } else {
                Presence::Gone
            }
        };
        let is_newborn = |id: Identity| born_since(id, self.listings[1]);
        let last = self.gone.iter().map(|(id, record)| LastSight {
            id: *id,
            ppid: record.parent,
            own: record.used.cpu,
            newborn: is_newborn(*id),
        });
        let unseen = self.unseen.iter().map(|(id, sums)| Unseen {
            id: *id,
            used: sums.used.cpu,
            lives: sums.lives.cpu,
            orphaned: sums.orphaned.cpu,
            late: sums.late.cpu,
        });
        let deaths = Deaths { last: last.collect(), unseen: unseen.collect() };
        let charges = self.ledger.settle(sights, &deaths, presence);
        let counts = |id: &Identity| self.members.contains(id) || is_newborn(*id);
        let is_gone = |id: &Identity| presence(*id) != Presence::Here;
        let has_gone =
            |id: &Identity| is_gone(id) && [&self.members, vanished, &self.left].iter().any(|of| of.contains(id));
        let living = sights.iter().zip(charges.living).filter(|(sight, _)| counts(&sight.id));
        let gone = charges.gone.into_iter().filter(|(id, _)| has_gone(id));
        let charges = living.map(|(_, charge)| charge).chain(gone.map(|(_, charge)| charge));
        self.reported += charges.map(Charge::total).sum::<u64>();
        let stands = |id: &Identity| if members.contains(id) { counts(id) } else { has_gone(id) };
        let unseen: u64 = self.unseen.iter().filter(|(id, _)| stands(id)).map(|(_, sums)| sums.count).sum();
        let is_birth = |id: &&Identity| is_newborn(**id) && !self.members.contains(id);
        let left: BTreeSet<_> = self.members.iter().filter(|id| is_gone(id)).chain(vanished).copied().collect();
        self.started += (members.iter().chain(vanished).filter(is_birth).count() as u64) + unseen;
        self.exited += left.len() as u64 + unseen;
        (self.members, self.left) = (members, left);
    }
}

fn id_at(all: &BTreeMap<u32, Stat>, pid: u32) -> Option<Identity> {
    all.get(&pid).map(|stat| stat.id)
}

fn with_pid(ids: &BTreeSet<Identity>, pid: u32) -> Option<Identity> {
    ids.range(Identity { pid, start: 0 }..).next().copied().filter(|id| id.pid == pid)
}

fn born_since(id: Identity, listing: Option<u64>) -> bool {
    listing.is_some_and(|listing| id.start >= listing / TICK)
}
