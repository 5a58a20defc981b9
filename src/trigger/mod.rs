//! Triggers: what makes the plugin act. A newline on stdin, a signal, the interval, a hint from a directory of pidfiles.
//!
//! [`Triggers::hear`] is the one place that waits: for all of them, for process events and for a slow reader of stdout. So
//! the end of stdin is noticed while stdout is full. A trigger only sets a flag, and the loop takes the flags when it is
//! ready: triggers that come during a gather are answered by one gather.

mod interval;
mod signals;
mod stdin;

use std::future;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FileType;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::select;

use crate::accounting::Accounting;
use crate::kernel::pidfile_watch::PidfileWatch;
use crate::kernel::timer::Timer;
use crate::write::Room;
use interval::Interval;
pub use signals::CaughtSignals;
use signals::Signals;
pub use stdin::stdin_is_null;
use stdin::{Input, Stdin, stdin_type};

/// Least time between a gather and the look at the processes that a hint asks for: hints come in bursts.
const HINT_PAUSE: Duration = Duration::from_secs(1);

/// Time that must have passed between the base of the counters and the first gather, so that it can show a CPU usage.
pub const PRIMING: Duration = Duration::from_secs(1);

/// A wait that took less time found something that was there before.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Next step of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// Gather, and write the lines.
    Gather,
    /// Look at the processes, without writing lines: a pidfile was made or removed.
    Observe,
    /// Read the configuration again.
    Reload,
    /// Stop. All gathers that were asked for before are done.
    Stop,
}

/// Pace of the gathers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At each newline or signal.
    Triggered,
    /// At each interval.
    Every(Duration),
    /// Once, at the start.
    Once,
}

/// Triggers that have come and are not answered yet.
#[derive(Debug, Default)]
struct Pending {
    gather: bool,
    observe: bool,
    reload: bool,
    /// Time of the first trigger that stops.
    stop: Option<Instant>,
}

impl Pending {
    /// Asks for a gather, unless a stop was asked for before.
    fn gather(&mut self) {
        self.gather |= self.stop.is_none();
    }

    fn stop(&mut self, since: Instant) {
        self.stop.get_or_insert(since);
    }

    /// Returns whether the loop has something to do at once.
    fn is_anything(&self) -> bool {
        self.gather || self.reload || self.stop.is_some()
    }

    /// Takes the most urgent one. A stop comes last.
    fn take(&mut self, may_observe: bool) -> Option<Trigger> {
        if self.stop.is_none() && std::mem::take(&mut self.reload) {
            Some(Trigger::Reload)
        } else if std::mem::take(&mut self.gather) {
            self.observe = false;
            Some(Trigger::Gather)
        } else if self.stop.is_some() {
            Some(Trigger::Stop)
        } else if may_observe && std::mem::take(&mut self.observe) {
            Some(Trigger::Observe)
        } else {
            None
        }
    }
}

/// Sources of triggers, and the triggers that are not answered yet.
#[derive(Debug)]
pub struct Triggers {
    pending: Pending,
    signals: Signals,
    /// stdin until it ends, if it triggers at all.
    stdin: Option<Stdin>,
    hints: Option<PidfileWatch>,
    interval: Option<Interval>,
    timer: Timer,
    /// Stop when nothing is left to do.
    once: bool,
    /// Earliest time at which a hint may be followed.
    next_hint: Instant,
    /// End of the last [`Triggers::hear`].
    heard: Instant,
}

impl Triggers {
    /// Starts listening. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// The handlers of the signals that stop cannot be installed, or no descriptor is left.
    pub fn listen(pace: Pace, signals: CaughtSignals) -> io::Result<Self> {
        let signals = Signals::listen(signals)?;
        let interval = match pace {
            Pace::Every(period) => Some(Interval::new(period, period.max(PRIMING))),
            Pace::Triggered | Pace::Once => None,
        };
        // With an interval, stdin only says when to stop, and only a pipe or a socket has another end that can be closed.
        let has_other_end = matches!(stdin_type(), Some(FileType::Fifo | FileType::Socket));
        let is_read = pace == Pace::Triggered || (interval.is_some() && has_other_end);
        Ok(Self {
            pending: Pending { gather: pace == Pace::Once, ..Pending::default() },
            signals,
            stdin: is_read.then(Stdin::open).transpose()?,
            hints: None,
            interval,
            timer: Timer::new()?,
            once: pace == Pace::Once,
            next_hint: Instant::now(),
            heard: Instant::now(),
        })
    }

    /// Changes the interval, if the plugin gathers by one.
    pub fn set_interval(&mut self, period: Duration) {
        if self.interval.as_ref().is_some_and(|interval| interval.period() != period) {
            self.interval = Some(Interval::new(period, period));
        }
    }

    /// Watches exactly these directories of pidfiles from now on.
    ///
    /// # Errors
    /// See [`PidfileWatch::new`].
    pub fn watch<'a>(&mut self, directories: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        let mut directories = directories.peekable();
        if self.hints.is_none() && directories.peek().is_some() {
            self.hints = Some(PidfileWatch::new()?);
        }
        if let Some(hints) = &mut self.hints {
            hints.arm(directories);
        }
        Ok(())
    }

    /// Waits for the next trigger.
    ///
    /// # Errors
    /// See [`Triggers::hear`].
    pub async fn next(&mut self, accounting: &mut Accounting) -> io::Result<Trigger> {
        loop {
            if self.once && !self.pending.is_anything() {
                self.pending.stop(Instant::now());
            }
            let hint = self.pending.observe.then_some(self.next_hint);
            let tick = self.interval.as_ref().map(Interval::next);
            let until =
                if self.pending.is_anything() { Some(Instant::now()) } else { hint.into_iter().chain(tick).min() };
            self.hear(accounting, None, until).await?;
            let now = Instant::now();
            if self.interval.as_mut().is_some_and(|interval| interval.ticks(now)) {
                self.pending.gather();
            }
            if let Some(trigger) = self.pending.take(now >= self.next_hint) {
                if matches!(trigger, Trigger::Gather | Trigger::Observe) {
                    self.next_hint = now + HINT_PAUSE;
                }
                return Ok(trigger);
            }
        }
    }

    /// Takes note of all that comes up to a time.
    ///
    /// # Errors
    /// See [`Triggers::hear`].
    pub async fn hear_until(&mut self, time: Instant, accounting: &mut Accounting) -> io::Result<()> {
        while Instant::now() < time {
            self.hear(accounting, None, Some(time)).await?;
        }
        Ok(())
    }

    /// Waits until something comes, stdout has room again, or it is a certain time, and takes note of all that has come by then. Takes
    /// process events when they are due. Returns whether stdout has room.
    ///
    /// # Errors
    /// The runtime was shut down, or the timer cannot be set.
    pub async fn hear(
        &mut self,
        accounting: &mut Accounting,
        room: Option<&Room>,
        until: Option<Instant>,
    ) -> io::Result<bool> {
        let (begun, heard) = (Instant::now(), self.heard);
        // A trigger that was there at once may have come at any time since the last wait.
        let came = || Some(Instant::now()).filter(|now| now.duration_since(begun) >= AT_ONCE).unwrap_or(heard);
        let until = until.into_iter().chain(accounting.next_drain()).min();
        let Self { pending, signals, stdin, hints, interval, timer, .. } = self;
        let by_itself = interval.is_some();
        let (mut has_come, mut was_read, mut has_room) = (false, false, false);
        loop {
            select! {
                biased;
                input = read(stdin), if !was_read => {
                    was_read = true;
                    take_input(input?, pending, stdin, by_itself, came);
                }
                caught = signals.caught() => caught?.for_each(|signal| take_signal(signal, pending, by_itself, came)),
                () = hinted(hints) => pending.observe = true,
                () = accounting.first_message() => {}
                made = made(room), if !has_room => has_room = made.map(|()| true)?,
                passed = timer.wait_until(until), if !has_come => break passed?,
                () = future::ready(()), if has_come => break,
            }
            has_come = true;
        }
        accounting.drain_if_due();
        self.heard = Instant::now();
        Ok(has_room)
    }

    /// Time of the first trigger that stops, if one came.
    #[must_use]
    pub fn stopped(&self) -> Option<Instant> {
        self.pending.stop
    }
}

async fn read(stdin: &Option<Stdin>) -> io::Result<Input> {
    match stdin {
        Some(stdin) => stdin.read().await,
        None => future::pending().await,
    }
}

async fn hinted(hints: &Option<PidfileWatch>) {
    match hints {
        Some(hints) => hints.hint().await,
        None => future::pending().await,
    }
}

async fn made(room: Option<&Room>) -> io::Result<()> {
    match room {
        Some(room) => room.wait().await,
        None => future::pending().await,
    }
}

/// Takes note of what stdin had. With an interval, a newline means nothing.
fn take_input(
    input: Input,
    pending: &mut Pending,
    stdin: &mut Option<Stdin>,
    by_itself: bool,
    came: impl Fn() -> Instant,
) {
    match input {
        Input::Newline if !by_itself => pending.gather(),
        Input::Newline | Input::Nothing => {}
        Input::End => {
            *stdin = None;
            pending.stop(came());
        }
    }
}

/// Takes note of a signal. Without an interval, SIGHUP gathers: Telegraf may use it for that.
fn take_signal(signal: i32, pending: &mut Pending, by_itself: bool, came: impl Fn() -> Instant) {
    match signal {
        SIGINT | SIGTERM => pending.stop(came()),
        SIGHUP if by_itself => pending.reload = true,
        _ => pending.gather(),
    }
}
