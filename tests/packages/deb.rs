//! The life of the .deb on a host, by dpkg.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root::Root;
use crate::{CAPABILITIES, CONFIGURATION, PROGRAM, Packages, SNIPPET, SYSCTL, UNIT, has, output};

const PACKAGE: &str = "telegraf-taskstats";

/// What the user makes of it: the configuration is edited, and all is enabled. A link of somebody else stands beside.
fn use_it(root: &Root) {
    root.sh(&format!(
        "echo '# mine' >>{CONFIGURATION}
         touch /etc/telegraf-taskstats/writer.env
         ln -s {SNIPPET} /etc/telegraf/telegraf.d/taskstats.conf
         ln -s {SYSCTL} /etc/sysctl.d/60-telegraf-taskstats.conf
         ln -s {UNIT} /etc/systemd/system/multi-user.target.wants/telegraf-taskstats.service
         ln -s {CONFIGURATION} /etc/telegraf/telegraf.d/another.conf"
    ));
}

fn links(root: &Root) -> Vec<String> {
    let found = root.sh("find /etc/telegraf/telegraf.d /etc/sysctl.d /etc/systemd/system -lname '*taskstats*' | sort");
    found.lines().map(str::to_owned).collect()
}

const USED: [&str; 4] = [
    "/etc/sysctl.d/60-telegraf-taskstats.conf",
    "/etc/systemd/system/multi-user.target.wants/telegraf-taskstats.service",
    "/etc/telegraf/telegraf.d/another.conf",
    "/etc/telegraf/telegraf.d/taskstats.conf",
];

fn assert_permitted(root: &Root) {
    assert_eq!(root.mode(PROGRAM), "750 root:telegraf");
    assert_eq!(root.capabilities(PROGRAM), CAPABILITIES);
}

/// The next version, with another default configuration.
fn next(deb: &Path, directory: &Path) -> PathBuf {
    let (tree, next) = (directory.join("tree"), directory.join("next.deb"));
    output(Command::new("dpkg-deb").arg("-R").args([deb, &tree]));
    let control = fs::read_to_string(tree.join("DEBIAN/control")).unwrap();
    let old = control.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap();
    fs::write(tree.join("DEBIAN/control"), control.replace(old, &format!("{old}.1"))).unwrap();
    let configuration = tree.join(&CONFIGURATION[1..]);
    let default = fs::read_to_string(&configuration).unwrap();
    fs::write(configuration, format!("{default}## A new key.\n")).unwrap();
    output(Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).args([&tree, &next]));
    next
}

#[test]
fn from_installation_to_purge() {
    let Some(packages) = Packages::built() else { return };
    let Some(root) = Root::new().filter(|_| has(&["dpkg", "dpkg-deb", "getcap"])) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let before = root.ours();
    assert_eq!(root.group(), None);

    let said = root.sh(&format!("dpkg -i {}", root.bring(&packages.deb)));
    assert!(said.contains(&format!("ln -s {SNIPPET} /etc/telegraf/telegraf.d/taskstats.conf")), "{said}");
    assert!(!said.contains("Warning"), "{said}");
    assert!(root.group().unwrap() < 1000, "a system group");
    assert_permitted(&root);
    assert!(links(&root).is_empty(), "nothing is enabled by itself");

    use_it(&root);
    // Without a question, the answer is to keep what the user has.
    let next = root.bring(&next(&packages.deb, scratch.path()));
    let said = root.sh(&format!("dpkg --force-confdef -i {next}"));
    assert!(said.contains("systemctl restart telegraf") && !said.contains("ln -s"), "{said}");
    assert_permitted(&root);
    assert_eq!(links(&root), USED);
    assert!(root.sh(&format!("tail -n 1 {CONFIGURATION}")).contains("# mine"));

    root.sh(&format!("dpkg -r {PACKAGE}"));
    assert_eq!(links(&root), ["/etc/telegraf/telegraf.d/another.conf"]);
    assert!(root.sh(&format!("tail -n 1 {CONFIGURATION}")).contains("# mine"), "removed is not purged");
    root.sh(&format!("! [ -e {PROGRAM} ] && ! [ -e {SNIPPET} ]"));

    root.sh(&format!("dpkg -P {PACKAGE}"));
    assert_eq!(root.ours(), before, "nothing of ours is left");
    assert!(root.group().is_some(), "the group is Telegraf's");
}

/// As where Telegraf was there first.
#[test]
fn a_group_that_is_there_is_taken_as_it_is() {
    let Some(packages) = Packages::built() else { return };
    let Some(root) = Root::new().filter(|_| has(&["dpkg", "getcap"])) else { return };
    root.sh("groupadd -g 4242 telegraf");
    root.sh(&format!("dpkg -i {}", root.bring(&packages.deb)));
    assert_permitted(&root);
    root.sh(&format!("dpkg -P {PACKAGE}"));
    assert_eq!(root.group(), Some(4242));
}

/// dpkg-statoverride(1) is the administrator's word.
#[test]
fn an_override_stands() {
    let Some(packages) = Packages::built() else { return };
    let Some(root) = Root::new().filter(|_| has(&["dpkg", "getcap"])) else { return };
    root.sh(&format!("dpkg-statoverride --add root daemon 0710 {PROGRAM}"));
    root.sh(&format!("dpkg -i {}", root.bring(&packages.deb)));
    assert_eq!(root.mode(PROGRAM), "710 root:daemon");
    assert_eq!(root.capabilities(PROGRAM), CAPABILITIES);
}

/// It is told, and everything else is done.
fn assert_only_warned(root: &Root, deb: &Path) {
    let said = root.sh(&format!("dpkg -i {}", root.bring(deb)));
    assert!(said.contains(&format!("Warning: no file capabilities for {PROGRAM}")), "{said}");
    assert_eq!(root.mode(PROGRAM), "750 root:telegraf");
    assert!(root.sh(&format!("dpkg -s {PACKAGE}")).contains("Status: install ok installed"));
    assert!(root.sh(&format!("{PROGRAM} --once --pid it:1 </dev/null")).contains("psstat,process_name=it "));
}

#[test]
fn a_missing_setcap_is_a_warning() {
    let Some(packages) = Packages::built() else { return };
    let Some(root) = Root::new().filter(|_| has(&["dpkg"])) else { return };
    root.sh("while program=$(command -v setcap); do rm $program; done");
    assert_only_warned(&root, &packages.deb);
}

#[test]
fn a_file_system_without_capabilities_is_a_warning() {
    let Some(packages) = Packages::built() else { return };
    let Some(root) = Root::new().filter(|_| has(&["dpkg", "setcap"])) else { return };
    // A ramfs has no extended attributes.
    root.sh("mount -t ramfs none /mnt
         mkdir /mnt/upper /mnt/work
         mount -t overlay none -o lowerdir=/usr/bin,upperdir=/mnt/upper,workdir=/mnt/work /usr/bin");
    assert_only_warned(&root, &packages.deb);
}
