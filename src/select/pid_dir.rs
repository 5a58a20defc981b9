//! `pid_dir`: each pidfile in a directory, links too, under the name of the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};

use super::{Found, PidFile, StalePolicy, View};
use crate::kernel::stat::Identity;
use crate::log::Trouble;

/// Directory of pidfiles, read again at every gather.
#[derive(Debug)]
pub struct PidDir {
    path: PathBuf,
    stale: StalePolicy,
    files: BTreeMap<OsString, PidFile>,
    /// Processes accepted for files that have not been read so far.
    accepted: BTreeMap<String, Vec<Identity>>,
}

impl PidDir {
    /// A directory not read so far.
    #[must_use]
    pub fn new(path: PathBuf, stale: StalePolicy) -> Self {
        Self { path, stale, files: BTreeMap::new(), accepted: BTreeMap::new() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The processes accepted for each file.
    pub(super) fn memory(&self) -> BTreeMap<String, Vec<Identity>> {
        self.files.values().map(PidFile::memory).collect()
    }

    /// Goes on accepting what was accepted.
    pub(super) fn remember(&mut self, accepted: BTreeMap<String, Vec<Identity>>) {
        self.accepted = accepted;
    }

    /// The processes of each file that is there now. A directory that cannot be read has none.
    pub(super) fn find<'a>(&mut self, view: &mut View<'a>) -> Vec<Found<'a>> {
        let names = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries.flatten().filter(|entry| !is_directory(entry)),
            Err(error) => {
                view.complaints.add(Trouble::of(&error), format!("Pidfile directory {}: {error}", self.path.display()));
                view.incomplete |= error.kind() != io::ErrorKind::NotFound;
                return Vec::new();
            }
        };
        let mut files = BTreeMap::new();
        for name in names.map(|entry| entry.file_name()) {
            let new = || {
                let mut file = PidFile::new(self.path.join(&name), self.stale);
                file.remember(&self.accepted);
                file
            };
            files.insert(name.clone(), self.files.remove(&name).unwrap_or_else(new));
        }
        self.files = files;
        self.accepted.clear();
        self.files.values_mut().map(|file| file.find(view)).collect()
    }
}

/// Returns whether an entry is a directory. A link to a directory is one; a dangling link is not: it is a pidfile whose
/// process has exited.
fn is_directory(entry: &DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if !kind.is_symlink() => kind.is_dir(),
        _ => std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()),
    }
}
