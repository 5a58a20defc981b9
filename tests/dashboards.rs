//! The dashboards and alerts of dist: each of their queries is asked of real databases, which a real Telegraf has filled with what
//! the plugin measures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking,
#![allow(clippy::indexing_slicing)] // also by an index out of bounds,
#![allow(clippy::print_stderr)] // and says what it skips
#![allow(unreachable_pub)] // nothing in a test is reached from elsewhere

#[path = "dashboards/database.rs"]
mod database;
#[path = "support/delay_accounting.rs"]
mod delay_accounting;
#[path = "support/document.rs"]
mod document;
#[path = "dashboards/grafana.rs"]
mod grafana;
#[path = "dashboards/host.rs"]
mod host;
#[path = "support/peers.rs"]
mod peers;
#[path = "support/server.rs"]
mod server;
mod support;
#[path = "support/watched.rs"]
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use regex::{Captures, Regex};
use serde_json::{Value, json};

use database::{Series, influxql, label_values, promql, tag_values};
use delay_accounting::DelayAccounting;
use document::repository;
use grafana::{Chosen, Dashboard, Target, array, text};
use host::{DOWN, HOST, HUNGRY, Host, IDLE, PARENT, READER, RESTARTED, SERVICES, TWINS, prometheus_yml};
use peers::peer;
use server::{Server, influxdb, prometheus, victoria_metrics};
use support::{PATIENCE, is_root, skip};

const INFLUXQL: &str = "taskstats-influxql.json";
const PROMETHEUS: &str = "taskstats-prometheus.json";

fn rules() -> PathBuf {
    repository().join("dist/alerts/taskstats.yml")
}

/// Whether a panel shows what the services of [`Host`] do.
fn shows(target: &Target<'_>, series: &[Series]) -> bool {
    let of = |name: &str| -> Vec<f64> {
        let of = series.iter().filter(|series| series.tag("process_name") == name);
        of.flat_map(|series| series.values.iter().copied()).collect()
    };
    let is_above_zero = |name| of(name).into_iter().any(|value| value > 0.0);
    let are_seconds = |name| of(name).into_iter().any(|value| (1e-6..100.0).contains(&value)); // not ns
    match (target.panel, target.id) {
        ("Down now", "A") => names(series) == [DOWN].into(),
        ("Restarts", "A") => is_above_zero(RESTARTED) && !is_above_zero(IDLE),
        ("Started and exited", "A" | "B") => is_above_zero(PARENT) && !is_above_zero(IDLE),
        ("CPU", "A") => is_above_zero(HUNGRY) && !is_above_zero(DOWN),
        ("Memory", "A") => is_above_zero(TWINS) && !is_above_zero(DOWN),
        ("Processes", "A") => of(TWINS).last() == Some(&2.0) && of(DOWN).contains(&0.0),
        ("Waiting for a CPU", "A") => are_seconds(HUNGRY),
        ("Waiting for the disk", "A") => are_seconds(READER) && !is_above_zero(IDLE),
        // What nobody does here is known, and 0.
        ("Waiting for swap" | "Thrashing" | "Waiting for reclaim", "A") => of(IDLE).contains(&0.0),
        (panel, id) => panic!("{id} of {panel}: there is no expectation"),
    }
}

fn names(series: &[Series]) -> BTreeSet<&str> {
    series.iter().map(|series| series.tag("process_name")).collect()
}

/// Asks until the answer is right; fails with the last one.
fn ask_until(what: &str, mut ask: impl FnMut() -> Vec<Series>, is_right: impl Fn(&[Series]) -> bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        let series = ask();
        if is_right(&series) {
            return;
        }
        assert!(Instant::now() < until, "{what}\n{series:#?}");
        std::thread::sleep(Duration::from_millis(100)); // a poll, not a synchronisation
    }
}

/// Asks all that a dashboard asks, of all services and of some, until each panel shows what there is.
fn assert_shows(dashboard: &Dashboard, host: &mut Host, ask: impl Fn(Chosen<'_>, &Target<'_>) -> Vec<Series>) {
    let but_idle: Vec<_> = SERVICES.into_iter().filter(|name| *name != IDLE).collect();
    for target in dashboard.targets() {
        let mut ask_until = |chosen: Chosen<'_>, is_right: &dyn Fn(&[Series]) -> bool| {
            let ask = || {
                if target.panel == "Restarts" {
                    host.restart();
                }
                ask(chosen, &target)
            };
            ask_until(&format!("{target:?} of {chosen:?}"), ask, is_right);
        };
        let is_whole = |series: &[Series]| {
            let is_told =
                |series: &Series| series.tag("host") == HOST && series.values.iter().all(|value| *value >= 0.0);
            series.iter().all(is_told) && shows(&target, series)
        };
        ask_until(Chosen::default(), &is_whole);
        ask_until(Chosen { hosts: &["another", HOST], services: &SERVICES }, &is_whole);
        let others = &but_idle.iter().copied().collect();
        let is_of_others = |series: &[Series]| !series.is_empty() && names(series).is_subset(others);
        ask_until(Chosen { hosts: &[HOST], services: &but_idle }, &is_of_others);
        ask_until(Chosen { hosts: &["another"], services: &[] }, &<[Series]>::is_empty);
    }
}

/// Whether an alert is about whom it is to be about, on this host. Those that are busy may wait for each other.
fn alarms(alert: &str, series: &[Series]) -> bool {
    let (about, others): (_, &[&str]) = match alert {
        "TaskstatsServiceDown" | "down" => (Some(DOWN), &[]),
        "TaskstatsRestartLoop" | "restart loop" => (Some(RESTARTED), &[]),
        "TaskstatsStarvedOfCpu" | "starved of CPU" => (Some(HUNGRY), &[READER]),
        "TaskstatsWaitingForDisk" | "waiting for the disk" => (Some(READER), &[]),
        "TaskstatsSilent" => (None, &[]),
        "hosts that report" => (Some(""), &[]),
        other => panic!("{other}: there is no expectation"),
    };
    let names = names(series);
    names.iter().all(|name| Some(*name) == about || others.contains(name))
        && about.is_none_or(|name| names.contains(name))
        && series.iter().all(|series| series.tag("host") == HOST)
}

/// The expressions of the alerts, by name, as Prometheus has read them.
fn alerts(prometheus: &Server) -> BTreeMap<String, String> {
    let answer: Value = serde_json::from_str(&prometheus.get("/api/v1/rules", &[])).unwrap();
    let rules = array(&answer["data"]["groups"]).iter().flat_map(|group| array(&group["rules"]));
    rules.map(|rule| (text(&rule["name"]).to_owned(), text(&rule["query"]).to_owned())).collect()
}

/// An expression for a host whose minutes have three seconds: nothing but its windows is changed.
fn hastened(expression: &str) -> String {
    let window = Regex::new(r"\[[0-9hm:]+\]").unwrap();
    let duration = Regex::new("([0-9]+)([hm])").unwrap();
    let hasten = |found: &Captures<'_>| {
        let number: u32 = found[1].parse().unwrap();
        format!("{}s", number * if &found[2] == "h" { 180 } else { 3 })
    };
    let hastened =
        window.replace_all(expression, |found: &Captures<'_>| duration.replace_all(&found[0], hasten).into_owned());
    assert_ne!(hastened, expression);
    hastened.into_owned()
}

#[test]
fn each_query_returns_what_a_host_does() {
    if !is_root() {
        return skip("taskstats needs CAP_NET_ADMIN");
    }
    let Some(_on) = DelayAccounting::switch(true) else { return };
    let (influx, victoria) = (influxdb(), victoria_metrics());
    let servers = [("127.0.0.1:8086", &influx), ("127.0.0.1:8428", &victoria)];
    let servers: Vec<_> = servers.iter().filter_map(|(address, server)| Some((*address, server.as_ref()?))).collect();
    let Some(mut host) = Host::start(&servers) else { return };
    let scraping = prometheus(&prometheus_yml(&rules(), host.port));

    if let Some(server) = &influx {
        let dashboard = Dashboard::read(INFLUXQL);
        assert_shows(&dashboard, &mut host, |chosen, target| influxql(server, &chosen.into_influxql(target.query)));
        assert_offers(&dashboard, |chosen, query| tag_values(server, &chosen.into_influxql(query)));
        for (alert, query) in documented_queries() {
            let ask = || {
                if alert == "restart loop" {
                    host.restart();
                }
                influxql(server, &query)
            };
            ask_until(&query, ask, |series| alarms(&alert, series));
        }
    }

    let dashboard = Dashboard::read(PROMETHEUS);
    let alerts = scraping.as_ref().map(alerts).unwrap_or_default();
    for server in [&scraping, &victoria].into_iter().flatten() {
        assert_shows(&dashboard, &mut host, |chosen, target| {
            promql(server, &chosen.into_promql(target.query), target.instant)
        });
        assert_offers(&dashboard, |chosen, query| label_values(server, &chosen.into_promql(query)));
        for (alert, expression) in &alerts {
            let expression = hastened(expression);
            let ask = || {
                if alert == "TaskstatsRestartLoop" {
                    host.restart();
                }
                promql(server, &expression, true)
            };
            ask_until(&expression, ask, |series| alarms(alert, series));
        }
    }

    host.stop_telegraf();
    for server in [&scraping, &victoria].into_iter().flatten() {
        // Alerts come from Prometheus; that it is missing was said.
        if scraping.is_some() {
            let expression = hastened(&alerts["TaskstatsSilent"]);
            let is_of_host = |series: &[Series]| matches!(series, [one] if one.tag("host") == HOST);
            ask_until(&expression, || promql(server, &expression, true), is_of_host);
        }
    }
}

/// What the variables offer once a host is chosen.
fn assert_offers(dashboard: &Dashboard, ask: impl Fn(Chosen<'_>, &str) -> BTreeSet<String>) {
    for (variable, values) in [("host", &[HOST][..]), ("process_name", &SERVICES)] {
        let offered = ask(Chosen { hosts: &[HOST], services: &[] }, dashboard.query_of(variable));
        assert_eq!(offered, values.iter().map(|value| (*value).to_owned()).collect(), "{variable}");
    }
}

/// The queries of the document's table, by what they are called there.
fn documented_queries() -> Vec<(String, String)> {
    let text = fs::read_to_string(repository().join("docs/dashboards.md")).unwrap();
    let row = Regex::new("(?m)^\\| ([^|]+) \\| `(SELECT [^`]+)` \\|$").unwrap();
    let queries: Vec<_> = row.captures_iter(&text).map(|row| (row[1].to_owned(), row[2].to_owned())).collect();
    assert_eq!(queries.len(), 5, "{queries:?}");
    queries
}

/// Both have the same panels: what differs is only what is asked, and whom.
#[test]
fn both_dashboards_are_the_same() {
    let [one, other] = [INFLUXQL, PROMETHEUS].map(|name| {
        let dashboard = Dashboard::read(name);
        let mut json = dashboard.json().clone();
        for (key, asked) in [("title", "InfluxQL"), ("title", "Prometheus"), ("uid", "influxql"), ("uid", "prometheus")]
        {
            json[key] = text(&json[key]).replace(asked, "…").into();
        }
        for panel in json["panels"].as_array_mut().unwrap() {
            panel.as_object_mut().unwrap().remove("datasource");
            for target in panel.get_mut("targets").and_then(Value::as_array_mut).into_iter().flatten() {
                let is_table = ["format", "resultFormat"].iter().any(|key| target[*key] == "table");
                *target = json!({ "refId": target["refId"], "is table": is_table });
            }
        }
        for variable in json["templating"]["list"].as_array_mut().unwrap() {
            variable.as_object_mut().unwrap().retain(|key, _| !["datasource", "query"].contains(&key.as_str()));
        }
        json
    });
    assert_eq!(one, other);
}

#[test]
fn dashboards_are_in_order() {
    for (name, kind) in [(INFLUXQL, "influxdb"), (PROMETHEUS, "prometheus")] {
        let dashboard = Dashboard::read(name);
        let asked = json!({ "type": kind, "uid": "${datasource}" });
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard.panels() {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
            assert!(x + w <= 24, "{panel}");
            for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(places.insert(place), "two at {place:?}: {panel}");
            }
            if panel["type"] != "row" {
                assert!(!text(&panel["title"]).is_empty() && text(&panel["description"]).ends_with('.'), "{panel}");
                assert!(array(&panel["targets"]).iter().all(|target| target["datasource"] == asked), "{panel}");
            }
        }
        let [source, host, service] = dashboard.variables() else { panic!("not three variables") };
        assert_eq!((&source["type"], &source["query"]), (&json!("datasource"), &json!(kind)));
        for (variable, called) in [(host, "host"), (service, "process_name")] {
            assert_eq!((text(&variable["name"]), &variable["datasource"]), (called, &asked));
            let all = ["multi", "includeAll"].map(|key| &variable[key]);
            assert_eq!((all, text(&variable["allValue"])), ([&json!(true); 2], ".*"));
        }
    }
}

/// What is waited for differs, how that is asked does not.
#[test]
fn panels_about_waiting_ask_alike() {
    let field = Regex::new("[a-z]+_delay_total").unwrap();
    for name in [INFLUXQL, PROMETHEUS] {
        let dashboard = Dashboard::read(name);
        let about_waiting = dashboard.targets().filter(|target| target.query.contains("_delay_total"));
        let queries: Vec<_> = about_waiting.map(|target| field.replace_all(target.query, "…").into_owned()).collect();
        assert_eq!(queries.len(), 5, "{queries:#?}");
        assert!(queries.iter().all(|query| *query == queries[0]), "{queries:#?}");
    }
}

/// Runs a peer, which must be content.
fn assert_content(command: &mut Command) {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn promtool_finds_no_fault_and_each_case_comes_out_right() {
    let Some(promtool) = peer("promtool") else { return };
    assert_content(Command::new(&promtool).args(["check", "rules"]).arg(rules()));
    let cases = repository().join("tests/dashboards/alerts.yml");
    assert_content(Command::new(&promtool).args(["test", "rules"]).arg(cases));
    let config = tempfile::NamedTempFile::new().unwrap();
    fs::write(config.path(), prometheus_yml(&rules(), 9273)).unwrap();
    assert_content(Command::new(&promtool).args(["check", "config"]).arg(config.path()));
}

#[test]
fn vmalert_takes_the_rules() {
    let Some(vmalert) = peer("vmalert") else { return };
    assert_content(Command::new(vmalert).arg("-dryRun").arg(format!("-rule={}", rules().display())));
}

/// Each alert has cases in which it fires and cases in which it must not.
#[test]
fn each_alert_has_cases_of_both_kinds() {
    let rules = fs::read_to_string(rules()).unwrap();
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let cases = fs::read_to_string(repository().join("tests/dashboards/alerts.yml")).unwrap();
    let cases: Vec<_> = cases.split("alertname: ").skip(1).collect();
    for alert in &alerts {
        let of = |case: &&&str| case.lines().next() == Some(alert);
        let silent = cases.iter().filter(of).filter(|case| case.contains("exp_alerts: []")).count();
        assert!(
            (1..cases.iter().filter(of).count()).contains(&silent),
            "{alert}: {silent} cases in which it is silent"
        );
    }
    assert_eq!(alerts.len(), 5, "{alerts:?}");
}
