//! The packages: what is in them, and what they do to a host from the installation to the purge. `scripts/package` builds them.
//! The hosts are scratch roots: this one, with all that is written kept in memory and thrown away. They take root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking,
#![allow(clippy::print_stderr)] // and says what it skips
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere

mod support;

#[path = "support/delay_accounting.rs"]
mod delay_accounting;
#[path = "support/peers.rs"]
mod peers;
#[path = "permissions/sandbox.rs"]
#[allow(dead_code)] // of the tests of permissions
mod sandbox;

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

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

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

/// What comes out of `scripts/package`.
struct Packages {
    deb: PathBuf,
    rpm: PathBuf,
    tarball: PathBuf,
}

impl Packages {
    /// Built by the first test that asks. Most of it is cargo's, which does not build what is built.
    fn built() -> Option<&'static Self> {
        static BUILT: OnceLock<Result<Packages, String>> = OnceLock::new();
        match BUILT.get_or_init(Self::build) {
            Ok(packages) => Some(packages),
            Err(error) => {
                skip(&format!("scripts/package fails here: {error}"));
                None
            }
        }
    }

    fn build() -> Result<Self, String> {
        let script = Path::new(PROJECT).join("scripts/package");
        let output = Command::new(script).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let built = fs::read_dir(Path::new(PROJECT).join("target/dist")).unwrap().map(|entry| entry.unwrap().path());
        let built: Vec<_> = built.collect();
        assert_eq!(built.len(), 3, "{built:?}");
        let of = |end: &str| built.iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap().clone();
        Ok(Self { deb: of(".deb"), rpm: of(".rpm"), tarball: of(".tar.gz") })
    }
}

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
