//! Exit records: the CPU and delays of a process when it exits, as taskstats sends them (linux/taskstats.h,
//! TASKSTATS_CMD_ATTR_REGISTER_CPUMASK). One record for each process, with the sum over its threads.
//!
//! They require CAP_NET_ADMIN, the initial user, pid and network namespaces, and version 12 of the struct (Linux 5.19), the
//! first that distinguishes a process from a thread. A record is sent before the process can be reaped.
//!
//! The CPU in a record is a lower bound. It ends with the last tick or switch before the record, so of a process that lives
//! for less than a tick nearly all can be missing; the cost of the exit itself is missing as well. The schedstat of a
//! zombie has both.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use neli::consts::nl::NlmF;
use rustix::io::Errno;
use rustix::net::netlink::GENERIC;
use rustix::time::ClockId;

use super::clock::nanoseconds;
use super::netlink::{self, Drained, Listener, Message, Request, find, u16_at, u32_at, u64_at};
use super::taskstats::{
    BLKIO_DELAY, Delays, TASKSTATS_CMD_GET, TASKSTATS_TYPE_AGGR_TGID, TASKSTATS_TYPE_STATS, Taskstats, is_since_boot,
    unanswered,
};

// linux/taskstats.h
const TASKSTATS_CMD_ATTR_REGISTER_CPUMASK: u16 = 3;
const TASKSTATS_CMD_ATTR_DEREGISTER_CPUMASK: u16 = 4;
const TASKSTATS_TYPE_AGGR_PID: u16 = 4;

/// The flag in ac_flag (linux/acct.h) that says that the last thread exits.
const AGROUP: u8 = 0x20;
const AC_FLAG: usize = 8;

/// The version that brought AGROUP and ac_tgid (Linux 5.19).
const VERSION: u16 = 12;

/// Greatest difference, µs, between the end of a process and the begin that a thread's record gives it. Threads that exit
/// at once may each be preempted between looking at the clock and sending.
const AT_ONCE: u64 = 1_000_000;

/// Where things are in the struct.
struct Layout {
    cpu_run_virtual_total: usize,
    ac_ppid: usize,
    ac_utime: usize,
    ac_stime: usize,
    ac_tgid: usize,
    ac_tgetime: usize,
}

const LAYOUT: Layout =
    Layout { cpu_run_virtual_total: 72, ac_ppid: 132, ac_utime: 152, ac_stime: 160, ac_tgid: 368, ac_tgetime: 376 };

/// In version 15, which had a maximum and a minimum put behind each total.
const LAYOUT_15: Layout =
    Layout { cpu_run_virtual_total: 120, ac_ppid: 180, ac_utime: 200, ac_stime: 208, ac_tgid: 464, ac_tgetime: 472 };

/// The last of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitRecord {
    /// The process (tgid), by the initial pid namespace.
    pub pid: u32,
    /// Pid of its real parent at that moment (ac_ppid); 0 if it has none.
    pub parent: u32,
    /// Lifetime, ns of CLOCK_MONOTONIC, to the µs (ac_tgetime).
    pub elapsed: u64,
    /// CPU of all its threads, ns (cpu_run_virtual_total): a lower bound, up to a tick for each thread too low.
    pub cpu: u64,
    /// Part of `cpu` in user mode, ns. Split as in /proc: in the proportion of the ticks in each mode.
    pub utime: u64,
    /// Part of `cpu` in system mode, ns.
    pub stime: u64,
    /// Delays of all its threads.
    pub delays: Delays,
}

impl ExitRecord {
    /// Removes a delay without a begin ([`is_since_boot`]), whose true length is unknown. Of a process that has waited that
    /// long in many threads, the last interval is missing then.
    fn without_made_up_delay(mut self, now: u64) -> Self {
        if is_since_boot(self.delays.values[BLKIO_DELAY], self.elapsed, now) {
            self.delays.values[BLKIO_DELAY] = 0;
        }
        self
    }
}

/// A registration for the exits on every CPU.
#[derive(Debug)]
pub struct ExitRecords {
    listener: Listener,
    family: u16,
    /// The possible CPUs, as a C string.
    cpus: Vec<u8>,
    processes: Processes,
}

impl ExitRecords {
    /// Registers for the exits on the CPUs in `<sys>/devices/system/cpu/possible`, and sees that they come.
    ///
    /// # Errors
    /// - `PermissionDenied`: CAP_NET_ADMIN of the initial user namespace is needed
    /// - `InvalidInput`: this is another pid namespace
    /// - `NotConnected`: this is another network namespace
    /// - `NotFound`: the kernel has no taskstats
    /// - `Unsupported`: it is older than Linux 5.19
    ///
    /// or what else the kernel said.
    pub fn listen(sys: &Path) -> io::Result<Self> {
        let path = sys.join("devices/system/cpu/possible");
        let mut cpus = std::fs::read(&path).map_err(|error| netlink::meaning(&error, &path.display().to_string()))?;
        cpus.truncate(cpus.trim_ascii_end().len());
        cpus.push(0);
        let family = Taskstats::open()?.family();
        // To drop it is to deregister, also what was never registered.
        let mut records = Self { listener: Listener::open(GENERIC, 0)?, family, cpus, processes: Processes::default() };
        records.register()?;
        records.see_that_they_come()?;
        Ok(records)
    }

    fn request(&self, attribute: u16, flags: NlmF) -> Vec<u8> {
        let mut message = Vec::new();
        let request = Request { family: self.family, command: TASKSTATS_CMD_GET, attribute, value: &self.cpus };
        request.push(&mut message, flags, 0);
        message
    }

    fn register(&mut self) -> io::Result<()> {
        self.listener.send(&self.request(TASKSTATS_CMD_ATTR_REGISTER_CPUMASK, NlmF::ACK))?;
        // The kernel answers within send(2). Records may stand before the answer.
        let mut answer = None;
        let _ = self.listener.drain(|message| {
            let refusal = || message.error().map(Err);
            answer = answer.take().or_else(|| if message.acknowledges() { Some(Ok(())) } else { refusal() });
        })?;
        let Err(error) = answer.unwrap_or_else(|| Err(unanswered())) else { return Ok(()) };
        let what = match Errno::from_io_error(&error) {
            Some(Errno::PERM) => "exit records need CAP_NET_ADMIN, in the initial user namespace",
            Some(Errno::INVAL) => "exit records exist in the initial pid namespace only",
            Some(Errno::RANGE) => "the possible CPUs are not those of this kernel",
            _ => return Err(error),
        };
        Err(netlink::meaning(&error, what))
    }

    /// Lets a thread exit, which must make a record before it can be joined: in another network namespace, none comes.
    fn see_that_they_come(&mut self) -> io::Result<()> {
        let thread = std::thread::Builder::new().spawn(|| {})?;
        drop(thread.join());
        let (family, mut newest) = (self.family, None);
        let drained = self.listener.drain(|message| newest = newest.max(version(message, family)))?;
        match newest {
            None if drained == Drained::Complete => {
                let what = "exit records exist in the initial network namespace only";
                Err(io::Error::new(ErrorKind::NotConnected, what))
            }
            Some(version) if version < VERSION => {
                let what = format!("exit records are read from version {VERSION} of struct taskstats on (Linux 5.19)");
                Err(io::Error::new(ErrorKind::Unsupported, format!("{what}, and this is version {version}")))
            }
            _ => Ok(()),
        }
    }

    /// Sets how many bytes of messages may wait, beyond rmem_max only with CAP_NET_ADMIN. 16 MiB at first; a record
    /// takes 650 of these bytes, or twice that for the last thread of many.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        self.listener.set_receive_buffer(bytes)
    }

    /// Returns how much there is of the room for messages that was asked for at first: less than 1 where the privilege was missing.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn room(&self) -> io::Result<f64> {
        self.listener.room()
    }

    /// Calls `each` with every process that has exited since the last call, in that order, without waiting. After an
    /// overrun, records that are left and later ones still come.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain(&mut self, mut each: impl FnMut(ExitRecord)) -> io::Result<Drained> {
        let Self { listener, family, processes, .. } = self;
        let mut complete = true;
        let drained = listener.drain(|message| {
            if message.kind == *family {
                match exit(message) {
                    Some(exit) => processes.take(exit),
                    None => complete = false,
                }
            }
        });
        let now = nanoseconds(ClockId::Monotonic);
        processes.tell(|record| each(record.without_made_up_delay(now)));
        if drained? == Drained::Complete && complete {
            return Ok(Drained::Complete);
        }
        // Nobody knows whose end is missing, and another process may get the pid.
        processes.threads.clear();
        Ok(Drained::Lossy)
    }
}

/// Readable when there is something to drain.
impl AsFd for ExitRecords {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Deregisters. The kernel would notice only when it cannot send.
impl Drop for ExitRecords {
    fn drop(&mut self) {
        let _ = self.listener.send(&self.request(TASKSTATS_CMD_ATTR_DEREGISTER_CPUMASK, NlmF::empty()));
    }
}

/// Fields of a `struct taskstats` that are used, of one thread or the sum of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    /// ns.
    cpu: u64,
    /// µs, by ticks.
    utime: u64,
    stime: u64,
    delays: Delays,
}

/// Content of one message.
#[derive(Debug, Clone, Copy)]
struct Exit {
    tgid: u32,
    ppid: u32,
    /// µs since the process began.
    elapsed: u64,
    /// The last thread of its process has exited.
    last: bool,
    used: Usage,
    /// Sum over all threads, if there was more than one.
    whole: Option<Usage>,
}

impl Usage {
    fn decode(version: u16, layout: &Layout, taskstats: &[u8]) -> Option<Self> {
        Some(Self {
            cpu: u64_at(taskstats, layout.cpu_run_virtual_total)?,
            utime: u64_at(taskstats, layout.ac_utime)?,
            stime: u64_at(taskstats, layout.ac_stime)?,
            delays: Delays::decode_as(version, taskstats)?,
        })
    }

    /// Combines each number with that of another.
    fn zip(&mut self, other: &Self, combine: fn(u64, u64) -> u64) {
        self.cpu = combine(self.cpu, other.cpu);
        self.utime = combine(self.utime, other.utime);
        self.stime = combine(self.stime, other.stime);
        for (to, from) in self.delays.values.iter_mut().zip(other.delays.values) {
            *to = combine(*to, from);
        }
    }

    /// `cpu` as user and system time, ns.
    fn split(&self) -> (u64, u64) {
        let ticks = u128::from(self.utime) + u128::from(self.stime);
        // Not hit by any tick: user time. Not more than cpu, so it fits.
        let stime = (u128::from(self.cpu) * u128::from(self.stime)).checked_div(ticks).unwrap_or(0) as u64;
        (self.cpu.saturating_sub(stime), stime)
    }
}

/// The version of the struct in a record.
fn version(message: &Message<'_>, family: u16) -> Option<u16> {
    let aggregate = message.attribute(TASKSTATS_TYPE_AGGR_PID).filter(|_| message.kind == family)?;
    u16_at(find(aggregate, TASKSTATS_TYPE_STATS)?, 0)
}

/// Decodes a record. `None`: something is missing.
fn exit(message: &Message<'_>) -> Option<Exit> {
    let stats = |aggregate| find(message.attribute(aggregate)?, TASKSTATS_TYPE_STATS);
    let thread = stats(TASKSTATS_TYPE_AGGR_PID)?;
    let version = u16_at(thread, 0).filter(|version| *version >= VERSION)?;
    let layout = if version == 15 { &LAYOUT_15 } else { &LAYOUT };
    Some(Exit {
        tgid: u32_at(thread, layout.ac_tgid)?,
        ppid: u32_at(thread, layout.ac_ppid)?,
        elapsed: u64_at(thread, layout.ac_tgetime)?,
        last: thread.get(AC_FLAG)? & AGROUP != 0,
        used: Usage::decode(version, layout, thread)?,
        // Many kernels leave its version 0.
        whole: match stats(TASKSTATS_TYPE_AGGR_TGID) {
            Some(process) => Some(Usage::decode(version, layout, process)?),
            None => None,
        },
    })
}

/// Puts together what the threads of a process used.
///
/// The record of a process has that too, and of threads that exited before we listened. But many kernels leave the
/// ticks and the context switches out of it, and it is made while other threads exit: what these used can be missing,
/// and their records can come after it. All are sent before the process can be waited for.
#[derive(Debug, Default)]
struct Processes {
    /// Sum over the threads that exited before the rest of their process, by tgid: one entry for each such process, as long
    /// as it lives.
    threads: HashMap<u32, Threads>,
    /// The processes that exited in this drain.
    ended: Vec<Ended>,
    /// Where in it those of more than one thread are.
    recent: HashMap<u32, usize>,
    /// Processes that were reported in the drain before. Records of their threads that come later are dropped.
    told: HashMap<u32, usize>,
}

/// The threads of a process that exited so far.
#[derive(Debug)]
struct Threads {
    used: Usage,
    /// µs since the process began.
    elapsed: u64,
}

/// A process that exited.
#[derive(Debug)]
struct Ended {
    tgid: u32,
    ppid: u32,
    elapsed: u64,
    /// By the records of its threads.
    used: Usage,
    /// By its own record, if it had more than one.
    whole: Option<Usage>,
}

impl Processes {
    /// Takes in a record.
    fn take(&mut self, exit: Exit) {
        let Exit { tgid, ppid, elapsed, last, mut used, whole } = exit;
        if last {
            let threads = self.threads.remove(&tgid);
            // If it never had another thread, these were another process's, whose end was not seen.
            if whole.is_some() {
                if let Some(mut threads) = threads {
                    threads.add(&used, elapsed);
                    used = threads.used;
                }
                self.recent.insert(tgid, self.ended.len());
            }
            self.ended.push(Ended { tgid, ppid, elapsed, used, whole });
        } else if let Some(ended) = self.recent.get(&tgid).and_then(|at| self.ended.get_mut(*at)) {
            ended.used.zip(&used, u64::saturating_add);
        } else if !self.told.contains_key(&tgid) {
            self.threads
                .entry(tgid)
                .and_modify(|threads| threads.add(&used, elapsed))
                .or_insert(Threads { used, elapsed });
        }
    }

    /// Reports the processes that exited, at the end of a drain.
    fn tell(&mut self, each: impl FnMut(ExitRecord)) {
        // Not kept: there were many if there was a storm.
        mem::take(&mut self.ended).into_iter().map(Ended::record).for_each(each);
        self.told = mem::take(&mut self.recent);
    }
}

impl Threads {
    /// Adds another thread, with the age of the process at its exit.
    fn add(&mut self, used: &Usage, elapsed: u64) {
        if self.elapsed > elapsed.saturating_add(AT_ONCE) {
            // A life only gets longer: another process had the pid, and its end was not seen.
            *self = Self { used: *used, elapsed };
        } else {
            self.used.zip(used, u64::saturating_add);
            self.elapsed = self.elapsed.max(elapsed);
        }
    }
}

impl Ended {
    fn record(self) -> ExitRecord {
        let Self { tgid: pid, ppid: parent, elapsed, mut used, whole } = self;
        if let Some(whole) = whole {
            // Each lacks what the other may have: both are lower bounds.
            used.zip(&whole, u64::max);
        }
        let (utime, stime) = used.split();
        ExitRecord {
            pid,
            parent,
            elapsed: elapsed.saturating_mul(1000),
            cpu: used.cpu,
            utime,
            stime,
            delays: used.delays,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, clippy::print_stdout)]
#[allow(unsafe_code)] // to end a thread alone
mod tests {
    use super::*;
    use crate::kernel::elsewhere;
    use crate::kernel::netlink::Messages;
    use crate::kernel::netlink::made_up::{attribute, message, only};
    use crate::kernel::taskstats::{COUNTERS, NAMES};
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use proptest::prelude::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    use rustix::time::clock_gettime;

    /// Linux 6.18, captured by tests/event_messages/capture.py.
    const REGISTERED: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-registered.bin");
    const EXIT: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-exit.bin");
    const THREAD: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-exit-thread.bin");
    const THREADS: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-exit-threads.bin");
    const EXECED: &[u8] = include_bytes!("../../tests/event_messages/linux-6.18-exit-execed.bin");
    const CAPTURED: [&[u8]; 4] = [EXIT, THREAD, THREADS, EXECED];

    /// What a drain of these messages tells, each a drain of its own.
    fn settled(messages: &[&[u8]]) -> Vec<ExitRecord> {
        let mut processes = Processes::default();
        messages.iter().flat_map(|message| drained(&mut processes, &[message])).collect()
    }

    /// What one drain of these messages tells.
    fn drained(processes: &mut Processes, messages: &[&[u8]]) -> Vec<ExitRecord> {
        messages.iter().for_each(|message| processes.take(exit(&only(message)).unwrap()));
        let mut told = Vec::new();
        processes.tell(|record| told.push(record));
        told
    }

    fn counters(record: &ExitRecord) -> Vec<(&'static str, u64)> {
        let not_0 = NAMES.into_iter().zip(record.delays.values).filter(|(_, value)| *value != 0);
        not_0.collect()
    }

    #[test]
    fn a_wait_since_boot_is_left_out_of_a_short_life() {
        let [record] = settled(&[EXIT])[..] else { panic!() };
        let with = |delay| {
            let mut record = record;
            record.delays.values[BLKIO_DELAY] = delay;
            record
        };
        let now = 3_600_000_000_000;
        assert_eq!(with(now).without_made_up_delay(now), with(0));
        assert_eq!(with(20_000_000).without_made_up_delay(now), with(20_000_000));
    }

    #[test]
    fn reads_the_captured_messages() {
        let [record] = settled(&[EXIT])[..] else { panic!() };
        assert_eq!((record.pid, record.parent, record.elapsed), (22761, 22720, 39_683_000));
        assert_eq!((record.cpu, record.utime, record.stime), (38_558_918, 38_558_918, 0));
        assert_eq!(record.delays.known, COUNTERS);
        let expected = [("cpu_count", 6), ("cpu_delay_total", 117_743), ("nvcsw", 1), ("nivcsw", 4)];
        assert_eq!(counters(&record), expected);

        // The process has its threads in it.
        let [record] = settled(&[THREADS])[..] else { panic!() };
        assert_eq!((record.pid, record.parent, record.elapsed), (22762, 22720, 157_386_000));
        assert_eq!((record.cpu, record.utime + record.stime), (142_832_353, 142_832_353));
        assert_eq!(record.stime, 142_832_353 * 4000 / 143_983);
        let expected = [("cpu_count", 58), ("cpu_delay_total", 21_771_202), ("nvcsw", 22), ("nivcsw", 32)];
        assert_eq!(counters(&record), expected);
        assert_eq!(settled(&[THREAD, THREADS]), [record], "none counts twice");

        assert_eq!(settled(&[THREAD]), []);
        assert_eq!(settled(&[EXECED]), [], "it goes on");
        assert_eq!(version(&only(EXIT), 31), Some(16));
        assert_eq!(version(&only(EXIT), 30), None);
        assert!(only(REGISTERED).acknowledges() && only(REGISTERED).error().is_none());
    }

    /// Those of version 15 are where its own header has them.
    const VERSIONS: [(u16, usize); 7] = [(12, 400), (13, 416), (14, 432), (15, 560), (16, 560), (17, 688), (99, 900)];

    struct Made {
        pid: u32,
        cpu: u64,
        nvcsw: u64,
        flag: u8,
        elapsed: u64,
    }

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    fn taskstats(version: u16, size: usize, made: &Made) -> Vec<u8> {
        let mut bytes = vec![0; size];
        let (shift, late) = if version == 15 { (48, 96) } else { (0, 0) };
        put(&mut bytes, 0, &version.to_ne_bytes());
        put(&mut bytes, 8, &[made.flag]);
        put(&mut bytes, 72 + shift, &made.cpu.to_ne_bytes());
        put(&mut bytes, 128 + shift, &9999_u32.to_ne_bytes());
        put(&mut bytes, 132 + shift, &7_u32.to_ne_bytes());
        put(&mut bytes, 152 + shift, &(made.cpu * 3).to_ne_bytes());
        put(&mut bytes, 160 + shift, &made.cpu.to_ne_bytes());
        put(&mut bytes, 272 + shift, &made.nvcsw.to_ne_bytes());
        put(&mut bytes, 368 + late, &made.pid.to_ne_bytes());
        put(&mut bytes, 376 + late, &made.elapsed.to_ne_bytes());
        bytes
    }

    fn aggregate(kind: u16, stats: &[u8]) -> Vec<u8> {
        attribute(kind, &[attribute(kind - 3, &[1; 4]), attribute(6, &[]), attribute(3, stats)].concat())
    }

    fn record(attributes: &[u8]) -> Vec<u8> {
        message(31, 0, &[&[2, 1, 0, 0], attributes].concat())
    }

    fn thread(made: &Made) -> Vec<u8> {
        record(&aggregate(4, &taskstats(16, 560, made)))
    }

    /// As many kernels send it: no version, only the delays and cpu_run_*.
    fn process(last: &Made, cpu: u64) -> Vec<u8> {
        let mut whole = vec![0; 560];
        put(&mut whole, 72, &cpu.to_ne_bytes());
        record(&[aggregate(4, &taskstats(16, 560, last)), aggregate(5, &whole)].concat())
    }

    #[test]
    fn every_version_is_read_and_no_truncation_of_it_panics() {
        let made = Made { pid: 5, cpu: 1000, nvcsw: 3, flag: AGROUP | 0x10, elapsed: 8 };
        for (version, size) in VERSIONS {
            let stats = taskstats(version, size, &made);
            let [record] = settled(&[&record(&aggregate(4, &stats))])[..] else { panic!("version {version}") };
            let ExitRecord { pid, parent, elapsed, cpu, utime, stime, delays } = record;
            assert_eq!((pid, parent, elapsed, cpu, utime, stime), (5, 7, 8000, 1000, 750, 250), "version {version}");
            assert_eq!(delays.values[6], 3);
            assert_eq!(
                delays.known,
                match version {
                    12 => 14,
                    13 => 16,
                    _ => 18,
                }
            );
            let least = if version == 15 { 480 } else { 384 };
            for length in 0..size {
                let shorter = self::record(&aggregate(4, &stats[..length]));
                assert_eq!(exit(&only(&shorter)).is_some(), length >= least, "version {version}, {length} bytes");
            }
        }
        for old in [0, 8, 11] {
            assert!(exit(&only(&record(&aggregate(4, &taskstats(old, 560, &made))))).is_none());
        }
    }

    #[test]
    fn a_record_without_all_of_it_is_none() {
        let made = Made { pid: 5, cpu: 1000, nvcsw: 3, flag: AGROUP, elapsed: 8 };
        let stats = taskstats(16, 560, &made);
        for attributes in [
            vec![],
            attribute(3, &stats),                                         // outside of the aggregate
            aggregate(5, &stats),                                         // the process only
            attribute(4, &[]),                                            // empty
            [aggregate(4, &stats), aggregate(5, &stats[..100])].concat(), // half a process
            [255, 255, 4, 0].to_vec(),                                    // beyond the end
        ] {
            assert!(exit(&only(&record(&attributes))).is_none());
        }
        for whole in CAPTURED {
            for length in 0..whole.len() {
                assert_eq!(Messages(&whole[..length]).count(), 0);
                if let Some(payload) = whole[16..].get(..length) {
                    let _ = exit(&only(&message(31, 0, payload)));
                }
            }
        }
    }

    #[test]
    fn threads_count_where_the_process_leaves_them_out() {
        let one = |elapsed| thread(&Made { pid: 5, cpu: 100, nvcsw: 10, flag: 0, elapsed });
        let other = thread(&Made { pid: 6, cpu: 7, nvcsw: 7, flag: 0, elapsed: 1 });
        let last = Made { pid: 5, cpu: 50, nvcsw: 5, flag: AGROUP, elapsed: 30 };
        let told = |messages: &[&[u8]]| {
            let [record] = settled(messages)[..] else { panic!() };
            assert_eq!((record.pid, record.utime + record.stime), (5, record.cpu));
            (record.cpu, record.delays.values[6])
        };
        // cpu is in the record of the process, switches are not.
        assert_eq!(told(&[&one(10), &other, &one(20), &process(&last, 250)]), (250, 25));
        // Some exited before we listened.
        assert_eq!(told(&[&one(10), &other, &one(20), &process(&last, 900)]), (900, 25));
        // One is missing from the record of the process.
        assert_eq!(told(&[&one(10), &one(20), &process(&last, 150)]), (250, 25));
        // It looked at the clock later, and was sent sooner.
        assert_eq!(told(&[&one(30 + AT_ONCE), &process(&last, 50)]), (150, 15));
        // Another process had the pid, and its end was not seen.
        assert_eq!(told(&[&one(31 + AT_ONCE), &process(&last, 50)]), (50, 5));
        assert_eq!(told(&[&one(31 + AT_ONCE), &one(20), &process(&last, 150)]), (150, 15));
        assert_eq!(told(&[&one(10), &thread(&last)]), (50, 5), "this one had no other thread");
    }

    #[test]
    fn of_threads_that_exit_at_once_the_last_can_be_the_first_to_be_told() {
        let last = Made { pid: 5, cpu: 50, nvcsw: 5, flag: AGROUP, elapsed: 30 };
        let late = thread(&Made { pid: 5, cpu: 100, nvcsw: 10, flag: 0, elapsed: 30 });
        let alone = thread(&Made { pid: 6, cpu: 1, nvcsw: 1, flag: AGROUP, elapsed: 1 });
        let numbers = |told: Vec<ExitRecord>| -> Vec<_> {
            told.iter().map(|record| (record.pid, record.cpu, record.delays.values[6])).collect()
        };
        for whole in [50, 150] {
            let mut processes = Processes::default();
            let told = drained(&mut processes, &[&process(&last, whole), &alone, &late]);
            assert_eq!(numbers(told), [(5, 150, 15), (6, 1, 1)], "in the order of their ends");
            assert!(processes.threads.is_empty());
        }
        // So late that it is told.
        let mut processes = Processes::default();
        assert_eq!(numbers(drained(&mut processes, &[&process(&last, 150)])), [(5, 150, 5)]);
        assert_eq!(drained(&mut processes, &[&late]), []);
        assert!(processes.threads.is_empty(), "nor kept for who gets the pid");
        // The pid is in use again, at once.
        let mut processes = Processes::default();
        let told = drained(&mut processes, &[&process(&last, 50), &process(&last, 60), &late]);
        assert_eq!(numbers(told), [(5, 50, 5), (5, 150, 15)]);
        assert!(processes.recent.is_empty() && processes.ended.is_empty());
    }

    #[test]
    fn a_process_of_a_million_threads_takes_no_more_room_than_one_of_two() {
        let one = exit(&only(&thread(&Made { pid: 5, cpu: 100, nvcsw: 10, flag: 0, elapsed: 10 }))).unwrap();
        let mut processes = Processes::default();
        (0..1_000_000).for_each(|_| processes.take(one));
        assert_eq!((processes.threads.len(), processes.ended.len()), (1, 0));
        let last = Made { pid: 5, cpu: 50, nvcsw: 5, flag: AGROUP, elapsed: 30 };
        let told = drained(&mut processes, &[&process(&last, 100_000_050)]);
        assert_eq!((told[0].cpu, told[0].delays.values[6]), (100_000_050, 10_000_005));
        assert!(processes.threads.is_empty());
    }

    #[test]
    fn numbers_that_cannot_be_do_no_harm() {
        let last = Made { pid: 5, cpu: u64::MAX / 3, nvcsw: u64::MAX, flag: AGROUP, elapsed: u64::MAX };
        let one = thread(&Made { flag: 0, ..last });
        let told = settled(&[&one, &one, &one, &one, &process(&last, u64::MAX)]);
        assert_eq!((told[0].cpu, told[0].delays.values[6], told[0].elapsed), (u64::MAX, u64::MAX, u64::MAX));
        assert_eq!(told[0].utime.checked_add(told[0].stime), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..1300),
            version_of_it in 0_u16..20,
        ) {
            let mut bytes = bytes;
            let _ = exit(&only(&message(31, 1, &bytes)));
            if let Some(to) = bytes.first_chunk_mut() { *to = version_of_it.to_ne_bytes(); }
            let whole = record(&[aggregate(4, &bytes), aggregate(5, &bytes)].concat());
            if let Some(exit) = exit(&only(&whole)) {
                let mut processes = Processes::default();
                processes.take(exit);
                processes.tell(|_| {});
            }
        }

        #[test]
        fn a_spoilt_message_never_panics(spoilt in proptest::collection::vec((0_usize..1172, any::<u8>()), 1..4)) {
            let mut processes = Processes::default();
            for whole in CAPTURED {
                let mut bytes = whole.to_vec();
                for (at, byte) in &spoilt {
                    if let Some(b) = bytes.get_mut(*at) { *b = *byte; }
                }
                for message in Messages(&bytes) {
                    let _ = version(&message, 31);
                    exit(&message).into_iter().for_each(|exit| processes.take(exit));
                }
                processes.tell(|_| {});
            }
        }
    }

    fn live() -> Option<ExitRecords> {
        let error = match ExitRecords::listen(Path::new("/sys")) {
            Ok(records) => {
                // Whatever else the host does while we wait.
                records.set_receive_buffer(64 << 20).unwrap();
                return Some(records);
            }
            Err(error) => error,
        };
        elsewhere::cannot_be_had("exit records", &error);
        None
    }

    /// The records of one process until nothing more comes.
    fn records_of(records: &mut ExitRecords, pid: u32) -> Vec<ExitRecord> {
        let mut told = Vec::new();
        let drained = records.drain(|record| {
            if record.pid == pid {
                told.push(record)
            }
        });
        assert_eq!(drained.unwrap(), Drained::Complete);
        told
    }

    /// Not a test: what is done in another process. Nothing, unless asked for.
    #[test]
    fn elsewhere() {
        fn burn(ms: i64) {
            let used = || {
                let now = clock_gettime(ClockId::ThreadCPUTime);
                now.tv_sec * 1000 + now.tv_nsec / 1_000_000
            };
            let end = used() + ms;
            while used() < end {}
        }
        match elsewhere::task().as_deref() {
            Some("burn") => burn(50),
            Some("threads burn") => {
                let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(|| burn(20))).collect();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            }
            Some("threads wait") => {
                let barrier = std::sync::Arc::new(std::sync::Barrier::new(4));
                for _ in 0..3 {
                    let barrier = barrier.clone();
                    std::thread::spawn(move || {
                        barrier.wait();
                        std::thread::sleep(Duration::from_secs(60));
                    });
                }
                barrier.wait();
                std::thread::sleep(Duration::from_millis(2));
                println!("they wait");
                std::thread::sleep(Duration::from_secs(60));
            }
            // The leader runs the tests if one thread does.
            Some("leader exits") => {
                std::thread::spawn(|| {
                    std::thread::sleep(Duration::from_millis(200));
                    std::process::exit(0);
                });
                // SAFETY: ends this thread alone, with no unwinding; nobody joins it, and its stack is never freed.
                unsafe { libc::syscall(libc::SYS_exit, 0) };
            }
            Some("thread execs") => {
                let exec = std::thread::spawn(|| {
                    burn(20);
                    Command::new("sleep").arg("60").exec()
                });
                let _ = exec.join();
            }
            Some("listen") => {
                println!("outcome: {:?}", ExitRecords::listen(Path::new("/sys")).map_err(|error| error.kind()))
            }
            _ => {}
        }
    }

    fn elsewhere_command(before: &[&str], task: &str) -> Command {
        let mut command = elsewhere::itself(before, "kernel::exit_records::tests::elsewhere", task);
        command.stdout(Stdio::null());
        command
    }

    /// utime + stime of a zombie's stat file, which has all its threads; ns.
    fn charged(pid: u32) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second()
    }

    /// Runs it to its end: its one record, and what the kernel charged it.
    fn one(records: &mut ExitRecords, command: &mut Command) -> (ExitRecord, u64) {
        let mut child = command.spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let charged = charged(child.id());
        child.wait().unwrap();
        let [record] = records_of(records, child.id())[..] else { panic!("not one") };
        assert_eq!(record.parent, std::process::id());
        assert_eq!(record.utime + record.stime, record.cpu);
        assert!((1..60_000_000_000).contains(&record.elapsed), "{record:?}");
        (record, charged)
    }

    #[test]
    fn a_process_is_told_once_with_its_cpu() {
        let Some(mut records) = live() else { return };
        let (record, charged) = one(&mut records, &mut elsewhere_command(&[], "burn"));
        // The stat file has 10 ms ticks, twice rounded down.
        assert!((50_000_000 - 8_000_000..charged + 20_000_000).contains(&record.cpu), "{record:?}, {charged}");
        assert!(record.elapsed > 50_000_000 && record.delays.values[0] > 0);
    }

    #[test]
    fn a_process_of_many_threads_is_told_once_with_the_cpu_of_all() {
        let Some(mut records) = live() else { return };
        let (record, charged) = one(&mut records, &mut elsewhere_command(&[], "threads burn"));
        assert!((80_000_000 - 32_000_000..charged + 20_000_000).contains(&record.cpu), "{record:?}, {charged}");
        assert!(charged.saturating_sub(32_000_000) < record.cpu, "{record:?}, {charged}");
        assert!(record.delays.values[6] + record.delays.values[7] > 4, "switches of each: {record:?}");
        assert!(!records.processes.threads.contains_key(&record.pid));
    }

    /// Their records come from several CPUs, in any order.
    #[test]
    fn a_process_whose_threads_are_killed_at_once_is_told_once() {
        let Some(mut records) = live() else { return };
        for _ in 0..20 {
            let mut child = elsewhere_command(&[], "threads wait").stdout(Stdio::piped()).spawn().unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(output.any(|line| line.unwrap().contains("they wait")));
            child.kill().unwrap();
            child.wait().unwrap();
            let [record] = records_of(&mut records, child.id())[..] else { panic!("not one") };
            // Of the four threads each went to sleep once at least.
            assert!(record.delays.values[6] >= 4, "{record:?}");
            assert!(!records.processes.threads.contains_key(&child.id()));
        }
    }

    #[test]
    fn a_process_whose_leader_exits_first_is_told_when_the_last_thread_does() {
        let Some(mut records) = live() else { return };
        let mut child = elsewhere_command(&[], "leader exits").env("RUST_TEST_THREADS", "1").spawn().unwrap();
        elsewhere::wait_until("its leader's exit", || {
            assert_eq!(records_of(&mut records, child.id()), [], "it goes on");
            records.processes.threads.contains_key(&child.id())
        });
        child.wait().unwrap();
        let [record] = records_of(&mut records, child.id())[..] else { panic!("not one") };
        assert!(record.elapsed >= 200_000_000 && record.cpu > 0, "{record:?}");
    }

    #[test]
    fn an_exec_by_another_thread_is_no_death() {
        let Some(mut records) = live() else { return };
        let mut child = elsewhere_command(&[], "thread execs").spawn().unwrap();
        let comm = format!("/proc/{}/comm", child.id());
        elsewhere::wait_until("its exec", || std::fs::read_to_string(&comm).unwrap() == "sleep\n");
        assert_eq!(records_of(&mut records, child.id()), []);
        assert!(records.processes.threads.contains_key(&child.id()), "the old leader");
        child.kill().unwrap();
        child.wait().unwrap();
        let [record] = records_of(&mut records, child.id())[..] else { panic!("not one") };
        assert!(record.cpu >= 20_000_000 - 8_000_000, "{record:?}");
        assert!(record.elapsed > 20_000_000, "from before the exec: {record:?}");
    }

    #[test]
    fn in_another_namespace_it_says_so() {
        if live().is_none() {
            return;
        }
        for (unshare, kind) in [
            (&["unshare", "--net"][..], "NotConnected"),
            (&["unshare", "--pid", "--fork"], "InvalidInput"),
            (&["unshare", "--user", "--map-root-user"], "PermissionDenied"),
        ] {
            if !elsewhere::can_go(unshare) {
                continue;
            }
            let output = elsewhere_command(unshare, "listen").stdout(Stdio::piped()).output().unwrap();
            let output = String::from_utf8_lossy(&output.stdout);
            assert!(output.contains(&format!("outcome: Err({kind})")), "{unshare:?}: {output}");
        }
    }

    #[test]
    fn cpus_that_this_kernel_cannot_have_are_refused() {
        if live().is_none() {
            return;
        }
        let sys = tempfile::tempdir().unwrap();
        assert_eq!(ExitRecords::listen(sys.path()).unwrap_err().kind(), ErrorKind::NotFound);
        let directory = sys.path().join("devices/system/cpu");
        std::fs::create_dir_all(&directory).unwrap();
        for cpus in ["0-99999\n", "nonsense\n", "\n"] {
            std::fs::write(directory.join("possible"), cpus).unwrap();
            assert!(ExitRecords::listen(sys.path()).is_err(), "{cpus:?}");
        }
    }

    #[test]
    fn a_loss_is_told_and_what_comes_later_too() {
        let Some(mut records) = live() else { return };
        records.set_receive_buffer(1).unwrap(); // the kernel's minimum: room for two
        for _ in 0..20 {
            Command::new("true").status().unwrap();
        }
        assert_eq!(records.drain(|_| {}).unwrap(), Drained::Lossy);
        assert!(records.processes.threads.is_empty());
        records.set_receive_buffer(4 << 20).unwrap();
        let _ = records.drain(|_| {}).unwrap();
        one(&mut records, &mut Command::new("true"));
    }

    #[test]
    fn it_is_readable_when_a_process_exited() {
        let Some(mut records) = live() else { return };
        let mut child = Command::new("true").spawn().unwrap();
        let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut told = Vec::new();
        elsewhere::wait_until("its record", || {
            assert_eq!(poll(&mut [PollFd::new(&records, PollFlags::IN)], Some(&minute)).unwrap(), 1);
            told = records_of(&mut records, child.id());
            !told.is_empty()
        });
        child.wait().unwrap();
        assert_eq!(told.len(), 1);
    }

    /// What is sent at Drop, sent before: nothing comes any more.
    #[test]
    fn to_drop_it_is_to_deregister() {
        let Some(mut records) = live() else { return };
        records.listener.send(&records.request(TASKSTATS_CMD_ATTR_DEREGISTER_CPUMASK, NlmF::ACK)).unwrap();
        let mut granted = false;
        let _ = records.listener.drain(|message| granted |= message.acknowledges()).unwrap();
        assert!(granted);
        let child = Command::new("true").status().unwrap();
        assert!(child.success());
        let mut count = 0;
        let _ = records.listener.drain(|_| count += 1).unwrap();
        assert_eq!(count, 0);
    }
}
