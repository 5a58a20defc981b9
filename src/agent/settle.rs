//! Settling: charges members and series for what was read, and ends the series that were not selected.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::Agent;
use crate::encode::Tags;
use crate::kernel::cgroup;
use crate::log::Trouble;
use crate::select::{Member, Selected, Trees};
use crate::series::{CgroupReading, Reading, Series};

impl Agent {
    /// The members of each series selected, in their order.
    pub(super) fn members(&self, selection: &BTreeMap<Tags, Selected>) -> Vec<Vec<Member>> {
        let mut trees = Trees::of(&self.processes);
        let members = selection.iter().map(|(tags, selected)| {
            let before = self.series.get(tags).map(Series::members_and_departed).unwrap_or_default();
            selected.members(&mut trees, &before)
        });
        members.collect()
    }

    /// The members of each series as of the last gather.
    pub(super) fn members_as_before(&self, selection: &BTreeMap<Tags, Selected>) -> Vec<Vec<Member>> {
        let members = |tags| self.series.get(tags).map(|series| series.members().to_vec()).unwrap_or_default();
        selection.keys().map(members).collect()
    }

    /// Takes out the members that were reaped before they could be read, and returns them.
    pub(super) fn take_vanished(&self, members: &mut [Vec<Member>]) -> Vec<Vec<Member>> {
        let has_vanished = |member: &mut Member| self.processes.has_vanished(member.id);
        members.iter_mut().map(|members| members.extract_if(.., has_vanished).collect()).collect()
    }

    /// Charges the series of a selection, in its order, with their members and the members that vanished.
    pub(super) fn settle(
        &mut self,
        selection: &BTreeMap<Tags, Selected>,
        members: impl Iterator<Item = (Vec<Member>, Vec<Member>)>,
        at: u64,
    ) {
        for series in self.series.values_mut() {
            series.over = true;
        }
        for ((tags, selected), (members, vanished)) in selection.iter().zip(members) {
            let (cgroups, at) = self.read_cgroups(selected, at);
            let (series, is_new) = match self.series.entry(tags.clone()) {
                Entry::Occupied(known) => (known.into_mut(), false),
                Entry::Vacant(new) => (new.insert(Series::new(Arc::clone(&selected.output))), true),
            };
            (series.over, series.hidden, series.unknown) = (false, selected.hidden, selected.incomplete);
            series.output = Arc::clone(&selected.output);
            let (top, of_cgroups) = (selected.top(&members), !selected.cgroups.is_empty());
            let selected = selected.ids.clone();
            let (processes, samples) = (&self.processes, &self.samples);
            let (collectors, previous) = (&self.collectors, self.gathered);
            let reading = Reading {
                members,
                vanished,
                top,
                selected,
                processes,
                samples,
                collectors,
                cgroups,
                of_cgroups,
                at,
                previous,
            };
            series.account(reading, is_new);
        }
    }

    /// Ends the series that the selection does not have. Where part of the host could not be looked at they may still be there: they are
    /// kept, and not written.
    pub(super) fn end_unselected(&mut self, complete: bool, at: u64) {
        for series in self.series.values_mut().filter(|series| series.over) {
            if complete {
                let reading = Reading::nothing(&self.processes, &self.samples, &self.collectors, at, self.gathered);
                series.account(reading, false);
            } else {
                (series.over, series.unknown) = (false, true);
            }
        }
    }

    /// Reads the cpu.stat of a series' cgroups. Returns it with the time of reading; `None` and `scanned` for a series without cgroups, or
    /// whose hierarchy has no cpu.stat.
    pub(super) fn read_cgroups(&mut self, selected: &Selected, scanned: u64) -> (Option<CgroupReading>, u64) {
        if selected.cgroups.is_empty() {
            return (None, scanned);
        }
        let at = self.host.clock.monotonic();
        let mut reading = CgroupReading { all: !selected.incomplete, ..CgroupReading::default() };
        for (path, pids) in &selected.cgroups {
            match (cgroup::inode(path), cgroup::usage(path)) {
                (Ok(Some(inode)), Ok(Some(usage))) => reading.usages.push((inode, usage)),
                (Ok(_), Ok(_)) => continue,
                (Err(error), _) | (_, Err(error)) => {
                    reading.all = false;
                    self.complaints.add(Trouble::of(&error), format!("Cgroup {}: {error}", path.display()));
                }
            }
            reading.pids.extend(pids);
        }
        reading.pids.sort_unstable();
        let carry = !reading.usages.is_empty() || !reading.pids.is_empty();
        if carry { (Some(reading), at) } else { (None, scanned) }
    }
}
