//! The pictures of docs/accounting.md show what the accounting does. Each tells in its `desc` what happens; a small kernel
//! that does this is looked at in both ways, and each number that is drawn is held to what comes of it.

// A test says what went wrong by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr)] // of what is shared with other tests

mod support;
#[path = "support/watched.rs"]
mod watched;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::rc::Rc;

use regex::Regex;
use telegraf_taskstats::agent::Agent;
use telegraf_taskstats::cli::Arguments;
use telegraf_taskstats::config::Settings;
use telegraf_taskstats::host::Host;
use telegraf_taskstats::kernel::clock::Clock;
use telegraf_taskstats::kernel::proc_connector::Event;
use telegraf_taskstats::kernel::stat::{Identity, Stat, TICK};
use telegraf_taskstats::ledger::{Charge, ExitedMember, Exits, Ledger, MemberTimes, UnobservedBelow};
use telegraf_taskstats::processes::Presence;
use telegraf_taskstats::processes::{Changes, CpuTimes, Journal, ProcessRef, Record};

use watched::FakeProc;

const ROOT: u32 = 10;
const INIT: u32 = 1;
const SECOND: u64 = 1_000_000_000;
/// From one gather to the next.
const INTERVAL: u64 = 10 * SECOND;

/// A picture: what happens in it, and what it shows.
struct Picture {
    tale: Vec<String>,
    text: String,
}

impl Picture {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap().replace('−', "-");
        let (_, rest) = text.split_once("<desc id=\"tale\">\n").expect("a tale");
        let (tale, _) = rest.split_once("\n</desc>").unwrap();
        Self { tale: tale.lines().map(str::to_owned).collect(), text: text.clone() }
    }

    /// The texts that are marked as `data-KIND="KEY"`: keys and texts, in the order of their keys.
    fn shown(&self, kind: &str) -> Vec<(String, String)> {
        let marked = Regex::new(&format!(r#"<text [^>]*data-{kind}="([^"]*)"[^>]*>([^<]*)</text>"#)).unwrap();
        let mut shown: Vec<_> =
            marked.captures_iter(&self.text).map(|found| (found[1].to_owned(), found[2].to_owned())).collect();
        shown.sort();
        shown
    }

    /// What is said below the tables.
    fn notes(&self) -> String {
        let notes = Regex::new(r#"<text [^>]*class="note"[^>]*>([^<]*)</text>"#).unwrap();
        notes.captures_iter(&self.text).map(|found| found[1].to_owned() + "\n").collect()
    }
}

/// Seconds as ns; all that is told is in whole ticks.
fn ns(seconds: &str) -> u64 {
    let seconds: f64 = seconds.trim_end_matches([',', ':']).parse().expect(seconds);
    let ticks = seconds * (SECOND / TICK) as f64;
    assert!((ticks - ticks.round()).abs() < 1e-6, "{seconds} s are no whole ticks");
    ticks.round() as u64 * TICK
}

/// ns as they are drawn: in seconds, with one digit after the point or two.
fn seconds(ns: i128) -> String {
    match ns as f64 / SECOND as f64 {
        0.0 => "0".to_owned(),
        seconds if ns % i128::from(SECOND / 10) == 0 => format!("{seconds:.1}"),
        seconds => format!("{seconds:.2}"),
    }
}

#[derive(Clone)]
struct Process {
    start: u64,
    comm: String,
    ppid: u32,
    own: u64,
    reaped: u64,
    zombie: bool,
    ignores_children: bool,
    /// How often it was put on a CPU.
    slices: u64,
}

/// What is drawn is what it does.
#[derive(Default)]
struct Kernel {
    /// So many gathers there were.
    gathers: u64,
    processes: BTreeMap<u32, Process>,
    events: Vec<Event>,
    records: Vec<Record>,
    /// CPU used by the tree since the last gather: nobody else uses any.
    burnt: u64,
    /// The marks that the picture is to have: who uses how much, and who is charged how much for whom.
    uses: Vec<(String, String)>,
    waits: Vec<(String, String)>,
}

impl Kernel {
    /// One sentence of the tale, other than "gather".
    fn does(&mut self, sentence: &str) {
        let words: Vec<_> = sentence.split(' ').collect();
        let number = |word: &str| word.parse::<u32>().expect(sentence);
        match words[..] {
            [pid, comm, "is", "there:", "own", own, "reaped", reaped] => {
                self.add(number(pid), INIT, comm, ns(own), ns(reaped));
            }
            [ppid, "has", "a", "child", pid, comm, "own", own, "reaped", reaped] => {
                self.add(number(pid), number(ppid), comm.trim_end_matches(':'), ns(own), ns(reaped));
            }
            [ppid, "forks", pid, comm] => {
                self.run(number(ppid));
                self.add(number(pid), number(ppid), comm, 0, 0);
                self.events.push(Event::Fork { parent: number(ppid), child: number(pid) });
            }
            [pid, "uses", cpu] => {
                self.run(number(pid)).own += ns(cpu);
                self.burnt += ns(cpu);
                self.uses.push((pid.to_owned(), format!("uses {cpu} s")));
            }
            [pid, "exits"] => self.exit(number(pid)),
            [ppid, "waits", "for", pid] => {
                let child = self.processes.remove(&number(pid)).expect(sentence);
                assert!(child.zombie && child.ppid == number(ppid), "{sentence}");
                let life = child.own + child.reaped;
                self.run(number(ppid)).reaped += life;
                self.waits.push((pid.to_owned(), format!("+{} s", seconds(life.into()))));
            }
            [pid, "ignores", "SIGCHLD"] => self.run(number(pid)).ignores_children = true,
            _ => panic!("not a sentence of a tale: {sentence:?}"),
        }
    }

    fn run(&mut self, pid: u32) -> &mut Process {
        let process = self.processes.get_mut(&pid).unwrap();
        process.slices += 1;
        process
    }

    fn add(&mut self, pid: u32, ppid: u32, comm: &str, own: u64, reaped: u64) {
        // In ticks since boot. The first gather is 1000 s after that.
        let start = if self.gathers == 0 { 500 } else { 99_500 + self.gathers * INTERVAL / TICK };
        let (zombie, ignores_children) = (false, false);
        let process = Process { start, comm: comm.to_owned(), ppid, own, reaped, zombie, ignores_children, slices: 1 };
        assert!(self.processes.insert(pid, process).is_none(), "{pid} is there");
    }

    /// exit(2): a record, and the children go to init.
    fn exit(&mut self, pid: u32) {
        let Process { ppid, own, .. } = *self.run(pid);
        let used = CpuTimes { cpu: own, user: own, system: 0 };
        self.records.push(Record { pid, parent: ppid, used, delays: None });
        for child in self.processes.values_mut().filter(|child| child.ppid == pid) {
            child.ppid = INIT;
        }
        let is_unwanted = ppid == INIT || self.processes[&ppid].ignores_children;
        if is_unwanted {
            self.processes.remove(&pid);
        } else {
            self.run(pid).zombie = true;
        }
        self.events.push(Event::Exit { pid, parent: (!is_unwanted).then_some(ppid) });
    }

    fn stat_text(&self, pid: u32) -> Option<String> {
        let Process { start, comm, ppid, own, reaped, zombie, .. } = self.processes.get(&pid)?;
        let (state, own, reaped) = (if *zombie { 'Z' } else { 'S' }, own / TICK, reaped / TICK);
        Some(format!(
            "{pid} ({comm}) {state} {ppid} 1 1 0 -1 0 0 0 0 0 {own} 0 {reaped} 0 20 0 1 0 {start} 1 100 {}\n",
            "0 ".repeat(28).trim_end()
        ))
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        Stat::parse(self.stat_text(pid)?.as_bytes()).ok()
    }

    /// Makes /proc what it shows.
    fn show(&self, proc: &FakeProc) {
        for entry in fs::read_dir(proc.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.parse().is_ok_and(|pid: u32| !self.processes.contains_key(&pid)) {
                proc.remove(&name);
            }
        }
        for (pid, Process { own, slices, .. }) in &self.processes {
            proc.write(&format!("{pid}/stat"), self.stat_text(*pid).unwrap());
            proc.write(&format!("{pid}/schedstat"), format!("{own} 0 {slices}\n"));
        }
    }

    fn id(&self, pid: u32) -> Option<Identity> {
        self.processes.get(&pid).map(|process| Identity { pid, start: process.start })
    }

    fn presence(&self, id: Identity) -> Presence {
        if self.id(id.pid) == Some(id) { Presence::Present } else { Presence::Reaped }
    }

    fn times(&self, pid: u32, birth_parent: u32) -> MemberTimes {
        let Process { start, ppid, own, reaped, zombie, .. } = self.processes[&pid];
        let newborn = self.gathers > 0 && start == 99_500 + self.gathers * INTERVAL / TICK;
        MemberTimes { id: Identity { pid, start }, ppid, birth_parent, own, reaped, zombie, newborn, stale: false }
    }
}

/// By a scan, from the made-up /proc to the line: all of the plugin.
struct Plugin {
    proc: FakeProc,
    clock: FakeClock,
    agent: Agent,
}

#[derive(Clone)]
struct FakeClock(Rc<Cell<u64>>);

impl Clock for FakeClock {
    fn realtime(&self) -> u64 {
        self.0.get()
    }

    fn monotonic(&self) -> u64 {
        self.0.get()
    }

    fn boottime(&self) -> u64 {
        self.0.get()
    }
}

impl Plugin {
    fn new(kernel: &Kernel) -> Self {
        let proc = FakeProc::new();
        kernel.show(&proc);
        let root = proc.path().to_str().unwrap();
        let words = ["x", "--proc-root", root, "--sys-root", root, "--accounting", "scan", "--pid", "tree:10"];
        let settings = Settings::load(&Arguments::of(words.iter().map(Into::into)).unwrap()).unwrap();
        let clock = FakeClock(Rc::new(Cell::new(1000 * SECOND)));
        let host = Host::open(&settings.proc_root, &settings.sys_root, Box::new(clock.clone()), 0).unwrap();
        let mut agent = Agent::new(settings, host);
        let _ = agent.prime();
        Self { proc, clock, agent }
    }

    /// The p_cpu of the line that it writes.
    fn gather(&mut self, kernel: &Kernel) -> String {
        kernel.show(&self.proc);
        self.clock.0.set(self.clock.0.get() + INTERVAL);
        let lines = String::from_utf8(self.agent.gather()).unwrap();
        let p_cpu = support::field(lines.trim_end(), "p_cpu");
        p_cpu.unwrap_or_else(|| panic!("no p_cpu: {lines}")).to_owned()
    }
}

/// By a scan, the rule alone: what is worked out on the way.
#[derive(Default)]
struct Scan {
    ledger: Ledger,
    members: BTreeSet<u32>,
}

impl Scan {
    /// Returns the times of the members, and the charge of each.
    fn gather(&mut self, kernel: &Kernel) -> Vec<(MemberTimes, Charge)> {
        self.members.retain(|pid| kernel.processes.contains_key(pid));
        self.members.insert(ROOT);
        for (pid, process) in &kernel.processes {
            // A parent has a lower pid than its children, here.
            if self.members.contains(&process.ppid) {
                self.members.insert(*pid);
            }
        }
        let times = |pid: &u32| kernel.times(*pid, kernel.processes[pid].ppid);
        let members: Vec<_> = self.members.iter().map(times).collect();
        let charges = self.ledger.settle(&members, &Exits::default(), |id| kernel.presence(id));
        members.into_iter().zip(charges.living).collect()
    }

    /// Returns the CPU that is expected of a process after a gather, ns.
    fn expected(&self, pid: u32) -> u64 {
        let accounts = serde_json::to_value(&self.ledger).unwrap()["accounts"].clone();
        let account = accounts.as_array().unwrap().iter().find(|account| account["id"]["pid"] == pid).cloned();
        account.unwrap()["cpu"]["owed"].as_u64().unwrap()
    }
}

/// By events, the journal and the rule.
#[derive(Default)]
struct Follower {
    journal: Journal,
    ledger: Ledger,
    /// With whom they have descended from, if they have lost their parents since.
    members: BTreeMap<Identity, u32>,
}

fn pid_of(who: ProcessRef) -> u32 {
    match who {
        ProcessRef::Known(pid) | ProcessRef::Newborn(pid) | ProcessRef::Exited(Identity { pid, .. }) => pid,
    }
}

impl Follower {
    /// The CPU that all are charged.
    fn gather(&mut self, kernel: &mut Kernel) -> u64 {
        for record in std::mem::take(&mut kernel.records) {
            self.journal.record(record);
        }
        for event in std::mem::take(&mut kernel.events) {
            self.journal.event(event);
        }
        if kernel.gathers == 0 {
            let all: Vec<_> = kernel.processes.keys().map(|pid| kernel.stat(*pid).unwrap()).collect();
            self.journal.begin(true, all.iter());
            self.journal.settled();
            self.members = all.iter().map(|stat| (stat.id, stat.ppid)).collect();
            self.settle(kernel, &Exits::default());
            return 0;
        }
        let kernel = RefCell::new(kernel);
        let is_gone = |pid| !kernel.borrow().processes.contains_key(&pid);
        let gone = self.journal.take_reaped(&is_gone);
        let Changes { births, unobserved, .. } =
            self.journal.settle(|pid, _| kernel.borrow().stat(pid), drop, |_| None);
        let later = self.journal.take_late_events(&is_gone, std::iter::empty());
        assert!(later.records.is_empty() && later.unobserved.is_empty(), "nothing happens meanwhile");
        let kernel = kernel.into_inner();
        let member = |pid: u32| self.members.keys().find(|id| id.pid == pid).copied();
        let last = gone.into_iter().filter_map(|(pid, record)| {
            let record = record.expect("a record");
            Some(ExitedMember { id: member(pid)?, ppid: record.parent, own: record.used.cpu, newborn: false })
        });
        let last = last.collect();
        for birth in births {
            let above = birth.ancestor.map(pid_of).expect("an ancestor");
            assert!(self.members.keys().any(|id| id.pid == above), "of the tree");
            self.members.insert(birth.id, above);
        }
        let unobserved = unobserved.into_iter().map(|(who, sums)| UnobservedBelow {
            id: *self.members.keys().find(|id| id.pid == pid_of(who)).expect("a member"),
            used: sums.used.cpu,
            lives: sums.lives.cpu,
            orphaned: sums.orphaned.cpu,
            late: sums.late.cpu,
            is_subreaper: sums.is_subreaper,
        });
        let exits = Exits { members: last, unobserved: unobserved.collect() };
        self.settle(kernel, &exits)
    }

    fn settle(&mut self, kernel: &Kernel, exits: &Exits) -> u64 {
        self.members.retain(|id, _| kernel.presence(*id) == Presence::Present);
        let members: Vec<_> = self.members.iter().map(|(id, origin)| kernel.times(id.pid, *origin)).collect();
        let charges = self.ledger.settle(&members, exits, |id| kernel.presence(id));
        let exited = charges.exited.into_iter().map(|(_, charge)| charge);
        charges.living.into_iter().chain(exited).map(Charge::total).sum()
    }
}

/// All that is to be drawn of a tale, by kind: what is marked, and how.
fn drawing(tale: &[String]) -> BTreeMap<&'static str, Vec<(String, String)>> {
    let mut kernel = Kernel::default();
    let (mut scan, mut follower, mut plugin) = (Scan::default(), Follower::default(), None);
    let (mut cells, mut rates) = (Vec::new(), Vec::new());
    // Last reading of each process, and the CPU that was expected of it then.
    let mut before: BTreeMap<Identity, (MemberTimes, u64)> = BTreeMap::new();
    for sentence in tale {
        if sentence != "gather" {
            kernel.does(sentence);
            continue;
        }
        let gather = kernel.gathers;
        let by_rule = scan.gather(&kernel);
        let mut now = BTreeMap::new();
        let mut total = 0;
        for (member, charge) in &by_rule {
            let mut cell =
                |what: &str, ns: i128| cells.push((format!("{gather} {} {what}", member.id.pid), seconds(ns)));
            cell("own", member.own.into());
            cell("reaped", member.reaped.into());
            now.insert(member.id, (*member, scan.expected(member.id.pid)));
            if gather == 0 {
                continue;
            }
            let known = before.get(&member.id);
            let (own, reaped, expected) =
                known.map_or((0, 0, 0), |(known, expected)| (known.own, known.reaped, *expected));
            // The rule as the document has it, computed apart: children that were read before and do not exist now.
            let exited = before.values().filter(|(child, _)| child.ppid == member.id.pid);
            let exited = exited.filter(|(child, _)| kernel.presence(child.id) == Presence::Reaped);
            let lives: u64 = exited.map(|(child, expected)| child.own + child.reaped + expected).sum();
            let gained = member.reaped - reaped;
            let due = i128::from(expected + lives) - i128::from(gained);
            cell("gone", lives.into());
            cell("due", due);
            cell("charge", charge.total().into());
            cell("owed", scan.expected(member.id.pid).into());
            assert_eq!(i128::from(charge.total()), i128::from(member.own - own) + 0.max(-due), "{member:?}");
            assert_eq!(i128::from(scan.expected(member.id.pid)), due.clamp(0, i128::from(2 * TICK)), "{member:?}");
            for (what, gained) in [("d_own", member.own - own), ("d_reaped", gained)] {
                if gained > 0 {
                    cells.push((format!("{gather} {} {what}", member.id.pid), format!("+{}", seconds(gained.into()))));
                }
            }
            total += charge.total();
        }
        before = now;
        let by_events = follower.gather(&mut kernel);
        let rate = |ns: u64| format!("{}", ns as f64 / INTERVAL as f64);
        if gather == 0 {
            plugin = Some(Plugin::new(&kernel));
        } else {
            let p_cpu = plugin.as_mut().unwrap().gather(&kernel);
            assert_eq!(p_cpu, rate(total), "the rule alone, and all of the plugin");
            assert_eq!(by_events, kernel.burnt, "by events, what was used since gather {}", gather - 1);
            rates.push((format!("{gather} scan"), p_cpu));
            rates.push((format!("{gather} events"), rate(by_events)));
        }
        kernel.burnt = 0;
        kernel.gathers += 1;
    }
    let drawn = [("cell", cells), ("p-cpu", rates), ("uses", kernel.uses), ("waits", kernel.waits)];
    drawn
        .map(|(kind, mut marks)| {
            (kind, {
                marks.sort();
                marks
            })
        })
        .into()
}

#[test]
fn the_pictures_show_what_the_accounting_does() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = fs::read_to_string(docs.join("accounting.md")).unwrap();
    let number = Regex::new(r"[0-9]+\.[0-9]+").unwrap();
    let links = Regex::new(r"\]\((images/accounting-[a-z]+\.svg)\)").unwrap();
    let pictures: Vec<_> = links.captures_iter(&page).map(|link| docs.join(&link[1])).collect();
    assert_eq!(pictures.len(), 5);
    for path in pictures {
        let picture = Picture::read(&path);
        let drawing = drawing(&picture.tale);
        for (kind, marks) in &drawing {
            assert_eq!(picture.shown(kind), *marks, "{}: {kind}", path.display());
        }
        // What is said below speaks of nothing else.
        for number in number.find_iter(&picture.notes()) {
            let number = number.as_str();
            let is_drawn = drawing.values().flatten().any(|(_, text)| text.trim_start_matches(['+', '-']) == number);
            assert!(is_drawn, "{}: {number}", path.display());
        }
    }
}
