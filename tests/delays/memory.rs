//! `procmaps`: PSS of processes that share memory.

use crate::kernel::{Maps, maps};
use crate::puppet::{Puppet, Stage};
use crate::support::wait_for;
use crate::watch::{Asked, Lines, Watch};

const MIB: u64 = 1024;
const SHARED: u64 = 64 * MIB;

/// What a few mappings of files, stacks and heaps may have beside what is shared, KiB.
const REST: u64 = 16 * MIB;

/// Four processes that have touched the same 64 MiB.
fn four_that_share() -> (Stage, [Puppet; 4]) {
    let (stage, mut root) = Stage::new();
    root.order("map 64");
    root.order("touch");
    let mut children = [(); 3].map(|()| stage.child(&mut root));
    children.iter_mut().for_each(|child| _ = child.order("touch"));
    let [one, two, three] = children;
    (stage, [root, one, two, three])
}

fn assert_is(pss: u64, maps: &Maps) {
    assert!(pss.abs_diff(maps.pss) <= maps.uncertain, "{pss} KiB, but {maps:?}");
    assert!(maps.uncertain < REST, "{maps:?} says nothing");
}

/// A page that four processes map is a quarter of one to each: by process what smaps says, and 64 MiB in all. RSS has it four
/// times.
#[test]
fn shared_pages_count_once() {
    let (_stage, puppets) = four_that_share();
    let pids = [0, 1, 2, 3].map(|index: usize| puppets[index].pid);
    // Three of the four are targets of their own, and the tree of the first is all of them.
    let options = "procmaps_interval = \"100ms\"";
    let mut processes = Watch::begin(Asked { collect: "procmaps", scope: "process", options }, &pids[1..]);
    let lines = processes.gather();
    for pid in &pids[1..] {
        let [pss] = lines.fields_of("procmaps", &[("pid", &pid.to_string())], ["pss"]);
        assert!((SHARED / 4..SHARED / 4 + REST).contains(&pss), "{pss} KiB: {lines:?}");
        assert_is(pss, &maps(*pid));
    }

    let mut tree = Watch::begin(Asked { collect: "procstat,procmaps", scope: "tree", options }, &pids[..1]);
    let lines = tree.gather();
    let of_tree = &[("process_name", "w")];
    let [pss] = lines.fields_of("procmaps", of_tree, ["pss"]);
    let all = pids.map(maps);
    let all =
        Maps { pss: all.iter().map(|maps| maps.pss).sum(), uncertain: all.iter().map(|maps| maps.uncertain).sum() };
    assert!(pss.abs_diff(all.pss) <= all.uncertain, "{pss} KiB, but {all:?}");
    assert!((SHARED..SHARED + REST).contains(&pss), "{pss} KiB");
    let [rss] = lines.fields_of("procstat", of_tree, ["rss"]);
    assert!((4 * SHARED - REST..4 * SHARED + 4 * REST).contains(&rss), "{rss} KiB");

    // One leaves, and the others have a third each.
    let [mut root, one, _two, _three] = puppets;
    let pid = one.pid;
    one.end();
    root.order(&format!("reap {pid}"));
    wait_for("a new measurement", || {
        let third = |lines: &Lines, pid: u32| {
            let [pss] = lines.fields_of("procmaps", &[("pid", &pid.to_string())], ["pss"]);
            (SHARED / 3..SHARED / 3 + REST / 4).contains(&pss)
        };
        let lines = processes.gather();
        (third(&lines, pids[2]) && third(&lines, pids[3])).then_some(())
    });
    for pid in &pids[2..] {
        let [pss] = processes.gather().fields_of("procmaps", &[("pid", &pid.to_string())], ["pss"]);
        assert_is(pss, &maps(*pid));
    }
}

/// What is too large is not measured, which costs nothing but its PSS; once, a warning names it.
#[test]
fn a_large_process_is_left_out_of_pss_alone() {
    let (_stage, mut puppet) = Stage::new();
    puppet.order("map 64");
    puppet.order("touch");
    puppet.order("nice 5");
    for scope in ["process", "tree"] {
        let options = "procmaps_max_rss = \"1MiB\"\nprocmaps_interval = \"100ms\"";
        let mut watch =
            Watch::begin(Asked { collect: "psstat,procstat,procmaps,thread", scope, options }, &[puppet.pid]);
        for _ in 0..3 {
            let lines = watch.gather();
            let there = ["psstat", "procstat", "procmaps", "thread"].map(|name| lines.line(name, &[]).is_some());
            assert_eq!(there, [true, true, false, true], "{lines:?}");
        }
        let warnings = watch.end();
        let of_pss: Vec<_> = warnings.iter().filter(|warning| warning.contains("procmaps")).collect();
        let [warning] = of_pss[..] else { panic!("not one warning: {warnings:?}") };
        let parts = ["W! ", "leaves out puppets_play_he,", "procmaps_max_rss = 1", "raise it"];
        assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
    }
}
