//! The installed program, started as Telegraf starts it: by a user of the group telegraf. Whatever stands in the way of its file
//! capabilities, it starts, and `--check` names that.

use crate::delay_accounting::DelayAccounting;
use crate::root::Root;
use crate::sandbox::{Check, Watched};
use crate::{CONFIGURATION, PROGRAM, Packages, has};

/// A user of the group, and of no other. What setpriv itself keeps of root's capabilities ends with the next program, env.
const TELEGRAF: [&str; 6] = ["--reuid", "4711", "--regid", "telegraf", "--clear-groups", "env"];

/// A root with the package, whose plugin watches a process of root's.
struct Installed {
    root: Root,
    _watched: Watched,
    /// Delays are counted, which is not what is tested.
    _accounting: DelayAccounting,
}

impl Installed {
    fn new() -> Option<Self> {
        let packages = Packages::built()?;
        let root = Root::new().filter(|_| has(&["dpkg", "setcap", "setpriv"]))?;
        let accounting = DelayAccounting::switch(true)?;
        root.sh(&format!("dpkg -i {}", root.bring(&packages.deb)));
        let watched = Watched::new();
        let pid = watched.pid();
        root.sh(&format!(
            "cat >{CONFIGURATION} <<END
[[inputs.taskstats]]
  collect = [\"psstat\", \"taskstat\", \"procmaps\"]
  [[inputs.taskstats.target]]
    name = \"it\"
    pid = {pid}
END"
        ));
        Some(Self { root, _watched: watched, _accounting: accounting })
    }

    /// The plugin, with what setpriv does besides.
    fn words<'a>(more: &'a [&'a str], argument: &'a str) -> Vec<&'a str> {
        [&["setpriv"], more, &TELEGRAF, &[PROGRAM, "--config", CONFIGURATION, argument]].concat()
    }

    /// It gathers: the measurements that come.
    fn measurements(&self, more: &[&str]) -> Vec<String> {
        let output = self.root.command(&Self::words(more, "--once")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let measurements = lines.lines().map(|line| line.split_once(",process_name=it ").unwrap().0.to_owned());
        measurements.collect()
    }

    fn check(&self, more: &[&str]) -> Check {
        Check::of(&mut self.root.command(&Self::words(more, "--check")))
    }

    /// It runs, without what takes capabilities, and says why.
    fn assert_lacks(&self, more: &[&str], remedy: &str) {
        assert_eq!(self.measurements(more), ["psstat"]);
        let complaints: [&[&str]; 2] =
            [&["taskstat is left out", "CAP_NET_ADMIN", remedy], &["procmaps leaves out", "CAP_SYS_PTRACE", remedy]];
        self.check(more).assert_fails(&complaints);
    }

    /// It does not even start.
    fn assert_fails(&self, words: &[&str], why: &str) {
        let output = self.root.command(words).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
    }
}

#[test]
fn it_starts_whatever_stands_in_the_way() {
    let Some(it) = Installed::new() else { return };
    assert_eq!(it.measurements(&[]), ["psstat", "taskstat", "procmaps"]);
    it.check(&[]).assert_works();
    // As in a container.
    let bounded = ["--bounding-set", "-net_admin,-sys_ptrace"];
    it.assert_lacks(&bounded, "CapabilityBoundingSet=CAP_");
    it.assert_lacks(&["--no-new-privs"], "AmbientCapabilities=CAP_");
    it.root.sh("mount --bind /usr/bin /usr/bin && mount -o remount,bind,nosuid /usr/bin");
    it.assert_lacks(&[], "file system that is not mounted nosuid");
    it.root.sh("umount --lazy /usr/bin");

    // What makes the difference: with the effective bit, execve(2) fails where one of them cannot be had.
    it.root.sh(&format!("setcap cap_net_admin,cap_sys_ptrace=ep {PROGRAM}"));
    it.assert_fails(&Installed::words(&bounded, "--once"), "Operation not permitted");
    // And nobody else may.
    let stranger = ["setpriv", "--reuid", "4711", "--regid", "4711", "--clear-groups", "env", PROGRAM, "--version"];
    it.assert_fails(&stranger, "Permission denied");
}
