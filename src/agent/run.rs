//! The event loop: waits for triggers, gathers, and writes the lines.

use std::io;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Agent;
use crate::accounting::Accounting;
use crate::cli::Arguments;
use crate::kernel::pipe::wait_for_reader;
use crate::log::{Level, say};
use crate::trigger::{Trigger, Triggers};
use crate::write::Writer;

/// Longest wait for the reader to take the last lines after a stop. Telegraf kills the plugin 10 s after it has closed
/// stdin.
const LAST_WORDS: Duration = Duration::from_secs(8);

/// Context of an error of the event loop.
const CANNOT_WAIT: &str = "Cannot wait for triggers";

/// Runs until a trigger stops it or stdout is closed.
///
/// # Errors
/// Writing to stdout failed for another reason than that it was closed, or the loop cannot wait.
pub async fn run(mut agent: Agent, mut triggers: Triggers, arguments: &Arguments) -> anyhow::Result<()> {
    let writer = Writer::open().context("Cannot open stdout")?;
    let mut unwatched = None;
    watch(&agent, &mut triggers, &mut unwatched);
    let primed = agent.prime();
    loop {
        match triggers.next(agent.accounting()).await.context(CANNOT_WAIT)? {
            Trigger::Gather => {
                triggers.hear_until(primed, agent.accounting()).await.context(CANNOT_WAIT)?;
                let lines = agent.gather();
                match write(&writer, &lines, &mut triggers, agent.accounting()).await {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    written => written.context("Cannot write to stdout")?,
                }
            }
            Trigger::Observe => agent.observe(),
            Trigger::Reload => agent.reload(arguments, &mut triggers),
            Trigger::Stop => break,
        }
        watch(&agent, &mut triggers, &mut unwatched);
    }
    // The reader of a pipe that closes with us may be slow, but not for ever.
    wait_for_reader(io::stdout(), last_words(&triggers).unwrap_or_else(Instant::now));
    Ok(())
}

/// Has hints come from the directories of pidfiles, if there are any. The plugin works without hints: why there are none is said once.
fn watch(agent: &Agent, triggers: &mut Triggers, said: &mut Option<io::ErrorKind>) {
    let failed = triggers.watch(agent.watched_directories()).err();
    if let Some(error) = failed.as_ref().filter(|error| Some(error.kind()) != *said) {
        say(Level::Warning, &format!("Pidfile directories are read at every gather but not watched: {error}"));
    }
    *said = failed.map(|error| error.kind());
}

/// Writes the lines of a gather. A reader that does not read holds everything up, except a stop.
async fn write(writer: &Writer, lines: &[u8], triggers: &mut Triggers, accounting: &mut Accounting) -> io::Result<()> {
    let mut left = writer.write(lines)?;
    while !left.is_empty() {
        let room = writer.room()?;
        while !triggers.hear(accounting, Some(&room), last_words(triggers)).await? {
            if last_words(triggers).is_some_and(|last| Instant::now() >= last) {
                return Err(io::Error::from(io::ErrorKind::BrokenPipe));
            }
        }
        left = writer.write(left)?;
    }
    Ok(())
}

/// Returns until when a reader may read the last lines, if a stop was asked for.
fn last_words(triggers: &Triggers) -> Option<Instant> {
    triggers.stopped().map(|since| since + LAST_WORDS)
}
