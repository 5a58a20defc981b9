//! stdout, whose only user this is.
//!
//! A reader may be slow or stopped, so writing has a thread of its own: the loop goes on hearing stdin and signals.

use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

use rustix::io::ioctl_fionread;
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
    pub async fn write(&mut self, lines: Vec<u8>) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let stopped = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.lines.send(lines).map_err(|_| stopped())?;
        self.written.recv().await.ok_or_else(stopped)?
    }

    /// Waits until the reader has read all of it. Telegraf closes the pipe when the process ends, so what still
    /// lies in it then is lost; the caller bounds the wait.
    pub async fn drain(&self) {
        while ioctl_fionread(io::stdout()).is_ok_and(|unread| unread > 0) {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }
}

fn write_all(lines: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(lines)?;
    stdout.flush()
}
