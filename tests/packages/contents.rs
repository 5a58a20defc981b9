//! What is in the .deb and in the tarball; see `rpm.rs` for the .rpm.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::delay_accounting::DelayAccounting;
use crate::support::{self, is_root, skip};
use crate::{CONFIGURATION, PROGRAM, PROJECT, Packages, SNIPPET, SYSCTL, has, output};

const SHARE: &str = "/usr/share/telegraf-taskstats";

/// The files of the project below a directory, as paths below it.
fn files(directory: &str) -> Vec<String> {
    let paths = fs::read_dir(Path::new(PROJECT).join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file());
    paths.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The writer's script and settings lie beside the units.
fn is_unit(name: &str) -> bool {
    name.ends_with(".service") || name.ends_with(".socket")
}

#[test]
fn the_deb_has_what_it_is_to_have() {
    let Some(packages) = Packages::built() else { return };
    if !has(&["dpkg-deb"]) {
        return;
    }
    let mut expected: BTreeSet<String> = [
        ("rwxr-x---", PROGRAM),
        ("rw-r--r--", CONFIGURATION),
        ("rw-r--r--", SNIPPET),
        ("rw-r--r--", SYSCTL),
        ("rw-r--r--", "/usr/share/telegraf-taskstats/setup.sh"),
        ("rw-r--r--", "/usr/share/man/man1/telegraf-taskstats.1.gz"),
        ("rw-r--r--", "/usr/share/bash-completion/completions/telegraf-taskstats"),
        ("rw-r--r--", "/usr/share/zsh/vendor-completions/_telegraf-taskstats"),
        ("rw-r--r--", "/usr/share/fish/vendor_completions.d/telegraf-taskstats.fish"),
        ("rw-r--r--", "/usr/share/doc/telegraf-taskstats/copyright"),
        ("rw-r--r--", "/usr/share/doc/telegraf-taskstats/changelog.gz"),
        ("rw-r--r--", "/usr/share/doc/telegraf-taskstats/changelog.Debian.gz"),
        ("rw-r--r--", "/usr/share/doc/telegraf-taskstats/README.md"),
        ("rw-r--r--", "/usr/share/doc/telegraf-taskstats/ARCHITECTURE.md"),
        ("rw-r--r--", "/usr/share/doc/telegraf-taskstats/CONTRIBUTING.md"),
        ("rw-r--r--", "/usr/share/doc/telegraf-taskstats/plugin.conf.example"),
    ]
    .map(|(mode, path)| format!("-{mode} {path}"))
    .into();
    let parts = [
        ("dist/systemd", "/usr/lib/systemd/system"),
        ("dist/grafana", "/usr/share/telegraf-taskstats/grafana"),
        ("dist/alerts", "/usr/share/telegraf-taskstats/alerts"),
        ("docs", "/usr/share/doc/telegraf-taskstats/docs"),
        ("docs/images", "/usr/share/doc/telegraf-taskstats/docs/images"),
    ];
    for (from, to) in parts {
        let to = |name: &str| if is_unit(name) || from != "dist/systemd" { to } else { SHARE };
        expected.extend(files(from).iter().map(|name| format!("-rw-r--r-- {}/{name}", to(name))));
    }
    let listing = output(Command::new("dpkg-deb").arg("-c").arg(&packages.deb));
    let entry = |line: &str| -> [String; 3] {
        let words: Vec<_> = line.split_whitespace().collect();
        [words[0], words[1], words[5]].map(|word| word.trim_start_matches('.').to_owned())
    };
    let entries: Vec<_> = listing.lines().map(entry).collect();
    assert!(entries.iter().all(|[_, owner, _]| owner == "0/0" || owner == "root/root"), "{listing}");
    let (directories, files): (Vec<_>, Vec<_>) = entries.iter().partition(|[mode, ..]| mode.starts_with('d'));
    assert!(directories.iter().all(|[mode, ..]| mode == "drwxr-xr-x"), "{listing}");
    let files: BTreeSet<_> = files.iter().map(|[mode, _, path]| format!("{mode} {path}")).collect();
    assert_eq!(files, expected);
}

/// A program names its source files when it panics: not those of whoever has built it.
#[test]
fn the_program_does_not_tell_where_it_was_built() {
    let Some(packages) = Packages::built() else { return };
    let directory = tempfile::tempdir().unwrap();
    output(
        Command::new("tar")
            .arg("-xzf")
            .arg(&packages.tarball)
            .arg("--strip-components=1")
            .arg("-C")
            .arg(directory.path()),
    );
    let program = fs::read(directory.path().join("telegraf-taskstats")).unwrap();
    let home = std::env::var("HOME").unwrap();
    for place in ["registry/src", PROJECT, &format!("{home}/.")] {
        let told = program.windows(place.len()).any(|bytes| bytes == place.as_bytes());
        assert!(!told, "{place} is in it");
    }
}

#[test]
fn the_deb_has_one_conffile_which_is_the_example() {
    let Some(packages) = Packages::built() else { return };
    if !has(&["dpkg-deb"]) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    output(Command::new("dpkg-deb").arg("-R").arg(&packages.deb).arg(scratch.path()));
    let read = |path: &str| fs::read_to_string(scratch.path().join(path)).unwrap();
    assert_eq!(read("DEBIAN/conffiles").trim(), CONFIGURATION);
    let example = fs::read_to_string(Path::new(PROJECT).join("plugin.conf.example")).unwrap();
    assert_eq!(read(&CONFIGURATION[1..]), example);
    assert!(read("DEBIAN/control").contains("\nDepends: libcap2-bin"));
    assert!(read("usr/share/doc/telegraf-taskstats/copyright").contains("License: MIT"));
    // The program comes without capabilities, from its package and from the tarball: tar has none.
    for [path, text] in [[SNIPPET, "data_format = \"influx\""], [SYSCTL, "kernel.task_delayacct = 1"]] {
        assert!(read(&path[1..]).contains(text), "{path}");
    }
}

/// They are made from the same source, and each says all of it.
#[test]
fn every_flag_has_its_place_in_the_manual_and_the_completions() {
    let Some(packages) = Packages::built() else { return };
    let scratch = tempfile::tempdir().unwrap();
    output(
        Command::new("tar").arg("-xzf").arg(&packages.tarball).args(["--strip-components=1", "-C"]).arg(scratch.path()),
    );
    let path = |name: &str| scratch.path().join(name);
    let read = |name: &str| fs::read_to_string(path(name)).unwrap();
    let manual = output(Command::new("gzip").arg("-dc").arg(path("telegraf-taskstats.1.gz"))).replace('\\', "");
    let help = output(support::command().arg("--help"));
    let flags: BTreeSet<_> = help.split(|c: char| !(c.is_alphanumeric() || "-_".contains(c))).collect();
    let flags: Vec<_> = flags.into_iter().filter_map(|word| word.strip_prefix("--")).collect();
    assert!(flags.len() > 20, "{help}");
    for flag in flags {
        for (what, text) in [
            ("the manual", &manual),
            ("bash", &read("completions/telegraf-taskstats")),
            ("zsh", &read("completions/_telegraf-taskstats")),
            ("fish", &read("completions/telegraf-taskstats.fish")),
        ] {
            // Shells complete no second name.
            let is_alias = flag == "poll_interval" && what != "the manual";
            assert!(text.contains(flag) || is_alias, "{what} has no --{flag}");
        }
    }
    if has(&["bash"]) {
        let said = output(
            Command::new("bash")
                .args(["-c", "source \"$0\" && complete -p telegraf-taskstats"])
                .arg(path("completions/telegraf-taskstats")),
        );
        assert!(said.trim_end().ends_with(" telegraf-taskstats"), "{said}");
    }
}

#[test]
fn the_sysctl_file_switches_delay_accounting_on() {
    if !is_root() {
        return skip("sysctl needs root");
    }
    let Some(_accounting) = DelayAccounting::switch(false).filter(|_| has(&["sysctl"])) else { return };
    let file = Path::new(PROJECT).join("dist/sysctl.d/60-telegraf-taskstats.conf");
    output(Command::new("sysctl").arg("-p").arg(file));
    assert_eq!(fs::read_to_string("/proc/sys/kernel/task_delayacct").unwrap().trim(), "1");
}
