//! stdin and stdout, read and written without waiting, although other processes share their open file descriptions (open(2)).
//!
//! O_NONBLOCK belongs to the description, so it must not be set on one that a shell or Telegraf holds too. A pipe or a terminal is
//! opened again through /proc/self/fd, which makes a description of its own. Where that is not possible (EACCES for one of another
//! user, ENXIO for a socket, no /proc), each call passes RWF_NOWAIT (preadv2(2); pipes know it since Linux 6.5), and for a file that
//! does not know that flag poll(2) is asked first.

use std::io::{self, IoSlice, IoSliceMut, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

use super::pipe::{PIPE_BUF, is_pipe};

/// File that is read or written without waiting. EAGAIN is the error where a call would have to wait.
#[derive(Debug)]
pub struct NonBlocking {
    file: OwnedFd,
    /// Set if the description is our own, with O_NONBLOCK.
    is_own: bool,
}

impl NonBlocking {
    /// Opens a pipe or a terminal again; duplicates the descriptor of any other file.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn open(file: impl AsFd, access: OFlags) -> io::Result<Self> {
        let file = file.as_fd();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let can_be_opened = is_pipe(file) || file.is_terminal();
        match can_be_opened.then(|| open(path, flags, Mode::empty())) {
            Some(Ok(file)) => Ok(Self { file, is_own: true }),
            _ => Ok(Self { file: file.try_clone_to_owned()?, is_own: false }),
        }
    }

    /// Reads what is there. `Ok(0)` is the end of the file.
    ///
    /// # Errors
    /// EAGAIN if nothing is there, or the error of read(2).
    pub fn read(&self, bytes: &mut [u8]) -> rustix::io::Result<usize> {
        if self.is_own {
            return rustix::io::read(&self.file, bytes);
        }
        match preadv2(&self.file, &mut [IoSliceMut::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
            Err(error) if self.may_ask_poll(error) => {
                self.is_ready(PollFlags::IN).and_then(|()| rustix::io::read(&self.file, bytes))
            }
            read => read,
        }
    }

    /// Writes as much as the file accepts now.
    ///
    /// # Errors
    /// EAGAIN if it accepts nothing, or the error of write(2).
    pub fn write(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        if self.is_own {
            return rustix::io::write(&self.file, bytes);
        }
        match pwritev2(&self.file, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
            Err(error) if self.may_ask_poll(error) => {
                // A pipe that poll(2) calls writable accepts PIPE_BUF bytes at once.
                let piece = bytes.get(..PIPE_BUF).unwrap_or(bytes);
                self.is_ready(PollFlags::OUT).and_then(|()| rustix::io::write(&self.file, piece))
            }
            written => written,
        }
    }

    /// Returns whether poll(2) knows better than an error of a call with RWF_NOWAIT. EAGAIN of a pipe is final: between poll(2) and the call
    /// another process may read or fill the pipe. EAGAIN of a regular file only means that its page is not cached.
    fn may_ask_poll(&self, error: Errno) -> bool {
        error != Errno::INTR && !(error == Errno::AGAIN && is_pipe(&self.file))
    }

    /// Returns EAGAIN unless poll(2) says that the next call does not wait.
    fn is_ready(&self, flags: PollFlags) -> rustix::io::Result<()> {
        match poll(&mut [PollFd::new(&self.file, flags)], Some(&Timespec::default()))? {
            0 => Err(Errno::AGAIN),
            _ => Ok(()),
        }
    }
}

impl AsFd for NonBlocking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
