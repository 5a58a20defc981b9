//! stdout. This is its only user.
//!
//! A reader may be slow or stopped, so only as much is written as stdout accepts at once: the loop keeps listening to stdin and signals.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::stdio::stdout;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::epoll;
use crate::kernel::nonblocking::NonBlocking;
use crate::kernel::pipe::PIPE_BUF;

/// Writes the lines of gathers.
#[derive(Debug)]
pub struct Writer {
    stdout: NonBlocking,
}

impl Writer {
    /// Opens stdout.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn open() -> io::Result<Self> {
        Ok(Self { stdout: NonBlocking::open(stdout(), OFlags::WRONLY)? })
    }

    /// Writes lines until stdout accepts no more. Returns those that are left.
    ///
    /// # Errors
    /// stdout is closed (`BrokenPipe`) or failed.
    pub fn write<'a>(&self, mut lines: &'a [u8]) -> io::Result<&'a [u8]> {
        while !lines.is_empty() {
            match self.stdout.write(piece(lines)) {
                Ok(written) => lines = lines.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(lines)
    }

    /// Begins to wait for room in stdout. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn room(&self) -> io::Result<Room> {
        match epoll::register(&self.stdout, Interest::WRITABLE) {
            Ok(stdout) => Ok(Room(Some(stdout))),
            Err(error) if epoll::is_always_ready(&error) => Ok(Room(None)),
            Err(error) => Err(error),
        }
    }
}

/// Wait for room in stdout. epoll(7) knows stdout only as long as this exists: else each read of the reader would wake the plugin.
#[derive(Debug)]
pub struct Room(Option<AsyncFd<OwnedFd>>);

impl Room {
    /// Waits until stdout accepts something, or its reader has closed it.
    ///
    /// # Errors
    /// The runtime was shut down.
    pub async fn wait(&self) -> io::Result<()> {
        match &self.0 {
            Some(stdout) => stdout.writable().await.map(drop),
            None => {
                tokio::task::yield_now().await;
                Ok(())
            }
        }
    }
}

/// Returns the first lines, as many whole ones as a pipe accepts together or not at all (PIPE_BUF): whenever writing ends, no line of up to
/// that length is cut in two. A longer line is a piece of its own.
fn piece(lines: &[u8]) -> &[u8] {
    let is_newline = |byte: &u8| *byte == b'\n';
    let most = lines.get(..PIPE_BUF).unwrap_or(lines);
    let end = most.iter().rposition(is_newline).or_else(|| lines.iter().position(is_newline));
    end.and_then(|end| lines.get(..=end)).unwrap_or(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_as_many_whole_lines_as_a_pipe_accepts_together() {
        let line = |length: usize| [vec![b'x'; length - 1], vec![b'\n']].concat();
        let cases: [(&[usize], usize); 6] =
            [(&[], 0), (&[10], 10), (&[10, 20], 30), (&[4000, 96, 1], 4096), (&[4000, 97], 4000), (&[9000, 5], 9000)];
        for (lines, expected) in cases {
            let text: Vec<u8> = lines.iter().flat_map(|length| line(*length)).collect();
            assert_eq!(piece(&text).len(), expected, "{lines:?}");
        }
    }
}
