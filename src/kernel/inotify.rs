//! inotify(7).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, init};

/// An instance without watches, which never waits.
///
/// # Errors
/// The kernel refuses another (fs.inotify.max_user_instances).
pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)
}

/// Calls `each` with the watch and the kind of every event that is there.
pub(super) fn drain(inotify: impl AsFd, mut each: impl FnMut(i32, ReadFlags)) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = Reader::new(inotify, &mut buffer);
    while let Ok(event) = events.next() {
        each(event.wd(), event.events());
    }
}
