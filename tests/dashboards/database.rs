//! What a database answers when a dashboard asks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::grafana::{INTERVAL, SHOWN, array, text};
use crate::server::Server;

/// A line of a graph, or a row of a table.
#[derive(Debug, Clone)]
pub struct Series {
    pub tags: BTreeMap<String, String>,
    pub values: Vec<f64>,
}

impl Series {
    pub fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", String::as_str)
    }
}

/// InfluxDB's answer to a statement; in each table, the columns besides `time` are values.
pub fn influxql(server: &Server, query: &str) -> Vec<Series> {
    let answer = server.get("/query", &[("db", "telegraf"), ("epoch", "ms"), ("q", query)]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let [result] = array(&answer["results"]) else { panic!("one statement, one result: {answer}") };
    assert!(result.get("error").is_none(), "{query}: {answer}");
    let tables = result.get("series").map_or(&[][..], array);
    let series = |table: &Value| {
        let tags = table["tags"].as_object().into_iter().flatten();
        let columns = array(&table["columns"]).iter().enumerate();
        let columns: Vec<_> = columns.filter(|(_, name)| **name != "time").map(|(index, _)| index).collect();
        let cells = array(&table["values"]).iter().flat_map(|row| columns.iter().map(move |column| &row[*column]));
        Series { tags: tags_of(tags), values: cells.filter_map(Value::as_f64).collect() }
    };
    tables.iter().map(series).filter(|series| !series.values.is_empty()).collect()
}

/// What `SHOW TAG VALUES` says.
pub fn tag_values(server: &Server, query: &str) -> BTreeSet<String> {
    let answer = server.get("/query", &[("db", "telegraf"), ("q", query)]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let table = &answer["results"][0]["series"][0];
    table["values"].as_array().into_iter().flatten().map(|row| text(&row[1]).to_owned()).collect()
}

/// The answer of Prometheus, or of what speaks as it does.
pub fn promql(server: &Server, query: &str, instant: bool) -> Vec<Series> {
    let now = UNIX_EPOCH.elapsed().unwrap();
    let (start, end) = ((now - SHOWN).as_secs().to_string(), now.as_secs().to_string());
    let answer = if instant {
        server.get("/api/v1/query", &[("query", query)])
    } else {
        let range = [("query", query), ("start", &start), ("end", &end), ("step", INTERVAL)];
        server.get("/api/v1/query_range", &range)
    };
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let series = |series: &Value| {
        let points = series.get("values").map_or_else(|| std::slice::from_ref(&series["value"]), array);
        let tags = series["metric"].as_object().into_iter().flatten();
        Series { tags: tags_of(tags), values: points.iter().map(|point| text(&point[1]).parse().unwrap()).collect() }
    };
    array(&answer["data"]["result"]).iter().map(series).collect()
}

/// What Grafana asks for `label_values(series, label)`.
pub fn label_values(server: &Server, query: &str) -> BTreeSet<String> {
    let arguments = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect(query);
    let (series, label) = arguments.rsplit_once(", ").expect(query);
    let answer = server.get(&format!("/api/v1/label/{label}/values"), &[("match[]", series)]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    array(&answer["data"]).iter().map(|value| text(value).to_owned()).collect()
}

fn tags_of<'a>(tags: impl Iterator<Item = (&'a String, &'a Value)>) -> BTreeMap<String, String> {
    tags.map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
}
