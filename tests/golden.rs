//! Golden cases: made-up hosts, gather by gather, and the lines they give.
//!
//! A case is one text file in tests/golden. Its sections begin with `-- PATH --`; `plugin.conf` is the configuration, in
//! which `$ROOT` stands for the made-up host. `0/…` is the host when the counters are primed, `1/…` ten seconds later at the
//! first gather, and so on; `N/expected` are the lines of gather N, without their time. In `N/processes` each line is a
//! process: pid, ppid, state, start, utime, stime, cutime, cstime (ticks), threads, rss (pages), and comm in Rust's quoting.
//! A process started at or after tick 100000 + 1000 × N was born after gather N. In `N/threads` each line is a thread of one:
//! pid, tid, nice, blkio_delay (ticks), its schedstat: oncpu, waiting (ns), slices; and its start, if it is not the process's. Other
//! sections are files. In `N/taskstats` each line is what the kernel answers for a process: pid, and taskstat's fields in their
//! order, as many as that kernel has; or the one line is "refused".
//!
//! `TASKSTATS_TEST_UPDATE=1 cargo test --test golden` writes what comes out into the cases: read the difference.

// A test says what went wrong by panicking.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::print_stderr)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use telegraf_taskstats::agent::Agent;
use telegraf_taskstats::cli::Arguments;
use telegraf_taskstats::config::Settings;
use telegraf_taskstats::host::Host;
use telegraf_taskstats::kernel::clock::Clock;
use telegraf_taskstats::kernel::taskstats::{Ask, COUNTERS, Delays};

const SECOND: u64 = 1_000_000_000;
const BOOTED: u64 = 1_700_000_000 * SECOND;

/// Seconds since boot: 1000 when the counters are primed.
#[derive(Clone)]
struct FakeClock(Rc<Cell<u64>>);

impl Clock for FakeClock {
    fn realtime(&self) -> u64 {
        BOOTED + self.0.get()
    }

    fn monotonic(&self) -> u64 {
        self.0.get()
    }

    fn boottime(&self) -> u64 {
        self.0.get()
    }
}

/// The sections of a case, by path, in the order of the file.
struct Case {
    path: PathBuf,
    preamble: String,
    sections: Vec<(String, String)>,
}

impl Case {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let (mut preamble, mut sections) = (String::new(), Vec::<(String, String)>::new());
        for line in text.split_inclusive('\n') {
            let header = line.trim_end().strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --"));
            match (header, sections.last_mut()) {
                (Some(header), _) => sections.push((header.to_owned(), String::new())),
                (None, Some((_, section))) => section.push_str(line),
                (None, None) => preamble.push_str(line),
            }
        }
        Self { path, preamble, sections }
    }

    fn write(&self) {
        let mut text = self.preamble.clone();
        for (header, section) in &self.sections {
            write!(text, "-- {header} --\n{section}").unwrap();
        }
        fs::write(&self.path, text).unwrap();
    }

    fn get(&self, header: &str) -> Option<&str> {
        self.sections.iter().find(|(name, _)| name == header).map(|(_, section)| section.as_str())
    }

    /// Makes the host what it is at a step, files in place: a stat file may be held open.
    fn make(&self, step: usize, root: &Path) {
        let prefix = format!("{step}/");
        let mut files = BTreeMap::from([("proc/meminfo".to_owned(), MEMINFO.to_owned())]);
        for (header, section) in &self.sections {
            match header.strip_prefix(&prefix) {
                Some("expected" | "threads" | "taskstats") | None => {}
                Some("processes") => {
                    let threads = self.get(&format!("{prefix}threads")).unwrap_or_default();
                    let threads: Vec<_> = threads.lines().map(Thread::parse).collect();
                    files.extend(section.lines().flat_map(|line| process_files(line, &threads)));
                }
                Some(path) => drop(files.insert(path.to_owned(), section.clone())),
            }
        }
        let kept: BTreeSet<PathBuf> = files.keys().map(|path| root.join(path)).collect();
        remove_all_but(root, &kept);
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let written = SystemTime::UNIX_EPOCH + Duration::from_nanos(BOOTED + 990 * SECOND);
            fs::File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        }
    }
}

const MEMINFO: &str = "MemTotal: 4000000 kB\nMemFree: 1 kB\nBuffers: 1 kB\nCached: 1 kB\nSwapCached: 0 kB\nActive: 1 kB\n\
    Inactive: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nDirty: 0 kB\nWriteback: 0 kB\nMapped: 1 kB\nSlab: 1 kB\n\
    Committed_AS: 1 kB\nVmallocTotal: 1 kB\nVmallocUsed: 1 kB\nVmallocChunk: 0 kB\n";

/// A line of `N/threads`.
struct Thread<'a> {
    pid: &'a str,
    tid: &'a str,
    nice: &'a str,
    blkio_delay: &'a str,
    schedstat: String,
    start: Option<&'a str>,
}

impl<'a> Thread<'a> {
    fn parse(line: &'a str) -> Self {
        let words: Vec<_> = line.split(' ').collect();
        let [pid, tid, nice, blkio_delay, oncpu, waiting, slices, rest @ ..] = words.as_slice() else {
            panic!("not a thread: {line:?}")
        };
        let schedstat = format!("{oncpu} {waiting} {slices}\n");
        Self { pid, tid, nice, blkio_delay, schedstat, start: rest.first().copied() }
    }
}

/// Path and text of the files of a process and its threads: its own stat and schedstat are the leader's.
fn process_files(line: &str, threads: &[Thread]) -> Vec<(String, String)> {
    let (pid, _) = line.split_once(' ').unwrap();
    let threads: Vec<_> = threads.iter().filter(|thread| thread.pid == pid).collect();
    let leader = threads.iter().find(|thread| thread.tid == pid);
    let (nice, blkio_delay) = leader.map_or(("0", "0"), |leader| (leader.nice, leader.blkio_delay));
    let mut files = vec![(format!("proc/{pid}/stat"), stat(line, pid, nice, blkio_delay, None))];
    files.extend(leader.map(|leader| (format!("proc/{pid}/schedstat"), leader.schedstat.clone())));
    for Thread { tid, nice, blkio_delay, schedstat, start, .. } in threads {
        files.push((format!("proc/{pid}/task/{tid}/stat"), stat(line, tid, nice, blkio_delay, *start)));
        files.push((format!("proc/{pid}/task/{tid}/schedstat"), schedstat.clone()));
    }
    files
}

/// The stat file of a thread of the process that `line` is.
fn stat(line: &str, tid: &str, nice: &str, blkio_delay: &str, own_start: Option<&str>) -> String {
    let words: Vec<_> = line.splitn(11, ' ').collect();
    let [_, ppid, state, start, utime, stime, cutime, cstime, threads, rss, comm] = words.as_slice() else {
        panic!("not a process: {line:?}")
    };
    let comm: String = comm.trim_matches('"').replace("\\n", "\n");
    let start = own_start.unwrap_or(start);
    format!(
        "{tid} ({comm}) {state} {ppid} 1 1 0 -1 4194304 0 0 0 0 {utime} {stime} {cutime} {cstime} 20 {nice} {threads} 0 \
         {start} 1 {rss} 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 {blkio_delay} 0 0 0 0 0 0 0 0 0 0\n"
    )
}

/// Removes what a step does not have, and directories that are then empty.
fn remove_all_but(directory: &Path, kept: &BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            remove_all_but(&path, kept);
            if !kept.iter().any(|file| file.starts_with(&path)) {
                fs::remove_dir(&path).unwrap();
            }
        } else if !kept.contains(&path) {
            fs::remove_file(&path).unwrap();
        }
    }
}

/// What is answered for each pid.
type Answers = BTreeMap<u32, Vec<u64>>;

/// Answers as set; nobody may ask if there are none.
#[derive(Clone, Default)]
struct FakeTaskstats(Rc<RefCell<Option<Answers>>>);

impl FakeTaskstats {
    fn set(&self, section: &str) {
        let answer = |line: &str| {
            let mut numbers = line.split(' ').map(|number| number.parse().unwrap());
            (u32::try_from(numbers.next().unwrap()).unwrap(), numbers.collect())
        };
        let answers = (section != "refused\n").then(|| section.lines().map(answer).collect());
        self.0.replace(answers);
    }
}

impl Ask for FakeTaskstats {
    fn ask(&mut self, tgids: &[u32], each: &mut dyn FnMut(usize, io::Result<Option<Delays>>)) -> io::Result<()> {
        let answers = self.0.borrow();
        let Some(answers) = answers.as_ref() else { return Err(io::ErrorKind::PermissionDenied.into()) };
        for (index, tgid) in tgids.iter().enumerate() {
            let delays = answers.get(tgid).map(|numbers| {
                let mut values = [0; COUNTERS];
                values[..numbers.len()].copy_from_slice(numbers);
                Delays { values, known: numbers.len() }
            });
            each(index, Ok(delays));
        }
        Ok(())
    }
}

/// Runs a case: the lines of each gather.
fn run(case: &Case) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path).display().to_string();
    for directory in ["proc", "sys"] {
        fs::create_dir(root.path().join(directory)).unwrap();
    }
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = case.get("plugin.conf").unwrap().replace("$ROOT", root.path().to_str().unwrap());
    fs::write(config.path(), text).unwrap();
    let words =
        ["x", "--proc-root", &at("proc"), "--sys-root", &at("sys"), "--config", config.path().to_str().unwrap()];
    let arguments = Arguments::of(words.iter().map(Into::into)).unwrap();
    let settings = Settings::load(&arguments).unwrap();
    let clock = FakeClock(Rc::new(Cell::new(1000 * SECOND)));
    let steps = case.sections.iter().filter(|(header, _)| header.ends_with("/expected")).count();
    assert!(steps > 0, "{} has no N/expected", case.path.display());
    case.make(0, root.path());
    let mut host = Host::open(&settings.proc_root, &settings.sys_root, Box::new(clock.clone()), 0).unwrap();
    let taskstats = FakeTaskstats::default();
    if let Some(section) = case.get("0/taskstats") {
        taskstats.set(section);
        host.taskstats = Box::new(taskstats.clone());
    }
    let mut agent = Agent::new(settings, host);
    let _ = agent.prime();
    let gathers = (1..=steps).map(|step| {
        case.make(step, root.path());
        taskstats.set(case.get(&format!("{step}/taskstats")).unwrap_or_default());
        clock.0.set(clock.0.get() + 10 * SECOND);
        let lines = String::from_utf8(agent.gather()).unwrap();
        let time = format!(" {}", clock.realtime());
        lines.lines().map(|line| format!("{}\n", line.strip_suffix(&time).unwrap())).collect()
    });
    gathers.collect()
}

#[test]
fn golden_cases() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    let mut wrong = Vec::new();
    for mut case in paths.into_iter().map(Case::read) {
        for (step, lines) in run(&case).into_iter().enumerate() {
            let header = format!("{}/expected", step + 1);
            let (_, expected) = case.sections.iter_mut().find(|(name, _)| *name == header).unwrap();
            if *expected != lines {
                wrong.push(format!("{} {header}:\n{lines}instead of\n{expected}", case.path.display()));
                *expected = lines;
            }
        }
        if std::env::var_os("TASKSTATS_TEST_UPDATE").is_some() {
            case.write();
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
