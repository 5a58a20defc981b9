//! That what is said of peers which no package registry has is what their programs printed: `recorded/` has it, with its origin.

use std::collections::BTreeSet;
use std::fs;

use crate::agreement::rows;
use crate::document::repository;
use crate::links::code;

/// Each command of a record, with what it printed.
fn record(peer: &str) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(repository().join(format!("tests/documents/recorded/{peer}.txt"))).unwrap();
    let (origin, commands) = text.split_once("\n\n").unwrap();
    assert!(origin.contains("https://github.com/") && origin.contains("no package registry"), "{origin}");
    let mut record: Vec<(String, Vec<String>)> = Vec::new();
    for line in commands.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => record.push((command.to_owned(), Vec::new())),
            None => record.last_mut().unwrap().1.push(line.to_owned()),
        }
    }
    record
}

/// What the one command that has this in it printed.
fn printed<'a>(record: &'a [(String, Vec<String>)], command: &str) -> &'a [String] {
    let found: Vec<_> = record.iter().filter(|(of, _)| of.contains(command)).collect();
    let [(_, lines)] = found[..] else { panic!("{command:?}: {found:#?}") };
    lines
}

/// The row of a table that begins with this.
fn row(document: &str, heading: &str, first: &str) -> Vec<String> {
    let row = rows(document, heading).into_iter().find(|row| row[0].starts_with(first));
    row.unwrap_or_else(|| panic!("{document}: {heading} has no row {first}"))
}

const PSSTAT: &str = "docs/from-psstat.md";

#[test]
fn psstat_prints_what_is_said_of_it() {
    let record = record("psstat");
    let number = |line: &String, field: &str| -> f64 {
        let (_, rest) = line.split_once(&format!("{field}=")).unwrap();
        rest.split([',', 'i']).next().unwrap().parse().unwrap()
    };
    // A tree three deep, of which the third uses the CPU: recursive since 1.0.8.
    let [first, second] = printed(&record, "./psstat-1.0.7 ") else { panic!() };
    assert!([first, second].iter().all(|line| number(line, "n_proc") == 2.0 && number(line, "pcpu") == 0.0));
    let [first, second] = printed(&record, "./psstat-1.0.8 ") else { panic!() };
    assert!(number(second, "n_proc") == 3.0 && number(second, "pcpu") > 0.5, "{first}");
    let [first, second] = printed(&record, "./psstat-1.1.1 --cache-dir . --cache-name c ") else { panic!() };
    assert!(number(first, "pcpu") == 0.0 && number(second, "n_proc") == 3.0 && number(second, "pcpu") > 0.2);
    assert!(second.starts_with("psstat,env=production,process_name=sh pcpu="), "the comm names it: {second}");
    assert!(row(PSSTAT, "## Fields", "`pcpu`")[2].contains("since 1.0.8"));
    // Short children: the kernel says 0.88 s of CPU in cutime and cstime.
    let [_, second, kernel] = printed(&record, "--pid short:") else { panic!() };
    assert!(number(second, "pcpu") < 0.05 && kernel.ends_with("then 0 7 85 3"), "{second} {kernel}");
    let [.., zombie] = printed(&record, "--pid zombie:") else { panic!() };
    assert_eq!(number(zombie, "n_proc"), 2.0);
    let matches = printed(&record, "--pattern");
    assert!(matches.len() > 1 && matches.iter().all(|line| line.starts_with("psstat,process_name=name ")));
    assert_eq!(printed(&record, "--pid-file /none.pid").last().unwrap(), "exit status 0");
    let refused = printed(&record, "--single-threaded");
    assert!(refused.iter().map(|line| line.rsplit('-').next().unwrap()).eq(["host", "threaded"]), "{refused:?}");
    // The fields have the names that the table has.
    let rows = rows(PSSTAT, "## Fields");
    let named: BTreeSet<_> =
        rows.iter().map(|row| code(&row[0])[0].to_owned()).filter(|name| !name.contains('=')).collect();
    assert_eq!(named, ["n_proc", "pcpu", "pmem"].map(str::to_owned).into());
}

const EXPORTER: &str = "docs/from-taskstats_exporter.md";

#[test]
fn taskstats_exporter_serves_what_is_said_of_it() {
    let record = record("taskstats_exporter");
    let lines = printed(&record, "cat /proc/$app/stat");
    let value = |name: &str| {
        let line = lines.iter().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    // Its series are those of the table, with these labels.
    let series = |line: &String| Some((line.split_once('{')?.0.to_owned(), line.contains("nice=")));
    let served: BTreeSet<_> = lines.iter().filter_map(series).collect();
    let in_table = rows(EXPORTER, "## The series");
    let said: BTreeSet<_> = in_table.iter().map(|row| (code(&row[0])[0].to_owned(), row[1].contains("nice"))).collect();
    assert_eq!(served, said);
    // Scheduling is in ns, as the kernel has it.
    let [.., schedstat, _] = lines else { panic!() };
    let of_threads = ["oncpu", "waiting", "slices"].map(|name| value(&format!("thread_schedstat_{name}")));
    assert_eq!(of_threads.join(" "), *schedstat);
    // A pidfile without a process ends the scrape: not even the first process has all of its lines.
    let broken = printed(&record, "cat exporter_pidfiles/dead.pid");
    assert!(!broken.iter().any(|line| line.starts_with("procstat_")), "{broken:#?}");
    // A space in comm, and each field is read for the one behind it: rss is vsize, and the priority is a nice value.
    let shifted = printed(&record, "cat /proc/$spaces/comm");
    let stat: Vec<_> = shifted.last().unwrap().split(") ").nth(1).unwrap().split(' ').collect();
    let rss: u64 = stat[20].parse::<u64>().unwrap() * 4;
    let has = |start: &str| shifted.iter().any(|line| line.starts_with(start));
    assert!(
        shifted.iter().any(|line| line.starts_with("procstat_rss{") && line.ends_with(&format!(" {rss}"))),
        "{rss}"
    );
    assert!(has("thread_schedstat_oncpu{") && shifted.iter().any(|line| line.contains("nice=\"20\"")), "{shifted:#?}");
}
