//! What makes the plugin do something: a newline on stdin, a signal, the clock, a hint from a watched directory.
//!
//! One poll(2) waits for all of them, on the thread that gathers: to wake up a second one would cost as much as a fifth of a
//! small gather. What comes sets flags, and the loop takes them when it is ready. So whatever comes during a gather coalesces
//! into one, and a reader that does not read never keeps an end of stdin from being heard.

use std::io::{self, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use rustix::stdio::stdin;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::kernel::pidfile_watch::PidfileWatch;
use crate::kernel::pipe::is_pipe;
use crate::kernel::terminal::without_waiting;

/// Hints come in bursts; the processes behind them are looked at no more often than this.
const HINT_PAUSE: Duration = Duration::from_secs(1);

/// A first gather shows a CPU only if this much time has passed since the counters were primed.
pub const PRIMING: Duration = Duration::from_secs(1);

/// A poll(2) that takes no longer has not waited.
const AT_ONCE: Duration = Duration::from_millis(1);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompt {
    /// Gather and answer.
    Gather,
    /// Look at the processes, without answering: a pidfile came or went.
    Observe,
    /// Read the configuration again.
    Reload,
    /// End, everything asked for having been answered.
    Stop,
}

/// When to gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At each newline or signal.
    Prompted,
    /// By the clock.
    Every(Duration),
    /// Once, now.
    Once,
}

/// What was asked for and not yet taken.
#[derive(Debug, Default)]
struct Asked {
    gather: bool,
    observe: bool,
    reload: bool,
    /// Since when.
    stop: Option<Instant>,
}

impl Asked {
    /// Once a stop is asked for, what was asked for before is answered, and no more.
    fn gather(&mut self) {
        self.gather |= self.stop.is_none();
    }

    fn stop(&mut self, since: Instant) {
        self.stop.get_or_insert(since);
    }

    /// Whether there is anything to do at once.
    fn is_anything(&self) -> bool {
        self.gather || self.reload || self.stop.is_some()
    }
}

/// The signals, caught from now on. To be made before anything else: a signal without a handler ends the process.
#[derive(Debug)]
pub struct CaughtSignals(SignalDelivery<UnixStream, SignalOnly>);

/// Catches the signals that prompt. Those that stop are caught as soon as somebody listens.
///
/// # Errors
/// The handlers cannot be installed.
pub fn catch_signals() -> io::Result<CaughtSignals> {
    let (read, write) = UnixStream::pair()?;
    SignalDelivery::with_pipe(read, write, SignalOnly, [SIGHUP, SIGUSR1, SIGUSR2]).map(CaughtSignals)
}

/// The prompts, in the order in which they are to be answered.
#[derive(Debug)]
pub struct Prompts {
    asked: Asked,
    signals: CaughtSignals,
    /// Until it ends, if it is listened to at all.
    stdin: Option<OwnedFd>,
    /// Who hints.
    watch: Option<PidfileWatch>,
    clock: Option<Clock>,
    /// Whether to stop when nothing is asked for any more.
    once: bool,
    /// When a hint may be followed again.
    next_hint: Instant,
    /// Since when nobody has listened.
    deaf_since: Instant,
}

impl Prompts {
    /// Starts listening.
    ///
    /// # Errors
    /// The handlers of the signals that stop cannot be installed, or there is no descriptor left.
    pub fn listen(pace: Pace, signals: CaughtSignals) -> io::Result<Self> {
        // Until now these end the process: it may be waiting for a configuration that is a pipe. A person who asks twice does
        // not wait, whatever goes on.
        let interrupted = Arc::new(AtomicBool::new(false));
        flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&interrupted))?;
        flag::register(SIGINT, interrupted)?;
        for signal in [SIGINT, SIGTERM] {
            signals.0.handle().add_signal(signal)?;
        }
        let clock = match pace {
            Pace::Every(period) => Some(Clock::new(period, period.max(PRIMING))),
            Pace::Prompted | Pace::Once => None,
        };
        // By the clock, only a pipe or a socket has another end whose closing means something.
        let has_other_end = matches!(stdin_type(), Some(FileType::Fifo | FileType::Socket));
        let is_heard = pace == Pace::Prompted || (clock.is_some() && has_other_end);
        Ok(Self {
            asked: Asked { gather: pace == Pace::Once, ..Asked::default() },
            signals,
            stdin: is_heard.then(|| without_waiting(stdin(), OFlags::RDONLY)).transpose()?,
            watch: None,
            clock,
            once: pace == Pace::Once,
            next_hint: Instant::now(),
            deaf_since: Instant::now(),
        })
    }

    /// Gathers by this clock from now on.
    pub fn set_period(&mut self, period: Duration) {
        if self.clock.as_ref().is_some_and(|clock| clock.period != period) {
            self.clock = Some(Clock::new(period, period));
        }
    }

    /// Has hints come from exactly these directories of pidfiles.
    ///
    /// # Errors
    /// They cannot be watched: the kernel refuses another inotify instance (fs.inotify.max_user_instances).
    pub fn watch<'a>(&mut self, directories: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        let mut directories = directories.peekable();
        if self.watch.is_none() && directories.peek().is_some() {
            self.watch = Some(PidfileWatch::new()?);
        }
        if let Some(watch) = &mut self.watch {
            watch.arm(directories);
        }
        Ok(())
    }

    /// Waits for the next prompt. Stop comes last: what was asked for before is answered.
    ///
    /// # Errors
    /// Those of [`Prompts::hear`].
    pub fn next_prompt(&mut self) -> io::Result<Prompt> {
        loop {
            if self.once && !self.asked.is_anything() {
                self.asked.stop(Instant::now());
            }
            let hint = self.asked.observe.then_some(self.next_hint);
            let tick = self.clock.as_ref().map(|clock| clock.next);
            let until =
                if self.asked.is_anything() { Some(Instant::now()) } else { hint.into_iter().chain(tick).min() };
            self.hear(None, until)?;
            let now = Instant::now();
            if self.clock.as_mut().is_some_and(|clock| clock.ticks(now)) {
                self.asked.gather();
            }
            if let Some(prompt) = take(&mut self.asked, now >= self.next_hint) {
                if matches!(prompt, Prompt::Gather | Prompt::Observe) {
                    self.next_hint = now + HINT_PAUSE;
                }
                return Ok(prompt);
            }
        }
    }

    /// Takes note of all that comes up to a time.
    ///
    /// # Errors
    /// Those of [`Prompts::hear`].
    pub fn hear_until(&mut self, time: Instant) -> io::Result<()> {
        while Instant::now() < time {
            self.hear(None, Some(time))?;
        }
        Ok(())
    }

    /// Takes note of what has come. If that is nothing, waits until something comes, or `writable` can be written to; until a time at
    /// most. Returns whether it can.
    ///
    /// # Errors
    /// poll(2) is not possible: the kernel has no memory, or RLIMIT_NOFILE was taken away.
    pub fn hear(&mut self, writable: Option<BorrowedFd<'_>>, until: Option<Instant>) -> io::Result<bool> {
        let Self { asked, signals, stdin, watch, .. } = self;
        let mut fds = Vec::with_capacity(4);
        fds.push(PollFd::new(signals.0.get_read(), PollFlags::IN));
        fds.extend(stdin.as_ref().map(|stdin| PollFd::new(stdin, PollFlags::IN)));
        fds.extend(watch.as_ref().map(|watch| PollFd::new(watch, PollFlags::IN)));
        fds.extend(writable.map(|writable| PollFd::from_borrowed_fd(writable, PollFlags::OUT)));
        let begun = Instant::now();
        let timeout = until.map(|until| until.saturating_duration_since(begun));
        // What no Timespec can hold is for ever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(false), // what did it is there at the next call
            Err(error) => return Err(error.into()),
        }
        // What was there at once may have come at any time since it was last looked for.
        let now = Instant::now();
        let came = if now.duration_since(begun) < AT_ONCE { self.deaf_since } else { now };
        self.deaf_since = now;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut is_ready = || ready.next().unwrap_or_default();
        let (was_signalled, has_stdin) = (is_ready(), stdin.is_some() && is_ready());
        let (has_hint, is_writable) = (watch.is_some() && is_ready(), writable.is_some() && is_ready());
        if let Some(file) = stdin.as_ref().filter(|_| has_stdin) {
            match read_all(file) {
                Some(newline) if newline && self.clock.is_none() => asked.gather(),
                Some(_) => {}
                None => {
                    *stdin = None;
                    asked.stop(came);
                }
            }
        }
        if was_signalled {
            for signal in signals.0.pending() {
                match signal {
                    SIGINT | SIGTERM => asked.stop(came),
                    SIGHUP if self.clock.is_some() => asked.reload = true,
                    _ => asked.gather(),
                }
            }
        }
        asked.observe |= has_hint && watch.as_mut().is_some_and(PidfileWatch::has_hint);
        Ok(is_writable)
    }

    /// When a stop was asked for, if it was.
    #[must_use]
    pub fn stopped(&self) -> Option<Instant> {
        self.asked.stop
    }
}

/// The most urgent of what was asked for.
fn take(asked: &mut Asked, may_observe: bool) -> Option<Prompt> {
    if asked.stop.is_none() && std::mem::take(&mut asked.reload) {
        Some(Prompt::Reload)
    } else if std::mem::take(&mut asked.gather) {
        asked.observe = false;
        Some(Prompt::Gather)
    } else if asked.stop.is_some() {
        Some(Prompt::Stop)
    } else if may_observe && std::mem::take(&mut asked.observe) {
        Some(Prompt::Observe)
    } else {
        None
    }
}

/// What ticks. Ticks that nobody has waited for are left out.
#[derive(Debug)]
struct Clock {
    period: Duration,
    next: Instant,
}

impl Clock {
    fn new(period: Duration, first: Duration) -> Self {
        Self { period, next: Instant::now() + first }
    }

    /// Whether it has ticked since it was asked last.
    fn ticks(&mut self, now: Instant) -> bool {
        let Some(late) = now.checked_duration_since(self.next) else { return false };
        let beat = late.as_nanos() % self.period.as_nanos().max(1);
        self.next = now + self.period - Duration::from_nanos_u128(beat);
        true
    }
}

/// Whether a newline came, of all that a pipe can hold. `None`: there is nothing more to come. A stdin that cannot be read says no
/// more than one that ended.
fn read_all(stdin: &OwnedFd) -> Option<bool> {
    let (mut bytes, mut newline) = ([0; 1024], false);
    for _ in 0..64 {
        match read(stdin, &mut bytes) {
            Ok(0) if newline => break, // the end is told again
            Ok(0) => return None,
            Ok(count) => {
                newline |= bytes.iter().take(count).any(|byte| *byte == b'\n');
                if count < bytes.len() {
                    break;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => break,
            Err(_) => return None,
        }
    }
    Some(newline)
}

/// Reads without waiting, so far as that can be had (RWF_NOWAIT, of a pipe since Linux 6.5): another that has the same pipe may have
/// been quicker.
fn read(stdin: &OwnedFd, bytes: &mut [u8]) -> rustix::io::Result<usize> {
    match preadv2(stdin, &mut [IoSliceMut::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT) {
        Err(error) if error != Errno::AGAIN || !is_pipe(stdin) => rustix::io::read(stdin, bytes),
        read => read,
    }
}

/// What kind of file stdin is.
#[must_use]
pub fn stdin_type() -> Option<FileType> {
    fstat(stdin()).ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// Whether nobody can ever prompt: stdin is /dev/null, as under inputs.exec, or was closed from the start
/// (for which Rust's runtime puts /dev/null).
#[must_use]
pub fn stdin_is_null() -> bool {
    let null = rustix::fs::stat("/dev/null").map(|null| null.st_rdev);
    let ours = fstat(stdin());
    stdin_type() == Some(FileType::CharacterDevice)
        && matches!((null, ours), (Ok(null), Ok(ours)) if ours.st_rdev == null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_has_waited_for_ticks_once_and_keeps_its_beat() {
        let begun = Instant::now();
        let at = |tenths: u32| begun + tenths * Duration::from_millis(100);
        let mut clock = Clock { period: Duration::from_secs(1), next: at(10) };
        // At which time it was asked, whether it had ticked, when it ticks next.
        let cases = [(0, false, 10), (9, false, 10), (10, true, 20), (11, false, 20), (57, true, 60), (70, true, 80)];
        for (asked, ticked, next) in cases {
            assert_eq!((clock.ticks(at(asked)), clock.next), (ticked, at(next)), "asked at {asked}");
        }
    }
}
