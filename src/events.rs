//! Process events and exit records, taken from the kernel so that none is lost between two gathers.
//!
//! Nothing wakes the plugin while nothing happens. After a first message it waits a little for more and takes all there are, since one at a
//! time would cost ten times as much, and most processes that start exit within that time. While many come it goes on at that pace.
//!
//! A gather takes messages by itself, and a long one keeps that pace between its reads. It is enough that messages are taken before the
//! sockets' buffers are full, and before a pid is used again, which the fastest forks need more than a second for.

use std::future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::kernel::epoll;
use crate::kernel::exit_records::ExitRecords;
use crate::kernel::netlink::Drained;
use crate::kernel::proc_connector::{Event, ProcConnector};
use crate::kernel::test_kill;
use crate::processes::{Journal, Record};
use crate::processes::{ProcessSource, Processes};

/// Longest time from the first message until all are taken. The buffers that are asked for hold 43,000 events and 25,000 records, so
/// ten times as many may come in a second. A wake-up costs 100 µs, which is most of the cost while little happens.
const PAUSE: Duration = Duration::from_millis(100);

/// Shortest such time, for the smaller buffers that rmem_max allows to ordinary users.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Number of messages taken at once from which on more are expected, so that the first of them is not waited for. Two short-lived
/// processes make that many.
const MANY: usize = 8;

/// Counters of an event stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventStats {
    /// Number of overruns: times that messages were lost.
    pub overruns: u64,
    /// Number of times that messages woke the plugin up.
    pub wakeups: u64,
}

/// Source of events and exit records: the kernel's two sockets, or a simulated kernel in the tests.
pub trait Messages: std::fmt::Debug {
    /// Sockets that are readable when there is something to take; none in a simulation.
    fn sockets(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [None, None]
    }

    /// Returns whether exit records come, besides events.
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

    /// Returns whether messages are to be taken now, in the middle of a gather: the last time is at least `pause` ago.
    fn is_due(&mut self, pause: Duration) -> bool;

    /// Returns whether no process and no thread has this pid. There is no event when a process is reaped.
    fn is_reaped(&self, pid: u32) -> bool;
}

/// The kernel's sockets.
#[derive(Debug)]
struct Sockets {
    connector: ProcConnector,
    records: Option<ExitRecords>,
    /// Keep the delays of exited processes.
    keeps_delays: bool,
    /// Time at which the messages were last taken.
    drained: Instant,
}

impl Messages for Sockets {
    fn sockets(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [Some(self.connector.as_fd()), self.records.as_ref().map(AsFd::as_fd)]
    }

    fn has_records(&self) -> bool {
        self.records.is_some()
    }

    fn records(&mut self, take: &mut dyn FnMut(Record)) -> io::Result<Drained> {
        let keeps_delays = self.keeps_delays;
        let records = self.records.as_mut();
        records.map_or(Ok(Drained::Complete), |records| records.drain(|record| take(Record::of(&record, keeps_delays))))
    }

    fn events(&mut self, take: &mut dyn FnMut(Event)) -> io::Result<Drained> {
        let drained = self.connector.drain(take);
        self.drained = Instant::now();
        drained
    }

    fn is_due(&mut self, pause: Duration) -> bool {
        self.drained.elapsed() >= pause
    }

    fn is_reaped(&self, pid: u32) -> bool {
        test_kill(pid) == Err(Errno::SRCH)
    }
}

/// Events and exit records, and what follows from them.
#[derive(Debug)]
pub struct EventStream {
    messages: Box<dyn Messages>,
    journal: Journal,
    /// Why there are no exit records.
    without_records: Option<io::Error>,
    /// Why no more messages come.
    broken: Option<io::Error>,
    stats: EventStats,
    /// The sockets, while the first message is waited for. In the pause after it epoll(7) does not know them: it would wake the plugin for
    /// each message.
    polled: Vec<AsyncFd<OwnedFd>>,
    /// Time from the first message until all are taken.
    pause: Duration,
    /// Time at which messages are taken next. `None`: the first one has not come.
    next_drain: Option<Instant>,
}

impl EventStream {
    /// Subscribes to the processes of the host.
    ///
    /// # Errors
    /// See [`ProcConnector::listen`].
    pub fn listen(sys_root: &Path, keeps_delays: bool) -> io::Result<Self> {
        let connector = ProcConnector::listen()?;
        let (records, without_records) = match ExitRecords::listen(sys_root) {
            Ok(records) => (Some(records), None),
            Err(error) => (None, Some(error)),
        };
        let room = connector.room()?;
        let room = records.as_ref().map_or(Ok(room), |records| records.room().map(|other| other.min(room)))?;
        let messages = Sockets { connector, records, keeps_delays, drained: Instant::now() };
        Ok(Self { without_records, pause: pause(room), ..Self::new(Box::new(messages)) })
    }

    /// Makes a stream of these messages.
    #[must_use]
    pub fn new(messages: Box<dyn Messages>) -> Self {
        Self {
            messages,
            journal: Journal::default(),
            without_records: None,
            broken: None,
            stats: EventStats::default(),
            polled: Vec::new(),
            pause: PAUSE,
            next_drain: None,
        }
    }

    /// Why there are no exit records, if there are none.
    #[must_use]
    pub fn without_records(&self) -> Option<&io::Error> {
        self.without_records.as_ref()
    }

    /// Takes the reason why no more messages come, if none do.
    #[must_use]
    pub fn end(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> EventStats {
        self.stats
    }

    /// Waits for the first message since all were taken.
    pub async fn first_message(&mut self) {
        if self.next_drain.is_some() || self.broken.is_some() {
            future::pending().await
        }
        match self.readable().await {
            Ok(()) => {
                self.polled.clear();
                self.stats.wakeups = self.stats.wakeups.saturating_add(1);
                self.next_drain = Some(Instant::now() + self.pause);
            }
            Err(error) => self.break_off(error),
        }
    }

    /// Waits until one of the sockets is readable.
    async fn readable(&mut self) -> io::Result<()> {
        let Self { messages, polled, .. } = self;
        if polled.is_empty() {
            let sockets = messages.sockets().into_iter().flatten();
            *polled = sockets.map(|socket| epoll::register(socket, Interest::READABLE)).collect::<io::Result<_>>()?;
        }
        future::poll_fn(|context| {
            let mut sockets = polled.iter().map(|socket| socket.poll_read_ready(context).map_ok(drop));
            sockets.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// Time at which [`EventStream::drain_if_due`] is to be called; `None` before [`EventStream::first_message`] returns.
    #[must_use]
    pub fn next_drain(&self) -> Option<Instant> {
        self.next_drain
    }

    /// Takes the messages if the pause after the first of them is over.
    pub fn drain_if_due(&mut self) {
        let now = Instant::now();
        if self.next_drain.is_some_and(|next| next <= now) {
            self.stats.wakeups = self.stats.wakeups.saturating_add(1);
            let is_busy = self.drain() >= MANY;
            self.next_drain = is_busy.then(|| now + self.pause);
        }
    }

    /// Takes the messages in the middle of a gather, if the last time is as long ago as between two gathers. Not within
    /// [`EventStream::update`], which needs the events up to one moment.
    pub fn keep_up(&mut self) {
        if self.broken.is_none() && self.messages.is_due(self.pause) {
            self.drain();
        }
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
        // Messages from before the scan are of no use; those from during it are taken now.
        self.journal.begin(self.messages.has_records(), processes.iter());
        self.drain();
        self.journal.settled();
        Ok(failed)
    }

    /// Ends the reading of a gather: takes in what happened meanwhile.
    pub fn conclude(&mut self, processes: &mut Processes) {
        self.drain();
        let messages = &self.messages;
        processes.take_late_events(&mut self.journal, &|pid| messages.is_reaped(pid));
    }

    /// Takes all messages that have come; returns their number. Exit records are taken first: then the events that came before them
    /// are there too.
    pub fn drain(&mut self) -> usize {
        let Self { messages, journal, .. } = self;
        let (mut recorded, mut happened) = (0, 0);
        let records = messages.records(&mut |record| {
            recorded += 1;
            journal.record(record);
        });
        let events = messages.events(&mut |event| {
            happened += 1;
            journal.event(event);
        });
        match (records, events) {
            (Ok(Drained::Complete), Ok(Drained::Complete)) => {
                journal.flush();
                journal.prune_if_many(&|pid| messages.is_reaped(pid));
            }
            (Err(error), _) | (_, Err(error)) => self.break_off(error),
            _ => self.overrun(),
        }
        recorded + happened
    }

    /// Messages were lost, and there is no way to know which: the journal is of no use until the table was scanned.
    fn overrun(&mut self) {
        self.stats.overruns = self.stats.overruns.saturating_add(1);
        self.journal = Journal::default();
    }

    /// No more messages come.
    fn break_off(&mut self, error: io::Error) {
        self.broken = Some(error);
        self.journal = Journal::default();
    }
}

/// Returns how long messages wait before they are taken. `room`: share of the room asked for that the smallest buffer has.
fn pause(room: f64) -> Duration {
    PAUSE.mul_f64(room.clamp(0.0, 1.0)).max(SHORTEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_wait_less_long_where_there_is_less_room_for_them() {
        let milliseconds = [0.0, 0.01, 0.25, 0.5, 1.0, 4.0].map(|room| pause(room).as_millis());
        assert_eq!(milliseconds, [20, 20, 25, 50, 100, 100]);
    }
}
