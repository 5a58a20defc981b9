//! stress-ng, where the user of the stressors can reach it.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::above::USER;
use crate::process::peer;

/// The name of the program, in target/peers and in the copy.
const NAME: &str = "stress-ng";

/// A copy of the program and of the libraries that the host lacks, and a directory for the files of stressors: a checkout
/// may lie below a closed directory.
pub struct Program(TempDir);

impl Program {
    pub fn new() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("taskstats-stress-").tempdir_in("/tmp")?;
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
        let program = Self(directory);
        for place in ["lib", "work"] {
            std::fs::create_dir(program.path(place))?;
        }
        chown(program.path("work"), Some(USER), Some(USER))?;
        let said = peer(NAME)?.arg("--version").output()?;
        ensure!(said.status.success(), "{NAME} does not run: {}", String::from_utf8_lossy(&said.stderr).trim());
        std::fs::copy(peers.join(NAME), program.path(NAME))?;
        for library in std::fs::read_dir(peers.join("lib")).into_iter().flatten() {
            let library = library?;
            std::fs::copy(library.path(), Path::new(&program.path("lib")).join(library.file_name()))?;
        }
        Ok(program)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    pub fn program(&self) -> String {
        self.path(NAME)
    }

    /// Where stressors work.
    pub fn work(&self) -> String {
        self.path("work")
    }

    /// Sets what the program needs to run from here.
    pub fn prepare(&self, command: &mut Command) {
        command.env("LD_LIBRARY_PATH", self.path("lib")).current_dir(self.work());
    }

    /// All stressors that it has.
    pub fn stressors(&self) -> Result<Vec<String>> {
        Ok(self.said("--stressors")?.split_whitespace().map(str::to_owned).collect())
    }

    /// Its version, as in `0.15.06`.
    pub fn version(&self) -> String {
        let said = self.said("--version").unwrap_or_default();
        said.split_whitespace().nth(2).unwrap_or("of an unknown version").to_owned()
    }

    fn said(&self, argument: &str) -> Result<String> {
        let mut command = Command::new(self.program());
        self.prepare(&mut command);
        let output = command.arg(argument).output()?;
        String::from_utf8(output.stdout).context("what stress-ng says is no text")
    }
}
