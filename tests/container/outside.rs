//! What takes the first pid and network namespaces, and so no container: process events and exit records.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::delay_accounting::DelayAccounting;
use crate::document::repository;
use crate::packages::Packages;
use crate::peers::{Running, named, peer, shell};
use crate::support::{binary, field, is_root, skip, wait_for};
use crate::telegraf::{ENABLE, INSTALL, METRICS, integer};

/// A shell that runs a script in a mount namespace; none where that cannot be.
fn namespace(script: &str) -> Option<Command> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash"]).stdin(Stdio::null());
    if !is_root() || !command.args(["-c", "true"]).status().is_ok_and(|status| status.success()) {
        skip("a mount namespace needs root");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", script, "bash"]).stdin(Stdio::null());
    Some(command)
}

/// A place for the package to be installed at, with its configuration.
struct Installed {
    directory: TempDir,
    setup: String,
}

impl Installed {
    fn new(configuration: &str) -> Self {
        let place = format!("cat >/etc/telegraf-taskstats/plugin.conf <<'END'\n{configuration}\nEND\n");
        Self { directory: tempfile::tempdir().unwrap(), setup: format!("{INSTALL}\n{place}{ENABLE}\n") }
    }

    /// Runs a program as the user telegraf, where all of that is installed.
    fn command(&self, words: &str) -> Option<Command> {
        let mut command = namespace(include_str!("outside.sh"))?;
        let (telegraf, packages) = (peer("telegraf")?, Packages::built()?);
        command.args([self.directory.path(), &packages.deb, &telegraf]).arg(&self.setup).args(words.split(' '));
        Some(command)
    }
}

/// By Telegraf, as its user, by the packaged snippet.
#[test]
fn with_file_capabilities_the_user_telegraf_has_events() {
    const COUNT: u64 = 50;
    let Some(_accounting) = DelayAccounting::switch(true) else { return };
    let script = format!("read go; i=0; while [ $i -lt {COUNT} ]; do /bin/true; i=$((i + 1)); done; read end");
    let mut busy = shell(&script, OsStr::new(""));
    let installed = Installed::new(&format!(
        r#"[[inputs.taskstats]]
  collect = ["psstat", "taskstat"]
  psstat_fields = ["all"]
  self_stats = true
  [[inputs.taskstats.target]]
    name = "busy"
    pid = {}"#,
        busy.id()
    ));
    let Some(mut check) = installed.command("telegraf-taskstats --config /etc/telegraf-taskstats/plugin.conf --check")
    else {
        return;
    };
    let check = check.output().unwrap();
    assert!(check.status.success() && text(&check).contains("\nAccounting\n  events  "), "{}", text(&check));

    let telegraf = "telegraf --config /etc/telegraf/telegraf.conf --config-directory /etc/telegraf/telegraf.d";
    let telegraf = Running::start(installed.command(telegraf).unwrap().stdout(Stdio::null()).stderr(Stdio::null()));
    let metrics = format!("/proc/{}/root{METRICS}", telegraf.id());
    let last = |start: &str| {
        let text = fs::read_to_string(&metrics).unwrap_or_default();
        let mut whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        whole.rfind(|line| line.starts_with(start)).map(str::to_owned)
    };
    let psstat = "psstat,process_name=busy ";
    let before = wait_for("a line", || last(psstat));
    busy.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    // However short they live, each is counted.
    wait_for("all children", || {
        (integer(&last(psstat)?, "exited") >= integer(&before, "exited") + COUNT).then_some(())
    });
    let after = last(psstat).unwrap();
    assert_eq!(integer(&after, "started"), integer(&before, "started") + COUNT, "{after}");
    let agent = last("taskstats_agent,").unwrap();
    assert!(agent.contains(",accounting=events,"), "{agent}");
    let taskstat = wait_for("taskstat", || last("taskstat,process_name=busy "));
    assert!(field(&taskstat, "blkio_delay_total").is_some(), "{taskstat}");
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// What telegraf-taskstats.service sets, and what more; `--check` in it. The manager is not the host's: it cannot make users, and
/// the program is the one under test.
fn check_in_the_unit(watched: u32, more: &str) -> Option<Output> {
    let units = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(repository().join("dist/systemd")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), units.path().join(entry.file_name())).unwrap();
    }
    let directory = units.path().join("telegraf-taskstats.service.d");
    fs::create_dir(&directory).unwrap();
    let collect = "--collect psstat,taskstat,procstat,procmaps,thread";
    let drop_in = format!(
        "[Service]\nType=oneshot\nRestart=no\nDynamicUser=no\nGroup=\nStandardOutput=file:/run/out\n\
         StandardError=file:/run/out\nExecStart=\nExecStart=/run/telegraf-taskstats --check {collect} --pid {watched}\n\
         {more}\n"
    );
    fs::write(directory.join("test.conf"), drop_in).unwrap();
    let mut command = namespace(include_str!("manager.sh"))?;
    let output = command.args([units.path(), binary()]).arg("telegraf-taskstats.service").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    Some(output)
}

/// What the unit does not take away is enough for everything.
#[test]
fn in_the_unit_all_of_it_works() {
    let Some(_accounting) = DelayAccounting::switch(true) else { return };
    let watched = named(b"watched");
    let Some(output) = check_in_the_unit(watched.id(), "") else { return };
    let text = text(&output);
    assert!(text.contains("(watched)") && text.contains("\nAccounting\n  events  "), "{text}");
    for measurement in ["psstat", "taskstat", "procstat", "procmaps", "thread"] {
        let works = |line: &str| line.split_whitespace().eq([measurement, "works"]);
        assert!(text.lines().any(works), "{measurement}: {text}");
    }
}

/// What the unit says of itself that cannot be set, and why. (ProtectProc= is for users other than root: see `alone`.)
#[test]
fn what_the_unit_may_not_set_takes_away_what_it_says() {
    let unit = fs::read_to_string(repository().join("dist/systemd/telegraf-taskstats.service")).unwrap();
    let watched = named(b"watched");
    let cases = [
        ("PrivateNetwork=yes", ["\n  scan  ", "initial network namespace"]),
        ("PrivateUsers=yes", ["taskstat  does not work", "outside of this user namespace"]),
        ("ProcSubset=pid", ["p_mem is left out", "/proc/meminfo"]),
    ];
    for (setting, says) in cases {
        assert!(
            unit.lines().any(|line| line.starts_with("# ") && line.contains(setting)),
            "{setting} is not in the unit"
        );
        let Some(output) = check_in_the_unit(watched.id(), setting) else { return };
        let text = text(&output);
        assert!(says.iter().all(|part| text.contains(part)), "{setting}: {text}");
    }
}
