//! Names that could break a line: every byte of a comm is somebody else's.

use std::collections::BTreeSet;

use influxdb_line_protocol::parse_lines;

use crate::support::{Plugin, command};
use crate::watched::{FakeProc, Sleeper, Stat};

/// A comm, and the process_name that is emitted.
const COMMS: &[(&[u8], &str)] = &[
    (b"nl\nevil v=1i 1", "nl evil v=1i 1"),
    (b"cr\rlf\n", "cr lf "),
    (b"tab\there", "tab here"),
    (b"\x01\x1b[31m\x7f", "  [31m "),
    (b"two words", "two words"),
    (b"\"quoted\"", "\"quoted\""),
    (b"back\\slash", "back/slash"),
    (b"at the end\\", "at the end/"),
    (b"a=b,c=d", "a=b,c=d"),
    (b"#comment", "#comment"),
    (b"\xff\xfe\x80", "\u{fffd}\u{fffd}\u{fffd}"),
    ("größe".as_bytes(), "größe"),
    (b") Z 0 (", ") Z 0 ("),
    (b") R 1 1 1 1 1", ") R 1 1 1 1 1"),
];

#[test]
fn a_comm_cannot_break_its_line() {
    let sleepers: Vec<_> = COMMS.iter().map(|(comm, _)| Sleeper::named(comm)).collect();
    let mut command = command();
    for sleeper in &sleepers {
        command.arg("--pid").arg(sleeper.pid().to_string());
    }
    let expected: BTreeSet<String> = COMMS.iter().map(|(_, name)| (*name).to_owned()).collect();
    let mut plugin = Plugin::start(command);
    for _ in 0..2 {
        let lines = plugin.gather(COMMS.len());
        assert_eq!(names(&lines), expected);
    }
    let (status, rest, _) = plugin.stop();
    assert!(status.success() && rest.is_empty(), "{status}: {rest:?}");
}

/// A comm that no file can be named: the tag is left out rather than empty, and a '/' is nothing special.
#[test]
fn a_comm_that_is_empty_or_a_path() {
    for (comm, series) in [("", "psstat "), ("kworker/0:1-ev", "psstat,process_name=kworker/0:1-ev ")] {
        let fake = FakeProc::new();
        fake.put(&Stat::old(100, comm));
        let mut command = command();
        command.arg("--proc-root").arg(fake.path()).args(["--pid", "100"]);
        let line = Plugin::start(command).gather(1).remove(0);
        assert!(line.starts_with(series), "{line}");
        assert_eq!(names(&[line]).len(), usize::from(!comm.is_empty()));
    }
}

/// Names of files reach the tag as well.
#[test]
fn a_pidfile_name_cannot_break_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let sleeper = Sleeper::new();
    std::fs::write(directory.path().join("x\nevil v=1i 1\\.pid"), sleeper.pid().to_string()).unwrap();
    let mut command = command();
    command.arg("--pid-dir").arg(directory.path());
    let mut plugin = Plugin::start(command);
    let lines = plugin.gather(1);
    assert_eq!(names(&lines), BTreeSet::from(["x evil v=1i 1/".to_owned()]));
    assert!(plugin.stop().1.is_empty());
}

/// What the lines' process_name tags say to a parser that is not ours; each line is one metric of psstat
/// that counts one process.
fn names(lines: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in lines {
        let parsed: Vec<_> = parse_lines(line).collect();
        assert_eq!(parsed.len(), 1, "{line}");
        let parsed = parsed[0].as_ref().unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(parsed.series.measurement, "psstat", "{line}");
        assert_eq!(parsed.field_value("n_proc").map(ToString::to_string).as_deref(), Some("1i"), "{line}");
        names.extend(parsed.tag_value("process_name").map(ToString::to_string));
    }
    names
}
