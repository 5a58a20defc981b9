//! stdin: a newline asks for a gather, the end of the file for a stop.
//!
//! A regular file, a directory and most devices are always ready, and epoll(7) refuses them: they are read directly.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use rustix::stdio::stdin;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::epoll;
use crate::kernel::nonblocking::NonBlocking;

/// Most reads of [`Stdin::read`], of 1 KiB each: together as much as a pipe holds.
const READS: usize = 64;

/// Result of reading stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Bytes with a newline among them, and perhaps the end behind them.
    Newline,
    /// Other bytes, or none.
    Nothing,
    /// The end of the file. A stdin that cannot be read is one that has ended.
    End,
}

/// stdin, read without waiting.
#[derive(Debug)]
pub(super) struct Stdin {
    file: NonBlocking,
    /// Readable when there is something to read. `None`: it always is.
    ready: Option<AsyncFd<OwnedFd>>,
}

impl Stdin {
    /// Opens stdin. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn open() -> io::Result<Self> {
        let file = NonBlocking::open(stdin(), OFlags::RDONLY)?;
        match epoll::register(&file, Interest::READABLE) {
            Ok(ready) => Ok(Self { file, ready: Some(ready) }),
            Err(error) if epoll::is_always_ready(&error) => Ok(Self { file, ready: None }),
            Err(error) => Err(error),
        }
    }

    /// Waits until there is something to read, and reads as much as a pipe holds.
    ///
    /// # Errors
    /// The runtime was shut down.
    pub(super) async fn read(&self) -> io::Result<Input> {
        let Some(ready) = &self.ready else {
            // However much there is to read, the runtime looks at signals in between.
            tokio::task::yield_now().await;
            return Ok(read_all(&self.file).0);
        };
        let mut ready = ready.readable().await?;
        let (input, is_drained) = read_all(&self.file);
        if is_drained {
            ready.clear_ready();
        }
        Ok(input)
    }
}

/// Reads what is there, up to a bound. The second value: whether nothing is left.
fn read_all(stdin: &NonBlocking) -> (Input, bool) {
    let (mut bytes, mut input) = ([0; 1024], Input::Nothing);
    for _ in 0..READS {
        match stdin.read(&mut bytes) {
            Ok(0) if input == Input::Newline => return (input, false), // the next read returns the end again
            Ok(0) => return (Input::End, false),
            Ok(count) => {
                if bytes.iter().take(count).any(|byte| *byte == b'\n') {
                    input = Input::Newline;
                }
                if count < bytes.len() {
                    return (input, true);
                }
            }
            Err(Errno::INTR) => return (input, false),
            Err(Errno::AGAIN) => return (input, true),
            Err(_) => return (Input::End, false),
        }
    }
    (input, false)
}

/// Type of the file that stdin is.
#[must_use]
pub(super) fn stdin_type() -> Option<FileType> {
    fstat(stdin()).ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// Returns whether no newline can ever come: stdin is /dev/null, as under inputs.exec, or was closed when the plugin
/// started, for which Rust's runtime opens /dev/null.
#[must_use]
pub fn stdin_is_null() -> bool {
    let null = rustix::fs::stat("/dev/null").map(|null| null.st_rdev);
    let ours = fstat(stdin());
    stdin_type() == Some(FileType::CharacterDevice)
        && matches!((null, ours), (Ok(null), Ok(ours)) if ours.st_rdev == null)
}
