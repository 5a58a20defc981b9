//! `pid_file`: the pids in the file, one per line, up to the first line that is not one.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Found, View, pid};
use crate::encode::clean;
use crate::kernel::is_shortage;
use crate::kernel::pidfile::Pidfile;
use crate::kernel::stat::{Identity, Stat, TICK};
use crate::log::Trouble;

/// A process that started this much later than its pidfile was written is not the one that wrote it, ns.
const STALE_AFTER: u64 = 60_000_000_000;

/// Treatment of a process that is younger than its pidfile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StalePolicy {
    /// Leave it out: it is another process that was given the pid.
    #[default]
    Skip,
    /// Count it all the same.
    Warn,
}

/// A pidfile and the processes it has named.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    /// Name of the series: [`name_of`] the path.
    name: Arc<str>,
    stale: StalePolicy,
    /// Once accepted for this file an identity stays so, whatever the wall clock is set to later.
    accepted: Vec<Identity>,
    /// As last read.
    file: Option<Pidfile>,
}

impl PidFile {
    /// A pidfile not read so far.
    #[must_use]
    pub fn new(path: PathBuf, stale: StalePolicy) -> Self {
        Self { name: name_of(&path).into(), path, stale, accepted: Vec::new(), file: None }
    }

    /// Returns the path, and the processes accepted for it: those that were not stale when they were first found.
    pub(super) fn memory(&self) -> (String, Vec<Identity>) {
        (self.path.to_string_lossy().into_owned(), self.accepted.clone())
    }

    /// Goes on accepting what was accepted.
    pub(super) fn remember(&mut self, accepted: &BTreeMap<String, Vec<Identity>>) {
        if let Some(accepted) = accepted.get(self.path.to_string_lossy().as_ref()) {
            self.accepted.clone_from(accepted);
        }
    }

    /// The processes it names now, under the file's name.
    pub(super) fn find<'a>(&mut self, view: &mut View<'a>) -> Found<'a> {
        let before = std::mem::take(&mut self.accepted);
        let mut found = match view.pidfiles.read(&self.path, self.file.take()) {
            Ok(file) => {
                let found = self.processes_of(&file, &before, view);
                self.file = Some(file);
                found
            }
            Err(error) => {
                view.complaints.add(Trouble::of(&error), format!("Pidfile {}: {error}", self.path.display()));
                let is_forbidden = error.kind() == ErrorKind::PermissionDenied;
                Found { incomplete: is_forbidden || is_shortage(&error), ..Found::default() }
            }
        };
        found.name = Some(Arc::clone(&self.name));
        found
    }

    fn processes_of<'a>(&mut self, file: &Pidfile, before: &[Identity], view: &mut View<'a>) -> Found<'a> {
        if let Some(instead) = &file.instead {
            let path = self.path.display();
            view.complaints.add(Trouble::Failed, format!("Pidfile {path}: its first line is {instead:?}, not a pid"));
        }
        let mut found = pid::lookup(&file.pids, view);
        let nothing = found.roots.is_empty() && !found.hidden && !found.incomplete;
        if let ([first, rest @ ..], true) = (file.pids.as_slice(), nothing) {
            let more = if rest.is_empty() { "" } else { ", nor any other pid in it" };
            view.complaints
                .add(Trouble::Absent, format!("Pidfile {}: no process has the pid {first}{more}", self.path.display()));
        }
        let booted = view.clock.realtime().saturating_sub(view.clock.boottime());
        found.roots.retain(|stat| {
            if before.contains(&stat.id) || !is_stale(file, stat, booted) {
                self.accepted.push(stat.id);
                return true;
            }
            self.warn_of_stale(stat, view);
            self.stale == StalePolicy::Warn
        });
        found
    }

    /// Warns at each gather: a warning between two gathers is not shown.
    fn warn_of_stale(&self, stat: &Stat, view: &mut View) {
        let skipped = self.stale == StalePolicy::Skip;
        view.complaints.add(
            Trouble::Absent,
            format!(
                "Pidfile {}: {} started long after the file was written, so the pid may have been used again; {}",
                self.path.display(),
                stat.called(),
                if skipped { "left out (pid_file_stale = \"warn\" counts it)" } else { "counted all the same" },
            ),
        );
    }
}

/// Returns whether the process is plainly younger than the file, on a host that booted at a time (ns since the epoch). A
/// file on tmpfs cannot be older than the boot: if it seems to be, the wall clock was stepped since.
fn is_stale(file: &Pidfile, stat: &Stat, booted: u64) -> bool {
    let started = booted.saturating_add(stat.id.start.saturating_mul(TICK));
    let clock_was_stepped = file.on_tmpfs && file.written < booted;
    started > file.written.saturating_add(STALE_AFTER) && !clock_was_stepped
}

/// The file's name up to the first dot; of one that begins with a dot, all of it.
pub(super) fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    match name.split_once('.') {
        Some((start, _)) if !start.is_empty() => clean(start),
        _ => clean(&name),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const BOOTED: u64 = 1_700_000_000 * SECOND;

    /// A process that started so many seconds after boot.
    fn started(after: u64) -> Stat {
        let text = format!("7 (x) S 1 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 1 0 {} 0 5\n", after * 100);
        Stat::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_process_much_younger_than_its_pidfile_is_another_one() {
        let written = |written, on_tmpfs| Pidfile::made_up(vec![7], written, on_tmpfs);
        let file = written(BOOTED + 100 * SECOND, false);
        for (after, stale) in [(10, false), (100, false), (160, false), (161, true), (5000, true)] {
            assert_eq!(is_stale(&file, &started(after), BOOTED), stale, "started {after} s after boot");
        }
        // Written before the boot: left over on a disk, but on tmpfs the clock was stepped.
        assert!(is_stale(&written(BOOTED - SECOND, false), &started(100), BOOTED));
        assert!(!is_stale(&written(BOOTED - SECOND, true), &started(100), BOOTED));
        assert!(is_stale(&written(BOOTED + SECOND, true), &started(100), BOOTED));
    }

    #[test]
    fn a_pidfile_is_called_by_its_name_up_to_the_first_dot() {
        let cases = [("/run/nginx.pid", "nginx"), ("a.b.c", "a"), ("/x/noext", "noext"), ("/x/.hidden", ".hidden")];
        for (path, name) in cases {
            assert_eq!(name_of(Path::new(path)), name, "{path}");
        }
    }
}
