//! The cache file: what is remembered, so that a plugin that is started for each gather has a previous one.
//!
//! One line that says what it is and what its body must hash to, then JSON. It is replaced as a whole, under a lock in a
//! file beside it, and is good for one boot, one format and one set of targets: anything else is a fresh start.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::{Access, OFlags, access};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::collect::Collectors;
use crate::encode::Tags;
use crate::host::Host;
use crate::log::{Level, say};
use crate::select::Memory;
use crate::series::Series;

/// First words of the file; the number is the format's.
const HEAD: &str = "telegraf-taskstats cache 2 ";

/// A larger file is not one of ours.
const LENGTH_MAX: u64 = 256 * 1024 * 1024;

/// Where the file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFile {
    /// Directory of the file.
    pub directory: PathBuf,
    /// Name of the file in its directory.
    pub name: String,
}

impl CacheFile {
    fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    fn lock_path(&self) -> PathBuf {
        self.directory.join(format!("{}.lock", self.name))
    }
}

/// Content of the cache file.
#[derive(Debug, Deserialize)]
pub struct State {
    boot_id: String,
    digest: u64,
    /// CLOCK_MONOTONIC (ns) of the last gather.
    pub gathered: u64,
    /// The process table's last listings.
    pub listings: [Option<u64>; 3],
    /// Processes that targets have accepted, by the target's label.
    pub memories: BTreeMap<String, Memory>,
    /// Last readings of the members.
    pub collectors: Collectors,
    /// The series.
    pub series: Vec<(Tags, Series)>,
}

/// Content of the cache file, borrowed for writing.
#[derive(Debug, Serialize)]
struct StateToWrite<'a> {
    boot_id: &'a str,
    digest: u64,
    gathered: u64,
    listings: [Option<u64>; 3],
    memories: &'a BTreeMap<String, Memory>,
    collectors: &'a Collectors,
    series: Vec<(&'a Tags, &'a Series)>,
}

/// Why a cache file cannot be used.
#[derive(Debug, Error)]
enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a regular file of this user")]
    Foreign,
    #[error("it is not a cache file of this version, or is damaged")]
    Damaged,
    #[error("it is of another boot")]
    Boot,
    #[error("it was written for other targets or settings")]
    Settings,
    #[error("it is from the future")]
    Future,
}

/// Cache file that is locked against other processes.
#[derive(Debug)]
pub struct Cache {
    file: CacheFile,
    boot_id: String,
    digest: u64,
    /// Held for as long as the file is used.
    _lock: File,
}

impl Cache {
    /// Checks, without changing the file, that it can be used.
    ///
    /// # Errors
    /// Its directory is not one that may be written to, or something else is in its place; `ResourceBusy`: another process
    /// uses it now.
    pub fn examine(file: &CacheFile) -> io::Result<()> {
        access(&file.directory, Access::WRITE_OK | Access::EXEC_OK)?;
        for path in [file.path(), file.lock_path()] {
            match std::fs::symlink_metadata(&path) {
                Ok(metadata) if !is_own_file(&metadata) => return Err(io::Error::other(Unusable::Foreign)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        match File::open(file.lock_path()).map(|lock| lock.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => Err(io::ErrorKind::ResourceBusy.into()),
            _ => Ok(()),
        }
    }

    /// Locks the file and reads what is in it. `None`, after a warning: it cannot be used, and there is none.
    #[must_use]
    pub fn open(file: &CacheFile, host: &Host, digest: u64) -> Option<(Self, Option<State>)> {
        let path = file.path();
        let warn = |what: &str, why: &dyn std::fmt::Display| {
            say(Level::Warning, &format!("Cache file {}: {what}: {why}", path.display()));
        };
        let boot_id = host.proc.boot_id().map_err(|error| warn("not used, since the boot has no id", &error)).ok()?;
        let lock = lock(&file.lock_path());
        let refuse = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => warn("not used", &"its directory does not exist: create it"),
            _ => warn("not used, since it cannot be locked", &error),
        };
        let lock = lock.map_err(refuse).ok()?;
        let cache = Self { file: file.clone(), boot_id, digest, _lock: lock };
        let state = match cache.load(host.clock.monotonic()) {
            Ok(state) => Some(state),
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn("begun anew", &error);
                None
            }
        };
        Some((cache, state))
    }

    fn load(&self, now: u64) -> Result<State, Unusable> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.file.path())?;
        let metadata = file.metadata()?;
        if !is_own_file(&metadata) {
            return Err(Unusable::Foreign);
        }
        let mut text = Vec::new();
        file.take(LENGTH_MAX).read_to_end(&mut text)?;
        let state = parse(&text).ok_or(Unusable::Damaged)?;
        match state {
            State { ref boot_id, .. } if *boot_id != self.boot_id => Err(Unusable::Boot),
            State { digest, .. } if digest != self.digest => Err(Unusable::Settings),
            State { gathered, .. } if gathered > now => Err(Unusable::Future),
            state => Ok(state),
        }
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// It cannot be written; the old one is as it was.
    pub fn save<'a>(
        &self,
        gathered: u64,
        listings: [Option<u64>; 3],
        memories: &'a BTreeMap<String, Memory>,
        collectors: &'a Collectors,
        series: impl Iterator<Item = (&'a Tags, &'a Series)>,
    ) -> io::Result<()> {
        let (boot_id, digest, series) = (self.boot_id.as_str(), self.digest, series.collect());
        let state = StateToWrite { boot_id, digest, gathered, listings, memories, collectors, series };
        let body = serde_json::to_vec(&state)?;
        // The library's errors name the temporary file, another one each time: a message must be the same for the same reason.
        self.replace(&body).map_err(|error| error.kind().into())
    }

    fn replace(&self, body: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.file.directory)?;
        writeln!(file, "{HEAD}{:016x}", digest_of(body))?;
        file.write_all(body)?;
        file.persist(self.file.path())?;
        Ok(())
    }

    /// Returns whether this is the file that the settings name.
    #[must_use]
    pub fn is(&self, file: Option<&CacheFile>) -> bool {
        file == Some(&self.file)
    }

    /// Writes for other targets from now on.
    pub fn set_digest(&mut self, digest: u64) {
        self.digest = digest;
    }

    /// Path of the file, for messages.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.file.path()
    }
}

fn is_own_file(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw()
}

fn lock(path: &std::path::Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK; // a FIFO put in its place is not waited for
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another process uses it")),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn parse(text: &[u8]) -> Option<State> {
    let text = text.strip_prefix(HEAD.as_bytes())?;
    let (digest, body) = text.split_at_checked(16)?;
    let body = body.strip_prefix(b"\n")?;
    let expected = u64::from_str_radix(std::str::from_utf8(digest).ok()?, 16).ok()?;
    if digest_of(body) != expected {
        return None;
    }
    serde_json::from_slice(body).ok()
}

/// FNV-1a, 64 bits: against accidents, and the same in every version of the compiler.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
