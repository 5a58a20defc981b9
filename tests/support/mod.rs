//! What the tests that run the real binary share.
// Each test binary uses its own part of it.
#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

#[path = "skip.rs"]
mod skips;
#[allow(unused_imports)] // some skip nothing
pub use skips::skip;

/// How long a test waits for something that must happen: long enough for a loaded machine, since nothing
/// is asserted about the time itself.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a script of ours ends that takes what this host does not have; any other failure is one.
pub const UNABLE: i32 = 77;

/// The binary under test: that of this checkout, unless TASKSTATS_TEST_BINARY names another.
pub fn binary() -> &'static Path {
    static NAMED: LazyLock<Option<PathBuf>> = LazyLock::new(|| Some(std::env::var_os("TASKSTATS_TEST_BINARY")?.into()));
    NAMED.as_deref().unwrap_or(Path::new(env!("CARGO_BIN_EXE_telegraf-taskstats")))
}

/// A command that runs the binary under test, with an environment of its own.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    command.env_remove("HOST_PROC").env_remove("HOST_SYS");
    command
}

/// The same through a shell that redirects first, as in `<&-`.
pub fn redirected(redirection: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("exec \"$0\" \"$@\" {redirection}")).arg(binary());
    command.env_remove("HOST_PROC").env_remove("HOST_SYS");
    command
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The uid and gid of an ordinary user ("nobody").
pub const ORDINARY_USER: u32 = 65534;

/// A copy of the binary where every user can reach it: a checkout may lie below a closed directory.
pub struct PublicBinary {
    directory: tempfile::TempDir,
}

impl PublicBinary {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("taskstats-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let to = directory.path().join("telegraf-taskstats");
        copy_program(binary(), &to);
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    /// A command that runs the copy as an ordinary user without any supplementary group.
    pub fn command_as_ordinary_user(&self) -> Command {
        let mut command = Command::new(self.directory.path().join("telegraf-taskstats"));
        command.env_remove("HOST_PROC").env_remove("HOST_SYS");
        command.uid(ORDINARY_USER).gid(ORDINARY_USER).current_dir("/");
        command
    }
}

/// Copies a program, by cp(1): a child that another test forks meanwhile would hold a file that this process writes, and to execute it
/// would fail (ETXTBSY).
pub fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    assert!(Command::new("cp").args([from.as_ref(), to.as_ref()]).status().unwrap().success());
}

/// A running plugin: newlines go in, lines come out. Killed when dropped.
pub struct Plugin {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Plugin {
    /// Starts `command` with pipes on stdin, stdout and stderr, as Telegraf's execd does.
    pub fn start(mut command: Command) -> Self {
        with_default_signals(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: lines(child.stdout.take().unwrap()),
            stderr: lines(child.stderr.take().unwrap()),
            child,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One newline: the gather signal.
    pub fn prompt(&mut self) {
        let written = self.stdin.as_mut().unwrap().write_all(b"\n");
        written.unwrap_or_else(|e| panic!("no prompt ({e}); stderr: {:?}", self.stderr.try_iter().collect::<Vec<_>>()));
    }

    /// The next line of stdout; panics when none comes.
    pub fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).unwrap_or_else(|e| {
            panic!("no line from the plugin ({e}); stderr: {:?}", self.stderr.try_iter().collect::<Vec<_>>())
        })
    }

    /// One prompt and the `count` lines that answer it.
    pub fn gather(&mut self, count: usize) -> Vec<String> {
        self.prompt();
        (0..count).map(|_| self.line()).collect()
    }

    /// Waits for a line on stderr that contains `text`.
    pub fn wait_stderr(&self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.stderr.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("stderr never said {text:?}, only {seen:?}");
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Closes stdin and collects what is left: the exit status, the rest of stdout and of stderr.
    pub fn stop(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        drop(self.stdin.take());
        let status = wait(&mut self.child);
        (status, self.stdout.iter().collect(), self.stderr.iter().collect())
    }

    /// Waits for the plugin to end by itself, stdin left open.
    pub fn wait(mut self) -> (ExitStatus, Vec<String>, Vec<String>) {
        let status = wait(&mut self.child);
        (status, self.stdout.iter().collect(), self.stderr.iter().collect())
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Signals that are ignored where the tests are started, as by nohup(1) or in the background of a script, would be ignored by what they
/// start, too.
#[allow(unsafe_code)] // there is no other way to change it for a child alone
fn with_default_signals(command: &mut Command) {
    let reset = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2] {
            // SAFETY: it is one of those that may be called between fork(2) and execve(2), and there is no handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: nothing else is called, and nothing is allocated.
    unsafe { command.pre_exec(reset) };
}

/// Waits for a child; panics (after killing it) when it does not end.
pub fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            panic!("the process did not end");
        }
        std::thread::sleep(Duration::from_millis(5)); // std has no wait with a time-out
    }
}

/// Polls until `condition` gives something; panics with `what` when it never does.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5)); // a poll, not a synchronisation
    }
}

/// The lines of a stream, read by a thread of their own so that no pipe ever fills.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}

/// A field of a line-protocol line, as text: `field(line, "n_proc")` is `Some("3i")`. Only for lines
/// without spaces, quotes or escapes.
pub fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let fields = line.split(' ').nth(1)?;
    fields.split(',').find_map(|f| f.strip_prefix(name)?.strip_prefix('='))
}
