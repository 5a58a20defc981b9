//! Points become line protocol, and text from outside becomes text that no line breaks on.

use std::borrow::Cow;
use std::collections::BTreeMap;

use influxdb_line_protocol::LineProtocolBuilder;
use serde::{Deserialize, Serialize};

/// Tags, by key: what makes a series one. Keys and values are clean, none is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// Sets a tag, cleaned; a value of which nothing is left takes the tag away. So two texts that would make the same
    /// line are the same tag set.
    pub fn set(&mut self, key: &str, value: &str) {
        let (key, value) = (clean(key), clean(value));
        if value.is_empty() {
            self.0.remove(&key);
        } else if !key.is_empty() {
            self.0.insert(key, value);
        }
    }

    /// The value of a tag.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Key and value of each, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// What Telegraf and InfluxDB choke on becomes harmless: a control character a space (a newline would begin a metric of the
/// sender's choice), a backslash a '/' (at the end of a tag it makes Telegraf drop the line).
#[must_use]
pub fn clean(text: &str) -> String {
    let harmless = text.chars().map(|character| match character {
        '\\' => '/',
        control if control.is_control() => ' ',
        other => other,
    });
    harmless.collect()
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Left out when it is not finite.
    Float(f64),
    /// Written with an `i`; InfluxDB 1.x has no unsigned.
    Integer(u64),
}

/// The integer fields of which the value is known.
#[must_use]
pub fn known<const N: usize>(fields: [(&'static str, Option<u64>); N]) -> Vec<(&'static str, Value)> {
    fields.into_iter().filter_map(|(name, value)| Some((name, Value::Integer(value?)))).collect()
}

/// Bytes as KiB, which is what taskstats_exporter has.
#[must_use]
pub fn kibibytes(bytes: u64) -> u64 {
    bytes / 1024
}

/// One line to be: a measurement of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Point<'a> {
    /// The measurement's name.
    pub measurement: &'static str,
    /// The series' tags, and those of a part of it.
    pub tags: Cow<'a, Tags>,
    /// Name and value of each field that is known.
    pub fields: Vec<(&'static str, Value)>,
}

/// The lines of a gather, all with the same time (ns since the epoch). A point without any field gives no line.
#[must_use]
pub fn encode<'a>(points: impl IntoIterator<Item = Point<'a>>, realtime: u64) -> Vec<u8> {
    let time = i64::try_from(realtime).unwrap_or(i64::MAX);
    points.into_iter().fold(Vec::new(), |lines, point| line(lines, &point, time))
}

fn line(lines: Vec<u8>, point: &Point, time: i64) -> Vec<u8> {
    let mut fields = point.fields.iter().filter_map(|(name, value)| Some((*name, finite(*value)?)));
    let Some((name, first)) = fields.next() else { return lines };
    let mut head = LineProtocolBuilder::new_with(lines).measurement(point.measurement);
    for (key, value) in point.tags.iter() {
        head = head.tag(key, value);
    }
    let mut body = match first {
        Value::Float(float) => head.field(name, float),
        Value::Integer(integer) => head.field(name, signed(integer)),
    };
    for (name, value) in fields {
        body = match value {
            Value::Float(float) => body.field(name, float),
            Value::Integer(integer) => body.field(name, signed(integer)),
        };
    }
    body.timestamp(time).close_line().build()
}

fn finite(value: Value) -> Option<Value> {
    match value {
        Value::Float(float) if !float.is_finite() => None,
        other => Some(other),
    }
}

/// A counter that reaches 2^63 stays there: 292 years of ns.
fn signed(integer: u64) -> i64 {
    i64::try_from(integer).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use influxdb_line_protocol::{FieldValue, ParsedLine, parse_lines};
    use proptest::prelude::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        let mut tags = Tags::default();
        for (key, value) in pairs {
            tags.set(key, value);
        }
        tags
    }

    fn text(tags: &Tags, fields: &[(&'static str, Value)]) -> String {
        let point = Point { measurement: "psstat", tags: Cow::Borrowed(tags), fields: fields.to_vec() };
        String::from_utf8(encode([point], 1_700_000_000_000_000_001)).unwrap()
    }

    #[test]
    fn a_line_as_it_is_documented() {
        let tags = tags(&[("process_name", "nginx"), ("env", "production")]);
        let fields = [("p_cpu", Value::Float(0.25)), ("p_mem", Value::Float(0.0)), ("n_proc", Value::Integer(3))];
        let expected = "psstat,env=production,process_name=nginx p_cpu=0.25,p_mem=0,n_proc=3i 1700000000000000001\n";
        assert_eq!(text(&tags, &fields), expected);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let tags = tags(&[("process_name", "x")]);
        assert_eq!(text(&tags, &[]), "");
        assert_eq!(text(&tags, &[("p_cpu", Value::Float(f64::NAN))]), "");
        let fields = [("p_cpu", Value::Float(f64::INFINITY)), ("n_proc", Value::Integer(u64::MAX))];
        assert_eq!(text(&tags, &fields), "psstat,process_name=x n_proc=9223372036854775807i 1700000000000000001\n");
    }

    #[test]
    fn text_from_outside_is_made_harmless() {
        let cases = [
            ("nginx", "nginx"),
            ("nl\nevil v=1i 1", "nl evil v=1i 1"),
            ("tab\tcr\rnul\0esc\x1b", "tab cr nul esc "),
            ("C:\\x\\", "C:/x/"),
            ("#comment", "#comment"),
            ("a,b=c d\"e", "a,b=c d\"e"),
            ("\t\n", "  "),
            ("\u{85}é🦀", " é🦀"),
        ];
        for (from, to) in cases {
            assert_eq!(clean(from), to, "{from:?}");
        }
    }

    #[test]
    fn names_that_would_make_the_same_line_are_one_tag_set() {
        assert_eq!(tags(&[("n", "a\nb")]), tags(&[("n", "a b")]));
        assert_eq!(tags(&[("n", "a\\")]), tags(&[("n", "a/")]));
        assert_eq!(tags(&[("n", "a"), ("n", "")]), Tags::default());
    }

    /// The parser of the library as the judge: one line comes back, with the tags that went in.
    fn judge(tags: &Tags, value: f64) {
        let text = text(tags, &[("p_cpu", Value::Float(value)), ("n_proc", Value::Integer(1))]);
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        let parsed: Vec<ParsedLine> = parse_lines(&text).map(|line| line.unwrap()).collect();
        let [line] = parsed.as_slice() else { panic!("{} lines from {text:?}", parsed.len()) };
        assert_eq!(line.series.measurement.as_str(), "psstat");
        let read = line.series.tag_set.iter().flatten();
        let read: Vec<_> = read.map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let wrote: Vec<_> = tags.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        assert_eq!(read, wrote);
        if let (_, FieldValue::F64(read)) = line.field_set.first().unwrap() {
            assert!((read - value).abs() <= f64::EPSILON * value.abs());
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_one_line_that_reads_back(
            pairs in proptest::collection::vec((any::<String>(), any::<String>()), 0..4),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
            value in any::<f64>(),
        ) {
            let mut tags = Tags::default();
            for (key, value) in &pairs {
                tags.set(key, value);
            }
            tags.set("process_name", &String::from_utf8_lossy(&bytes));
            judge(&tags, value);
        }

        #[test]
        fn any_mix_of_special_characters_does_too(name in "[ ,=\"\\\\#\n\r\ta\u{0}']{0,12}", key in "[ ,=\"\\\\#\na]{0,6}") {
            let mut tags = Tags::default();
            tags.set(&key, &name);
            tags.set("process_name", &name);
            judge(&tags, 1.5);
        }
    }
}
