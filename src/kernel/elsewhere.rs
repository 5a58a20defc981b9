//! For tests of what one process cannot do to itself: the test program runs itself once more, with another task, perhaps in
//! another namespace.

use std::fmt::Display;
use std::process::{Command, Stdio};

/// Names the task of the program that is run once more.
const TASK: &str = "TASKSTATS_TEST_ELSEWHERE";

/// Says loudly that a test skips; where nothing may be skipped, it fails.
pub(crate) fn skip(why: impl Display) {
    assert!(std::env::var_os("TASKSTATS_TEST_NO_SKIP").is_none(), "nothing may be skipped here, but: {why}");
    eprintln!("\n*** SKIPPED: {why} ***\n");
}

/// Whether a command that goes into a namespace may; skips if not.
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

/// What this program was run once more for.
pub(crate) fn task() -> Option<String> {
    std::env::var(TASK).ok()
}
