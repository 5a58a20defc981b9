//! The cgroup file systems under `/sys/fs/cgroup`: which hierarchies there are, which cgroups are in them,
//! their processes and their CPU.
//!
//! No systemctl and no D-Bus: a unit's processes are those of the cgroup that bears its name.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::stat::decimal;
use super::unless_gone;

/// Most levels of cgroups that are followed; systemd makes about ten.
const DEPTH_MAX: usize = 64;

/// Returns the hierarchies to look into, in this order: the unified one (cgroup v2, alone or beside v1: "hybrid"), then
/// systemd's own v1 hierarchy, then the v1 controllers that container runtimes without systemd use.
///
/// `sys_root` is `/sys`, or another directory in tests and containers.
#[must_use]
pub fn hierarchies(sys_root: &Path) -> Vec<PathBuf> {
    let mount = sys_root.join("fs/cgroup");
    let unified = [mount.clone(), mount.join("unified")];
    let v2 = unified.into_iter().filter(|root| root.join("cgroup.controllers").exists());
    let v1 = ["systemd", "cpu,cpuacct", "cpuacct", "cpu", "memory", "pids"].map(|name| mount.join(name));
    v2.chain(v1.into_iter().filter(|root| root.join("cgroup.procs").exists())).collect()
}

/// The names of the cgroups directly below one. Gone: none.
///
/// # Errors
/// The directory cannot be read.
fn children(cgroup: &Path) -> io::Result<Vec<OsString>> {
    let Some(metadata) = unless_gone(std::fs::metadata(cgroup))? else { return Ok(Vec::new()) };
    if metadata.nlink() == 2 {
        return Ok(Vec::new()); // kernfs counts directories: there are only files to list
    }
    let Some(entries) = unless_gone(std::fs::read_dir(cgroup))? else { return Ok(Vec::new()) };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<_> = directories.map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    Ok(names)
}

/// Calls `visit` for each cgroup below `root`, outermost first; it says whether to go on below that one. Its
/// argument is the path relative to `root`.
///
/// # Errors
/// A directory cannot be read (any user may close one that is his). The others are visited all the same.
pub fn walk(root: &Path, mut visit: impl FnMut(&Path) -> bool) -> io::Result<()> {
    let mut failed = None;
    let mut pending = vec![PathBuf::new()];
    while let Some(above) = pending.pop() {
        if above.components().count() >= DEPTH_MAX {
            continue;
        }
        let names = children(&root.join(&above)).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            Vec::new()
        });
        for name in names {
            let path = above.join(name);
            if visit(&path) {
                pending.push(path);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Returns the inode of a cgroup's directory. It identifies the cgroup: one that is created later under the same name has
/// another inode.
///
/// # Errors
/// The directory cannot be examined.
pub fn inode(cgroup: &Path) -> io::Result<Option<u64>> {
    Ok(unless_gone(std::fs::metadata(cgroup))?.filter(std::fs::Metadata::is_dir).map(|m| m.ino()))
}

/// The processes in a cgroup and all below it.
#[derive(Debug, Default)]
pub struct Listed {
    /// The pids.
    pub pids: Vec<u32>,
    /// Some members are in a pid namespace that this process cannot see into: cgroup.procs lists them as 0.
    pub foreign: bool,
    /// First error of a member list that could not be read.
    pub failed: Option<io::Error>,
}

/// The processes in a cgroup and all below it (`cgroup.procs`), without what a threaded cgroup refuses to list (EOPNOTSUPP): its
/// domain lists it.
#[must_use]
pub fn processes(cgroup: &Path) -> Listed {
    let Listed { mut pids, mut foreign, mut failed } = Listed::default();
    let mut add = |of: io::Result<Vec<u32>>| match of {
        Ok(more) => {
            foreign |= more.contains(&0);
            pids.extend(more.into_iter().filter(|pid| *pid > 0));
        }
        Err(error) => drop(failed.get_or_insert(error)),
    };
    add(own_processes(cgroup));
    let walked = walk(cgroup, |below| {
        add(own_processes(&cgroup.join(below)));
        true
    });
    Listed { pids, foreign, failed: failed.or(walked.err()) }
}

fn own_processes(cgroup: &Path) -> io::Result<Vec<u32>> {
    let text = match std::fs::read(cgroup.join("cgroup.procs")) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
            return Ok(Vec::new());
        }
        other => unless_gone(other)?.unwrap_or_default(),
    };
    let lines = text.split(|b| *b == b'\n').filter_map(decimal);
    Ok(lines.filter_map(|pid| u32::try_from(pid).ok()).collect())
}

/// CPU time charged to a cgroup and all below it, its dead included: ns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// `usage_usec`.
    pub cpu: u64,
    /// `user_usec`.
    pub user: u64,
    /// `system_usec`.
    pub system: u64,
}

/// Reads `cpu.stat` of a cgroup (cgroup v2, Linux 4.15; no controller is needed). `None`: the cgroup was removed, or is in
/// a v1 hierarchy, which has no such file.
///
/// # Errors
/// The file cannot be read.
pub fn usage(cgroup: &Path) -> io::Result<Option<Usage>> {
    let text = unless_gone(std::fs::read(cgroup.join("cpu.stat")))?.unwrap_or_default();
    let nanoseconds = |key: &[u8]| {
        let microseconds = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(key)).and_then(decimal);
        microseconds.and_then(|microseconds| microseconds.checked_mul(1000))
    };
    let [cpu, user, system] = [&b"usage_usec "[..], b"user_usec ", b"system_usec "].map(nanoseconds);
    let all = cpu.zip(user).zip(system);
    Ok(all.map(|((cpu, user), system)| Usage { cpu, user, system }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    fn cgroup(root: &Path, path: &str, procs: &str) {
        let directory = root.join(path);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("cgroup.procs"), procs).unwrap();
    }

    #[test]
    fn finds_pure_hybrid_and_v1_mounts() {
        let cases: [(&[&str], &[&str]); 4] = [
            (&["cgroup.controllers"], &[""]),
            (&["unified/cgroup.controllers", "systemd/cgroup.procs"], &["unified", "systemd"]),
            (&["systemd/cgroup.procs", "cpu,cpuacct/cgroup.procs"], &["systemd", "cpu,cpuacct"]),
            (&[], &[]),
        ];
        for (files, expected) in cases {
            let sys = tempfile::tempdir().unwrap();
            let mount = sys.path().join("fs/cgroup");
            for file in files {
                fs::create_dir_all(mount.join(file).parent().unwrap()).unwrap();
                fs::write(mount.join(file), "").unwrap();
            }
            let expected: Vec<_> = expected.iter().map(|name| mount.join(name)).collect();
            assert_eq!(hierarchies(sys.path()), expected, "{files:?}");
        }
    }

    #[test]
    fn processes_are_those_of_the_whole_subtree() {
        let root = tempfile::tempdir().unwrap();
        cgroup(root.path(), "a.service", "10\n11\n");
        cgroup(root.path(), "a.service/nested/deeper", "12\n0\n");
        cgroup(root.path(), "b.service", "13\n");
        let mut listed = processes(&root.path().join("a.service"));
        listed.pids.sort_unstable();
        assert!(listed.pids == [10, 11, 12] && listed.foreign && listed.failed.is_none());
        let listed = processes(&root.path().join("b.service"));
        assert!(listed.pids == [13] && !listed.foreign && listed.failed.is_none());
        let listed = processes(&root.path().join("never"));
        assert!(listed.pids.is_empty() && !listed.foreign && listed.failed.is_none());
    }

    #[test]
    fn what_cannot_be_read_costs_the_rest_nothing() {
        let root = tempfile::tempdir().unwrap();
        cgroup(root.path(), "a", "10\n");
        fs::create_dir_all(root.path().join("a/closed/cgroup.procs")).unwrap(); // reading it fails
        cgroup(root.path(), "a/open", "12\n");
        let mut listed = processes(&root.path().join("a"));
        listed.pids.sort_unstable();
        assert!(listed.pids == [10, 12] && listed.failed.is_some());
    }

    #[test]
    fn the_walk_is_told_where_not_to_go_on() {
        let root = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "d"] {
            cgroup(root.path(), path, "");
        }
        let mut seen = Vec::new();
        walk(root.path(), |path| {
            seen.push(path.to_owned());
            path != Path::new("a/b")
        })
        .unwrap();
        assert_eq!(seen, ["a", "d", "a/b"].map(PathBuf::from));
    }

    #[test]
    fn usage_is_in_nanoseconds_and_unknown_where_there_is_none() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(usage(root.path()).unwrap(), None);
        fs::write(root.path().join("cpu.stat"), "usage_usec 1234\nuser_usec 1000\nsystem_usec 234\n").unwrap();
        let expected = Usage { cpu: 1_234_000, user: 1_000_000, system: 234_000 };
        assert_eq!(usage(root.path()).unwrap(), Some(expected));
        fs::write(root.path().join("cpu.stat"), "nr_periods 0\n").unwrap();
        assert_eq!(usage(root.path()).unwrap(), None);
    }
}
