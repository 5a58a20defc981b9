//! Directories of pidfiles, watched by the notify crate: hints that a pidfile was created, removed or written.
//!
//! A hint is no more than that, since inotify(7) sees neither that the target of a link is written nor that a directory is created
//! again. The directories are read at every gather in any case; a hint lets the plugin see a process that lives less long than an
//! interval.

use std::collections::BTreeMap;
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use notify::{Config, ErrorKind, EventKindMask, INotifyWatcher, RecursiveMode, Watcher};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use tokio::sync::Notify;

/// Identity of a directory: device, inode and, since ext4 uses an inode again at once, the time of its creation, s and ns.
type Directory = (u64, u64, Option<(i64, u32)>);

/// Kinds of events that are hints: an entry was created, removed, renamed or written. Reading pidfiles makes events of other kinds, and
/// so does a log file in the directory.
const HINTS: EventKindMask = EventKindMask::CREATE.union(EventKindMask::REMOVE).union(EventKindMask::ACCESS_CLOSE);

/// Set of directories that are watched.
#[derive(Debug)]
pub struct PidfileWatch {
    /// Never dropped: that panics where its thread could not be started.
    watcher: ManuallyDrop<INotifyWatcher>,
    /// Path by which each directory is watched. A directory that is replaced by another must be watched again.
    watched: BTreeMap<PathBuf, Directory>,
    /// Rung by the thread of the watcher.
    hint: Arc<Notify>,
}

/// Returns when a directory was created: stx_btime of statx(2), Linux 4.11, which std asks for with glibc only.
fn created(path: &Path) -> Option<(i64, u32)> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BTIME).ok()?;
    (found.stx_mask & StatxFlags::BTIME.bits() != 0).then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

impl PidfileWatch {
    /// Watches no directory so far.
    ///
    /// # Errors
    /// The kernel refuses another thread (RLIMIT_NPROC) or another inotify instance (fs.inotify.max_user_instances).
    pub fn new() -> io::Result<Self> {
        // The watcher does not say that its thread cannot be started.
        let _ = thread::Builder::new().spawn(|| {})?.join();
        let hint = Arc::new(Notify::new());
        let rung = Arc::clone(&hint);
        let config = Config::default().with_event_kinds(HINTS);
        let watcher = INotifyWatcher::new(move |_| rung.notify_one(), config).map_err(|error| match error.kind {
            ErrorKind::Io(error) => error,
            _ => io::Error::other(error),
        })?;
        Ok(Self { watcher: ManuallyDrop::new(watcher), watched: BTreeMap::new(), hint })
    }

    /// Watches exactly `directories` from now on. One that is missing or cannot be watched is tried again next time.
    pub fn arm<'a>(&mut self, directories: impl Iterator<Item = &'a Path>) {
        let there = directories.filter_map(|path| {
            let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir)?;
            Some((path.to_owned(), (metadata.dev(), metadata.ino(), created(path))))
        });
        let wanted: BTreeMap<_, _> = there.collect();
        let Self { watcher, watched, .. } = self;
        for (path, _) in watched.extract_if(.., |path, directory| wanted.get(path) != Some(directory)) {
            // The watch of a directory that was removed has ended by itself.
            let _ = watcher.unwatch(&path);
        }
        for (path, directory) in wanted {
            // Two paths may lead to one directory, of which inotify has one watch.
            let is_watched = watched.values().any(|other| *other == directory);
            if !is_watched && watcher.watch(&path, RecursiveMode::NonRecursive).is_ok() {
                watched.insert(path, directory);
            }
        }
    }

    /// Waits for a hint.
    pub async fn hint(&self) {
        self.hint.notified().await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::pin::pin;
    use std::task::{Context, Waker};

    /// Whether a hint has come since the last call. The watcher's thread answers after it has seen all that happened before.
    fn has_hint(watch: &PidfileWatch) -> bool {
        for _ in 0..2 {
            watch.watcher.watched_paths().unwrap();
        }
        pin!(watch.hint()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn hints_of_new_files_also_in_a_directory_that_was_made_anew() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("pids");
        let mut watch = PidfileWatch::new().unwrap();
        watch.arm([directory.as_path()].into_iter()); // not there yet: no failure
        for round in 0..2 {
            fs::create_dir(&directory).unwrap();
            watch.arm([directory.as_path()].into_iter());
            has_hint(&watch);
            assert!(!has_hint(&watch), "round {round}");
            fs::write(directory.join("nginx.pid"), "1").unwrap();
            assert!(has_hint(&watch) && !has_hint(&watch), "round {round}");
            fs::read(directory.join("nginx.pid")).unwrap();
            assert!(!has_hint(&watch), "round {round}");
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
            has_hint(&watch);
            fs::write(directory.join(name), "1").unwrap();
            assert_eq!(has_hint(&watch), hints, "{name}");
        }
    }
}
