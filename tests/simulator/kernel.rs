//! The simulated kernel: what processes do, what /proc and the sockets tell of it, and the books of what was really used.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use telegraf_taskstats::journal::{Record, Times as Used};
use telegraf_taskstats::kernel::proc_connector::Event;
use telegraf_taskstats::kernel::stat::{Identity, Stat, TICK};

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
}

impl World {
    pub fn is_wild(self) -> bool {
        matches!(self, Self::Wild | Self::Crowded)
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
#[derive(Clone, Copy, Default, Debug)]
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
}

/// The kernel: who exists, and what the tree below ROOT has really used.
pub struct Kernel {
    world: World,
    pub chance: Chance,
    pub now: u64,
    next_pid: u32,
    pub processes: BTreeMap<u32, Process>,
    /// CPU used since the first gather by the root and all that ever descended from it, ns.
    pub burnt: u64,
    pub orphans: u64,
    pub books: Vec<Book>,
    /// Births and ends within the tree.
    pub births: u64,
    pub ends: u64,
    /// Whether it tells of births and deaths.
    tells: bool,
    pub events: Vec<Event>,
    pub records: Vec<Record>,
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

static TEMPLATE: LazyLock<Stat> =
    LazyLock::new(|| Stat::parse(b"1 (x) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 1 0 5\n").unwrap());

impl Kernel {
    pub fn new(world: World, seed: u64, tells: bool) -> Self {
        let mut kernel = Self {
            world,
            chance: Chance(seed * 2 + 1),
            now: 1000 * TICK,
            next_pid: ROOT + 1,
            processes: BTreeMap::new(),
            burnt: 0,
            orphans: 0,
            books: Vec::new(),
            births: 0,
            ends: 0,
            tells,
            events: Vec::new(),
            records: Vec::new(),
            goes_on: false,
            is_watched: false,
            is_between: false,
            drains: 0,
            resting: BTreeMap::new(),
            twice: 0,
            era: 0,
        };
        let root = Process {
            start: 5,
            ppid: INIT,
            own: Times { user: 123 * TICK, system: 7 * TICK },
            reaped: Times { user: 456 * TICK + 3, system: TICK },
            zombie: false,
            exiting: false,
            book: 0,
            ignores_children: false,
            adopted: None,
            subreaper: world == World::Adopting,
        };
        if world == World::Crowded {
            kernel.books.push(Book::default());
            kernel.processes.insert(DAEMON, root.clone());
        }
        let book = kernel.books.len();
        kernel.books.push(Book { of_tree: true, ..Book::default() });
        kernel.processes.insert(ROOT, Process { book, ..root });
        kernel
    }

    fn alive(&self) -> Vec<u32> {
        let alive = self.processes.iter().filter(|(_, process)| !process.zombie && !process.exiting);
        alive.map(|(pid, _)| *pid).collect()
    }

    fn children(&self, pid: u32) -> Vec<u32> {
        self.processes.iter().filter(|(_, process)| process.ppid == pid).map(|(pid, _)| *pid).collect()
    }

    /// Something happens.
    pub fn step(&mut self) {
        let pause = if self.world == World::Crowded { TICK / 20 } else { TICK };
        self.now += self.chance.below(pause);
        if self.tells {
            self.end_one();
        }
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
        let pids = if self.world == World::Crowded { 60 } else { 1 << 20 };
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
        if self.processes.len() > 40 {
            return None;
        }
        let pid = self.free_pid()?;
        let parent = self.processes[&ppid].book;
        let of_tree = self.books[parent].of_tree;
        self.books.push(Book { parent: Some(parent), of_tree, born: self.era, ..Book::default() });
        self.births += u64::from(of_tree);
        let child = Process {
            start: self.now / TICK,
            ppid,
            own: Times::default(),
            reaped: Times::default(),
            zombie: false,
            exiting: false,
            book: self.books.len() - 1,
            ignores_children: false,
            adopted: None,
            subreaper: self.world == World::Adopting && self.chance.one_in(4),
        };
        self.processes.insert(pid, child);
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
        if self.tells {
            self.record(pid);
            if self.chance.one_in(3) {
                self.processes.get_mut(&pid).unwrap().exiting = true;
                return;
            }
        }
        self.end(pid);
    }

    fn record(&mut self, pid: u32) {
        let process = &self.processes[&pid];
        let tail = self.chance.below(TAIL).min(process.own.exact());
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
        let exiting: Vec<_> = self.processes.iter().filter(|(_, p)| p.exiting).map(|(pid, _)| *pid).collect();
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
        let heir = self.heir(pid);
        for child in self.children(pid) {
            let orphan = self.processes.get_mut(&child).unwrap();
            (orphan.ppid, orphan.adopted) = (heir, self.is_watched.then_some(self.era));
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
        match self.chance.below(if self.tells { 7 } else { 3 }) {
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
        if self.tells {
            self.events.push(event);
        }
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

    /// Whether kill(2) finds nobody.
    pub fn is_gone(&self, pid: u32) -> bool {
        pid != INIT && !self.processes.contains_key(&pid)
    }
}
