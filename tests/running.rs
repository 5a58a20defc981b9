//! The ways to run, on the real binary: what gathers, what reloads, what stops.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)] // a test fails by panicking

mod support;
#[path = "support/terminal.rs"]
mod terminal;
#[path = "support/watched.rs"]
mod watched;

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;

use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, mknodat};
use rustix::io::{ReadWriteFlags, ioctl_fionbio, ioctl_fionread, preadv2};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use support::{PATIENCE, Plugin, PublicBinary, command, field, wait, wait_for};
use terminal::terminal;
use watched::{FakeProc, Sleeper, Stat};

/// Often enough that no test waits long; not so often that an interval is too short for a p_cpu.
const INTERVAL: &str = "200ms";

/// The plugin, watching this process.
fn watching() -> Command {
    watch(command())
}

/// The same under so many names more: 2,000 lines are more than a pipe holds.
fn watching_often(more: usize) -> Command {
    let mut command = watching();
    for number in 0..more {
        command.arg("--pid").arg(format!("filler-{number}:{}", std::process::id()));
    }
    command
}

/// The same, stdin or stdout being redirected by a shell.
fn redirected(redirection: &str) -> Command {
    watch(support::redirected(redirection))
}

fn watch(mut command: Command) -> Command {
    command.arg("--pid").arg(format!("self:{}", std::process::id()));
    command
}

/// The plugin as `watching` has it, its stdin another one than a pipe.
fn with_stdin(stdin: impl Into<Stdio>) -> Output {
    watching().stdin(stdin).output().unwrap()
}

/// The lines of stdout, after a run that went well and had nothing to say.
fn lines(output: Output) -> Vec<String> {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
}

fn assert_stops_well(plugin: Plugin) {
    let (status, rest, stderr) = plugin.stop();
    assert!(status.success() && rest.is_empty() && stderr.is_empty(), "{status}: {rest:?}, {stderr:?}");
}

/// Waits for a line that `is` the one; those before it are let go.
fn line_that(plugin: &Plugin, is: impl Fn(&str) -> bool) -> String {
    wait_for("such a line", || Some(plugin.line()).filter(|line| is(line)))
}

// Prompts.

#[test]
fn a_newline_gathers() {
    let mut plugin = Plugin::start(watching());
    for _ in 0..3 {
        assert!(plugin.gather(1)[0].starts_with("psstat,process_name=self "));
    }
    assert_stops_well(plugin);
}

#[test]
fn a_signal_gathers() {
    let plugin = Plugin::start(watching());
    for signal in [Signal::USR1, Signal::USR2, Signal::HUP] {
        wait_for("handlers", || catches(plugin.pid(), signal).then_some(()));
        plugin.signal(signal);
        assert!(plugin.line().starts_with("psstat,process_name=self "));
    }
    assert_stops_well(plugin);
}

/// Whether the plugin has a handler for `signal`: its bit in SigCgt of /proc/<pid>/status.
fn catches(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
    mask & 1 << (signal.as_raw() - 1) != 0
}

/// Telegraf may signal at once. The handlers are there before the configuration is read, here from a FIFO
/// that holds the plugin up; a signal of that time is answered when it can be.
#[test]
fn a_signal_before_the_configuration_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo.conf");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut command = watching();
    command.arg("--config").arg(&fifo);
    let plugin = Plugin::start(command);
    let nonblocking = OFlags::WRONLY | OFlags::NONBLOCK;
    let configuration = wait_for("a reader", || rustix::fs::open(&fifo, nonblocking, Mode::empty()).ok());
    for signal in [Signal::USR1, Signal::USR2, Signal::HUP] {
        plugin.signal(signal);
    }
    rustix::io::write(&configuration, b"[[inputs.taskstats]]\n").unwrap();
    drop(configuration);
    assert!(plugin.line().starts_with("psstat,process_name=self p_cpu="));
    assert_stops_well(plugin);
}

/// Nothing is pending yet, so they just end it.
#[test]
fn sigterm_and_sigint_end_the_wait_for_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo.conf");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    for (signal, flags) in [(Signal::TERM, &["--interval", INTERVAL][..]), (Signal::INT, &["--check"])] {
        let mut command = command();
        command.args(flags).arg("--config").arg(&fifo);
        let plugin = Plugin::start(command);
        let waits = || std::fs::read_to_string(format!("/proc/{}/wchan", plugin.pid())).ok();
        wait_for("it to wait", || waits().filter(|at| at.contains("wait_for_partner") || at.contains("fifo_open")));
        plugin.signal(signal);
        let (status, _, _) = plugin.wait();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    }
}

#[test]
fn a_terminal_is_told_that_enter_gathers() {
    let (terminal, path) = terminal();
    let plugin = Plugin::start(redirected(&format!("<{}", path.display())));
    assert!(plugin.wait_stderr("Enter").starts_with("I! "));
    rustix::io::write(&terminal, b"\n").unwrap();
    assert!(plugin.line().starts_with("psstat,process_name=self "));
    rustix::io::write(&terminal, b"\x04").unwrap(); // Ctrl-D
    assert_eq!(plugin.wait().0.code(), Some(0));
}

/// Whoever shares stdin may have made it non-blocking: that nothing is there yet is no end of it.
#[test]
fn a_newline_gathers_though_stdin_is_non_blocking() {
    let (stdin, mut prompts) = std::io::pipe().unwrap();
    ioctl_fionbio(&stdin, true).unwrap();
    let mut plugin = watching().stdin(stdin).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(plugin.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (answer, answers) = channel();
    std::thread::spawn(move || stdout.try_for_each(|line| answer.send(line)));
    for _ in 0..3 {
        wait_for("the plugin to wait", || waits(plugin.id()).then_some(()));
        prompts.write_all(b"\n").unwrap();
        let line = answers.recv_timeout(PATIENCE).expect("an answer");
        assert!(line.starts_with("psstat,process_name=self "), "{line}");
    }
    drop(prompts);
    assert_eq!(wait(&mut plugin).code(), Some(0));
}

/// Somebody who shares stdin takes what the plugin was woken up for: it had better not wait for it where it hears no signal.
#[test]
fn signals_are_heard_though_another_has_taken_the_newline() {
    let (stdin, mut prompts) = std::io::pipe().unwrap();
    let mut plugin = watching().stdin(stdin.try_clone().unwrap()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("handlers", || catches(plugin.id(), Signal::TERM).then_some(()));
    let mut byte = [0];
    let mut taken = 0;
    for _ in 0..20_000 {
        prompts.write_all(b"\n").unwrap();
        let mut byte = [IoSliceMut::new(&mut byte)];
        taken += preadv2(&stdin, &mut byte, u64::MAX, ReadWriteFlags::NOWAIT).unwrap_or(0);
    }
    assert!(taken > 0, "the plugin was always quicker");
    rustix::process::kill_process(Pid::from_child(&plugin), Signal::TERM).unwrap();
    assert_eq!(wait(&mut plugin).code(), Some(0));
}

/// A socket cannot be opened again as a pipe can.
#[test]
fn a_newline_gathers_though_stdin_is_a_socket() {
    let (stdin, mut triggers) = UnixStream::pair().unwrap();
    let mut command = watching();
    let mut plugin = command.stdin(OwnedFd::from(stdin)).stdout(Stdio::piped()).spawn().unwrap();
    drop(command); // has the other end, too
    let mut stdout = BufReader::new(plugin.stdout.take().unwrap()).lines().map_while(Result::ok);
    for _ in 0..3 {
        triggers.write_all(b"\n").unwrap();
        let line = stdout.next().unwrap();
        assert!(line.starts_with("psstat,process_name=self "), "{line}");
    }
    drop(triggers);
    assert_eq!(wait(&mut plugin).code(), Some(0));
}

/// O_NONBLOCK belongs to the description, which a shell may have as well.
#[test]
fn what_others_share_stays_blocking() {
    let ([stdin, mut triggers], [mut lines, stdout]) = (pipe(), pipe());
    let mut command = watching();
    let mut plugin = command.stdin(stdin.try_clone().unwrap()).stdout(stdout.try_clone().unwrap()).spawn().unwrap();
    triggers.write_all(b"\n").unwrap();
    assert!(lines.read(&mut [0; 4096]).unwrap() > 0, "an answer");
    for shared in [&stdin, &stdout] {
        assert!(!fcntl_getfl(shared).unwrap().contains(OFlags::NONBLOCK));
    }
    drop(triggers);
    assert_eq!(wait(&mut plugin).code(), Some(0));
}

/// Both ends of a pipe: that which reads and that which writes.
fn pipe() -> [File; 2] {
    let (reader, writer) = std::io::pipe().unwrap();
    [OwnedFd::from(reader).into(), OwnedFd::from(writer).into()]
}

/// Directories are watched by a thread, which an ordinary user may not be allowed to start.
#[test]
fn pidfile_directories_need_no_thread() {
    if !support::is_root() {
        return support::skip("only root can become another user, and that for it there is no limit");
    }
    let (sleeper, directory) = (Sleeper::new(), tempfile::tempdir_in("/tmp").unwrap());
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    std::fs::write(directory.path().join("it.pid"), sleeper.pid().to_string()).unwrap();
    let public = PublicBinary::new();
    let mut user = public.command_as_ordinary_user();
    let program = user.arg("--pid-dir").arg(directory.path()).get_program().to_owned();
    let mut command = Command::new("prlimit");
    command.args(["--nproc=0", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    let mut plugin = Plugin::start({
        command.arg(program).args(user.get_args()).env_remove("HOST_PROC").env_remove("HOST_SYS");
        command
    });
    assert_eq!(found(&plugin.gather(1)), ["it 1i"]);
    let (status, _, stderr) = plugin.stop();
    assert!(status.success(), "{status}");
    assert!(matches!(&stderr[..], [line] if line.contains("not watched")), "{stderr:?}");
}

/// Whether the process sleeps, or has ended.
fn waits(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.contains(") S ") || stat.contains(") Z ")
}

// Stops.

#[test]
fn eof_alone_stops_without_a_word() {
    assert_stops_well(Plugin::start(watching()));
}

/// As `telegraf --test` does it: one newline, and stdin closes.
#[test]
fn a_pending_newline_is_answered_before_eof() {
    let mut plugin = Plugin::start(watching());
    plugin.prompt();
    let (status, lines, stderr) = plugin.stop();
    assert!(status.success() && stderr.is_empty(), "{status}: {stderr:?}");
    assert!(matches!(&lines[..], [line] if line.contains("p_cpu=")), "{lines:?}");
}

#[test]
fn sigterm_and_sigint_stop() {
    for arguments in [&[][..], &["--interval", "1h"]] {
        for signal in [Signal::TERM, Signal::INT] {
            let mut command = watching();
            command.args(arguments);
            let plugin = Plugin::start(command);
            wait_for("handlers", || catches(plugin.pid(), signal).then_some(()));
            plugin.signal(signal);
            let (status, lines, stderr) = plugin.wait();
            assert_eq!(status.code(), Some(0), "{stderr:?}");
            assert!(lines.is_empty() && stderr.is_empty(), "{lines:?}, {stderr:?}");
        }
    }
}

/// Nobody listens any more, and will not: with its own clock the plugin finds out at the next gather.
#[test]
fn a_closed_stdout_stops() {
    let mut command = watching();
    let mut child = command.args(["--interval", INTERVAL]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(wait(&mut child).code(), Some(0));
}

/// A reader that stops reading does not keep the plugin from hearing the end of stdin.
#[test]
fn eof_is_heard_while_the_reader_stands_still() {
    let mut child = watching_often(2000).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let _unread = child.stdout.take();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    drop(stdin);
    assert_eq!(wait(&mut child).code(), Some(0));
}

/// A terminal may take less than poll(2) lets one think.
#[test]
fn eof_is_heard_while_a_terminal_takes_no_more() {
    let (_terminal, path) = terminal();
    let unread = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut plugin = watching_often(2000).stdin(Stdio::piped()).stdout(unread).spawn().unwrap();
    let mut stdin = plugin.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    drop(stdin);
    assert_eq!(wait(&mut plugin).code(), Some(0));
}

/// The end waits for the reader of a pipe. What is in a file has no reader: waiting for one would show as a thread that
/// wakes up every few ms, thousands of times.
#[test]
fn nobody_is_waited_for_if_stdout_is_a_file() {
    for (prompts, answers) in [("", 0), ("\n", 1)] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"of yesterday\n").unwrap();
        let append = std::fs::OpenOptions::new().append(true).open(file.path()).unwrap();
        let mut plugin = watching().stdin(Stdio::piped()).stdout(append).spawn().unwrap();
        plugin.stdin.take().unwrap().write_all(prompts.as_bytes()).unwrap();
        let sleeps = sleeps_until_its_end(plugin.id());
        assert_eq!(wait(&mut plugin).code(), Some(0));
        assert!(sleeps < 100, "it slept {sleeps} times");
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() == 1 + answers && lines[0] == "of yesterday", "{text}");
        assert!(lines[1..].iter().all(|line| line.starts_with("psstat,process_name=self ")), "{text}");
    }
}

/// How often the main thread of a child has gone to sleep in its life. The child is left to be waited for.
fn sleeps_until_its_end(pid: u32) -> u64 {
    let child = WaitId::Pid(Pid::from_raw(pid.cast_signed()).unwrap());
    waitid(child, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    sleeps.trim().parse().unwrap()
}

/// So that whoever reads from a FIFO next begins with a whole line.
#[test]
fn no_line_is_cut_in_two_when_it_is_stopped_before_a_full_pipe() {
    let (mut reader, stdout) = std::io::pipe().unwrap();
    let mut command = command();
    for name in 0..1000 {
        command
            .arg("--pid")
            .arg(format!("a-name-that-is-long-enough-to-end-somewhere-in-a-page-{name}:{}", std::process::id()));
    }
    let mut plugin = command.stdin(Stdio::piped()).stdout(stdout).spawn().unwrap();
    drop(command);
    plugin.stdin.take().unwrap().write_all(b"\n").unwrap();
    // It waits for room that is not made, and is patient for a while.
    let status = wait(&mut plugin);
    assert!(status.success(), "{status}");
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let lines = text.lines().count();
    assert!((100..1000).contains(&lines) && text.ends_with('\n'), "{lines} lines: {}", &text[text.len() - 100..]);
}

/// The same of stdout: that the pipe is full is no error, and its reader may come late.
#[test]
fn all_lines_come_though_stdout_is_non_blocking() {
    let (mut reader, stdout) = std::io::pipe().unwrap();
    ioctl_fionbio(&stdout, true).unwrap();
    let mut command = watching_often(499);
    command.arg("--tag").arg(format!("long={}", "x".repeat(500))); // more than a pipe holds
    let mut plugin = command.stdin(Stdio::piped()).stdout(stdout).spawn().unwrap();
    drop(command); // has the other end, too
    let mut stdin = plugin.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    wait_for("a full pipe", || {
        let is_full = ioctl_fionread(&reader).unwrap() > 0 && waits(plugin.id());
        is_full.then_some(())
    });
    drop(stdin);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(wait(&mut plugin).code(), Some(0));
    let names: BTreeSet<_> = text.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    assert!(names.len() == 500 && text.lines().count() == 500 && text.ends_with('\n'), "{} names", names.len());
}

// Once.

#[test]
fn one_gather_when_nobody_can_prompt() {
    for output in [with_stdin(Stdio::null()), watching().arg("--once").output().unwrap()] {
        let lines = lines(output);
        assert!(matches!(&lines[..], [line] if line.contains("p_cpu=")), "{lines:?}");
    }
}

/// Its newlines are prompts, all there at once, and its end is EOF.
#[test]
fn stdin_may_be_a_file() {
    for (text, answers) in [("", 0), ("\n", 1), ("\n\n\n", 1)] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let lines = lines(with_stdin(file.reopen().unwrap()));
        assert_eq!(lines.len(), answers, "{text:?}: {lines:?}");
    }
}

// By the clock.

#[test]
fn an_interval_gathers_by_itself_and_names_the_host() {
    let mut command = watching();
    command.args(["--interval", INTERVAL]);
    let plugin = Plugin::start(command);
    let host = rustix::system::uname();
    let start = format!("psstat,host={},process_name=self ", host.nodename().to_str().unwrap());
    let times: BTreeSet<_> = (0..3)
        .map(|_| plugin.line())
        .map(|line| {
            assert!(line.starts_with(&start), "{line}");
            timestamp(&line)
        })
        .collect();
    assert_eq!(times.len(), 3);
    let (status, _, stderr) = plugin.stop(); // a pipe's other end means something
    assert!(status.success() && stderr.is_empty(), "{status}: {stderr:?}");
}

#[test]
fn the_host_is_as_configured() {
    for (key, start) in [
        ("hostname = \"box\"\n", "psstat,host=box,process_name=self "),
        ("omit_hostname = true\n", "psstat,process_name=self "),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let text = key.to_owned() + &target("self", std::process::id());
        let mut command = command();
        command.args(["--interval", INTERVAL, "--config"]).arg(configuration(directory.path(), &text));
        let line = Plugin::start(command).line();
        assert!(line.starts_with(start), "{line}");
    }
}

/// Two days between gathers are a mistake. Were they taken, the end of stdin would end it well.
#[test]
fn an_interval_has_a_longest() {
    let mut command = watching();
    command.args(["--interval", "2days"]);
    let (status, lines, stderr) = Plugin::start(command).stop();
    assert!(status.code() == Some(2) && lines.is_empty(), "{status}: {lines:?}");
    assert!(matches!(&stderr[..], [line] if line.starts_with("E! ") && line.contains("\"2days\"")), "{stderr:?}");
}

/// /dev/null is nobody's end: a daemon has nothing else for a stdin.
#[test]
fn an_interval_goes_on_without_a_stdin() {
    let mut command = redirected("</dev/null");
    command.args(["--interval", INTERVAL]);
    let plugin = Plugin::start(command);
    for _ in 0..3 {
        plugin.line();
    }
    plugin.signal(Signal::TERM);
    assert_eq!(plugin.wait().0.code(), Some(0));
}

/// A made-up process that has used 500 ms since the plugin started, under a configuration that can change.
struct Reloadable {
    fake: FakeProc,
    directory: tempfile::TempDir,
    plugin: Plugin,
}

impl Reloadable {
    fn new() -> Self {
        let (fake, directory) = (FakeProc::new(), tempfile::tempdir().unwrap());
        let web = Stat::old(123, "web");
        fake.put(&web);
        let mut command = command();
        command.args(["--interval", INTERVAL, "--psstat-fields", "all"]);
        command.arg("--proc-root").arg(fake.path());
        command.arg("--config").arg(configuration(directory.path(), &target("web", 123)));
        let plugin = Plugin::start(command);
        plugin.line();
        fake.put(&Stat { utime: 50, ..web });
        line_that(&plugin, |line| field(line, "cpu_time") == Some("500000000i"));
        Self { fake, directory, plugin }
    }

    fn reload(&self, text: &str) {
        configuration(self.directory.path(), text);
        self.plugin.signal(Signal::HUP);
    }

    /// The next line of `web` counts from where it was.
    fn assert_web_goes_on(&self) {
        let line = line_that(&self.plugin, |line| line.contains("process_name=web "));
        assert_eq!(field(&line, "cpu_time"), Some("500000000i"), "{line}");
    }
}

#[test]
fn sighup_reloads_and_the_counters_go_on() {
    let run = Reloadable::new();
    run.fake.put(&Stat::old(124, "db"));
    run.reload(&(target("web", 123) + &target("db", 124)));
    line_that(&run.plugin, |line| line.contains("process_name=db "));
    run.assert_web_goes_on();
    run.reload(&target("web", 123));
    // Twice in a row: the other one is gone.
    line_that(&run.plugin, |line| line.contains("process_name=db "));
    wait_for("web alone", || {
        let names = [run.plugin.line(), run.plugin.line()];
        names.iter().all(|line| line.contains("process_name=web ")).then_some(())
    });
    run.assert_web_goes_on();
}

/// What was counted while it was asked for is not repeated for ever.
#[test]
fn threads_of_nice_0_are_gone_when_they_are_asked_for_no_more() {
    let run = Reloadable::new();
    let threads = "collect = [\"psstat\", \"thread\"]\n".to_owned();
    run.reload(&format!("thread_all_nice = true\n{threads}{}", target("web", 123)));
    line_that(&run.plugin, |line| line.starts_with("thread,") && line.contains(",nice=0,"));
    run.reload(&(threads + &target("web", 123)));
    wait_for("psstat alone", || {
        let lines = [run.plugin.line(), run.plugin.line(), run.plugin.line()];
        lines.iter().all(|line| line.starts_with("psstat,")).then_some(())
    });
}

/// What the threads did before somebody asked is not known to be of this interval: the first line has no p_cpu_thread_max.
#[test]
fn the_busiest_thread_is_not_told_of_an_interval_that_was_not_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let own = target("self", std::process::id());
    let mut command = command();
    command.args(["--interval", INTERVAL, "--config"]).arg(configuration(directory.path(), &own));
    let plugin = Plugin::start(command);
    plugin.line();
    configuration(directory.path(), &format!("psstat_fields = [\"all\"]\n{own}"));
    plugin.signal(Signal::HUP);
    let first = line_that(&plugin, |line| line.contains("cpu_time="));
    assert_eq!(field(&first, "p_cpu_thread_max"), None, "{first}");
    assert!(field(&plugin.line(), "p_cpu_thread_max").is_some());
}

#[test]
fn a_bad_new_configuration_keeps_the_old_one_and_says_so() {
    let run = Reloadable::new();
    run.reload("colect = [\"psstat\"]\n");
    let said = run.plugin.wait_stderr("colect");
    assert!(said.starts_with("E! ") && said.contains("x.conf:2"), "{said}");
    run.assert_web_goes_on();
}

/// Writes a configuration whose `[[inputs.taskstats]]` holds `text`.
fn configuration(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("x.conf");
    std::fs::write(&path, format!("[[inputs.taskstats]]\n{text}")).unwrap();
    path
}

fn target(name: &str, pid: u32) -> String {
    format!("[[inputs.taskstats.target]]\nname = \"{name}\"\npid = {pid}\n")
}

/// Settings without a target are those of the targets that flags select.
#[test]
fn what_flags_select_is_written_as_the_file_says() {
    let directory = tempfile::tempdir().unwrap();
    let text = "name_tag = \"tree\"\npsstat_fields = [\"n_proc\"]\n[inputs.taskstats.tags]\nenv = \"test\"\n";
    let mut command = watching();
    command.arg("--config").arg(configuration(directory.path(), text));
    let mut plugin = Plugin::start(command);
    let line = plugin.gather(1).concat();
    assert!(line.starts_with("psstat,env=test,tree=self n_proc="), "{line}");
    assert_stops_well(plugin);
}

// What a gather is.

#[test]
fn all_lines_of_a_gather_have_one_timestamp() {
    let sleeper = Sleeper::new();
    let mut command = watching();
    command.arg("--pid").arg(format!("other:{}", sleeper.pid()));
    let mut plugin = Plugin::start(command);
    let gathers = [plugin.gather(2), plugin.gather(2)];
    let times = gathers.map(|lines| lines.iter().map(|line| timestamp(line)).collect::<BTreeSet<_>>());
    assert!(times[0].len() == 1 && times[1].len() == 1 && times[0] < times[1], "{times:?}");
}

fn timestamp(line: &str) -> u64 {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn pidfiles_come_and_go() {
    let (a, b) = (Sleeper::new(), Sleeper::new());
    let directory = tempfile::tempdir().unwrap();
    let pidfile = |name: &str| directory.path().join(name);
    std::fs::write(pidfile("a.pid"), a.pid().to_string()).unwrap();
    let mut command = command();
    command.arg("--pid-dir").arg(directory.path());
    let mut plugin = Plugin::start(command);
    assert_eq!(found(&plugin.gather(1)), ["a 1i"]);
    std::fs::write(pidfile("b.pid"), b.pid().to_string()).unwrap();
    assert_eq!(found(&plugin.gather(2)), ["a 1i", "b 1i"]);
    std::fs::remove_file(pidfile("b.pid")).unwrap();
    assert_eq!(found(&plugin.gather(2)), ["a 1i", "b 0i"]);
    assert_eq!(found(&plugin.gather(1)), ["a 1i"]);
    assert_stops_well(plugin);
}

/// "process_name n_proc" of each line, in order.
fn found(lines: &[String]) -> Vec<String> {
    let mut found: Vec<_> = lines
        .iter()
        .map(|line| {
            let name = line.split([',', ' ']).find_map(|tag| tag.strip_prefix("process_name=")).unwrap();
            format!("{name} {}", field(line, "n_proc").unwrap())
        })
        .collect();
    found.sort();
    found
}

// The sample configuration.

#[test]
fn the_sample_configuration_is_the_file_and_is_right_as_given_and_uncommented() {
    let sample = command().arg("--sample-config").stdin(Stdio::null()).output().unwrap();
    let sample = String::from_utf8(sample.stdout).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugin.conf.example");
    assert_eq!(sample, std::fs::read_to_string(path).unwrap());
    let uncommented: String = sample.split_inclusive('\n').map(uncomment).collect();
    assert_ne!(sample, uncommented);
    for text in [sample, uncommented] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let output = watching().arg("--once").arg("--config").arg(file.path()).output().unwrap();
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    }
}

/// `  # key = default` without its "# "; prose has "## ".
fn uncomment(line: &str) -> String {
    match line.split_once("# ") {
        Some((indent, setting)) if indent.trim().is_empty() => format!("{indent}{setting}"),
        _ => line.to_owned(),
    }
}
