//! Names that break what is written carelessly, and what is to become of them.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of it

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use influxdb_line_protocol::{ParsedLine, parse_lines};
use tempfile::TempDir;

use super::peers::{Running, named};

/// How many series the hostile names make.
pub const SERIES: usize = 50;

/// Names as a configuration may hold them (in TOML's notation), and as they are to arrive.
const NAMES: [(&str, &str); 32] = [
    ("plain", "plain"),
    ("two words", "two words"),
    (" leading space", " leading space"),
    ("trailing space ", "trailing space "),
    ("com,ma", "com,ma"),
    (",", ","),
    ("equ=als", "equ=als"),
    ("=", "="),
    ("a,b=c d", "a,b=c d"),
    (r#"quo\"te"#, r#"quo"te"#),
    (r#"\"quoted\""#, r#""quoted""#),
    (r#"\""#, r#"""#),
    ("apo'strophe", "apo'strophe"),
    (r"back\\slash", "back/slash"),
    (r"trailing backslash\\", "trailing backslash/"),
    (r"two trailing\\\\", "two trailing//"),
    (r"\\,escaped comma", "/,escaped comma"),
    (r"\\ escaped space", "/ escaped space"),
    (r"new\nline", "new line"),
    (r"nl\nevil v=1i 1", "nl evil v=1i 1"),
    (r"cr\rlf\r\n.", "cr lf  ."),
    (r"tab\ttab", "tab tab"),
    (r"nul\u0000and\u0001one", "nul and one"),
    (r"escape \u001b[31m", "escape  [31m"),
    (r"del\u007f and c1\u0085.", "del  and c1 ."),
    ("# no comment", "# no comment"),
    ("psstat p_cpu=1 1", "psstat p_cpu=1 1"),
    ("größe Ω 進程", "größe Ω 進程"),
    ("🦀👩‍💻", "🦀👩‍💻"),
    (r"\u202eright to left", "\u{202e}right to left"),
    ("100%", "100%"),
    ("0", "0"),
];

/// The comm of processes that are selected by pid alone, any fifteen bytes. The second name is the `process_name`.
const COMMS: [(&[u8], &str); 9] = [
    (b"(comm) S 1 2 3", "(comm) S 1 2 3"),
    (b"co,m=m \"x\"", "co,m=m \"x\""),
    (b"comm\nx v=1 1", "comm x v=1 1"),
    (b"comm\t\r\x01\x7f", "comm    "),
    (b"comm\\", "comm/"),
    (b"# comm", "# comm"),
    (b"comm \xff\xfe", "comm \u{fffd}\u{fffd}"),
    (b"comm \xf0\x9f\xa6\x80", "comm 🦀"),
    (b" comm ", " comm "),
];

/// Files in a pid_dir, each named by what is left of its first dot.
const PIDFILES: [(&[u8], &str); 8] = [
    (b"file.pid", "file"),
    (b"fi,le=x y.pid", "fi,le=x y"),
    (b"fi\"le.pid", "fi\"le"),
    (b"file\\.pid", "file/"),
    (b"file\nx v=1 1.pid", "file x v=1 1"),
    (b"# file\t\r.pid", "# file  "),
    (b"file \xff\xfe.pid", "file \u{fffd}\u{fffd}"),
    ("datei größe 🦀.pid".as_bytes(), "datei größe 🦀"),
];

/// A name no one should have, too long for a file or a comm.
fn long_name() -> String {
    "long, ".repeat(1000)
}

/// Processes and files with hostile names, and the configuration that selects them: `SERIES` series.
pub struct Hostile {
    directory: TempDir,
    /// They are there as long as this is.
    processes: Vec<Running>,
}

impl Hostile {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let processes: Vec<_> = COMMS.iter().map(|(comm, _)| named(comm)).collect();
        let pid = processes.first().unwrap().id();
        let pid_dir = directory.path().join("pids");
        fs::create_dir(&pid_dir).unwrap();
        for (file, _) in PIDFILES {
            fs::write(pid_dir.join(OsStr::from_bytes(file)), pid.to_string()).unwrap();
        }
        let hostile = Self { directory, processes };
        fs::write(hostile.config(), hostile.config_text(&pid_dir)).unwrap();
        hostile
    }

    /// Each of `NAMES` is a target that is always the same process; the others have no name but what is found.
    fn config_text(&self, pid_dir: &Path) -> String {
        let pids: Vec<_> = self.processes.iter().map(|process| process.id()).collect();
        let long = long_name();
        let names = NAMES.iter().map(|(written, _)| *written).chain([long.as_str()]);
        let named = names.map(|name| format!("name = \"{name}\"\npid = {}", pids[0]));
        let nameless = pids.iter().map(|pid| format!("pid = {pid}"));
        let discovered = format!("pid_dir = \"{}\"", pid_dir.display());
        let targets = named.chain(nameless).chain([discovered]);
        targets.fold(HEAD.to_owned(), |text, target| text + "[[inputs.taskstats.target]]\n" + &target + "\n")
    }

    /// The configuration file that selects them.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("hostile.conf")
    }
}

const HEAD: &str = r#"
[[inputs.taskstats]]
psstat_fields = ["all"]
hostname = "h,o=s t\\"
[inputs.taskstats.tags]
env = "e\nn,v=\\"
empty = ""
"#;

/// The names under which all of them are to arrive.
pub fn expected_names() -> BTreeSet<String> {
    let names = NAMES.iter().map(|n| n.1).chain(COMMS.iter().map(|n| n.1)).chain(PIDFILES.iter().map(|n| n.1));
    let names: BTreeSet<_> = names.map(str::to_owned).chain([long_name()]).collect();
    assert_eq!(names.len(), SERIES);
    names
}

/// The tags that all of them are to have beside the name.
pub fn expected_tags() -> Tags {
    [("env", "e n,v=/"), ("host", "h,o=s t/")].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// A line as a parser reads it that is not ours.
pub fn parse(line: &str) -> ParsedLine<'_> {
    let mut lines = parse_lines(line);
    let first = lines.next().expect(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
    assert!(lines.next().is_none(), "{line:?}");
    first
}

pub fn tags(line: &ParsedLine<'_>) -> Tags {
    let tags = line.series.tag_set.iter().flatten();
    tags.map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

pub type Tags = BTreeMap<String, String>;
