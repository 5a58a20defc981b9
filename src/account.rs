//! The accounting rule: what the members of a tree used, those included that were born and died unseen.
//!
//! This is the only place where anything is subtracted, and it does no I/O. In short, for each process at each gather:
//!
//! ```text
//! own     utime + stime: what it used itself
//! reaped  cutime + cstime: the whole lives of the children it waited for, and what those had reaped
//! gone    the lives, as last seen, of its children that went away since the last gather
//! due   = owed + gone − Δreaped          used by the gone and not charged to it so far
//! used    what those had used that nobody has seen, by their records, if it is their nearest ancestor by birth
//! charge  Δown + max(0, −due) + used     only grows
//! owed  = min(max(0, due), slack)        what the kernel may still charge
//! ```
//!
//! A negative `due` is CPU of children never seen, or seen for the last time before they used it. A positive one was counted
//! while they lived and must not be counted again when it is charged.
//!
//! Whoever died below a parent that died as well may have been adopted by an ancestor first. Then that one is charged instead:
//! `raise_the_orphans`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use serde::{Deserialize, Serialize};

use crate::kernel::stat::{Identity, TICK};
use crate::processes::Presence;

/// What two texts in whole ticks (user and system time) can hide of a charge that the kernel has made.
const SLACK: u64 = 2 * TICK;

/// A process as read at one gather; times in ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Which process.
    pub id: Identity,
    /// Its parent's pid.
    pub ppid: u32,
    /// The pid of its nearest ancestor by birth, if it was born since the last gather and has another parent by now; else its
    /// parent's.
    pub origin: u32,
    /// A lower bound of what it has used itself.
    pub own: u64,
    /// What the kernel has charged it for children it waited for.
    pub reaped: u64,
    /// Whether it is dead and waits to be reaped: it reaps nobody any more.
    pub zombie: bool,
    /// Whether it was born since the last gather: then all of it counts, else a first sight counts nothing.
    pub newborn: bool,
    /// Whether it could not be read this time and is as it was: what is owed then waits for the next gather.
    pub stale: bool,
}

/// What a process is charged at one gather, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// Used by itself.
    pub own: u64,
    /// Used by children that were never seen, or after they were last seen.
    pub reaped: u64,
}

impl Charge {
    /// All of it.
    #[must_use]
    pub fn total(self) -> u64 {
        self.own.saturating_add(self.reaped)
    }
}

/// The last that is known of a process that is gone: its exit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastSight {
    /// Which process.
    pub id: Identity,
    /// Its parent when it died, who is charged if it waits for it. 0: it has none.
    pub ppid: u32,
    /// A lower bound of what it had used itself, ns.
    pub own: u64,
    /// Whether it was born since the last gather.
    pub newborn: bool,
}

/// What was used below a process by those who were born and died since the last gather, of whom nothing but their exit records
/// was ever seen; ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unseen {
    /// The process.
    pub id: Identity,
    /// What those had used whose nearest ancestor by birth it is.
    pub used: u64,
    /// The lives of those whose parent it was when they died: the kernel has charged it for them, or never will.
    pub lives: u64,
    /// The part of `lives` that came through one that is gone too.
    pub orphaned: u64,
    /// The part of `lives` whose charge may not show yet.
    pub late: u64,
    /// Whether an orphan was seen to have become its child.
    pub adopts: bool,
}

/// What exit records tell of the dead, each sorted by pid. A scan knows nothing of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deaths {
    /// Of those that were seen before.
    pub last: Vec<LastSight>,
    /// Of those that were not.
    pub unseen: Vec<Unseen>,
}

impl Deaths {
    /// What was used by those whose nearest ancestor by birth is this process.
    fn used_below(&self, id: Identity) -> u64 {
        let index = self.unseen.binary_search_by_key(&id, |unseen| unseen.id);
        index.ok().and_then(|index| self.unseen.get(index)).map_or(0, |unseen| unseen.used)
    }
}

/// What processes are charged at one gather.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Charges {
    /// Those that were seen now, in their order.
    pub living: Vec<Charge>,
    /// Those that are gone and had an account, or have left somebody, sorted by pid.
    pub gone: Vec<(Identity, Charge)>,
}

/// One process's balance with the rule, ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Balance {
    own: u64,
    reaped: u64,
    owed: u64,
    /// CPU of orphans, already counted, that the kernel may charge to this process if it was the adopter. Unlike `owed`, it is no part of
    /// its life.
    #[serde(default)]
    doubt: u64,
    /// The part of `owed` that every ancestor has in doubt. Once the life of this process is passed on, whoever gets it owes that
    /// part as well, and the ancestors' doubt is over.
    #[serde(default)]
    raised: u64,
}

/// What went away below a process since the last gather, to be met with the next Δreaped; ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Loss {
    /// The lives of its children.
    gone: u64,
    /// The part of `gone` whose charge the next Δreaped may not contain yet.
    late: u64,
    /// The part of `gone` that exit records told of.
    told: u64,
    /// The part of `gone` that came through a child that is gone too: perhaps it was orphaned first, and an ancestor that adopts orphans
    /// (a subreaper) was charged for it.
    orphaned: u64,
    /// The part of `orphaned` that exit records told of.
    orphaned_told: u64,
    /// The lives of orphans that were lost below another process.
    doubt: u64,
    /// The part of `doubt` whose charge the next Δreaped may not contain yet.
    doubt_late: u64,
    /// The part of `late` that every ancestor has in doubt from now on.
    raised: u64,
    /// Doubt of earlier gathers that is over.
    resolved: u64,
}

impl Loss {
    fn add(&mut self, other: Self) {
        self.gone = self.gone.saturating_add(other.gone);
        self.late = self.late.saturating_add(other.late);
        self.told = self.told.saturating_add(other.told);
        self.orphaned = self.orphaned.saturating_add(other.orphaned);
        self.orphaned_told = self.orphaned_told.saturating_add(other.orphaned_told);
        self.doubt = self.doubt.saturating_add(other.doubt);
        self.doubt_late = self.doubt_late.saturating_add(other.doubt_late);
        self.raised = self.raised.saturating_add(other.raised);
        self.resolved = self.resolved.saturating_add(other.resolved);
    }

    /// That of a child's life, of which a record may have told.
    fn of(child: Balance, lost: Self, late: bool, is_told: bool) -> Self {
        let life = child.life(lost);
        let told = if is_told { life.saturating_sub(lost.gone) } else { 0 };
        Self {
            gone: life,
            late: if late { life } else { lost.late },
            told: told.saturating_add(lost.told),
            orphaned: lost.gone.saturating_add(child.raised),
            orphaned_told: lost.told,
            resolved: lost.resolved.saturating_add(child.raised),
            ..Self::default()
        }
    }
}

/// The lives of orphans that were lost below a process, for whom an ancestor may have been charged instead; ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Orphans {
    /// Records told of them, and whoever was charged for them shows it, but for rounding.
    certain: u64,
    /// No record told of them, or the charge may not show yet.
    doubtful: u64,
    /// The part of all whose charge may not show yet.
    late: u64,
}

impl Orphans {
    fn are_none(self) -> bool {
        self.certain == 0 && self.doubtful == 0
    }

    /// Meets an ancestor that was charged for something of which nothing else is known. Returns what is not lost below the process any more,
    /// and what is below the ancestor.
    fn meet(&mut self, excess: u64, adopts: bool) -> (u64, Loss) {
        let doubtful = self.doubtful.min(excess);
        let shown = self.certain.min(excess - doubtful);
        self.doubtful -= doubtful;
        self.certain -= shown;
        let (gone, left) = (doubtful.saturating_add(shown), self.doubtful);
        if !adopts {
            return (shown, Loss { gone, doubt: left, doubt_late: self.late.min(left), ..Loss::default() });
        }
        // What does not show yet will show here, unless the adopter was exiting, so that an orphan went further up.
        let certain = std::mem::take(&mut self.certain);
        let gone = gone.saturating_add(certain).saturating_add(left);
        (shown.saturating_add(certain), Loss { gone, late: self.late.min(gone), ..Loss::default() })
    }
}

impl Balance {
    /// What the parent is charged when this process is reaped, so far as it is known: with what was counted of its
    /// children and did not show in its own text yet.
    fn life(self, lost: Loss) -> u64 {
        self.own.saturating_add(self.reaped).saturating_add(self.owed).saturating_add(lost.gone)
    }

    /// What is used by the gone and not charged to this process, as of a reading.
    fn due(self, lost: Loss, reaped: u64) -> u64 {
        (self.owed.saturating_add(lost.gone)).saturating_sub(reaped.saturating_sub(self.reaped))
    }

    /// What this process is charged, as of a reading, beyond what is known to be due.
    fn excess(self, lost: Loss, reaped: u64) -> u64 {
        reaped.saturating_sub(self.reaped).saturating_sub(self.owed.saturating_add(lost.gone))
    }

    /// Returns the orphans for whom an ancestor may have been charged instead of this process.
    ///
    /// Records do not say who waited for an orphan. What two texts can hide may only be hidden, so that much is taken as due here, unless an
    /// ancestor is known to adopt.
    fn orphans(self, lost: Loss, sight: &Sight, is_adopter_above: impl FnOnce() -> bool) -> Orphans {
        let due = self.due(lost, sight.reaped);
        let (orphaned, told) = if sight.zombie { (lost.gone, lost.told) } else { (lost.orphaned, lost.orphaned_told) };
        if due.min(orphaned) == 0 {
            return Orphans::default();
        }
        let untold = orphaned.saturating_sub(told);
        let hidden = if is_adopter_above() { 0 } else { SLACK };
        let all = due.min(untold.saturating_add(told.min(due.saturating_sub(hidden))));
        let doubtful = all.min(untold.max(lost.late));
        Orphans { certain: all - doubtful, doubtful, late: lost.late }
    }

    /// The rule. Returns the charge.
    fn settle(&mut self, lost: Loss, own: u64, reaped: u64, stale: bool) -> Charge {
        let own = own.max(self.own);
        let reaped = reaped.max(self.reaped);
        let used = own - self.own;
        let unseen = self.excess(lost, reaped);
        let doubt = self.doubt.saturating_sub(lost.resolved).saturating_add(lost.doubt);
        let (counted, doubt) = (unseen.saturating_sub(doubt), doubt.saturating_sub(unseen));
        let due = self.due(lost, reaped);
        // Together no more than two texts can hide.
        let remembered = |due: u64, late, besides| {
            let hidden = SLACK.saturating_sub(besides);
            if stale { due } else { due.min(hidden.saturating_add(late)) }
        };
        let owed = remembered(due, lost.late, 0);
        let raised = lost.raised.min(owed);
        *self = Self { own, reaped, owed, doubt: remembered(doubt, lost.doubt_late, owed), raised };
        Charge { own: used, reaped: counted }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    id: Identity,
    ppid: u32,
    cpu: Balance,
    /// Whether an orphan was seen to have become its child.
    #[serde(default)]
    adopts: bool,
}

impl Account {
    /// That of a process at its first sight.
    fn of(sight: &Sight) -> Self {
        let cpu = Balance { own: sight.own, reaped: sight.reaped, ..Balance::default() };
        Self { id: sight.id, ppid: sight.ppid, cpu, adopts: false }
    }
}

/// How many ancestors of each account have accounts, so far as that was asked for.
struct Depths(Vec<Option<u32>>);

impl Depths {
    fn of(ledger: &Ledger) -> Self {
        Self(vec![None; ledger.accounts.len()])
    }

    /// That of one account, whose ancestors' are known from then on. Bounded, since what is read of /proc is no snapshot and might in
    /// theory go round in a circle.
    fn get(&mut self, index: usize, ledger: &Ledger) -> u32 {
        let mut unknown = Vec::new();
        let mut next = Some(index);
        let mut depth = 0;
        while let Some(index) = next {
            let Some(known) = self.0.get_mut(index) else { break };
            if let Some(known) = known {
                depth = known.saturating_add(1);
                break;
            }
            *known = Some(0); // if this one is met again, it is a circle
            unknown.push(index);
            next = ledger.parent(index);
        }
        for index in unknown.into_iter().rev() {
            if let Some(known) = self.0.get_mut(index) {
                *known = Some(depth);
            }
            depth = depth.saturating_add(1);
        }
        self.0.get(index).copied().flatten().unwrap_or_default()
    }
}

/// The accounts of all members, whatever series they are in: a process is accounted once.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Sorted by pid.
    accounts: Vec<Account>,
    /// By place in `accounts`. None between two gathers.
    #[serde(skip)]
    losses: BTreeMap<usize, Loss>,
}

impl Ledger {
    /// One gather: `sights` are the members now, sorted by pid; `presence` tells what became of one that is not among them, and
    /// `deaths` what it had used in the end, so far as that is known. Returns what is charged to each, ns.
    ///
    /// A process that exists and is not a member any more is forgotten.
    pub fn settle(
        &mut self,
        sights: &[Sight],
        deaths: &Deaths,
        presence: impl Fn(Identity) -> Presence + Copy,
    ) -> Charges {
        let newborn = sights.iter().filter(|sight| sight.newborn).map(|sight| (sight.id, sight.origin));
        let dead_newborn = deaths.last.iter().filter(|last| last.newborn).map(|last| (last.id, last.ppid));
        self.open_accounts(newborn.chain(dead_newborn));
        self.note_adopters(sights, deaths);
        let gone = self.take_last_sights(deaths, presence);
        for Unseen { id, lives: gone, orphaned, late, .. } in deaths.unseen.iter().copied() {
            if let Some(place) = self.place(id) {
                self.lose(place, Loss { gone, late, told: gone, orphaned, orphaned_told: orphaned, ..Loss::default() });
            }
        }
        let mut depths = Depths::of(self);
        self.bury_the_dead(deaths, presence, &mut depths);
        self.resolve_doubts(sights);
        self.raise_the_orphans(sights, &mut depths);
        let living = sights.iter().map(|sight| {
            let Some(place) = self.place(sight.id) else { return Charge::default() };
            let lost = self.losses.remove(&place).unwrap_or_default();
            let Some(account) = self.accounts.get_mut(place) else { return Charge::default() };
            account.ppid = sight.ppid;
            let mut charge = account.cpu.settle(lost, sight.own, sight.reaped, sight.stale);
            charge.reaped = charge.reaped.saturating_add(deaths.used_below(sight.id));
            charge
        });
        let living = living.collect();
        self.losses.clear();
        self.keep(sights);
        Charges { living, gone }
    }

    /// Opens an account for each that was born since, under whoever was above it then: it may have lost children that others have
    /// known, and these may have been adopted by those between that one and its parent.
    fn open_accounts(&mut self, newborn: impl Iterator<Item = (Identity, u32)>) {
        let before = self.accounts.len();
        for (id, ppid) in newborn {
            let known = self.accounts.get(..before).unwrap_or_default();
            if known.binary_search_by_key(&id, |account| account.id).is_err() {
                self.accounts.push(Account { id, ppid, cpu: Balance::default(), adopts: false });
            }
        }
        if self.accounts.len() > before {
            self.accounts.sort_unstable_by_key(|account| account.id);
        }
    }

    /// Notes who has another parent than before: that one adopts orphans.
    fn note_adopters(&mut self, sights: &[Sight], deaths: &Deaths) {
        let now = sights.iter().map(|sight| (sight.id, sight.ppid));
        let now = now.chain(deaths.last.iter().map(|last| (last.id, last.ppid)));
        let adopted = now.filter(|(id, ppid)| {
            self.place(*id).and_then(|place| self.accounts.get(place)).is_some_and(|account| account.ppid != *ppid)
        });
        let adopters: Vec<_> = adopted.filter_map(|(id, ppid)| self.index(ppid, id.start)).collect();
        let unseen = deaths.unseen.iter().filter(|unseen| unseen.adopts);
        let unseen: Vec<_> = unseen.filter_map(|unseen| self.place(unseen.id)).collect();
        for place in adopters.into_iter().chain(unseen) {
            if let Some(account) = self.accounts.get_mut(place) {
                account.adopts = true;
            }
        }
    }

    /// Closes all accounts but one for each of `sights`, and opens those that there are not.
    fn keep(&mut self, sights: &[Sight]) {
        let mut living = sights.iter().peekable();
        self.accounts.retain(|account| {
            while living.next_if(|sight| sight.id < account.id).is_some() {}
            living.next_if(|sight| sight.id == account.id).is_some()
        });
        if self.accounts.len() < sights.len() {
            let first = sights.iter().filter(|sight| !self.knows(sight.id)).map(Account::of).collect::<Vec<_>>();
            self.accounts.extend(first);
            self.accounts.sort_unstable_by_key(|account| account.id);
        }
        self.accounts.shrink_to_fit();
    }

    /// Brings the accounts of those that are gone up to their end. Returns what they are charged.
    fn take_last_sights(
        &mut self,
        deaths: &Deaths,
        presence: impl Fn(Identity) -> Presence,
    ) -> Vec<(Identity, Charge)> {
        let mut gone = Vec::new();
        for last in deaths.last.iter().filter(|last| presence(last.id) != Presence::Here) {
            let reaped = deaths.used_below(last.id);
            if let Some(account) = self.place(last.id).and_then(|place| self.accounts.get_mut(place)) {
                let own = last.own.saturating_sub(account.cpu.own);
                account.cpu.own = account.cpu.own.saturating_add(own);
                account.ppid = last.ppid;
                gone.push((last.id, Charge { own, reaped }));
            }
        }
        // Who was gone at the gather before may have left somebody, as a daemon that walks does, and has no account any more.
        let is_charged = |id: Identity| gone.binary_search_by_key(&id, |(id, _)| *id).is_ok();
        let left =
            deaths.unseen.iter().filter(|unseen| presence(unseen.id) != Presence::Here && !is_charged(unseen.id));
        let left: Vec<_> = left.map(|unseen| (unseen.id, Charge { own: 0, reaped: unseen.used })).collect();
        gone.extend(left);
        gone.sort_unstable_by_key(|(id, _)| *id);
        gone
    }

    /// Whether this process had an account after the last gather.
    #[must_use]
    pub fn knows(&self, id: Identity) -> bool {
        self.place(id).is_some()
    }

    /// Something went away below one of them.
    fn lose(&mut self, place: usize, loss: Loss) {
        self.losses.entry(place).or_default().add(loss);
    }

    /// Passes the life of each member that is gone to its parent, deepest first, so that a life goes up through parents
    /// that died with their children to the one that lives, if it is a member.
    fn bury_the_dead(&mut self, deaths: &Deaths, presence: impl Fn(Identity) -> Presence, depths: &mut Depths) {
        let fates = self.accounts.iter().map(|account| presence(account.id)).enumerate();
        let dead = fates.filter(|(_, fate)| *fate != Presence::Here);
        let mut dead: Vec<_> = dead.map(|(index, fate)| (depths.get(index, self), index, fate)).collect();
        dead.sort_unstable_by_key(|(depth, index, _)| Reverse((*depth, *index)));
        for (_, index, fate) in dead {
            let Some(Account { id, cpu, .. }) = self.accounts.get(index).copied() else { continue };
            if let Some(parent) = self.parent(index) {
                let lost = self.losses.get(&index).copied().unwrap_or_default();
                let is_told = deaths.last.binary_search_by_key(&id, |last| last.id).is_ok();
                self.lose(parent, Loss::of(cpu, lost, fate == Presence::Vanished, is_told));
            }
        }
    }

    /// Tells all ancestors of those who were passed lives on whose account they had doubts.
    fn resolve_doubts(&mut self, sights: &[Sight]) {
        let resolved =
            self.losses.iter().filter(|(index, lost)| lost.resolved > 0 && self.sight(**index, sights).is_some());
        let resolved: Vec<_> = resolved.map(|(index, lost)| (*index, lost.resolved)).collect();
        for (index, resolved) in resolved {
            let above: Vec<_> = self.above(index).take(self.accounts.len()).collect();
            above.into_iter().for_each(|above| self.lose(above, Loss { resolved, ..Loss::default() }));
        }
    }

    /// Moves what an ancestor may have been charged for to it, from the deepest on.
    ///
    /// Without this, a tree that dies at once below a subreaper would count twice: as last seen, a grandchild's life goes to
    /// the parent of its dead parent; the kernel charges it to the subreaper. Whoever was charged, it is an ancestor as of the
    /// last gather: orphans only ever go to one. It is the one with a charge of which nothing else is known. If the charge may come
    /// later, every ancestor waits for it: the sum may be too low, never too high.
    fn raise_the_orphans(&mut self, sights: &[Sight], depths: &mut Depths) {
        let lost = self.losses.iter().filter(|(_, lost)| lost.gone > 0).map(|(index, _)| *index);
        let mut losers: Vec<_> = lost.map(|index| (depths.get(index, self), index)).collect();
        losers.sort_unstable_by(|a, b| b.cmp(a));
        let is_any_adopter = self.accounts.iter().any(|account| account.adopts);
        for (depth, index) in losers {
            let Some(sight) = self.sight(index, sights) else { continue };
            let Some(Account { cpu, .. }) = self.accounts.get(index).copied() else { continue };
            let lost = self.losses.get(&index).copied().unwrap_or_default();
            let depth = depth as usize;
            let is_adopter_above =
                || is_any_adopter && self.above(index).take(depth).any(|above| self.adopts(above, sights));
            let mut orphans = cpu.orphans(lost, sight, is_adopter_above);
            let mut next = self.parent(index);
            for _ in 0..depth {
                let Some(above) = next.filter(|_| !orphans.are_none()) else { break };
                next = self.parent(above);
                let Some(sight) = self.sight(above, sights) else { continue };
                let Some(Account { cpu, .. }) = self.accounts.get(above).copied() else { continue };
                let lost = self.losses.get(&above).copied().unwrap_or_default();
                let adopts = self.adopts(above, sights);
                let (moved, loss) = orphans.meet(cpu.excess(lost, sight.reaped), adopts);
                self.lose(above, loss);
                if let Some(lost) = self.losses.get_mut(&index) {
                    lost.gone = lost.gone.saturating_sub(moved);
                }
            }
            if let Some(lost) = self.losses.get_mut(&index) {
                lost.raised = orphans.doubtful.min(orphans.late);
            }
        }
    }

    /// Whether a member was seen to adopt orphans, and is alive to do so.
    fn adopts(&self, index: usize, sights: &[Sight]) -> bool {
        let is_known = self.accounts.get(index).is_some_and(|account| account.adopts);
        is_known && self.sight(index, sights).is_some_and(|sight| !sight.zombie)
    }

    /// The sight of a member that is still one.
    fn sight<'a>(&self, index: usize, sights: &'a [Sight]) -> Option<&'a Sight> {
        let id = self.accounts.get(index)?.id;
        let found = sights.binary_search_by_key(&id, |sight| sight.id).ok()?;
        sights.get(found)
    }

    /// The ancestors of a member, nearest first.
    fn above(&self, index: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.parent(index), |above| self.parent(*above))
    }

    /// The account of a member's parent.
    fn parent(&self, index: usize) -> Option<usize> {
        let Account { id, ppid, .. } = self.accounts.get(index)?;
        self.index(*ppid, id.start)
    }

    /// The account of the parent, with this pid, of who started then. Where several have had the pid since the last gather, it is the
    /// last one that started before.
    fn index(&self, pid: u32, start: u64) -> Option<usize> {
        let end = self.accounts.partition_point(|account| account.id <= Identity { pid, start });
        let has_pid = |index: &usize| self.accounts.get(*index).is_some_and(|account| account.id.pid == pid);
        end.checked_sub(1).filter(has_pid).or(Some(end).filter(has_pid))
    }

    /// Where the account of this process is.
    fn place(&self, id: Identity) -> Option<usize> {
        self.accounts.binary_search_by_key(&id, |account| account.id).ok()
    }
}

/// Something that only counts up: what lies between two readings was gained, and gains add up.
pub trait Counter: Clone + Default {
    /// What was gained since an earlier reading. What fell has gained nothing.
    #[must_use]
    fn since(&self, earlier: &Self) -> Self;

    /// Takes in what was gained.
    fn add(&mut self, gained: &Self);
}

/// What became of reading something of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was read.
    Known(T),
    /// The process has gone since it was seen: what was last read stands.
    Gone,
    /// It could not be read.
    Unknown,
}

/// One process's plain counters, which nobody is charged for when it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted<T> {
    id: Identity,
    /// As last read, if ever.
    value: Option<T>,
    /// As it was when it was first read, and all that it gained since: what is read may fall, this does not.
    total: T,
    /// Gained since the last gather.
    #[serde(skip)]
    gained: T,
    /// Whether nothing can be said of it now.
    #[serde(skip)]
    unknown: bool,
}

/// Takes what was remembered of a process, of what is sorted by pid, as are those that are asked for one after the other.
pub fn take_known<T>(before: &mut Peekable<IntoIter<T>>, id: Identity, id_of: impl Fn(&T) -> Identity) -> Option<T> {
    while before.next_if(|known| id_of(known) < id).is_some() {}
    before.next_if(|known| id_of(known) == id)
}

/// The plain counters of processes, whatever series they are in.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "T: Counter + Serialize + serde::de::DeserializeOwned")]
pub struct Counters<T> {
    /// Sorted by pid.
    all: Vec<Counted<T>>,
}

impl<T: Counter> Counters<T> {
    /// One gather: of each process, sorted by pid, whether it was born since the last gather, and what was read. All others are
    /// forgotten. A first sight counts in full if the process was born since, else not at all.
    pub fn settle(&mut self, outcomes: impl IntoIterator<Item = (Identity, bool, Outcome<T>)>) {
        let mut before = std::mem::take(&mut self.all).into_iter().peekable();
        self.all.extend(outcomes.into_iter().map(|(id, newborn, outcome)| {
            let (earlier, mut total) = match take_known(&mut before, id, |counted| counted.id) {
                Some(Counted { value, total, .. }) => (value, total),
                None => (None, T::default()),
            };
            let unknown = matches!(outcome, Outcome::Unknown);
            let (value, gained) = match (outcome, earlier) {
                (Outcome::Known(value), Some(earlier)) => {
                    let gained = value.since(&earlier);
                    total.add(&gained);
                    (Some(value), gained)
                }
                (Outcome::Known(value), None) => {
                    total = value.clone();
                    let gained = if newborn { value.clone() } else { value.since(&value) };
                    (Some(value), gained)
                }
                (Outcome::Gone | Outcome::Unknown, earlier) => (earlier, T::default()),
            };
            Counted { id, value, total, gained, unknown }
        }));
    }

    /// What was last read of a process.
    #[must_use]
    pub fn last(&self, id: Identity) -> Option<&T> {
        self.get(id)?.value.as_ref()
    }

    /// All that a process has counted, unless it could not be read now: never falls.
    #[must_use]
    pub fn total(&self, id: Identity) -> Option<&T> {
        let counted = self.get(id).filter(|counted| !counted.unknown && counted.value.is_some())?;
        Some(&counted.total)
    }

    fn get(&self, id: Identity) -> Option<&Counted<T>> {
        let index = self.all.binary_search_by_key(&id, |counted| counted.id).ok()?;
        self.all.get(index)
    }
}

/// A counter of a series: what its members have gained while they were members. It goes on when they are gone.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally<T> {
    total: T,
    /// Whether it could not be read of some member now.
    unknown: bool,
}

impl<T: Counter> Tally<T> {
    /// One gather: the members, and whether what each gained since the last gather counts.
    pub fn take_in(&mut self, members: &[(Identity, bool)], counters: &Counters<T>) {
        self.unknown = false;
        for (id, counts) in members {
            match counters.get(*id) {
                Some(counted) if !counted.unknown && *counts => self.total.add(&counted.gained),
                // Nothing of it, but of all that it counts.
                Some(counted) if !counted.unknown => self.total.add(&counted.gained.since(&counted.gained)),
                _ => self.unknown = true,
            }
        }
    }

    /// Takes in what was gained by those that have no counter of their own.
    pub fn credit(&mut self, gained: &T) {
        self.total.add(gained);
    }

    /// The total, unless it could not be read of some member.
    #[must_use]
    pub fn total(&self) -> Option<&T> {
        Some(&self.total).filter(|_| !self.unknown)
    }
}

/// A counter of CPU: what the members of a series were charged, and the cgroups that carry it for them. ns.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTime {
    total: u64,
    cgroups: CgroupMeter,
}

impl CpuTime {
    /// Takes in what members were charged since the last gather.
    pub fn credit(&mut self, charge: u64) {
        self.total = self.total.saturating_add(charge);
    }

    /// Takes in what cgroups used: see [`CgroupMeter::settle`].
    pub fn meter(&mut self, usages: Vec<(u64, u64)>, all: bool, first: bool) {
        let charge = self.cgroups.settle(usages, all, first);
        self.credit(charge);
    }

    /// All of it; only grows.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// The CPU of a series' cgroups: each is its inode, and the kernel's own counter says what it used, its dead included.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMeter {
    /// inode and usage (ns) of each, as of the last gather.
    usages: Vec<(u64, u64)>,
}

impl CgroupMeter {
    /// One gather: inode and usage of each cgroup now. A cgroup that was not there at the last gather started at 0
    /// since, and counts in full, unless this is the first time that these cgroups are looked at. If they are not all of them,
    /// since some could not be read, those are remembered. Returns the charge, ns.
    pub fn settle(&mut self, mut usages: Vec<(u64, u64)>, all: bool, first: bool) -> u64 {
        let before = |inode| self.usages.iter().find(|(known, _)| *known == inode).map(|(_, usage)| *usage);
        let charge = usages.iter().map(|(inode, usage)| match before(*inode) {
            Some(before) => usage.saturating_sub(before),
            None if first => 0,
            None => *usage,
        });
        let charge = charge.fold(0, u64::saturating_add);
        if !all {
            let unread = self.usages.iter().filter(|(known, _)| !usages.iter().any(|(inode, _)| inode == known));
            let unread: Vec<_> = unread.copied().collect();
            usages.extend(unread);
        }
        self.usages = usages;
        charge
    }
}

/// A part of a whole that is not 0.
#[must_use]
#[allow(clippy::cast_precision_loss)] // below 2^53: ns of an interval are so for 104 days, bytes for ever
pub fn share(part: u64, of: u64) -> f64 {
    part as f64 / of as f64
}

/// A counter's rate between two emissions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// The counter and CLOCK_MONOTONIC (ns) when it was last emitted.
    base: Option<(u64, u64)>,
}

impl Rate {
    /// Shortest interval that gives a rate, ns: below it, the ticks of /proc are too coarse.
    pub const SHORTEST: u64 = 100_000_000;

    /// A rate whose first interval began at `at` with the counter at 0.
    #[must_use]
    pub fn since(at: u64) -> Self {
        Self { base: Some((0, at)) }
    }

    /// The counter's growth per ns since the last time, and how many ns that was; and the new base. After less than
    /// [`Rate::SHORTEST`], nothing, and the old base stays.
    pub fn next(&mut self, counter: u64, at: u64) -> Option<(f64, u64)> {
        let (before, since) = self.base?;
        let elapsed = at.checked_sub(since).filter(|elapsed| *elapsed >= Self::SHORTEST)?;
        self.base = Some((counter, at));
        Some((share(counter.checked_sub(before)?, elapsed), elapsed))
    }

    /// Begins the first interval, unless one is running.
    pub fn begin(&mut self, counter: u64, at: u64) {
        self.base.get_or_insert((counter, at));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn id(pid: u32) -> Identity {
        Identity { pid, start: u64::from(pid) }
    }

    /// A process seen before: pid, parent, own and reaped in ms.
    fn old(pid: u32, ppid: u32, own: u64, reaped: u64) -> Sight {
        let (own, reaped) = (own * MS, reaped * MS);
        Sight { id: id(pid), ppid, origin: ppid, own, reaped, zombie: false, newborn: false, stale: false }
    }

    fn newborn(pid: u32, ppid: u32, own: u64, reaped: u64) -> Sight {
        Sight { newborn: true, ..old(pid, ppid, own, reaped) }
    }

    /// One gather: the members now, and the pids that vanished between listing and reading. The charges in ms.
    fn gather(ledger: &mut Ledger, sights: &[Sight], vanished: &[u32]) -> Vec<u64> {
        let presence = |id: Identity| match sights.iter().any(|sight| sight.id == id) {
            true => Presence::Here,
            false if vanished.contains(&id.pid) => Presence::Vanished,
            false => Presence::Gone,
        };
        let charges = ledger.settle(sights, &Deaths::default(), presence);
        charges.living.into_iter().map(|charge| charge.total() / MS).collect()
    }

    #[test]
    fn a_first_sight_counts_in_full_only_if_it_is_newborn() {
        let mut ledger = Ledger::default();
        assert_eq!(gather(&mut ledger, &[old(1, 0, 500, 300), newborn(2, 1, 7, 5)], &[]), [0, 12]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 510, 300), old(2, 1, 7, 5)], &[]), [10, 0]);
    }

    #[test]
    fn children_never_seen_are_what_their_parent_is_charged() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0)], &[]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 10, 90)], &[]), [100]);
    }

    #[test]
    fn a_life_seen_is_not_counted_again_when_it_is_charged() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 40, 0)], &[]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 100, 0)], &[]), [0, 60]);
        // 5 ms more before it died, and 30 ms of children never seen
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 135)], &[]), [35]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 135)], &[]), [0]);
    }

    /// As of a daemon that walks: the child forks on, and dies before the next gather.
    #[test]
    fn what_the_child_of_one_that_vanished_has_used_counts_though_neither_was_seen() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0)], &[2]);
        let unseen = vec![Unseen { id: id(2), used: 30 * MS, lives: 0, orphaned: 0, late: 0, adopts: false }];
        let deaths = Deaths { last: Vec::new(), unseen };
        let presence = |of| if of == id(1) { Presence::Here } else { Presence::Gone };
        let charges = ledger.settle(&[old(1, 0, 0, 0)], &deaths, presence);
        assert_eq!(charges.gone, [(id(2), Charge { own: 0, reaped: 30 * MS })]);
    }

    #[test]
    fn a_charge_hidden_by_rounding_is_owed_and_one_that_never_comes_is_forgotten() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0), newborn(2, 1, 15, 0), newborn(3, 1, 500, 0)], &[]);
        // 2 is reaped: the text shows 10 of its 15 ms, the other 5 come with the next tick
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 10), old(3, 1, 500, 0)], &[]), [0, 0]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 20), old(3, 1, 500, 0)], &[]), [5, 0]);
        // 3 is reaped by nobody: its 500 ms mask the 100 ms of this interval, and 20 ms of the next
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 120)], &[]), [0]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 220)], &[]), [80]);
    }

    #[test]
    fn the_dead_are_settled_deepest_first_up_to_the_living() {
        let mut ledger = Ledger::default();
        let tree = [old(1, 0, 0, 0), old(2, 1, 50, 0), old(3, 2, 70, 0), old(4, 3, 90, 0)];
        gather(&mut ledger, &tree, &[]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 211)], &[]), [1]);
    }

    #[test]
    fn orphans_that_an_ancestor_adopted_are_not_counted_again() {
        let mut ledger = Ledger::default();
        // 1 adopts orphans; 3 and its child 4 die at once: 2 is charged for 3, 1 for 4
        let tree = [old(1, 0, 0, 0), old(2, 1, 0, 0), old(3, 2, 70, 0), old(4, 3, 9000, 0)];
        gather(&mut ledger, &tree, &[]);
        let charges = gather(&mut ledger, &[old(1, 0, 0, 9001), old(2, 1, 0, 72)], &[]);
        assert_eq!(charges.iter().sum::<u64>(), 3);
    }

    #[test]
    fn a_zombie_reaps_nobody_so_its_orphans_are_charged_above_it() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 0, 0), old(3, 2, 9000, 0)], &[]);
        let dead = Sight { zombie: true, ..old(2, 1, 0, 0) };
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 9001), dead], &[]), [1, 0]);
    }

    #[test]
    fn depth_is_told_by_parents_not_by_pids() {
        let mut ledger = Ledger::default();
        let tree = [old(2, 9, 50, 0), old(5, 7, 90, 0), old(7, 2, 70, 0), old(9, 0, 0, 0)];
        gather(&mut ledger, &tree, &[]);
        assert_eq!(gather(&mut ledger, &[old(9, 0, 0, 211)], &[]), [1]);
    }

    /// Told at a worker: 30 ms of shells, of which 20 came through one that is gone. The worker's text shows 20 of them, and its parent is
    /// charged for 10 ms of which nothing is known.
    #[test]
    fn what_texts_hide_is_looked_for_above_only_if_somebody_adopts_there() {
        for (adopts, above) in [(false, 10), (true, 0)] {
            let mut ledger = Ledger::default();
            gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 0, 0)], &[]);
            let told = |pid, lives, adopts| {
                let (lives, orphaned) = (lives * MS, lives * MS * 2 / 3);
                Unseen { id: id(pid), used: lives, lives, orphaned, late: 0, adopts }
            };
            let deaths = Deaths { last: Vec::new(), unseen: vec![told(1, 0, adopts), told(2, 30, false)] };
            let charges = ledger.settle(&[old(1, 0, 0, 10), old(2, 1, 0, 20)], &deaths, |_| Presence::Here);
            let reaped: Vec<_> = charges.living.iter().map(|charge| charge.reaped / MS).collect();
            assert_eq!(reaped, [above, 30], "{adopts}");
        }
    }

    #[test]
    fn a_deep_chain_whose_pids_wrapped_is_charged_once() {
        const DEEP: u32 = 3000;
        // From the top: 1500, 1499, … 1, 3000, 2999, …
        let pid = |depth: u32| (2 * DEEP - depth + DEEP / 2 - 1) % DEEP + 1;
        let link = |depth: u32| {
            let parent = if depth == 0 { 9999 } else { pid(depth - 1) };
            Sight { id: Identity { pid: pid(depth), start: u64::from(depth) }, ..old(1, parent, 2, 0) }
        };
        let root = |reaped| Sight { id: Identity { pid: 9999, start: 0 }, ..old(1, 0, 0, reaped) };
        let mut all: Vec<_> = (0..DEEP).map(link).chain([root(0)]).collect();
        all.sort_unstable_by_key(|sight| sight.id);
        let mut ledger = Ledger::default();
        gather(&mut ledger, &all, &[]);
        assert_eq!(gather(&mut ledger, &[root(u64::from(DEEP) * 2 + 7)], &[]), [7]);
    }

    /// The lower half vanishes at one gather, the upper half is gone at the next, and 10 s of children that nobody has seen are charged: all
    /// of it counts: the lower half, which was in doubt above, came up with the life of the upper one.
    #[test]
    fn a_chain_that_dies_while_it_is_read_is_owed_once() {
        let chain = |from: u32, to: u32| (from..to).map(|pid| old(pid, pid - 1, 50, 0));
        let mut ledger = Ledger::default();
        gather(&mut ledger, &chain(1, 101).collect::<Vec<_>>(), &[]);
        let vanished: Vec<_> = (51..101).collect();
        assert_eq!(gather(&mut ledger, &chain(1, 51).collect::<Vec<_>>(), &vanished).iter().sum::<u64>(), 0);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 50, 99 * 50 + 10_000)], &[]), [10_000]);
    }

    #[test]
    fn the_parent_is_the_last_with_its_pid_that_started_before() {
        let mut ledger = Ledger::default();
        let sight = |pid, start, ppid| Sight { id: Identity { pid, start }, ..newborn(pid, ppid, 9, 0) };
        ledger.open_accounts(
            [(10, 5), (10, 8), (11, 6), (12, 9)].map(|(pid, start)| (sight(pid, start, 10).id, 10)).into_iter(),
        );
        let parent = |place| ledger.parent(place).map(|parent| ledger.accounts[parent].id.start);
        assert_eq!([parent(2), parent(3)], [Some(5), Some(8)]);
    }

    #[test]
    fn one_that_vanished_between_listing_and_reading_is_charged_now_or_next_time() {
        for charged_at_once in [true, false] {
            let mut ledger = Ledger::default();
            gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 300, 0)], &[]);
            // 50 ms of a child never seen, and perhaps the 300 ms already
            let first = if charged_at_once { 350 } else { 50 };
            let now = gather(&mut ledger, &[old(1, 0, 0, first)], &[2])[0];
            let next = gather(&mut ledger, &[old(1, 0, 0, 350)], &[])[0];
            assert_eq!(now + next, 50, "charged at once: {charged_at_once}");
        }
    }

    #[test]
    fn what_could_not_be_read_waits_without_forgetting() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 300, 0)], &[]);
        let stale = Sight { stale: true, ..old(1, 0, 0, 0) };
        assert_eq!(gather(&mut ledger, &[stale], &[]), [0]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 310)], &[]), [10]);
    }

    #[test]
    fn a_pid_used_again_is_another_process() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 0, 0), old(2, 1, 300, 0)], &[]);
        let other = Sight { id: Identity { pid: 2, start: 99 }, ..newborn(2, 1, 4, 0) };
        // listed, so the old one may have been reaped after its parent was read; here it was before
        assert_eq!(gather(&mut ledger, &[old(1, 0, 0, 305), other], &[2]), [5, 4]);
    }

    #[test]
    fn nothing_ever_falls() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 0, 100, 100)], &[]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 50, 50)], &[]), [0]);
        assert_eq!(gather(&mut ledger, &[old(1, 0, 101, 102)], &[]), [3]);
    }

    #[test]
    fn parents_that_go_round_in_a_circle_end() {
        let mut ledger = Ledger::default();
        gather(&mut ledger, &[old(1, 2, 5, 0), old(2, 1, 5, 0)], &[]);
        assert_eq!(gather(&mut ledger, &[], &[]), [0; 0]);
    }

    #[test]
    fn a_cgroup_is_its_inode() {
        let mut meter = CgroupMeter::default();
        assert_eq!(meter.settle(vec![(10, 700)], true, true), 0, "what was there before us does not count");
        assert_eq!(meter.settle(vec![(10, 800)], true, false), 100);
        assert_eq!(meter.settle(vec![(11, 30)], true, false), 30, "made anew: all of it is since the last gather");
        assert_eq!(meter.settle(vec![(11, 20), (12, 5)], true, false), 5, "a counter that falls gives nothing");
        assert_eq!(meter.settle(vec![(12, 6)], false, false), 1);
        assert_eq!(meter.settle(vec![(11, 25), (12, 6)], true, false), 5, "one that could not be read is not new");
    }

    impl Counter for u64 {
        fn since(&self, earlier: &Self) -> Self {
            self.saturating_sub(*earlier)
        }

        fn add(&mut self, gained: &Self) {
            *self += gained;
        }
    }

    /// What a series of one process has, gather by gather: what was read, whether it was born since, and the total.
    #[test]
    fn a_plain_counter_gains_what_lies_between_two_readings() {
        use Outcome::{Gone, Known, Unknown};
        type Gather = (Outcome<u64>, bool, Option<u64>);
        let cases: [&[Gather]; 7] = [
            &[(Known(70), false, Some(0)), (Known(75), false, Some(5)), (Known(75), false, Some(5))],
            &[(Known(70), true, Some(70)), (Known(75), false, Some(75))],
            &[(Known(70), false, Some(0)), (Known(60), false, Some(0)), (Known(65), false, Some(5))],
            &[(Known(70), false, Some(0)), (Unknown, false, None), (Known(80), false, Some(10))],
            &[(Known(70), false, Some(0)), (Gone, false, Some(0))],
            &[(Unknown, true, None), (Known(70), false, Some(0)), (Known(71), false, Some(1))],
            &[(Gone, false, Some(0)), (Known(70), false, Some(0))],
        ];
        for case in cases {
            let (mut counters, mut tally) = (Counters::default(), Tally::default());
            for (at, (outcome, newborn, total)) in case.iter().enumerate() {
                counters.settle([(id(7), *newborn, *outcome)]);
                tally.take_in(&[(id(7), true)], &counters);
                assert_eq!(tally.total().copied(), *total, "{case:?} at {at}");
            }
        }
    }

    /// A reading that falls is a new base: nothing falls, and growth goes on.
    #[test]
    fn what_a_process_has_counted_never_falls() {
        let mut counters = Counters::default();
        let totals = [100_u64, 190, 110, 120, 200].map(|value| {
            counters.settle([(id(7), false, Outcome::Known(value))]);
            counters.total(id(7)).copied()
        });
        assert_eq!(totals, [100, 190, 190, 200, 280].map(Some));
    }

    #[test]
    fn a_tally_keeps_what_the_gone_had_and_leaves_out_what_does_not_count() {
        let (mut counters, mut tally) = (Counters::default(), Tally::default());
        let known = |pid, value| (id(pid), true, Outcome::Known(value));
        counters.settle([known(1, 10_u64), known(2, 20), known(3, 40)]);
        tally.take_in(&[(id(1), true), (id(2), true), (id(3), false)], &counters);
        assert_eq!(tally.total(), Some(&30));
        counters.settle([known(1, 11)]);
        tally.take_in(&[(id(1), true)], &counters);
        assert_eq!(tally.total(), Some(&31));
        assert_eq!((counters.total(id(1)), counters.total(id(2))), (Some(&11), None));
        tally.take_in(&[(id(1), true), (id(9), true)], &counters);
        assert_eq!(tally.total(), None, "a member of which nothing is known");
    }

    #[test]
    fn a_rate_needs_a_base_and_an_interval() {
        let mut rate = Rate::default();
        assert_eq!(rate.next(5, 0), None);
        rate.begin(0, 0);
        rate.begin(400, 50);
        assert_eq!(rate.next(50 * MS, 99 * MS), None, "too short: the base stays");
        assert_eq!(rate.next(50 * MS, 100 * MS), Some((0.5, 100 * MS)));
        assert_eq!(rate.next(50 * MS, 300 * MS), Some((0.0, 200 * MS)));
        assert_eq!(Rate::since(0).next(300 * MS, 100 * MS), Some((3.0, 100 * MS)));
    }
}
