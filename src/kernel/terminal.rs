//! Terminals (tty(4)).

use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};

/// Opens a terminal once more, so that reading and writing it never wait, which poll(2) cannot promise of one; whoever else has it
/// open is not concerned. `None`: it is no terminal, or it is not ours to open (after su(1), say).
#[must_use]
pub fn without_waiting(file: impl AsFd, access: OFlags) -> Option<OwnedFd> {
    let file = file.as_fd();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    file.is_terminal().then(|| open(path, flags, Mode::empty()).ok())?
}
