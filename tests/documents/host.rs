//! A copy of this host on which documents may do as they please: the same files behind an overlay in memory, in a mount namespace of its
//! own, with Telegraf and the plugin installed. It is gone when it is dropped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::document::repository;
use crate::overlay::skip_without_overlay;
use crate::peers::{Running, peer};
use crate::support::{PATIENCE, binary, is_root, skip};

/// Makes the copy below `$1`, with one of the repository `$2` in it, says so, and keeps it until stdin is closed.
const HOLD: &str = r#"
mount -t tmpfs -o mode=755 none "$1"
over() {
  mkdir "$1/$2.upper" "$1/$2.work"
  mount -t overlay overlay -o "lowerdir=$3,upperdir=$1/$2.upper,workdir=$1/$2.work" "$4"
}
mkdir "$1/root"
over "$1" host / "$1/root"
for at in proc sys dev; do mount --rbind "/$at" "$1/root/$at"; done
mkdir "$1/root/checkout" "$1/root/stand-ins"
over "$1" checkout "$2" "$1/root/checkout"
echo made
read end
"#;

/// Installs what the documents expect, as the packages do. `$1` is a process.
const INSTALL: &str = r#"
getent group telegraf >/dev/null || echo 'telegraf:x:973:' >>/etc/group
getent passwd telegraf >/dev/null || echo 'telegraf:x:973:973::/:/usr/sbin/nologin' >>/etc/passwd
mkdir -p /etc/telegraf/telegraf.d /etc/telegraf-taskstats /usr/share/telegraf-taskstats /etc/exporter_pidfiles /etc/sysctl.d /usr/local/bin
chgrp telegraf /usr/bin/telegraf-taskstats
chmod 750 /usr/bin/telegraf-taskstats
setcap cap_net_admin,cap_sys_ptrace=p /usr/bin/telegraf-taskstats
printf '[agent]\n  omit_hostname = true\n[[outputs.discard]]\n' >/etc/telegraf/telegraf.conf
echo "$1" >/run/nginx.pid
ln -s /run/nginx.pid /etc/exporter_pidfiles/nginx

cd /checkout
cp tests/documents/stand-ins/* /stand-ins
cp plugin.conf.example /etc/telegraf-taskstats/plugin.conf
cp -r dist/. /usr/share/telegraf-taskstats
for script in scripts/* .ci/run; do
  bash -n "$script"
  printf '#!/bin/sh\necho %s "$@" >>/stand-ins/asked\n' "$script" >/stand-ins/script
  cat /stand-ins/script >"$script"
done
"#;

/// See the module.
pub struct Host {
    holder: Running,
    directory: tempfile::TempDir,
    /// What the pidfiles name.
    _nginx: Running,
}

impl Host {
    /// None, after saying so, where it cannot be made.
    pub fn new() -> Option<Self> {
        if !is_root() {
            skip("to run the documents' commands on a copy of this host needs root");
            return None;
        }
        let telegraf = peer("telegraf")?;
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", HOLD, "sh"]).arg(directory.path()).arg(repository());
        let mut holder = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut said = [0; 5];
        let made = std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said);
        if made.is_err() {
            skip_without_overlay();
            return None;
        }
        let nginx = Running::start(Command::new("sleep").arg("600"));
        let host = Self { holder, directory, _nginx: nginx };
        fs::copy(binary(), host.path("/usr/bin/telegraf-taskstats")).unwrap();
        fs::copy(telegraf, host.path("/usr/bin/telegraf")).unwrap();
        let mut install = host.command("bash");
        install.args(["-ec", INSTALL, "bash"]).arg(host._nginx.id().to_string());
        let output = install.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(host)
    }

    /// A path of the copy, as it is seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        let root = self.directory.path().join("root").join(path.trim_start_matches('/'));
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(root.strip_prefix("/").unwrap())
    }

    /// A command on the copy, in a checkout of the repository, where nobody's environment is.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("chroot").arg(self.root());
        let path = "PATH=/stand-ins:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.args(["env", "-i", path, "HOME=/root", "LANG=C", program]).stdin(Stdio::null());
        command
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// Runs a shell's commands up to the first that fails, which is a failure of the test; returns what they print.
    pub fn run(&self, commands: &str) -> String {
        let seconds = PATIENCE.as_secs().to_string();
        let mut command = self.command("timeout");
        command.args(["--kill-after=5", &seconds, "bash", "-eo", "pipefail", "-c"]);
        let output = command.arg(format!("cd /checkout\n{commands}")).output().unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{}:\n{commands}\n{stdout}\n{stderr}", output.status);
        stdout
    }

    /// What cargo and the scripts were asked for, a line each.
    pub fn asked(&self) -> Vec<String> {
        fs::read_to_string(self.path("/stand-ins/asked")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Writes a file that everybody may read.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.path(path), text).unwrap();
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o644)).unwrap();
    }
}
