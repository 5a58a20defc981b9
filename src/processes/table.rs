//! Processes by pid and by parent, so kept that a change costs little whatever the number of processes is.

use crate::kernel::stat::Stat;

/// Processes as they were last read.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// In no order.
    stats: Vec<Stat>,
    /// Pid and place in `stats` of each, sorted.
    by_pid: Vec<(u32, u32)>,
    /// Parent's pid and pid of each, sorted.
    by_parent: Vec<(u32, u32)>,
}

impl Table {
    /// A table of these processes.
    pub(super) fn of(stats: Vec<Stat>) -> Self {
        let mut table = Self { stats, ..Self::default() };
        table.by_pid.extend((0..).zip(&table.stats).map(|(place, stat)| (stat.id.pid, place)));
        table.by_parent.extend(table.stats.iter().map(by_parent));
        table.by_pid.sort_unstable();
        table.by_parent.sort_unstable();
        table
    }

    pub(super) fn len(&self) -> usize {
        self.stats.len()
    }

    /// By pid.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Stat> {
        self.by_pid.iter().filter_map(|(_, place)| self.at(*place as usize))
    }

    pub(super) fn place(&self, pid: u32) -> Option<usize> {
        let index = self.by_pid.binary_search_by_key(&pid, |(pid, _)| *pid).ok()?;
        self.by_pid.get(index).map(|(_, place)| *place as usize)
    }

    pub(super) fn at(&self, place: usize) -> Option<&Stat> {
        self.stats.get(place)
    }

    pub(super) fn get(&self, pid: u32) -> Option<&Stat> {
        self.at(self.place(pid)?)
    }

    pub(super) fn children(&self, pid: u32) -> impl Iterator<Item = &Stat> {
        let from = self.by_parent.partition_point(|(parent, _)| *parent < pid);
        let rest = self.by_parent.get(from..).unwrap_or_default();
        let children = rest.iter().take_while(move |(parent, _)| *parent == pid);
        children.filter_map(|(_, child)| self.get(*child))
    }

    /// Replaces what is known of one that is there.
    pub(super) fn update(&mut self, stat: &Stat) {
        let Some(known) = self.place(stat.id.pid).and_then(|place| self.stats.get_mut(place)) else { return };
        let before = std::mem::replace(known, *stat);
        if before.ppid != stat.ppid {
            remove(&mut self.by_parent, &by_parent(&before));
            let index = self.by_parent.partition_point(|other| *other < by_parent(stat));
            self.by_parent.insert(index, by_parent(stat));
        }
    }

    /// Adds a process; of one whose pid is there already, replaces what is known of it. A new one is found from
    /// [`Table::find_added`] on, and only once may it be added before.
    pub(super) fn add(&mut self, stat: Stat) {
        if self.place(stat.id.pid).is_some() {
            self.update(&stat);
        } else {
            self.stats.push(stat);
        }
    }

    /// Has those found that were added.
    pub(super) fn find_added(&mut self) {
        let before = self.by_pid.len();
        if self.len() > before {
            let new = (0..).zip(&self.stats).skip(before);
            self.by_pid.extend(new.clone().map(|(place, stat)| (stat.id.pid, place)));
            self.by_parent.extend(new.map(|(_, stat)| by_parent(stat)));
            // What was sorted and what is new is merged, which is cheaper than to sort.
            self.by_pid.sort();
            self.by_parent.sort();
        }
    }

    pub(super) fn remove(&mut self, pid: u32) -> Option<Stat> {
        let index = self.by_pid.binary_search_by_key(&pid, |(pid, _)| *pid).ok()?;
        let (_, place) = self.by_pid.remove(index);
        let stat = self.stats.swap_remove(place as usize);
        remove(&mut self.by_parent, &by_parent(&stat));
        let moved = self.stats.get(place as usize).map(|moved| moved.id.pid);
        let moved = moved.and_then(|pid| self.by_pid.binary_search_by_key(&pid, |(pid, _)| *pid).ok());
        if let Some((_, new)) = moved.and_then(|index| self.by_pid.get_mut(index)) {
            *new = place;
        }
        Some(stat)
    }
}

fn by_parent(stat: &Stat) -> (u32, u32) {
    (stat.ppid, stat.id.pid)
}

fn remove(sorted: &mut Vec<(u32, u32)>, what: &(u32, u32)) {
    if let Ok(index) = sorted.binary_search(what) {
        sorted.remove(index);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn stat(pid: u32, ppid: u32, start: u64) -> Stat {
        let text = format!("{pid} (x) S {ppid} 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 1 0 {start} 0 5\n");
        Stat::parse(text.as_bytes()).unwrap()
    }

    proptest! {
        /// Whatever is done, it is what a plain map would be.
        #[test]
        fn it_is_a_map(changes in proptest::collection::vec((0_u8..4, 1_u32..40, 0_u32..40, 0_u64..3), 0..60)) {
            let mut table = Table::default();
            let mut map = BTreeMap::new();
            for (change, pid, ppid, start) in changes {
                let new = stat(pid, ppid, start);
                match change {
                    0 => {
                        let some = [new, stat(pid + 40, pid, start), stat(pid + 80, ppid, start)];
                        some.into_iter().for_each(|stat| table.add(stat));
                        table.find_added();
                        map.extend(some.map(|stat| (stat.id.pid, stat)));
                    }
                    1 => {
                        table.update(&new);
                        map.entry(pid).and_modify(|known| *known = new);
                    }
                    2 => prop_assert_eq!(table.remove(pid), map.remove(&pid)),
                    _ => table = Table::of(map.values().rev().copied().collect()),
                }
                prop_assert!(table.iter().eq(map.values()));
                prop_assert_eq!(table.len(), map.len());
                for pid in 0..130 {
                    prop_assert_eq!(table.get(pid), map.get(&pid));
                    let children = map.values().filter(|stat| stat.ppid == pid);
                    prop_assert!(table.children(pid).eq(children));
                }
            }
        }
    }
}
