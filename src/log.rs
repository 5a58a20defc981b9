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

/// What is wrong at the moment: a complaint is said when it is new, and again when it comes back.
#[derive(Debug, Default)]
pub struct Complaints {
    said: BTreeMap<String, Trouble>,
    now: BTreeMap<String, Trouble>,
    added: u64,
    /// What a bound leaves out is said once and for all: what is near the bound comes and goes.
    bounded: BTreeSet<String>,
}

impl Complaints {
    /// Something is wrong at this gather.
    pub fn add(&mut self, trouble: Trouble, complaint: String) {
        self.now.insert(complaint, trouble);
        self.added = self.added.wrapping_add(1);
    }

    /// What is wrong at this gather.
    pub fn iter(&self) -> impl Iterator<Item = (Trouble, &str)> {
        self.now.iter().map(|(complaint, trouble)| (*trouble, complaint.as_str()))
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
        for (complaint, trouble) in &now {
            if *trouble == Trouble::Bounded {
                self.say_bounded(complaint);
            } else if !self.said.contains_key(complaint) {
                say(Level::Warning, complaint);
            }
        }
        self.said = now;
    }

    fn say_bounded(&mut self, complaint: &str) {
        if self.bounded.len() < BOUNDED_MAX && self.bounded.insert(complaint.to_owned()) {
            say(Level::Warning, complaint);
            if self.bounded.len() == BOUNDED_MAX {
                say(Level::Warning, "No more is said of what bounds leave out; self_stats counts it");
            }
        }
    }
}
