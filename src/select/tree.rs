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
    /// Whether it has had a child whose CPU is counted elsewhere, by a cgroup: what it reaps does not count here.
    pub reaps_elsewhere: bool,
}

/// A process that nothing else of its series is above.
pub type Root = Identity;

/// The members of a series, sorted by pid: `exact`, `roots` and all that descends from them, and those of `before` that
/// were re-parented since.
///
/// A descendant whose parent died stays until it exits, unless the root that made it a member is alive and is one no more. So does
/// one that nobody has seen below its parents, if events have told of them.
pub(super) fn members(processes: &Processes, roots: &[Stat], exact: &[Stat], before: &[Member]) -> Vec<Member> {
    let places = Marks::of(processes.count());
    let mut tree = Tree { processes, members: Vec::new(), is_member: places.clone(), is_grown: places };
    for stat in exact {
        tree.add(stat.id, None);
    }
    for root in roots {
        tree.add(root.id, Some(root.id));
        tree.is_grown.set(processes.place(root.id)); // by itself, below
    }
    for root in roots {
        tree.grow(root.id, root.id);
    }
    while tree.keep(before) || tree.bring_home(before) {}
    tree.members.sort_unstable_by_key(|member| member.id);
    tree.members
}

struct Tree<'a> {
    processes: &'a Processes,
    members: Vec<Member>,
    /// By place in the process table.
    is_member: Marks,
    /// Whether what is below a process was looked at, or will be.
    is_grown: Marks,
}

impl Tree<'_> {
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
        let mut pending = vec![from.pid];
        while let Some(parent) = pending.pop() {
            for child in processes.children(parent) {
                if self.is_grown.set(processes.place(child.id)) {
                    self.add(child.id, Some(root));
                    pending.push(child.id.pid);
                }
            }
        }
    }

    /// Adds those born since the last gather below a member of now or of before, though not to whoever is their parent now; false
    /// when there is none left to add.
    fn bring_home(&mut self, before: &[Member]) -> bool {
        let mut brought = false;
        for (stray, ancestor) in self.processes.strays() {
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

    /// Whether it is alive and a root no more.
    fn has_left(&self, root: Identity) -> bool {
        self.processes.get_exactly(root).is_some() && !self.has(root)
    }

    /// Keeps the members of before who have lost their way to a root; false when there is none left to keep.
    fn keep(&mut self, before: &[Member]) -> bool {
        let mut kept = false;
        for member in before {
            let Some(root) = member.root else { continue };
            if !self.has_left(root) && self.add(member.id, Some(root)) {
                self.grow(member.id, root);
                kept = true;
            }
        }
        kept
    }
}

/// The processes whose replacement is a restart: the roots that no other member is above. Of exact members, which may
/// hold any number of re-parented ones, only the oldest.
pub(super) fn top(roots: &[Stat], exact: &[Stat], members: &[Member]) -> Vec<Root> {
    let has_parent = |stat: &&Stat| members.binary_search_by_key(&stat.ppid, |member| member.id.pid).is_ok();
    let oldest = exact.iter().filter(|stat| !has_parent(stat)).min_by_key(|stat| (stat.id.start, stat.id.pid));
    let roots = roots.iter().filter(|stat| !has_parent(stat));
    roots.chain(oldest).map(|stat| stat.id).collect()
}
