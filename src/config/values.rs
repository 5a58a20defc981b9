//! The values of keys and flags: the same words, checked in the same place, in files and on the command line.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::output::{Measurement, PsstatField};

/// Makes a type that parses from text deserialize from a string, its message being the error's.
macro_rules! from_string {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = <Self as FromStr>::Err;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
    };
}

/// A process id: what a 32-bit pid_t can hold, and not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Pid(pub u32);

impl TryFrom<i64> for Pid {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let pid = i32::try_from(number).ok().filter(|pid| *pid > 0);
        pid.map(|pid| Self(pid.cast_unsigned()))
            .ok_or_else(|| format!("{number} is not a pid: pids are 1 to {}", i32::MAX))
    }
}

impl FromStr for Pid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: i64 = text.parse().map_err(|_| format!("{text:?} is not a pid"))?;
        number.try_into()
    }
}

/// Way to learn which processes exist, and the CPU of exited ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AccountBy {
    /// The best that the machine allows.
    #[default]
    Auto,
    /// Process events and exit records; where they cannot be had, that is said.
    Events,
    /// One scan of /proc per gather.
    Scan,
}

/// The measurements wanted: at least one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Measurement>")]
pub struct Measurements(pub Vec<Measurement>);

impl TryFrom<Vec<Measurement>> for Measurements {
    type Error = String;

    fn try_from(list: Vec<Measurement>) -> Result<Self, String> {
        if list.is_empty() {
            return Err("no measurement is named: name one, or leave collect out".to_owned());
        }
        Ok(Self(list))
    }
}

/// psstat's fields: some by name, or all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Fields(pub Vec<PsstatField>);

impl TryFrom<Vec<String>> for Fields {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        if names == ["all"] {
            return Ok(Self(PsstatField::ALL.to_vec()));
        }
        if names.is_empty() {
            return Err("no field is named: name some, or \"all\"".to_owned());
        }
        let by_name = |name: &String| {
            let found = PsstatField::ALL.into_iter().find(|field| field.name() == name);
            found.ok_or_else(|| {
                let known = PsstatField::ALL.map(PsstatField::name).join(", ");
                format!("{name:?} is not a field of psstat: the fields are {known}, or \"all\" by itself")
            })
        };
        names.iter().map(by_name).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Fields {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>().try_into()
    }
}

/// The key of a tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct TagKey(pub String);

impl FromStr for TagKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("a tag's key is empty: give it a name".to_owned()),
            "time" | "_measurement" | "_field" => {
                Err(format!("the tag key {text:?} is InfluxDB's own: give it another name"))
            }
            key if key.chars().any(char::is_control) => {
                Err(format!("the tag key {text:?} has control characters: leave them out"))
            }
            key => Ok(Self(key.to_owned())),
        }
    }
}

from_string!(TagKey);

/// A duration between gathers, or measurements, like `10s`; empty: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Interval(pub Option<Duration>);

impl Interval {
    /// Below this, the ticks of /proc are too coarse for a rate.
    const SHORTEST: Duration = Duration::from_millis(100);
    /// Beyond this, it is a mistake.
    const LONGEST: Duration = Duration::from_secs(86_400);
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let period = humantime::parse_duration(text)
            .map_err(|error| format!("{text:?} is not a duration ({error}): write it like \"10s\""))?;
        if period < Self::SHORTEST {
            return Err(format!("{text:?} is too short: \"100ms\" is the shortest interval"));
        }
        if period > Self::LONGEST {
            return Err(format!("{text:?} is too long: \"1day\" is the longest interval"));
        }
        Ok(Self(Some(period)))
    }
}

from_string!(Interval);

/// An amount of memory, like `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let amount: Result<bytesize::ByteSize, _> = text.parse();
        amount
            .map(|amount| Self(amount.as_u64()))
            .map_err(|_| format!("{text:?} is not an amount of memory: write it like \"2GiB\", or \"500MB\""))
    }
}

from_string!(Bytes);

/// Most threads that one process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct ThreadMax(pub u32);

impl TryFrom<i64> for ThreadMax {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let count = u32::try_from(number).ok().filter(|count| *count > 0);
        count.map(Self).ok_or_else(|| format!("{number} is not a number of threads: it is 1 or more"))
    }
}

/// The name of a file, without a directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FileName(pub String);

impl FromStr for FileName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains('/') || text == "." || text == ".." {
            return Err(format!("{text:?} is not the name of a file: leave the directory to cache_dir"));
        }
        Ok(Self(text.to_owned()))
    }
}

from_string!(FileName);

/// `[NAME:]VALUE`, as psstat takes it. A NAME is of letters, digits and `_.@-`; anything else before a ':' belongs to
/// the value, and a leading ':' means that there is no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named<T> {
    /// The name, if one is given.
    pub name: Option<String>,
    /// The named value.
    pub value: T,
}

impl<T: FromStr> FromStr for Named<T>
where
    T::Err: Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "_.@-".contains(c));
        let (name, value) = match text.split_once(':') {
            Some((name, value)) if is_name(name) => (name, value),
            _ => ("", text),
        };
        let name = (!name.is_empty()).then(|| name.to_owned());
        if value.is_empty() {
            return Err(format!("{text:?} selects nothing: write [NAME:]VALUE"));
        }
        value.parse().map(|value| Self { name, value }).map_err(|error: T::Err| error.to_string())
    }
}

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The key.
    pub key: TagKey,
    /// Text behind the first '='.
    pub value: String,
}

impl FromStr for Tag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not a tag: write KEY=VALUE"))?;
        Ok(Self { key: key.parse()?, value: value.to_owned() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_from_a_value() {
        let cases = [
            ("nginx:/run/nginx.pid", Some("nginx"), "/run/nginx.pid"),
            ("/run/nginx.pid", None, "/run/nginx.pid"),
            ("/run/a:b.pid", None, "/run/a:b.pid"),
            (":a:b", None, "a:b"),
            ("my.app@1-x:a:b", Some("my.app@1-x"), "a:b"),
            ("two words:x", None, "two words:x"),
            ("^a|b:c", None, "^a|b:c"),
        ];
        for (text, name, value) in cases {
            let named: Named<String> = text.parse().unwrap();
            assert_eq!((named.name.as_deref(), named.value.as_str()), (name, value), "{text:?}");
        }
        assert!("name:".parse::<Named<String>>().is_err());
        assert!("".parse::<Named<String>>().is_err());
    }

    #[test]
    fn numbers_that_are_no_pid_are_refused() {
        for text in ["0", "-1", "2147483648", "x", "1.5", " 1"] {
            assert!(text.parse::<Pid>().is_err(), "{text:?}");
        }
        assert_eq!("2147483647".parse(), Ok(Pid(2_147_483_647)));
    }

    #[test]
    fn fields_are_named_or_all() {
        assert_eq!("p_cpu, n_proc".parse(), Ok(Fields(vec![PsstatField::PCpu, PsstatField::NProc])));
        assert_eq!("all".parse::<Fields>().unwrap().0.len(), PsstatField::ALL.len());
        for text in ["", "cpu", "all,p_cpu"] {
            assert!(text.parse::<Fields>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn intervals_are_durations_of_some_length() {
        assert_eq!("10s".parse(), Ok(Interval(Some(Duration::from_secs(10)))));
        assert_eq!("1m 30s".parse(), Ok(Interval(Some(Duration::from_secs(90)))));
        assert_eq!("".parse(), Ok(Interval(None)));
        for text in ["10", "fast", "0s", "99ms", "-1s", "2days"] {
            assert!(text.parse::<Interval>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn amounts_of_memory_have_a_unit_or_are_bytes() {
        let cases = [("2GiB", 2 << 30), ("500MB", 500_000_000), ("1.5 MiB", 3 << 19), ("4096", 4096), ("0", 0)];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text:?}");
        }
        for text in ["", "much", "-1", "2 apples"] {
            assert!(text.parse::<Bytes>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn tags_have_a_key_that_influxdb_takes() {
        assert_eq!("a=b=c".parse(), Ok(Tag { key: TagKey("a".to_owned()), value: "b=c".to_owned() }));
        for text in ["a", "=b", "time=1", "a\nb=c"] {
            assert!(text.parse::<Tag>().is_err(), "{text:?}");
        }
    }
}
