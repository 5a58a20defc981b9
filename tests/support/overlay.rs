//! What is to be done to a host is done to a copy: an overlay over its root, which not every host can mount.

use std::process::{Command, Stdio};

use super::support::skip;

const MOUNT: &str = r#"
mount -t tmpfs none "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay none -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
"#;

/// Skips what has failed, where no overlay can be mounted over this host's root; where one can, it is a failure.
pub fn skip_without_overlay() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", MOUNT]).arg(directory.path());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "this host's root cannot be copied, though an overlay can be mounted over it");
    skip(&format!("no overlay can be mounted over this host's root: {}", said.trim()));
}
