//! Skips that are seen, and counted. libtest keeps what a test prints and says "ok" of one that has only returned. It keeps what the print
//! macros write, so a skip is written to stderr without them.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of skips in this executable.
static SKIPS: AtomicUsize = AtomicUsize::new(0);

/// Says that a test, or a part of one, is skipped, and why. With TASKSTATS_TEST_NO_SKIP set (as CI does) it fails.
///
/// A reason is that something is not on this host, or is not allowed. What is there and fails is a failure.
pub fn skip(reason: &str) {
    assert!(env::var_os("TASKSTATS_TEST_NO_SKIP").is_none(), "nothing may be skipped here, but: {reason}");
    // libtest names threads after tests. Where one runs in the main thread, its name has just been said.
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or("this test");
    say(&format!("SKIPPED {test}: {reason}"));
    if SKIPS.fetch_add(1, Ordering::Relaxed) == 0 {
        at_exit(say_count);
    }
    if let Err(error) = note(&format!("{}: {test}: {reason}", executable())) {
        say(&format!("{}: {error}: that is missing in the sum of this cargo test", notes().display()));
    }
}

/// Says something at once, whatever libtest keeps.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(format!("\n*** {text} ***\n").as_bytes());
}

extern "C" fn say_count() {
    let count = SKIPS.load(Ordering::Relaxed);
    say(&format!("{}: {count} skipped, whatever is said to be ok; the reasons are above", executable()));
}

#[allow(unsafe_code)] // nothing safe is called at the end of a process
fn at_exit(call: extern "C" fn()) {
    // SAFETY: what is called only reads a static and writes to stderr.
    unsafe { libc::atexit(call) };
}

/// The executable as `cargo test --test` names it.
fn executable() -> String {
    let name = env::current_exe().unwrap().file_stem().unwrap().to_string_lossy().into_owned();
    name.rsplit_once('-').map_or(name.clone(), |(name, _)| name.to_owned())
}

/// The reasons of a whole `cargo test`, a line each, below a line that says which one: beside the executables that it runs.
fn notes() -> PathBuf {
    env::current_exe().unwrap().with_file_name("skipped")
}

/// What tells one `cargo test` from another: its pid, and when it was started.
fn run() -> String {
    let cargo = std::os::unix::process::parent_id();
    let stat = fs::read_to_string(format!("/proc/{cargo}/stat")).unwrap_or_default();
    let start = stat.rsplit(") ").next().and_then(|fields| fields.split(' ').nth(19)).unwrap_or_default();
    format!("{cargo} {start}\n")
}

/// Adds a line to the notes of this `cargo test`; those of another are thrown away.
fn note(reason: &str) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(notes())?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    if !text.starts_with(&run()) {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(run().as_bytes())?;
    }
    writeln!(file, "{}", reason.replace('\n', " "))
}

/// What was skipped in this `cargo test` so far.
#[allow(dead_code)] // one executable asks
pub fn skipped() -> Vec<String> {
    let text = fs::read_to_string(notes()).unwrap_or_default();
    let of_this_run = text.strip_prefix(&run()).unwrap_or_default();
    of_this_run.lines().map(str::to_owned).collect()
}
