//! Without privilege psstat and procstat still come out for what can be seen, the rest is left out with its reason, `--check`
//! says what to do, and doing exactly that makes it work. On the real kernel, as other users and in other namespaces: it
//! takes root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking,
#![allow(clippy::print_stderr)] // and says what it skips
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere

mod support;

#[path = "support/delay_accounting.rs"]
mod delay_accounting;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/terminal.rs"]
mod terminal;

#[path = "permissions/accounting.rs"]
mod accounting;
#[path = "permissions/check.rs"]
mod check;
#[path = "permissions/cost.rs"]
mod cost;
#[path = "permissions/sandbox.rs"]
mod sandbox;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use delay_accounting::DelayAccounting;
use peers::Running;
use sandbox::{
    Check, Expected, ORDINARY, Sandbox, Watched, Words, gather, gathers, is_possible, own_process, run, settled,
    wait_until_it_sleeps,
};
use support::{Plugin, wait_for};

const PROC: &str = "/proc";

/// What is said where a capability is missing, with what helps.
fn lacks(remedy: &str) -> [[&str; 3]; 2] {
    [["taskstat is left out", "CAP_NET_ADMIN", remedy], ["procmaps leaves out", "CAP_SYS_PTRACE", remedy]]
}

/// A process of root's is watched; two measurements are left out, the reasons and `--check` say to do this.
struct Deprived {
    sandbox: Sandbox,
    watched: Watched,
}

impl Deprived {
    fn new() -> Self {
        let (sandbox, watched) = (Sandbox::new(), Watched::new());
        sandbox.watch(&[("it", watched.pid())]);
        Self { sandbox, watched }
    }

    fn assert_told(&self, words: Words, remedy: &str) -> Check {
        let complaints = lacks(remedy);
        let complaints = complaints.each_ref().map(|parts| &parts[..]);
        let lines = self.sandbox.gathers(words, &Expected::of(&["it"], &[]), &complaints);
        lines.assert_true("it", Path::new(PROC), self.watched.pid());
        let check = self.sandbox.check_with_delays(words);
        check.assert_fails(&complaints);
        check
    }

    /// All of it is there, and true, and `--check` is content.
    fn assert_works(&self, words: Words) {
        let lines = self.sandbox.gathers(words, &Expected::all(&["it"]), &[]);
        lines.assert_true("it", Path::new(PROC), self.watched.pid());
        self.sandbox.check_with_delays(words).assert_works();
    }
}

#[test]
fn an_ordinary_user_is_told_the_command_that_helps() {
    let it = Deprived::new();
    if !is_possible(ORDINARY) || !it.sandbox.has_file_capabilities() {
        return;
    }
    let command = it.assert_told(ORDINARY, "run as root: setcap ").command("setcap", "\n");
    let program = it.sandbox.program();
    assert_eq!(command, format!("setcap cap_net_admin,cap_sys_ptrace=p {}", program.display()));
    run(&command);
    it.assert_works(ORDINARY);
}

/// It is pasted into a shell.
#[test]
fn the_command_is_right_for_a_path_with_a_space() {
    let sandbox = Sandbox::new();
    if !is_possible(ORDINARY) || !sandbox.has_file_capabilities() {
        return;
    }
    let directory = sandbox.directory().join("with a space");
    let program = directory.join("telegraf-taskstats");
    fs::create_dir(&directory).unwrap();
    support::copy_program(sandbox.program(), &program);
    let watched = Watched::new();
    let check = || {
        let mut command = Command::new(ORDINARY[0]);
        command.args(&ORDINARY[1..]).arg(&program).args(["--check", "--collect", "procmaps", "--pid"]);
        Check::of(command.arg(watched.pid().to_string()).current_dir("/"))
    };
    run(&check().command("setcap", "\n"));
    check().assert_works();
}

/// An upgrade puts another file, without capabilities, at the path of the one that runs.
#[test]
fn the_command_is_right_after_an_upgrade() {
    let it = Deprived::new();
    if !is_possible(ORDINARY) {
        return;
    }
    let program = it.sandbox.program();
    let mut plugin = Plugin::start(it.sandbox.command(ORDINARY));
    gather(&mut plugin);
    let new = program.with_extension("new");
    support::copy_program(&program, &new);
    fs::rename(&new, &program).unwrap();
    gather(&mut plugin);
    let (status, _, stderr) = plugin.stop();
    assert!(status.success(), "{status}: {stderr:?}");
    let commands = stderr.iter().filter(|line| line.contains("setcap"));
    for command in commands {
        assert!(command.ends_with(&format!("=p {}", program.display())), "{command}");
    }
}

/// Where it may not have them, files that are given capabilities give none.
#[test]
fn on_a_file_system_without_them_it_says_so() {
    let it = Deprived::new();
    let mounted = it.sandbox.directory().join("mounted");
    fs::create_dir(&mounted).unwrap();
    let script = r#"mount -t tmpfs -o nosuid,mode=755 tmpfs "$0" && cp "$1" "$0/" && shift && exec setpriv --reuid 65534 \
                    --regid 65534 --clear-groups "$0/telegraf-taskstats" "$@""#;
    let mounted = mounted.to_str().unwrap();
    let words: Words = &["unshare", "--mount", "--propagation", "private", "sh", "-c", script, mounted];
    if !is_possible(&["unshare", "--mount", "--propagation", "private"]) {
        return;
    }
    let check = it.sandbox.check_with_delays(words);
    let complaints = lacks("nosuid");
    check.assert_fails(&complaints.each_ref().map(|parts| &parts[..]));
}

/// The delays that the kernel does not count are left out; the command that is told is run, and they are there.
#[test]
fn delays_are_counted_when_the_switch_is_on() {
    let it = Deprived::new();
    if !is_possible(&[]) {
        return;
    }
    let _accounting = DelayAccounting::switch(false);
    let expected = Expected::all(&["it"]);
    let mut plugin = Plugin::start(it.sandbox.command(&[]));
    settled(&mut plugin, &expected.shape(false), 1);
    let check = it.sandbox.check(&[]);
    check.assert_works_except(&[&["kernel.task_delayacct is 0", "restart what is watched"]]);
    let command = check.command("sysctl", ", then");
    assert_eq!(command, "sysctl kernel.task_delayacct=1");
    if Command::new("sysctl").arg("--version").stdout(Stdio::null()).status().is_ok() {
        run(&command);
    } else {
        fs::write("/proc/sys/kernel/task_delayacct", "1").unwrap(); // the same
    }
    // What was started before is not counted: a zero would be false.
    settled(&mut plugin, &expected.shape(false), 0);
    it.sandbox.check(&[]).assert_works();
    let again = Watched::new();
    it.sandbox.watch(&[("it", again.pid())]);
    let mut plugin_of_new = Plugin::start(it.sandbox.command(&[]));
    settled(&mut plugin_of_new, &expected.shape(true), 0).assert_true("it", Path::new(PROC), again.pid());
    let (status, _, stderr) = plugin.stop();
    let said = |prefix, text| stderr.iter().filter(|line| line.starts_with(prefix) && line.contains(text)).count();
    assert!(status.success() && stderr.len() == 2, "{status}: {stderr:?}");
    assert_eq!([said("W! ", "task_delayacct is 0"), said("I! ", "task_delayacct is on now")], [1, 1], "{stderr:?}");
}

/// Root in a container, or in a systemd unit with a bounding set.
#[test]
fn root_without_capabilities_is_told_to_allow_them() {
    let it = Deprived::new();
    let dropped: [Words; 2] = [
        &["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
        &["capsh", "--drop=all", "--inh=", "--", "-c", "exec \"$@\"", "sh"],
    ];
    for words in dropped.into_iter().filter(|words| is_possible(words)) {
        let check = it.assert_told(words, "allow CAP_");
        let allowed = check.capabilities("CapabilityBoundingSet");
        assert_eq!(allowed, "+net_admin,+sys_ptrace");
        assert!(check.stdout.contains("--cap-add NET_ADMIN") && check.stdout.contains("--cap-add SYS_PTRACE"));
        it.assert_works(&["setpriv", &format!("--bounding-set=-all,{allowed}"), "--inh-caps=-all"]);
    }
}

/// File capabilities do not count then, so that it would not help to set them.
#[test]
fn without_new_privileges_it_is_told_to_set_ambient_ones() {
    let it = Deprived::new();
    let words = [ORDINARY, &["setpriv", "--no-new-privs"]].concat();
    if !is_possible(&words) || !it.sandbox.has_file_capabilities() {
        return;
    }
    for with_file_capabilities in [false, true] {
        if with_file_capabilities {
            run(&format!("setcap cap_net_admin,cap_sys_ptrace=p {}", it.sandbox.program().display()));
        }
        let check = it.assert_told(&words, "NoNewPrivileges");
        let ambient = check.capabilities("AmbientCapabilities");
        assert_eq!(ambient, "+net_admin,+sys_ptrace");
        let (inheritable, ambient) = (format!("--inh-caps={ambient}"), format!("--ambient-caps={ambient}"));
        it.assert_works(&[ORDINARY, &["--no-new-privs", &inheritable, &ambient]].concat());
    }
}

/// With the effective bit in the file, execve(2) would fail.
#[test]
fn file_capabilities_that_the_bounding_set_lacks_do_not_keep_it_from_running() {
    let it = Deprived::new();
    if !is_possible(ORDINARY) || !it.sandbox.has_file_capabilities() {
        return;
    }
    let program = it.sandbox.program();
    let command = it.sandbox.check_with_delays(ORDINARY).command("setcap", "\n");
    run(&command.replace("=p ", "=ep "));
    let without = |capability| {
        let bounded = format!("--bounding-set=-{capability}");
        let words = [ORDINARY, &[&bounded]].concat();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let refused = without("net_admin");
    let refused = Command::new(&refused[0]).args(&refused[1..]).arg(&program).arg("--version").output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    run(&command);
    let [no_delays, no_pages] = lacks("allow CAP_");
    let cases = [("net_admin", "procmaps", no_delays), ("sys_ptrace", "taskstat", no_pages)];
    for (missing, left, complaint) in cases {
        let words = without(missing);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let lines = it.sandbox.gathers(&words, &Expected::of(&["it"], &[left]), &[&complaint]);
        lines.assert_true("it", Path::new(PROC), it.watched.pid());
        it.sandbox.check_with_delays(&words).assert_fails(&[&complaint]);
    }
}

/// Each barrier is named when those before it are gone, and there is an end of them.
#[test]
fn what_is_told_leads_there_in_steps() {
    let it = Deprived::new();
    let bounded = [ORDINARY, &["--bounding-set=-all"]].concat();
    if !is_possible(&bounded) || !it.sandbox.has_file_capabilities() {
        return;
    }
    let allowed = it.assert_told(&bounded, "allow CAP_").capabilities("CapabilityBoundingSet");
    let allowed = format!("--bounding-set=-all,{allowed}");
    let allowed = [ORDINARY, &[&allowed]].concat();
    run(&it.assert_told(&allowed, "run as root: setcap ").command("setcap", "\n"));
    it.assert_works(&allowed);
}

/// A shell's words: "$@" as an ordinary user, with a /proc that shows only what is his.
const HIDE: &str =
    "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";

#[test]
fn a_hidden_process_is_seen_after_the_command() {
    let sandbox = Sandbox::new();
    let words: Words = &["unshare", "--mount", "--propagation", "private", "sh", "-c", HIDE, "sh"];
    if !is_possible(words) || !sandbox.has_file_capabilities() {
        return;
    }
    let (hidden, own) = (Watched::new(), own_process());
    sandbox.watch(&[("hidden", hidden.pid()), ("own", own.pid())]);
    let pid = format!("Process {} exists", hidden.pid());
    let complaints: [&[&str]; 2] = [
        &[&pid, "hidepid", "CAP_SYS_PTRACE", "run as root: setcap "],
        &["taskstat is left out", "CAP_NET_ADMIN", "run as root: setcap "],
    ];
    // One's own pages can be looked at.
    let lines = sandbox.gathers(words, &Expected::of(&["own"], &["procmaps"]), &complaints);
    lines.assert_true("own", Path::new(PROC), own.pid());
    let check = sandbox.check_with_delays(words);
    check.assert_fails(&complaints);
    run(&check.command("setcap", "\n"));
    let lines = sandbox.gathers(words, &Expected::all(&["hidden", "own"]), &[]);
    lines.assert_true("own", Path::new(PROC), own.pid());
    lines.assert_true("hidden", Path::new(PROC), hidden.pid());
    sandbox.check_with_delays(words).assert_works();
}

/// A systemd unit with ProcSubset=pid: no meminfo, no sys.
#[test]
fn of_a_proc_with_processes_only_the_rest_is_missed() {
    let it = Deprived::new();
    let script = "mount -t proc -o subset=pid proc /proc && exec \"$@\"";
    let words: Words = &["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    if !is_possible(words) {
        return;
    }
    let unseen = ["p_mem", "cpu_count", "cpu_delay_total", "blkio_delay"];
    let unseen = [&unseen[..], &["blkio_count", "blkio_delay_total", "swapin_count", "swapin_delay_total"]].concat();
    let complaints: [&[&str]; 2] = [&["p_mem is left out", "/proc/meminfo"], &["kernel.task_delayacct", "/proc/sys"]];
    it.sandbox.gathers(words, &Expected::all(&["it"]).without(&unseen), &complaints);
    it.sandbox.check(words).assert_fails(&complaints);
}

#[test]
fn a_user_namespace_is_to_be_left() {
    let it = Deprived::new();
    let words: Words = &["unshare", "--user", "--map-root-user"];
    if is_possible(words) {
        it.assert_told(words, "outside of this user namespace");
        it.assert_works(&[]);
    }
}

/// Nobody there is anybody outside: capabilities of the file count in the namespace only.
#[test]
fn so_is_one_without_any_user() {
    let it = Deprived::new();
    let words: Words = &["unshare", "--user"];
    if !is_possible(words) || !it.sandbox.has_file_capabilities() {
        return;
    }
    it.assert_told(words, "outside of this user namespace");
    run(&format!("setcap cap_net_admin,cap_sys_ptrace=p {}", it.sandbox.program().display()));
    it.assert_told(words, "outside of this user namespace");
}

/// Everybody there has the same number outside, as in no namespace.
#[test]
fn so_is_one_with_all_users() {
    let it = Deprived::new();
    if !is_possible(&["unshare", "--user"]) {
        return;
    }
    let _accounting = DelayAccounting::switch(true);
    let mut command = it.sandbox.command(&["unshare", "--user", "sh", "-c", "read go; exec \"$@\"", "sh"]);
    let mut plugin = Running::start(command.arg("--check").stdin(Stdio::piped()).stdout(Stdio::piped()));
    let proc = Path::new(PROC).join(plugin.id().to_string());
    let ours = fs::read_link("/proc/self/ns/user").unwrap();
    wait_for("a user namespace", || (fs::read_link(proc.join("ns/user")).ok()? != ours).then_some(()));
    for map in ["uid_map", "gid_map"] {
        fs::write(proc.join(map), "0 0 4294967295").unwrap();
    }
    drop(plugin.stdin.take()); // "read" has enough with that
    let stdout = std::io::read_to_string(plugin.stdout.take().unwrap()).unwrap();
    let code = plugin.wait().unwrap().code();
    let complaints = lacks("outside of this user namespace");
    Check { code, stdout, stderr: String::new() }.assert_fails(&complaints.each_ref().map(|parts| &parts[..]));
}

#[test]
fn delays_are_told_in_another_network_namespace() {
    let it = Deprived::new();
    let words: Words = &["unshare", "--net"];
    if is_possible(words) {
        it.assert_works(words);
    }
}

/// The pid of the first process in a namespace that an unshare has made and forked into.
fn forked_by(unshare: u32) -> u32 {
    let children = format!("/proc/{unshare}/task/{unshare}/children");
    wait_for("the first process of a namespace", || fs::read_to_string(&children).ok()?.trim().parse().ok())
}

/// A container: pids are its own, in /proc and for netlink. Its second process is watched, which is another outside.
#[test]
fn in_a_pid_namespace_with_its_own_proc_everything_is_there() {
    let sandbox = Sandbox::new();
    sandbox.watch(&[("it", 2)]);
    // PSS is that of before the first gather.
    let script = "nice -n 5 sleep 600 & until grep -q '(sleep) S' /proc/2/stat; do :; done; exec \"$@\"";
    let words: Words = &["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"];
    if !is_possible(words) {
        return;
    }
    let accounting = DelayAccounting::as_it_is();
    let complaints = usize::from(!accounting.is_on());
    let mut plugin = Plugin::start(sandbox.command(words));
    let proc = Path::new(PROC).join(forked_by(plugin.pid()).to_string()).join("root/proc");
    let lines = settled(&mut plugin, &Expected::all(&["it"]).shape(accounting.is_on()), complaints);
    lines.assert_true("it", &proc, 2);
    let (status, _, stderr) = plugin.stop();
    assert!(status.success() && stderr.len() == complaints, "{status}: {stderr:?}");
    drop(accounting);
    sandbox.check_with_delays(words).assert_works();
}

/// What is said where pids in /proc are not those of netlink: it would tell of other processes.
const OTHER_PIDS: &[&str] = &["taskstat is left out", "another pid namespace", "--pid=host"];

fn assert_no_delays_of_others(it: &Deprived, words: Words, proc_root: Option<&str>) {
    let command = || {
        let mut command = it.sandbox.command(words);
        command.args(proc_root.iter().flat_map(|root| ["--proc-root", root]));
        command
    };
    let lines = gathers(command(), &Expected::of(&["it"], &["procmaps"]), &[OTHER_PIDS]);
    lines.assert_true("it", Path::new(PROC), it.watched.pid());
    let _accounting = DelayAccounting::switch(true);
    Check::of(command().arg("--check")).assert_fails(&[OTHER_PIDS]);
}

#[test]
fn in_a_pid_namespace_with_the_hosts_proc_no_delays_of_others_are_told() {
    let it = Deprived::new();
    let words: Words = &["unshare", "--pid", "--fork"];
    if is_possible(words) {
        assert_no_delays_of_others(&it, words, None);
        it.assert_works(&[]);
    }
}

/// As docker run --volume /proc:/host/proc has it.
#[test]
fn nor_are_they_with_the_hosts_proc_elsewhere() {
    let it = Deprived::new();
    let elsewhere = it.sandbox.directory().join("proc");
    fs::create_dir(&elsewhere).unwrap();
    let elsewhere = elsewhere.to_str().unwrap();
    let script = "mount --bind /proc \"$0\" && mount -t proc proc /proc && exec \"$@\"";
    let words = ["unshare", "--pid", "--fork", "--mount", "--propagation", "private", "sh", "-c", script, elsewhere];
    if is_possible(&words) {
        assert_no_delays_of_others(&it, &words, Some(elsewhere));
    }
}

/// From outside a container, its processes by its pids.
#[test]
fn nor_are_they_with_the_proc_of_a_namespace_below() {
    let words = ["unshare", "--pid", "--fork", "--mount-proc"];
    if !is_possible(&words) {
        return;
    }
    let script = "nice -n 5 sleep 600 & read end";
    let mut container = Command::new(words[0]);
    let container = Running::start(container.args(&words[1..]).args(["sh", "-c", script]).stdin(Stdio::piped()));
    let proc = Path::new(PROC).join(forked_by(container.id()).to_string()).join("root/proc");
    wait_for("its program", || (fs::read_to_string(proc.join("2/comm")).ok()? == "sleep\n").then_some(()));
    wait_until_it_sleeps(&proc, 2);
    let sandbox = Sandbox::new();
    sandbox.watch(&[("it", 2)]);
    let mut command = sandbox.command(&[]);
    command.arg("--proc-root").arg(&proc);
    let lines = gathers(command, &Expected::of(&["it"], &["procmaps"]), &[OTHER_PIDS]);
    lines.assert_true("it", &proc, 2);
}
