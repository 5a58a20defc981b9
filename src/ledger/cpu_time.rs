//! CPU of a series: charges of its members, and the cpu.stat of its cgroups. The sum never falls.

use serde::{Deserialize, Serialize};

/// CPU of a series, ns: charges of its members, and the usage of its cgroups, whose processes are not charged besides.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTime {
    total: u64,
    cgroups: CgroupMeter,
}

impl CpuTime {
    /// Adds the charges of members since the last gather, ns.
    pub fn credit(&mut self, charge: u64) {
        self.total = self.total.saturating_add(charge);
    }

    /// Adds the usage of cgroups since the last gather, as [`CgroupMeter::settle`] returns it.
    pub fn meter(&mut self, usages: Vec<(u64, u64)>, all: bool, first: bool) {
        let charge = self.cgroups.settle(usages, all, first);
        self.credit(charge);
    }

    /// Returns the sum, ns.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// Usage of the cgroups of a series, by their inodes. usage_usec of cpu.stat contains the CPU of processes that exited.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMeter {
    /// Inode and usage (ns) of each cgroup, as of the last gather.
    usages: Vec<(u64, u64)>,
}

impl CgroupMeter {
    /// Settles one gather: inode and usage (ns) of each cgroup. Returns the charge, ns. A cgroup that did not exist at the last
    /// gather counts in full, except at the first gather of these cgroups. Where not all cgroups could be read, the others
    /// are remembered.
    pub fn settle(&mut self, mut usages: Vec<(u64, u64)>, all: bool, first: bool) -> u64 {
        let before = |inode| self.usages.iter().find(|(known, _)| *known == inode).map(|(_, usage)| *usage);
        let charge = usages.iter().map(|(inode, usage)| match before(*inode) {
            Some(before) => usage.saturating_sub(before),
            None if first => 0,
            None => *usage,
        });
        let charge = charge.fold(0, u64::saturating_add);
        if !all {
            let unread = self.usages.iter().filter(|(known, _)| !usages.iter().any(|(inode, _)| inode == known));
            let unread: Vec<_> = unread.copied().collect();
            usages.extend(unread);
        }
        self.usages = usages;
        charge
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_its_inode() {
        let mut meter = CgroupMeter::default();
        assert_eq!(meter.settle(vec![(10, 700)], true, true), 0, "usage before the first gather does not count");
        assert_eq!(meter.settle(vec![(10, 800)], true, false), 100);
        assert_eq!(
            meter.settle(vec![(11, 30)], true, false),
            30,
            "another inode is another cgroup, all of whose usage is new"
        );
        assert_eq!(meter.settle(vec![(11, 20), (12, 5)], true, false), 5, "a counter that falls adds nothing");
        assert_eq!(meter.settle(vec![(12, 6)], false, false), 1);
        assert_eq!(
            meter.settle(vec![(11, 25), (12, 6)], true, false),
            5,
            "a cgroup that could not be read before is not new"
        );
    }
}
