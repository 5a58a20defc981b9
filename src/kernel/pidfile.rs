//! A pidfile: opened without ever waiting for anyone, read in part, its age known.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::stat::decimal;

/// How much of a pidfile is read: enough for several hundred pids, and a limit to what a mistaken path can cost.
const LENGTH_MAX: u64 = 4096;

/// TMPFS_MAGIC of statfs(2).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// What a pidfile says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pidfile {
    /// The pids, one per line, up to the first line that is not one.
    pub pids: Vec<u32>,
    /// The first line, when it is not a pid: what to quote in a message.
    pub instead: Option<String>,
    /// When the file (a link's target) was written, ns since the epoch.
    pub written: u64,
    /// Whether it lies on a file system that does not outlive a boot.
    pub on_tmpfs: bool,
    /// Which file it was.
    version: Version,
}

impl Pidfile {
    #[cfg(test)]
    pub(crate) fn made_up(pids: Vec<u32>, written: u64, on_tmpfs: bool) -> Self {
        Self { pids, instead: None, written, on_tmpfs, version: Version::default() }
    }
}

/// What tells one content of a path from another, as long as nothing is written within the grain of the file system's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    /// Of the last write, and of the last change of any kind: seconds and ns.
    modified: (i64, i64),
    changed: (i64, i64),
    /// Whether it was that old when it was read that whatever is written later shows.
    is_old: bool,
}

/// So much older than the wall clock a file must be, s. (FAT has a grain of 2 s.)
const OLD: i64 = 3;

impl Version {
    fn of(metadata: &Metadata, now: u64) -> Self {
        let seconds = i64::try_from(now / 1_000_000_000).unwrap_or(i64::MAX);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            is_old: metadata.ctime().max(metadata.mtime()) < seconds.saturating_sub(OLD),
        }
    }
}

/// Reads a pidfile at a time (ns since the epoch), unless it plainly is as it was. Opening never blocks (a FIFO without a writer
/// would, for good), and only a regular file is read.
///
/// # Errors
/// The file is missing or cannot be read, or is not a regular file.
pub fn read(path: &Path, before: Option<Pidfile>, now: u64) -> io::Result<Pidfile> {
    // A device may do something when it is merely opened, so what it is comes first, and again afterwards.
    let metadata = std::fs::metadata(path)?;
    refuse_what_is_no_file(&metadata)?;
    if let Some(before) = before.filter(|before| before.version.is_old && before.version == Version::of(&metadata, now))
    {
        return Ok(before);
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    refuse_what_is_no_file(&metadata)?;
    let mut text = Vec::new();
    let on_tmpfs = rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type == TMPFS);
    file.take(LENGTH_MAX).read_to_end(&mut text)?;
    if text.len() as u64 == LENGTH_MAX {
        // The last line may be half a number.
        let whole = text.iter().rposition(|b| *b == b'\n').unwrap_or(text.len());
        text.truncate(whole);
    }
    let (pids, instead) = parse(&text);
    let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
    let written = seconds.saturating_mul(1_000_000_000) + u64::try_from(metadata.mtime_nsec()).unwrap_or(0);
    Ok(Pidfile { pids, instead, written, on_tmpfs, version: Version::of(&metadata, now) })
}

fn refuse_what_is_no_file(metadata: &Metadata) -> io::Result<()> {
    match metadata.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        _ => Err(io::Error::other("it is not a regular file")),
    }
}

fn parse(text: &[u8]) -> (Vec<u32>, Option<String>) {
    let mut pids = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        let line = line.trim_ascii();
        let pid = decimal(line).and_then(|pid| u32::try_from(pid).ok());
        match pid.filter(|pid| *pid > 0 && i32::try_from(*pid).is_ok()) {
            Some(pid) => pids.push(pid),
            None if pids.is_empty() => {
                let start = line.get(..line.len().min(40)).unwrap_or_default();
                return (pids, Some(String::from_utf8_lossy(start).into_owned()));
            }
            None => break,
        }
    }
    (pids, None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pids_go_up_to_the_first_line_that_is_not_one() {
        let cases: [(&[u8], &[u32], Option<&str>); 14] = [
            (b"123\n", &[123], None),
            (b" 123 \r\n", &[123], None),
            (b"123", &[123], None),
            (b"1\n2\n3\n", &[1, 2, 3], None),
            (b"77\n/var/lib/postgresql\n1700000000\n5432\n", &[77], None),
            (b"12\n\n13\n", &[12], None),
            (b"", &[], Some("")),
            (b"0\n", &[], Some("0")),
            (b"-5\n", &[], Some("-5")),
            (b"nginx\n", &[], Some("nginx")),
            (b"12 13\n", &[], Some("12 13")),
            (b"4294967296\n", &[], Some("4294967296")),
            (b"2147483648\n", &[], Some("2147483648")),
            (b"99999999999999999999999\n", &[], Some("99999999999999999999999")),
        ];
        for (text, pids, instead) in cases {
            assert_eq!(parse(text), (pids.to_vec(), instead.map(String::from)), "{text:?}");
        }
    }

    #[test]
    fn what_was_written_is_read_and_what_was_not_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        std::fs::write(&path, "1\n").unwrap();
        let changed = std::fs::metadata(&path).unwrap().ctime().cast_unsigned() * 1_000_000_000;
        // Just written: what is written now may leave no other trace.
        let young = read(&path, None, changed).unwrap();
        std::fs::write(&path, "2\n").unwrap();
        let young = read(&path, Some(young), changed + 1).unwrap();
        assert_eq!(young.pids, [2]);
        let old = read(&path, Some(young), changed + 60_000_000_000).unwrap();
        assert!(old.version.is_old);
        let marked = Pidfile { pids: vec![99], ..old };
        let again = read(&path, Some(marked), changed + 70_000_000_000).unwrap();
        assert_eq!(again.pids, [99], "it was not read again");
        // Replaced, as by a rename: another file at the same path.
        let other = directory.path().join("other");
        std::fs::write(&other, "3\n").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(read(&path, Some(again), changed + 80_000_000_000).unwrap().pids, [3]);
    }

    #[test]
    fn only_a_regular_file_is_read_and_nothing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        let read = |path: &Path| super::read(path, None, 0);
        assert!(read(&fifo).unwrap_err().to_string().contains("not a regular file"));
        assert_eq!(read(directory.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read(&directory.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let around = directory.path().join("loop");
        std::os::unix::fs::symlink(&around, &around).unwrap();
        assert!(read(&around).is_err());
    }
}
