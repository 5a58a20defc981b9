//! What events tell, against the books.

use std::collections::{BTreeMap, BTreeSet};

use telegraf_taskstats::kernel::stat::{Identity, TICK};

use crate::follower::Follower;
use crate::kernel::{Kernel, World};

/// How the kernel's messages come.
#[derive(Clone, Copy, Debug)]
struct Feed {
    has_records: bool,
    loses: bool,
}

/// A world and who follows it, with what cannot be known.
struct Run {
    world: World,
    feed: Feed,
    kernel: Kernel,
    follower: Follower,
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
        let mut kernel = Kernel::new(world, seed, true);
        for _ in 0..kernel.chance.below(60) {
            kernel.step();
        }
        let mut follower = Follower::new(feed.has_records);
        follower.gather(&mut kernel);
        let mut base = 0;
        let mut members = BTreeSet::new();
        for (pid, process) in &kernel.processes {
            if follower.has(Identity { pid: *pid, start: process.start }) {
                base += process.own.hidden() + process.reaped.hidden();
                members.insert(process.book);
            }
        }
        for (index, book) in kernel.books.iter_mut().enumerate() {
            (book.of_tree, book.burnt, book.tail) = (members.contains(&index), 0, 0);
        }
        follower.seen.clear();
        (kernel.burnt, kernel.births, kernel.ends) = (0, 0, 0);
        kernel.goes_on = seed.is_multiple_of(2) && world != World::Crowded;
        let mut run = Self {
            world,
            feed,
            kernel,
            follower,
            base,
            lost: 0,
            uncounted: (0, 0),
            missed: BTreeSet::new(),
            found: BTreeSet::new(),
            is_unsure: false,
        };
        run.lost = run.unheard();
        run
    }

    /// Of those whose records came before the beginning: what is not seen of them any more.
    fn unheard(&self) -> u64 {
        self.kernel.processes.values().filter(|process| process.exiting).count() as u64 * 2 * TICK
    }

    /// What happens until the next gather.
    fn live(&mut self) {
        let Self { kernel, follower, .. } = self;
        let steps = if self.world == World::Crowded { 400 } else { 120 };
        let pause = [5, 40, 1000][usize::try_from(kernel.chance.below(3)).unwrap()];
        for _ in 0..kernel.chance.below(steps) {
            kernel.step();
            if kernel.chance.one_in(pause) {
                follower.drain(kernel);
            }
            if self.feed.loses && kernel.chance.one_in(400) {
                follower.lose(kernel);
            }
        }
    }

    fn gather(&mut self) -> Result<(), String> {
        let (before, births, ends) = (self.kernel.burnt, self.kernel.births, self.kernel.ends);
        self.follower.gather(&mut self.kernel);
        self.find();
        let Self { kernel, follower, .. } = self;
        let reported = follower.reported;
        // A child's life is held against who was its parent when that one was read. If that one goes away, and an ancestor
        // adopts the child and waits for it, all within one reading, then that is too much.
        if reported > kernel.burnt + self.base + kernel.twice {
            return Err(format!(
                "{reported} of {} ns: too much by {}",
                kernel.burnt + self.base,
                reported - kernel.burnt - self.base
            ));
        }
        let was_unsure = std::mem::replace(&mut self.is_unsure, follower.has_scanned);
        if follower.has_scanned {
            self.lost = kernel.burnt.saturating_sub(reported) + self.unheard();
        }
        self.miss(was_unsure)?;
        if self.feed.has_records {
            let least = before.saturating_sub(self.excused());
            if self.follower.reported < least {
                return Err(format!("{reported} of {before} ns, at least {least}: too little"));
            }
        }
        self.count(births, ends)?;
        self.forget()
    }

    /// Who was missed is found by a scan, and who was born to it: what they used may count then, or may not.
    fn find(&mut self) {
        let Self { kernel, follower, missed, .. } = self;
        for (pid, process) in kernel.processes.iter().filter(|_| follower.has_scanned) {
            let above = |book: &usize| kernel.books[*book].parent;
            let mut line = std::iter::successors(Some(process.book), above);
            let is_found = follower.has(Identity { pid: *pid, start: process.start });
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
        let Self { kernel, follower, missed, .. } = self;
        for (pid, process) in &kernel.processes {
            let book = &kernel.books[process.book];
            let has = follower.has(Identity { pid: *pid, start: process.start });
            if book.of_tree && book.born < kernel.era && !has {
                if !kernel.goes_on
                    && !was_unsure
                    && !self.is_unsure
                    && !is_excused(kernel, follower, missed, process.book)
                {
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

    /// What need not be reported, ns.
    fn excused(&self) -> u64 {
        let Self { world, kernel, follower, .. } = self;
        let mut excused = self.lost + follower.hidden;
        if matches!(world, World::Orderly | World::Adopting) {
            // Two texts in ticks, of what it has reaped, for each process that lives; and an orphan's life may be held against
            // two ancestors, by as much as a text can hide.
            excused += (2 * follower.member_count() + 2 * kernel.orphans) * TICK;
        }
        for (index, book) in kernel.books.iter().enumerate() {
            let seen = follower.seen.get(&index);
            let after = book.burnt - seen.copied().unwrap_or(0) + seen.map_or(0, |_| 2 * TICK);
            // Of one that is missed nothing more is told. Of one whose record comes late the end is told before it: it is gone
            // when that comes. Of one that went away just now it is told next time.
            let is_late = book.is_late && book.removed.is_some();
            if is_excused(kernel, follower, &self.missed, index) || is_late || book.removed == Some(kernel.era) {
                excused += after;
            } else if world.is_wild() && book.removed.is_some() {
                excused += book.tail;
            }
        }
        excused
    }

    fn count(&mut self, births: u64, ends: u64) -> Result<(), String> {
        let Self { kernel, follower, uncounted, .. } = self;
        let signed = |count: u64| i64::try_from(count).unwrap();
        let counted = (signed(follower.started), signed(follower.exited));
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
    fn forget(&self) -> Result<(), String> {
        if self.kernel.goes_on || !self.kernel.era.is_multiple_of(4) {
            return Ok(());
        }
        let journal = format!("{:?}", self.follower.journal);
        let empty = ["new: {}", "descent: {}", "unseen: {}", "records: []"];
        if empty.iter().all(|empty| journal.contains(empty)) { Ok(()) } else { Err(journal) }
    }
}

/// Whether somebody vanished before it could be read, or was born to one that did, and never seen.
fn is_excused(kernel: &Kernel, follower: &Follower, missed: &BTreeSet<usize>, book: usize) -> bool {
    if missed.contains(&book) || follower.vanished.contains_key(&book) {
        return true;
    }
    let of = &kernel.books[book];
    let Some(parent) = of.parent.filter(|_| !follower.seen.contains_key(&book)) else { return false };
    let since = follower.vanished.get(&parent).copied().unwrap_or(0);
    of.removed.is_none_or(|removed| removed + 1 >= since) && is_excused(kernel, follower, missed, parent)
}

/// Runs a world for some gathers. Returns what went wrong first, by kind, and how often.
fn run(world: World, feed: Feed) -> BTreeMap<String, (u64, String)> {
    let mut failures = BTreeMap::new();
    for seed in SEEDS {
        let mut run = Run::new(world, seed, feed);
        for gather in 0..12 {
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

const SEEDS: std::ops::Range<u64> = 0..240;
const WORLDS: [World; 4] = [World::Orderly, World::Adopting, World::Wild, World::Crowded];

fn all(feed: Feed) {
    let failures: Vec<_> = WORLDS.iter().flat_map(|world| run(*world, feed).into_values()).collect();
    assert!(failures.is_empty(), "{feed:?} {failures:#?}");
}

#[test]
fn everything_is_reported_once() {
    all(Feed { has_records: true, loses: false });
}

#[test]
fn what_is_lost_is_reported_at_most_once() {
    all(Feed { has_records: true, loses: true });
}

#[test]
fn without_records_nothing_is_reported_twice() {
    all(Feed { has_records: false, loses: false });
}
