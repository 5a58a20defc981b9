//! A world and the plugin that watches it: what it reports, against the books.

use std::collections::{BTreeMap, BTreeSet};

use telegraf_taskstats::kernel::stat::{Identity, TICK};

use crate::kernel::{Kernel, World};
use crate::plugin::{By, Plugin, Shared};

/// How the plugin learns what happens.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    pub by: By,
    /// Whether some messages are lost.
    pub loses: bool,
}

/// A world and who follows it, with what cannot be known.
struct Run {
    world: World,
    feed: Feed,
    shared: Shared,
    plugin: Plugin,
    /// What the base of the first gather did not show, ns.
    base: u64,
    /// What was lost with messages, ns.
    lost: u64,
    /// Births and ends that were.
    uncounted: (i64, i64),
    /// The books of those that are in no table any more, or never were.
    missed: BTreeSet<usize>,
    /// Those of them that a scan has found, and who was born to them.
    found: BTreeSet<usize>,
    /// Whether messages were lost before the last gather, or the one before.
    is_unsure: bool,
}

impl Run {
    fn new(world: World, seed: u64, feed: Feed) -> Self {
        let shared = Shared::new(Kernel::new(world, seed));
        let mut kernel = shared.kernel();
        // Nobody can know whose a daemon is that has walked before.
        let steps = if world == World::Walking { 0 } else { kernel.chance.below(world.steps() / 2) };
        (0..steps).for_each(|_| kernel.step());
        drop(kernel);
        let plugin = Plugin::start(&shared, feed.by);
        let mut kernel = shared.kernel();
        let mut base = 0;
        let mut members = BTreeSet::new();
        for (pid, process) in &kernel.processes {
            if plugin.has(Identity { pid: *pid, start: process.start }) {
                base += process.own.hidden() + process.reaped.hidden();
                members.insert(process.book);
            }
        }
        for (index, book) in kernel.books.iter_mut().enumerate() {
            (book.of_tree, book.burnt, book.tail, book.seen) = (members.contains(&index), 0, 0, None);
        }
        (kernel.burnt, kernel.births, kernel.ends) = (0, 0, 0);
        kernel.goes_on = seed.is_multiple_of(2) && world != World::Crowded;
        drop(kernel);
        let mut run = Self {
            world,
            feed,
            shared,
            plugin,
            base,
            lost: 0,
            uncounted: (0, 0),
            missed: BTreeSet::new(),
            found: BTreeSet::new(),
            is_unsure: false,
        };
        run.lost = unheard(&run.shared.kernel());
        run
    }

    /// What happens until the next gather.
    fn live(&mut self) {
        let mut kernel = self.shared.kernel();
        let pause = [5, 40, 1000][usize::try_from(kernel.chance.below(3)).unwrap()];
        for _ in 0..kernel.chance.below(self.world.steps()) {
            kernel.step();
            let (drains, loses) = (kernel.chance.one_in(pause), self.feed.loses && kernel.chance.one_in(400));
            if loses {
                kernel.lose();
            }
            if drains {
                drop(kernel);
                self.plugin.drain();
                kernel = self.shared.kernel();
            }
        }
        if kernel.chance.one_in(3) {
            kernel.finish();
        }
    }

    fn gather(&mut self) -> Result<(), String> {
        let kernel = self.shared.kernel();
        let (before, births, ends) = (kernel.burnt, kernel.births, kernel.ends);
        drop(kernel);
        self.plugin.gather();
        self.find();
        let (reported, has_scanned) = (self.plugin.reported(), self.plugin.has_scanned());
        let kernel = self.shared.kernel();
        // A child's life is held against who was its parent when that one was read. If that one goes away, and an ancestor
        // adopts the child and waits for it, all within one reading, then that is too much.
        let twice = if self.feed.by == By::Scan { 0 } else { kernel.twice };
        let used = kernel.burnt + self.base + twice;
        let most = used + if self.feed.by == By::Events { self.world.too_much(used) } else { 0 };
        if reported > most {
            return Err(format!("{reported} of {most} ns: too much by {}", reported - most));
        }
        if self.feed.by == By::Scan {
            let texts = 4 * kernel.processes.len() as u64 + 2 * kernel.orphans;
            let least = before.saturating_sub(texts * TICK);
            if self.world.waits_for_all() && reported < least {
                return Err(format!("{reported} of {before} ns, at least {least}: too little"));
            }
            return Ok(());
        }
        let was_unsure = std::mem::replace(&mut self.is_unsure, has_scanned);
        if has_scanned {
            self.lost = kernel.burnt.saturating_sub(reported) + unheard(&kernel);
        }
        drop(kernel);
        self.miss(was_unsure)?;
        // A daemon that walks while messages are lost is lost with them.
        let can_know = self.feed.by == By::Events && (self.world != World::Walking || !self.feed.loses);
        if can_know {
            let least = before.saturating_sub(self.excused());
            if reported < least {
                return Err(format!("{reported} of {before} ns, at least {least}: too little"));
            }
        }
        self.count(births, ends)?;
        self.forget()
    }

    /// Who was missed is found by a scan, and who was born to it: what they used may count then, or may not.
    fn find(&mut self) {
        let Self { shared, plugin, missed, .. } = self;
        let mut kernel = shared.kernel();
        for (pid, process) in kernel.processes.iter().filter(|_| plugin.has_scanned()) {
            let above = |book: &usize| kernel.books[*book].parent;
            let mut line = std::iter::successors(Some(process.book), above);
            let is_found = plugin.has(Identity { pid: *pid, start: process.start });
            if is_found && !kernel.books[process.book].of_tree && line.any(|book| missed.contains(&book)) {
                self.found.insert(process.book);
            }
        }
        for book in &self.found {
            let book = &mut kernel.books[*book];
            if !std::mem::replace(&mut book.of_tree, true) {
                self.base += book.burnt;
                self.lost += book.burnt;
            }
        }
        missed.retain(|book| !self.found.contains(book));
    }

    /// Members are all that descend from the root by birth, except those born to one that vanished.
    fn miss(&mut self, was_unsure: bool) -> Result<(), String> {
        if self.is_told_all() {
            return Ok(());
        }
        let Self { shared, plugin, missed, .. } = self;
        let mut kernel = shared.kernel();
        let excused = excused(&kernel, missed);
        for (pid, process) in &kernel.processes {
            let book = &kernel.books[process.book];
            let has = plugin.has(Identity { pid: *pid, start: process.start });
            if book.of_tree && book.born < kernel.era && !has {
                if !kernel.goes_on && !was_unsure && !self.is_unsure && !excused[process.book] {
                    return Err(format!("{pid} is no member"));
                }
                missed.insert(process.book);
            }
            if !book.of_tree && has {
                return Err(format!("{pid} is a member"));
            }
        }
        for book in &*missed {
            kernel.books[*book].of_tree = false;
        }
        Ok(())
    }

    /// Whether records tell of each process of this world, so that none may be missed.
    fn is_told_all(&self) -> bool {
        self.world == World::Walking && self.feed.by == By::Events && !self.feed.loses
    }

    /// What need not be reported, ns.
    fn excused(&self) -> u64 {
        let kernel = self.shared.kernel();
        let is_excused = excused(&kernel, &self.missed);
        let excuses_any = !self.is_told_all();
        let mut excused = self.lost;
        let mut members = 0;
        for (pid, process) in &kernel.processes {
            if self.plugin.has(Identity { pid: *pid, start: process.start }) {
                members += 1;
                excused += process.own.exact().saturating_sub(process.shown).min(2 * TICK);
            }
        }
        if self.world.waits_for_all() {
            // Two texts in ticks, of what it has reaped, for each process that lives; and an orphan's life may be held against
            // two ancestors, by as much as a text can hide.
            excused += (2 * members + 2 * kernel.orphans) * TICK;
        }
        for (index, book) in kernel.books.iter().enumerate() {
            let after = book.burnt - book.seen.unwrap_or(0) + book.seen.map_or(0, |_| 2 * TICK);
            // Of one that is missed nothing more is told. Of one whose record comes late the end is told before it: it is gone
            // when that comes. Of one that went away just now it is told next time.
            let is_late = book.is_late && book.removed.is_some();
            if (excuses_any && is_excused[index]) || is_late || book.removed == Some(kernel.era) {
                excused += after;
            } else if self.world.is_wild() && book.removed.is_some() {
                excused += book.tail;
            }
        }
        excused
    }

    fn count(&mut self, births: u64, ends: u64) -> Result<(), String> {
        let Self { shared, plugin, uncounted, .. } = self;
        let (kernel, series) = (shared.kernel(), plugin.series());
        let signed = |count: u64| i64::try_from(count).unwrap();
        let counted = (signed(series.started), signed(series.exited));
        if kernel.goes_on {
            // Who left before it could be read is told of later, or never.
            if !self.feed.loses && (counted.0 > signed(kernel.births) || counted.1 > signed(kernel.ends)) {
                return Err(format!("{counted:?} started and exited of {}, {}: too many", kernel.births, kernel.ends));
            }
            return Ok(());
        }
        if self.is_unsure {
            *uncounted = (signed(births) - counted.0, signed(ends) - counted.1);
        }
        if counted != (signed(births) - uncounted.0, signed(ends) - uncounted.1) {
            return Err(format!("{counted:?} started and exited of {births}, {ends} less {uncounted:?}"));
        }
        Ok(())
    }

    /// Nothing is kept of the dead.
    fn forget(&mut self) -> Result<(), String> {
        let kernel = self.shared.kernel();
        if kernel.goes_on || !kernel.era.is_multiple_of(4) {
            return Ok(());
        }
        drop(kernel);
        let journal = self.plugin.journal();
        let empty = ["new: {}", "descent: {}", "unobserved: {}", "records: []"];
        if empty.iter().all(|empty| journal.contains(empty)) { Ok(()) } else { Err(journal) }
    }
}

/// Which books are of somebody who vanished before it could be read, or was born to one that did, and never seen.
fn excused(kernel: &Kernel, missed: &BTreeSet<usize>) -> Vec<bool> {
    let mut excused: Vec<bool> = Vec::with_capacity(kernel.books.len());
    for (index, book) in kernel.books.iter().enumerate() {
        let of_parent = |parent: usize| {
            let since = kernel.books[parent].vanished.unwrap_or(0);
            book.seen.is_none() && book.removed.is_none_or(|removed| removed + 1 >= since) && excused[parent]
        };
        let is_excused = missed.contains(&index) || book.vanished.is_some() || book.parent.is_some_and(of_parent);
        excused.push(is_excused);
    }
    excused
}

/// Of those whose records came before the beginning: what is not seen of them any more.
fn unheard(kernel: &Kernel) -> u64 {
    kernel.processes.values().filter(|process| process.exiting).count() as u64 * 2 * TICK
}

/// Runs a world for some gathers. Returns what went wrong first, by kind, and how often.
fn run(world: World, feed: Feed) -> BTreeMap<String, (u64, String)> {
    let mut failures = BTreeMap::new();
    for seed in 0..world.seeds() {
        let mut run = Run::new(world, seed, feed);
        for gather in 0..world.gathers() {
            run.live();
            if let Err(error) = run.gather() {
                let kind: String = error.chars().filter(|c| !c.is_ascii_digit()).take(40).collect();
                let first = || (0, format!("{world:?}, seed {seed}, gather {gather}: {error}"));
                failures.entry(kind).or_insert_with(first).0 += 1;
                break;
            }
        }
    }
    failures
}

/// Runs all worlds.
pub fn run_all(by: By, loses: bool) {
    let feed = Feed { by, loses };
    let failures: Vec<_> = World::ALL.iter().flat_map(|world| run(*world, feed).into_values()).collect();
    assert!(failures.is_empty(), "{feed:?} {failures:#?}");
}
