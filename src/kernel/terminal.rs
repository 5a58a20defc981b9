//! Terminals (tty(4)).

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};

/// A descriptor of one's own for a file. A terminal is opened once more for it, so that reading and writing it never wait, which
/// poll(2) cannot promise of one; whoever else has it open is not concerned. One that is not ours to open (after su(1), say) is as
/// it was.
///
/// # Errors
/// There is no descriptor left.
pub fn without_waiting(file: impl AsFd, access: OFlags) -> io::Result<OwnedFd> {
    let file = file.as_fd();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = file.is_terminal().then(|| open(path, flags, Mode::empty()).ok()).flatten();
    opened.map_or_else(|| file.try_clone_to_owned(), Ok)
}
