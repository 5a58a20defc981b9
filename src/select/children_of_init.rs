//! `children_of_init`: each child of pid 1 with its tree, grouped by comm, and pid 1 itself.
//!
//! Each process is in one series: that of its nearest ancestor that is a child of init. This is looked up again at each
//! gather, so a daemon that leaves its parent becomes a series of its own.

use std::collections::BTreeMap;

use super::pid::hidden;
use super::{Found, INIT, View};
use crate::kernel::stat::Stat;
use crate::log::Trouble;

pub(super) fn find<'a>(view: &mut View<'a>) -> Vec<Found<'a>> {
    let mut groups = BTreeMap::<String, Found>::new();
    let mut add = |root: &Stat, processes: Vec<&'a Stat>| {
        let found = groups.entry(root.comm.to_text().into_owned()).or_default();
        found.exact.extend(processes);
        found.heads.push(root.id);
    };
    if let Some(init) = view.processes.get(INIT) {
        add(init, vec![init]);
    } else if view.proc.is_hidden(INIT) {
        view.complaints.add(Trouble::Denied, hidden(INIT));
    }
    for child in view.processes.children(INIT) {
        add(child, tree(child, view));
    }
    groups.into_iter().map(|(comm, found)| Found { name: Some(comm.into()), ..found }).collect()
}

fn tree<'a>(root: &Stat, view: &View<'a>) -> Vec<&'a Stat> {
    let ids = view.processes.with_descendants(&[root.id]);
    ids.into_iter().filter_map(|id| view.processes.get_exactly(id)).collect()
}
