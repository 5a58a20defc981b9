//! Lines of line protocol, and the cleaning of text from outside that goes into them.
//!
//! `influxdb-line-protocol` writes the lines. A line break or a backslash in a tag would break them all the same, so
//! each key and value passes [`clean`] on its way into [`Tags`].

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use influxdb_line_protocol::LineProtocolBuilder;
use influxdb_line_protocol::builder::FieldValue;
use serde::{Deserialize, Serialize};

/// Tag set of a series, sorted by key, as a line has it after the measurement: `,env=production,process_name=nginx`.
/// Keys and values are clean, escaped and never empty. The order of series, and so of lines, is the order of these
/// texts. A clone shares the text.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tags(Arc<str>);

impl Tags {
    /// Sets a tag, cleaned; an empty value removes the tag. Two texts that would give the same line give the same tag
    /// set.
    pub fn set(&mut self, key: &str, value: &str) {
        *self = self.with(key, value);
    }

    /// Returns a copy in which a tag is set, as [`Tags::set`] does.
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

    /// Returns the value of a tag, clean but not escaped.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        let key = escaped(key);
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| unescaped(value).into_owned())
    }

    /// Returns each key and value, escaped, by key.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (tag, others) = split(rest.strip_prefix(',')?, ',');
            let (key, value) = split(tag, '=');
            rest = others;
            Some((key, value.strip_prefix('=')?))
        })
    }

    /// Range of the text that the tag of a key has, or an empty one where it is to be inserted.
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

/// Splits a text before the first `mark` that is not escaped.
fn split(text: &str, mark: char) -> (&str, &str) {
    let mut is_escaped = false;
    let end = text.find(|character| {
        let is_it = character == mark && !is_escaped;
        is_escaped = character == '\\'; // a clean text has none of its own
        is_it
    });
    text.split_at(end.unwrap_or(text.len()))
}

/// Returns a key or a value clean, with a backslash before each character that would end it.
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

/// Undoes [`escaped`], since [`LineProtocolBuilder`] escapes for itself: a clean text has no backslash of its own.
fn unescaped(text: &str) -> Cow<'_, str> {
    if text.contains('\\') { Cow::Owned(text.replace('\\', "")) } else { Cow::Borrowed(text) }
}

/// Replaces characters that Telegraf and InfluxDB cannot take: a control character by a space (a newline would begin a
/// metric of the sender's choice), a backslash by a '/' (at the end of a tag it makes Telegraf drop the line).
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

/// Value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Number with a fraction; left out of a line when it is not finite.
    Float(f64),
    /// Count, written as a signed integer (`3i`), since InfluxDB 1.x has no unsigned one. A counter stays at 2^63 - 1
    /// once it reaches that: 292 years of ns.
    Integer(u64),
}

impl Value {
    fn is_finite(self) -> bool {
        !matches!(self, Self::Float(float) if !float.is_finite())
    }
}

impl FieldValue for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(float) => FieldValue::fmt(float, formatter),
            Self::Integer(integer) => FieldValue::fmt(&signed(*integer), formatter),
        }
    }
}

/// Returns the integer fields whose value is known.
#[must_use]
pub fn known<const N: usize>(fields: [(&'static str, Option<u64>); N]) -> Vec<(&'static str, Value)> {
    fields.into_iter().filter_map(|(name, value)| Some((name, Value::Integer(value?)))).collect()
}

/// Converts bytes to KiB, the unit of taskstats_exporter.
#[must_use]
pub fn kibibytes(bytes: u64) -> u64 {
    bytes / 1024
}

/// Lines of one gather, all with the same timestamp.
#[derive(Debug)]
pub struct Lines {
    written: LineProtocolBuilder<Vec<u8>>,
    /// Timestamp of each line, ns since the epoch.
    time: i64,
    count: usize,
}

impl Lines {
    /// Creates an empty text with room for `bytes`, for lines with the timestamp `realtime` (ns since the epoch).
    #[must_use]
    pub fn at(realtime: u64, bytes: usize) -> Self {
        let written = LineProtocolBuilder::new_with(Vec::with_capacity(bytes));
        Self { written, time: signed(realtime), count: 0 }
    }

    /// Adds a line: a measurement of a series, with those of its fields that are finite. Without any there is no line.
    pub fn add(
        &mut self,
        measurement: &'static str,
        tags: &Tags,
        fields: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        let mut fields = fields.into_iter().filter(|(_, value)| value.is_finite());
        let Some((name, value)) = fields.next() else { return };
        let line = std::mem::take(&mut self.written).measurement(measurement);
        let line = tags.iter().fold(line, |line, (key, value)| line.tag(&unescaped(key), &unescaped(value)));
        let line = fields.fold(line.field(name, value), |line, (name, value)| line.field(name, value));
        self.written = line.timestamp(self.time).close_line();
        self.count += 1;
    }

    /// Number of lines.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the lines as line protocol.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.written.build()
    }
}

/// Converts a number to the signed one that line protocol has, at most 2^63 - 1.
fn signed(integer: u64) -> i64 {
    i64::try_from(integer).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use influxdb_line_protocol::{FieldValue as Read, ParsedLine, parse_lines};
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
        let count = lines.count();
        let text = String::from_utf8(lines.into_bytes()).unwrap();
        assert_eq!(count, text.lines().count());
        text
    }

    #[test]
    fn a_line_as_it_is_documented() {
        let tags = tags(&[("process_name", "nginx"), ("env", "production")]);
        let fields = [("p_cpu", Value::Float(0.25)), ("p_mem", Value::Float(0.0)), ("n_proc", Value::Integer(3))];
        let expected = "psstat,env=production,process_name=nginx p_cpu=0.25,p_mem=0,n_proc=3i 1700000000000000001\n";
        assert_eq!(text(&tags, &fields), expected);
    }

    #[test]
    fn special_characters_of_a_tag_are_escaped() {
        let cases = [
            ("plain", "plain"),
            ("two words", r"two\ words"),
            (" at both ends ", r"\ at\ both\ ends\ "),
            ("a,b=c d", r"a\,b\=c\ d"),
            (r"C:\x\", "C:/x/"),
            ("nl\nevil v=1i 1", r"nl\ evil\ v\=1i\ 1"),
            ("\"quoted\"", "\"quoted\""),
            ("# größe 🦀", r"#\ größe\ 🦀"),
        ];
        for (from, to) in cases {
            for (key, value, expected) in [("k", from, format!("k={to}")), (from, "v", format!("{to}=v"))] {
                let text = text(&tags(&[(key, value)]), &[("n_proc", Value::Integer(1))]);
                assert_eq!(text, format!("psstat,{expected} n_proc=1i 1700000000000000001\n"), "{from:?}");
            }
        }
    }

    #[test]
    fn a_number_has_all_its_digits_and_no_exponent() {
        let cases = [
            (Value::Float(0.0), "0"),
            (Value::Float(-0.0), "-0"),
            (Value::Float(1.0), "1"),
            (Value::Float(0.1), "0.1"),
            (Value::Float(-12.345_678), "-12.345678"),
            (Value::Float(1e-9), "0.000000001"),
            (Value::Float(1e21), "1000000000000000000000"),
            (Value::Integer(0), "0i"),
            (Value::Integer(9_223_372_036_854_775_806), "9223372036854775806i"),
            (Value::Integer(1 << 63), "9223372036854775807i"),
        ];
        for (value, expected) in cases {
            let text = text(&Tags::default(), &[("field", value)]);
            assert_eq!(text, format!("psstat field={expected} 1700000000000000001\n"));
        }
    }

    #[test]
    fn lines_follow_one_another() {
        let mut lines = Lines::at(u64::MAX, 8);
        for (measurement, fields) in
            [("a", &[("x", Value::Integer(1))][..]), ("b", &[]), ("c", &[("y", Value::Float(0.5))])]
        {
            lines.add(measurement, &tags(&[("k", "v")]), fields.iter().copied());
        }
        let expected = "a,k=v x=1i 9223372036854775807\nc,k=v y=0.5 9223372036854775807\n";
        assert_eq!((lines.count(), String::from_utf8(lines.into_bytes()).unwrap().as_str()), (2, expected));
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

    /// A key or a value as the documentation of line protocol escapes it.
    fn by_hand(text: &str) -> String {
        text.replace(',', r"\,").replace('=', r"\=").replace(' ', r"\ ")
    }

    /// Compares the line of some tags with one put together by hand, and with what the library's parser reads in it,
    /// which has nothing in common with its builder.
    fn check(pairs: &[(&str, &str)], value: f64) {
        let expected: BTreeMap<_, _> = pairs.iter().map(|(key, value)| (clean(key), clean(value))).collect();
        let expected: BTreeMap<_, _> =
            expected.into_iter().filter(|(key, value)| !key.is_empty() && !value.is_empty()).collect();
        let tags = tags(pairs);
        let text = text(&tags, &[("p_cpu", Value::Float(value)), ("n_proc", Value::Integer(1))]);
        let written: BTreeMap<_, _> = expected.iter().map(|(key, value)| (by_hand(key), by_hand(value))).collect();
        let written: String = written.iter().map(|(key, value)| format!(",{key}={value}")).collect();
        let p_cpu = if value.is_finite() { format!("p_cpu={value},") } else { String::new() };
        assert_eq!(text, format!("psstat{written} {p_cpu}n_proc=1i 1700000000000000001\n"));

        let parsed: Vec<ParsedLine> = parse_lines(&text).map(|line| line.unwrap()).collect();
        let [line] = parsed.as_slice() else { panic!("{} lines from {text:?}", parsed.len()) };
        assert_eq!(line.series.measurement.as_str(), "psstat");
        let read = line.series.tag_set.iter().flatten();
        let read: BTreeMap<_, _> = read.map(|(key, value)| (key.to_string(), value.to_string())).collect();
        assert_eq!(read, expected);
        for (key, value) in &expected {
            assert_eq!(tags.get(key).as_ref(), Some(value));
        }
        if let (_, Read::F64(read)) = line.field_set.first().unwrap() {
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
            check(&pairs.chain([("process_name", &*name)]).collect::<Vec<_>>(), value);
        }

        #[test]
        fn any_mix_of_special_characters_does_too(name in "[ ,=\"\\\\#\n\r\ta\u{0}']{0,12}", key in "[ ,=\"\\\\#\na]{0,6}") {
            check(&[(&key, &name), ("process_name", &name)], 1.5);
        }
    }
}
