//! stdout, whose only user this is.
//!
//! A reader may be slow or stopped, so nothing is written that stdout would not take at once: the loop goes on hearing stdin and
//! signals.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use rustix::stdio::stdout;

use crate::kernel::pipe::is_pipe;
use crate::kernel::terminal::without_waiting;

/// What a pipe takes together or not at all (linux/limits.h), and at once if poll(2) says that it takes something.
const PIPE_BUF: usize = 4096;

/// Writes whole gathers.
#[derive(Debug)]
pub struct Writer {
    stdout: OwnedFd,
}

impl Writer {
    /// To stdout.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub fn open() -> io::Result<Self> {
        Ok(Self { stdout: without_waiting(stdout(), OFlags::WRONLY)? })
    }

    /// Writes the lines of one gather; done when the kernel has taken all of them. `wait` waits until stdout takes more.
    ///
    /// # Errors
    /// stdout is closed (`BrokenPipe`) or failed, or `wait` did.
    pub fn write(&self, mut lines: &[u8], mut wait: impl FnMut(BorrowedFd<'_>) -> io::Result<()>) -> io::Result<()> {
        let stdout = self.stdout.as_fd();
        while !lines.is_empty() {
            let piece = piece(lines);
            // RWF_NOWAIT: of a pipe since Linux 6.5.
            let written = match pwritev2(stdout, &[IoSlice::new(piece)], u64::MAX, ReadWriteFlags::NOWAIT) {
                Ok(written) if written > 0 => written,
                failed => {
                    wait(stdout)?;
                    // Others may write to the same pipe, and have filled it by now.
                    let may_try_again = failed == Err(Errno::AGAIN) && is_pipe(stdout);
                    if may_try_again { 0 } else { write_ready(stdout, piece.get(..PIPE_BUF).unwrap_or(piece))? }
                }
            };
            lines = lines.get(written..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Writes to something of which poll(2) says that it takes something.
fn write_ready(stdout: BorrowedFd<'_>, piece: &[u8]) -> io::Result<usize> {
    match rustix::io::write(stdout, piece) {
        Err(Errno::INTR | Errno::AGAIN) => Ok(0), // it takes less, or whoever shares it made it non-blocking
        written => Ok(written?),
    }
}

/// What of the lines is written in one piece: as many whole ones as a pipe takes together or not at all (PIPE_BUF). So however this ends,
/// no line is cut in two that is not longer than that.
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
    fn a_piece_is_as_many_whole_lines_as_a_pipe_takes_together() {
        let line = |length: usize| [vec![b'x'; length - 1], vec![b'\n']].concat();
        let cases: [(&[usize], usize); 6] =
            [(&[], 0), (&[10], 10), (&[10, 20], 30), (&[4000, 96, 1], 4096), (&[4000, 97], 4000), (&[9000, 5], 9000)];
        for (lines, expected) in cases {
            let text: Vec<u8> = lines.iter().flat_map(|length| line(*length)).collect();
            assert_eq!(piece(&text).len(), expected, "{lines:?}");
        }
    }
}
