//! Pipes (pipe(7)): bytes that were written and have not been read yet.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, fstat};
use rustix::io::ioctl_fionread;

/// Number of bytes that a pipe accepts together or not at all (linux/limits.h).
pub const PIPE_BUF: usize = 4096;

/// Time between two looks at a pipe whose reader is to finish.
const PAUSE: Duration = Duration::from_millis(2);

/// Returns whether a file is a pipe.
#[must_use]
pub fn is_pipe(file: impl AsFd) -> bool {
    fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Waits until the reader of a pipe has read all of it (FIONREAD), until a time at most. Telegraf closes its pipes when the process
/// exits, so bytes that are still in a pipe at that moment are lost.
pub fn wait_for_reader(pipe: impl AsFd, until: Instant) {
    let is_pipe = is_pipe(&pipe);
    while is_pipe && ioctl_fionread(&pipe).is_ok_and(|unread| unread > 0) && Instant::now() < until {
        std::thread::sleep(PAUSE);
    }
}
