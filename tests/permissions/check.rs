//! `--check`: what its table says, to whom in colour, and with which exit code.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, open};
use tempfile::TempDir;

use crate::peers::{named, tree_of_three};
use crate::sandbox::{Check, ORDINARY, Sandbox, is_possible};
use crate::support::{command, skip, wait, wait_for};
use crate::terminal::terminal;

/// `--check` with a configuration.
struct Configured {
    directory: TempDir,
}

impl Configured {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("plugin.conf"), format!("[[inputs.taskstats]]\n{text}")).unwrap();
        Self { directory }
    }

    fn command(&self) -> Command {
        let mut command = command();
        command.arg("--config").arg(self.directory.path().join("plugin.conf")).arg("--check");
        command
    }

    fn check(&self) -> Check {
        Check::of(&mut self.command())
    }
}

/// A target for a configuration.
fn target(text: &str) -> String {
    format!("[[inputs.taskstats.target]]\n{text}\n")
}

impl Check {
    /// The rows of a section, each with the reasons below it.
    fn rows(&self, title: &str) -> Vec<Vec<&str>> {
        let is_title = |line: &&str| !line.starts_with(' ');
        let lines = self.stdout.lines().skip_while(|line| *line != title).skip(1);
        let mut rows: Vec<Vec<&str>> = Vec::new();
        for line in lines.take_while(|line| !is_title(line)) {
            match line.strip_prefix("      ") {
                Some(reason) if !rows.is_empty() && !reason.starts_with(' ') => rows.last_mut().unwrap().push(reason),
                _ => rows.push(vec![line.strip_prefix("  ").unwrap()]),
            }
        }
        rows
    }

    /// The only row of a section that contains this.
    fn row(&self, title: &str, text: &str) -> Vec<&str> {
        let rows: Vec<_> = self.rows(title).into_iter().filter(|row| row[0].contains(text)).collect();
        let [row] = &rows[..] else { panic!("{text:?} in {self:?}") };
        row.clone()
    }
}

fn wait_for_children(pid: u32, count: usize) {
    let children = format!("/proc/{pid}/task/{pid}/children");
    let have = || fs::read_to_string(&children).ok().filter(|text| text.split_whitespace().count() == count);
    wait_for("children", have);
}

#[test]
fn each_target_has_a_row_with_its_selector_and_what_it_matches() {
    let (tree, odd) = (tree_of_three(), named(b"od d\nv=1 1"));
    wait_for_children(tree.id(), 2);
    let comm = format!("many-{}", std::process::id());
    let many: Vec<_> = (0..7).map(|_| named(comm.as_bytes())).collect();
    let targets = [
        format!("name = \"two  words\\nand a line\\t\\u001b[31m\"\npid = {}", tree.id()),
        format!("pid = {}", odd.id()),
        format!("name = \"many\"\npattern = \"^{comm}$\"\ncmdline = \"read\""),
    ];
    let check = Configured::new(&targets.map(|text| target(&text)).concat()).check();
    check.assert_works();
    assert_eq!(check.rows("Targets").len(), 3, "{check:?}");
    assert!(!check.stdout.contains('\x1b'), "{check:?}");
    let [row] = &check.row("Targets", &format!(" pid {} ", tree.id()))[..] else { panic!("{check:?}") };
    assert!(row.starts_with("two  words and a line  [31m  "), "{row}");
    assert!(row.ends_with(&format!("  {} (sh), with 2 descendants", tree.id())), "{row}");
    let [row] = &check.row("Targets", &format!(" pid {} ", odd.id()))[..] else { panic!("{check:?}") };
    assert!(row.starts_with("od d v=1 1  "), "{row}");
    assert!(row.ends_with(&format!("  {} (od d v=1 1)", odd.id())), "{row}");
    let [row] = &check.row("Targets", "and 2 more")[..] else { panic!("{check:?}") };
    assert!(row.starts_with("many  ") && row.contains(&format!("  pattern ^{comm}$, cmdline read  ")), "{row}");
    let first = many.iter().filter(|process| row.contains(&format!(" {} ({comm})", process.id())));
    assert_eq!(first.count(), 5, "{row}");
    assert_eq!(check.rows("Measurements"), [["psstat  works"]]);
}

/// It may come: nothing is wrong with that.
#[test]
fn what_is_not_there_now_is_named_with_its_reason() {
    let configured = |text: &str| Configured::new(&target(text)).check();
    let pidfile = tempfile::tempdir().unwrap().path().join("no.pid").display().to_string();
    let pidfile = pidfile.as_str();
    let unit = format!("none-{}", std::process::id());
    let dead = 4_194_304 + 1; // no pid is as large as that
    let cases = [
        (format!("pid_file = \"{pidfile}\""), pidfile, Some("No such file")),
        (format!("pid_dir = \"{pidfile}\""), pidfile, Some("No such file")),
        (format!("systemd_unit = \"{unit}\""), &unit, None), // there need not be cgroups
        (format!("pid = {dead}"), "pid 4194305", Some("No process has the pid")),
        ("cgroup = \"none/*/none\"".to_owned(), "cgroup none/*/none", Some("no such cgroup")),
        ("cmdline = \"^no such line$\"".to_owned(), "cmdline ^no such line$", Some("no process matches")),
    ];
    for (selector, named, reason) in cases {
        let check = configured(&selector);
        let row = check.row("Targets", named);
        assert!(check.code == Some(0) && row[0].contains("  nothing now"), "{check:?}");
        let says = |reason| row.iter().any(|line: &&str| line.contains(reason));
        assert!(reason.is_none_or(says), "{check:?}");
    }
}

/// A cache file that cannot be used, or is in use.
#[test]
fn a_cache_file_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let cache = |directory: &Path| {
        let cache = format!("cache_dir = \"{}\"\ncache_name = \"kept\"\n", directory.display());
        Configured::new(&(cache + &target(&format!("pid = {}", std::process::id()))))
    };
    let row = |check: &Check| check.rows("Cache file").concat().join(" ");
    let check = cache(directory.path()).check();
    assert!(check.code == Some(0) && row(&check).contains("can be written"), "{check:?}");
    let lock = fs::File::create(directory.path().join("kept.lock")).unwrap();
    lock.lock().unwrap();
    let check = cache(directory.path()).check();
    assert!(check.code == Some(0) && row(&check).contains("another process uses it now"), "{check:?}");
    drop(lock);
    fs::create_dir(directory.path().join("kept")).unwrap();
    cache(directory.path()).check().assert_fails(&[&["not a regular file of this user", "cache_name"]]);
    cache(&directory.path().join("none")).check().assert_fails(&[&["No such file", "cache_dir"]]);
}

/// It may not come ever.
#[test]
fn what_cannot_be_makes_it_fail() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage.pid");
    fs::write(&garbage, "no pid\n").unwrap();
    let cases = [
        ("pattern = \"sixteen-bytes-ok\"".to_owned(), "comm has 15 bytes"),
        (format!("pid_file = \"{}\"", garbage.display()), "not a pid"),
    ];
    let fine = target(&format!("pid = {}", std::process::id()));
    for (selector, reason) in cases {
        let check = Configured::new(&(fine.clone() + &target(&selector))).check();
        check.assert_fails(&[&[reason]]);
        let [fine, wrong] = &check.rows("Targets")[..] else { panic!("{check:?}") };
        assert!(fine.len() == 1 && wrong.len() == 2 && wrong[0].ends_with("  nothing now"), "{check:?}");
    }
}

/// A kernel thread may have more than fifteen bytes, so that a pattern for it may match.
#[test]
fn a_long_name_of_a_kernel_thread_is_matched() {
    let long = |stat: &procfs::process::Stat| {
        stat.comm.len() > 15 && stat.comm.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let stats = procfs::process::all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
    let Some(thread) = stats.into_iter().find(long) else {
        return skip("there is no kernel thread with a long name and no other characters than letters");
    };
    let check = Configured::new(&target(&format!("pattern = \"^{}$\"", thread.comm))).check();
    check.assert_works();
    assert!(check.row("Targets", &thread.comm)[0].contains(&format!("  {} (", thread.pid)), "{check:?}");
}

/// The one that procmaps is about, or the first few.
#[test]
fn who_cannot_be_looked_at_is_named() {
    let sandbox = Sandbox::new();
    if !is_possible(ORDINARY) {
        return;
    }
    let roots: Vec<_> = (0..4).map(|_| named(b"of-root")).collect();
    let check = |pids: &[u32]| {
        let mut command = Command::new(ORDINARY[0]);
        command.args(&ORDINARY[1..]).arg(sandbox.program()).current_dir("/").args(["--check", "--collect", "procmaps"]);
        let flags = pids.iter().map(|pid| format!("--pid=it:{pid}"));
        Check::of(command.args(flags))
    };
    let mut pids: Vec<_> = roots.iter().map(|process| process.id()).collect();
    pids.sort_unstable();
    let process = |pid: &u32| format!("process {pid} (of-root)");
    check(&pids[..1]).assert_fails(&[&["namely ", &format!("{}: CAP_SYS_PTRACE is required", process(&pids[0]))]]);
    let first = pids[..3].iter().map(process).collect::<Vec<_>>().join(", ");
    check(&pids).assert_fails(&[&[&format!("such as {first}: CAP_SYS_PTRACE is required")]]);
}

/// As mounted in a container.
#[test]
fn it_is_said_where_cgroups_are_missing() {
    let empty = tempfile::tempdir().unwrap();
    let configured = Configured::new(&target("cgroup = \"none\""));
    let mount = empty.path().join("fs/cgroup").display().to_string();
    let check = Check::of(configured.command().arg("--sys-root").arg(empty.path()));
    check.assert_fails(&[&["No cgroup \"none\" is found"], &["No cgroup file system", &mount]]);
}

/// What a file says stands above the environment, and a flag above both.
#[test]
fn a_key_stands_above_the_environment() {
    let [of_environment, of_file, of_flag] = [(), (), ()].map(|()| tempfile::tempdir().unwrap());
    let path = |directory: &TempDir| directory.path().display().to_string();
    let configured = Configured::new(&format!("proc_root = \"{}\"", path(&of_file)));
    let is_used = |command: &mut Command, directory: &TempDir| {
        let check = Check::of(command.env("HOST_PROC", of_environment.path()));
        assert_eq!(check.row("Processes", &path(directory)).len(), 1, "{check:?}");
    };
    is_used(command().arg("--check"), &of_environment);
    is_used(&mut configured.command(), &of_file);
    is_used(configured.command().arg("--proc-root").arg(of_flag.path()), &of_flag);
}

#[test]
fn psstat_alone_works_for_everybody() {
    let sandbox = Sandbox::new();
    if !is_possible(ORDINARY) {
        return;
    }
    let mut command = Command::new(ORDINARY[0]);
    command.args(&ORDINARY[1..]).arg(sandbox.program()).current_dir("/");
    let check =
        Check::of(command.args(["--psstat-fields", "all", "--check", "--pid", &std::process::id().to_string()]));
    check.assert_works();
}

#[test]
fn an_invalid_configuration_is_another_failure() {
    for text in ["no_such_key = 1", "not TOML", "collect = [\"nothing\"]"] {
        let check = Configured::new(text).check();
        assert!(check.code == Some(2) && check.stdout.is_empty(), "{check:?}");
        assert!(check.stderr.starts_with("E! ") && check.stderr.lines().count() == 1, "{check:?}");
    }
    let check = Check::of(command().args(["--check", "--pid", "none"]));
    assert!(check.code == Some(2) && check.stdout.is_empty(), "{check:?}");
    let check = Check::of(command().args(["--check", "--proc-root", "/none"]));
    assert!(check.code == Some(1) && check.stdout.is_empty() && check.stderr.starts_with("E! "), "{check:?}");
}

/// What `--check` writes to a terminal.
fn on_a_terminal(command: &mut Command) -> String {
    let (terminal, path) = terminal();
    let inner = open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(inner).stderr(Stdio::inherit()).spawn().unwrap();
    command.stdout(Stdio::null()); // it has the terminal open
    let mut text = Vec::new();
    let _ = File::from(terminal).read_to_end(&mut text); // EIO when nobody has it open any more
    wait(&mut child);
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

/// And only if that has colours, and they are wanted.
#[test]
fn colours_are_for_a_terminal() {
    let shown = named(b"shown");
    let targets = format!("pid = {}", shown.id());
    let configured = Configured::new(&(target(&targets) + &target("pid_file = \"/none/none.pid\"")));
    let command = || {
        let mut command = configured.command();
        for variable in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI", "COLORTERM"] {
            command.env_remove(variable);
        }
        command.env("TERM", "xterm");
        command
    };
    let plain = Check::of(&mut command()).stdout;
    let coloured = on_a_terminal(&mut command());
    let [green, yellow, off] = ["\x1b[32m", "\x1b[33m", "\x1b[0m"];
    assert!(!plain.contains('\x1b') && coloured.contains(green), "{plain}{coloured}");
    assert!(coloured.contains(&format!("  {yellow}nothing now{off}\n")), "{coloured}");
    for (variable, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let text = on_a_terminal(command().env(variable, value));
        assert!(!text.contains('\x1b') && text.contains("nothing now"), "{variable}={value}: {text}");
    }
    // The same words: what does not count is the number of processes.
    let words = |text: &str| -> Vec<String> {
        let mut text = text.to_owned();
        for start in ["\x1b[0m", "\x1b[1m", "\x1b[32m", "\x1b[33m"] {
            text = text.replace(start, "");
        }
        text.lines().filter(|line| !line.ends_with(" processes")).map(str::to_owned).collect()
    };
    assert_eq!(words(&coloured), words(&plain));
}

/// A reader that goes away, as head(1) does, is told nothing: but that it worked is not known.
#[test]
fn a_closed_stdout_is_no_panic() {
    let configured = Configured::new(&target(&format!("pid = {}", std::process::id())));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = configured.command().stdin(Stdio::null()).stdout(writer).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && !stderr.contains("panic"), "{}: {stderr}", output.status);
}

/// A /proc that is none has no processes, and that is said.
#[test]
fn where_it_looks_is_said() {
    let check = Configured::new(&target(&format!("pid = {}", std::process::id()))).check();
    let rows = check.rows("Processes");
    let [row] = &rows[..] else { panic!("{check:?}") };
    assert!(row[0].starts_with("/proc  ") && row[0].ends_with(" processes"), "{check:?}");
    let empty = tempfile::tempdir().unwrap();
    let check = Check::of(command().args(["--check", "--pid", "1", "--proc-root"]).arg(empty.path()));
    let row = check.row("Processes", &Path::new(empty.path()).display().to_string());
    assert!(row[0].ends_with("  0 processes"), "{check:?}");
}
