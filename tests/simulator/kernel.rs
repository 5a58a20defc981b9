//! The simulated kernel: what processes do, what /proc and the sockets tell of it, and the books of what was really used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use telegraf_taskstats::kernel::proc_connector::Event;
use telegraf_taskstats::kernel::stat::{Identity, Stat, TICK};
use telegraf_taskstats::processes::{CpuTimes as Used, Record};

pub const INIT: u32 = 1;
/// Not of the tree.
pub const DAEMON: u32 = 2;
pub const ROOT: u32 = 10;

/// What an exit record may be too low by, ns.
const TAIL: u64 = 4_000_000;

/// What may happen besides forking, burning and being waited for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum World {
    /// Nothing: each process outlives its children and reaps them. The rule is exact here.
    Orderly,
    /// Orphans too, but subreapers adopt them: all are reaped within the tree.
    Adopting,
    /// Orphans to init, SIGCHLD ignored, groups killed. Never too much.
    Wild,
    /// That, with pids that are soon used again, also by others than the tree.
    Crowded,
    /// A server: workers serve requests by a shell that runs two commands, and are replaced. Nobody adopts anybody, and each
    /// child is waited for.
    Serving,
    /// A chain, thousands deep, whose pids wrap: it grows, each the child of the last, and dies from its end, each waited for by the
    /// one above.
    Chain,
    /// A daemon that walks: it leaves its work to a child and exits, again and again. Init waits for all but the first, so that only
    /// events and records say whose they are.
    Walking,
}

impl World {
    pub const ALL: [Self; 7] =
        [Self::Orderly, Self::Adopting, Self::Wild, Self::Crowded, Self::Serving, Self::Chain, Self::Walking];

    /// How many are run of each, with as many beginnings.
    pub fn seeds(self) -> u64 {
        match self {
            Self::Chain => 8,
            Self::Serving => 12,
            _ => 240,
        }
    }

    pub fn is_wild(self) -> bool {
        matches!(self, Self::Wild | Self::Crowded | Self::Walking)
    }

    /// Whether all that is used is charged to somebody in the tree.
    pub fn waits_for_all(self) -> bool {
        !self.is_wild()
    }

    /// How many pids there are.
    fn pids(self) -> u32 {
        match self {
            Self::Crowded => 60,
            Self::Chain => 8000,
            _ => 1 << 20,
        }
    }

    /// How many steps there are at most between two gathers.
    pub fn steps(self) -> u64 {
        match self {
            Self::Orderly | Self::Adopting | Self::Wild => 120,
            Self::Crowded => 400,
            Self::Serving => 8000,
            Self::Chain => 1500,
            Self::Walking => 30,
        }
    }

    /// By how much too much may be reported of so much, ns. Until a process was seen to adopt orphans, what two texts can hide of those that
    /// it adopts may count twice. Of a chain that dies by the thousand while it is read, something may be held against the wrong one.
    pub fn too_much(self, burnt: u64) -> u64 {
        match self {
            Self::Adopting => 2 * TICK,
            Self::Chain => burnt / 200,
            _ => 0,
        }
    }

    /// How many gathers there are.
    pub fn gathers(self) -> u64 {
        match self {
            Self::Serving | Self::Walking => 40,
            _ => 12,
        }
    }

    /// How much time there is between two steps at most, ns.
    fn pause(self) -> u64 {
        match self {
            Self::Orderly | Self::Adopting | Self::Wild | Self::Walking => TICK,
            Self::Crowded | Self::Serving => TICK / 20,
            Self::Chain => TICK / 200,
        }
    }
}

/// xorshift64*: the same in every run for the same seed.
pub struct Chance(u64);

impl Chance {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[usize::try_from(self.below(of.len() as u64)).unwrap()])
    }
}

/// User and system time, ns.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Times {
    user: u64,
    system: u64,
}

impl Times {
    fn add(&mut self, other: Self) {
        self.user += other.user;
        self.system += other.system;
    }

    pub fn exact(self) -> u64 {
        self.user + self.system
    }

    /// As /proc writes it: each in whole ticks.
    pub fn text(self) -> u64 {
        (self.user / TICK + self.system / TICK) * TICK
    }

    /// What the text does not show.
    pub fn hidden(self) -> u64 {
        self.exact() - self.text()
    }
}

#[derive(Clone, Debug)]
pub struct Process {
    pub start: u64,
    pub ppid: u32,
    pub own: Times,
    pub reaped: Times,
    pub zombie: bool,
    /// Whether its record is out, and it is on its way to be a zombie.
    pub exiting: bool,
    /// Where its book is.
    pub book: usize,
    ignores_children: bool,
    subreaper: bool,
    /// The era in which it became an orphan, if the plugin was at work then.
    adopted: Option<u64>,
    /// Of a server's: how many children it has had.
    served: u32,
    /// The most that the plugin was shown of its own time, ns.
    pub shown: u64,
    /// As the plugin has read it last.
    read: Option<(Times, Times)>,
}

/// What is known of a process for ever.
#[derive(Debug, Default)]
pub struct Book {
    /// The book of the process that it was born to.
    pub parent: Option<usize>,
    /// Whether it descends from the root by birth, and can be known to.
    pub of_tree: bool,
    /// CPU used since the first gather, ns.
    pub burnt: u64,
    /// What its exit record is too low by, ns.
    pub tail: u64,
    /// Whether its record came after the plugin took the records and before it took the events.
    pub is_late: bool,
    /// The era in which it was born.
    pub born: u64,
    /// The era in which it went away.
    pub removed: Option<u64>,
    /// What it had used when the plugin last read it.
    pub seen: Option<u64>,
    /// The last era in which it was to be read again and was not there.
    pub vanished: Option<u64>,
}

/// The kernel: who exists, and what the tree below ROOT has really used.
pub struct Kernel {
    world: World,
    pub chance: Chance,
    pub now: u64,
    /// What the time between two steps is multiplied with.
    pace: u64,
    next_pid: u32,
    pub processes: BTreeMap<u32, Process>,
    /// The children of each.
    children: BTreeMap<u32, BTreeSet<u32>>,
    /// Where the book of each that ever was is.
    by_identity: BTreeMap<Identity, usize>,
    /// Of a chain: how deep it is to be next, and those that live, from the top.
    depth: usize,
    chain: Vec<u32>,
    grows: bool,
    /// CPU used since the first gather by the root and all that ever descended from it, ns.
    pub burnt: u64,
    pub orphans: u64,
    pub books: Vec<Book>,
    /// Births and ends within the tree.
    pub births: u64,
    pub ends: u64,
    pub events: Vec<Event>,
    pub records: Vec<Record>,
    /// Whether messages were lost that the plugin has not heard of.
    pub has_lost: bool,
    /// Whether the world goes on while the plugin is at work.
    pub goes_on: bool,
    /// Whether the plugin is at work. It takes far less time than it takes until a pid is used again.
    is_watched: bool,
    is_between: bool,
    /// How often it has begun to take what it is told.
    drains: u64,
    /// The pids that must wait until it was told of their ends, which takes less time too: with `drains` when they ended.
    resting: BTreeMap<u32, u64>,
    /// CPU of those that became orphans and were waited for within one reading, ns.
    pub twice: u64,
    /// Counts what the plugin asks for.
    pub era: u64,
}

/// What the root had used before.
const LONG_AGO: [Times; 2] =
    [Times { user: 123 * TICK, system: 7 * TICK }, Times { user: 456 * TICK + 3, system: TICK }];

impl Process {
    fn new(start: u64, ppid: u32, book: usize) -> Self {
        Self {
            start,
            ppid,
            own: Times::default(),
            reaped: Times::default(),
            zombie: false,
            exiting: false,
            book,
            ignores_children: false,
            subreaper: false,
            adopted: None,
            served: 0,
            shown: 0,
            read: None,
        }
    }
}

static TEMPLATE: LazyLock<Stat> =
    LazyLock::new(|| Stat::parse(b"1 (x) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 1 0 5\n").unwrap());

impl Kernel {
    pub fn new(world: World, seed: u64) -> Self {
        let mut chance = Chance(seed * 2 + 1);
        let pace = [1, 1, 8][usize::try_from(chance.below(3)).unwrap()];
        let next_pid = if world == World::Chain { ROOT + 7000 } else { ROOT + 1 };
        let mut kernel = Self {
            world,
            chance,
            now: 1000 * TICK,
            pace,
            next_pid,
            processes: BTreeMap::new(),
            children: BTreeMap::new(),
            by_identity: BTreeMap::new(),
            depth: 0,
            chain: Vec::new(),
            grows: true,
            burnt: 0,
            orphans: 0,
            books: Vec::new(),
            births: 0,
            ends: 0,
            events: Vec::new(),
            records: Vec::new(),
            has_lost: false,
            goes_on: false,
            is_watched: false,
            is_between: false,
            drains: 0,
            resting: BTreeMap::new(),
            twice: 0,
            era: 0,
        };
        if world == World::Crowded {
            kernel.books.push(Book::default());
            kernel.insert(DAEMON, Process { own: LONG_AGO[0], reaped: LONG_AGO[1], ..Process::new(5, INIT, 0) });
        }
        let book = kernel.books.len();
        kernel.books.push(Book { of_tree: true, ..Book::default() });
        let root = Process { own: LONG_AGO[0], reaped: LONG_AGO[1], ..Process::new(5, INIT, book) };
        kernel.insert(ROOT, Process { subreaper: world == World::Adopting, ..root });
        kernel
    }

    fn insert(&mut self, pid: u32, process: Process) {
        self.children.entry(process.ppid).or_default().insert(pid);
        self.by_identity.insert(Identity { pid, start: process.start }, process.book);
        self.processes.insert(pid, process);
    }

    fn set_parent(&mut self, pid: u32, ppid: u32) {
        let process = self.processes.get_mut(&pid).unwrap();
        let before = std::mem::replace(&mut process.ppid, ppid);
        self.children.entry(before).or_default().remove(&pid);
        self.children.entry(ppid).or_default().insert(pid);
    }

    fn alive(&self) -> Vec<u32> {
        let alive = self.processes.iter().filter(|(_, process)| !process.zombie && !process.exiting);
        alive.map(|(pid, _)| *pid).collect()
    }

    fn children(&self, pid: u32) -> Vec<u32> {
        self.children.get(&pid).map(|children| children.iter().copied().collect()).unwrap_or_default()
    }

    /// Something happens.
    pub fn step(&mut self) {
        self.now += self.chance.below(self.world.pause()) * self.pace;
        self.end_one();
        match self.world {
            World::Serving => self.serve(),
            World::Chain => (0..10).for_each(|_| self.grow_or_die()),
            World::Walking => self.walk(),
            _ => self.do_anything(),
        }
    }

    fn do_anything(&mut self) {
        let Some(pid) = self.chance.pick(&self.alive()) else { return };
        match self.chance.below(10) {
            0..=2 => drop(self.fork(pid)),
            3..=5 => self.burn(pid),
            6..=7 => drop(self.wait(pid)),
            8 => self.exit_if_it_may(pid),
            _ if self.world.is_wild() => self.misbehave(pid),
            _ => self.burn(pid),
        }
    }

    /// One of a server does what is next for it: the master has four workers, each of which serves 20 requests.
    fn serve(&mut self) {
        let Some(pid) = self.chance.pick(&self.alive()) else { return };
        let above = |pid: &u32| self.processes.get(pid).map(|process| process.ppid);
        let depth = std::iter::successors(Some(pid), above).position(|pid| pid == ROOT).unwrap();
        let Process { served, .. } = self.processes[&pid];
        let (at_once, in_all) = [(4, u32::MAX), (1, 20), (2, 2), (0, 0)][depth];
        let children = self.children(pid);
        if self.wait(pid).is_some() {
            return;
        }
        if served < in_all && children.len() < at_once && self.fork(pid).is_some() {
            self.processes.get_mut(&pid).unwrap().served += 1;
            self.burn_up_to(pid, TICK / 50);
        } else if children.is_empty() && pid != ROOT {
            self.burn_up_to(pid, TICK / 10);
            self.exit(pid);
        }
    }

    /// The daemon works, or leaves its work to a child and exits.
    fn walk(&mut self) {
        let walker = self.alive().into_iter().rfind(|pid| *pid != ROOT);
        if let Some(walker) = walker {
            self.burn(walker);
        }
        if self.fork(walker.unwrap_or(ROOT)).is_some() {
            walker.into_iter().for_each(|walker| self.exit(walker));
        }
        self.wait(ROOT);
    }

    /// Lets what has begun come to its end, where it has one.
    pub fn finish(&mut self) {
        while !self.chain.is_empty() {
            self.step();
        }
    }

    /// The end of a chain forks, or exits and is waited for.
    fn grow_or_die(&mut self) {
        let end = self.chain.last().copied().unwrap_or(ROOT);
        if self.chain.is_empty() {
            self.grows = true;
            self.depth = 1100 + usize::try_from(self.chance.below(2000)).unwrap();
        }
        if self.grows {
            // All other pids may have to rest.
            let Some(child) = self.fork(end) else { return self.grows = self.chain.is_empty() };
            self.chain.push(child);
            let scale = if self.chance.one_in(50) { TICK } else { TICK / 40 };
            self.burn_up_to(child, scale);
            self.grows = self.chain.len() < self.depth;
            return;
        }
        let Process { zombie, exiting, ppid, .. } = self.processes[&end];
        match (zombie, exiting) {
            (true, _) => {
                self.wait(ppid).unwrap();
                self.chain.pop();
                self.burn_up_to(ppid, TICK / 100);
            }
            (_, true) => self.end_one(),
            _ => self.exit(end),
        }
    }

    /// Things happen while the plugin is at work.
    pub fn go_on(&mut self) {
        while self.goes_on && self.chance.one_in(6) {
            self.step();
        }
    }

    /// The plugin begins to work, or ends.
    pub fn be_watched(&mut self, is_watched: bool) {
        self.is_watched = is_watched;
        if !is_watched {
            let drains = self.drains;
            self.resting.retain(|_, ended| *ended == drains);
        }
    }

    /// The plugin has taken the records, and takes the events next.
    pub fn be_between(&mut self, is_between: bool) {
        self.is_between = is_between;
    }

    /// The plugin begins to take what it is told.
    pub fn be_drained(&mut self) {
        self.drains += 1;
    }

    fn free_pid(&mut self) -> Option<u32> {
        let pids = self.world.pids();
        if self.resting.len() + self.processes.len() + 10 > pids as usize {
            return None;
        }
        for _ in 0..pids {
            let pid = self.next_pid;
            self.next_pid = if pid >= ROOT + pids { ROOT + 1 } else { pid + 1 };
            if !self.resting.contains_key(&pid) && !self.processes.contains_key(&pid) {
                return Some(pid);
            }
        }
        None
    }

    fn fork(&mut self, ppid: u32) -> Option<u32> {
        if self.processes.len() > 40 && self.world != World::Chain {
            return None;
        }
        let pid = self.free_pid()?;
        let parent = self.processes[&ppid].book;
        let of_tree = self.books[parent].of_tree;
        self.books.push(Book { parent: Some(parent), of_tree, born: self.era, ..Book::default() });
        self.births += u64::from(of_tree);
        let child = Process::new(self.now / TICK, ppid, self.books.len() - 1);
        let subreaper = self.world == World::Adopting && self.chance.one_in(4);
        self.insert(pid, Process { subreaper, ..child });
        self.tell(Event::Fork { parent: ppid, child: pid });
        Some(pid)
    }

    fn burn(&mut self, pid: u32) {
        let scale = [TICK / 50, TICK / 2, 8 * TICK][usize::try_from(self.chance.below(3)).unwrap()];
        self.burn_up_to(pid, scale);
    }

    fn burn_up_to(&mut self, pid: u32, scale: u64) {
        let times = Times { user: self.chance.below(scale), system: self.chance.below(scale) };
        self.now += if self.world == World::Crowded { times.exact() / 20 } else { times.exact() };
        let process = self.processes.get_mut(&pid).unwrap();
        process.own.add(times);
        let book = &mut self.books[process.book];
        book.burnt += times.exact();
        if book.of_tree {
            self.burnt += times.exact();
        }
    }

    /// wait(2): one dead child is charged to its parent, its whole life and what it had reaped.
    fn wait(&mut self, pid: u32) -> Option<()> {
        let dead: Vec<_> = self.children(pid).into_iter().filter(|child| self.processes[child].zombie).collect();
        let child = self.chance.pick(&dead)?;
        let Process { own, reaped, adopted, .. } = self.remove(child);
        if self.is_watched && adopted == Some(self.era) {
            self.twice += own.exact() + reaped.exact();
        }
        let parent = self.processes.get_mut(&pid).unwrap();
        parent.reaped.add(own);
        parent.reaped.add(reaped);
        Some(())
    }

    fn remove(&mut self, pid: u32) -> Process {
        let process = self.processes.remove(&pid).unwrap();
        self.children.entry(process.ppid).or_default().remove(&pid);
        self.children.remove(&pid);
        let book = &mut self.books[process.book];
        book.removed = Some(self.era);
        self.ends += u64::from(book.of_tree);
        self.resting.insert(pid, self.drains);
        process
    }

    fn exit_if_it_may(&mut self, pid: u32) {
        let outlived = self.world == World::Orderly && !self.children(pid).is_empty();
        if ![ROOT, DAEMON].contains(&pid) && !outlived {
            self.exit(pid);
        }
    }

    /// exit(2). The record goes out first.
    fn exit(&mut self, pid: u32) {
        self.record(pid);
        if self.chance.one_in(3) {
            self.processes.get_mut(&pid).unwrap().exiting = true;
            return;
        }
        self.end(pid);
    }

    fn record(&mut self, pid: u32) {
        let process = &self.processes[&pid];
        let own = process.own.exact();
        let tail = if self.world == World::Serving {
            self.chance.below(own / 6 + 1)
        } else {
            self.chance.below(TAIL).min(own)
        };
        let utime = process.own.user.saturating_sub(tail / 2);
        let stime = (process.own.exact() - tail).saturating_sub(utime);
        let cpu = process.own.exact() - tail;
        let used = Used { cpu, user: utime, system: stime };
        self.records.push(Record { pid, parent: process.ppid, used, delays: None });
        let book = &mut self.books[process.book];
        (book.tail, book.is_late) = (tail, self.is_between);
    }

    /// Perhaps one of those that exit has done so.
    fn end_one(&mut self) {
        let among =
            if self.world == World::Chain { self.chain.last().copied().into_iter().collect() } else { self.pids() };
        let exiting: Vec<_> = among.into_iter().filter(|pid| self.processes[pid].exiting).collect();
        if let Some(pid) = self.chance.pick(&exiting)
            && self.chance.one_in(3)
        {
            let before = self.processes[&pid].own.exact();
            self.burn_up_to(pid, TICK / 50);
            let process = self.processes.get_mut(&pid).unwrap();
            process.exiting = false;
            self.books[process.book].tail += process.own.exact() - before;
            self.end(pid);
        }
    }

    /// The children go to the nearest subreaper above, else to init, which reaps at once; the parent may not care.
    fn end(&mut self, pid: u32) {
        let children = self.children(pid);
        let heir = if children.is_empty() { INIT } else { self.heir(pid) };
        for child in children {
            self.set_parent(child, heir);
            self.processes.get_mut(&child).unwrap().adopted = self.is_watched.then_some(self.era);
            self.orphans += 1;
            if self.is_unwanted(child) && self.processes[&child].zombie {
                self.remove(child);
            }
        }
        let ppid = self.processes[&pid].ppid;
        let unwanted = self.is_unwanted(pid);
        if unwanted {
            self.remove(pid);
        } else {
            self.processes.get_mut(&pid).unwrap().zombie = true;
        }
        self.tell(Event::Exit { pid, parent: (!unwanted).then_some(ppid) });
    }

    /// Whether its parent lets its children go without waiting for them.
    fn is_unwanted(&self, pid: u32) -> bool {
        let ppid = self.processes[&pid].ppid;
        ppid == INIT || self.processes.get(&ppid).is_some_and(|parent| parent.ignores_children)
    }

    fn heir(&self, pid: u32) -> u32 {
        let above = |pid: &u32| self.processes.get(pid).map(|process| process.ppid);
        let is_heir = |pid: &u32| {
            let process = self.processes.get(pid);
            process.is_some_and(|process| process.subreaper && !process.zombie && !process.exiting)
        };
        std::iter::successors(above(&pid), above).find(is_heir).unwrap_or(INIT)
    }

    fn misbehave(&mut self, pid: u32) {
        match self.chance.below(7) {
            0 => self.processes.get_mut(&pid).unwrap().ignores_children ^= true,
            1 if ![ROOT, DAEMON].contains(&pid) => self.kill_group(pid),
            3 => self.processes.get_mut(&pid).unwrap().subreaper ^= true,
            4 => drop(self.daemonize(pid)),
            5 => drop(self.run(pid)),
            6 => self.tell(Event::Exec { pid }),
            _ => self.exit_if_it_may(pid),
        }
    }

    /// Forks twice: the one between leaves, and is waited for.
    fn daemonize(&mut self, pid: u32) -> Option<()> {
        let between = self.fork(pid)?;
        let child = self.fork(between)?;
        self.exit(between);
        self.burn(child);
        self.wait(pid)?;
        self.exit(child);
        Some(())
    }

    /// Runs something that does not last, and waits for it.
    fn run(&mut self, pid: u32) -> Option<()> {
        let child = self.fork(pid)?;
        self.burn(child);
        self.exit(child);
        self.wait(pid)
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
            if self.processes.get(&pid).is_some_and(|process| !process.zombie && !process.exiting) {
                self.exit(pid);
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    /// What its stat file says.
    pub fn stat(&self, pid: u32) -> Option<Stat> {
        if pid == INIT {
            return Some(*TEMPLATE);
        }
        let Process { start, ppid, own, reaped, zombie, exiting, .. } = self.processes.get(&pid)?;
        let ticks = |time: u64| time / TICK * TICK;
        Some(Stat {
            id: Identity { pid, start: *start },
            state: if *zombie { b'Z' } else { b'S' },
            ppid: *ppid,
            exiting: *exiting || *zombie,
            utime: ticks(own.user),
            stime: ticks(own.system),
            cutime: ticks(reaped.user),
            cstime: ticks(reaped.system),
            ..*TEMPLATE
        })
    }

    /// The pids that there are.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.keys().copied().collect()
    }

    /// The plugin reads one that it reads at each gather, and knew as this one, if it did. Whether it is as it was.
    pub fn be_read(&mut self, pid: u32, known: Option<Identity>) -> bool {
        let is_it = |process: &Process| known.is_none_or(|known| known.start == process.start);
        let Some(process) = self.processes.get_mut(&pid).filter(|process| is_it(process)) else {
            let known = known.and_then(|known| self.by_identity.get(&known));
            if let Some(book) = known.and_then(|book| self.books.get_mut(*book)) {
                book.vanished = Some(self.era);
            }
            return false;
        };
        let as_now = Some((process.own, process.reaped));
        let is_same = process.read == as_now && !process.zombie && !process.exiting;
        process.read = as_now;
        process.shown = process.shown.max(process.own.text());
        self.books[process.book].seen = Some(self.books[process.book].burnt);
        is_same
    }

    /// The plugin reads how long one was on a CPU.
    pub fn leader_time(&mut self, pid: u32) -> Option<u64> {
        let process = self.processes.get_mut(&pid)?;
        process.shown = process.own.exact();
        Some(process.shown)
    }

    /// Nobody hears what is told.
    pub fn be_ignored(&mut self) {
        self.be_drained();
        self.records.clear();
        self.events.clear();
    }

    /// Messages are lost.
    pub fn lose(&mut self) {
        self.records.clear();
        self.events.clear();
        self.has_lost = true;
    }

    /// Whether kill(2) finds nobody.
    pub fn is_gone(&self, pid: u32) -> bool {
        pid != INIT && !self.processes.contains_key(&pid)
    }
}
