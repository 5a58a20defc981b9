//! Selectors that are well written and find nothing.

use crate::Run;
use crate::support::command;
use crate::watched::dead_pid;

#[test]
fn what_is_not_there_is_nothing_found() {
    let targets = [
        ("pid", dead_pid().to_string()),
        ("pattern", "^no such comm$".to_owned()),
        ("systemd", "no-such-unit".to_owned()),
    ];
    let mut plugin = command();
    for (selector, value) in &targets {
        plugin.arg(format!("--{selector}")).arg(format!("{selector}:{value}"));
    }
    let run = Run::with_good_target(plugin, targets.len());
    for (selector, _) in &targets {
        run.assert_nothing_found(selector);
    }
    run.assert_warned_once(&targets[0].1, &["No process"]);
}

#[test]
fn a_target_of_a_file_that_matches_nothing() {
    let keys = ["cmdline = \"no such command line\"", "exe = \"/no/such/file\"", "cgroup = \"no/such/cgroup\""];
    let targets = keys.map(|key| format!("[[inputs.taskstats.target]]\nname = \"{}\"\n{key}\n", &key[..3]));
    let configuration = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&configuration, format!("[[inputs.taskstats]]\n{}", targets.concat())).unwrap();
    let mut plugin = command();
    plugin.arg("--config").arg(configuration.path());
    let run = Run::with_good_target(plugin, keys.len());
    for key in keys {
        run.assert_nothing_found(&key[..3]);
    }
}

/// Users come and go: that there is none of the name now is no error of the configuration.
#[test]
fn an_unknown_user() {
    let configuration = tempfile::NamedTempFile::new().unwrap();
    let target = "[[inputs.taskstats.target]]\nname = \"nobody\"\nuser = \"no-such-user\"\n";
    std::fs::write(&configuration, format!("[[inputs.taskstats]]\n{target}")).unwrap();
    let mut plugin = command();
    plugin.arg("--config").arg(configuration.path());
    let run = Run::with_good_target(plugin, 1);
    run.assert_nothing_found("nobody");
    run.assert_warned_once("\"no-such-user\"", &["user"]);
}

/// comm is cut at 15 bytes: a longer literal pattern never matches anything.
#[test]
fn a_pattern_longer_than_a_comm() {
    let mut plugin = command();
    plugin.args(["--pattern", "long:a-name-of-twenty-one"]);
    let run = Run::with_good_target(plugin, 1);
    run.assert_nothing_found("long");
    run.assert_warned_once("\"a-name-of-twenty-one\"", &["15", "cmdline"]);
}
