//! Pidfiles: opened without ever waiting for anyone, read in part, their age known, and not looked at again for as long as the
//! kernel says that they are as they were.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{ReadFlags, WatchFlags, add_watch, remove_watch};
use rustix::fs::{FsWord, OFlags};

use super::inotify;
use super::stat::decimal;

/// Most bytes that are read of a pidfile: enough for several hundred pids, and a limit to the cost of a mistaken path.
const LENGTH_MAX: u64 = 4096;

/// TMPFS_MAGIC of statfs(2).
const TMPFS: FsWord = 0x0102_1994;

/// Magic numbers (statfs(2)) of file systems whose files change only through this kernel, which reports every change:
/// tmpfs, ext2 to ext4, XFS and Btrfs. On a network file system or an overlay others may write as well.
const LOCAL: [FsWord; 4] = [TMPFS, 0xef53, 0x5846_5342, 0x9123_683e];

/// Changes after which a pidfile is read again: written to, another owner or mode, moved, or its name given to another file
/// (which changes the number of its links).
const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::DONT_FOLLOW)
    .union(WatchFlags::ONESHOT);

/// Most files that are watched. The user, who may be Telegraf's, has a bounded number of watches
/// (fs.inotify.max_user_watches, 8,192 on old kernels).
const WATCHES_MAX: usize = 1024;

/// Longest time without reading a pidfile, ns: writes through a mapping make no event (inotify(7)).
const REFRESH: u64 = 30_000_000_000;

/// Content and age of a pidfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pidfile {
    /// The pids, one per line, up to the first line that is not one.
    pub pids: Vec<u32>,
    /// The first line, when it is not a pid: what to quote in a message.
    pub instead: Option<String>,
    /// Time of the last write of the file (of a link's target), ns since the epoch.
    pub written: u64,
    /// The file is on a file system that does not outlive a boot.
    pub on_tmpfs: bool,
    /// Which file it was.
    version: Version,
    /// The inotify watch that reports its changes, if there is one.
    watch: Option<Watch>,
}

impl Pidfile {
    #[cfg(test)]
    pub(crate) fn made_up(pids: Vec<u32>, written: u64, on_tmpfs: bool) -> Self {
        Self { pids, instead: None, written, on_tmpfs, version: Version::default(), watch: None }
    }
}

/// Identity of a path's content: it changes with each write, unless two writes fall within the grain of the file system's
/// clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    /// Times of the last write, and of the last change of any kind: seconds and ns.
    modified: (i64, i64),
    changed: (i64, i64),
    /// The file was so old when it was read that a later write has another time.
    is_old: bool,
}

/// Age from which a file counts as that old, s. (FAT has a grain of 2 s.)
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

/// Inotify watch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Watch {
    /// inotify's number of it, which is not used again.
    number: i32,
    /// Which directory the file was in: the watch is the file's, not the path's.
    directory: Directory,
    /// Time at which the file was looked at, ns since the epoch.
    looked: u64,
}

/// Device and inode of a directory. (A directory that is created again with the same inode has other files.)
type Directory = (u64, u64);

/// Sources of change reports.
#[derive(Debug)]
struct Tellers {
    inotify: OwnedFd,
    /// `/proc/self/mountinfo`: poll(2) reports (since Linux 2.6.26) that a file system was mounted, perhaps over a pidfile,
    /// or unmounted.
    mounts: File,
}

impl Tellers {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel refuses another inotify instance (fs.inotify.max_user_instances); no /proc is mounted.
    fn open() -> io::Result<Self> {
        Ok(Self { inotify: inotify::open()?, mounts: File::open("/proc/self/mountinfo")? })
    }

    /// Calls `changed` with each watch that has a report. Returns whether nothing else can have changed.
    fn ask(&self, mut changed: impl FnMut(i32)) -> bool {
        let Self { inotify, mounts } = self;
        let mut ready = [PollFd::new(inotify, PollFlags::IN), PollFd::new(mounts, PollFlags::PRI)];
        let asked = poll(&mut ready, Some(&Timespec::default()));
        let [is_told, is_mounted] = ready.map(|fd| !fd.revents().is_empty());
        let mut is_all = asked.is_ok() && !is_mounted;
        if is_told {
            inotify::drain(inotify, |watch, kind| {
                is_all &= !kind.contains(ReadFlags::QUEUE_OVERFLOW);
                changed(watch);
            });
        }
        is_all
    }
}

/// Reader of pidfiles.
#[derive(Debug, Default)]
pub struct Pidfiles {
    /// Time at which this gather began, ns since the epoch.
    now: u64,
    /// Opened for the first watch; `None` before, and where the kernel refuses another inotify instance.
    tellers: Option<Tellers>,
    /// The watches of files that have not changed since they were read, and whether anybody has wanted them at the last reading.
    unchanged: BTreeMap<i32, bool>,
    /// Changes may have happened without a report.
    is_missing_changes: bool,
    /// The directories of files, as they are at this gather.
    directories: BTreeMap<OsString, Option<Directory>>,
    /// A file that was read at the last reading is not watched.
    any_unwatched: bool,
    /// Earliest time at which a file of the last reading was looked at, ns since the epoch.
    looked: u64,
}

impl Pidfiles {
    /// Begins a gather at a time (ns since the epoch): what has changed since the last one is learnt now. Returns whether all that was
    /// read when last there was reading is as it was then, so that there need not be any now.
    pub fn begin_gather(&mut self, now: u64) -> bool {
        self.now = now;
        let Self { tellers, unchanged, .. } = self;
        let (mut is_all, mut is_told) = (true, false);
        if let Some(tellers) = tellers {
            // The watch of one that has changed has gone with the event.
            is_all = tellers.ask(|watch| is_told |= unchanged.remove(&watch).is_some());
        }
        self.is_missing_changes |= !is_all;
        let is_same = |(path, before): (&OsString, &Option<Directory>)| before.is_some() && look_into(path) == *before;
        let are_same = self.directories.iter().all(is_same);
        if !are_same {
            self.directories.clear();
        }
        is_all && !is_told && !self.any_unwatched && now.abs_diff(self.looked) < REFRESH && are_same
    }

    /// Begins a reading of all pidfiles that are wanted. Files that were not wanted at the last reading are no longer
    /// watched; nor is any file if changes were missed.
    pub fn begin_reading(&mut self) {
        (self.any_unwatched, self.looked) = (false, self.now);
        let all_was_told = !std::mem::take(&mut self.is_missing_changes);
        let Self { tellers: Some(tellers), unchanged, .. } = self else { return };
        unchanged.retain(|watch, is_asked_for| {
            let stays = all_was_told && std::mem::take(is_asked_for);
            if !stays {
                let _ = remove_watch(&tellers.inotify, *watch); // it may have gone with its file
            }
            stays
        });
    }

    /// Reads a pidfile, unless it plainly is as it was. Opening never blocks (a FIFO without a writer would, for good), and only a
    /// regular file is read.
    ///
    /// # Errors
    /// The file is missing or cannot be read, or is not a regular file.
    pub fn read(&mut self, path: &Path, before: Option<Pidfile>) -> io::Result<Pidfile> {
        let read = self.read_if_changed(path, before);
        match &read {
            Ok(Pidfile { watch: Some(watch), .. }) => self.looked = self.looked.min(watch.looked),
            _ => self.any_unwatched = true,
        }
        read
    }

    fn read_if_changed(&mut self, path: &Path, before: Option<Pidfile>) -> io::Result<Pidfile> {
        let before = match before {
            Some(before) if self.is_unchanged(path, &before) => return Ok(before),
            before => before,
        };
        let was_watched = before.as_ref().and_then(|before| before.watch);
        was_watched.into_iter().for_each(|watch| self.forget(watch));
        // A device may do something when it is merely opened, so what it is comes first, and again afterwards.
        let metadata = std::fs::metadata(path)?;
        refuse_what_is_no_file(&metadata)?;
        let is_same = |before: &Pidfile| before.version.is_old && before.version == Version::of(&metadata, self.now);
        if let (Some(before), None) = (before.filter(is_same), was_watched) {
            return Ok(before);
        }
        // Before it is read: so no change is missed.
        let watch = self.watch(path);
        let read = read_anew(path, self.now)
            .map(|(file, is_watchable)| Pidfile { watch: watch.filter(|_| is_watchable), ..file });
        if !matches!(read, Ok(Pidfile { watch: Some(_), .. })) {
            watch.into_iter().for_each(|watch| self.forget(watch));
        }
        read
    }

    /// Returns whether a file is known to be unchanged.
    fn is_unchanged(&mut self, path: &Path, file: &Pidfile) -> bool {
        let Some(watch) = file.watch else { return false };
        let Some(is_asked_for) = self.unchanged.get_mut(&watch.number) else { return false };
        *is_asked_for = true;
        self.now.abs_diff(watch.looked) < REFRESH && self.directory_of(path) == Some(watch.directory)
    }

    /// Watches whatever is at a path, a link itself, if that is possible.
    fn watch(&mut self, path: &Path) -> Option<Watch> {
        let directory = self.directory_of(path).filter(|_| self.unchanged.len() < WATCHES_MAX)?;
        if self.tellers.is_none() {
            self.tellers = Tellers::open().ok();
        }
        let number = add_watch(&self.tellers.as_ref()?.inotify, path, CHANGES).ok()?;
        self.unchanged.insert(number, true);
        Some(Watch { number, directory, looked: self.now })
    }

    /// Ends a watch. Other targets with the same file read it again.
    fn forget(&mut self, watch: Watch) {
        if let (Some(tellers), true) = (&self.tellers, self.unchanged.remove(&watch.number).is_some()) {
            self.any_unwatched = true;
            let _ = remove_watch(&tellers.inotify, watch.number); // it may have gone with its file
        }
    }

    /// The directory that a path is in now, if it can be looked into.
    fn directory_of(&mut self, path: &Path) -> Option<Directory> {
        let parent = path.parent().map(Path::as_os_str).filter(|parent| !parent.is_empty()).unwrap_or(OsStr::new("."));
        if let Some(directory) = self.directories.get(parent) {
            return *directory;
        }
        let directory = look_into(parent);
        self.directories.insert(parent.to_owned(), directory);
        directory
    }
}

/// Which directory is at a path, if it can be looked into.
fn look_into(path: &OsStr) -> Option<Directory> {
    let metadata = std::fs::metadata(Path::new(path).join(".")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Reads a pidfile, and says whether it can be watched: a link's target cannot, by the link.
fn read_anew(path: &Path, now: u64) -> io::Result<(Pidfile, bool)> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    refuse_what_is_no_file(&metadata)?;
    let mut text = Vec::new();
    let file_system = rustix::fs::fstatfs(&file).map_or(0, |fs| fs.f_type);
    file.take(LENGTH_MAX).read_to_end(&mut text)?;
    if text.len() as u64 == LENGTH_MAX {
        // The last line may be half a number.
        let whole = text.iter().rposition(|b| *b == b'\n').unwrap_or(text.len());
        text.truncate(whole);
    }
    let (pids, instead) = parse(&text);
    let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
    let written = seconds.saturating_mul(1_000_000_000) + u64::try_from(metadata.mtime_nsec()).unwrap_or(0);
    let (version, on_tmpfs) = (Version::of(&metadata, now), file_system == TMPFS);
    let is_watchable =
        LOCAL.contains(&file_system) && std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    Ok((Pidfile { pids, instead, written, on_tmpfs, version, watch: None }, is_watchable))
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
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::kernel::elsewhere::{can_go, passes, task};
    use std::os::fd::AsRawFd;
    use std::process::Command;

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

    /// By a link, since what a link names is not watched.
    #[test]
    fn what_was_written_is_read_and_what_was_not_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link] = ["pid", "link"].map(|name| directory.path().join(name));
        std::fs::write(&path, "1\n").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut pidfiles = unmounted();
        let mut read = |before, now| {
            begin(&mut pidfiles, now);
            pidfiles.read(&link, before).unwrap()
        };
        let changed = std::fs::metadata(&path).unwrap().ctime().cast_unsigned() * 1_000_000_000;
        // Just written: what is written now may leave no other trace.
        let young = read(None, changed);
        std::fs::write(&path, "2\n").unwrap();
        let young = read(Some(young), changed + 1);
        assert_eq!(young.pids, [2]);
        let old = read(Some(young), changed + 60_000_000_000);
        assert!(old.version.is_old);
        let marked = Pidfile { pids: vec![99], ..old };
        let again = read(Some(marked), changed + 70_000_000_000);
        assert_eq!(again.pids, [99], "it was not read again");
        // Replaced, as by a rename: another file at the same path.
        let other = directory.path().join("other");
        std::fs::write(&other, "3\n").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(read(Some(again), changed + 80_000_000_000).pids, [3]);
    }

    /// Whatever makes another file of it is seen at once, also twice in a row, and by both who read it.
    #[test]
    fn a_file_that_is_watched_is_looked_at_when_it_changes() {
        use std::fs::{create_dir, remove_file, rename, set_permissions, write};
        use std::os::unix::fs::PermissionsExt;
        let around = tempfile::tempdir().unwrap();
        let file_system = rustix::fs::statfs(around.path()).unwrap().f_type;
        assert!(
            LOCAL.contains(&file_system),
            "TMPDIR is on no file system on which files are watched: {file_system:#x}"
        );
        let [directory, elsewhere, other] = ["run", "old", "new"].map(|name| around.path().join(name));
        create_dir(&directory).unwrap();
        let path = directory.join("x.pid");
        let changes: [(&str, &dyn Fn()); 6] = [
            ("written in place", &|| write(&path, "2\n").unwrap()),
            ("replaced by a rename", &|| {
                write(&other, "2\n").unwrap();
                rename(&other, &path).unwrap();
            }),
            ("removed and made anew", &|| {
                remove_file(&path).unwrap();
                write(&path, "2\n").unwrap();
            }),
            ("in another directory of that name", &|| {
                rename(&directory, &elsewhere).unwrap();
                create_dir(&directory).unwrap();
                write(&path, "2\n").unwrap();
                std::fs::remove_dir_all(&elsewhere).unwrap();
            }),
            ("with another mode", &|| set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap()),
            ("moved away and back", &|| {
                rename(&path, &other).unwrap();
                rename(&other, &path).unwrap();
            }),
        ];
        let mut pidfiles = unmounted();
        for (what, change) in changes {
            write(&path, "2\n").unwrap();
            begin(&mut pidfiles, 0);
            let mut files = [0; 2].map(|_| Some(pidfiles.read(&path, None).unwrap()));
            for round in 0..2 {
                for file in &mut files {
                    file.as_mut().unwrap().pids = vec![99];
                    *file = Some(pidfiles.read(&path, file.take()).unwrap());
                    assert_eq!(file.as_ref().unwrap().pids, [99], "it was not looked at again: {what}, {round}");
                }
                assert!(begin(&mut pidfiles, 0), "it need not be looked at: {what}, {round}");
                for file in &mut files {
                    *file = Some(pidfiles.read(&path, file.take()).unwrap());
                }
                change();
                assert!(!begin(&mut pidfiles, 0), "it must be looked at: {what}, {round}");
                for file in &mut files {
                    *file = Some(pidfiles.read(&path, file.take()).unwrap());
                    assert_eq!(file.as_ref().unwrap().pids, [2], "{what}, {round}");
                }
            }
        }
        // Gone, and seen to be.
        begin(&mut pidfiles, 0);
        let file = pidfiles.read(&path, None).unwrap();
        remove_file(&path).unwrap();
        begin(&mut pidfiles, 0);
        assert_eq!(pidfiles.read(&path, Some(file)).unwrap_err().kind(), io::ErrorKind::NotFound);
        // Nothing is left of all that.
        begin(&mut pidfiles, 0);
        assert_eq!(watches(&pidfiles), 0);
    }

    /// Begins a gather that reads; returns whether it need not.
    fn begin(pidfiles: &mut Pidfiles, now: u64) -> bool {
        let is_as_it_was = pidfiles.begin_gather(now);
        pidfiles.begin_reading();
        is_as_it_was
    }

    /// One who hears of nothing that the rest of the host mounts.
    fn unmounted() -> Pidfiles {
        let mounts = File::open("/dev/null").unwrap();
        Pidfiles { tellers: Some(Tellers { mounts, ..Tellers::open().unwrap() }), ..Pidfiles::default() }
    }

    /// The watches that the kernel has.
    fn watches(pidfiles: &Pidfiles) -> usize {
        let fd = pidfiles.tellers.as_ref().unwrap().inotify.as_raw_fd();
        std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap().matches("inotify wd:").count()
    }

    /// By itself in a mount namespace, so that nothing is mounted for others.
    #[test]
    fn a_file_that_another_is_mounted_over_is_another() {
        const APART: [&str; 2] = ["unshare", "--mount"];
        if task().is_none() {
            let test = "kernel::pidfile::tests::a_file_that_another_is_mounted_over_is_another";
            assert!(!can_go(&APART) || passes(&APART, test, "mount"));
            return;
        }
        let around = tempfile::tempdir().unwrap();
        let [path, other] = [("pid", "1\n"), ("other", "2\n")].map(|(name, text)| {
            let path = around.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        let run = |command: &mut Command| assert!(command.arg(&path).status().unwrap().success());
        let mut pidfiles = Pidfiles::default();
        let mut file = None;
        let mut read = || {
            let is_as_it_was = begin(&mut pidfiles, 0);
            file = Some(pidfiles.read(&path, file.take()).unwrap());
            (file.as_ref().unwrap().pids[0], is_as_it_was)
        };
        assert_eq!([read().0, read().0], [1, 1]);
        run(Command::new("mount").arg("--bind").arg(&other));
        assert_eq!([read(), read()], [(2, false), (2, true)]);
        run(&mut Command::new("umount"));
        assert_eq!([read(), read()], [(1, false), (1, true)]);
        assert_eq!(watches(&pidfiles), 1);
    }

    /// Though it is still there, below another name.
    #[test]
    fn a_file_that_nobody_asks_for_any_more_is_not_watched() {
        let around = tempfile::tempdir().unwrap();
        let mut pidfiles = unmounted();
        for (number, expected) in [(0, 1), (1, 2), (2, 2)] {
            let path = around.path().join(format!("{number}.pid"));
            std::fs::write(&path, "1\n").unwrap();
            begin(&mut pidfiles, 0);
            pidfiles.read(&path, None).unwrap();
            assert_eq!(watches(&pidfiles), expected, "{number}");
        }
    }

    #[test]
    fn a_directory_that_may_not_be_looked_into_is_no_directory() {
        use std::os::unix::fs::PermissionsExt;
        let around = tempfile::tempdir().unwrap();
        let path = around.path().join("pid");
        std::fs::write(&path, "1\n").unwrap();
        let is_there = || Pidfiles::default().directory_of(&path).is_some();
        assert!(is_there());
        std::fs::set_permissions(around.path(), PermissionsExt::from_mode(0o000)).unwrap();
        // root may look everywhere.
        assert_eq!(is_there(), std::fs::metadata(&path).is_ok());
        std::fs::set_permissions(around.path(), PermissionsExt::from_mode(0o700)).unwrap();
    }

    #[test]
    fn a_file_that_is_watched_is_looked_at_now_and_then_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        std::fs::write(&path, "1\n").unwrap();
        let mut pidfiles = unmounted();
        begin(&mut pidfiles, REFRESH);
        let mut file = Some(pidfiles.read(&path, None).unwrap());
        // Each time as if it had been looked at before, and something else read.
        let [soon, later, before] = [2 * REFRESH - 1, 3 * REFRESH, 0].map(|now| {
            let marked = Pidfile { pids: vec![99], ..file.take().unwrap() };
            let is_as_it_was = begin(&mut pidfiles, now);
            let read = pidfiles.read(&path, Some(marked)).unwrap();
            let pids = read.pids.clone();
            file = Some(read);
            (pids[0], is_as_it_was)
        });
        assert_eq!((soon, later, before), ((99, true), (1, false), (1, false)));
    }

    /// Of two that are read, one.
    #[test]
    fn what_is_not_watched_is_read_at_every_gather() {
        let directory = tempfile::tempdir().unwrap();
        let [path, link, none] = ["pid", "link", "none"].map(|name| directory.path().join(name));
        std::fs::write(&path, "1\n").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for (other, expected) in [(&path, true), (&link, false), (&none, false)] {
            let mut pidfiles = unmounted();
            let mut files = [None, None];
            let are_as_they_were = [0; 3].map(|now| {
                let are_as_they_were = begin(&mut pidfiles, now);
                for (path, file) in [&path, other].into_iter().zip(&mut files) {
                    *file = pidfiles.read(path, file.take()).ok();
                }
                are_as_they_were
            });
            assert_eq!(are_as_they_were[2], expected, "{}", other.display());
        }
    }

    #[test]
    fn only_a_regular_file_is_read_and_nothing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        let read = |path: &Path| Pidfiles::default().read(path, None);
        assert!(read(&fifo).unwrap_err().to_string().contains("not a regular file"));
        assert_eq!(read(directory.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read(&directory.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let around = directory.path().join("loop");
        std::os::unix::fs::symlink(&around, &around).unwrap();
        assert!(read(&around).is_err());
    }
}
