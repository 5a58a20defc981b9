//! Descriptors that the event loop waits for (epoll(7)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a duplicate of a descriptor with the runtime, until it is dropped. To be called inside a tokio runtime.
///
/// # Errors
/// No descriptor is left, the kernel has no memory, or the file [is always ready](is_always_ready).
pub fn register(file: impl AsFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let file = file.as_fd().try_clone_to_owned()?;
    #[allow(unsafe_code)]
    // SAFETY: an OwnedFd is open, and stays the same, as long as it exists.
    let registered = unsafe { AsyncFd::register_with_interest(file, interest) };
    Ok(registered?)
}

/// Returns whether an error of [`register`] says that the file is always ready: epoll refuses regular files, directories and most devices
/// (EPERM).
#[must_use]
pub fn is_always_ready(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::PERM)
}
