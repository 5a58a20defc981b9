//! What makes the plugin do something: a newline on stdin, a signal, the clock, a hint from a watched directory.
//!
//! Each source sets flags and rings; the loop takes them when it is ready. So whatever comes during a gather coalesces
//! into one, and a blocked write never keeps an end of stdin from being heard.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::{FileType, fstat};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use crate::write::wait_for;

/// Hints come in bursts; the processes behind them are looked at no more often than this.
const HINT_PAUSE: Duration = Duration::from_secs(1);

/// A first gather shows a CPU only if this much time has passed since the counters were primed.
pub const PRIMING: Duration = Duration::from_secs(1);

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

    fn stop(&mut self) {
        self.stop.get_or_insert_with(Instant::now);
    }
}

/// Where the sources put their flags.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<(Mutex<Asked>, Notify)>);

impl Bell {
    /// A pidfile came or went.
    pub fn hint(&self) {
        self.ring(|asked| asked.observe = true);
    }

    fn ring(&self, ask: impl FnOnce(&mut Asked)) {
        self.with(ask);
        let (_, notify) = &*self.0;
        notify.notify_one();
    }

    fn with<T>(&self, f: impl FnOnce(&mut Asked) -> T) -> T {
        let (asked, _) = &*self.0;
        f(&mut asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The signals, caught from now on. To be made before anything else: a signal without a handler ends the process.
#[derive(Debug)]
pub struct CaughtSignals(Signals);

/// Catches the signals that prompt. Those that stop are caught as soon as somebody listens.
///
/// # Errors
/// The handlers cannot be installed.
pub fn catch_signals() -> io::Result<CaughtSignals> {
    Signals::new([SIGHUP, SIGUSR1, SIGUSR2]).map(CaughtSignals)
}

/// The prompts, in the order in which they are to be answered.
#[derive(Debug)]
pub struct Prompts {
    bell: Bell,
    clock: Option<Interval>,
    /// Whether to stop when nothing is asked for any more.
    once: bool,
    /// When a hint may be followed again.
    next_hint: Instant,
}

impl Prompts {
    /// Starts listening: a thread each for the signals and for stdin.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn listen(pace: Pace, signals: CaughtSignals) -> io::Result<Self> {
        // Until now these end the process: it may be waiting for a configuration that is a pipe.
        for signal in [SIGINT, SIGTERM] {
            signals.0.add_signal(signal)?;
        }
        let bell = Bell::default();
        let hangup_reloads = matches!(pace, Pace::Every(_));
        hear_signals(signals, bell.clone(), hangup_reloads)?;
        let clock = match pace {
            Pace::Prompted => {
                hear_stdin(bell.clone(), true)?;
                None
            }
            Pace::Every(period) => {
                // Only a pipe or a socket has another end whose closing means something.
                if matches!(stdin_type(), Some(FileType::Fifo | FileType::Socket)) {
                    hear_stdin(bell.clone(), false)?;
                }
                Some(every(period, period.max(PRIMING)))
            }
            Pace::Once => {
                bell.with(|asked| asked.gather = true);
                None
            }
        };
        Ok(Self { bell, clock, once: pace == Pace::Once, next_hint: Instant::now() })
    }

    /// Where other sources ring.
    #[must_use]
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Gathers by this clock from now on.
    pub fn set_period(&mut self, period: Duration) {
        if self.clock.as_ref().is_some_and(|clock| clock.period() != period) {
            self.clock = Some(every(period, period));
        }
    }

    /// Waits for the next prompt. Stop comes last: what was asked for before is answered.
    pub async fn next(&mut self) -> Prompt {
        loop {
            let may_observe = Instant::now() >= self.next_hint;
            if let Some(prompt) = self.bell.with(|asked| take(asked, may_observe)) {
                if matches!(prompt, Prompt::Gather | Prompt::Observe) {
                    self.next_hint = Instant::now() + HINT_PAUSE;
                }
                return prompt;
            }
            if self.once {
                self.bell.with(Asked::stop);
                continue;
            }
            let hinted = self.bell.with(|asked| asked.observe);
            let (_, notify) = &*self.bell.0;
            tokio::select! {
                () = notify.notified() => {}
                () = tick(&mut self.clock) => self.bell.with(|asked| asked.gather = true),
                () = sleep_until(self.next_hint), if hinted => {}
            }
        }
    }

    /// Waits until a stop is asked for, and says when that was; nothing is taken.
    pub async fn stopping(&self) -> Instant {
        let (_, notify) = &*self.bell.0;
        loop {
            if let Some(since) = self.bell.with(|asked| asked.stop) {
                notify.notify_one(); // whatever else rang is still to be heard
                return since;
            }
            notify.notified().await;
        }
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

fn every(period: Duration, first: Duration) -> Interval {
    let mut clock = interval_at(Instant::now() + first, period);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    clock
}

async fn tick(clock: &mut Option<Interval>) {
    match clock {
        Some(clock) => drop(clock.tick().await),
        None => std::future::pending().await,
    }
}

fn hear_signals(signals: CaughtSignals, bell: Bell, hangup_reloads: bool) -> io::Result<()> {
    let CaughtSignals(mut signals) = signals;
    let hear = move || {
        let mut interrupted = false;
        for signal in signals.forever() {
            match signal {
                SIGINT if interrupted => std::process::exit(130), // a person who asks twice does not wait
                SIGINT | SIGTERM => {
                    interrupted = interrupted || signal == SIGINT;
                    bell.ring(Asked::stop);
                }
                SIGHUP if hangup_reloads => bell.ring(|asked| asked.reload = true),
                _ => bell.ring(Asked::gather),
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(hear).map(drop)
}

/// Reads stdin to its end in a thread of its own, whatever it is: a pipe, a file, a terminal.
fn hear_stdin(bell: Bell, newline_gathers: bool) -> io::Result<()> {
    let hear = move || {
        let mut stdin = io::stdin().lock();
        let mut bytes = [0; 4096];
        loop {
            match stdin.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => {
                    let newline = bytes.iter().take(count).any(|byte| *byte == b'\n');
                    if newline && newline_gathers {
                        bell.ring(Asked::gather);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if wait_for(&io::stdin(), PollFlags::IN).is_err() {
                        break;
                    }
                }
                Err(_) => break, // a stdin that cannot be read says no more than one that ended
            }
        }
        bell.ring(Asked::stop);
    };
    std::thread::Builder::new().name("stdin".into()).spawn(hear).map(drop)
}

/// What kind of file stdin is.
#[must_use]
pub fn stdin_type() -> Option<FileType> {
    fstat(io::stdin().as_fd()).ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// Whether nobody can ever prompt: stdin is /dev/null, as under inputs.exec and cron, or was closed from the start
/// (for which Rust's runtime puts /dev/null).
#[must_use]
pub fn stdin_is_null() -> bool {
    let null = rustix::fs::stat("/dev/null").map(|null| null.st_rdev);
    let stdin = fstat(io::stdin().as_fd());
    stdin_type() == Some(FileType::CharacterDevice)
        && matches!((null, stdin), (Ok(null), Ok(stdin)) if stdin.st_rdev == null)
}
