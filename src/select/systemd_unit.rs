//! `systemd_unit`: the processes in the cgroups of the matching units, wherever they are in the hierarchy.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use globset::GlobMatcher;
use serde::Deserialize;

use super::cgroup::{groups, in_first_hierarchy};
use super::{Found, View, filter};
use crate::kernel::cgroup;

/// The kinds of unit that have a cgroup (systemd.unit(5)).
const SUFFIXES: [&str; 6] = [".service", ".scope", ".slice", ".socket", ".mount", ".swap"];

/// A glob over unit names; without a suffix it means services.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct UnitGlob {
    text: String,
    glob: GlobMatcher,
}

impl TryFrom<String> for UnitGlob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let has_suffix = SUFFIXES.iter().any(|suffix| text.ends_with(suffix));
        let text = if has_suffix { text } else { format!("{text}.service") };
        Ok(Self { glob: filter::glob(&text)?, text })
    }
}

impl FromStr for UnitGlob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.to_owned().try_into()
    }
}

impl UnitGlob {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether it can match one name only.
    pub(super) fn is_literal(&self) -> bool {
        filter::is_literal(&self.text)
    }

    /// The processes of each unit that matches, under its name. A unit that does not run has no cgroup.
    pub(super) fn find<'a>(&self, view: &mut View<'a>) -> Vec<Found<'a>> {
        let found = in_first_hierarchy(view, |root, found| self.units(root, found));
        groups(found, self.is_literal().then_some(&self.text), view)
    }

    fn units(&self, root: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
        cgroup::walk(root, |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let matches = self.glob.is_match(name.strip_prefix('_').unwrap_or(&name));
            if matches {
                found.push(path.to_owned());
            }
            !matches // what lies in a match belongs to it
        })
    }
}
