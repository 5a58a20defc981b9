//! `cgroup`: the processes in the cgroups that a glob matches, relative to the root of the hierarchy.

use std::path::{Path, PathBuf};

use globset::GlobMatcher;
use serde::Deserialize;

use super::pid::see_hidden;
use super::{Found, View, filter};
use crate::kernel::cgroup::{self, Listed};
use crate::log::{Complaint, Trouble};

/// A glob over cgroup paths; `*` does not cross '/'.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct CgroupGlob {
    text: String,
    glob: GlobMatcher,
}

impl TryFrom<String> for CgroupGlob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let relative = text.trim_matches('/');
        if matches!(relative, "" | ".") {
            return Err(format!("{text:?} is the whole hierarchy: name a cgroup in it"));
        }
        if Path::new(relative).components().any(|part| part.as_os_str() == "..") {
            return Err(format!("{text:?} leaves the hierarchy: give a path below its root, without '..'"));
        }
        Ok(Self { glob: filter::glob(relative)?, text: relative.to_owned() })
    }
}

impl CgroupGlob {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether it can match one cgroup only.
    pub(super) fn is_literal(&self) -> bool {
        filter::is_literal(&self.text)
    }

    /// The processes of each cgroup that matches, under its own name.
    pub(super) fn find<'a>(&self, view: &mut View<'a>) -> Vec<Found<'a>> {
        let fixed = PathBuf::from_iter(self.text.split('/').take_while(|part| filter::is_literal(part)));
        let found = in_first_hierarchy(view, |root, found| {
            if self.is_literal() {
                if root.join(&self.text).is_dir() {
                    found.push(PathBuf::from(&self.text));
                }
                return Ok(());
            }
            cgroup::walk(&root.join(&fixed), |below| {
                let path = fixed.join(below);
                let matches = self.glob.is_match(&path);
                if matches {
                    found.push(path);
                }
                !matches // what lies in a match belongs to it
            })
        });
        groups(found, self.is_literal().then_some(&self.text), view)
    }
}

/// The processes of each cgroup found, under its own name; of the one that was meant, if it is not there, none.
pub(super) fn groups<'a>(found: Vec<PathBuf>, meant: Option<&String>, view: &mut View<'a>) -> Vec<Found<'a>> {
    let named = found.into_iter().map(|path| Found { name: Some(name_of(&path).into()), ..group(&path, view) });
    let named: Vec<_> = named.collect();
    match meant {
        Some(meant) if named.is_empty() => {
            if !view.incomplete {
                view.complaints.add(Trouble::Absent, format!("No cgroup {meant:?} is found: it is not running"));
            }
            vec![Found { name: Some(name_of(Path::new(meant)).into()), ..Found::default() }]
        }
        _ => named,
    }
}

/// Asks one hierarchy after the other until one has an answer: the paths of its cgroups, made absolute.
pub(super) fn in_first_hierarchy(
    view: &mut View,
    mut ask: impl FnMut(&Path, &mut Vec<PathBuf>) -> std::io::Result<()>,
) -> Vec<PathBuf> {
    for root in view.hierarchies {
        let mut found = Vec::new();
        if let Err(error) = ask(root, &mut found) {
            view.incomplete(root, &error);
        }
        if !found.is_empty() {
            return found.into_iter().map(|path| root.join(path)).collect();
        }
    }
    if view.hierarchies.is_empty() {
        let mount = view.sys_root.join("fs/cgroup");
        let message = format!("No cgroup file system is mounted under {}: no cgroup is found", mount.display());
        view.complaints.add(Trouble::Failed, message);
    }
    Vec::new()
}

/// The processes of a cgroup. The zombies among them are not listed by the kernel: they are found by their parents.
pub(super) fn group<'a>(path: &Path, view: &mut View<'a>) -> Found<'a> {
    let Listed { pids, foreign, failed } = cgroup::processes(path);
    let mut found = Found { hidden: foreign || failed.is_some(), ..Found::default() };
    if let Some(error) = failed {
        view.complaints.add(Trouble::of(&error), format!("Cgroup {}: {error}", path.display()));
    }
    if foreign {
        let what =
            "Processes in cgroups are of another pid namespace, and what is not known of them is left out".to_owned();
        let why = "run the plugin in that namespace, as with docker run --pid=host".to_owned();
        let with = Some(path.display().to_string());
        view.complaints.complain(Complaint { trouble: Trouble::Denied, what, with, why });
    }
    for pid in pids {
        match view.processes.get(pid) {
            Some(stat) => {
                let children = view.processes.children(pid);
                found.exact.extend(children.filter(|child| child.is_zombie()).chain([stat]));
            }
            None if view.proc.is_hidden(pid) => {
                found.hidden = true;
                view.complaints.add(Trouble::Denied, format!(
                    "Processes in cgroup {} are hidden by /proc (hidepid): what is not known of them is left out; {}",
                    path.display(),
                    see_hidden()
                ));
            }
            None => {}
        }
    }
    found.heads = found.exact.iter().map(|stat| stat.id).collect();
    let pids = found.heads.iter().map(|id| id.pid).collect();
    found.cgroups.push((path.to_owned(), pids));
    found
}

/// The last part of the path, as systemd unescapes it, without `.service`.
pub(super) fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_prefix('_').unwrap_or(&name);
    name.strip_suffix(".service").unwrap_or(name).to_owned()
}
