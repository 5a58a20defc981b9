//! stderr: one line for each message, with the prefix that Telegraf takes its level from, and only when something changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::kernel::pipe;

/// Longest message, bytes. (Telegraf stops reading stderr for good at a line of 64 KiB.)
const LENGTH_MAX: usize = 2000;

/// Longest wait for the reader to take the last messages.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Importance of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `E! `: something asked for is not done.
    Error,
    /// `W! `: something is missing, the rest goes on.
    Warning,
    /// `I! `: good to know.
    Info,
}

/// Most messages about things that a bound leaves out.
const BOUNDED_MAX: usize = 20;

/// Number of messages that were dropped, since stderr was full.
static LOST: AtomicUsize = AtomicUsize::new(0);

/// Writes one message. Where stderr is full, because its reader has stopped, the message is counted and dropped: it must
/// not hold up a gather. Errors are ignored, as there is no other place to report them.
pub fn say(level: Level, message: &str) {
    let stderr = std::io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    if matches!(poll(&mut ready, Some(&Timespec::default())), Ok(0)) {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    }
    match LOST.swap(0, Ordering::Relaxed) {
        0 => {}
        lost => write(&format!("W! {lost} messages are lost, since stderr was full")),
    }
    let prefix = match level {
        Level::Error => "E! ",
        Level::Warning => "W! ",
        Level::Info => "I! ",
    };
    write(&format!("{prefix}{message}"));
}

/// Waits until the reader has what was said, but not for long.
pub fn wait_for_reader() {
    pipe::wait_for_reader(std::io::stderr(), Instant::now() + LAST_WORDS);
}

/// Writes a message as one line, in one piece: a pipe that is ready accepts 4096 bytes without blocking.
fn write(message: &str) {
    let mut line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(LENGTH_MAX));
    line.push('\n');
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Kind of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A named thing does not exist now.
    Absent,
    /// A thing exists, and may not be looked at.
    Denied,
    /// A thing could not be looked at for another reason.
    Failed,
    /// A bound of the configuration leaves it out.
    Bounded,
}

impl Trouble {
    /// Returns the kind of problem that an error is.
    #[must_use]
    pub fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Absent,
            std::io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Failed,
        }
    }
}

/// Most things of one kind that a message names.
const NAMED_MAX: usize = 3;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// Kind of problem.
    pub trouble: Trouble,
    /// The problem.
    pub what: String,
    /// With which of many, like a process. That is named, and makes no difference: a complaint of another process is the same.
    pub with: Option<String>,
    /// Why, and what to do; empty if that was said.
    pub why: String,
}

impl Complaint {
    /// A complaint about a thing of which there is only one, with its full text.
    fn of(trouble: Trouble, what: String) -> Self {
        Self { trouble, what, with: None, why: String::new() }
    }
}

/// With which of many something is wrong.
#[derive(Debug)]
struct With {
    trouble: Trouble,
    /// The first of them.
    named: Vec<String>,
    /// There are more than the named ones.
    more: bool,
}

/// Text of the problem, and its reason.
type Kind = (String, String);

/// Problems of this gather. A message is written when a problem is new, and again when it comes back.
#[derive(Debug, Default)]
pub struct Complaints {
    said: BTreeSet<Kind>,
    now: BTreeMap<Kind, With>,
    added: u64,
    /// Problems of things that a bound leaves out, each reported once: things near the bound come and go.
    bounded: BTreeSet<Kind>,
}

impl Complaints {
    /// Something is wrong at this gather.
    pub fn add(&mut self, trouble: Trouble, complaint: String) {
        self.complain(Complaint::of(trouble, complaint));
    }

    /// Something is wrong at this gather, with one of many perhaps.
    pub fn complain(&mut self, Complaint { trouble, what, with, why }: Complaint) {
        let all = self.now.entry((what, why)).or_insert(With { trouble, named: Vec::new(), more: false });
        if let Some(one) = with.filter(|one| !all.named.contains(one)) {
            if all.named.len() < NAMED_MAX {
                all.named.push(one);
            } else {
                all.more = true;
            }
        }
        self.added = self.added.wrapping_add(1);
    }

    /// The problems of this gather, with the texts of their messages.
    pub fn iter(&self) -> impl Iterator<Item = (Trouble, String)> {
        self.now.iter().map(|(kind, with)| (with.trouble, in_words(kind, with)))
    }

    /// Returns the number of problems of one kind at this gather.
    #[must_use]
    pub fn count(&self, trouble: Trouble) -> usize {
        self.now.values().filter(|with| with.trouble == trouble).count()
    }

    /// Returns whether this gather has no problem.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.now.is_empty()
    }

    /// Returns the number of problems that were added so far, at all gathers.
    #[must_use]
    pub fn added(&self) -> u64 {
        self.added
    }

    /// Takes back what was added since the last gather.
    pub fn take_back(&mut self) {
        self.now.clear();
    }

    /// Ends a gather: says what is new, forgets what is over.
    pub fn say_changes(&mut self) {
        let now = std::mem::take(&mut self.now);
        for (kind, with) in &now {
            if with.trouble == Trouble::Bounded {
                self.say_bounded(kind, with);
            } else if !self.said.contains(kind) {
                say(Level::Warning, &in_words(kind, with));
            }
        }
        self.said = now.into_keys().collect();
    }

    fn say_bounded(&mut self, kind: &Kind, with: &With) {
        if self.bounded.len() < BOUNDED_MAX && self.bounded.insert(kind.clone()) {
            say(Level::Warning, &in_words(kind, with));
            if self.bounded.len() == BOUNDED_MAX {
                say(Level::Warning, "No more processes that bounds leave out are named; self_stats counts them");
            }
        }
    }
}

/// "What, namely with whom: why".
fn in_words((what, why): &Kind, With { named, more, .. }: &With) -> String {
    let all = if *more { "such as" } else { "namely" };
    let with = if named.is_empty() { String::new() } else { format!(", {all} {}", named.join(", ")) };
    let colon = if why.is_empty() { "" } else { ": " };
    format!("{what}{with}{colon}{why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_many_are_named() {
        let said = |with: &[&str], why: &str| {
            let mut complaints = Complaints::default();
            for one in with {
                let (what, why) = ("it is left out".to_owned(), why.to_owned());
                complaints.complain(Complaint { trouble: Trouble::Denied, what, with: Some((*one).to_owned()), why });
            }
            assert_eq!(complaints.count(Trouble::Denied), 1);
            complaints.iter().map(|(_, text)| text).collect::<Vec<_>>().concat()
        };
        assert_eq!(said(&["a"], "because"), "it is left out, namely a: because");
        assert_eq!(said(&["a", "b", "a", "c"], ""), "it is left out, namely a, b, c");
        assert_eq!(said(&["a", "b", "c", "d"], "because"), "it is left out, such as a, b, c: because");
    }

    /// Which process it is about makes no difference: processes come and go.
    #[test]
    fn a_complaint_of_another_process_is_the_same() {
        let mut complaints = Complaints::default();
        let mut gather = |one: &str| {
            let (what, why, with) = ("it is left out".to_owned(), "because".to_owned(), Some(one.to_owned()));
            complaints.complain(Complaint { trouble: Trouble::Denied, what, with, why });
            let is_new = complaints.now.keys().any(|kind| !complaints.said.contains(kind));
            complaints.say_changes();
            is_new
        };
        assert_eq!(["a", "b", "a"].map(&mut gather), [true, false, false]);
    }
}
