//! The tarball: installed by its script, and taken away again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::root::Root;
use crate::support::{is_root, skip};
use crate::{CAPABILITIES, CONFIGURATION, Packages, has, output};

const PROGRAM: &str = "/usr/local/bin/telegraf-taskstats";
const SNIPPET: &str = "/usr/local/share/telegraf-taskstats/telegraf.d/taskstats.conf";

/// Unpacks it: the directory that it has everything in.
fn unpacked(tarball: &Path, directory: &Path) -> PathBuf {
    output(Command::new("tar").arg("-xzf").arg(tarball).arg("-C").arg(directory));
    let entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [only] = &entries[..] else { panic!("{entries:?}") };
    only.clone()
}

#[test]
fn the_binary_needs_no_library() {
    let Some(packages) = Packages::built() else { return };
    if !is_root() {
        return skip("chroot needs root");
    }
    let scratch = tempfile::tempdir().unwrap();
    let tree = unpacked(&packages.tarball, scratch.path());
    let said = output(Command::new("chroot").arg(&tree).args(["/telegraf-taskstats", "--version"]));
    assert_eq!(said.trim_end(), concat!("telegraf-taskstats ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn installed_again_and_uninstalled() {
    let Some(packages) = Packages::built() else { return };
    let Some(root) = Root::new().filter(|_| has(&["tar", "getcap"])) else { return };
    root.sh("rm -rf /usr/local/bin/telegraf-taskstats /usr/local/share/telegraf-taskstats");
    let before = root.ours();
    let tarball = root.bring(&packages.tarball);
    root.sh(&format!("cd /packages && tar -xzf {tarball}"));
    let script = "/packages/telegraf-taskstats-*/install.sh";

    let said = root.sh(&format!("umask 077; {script}"));
    let modes = root.sh("stat -c %a /etc/telegraf-taskstats /usr/local/share/telegraf-taskstats");
    assert_eq!(modes.split_whitespace().collect::<Vec<_>>(), ["755"; 2], "whatever the umask is");
    assert!(said.contains(&format!("ln -s {SNIPPET} /etc/telegraf/telegraf.d/taskstats.conf")), "{said}");
    let installed = root.ours();
    let assert_permitted = || {
        assert_eq!(root.mode(PROGRAM), "750 root:telegraf");
        assert_eq!(root.capabilities(PROGRAM), CAPABILITIES);
    };
    assert_permitted();
    let (_, lines) = root.attempt(&format!("{PROGRAM} --config {CONFIGURATION} --pid it:1 --once </dev/null"));
    assert!(lines.contains("psstat,process_name=it "), "{lines}");

    // What leads somewhere leads to what is there.
    let snippet = root.sh(&format!("cat {SNIPPET}"));
    assert!(snippet.contains(&format!("[\"{PROGRAM}\", \"--config\", \"{CONFIGURATION}\"]")), "{snippet}");
    let (_, foreign) = root.attempt(
        "grep -rlE '/usr/(bin|share)/telegraf-taskstats' $(find /usr/local -path '*taskstats*' -type f \
                                     ! -path '*/doc/*' ! -path '*/bin/*')",
    );
    assert_eq!(foreign, "");

    root.sh(&format!(
        "echo '# mine' >>{CONFIGURATION}; ln -s {SNIPPET} /etc/telegraf/telegraf.d/taskstats.conf; {script} install"
    ));
    assert_eq!(root.ours(), [installed, vec!["/etc/telegraf/telegraf.d/taskstats.conf".to_owned()]].concat().sorted());
    assert_permitted();
    assert!(root.sh(&format!("tail -n 1 {CONFIGURATION}")).contains("# mine"));

    let said = root.sh(&format!("{script} uninstall"));
    assert!(said.contains(CONFIGURATION), "{said}");
    root.sh(&format!("[ -e {CONFIGURATION} ] && ! [ -L /etc/telegraf/telegraf.d/taskstats.conf ]"));
    root.sh(&format!("{script} uninstall && rm -r /etc/telegraf-taskstats"));
    assert_eq!(root.ours(), before);
}

trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for Vec<String> {
    fn sorted(mut self) -> Self {
        self.sort();
        self
    }
}

/// As whoever makes a package of it does, with no privilege.
#[test]
fn placed_below_another_root() {
    let Some(packages) = Packages::built() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let tree = unpacked(&packages.tarball, scratch.path());
    let run = |verb: &str| {
        let mut command = Command::new(tree.join("install.sh"));
        command.arg(verb).env("PREFIX", "/opt/x").env("DESTDIR", "below").current_dir(scratch.path());
        output(&mut command)
    };
    run("install");
    let below = scratch.path().join("below");
    let snippet = below.join("opt/x/share/telegraf-taskstats/telegraf.d/taskstats.conf");
    assert!(fs::read_to_string(snippet).unwrap().contains("\"/opt/x/bin/telegraf-taskstats\""));
    assert!(below.join(&CONFIGURATION[1..]).exists());
    let mut version = Command::new(below.join("opt/x/bin/telegraf-taskstats"));
    output(version.arg("--version"));
    run("uninstall");
    let left = output(Command::new("find").args([".", "-type", "f"]).current_dir(&below));
    assert_eq!(left, format!(".{CONFIGURATION}\n"));
    let wrong = Command::new(tree.join("install.sh")).arg("wrong").stderr(Stdio::null()).status().unwrap();
    assert_eq!(wrong.code(), Some(2));
}
