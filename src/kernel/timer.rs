//! Timer (timerfd_create(2)) that the event loop waits for beside its other descriptors.
//!
//! tokio's own timers are kept in a wheel whose slots are 64 times as long on each level, and the runtime wakes up at each level that a
//! timer comes down: three times for a sleep of 10 s. A wake-up with cold caches costs as much as a small gather, so the kernel
//! keeps the time here, and wakes the plugin once.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::epoll;

/// Timer that is set for one time at most.
#[derive(Debug)]
pub struct Timer {
    timer: AsyncFd<OwnedFd>,
    /// Time that the kernel's timer is set for, and has not passed so far as known.
    set: Option<Instant>,
}

impl Timer {
    /// Makes a timer that is not set. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { timer: epoll::register(timer, Interest::READABLE)?, set: None })
    }

    /// Waits until a time; `None` is never. For a time that has passed, the runtime is still given the chance to look at its other
    /// descriptors.
    ///
    /// # Errors
    /// The runtime was shut down.
    pub async fn wait_until(&mut self, time: Option<Instant>) -> io::Result<()> {
        if time.is_some_and(|time| time <= Instant::now()) {
            tokio::task::yield_now().await;
            return Ok(());
        }
        if self.set != time {
            self.set(time)?;
        }
        let Some(time) = time else { return pending().await };
        while Instant::now() < time {
            self.timer.readable().await?.clear_ready();
        }
        self.set = None;
        Ok(())
    }

    /// Sets the kernel's timer, or stops it.
    fn set(&mut self, time: Option<Instant>) -> io::Result<()> {
        let left = time.map_or(Duration::ZERO, |time| time.saturating_duration_since(Instant::now()));
        // Zero would stop the timer, and no Timespec holds more than centuries.
        let left = if time.is_some() { left.max(Duration::from_nanos(1)) } else { left };
        let it_value = Timespec::try_from(left).unwrap_or_default();
        let it_interval = Timespec::default();
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        self.set = time;
        Ok(())
    }
}
