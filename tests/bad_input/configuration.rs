//! Configurations that are refused: exit code 2, one line on stderr with file, line, key and remedy, and
//! nothing on stdout.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::command;

/// A key of `[[inputs.taskstats]]` as written, and what the error says: the key, and what to do.
const INPUT_KEYS: &[(&str, &[&str])] = &[
    ("colect = [\"psstat\"]", &["\"colect\"", "\"collect\""]),
    ("zzz = 1", &["\"zzz\"", "collect, "]),
    ("collect = \"psstat\"", &["collect", "\"psstat\"", "[\"psstat\"]"]),
    ("collect = [\"psstats\"]", &["collect", "psstats", "`psstat`"]),
    ("collect = [1]", &["collect[0]", "string"]),
    ("psstat_fields = [\"p_cup\"]", &["psstat_fields", "\"p_cup\"", "p_cpu"]),
    ("psstat_fields = []", &["psstat_fields", "\"all\""]),
    ("accounting = \"event\"", &["accounting", "event", "scan"]),
    ("name_tag = \"\"", &["name_tag", "empty"]),
    ("interval = \"10 parsecs\"", &["interval", "10 parsecs", "\"10s\""]),
    ("interval = \"0s\"", &["interval", "0s", "100ms"]),
    ("interval = 10", &["interval", "10", "string"]),
    ("omit_hostname = \"yes\"", &["omit_hostname", "\"yes\"", "false"]),
    ("hostname = 1", &["hostname", "1", "string"]),
    ("cache_dir = \"${TASKSTATS_UNSET}\"", &["TASKSTATS_UNSET", "set it"]),
    ("cache_dir = \"${TASKSTATS_UNSET\"", &["cache_dir", "}", "close it"]),
    ("cache_dir = \"${TASKSTATS.X}\"", &["cache_dir", "\"${TASKSTATS.X}\"", "\"$$\""]),
    ("interval = ${PATH}", &["${NAME}", "in quotes"]),
    ("self_stats = \"$PATH\"", &["self_stats", "a boolean", "write the value itself"]),
    ("cache_name = \"a/b\"", &["cache_name", "a/b", "cache_dir"]),
    ("pid_file_stale = \"ignore\"", &["pid_file_stale", "ignore", "skip", "warn"]),
    ("scope = \"trees\"", &["scope", "trees", "`tree`"]),
    ("procmaps_max_rss = \"much\"", &["procmaps_max_rss", "\"much\"", "\"2GiB\""]),
    ("procmaps_max_rss = 2", &["procmaps_max_rss", "2", "\"2GiB\""]),
    ("procmaps_interval = \"0s\"", &["procmaps_interval", "0s", "100ms"]),
    ("thread_max = 0", &["thread_max", "0", "1 or more"]),
    ("thread_max = \"many\"", &["thread_max", "\"many\"", "4096"]),
    ("thread_all_nice = 1", &["thread_all_nice", "1", "false"]),
    ("tags = \"env=production\"", &["tags", "env=production"]),
    ("tags = { env = 1 }", &["tags.env", "1", "\"production\""]),
    ("tags = { time = \"x\" }", &["tags.time", "another name"]),
    ("collect =", &["--sample-config"]),
    ("collect \"psstat\"", &["--sample-config"]),
];

/// The same for `[[inputs.taskstats.target]]`.
const TARGET_KEYS: &[(&str, &[&str])] = &[
    ("pid_fil = \"/run/x.pid\"", &["\"pid_fil\"", "\"pid_file\""]),
    ("pid = \"nginx\"", &["pid", "\"nginx\"", "pid = 1"]),
    ("pid = -1", &["pid", "-1", "pids are 1 to"]),
    ("pid = 0", &["pid", "0", "pids are 1 to"]),
    ("pid = 99999999999", &["pid", "99999999999"]),
    ("pid_file = 7", &["pid_file", "7", "\"/run/nginx.pid\""]),
    ("pattern = \"ngin(x\"", &["pattern", "\"ngin(x\"", "backslash"]),
    ("cmdline = \"*x\"", &["cmdline", "\"*x\"", "backslash"]),
    ("exe = \"/usr/[bin\"", &["exe", "\"/usr/[bin\"", "']'"]),
    ("systemd_unit = \"ngin[x\"", &["systemd_unit", "\"ngin[x", "']'"]),
    ("cgroup = \"web[\"", &["cgroup", "\"web[\"", "']'"]),
    ("scope = \"all\"\npid = 1", &["scope", "all", "`process`"]),
    ("children_of_init = \"yes\"", &["children_of_init", "\"yes\"", "true"]),
];

/// What is wrong with a target as a whole is said of its first line.
const TARGETS: &[(&str, &[&str])] = &[
    ("pid = 1\ncollect = [\"thread\"]\ntags = { nice = \"5\" }", &["\"nice\"", "another key"]),
    ("pid = 1\nscope = \"process\"\ncollect = [\"procstat\"]\nname_tag = \"pid\"", &["\"pid\"", "another key"]),
    ("name = \"web\"", &["selects nothing", "pid_file"]),
    ("children_of_init = false", &["selects nothing", "pid_file"]),
    ("pid = 1\npid_file = \"/run/x.pid\"", &["pid and pid_file", "a target of each"]),
    ("pid = 1\nname = \"\"", &["name", "leave it out"]),
    ("pid = 1\ntags = { process_name = \"x\" }", &["process_name", "name_tag"]),
];

/// A flag and its value, and what the error says of them.
const FLAGS: &[(&str, &str, &[&str])] = &[
    ("--pid", "nginx", &["nginx", "PID"]),
    ("--pid", "web:0", &["0", "pids are 1 to"]),
    ("--pid", "web:-1", &["-1", "pids are 1 to"]),
    ("--pid", "99999999999", &["99999999999"]),
    ("--pid", "a\nb", &["\"a\\nb\""]),
    ("--pattern", "ngin(x", &["\"ngin(x\"", "backslash"]),
    ("--systemd", "ngin[x", &["\"ngin[x", "']'"]),
    ("--collect", "psstat,psstats", &["psstats", "thread]"]),
    ("--scope", "trees", &["trees", "tree"]),
    ("--psstat-fields", "p_cup", &["\"p_cup\"", "p_cpu"]),
    ("--accounting", "event", &["event", "scan"]),
    ("--interval", "10 parsecs", &["10 parsecs", "\"10s\""]),
    ("--interval", "0s", &["0s", "100ms"]),
    ("--tag", "production", &["\"production\"", "KEY=VALUE"]),
    ("--tag", "=x", &["=x", "empty"]),
    ("--name-tag", "", &["empty"]),
    ("--cache-name", "a/b", &["a/b", "cache_dir"]),
];

/// A file that is none.
const PATHS: &[(&str, &str)] =
    &[("/nonexistent.conf", "No such file"), ("/dev/null/x.conf", "Not a directory"), ("/proc/self/fd", "*.conf")];

#[test]
fn a_bad_key_is_refused_with_file_line_and_remedy() {
    for (key, says) in INPUT_KEYS {
        assert_configuration_refused(format!("[[inputs.taskstats]]\n  {key}\n"), &[&["x.conf:2: "], *says].concat());
    }
}

#[test]
fn a_bad_target_is_refused_with_file_line_and_remedy() {
    for (cases, place) in [(TARGET_KEYS, "x.conf:3: "), (TARGETS, "x.conf:2: ")] {
        for (keys, says) in cases {
            let text = format!("[[inputs.taskstats]]\n  [[inputs.taskstats.target]]\n  {keys}\n");
            assert_configuration_refused(text, &[&[place], *says].concat());
        }
    }
}

#[test]
fn tables_that_are_not_ours_are_refused() {
    for (text, says) in [
        ("[inputs.taskstats]\n", "[[inputs.taskstats]]"),
        ("[[input.taskstats]]\n", "\"inputs\""),
        ("[[inputs.taskstat]]\n", "\"taskstats\""),
        ("[[inputs.cpu]]\n", "taskstats"),
    ] {
        assert_configuration_refused(text, &["x.conf:1: ", says]);
    }
}

#[test]
fn what_is_no_toml_is_refused() {
    for text in [&b"\xff\xfe"[..], b"[[inputs.taskstats]\n", b"\0\0\0", b"pid = 1\npid = 1\n"] {
        assert_configuration_refused(text, &["x.conf"]);
    }
}

#[test]
fn what_is_no_file_is_refused() {
    for (path, why) in PATHS {
        let mut command = command();
        command.args(["--config", path]);
        assert_refused(command, &[path, why]);
    }
}

/// Nobody has written that; the memory for it is not even asked for.
#[test]
fn an_endless_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), "");
    std::fs::File::create(&path).unwrap().set_len(1 << 42).unwrap();
    let mut command = command();
    command.arg("--config").arg(path);
    assert_refused(command, &["x.conf"]);
}

#[test]
fn a_bad_flag_is_refused_with_its_value() {
    for (flag, value, says) in FLAGS {
        let mut command = command();
        command.args([flag, value]);
        assert_refused(command, &[&[*flag], *says].concat());
    }
}

#[test]
fn an_unknown_flag_is_refused_by_name() {
    let mut command = command();
    command.arg("--pid-fil=/run/x.pid");
    assert_refused(command, &["--pid-fil", "--pid-file"]);
}

fn write(directory: &Path, text: impl AsRef<[u8]>) -> std::path::PathBuf {
    let path = directory.join("x.conf");
    std::fs::write(&path, text).unwrap();
    path
}

fn assert_configuration_refused(text: impl AsRef<[u8]>, says: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command();
    command.arg("--config").arg(write(directory.path(), text));
    assert_refused(command, says);
}

/// `command` ends with exit code 2 and one line on stderr that contains all of `says`.
fn assert_refused(mut command: Command, says: &[&str]) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let context = format!("{command:?}: {}: {stderr:?}", output.status);
    assert_eq!(output.status.code(), Some(2), "{context}");
    assert!(output.stdout.is_empty(), "{context}");
    assert!(stderr.starts_with("E! ") && stderr.lines().count() == 1, "{context}");
    for part in says {
        assert!(stderr.contains(part), "no {part:?} in {context}");
    }
}
