//! The packages: what is in them, and what they do to a host from the installation to the purge. `scripts/package` builds them.
//! The hosts are scratch roots: this one, with all that is written kept in memory and thrown away. They take root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking,
#![allow(clippy::print_stderr)] // and says what it skips
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere

mod support;

#[path = "support/delay_accounting.rs"]
mod delay_accounting;
#[path = "support/overlay.rs"]
mod overlay;
#[path = "support/peers.rs"]
mod peers;
#[path = "permissions/sandbox.rs"]
#[allow(dead_code)] // of the tests of permissions
mod sandbox;

#[path = "support/packages.rs"]
mod built;
#[path = "packages/contents.rs"]
mod contents;
#[path = "packages/deb.rs"]
mod deb;
#[path = "packages/root.rs"]
mod root;
#[path = "packages/rpm.rs"]
mod rpm;
#[path = "packages/started.rs"]
mod started;
#[path = "packages/tarball.rs"]
mod tarball;

use std::process::{Command, Stdio};

use built::Packages;
use support::skip;

/// The project.
const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

/// Where the packages have things.
const PROGRAM: &str = "/usr/bin/telegraf-taskstats";
const CONFIGURATION: &str = "/etc/telegraf-taskstats/plugin.conf";
const SNIPPET: &str = "/usr/share/telegraf-taskstats/telegraf.d/taskstats.conf";
const SYSCTL: &str = "/usr/share/telegraf-taskstats/sysctl.d/60-telegraf-taskstats.conf";
const UNIT: &str = "/usr/lib/systemd/system/telegraf-taskstats.service";

/// What `getcap` says of the program.
const CAPABILITIES: &str = "cap_net_admin,cap_sys_ptrace=p";

/// What a program prints; it must succeed.
fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether this host has these programs, which else are said to be missing.
fn has(programs: &[&str]) -> bool {
    let is_there = |program: &&str| {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).stdout(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    let missing: Vec<_> = programs.iter().filter(|program| !is_there(program)).collect();
    if !missing.is_empty() {
        skip(&format!("there is no {missing:?}"));
    }
    missing.is_empty()
}
