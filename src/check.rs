//! `--check`: a table of what each target matches and what works here, with the remedy for what does not.

use std::fmt::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::collect::{Collectors, Look, Plan};
use crate::config::Settings;
use crate::encode::{Tags, clean};
use crate::host::Host;
use crate::kernel::stat::Stat;
use crate::log::{Complaints, Trouble};
use crate::output::Measurement;
use crate::processes::Processes;
use crate::select::{Selected, Target, View, select};

/// Most processes of a series that are named.
const NAMED_MAX: usize = 5;

/// What was found out.
#[derive(Debug)]
pub struct Report {
    /// For a person to read, with colours.
    pub text: String,
    /// Whether everything that is configured can work here.
    pub works: bool,
}

/// How a row is meant.
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
    cells: Vec<String>,
    /// What there is to say about it, a line each.
    reasons: Vec<String>,
}

impl Row {
    fn new(state: State, cells: &[&str]) -> Self {
        Self { state, cells: cells.iter().map(|cell| clean(cell)).collect(), reasons: Vec::new() }
    }

    /// The same, with what is wrong.
    fn because(self, complaints: &Complaints) -> Self {
        let bad = complaints.iter().any(|(trouble, _)| matches!(trouble, Trouble::Denied | Trouble::Failed));
        let state = match self.state {
            _ if bad => State::Bad,
            State::Good if complaints.iter().next().is_some() => State::Meagre,
            state => state,
        };
        let reasons = complaints.iter().map(|(_, reason)| clean(reason)).collect();
        Self { state, reasons, ..self }
    }
}

/// Looks once at everything that is configured.
#[must_use]
pub fn check(settings: Settings, mut host: Host) -> Report {
    let mut processes = Processes::default();
    let mut complaints = Complaints::default();
    match processes.scan(&mut host.proc, host.clock.as_ref()) {
        Ok(None) => {}
        Ok(Some(error)) => complaints.add(Trouble::of(&error), format!("some processes cannot be read: {error}")),
        Err(error) => complaints.add(Trouble::Failed, format!("it cannot be listed: {error}")),
    }
    let proc_root = host.proc.root().display().to_string();
    let found = format!("{} processes", processes.iter().len());
    let host_row = Row::new(State::Good, &[&proc_root, &found]).because(&complaints);
    let mut targets = settings.targets;
    let (target_rows, selection) = check_targets(&mut targets, &mut host, &processes);
    let measurement_rows = check_measurements(Collectors::new(settings.bounds), &selection, &processes, &mut host);
    let accounting = "one scan of /proc per gather: it takes no privilege";
    let accounting_row = Row::new(State::Good, &["scan", accounting]);
    let sections = [
        ("Processes", vec![host_row]),
        ("Targets", target_rows),
        ("Measurements", measurement_rows),
        ("Accounting", vec![accounting_row]),
    ];
    let works = sections.iter().flat_map(|(_, rows)| rows).all(|row| row.state != State::Bad);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = sections.iter().try_for_each(|(title, rows)| section(&mut text, title, rows));
    Report { text, works }
}

/// A row for each series of each target, and everything that they select.
fn check_targets(targets: &mut [Target], host: &mut Host, processes: &Processes) -> (Vec<Row>, Vec<(Tags, Selected)>) {
    let hierarchies = host.hierarchies();
    let own_pid = host.proc.own_pid();
    let (mut rows, mut selection) = (Vec::new(), Vec::new());
    for target in targets {
        let mut complaints = Complaints::default();
        let mut view = View {
            processes,
            proc: &mut host.proc,
            hierarchies: &hierarchies,
            clock: host.clock.as_ref(),
            own_pid,
            incomplete: false,
            complaints: &mut complaints,
        };
        let (found, _) = select(std::slice::from_mut(target), &mut view);
        let selector = target.selector();
        let nothing = "nothing now";
        if found.is_empty() {
            rows.push(Row::new(State::Meagre, &["", &selector, nothing]).because(&complaints));
        }
        let mut of_target: Vec<Row> = Vec::new();
        for (tags, selected) in found {
            let matched = matched(&selected, processes);
            let state = if matched.is_some() { State::Good } else { State::Meagre };
            let name = tags.get(&selected.output.name_tag).unwrap_or_default();
            of_target.push(Row::new(state, &[name, &selector, matched.as_deref().unwrap_or(nothing)]));
            selection.push((tags, selected));
        }
        if let Some(last) = of_target.pop() {
            rows.extend(of_target);
            rows.push(last.because(&complaints));
        }
    }
    (rows, selection)
}

/// The processes of a series: those selected, by pid and comm, and how many descend from them.
fn matched(selected: &Selected, processes: &Processes) -> Option<String> {
    let members = selected.members(processes, &[]).len();
    let ids = selected.ids();
    let stats: Vec<&Stat> = ids.iter().filter_map(|id| processes.get_exactly(*id)).collect();
    if stats.is_empty() {
        return None;
    }
    let called = |stat: &&Stat| format!("{} ({})", stat.id.pid, stat.comm.to_text());
    let mut text = stats.iter().take(NAMED_MAX).map(called).collect::<Vec<_>>().join(", ");
    let more = stats.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    match members.saturating_sub(stats.len()) {
        0 => {}
        1 => text.push_str(", with 1 descendant"),
        count => drop(write!(text, ", with {count} descendants")),
    }
    Some(text)
}

/// A row for each measurement that is wanted of anything.
fn check_measurements(
    mut collectors: Collectors,
    selection: &[(Tags, Selected)],
    processes: &Processes,
    host: &mut Host,
) -> Vec<Row> {
    let members = |selected: &Selected| selected.members(processes, &[]).iter().map(|member| member.id).collect();
    let series = selection.iter().map(|(tags, selected)| (tags, &selected.output, members(selected), selected.ids()));
    let plan = Plan::new(series);
    let is_wanted = |wanted: &Measurement| selection.iter().any(|(_, selected)| selected.output.collects(*wanted));
    let rows = Measurement::ALL.into_iter().filter(is_wanted).map(|measurement| {
        let mut complaints = Complaints::default();
        collectors.try_out(
            measurement,
            &plan,
            &mut Look { processes, proc: &mut host.proc, complaints: &mut complaints },
        );
        let row = Row::new(State::Good, &[measurement.name(), ""]).because(&complaints);
        let says = if row.state == State::Bad { "not all of it works" } else { "works" };
        Row { cells: vec![measurement.name().to_owned(), says.to_owned()], ..row }
    });
    rows.collect()
}

/// A titled table, its columns aligned.
fn section(text: &mut String, title: &str, rows: &[Row]) -> fmt::Result {
    let bold = Style::new().bold();
    writeln!(text, "{bold}{title}{bold:#}")?;
    let width =
        |column: usize| rows.iter().filter_map(|row| row.cells.get(column)).map(|cell| cell.chars().count()).max();
    for row in rows {
        let style = row.state.style();
        let (last, cells) = row.cells.split_last().ok_or(fmt::Error)?;
        for (column, cell) in cells.iter().enumerate() {
            write!(text, "  {cell:width$}", width = width(column).unwrap_or(0))?;
        }
        writeln!(text, "  {style}{last}{style:#}")?;
        for reason in &row.reasons {
            writeln!(text, "      {style}{reason}{style:#}")?;
        }
    }
    Ok(())
}
