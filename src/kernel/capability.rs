//! Capabilities (capabilities(7)): what this process may, and how it comes to be allowed more.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{LazyLock, OnceLock};

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, no_new_privs, set_capabilities,
};

/// Path of this program, for commands that the user is asked to run. Read once: the file may be replaced while the program
/// runs.
static EXECUTABLE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::current_exe().unwrap_or_else(|_| PathBuf::from("telegraf-taskstats")));

/// The first user namespace, as `/proc/self/ns/user` shows it (PROC_USER_INIT_INO, Linux 3.8).
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// Capability that a collector requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// taskstats: asking the kernel for the delays of any process, one's own included.
    NetAdmin,
    /// smaps_rollup and exe of other users' processes, and processes that `hidepid` hides.
    SysPtrace,
}

impl Capability {
    /// Every capability that the plugin can use.
    const ALL: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::SYS_PTRACE);

    fn bit(self) -> CapabilitySet {
        match self {
            Self::NetAdmin => CapabilitySet::NET_ADMIN,
            Self::SysPtrace => CapabilitySet::SYS_PTRACE,
        }
    }

    /// Returns whether the capability is effective in this thread.
    #[must_use]
    pub fn is_held(self) -> bool {
        capabilities(None).is_ok_and(|sets| sets.effective.contains(self.bit()))
    }

    /// Returns the text "CAP_X is required", with the remedy, for a message about a lack of it.
    #[must_use]
    pub fn is_needed(self) -> String {
        format!("{self} is required; {}", self.remedy())
    }

    /// Returns how to get the capability on this host: a command where one suffices.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        static REMEDIES: [OnceLock<String>; 2] = [const { OnceLock::new() }; 2];
        let [net_admin, sys_ptrace] = &REMEDIES;
        let remedy = match self {
            Self::NetAdmin => net_admin,
            Self::SysPtrace => sys_ptrace,
        };
        // What a process may does not change while it runs.
        remedy.get_or_init(|| {
            let executable = EXECUTABLE.clone();
            let barriers = Barriers {
                held: self.is_held(),
                user_namespace: is_in_user_namespace(),
                bounded: !capability_is_in_bounding_set(self.bit()).unwrap_or(true),
                no_new_privileges: no_new_privs().unwrap_or(false),
                nosuid: statvfs(&executable).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOSUID)),
                executable,
            };
            barriers.remedy(self)
        })
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
        })
    }
}

/// Puts into effect what file capabilities permit: they are given without the effective bit, since with it execve(2) fails
/// where the bounding set lacks one. Threads made later inherit it, so it is called first; and so that it is known where the
/// program lies.
///
/// # Errors
/// capget(2) or capset(2) is forbidden.
pub fn raise() -> io::Result<()> {
    LazyLock::force(&EXECUTABLE);
    let sets = capabilities(None)?;
    let wanted = sets.permitted & Capability::ALL;
    if sets.effective.contains(wanted) {
        return Ok(());
    }
    let effective = sets.effective | wanted;
    Ok(set_capabilities(None, CapabilitySets { effective, ..sets })?)
}

/// Restrictions of this process that keep a capability from it.
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
struct Barriers {
    held: bool,
    user_namespace: bool,
    bounded: bool,
    no_new_privileges: bool,
    /// The executable lies where file capabilities have no effect.
    nosuid: bool,
    executable: PathBuf,
}

impl Barriers {
    fn remedy(&self, capability: Capability) -> String {
        if self.user_namespace {
            return "run the plugin outside of this user namespace, whose capabilities do not count here".to_owned();
        }
        if self.held {
            return format!(
                "{capability} is held and not enough: a security module (AppArmor, SELinux) or seccomp forbids it"
            );
        }
        if self.bounded {
            return format!(
                "allow {capability} where the plugin is started: docker run --cap-add {}, or in the systemd unit \
                 CapabilityBoundingSet={capability}",
                capability.to_string().trim_start_matches("CAP_")
            );
        }
        if self.no_new_privileges {
            return format!(
                "in the systemd unit, set AmbientCapabilities={capability}: NoNewPrivileges makes file capabilities void"
            );
        }
        let setcap = "run as root: setcap cap_net_admin,cap_sys_ptrace=p";
        let path = self.executable.to_string_lossy();
        if self.nosuid {
            let name = self.executable.file_name().unwrap_or_default().to_string_lossy();
            return format!("move {path} to a file system that is not mounted nosuid, and there {setcap} {name}");
        }
        format!("{setcap} {}", shlex::try_quote(&path).unwrap_or_default())
    }
}

/// Returns whether this process is in a user namespace other than the first. Netlink and ptrace ignore capabilities of such
/// a one.
fn is_in_user_namespace() -> bool {
    let namespace = std::fs::read_link("/proc/self/ns/user");
    namespace.is_ok_and(|namespace| namespace.as_os_str() != FIRST_USER_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in the way, and the remedy: the first that helps.
    #[test]
    fn the_remedy_is_for_what_stands_in_the_way() {
        let [net, ptrace] = [Capability::NetAdmin, Capability::SysPtrace];
        let free = || Barriers {
            held: false,
            user_namespace: false,
            bounded: false,
            no_new_privileges: false,
            nosuid: false,
            executable: PathBuf::from("/usr/bin/x"),
        };
        let cases = [
            (free(), net, "run as root: setcap cap_net_admin,cap_sys_ptrace=p /usr/bin/x"),
            (Barriers { executable: PathBuf::from("/a b/x"), ..free() }, net, "=p '/a b/x'"),
            (Barriers { no_new_privileges: true, ..free() }, net, "AmbientCapabilities=CAP_NET_ADMIN"),
            (Barriers { bounded: true, no_new_privileges: true, ..free() }, ptrace, "--cap-add SYS_PTRACE"),
            (
                Barriers { user_namespace: true, bounded: true, held: true, ..free() },
                net,
                "outside of this user namespace",
            ),
            (Barriers { nosuid: true, ..free() }, net, "there run as root: setcap cap_net_admin,cap_sys_ptrace=p x"),
            (Barriers { held: true, ..free() }, net, "security module"),
        ];
        for (barriers, capability, remedy) in cases {
            let said = barriers.remedy(capability);
            assert!(said.contains(remedy), "{remedy:?} is not in {said:?}");
        }
    }
}
