//! `pid`: that process.

use super::{Found, View};

pub(super) fn find(pid: u32, view: &mut View) -> Found {
    let found = lookup(&[pid], view);
    if found.processes.is_empty() && !found.hidden {
        view.complaints.add(format!("No process has the pid {pid}"));
    }
    found
}

/// The processes with these pids, and whether one of them exists but is hidden from us.
pub(super) fn lookup(pids: &[u32], view: &mut View) -> Found {
    let mut found = Found::default();
    for pid in pids {
        match view.processes.get(*pid) {
            Some(stat) => found.processes.push(*stat),
            None if view.proc.is_hidden(*pid) => {
                found.hidden = true;
                view.complaints.add(format!(
                    "Process {pid} exists but /proc hides it (hidepid): nothing is reported of it; \
                     give the plugin CAP_SYS_PTRACE or a gid= that may see it"
                ));
            }
            None => {}
        }
    }
    found
}
