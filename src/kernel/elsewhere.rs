//! For tests of what one process cannot do to itself: the test program runs itself once more, with another task, perhaps in
//! another namespace.

use std::fmt::Display;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::capability::Capability;

#[path = "../../tests/support/events.rs"]
mod events;
#[path = "../../tests/support/skip.rs"]
mod skips;

/// Names the task of the program that is run once more.
const TASK: &str = "TASKSTATS_TEST_ELSEWHERE";

/// Says that a test skips; see there.
pub(crate) fn skip(why: impl Display) {
    skips::skip(&why.to_string());
}

/// Skips what could not be had, where something stands in the way of it; elsewhere that is a failure.
pub(crate) fn cannot_be_had(what: &str, error: &io::Error) {
    let reason = events::why_no_events();
    let reason = reason.or_else(|| (!Capability::NetAdmin.is_held()).then(|| "CAP_NET_ADMIN is missing".into()));
    let reason = reason.unwrap_or_else(|| panic!("{what} must be had here, but: {error}"));
    skip(format_args!("{what} cannot be had: {error}: {reason}"));
}

/// Waits until something is so; fails when it never is.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1)); // a poll, not a synchronisation
    }
}

/// Returns whether a command may enter a namespace; skips the test if not.
pub(crate) fn can_go(unshare: &[&str]) -> bool {
    let status = Command::new(unshare[0]).args(&unshare[1..]).arg("true").stderr(Stdio::null()).status();
    let can = status.is_ok_and(|status| status.success());
    if !can {
        skip(format_args!("{unshare:?} is not possible"));
    }
    can
}

/// This test program once more, with two threads, to run only `test`, which asks for its [`task`]; behind the words `before`.
pub(crate) fn itself(before: &[&str], test: &str, task: &str) -> Command {
    let itself = std::env::current_exe().unwrap();
    let mut words = before.iter().map(|word| word.as_ref()).chain([itself.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--exact", test, "--nocapture"]).env("RUST_TEST_THREADS", "2").env(TASK, task);
    command
}

/// Runs this program again for one test, and returns whether the test passes. (libtest succeeds for a name that no test
/// has.)
pub(crate) fn passes(before: &[&str], test: &str, task: &str) -> bool {
    let output = itself(before, test, task).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("\nrunning 1 test\n"), "there is no {test}: {said}");
    output.status.success()
}

/// Returns the task for which this program was run again.
pub(crate) fn task() -> Option<String> {
    std::env::var(TASK).ok()
}
