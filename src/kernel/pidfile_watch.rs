//! inotify on directories of pidfiles: a hint that one came or went.
//!
//! It is a hint only, since inotify sees neither a link's target being rewritten nor a directory that is made anew. The
//! directories are read at every gather in any case; the hint lets a process be seen that lives less than one.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// Which directory: device, inode and, since ext4 uses an inode again at once, the time of its creation, s and ns.
type Directory = (u64, u64, Option<(i64, u32)>);

/// Watches a changing set of directories.
pub struct PidfileWatch {
    watcher: RecommendedWatcher,
    /// What is watched: a directory replaced by another must be watched anew.
    watched: BTreeMap<PathBuf, Directory>,
}

/// Whether an entry came, went, or was written to its end. Reading pidfiles makes events too, and so does a log file that
/// somebody keeps in the directory.
fn tells_of_an_entry(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Create(_)
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Access(AccessKind::Close(AccessMode::Write))
    )
}

/// When a directory was made: stx_btime of statx(2), Linux 4.11, which std asks for with glibc only.
fn created(path: &Path) -> Option<(i64, u32)> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BTIME).ok()?;
    (found.stx_mask & StatxFlags::BTIME.bits() != 0).then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

impl PidfileWatch {
    /// `hint` is called, from a thread of the watcher's own, whenever an entry came, went or was written.
    ///
    /// # Errors
    /// The kernel refuses another inotify instance (fs.inotify.max_user_instances) or another thread.
    pub fn new(hint: impl Fn() + Send + 'static) -> notify::Result<Self> {
        // The watcher takes it for granted that it can have a thread, and aborts where it cannot.
        let thread = std::thread::Builder::new().spawn(|| {});
        drop(thread.map_err(notify::Error::io)?.join());
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| tells_of_an_entry(event.kind)) {
                hint();
            }
        })?;
        Ok(Self { watcher, watched: BTreeMap::new() })
    }

    /// Watches exactly `directories` from now on. One that is missing or cannot be watched is tried again next time.
    pub fn arm<'a>(&mut self, directories: impl Iterator<Item = &'a Path>) {
        let there = directories.filter_map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((path.to_owned(), (metadata.dev(), metadata.ino(), created(path))))
        });
        let wanted: BTreeMap<_, _> = there.collect();
        let Self { watcher, watched } = self;
        watched.retain(|path, directory| {
            let keep = wanted.get(path) == Some(directory);
            if !keep {
                // The watch of a removed directory is gone already: nothing to tell anyone.
                let _ = watcher.unwatch(path);
            }
            keep
        });
        for (path, directory) in wanted {
            if !watched.contains_key(&path) && watcher.watch(&path, RecursiveMode::NonRecursive).is_ok() {
                watched.insert(path, directory);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn hints_of_new_files_also_in_a_directory_that_was_made_anew() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("pids");
        let (sender, hints) = channel();
        let mut watch = PidfileWatch::new(move || sender.send(()).unwrap_or_default()).unwrap();
        watch.arm([directory.as_path()].into_iter()); // not there yet: no failure
        for round in 0..2 {
            fs::create_dir(&directory).unwrap();
            watch.arm([directory.as_path()].into_iter());
            while hints.try_recv().is_ok() {}
            fs::write(directory.join("nginx.pid"), "1").unwrap();
            assert!(hints.recv_timeout(Duration::from_secs(60)).is_ok(), "round {round}");
            fs::remove_dir_all(&directory).unwrap();
        }
    }
}
