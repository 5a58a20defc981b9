//! The .rpm, by rpm's own tools: what it has, and its life on a host. The tools are installed into the scratch root where this
//! host has none.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root::Root;
use crate::{CAPABILITIES, CONFIGURATION, PROGRAM, PROJECT, Packages, SNIPPET, SYSCTL, has, output};

/// A root with rpm, and the package in it.
fn root() -> Option<(Root, String)> {
    let packages = Packages::built()?;
    let root = Root::new().filter(|root| has(&["getcap"]) && root.has("rpm"))?;
    // Its own, empty: the host's may have another format.
    root.sh("rm -rf /var/lib/rpm && rpm --initdb");
    let package = root.bring(&packages.rpm);
    Some((root, package))
}

/// As a command of a distribution whose packages these are; Debian's rpm wants to be told.
fn rpm(root: &Root, arguments: &str) -> String {
    root.sh(&format!("rpm --force-debian --nodeps {arguments}"))
}

/// The same package, one release later, and with another default configuration.
fn next(directory: &Path) -> PathBuf {
    let project = Path::new(PROJECT);
    for name in ["Cargo.toml", "src", "dist", "tests", "benches", "examples"] {
        symlink(project.join(name), directory.join(name)).unwrap();
    }
    let stage = directory.join("target/package");
    fs::create_dir_all(&stage).unwrap();
    output(Command::new("cp").arg("-r").arg(project.join("target/package/rpm")).arg(&stage));
    let configuration = stage.join("rpm").join(&CONFIGURATION[1..]);
    let default = fs::read_to_string(&configuration).unwrap();
    fs::write(configuration, format!("{default}## A new key.\n")).unwrap();
    let generate = project.join("target/tools/bin/cargo-generate-rpm");
    let to = directory.join("next.rpm");
    let mut command = Command::new(generate);
    output(command.args(["-s", "release = \"2\"", "--output"]).arg(&to).current_dir(directory));
    to
}

#[test]
fn it_has_what_it_is_to_have() {
    let Some((root, package)) = root() else { return };
    let query = |what: &str| root.sh(&format!("rpm -qp {what} {package}"));
    let files =
        query("--qf '[%{FILENAMES} %{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags}\n]'");
    let line = |path: &str| files.lines().find_map(|line| line.strip_prefix(path)).unwrap_or_else(|| panic!("{files}"));
    assert_eq!(line(PROGRAM).trim_end(), " 100750 root:telegraf");
    assert_eq!(line(CONFIGURATION), " 100644 root:root cn"); // configuration, not replaced
    assert_eq!(line("/usr/share/man/man1/telegraf-taskstats.1.gz"), " 100644 root:root d");
    let others = files.lines().filter(|line| !line.starts_with(PROGRAM) && !line.contains(" 100644 root:root "));
    assert_eq!(others.collect::<Vec<_>>(), [""; 0]);
    assert_eq!(query("--configfiles").trim(), CONFIGURATION);
    // No library: it is static. A capability that rpm itself would set fails the installation where it cannot be set.
    let requires = query("--requires");
    assert!(requires.contains("libcap") && !requires.contains(".so"), "{requires}");
    assert!(
        query("--filecaps").lines().all(|line| line.ends_with('=') || line.ends_with(' ') || !line.contains("cap_"))
    );
    let scripts = query("--scripts");
    for script in ["preinstall", "postinstall", "preuninstall", "postuninstall"] {
        assert!(scripts.contains(&format!("{script} scriptlet (using /bin/sh):")), "{scripts}");
    }
    assert!(query("--provides").contains("telegraf-taskstats"));
    root.sh(&format!("rpm -K --nosignature {package}"));
}

#[test]
fn from_installation_to_erasure() {
    let Some((root, package)) = root() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let before = root.ours();
    assert_eq!(root.group(), None);

    let said = rpm(&root, &format!("-i {package}"));
    assert!(said.contains(&format!("ln -s {SNIPPET} /etc/telegraf/telegraf.d/taskstats.conf")), "{said}");
    assert!(!said.contains("does not exist"), "the group is there before the files: {said}");
    assert!(root.group().unwrap() < 1000, "a system group");
    let assert_permitted = || {
        assert_eq!(root.mode(PROGRAM), "750 root:telegraf");
        assert_eq!(root.capabilities(PROGRAM), CAPABILITIES);
    };
    assert_permitted();
    // All is as the package says, but for the capabilities, of which it says nothing.
    let (_, verified) = root.attempt("rpm --nodeps -V telegraf-taskstats");
    let differs = verified.lines().filter(|line| line.split_whitespace().ne(["........P", PROGRAM]));
    assert_eq!(differs.collect::<Vec<_>>(), [""; 0]);

    root.sh(&format!(
        "echo '# mine' >>{CONFIGURATION}
         ln -s {SNIPPET} /etc/telegraf/telegraf.d/taskstats.conf
         ln -s {SYSCTL} /etc/sysctl.d/60-telegraf-taskstats.conf"
    ));
    let next = root.bring(&next(scratch.path()));
    let said = rpm(&root, &format!("-U {next}"));
    assert!(said.contains("systemctl restart telegraf") && !said.contains("ln -s"), "{said}");
    assert!(root.sh("rpm -q telegraf-taskstats").contains("-2"));
    assert_permitted();
    root.sh("[ -L /etc/telegraf/telegraf.d/taskstats.conf ] && [ -L /etc/sysctl.d/60-telegraf-taskstats.conf ]");
    assert!(root.sh(&format!("tail -n 1 {CONFIGURATION}")).contains("# mine"));
    assert!(root.sh(&format!("tail -n 1 {CONFIGURATION}.rpmnew")).contains("A new key"));

    root.sh(&format!("rm {CONFIGURATION}.rpmnew"));
    rpm(&root, "-e telegraf-taskstats");
    root.sh("! [ -L /etc/telegraf/telegraf.d/taskstats.conf ] && ! [ -L /etc/sysctl.d/60-telegraf-taskstats.conf ]");
    assert!(root.sh(&format!("tail -n 1 {CONFIGURATION}.rpmsave")).contains("# mine"));
    assert!(root.group().is_some(), "the group is Telegraf's");
    root.sh("rm -r /etc/telegraf-taskstats");
    assert_eq!(root.ours(), before, "nothing of ours is left but what the user wrote");
}

#[test]
fn what_nobody_changed_is_erased_whole() {
    let Some((root, package)) = root() else { return };
    let before = root.ours();
    root.sh("groupadd -g 4242 telegraf");
    rpm(&root, &format!("-i {package}"));
    rpm(&root, "-e telegraf-taskstats");
    assert_eq!(root.ours(), before);
    assert_eq!(root.group(), Some(4242));
}

#[test]
fn a_missing_setcap_is_a_warning() {
    let Some((root, package)) = root() else { return };
    root.sh("while program=$(command -v setcap); do rm $program; done");
    let said = rpm(&root, &format!("-i {package}"));
    assert!(said.contains(&format!("Warning: no file capabilities for {PROGRAM}")), "{said}");
    assert!(!said.contains("scriptlet failed"), "{said}");
    assert_eq!(root.mode(PROGRAM), "750 root:telegraf");
}
