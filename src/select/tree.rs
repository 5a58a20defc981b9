//! From roots to members: the trees below them, and who stays when a parent dies.

use serde::{Deserialize, Serialize};

use crate::kernel::stat::{Identity, Stat};
use crate::processes::{Marks, Processes};

/// A process of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Which process.
    pub id: Identity,
    /// The root through which it is one: itself, or the nearest above it when it was last below one. `None`: it is
    /// a member for as long as the selector says so, by itself.
    pub root: Option<Identity>,
    /// A child of it has, or had, its CPU counted elsewhere, by a cgroup: the reaped time of this member does not count.
    pub reaps_elsewhere: bool,
}

/// A process that nothing else of its series is above.
pub type Root = Identity;

/// A process that a selector has found, as it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Picked {
    /// Which process.
    pub id: Identity,
    /// Pid of the parent.
    pub ppid: u32,
}

impl From<&Stat> for Picked {
    fn from(stat: &Stat) -> Self {
        Self { id: stat.id, ppid: stat.ppid }
    }
}

/// Finds the members of one series after the other.
#[derive(Debug)]
pub struct Trees<'a> {
    pub(super) processes: &'a Processes,
    /// Members of this series so far.
    members: Vec<Member>,
    /// By place in the process table.
    is_member: Marks,
    /// Processes whose children have been looked at, or will be.
    is_grown: Marks,
}

impl<'a> Trees<'a> {
    /// The trees of these.
    #[must_use]
    pub fn of(processes: &'a Processes) -> Self {
        let marks = || Marks::of(processes.count());
        Self { processes, members: Vec::new(), is_member: marks(), is_grown: marks() }
    }

    /// Returns the members of a series, sorted by pid: `exact`, `roots` and all their descendants, and members of `before`
    /// that were reparented since.
    ///
    /// A descendant whose parent exits stays a member until it exits itself, unless the root that made it a member is alive
    /// and no root any more. A newborn whose parent exited before the newborn was first read is a member as well, where
    /// events named that parent.
    pub(super) fn members(&mut self, roots: &[Picked], exact: &[Picked], before: &[Member]) -> Vec<Member> {
        self.is_member.clear();
        self.is_grown.clear();
        for Picked { id, .. } in exact {
            self.add(*id, None);
        }
        for Picked { id, .. } in roots {
            self.add(*id, Some(*id));
            self.is_grown.set(self.processes.place(*id)); // by itself, below
        }
        for Picked { id, .. } in roots {
            self.grow(*id, *id);
        }
        while self.keep(before) || self.bring_home(before) {}
        let mut members = std::mem::take(&mut self.members);
        members.sort_unstable_by_key(|member| member.id);
        members
    }

    fn has(&self, id: Identity) -> bool {
        self.is_member.has(self.processes.place(id))
    }

    /// Makes a process that exists a member. False: it was one already, or does not exist.
    fn add(&mut self, id: Identity, root: Option<Identity>) -> bool {
        let added = self.is_member.set(self.processes.place(id));
        if added {
            self.members.push(Member { id, root, reaps_elsewhere: false });
        }
        added
    }

    /// Adds the descendants of a member that are not members.
    fn grow(&mut self, from: Identity, root: Identity) {
        let processes = self.processes;
        let (mut next, mut pending) = (Some(from.pid), Vec::new());
        while let Some(parent) = next {
            for child in processes.children(parent) {
                if self.is_grown.set(processes.place(child.id)) {
                    self.add(child.id, Some(root));
                    pending.push(child.id.pid);
                }
            }
            next = pending.pop();
        }
    }

    /// Adds newborns whose birth parent is, or was, a member, and whose parent is another process now. Returns false when
    /// there is none left to add.
    fn bring_home(&mut self, before: &[Member]) -> bool {
        let mut brought = false;
        for (stray, ancestor) in self.processes.reparented() {
            if self.has(*stray) {
                continue;
            }
            let now = self.has(*ancestor).then(|| self.members.iter().find(|member| member.id == *ancestor)).flatten();
            let known = || before.binary_search_by_key(ancestor, |member| member.id).ok();
            let Some(root) = now.or_else(|| before.get(known()?)).and_then(|member| member.root) else { continue };
            if !self.has_left(root) && self.add(*stray, Some(root)) {
                self.grow(*stray, root);
                brought = true;
            }
        }
        brought
    }

    /// Returns whether a process is alive and no root any more.
    fn has_left(&self, root: Identity) -> bool {
        self.processes.get_exactly(root).is_some() && !self.has(root)
    }

    /// Keeps the members of before who have lost their way to a root; false when there is none left to keep.
    fn keep(&mut self, before: &[Member]) -> bool {
        let mut kept = false;
        for member in before {
            let Some(root) = member.root else { continue };
            if !self.has(member.id) && !self.has_left(root) && self.add(member.id, Some(root)) {
                self.grow(member.id, root);
                kept = true;
            }
        }
        kept
    }
}

/// The processes whose replacement is a restart: the roots that no other member is above. Of exact members, which may
/// hold any number of re-parented ones, only the oldest.
pub(super) fn top(roots: &[Picked], exact: &[Picked], members: &[Member]) -> Vec<Root> {
    let has_parent = |of: &&Picked| members.binary_search_by_key(&of.ppid, |member| member.id.pid).is_ok();
    let oldest = exact.iter().filter(|one| !has_parent(one)).min_by_key(|one| (one.id.start, one.id.pid));
    let roots = roots.iter().filter(|root| !has_parent(root));
    roots.chain(oldest).map(|one| one.id).collect()
}
