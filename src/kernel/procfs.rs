//! `/proc`: the list of processes, the files of one of them, and the few of the whole host.
//!
//! Every file is opened relative to one directory and parsed from its bytes, so that a made-up directory can take the
//! place of `/proc`. What is read of every process at a gather is parsed here, which allocates nothing; for the rest
//! there is the `procfs` crate, as far as its parsers accept the files of real hosts.

use std::ffi::{CStr, OsString};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use ::procfs::FromBufRead;
use ::procfs::process::SmapsRollup;
use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, RawDir, SeekFrom, fstatfs, openat, readlinkat, seek};
use rustix::io::{pread, read};

use super::stat::{Field, Identity, NoStat, Stat, decimal};
use super::{test_kill, unless_gone};

/// Number of attempts to read a process that changes meanwhile.
const TRIES: usize = 10;

/// Number of bytes read of one file: a command line may have any length, but no match is looked for beyond this.
const CMDLINE_MAX: usize = 64 * 1024;

/// Open `/proc/<pid>/stat` and its pid. To read it again costs about half of opening it again; holding it costs 4.7 kB
/// of kernel memory.
#[derive(Debug)]
pub struct StatFile(OwnedFd, u32);

/// Open `/proc/<pid>/schedstat`.
#[derive(Debug)]
pub struct SchedstatFile(OwnedFd);

/// Scheduling of a thread: its `schedstat` (CONFIG_SCHED_INFO).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedstat {
    /// Time on a CPU, ns.
    pub oncpu: u64,
    /// Time spent waiting for a CPU, ns.
    pub waiting: u64,
    /// Number of times that it was put on a CPU.
    pub slices: u64,
}

impl Schedstat {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut numbers = words(text).map(decimal);
        Some(Self { oncpu: numbers.next()??, waiting: numbers.next()??, slices: numbers.next()?? })
    }
}

/// Mounted `/proc`, or a directory that looks like one.
#[derive(Debug)]
pub struct Proc {
    root: PathBuf,
    directory: OwnedFd,
    own_pid: Option<u32>,
    buffer: Vec<u8>,
}

impl Proc {
    /// Opens the directory; every later open is relative to it.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(rustix::fs::CWD, root, flags, Mode::empty())?;
        let link = readlinkat(&directory, c"self", Vec::new()).ok();
        let own_pid = link.and_then(|link| decimal(link.as_bytes())).and_then(|pid| u32::try_from(pid).ok());
        Ok(Self { root: root.to_owned(), directory, own_pid, buffer: vec![0; CMDLINE_MAX] })
    }

    /// Returns the path of the directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns whether this is the kernel's own: there, reading a file that was opened before fails once its process is
    /// reaped.
    #[must_use]
    pub fn is_procfs(&self) -> bool {
        fstatfs(&self.directory).is_ok_and(|fs| fs.f_type == PROC_SUPER_MAGIC)
    }

    /// Lists the pids that exist, ascending (getdents64(2) of the directory).
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn pids(&mut self, pids: &mut Vec<u32>) -> io::Result<()> {
        seek(&self.directory, SeekFrom::Start(0))?;
        numbers(&self.directory, pids)
    }

    /// Lists the threads of a process, ascending (getdents64(2) of `/proc/<pid>/task`).
    ///
    /// # Errors
    /// The directory cannot be read, and the process exists.
    pub fn threads(&self, pid: u32, tids: &mut Vec<u32>) -> io::Result<Option<()>> {
        let directory = unless_gone(self.open_at(&FilePath::process(pid, "task"), OFlags::DIRECTORY))?;
        Ok(directory.map(|directory| unless_gone(numbers(&directory, tids))).transpose()?.flatten())
    }

    /// Opens `/proc/<pid>/stat`.
    ///
    /// # Errors
    /// Opening failed, and the process exists.
    pub fn open_stat(&self, pid: u32) -> io::Result<Option<StatFile>> {
        Ok(unless_gone(self.open_at(&FilePath::process(pid, "stat"), OFlags::empty()))?.map(|fd| StatFile(fd, pid)))
    }

    /// Reads an open `/proc/<pid>/stat`. `None` if the process was reaped or is being released: the file never reads
    /// again, even if the pid is used again. A process that executes another program may look so for a moment
    /// ([`Proc::find`]).
    ///
    /// # Errors
    /// Reading failed, and the process exists; `InvalidData` if the text does not parse.
    pub fn stat(&mut self, file: &StatFile) -> io::Result<Option<Stat>> {
        let text = self.read_again(&file.0)?;
        let stat = text.map(|text| Stat::parse(text).map_err(|error| is_no_stat(file.1, &error))).transpose()?;
        Ok(stat.filter(|stat| !stat.is_being_released()))
    }

    /// Opens and reads `/proc/<pid>/stat`.
    ///
    /// When another thread than the leader calls execve(2), the thread takes the leader's place and the old leader is
    /// released. For some µs, or for ms where that thread has to wait for a CPU, the process looks as if it were released itself. So it
    /// is looked for again until its directory is found absent twice, ten times at most.
    ///
    /// # Errors
    /// As [`Proc::open_stat`] and [`Proc::stat`].
    pub fn find(&mut self, pid: u32) -> io::Result<Option<(Stat, StatFile)>> {
        let mut absent = 0;
        for _ in 0..TRIES {
            match self.open_stat(pid)? {
                Some(file) => {
                    if let Some(stat) = self.stat(&file)? {
                        return Ok(Some((stat, file)));
                    }
                    std::thread::yield_now(); // to the thread that execs, if there is one
                }
                None if absent > 0 => break,
                None => absent += 1,
            }
        }
        Ok(None)
    }

    /// Opens `/proc/<pid>/schedstat`. `None` also where the kernel has no such file.
    ///
    /// # Errors
    /// Opening failed, and the process exists.
    pub fn open_schedstat(&self, pid: u32) -> io::Result<Option<SchedstatFile>> {
        Ok(unless_gone(self.open_at(&FilePath::process(pid, "schedstat"), OFlags::empty()))?.map(SchedstatFile))
    }

    /// Reads an open `/proc/<pid>/schedstat`.
    ///
    /// # Errors
    /// Reading failed, and the process exists; `InvalidData` if the text does not parse.
    pub fn schedstat_in(&mut self, file: &SchedstatFile) -> io::Result<Option<Schedstat>> {
        let text = self.read_again(&file.0)?;
        text.map(|text| Schedstat::parse(text).ok_or_else(|| is_no("schedstat"))).transpose()
    }

    /// Reads `/proc/<pid>/schedstat`, which is of the *leader thread* only. `None` also where the kernel has no such
    /// file.
    ///
    /// # Errors
    /// Reading failed, and the process exists.
    pub fn schedstat(&mut self, pid: u32) -> io::Result<Option<Schedstat>> {
        Ok(self.read(&FilePath::process(pid, "schedstat"))?.and_then(Schedstat::parse))
    }

    /// Reads `/proc/<pid>/task/<tid>/schedstat`. `None` also where the kernel has no such file.
    ///
    /// # Errors
    /// Reading failed, and the thread exists.
    pub fn thread_schedstat(&mut self, pid: u32, tid: u32) -> io::Result<Option<Schedstat>> {
        Ok(self.read(&FilePath::thread(pid, tid, "schedstat"))?.and_then(Schedstat::parse))
    }

    /// Reads `/proc/<pid>/task/<tid>/stat`: times, nice value and delay are the thread's own there.
    ///
    /// # Errors
    /// Reading failed, and the thread exists; `InvalidData` if the text does not parse.
    pub fn thread_stat(&mut self, pid: u32, tid: u32) -> io::Result<Option<Stat>> {
        let text = self.read(&FilePath::thread(pid, tid, "stat"))?;
        text.map(|text| Stat::parse(text).map_err(|error| is_no_stat(tid, &error))).transpose()
    }

    /// Returns the fields of `/proc/<pid>/stat` whose text is not a number that they can have, each with that text.
    /// Empty if the process exited or its fields are all well now.
    ///
    /// # Errors
    /// Reading failed, and the process exists; `InvalidData` if the text does not parse.
    pub fn unknown_fields(&mut self, pid: u32) -> io::Result<Vec<(Field, String)>> {
        let mut unknown = Vec::new();
        if let Some(text) = self.read(&FilePath::process(pid, "stat"))? {
            Stat::parse_and_tell(text, |field, text| unknown.push((field, text)))
                .map_err(|error| is_no_stat(pid, &error))?;
        }
        Ok(unknown)
    }

    /// Returns the proportional set size, bytes: resident memory in which each page counts by its share. "Pss:" of
    /// `/proc/<pid>/smaps_rollup` (Linux 4.14), which the kernel adds up over all pages of the process, with its mmap
    /// lock held. 0 for a process without memory: a zombie, a kernel thread.
    ///
    /// # Errors
    /// EACCES for another user's process without CAP_SYS_PTRACE; `Unsupported` if the kernel has no such file.
    pub fn pss(&mut self, id: Identity) -> io::Result<Option<u64>> {
        for _ in 0..TRIES {
            let file = self.open_at(&FilePath::process(id.pid, "smaps_rollup"), OFlags::empty());
            // Opened before the stat is read: an open file stays this process's, even if the pid is used again.
            let Some(stat) = self.stat_of(id)? else { return Ok(None) };
            let file = file.map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    io::Error::new(io::ErrorKind::Unsupported, "the kernel has no smaps_rollup (Linux 4.14)")
                }
                _ => error,
            });
            match self.pss_of(file)? {
                Some(pss) => return Ok(Some(pss)),
                None if stat.is_leaderless() => return Ok(Some(self.leaderless_pss(id.pid)?.unwrap_or(0))),
                None if stat.is_zombie() || stat.exiting => return Ok(Some(0)),
                // A kernel thread: field 24 of stat alone may be 0 of another process too.
                None if self.resident(id.pid)?.unwrap_or(stat.rss) == 0 => return Ok(Some(0)),
                None => {} // the process has executed another program since the file was opened
            }
        }
        Err(io::Error::other("it executes one program after the other"))
    }

    /// Reads an open smaps_rollup: "Pss:", bytes. `None` if the process has no memory.
    fn pss_of(&mut self, file: io::Result<OwnedFd>) -> io::Result<Option<u64>> {
        let gone = |error: &io::Error| error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
        let length = match file.and_then(|file| Ok(read(&file, &mut self.buffer)?)) {
            Err(error) if gone(&error) => return Ok(None),
            length => length?,
        };
        let pss = pss(self.buffer.get(..length).unwrap_or_default());
        pss.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "smaps_rollup has no Pss in kB"))
    }

    /// Returns the PSS of a process whose leader thread has exited, from a thread that still lives: the leader shows no
    /// memory.
    fn leaderless_pss(&mut self, pid: u32) -> io::Result<Option<u64>> {
        for tid in self.living_threads(pid)? {
            let file = self.open_at(&FilePath::thread(pid, tid, "smaps_rollup"), OFlags::empty());
            if let Some(pss) = unless_gone(self.pss_of(file))?.flatten() {
                return Ok(Some(pss));
            }
        }
        Ok(None)
    }

    /// Returns the threads of a process, none once it was reaped.
    fn living_threads(&self, pid: u32) -> io::Result<Vec<u32>> {
        let mut tids = Vec::new();
        Ok(self.threads(pid, &mut tids)?.map(|()| tids).unwrap_or_default())
    }

    /// Reads the stat of the process with this identity. `None` also if its pid is another process's by now.
    ///
    /// # Errors
    /// As [`Proc::find`].
    pub fn stat_of(&mut self, id: Identity) -> io::Result<Option<Stat>> {
        Ok(self.find(id.pid)?.map(|(stat, _)| stat).filter(|stat| stat.id == id))
    }

    /// Returns the resident pages of a process: the second number of `/proc/<pid>/statm`, which is exact since Linux
    /// 6.16. 0 for a process without memory, and once the leader thread has exited. `None` also where there is no such
    /// file.
    ///
    /// # Errors
    /// Reading failed, and the process exists; `InvalidData` if the text does not parse.
    pub fn resident(&mut self, pid: u32) -> io::Result<Option<u64>> {
        let statm = self.read(&FilePath::process(pid, "statm"))?;
        statm.map(|statm| resident(statm).ok_or_else(|| is_no("statm"))).transpose()
    }

    /// Returns the resident pages of a process whose leader thread has exited, from `task/<tid>/statm` of a thread that
    /// lives.
    ///
    /// # Errors
    /// Reading failed, and the process exists.
    pub fn leaderless_rss(&mut self, pid: u32) -> io::Result<Option<u64>> {
        for tid in self.living_threads(pid)? {
            let statm = self.read(&FilePath::thread(pid, tid, "statm"))?;
            if let Some(pages) = statm.and_then(resident).filter(|pages| *pages > 0) {
                return Ok(Some(pages));
            }
        }
        Ok(None)
    }

    /// Returns `/proc/<pid>/cmdline`, arguments separated by spaces; empty for a kernel thread and a zombie.
    ///
    /// # Errors
    /// Reading failed, and the process exists.
    pub fn cmdline(&mut self, pid: u32) -> io::Result<Option<Vec<u8>>> {
        let Some(text) = self.read(&FilePath::process(pid, "cmdline"))? else { return Ok(None) };
        let end = text.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        let words = text.iter().take(end).map(|b| if *b == 0 { b' ' } else { *b });
        Ok(Some(words.collect()))
    }

    /// Returns the path of the executable (`/proc/<pid>/exe`), without the " (deleted)" of a file that was replaced.
    ///
    /// # Errors
    /// Reading failed, and the process exists: EACCES for another user's process without CAP_SYS_PTRACE.
    pub fn exe(&mut self, pid: u32) -> io::Result<Option<OsString>> {
        let link =
            readlinkat(&self.directory, FilePath::process(pid, "exe").as_c_str(), Vec::new()).map_err(io::Error::from);
        Ok(unless_gone(link)?.map(|link| {
            let link = link.into_bytes();
            let path = link.strip_suffix(b" (deleted)").unwrap_or(&link);
            OsString::from_vec(path.to_vec())
        }))
    }

    /// Returns the effective user id, from the "Uid:" line of `/proc/<pid>/status`. (The owner of the directory is root
    /// for a process that may not dump core.)
    ///
    /// # Errors
    /// Reading failed, and the process exists.
    pub fn owner(&mut self, pid: u32) -> io::Result<Option<u32>> {
        let Some(text) = self.read(&FilePath::process(pid, "status"))? else { return Ok(None) };
        let effective = line(text, b"Uid:").and_then(|uids| decimal(words(uids).nth(1)?));
        Ok(effective.and_then(|uid| u32::try_from(uid).ok()))
    }

    /// Returns MemTotal of `/proc/meminfo`, bytes.
    ///
    /// # Errors
    /// The file cannot be read; `InvalidData` if it has no MemTotal in kB.
    pub fn mem_total(&self) -> io::Result<u64> {
        // procfs::Meminfo requires lines that gVisor lacks, and rejects the table at the beginning of DD-WRT's file.
        let text = std::fs::read(self.root.join("meminfo"))?;
        let bytes = line(&text, b"MemTotal:").and_then(kibibytes).filter(|bytes| *bytes > 0);
        bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no MemTotal in kB"))
    }

    /// Returns `/proc/sys/kernel/random/boot_id`, which changes at each boot.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn boot_id(&self) -> io::Result<String> {
        let text = std::fs::read_to_string(self.root.join("sys/kernel/random/boot_id"))?;
        Ok(text.trim().to_owned())
    }

    /// Returns whether a pid that is not in the listing belongs to a process that is merely hidden from us (hidepid):
    /// kill(2) with signal 0 then fails with EPERM, not ESRCH, and its files cannot be opened (those of a mere thread
    /// can). Always false of another directory than the real `/proc`.
    #[must_use]
    pub fn is_hidden(&self, pid: u32) -> bool {
        self.root == Path::new("/proc")
            && test_kill(pid) == Err(rustix::io::Errno::PERM)
            && !matches!(self.open_stat(pid), Ok(Some(_)))
    }

    fn open_at(&self, path: &FilePath, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(openat(&self.directory, path.as_c_str(), flags, Mode::empty())?)
    }

    /// Returns whether a pid is that of a process (not of a mere thread) now: "Tgid:" of `/proc/<pid>/status`.
    #[must_use]
    pub fn is_process(&mut self, pid: u32) -> bool {
        let Ok(Some(status)) = self.read(&FilePath::process(pid, "status")) else { return false };
        line(status, b"Tgid:").and_then(|tgid| decimal(tgid.trim_ascii())) == Some(u64::from(pid))
    }

    /// Returns our own pid as this /proc has it, which in a container may differ from getpid(2).
    #[must_use]
    pub fn own_pid(&self) -> Option<u32> {
        self.own_pid
    }

    /// Returns whether kernel.task_delayacct is on (`/proc/sys/kernel/task_delayacct`, Linux 5.14, off by default).
    /// `None` if there is no such switch.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn delay_accounting(&self) -> io::Result<Option<bool>> {
        let text = unless_gone(std::fs::read(self.root.join("sys/kernel/task_delayacct")))?;
        Ok(text.map(|text| text.trim_ascii() != b"0"))
    }

    /// Returns whether its pids are those of our pid namespace, as netlink has them: "NSpid:" of `/proc/self/status`
    /// (Linux 4.1) then has one number.
    #[must_use]
    pub fn is_of_our_pid_namespace(&mut self) -> bool {
        let Some(pid) = self.own_pid().filter(|pid| *pid == std::process::id() && self.is_procfs()) else {
            return false;
        };
        let Ok(Some(status)) = self.read(&FilePath::process(pid, "status")) else { return false };
        line(status, b"NSpid:").is_none_or(|pids| words(pids).count() == 1)
    }

    /// Reads a file that is held open into the buffer, from its beginning.
    fn read_again(&mut self, file: &OwnedFd) -> io::Result<Option<&[u8]>> {
        let length = unless_gone(pread(file, &mut self.buffer, 0).map_err(io::Error::from))?;
        Ok(length.and_then(|length| self.buffer.get(..length)))
    }

    /// Reads a small file of a process into the buffer.
    fn read(&mut self, path: &FilePath) -> io::Result<Option<&[u8]>> {
        let Some(fd) = unless_gone(self.open_at(path, OFlags::empty()))? else { return Ok(None) };
        // The kernel hands out a file that fits in one piece; only a command line may not fit, and its beginning is
        // enough.
        let Some(length) = unless_gone(read(&fd, &mut self.buffer).map_err(io::Error::from))? else {
            return Ok(None);
        };
        Ok(self.buffer.get(..length))
    }
}

/// Lists the entries of a directory that are numbers above 0, ascending.
fn numbers(directory: &OwnedFd, numbers: &mut Vec<u32>) -> io::Result<()> {
    numbers.clear();
    let mut space = [MaybeUninit::<u8>::uninit(); 16 * 1024];
    let mut entries = RawDir::new(directory, &mut space);
    while let Some(entry) = entries.next() {
        let name = entry?;
        let number = decimal(name.file_name().to_bytes()).and_then(|number| u32::try_from(number).ok());
        numbers.extend(number.filter(|number| *number > 0));
    }
    numbers.sort_unstable(); // procfs lists them so; another directory need not
    Ok(())
}

fn is_no(kind: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("this is not a {kind} file"))
}

/// Names the process, or thread, whose stat does not parse.
fn is_no_stat(pid: u32, error: &NoStat) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("process {pid}: {error}"))
}

/// Returns "Pss:" of a smaps_rollup, bytes.
fn pss(text: &[u8]) -> Option<u64> {
    if !is_rollup(text) {
        return None;
    }
    let rollup = SmapsRollup::from_buf_read(text).ok()?.memory_map_rollup;
    rollup.0.first()?.extension.map.get("Pss").copied()
}

/// Returns whether a text looks like the kernel's: ASCII, one header, then keys with numbers of kB that are below 2^64
/// bytes. The parser of the `procfs` crate may panic on another text: it slices paths at fixed bytes and multiplies
/// without a check.
fn is_rollup(text: &[u8]) -> bool {
    let mut lines = text.split(|b| *b == b'\n');
    let has_header = lines.next().is_some_and(|header| header.ends_with(b" [rollup]"));
    let is_size = |line: &[u8]| {
        let mut numbers = line.split(|b| !b.is_ascii_digit());
        line.first().is_none_or(u8::is_ascii_uppercase) && numbers.all(|digits| digits.len() <= 16)
    };
    text.is_ascii() && has_header && lines.all(is_size)
}

/// Returns the second number of a statm, pages.
fn resident(statm: &[u8]) -> Option<u64> {
    words(statm).nth(1).and_then(decimal)
}

/// Returns the rest of the first line that begins with a key.
fn line<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(key))
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Converts a number of "kB" to bytes.
fn kibibytes(text: &[u8]) -> Option<u64> {
    decimal(text.trim_ascii().strip_suffix(b" kB")?.trim_ascii())?.checked_mul(1024)
}

/// Path of a file of a process or thread relative to the directory, NUL-terminated. On the stack, since each read of
/// each process would allocate one.
struct FilePath([u8; 48]);

impl FilePath {
    fn process(pid: u32, file: &str) -> Self {
        Self::of(format_args!("{pid}/{file}"))
    }

    fn thread(pid: u32, tid: u32, file: &str) -> Self {
        Self::of(format_args!("{pid}/task/{tid}/{file}"))
    }

    fn of(arguments: std::fmt::Arguments) -> Self {
        let mut path = [0; 48];
        // Two numbers of 10 digits, the letters between them and at most 12 after them always fit.
        let _ = path.as_mut_slice().write_fmt(arguments);
        Self(path)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ::procfs::Current;
    use proptest::prelude::*;

    fn real() -> Proc {
        Proc::open(Path::new("/proc")).unwrap()
    }

    #[test]
    fn lists_this_process_once_and_in_order() {
        let mut pids = Vec::new();
        real().pids(&mut pids).unwrap();
        assert_eq!(pids.iter().filter(|pid| **pid == std::process::id()).count(), 1);
        assert!(pids.is_sorted());
    }

    #[test]
    fn reads_the_files_of_this_process() {
        let me = std::process::id();
        let mut proc = real();
        let stat = proc.open_stat(me).unwrap().unwrap();
        assert_eq!(proc.stat(&stat).unwrap().unwrap().id.pid, me);
        assert!(proc.schedstat(me).unwrap().unwrap().oncpu > 0);
        assert_eq!(proc.owner(me).unwrap(), Some(rustix::process::geteuid().as_raw()));
        let exe = std::env::current_exe().unwrap();
        assert_eq!(proc.exe(me).unwrap().unwrap(), exe.as_os_str());
        let words: Vec<_> = std::env::args().collect();
        assert_eq!(String::from_utf8(proc.cmdline(me).unwrap().unwrap()).unwrap(), words.join(" "));
        assert_eq!(proc.mem_total().unwrap(), ::procfs::Meminfo::current().unwrap().mem_total);
        assert_eq!(proc.boot_id().unwrap().len(), 36);
    }

    #[test]
    fn a_process_that_never_was_is_gone_not_failed() {
        let mut proc = real();
        let never = u32::MAX;
        assert!(proc.open_stat(never).unwrap().is_none());
        assert!(proc.schedstat(never).unwrap().is_none());
        assert!(proc.cmdline(never).unwrap().is_none());
        assert!(proc.exe(never).unwrap().is_none());
        assert!(proc.owner(never).unwrap().is_none());
        assert!(proc.threads(never, &mut Vec::new()).unwrap().is_none());
        assert!(proc.thread_stat(std::process::id(), never).unwrap().is_none());
        assert!(proc.thread_schedstat(never, never).unwrap().is_none());
        assert!(proc.pss(Identity { pid: never, start: 1 }).unwrap().is_none());
        assert!(proc.leaderless_rss(never).unwrap().is_none());
        assert!(proc.resident(never).unwrap().is_none());
        assert!(!proc.is_hidden(4_194_304 + 1));
    }

    #[test]
    fn reads_the_threads_of_this_process() {
        let (me, mut proc) = (std::process::id(), real());
        let (ready, go) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
        let thread = std::thread::spawn(move || {
            ready.0.send(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()).unwrap();
            let _ = go.1.recv();
        });
        let tid = ready.1.recv().unwrap();
        let mut tids = Vec::new();
        proc.threads(me, &mut tids).unwrap().unwrap();
        assert!(tids.is_sorted() && tids.contains(&me) && tids.contains(&tid), "{me} and {tid} in {tids:?}");
        assert_eq!(proc.thread_stat(me, tid).unwrap().unwrap().id.pid, tid);
        assert!(proc.thread_schedstat(me, tid).unwrap().unwrap().slices > 0);
        drop(go.0);
        thread.join().unwrap();
    }

    #[test]
    fn pss_is_that_of_smaps_and_only_of_this_identity() {
        let mut proc = real();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = proc.stat(&proc.open_stat(child.id()).unwrap().unwrap()).unwrap().unwrap().id;
        let other = Identity { start: id.start + 1, ..id };
        assert_eq!(proc.pss(other).unwrap(), None);
        let pss = proc.pss(id).unwrap().unwrap();
        assert!(pss > 0 && pss.is_multiple_of(1024), "{pss}");
        child.kill().unwrap();
        // A zombie has no memory, and once it is reaped there is no process.
        rustix::process::waitid(
            rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&child)),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        assert_eq!(proc.pss(id).unwrap(), Some(0));
        child.wait().unwrap();
        assert_eq!(proc.pss(id).unwrap(), None);
    }

    /// The kernel's files, and others; the sizes are written by hand.
    #[test]
    fn pss_is_read_from_what_the_kernel_writes_and_from_nothing_else() {
        let header = "55eec686d000-7fffdbd4b000 ---p 00000000 00:00 0                          [rollup]\n";
        let cases = [
            (
                "Linux 6.18",
                "Rss:                1684 kB\nPss:                 271 kB\nPss_Dirty:           108 kB\n",
                Some(277_504),
            ),
            (
                "shared pages only",
                "Rss:                 952 kB\nPss:                   0 kB\nShared_Clean:        952 kB\n",
                Some(0),
            ),
            ("much", "Pss:    9999999999999999 kB\n", Some(9_999_999_999_999_999 * 1024)),
            ("too much", "Pss:   99999999999999999 kB\n", None),
            ("another is too much", "Pss: 1 kB\nRss: 18014398509481984 kB\n", None),
            ("no Pss", "Rss: 1684 kB\nPss_Dirty: 108 kB\n", None),
            ("no number", "Pss: much kB\n", None),
            ("a second header", "Pss: 1 kB\n0-1 ---p 0 00:00 0 /SYSV\n", None),
            ("not ASCII", "Pss: 1 kB\nPß: 1 kB\n", None),
        ];
        for (what, sizes, expected) in cases {
            assert_eq!(pss(format!("{header}{sizes}").as_bytes()), expected, "{what}");
        }
        for text in ["", "\n", "Pss: 1 kB\n", "0-1 ---p 0 00:00 0 /SYSV\nPss: 1 kB\n", "0-1 [rollup]\nPss: 1 kB\n"] {
            assert_eq!(pss(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_smaps_rollup_of_any_bytes_does_not_panic(
            path in "(/SYSV|\\[stack:)?[ -~é€]{0,9}( \\[rollup\\])?",
            sizes in "([A-Z][a-z]{0,3}: [0-9]{0,20}( kB)?\n|[ -~é€]{0,16}\n){0,4}",
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let header = "0-1 ---p 0 00:00 0";
            let _ = pss(format!("{header} {path}\n{sizes}").as_bytes());
            let _ = pss(&[format!("{header} [rollup]\n").as_bytes(), &bytes].concat());
            let _ = pss(&bytes);
        }
    }

    #[test]
    fn the_switch_of_delay_accounting_is_on_off_or_not_there() {
        let root = tempfile::tempdir().unwrap();
        let proc = Proc::open(root.path()).unwrap();
        assert_eq!(proc.delay_accounting().unwrap(), None);
        std::fs::create_dir_all(root.path().join("sys/kernel")).unwrap();
        for (text, on) in [("0\n", false), ("1\n", true)] {
            std::fs::write(root.path().join("sys/kernel/task_delayacct"), text).unwrap();
            assert_eq!(proc.delay_accounting().unwrap(), Some(on));
        }
    }

    #[test]
    fn only_a_real_proc_has_our_pids() {
        assert!(real().is_of_our_pid_namespace());
        assert!(!Proc::open(tempfile::tempdir().unwrap().path()).unwrap().is_of_our_pid_namespace());
    }

    #[test]
    fn a_file_that_is_no_stat_is_failed_not_gone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("7")).unwrap();
        std::fs::write(root.path().join("7/stat"), "not a stat").unwrap();
        let mut proc = Proc::open(root.path()).unwrap();
        let file = proc.open_stat(7).unwrap().unwrap();
        let error = proc.stat(&file).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().contains("process 7:")),
            (io::ErrorKind::InvalidData, true),
            "{error}"
        );
    }

    #[test]
    fn a_file_held_open_says_when_its_process_is_gone() {
        let mut proc = real();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let file = proc.open_stat(child.id()).unwrap().unwrap();
        assert!(proc.stat(&file).unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(proc.stat(&file).unwrap().is_none());
    }
}
