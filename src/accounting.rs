//! Way to learn which processes exist, and the CPU of exited ones: events, or a scan of `/proc` at each gather.

use std::future;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Instant;

use crate::config::values::AccountBy;
use crate::events::{EventStats, EventStream};
use crate::kernel::capability::Capability;
use crate::kernel::netlink;
use crate::kernel::procfs::Proc;
use crate::kernel::stat::{Identity, Stat};
use crate::log::{Complaints, Trouble};
use crate::processes::{ProcessSource, Processes, Read};

/// The way in use.
#[derive(Debug, Default)]
pub struct Accounting {
    events: Option<EventStream>,
    /// Why it is not all that it could be.
    shortcoming: Option<Shortcoming>,
    /// The configuration asks for events by name: a lack of them is a problem.
    is_demanded: bool,
    /// There were events until the sockets failed.
    has_ended: bool,
    /// Number of overruns that were reported.
    overruns: u64,
}

/// Why there are no events, or no exit records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortcoming {
    /// Kind of problem.
    pub trouble: Trouble,
    /// The reason, with the remedy.
    pub reason: String,
}

impl Accounting {
    /// Begins with the best way that is wanted and possible. `keeps_delays`: whether the delays of exited processes are wanted.
    #[must_use]
    pub fn begin(wanted: AccountBy, keeps_delays: bool, proc: &mut Proc, sys_root: &Path) -> Self {
        let is_demanded = wanted == AccountBy::Events;
        if wanted == AccountBy::Scan {
            return Self::default();
        }
        if !proc.is_of_our_pid_namespace() {
            let reason = format!(
                "{} is of another pid namespace, whose events the kernel does not report here",
                proc.root().display()
            );
            let shortcoming = Some(Shortcoming { trouble: Trouble::Failed, reason });
            return Self { shortcoming, is_demanded, ..Self::default() };
        }
        match EventStream::listen(sys_root, keeps_delays) {
            Ok(events) => {
                let shortcoming = events.without_records().map(|error| Shortcoming::of("exit records", error));
                Self { events: Some(events), shortcoming, is_demanded, ..Self::default() }
            }
            Err(error) => {
                Self { shortcoming: Some(Shortcoming::of("process events", &error)), is_demanded, ..Self::default() }
            }
        }
    }

    /// Accounting by these events.
    #[must_use]
    pub fn by(events: EventStream) -> Self {
        Self { events: Some(events), ..Self::default() }
    }

    /// Value of the tag `accounting`, and what `--check` says of it.
    #[must_use]
    pub fn name_and_description(&self) -> [&'static str; 2] {
        let events = "process events and exit records: every process counts, however short its life";
        let connector =
            "process events without exit records: the CPU of exited processes counts when their parents reap it";
        let scan = "one scan of /proc per gather: the CPU of exited processes counts when their parents reap it";
        match (&self.events, &self.shortcoming) {
            (Some(_), None) => ["events", events],
            (Some(_), Some(_)) => ["connector", connector],
            (None, _) => ["scan", scan],
        }
    }

    /// Value of the tag `accounting`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let [name, _] = self.name_and_description();
        name
    }

    /// Why it is not all that it could be, if so.
    #[must_use]
    pub fn shortcoming(&self) -> Option<&Shortcoming> {
        self.shortcoming.as_ref()
    }

    /// Returns whether it falls short of what the configuration asks for.
    #[must_use]
    pub fn falls_short(&self) -> bool {
        self.is_demanded && self.shortcoming.is_some()
    }

    /// The events, if there are any.
    pub fn events(&mut self) -> Option<&mut EventStream> {
        self.events.as_mut()
    }

    /// Counters of the events, if there are any.
    #[must_use]
    pub fn event_stats(&self) -> Option<EventStats> {
        self.events.as_ref().map(EventStream::stats)
    }

    /// Waits for the first event since all were taken; for ever if there are none.
    pub async fn first_message(&mut self) {
        match &mut self.events {
            Some(events) => events.first_message().await,
            None => future::pending().await,
        }
    }

    /// Time at which [`Accounting::drain_if_due`] is to be called.
    #[must_use]
    pub fn next_drain(&self) -> Option<Instant> {
        self.events.as_ref().and_then(EventStream::next_drain)
    }

    /// Takes the events if the pause after the first of them is over.
    pub fn drain_if_due(&mut self) {
        if let Some(events) = &mut self.events {
            events.drain_if_due();
        }
    }

    /// Takes the events in the middle of a gather, if the last time is long enough ago.
    pub fn keep_up(&mut self) {
        if let Some(events) = &mut self.events {
            events.keep_up();
        }
    }

    /// Brings the process table up to date as of `now` (CLOCK_BOOTTIME, ns). Returns the first error of a process that could not be read
    /// though it exists.
    ///
    /// # Errors
    /// `/proc` cannot be listed: the table stays as it was.
    pub fn update(
        &mut self,
        processes: &mut Processes,
        source: &mut dyn ProcessSource,
        now: u64,
    ) -> io::Result<Option<io::Error>> {
        if let Some(error) = self.events.as_mut().and_then(EventStream::end) {
            self.events = None;
            self.shortcoming = Some(Shortcoming::of("process events", &error));
            self.has_ended = true;
        }
        match &mut self.events {
            Some(events) => events.update(processes, source, now),
            None => processes.scan(source, now),
        }
    }

    /// Complains of what is wrong, and of overruns since the last call.
    pub fn complain(&mut self, complaints: &mut Complaints) {
        if let Some(Shortcoming { trouble, reason }) = &self.shortcoming {
            if self.has_ended {
                complaints.add(*trouble, format!("Process events have ended, /proc is scanned instead: {reason}"));
            } else if self.is_demanded {
                complaints.add(*trouble, format!("accounting is \"{}\" instead of \"events\": {reason}", self.name()));
            }
        }
        let overruns = self.event_stats().map_or(0, |stats| stats.overruns);
        if overruns > self.overruns {
            let what = "Process events were lost, since they came faster than they could be taken: what this interval misses is \
                        accounted as by a scan";
            let remedy = if Capability::NetAdmin.is_held() {
                "raise the plugin's priority (in the systemd unit, Nice=-5)".to_owned()
            } else {
                format!("for a larger buffer {}", Capability::NetAdmin.is_needed())
            };
            complaints.add(Trouble::Failed, format!("{what}; {remedy}"));
        }
        self.overruns = overruns;
    }

    /// Ends the reading of a gather: takes in what happened meanwhile.
    pub fn conclude(&mut self, processes: &mut Processes) {
        if let Some(events) = &mut self.events {
            events.conclude(processes);
        }
    }
}

/// Process source that takes the events between two reads: while thousands of processes are read, the sockets' buffers would overrun.
#[derive(Debug)]
pub struct KeepsUp<'a> {
    source: &'a mut dyn ProcessSource,
    accounting: &'a mut Accounting,
}

impl<'a> KeepsUp<'a> {
    /// Reads from `source`, and takes the events of `accounting`.
    pub fn new(source: &'a mut dyn ProcessSource, accounting: &'a mut Accounting) -> Self {
        Self { source, accounting }
    }
}

impl ProcessSource for KeepsUp<'_> {
    fn list(&mut self, pids: &mut Vec<u32>) -> io::Result<()> {
        self.source.list(pids)
    }

    fn stat(&mut self, pid: u32) -> io::Result<Option<Stat>> {
        self.accounting.keep_up();
        self.source.stat(pid)
    }

    fn is_process(&mut self, pid: u32) -> bool {
        self.source.is_process(pid)
    }

    fn leader_time(&mut self, pid: u32) -> io::Result<Option<u64>> {
        self.accounting.keep_up();
        self.source.leader_time(pid)
    }

    fn resident(&mut self, pid: u32) -> io::Result<Option<u64>> {
        self.accounting.keep_up();
        self.source.resident(pid)
    }

    fn leaderless_rss(&mut self, pid: u32) -> io::Result<Option<u64>> {
        self.source.leaderless_rss(pid)
    }

    fn stat_again(&mut self, pid: u32, lasts: &dyn Fn(&Stat) -> bool) -> io::Result<Option<Stat>> {
        self.accounting.keep_up();
        self.source.stat_again(pid, lasts)
    }

    fn read(&mut self, known: &Stat, now: u64, lasts: &dyn Fn(&Stat) -> bool) -> io::Result<Read> {
        self.accounting.keep_up();
        self.source.read(known, now, lasts)
    }

    fn keep(&mut self, ids: &[Identity]) {
        self.source.keep(ids);
    }

    fn close(&mut self, pid: u32) {
        self.source.close(pid);
    }

    fn keep_up(&mut self) {
        self.accounting.keep_up();
    }
}

impl Shortcoming {
    /// Shortcoming of accounting without `what`, which cannot be had because of an error.
    fn of(what: &str, error: &io::Error) -> Self {
        let (trouble, reason) = match error.kind() {
            ErrorKind::PermissionDenied => {
                (Trouble::Denied, format!("for {what} {}", Capability::NetAdmin.is_needed()))
            }
            _ if netlink::is_forbidden(error) => (Trouble::Denied, netlink::IS_FORBIDDEN.to_owned()),
            _ => (Trouble::Failed, format!("{what} cannot be had: {error}")),
        };
        Self { trouble, reason }
    }
}
