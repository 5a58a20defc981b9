//! A host with systemd: the container of `scripts/container`.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::packages::Packages;
use crate::peers::peer;
use crate::support::{UNABLE, is_root, skip, wait_for};

/// A running container, of which nothing stays when it is dropped.
pub struct Container {
    script: Child,
    /// Its init, as seen from here.
    leader: u32,
}

impl Container {
    /// One in which the package is installed, by apt.
    pub fn with_package() -> Option<Self> {
        let container = Self::boot(&[])?;
        container.place(&Packages::built()?.deb, "/root/telegraf-taskstats.deb");
        container.run("apt-get install --yes /root/telegraf-taskstats.deb");
        Some(container)
    }

    /// One as it is, with options for systemd-nspawn.
    pub fn boot(options: &[&str]) -> Option<Self> {
        if !is_root() {
            skip("a container needs root");
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/container");
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(script);
        command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said.reopen().unwrap());
        let mut script = command.spawn().unwrap();
        let mut leader = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut leader).unwrap();
        let Ok(leader) = leader.trim().parse() else {
            let status = script.wait().unwrap();
            let said = fs::read_to_string(said.path()).unwrap();
            assert_eq!(status.code(), Some(UNABLE), "scripts/container fails: {said}");
            skip(&format!("scripts/container cannot boot one here: {}", said.lines().last().unwrap_or_default()));
            return None;
        };
        Some(Self { script, leader })
    }

    /// What is at a path in it.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.leader))
    }

    /// Copies a file into it.
    pub fn place(&self, from: &Path, to: &str) {
        fs::copy(from, self.path(to)).unwrap();
    }

    /// Copies a program of target/peers to where a package of it has it.
    pub fn place_peer(&self, program: &str) -> Option<()> {
        let to = format!("/usr/bin/{program}");
        self.place(&peer(program)?, &to);
        fs::set_permissions(self.path(&to), fs::Permissions::from_mode(0o755)).unwrap();
        Some(())
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The text of a file; of none, if there is no such file.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Runs a script as root, in a unit of its own: with what the container may, and in its cgroup.
    pub fn attempt(&self, script: &str) -> Ran {
        let leader = self.leader.to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &leader, "--all", "systemd-run", "--pipe", "--wait", "--quiet", "--collect"]);
        command.args(["--property=WorkingDirectory=/root", "bash", "-e", "-u", "-o", "pipefail", "-c", script]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// The same for a script that succeeds: what it says on stdout.
    pub fn run(&self, script: &str) -> String {
        let ran = self.attempt(script);
        assert_eq!(ran.code, Some(0), "{script}\n{ran}");
        ran.stdout
    }

    /// Waits until the log of a unit has a line with this text, and gives that line. Each call sees the whole log.
    pub fn wait_for_log(&self, unit: &str, text: &str) -> String {
        wait_for(&format!("{text:?} in the log of {unit}"), || {
            let log = self.run(&format!("journalctl --no-pager --output=cat --unit={unit}"));
            log.lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// A property of a unit, as systemd tells it.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.run(&format!("systemctl show --property={name} --value {unit}")).trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.script.stdin.take()); // that is its end
        let _ = self.script.wait();
    }
}

/// What a script did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Display for Ran {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "status {:?}\n{}{}", self.code, self.stdout, self.stderr)
    }
}
