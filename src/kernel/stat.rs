//! `/proc/<pid>/stat`, the one file of a process that is read at every gather (proc(5)).
//!
//! The parser is our own because this is the hot path; a test holds it to the procfs crate's.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Nanoseconds of one tick: USER_HZ is 100 in every Linux ABI that has Rust, and sysconf(3) says no other.
pub const TICK: u64 = 10_000_000;

/// The flag of a thread that exits (linux/sched.h).
const PF_EXITING: u64 = 0x4;

/// Which process: a pid alone may be another one tomorrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(Rust, packed(4))] // 12 bytes and not 16: it is in many lists, each of thousands
pub struct Identity {
    /// The process (thread group) id.
    pub pid: u32,
    /// Field 22, starttime: ticks since boot. Unlike the pid it is not used again.
    pub start: u64,
}

/// comm: at most 15 bytes of anything but NUL, newlines included; a kernel thread's may be longer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Comm {
    bytes: [u8; Self::MAX],
    length: u8,
}

impl Comm {
    /// Longest comm kept. User processes have at most 15 bytes (TASK_COMM_LEN − 1); kernel workers may show more.
    pub const MAX: usize = 31;

    fn new(comm: &[u8]) -> Self {
        let mut bytes = [0; Self::MAX];
        let length = comm.len().min(Self::MAX);
        for (to, from) in bytes.iter_mut().zip(comm) {
            *to = *from;
        }
        #[allow(clippy::cast_possible_truncation)] // at most MAX
        Self { bytes, length: length as u8 }
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// As text; bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_text().fmt(f)
    }
}

/// What is kept of one `/proc/<pid>/stat`. Times and counts are of the whole thread group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Fields 1 and 22: pid and starttime.
    pub id: Identity,
    /// Field 2: comm.
    pub comm: Comm,
    /// Field 3: the leader thread's state, a letter.
    pub state: u8,
    /// Field 4: ppid; 0 for a process without a visible parent.
    pub ppid: u32,
    /// Field 9, flags: whether PF_EXITING is set. The leader thread is dying, or dead.
    pub exiting: bool,
    /// Fields 10 and 12, minflt and majflt, together: how often it was given a page. Only a sign that it was: 0 where it is no number.
    pub faults: u64,
    /// Field 14: user time, ns in steps of a tick, rounded down.
    pub utime: u64,
    /// Field 15: the same for system time.
    pub stime: u64,
    /// Field 16: user time of waited-for children and what they had reaped, ns in steps of a tick.
    pub cutime: u64,
    /// Field 17: the same for system time.
    pub cstime: u64,
    /// Field 19: the leader thread's nice value, −20 to 19.
    pub nice: i8,
    /// Field 20: num_threads.
    pub num_threads: u32,
    /// Field 24: rss, pages; since Linux 6.2 an estimate. 0 once the leader thread is gone.
    pub rss: u64,
    /// Field 42: delayacct_blkio_ticks (Linux 2.6.18), what the leader thread has waited for block devices, ns in steps of a
    /// tick. 0 without delay accounting.
    pub blkio_delay: Option<u64>,
}

impl Stat {
    /// What a message calls the process.
    #[must_use]
    pub fn called(&self) -> String {
        format!("process {} ({})", self.id.pid, self.comm.to_text())
    }

    /// Parses the file's bytes. `None`: this is not a stat file.
    ///
    /// comm may hold spaces, parentheses and newlines: it runs from the first '(' to the last ')'.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|b| *b == b'(')?;
        let close = text.iter().rposition(|b| *b == b')')?;
        let pid = decimal(text.get(..open)?.trim_ascii())?;
        let comm = Comm::new(text.get(open + 1..close)?);
        let mut fields = text.get(close + 1..)?.trim_ascii().split(|b| *b == b' '); // from field 3 on
        let state = *fields.next()?.first()?;
        let ppid = decimal(fields.next()?)?;
        let mut fields = fields.skip(4); // fields 5 to 8
        let exiting = decimal(fields.next()?)? & PF_EXITING != 0;
        let minor = fields.next().and_then(decimal).unwrap_or(0);
        let mut fields = fields.skip(1); // cminflt
        let major = fields.next().and_then(decimal).unwrap_or(0);
        let mut fields = fields.skip(1); // cmajflt
        let utime = ticks(fields.next()?)?;
        let stime = ticks(fields.next()?)?;
        let cutime = ticks(fields.next()?)?;
        let cstime = ticks(fields.next()?)?;
        let mut fields = fields.skip(1); // priority
        let nice = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let num_threads = decimal(fields.next()?)?;
        let mut fields = fields.skip(1); // itrealvalue
        let start = decimal(fields.next()?)?;
        let mut fields = fields.skip(1); // vsize
        let rss = decimal(fields.next()?)?;
        let blkio_delay = fields.nth(17).and_then(ticks); // after fields 25 to 41
        Some(Self {
            id: Identity { pid: u32::try_from(pid).ok()?, start },
            comm,
            state,
            ppid: u32::try_from(ppid).ok()?,
            exiting,
            faults: minor.wrapping_add(major),
            utime,
            stime,
            cutime,
            cstime,
            nice,
            num_threads: u32::try_from(num_threads).ok()?,
            rss,
            blkio_delay,
        })
    }

    /// Fields 14 and 15: CPU of the thread group, ns.
    #[must_use]
    pub fn cpu(&self) -> u64 {
        self.utime.saturating_add(self.stime)
    }

    /// Whether the process is dead and waits to be reaped. A dead leader whose threads live on (state Z too,
    /// but more than one thread) is a live process.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        self.state == b'Z' && self.num_threads == 1
    }

    /// Whether the leader thread is gone while other threads live: rss then reads 0.
    #[must_use]
    pub fn is_leaderless(&self) -> bool {
        self.state == b'Z' && self.num_threads > 1
    }

    /// Whether the process is being released at this very moment: its parent may have been charged already, and the kernel may have
    /// forgotten what belongs to all its threads (it shows no thread and no parent then).
    #[must_use]
    pub fn is_being_released(&self) -> bool {
        matches!(self.state, b'X' | b'x') || self.num_threads == 0
    }
}

/// A number of ticks, as ns.
fn ticks(field: &[u8]) -> Option<u64> {
    decimal(field)?.checked_mul(TICK)
}

/// An unsigned decimal; a negative one (cutime, cstime and rss are signed in the kernel, though they never are) is
/// not one.
pub(super) fn decimal(field: &[u8]) -> Option<u64> {
    if field.is_empty() {
        return None;
    }
    field.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ::procfs::FromRead;
    use proptest::prelude::*;

    /// `cat /proc/self/stat` on Linux 6.18, with comm and the fields we read made telling.
    fn text(comm: &[u8]) -> Vec<u8> {
        let mut text = b"4242 (".to_vec();
        text.extend_from_slice(comm);
        text.extend_from_slice(
            b") S 17 4242 17 34816 4242 4194304 9 10 11 12 101 102 103 104 39 -19 7 0 987654 5693440 321 \
              18446744073709551615 1 2 3 0 0 0 0 0 0 0 0 0 17 1 0 0 42 0 0 4 5 6 7 8 9 10 0\n",
        );
        text
    }

    #[test]
    fn reads_the_fields_it_names() {
        let stat = Stat::parse(&text(b"cat")).unwrap();
        assert_eq!(stat.id, Identity { pid: 4242, start: 987_654 });
        assert_eq!(stat.comm.as_bytes(), b"cat");
        assert_eq!((stat.state, stat.ppid, stat.num_threads, stat.rss), (b'S', 17, 7, 321));
        assert_eq!((stat.nice, stat.blkio_delay, stat.faults), (-19, Some(420_000_000), 20));
        let times = [stat.utime, stat.stime, stat.cutime, stat.cstime];
        assert_eq!(times, [1_010_000_000, 1_020_000_000, 1_030_000_000, 1_040_000_000]);
    }

    #[test]
    fn comm_runs_from_the_first_to_the_last_parenthesis() {
        for comm in [&b"a b"[..], b"", b")", b"((", b") S 1 (", b"x\ny", b"\xff\xfe", b"nl\nevil v=1i 1"] {
            assert_eq!(Stat::parse(&text(comm)).unwrap().comm.as_bytes(), comm, "{comm:?}");
        }
    }

    /// `cat /proc/<pid>/stat` on Linux 6.18, while it was waited for.
    #[test]
    fn who_is_being_released_is_no_zombie() {
        let with = |state: char, threads: u32| {
            let text = format!("17 (x) {state} 0 -1 -1 0 -1 4227148 17 0 0 0 0 0 0 0 20 0 {threads} 0 5662521 0 0 0");
            let stat = Stat::parse(text.as_bytes()).unwrap();
            (stat.is_being_released(), stat.is_zombie())
        };
        let cases = [
            (('Z', 1), (false, true)),
            (('X', 1), (true, false)),
            (('X', 0), (true, false)),
            (('Z', 0), (true, false)),
        ];
        for ((state, threads), expected) in cases {
            assert_eq!(with(state, threads), expected, "{state}, {threads} threads");
        }
    }

    #[test]
    fn every_truncation_is_refused_or_read_in_full() {
        let whole = text(b"cat");
        let all = Stat::parse(&whole).unwrap();
        for length in 0..whole.len() {
            // Cut inside rss or field 42 the number is shorter: a read(2) of a stat file is never cut.
            if let Some(cut) = Stat::parse(whole.get(..length).unwrap()) {
                assert_eq!(Stat { rss: all.rss, blkio_delay: all.blkio_delay, ..cut }, all, "cut at {length}");
            }
        }
    }

    /// The procfs crate as the independent reader, over every process of this host.
    #[test]
    fn agrees_with_the_procfs_crate_on_this_host() {
        let mut compared = 0;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(bytes) = std::fs::read(entry.path().join("stat")) else { continue };
            if !entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            // Theirs wants a comm in UTF-8, which somebody else's process need not have.
            let Ok(theirs) = ::procfs::process::Stat::from_read(bytes.as_slice()) else { continue };
            let ours = Stat::parse(&bytes).unwrap();
            assert_eq!(i64::from(ours.id.pid), i64::from(theirs.pid));
            assert_eq!({ ours.id.start }, theirs.starttime);
            assert!(theirs.comm.starts_with(&*ours.comm.to_text()) && ours.comm.length > 0, "{}", theirs.comm);
            assert_eq!(char::from(ours.state), theirs.state);
            assert_eq!(i64::from(ours.ppid), i64::from(theirs.ppid));
            assert_eq!((ours.utime / TICK, ours.stime / TICK), (theirs.utime, theirs.stime));
            assert_eq!(i64::try_from(ours.cutime / TICK).unwrap(), theirs.cutime);
            assert_eq!(i64::try_from(ours.cstime / TICK).unwrap(), theirs.cstime);
            assert_eq!(i64::from(ours.num_threads), theirs.num_threads);
            assert_eq!(ours.rss, theirs.rss);
            assert_eq!(ours.faults, theirs.minflt + theirs.majflt);
            assert_eq!(ours.exiting, theirs.flags & 4 != 0);
            assert_eq!(i64::from(ours.nice), theirs.nice);
            assert_eq!(ours.blkio_delay.map(|delay| delay / TICK), theirs.delayacct_blkio_ticks);
            compared += 1;
        }
        assert!(compared > 1);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Stat::parse(&bytes);
        }

        #[test]
        fn a_spoilt_stat_never_panics(at in 0_usize..200, byte in any::<u8>()) {
            let mut bytes = text(b"cat");
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
            let _ = Stat::parse(&bytes);
        }
    }
}
