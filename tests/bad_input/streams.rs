//! stdin and stdout that are closed, flooded or nonsense.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{self, Plugin, command, wait};

/// The plugin, watching this process.
fn watching() -> Command {
    watch(command())
}

/// The same, stdin or stdout being redirected by a shell.
fn redirected(redirection: &str) -> Command {
    watch(support::redirected(redirection))
}

fn watch(mut command: Command) -> Command {
    command.arg("--pid").arg(format!("good:{}", std::process::id()));
    command
}

/// Nobody listens any more: an end, not an error.
#[test]
fn stdout_closed_by_the_reader() {
    let mut plugin = watching().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    drop(plugin.stdout.take());
    plugin.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(wait(&mut plugin).code(), Some(0));
}

#[test]
fn stdout_closed_at_start() {
    let mut plugin = Plugin::start(redirected(">&-"));
    plugin.prompt();
    let (status, lines, _) = plugin.stop();
    assert!(status.success() && lines.is_empty(), "{status}: {lines:?}");
}

/// A full disk is an error, and is told.
#[test]
fn stdout_that_takes_nothing() {
    let mut plugin = Plugin::start(redirected(">/dev/full"));
    plugin.prompt();
    let (status, _, stderr) = plugin.wait();
    assert_eq!(status.code(), Some(1), "{stderr:?}");
    assert!(matches!(&stderr[..], [line] if line.starts_with("E! ") && line.contains("No space")), "{stderr:?}");
}

/// As under cron: one gather, with a p_cpu.
#[test]
fn stdin_closed_at_start() {
    let (status, lines, stderr) = Plugin::start(redirected("<&-")).wait();
    assert!(status.success() && stderr.is_empty(), "{status}: {stderr:?}");
    assert!(matches!(&lines[..], [line] if line.contains("p_cpu=")), "{lines:?}");
}

/// stdin that can only be written to ends where it begins.
#[test]
fn stdin_that_cannot_be_read() {
    let (status, lines, _) = Plugin::start(redirected("0>/dev/null")).wait();
    assert!(status.success(), "{status}: {lines:?}");
    let (status, lines, _) = Plugin::start(redirected("</")).wait();
    assert!(status.success() && lines.is_empty(), "{status}: {lines:?}");
}

/// Newlines that arrive during a gather are one prompt.
#[test]
fn a_flood_of_newlines() {
    let mut plugin = watching().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = plugin.stdin.take().unwrap();
    let newlines = 1 << 20;
    stdin.write_all(&vec![b'\n'; newlines]).unwrap();
    drop(stdin);
    let output = plugin.wait_with_output().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap().lines().count();
    assert!(output.status.success() && (1..newlines / 1000).contains(&answers), "{answers} answers");
}

/// Only a newline is a prompt; what stands before it is nobody's business.
#[test]
fn nonsense_on_stdin() {
    for (nonsense, answers) in [(&b"no newline at all"[..], 0), (b"\xff\0 what?\r\n", 1), (&[b'x'; 1 << 20], 0)] {
        let mut plugin = watching().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        plugin.stdin.take().unwrap().write_all(nonsense).unwrap();
        let output = plugin.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.lines().count() == answers, "{}: {text}", output.status);
    }
}
