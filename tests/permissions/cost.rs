//! `self_stats`: what the plugin says of itself, held against what the kernel and the test know.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc::channel;

use procfs::process::Process;
use tempfile::TempDir;

use crate::delay_accounting::DelayAccounting;
use crate::peers::tree_of_three;
use crate::sandbox::{Line, ORDINARY, Sandbox, Watched, gather, is_possible};
use crate::support::{Plugin, command, is_root, wait_for};

const TICK: u64 = 10_000_000;

/// The plugin with a configuration, which has to outlive it.
fn plugin(text: &str) -> (Plugin, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plugin.conf");
    fs::write(&path, format!("[[inputs.taskstats]]\n{text}")).unwrap();
    let mut command = command();
    command.arg("--config").arg(path);
    (Plugin::start(command), directory)
}

fn target(text: &str) -> String {
    format!("[[inputs.taskstats.target]]\n{text}\n")
}

fn assert_errors(agent: &Line, expected: [u64; 4]) {
    let errors = ["absent", "denied", "failed", "bounded"].map(|kind| agent.number(&format!("errors_{kind}")));
    assert_eq!(errors, expected, "{agent:?}");
}

#[test]
fn nothing_is_said_unless_asked() {
    for text in ["", "self_stats = false\n"] {
        let (mut plugin, _directory) = plugin(&(text.to_owned() + &target("name = \"it\"\npid = 1")));
        plugin.prompt();
        let (_, lines, _) = plugin.stop();
        assert!(matches!(&lines[..], [line] if line.starts_with("psstat,process_name=it ")), "{lines:?}");
    }
}

#[test]
fn it_counts_what_it_does() {
    let tree = tree_of_three();
    let children = format!("/proc/{0}/task/{0}/children", tree.id());
    wait_for("two children", || (fs::read_to_string(&children).ok()?.split_whitespace().count() == 2).then_some(()));
    let pid = tree.id();
    let targets = [
        format!("name = \"a\"\npid = {pid}\ncollect = [\"psstat\", \"procstat\"]"),
        format!("name = \"b\"\npid = {pid}"),
        "name = \"c\"\npid_file = \"/none/none.pid\"".to_owned(),
    ];
    let head = "self_stats = true\n[inputs.taskstats.tags]\nenv = \"test\"\n".to_owned();
    let (mut plugin, _directory) = plugin(&(head + &targets.map(|text| target(&text)).concat()));
    let accounting = if is_root() { "events" } else { "connector" }; // the latter since Linux 6.6
    let mut cpu_before = 0;
    for _ in 0..3 {
        let (lines, agent) = gather(&mut plugin);
        let keys: BTreeSet<_> = agent.fields.keys().map(String::as_str).collect();
        let expected = ["gather_time", "cpu_time", "rss", "targets", "processes", "lines"];
        let errors = ["errors_absent", "errors_denied", "errors_failed", "errors_bounded"];
        let events = ["events_lost", "wakeups"];
        assert_eq!(keys, expected.into_iter().chain(errors).chain(events).collect());
        let tags: Vec<_> = agent.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(tags, [("accounting", accounting), ("env", "test"), ("version", env!("CARGO_PKG_VERSION"))]);
        assert_eq!((agent.number("targets"), lines.0.len()), (3, 4), "{lines:?}");
        assert_eq!((agent.number("lines"), agent.number("processes")), (4, 3), "{agent:?}");
        assert_errors(&agent, [1, 0, 0, 0]);
        let cpu = agent.number("cpu_time");
        assert!(agent.number("gather_time") > 0 && cpu > cpu_before, "{agent:?}, {cpu_before} before");
        cpu_before = cpu;
        let kernel = Process::new(plugin.pid().cast_signed()).unwrap();
        // The text rounds each down to a tick, and is late while it runs.
        let later = wait_for("what the kernel charged it", || {
            let stat = kernel.stat().unwrap();
            let charged = (stat.utime + stat.stime + 2) * TICK;
            (charged >= cpu).then_some(charged)
        });
        assert!(cpu > 0 && cpu <= later, "{agent:?}");
        let most = kernel.status().unwrap().vmhwm.unwrap();
        assert!((1..=most).contains(&agent.number("rss")), "{most} KiB: {agent:?}");
    }
    let (status, rest, stderr) = plugin.stop();
    assert!(status.success() && rest.is_empty() && stderr.len() == 1, "{status}: {rest:?} {stderr:?}");
}

#[test]
fn errors_are_counted_by_their_kind() {
    if !is_possible(&[]) {
        return;
    }
    let (tell, told) = channel();
    let (_end, ended) = channel::<()>();
    std::thread::spawn(move || {
        tell.send(()).unwrap();
        let _ = ended.recv(); // this process has two threads, at least
    });
    told.recv().unwrap();
    let accounting = DelayAccounting::as_it_is();
    let off = u64::from(!accounting.is_on());
    let directory = tempfile::tempdir().unwrap();
    let pidfile = directory.path().join("it.pid");
    let head = "self_stats = true\nthread_max = 1\n";
    let own =
        target(&format!("name = \"own\"\npid = {}\ncollect = [\"thread\"]\nscope = \"process\"", std::process::id()));
    let named = target(&format!("pid_file = \"{}\"", pidfile.display()));
    let (mut plugin, _directory) = plugin(&(head.to_owned() + &own + &named));
    assert_errors(&gather(&mut plugin).1, [1 + off, 0, 0, 1]);
    fs::write(&pidfile, "no pid\n").unwrap();
    assert_errors(&gather(&mut plugin).1, [off, 0, 1, 1]);
    fs::write(&pidfile, std::process::id().to_string()).unwrap();
    assert_errors(&gather(&mut plugin).1, [off, 0, 0, 1]);
    let (_, _, stderr) = plugin.stop();
    let told = stderr.iter().filter(|line| line.contains("thread_max = 1; raise it")).count();
    assert_eq!(told, 1, "{stderr:?}");
}

/// The number stays while a reason lasts, though that is said once.
#[test]
fn what_may_not_be_looked_at_is_counted_at_each_gather() {
    let (sandbox, watched) = (Sandbox::new(), Watched::new());
    sandbox.watch(&[("it", watched.pid())]);
    if !is_possible(ORDINARY) {
        return;
    }
    let accounting = DelayAccounting::as_it_is();
    let off = u64::from(!accounting.is_on());
    let mut plugin = Plugin::start(sandbox.command(ORDINARY));
    wait_for("procmaps, which comes last", || (gather(&mut plugin).1.number("errors_denied") == 2).then_some(()));
    for _ in 0..3 {
        assert_errors(&gather(&mut plugin).1, [off, 2, 0, 0]);
    }
}
