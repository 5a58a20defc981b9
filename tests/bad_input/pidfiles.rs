//! Pidfiles that are anything but one pid.

use std::fs::{File, create_dir, write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::Run;
use crate::support::{Plugin, PublicBinary, command, field, is_root};
use crate::watched::{Sleeper, dead_pid};

/// A name, how such a file is made at a path, and what the warning says beside that path.
type Case = (&'static str, fn(&Path), &'static [&'static str]);

const BAD: &[Case] = &[
    ("missing", |_| (), &["No such file"]),
    ("empty", |at| write(at, "").unwrap(), &["\"\"", "not a pid"]),
    ("blank", |at| write(at, "\n \n\t\n").unwrap(), &["not a pid"]),
    ("word", |at| write(at, "nginx\n").unwrap(), &["\"nginx\"", "not a pid"]),
    ("zero", |at| write(at, "0\n").unwrap(), &["\"0\""]),
    ("negative", |at| write(at, "-1\n").unwrap(), &["\"-1\""]),
    ("fraction", |at| write(at, "12.5\n").unwrap(), &["\"12.5\""]),
    ("overflow", |at| write(at, "99999999999999999999\n").unwrap(), &["\"99999999999999999999\""]),
    ("two-words", |at| write(at, "1 1\n").unwrap(), &["\"1 1\""]),
    ("nobody", |at| write(at, dead_pid().to_string()).unwrap(), &["no process"]),
    ("binary", |at| write(at, b"\x7fELF\x02\x01\x01\0\xff\xfe").unwrap(), &["not a pid"]),
    ("long-line", |at| write(at, "7".repeat(1 << 20)).unwrap(), &["777"]),
    ("huge", |at| File::create(at).unwrap().set_len(1 << 40).unwrap(), &["not a pid"]),
    ("directory", |at| create_dir(at).unwrap(), &["directory"]),
    ("fifo", |at| mknodat(CWD, at, FileType::Fifo, Mode::RWXU, 0).unwrap(), &["regular file"]),
    ("socket", |at| drop(UnixListener::bind(at).unwrap()), &["not a regular file"]),
    ("device", |at| symlink("/dev/zero", at).unwrap(), &["regular file"]),
    ("loop", |at| symlink(at, at).unwrap(), &["ymbolic link"]), // in the words of glibc and of musl
    ("dangling", |at| symlink("/nonexistent/x.pid", at).unwrap(), &["No such file"]),
];

#[test]
fn a_bad_pidfile_finds_nothing_and_is_warned_about_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut plugin = command();
    for (name, make, _) in BAD {
        let path = directory.path().join(format!("{name}.pid"));
        make(&path);
        plugin.arg("--pid-file").arg(format!("{name}:{}", path.display()));
    }
    let run = Run::with_good_target(plugin, BAD.len());
    for (name, _, says) in BAD {
        run.assert_nothing_found(name);
        run.assert_warned_once(&format!("/{name}.pid"), says);
    }
}

/// In a directory as well: the file is there, and what it should name is not. A directory below is no pidfile.
#[test]
fn bad_pidfiles_in_a_directory_cost_no_other_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let sleeper = Sleeper::new();
    write(directory.path().join("sleeper.pid"), sleeper.pid().to_string()).unwrap();
    for (name, make, _) in BAD {
        make(&directory.path().join(format!("{name}.pid")));
    }
    let bad = || BAD.iter().filter(|(name, ..)| !["missing", "directory"].contains(name));
    let mut plugin = command();
    plugin.arg("--pid-dir").arg(directory.path());
    let run = Run::with_good_target(plugin, bad().count() + 1);
    for line in run.lines_of("sleeper") {
        assert_eq!(field(line, "n_proc"), Some("1i"), "{line}");
    }
    for (name, _, says) in bad() {
        run.assert_nothing_found(name);
        run.assert_warned_once(&format!("/{name}.pid"), says);
    }
}

#[test]
fn a_bad_pid_dir_costs_no_other_target_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    write(&file, "1\n").unwrap();
    for (path, says) in [(directory.path().join("missing"), "No such file"), (file, "Not a directory")] {
        let mut plugin = command();
        plugin.arg("--pid-dir").arg(&path);
        let run = Run::with_good_target(plugin, 0);
        run.assert_warned_once(&path.display().to_string(), &[says]);
    }
}

/// Lines count up to the first that is not a pid, and white space around one is nothing.
#[test]
fn odd_pidfiles_that_are_right() {
    let (one, two) = (Sleeper::new(), Sleeper::new());
    let (a, b) = (one.pid(), two.pid());
    // The pid, the data directory, the start time, the port (here a pid that must not count), …
    let postgresql = format!("{a}\n/var/lib/postgresql\n1700000000\n{b}\n/run/postgresql\n*\n 5432001 0\nready\n");
    // However much is read of it, half a line is no pid: a page ends after the `b` of a number too large for one.
    let first_line = format!("{a:<width$}\n", width = 4095 - b.to_string().len());
    let cut = format!("{first_line}{b}99999999999\n");
    let cases = [
        ("bare", format!("{a}"), "1i"),
        ("crlf", format!("{a}\r\n"), "1i"),
        ("padded", format!("  {a}\t\n"), "1i"),
        ("two", format!("{a}\n{b}\n"), "2i"),
        ("twice", format!("{a}\n{a}\n"), "1i"),
        ("up-to-a-word", format!("{a}\nstop\n{b}\n"), "1i"),
        ("postgresql", postgresql, "1i"),
        ("cut", cut, "1i"),
    ];
    let directory = tempfile::tempdir().unwrap();
    let mut plugin = command();
    for (name, text, _) in &cases {
        let path = directory.path().join(name);
        write(&path, text).unwrap();
        plugin.arg("--pid-file").arg(format!("{name}:{}", path.display()));
    }
    let run = Run::with_good_target(plugin, cases.len());
    for (name, _, found) in &cases {
        for line in run.lines_of(name) {
            assert_eq!(field(line, "n_proc"), Some(*found), "{line}");
        }
    }
    assert!(run.stderr.is_empty(), "{:?}", run.stderr);
}

#[test]
fn an_unreadable_pidfile() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = directory.path().join("closed.pid");
    write(&path, "1\n").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    let public = PublicBinary::new();
    let mut plugin = if is_root() { public.command_as_ordinary_user() } else { command() };
    plugin.arg("--pid-file").arg(format!("closed:{}", path.display()));
    let run = Run::with_good_target(plugin, 0); // no line: what cannot be seen may well run
    run.assert_warned_once("/closed.pid", &["Permission denied"]);
}

/// A pid that belongs to somebody who came two minutes after the file was written.
#[test]
fn a_stale_pidfile_is_skipped_or_warned_about() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stale.pid");
    let sleeper = Sleeper::new();
    write(&path, sleeper.pid().to_string()).unwrap();
    let before = SystemTime::now() - Duration::from_secs(120);
    File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    for (policy, found) in [("skip", "0i"), ("warn", "1i")] {
        let configuration = directory.path().join("stale.conf");
        let target = format!("name = \"stale\"\npid_file = {:?}\n", path.to_str().unwrap());
        let text =
            format!("[[inputs.taskstats]]\npid_file_stale = \"{policy}\"\n[[inputs.taskstats.target]]\n{target}");
        write(&configuration, text).unwrap();
        let mut plugin = command();
        plugin.arg("--config").arg(configuration);
        let run = Run::with_good_target(plugin, 1);
        for line in run.lines_of("stale") {
            assert_eq!(field(line, "n_proc"), Some(found), "{policy}: {line}");
        }
        run.assert_warned_once("/stale.pid", &[&sleeper.pid().to_string()]);
    }
}

/// A pidfile may turn bad, and good again, while it is watched.
#[test]
fn a_pidfile_that_becomes_a_fifo_and_a_file_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.pid");
    let sleeper = Sleeper::new();
    let pid = sleeper.pid().to_string();
    let mut command = command();
    command.arg("--pid-file").arg(format!("x:{}", path.display()));
    let steps: [(&dyn Fn(), &str); 3] = [
        (&|| write(&path, &pid).unwrap(), "1i"),
        (&|| mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap(), "0i"),
        (&|| write(&path, &pid).unwrap(), "1i"),
    ];
    let mut plugin = Plugin::start(command);
    for (step, found) in steps {
        let _ = std::fs::remove_file(&path);
        step();
        let line = plugin.gather(1).remove(0);
        assert_eq!(field(&line, "n_proc"), Some(found), "{line}");
    }
    let (status, _, stderr) = plugin.stop();
    assert!(status.success() && stderr.iter().any(|line| line.starts_with("W! ")), "{status}: {stderr:?}");
}
