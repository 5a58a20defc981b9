//! Bad input, each on the real binary. One bad target never costs another its line, and never ends the
//! process: nearly every run here has a good target beside the bad ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::indexing_slicing)] // a test fails by panicking

mod cache;
mod configuration;
mod names;
mod pidfiles;
mod processes;
mod selectors;
mod streams;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/watched.rs"]
mod watched;

use std::process::Command;

use support::{Plugin, field};

/// Two gathers with `bad` targets beside a good one, and what they gave.
struct Run {
    gathers: [Vec<String>; 2],
    stderr: Vec<String>,
}

impl Run {
    /// Runs `command`, whose targets emit `bad` lines at each gather, with this process as the good target.
    fn with_good_target(mut command: Command, bad: usize) -> Self {
        command.arg("--pid").arg(format!("good:{}", std::process::id()));
        let mut plugin = Plugin::start(command);
        let gathers = [plugin.gather(bad + 1), plugin.gather(bad + 1)];
        let (status, rest, stderr) = plugin.stop();
        assert!(status.success(), "{status}: {stderr:?}");
        assert!(rest.is_empty(), "more lines than targets: {rest:?}");
        let run = Self { gathers, stderr };
        for line in run.lines_of("good") {
            let found: u64 = field(line, "n_proc").unwrap().trim_end_matches('i').parse().unwrap();
            assert!(found >= 1, "{line}");
        }
        run
    }

    /// The line of a target in each gather.
    fn lines_of(&self, name: &str) -> [&String; 2] {
        let tag = format!("process_name={name} ");
        self.gathers.each_ref().map(|lines| {
            let mut found = lines.iter().filter(|line| line.contains(&tag));
            let line = found.next().unwrap_or_else(|| panic!("no line of {name}: {lines:?}"));
            assert!(found.next().is_none(), "{name} twice: {lines:?}");
            line
        })
    }

    /// The target found nothing, and says so in each gather.
    fn assert_nothing_found(&self, name: &str) {
        for line in self.lines_of(name) {
            assert_eq!(field(line, "n_proc"), Some("0i"), "{line}");
            assert_eq!(field(line, "p_mem"), Some("0"), "{line}");
        }
    }

    /// Exactly one warning in both gathers together contains `subject`; it contains all of `says` too.
    fn assert_warned_once(&self, subject: &str, says: &[&str]) {
        let about: Vec<_> = self.stderr.iter().filter(|line| line.contains(subject)).collect();
        assert_eq!(about.len(), 1, "one warning about {subject}, not {about:?} of {:?}", self.stderr);
        assert!(about[0].starts_with("W! "), "{}", about[0]);
        for part in says {
            assert!(about[0].contains(part), "{part:?} is not in {:?}", about[0]);
        }
    }
}
