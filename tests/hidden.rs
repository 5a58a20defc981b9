//! What a real /proc does not show: processes that it hides (hidepid), threads, and one's own place in another pid
//! namespace. Nothing is made up here, since kill(2) is asked too: it takes root, and a mount namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking,
#![allow(clippy::print_stderr)] // and says what it skips
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere

mod support;

#[path = "truth/cgroup.rs"]
mod cgroup;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/watched.rs"]
mod watched;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use cgroup::Cgroup;
use peers::Running;
use support::{ORDINARY_USER, Plugin, PublicBinary, binary, field, is_root, skip, wait_for};
use watched::Sleeper;

/// A shell's words: "$@" as an ordinary user, with a /proc that shows only what is his.
const HIDE: &str =
    "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";

/// The command as an ordinary user to whom /proc hides the processes of others. Where nothing can be hidden it says so,
/// and there is none.
fn with_others_hidden(command: &Command) -> Option<Command> {
    let unshared = |program, arguments: &[_]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", HIDE, "sh"]).arg(program).args(arguments);
        unshare.env_remove("HOST_PROC").env_remove("HOST_SYS").current_dir("/");
        unshare
    };
    let probe = unshared("test".as_ref(), &["!", "-e", "/proc/1"].map(AsRef::as_ref)).output();
    let reason = match probe {
        _ if !is_root() => "hiding processes from another user needs root".to_owned(),
        Err(error) => format!("unshare does not start: {error}"),
        Ok(probe) if !probe.status.success() => {
            format!("/proc cannot be made to hide processes: {}", String::from_utf8_lossy(&probe.stderr).trim())
        }
        Ok(_) => return Some(unshared(command.get_program(), &command.get_args().collect::<Vec<_>>())),
    };
    skip(&reason);
    None
}

/// A process of the user as whom the plugin runs.
fn own_process() -> Running {
    Running::start(Command::new("cat").stdin(Stdio::piped()).uid(ORDINARY_USER).gid(ORDINARY_USER))
}

/// Has it stop well, with no more lines; what it said.
fn said(plugin: Plugin) -> Vec<String> {
    let (status, rest, stderr) = plugin.stop();
    assert!(status.success() && rest.is_empty(), "{status}: {rest:?}, {stderr:?}");
    stderr
}

/// The one warning says all of `parts`.
fn assert_warned_of(stderr: &[String], parts: &[&str]) {
    let [warning] = stderr else { panic!("not one warning: {stderr:?}") };
    assert!(warning.starts_with("W! "), "{warning}");
    for part in parts {
        assert!(warning.contains(part), "{part:?} is not in {warning:?}");
    }
}

/// It is there, so "no process" would be wrong; of a process that can be seen everything is known.
#[test]
fn nothing_is_said_of_a_hidden_process() {
    let (public, own) = (PublicBinary::new(), own_process());
    let mut command = public.command_as_ordinary_user();
    command.arg("--pid").arg(format!("x:{}", std::process::id())).arg("--pid").arg(format!("good:{}", own.id()));
    let Some(command) = with_others_hidden(&command) else { return };
    let mut plugin = Plugin::start(command);
    for _ in 0..2 {
        let line = plugin.gather(1).concat();
        assert!(line.starts_with("psstat,process_name=good "), "{line}");
        assert_eq!(field(&line, "n_proc"), Some("1i"), "{line}");
    }
    let pid = format!(" {} ", std::process::id());
    assert_warned_of(&said(plugin), &[&pid, "hidepid", "CAP_SYS_PTRACE", "gid="]);
}

/// Its CPU is in cpu.stat, which hides nothing; how many processes have used it cannot be known.
#[test]
fn a_cgroup_of_hidden_processes_has_its_cpu_alone() {
    let cgroup = match Cgroup::create("hidden") {
        Ok(cgroup) => cgroup,
        Err(reason) => return skip(&reason),
    };
    let _busy = busy_in(&cgroup);
    let (public, configuration) = (PublicBinary::new(), cgroup.configuration());
    let mut command = public.command_as_ordinary_user();
    command.args(["--psstat-fields", "all", "--config"]).arg(configuration.path());
    let Some(command) = with_others_hidden(&command) else { return };
    let mut plugin = Plugin::start(command);
    for _ in 0..2 {
        let line = wait_for("its CPU", || Some(plugin.gather(1).concat()).filter(|line| has_cpu(line)));
        for unknown in ["p_mem", "n_proc", "n_zombie", "started", "exited", "restarts"] {
            assert_eq!(field(&line, unknown), None, "{unknown} in {line}");
        }
    }
    let path = cgroup.directory().display().to_string();
    assert_warned_of(&said(plugin), &[&path, "hidepid", "CAP_SYS_PTRACE", "gid="]);
}

/// A gather just after another has no p_cpu.
fn has_cpu(line: &str) -> bool {
    let cpu_time = field(line, "cpu_time").unwrap_or_else(|| panic!("no cpu_time: {line}"));
    cpu_time != "0i" && field(line, "p_cpu").is_some_and(|p_cpu| p_cpu != "0")
}

/// A process of root's in the cgroup that never stops, but for a minute of CPU if the test is killed.
fn busy_in(cgroup: &Cgroup) -> Running {
    let busy = "echo 0 >\"$1/cgroup.procs\"; ulimit -t 60; while :; do :; done";
    let busy = Running::start(Command::new("sh").args(["-c", busy, "sh"]).arg(cgroup.directory()));
    wait_for("a process in the cgroup", || (cgroup.usage() > 0.0).then_some(()));
    busy
}

/// What is reported if nothing is asked for: pid 1 and its children or, where systemd runs, its units.
#[test]
fn a_hidden_init_is_said() {
    let public = PublicBinary::new();
    let Some(command) = with_others_hidden(&public.command_as_ordinary_user()) else { return };
    let mut plugin = Plugin::start(command);
    plugin.prompt();
    let (status, lines, stderr) = plugin.stop();
    assert!(status.success(), "{status}: {stderr:?}");
    assert!(!lines.iter().any(|line| line.contains("n_proc=0i")), "{lines:?}");
    let is_init = |line: &&String| line.starts_with("W! Process 1 ") || line.contains("init.scope");
    let of_init: Vec<_> = stderr.iter().filter(is_init).cloned().collect();
    assert_warned_of(&of_init, &["hidepid"]);
}

/// kill(2) knows it and the listing of /proc does not, as with a hidden process; yet it is none.
#[test]
fn a_thread_of_another_user_is_no_hidden_process() {
    if !is_root() {
        return skip("to be another user needs root");
    }
    let (tell, told) = channel();
    let (_end, ended) = channel::<()>();
    std::thread::spawn(move || {
        tell.send(rustix::thread::gettid()).unwrap();
        let _ = ended.recv(); // lives as long as the test
    });
    let thread = told.recv().unwrap().as_raw_nonzero();
    let public = PublicBinary::new();
    let mut command = public.command_as_ordinary_user();
    command.arg("--pid").arg(format!("x:{thread}"));
    let mut plugin = Plugin::start(command);
    for _ in 0..2 {
        let line = plugin.gather(1).concat();
        assert_eq!(field(&line, "n_proc"), Some("0i"), "{line}");
    }
    assert_warned_of(&said(plugin), &["No process", &thread.to_string()]);
}

/// getpid(2) says 1 there, but the /proc of the host is read, in which the plugin has another pid. It never matches
/// itself; another process of its name does.
#[test]
fn in_a_pid_namespace_the_plugin_does_not_match_itself() {
    let unshare = |program| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork"]).arg(program).env_remove("HOST_PROC").env_remove("HOST_SYS");
        command
    };
    match unshare("true".as_ref()).output() {
        Ok(probe) if probe.status.success() => {}
        probe => return skip(&format!("no pid namespace can be made: {probe:?}")),
    }
    let comm = format!("me-{}", std::process::id());
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join(&comm);
    std::os::unix::fs::symlink(binary(), &program).unwrap();
    let _namesake = Sleeper::named(comm.as_bytes());
    let mut command = unshare(program.as_os_str());
    command.arg("--pattern").arg(format!("me:^{comm}$"));
    let mut plugin = Plugin::start(command);
    for _ in 0..2 {
        let line = plugin.gather(1).concat();
        assert_eq!(field(&line, "n_proc"), Some("1i"), "{line}");
    }
    assert_eq!(said(plugin), Vec::<String>::new());
}
