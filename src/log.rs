//! stderr: one line a message, with the prefix by which Telegraf tells its level, and only on change.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::kernel::pipe;

/// Longest message, bytes. (Telegraf stops reading stderr for good at a line of 64 KiB.)
const LENGTH_MAX: usize = 2000;

/// How long a reader may take for the last of it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `E! `: something asked for is not done.
    Error,
    /// `W! `: something is missing, the rest goes on.
    Warning,
    /// `I! `: good to know.
    Info,
}

/// So many things that a bound leaves out are named.
const BOUNDED_MAX: usize = 20;

/// How many messages nobody could take.
static LOST: AtomicUsize = AtomicUsize::new(0);

/// Writes one message, unless stderr is full: a reader who does not read must not hold up what gathers. It cannot fail: there
/// is nobody left to tell.
pub fn say(level: Level, message: &str) {
    let stderr = std::io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    if matches!(poll(&mut ready, Some(&Timespec::default())), Ok(0)) {
        LOST.fetch_add(1, Ordering::Relaxed);
        return;
    }
    match LOST.swap(0, Ordering::Relaxed) {
        0 => {}
        lost => write(&format!("W! {lost} messages are lost, since nobody read them")),
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

/// One line, in one piece: a pipe that is ready takes 4096 bytes without blocking.
fn write(message: &str) {
    let mut line: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(LENGTH_MAX));
    line.push('\n');
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// What was named is not there now.
    Absent,
    /// It is there, and may not be looked at.
    Denied,
    /// It could not be looked at for another reason.
    Failed,
    /// A bound of the configuration leaves it out.
    Bounded,
}

impl Trouble {
    /// That of an error.
    #[must_use]
    pub fn of(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Absent,
            std::io::ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Failed,
        }
    }
}

/// So many of the things that something is wrong with are named.
const NAMED_MAX: usize = 3;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// What kind of thing.
    pub trouble: Trouble,
    /// What is wrong.
    pub what: String,
    /// With which of many, like a process. That is named, and makes no difference: a complaint of another process is the same.
    pub with: Option<String>,
    /// Why, and what to do; empty if that was said.
    pub why: String,
}

impl Complaint {
    /// One of something of which there is only one, as it is said.
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
    /// Whether there are more.
    more: bool,
}

/// What is wrong and why.
type Kind = (String, String);

/// What is wrong at the moment: a complaint is said when it is new, and again when it comes back.
#[derive(Debug, Default)]
pub struct Complaints {
    said: BTreeSet<Kind>,
    now: BTreeMap<Kind, With>,
    added: u64,
    /// What a bound leaves out is said once and for all: what is near the bound comes and goes.
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

    /// What is wrong at this gather, as it is said.
    pub fn iter(&self) -> impl Iterator<Item = (Trouble, String)> {
        self.now.iter().map(|(kind, with)| (with.trouble, in_words(kind, with)))
    }

    /// How many things of a kind are wrong at this gather.
    #[must_use]
    pub fn count(&self, trouble: Trouble) -> usize {
        self.now.values().filter(|with| with.trouble == trouble).count()
    }

    /// Whether nothing is wrong at this gather.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.now.is_empty()
    }

    /// How often something was found to be wrong so far, at whatever gather.
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
                say(Level::Warning, "No more is said of what bounds leave out; self_stats counts it");
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
