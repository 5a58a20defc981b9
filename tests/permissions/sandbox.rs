//! A copy of the binary run in other circumstances: as another user, with fewer capabilities, in namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use procfs::process::Process;
use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::delay_accounting::DelayAccounting;
use crate::peers::Running;
use crate::support::{ORDINARY_USER, Plugin, PublicBinary, is_root, skip, wait_for};

/// What runs before the plugin and then becomes it: a command line to which the plugin's own is added.
pub type Words<'a> = &'a [&'a str];

/// An ordinary user without any capability: execve(2) takes what setpriv keeps.
pub const ORDINARY: Words<'static> = &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

/// Whether the test can be: as root, and with these words, which else are said to be missing.
pub fn is_possible(words: Words) -> bool {
    if !is_root() {
        skip("to be somebody else, and somewhere else, needs root");
        return false;
    }
    let [program, arguments @ ..] = words else { return true };
    match Command::new(program).args(arguments).arg("true").current_dir("/").output() {
        Ok(probe) if probe.status.success() => true,
        probe => {
            skip(&format!("{words:?} does not run: {probe:?}"));
            false
        }
    }
}

/// Watched twice in each run: as a tree, and as a process, whose values are the kernel's own.
const SCOPES: [&str; 2] = ["tree", "process"];

/// The plugin where every user can reach it, with a configuration.
pub struct Sandbox {
    public: PublicBinary,
}

impl Sandbox {
    pub fn new() -> Self {
        Self { public: PublicBinary::new() }
    }

    pub fn program(&self) -> PathBuf {
        self.public.command_as_ordinary_user().get_program().into()
    }

    /// A directory that everybody can reach.
    pub fn directory(&self) -> PathBuf {
        self.program().parent().unwrap().to_owned()
    }

    /// Whether a file here can have capabilities, and they count.
    pub fn has_file_capabilities(&self) -> bool {
        let directory = self.directory();
        if statvfs(&directory).unwrap().f_flag.contains(StatVfsMountFlags::NOSUID) {
            skip("/tmp is mounted nosuid, so that file capabilities do not count there");
            return false;
        }
        let probe = directory.join("probe");
        fs::write(&probe, "").unwrap();
        match Command::new("setcap").arg("cap_net_admin=p").arg(&probe).output() {
            Ok(output) if output.status.success() => true,
            output => {
                skip(&format!("no file in /tmp can have capabilities: {output:?}"));
                false
            }
        }
    }

    /// A configuration that has everything measured of processes, each under a name of its own.
    pub fn watch(&self, processes: &[(&str, u32)]) {
        let mut text = String::from(
            "[[inputs.taskstats]]\nself_stats = true\n\
             collect = [\"psstat\", \"taskstat\", \"procstat\", \"procmaps\", \"thread\"]\n",
        );
        for ((name, pid), scope) in processes.iter().flat_map(|process| SCOPES.map(|scope| (process, scope))) {
            let target = format!("name = \"{name}-{scope}\"\npid = {pid}\nscope = \"{scope}\"");
            writeln!(text, "[[inputs.taskstats.target]]\n{target}").unwrap();
        }
        fs::write(self.configuration(), text).unwrap();
    }

    pub fn configuration(&self) -> PathBuf {
        self.directory().join("plugin.conf")
    }

    /// The plugin with the configuration, behind some words.
    pub fn command(&self, words: Words) -> Command {
        let program = self.program();
        let mut command = match words {
            [] => Command::new(&program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program);
                command
            }
        };
        command.arg("--config").arg(self.configuration()).current_dir("/");
        command.env_remove("HOST_PROC").env_remove("HOST_SYS");
        command
    }

    /// Gathers until what is expected came out and every complaint was made: all lines of that gather. What was said on stderr
    /// has, a line each, all of these parts.
    pub fn gathers(&self, words: Words, expected: &Expected, complaints: &[&[&str]]) -> Lines {
        gathers(self.command(words), expected, complaints)
    }

    pub fn check(&self, words: Words) -> Check {
        Check::of(self.command(words).arg("--check"))
    }

    /// The same where the kernel counts all delays: whether everything works does not hang on that then.
    pub fn check_with_delays(&self, words: Words) -> Check {
        let _accounting = DelayAccounting::switch(true);
        self.check(words)
    }
}

/// See [`Sandbox::gathers`].
pub fn gathers(command: Command, expected: &Expected, complaints: &[&[&str]]) -> Lines {
    let accounting = DelayAccounting::as_it_is();
    let mut complaints = complaints.to_vec();
    if !accounting.is_on() && expected.tells_of_accounting {
        complaints.push(&["kernel.task_delayacct is 0", "sysctl kernel.task_delayacct=1"]);
    }
    let mut plugin = Plugin::start(command);
    let lines = settled(&mut plugin, &expected.shape(accounting.is_on()), complaints.len());
    // What is repeated at a gather is not said again.
    gather(&mut plugin);
    let (status, rest, stderr) = plugin.stop();
    assert!(status.success() && rest.is_empty(), "{status}: {rest:?}, {stderr:?}");
    assert_eq!(stderr.len(), complaints.len(), "{stderr:#?}");
    for parts in complaints {
        let says_all = |line: &&String| line.starts_with("W! ") && parts.iter().all(|part| line.contains(part));
        assert_eq!(stderr.iter().filter(says_all).count(), 1, "{parts:?} in {stderr:#?}");
    }
    lines
}

/// Gathers until these lines with these fields come, and as many complaints. Nothing else ever comes.
pub fn settled(plugin: &mut Plugin, expected: &Shape, complaints: usize) -> Lines {
    let mut last = String::new();
    wait_for("these lines and complaints", || {
        let (lines, agent) = gather(plugin);
        let shape = lines.shape();
        for (line, fields) in &shape {
            let known = expected.get(line).unwrap_or_else(|| panic!("{line} is not expected: {lines:?}"));
            assert!(fields.is_subset(known), "{line}: {fields:?}, not {known:?}");
        }
        let complained: u64 =
            ["absent", "denied", "failed", "bounded"].iter().map(|kind| agent.number(&format!("errors_{kind}"))).sum();
        let seen = format!("{complained} complaints, {shape:?}");
        if seen != last {
            eprintln!("{seen}"); // for a test that waits in vain
            last = seen;
        }
        (shape == *expected && complained == complaints as u64).then_some(lines)
    })
}

/// One gather: its lines, and the one about the plugin, which comes last.
pub fn gather(plugin: &mut Plugin) -> (Lines, Line) {
    plugin.prompt();
    let mut lines = Vec::new();
    loop {
        let line = Line::parse(&plugin.line());
        if line.measurement == "taskstats_agent" {
            return (Lines(lines), line);
        }
        lines.push(line);
    }
}

/// A line of line protocol without spaces, quotes or escapes in its tags and fields.
#[derive(Debug)]
pub struct Line {
    pub measurement: String,
    pub tags: BTreeMap<String, String>,
    pub fields: BTreeMap<String, String>,
}

impl Line {
    pub fn parse(text: &str) -> Self {
        let pairs = |text: &str| -> BTreeMap<String, String> {
            let pairs = text.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap());
            pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        let [series, fields, _time] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let (measurement, tags) = series.split_once(',').unwrap();
        Self { measurement: measurement.to_owned(), tags: pairs(tags), fields: pairs(fields) }
    }

    pub fn number(&self, field: &str) -> u64 {
        let text = self.fields.get(field).unwrap_or_else(|| panic!("no {field}: {self:?}"));
        text.trim_end_matches('i').parse().unwrap_or_else(|e| panic!("{field} ({e}): {self:?}"))
    }
}

/// The fields of each line, the line by measurement and name.
pub type Shape = BTreeMap<String, BTreeSet<String>>;

#[derive(Debug)]
pub struct Lines(pub Vec<Line>);

impl Lines {
    fn shape(&self) -> Shape {
        let shape = self.0.iter().map(|line| {
            let fields = line.fields.keys().filter(|field| !of_newer_kernels(field)).cloned().collect();
            (format!("{} {}", line.measurement, line.tags["process_name"]), fields)
        });
        shape.collect()
    }

    pub fn get(&self, measurement: &str, name: &str) -> &Line {
        let is = |line: &&Line| line.measurement == measurement && line.tags["process_name"] == name;
        self.0.iter().find(is).unwrap_or_else(|| panic!("no {measurement} of {name}: {self:?}"))
    }

    /// Whether the lines of a process say what the kernel says of it to root, in a /proc. It does nothing meanwhile.
    pub fn assert_true(&self, name: &str, proc: &Path, pid: u32) {
        let [tree, process] = SCOPES.map(|scope| format!("{name}-{scope}"));
        let directory = proc.join(pid.to_string());
        let kernel = Process::new_with_root(directory.clone()).unwrap();
        let (stat, schedstat, status) = (kernel.stat().unwrap(), kernel.schedstat().unwrap(), kernel.status().unwrap());
        let has = |measurement: &str| {
            let is = |line: &&Line| line.measurement == measurement && line.tags["process_name"] == process;
            self.0.iter().find(is)
        };
        let is = |line: &Line, facts: &[(&str, u64)]| {
            assert_eq!(line.tags["pid"], pid.to_string(), "{line:?}");
            for (field, fact) in facts {
                assert_eq!(line.number(field), *fact, "{field} of {line:?}");
            }
        };
        for name in [&tree, &process] {
            assert_eq!(self.get("psstat", name).fields["n_proc"], "1i", "{self:?}");
        }
        let ticks = |ticks: u64| ticks * 10_000_000;
        let procstat = self.get("procstat", &process);
        let times = [
            ("utime", ticks(stat.utime)),
            ("stime", ticks(stat.stime)),
            ("cutime", ticks(stat.cutime.cast_unsigned())),
            ("cstime", ticks(stat.cstime.cast_unsigned())),
            ("num_threads", stat.num_threads.cast_unsigned()),
        ];
        is(procstat, &times);
        let smaps = fs::read_to_string(directory.join("smaps_rollup")).unwrap();
        let kibibytes = |key: &str| -> u64 {
            let line = smaps.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        // What is shared counts less the more share it, and they come and go.
        let (anonymous, resident) = (kibibytes("Pss_Anon"), kibibytes("Rss"));
        assert!(procstat.number("rss").abs_diff(resident) * 100 <= resident, "{resident} KiB: {procstat:?}");
        for pss in has("procmaps").iter().map(|line| line.number("pss")) {
            assert!((anonymous..=resident).contains(&pss), "{pss} KiB, and not of {anonymous} to {resident}");
        }
        let switches = [status.voluntary_ctxt_switches, status.nonvoluntary_ctxt_switches].map(Option::unwrap);
        if let Some(taskstat) = has("taskstat") {
            let (count, delay) = (("cpu_count", schedstat.pcount), ("cpu_delay_total", schedstat.run_delay));
            is(taskstat, &[count, delay, ("nvcsw", switches[0]), ("nivcsw", switches[1])]);
        }
        let thread = self.get("thread", &process);
        assert_eq!(thread.tags["nice"], stat.nice.to_string(), "{thread:?}");
        let oncpu = ("schedstat_oncpu", schedstat.sum_exec_runtime);
        is(thread, &[oncpu, ("schedstat_waiting", schedstat.run_delay), ("schedstat_slices", schedstat.pcount)]);
    }
}

fn of_newer_kernels(field: &str) -> bool {
    ["freepages_", "thrashing_", "compact_", "wpcopy_", "irq_"].iter().any(|prefix| field.starts_with(prefix))
}

/// What is to come out.
pub struct Expected {
    names: Vec<String>,
    measurements: Vec<&'static str>,
    /// Fields that are not among them.
    without: Vec<&'static str>,
    /// Whether kernel.task_delayacct can be read.
    tells_of_accounting: bool,
}

impl Expected {
    /// Psstat, procstat and thread, for which no privilege is needed, and these measurements.
    pub fn of(names: &[&str], more: &[&'static str]) -> Self {
        let names = names.iter().flat_map(|name| SCOPES.map(|scope| format!("{name}-{scope}"))).collect();
        let measurements = [&["psstat", "procstat", "thread"], more].concat();
        Self { names, measurements, without: Vec::new(), tells_of_accounting: true }
    }

    /// Everything.
    pub fn all(names: &[&str]) -> Self {
        Self::of(names, &["taskstat", "procmaps"])
    }

    /// The same with less, where /proc/sys is not to be seen.
    pub fn without(self, fields: &[&'static str]) -> Self {
        Self { without: fields.to_vec(), tells_of_accounting: false, ..self }
    }

    pub fn shape(&self, delays: bool) -> Shape {
        let lines = self.names.iter().flat_map(|name| self.measurements.iter().map(move |of| (name, *of)));
        let shape = lines.map(|(name, measurement)| {
            let fields = fields(measurement, name.ends_with("-process"), delays);
            let fields = fields.into_iter().filter(|field| !self.without.contains(field)).map(str::to_owned);
            (format!("{measurement} {name}"), fields.collect())
        });
        shape.collect()
    }
}

fn fields(measurement: &str, of_process: bool, delays: bool) -> Vec<&'static str> {
    let (always, sometimes, come): (&[_], &[_], _) = match measurement {
        "psstat" => (&["p_cpu", "p_mem", "n_proc"], &[], false),
        "procstat" => (&["utime", "stime", "num_threads", "rss"], &["cutime", "cstime"], of_process),
        "procmaps" => (&["pss"], &[], false),
        "thread" => (&["schedstat_oncpu", "schedstat_waiting", "schedstat_slices"], &["blkio_delay"], delays),
        "taskstat" => (
            &["cpu_count", "cpu_delay_total", "nvcsw", "nivcsw"],
            &["blkio_count", "blkio_delay_total", "swapin_count", "swapin_delay_total"],
            delays,
        ),
        other => panic!("{other}"),
    };
    if come { [always, sometimes].concat() } else { always.to_vec() }
}

/// A niced process that has used CPU, itself and by a child, has 8 MB that it shares with nobody, and waits.
pub struct Watched(Running);

const WORK: &str = r#"
work() { i=0; while [ $i -lt 50000 ]; do i=$((i + 1)); done; }
x=$(head -c 8000000 /dev/zero | tr '\0' x)
work
(work)
echo ready
read end
"#;

impl Watched {
    /// A process of root's.
    pub fn new() -> Self {
        Self::of(0)
    }

    pub fn of(user: u32) -> Self {
        let mut command = Command::new("nice");
        command.args(["-n", "5", "sh", "-c", WORK]).stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
        if user != 0 {
            command.uid(user).gid(user);
        }
        let mut process = Running::start(&mut command);
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        wait_until_it_sleeps(Path::new("/proc"), process.id());
        Self(process)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

/// A process of the user as whom the plugin runs.
pub fn own_process() -> Watched {
    Watched::of(ORDINARY_USER)
}

pub fn wait_until_it_sleeps(proc: &Path, pid: u32) {
    wait_for("a process to wait", || {
        let stat = Process::new_with_root(proc.join(pid.to_string())).ok()?.stat().ok()?;
        (stat.state == 'S').then_some(())
    });
}

/// What `--check` says.
#[derive(Debug)]
pub struct Check {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Check {
    pub fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub fn assert_works(&self) {
        assert!(self.code == Some(0) && self.stderr.is_empty(), "{self:?}");
        assert!(!self.stdout.contains("works, except") && !self.stdout.contains("not all of it"), "{self:?}");
    }

    /// The reasons why something does not work here. How processes are accounted is no such thing: there is always a way.
    pub fn reasons(&self) -> Vec<&str> {
        let (before, accounting) = self.stdout.split_once("Accounting\n").unwrap();
        let after = accounting.lines().skip_while(|line| line.starts_with("  "));
        let reasons = before.lines().chain(after).filter_map(|line| line.strip_prefix("      "));
        reasons.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How processes are accounted here, and why not in a better way.
    pub fn accounting(&self) -> (&str, Option<&str>) {
        let (_, accounting) = self.stdout.split_once("Accounting\n").unwrap();
        let mut lines = accounting.lines();
        let way = lines.next().unwrap().split_whitespace().next().unwrap();
        (way, lines.next().and_then(|line| line.strip_prefix("      ")))
    }

    /// It fails, for reasons that have all of these parts, and for no others.
    pub fn assert_fails(&self, complaints: &[&[&str]]) {
        self.assert_says(1, complaints);
    }

    /// It does not fail, though something is left out for reasons that have all of these parts, and for no others.
    pub fn assert_works_except(&self, complaints: &[&[&str]]) {
        self.assert_says(0, complaints);
        assert!(self.stdout.contains("  works, except:\n") && !self.stdout.contains("not all of it"), "{self:?}");
    }

    fn assert_says(&self, code: i32, complaints: &[&[&str]]) {
        assert!(self.code == Some(code) && self.stderr.is_empty(), "{self:?}");
        let reasons = self.reasons();
        assert_eq!(reasons.len(), complaints.len(), "{reasons:#?}");
        for parts in complaints {
            let says_all = |reason: &&&str| parts.iter().all(|part| reason.contains(part));
            assert_eq!(reasons.iter().filter(says_all).count(), 1, "{parts:?} in {reasons:#?}");
        }
    }

    /// The one command that it says, from its first word up to what is no part of it.
    pub fn command(&self, first: &str, end: &str) -> String {
        let commands = self.reasons().into_iter().filter_map(|reason| reason.find(first).map(|at| &reason[at..]));
        let commands: BTreeSet<_> = commands.map(|text| text.split(end).next().unwrap()).collect();
        assert_eq!(commands.len(), 1, "{self:?}");
        commands.first().unwrap().to_string()
    }

    /// The capabilities that it says to put into a setting of a systemd unit, as setpriv has them: "+net_admin,+sys_ptrace".
    pub fn capabilities(&self, setting: &str) -> String {
        let named = self.reasons().into_iter().filter_map(|reason| reason.split_once(&format!("{setting}=CAP_")));
        let end = |c: char| !(c.is_ascii_uppercase() || c == '_');
        let names: BTreeSet<_> = named.map(|(_, text)| text.split(end).next().unwrap().to_lowercase()).collect();
        names.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(",")
    }
}

/// Does as root exactly what was said.
pub fn run(command: &str) {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
}
