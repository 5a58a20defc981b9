//! stderr: one line a message, with the prefix by which Telegraf tells its level, and only on change.

use std::collections::BTreeSet;
use std::io::Write;

/// Telegraf stops reading stderr for good at a line of 64 KiB.
const LENGTH_MAX: usize = 2048;

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

/// Writes one message. It cannot fail: there is nobody left to tell.
pub fn say(level: Level, message: &str) {
    let prefix = match level {
        Level::Error => "E! ",
        Level::Warning => "W! ",
        Level::Info => "I! ",
    };
    let one_line = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    let text: String = one_line.take(LENGTH_MAX).collect();
    let _ = writeln!(std::io::stderr().lock(), "{prefix}{text}");
}

/// What is wrong at the moment: a complaint is said when it is new, and again when it comes back.
#[derive(Debug, Default)]
pub struct Complaints {
    said: BTreeSet<String>,
    now: BTreeSet<String>,
}

impl Complaints {
    /// Something is wrong at this gather.
    pub fn add(&mut self, complaint: String) {
        self.now.insert(complaint);
    }

    /// Takes back what was added since the last gather.
    pub fn take_back(&mut self) {
        self.now.clear();
    }

    /// Ends a gather: says what is new, forgets what is over.
    pub fn say_changes(&mut self) {
        for complaint in self.now.difference(&self.said) {
            say(Level::Warning, complaint);
        }
        self.said = std::mem::take(&mut self.now);
    }
}
