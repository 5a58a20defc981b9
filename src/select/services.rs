//! `services`, the default: each service of the host, in disjoint series.
//!
//! Where systemd runs, a series is the outermost unit below the slices (below `user@N.service`, a manager of its own, the
//! units within). Scopes come and go under names of one day and fold into `session`, `run` and `container`. Elsewhere
//! it is `children_of_init`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cgroup::{group, name_of};
use super::{Found, View, children_of_init};
use crate::kernel::cgroup;

/// Beginnings of the names of the scopes in which containers and virtual machines run.
const CONTAINERS: [&str; 7] = ["docker-", "libpod-", "crio-", "cri-containerd-", "machine-", "lxc-", "buildkit-"];

pub(super) fn find<'a>(view: &mut View<'a>) -> Vec<Found<'a>> {
    let Some(root) = view.hierarchies.iter().find(|root| root.join("system.slice").is_dir()).cloned() else {
        return children_of_init::find(view);
    };
    let mut groups = BTreeMap::<String, Found>::new();
    for (name, path) in units(&root, view) {
        let found = group(&path, view);
        let new = || Found { name: Some(name.as_str().into()), ..Found::default() };
        groups.entry(name.clone()).or_insert_with(new).join(found);
    }
    groups.into_values().collect()
}

/// Series name and cgroup of each outermost unit.
fn units(root: &Path, view: &mut View) -> Vec<(String, PathBuf)> {
    let mut units = Vec::new();
    let walked = cgroup::walk(root, |path| match kind(path) {
        Kind::Above => true,
        Kind::Unit(name) => {
            units.push((name, root.join(path)));
            false
        }
        Kind::Other => false,
    });
    if let Err(error) = walked {
        view.incomplete(root, &error);
    }
    units
}

/// Kind of a cgroup, for `services`.
enum Kind {
    /// Units are below it.
    Above,
    /// A unit, with the name of its series.
    Unit(String),
    /// Neither.
    Other,
}

fn kind(path: &Path) -> Kind {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_user_manager = |name: &str| name.starts_with("user@") && name.ends_with(".service");
    let parent = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    if name.ends_with(".slice") || is_user_manager(&name) {
        Kind::Above
    } else if name.ends_with(".service") {
        Kind::Unit(name_of(path))
    } else if name == "init.scope" && is_user_manager(&parent) {
        Kind::Unit(name_of(Path::new(parent.as_ref())))
    } else if let Some(scope) = name.strip_suffix(".scope") {
        Kind::Unit(scope_series(scope).to_owned())
    } else {
        Kind::Other
    }
}

fn scope_series(scope: &str) -> &str {
    if scope == "init" {
        "init"
    } else if scope.starts_with("session-") {
        "session"
    } else if CONTAINERS.iter().any(|start| scope.starts_with(start)) {
        "container"
    } else {
        "run"
    }
}
