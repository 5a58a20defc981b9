//! `pid`: that process.

use super::{Found, View};
use crate::kernel::capability::Capability;
use crate::log::Trouble;

/// Returns how to make hidden processes visible.
pub(super) fn see_hidden() -> String {
    let (capability, remedy) = (Capability::SysPtrace, Capability::SysPtrace.remedy());
    format!("this requires {capability}, or the group that the mount's gid= names; {remedy}")
}

pub(super) fn find<'a>(pid: u32, view: &mut View<'a>) -> Found<'a> {
    let found = lookup(&[pid], view);
    if found.roots.is_empty() && !found.hidden && !found.incomplete {
        view.complaints.add(Trouble::Absent, format!("No process has the pid {pid}"));
    }
    found
}

/// The processes with these pids, and whether one of them exists but is hidden from us.
pub(super) fn lookup<'a>(pids: &[u32], view: &mut View<'a>) -> Found<'a> {
    let mut found = Found::default();
    for pid in pids {
        match view.processes.get(*pid) {
            Some(stat) => found.roots.push(stat),
            None if view.proc.is_hidden(*pid) => {
                found.hidden = true;
                view.complaints.add(Trouble::Denied, hidden(*pid));
            }
            // Not to be read, or born after the listing: saying that it is not there would be wrong.
            None if view.processes.is_unreadable(*pid) || view.proc.is_process(*pid) => found.incomplete = true,
            None => found.awaited = true,
        }
    }
    found
}

/// Returns the warning about a hidden process.
pub(super) fn hidden(pid: u32) -> String {
    let hidden = "exists but /proc hides it (hidepid): what is not known of it is left out";
    format!("Process {pid} {hidden}; {}", see_hidden())
}
