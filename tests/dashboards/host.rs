//! A host to look at: services that wait for a CPU and for a disk, that come and go, or are not there; the plugin watches
//! them under a real Telegraf, both configured as docs/dashboards.md says.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::thread::sched_getaffinity;
use tempfile::TempDir;

use crate::document::{Block, blocks};
use crate::peers::{Running, peer, shell};
use crate::server::{Server, free_port};
use crate::support::{PATIENCE, binary, skip, wait_for};
use crate::watched::Sleeper;

/// The host's name. Like those of the services, it is not all letters: Grafana makes regular expressions of them.
pub const HOST: &str = "host.one";

/// Always ready to run, on a CPU that it shares with two others of its kind.
pub const HUNGRY: &str = "hungry";
/// Reads from its disk.
pub const READER: &str = "reader (1/2)";
/// Has children, all the time.
pub const PARENT: &str = "parent";
/// Begins anew when [`Host::restart`] says so.
pub const RESTARTED: &str = "re+started";
/// Two targets of the same name, told apart by another tag: two processes.
pub const TWINS: &str = "twins";
/// What the example in the document watches, which is not there.
pub const DOWN: &str = "nginx";
/// Does nothing.
pub const IDLE: &str = "idle";

pub const SERVICES: [&str; 7] = [DOWN, HUNGRY, IDLE, PARENT, READER, RESTARTED, TWINS];

/// Telegraf's, besides what the document says.
const TELEGRAF: &str = r#"
[agent]
  interval = "1s"
  flush_interval = "1s"
  round_interval = false
  hostname = "$HOST"
[[inputs.execd]]
  command = ["$PLUGIN", "--config", "$DIRECTORY/plugin.conf"]
  signal = "STDIN"
  data_format = "influx"
"#;

/// The plugin's targets, besides the one in the document.
const TARGETS: &str = r#"
  [[inputs.taskstats.target]]
    name = "$HUNGRY"
    pid = $PID_OF_HUNGRY
  [[inputs.taskstats.target]]
    name = "$READER"
    pid = $PID_OF_READER
  [[inputs.taskstats.target]]
    name = "$PARENT"
    pid = $PID_OF_PARENT
  [[inputs.taskstats.target]]
    name = "$RESTARTED"
    pid_file = "$DIRECTORY/restarted.pid"
  [[inputs.taskstats.target]]
    name = "$TWINS"
    pid = $PID_OF_ONE
    [inputs.taskstats.target.tags]
      twin = "one"
  [[inputs.taskstats.target]]
    name = "$TWINS"
    pid = $PID_OF_OTHER
    [inputs.taskstats.target.tags]
      twin = "other"
  [[inputs.taskstats.target]]
    name = "$IDLE"
    pid = $PID_OF_IDLE
"#;

/// Blocks of the document that begin alike.
pub fn documented(info: &str, beginning: &str) -> Vec<Block> {
    let mut blocks = blocks(Path::new("docs/dashboards.md"));
    blocks.retain(|block| block.info == info && block.text.starts_with(beginning));
    assert!(!blocks.is_empty(), "docs/dashboards.md has no {info} that begins with {beginning}");
    blocks
}

pub struct Host {
    telegraf: Option<Running>,
    services: Services,
    /// Where Telegraf serves what it reads.
    pub port: u16,
    agent: ureq::Agent,
    directory: TempDir,
}

/// Three that are hungry, since one alone would not be.
struct Services {
    hungry: [Running; 3],
    reader: Running,
    parent: Running,
    restarted: Running,
    sleepers: [Sleeper; 3],
}

impl Host {
    /// Starts the services, and Telegraf, which also writes to these servers, by the addresses that the document has for them. None
    /// where there is no Telegraf.
    pub fn start(servers: &[(&str, &Server)]) -> Option<Self> {
        let program = peer("telegraf")?;
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        if rustix::fs::major(directory.path().metadata().unwrap().dev()) == 0 {
            skip(&format!("{} is on no block device", directory.path().display()));
            return None;
        }
        let services = Services {
            hungry: [spinner(), spinner(), spinner()],
            reader: reader(directory.path()),
            parent: parent(),
            restarted: idler(directory.path()),
            sleepers: [Sleeper::new(), Sleeper::new(), Sleeper::new()],
        };
        let port = free_port();
        configure(directory.path(), &services, port, servers);
        let mut command = Command::new(program);
        command.arg("--config").arg(directory.path().join("telegraf.conf")).stdin(Stdio::null());
        let telegraf = Running::start(command.stderr(File::create(directory.path().join("log")).unwrap()));
        let agent = ureq::Agent::config_builder().proxy(None).timeout_global(Some(PATIENCE)).build().into();
        Some(Self { telegraf: Some(telegraf), services, port, agent, directory })
    }

    /// Restarts the one that is to be, and waits until that is known.
    pub fn restart(&mut self) {
        let before = wait_for("restarts to be served", || self.restarts());
        drop(std::mem::replace(&mut self.services.restarted, idler(self.directory.path())));
        wait_for("a restart to be served", || self.restarts().filter(|restarts| *restarts > before));
    }

    /// How many there were, as Telegraf serves it.
    fn restarts(&self) -> Option<u64> {
        let answer = self.agent.get(format!("http://127.0.0.1:{}/metrics", self.port)).call();
        let text = answer.ok()?.body_mut().read_to_string().ok()?;
        let mut lines = text.lines().filter(|line| line.starts_with("psstat_restarts{"));
        lines.find(|line| line.contains(RESTARTED))?.rsplit(' ').next()?.parse().ok()
    }

    pub fn stop_telegraf(&mut self) {
        self.telegraf = None;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("Telegraf's log:\n{}", fs::read_to_string(self.directory.path().join("log")).unwrap());
        }
    }
}

fn configure(directory: &Path, services: &Services, port: u16, servers: &[(&str, &Server)]) {
    let pid = |process: &Running| process.id().to_string();
    let [one, other, idle] = services.sleepers.each_ref().map(|sleeper| sleeper.pid().to_string());
    let values = [
        ("$DIRECTORY", directory.to_str().unwrap()),
        ("$PLUGIN", binary().to_str().unwrap()),
        ("$HOST", HOST),
        ("$PID_OF_HUNGRY", &pid(&services.hungry[0])),
        ("$PID_OF_READER", &pid(&services.reader)),
        ("$PID_OF_PARENT", &pid(&services.parent)),
        ("$PID_OF_ONE", &one),
        ("$PID_OF_OTHER", &other),
        ("$PID_OF_IDLE", &idle),
        ("$HUNGRY", HUNGRY),
        ("$READER", READER),
        ("$PARENT", PARENT),
        ("$RESTARTED", RESTARTED),
        ("$TWINS", TWINS),
        ("$IDLE", IDLE),
    ];
    let fill = |text: &str| values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));

    let mut telegraf = fill(TELEGRAF);
    for output in documented("toml", "[[outputs.influxdb]]") {
        let written_to = servers.iter().find(|(address, _)| output.text.contains(address));
        if let Some((address, server)) = written_to {
            telegraf += &output.text.replace(&format!("http://{address}"), &server.url);
        }
    }
    for output in documented("toml", "[[outputs.prometheus_client]]") {
        telegraf += &output.text.replace("\":9273\"", &format!("\"127.0.0.1:{port}\""));
    }
    fs::write(directory.join("telegraf.conf"), telegraf).unwrap();

    let plugin = documented("toml", "[[inputs.taskstats]]")[0].text.clone() + &fill(TARGETS);
    fs::write(directory.join("plugin.conf"), plugin).unwrap();
}

/// What Prometheus is to scrape and to hold, by the document.
pub fn prometheus_yml(rules: &Path, port: u16) -> String {
    let documented = &documented("yaml", "scrape_configs:")[0].text;
    let text = documented.replace("localhost:9273", &format!("127.0.0.1:{port}"));
    let rules = text.replace("/usr/share/telegraf-taskstats/alerts/taskstats.yml", rules.to_str().unwrap());
    assert!(rules != text && text != *documented, "{documented}");
    format!("global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n{rules}")
}

/// All of them on the same CPU. It ends with the test.
fn spinner() -> Running {
    let allowed = sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
    shell(r#"exec taskset -c "$1" sh -c 'while kill -0 "$PPID" 2>/dev/null; do :; done'"#, OsStr::new(&cpu.to_string()))
}

/// Names the file to read to the run of this executable that is [`READER`].
const READS: &str = "TASKSTATS_TEST_READS";

/// What the kernel can read into past the page cache.
#[repr(align(4096))]
struct Page([u8; 4096]);

/// Not a test but, run by one in a process of its own, what reads from its disk: three threads, past the page cache.
#[test]
fn reads() {
    let Some(file) = std::env::var_os(READS) else { return };
    for _ in 0..3 {
        let file = rustix::fs::open(&file, OFlags::DIRECT | OFlags::RDONLY, Mode::empty()).unwrap();
        std::thread::spawn(move || {
            let mut page = Page([0; 4096]);
            for offset in (0..PAGES).cycle() {
                rustix::io::pread(&file, &mut page.0, offset * 4096).unwrap();
            }
        });
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new()); // it ends with the test, even when that is killed
}

/// How large the file is.
const PAGES: u64 = 1024;

fn reader(directory: &Path) -> Running {
    let path = directory.join("data");
    fs::write(&path, vec![1; PAGES as usize * 4096]).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "host::reads", "--nocapture"]).env(READS, path);
    Running::start(command.stdin(Stdio::piped()).stdout(Stdio::null()))
}

/// Has one child after the other. It ends with the test.
fn parent() -> Running {
    shell(r#"while kill -0 "$PPID" 2>/dev/null; do sleep 0.05; done"#, OsStr::new(""))
}

/// One that waits, and its pidfile.
fn idler(directory: &Path) -> Running {
    let idler = shell("read end", OsStr::new(""));
    let file = directory.join("restarted.pid");
    fs::write(file.with_extension("new"), idler.id().to_string()).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
    idler
}
