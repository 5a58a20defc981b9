//! A configuration file as it is written.

use std::collections::BTreeMap;
use std::env::VarError;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use super::environment::{self, Note};
use super::values::{AccountBy, Bytes, Fields, FileName, Interval, Measurements, Pid, TagKey, ThreadMax};
use crate::log::{Level, say};
use crate::output::Scope;
use crate::select::{CgroupGlob, ExeGlob, ProcessPattern, StalePolicy, UnitGlob};

/// A larger file is no configuration.
const LENGTH_MAX: u64 = 1024 * 1024;

/// Text that `--sample-config` prints.
pub(super) const SAMPLE: &str = include_str!("../../plugin.conf.example");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    inputs: Inputs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inputs {
    #[serde(default)]
    taskstats: Vec<Spanned<Instance>>,
}

/// Table `[[inputs.taskstats]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Instance {
    pub(super) collect: Option<Measurements>,
    pub(super) psstat_fields: Option<Fields>,
    pub(super) scope: Option<Scope>,
    pub(super) accounting: Option<AccountBy>,
    pub(super) name_tag: Option<TagKey>,
    pub(super) interval: Option<Interval>,
    pub(super) hostname: Option<String>,
    pub(super) omit_hostname: Option<bool>,
    pub(super) cache_dir: Option<PathBuf>,
    pub(super) cache_name: Option<FileName>,
    pub(super) pid_file_stale: Option<StalePolicy>,
    pub(super) procmaps_max_rss: Option<Bytes>,
    pub(super) procmaps_interval: Option<Interval>,
    pub(super) thread_all_nice: Option<bool>,
    pub(super) thread_max: Option<ThreadMax>,
    pub(super) self_stats: Option<bool>,
    pub(super) proc_root: Option<PathBuf>,
    pub(super) sys_root: Option<PathBuf>,
    #[serde(default)]
    pub(super) tags: BTreeMap<TagKey, String>,
    #[serde(default)]
    pub(super) target: Vec<Spanned<TargetTable>>,
}

/// Table `[[inputs.taskstats.target]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetTable {
    pub(super) name: Option<String>,
    pub(super) pid: Option<Pid>,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) pid_dir: Option<PathBuf>,
    pub(super) systemd_unit: Option<UnitGlob>,
    pub(super) cgroup: Option<CgroupGlob>,
    pub(super) children_of_init: Option<bool>,
    pub(super) services: Option<bool>,
    pub(super) pattern: Option<ProcessPattern>,
    pub(super) cmdline: Option<ProcessPattern>,
    pub(super) exe: Option<ExeGlob>,
    pub(super) user: Option<String>,
    pub(super) collect: Option<Measurements>,
    pub(super) psstat_fields: Option<Fields>,
    pub(super) scope: Option<Scope>,
    pub(super) name_tag: Option<TagKey>,
    #[serde(default)]
    pub(super) tags: BTreeMap<TagKey, String>,
}

/// The `[[inputs.taskstats]]` of one file.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) instances: Vec<Spanned<Instance>>,
    text: String,
}

impl ConfigFile {
    /// File and line of a place in the text, for a message.
    pub(super) fn place(&self, offset: usize) -> String {
        place(&self.path, &self.text, offset)
    }
}

/// Reads a file, or each `*.conf` of a directory.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<ConfigFile>> {
    if !path.is_dir() {
        return Ok(vec![read_one(path)?]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("Cannot read the directory {}", path.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension() == Some(OsStr::new("conf")) && !file.is_dir());
    files.sort();
    if files.is_empty() {
        bail!("{} has no *.conf file: put the configuration there", path.display());
    }
    files.iter().map(|file| read_one(file)).collect()
}

fn read_one(path: &Path) -> anyhow::Result<ConfigFile> {
    let text = read_text(path).with_context(|| format!("Cannot read {}", path.display()))?;
    let at = |note: &Note| format!("{}: {}", place(path, &text, note.offset), note.message);
    let (document, warnings) = parse(&text, &|name| std::env::var(name)).map_err(|wrong| anyhow!(at(&wrong)))?;
    warnings.iter().for_each(|warning| say(Level::Warning, &at(warning)));
    Ok(ConfigFile { path: path.to_owned(), instances: document.inputs.taskstats, text })
}

/// The text of a file, which may be a pipe, but not an endless one.
fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LENGTH_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LENGTH_MAX {
        return Err(io::Error::other("it is larger than 1 MiB, so it is no configuration"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8: save it as UTF-8"))
    })
}

fn place(path: &Path, text: &str, offset: usize) -> String {
    let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    format!("{}:{line}", path.display())
}

/// Returns the document and warnings.
fn parse(text: &str, get: &impl Fn(&str) -> Result<String, VarError>) -> Result<(Document, Vec<Note>), Note> {
    let mut table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let is_variable = text.split_at_checked(offset).is_some_and(|(before, rest)| {
            rest.starts_with('$') || before.ends_with('$') // of "${NAME}" only the "$" is taken for a value
        });
        let message = if is_variable {
            "a variable stands in quotes, since it is put into strings only: write \"${NAME}\"".to_owned()
        } else {
            format!("not TOML: {}; --sample-config prints an example", one_line(error.message()))
        };
        Note { offset, message }
    })?;
    let warnings = environment::substitute(table.get_mut(), get)?;
    let document = serde_path_to_error::deserialize(toml::Deserializer::from(table)).map_err(|error| {
        let span = error.inner().span().unwrap_or_default();
        let is_of_variable = text.get(span.clone()).is_some_and(|written| written.contains('$'));
        let message = in_words(&error.path().to_string(), error.inner().message(), is_of_variable);
        Note { offset: span.start, message }
    })?;
    Ok((document, warnings))
}

/// Says which key is wrong, how, and what to write instead of a value, or of a variable that gave it.
fn in_words(path: &str, message: &str, is_of_variable: bool) -> String {
    let path = path.replace(".$__serde_spanned_private_value", "");
    let message = one_line(message);
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown_key(&path, rest);
    }
    if !message.starts_with("invalid type") {
        return format!("{path}: {message}");
    }
    let instead = match example_of(&path) {
        _ if is_of_variable => "a variable can give text only: write the value itself, or give it by a flag".to_owned(),
        Some(example) if !example.ends_with("\"\"") => format!("write it like this: {example}"),
        Some(_) => "put it in quotes".to_owned(),
        None if message.ends_with("a sequence") => format!("there may be several of it: write [[{path}]]"),
        None => format!("write it as a table: [{path}]"),
    };
    format!("{path}: {message}; {instead}")
}

/// The line of the sample configuration that sets the last key of a path.
fn example_of(path: &str) -> Option<&'static str> {
    let key = path.rsplit('.').next().unwrap_or(path);
    let key = key.split('[').next().unwrap_or(key);
    let mut lines = SAMPLE.lines().map(|line| line.trim_start_matches([' ', '#']));
    lines.find(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = ")))
}

/// serde names the unknown key and then the known ones, each within backticks.
fn unknown_key(path: &str, message: &str) -> String {
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next().unwrap_or_default();
    let known: Vec<_> = names.collect();
    let place = path.strip_suffix(unknown).unwrap_or(path).trim_end_matches('.');
    let place = if place.is_empty() { String::new() } else { format!(" in {place}") };
    let close = known.iter().map(|name| (strsim::jaro_winkler(unknown, name), name)).filter(|(close, _)| *close > 0.8);
    match close.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((_, name)) => format!("unknown key {unknown:?}{place}: did you mean {name:?}?"),
        None => format!("unknown key {unknown:?}{place}: the keys are {}", known.join(", ")),
    }
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    /// The sample with every commented key in force: a comment is `##`, a default `# key = value`.
    fn uncommented() -> String {
        let line = |line: &str| {
            let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
            let rest = rest.strip_prefix("# ").unwrap_or(rest);
            format!("{indent}{rest}\n")
        };
        SAMPLE.lines().map(line).collect()
    }

    /// With two variables in the environment.
    fn parsed(text: &str) -> Result<Document, Note> {
        let get = |name: &str| match name {
            "SOON" => Ok("soon".to_owned()),
            "EVIL" => Ok(EVIL.to_owned()),
            _ => Err(VarError::NotPresent),
        };
        parse(text, &get).map(|(document, _)| document)
    }

    /// Ends a string, a line and a table, if it can.
    const EVIL: &str = "C:\\new\\table\"\nproc_root = \"/evil\"\n[[inputs.taskstats.target]] # ' \"\"\"";

    #[test]
    fn a_variable_cannot_be_more_than_a_part_of_its_string() {
        for quote in ["\"", "'", "\"\"\"", "'''"] {
            let document = parsed(&format!("[[inputs.taskstats]]\nhostname = {quote}<${{EVIL}}>{quote}\n"));
            let document = document.unwrap_or_else(|wrong| panic!("{quote}: {}", wrong.message));
            let [instance] = document.inputs.taskstats.as_slice() else { panic!("not one instance") };
            let instance = instance.as_ref();
            assert_eq!(instance.hostname.as_deref(), Some(format!("<{EVIL}>").as_str()), "{quote}");
            assert!(instance.proc_root.is_none() && instance.target.is_empty(), "{quote}");
        }
    }

    #[test]
    fn the_sample_parses_as_given_and_with_every_default_uncommented() {
        let given = parsed(SAMPLE).unwrap_or_else(|wrong| panic!("{}", wrong.message));
        assert!(given.inputs.taskstats.iter().all(|instance| instance.as_ref().target.is_empty()));
        let text = uncommented();
        let all = parsed(&text)
            .unwrap_or_else(|wrong| panic!("{}: {}", place(Path::new("x"), &text, wrong.offset), wrong.message));
        let [instance] = all.inputs.taskstats.as_slice() else { panic!("not one instance") };
        let instance = instance.as_ref();
        assert!(instance.target.len() > 5 && instance.collect.is_some() && instance.sys_root.is_some());
    }

    /// The sample names every key there is: serde lists them when it meets one it does not know.
    #[test]
    fn the_sample_has_every_key() {
        let tables =
            ["[[inputs.taskstats]]\nno_such = 1", "[[inputs.taskstats]]\n[[inputs.taskstats.target]]\nno_such = 1"];
        for table in tables {
            let document = toml::Deserializer::parse(table).unwrap();
            let error = Document::deserialize(document).unwrap_err().to_string();
            let keys: Vec<_> = error.split('`').skip(3).step_by(2).collect();
            assert!(keys.len() > 10, "{error}");
            for key in keys {
                let shown = example_of(key).is_some() || SAMPLE.contains(&format!("inputs.taskstats.{key}]"));
                assert!(shown || key == "tags", "{key} is not in the sample");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_a_remedy() {
        let target = "[[inputs.taskstats]]\n[[inputs.taskstats.target]]\n";
        let cases = [
            (
                "[[inputs.taskstats]]\nintervall = \"1s\"",
                2,
                "unknown key \"intervall\" in inputs.taskstats[0]: did you mean \"interval\"?",
            ),
            ("[[inputs.taskstats]]\nzzz = 1", 2, "the keys are collect, "),
            ("[[inputs.cpu]]", 1, "unknown key \"cpu\" in inputs: the keys are taskstats"),
            ("[inputs.taskstats]\n", 1, "write [[inputs.taskstats]]"),
            (
                "[[inputs.taskstats]]\n\ninterval = 10",
                3,
                "invalid type: integer `10`, expected a string; put it in quotes",
            ),
            (&format!("{target}pid = \"7\""), 3, "inputs.taskstats[0].target[0].pid: invalid type: string \"7\""),
            (&format!("{target}pid = 0"), 3, "0 is not a pid: pids are 1 to 2147483647"),
            (&format!("{target}pattern = \"(\""), 3, "\"(\" is not a regular expression (unclosed group)"),
            (&format!("{target}exe = \"[\""), 3, "\"[\" is not a glob"),
            (&format!("{target}cgroup = \"../x\""), 3, "leaves the hierarchy"),
            ("[[inputs.taskstats]]\npid_file_stale = \"no\"", 2, "unknown variant `no`, expected `skip` or `warn`"),
            ("[[inputs.taskstats]]\npsstat_fields = [\"cpu\"]", 2, "the fields are p_cpu"),
            ("a = [", 1, "not TOML"),
            ("[[inputs.taskstats]]\ninterval = \"${SOON}\"", 2, "interval: \"soon\" is not a duration"),
            ("[[inputs.taskstats]]\ninterval = ${SOON}", 2, "a variable stands in quotes"),
            ("[[inputs.taskstats]]\nself_stats = $SOON", 2, "a variable stands in quotes"),
            (
                &format!("{target}pid = \"$SOON\""),
                3,
                "pid: invalid type: string \"soon\", expected i64; a variable can",
            ),
            (
                "[[inputs.taskstats]]\n\nhostname = \"${NONE}\"",
                3,
                "hostname: \"${NONE}\": the environment variable NONE",
            ),
        ];
        for (text, line, message) in cases {
            let wrong = parsed(text).unwrap_err();
            assert!(wrong.message.contains(message), "{text:?}: {}", wrong.message);
            assert_eq!(place(Path::new("x.conf"), text, wrong.offset), format!("x.conf:{line}"), "{text:?}");
        }
    }
}
