//! stdout, whose only user this is.
//!
//! A reader may be slow or stopped, so what is not taken at once is written by a thread: the loop goes on hearing stdin and
//! signals.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, ReadWriteFlags, ioctl_fionread, pwritev2};
use tokio::sync::mpsc as answers;

/// How often the pipe is looked at while the reader finishes.
const DRAIN_POLL: Duration = Duration::from_millis(2);

/// Writes whole gathers, each in one piece and flushed.
pub struct Writer {
    lines: mpsc::Sender<Vec<u8>>,
    written: answers::UnboundedReceiver<io::Result<()>>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start() -> io::Result<Self> {
        let (lines, to_write) = mpsc::channel::<Vec<u8>>();
        let (answer, written) = answers::unbounded_channel();
        std::thread::Builder::new().name("write".into()).spawn(move || {
            for lines in to_write {
                if answer.send(write_all(&lines)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { lines, written })
    }

    /// Writes the lines of one gather; ready when the kernel has taken all of them.
    ///
    /// # Errors
    /// stdout is closed (`BrokenPipe`) or failed.
    pub async fn write(&mut self, mut lines: Vec<u8>) -> io::Result<()> {
        lines.drain(..written_at_once(&lines));
        if lines.is_empty() {
            return Ok(());
        }
        let stopped = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.lines.send(lines).map_err(|_| stopped())?;
        self.written.recv().await.ok_or_else(stopped)?
    }

    /// Waits until the reader of a pipe has read all of it. Telegraf closes the pipe when the process ends, so what still
    /// lies in it then is lost; the caller bounds the wait.
    pub async fn drain(&self) {
        let is_pipe = fstat(io::stdout()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        while is_pipe && ioctl_fionread(io::stdout()).is_ok_and(|unread| unread > 0) {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }
}

/// Writes what can be written without waiting (RWF_NOWAIT; of a pipe since Linux 6.5): two threads need not be woken up for it.
/// Whatever is wrong shows when the rest is written.
fn written_at_once(lines: &[u8]) -> usize {
    let mut rest = lines;
    while !rest.is_empty() {
        match pwritev2(io::stdout(), &[IoSlice::new(piece(rest))], u64::MAX, ReadWriteFlags::NOWAIT) {
            Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
            _ => break,
        }
    }
    lines.len() - rest.len()
}

/// What of the lines is written in one piece: as many whole ones as a pipe takes together or not at all (PIPE_BUF). So however this ends,
/// no line is cut in two that is not longer than that.
fn piece(lines: &[u8]) -> &[u8] {
    const PIPE_BUF: usize = 4096;
    let is_newline = |byte: &u8| *byte == b'\n';
    let most = lines.get(..PIPE_BUF).unwrap_or(lines);
    let end = most.iter().rposition(is_newline).or_else(|| lines.iter().position(is_newline));
    end.and_then(|end| lines.get(..=end)).unwrap_or(lines)
}

fn write_all(mut lines: &[u8]) -> io::Result<()> {
    let stdout = io::stdout();
    while !lines.is_empty() {
        match rustix::io::write(&stdout, piece(lines)) {
            Ok(written) => lines = lines.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait_for(&stdout, PollFlags::OUT)?, // whoever shares it made it non-blocking
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits, without a limit, for a descriptor that is non-blocking.
pub(crate) fn wait_for(fd: &impl AsFd, what: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
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
