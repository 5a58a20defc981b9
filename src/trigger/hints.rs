//! Hints from the directories of pidfiles: a pidfile was made, removed or written.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::epoll;
use crate::kernel::pidfile_watch::PidfileWatch;

/// Watched directories, as something that the loop waits for.
#[derive(Debug)]
pub(super) struct Hints {
    watch: PidfileWatch,
    /// Readable when something happened in one of them.
    ready: AsyncFd<OwnedFd>,
}

impl Hints {
    /// Watches no directory so far. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses another inotify instance (fs.inotify.max_user_instances).
    pub(super) fn new() -> io::Result<Self> {
        let watch = PidfileWatch::new()?;
        let ready = epoll::register(&watch, Interest::READABLE)?;
        Ok(Self { watch, ready })
    }

    /// Watches exactly these directories from now on.
    pub(super) fn watch<'a>(&mut self, directories: impl Iterator<Item = &'a Path>) {
        self.watch.arm(directories);
    }

    /// Waits until something happens in one of the directories. Returns whether it is a hint.
    ///
    /// # Errors
    /// The runtime was shut down.
    pub(super) async fn wait(&mut self) -> io::Result<bool> {
        self.ready.readable().await?.clear_ready();
        Ok(self.watch.has_hint())
    }
}
