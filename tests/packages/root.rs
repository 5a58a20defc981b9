//! A root to install into: this host's own, seen through an overlay, so that it has a shell, dpkg and all that, and nothing that
//! is done to it is done to the host.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::overlay::skip_without_overlay;
use crate::peers::Running;
use crate::sandbox::is_possible;
use crate::support::skip;

/// Mounts it, in a namespace that ends when stdin does.
const MOUNT: &str = r#"
set -e
mount -t tmpfs none "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay none -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
for directory in dev proc sys; do mount --rbind /$directory "$0/root/$directory"; done
mkdir "$0/root/packages"
echo ready
read end
"#;

/// Nothing of what is to be tested is there yet, whatever the host has.
const CLEAN: &str = "
    ! getent group telegraf >/dev/null || { getent passwd telegraf >/dev/null && userdel telegraf; } || groupdel telegraf
    rm -rf /etc/telegraf /etc/telegraf-taskstats
    mkdir -p /etc/telegraf/telegraf.d /etc/sysctl.d /etc/systemd/system/multi-user.target.wants /usr/lib/systemd/system
";

pub struct Root {
    holder: Running,
    directory: TempDir,
}

impl Root {
    pub fn new() -> Option<Self> {
        const UNSHARE: &[&str] = &["unshare", "--mount", "--propagation", "private"];
        if !is_possible(UNSHARE) {
            return None;
        }
        let directory = tempfile::Builder::new().prefix("taskstats-").tempdir_in("/tmp").unwrap();
        let mut command = Command::new(UNSHARE[0]);
        command.args(&UNSHARE[1..]).args(["sh", "-c", MOUNT]).arg(directory.path());
        let mut holder = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut ready = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        if ready != "ready\n" {
            skip_without_overlay();
            return None;
        }
        let root = Self { holder, directory };
        root.sh(CLEAN);
        Some(root)
    }

    /// A command in the root, where the arguments are found too.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("chroot");
        command.arg(self.directory.path().join("root")).args(words).current_dir("/").stdin(Stdio::null());
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command.env_remove("HOST_PROC").env_remove("HOST_SYS");
        command
    }

    /// What a script says, on stdout and stderr, and how it ends.
    pub fn attempt(&self, script: &str) -> (bool, String) {
        let script = format!("exec 2>&1\n{script}");
        let Output { status, stdout, stderr } = self.command(&["sh", "-ec", &script]).output().unwrap();
        assert!(stderr.is_empty(), "{script}: {}", String::from_utf8_lossy(&stderr));
        (status.success(), String::from_utf8(stdout).unwrap())
    }

    /// The same; it must succeed.
    pub fn sh(&self, script: &str) -> String {
        let (succeeds, said) = self.attempt(script);
        assert!(succeeds, "{script}: {said}");
        said
    }

    /// Puts a file into the root, into its `/packages`: where it is then.
    pub fn bring(&self, file: &Path) -> String {
        // The mount is to be seen only from inside.
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let to = format!("/packages/{}", file.file_name().unwrap().to_str().unwrap());
        let inside = root.join(self.directory.path().join("root").strip_prefix("/").unwrap());
        std::fs::copy(file, inside.join(&to[1..])).unwrap();
        to
    }

    /// Whether the root has a program; if not, it is installed there from Debian's package of that name.
    pub fn has(&self, program: &str) -> bool {
        let installed = format!("command -v {program} || {{ apt-get -qq update; apt-get -qqy install {program}; }}");
        let (succeeds, said) = self.attempt(&installed);
        if !succeeds {
            skip(&format!("there is no {program}, and it cannot be had: {said}"));
        }
        succeeds
    }

    /// All files of ours, wherever packages put any.
    pub fn ours(&self) -> Vec<String> {
        let found = self.sh("find /etc /usr /opt /var/lib /var/cache -xdev -path '*taskstats*' | sort");
        found.lines().map(str::to_owned).collect()
    }

    /// Mode, owner and group of a file.
    pub fn mode(&self, path: &str) -> String {
        self.sh(&format!("stat -c '%a %U:%G' {path}")).trim_end().to_owned()
    }

    /// Its capabilities, as getcap has them.
    pub fn capabilities(&self, path: &str) -> String {
        let said = self.sh(&format!("getcap {path}"));
        said.trim_end().strip_prefix(path).unwrap_or(&said).trim_start().to_owned()
    }

    /// The number of the group telegraf.
    pub fn group(&self) -> Option<u32> {
        let (is_there, said) = self.attempt("getent group telegraf");
        is_there.then(|| said.split(':').nth(2).unwrap().parse().unwrap())
    }
}
