//! How it is learnt who exists, and what the dead had used: from events, or by a scan of `/proc` at each gather.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::config::values::AccountBy;
use crate::events::{Events, Tidings};
use crate::kernel::capability::Capability;
use crate::kernel::netlink;
use crate::kernel::procfs::Proc;
use crate::log::{Complaints, Trouble};
use crate::processes::{ProcessSource, Processes};

/// The way that is gone.
#[derive(Debug, Default)]
pub struct Accounting {
    events: Option<Events>,
    /// Why it is not all that it could be.
    shortcoming: Option<Shortcoming>,
    /// Whether events were asked for by name: then it is wrong to do without.
    is_demanded: bool,
    /// Whether there were events until something broke.
    has_ended: bool,
    /// How often events were lost, as was last said.
    lost: u64,
}

/// Why there are no events, or no exit records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortcoming {
    /// What kind of thing is wrong.
    pub trouble: Trouble,
    /// The reason, with the remedy.
    pub reason: String,
}

impl Accounting {
    /// The best that is wanted and can be had. What the dead had waited for is kept if anybody asks for it.
    #[must_use]
    pub fn begin(wanted: AccountBy, keeps_delays: bool, proc: &mut Proc, sys_root: &Path) -> Self {
        let is_demanded = wanted == AccountBy::Events;
        if wanted == AccountBy::Scan {
            return Self::default();
        }
        if !proc.is_of_our_pid_namespace() {
            let reason = format!("{} is of another pid namespace, whose events are not told", proc.root().display());
            let shortcoming = Some(Shortcoming { trouble: Trouble::Failed, reason });
            return Self { shortcoming, is_demanded, ..Self::default() };
        }
        match Events::listen(sys_root, keeps_delays) {
            Ok(events) => {
                let shortcoming = events.without_records().map(|error| Shortcoming::of("exit records", error));
                Self { events: Some(events), shortcoming, is_demanded, ..Self::default() }
            }
            Err(error) => {
                Self { shortcoming: Some(Shortcoming::of("process events", &error)), is_demanded, ..Self::default() }
            }
        }
    }

    /// By these events.
    #[must_use]
    pub fn by(events: Events) -> Self {
        Self { events: Some(events), ..Self::default() }
    }

    /// What it is called, and what it does.
    #[must_use]
    pub fn name_and_description(&self) -> [&'static str; 2] {
        let events = "process events and exit records: nobody lives too short to be counted";
        let connector = "process events without exit records: of the dead, only what their parents are charged";
        let scan = "one scan of /proc per gather: of the dead, only what their parents are charged";
        match (&self.events, &self.shortcoming) {
            (Some(_), None) => ["events", events],
            (Some(_), Some(_)) => ["connector", connector],
            (None, _) => ["scan", scan],
        }
    }

    /// What it is called.
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

    /// Whether it falls short of what was asked for.
    #[must_use]
    pub fn falls_short(&self) -> bool {
        self.is_demanded && self.shortcoming.is_some()
    }

    /// What has come of events so far, if there are any.
    #[must_use]
    pub fn tidings(&self) -> Option<Tidings> {
        self.events.as_ref().map(Events::tidings)
    }

    /// Brings the process table up to date as of `now` (CLOCK_BOOTTIME, ns). Returns the first error of a process that could not be read though it exists.
    ///
    /// # Errors
    /// `/proc` cannot be listed: the table stays as it was.
    pub fn update(
        &mut self,
        processes: &mut Processes,
        source: &mut dyn ProcessSource,
        now: u64,
    ) -> io::Result<Option<io::Error>> {
        if let Some(error) = self.events.as_ref().and_then(Events::end) {
            self.events = None;
            self.shortcoming = Some(Shortcoming::of("process events", &error));
            self.has_ended = true;
        }
        match &self.events {
            Some(events) => events.update(processes, source, now),
            None => processes.scan(source, now),
        }
    }

    /// Says what is wrong, and what was lost since it said so last.
    pub fn complain(&mut self, complaints: &mut Complaints) {
        if let Some(Shortcoming { trouble, reason }) = &self.shortcoming {
            if self.has_ended {
                complaints.add(*trouble, format!("Process events have ended, /proc is scanned instead: {reason}"));
            } else if self.is_demanded {
                complaints.add(*trouble, format!("accounting is \"{}\" instead of \"events\": {reason}", self.name()));
            }
        }
        let lost = self.tidings().map_or(0, |tidings| tidings.lost);
        if lost > self.lost {
            let what = "Process events were lost, since they came faster than they could be taken: what this interval misses is \
                        accounted as by a scan";
            let remedy = if Capability::NetAdmin.is_held() {
                "raise the plugin's priority (in the systemd unit, Nice=-5)".to_owned()
            } else {
                format!("for a larger buffer {}", Capability::NetAdmin.is_needed())
            };
            complaints.add(Trouble::Failed, format!("{what}; {remedy}"));
        }
        self.lost = lost;
    }

    /// Ends a gather's reading: takes in what was told meanwhile.
    pub fn conclude(&self, processes: &mut Processes) {
        if let Some(events) = &self.events {
            events.conclude(processes);
        }
    }
}

impl Shortcoming {
    /// Of these there are none.
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
