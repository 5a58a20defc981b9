//! `/proc/<pid>/stat`, the one file of a process that is read at every gather (proc(5)).
//!
//! The parser is our own because this is the hot path; a test holds it to the procfs crate's.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

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

/// A field of stat that the rest can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// Field 9.
    Flags,
    /// Field 14.
    Utime,
    /// Field 15.
    Stime,
    /// Field 16.
    Cutime,
    /// Field 17.
    Cstime,
    /// Field 19.
    Nice,
    /// Field 20.
    NumThreads,
    /// Field 24.
    Rss,
    /// Field 42.
    BlkioDelay,
}

impl Field {
    /// Number and name, as in proc(5).
    #[must_use]
    pub fn number_and_name(self) -> (u8, &'static str) {
        match self {
            Self::Flags => (9, "flags"),
            Self::Utime => (14, "utime"),
            Self::Stime => (15, "stime"),
            Self::Cutime => (16, "cutime"),
            Self::Cstime => (17, "cstime"),
            Self::Nice => (19, "nice"),
            Self::NumThreads => (20, "num_threads"),
            Self::Rss => (24, "rss"),
            Self::BlkioDelay => (42, "delayacct_blkio_ticks"),
        }
    }
}

/// Fields whose text is not a number that they can have: some kernels write a negative cutime, or one of 20 digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown(u16);

impl Unknown {
    fn add(&mut self, field: Field) {
        self.0 |= 1 << field as u8;
    }

    /// Returns whether every field is known.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Reason why a text is not a stat file: without these fields it cannot be assigned to a process.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoStat {
    /// The comm is missing.
    #[error("this is not a stat file")]
    NoComm,
    /// The text ends before the field with this number.
    #[error("its stat ends before field {0}")]
    Short(u8),
    /// A field is not a number that it can have.
    #[error("field {number} of its stat, {name}, is {text:?}")]
    Field {
        /// As in proc(5).
        number: u8,
        /// As in proc(5).
        name: &'static str,
        /// The text in the place of the field.
        text: String,
    },
}

impl NoStat {
    fn field(number: u8, name: &'static str, text: &[u8]) -> Self {
        Self::Field { number, name, text: shown(text) }
    }
}

/// Returns the start of a field's text, for a message.
fn shown(text: &[u8]) -> String {
    const LONGEST: usize = 40;
    String::from_utf8_lossy(text.get(..LONGEST).unwrap_or(text)).into_owned()
}

/// Fields of `/proc/<pid>/stat`. Times and counts are those of the whole thread group. A field in `unknown` has a harmless
/// number: counters that fall are taken for counters that stand still.
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
    /// Field 24: rss, pages; since Linux 6.2 an estimate. 0 after the leader thread has exited.
    pub rss: u64,
    /// Field 42: delayacct_blkio_ticks (Linux 2.6.18), what the leader thread has waited for block devices, ns in steps of a
    /// tick. 0 without delay accounting.
    pub blkio_delay: Option<u64>,
    /// The fields that are not known.
    pub unknown: Unknown,
}

impl Stat {
    /// Returns "process PID (COMM)", for messages.
    #[must_use]
    pub fn called(&self) -> String {
        format!("process {} ({})", self.id.pid, self.comm.to_text())
    }

    /// Parses the file's bytes.
    ///
    /// comm may hold spaces, parentheses and newlines: it runs from the first '(' to the last ')'.
    ///
    /// # Errors
    /// It does not say which process it is of, or how that is related to others, or it is cut short.
    pub fn parse(text: &[u8]) -> Result<Self, NoStat> {
        Self::parse_and_tell(text, |_, _| {})
    }

    /// Parses as [`Stat::parse`] does, and calls `tell` with each unknown field and the text in its place.
    ///
    /// # Errors
    /// Those of [`Stat::parse`].
    pub fn parse_and_tell(text: &[u8], mut tell: impl FnMut(Field, String)) -> Result<Self, NoStat> {
        let open = text.iter().position(|b| *b == b'(').ok_or(NoStat::NoComm)?;
        let close = text.iter().rposition(|b| *b == b')').ok_or(NoStat::NoComm)?;
        let pid = text.get(..open).ok_or(NoStat::NoComm)?.trim_ascii();
        let pid = narrow(decimal(pid)).ok_or_else(|| NoStat::field(1, "pid", pid))?;
        let comm = Comm::new(text.get(open + 1..close).ok_or(NoStat::NoComm)?);
        let rest = text.get(close + 1..).ok_or(NoStat::NoComm)?.trim_ascii();
        let mut fields = Fields { rest: rest.split(|b| *b == b' '), next: 3 };
        let state = fields.next()?;
        let [state] = *state else { return Err(NoStat::field(3, "state", state)) };
        let ppid = fields.next()?;
        let ppid = narrow(decimal(ppid)).ok_or_else(|| NoStat::field(4, "ppid", ppid))?;
        let mut unknown = Unknown::default();
        let mut note = |field: Field, text: &[u8]| {
            unknown.add(field);
            tell(field, shown(text));
        };
        let flags = fields.nth(9)?;
        let flags = decimal(flags).unwrap_or_else(|| {
            note(Field::Flags, flags);
            0
        });
        let minor = decimal(fields.nth(10)?).unwrap_or(0);
        let major = decimal(fields.nth(12)?).unwrap_or(0);
        fields.skip_to(14)?;
        let mut times = [0; 4];
        for (time, field) in times.iter_mut().zip([Field::Utime, Field::Stime, Field::Cutime, Field::Cstime]) {
            let text = fields.next()?;
            match ticks(text) {
                Some(known) => *time = known,
                None => note(field, text),
            }
        }
        let [utime, stime, cutime, cstime] = times;
        let text = fields.nth(19)?;
        let nice = signed(text).unwrap_or_else(|| {
            note(Field::Nice, text);
            0
        });
        let text = fields.next()?;
        let num_threads = narrow(decimal(text)).unwrap_or_else(|| {
            note(Field::NumThreads, text);
            1 // one that has none is being released
        });
        let start = fields.nth(22)?;
        let start = decimal(start).ok_or_else(|| NoStat::field(22, "starttime", start))?;
        let text = fields.nth(24)?;
        let rss = decimal(text).unwrap_or_else(|| {
            note(Field::Rss, text);
            0
        });
        let blkio_delay = fields.nth(42).ok().and_then(|text| {
            let delay = ticks(text);
            if delay.is_none() {
                note(Field::BlkioDelay, text);
            }
            delay
        });
        let (id, exiting, faults) = (Identity { pid, start }, flags & PF_EXITING != 0, minor.wrapping_add(major));
        Ok(Self {
            id,
            comm,
            state,
            ppid,
            exiting,
            faults,
            utime,
            stime,
            cutime,
            cstime,
            nice,
            num_threads,
            rss,
            blkio_delay,
            unknown,
        })
    }

    /// Returns whether a field is known.
    #[must_use]
    pub fn knows(&self, field: Field) -> bool {
        self.unknown.0 & 1 << field as u8 == 0
    }

    /// Fields 14 and 15, if both are known: CPU of the thread group, ns.
    #[must_use]
    pub fn known_cpu(&self) -> Option<u64> {
        (self.knows(Field::Utime) && self.knows(Field::Stime)).then(|| self.cpu())
    }

    /// Field 20, num_threads, if it is known.
    #[must_use]
    pub fn known_threads(&self) -> Option<u32> {
        self.knows(Field::NumThreads).then_some(self.num_threads)
    }

    /// Returns whether the process may have threads besides the leader.
    #[must_use]
    pub fn may_have_threads(&self) -> bool {
        self.known_threads().is_none_or(|threads| threads > 1)
    }

    /// Fields 14 and 15: CPU of the thread group, ns.
    #[must_use]
    pub fn cpu(&self) -> u64 {
        self.utime.saturating_add(self.stime)
    }

    /// Returns whether the process has exited and waits to be reaped. A process whose leader thread has exited while others
    /// run (state Z too, but more than one thread) is alive.
    #[must_use]
    pub fn is_zombie(&self) -> bool {
        self.state == b'Z' && self.num_threads == 1
    }

    /// Returns whether the leader thread has exited while other threads run: rss is 0 then.
    #[must_use]
    pub fn is_leaderless(&self) -> bool {
        self.state == b'Z' && self.num_threads > 1
    }

    /// Returns whether the process is being released at this very moment. Its parent may have been charged already, and the
    /// kernel may have dropped the sums over its threads (it shows no thread and no parent then).
    #[must_use]
    pub fn is_being_released(&self) -> bool {
        matches!(self.state, b'X' | b'x') || self.num_threads == 0
    }
}

/// The fields after comm.
struct Fields<'a, F: FnMut(&u8) -> bool> {
    rest: std::slice::Split<'a, u8, F>,
    /// The number of the one that comes next.
    next: u8,
}

impl<'a, F: FnMut(&u8) -> bool> Fields<'a, F> {
    fn next(&mut self) -> Result<&'a [u8], NoStat> {
        let text = self.rest.next().ok_or(NoStat::Short(self.next))?;
        self.next += 1;
        Ok(text)
    }

    /// The one with this number.
    fn nth(&mut self, number: u8) -> Result<&'a [u8], NoStat> {
        self.skip_to(number)?;
        self.next()
    }

    /// Skips fields, so that the one with this number comes next.
    fn skip_to(&mut self, number: u8) -> Result<(), NoStat> {
        while self.next < number {
            self.next()?;
        }
        Ok(())
    }
}

fn narrow(number: Option<u64>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}

fn signed(field: &[u8]) -> Option<i8> {
    std::str::from_utf8(field).ok()?.parse().ok()
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
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
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

    /// Every field that is read, as no kernel should write it, in an else sound line.
    #[test]
    fn a_field_that_is_no_number_is_unknown_and_the_rest_is_not() {
        let whole = text(b"cat");
        let fields: Vec<_> = std::str::from_utf8(&whole).unwrap().trim_end().split(' ').collect();
        let with = |number: usize, text: &str| {
            let mut fields = fields.clone();
            fields[number - 1] = text;
            let mut told = Vec::new();
            let stat = Stat::parse_and_tell(fields.join(" ").as_bytes(), |field, text| told.push((field, text)));
            (stat, told)
        };
        let (sound, told) = with(3, "S");
        let sound = sound.unwrap();
        assert!(told.is_empty() && sound.unknown.is_empty());
        let most = u64::MAX.to_string();
        let lost = "-9223372036854775808";
        let cases = [
            (Field::Flags, lost, Stat { exiting: false, ..sound }),
            (Field::Utime, "-1", Stat { utime: 0, ..sound }),
            (Field::Stime, &most, Stat { stime: 0, ..sound }),
            (Field::Cutime, lost, Stat { cutime: 0, ..sound }),
            (Field::Cstime, "x", Stat { cstime: 0, ..sound }),
            (Field::Nice, "128", Stat { nice: 0, ..sound }),
            (Field::NumThreads, "4294967296", Stat { num_threads: 1, ..sound }),
            (Field::Rss, "-3", Stat { rss: 0, ..sound }),
            (Field::BlkioDelay, "-1", Stat { blkio_delay: None, ..sound }),
        ];
        for (field, text, expected) in cases {
            let (number, name) = field.number_and_name();
            let (stat, told) = with(number.into(), text);
            let stat = stat.unwrap();
            assert_eq!(Stat { unknown: sound.unknown, ..stat }, expected, "{name}");
            assert!(!stat.knows(field) && told == [(field, text.to_owned())], "{name}: {told:?}");
        }
        for (number, name, text) in
            [(1, "pid", "4294967296"), (3, "state", "17"), (4, "ppid", "-1"), (22, "starttime", lost)]
        {
            let refused = NoStat::field(number, name, text.as_bytes());
            assert_eq!(with(number.into(), text).0.unwrap_err(), refused, "{name} {text}");
        }
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
            if let Ok(cut) = Stat::parse(whole.get(..length).unwrap()) {
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
