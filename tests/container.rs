//! The packages on a real host: systemd, booted in a container by `scripts/container`, with the .deb of `scripts/package` and
//! Telegraf under its own unit. What a container cannot have (process events, which are for the first pid namespace) is shown
//! outside of it, on this host, with the same package. It takes root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking,
#![allow(clippy::indexing_slicing)] // also by an index out of bounds,
#![allow(clippy::print_stderr)] // and says what it skips
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere

#[path = "support/delay_accounting.rs"]
mod delay_accounting;
#[path = "support/document.rs"]
mod document;
#[path = "support/peers.rs"]
mod peers;
mod support;

#[path = "container/alone.rs"]
mod alone;
#[path = "container/booted.rs"]
mod booted;
#[path = "container/documents.rs"]
mod documents;
#[path = "container/outside.rs"]
mod outside;
#[path = "support/packages.rs"]
mod packages;
#[path = "container/telegraf.rs"]
mod telegraf;

use delay_accounting::DelayAccounting;
use support::field;
use telegraf::{ENABLE, Host, integer};

/// What links the packaged file to where sysctl reads it, and has it read (systemd-sysctl is for hosts: here it may set one only).
const SYSCTL: &str = "
    ln -s /usr/share/telegraf-taskstats/sysctl.d/60-telegraf-taskstats.conf /etc/sysctl.d/60-telegraf-taskstats.conf
    sysctl --load=/etc/sysctl.d/60-telegraf-taskstats.conf";

/// What is to be measured is there: of a host where all is as the README has it.
#[test]
fn telegraf_starts_the_plugin_and_has_what_nginx_does() {
    // Off, so that it is the packaged file that switches it on; then what was there before has to be restarted.
    let Some(_accounting) = DelayAccounting::switch(false) else { return };
    let Some(host) = Host::new() else { return };
    host.0.run(SYSCTL);
    host.0.run("systemctl restart nginx");
    host.0.run(ENABLE);
    host.restart_telegraf();

    // A master and its workers; while it starts, there are others.
    let is_whole = |line: &str| {
        let count = host.processes_of_nginx();
        count > 1 && integer(line, "n_proc") == count
    };
    let before = host.wait_lines("psstat", is_whole);
    for line in host.wait_lines("taskstat", |_| true).values() {
        for delay in ["cpu_delay_total", "blkio_delay_total", "swapin_delay_total", "freepages_delay_total"] {
            integer(line, delay);
        }
    }
    // Of the user telegraf, with the capabilities of the file.
    let plugin =
        host.0.run("pid=$(pidof telegraf-taskstats); ps --no-headers -o user= $pid; grep CapPrm /proc/$pid/status");
    let words: Vec<_> = plugin.split_whitespace().collect();
    assert_eq!(words, ["telegraf", "CapPrm:", "0000000000081000"], "CAP_NET_ADMIN is bit 12, CAP_SYS_PTRACE 19");

    host.0.run("systemctl restart nginx");
    let grown = |line: &str, name: &str, by: u64| {
        let then = before.values().find(|then| then.split(' ').next() == line.split(' ').next()).unwrap();
        integer(line, name) >= integer(then, name) + by
    };
    let after = host.wait_lines("psstat", |line| {
        is_whole(line) && ["started", "exited"].iter().all(|name| grown(line, name, integer(line, "n_proc")))
    });
    assert_eq!(integer(&after["pidfile"], "restarts"), integer(&before["pidfile"], "restarts") + 1);
    // What nginx has used since is in it, by the cgroup's own count.
    assert!(grown(&after["unit"], "cpu_time", host.cpu_of_nginx()), "{before:?} {after:?}");

    host.0.run("systemctl stop nginx");
    let stopped = host.wait_lines("psstat", |line| field(line, "n_proc") == Some("0i"));
    for (name, line) in &stopped {
        assert_eq!(field(line, "p_mem"), Some("0"), "{line}");
        let series = host.lines("psstat", name);
        let times: Vec<_> = series.iter().map(|line| integer(line, "cpu_time")).collect();
        assert!(times.is_sorted(), "{name}: cpu_time falls: {times:?}");
        assert!(times.last() > times.first(), "{name}: {times:?}");
    }
    host.0.run("systemctl start nginx");
    host.wait_lines("psstat", is_whole);
}

/// Without its file capabilities the plugin runs, says what is missing, and what it says helps.
#[test]
fn without_file_capabilities_taskstat_is_absent_with_its_reason() {
    let Some(host) = Host::new() else { return };
    host.0.run(ENABLE);
    host.0.run("setcap -r /usr/bin/telegraf-taskstats");
    host.restart_telegraf();
    host.wait_lines("psstat", |line| field(line, "n_proc").is_some_and(|count| count != "0i"));
    host.wait_gather();
    assert!(!host.metrics().iter().any(|line| line.starts_with("taskstat,")), "{:#?}", host.metrics());
    let said = host.0.wait_for_log("telegraf", "taskstat is left out");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    let (_, command) = said.split_once("run as root: ").unwrap_or_else(|| panic!("no remedy: {said}"));
    let command = command.trim_end_matches('"');
    assert_eq!(command, "setcap cap_net_admin,cap_sys_ptrace=p /usr/bin/telegraf-taskstats");

    host.0.run(command);
    host.restart_telegraf();
    host.wait_lines("taskstat", |line| field(line, "cpu_count").is_some());
}

/// As Telegraf's user, who sees no event from within a pid namespace.
#[test]
fn check_says_that_it_scans_and_why() {
    let Some(host) = Host::new() else { return };
    let check = host.as_telegraf("--check");
    assert!(!check.stdout.contains("CAP_"), "a capability is missing: {check}");
    let accounting = check.stdout.split_once("\nAccounting\n").unwrap_or_else(|| panic!("{check}")).1;
    assert!(accounting.starts_with("  scan  "), "{check}");
    assert!(accounting.contains("the initial user and pid namespaces only"), "{check}");
    for name in ["unit", "pidfile", "pattern"] {
        let row = check.stdout.lines().find(|line| line.trim().starts_with(name));
        assert!(row.is_some_and(|row| row.contains("(nginx)")), "{check}");
    }
}
