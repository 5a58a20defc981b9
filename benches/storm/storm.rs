//! Stormers, as the benchmark runs them.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow};

use crate::cgroup::Cgroup;
use crate::stormers::Kind;

/// They end with this value, or with the benchmark itself.
pub struct Storm {
    root: u32,
    lines: Lines<BufReader<ChildStdout>>,
    init: Child,
    cgroup: Cgroup,
}

impl Storm {
    /// Starts them, and waits until there are as many as there should be.
    pub fn begin(kind: Kind) -> Result<Self> {
        let cgroup = Cgroup::create("storm").map_err(|reason| anyhow!(reason))?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["stormers", &kind.to_string()]).arg(cgroup.directory());
        let mut init = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(init.stdout.take().context("no stdout")?).lines();
        let mut storm = Self { root: 0, lines, init, cgroup };
        storm.root = storm.line()?.parse()?;
        storm.line()?;
        Ok(storm)
    }

    pub fn root(&self) -> u32 {
        self.root
    }

    /// The forks so far. Only grows.
    pub fn forks(&mut self) -> Result<f64> {
        self.init.stdin.as_mut().context("no stdin")?.write_all(b"\n")?;
        Ok(self.line()?.parse()?)
    }

    /// The CPU so far, in seconds.
    pub fn charged(&self) -> f64 {
        self.cgroup.usage()
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the stormers have ended")??)
    }
}

impl Drop for Storm {
    /// Their init, which is outside the cgroup, whose turn is next.
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}
