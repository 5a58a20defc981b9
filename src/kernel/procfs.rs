//! `/proc`: the list of processes and the files of one of them.

use std::ffi::{CStr, OsString};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, RawDir, SeekFrom, fstatfs, openat, readlinkat, seek};
use rustix::io::{pread, read};

use super::stat::{Stat, decimal};
use super::unless_gone;

/// Longest file read of one process: a command line may have any length, but no one matches beyond this.
const CMDLINE_MAX: usize = 64 * 1024;

/// An open `/proc/<pid>/stat`: reading it again costs about half of opening it anew, and 4.7 kB of kernel memory.
#[derive(Debug)]
pub struct StatFile(OwnedFd);

/// A mounted `/proc`, or a directory that looks like one.
#[derive(Debug)]
pub struct Proc {
    root: PathBuf,
    directory: OwnedFd,
    buffer: Vec<u8>,
}

impl Proc {
    /// Opens the directory once; every later open is relative to it.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(rustix::fs::CWD, root, flags, Mode::empty())?;
        Ok(Self { root: root.to_owned(), directory, buffer: vec![0; CMDLINE_MAX] })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it is a real one: there, a file held open says when its process is gone.
    #[must_use]
    pub fn is_procfs(&self) -> bool {
        fstatfs(&self.directory).is_ok_and(|fs| fs.f_type == PROC_SUPER_MAGIC)
    }

    /// The pids that exist, ascending (getdents64(2) of the directory).
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn pids(&mut self, pids: &mut Vec<u32>) -> io::Result<()> {
        pids.clear();
        seek(&self.directory, SeekFrom::Start(0))?;
        let mut space = [MaybeUninit::<u8>::uninit(); 16 * 1024];
        let mut entries = RawDir::new(&self.directory, &mut space);
        while let Some(entry) = entries.next() {
            let name = entry?;
            let pid = decimal(name.file_name().to_bytes()).and_then(|pid| u32::try_from(pid).ok());
            pids.extend(pid.filter(|pid| *pid > 0));
        }
        pids.sort_unstable(); // procfs lists them so; another directory need not
        Ok(())
    }

    /// Opens `/proc/<pid>/stat`.
    ///
    /// # Errors
    /// Opening failed for another reason than that the process is gone.
    pub fn open_stat(&self, pid: u32) -> io::Result<Option<StatFile>> {
        Ok(self.open_file(pid, "stat")?.map(StatFile))
    }

    /// Reads an open `/proc/<pid>/stat`. A process that is gone is gone for good, even if its pid is used again. What does
    /// not parse is `InvalidData`.
    ///
    /// # Errors
    /// Reading failed for another reason than that the process is gone.
    pub fn stat(&mut self, file: &StatFile) -> io::Result<Option<Stat>> {
        let Some(length) = unless_gone(pread(&file.0, &mut self.buffer, 0).map_err(io::Error::from))? else {
            return Ok(None);
        };
        let stat = self.buffer.get(..length).and_then(Stat::parse);
        stat.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not a stat file"))
    }

    /// The first number of `/proc/<pid>/schedstat`: ns that the *leader thread* has run (CONFIG_SCHED_INFO).
    /// `None` also where the kernel has no such file.
    ///
    /// # Errors
    /// Reading failed for another reason than that the process is gone.
    pub fn schedstat(&mut self, pid: u32) -> io::Result<Option<u64>> {
        let text = self.read(pid, "schedstat")?;
        Ok(text.and_then(|text| decimal(text.split(u8::is_ascii_whitespace).next()?)))
    }

    /// Resident pages of a process whose leader thread is gone, from `task/<tid>/statm` of a thread that lives.
    ///
    /// # Errors
    /// Reading failed for another reason than that the process is gone.
    pub fn leaderless_rss(&mut self, pid: u32) -> io::Result<Option<u64>> {
        let Some(tasks) = unless_gone(std::fs::read_dir(self.root.join(format!("{pid}/task"))))? else {
            return Ok(None);
        };
        for task in tasks.flatten() {
            let Ok(statm) = std::fs::read(task.path().join("statm")) else { continue };
            let resident = statm.split(u8::is_ascii_whitespace).nth(1).and_then(decimal);
            if let Some(pages) = resident.filter(|pages| *pages > 0) {
                return Ok(Some(pages));
            }
        }
        Ok(None)
    }

    /// `/proc/<pid>/cmdline`, arguments separated by spaces; empty for a kernel thread and a zombie.
    ///
    /// # Errors
    /// Reading failed for another reason than that the process is gone.
    pub fn cmdline(&mut self, pid: u32) -> io::Result<Option<Vec<u8>>> {
        let Some(text) = self.read(pid, "cmdline")? else { return Ok(None) };
        let end = text.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        let words = text.iter().take(end).map(|b| if *b == 0 { b' ' } else { *b });
        Ok(Some(words.collect()))
    }

    /// `/proc/<pid>/exe`: the path of the executable, without the " (deleted)" of one that was replaced.
    ///
    /// # Errors
    /// Reading failed for another reason than that the process is gone: EACCES for another user's process
    /// without CAP_SYS_PTRACE.
    pub fn exe(&mut self, pid: u32) -> io::Result<Option<OsString>> {
        let path = path_of(pid, "exe");
        let link = readlinkat(&self.directory, as_path(&path), Vec::new()).map_err(io::Error::from);
        Ok(unless_gone(link)?.map(|link| {
            let link = link.into_bytes();
            let path = link.strip_suffix(b" (deleted)").unwrap_or(&link);
            OsString::from_vec(path.to_vec())
        }))
    }

    /// The effective user id, from the "Uid:" line of `/proc/<pid>/status`. (The owner of the directory is root
    /// for a process that may not dump core.)
    ///
    /// # Errors
    /// Reading failed for another reason than that the process is gone.
    pub fn owner(&mut self, pid: u32) -> io::Result<Option<u32>> {
        let Some(text) = self.read(pid, "status")? else { return Ok(None) };
        let uids = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Uid:"));
        let effective =
            uids.and_then(|uids| decimal(uids.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).nth(1)?));
        Ok(effective.and_then(|uid| u32::try_from(uid).ok()))
    }

    /// MemTotal of `/proc/meminfo`, bytes.
    ///
    /// # Errors
    /// The file cannot be read, or does not say.
    pub fn mem_total(&self) -> io::Result<u64> {
        let text = std::fs::read(self.root.join("meminfo"))?;
        let line = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"MemTotal:"));
        let kibibytes = line.and_then(|line| decimal(line.trim_ascii().strip_suffix(b" kB")?));
        let bytes = kibibytes.and_then(|kibibytes| kibibytes.checked_mul(1024)).filter(|bytes| *bytes > 0);
        bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has no MemTotal in kB"))
    }

    /// `/proc/sys/kernel/random/boot_id`: another one after each boot.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn boot_id(&self) -> io::Result<String> {
        let text = std::fs::read_to_string(self.root.join("sys/kernel/random/boot_id"))?;
        Ok(text.trim().to_owned())
    }

    /// Whether a pid that is not in the listing belongs to a process that is merely hidden from us (hidepid): kill(2) with
    /// signal 0 then says EPERM, not ESRCH, and its files cannot be opened (those of a mere thread can). Only the real
    /// `/proc` can be asked so.
    #[must_use]
    pub fn is_hidden(&self, pid: u32) -> bool {
        let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        self.root == Path::new("/proc")
            && process
                .is_some_and(|process| rustix::process::test_kill_process(process) == Err(rustix::io::Errno::PERM))
            && !matches!(self.open_stat(pid), Ok(Some(_)))
    }

    fn open_file(&self, pid: u32, file: &str) -> io::Result<Option<OwnedFd>> {
        let path = path_of(pid, file);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        unless_gone(openat(&self.directory, as_path(&path), flags, Mode::empty()).map_err(io::Error::from))
    }

    /// Whether a pid that is not in the listing is that of a process (not of a mere thread) now: "Tgid:" of
    /// `/proc/<pid>/status`. It was born after the listing.
    #[must_use]
    pub fn was_just_born(&mut self, pid: u32) -> bool {
        let Ok(Some(status)) = self.read(pid, "status") else { return false };
        let tgid = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"));
        tgid.and_then(|tgid| decimal(tgid.trim_ascii())) == Some(u64::from(pid))
    }

    /// Our own pid as this /proc has it, which in a container may be another one than getpid(2) says.
    #[must_use]
    pub fn own_pid(&self) -> Option<u32> {
        let link = readlinkat(&self.directory, c"self", Vec::new()).ok()?;
        decimal(link.as_bytes()).and_then(|pid| u32::try_from(pid).ok())
    }

    /// Reads a small file of a process into the buffer.
    fn read(&mut self, pid: u32, file: &str) -> io::Result<Option<&[u8]>> {
        let Some(fd) = self.open_file(pid, file)? else { return Ok(None) };
        // A file that fits is handed out in one piece, and none of those read here is longer that matters.
        let Some(length) = unless_gone(read(&fd, &mut self.buffer).map_err(io::Error::from))? else {
            return Ok(None);
        };
        Ok(self.buffer.get(..length))
    }
}

/// A path relative to the directory, NUL-terminated, on the stack: this is the hottest allocation there could be.
fn path_of(pid: u32, file: &str) -> [u8; 32] {
    let mut path = [0; 32];
    // 10 digits, a slash and at most 9 letters always fit.
    let _ = write!(path.as_mut_slice(), "{pid}/{file}");
    path
}

fn as_path(path: &[u8; 32]) -> &CStr {
    CStr::from_bytes_until_nul(path).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ::procfs::Current;

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
        assert!(proc.schedstat(me).unwrap().unwrap() > 0);
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
        assert!(proc.leaderless_rss(never).unwrap().is_none());
        assert!(!proc.is_hidden(4_194_304 + 1));
    }

    #[test]
    fn a_file_that_is_no_stat_is_failed_not_gone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("7")).unwrap();
        std::fs::write(root.path().join("7/stat"), "not a stat").unwrap();
        let mut proc = Proc::open(root.path()).unwrap();
        let file = proc.open_stat(7).unwrap().unwrap();
        assert_eq!(proc.stat(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
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
