//! The packages of this source, as `scripts/package` builds them.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of it

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::support::{UNABLE, skip};

/// How `scripts/package` ended without packages, and what it said.
struct Unbuilt {
    status: Option<i32>,
    said: String,
}

/// What comes out of `scripts/package`.
pub struct Packages {
    pub deb: PathBuf,
    pub rpm: PathBuf,
    pub tarball: PathBuf,
}

impl Packages {
    /// Built by the first test that asks. Most of it is cargo's, which does not build what is built. Skips where that takes what this host
    /// does not have.
    pub fn built() -> Option<&'static Self> {
        static BUILT: OnceLock<Result<Packages, Unbuilt>> = OnceLock::new();
        match BUILT.get_or_init(Self::build) {
            Ok(packages) => return Some(packages),
            Err(Unbuilt { status: Some(UNABLE), said }) => skip(&format!("scripts/package cannot do it here: {said}")),
            Err(Unbuilt { status, said }) => panic!("scripts/package fails with {status:?}: {said}"),
        }
        None
    }

    fn build() -> Result<Self, Unbuilt> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(project.join("scripts/package")).stdin(Stdio::null()).output().unwrap();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Unbuilt { status: output.status.code(), said });
        }
        let built = fs::read_dir(project.join("target/dist")).unwrap().map(|entry| entry.unwrap().path());
        let built: Vec<_> = built.collect();
        assert_eq!(built.len(), 3, "{built:?}");
        let of = |end: &str| built.iter().find(|path| path.to_string_lossy().ends_with(end)).unwrap().clone();
        Ok(Self { deb: of(".deb"), rpm: of(".rpm"), tarball: of(".tar.gz") })
    }
}
