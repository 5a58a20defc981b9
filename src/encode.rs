//! Lines of line protocol, and text from outside that becomes text that no line breaks on.
//!
//! The writer is our own because this is the hot path; tests hold it to the library's.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Tags: what makes a series one. They are kept as they are written, escaped, each after a comma, by key:
/// `,env=production,process_name=nginx`. Keys and values are clean, none is empty. A copy costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tags(Arc<str>);

impl Tags {
    /// Sets a tag, cleaned; a value of which nothing is left takes the tag away. So two texts that would make the same
    /// line are the same tag set.
    pub fn set(&mut self, key: &str, value: &str) {
        *self = self.with(key, value);
    }

    /// The same, with a tag set.
    #[must_use]
    pub fn with(&self, key: &str, value: &str) -> Self {
        let (key, value) = (escaped(key), escaped(value));
        let Range { start, end } = self.place(&key);
        let [before, after] = [self.0.get(..start), self.0.get(end..)].map(Option::unwrap_or_default);
        let mut tags = String::with_capacity(self.0.len() + ",=".len() + key.len() + value.len());
        tags.push_str(before);
        if !key.is_empty() && !value.is_empty() {
            tags.extend([",", &key, "=", &value]);
        }
        tags.push_str(after);
        Self(tags.into())
    }

    /// The value of a tag.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        let key = escaped(key);
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value.replace('\\', ""))
    }

    /// Key and value of each, escaped, by key.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (tag, others) = split(rest.strip_prefix(',')?, ',');
            let (key, value) = split(tag, '=');
            rest = others;
            Some((key, value.strip_prefix('=')?))
        })
    }

    /// Where in the text the tag of a key is, or is to be.
    fn place(&self, key: &str) -> Range<usize> {
        let mut start = 0;
        for (known, value) in self.iter().take_while(|(known, _)| *known <= key) {
            let end = start + ",=".len() + known.len() + value.len();
            if known == key {
                return start..end;
            }
            start = end;
        }
        start..start
    }
}

/// What comes before the first such character that is not escaped, and the rest.
fn split(text: &str, mark: char) -> (&str, &str) {
    let mut is_escaped = false;
    let end = text.find(|character| {
        let is_it = character == mark && !is_escaped;
        is_escaped = character == '\\'; // a clean text has none of its own
        is_it
    });
    text.split_at(end.unwrap_or(text.len()))
}

/// A key or a value as it is written: clean, and with a backslash before what would end it.
fn escaped(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii_graphic() && !b",=\\".contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(2 * text.len());
    for character in text.chars().map(harmless) {
        if matches!(character, ',' | '=' | ' ') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    Cow::Owned(escaped)
}

/// What Telegraf and InfluxDB choke on becomes harmless: a control character a space (a newline would begin a metric of the
/// sender's choice), a backslash a '/' (at the end of a tag it makes Telegraf drop the line).
#[must_use]
pub fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    clean.extend(text.chars().map(harmless));
    clean
}

fn harmless(character: char) -> char {
    match character {
        '\\' => '/',
        control if control.is_control() => ' ',
        other => other,
    }
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Left out when it is not finite.
    Float(f64),
    /// Written with an `i`; InfluxDB 1.x has no unsigned. A counter that reaches 2^63 stays there: 292 years of ns.
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

/// The lines of a gather, all with the same time.
#[derive(Debug)]
pub struct Lines {
    text: String,
    /// How each ends.
    end: String,
    count: usize,
}

impl Lines {
    /// None so far; `realtime`: ns since the epoch. There is room for so many bytes at first.
    #[must_use]
    pub fn at(realtime: u64, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), end: format!(" {}\n", signed(realtime)), count: 0 }
    }

    /// Adds one: a measurement of a series, with the name and the value of each field that is known. Without any there is no line.
    pub fn add(
        &mut self,
        measurement: &'static str,
        tags: &Tags,
        fields: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        let start = self.text.len();
        self.text.extend([measurement, &tags.0]);
        let mut separator = " ";
        for (name, value) in fields {
            if matches!(value, Value::Float(float) if !float.is_finite()) {
                continue;
            }
            self.text.extend([separator, name, "="]);
            // Writing to a String does not fail.
            let _ = match value {
                Value::Float(float) => write!(self.text, "{float}"),
                Value::Integer(integer) => write!(self.text, "{}i", signed(integer)),
            };
            separator = ",";
        }
        if separator == " " {
            self.text.truncate(start);
        } else {
            self.text.push_str(&self.end);
            self.count += 1;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// As line protocol.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.text.into_bytes()
    }
}

fn signed(integer: u64) -> i64 {
    i64::try_from(integer).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use influxdb_line_protocol::{FieldValue, LineProtocolBuilder, ParsedLine, parse_lines};
    use proptest::prelude::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        let mut tags = Tags::default();
        for (key, value) in pairs {
            tags.set(key, value);
        }
        tags
    }

    fn text(tags: &Tags, fields: &[(&'static str, Value)]) -> String {
        let mut lines = Lines::at(1_700_000_000_000_000_001, 0);
        lines.add("psstat", tags, fields.iter().copied());
        assert_eq!(lines.count(), lines.text.lines().count());
        String::from_utf8(lines.into_bytes()).unwrap()
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
        assert_eq!(
            tags(&[("a", "1"), ("b", "2"), ("c", "3")]),
            tags(&[("c", "3"), ("b", "0"), ("a", "1"), ("b", "2")])
        );
    }

    #[test]
    fn a_tag_is_found_by_its_key() {
        let tags = tags(&[("a", "1"), ("a,b=", ",x= y"), ("b c", "d")]);
        for (key, value) in [("a", Some("1")), ("a,b=", Some(",x= y")), ("b c", Some("d")), ("b", None), ("", None)] {
            assert_eq!(tags.get(key).as_deref(), value, "{key:?}");
        }
    }

    /// The library as the judge: it would have written the same, and what it reads is one line, with the tags that went in.
    fn judge(pairs: &[(&str, &str)], value: f64) {
        let expected: BTreeMap<_, _> = pairs.iter().map(|(key, value)| (clean(key), clean(value))).collect();
        let expected: BTreeMap<_, _> =
            expected.into_iter().filter(|(key, value)| !key.is_empty() && !value.is_empty()).collect();
        let tags = tags(pairs);
        let text = text(&tags, &[("p_cpu", Value::Float(value)), ("n_proc", Value::Integer(1))]);
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        let parsed: Vec<ParsedLine> = parse_lines(&text).map(|line| line.unwrap()).collect();
        let [line] = parsed.as_slice() else { panic!("{} lines from {text:?}", parsed.len()) };
        assert_eq!(line.series.measurement.as_str(), "psstat");
        let read: Vec<_> = line.series.tag_set.iter().flatten().collect();
        let mut builder = LineProtocolBuilder::new().measurement("psstat");
        for (key, value) in &read {
            builder = builder.tag(&key.to_string(), &value.to_string());
        }
        let builder = if value.is_finite() {
            builder.field("p_cpu", value).field("n_proc", 1_i64)
        } else {
            builder.field("n_proc", 1_i64)
        };
        let built = builder.timestamp(1_700_000_000_000_000_001).close_line().build();
        assert_eq!(text.as_bytes(), built);
        let read: BTreeMap<_, _> = read.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        assert_eq!(read, expected);
        for (key, value) in &expected {
            assert_eq!(tags.get(key).as_ref(), Some(value));
        }
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
            let name = String::from_utf8_lossy(&bytes);
            let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            judge(&pairs.chain([("process_name", &*name)]).collect::<Vec<_>>(), value);
        }

        #[test]
        fn any_mix_of_special_characters_does_too(name in "[ ,=\"\\\\#\n\r\ta\u{0}']{0,12}", key in "[ ,=\"\\\\#\na]{0,6}") {
            judge(&[(&key, &name), ("process_name", &name)], 1.5);
        }
    }
}
