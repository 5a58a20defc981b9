//! The units of the package: the plugin without Telegraf, and the writer that sends what it says over the network.

use std::net::{Ipv4Addr, TcpListener};
use std::time::UNIX_EPOCH;

use serde::Deserialize;

use crate::booted::{Container, Ran};
use crate::support::wait_for;

const PLUGIN: &str = "telegraf-taskstats.service";
const WRITER: &str = "telegraf-taskstats-writer.service";
const SOCKET: &str = "telegraf-taskstats-writer.socket";
/// How the exposure is to be, at most, as systemd-analyze(1) rates it.
const EXPOSURE: f64 = 2.0;

/// A container in which the plugin runs alone, gathers each second, and a server of its own, in a unit.
struct Alone {
    container: Container,
    port: u16,
}

impl Alone {
    fn new() -> Option<Self> {
        let container = Container::with_package()?;
        container.place_peer("victoria-metrics")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let alone = Self { container, port };
        alone.container.write(
            "/run/systemd/system/server.service",
            &format!(
                "[Service]\nExecStart=victoria-metrics -httpListenAddr=127.0.0.1:{port} -storageDataPath=/var/lib/server \
                 -search.latencyOffset=0s\n"
            ),
        );
        alone.drop_in(PLUGIN, &format!("ExecStart=\nExecStart={COMMAND} --interval 1s"));
        // A small FIFO is soon full.
        alone.container.write(&format!("/run/systemd/system/{SOCKET}.d/test.conf"), "[Socket]\nPipeSize=4096\n");
        alone.container.run("systemctl daemon-reload");
        alone.start_server();
        alone.container.run(&format!(
            "install -m 600 /usr/share/telegraf-taskstats/writer.env /etc/telegraf-taskstats/writer.env
             echo 'WRITE_URL=http://127.0.0.1:{port}/api/v2/write' >>/etc/telegraf-taskstats/writer.env"
        ));
        Some(alone)
    }

    /// Settings for a service, besides its own.
    fn drop_in(&self, unit: &str, settings: &str) {
        self.container.write(&format!("/run/systemd/system/{unit}.d/test.conf"), &format!("[Service]\n{settings}\n"));
        self.container.run("systemctl daemon-reload");
    }

    fn start_server(&self) {
        self.container.run("systemctl start server");
        wait_for("the server", || ureq::get(format!("http://127.0.0.1:{}/health", self.port)).call().ok());
    }

    /// When the server has values of nginx for: ms since 1970, ascending.
    fn times(&self) -> Vec<u128> {
        let url = format!("http://127.0.0.1:{}/api/v1/export", self.port);
        let request = ureq::get(url).query("match[]", "psstat_n_proc{process_name=\"nginx\"}");
        let text = request.call().unwrap().body_mut().read_to_string().unwrap();
        let series = text.lines().map(|line| serde_json::from_str::<Series>(line).unwrap());
        let mut times: Vec<_> = series.flat_map(|series| series.timestamps).collect();
        times.sort_unstable();
        times
    }

    /// Waits until the server has a value of nginx that was measured from now on; that time.
    fn wait_for_news(&self) -> u128 {
        let now = now();
        wait_for("something new", || self.times().into_iter().find(|time| *time > now))
    }

    /// The unit of the plugin with this to be executed and these settings, run once: what it says.
    fn in_the_unit(&self, command: &str, settings: &str) -> Ran {
        let output = "StandardOutput=file:/run/out\nStandardError=file:/run/out";
        self.drop_in(
            PLUGIN,
            &format!("Type=oneshot\nRestart=no\n{output}\nExecStart=\nExecStart={command}\n{settings}"),
        );
        let mut ran = self.container.attempt(&format!("rm -f /run/out; systemctl start {PLUGIN}"));
        ran.stdout = self.container.read("/run/out");
        ran
    }
}

/// What the unit of the plugin executes, but for the interval.
const COMMAND: &str = "/usr/bin/telegraf-taskstats --config /etc/telegraf-taskstats/plugin.conf";
const CHECK: &str =
    "/usr/bin/telegraf-taskstats --collect psstat,taskstat,procstat,procmaps --pid-file nginx:/run/nginx.pid --check";

/// A series as VictoriaMetrics exports it.
#[derive(Deserialize)]
struct Series {
    timestamps: Vec<u128>,
}

/// ms since 1970.
fn now() -> u128 {
    UNIX_EPOCH.elapsed().unwrap().as_millis()
}

/// Whatever becomes of the writer, or of the server, the plugin is the same process to the end.
#[test]
fn the_writer_may_die_and_the_server_may_go_away() {
    let Some(alone) = Alone::new() else { return };
    let container = &alone.container;
    container.run(&format!("systemctl start {PLUGIN}"));
    alone.wait_for_news();
    let plugin = container.property(PLUGIN, "MainPID");

    // systemd holds the FIFO open, and starts another writer.
    let writer = container.property(WRITER, "MainPID");
    container.run(&format!("kill -KILL {writer}"));
    alone.wait_for_news();
    assert_ne!(container.property(WRITER, "MainPID"), writer);

    // While there is no server, lines wait: in the writer, behind it in the FIFO, and when that is full the plugin waits too.
    let stopped = now();
    container.run("systemctl stop server");
    container.wait_for_log(WRITER, "to be tried again");
    // Its epoll(7) knows stdout only while it waits for room there: EPOLLOUT, edge-triggered, with EPOLLERR and EPOLLHUP.
    let waits = format!("grep -qs 'events: 8000001c ' /proc/{plugin}/fdinfo/*");
    wait_for("the plugin to wait", || (container.attempt(&waits).code == Some(0)).then_some(()));
    let started = now();
    alone.start_server();
    alone.wait_for_news();
    let meanwhile: Vec<_> = alone.times().into_iter().filter(|time| (stopped..started).contains(time)).collect();
    assert!(!meanwhile.is_empty(), "of {stopped} to {started} is nothing: {:?}", alone.times());

    // What a server refuses is dropped, or nothing would ever be sent again.
    container.run(&format!(
        "sed -i s,/api/v2/write,/no/such/path, /etc/telegraf-taskstats/writer.env; systemctl restart {WRITER}"
    ));
    let said = container.wait_for_log(WRITER, "refused with status");
    assert!(said.contains("status 400, and dropped, "), "{said}");

    assert_eq!(container.property(PLUGIN, "MainPID"), plugin);
    assert_eq!(container.property(PLUGIN, "NRestarts"), "0");
    container.run(&format!("kill -KILL {plugin}"));
    let restarts = || (container.property(PLUGIN, "NRestarts") == "1").then(|| container.property(PLUGIN, "MainPID"));
    assert_ne!(wait_for("another plugin", restarts), plugin);
    // Without the FIFO, there is nobody to write to.
    container.run(&format!("systemctl stop {SOCKET}"));
    wait_for("the plugin's end", || (container.property(PLUGIN, "ActiveState") == "inactive").then_some(()));
    assert_eq!(container.property(PLUGIN, "Result"), "success");
}

/// The same with influx, as docs/alone.md has it; but what it has read is lost with it.
#[test]
fn influx_may_be_the_writer_and_die() {
    let Some(alone) = Alone::new() else { return };
    let container = &alone.container;
    if container.place_peer("influx").is_none() {
        return;
    }
    let host = format!("INFLUX_HOST=http://127.0.0.1:{}", alone.port);
    let environment = format!("Environment={host} INFLUX_ORG=example INFLUX_TOKEN=none");
    let influx = "ExecStart=\nExecStart=/usr/bin/influx write --bucket hosts --precision ns";
    alone.drop_in(WRITER, &format!("{environment}\n{influx}"));
    container.run(&format!("systemctl start {PLUGIN}"));
    alone.wait_for_news();
    let plugin = container.property(PLUGIN, "MainPID");
    container.run("systemctl stop server");
    container.wait_for_log(WRITER, "failed to write data");
    alone.start_server();
    alone.wait_for_news();
    assert_eq!(container.property(PLUGIN, "MainPID"), plugin);
}

/// As the user that systemd makes up, in the sandbox of the unit.
#[test]
fn check_works_in_the_unit() {
    let Some(alone) = Alone::new() else { return };
    let check = alone.in_the_unit(CHECK, "");
    for measurement in ["psstat", "procstat", "procmaps"] {
        let works = |line: &str| line.split_whitespace().eq([measurement, "works"]);
        assert!(check.stdout.lines().any(works), "{measurement}: {check}");
    }
    // Delays may not be counted just now, but it is allowed to ask for them.
    assert!(!check.stdout.contains("CAP_") && check.stdout.contains("(nginx)"), "{check}");

    // The reason of the last of the settings that the unit does not have.
    let without = "ProtectProc=invisible\nCapabilityBoundingSet=\nCapabilityBoundingSet=CAP_NET_ADMIN\n\
                   AmbientCapabilities=\nAmbientCapabilities=CAP_NET_ADMIN";
    let check = alone.in_the_unit(CHECK, without);
    assert!(check.stdout.contains("hidepid") && check.stdout.contains("CAP_SYS_PTRACE"), "{check}");
    let unit = alone.container.read("/lib/systemd/system/telegraf-taskstats.service");
    assert!(
        unit.contains("#   ProtectProc=invisible   hides what is to be watched from whoever has no CAP_SYS_PTRACE")
    );
}

/// It does not get better by trying again.
#[test]
fn an_invalid_configuration_is_the_end() {
    let Some(container) = Container::with_package() else { return };
    container.write("/etc/telegraf-taskstats/plugin.conf", "[[inputs.taskstats]]\nno_such_key = 1\n");
    // Whether it has started is a matter of who is quicker.
    container.attempt(&format!("systemctl start {PLUGIN}"));
    wait_for("its end", || (container.property(PLUGIN, "ActiveState") == "failed").then_some(()));
    assert_eq!(container.property(PLUGIN, "ExecMainStatus"), "2");
    assert!(container.wait_for_log(PLUGIN, "no_such_key").contains("plugin.conf"));
}

/// The plugin sees no token, and reaches no network; the writer has no capability.
#[test]
fn each_of_the_two_has_what_it_needs_only() {
    let Some(alone) = Alone::new() else { return };
    let container = &alone.container;
    for unit in [PLUGIN, WRITER] {
        let text = container.run(&format!("systemd-analyze security --no-pager {unit} | tail -n 1"));
        let level = text.split_once(": ").unwrap().1.split_whitespace().next().unwrap();
        assert!(level.parse::<f64>().unwrap() <= EXPOSURE, "{text}");
    }
    container.run(&format!("systemctl start {PLUGIN}"));
    alone.wait_for_news();
    let writer = container.property(WRITER, "MainPID");
    let capabilities = container.run(&format!("grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/{writer}/status"));
    let none = |line: &str| line.ends_with("0000000000000000");
    assert!(capabilities.lines().count() == 4 && capabilities.lines().all(none), "{capabilities}");
    container.run(&format!("systemctl stop {PLUGIN}"));

    let token = alone.in_the_unit("cat /etc/telegraf-taskstats/writer.env", "");
    assert!(token.stdout.contains("Permission denied") && token.code != Some(0), "{token}");
    let environment = alone.in_the_unit(&format!("cat /proc/{writer}/environ"), "");
    assert!(environment.stdout.contains("Permission denied") && environment.code != Some(0), "{environment}");
    let server = format!("curl --silent --show-error http://127.0.0.1:{}/health", alone.port);
    let network = alone.in_the_unit(&server, "");
    assert!(network.stdout.starts_with("curl: ") && network.code != Some(0), "{network}");
    // The same is allowed to the writer, whose sandbox is not in the way.
    assert_eq!(container.run(&server), "OK");
}
