//! Arguments → settings → agent. See the library for all the rest.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anstream::AutoStream;
use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use telegraf_taskstats::agent::{self, Agent};
use telegraf_taskstats::check::{self, Report};
use telegraf_taskstats::cli::Arguments;
use telegraf_taskstats::config::values::AccountBy;
use telegraf_taskstats::config::{SAMPLE, Settings};
use telegraf_taskstats::host::Host;
use telegraf_taskstats::kernel::clock::SystemClock;
use telegraf_taskstats::kernel::{capability, own};
use telegraf_taskstats::log::{Level, say, wait_for_reader};
use telegraf_taskstats::output::Measurement;
use telegraf_taskstats::select::wants;
use telegraf_taskstats::trigger::{CaughtSignals, Pace, Triggers, stdin_is_null};
use tokio::runtime;

/// The configuration is wrong.
const INVALID: u8 = 2;

/// Files that the plugin needs besides, at most.
const NEEDED: u64 = 32;

/// Most files of /proc that are held open.
const HELD_MAX: usize = 8192;

fn main() -> ExitCode {
    own::give_memory_back();
    // First of all: a signal that comes before its handler ends the process.
    let signals = match CaughtSignals::catch() {
        Ok(signals) => signals,
        Err(error) => return fail(&anyhow::Error::new(error).context("Cannot catch signals"), 1),
    };
    // Before any thread is made. What this cannot get, what needs it will miss.
    let _ = capability::raise();
    let arguments = match Arguments::of(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            let lines =
                text.lines().map(|line| line.trim().trim_start_matches("error: ")).filter(|line| !line.is_empty());
            return fail(&anyhow::anyhow!("{}", lines.collect::<Vec<_>>().join("; ")), INVALID);
        }
        Err(help) => return print(&help.to_string()),
    };
    if arguments.sample_config {
        return print(SAMPLE);
    }
    match Settings::load(&arguments) {
        Ok(settings) if arguments.check => match open(&settings, settings.accounting, 0) {
            Ok(host) => report(&check::check(settings, host)),
            Err(error) => fail(&error, 1),
        },
        Ok(settings) => match run(settings, &arguments, signals) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => fail(&error, INVALID),
    }
}

fn run(settings: Settings, arguments: &Arguments, signals: CaughtSignals) -> anyhow::Result<()> {
    let pace = match settings.interval {
        Some(period) => Pace::Every(period),
        None if arguments.once || stdin_is_null() => Pace::Once,
        None => Pace::Triggered,
    };
    if pace == Pace::Triggered && io::stdin().is_terminal() {
        say(Level::Info, "Press Enter to gather, Ctrl-D to end");
    }
    if arguments.single_threaded.is_some() || arguments.multi_threaded.is_some() {
        say(Level::Warning, "--single-threaded and --multi-threaded do nothing: one thread gathers");
    }
    // Who looks once has no use for what is told from now on.
    let accounting = if pace == Pace::Once { AccountBy::Scan } else { settings.accounting };
    let host = open(&settings, accounting, holdable())?;
    let runtime = runtime::Builder::new_current_thread().enable_io().build().context("Cannot make an event loop")?;
    runtime.block_on(async {
        let triggers = Triggers::listen(pace, signals).context("Cannot catch the signals that stop")?;
        agent::run(Agent::new(settings, host), triggers, arguments).await
    })
}

fn open(settings: &Settings, accounting: AccountBy, holdable: usize) -> anyhow::Result<Host> {
    let host = Host::open(&settings.proc_root, &settings.sys_root, Box::new(SystemClock), holdable);
    let mut host = host.with_context(|| format!("Cannot open {}", settings.proc_root.display()))?;
    host.listen(accounting, wants(&settings.targets, Measurement::Taskstat));
    Ok(host)
}

/// Returns how many files of /proc may be held open: half of what the process may open at all, with its soft limit raised
/// to the hard one, and no more than cost the kernel 40 MB.
fn holdable() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, what is allowed is still enough for some.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current };
    let half = |allowed: u64| usize::try_from(allowed.saturating_sub(NEEDED) / 2).unwrap_or(HELD_MAX);
    allowed.map_or(HELD_MAX, |allowed| half(allowed).min(HELD_MAX))
}

/// The error chain, once.
fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    say(Level::Error, &format!("{error:#}"));
    wait_for_reader();
    ExitCode::from(code)
}

/// Prints what `--check` found out; colours are for a terminal only.
fn report(report: &Report) -> ExitCode {
    let printed = AutoStream::auto(io::stdout()).write_all(report.text.as_bytes());
    if printed.is_ok() && report.works { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Text that a person asked for, instead of metrics.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
