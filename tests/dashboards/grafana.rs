//! The dashboards, and what Grafana makes of their queries before it sends them.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use regex::Regex;
use serde_json::Value;

use crate::document::repository;

/// A dashboard as it is imported.
pub struct Dashboard(Value);

/// What is asked for a panel.
#[derive(Debug)]
pub struct Target<'a> {
    pub panel: &'a str,
    pub id: &'a str,
    pub query: &'a str,
    /// One moment, not a range of them.
    pub instant: bool,
}

impl Dashboard {
    pub fn read(name: &str) -> Self {
        let file = repository().join("dist/grafana").join(name);
        Self(serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap())
    }

    pub fn json(&self) -> &Value {
        &self.0
    }

    pub fn panels(&self) -> &[Value] {
        array(&self.0["panels"])
    }

    pub fn variables(&self) -> &[Value] {
        array(&self.0["templating"]["list"])
    }

    /// What the variable asks for its values.
    pub fn query_of(&self, variable: &str) -> &str {
        let variable = self.variables().iter().find(|found| found["name"] == variable).expect(variable);
        let query = &variable["query"];
        text(query.get("query").unwrap_or(query))
    }

    pub fn targets(&self) -> impl Iterator<Item = Target<'_>> {
        let panels = self.panels().iter().filter(|panel| panel["type"] != "row");
        panels.flat_map(|panel| {
            array(&panel["targets"]).iter().map(|target| Target {
                panel: text(&panel["title"]),
                id: text(&target["refId"]),
                query: text(target.get("query").unwrap_or(&target["expr"])),
                instant: target["instant"] == true,
            })
        })
    }
}

pub fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no array: {value}"))
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// What is chosen at the top of a dashboard; nothing is "All".
#[derive(Debug, Clone, Copy, Default)]
pub struct Chosen<'a> {
    pub hosts: &'a [&'a str],
    pub services: &'a [&'a str],
}

impl Chosen<'_> {
    /// As the format `regex` writes it.
    pub fn into_influxql(self, query: &str) -> String {
        let to = UNIX_EPOCH.elapsed().unwrap();
        let from = to.saturating_sub(SHOWN);
        let query =
            query.replace("$timeFilter", &format!("time >= {}ms and time <= {}ms", from.as_millis(), to.as_millis()));
        self.fill(query, ["${host:regex}", "${process_name:regex}"], r"\^$*+?.()|[]{}/", r"\")
    }

    /// As the data source of Prometheus writes it: within a string, where a backslash takes two.
    pub fn into_promql(self, query: &str) -> String {
        let query = query.replace("$__rate_interval", RATE_INTERVAL);
        self.fill(query, ["$host", "$process_name"], r"\$^*{}[]'+?.()|", r"\\")
    }

    fn fill(self, mut query: String, variables: [&str; 2], special: &str, escape: &str) -> String {
        query = query.replace("$__interval", INTERVAL);
        for (variable, values) in variables.into_iter().zip([self.hosts, self.services]) {
            let values: Vec<_> = values.iter().map(|value| escaped(value, special, escape)).collect();
            let text = match &values[..] {
                [] => ".*".to_owned(), // its allValue
                [one] => one.clone(),
                several => format!("({})", several.join("|")),
            };
            query = query.replace(variable, &text);
        }
        let left = Regex::new(r"\$[A-Za-z_{]").unwrap();
        assert!(!left.is_match(&query), "Grafana has more to fill in: {query}");
        query
    }
}

fn escaped(value: &str, special: &str, escape: &str) -> String {
    let escaped = |c| if special.contains(c) { format!("{escape}{c}") } else { String::from(c) };
    value.chars().map(escaped).collect()
}

/// How long a dashboard looks back.
pub const SHOWN: Duration = Duration::from_secs(60);

/// `$__interval`: how far apart the points of a graph are.
pub const INTERVAL: &str = "2s";

/// `$__rate_interval` where each second is scraped: four scrapes at least.
const RATE_INTERVAL: &str = "4s";
