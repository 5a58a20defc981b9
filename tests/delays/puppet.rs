//! Processes that do what a test tells them, thread by thread, and are at rest otherwise: then what the kernel counts of
//! them stands still, and can be compared to the last digit.
//!
//! They are this very executable: a process of libtest that runs [`play`] forks the first one, so that none has more threads
//! than it was told to have. Each of their threads connects to the test and takes its orders from there.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpid, set_parent_process_death_signal, setpriority_process,
    setrlimit, waitpid,
};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use crate::support::{PATIENCE, wait_for};

/// Where the test listens: says that this is a process of puppets.
const STAGE: &str = "TASKSTATS_TEST_STAGE";

/// The test in whose place [`play`] runs.
const PLAY: &str = "puppets_play_here";

// The test's side.

/// A tree of puppets, which ends with this.
pub struct Stage {
    /// The parent of the first one, which reaps it.
    libtest: Child,
    listener: UnixListener,
    _directory: TempDir,
}

impl Stage {
    /// Starts a tree; its root.
    pub fn new() -> (Self, Puppet) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stage");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut libtest = Command::new("/proc/self/exe");
        libtest.args(["--exact", PLAY]).env(STAGE, &path).stdin(Stdio::null()).stdout(Stdio::null());
        let libtest = libtest.spawn().unwrap();
        let stage = Self { libtest, listener, _directory: directory };
        let root = stage.enter();
        (stage, root)
    }

    /// A new thread of the process to which `puppet` belongs.
    pub fn thread(&self, puppet: &mut Puppet) -> Puppet {
        puppet.order("thread");
        self.enter()
    }

    /// A new child of the process to which `puppet` belongs.
    pub fn child(&self, puppet: &mut Puppet) -> Puppet {
        puppet.order("fork");
        self.enter()
    }

    fn enter(&self) -> Puppet {
        let (stream, _) = wait_for("a puppet", || self.listener.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut puppet = Puppet { pid: 0, tid: 0, stream: BufReader::new(stream) };
        let [pid, tid] = puppet.listen()[..] else { panic!("a puppet says its pid and tid") };
        (puppet.pid, puppet.tid) = (u32::try_from(pid).unwrap(), u32::try_from(tid).unwrap());
        puppet.await_rest();
        puppet
    }
}

impl Drop for Stage {
    /// The root goes with its parent, the others when nobody orders them any more.
    fn drop(&mut self) {
        let _ = self.libtest.kill();
        let _ = self.libtest.wait();
    }
}

/// A thread that waits for orders. Its process (if it is the first thread) or itself ends when this is dropped.
pub struct Puppet {
    pub pid: u32,
    pub tid: u32,
    stream: BufReader<UnixStream>,
}

impl Puppet {
    /// Has it do something and waits until that is done; what it says of it. See [`perform`] for what can be ordered.
    pub fn order(&mut self, order: &str) -> Vec<u64> {
        self.tell(order);
        self.hear()
    }

    /// Has it do something. What goes on for ever ends with the next order.
    pub fn tell(&mut self, order: &str) {
        self.stream.get_mut().write_all(format!("{order}\n").as_bytes()).unwrap();
    }

    /// Ends what goes on for ever.
    pub fn stop(&mut self) {
        self.tell("rest");
        self.listen();
        self.hear();
    }

    /// Waits until it has done something and is at rest.
    fn hear(&mut self) -> Vec<u64> {
        let said = self.listen();
        self.await_rest();
        said
    }

    /// Waits until it waits for an order: in recvfrom(2), and off its CPU, or the kernel would say that it is running.
    fn await_rest(&self) {
        wait_for("a puppet at rest", || {
            let call = std::fs::read_to_string(self.task().join("syscall")).unwrap();
            (call.split(' ').next()?.parse() == Ok(libc::SYS_recvfrom)).then_some(())
        });
    }

    fn listen(&mut self) -> Vec<u64> {
        let mut said = String::new();
        let length = self.stream.read_line(&mut said).expect("a puppet is slow");
        assert!(length > 0, "a puppet died");
        said.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    /// Its directory of files in /proc, as the thread it is.
    pub fn task(&self) -> PathBuf {
        format!("/proc/{}/task/{}", self.pid, self.tid).into()
    }

    /// Ends the thread, and with the first one the process. Waits until a thread is no more; a process is not reaped.
    pub fn end(self) {
        let (task, is_thread) = (self.task(), self.pid != self.tid);
        drop(self.stream);
        wait_for("the end of a puppet", || if is_thread { (!task.exists()).then_some(()) } else { is_dead(&task) });
    }
}

/// Whether it is a zombie, or nothing any more.
fn is_dead(task: &Path) -> Option<()> {
    match std::fs::read(task.join("stat")) {
        Ok(stat) => {
            let close = stat.iter().rposition(|byte| *byte == b')')?;
            (stat.get(close + 2) == Some(&b'Z')).then_some(())
        }
        Err(_) => Some(()),
    }
}

// The puppets' side.

/// Everything is reached by this path.
static STAGE_PATH: OnceLock<PathBuf> = OnceLock::new();

/// Where the mapping of this process is, and how long.
static MAPPING: (AtomicUsize, AtomicUsize) = (AtomicUsize::new(0), AtomicUsize::new(0));

/// Forks the first puppet and reaps it, if this process is here for that.
pub fn play() {
    let Some(path) = std::env::var_os(STAGE) else { return };
    STAGE_PATH.set(path.into()).unwrap();
    // Nothing may get back to libtest in a process that was forked from it.
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(std::io::stderr(), "a puppet: {panic}");
        // SAFETY: ends the process, whatever state it is in.
        unsafe { libc::_exit(1) }
    }));
    end_with_the_parent();
    setpriority_process(None, 0).expect("the tests are niced themselves, and may not undo it");
    reap(fork(obey));
}

/// If the test itself is killed, nothing runs on for long.
fn end_with_the_parent() {
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    setrlimit(Resource::Cpu, Rlimit { current: Some(120), maximum: Some(120) }).unwrap();
}

/// A thread's life.
fn obey() {
    let mut stage = UnixStream::connect(STAGE_PATH.get().unwrap()).unwrap();
    let me = format!("{} {}\n", getpid().as_raw_nonzero(), gettid().as_raw_nonzero());
    stage.write_all(me.as_bytes()).unwrap();
    let mut orders = BufReader::new(stage.try_clone().unwrap());
    let mut order = String::new();
    while orders.read_line(&mut order).unwrap() > 0 {
        let words: Vec<_> = order.split_whitespace().collect();
        let said: Vec<_> = perform(&words, &stage).iter().map(u64::to_string).collect();
        if writeln!(stage, "{}", said.join(" ")).is_err() {
            return;
        }
        order.clear();
    }
}

fn perform(order: &[&str], stage: &UnixStream) -> Vec<u64> {
    let number = |index: usize| order[index].parse::<u64>().unwrap();
    match order[0] {
        // Becomes more.
        "thread" => _ = std::thread::Builder::new().spawn(obey).unwrap(),
        "fork" => _ = fork(obey),
        "reap" => reap(Pid::from_raw(i32::try_from(number(1)).unwrap()).unwrap()),
        // `children N MS`: one after the other, of MS of CPU each, reaped.
        "children" => (0..number(1)).for_each(|_| reap(fork(|| burn(number(2), user)))),
        // `threads N MS`: the same with threads.
        "threads" => (0..number(1)).for_each(|_| std::thread::scope(|scope| _ = scope.spawn(|| burn(number(2), user)))),
        // Uses CPU: so many ms, mostly in user or in system mode, or until told otherwise.
        "rest" => {}
        "burn" => burn(number(1), user),
        "burn_system" => burn(number(1), system),
        "spin" => {
            while !is_told(stage) {
                burn(1, user);
            }
        }
        // `duty ON OFF`: the same, but for pauses (ms).
        "duty" => {
            while !is_told(stage) {
                burn(number(1), user);
                std::thread::sleep(Duration::from_millis(number(2)));
            }
        }
        // Gives the CPU away so many times.
        "sleep_often" => (0..number(1)).for_each(|_| std::thread::sleep(Duration::from_nanos(1))),
        // Is scheduled in another way.
        "nice" => setpriority_process(None, order[1].parse().unwrap()).unwrap(),
        "pin" => pin(),
        // Shares so many MiB with its children, and touches them.
        "map" => map(usize::try_from(number(1)).unwrap() << 20),
        "touch" => touch(),
        // `read PATH N`: so many blocks, past the page cache.
        "read" => read(Path::new(order[1]), number(2)),
        // `name BYTES`, in hexadecimal.
        "name" => {
            let bytes = (0..order[1].len()).step_by(2);
            let bytes: Vec<_> = bytes.map(|at| u8::from_str_radix(&order[1][at..at + 2], 16).unwrap()).collect();
            rustix::thread::set_name(&std::ffi::CString::new(bytes).unwrap()).unwrap();
        }
        // What the kernel tells the process itself.
        "usage" => return [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN].into_iter().flat_map(usage).collect(),
        other => panic!("no such order: {other}"),
    }
    Vec::new()
}

/// Whether there is another order, or nobody to give one.
fn is_told(stage: &UnixStream) -> bool {
    let mut poll = [rustix::event::PollFd::new(stage, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut poll, Some(&rustix::time::Timespec::default())).unwrap() > 0
}

/// Uses CPU until this thread has used so many ms more.
fn burn(ms: u64, step: fn()) {
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let until = used() + Duration::from_millis(ms);
    while used() < until {
        step();
    }
}

fn user() {
    (0..1000).for_each(|i| _ = std::hint::black_box(i));
}

fn system() {
    let mut zeros = [0; 4096];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/zero").unwrap(), &mut zeros).unwrap();
}

/// To the first CPU that it may use: two threads that do that are in each other's way.
fn pin() {
    let allowed = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
    let mut cpus = CpuSet::new();
    cpus.set(first);
    sched_setaffinity(None, &cpus).unwrap();
}

fn map(length: usize) {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping anywhere, which is never unmapped.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, kind, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    MAPPING.0.store(start.addr(), Ordering::Relaxed);
    MAPPING.1.store(length, Ordering::Relaxed);
}

fn touch() {
    let (start, length) = (MAPPING.0.load(Ordering::Relaxed), MAPPING.1.load(Ordering::Relaxed));
    for at in (start..start + length).step_by(rustix::param::page_size()) {
        // SAFETY: within the mapping; other processes write the same value there.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(at).write_volatile(1) };
    }
}

/// A block where O_DIRECT may read and write one.
#[repr(align(4096))]
struct Block([u8; 4096]);

/// Blocks of a file, from the device each time.
fn read(path: &Path, blocks: u64) {
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let (mut block, there) = (Block([0; 4096]), file.metadata().unwrap().len() / 4096);
    for index in 0..blocks {
        let at = index % there * 4096;
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut block.0, at).unwrap();
    }
}

/// User and system time, µs.
fn usage(who: i32) -> [u64; 2] {
    // SAFETY: an all-zero rusage is one; the kernel fills it.
    let usage = unsafe {
        let mut usage = std::mem::zeroed();
        assert_eq!(libc::getrusage(who, &raw mut usage), 0);
        usage
    };
    [usage.ru_utime, usage.ru_stime].map(|time| (time.tv_sec * 1_000_000 + time.tv_usec).cast_unsigned())
}

/// Forks a child that lives `life`.
fn fork(life: impl FnOnce()) -> Pid {
    // SAFETY: the other threads, if there are any, wait for orders and hold nothing.
    match unsafe { libc::fork() } {
        0 => {
            end_with_the_parent();
            life();
            // SAFETY: nothing of libtest, of which this was forked, may run at its exit.
            unsafe { libc::_exit(0) }
        }
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        pid => Pid::from_raw(pid).unwrap(),
    }
}

fn reap(child: Pid) {
    waitpid(Some(child), WaitOptions::empty()).unwrap();
}
