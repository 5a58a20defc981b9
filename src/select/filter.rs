//! `pattern`, `cmdline`, `exe` and `user`: what a process must be, all of it.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::str::FromStr;

use globset::{GlobBuilder, GlobMatcher};
use regex::bytes::Regex;
use serde::Deserialize;

use super::View;
use crate::kernel::capability::Capability;
use crate::kernel::stat::Stat;
use crate::log::{Complaint, Trouble};

/// comm is cut to this many bytes (TASK_COMM_LEN − 1).
const COMM_LENGTH: usize = 15;

/// A regular expression over bytes.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct ProcessPattern(Regex);

impl FromStr for ProcessPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty regular expression matches everything: write \".\" if that is meant".to_owned());
        }
        Regex::new(text).map(Self).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("{text:?} is not a regular expression ({reason}): put a backslash before what is meant literally")
        })
    }
}

impl TryFrom<String> for ProcessPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl ProcessPattern {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns whether the pattern is plain text longer than any comm, so that it matches no program.
    #[must_use]
    fn can_never_match_comm(&self) -> bool {
        let text = self.as_str().trim_start_matches('^').trim_end_matches('$');
        text.len() > COMM_LENGTH && regex::escape(text).replace("\\-", "-") == text
    }
}

/// A glob over the path of the executable; `*` does not cross '/'.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct ExeGlob(GlobMatcher);

impl TryFrom<String> for ExeGlob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        glob(&text).map(Self)
    }
}

/// A glob in which `*` does not cross '/' and a backslash is a letter (unit names have them).
pub(super) fn glob(text: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(false).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| {
        format!("{text:?} is not a glob ({}): write [*] for a * that is meant literally", error.kind())
    })
}

/// Returns whether a text has none of a glob's special characters.
pub(super) fn is_literal(text: &str) -> bool {
    !text.contains(['*', '?', '[', '{'])
}

/// Limit of a C library without NSS, as in the packages: it does not know users of LDAP and the like.
const KNOWN_USERS: &str =
    if cfg!(target_env = "musl") { " (this build asks /etc/passwd and nscd only; give others by number)" } else { "" };

/// The owner, by name or number. Looked up again while it is unknown: users come and go.
#[derive(Debug, Clone)]
pub struct User {
    name: String,
    uid: Option<u32>,
}

impl User {
    /// Not looked up so far.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, uid: None }
    }

    fn uid(&mut self) -> Option<u32> {
        if self.uid.is_none() {
            let by_name = nix::unistd::User::from_name(&self.name).ok().flatten();
            self.uid = by_name.map(|user| user.uid.as_raw()).or_else(|| self.name.parse().ok());
        }
        self.uid
    }
}

/// Conditions on a process. Each that is set must hold.
#[derive(Debug, Default)]
pub struct Filters {
    /// comm.
    pub pattern: Option<ProcessPattern>,
    /// The full command line, its arguments separated by spaces.
    pub cmdline: Option<ProcessPattern>,
    /// The path of the executable.
    pub exe: Option<ExeGlob>,
    /// The effective user.
    pub user: Option<User>,
}

impl Filters {
    /// Returns whether every process passes.
    #[must_use]
    pub fn are_empty(&self) -> bool {
        self.pattern.is_none() && self.cmdline.is_none() && self.exe.is_none() && self.user.is_none()
    }

    /// Returns the first of the filters, as written: the label of a target that has nothing else.
    #[must_use]
    pub fn label(&self) -> Option<String> {
        self.given().next().map(|(_, value)| value)
    }

    /// Key and value of each that is given, as written.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, String)> {
        let regex = |pattern: &Option<ProcessPattern>| pattern.as_ref().map(|pattern| pattern.as_str().to_owned());
        let given = [
            ("pattern", regex(&self.pattern)),
            ("cmdline", regex(&self.cmdline)),
            ("exe", self.exe.as_ref().map(|ExeGlob(glob)| glob.glob().to_string())),
            ("user", self.user.as_ref().map(|user| user.name.clone())),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }

    /// Keeps what passes; the cheapest question is asked first, and this plugin never passes.
    pub(super) fn narrow(&mut self, processes: &mut Vec<&Stat>, view: &mut View) {
        let Self { pattern, cmdline, exe, user } = self;
        processes.retain(|stat| Some(stat.id.pid) != view.own_pid);
        if let Some(pattern) = pattern {
            processes.retain(|stat| pattern.0.is_match(stat.comm.as_bytes()));
            if processes.is_empty() && pattern.can_never_match_comm() {
                let why = "matches nothing: comm has 15 bytes, but for kernel threads; use cmdline or exe";
                view.complaints.add(Trouble::Failed, format!("The pattern {:?} {why}", pattern.as_str()));
            }
        }
        if let Some(user) = user {
            match user.uid() {
                Some(uid) => {
                    processes.retain(|stat| ask("user", view, stat, |view| view.proc.owner(stat.id.pid)) == Some(uid))
                }
                None => {
                    let what = format!("No such user{KNOWN_USERS}: user = {:?}; nothing matches it", user.name);
                    view.complaints.add(Trouble::Absent, what);
                    processes.clear();
                }
            }
        }
        if let Some(ExeGlob(glob)) = exe {
            let is_match = |path: &OsStr| glob.is_match(Path::new(path));
            processes.retain(|stat| {
                ask("exe", view, stat, |view| view.proc.exe(stat.id.pid)).is_some_and(|path| is_match(&path))
            });
        }
        if let Some(ProcessPattern(regex)) = cmdline {
            processes.retain(|stat| {
                ask("cmdline", view, stat, |view| view.proc.cmdline(stat.id.pid))
                    .is_some_and(|line| regex.is_match(&line))
            });
        }
    }
}

/// Reads one property of a process. A process whose property cannot be read does not match, and a warning says so.
fn ask<T>(key: &str, view: &mut View, stat: &Stat, read: impl FnOnce(&mut View) -> io::Result<Option<T>>) -> Option<T> {
    match read(view) {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let what = format!("{key} of processes of other users cannot be read, so that they do not match");
            let (with, why) = (Some(stat.called()), Capability::SysPtrace.is_needed());
            view.complaints.complain(Complaint { trouble: Trouble::Denied, what, with, why });
            None
        }
        Err(error) => {
            view.complaints.add(Trouble::of(&error), format!("{key} of {}: {error}", stat.called()));
            None
        }
    }
}
