//! inotify on directories of pidfiles: a hint that one came or went.
//!
//! It is a hint only, since inotify sees neither a link's target being rewritten nor a directory that is made anew. The
//! directories are read at every gather in any case; the hint lets a process be seen that lives less than one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{ReadFlags, WatchFlags, add_watch, remove_watch};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::inotify;

/// Which directory: device, inode and, since ext4 uses an inode again at once, the time of its creation, s and ns.
type Directory = (u64, u64, Option<(i64, u32)>);

/// Watches a changing set of directories.
#[derive(Debug)]
pub struct PidfileWatch {
    inotify: OwnedFd,
    /// What is watched, by which watch: a directory replaced by another must be watched anew.
    watched: BTreeMap<PathBuf, (Directory, i32)>,
}

/// An entry came, went, or was written to its end. Reading pidfiles makes events too, and so does a log file that somebody keeps in the
/// directory.
const HINTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ONLYDIR);

/// When a directory was made: stx_btime of statx(2), Linux 4.11, which std asks for with glibc only.
fn created(path: &Path) -> Option<(i64, u32)> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BTIME).ok()?;
    (found.stx_mask & StatxFlags::BTIME.bits() != 0).then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

impl PidfileWatch {
    /// Watches nothing so far.
    ///
    /// # Errors
    /// The kernel refuses another inotify instance (fs.inotify.max_user_instances).
    pub fn new() -> io::Result<Self> {
        Ok(Self { inotify: inotify::open()?, watched: BTreeMap::new() })
    }

    /// Watches exactly `directories` from now on. One that is missing or cannot be watched is tried again next time.
    pub fn arm<'a>(&mut self, directories: impl Iterator<Item = &'a Path>) {
        let there = directories.filter_map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((path.to_owned(), (metadata.dev(), metadata.ino(), created(path))))
        });
        let wanted: BTreeMap<_, _> = there.collect();
        let Self { inotify, watched } = self;
        let over = watched.extract_if(.., |path, (directory, _)| wanted.get(path) != Some(directory));
        for (_, (_, watch)) in over.collect::<Vec<_>>() {
            // Two paths may lead to one directory, which has one watch.
            if !watched.values().any(|(_, other)| *other == watch) {
                // That of a removed directory is gone already: nothing to tell anyone.
                let _ = remove_watch(&*inotify, watch);
            }
        }
        for (path, directory) in wanted {
            if !watched.contains_key(&path)
                && let Ok(watch) = add_watch(&*inotify, &path, HINTS)
            {
                watched.insert(path, (directory, watch));
            }
        }
    }

    /// Whether an entry has come, gone, or been written since this was asked last.
    pub fn has_hint(&mut self) -> bool {
        let mut hint = false;
        inotify::drain(&self.inotify, |_, kind| hint |= !kind.contains(ReadFlags::IGNORED)); // the end of a watch is none
        hint
    }
}

impl AsFd for PidfileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    use rustix::event::{PollFd, PollFlags, poll};

    #[test]
    fn hints_of_new_files_also_in_a_directory_that_was_made_anew() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("pids");
        let mut watch = PidfileWatch::new().unwrap();
        watch.arm([directory.as_path()].into_iter()); // not there yet: no failure
        for round in 0..2 {
            fs::create_dir(&directory).unwrap();
            watch.arm([directory.as_path()].into_iter());
            watch.has_hint();
            assert!(!watch.has_hint(), "round {round}");
            fs::write(directory.join("nginx.pid"), "1").unwrap();
            assert_eq!(poll(&mut [PollFd::new(&watch, PollFlags::IN)], None), Ok(1));
            assert!(watch.has_hint() && !watch.has_hint(), "round {round}");
            fs::read(directory.join("nginx.pid")).unwrap();
            assert!(!watch.has_hint(), "round {round}");
            fs::remove_dir_all(&directory).unwrap();
        }
    }

    #[test]
    fn a_directory_that_two_paths_lead_to_is_watched_until_neither_is_asked_for() {
        let parent = tempfile::tempdir().unwrap();
        let [directory, link] = ["pids", "link"].map(|name| parent.path().join(name));
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        let mut watch = PidfileWatch::new().unwrap();
        let both = [directory.as_path(), &link];
        for (asked, name, hints) in [(&both[..], "one", true), (&both[..1], "two", true), (&[], "three", false)] {
            watch.arm(asked.iter().copied());
            watch.has_hint();
            fs::write(directory.join(name), "1").unwrap();
            assert_eq!(watch.has_hint(), hints, "{name}");
        }
    }
}
