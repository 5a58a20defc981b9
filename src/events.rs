//! Process events and exit records: a thread that takes them from the kernel, so that none is lost between two gathers.
//!
//! It sleeps while nothing happens. When something does, it waits a little for more, and takes all there is: one message at a time
//! would cost ten times as much, and most that is born is dead within that time. While much happens it does that at its own pace.
//!
//! A gather takes what there is by itself, so that nobody waits for the thread. It only has to come before the sockets' buffers are
//! full, and before a pid comes round again, which takes more than a second of the fastest forks.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::journal::{Journal, Record};
use crate::kernel::exit_records::ExitRecords;
use crate::kernel::netlink::Drained;
use crate::kernel::proc_connector::{Event, ProcConnector};
use crate::kernel::test_kill;
use crate::processes::{ProcessSource, Processes};

/// Longest time that messages wait before they are taken, ms. The buffers that are asked for hold 43,000 events and 25,000 records:
/// ten times as many may come a second. A wake-up costs 100 µs, which is most of the cost while little happens.
const PAUSE: u64 = 100;

/// Shortest such time, for the smaller buffers that rmem_max leaves to ordinary users.
const SHORTEST_PAUSE: u64 = 20;

/// If so much was taken at once, more is on its way: its first is not waited for. Two short lives make as much.
const MUCH: usize = 8;

/// What has come of it so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tidings {
    /// How often some were lost.
    pub lost: u64,
    /// How often the thread has woken up.
    pub wakeups: u64,
}

/// What tells of births and exits: the kernel's two sockets, or a simulated kernel in the tests.
pub trait Messages: Send + std::fmt::Debug {
    /// Whether exit records come, and not only events.
    fn has_records(&self) -> bool;

    /// Takes all exit records that have come.
    ///
    /// # Errors
    /// No more will come.
    fn records(&mut self, take: &mut dyn FnMut(Record)) -> io::Result<Drained>;

    /// Takes all events that have come.
    ///
    /// # Errors
    /// No more will come.
    fn events(&mut self, take: &mut dyn FnMut(Event)) -> io::Result<Drained>;

    /// Whether no process, or thread, has this pid: no event tells that a process that exited was reaped.
    fn is_reaped(&self, pid: u32) -> bool;
}

/// The kernel's sockets.
#[derive(Debug)]
struct Sockets {
    connector: ProcConnector,
    records: Option<ExitRecords>,
    /// Whether anybody asks for what exited processes had waited for.
    keeps_delays: bool,
}

impl Messages for Sockets {
    fn has_records(&self) -> bool {
        self.records.is_some()
    }

    fn records(&mut self, take: &mut dyn FnMut(Record)) -> io::Result<Drained> {
        let keeps_delays = self.keeps_delays;
        let records = self.records.as_mut();
        records.map_or(Ok(Drained::Complete), |records| records.drain(|record| take(Record::of(&record, keeps_delays))))
    }

    fn events(&mut self, take: &mut dyn FnMut(Event)) -> io::Result<Drained> {
        self.connector.drain(take)
    }

    fn is_reaped(&self, pid: u32) -> bool {
        test_kill(pid) == Err(Errno::SRCH)
    }
}

/// A subscription to the processes of the host.
#[derive(Debug)]
pub struct Events {
    feed: Arc<Mutex<Feed>>,
    /// Why there are no exit records.
    without_records: Option<io::Error>,
    /// The thread ends when this is closed.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// What comes, and what is made of it.
#[derive(Debug)]
pub struct Feed {
    messages: Box<dyn Messages>,
    journal: Journal,
    /// Why nothing more can be heard.
    broken: Option<io::Error>,
    tidings: Tidings,
}

impl Events {
    /// Subscribes, and starts the thread. What the dead had waited for is kept if anybody asks for it.
    ///
    /// # Errors
    /// Those of [`ProcConnector::listen`], or no thread can be started.
    pub fn listen(sys_root: &Path, keeps_delays: bool) -> io::Result<Self> {
        let connector = ProcConnector::listen()?;
        let (records, without_records) = match ExitRecords::listen(sys_root) {
            Ok(records) => (Some(records), None),
            Err(error) => (None, Some(error)),
        };
        let mut sockets = vec![connector.as_fd().try_clone_to_owned()?];
        if let Some(records) = &records {
            sockets.push(records.as_fd().try_clone_to_owned()?);
        }
        let room = connector.room()?;
        let room = records.as_ref().map_or(Ok(room), |records| records.room().map(|other| other.min(room)))?;
        let (stopped, stop) = io::pipe()?;
        let feed = Arc::new(Mutex::new(Feed::new(Box::new(Sockets { connector, records, keeps_delays }))));
        let heard = Arc::clone(&feed);
        let thread = std::thread::Builder::new().name("events".to_owned());
        let thread = thread.spawn(move || listen(&sockets, &stopped, &heard, &pause(room)))?;
        Ok(Self { feed, without_records, stop: Some(stop), thread: Some(thread) })
    }

    /// A subscription without a thread: whoever has the feed drains it between two gathers.
    #[must_use]
    pub fn without_thread(feed: Arc<Mutex<Feed>>) -> Self {
        Self { feed, without_records: None, stop: None, thread: None }
    }

    /// Why there are no exit records, if there are none.
    #[must_use]
    pub fn without_records(&self) -> Option<&io::Error> {
        self.without_records.as_ref()
    }

    /// Why nothing more is heard, if so. It is told once.
    #[must_use]
    pub fn end(&self) -> Option<io::Error> {
        lock(&self.feed).broken.take()
    }

    /// What has come of it so far.
    #[must_use]
    pub fn tidings(&self) -> Tidings {
        lock(&self.feed).tidings
    }

    /// [`Feed::update`].
    ///
    /// # Errors
    /// Those of [`Feed::update`].
    pub fn update(
        &self,
        processes: &mut Processes,
        source: &mut dyn ProcessSource,
        now: u64,
    ) -> io::Result<Option<io::Error>> {
        lock(&self.feed).update(processes, source, now)
    }

    /// [`Feed::conclude`].
    pub fn conclude(&self, processes: &mut Processes) {
        lock(&self.feed).conclude(processes);
    }
}

/// Ends the thread, and with it the subscription.
impl Drop for Events {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Feed {
    /// A feed that has taken nothing so far.
    #[must_use]
    pub fn new(messages: Box<dyn Messages>) -> Self {
        Self { messages, journal: Journal::default(), broken: None, tidings: Tidings::default() }
    }

    /// Brings the process table up to date as of `now` (CLOCK_BOOTTIME, ns): by what happened since the last gather, or by a scan if that
    /// is not known. Returns the first error of a process that could not be read though it exists.
    ///
    /// # Errors
    /// The processes cannot be listed: the table stays as it was.
    pub fn update(
        &mut self,
        processes: &mut Processes,
        source: &mut dyn ProcessSource,
        now: u64,
    ) -> io::Result<Option<io::Error>> {
        self.drain();
        if self.journal.has_begun() {
            let messages = &self.messages;
            return Ok(processes.follow(&mut self.journal, &|pid| messages.is_reaped(pid), source, now));
        }
        let failed = processes.scan(source, now)?;
        // What was told before is of no use any more; what has happened meanwhile is told now.
        self.journal.begin(self.messages.has_records(), processes.iter());
        self.drain();
        self.journal.settled();
        Ok(failed)
    }

    /// Ends a gather's reading: takes in what was told meanwhile.
    pub fn conclude(&mut self, processes: &mut Processes) {
        self.drain();
        let messages = &self.messages;
        processes.conclude(&mut self.journal, &|pid| messages.is_reaped(pid));
    }

    /// Takes all that has come; returns how many events and records. Exit records are taken first: what was told of their processes
    /// before is then there too.
    pub fn drain(&mut self) -> usize {
        let Self { messages, journal, .. } = self;
        let (mut recorded, mut told) = (0, 0);
        let records = messages.records(&mut |record| {
            recorded += 1;
            journal.record(record);
        });
        let events = messages.events(&mut |event| {
            told += 1;
            journal.event(event);
        });
        match (records, events) {
            (Ok(Drained::Complete), Ok(Drained::Complete)) => {
                journal.flush();
                journal.prune_if_many(&|pid| messages.is_reaped(pid));
            }
            (Err(error), _) | (_, Err(error)) => {
                self.broken = Some(error);
                self.journal = Journal::default();
            }
            _ => self.lose(),
        }
        recorded + told
    }

    /// Some of it is lost, nobody knows what: the rest is of no use until the table was scanned.
    fn lose(&mut self) {
        self.tidings.lost = self.tidings.lost.saturating_add(1);
        self.journal = Journal::default();
    }
}

/// Returns how long messages wait before they are taken. `room`: share of the room asked for that the smallest buffer has.
fn pause(room: f64) -> Timespec {
    let milliseconds = ((PAUSE as f64 * room) as u64).clamp(SHORTEST_PAUSE, PAUSE);
    Timespec { tv_sec: 0, tv_nsec: milliseconds as i64 * 1_000_000 }
}

/// The thread.
fn listen(sources: &[OwnedFd], stopped: &PipeReader, feed: &Mutex<Feed>, pause: &Timespec) {
    let mut all: Vec<_> = sources.iter().map(OwnedFd::as_fd).collect();
    all.push(stopped.as_fd());
    let mut comes_much = false;
    loop {
        let mut wakeups = 1;
        if !comes_much {
            if !wait(&all, None) {
                return;
            }
            wakeups += 1;
        }
        if !wait(&[stopped.as_fd()], Some(pause)) {
            return;
        }
        let mut feed = lock(feed);
        feed.tidings.wakeups = feed.tidings.wakeups.saturating_add(wakeups);
        comes_much = feed.drain() >= MUCH;
        if feed.broken.is_some() {
            return;
        }
    }
}

/// Waits until one of these can be read, for so long at most. False: the last one can, or nothing can be waited for.
fn wait(sources: &[BorrowedFd<'_>], at_most: Option<&Timespec>) -> bool {
    let mut ready: Vec<_> = sources.iter().map(|source| PollFd::new(source, PollFlags::IN)).collect();
    match poll(&mut ready, at_most) {
        Ok(_) => ready.last().is_some_and(|stopped| stopped.revents().is_empty()),
        Err(error) => error == Errno::INTR,
    }
}

/// What a thread that panicked has left is as good as it was: it is scanned anew at worst.
pub fn lock(feed: &Mutex<Feed>) -> MutexGuard<'_, Feed> {
    feed.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_less_room_for_waits_less_long() {
        let milliseconds = [0.0, 0.01, 0.25, 0.5, 1.0, 4.0].map(|room| pause(room).tv_nsec / 1_000_000);
        assert_eq!(milliseconds, [20, 20, 25, 50, 100, 100]);
    }
}
