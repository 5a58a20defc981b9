//! `--check`: a table of what each target matches and what works here, with the remedy for what does not.

use std::fmt::{self, Write};
use std::io;

use anstyle::{AnsiColor, Style};

use crate::accounting::{Accounting, Shortcoming};
use crate::cache::{Cache, CacheFile};
use crate::collect::{Collectors, Look, Plan};
use crate::config::Settings;
use crate::encode::clean;
use crate::host::Host;
use crate::kernel::stat::Stat;
use crate::log::{Complaints, Trouble};
use crate::processes::Processes;
use crate::select::{Selected, Target, Trees, measurements, select};

/// Most processes of a series that are named.
const NAMED_MAX: usize = 5;

/// Result of `--check`.
#[derive(Debug)]
pub struct Report {
    /// For a person to read, with colours.
    pub text: String,
    /// Everything that is configured can work here.
    pub works: bool,
}

/// Meaning of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// Nothing is wrong, but nothing is there either, or a bound leaves something out.
    Meagre,
    Bad,
}

impl State {
    fn style(self) -> Style {
        let colour = match self {
            Self::Good => AnsiColor::Green,
            Self::Meagre => AnsiColor::Yellow,
            Self::Bad => AnsiColor::Red,
        };
        Style::new().fg_color(Some(colour.into()))
    }
}

struct Row {
    state: State,
    /// Cells of the row. An empty list: the row has only reasons.
    cells: Vec<String>,
    /// Reasons and remedies, one line each.
    reasons: Vec<String>,
}

impl Row {
    fn new(state: State, cells: &[&str]) -> Self {
        Self { state, cells: cells.iter().map(|cell| clean(cell)).collect(), reasons: Vec::new() }
    }

    /// Returns the row with the complaints as reasons.
    fn because(self, complaints: &Complaints) -> Self {
        let bad = complaints.iter().any(|(trouble, _)| matches!(trouble, Trouble::Denied | Trouble::Failed));
        let state = match self.state {
            _ if bad => State::Bad,
            State::Good if complaints.iter().next().is_some() => State::Meagre,
            state => state,
        };
        let reasons = complaints.iter().map(|(_, reason)| clean(&reason)).collect();
        Self { state, reasons, ..self }
    }
}

/// Looks once at everything that is configured.
#[must_use]
pub fn check(settings: Settings, mut host: Host) -> Report {
    let mut processes = Processes::default();
    let mut complaints = Complaints::default();
    let Host { source, clock, accounting, .. } = &mut host;
    match accounting.update(&mut processes, source.as_mut(), clock.boottime()) {
        Ok(None) => {}
        Ok(Some(error)) => complaints.add(Trouble::of(&error), format!("some processes cannot be read: {error}")),
        Err(error) => complaints.add(Trouble::Failed, format!("it cannot be listed: {error}")),
    }
    host.pidfiles.begin_gather(host.clock.realtime());
    let proc_root = host.proc.root().display().to_string();
    let found = counted(processes.count(), "process", "processes");
    let host_row = Row::new(State::Good, &[&proc_root, &found]).because(&complaints);
    let cache_rows = settings.cache.iter().map(check_cache).collect();
    let mut targets = settings.targets;
    let target_rows = targets.iter_mut().flat_map(|target| check_target(target, &mut host, &processes)).collect();
    let collectors = Collectors::new(settings.bounds);
    let measurement_rows = check_measurements(collectors, &mut targets, &mut processes, &mut host);
    let sections: [(&str, Vec<Row>); 5] = [
        ("Processes", vec![host_row]),
        ("Targets", target_rows),
        ("Measurements", measurement_rows),
        ("Accounting", vec![check_accounting(&host.accounting)]),
        ("Cache file", cache_rows),
    ];
    let works = sections.iter().flat_map(|(_, rows)| rows).all(|row| row.state != State::Bad);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = sections.iter().try_for_each(|(title, rows)| section(&mut text, title, rows));
    Report { text, works }
}

/// Events are no must, unless they were asked for.
fn check_accounting(accounting: &Accounting) -> Row {
    let row = Row::new(State::Good, &accounting.name_and_description());
    let Some(Shortcoming { reason, .. }) = accounting.shortcoming() else { return row };
    let state = if accounting.falls_short() { State::Bad } else { State::Meagre };
    Row { state, reasons: vec![reason.clone()], ..row }
}

fn check_cache(file: &CacheFile) -> Row {
    let path = file.directory.join(&file.name).display().to_string();
    let mut complaints = Complaints::default();
    let says = match Cache::examine(file) {
        Ok(()) => "can be written",
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => "another process uses it now",
        Err(error) => {
            let remedy =
                "give cache_dir a directory of the user who runs the plugin, and cache_name a name that is free there";
            complaints.add(Trouble::Failed, format!("{error}: {remedy}"));
            "cannot be used"
        }
    };
    Row::new(State::Good, &[&path, says]).because(&complaints)
}

/// A row for each series of a target, and one for what is wrong with it.
fn check_target(target: &mut Target, host: &mut Host, processes: &Processes) -> Vec<Row> {
    let mut complaints = Complaints::default();
    let found = select(std::slice::from_mut(target), processes, host, &mut complaints).series;
    let selector = target.selector();
    let nothing = if complaints.iter().next().is_some() {
        "nothing now".to_owned()
    } else {
        format!("nothing now: {}", target.nothing())
    };
    let mut rows: Vec<Row> = found
        .iter()
        .map(|(tags, selected)| {
            let name = tags.get(&selected.output.name_tag).unwrap_or_default();
            match matched(selected, processes) {
                Some(matched) => Row::new(State::Good, &[&name, &selector, &matched]),
                None if selected.hidden => Row::new(State::Bad, &[&name, &selector, "hidden"]),
                None if selected.incomplete => Row::new(State::Bad, &[&name, &selector, "cannot be read"]),
                None => Row::new(State::Meagre, &[&name, &selector, &nothing]),
            }
        })
        .collect();
    if rows.is_empty() {
        rows.push(Row::new(State::Meagre, &["-", &selector, &nothing]));
    }
    rows.push(Row::new(State::Good, &[]).because(&complaints));
    rows
}

/// The processes of a series: those selected, by pid and comm, and how many descend from them.
fn matched(selected: &Selected, processes: &Processes) -> Option<String> {
    let members = selected.members(&mut Trees::of(processes), &[]).len();
    let stats: Vec<&Stat> = selected.ids.iter().filter_map(|id| processes.get_exactly(*id)).collect();
    if stats.is_empty() {
        return None;
    }
    let called = |stat: &&Stat| format!("{} ({})", stat.id.pid, stat.comm.to_text());
    let mut text = stats.iter().take(NAMED_MAX).map(called).collect::<Vec<_>>().join(", ");
    let more = stats.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    let descendants = members.saturating_sub(stats.len());
    if descendants > 0 {
        let _ = write!(text, ", with {}", counted(descendants, "descendant", "descendants"));
    }
    Some(text)
}

/// A row for each measurement that is wanted of anything there is or may come.
fn check_measurements(
    mut collectors: Collectors,
    targets: &mut [Target],
    processes: &mut Processes,
    host: &mut Host,
) -> Vec<Row> {
    // What is wrong with targets was said.
    let selection = select(targets, processes, host, &mut Complaints::default()).series;
    let mut trees = Trees::of(processes);
    let members: Vec<_> = selection.values().map(|selected| selected.members(&mut trees, &[])).collect();
    let series = selection.iter().zip(&members).map(|((tags, selected), members)| (tags, selected, members.as_slice()));
    let measurements = measurements(targets);
    let plan = Plan::new(measurements.clone(), series);
    // It was scanned just now, so that there is nothing to read.
    processes.track(&plan.ids(), host.source.as_mut());
    let _ = processes.read_tracked(host.source.as_mut(), false);
    let rows = measurements.into_iter().map(|measurement| {
        let mut complaints = Complaints::default();
        let Host { proc, source, taskstats, .. } = &mut *host;
        let (source, taskstats) = (source.as_mut(), taskstats.as_mut());
        let mut look = Look { processes, proc, source, taskstats, complaints: &mut complaints };
        collectors.try_out(measurement, &plan, &mut look);
        let row = Row::new(State::Good, &[]).because(&complaints);
        let says = match row.state {
            State::Good => "works",
            State::Meagre => "works, except:",
            State::Bad => "does not work, or not all of it:",
        };
        Row { cells: vec![measurement.name().to_owned(), says.to_owned()], ..row }
    });
    rows.collect()
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A titled table, its columns aligned.
fn section(text: &mut String, title: &str, rows: &[Row]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    let bold = Style::new().bold();
    writeln!(text, "{bold}{title}{bold:#}")?;
    let width =
        |column: usize| rows.iter().filter_map(|row| row.cells.get(column)).map(|cell| cell.chars().count()).max();
    for row in rows {
        let style = row.state.style();
        if let Some((last, cells)) = row.cells.split_last() {
            for (column, cell) in cells.iter().enumerate() {
                write!(text, "  {cell:width$}", width = width(column).unwrap_or(0))?;
            }
            writeln!(text, "  {style}{last}{style:#}")?;
        }
        for reason in &row.reasons {
            writeln!(text, "      {style}{reason}{style:#}")?;
        }
    }
    Ok(())
}
