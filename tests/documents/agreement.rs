//! That the documents, `--help`, the man page, plugin.conf.example and what the program really writes agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use clap::{CommandFactory, ValueEnum};
use telegraf_taskstats::cli::Arguments;
use telegraf_taskstats::output::{Measurement, PsstatField};

use crate::delay_accounting::DelayAccounting;
use crate::document::{blocks, documents, repository};
use crate::links::{code, prose};
use crate::support::{Plugin, command, is_root, skip, wait_for};

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// What the program asks of flags, without those that do nothing: name, and whether it takes a value.
fn flags() -> BTreeMap<String, bool> {
    let command = Arguments::command();
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let names = shown.flat_map(|argument| {
        let names = argument.get_long_and_visible_aliases().unwrap_or_default();
        let takes_value = argument.get_action().takes_values();
        names.into_iter().map(move |name| (format!("--{name}"), takes_value)).collect::<Vec<_>>()
    });
    names.collect()
}

/// The rows of the tables below a heading: their cells.
pub fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{document}: no {heading}"));
    let level = heading.split(' ').next().unwrap();
    let section = rest.split(&format!("\n{level} ")).next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The keys that a table of the configuration may have, as the program lists them when it meets one that it does not know.
fn keys(table: &str) -> BTreeSet<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plugin.conf");
    fs::write(&file, format!("{table}\nzzz = 1\n")).unwrap();
    let output = command().arg("--config").arg(&file).arg("--check").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    let (_, list) = message.trim_end().rsplit_once("the keys are ").unwrap_or_else(|| panic!("{message}"));
    list.split(", ").map(str::to_owned).collect()
}

const GENERAL: &str = "[[inputs.taskstats]]";
const TARGET: &str = "[[inputs.taskstats]]\n[[inputs.taskstats.target]]";

#[test]
fn help_and_man_page_have_every_flag_and_so_have_the_documents() {
    let flags = flags();
    assert!(flags.len() > 20, "{flags:?}");
    let help = String::from_utf8(command().arg("--help").output().unwrap().stdout).unwrap();
    let text = documents().iter().flat_map(|document| prose(document)).collect::<Vec<_>>().join("\n");
    let documented: BTreeSet<_> = code(&text).into_iter().flat_map(|code| code.split([' ', '='])).collect();
    for flag in flags.keys() {
        assert!(help.split(|c: char| c.is_whitespace() || ",]".contains(c)).any(|word| word == flag), "{flag}: {help}");
        assert!(documented.contains(flag.as_str()), "no document has {flag}");
    }
    let page = man_page();
    for flag in flags.keys() {
        assert!(page.contains(&flag.replace('-', "\\-")), "{flag} is not in the man page");
    }
}

/// As it is packaged.
fn man_page() -> String {
    let directory = tempfile::tempdir().unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--locked", "--quiet", "--example", "manual", "--"]).arg(directory.path());
    assert!(command.current_dir(repository()).status().unwrap().success());
    let mut pending = vec![directory.path().to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "1") {
            return fs::read_to_string(path).unwrap();
        }
    }
    panic!("examples/manual makes no man page");
}

#[test]
fn the_table_of_keys_is_that_of_the_program() {
    let flags = flags();
    let mut documented = BTreeSet::new();
    let sample = read("plugin.conf.example");
    for row in rows("docs/configuration.md", "## Keys and flags") {
        let [key, flag, default, _] = row.as_slice() else { panic!("{row:?}") };
        let key = key.trim_matches('`');
        documented.insert(key.to_owned());
        for flag in code(flag) {
            let (name, value) = flag.split_once(' ').map_or((flag, None), |(name, value)| (name, Some(value)));
            assert_eq!(flags.get(name), Some(&value.is_some()), "{flag}");
            assert_eq!(
                name.trim_start_matches("--").replace('-', "_"),
                if key == "tags" { "tag" } else { key },
                "{flag}"
            );
        }
        // What the sample has as the default is in the table, if it is more than "none" or "the host's own".
        let line = sample.lines().find_map(|line| line.trim().strip_prefix(&format!("# {key} = ")));
        let Some(of_sample) = line.filter(|value| *value != "\"\"") else { continue };
        assert!(code(default).contains(&of_sample), "{key}: {default}, but in the sample {of_sample}");
    }
    let of_targets: BTreeSet<String> = ["target".to_owned()].into();
    assert_eq!(documented, &keys(GENERAL) - &of_targets);
}

#[test]
fn the_table_of_selectors_is_that_of_the_program() {
    let flags = flags();
    let mut documented = BTreeSet::new();
    for row in rows("README.md", "## Configuration") {
        let [selectors, flag, _] = row.as_slice() else { panic!("{row:?}") };
        documented.extend(code(selectors).into_iter().map(str::to_owned));
        for flag in code(flag) {
            assert_eq!(flags.get(flag.split(' ').next().unwrap()), Some(&true), "{flag}");
        }
    }
    let other = ["name", "collect", "psstat_fields", "scope", "name_tag", "tags"].map(str::to_owned);
    assert_eq!(documented, &keys(TARGET) - &other.into());
    let sample = read("plugin.conf.example");
    for key in keys(TARGET).union(&keys(GENERAL)) {
        let is_there = [format!("{key} = "), format!(".{key}]")].iter().any(|text| sample.contains(text));
        assert!(is_there, "{key} is not in plugin.conf.example");
    }
}

/// The measurements, and of each the fields with their types, and the tags.
type Metrics = BTreeMap<String, (BTreeMap<String, &'static str>, BTreeSet<String>)>;

/// As the README lists them, and docs/configuration.md that of the plugin itself. A field's type stands behind it, or behind the word "fields" above it.
fn documented() -> Metrics {
    let list = |document: &str, heading: &str, before: &str| {
        let text = read(document);
        let (_, section) = text.split_once(&format!("\n{heading}\n")).unwrap();
        let section = section.split("\n#").next().unwrap();
        section.split_once(before).unwrap().1.to_owned()
    };
    let list = list("README.md", "## Metrics", "`collect` names")
        + &list("docs/configuration.md", "## The line about the plugin", "adds it to each gather");
    let mut metrics = Metrics::new();
    let (mut measurement, mut of_fields, mut of_all) = (String::new(), true, None);
    for line in list.lines() {
        let item = line.trim_start();
        let Some(text) = item.strip_prefix("- ") else { continue };
        let head = text.split(": ").next().unwrap().trim_end_matches(':');
        let (names, rest) = head.split_once(" (").unwrap_or((head, ""));
        let stated = ["integer", "float"].into_iter().find(|of| rest.starts_with(of));
        match line.len() - item.len() {
            0 => {
                measurement = head.split([',', ' ']).next().unwrap().to_owned();
                metrics.entry(measurement.clone()).or_default();
            }
            2 => {
                of_fields = text.starts_with("fields");
                of_all = stated.or(of_all.filter(|_| of_fields && !metrics[&measurement].0.is_empty()));
            }
            _ => {
                let (fields, tags) = metrics.get_mut(&measurement).unwrap();
                for name in names.split(", ") {
                    if of_fields {
                        let of = stated.or(of_all).unwrap_or_else(|| panic!("{line}: of what type?"));
                        assert!(fields.insert(name.to_owned(), of).is_none(), "{line}: again");
                    } else {
                        tags.insert(name.to_owned());
                    }
                }
            }
        }
    }
    metrics
}

/// Names of all measurements that there are, as the program defines them.
fn measurements() -> BTreeSet<String> {
    Measurement::value_variants().iter().map(|measurement| measurement.name().to_owned()).collect()
}

/// Its name for the line about the plugin, which `collect` does not name.
const AGENT: &str = "taskstats_agent";

/// What has no line for each process.
const OF_NO_PROCESS: [&str; 2] = ["psstat", AGENT];

/// As the program writes them, in both scopes, with all that there is, where it may and can do everything.
fn written() -> Metrics {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plugin.conf");
    let targets = ["tree", "process"].map(|scope| {
        format!("[[inputs.taskstats.target]]\nname = \"{scope}\"\nscope = \"{scope}\"\npid = {}\n", std::process::id())
    });
    let measurements = measurements();
    let collect = serde_json::to_string(&measurements).unwrap(); // a list of strings is the same in JSON and in TOML
    let general = format!(
        "[[inputs.taskstats]]\npsstat_fields = [\"all\"]\nthread_all_nice = true\nself_stats = true\n\
         procmaps_interval = \"100ms\"\ncollect = {collect}\n"
    );
    fs::write(&file, general + &targets.concat()).unwrap();
    let mut command = command();
    command.arg("--config").arg(&file);
    let mut plugin = Plugin::start(command);
    let mut metrics = Metrics::new();
    // p_cpu_thread_max takes two looks at the threads, and pss is measured beside the gathers.
    let mut missing = Vec::new();
    wait_for("all that the program defines, of a tree and of a process", || {
        plugin.prompt();
        loop {
            let line = plugin.line();
            let [series, fields, _] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let mut series = series.split(',');
            let measurement = series.next().unwrap().to_owned();
            let (known, tags) = metrics.entry(measurement.clone()).or_default();
            tags.extend(series.map(|tag| tag.split('=').next().unwrap().to_owned()));
            for (name, value) in fields.split(',').map(|field| field.split_once('=').unwrap()) {
                known.insert(name.to_owned(), if value.ends_with('i') { "integer" } else { "float" });
            }
            if measurement == AGENT {
                break;
            }
        }
        let before = std::mem::take(&mut missing);
        for measurement in &measurements {
            let tags = metrics.get(measurement).map(|(_, tags)| tags);
            let is_whole = |tags: &BTreeSet<_>| tags.contains("pid") || OF_NO_PROCESS.contains(&measurement.as_str());
            missing.extend((!tags.is_some_and(is_whole)).then(|| measurement.clone()));
        }
        let of_psstat = PsstatField::value_variants().iter().map(|field| field.name());
        missing.extend(of_psstat.filter(|name| !metrics["psstat"].0.contains_key(*name)).map(str::to_owned));
        if missing != before {
            eprintln!("not written yet: {missing:?}"); // for a test that waits in vain
        }
        missing.is_empty().then_some(())
    });
    metrics
}

#[test]
fn every_field_is_documented_with_its_type_and_every_documented_one_exists() {
    if !is_root() {
        return skip("all fields are there for root only");
    }
    let Some(_delays) = DelayAccounting::switch(true) else { return };
    let (documented, mut written) = (documented(), written());
    // These are said of all measurements, and of all in scope "process".
    for (measurement, (_, tags)) in &mut written {
        assert!(tags.remove("process_name") || measurement == AGENT, "{measurement}: {tags:?}");
        let of_processes = !OF_NO_PROCESS.contains(&measurement.as_str());
        assert_eq!(tags.remove("pid"), of_processes, "{measurement}: {tags:?}");
    }
    for measurement in documented.keys().chain(written.keys()) {
        let both = [&documented, &written].map(|metrics| metrics.get(measurement));
        assert_eq!(both[0], both[1], "{measurement}, as README.md has it, and as it is written");
    }
}

/// As the program defines them: what is new is missing in each of these places.
#[test]
fn every_measurement_is_named_where_collect_is_described() {
    let sample = read("plugin.conf.example");
    let rows = rows("docs/configuration.md", "## Keys and flags");
    let row = rows.iter().find(|row| row[0] == "`collect`").unwrap().concat();
    let help = String::from_utf8(command().arg("--help").output().unwrap().stdout).unwrap();
    let documented = documented();
    for name in measurements() {
        for (place, text) in [("plugin.conf.example", &sample), ("docs/configuration.md", &row)] {
            assert!(text.contains(&format!("\"{name}\"")), "{place} does not name {name} beside collect");
        }
        assert!(help.contains(&name), "{name} is not in --help");
        assert!(documented.contains_key(&name), "README.md has no metrics of {name}");
    }
    for field in PsstatField::value_variants() {
        let fields = &documented["psstat"].0;
        assert!(fields.contains_key(field.name()), "README.md lacks {} of psstat", field.name());
    }
}

/// With what it needs, and how long it takes.
#[test]
fn each_test_executable_is_named_in_contributing() {
    let text = read("CONTRIBUTING.md");
    let entries = fs::read_dir(repository().join("tests")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect();
    assert!(files.len() > 15, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(&format!("`tests/{name}`")), "CONTRIBUTING.md does not name tests/{name}");
    }
}

/// The examples are lines as the program writes them.
#[test]
fn the_examples_have_fields_that_exist() {
    let documented = documented();
    let blocks: Vec<_> = documents().iter().flat_map(|document| blocks(document)).collect();
    let lines = blocks.iter().filter(|block| block.info == "text").flat_map(|block| block.text.lines());
    let mut count = 0;
    for line in lines {
        let parts: Vec<_> = line.split(' ').collect();
        let [series, fields, time] = parts[..] else { continue };
        let Some((known, _)) = documented.get(series.split(',').next().unwrap()) else { continue };
        assert!(time.len() == 19 && time.parse::<u64>().is_ok(), "{line}");
        for (name, value) in fields.split(',').map(|field| field.split_once('=').unwrap()) {
            let of = if value.ends_with('i') { "integer" } else { "float" };
            assert_eq!(known.get(name), Some(&of), "{line}");
        }
        count += 1;
    }
    assert!(count >= 7, "{count}");
}
