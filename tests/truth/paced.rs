//! Trees of ordinary hosts, watched in all ways by those who gather often and by those who gather rarely, all at once.

use std::fs;
use std::time::{Duration, Instant};

use crate::chains::{LAST_PID, OUT_OF_ORDER};
use crate::renamed::RENAMED;
use crate::running::Workload;
use crate::support::{self, PublicBinary};
use crate::verdict::{Standard, Verdict};
use crate::watcher::{Target, Watcher, Way};
use crate::{Said, Skipped};

/// The interval of those who gather most often; the others leave out so many.
const STEP: Duration = Duration::from_millis(250);
const PACES: [usize; 3] = [1, 4, 10];
/// After so many steps, at a gather of those who gather most rarely, a workload is cued.
const TURN: usize = 10;
/// Where gathers take long, a turn has fewer steps.
const LONG_TURN: Duration = Duration::from_secs(3);
/// So many turns are measured.
const TURNS: usize = 4;

/// When something is to be done about the workload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After the first gathers that count, which all watchers make one after the other.
    Begin,
    /// Before those of the next turn: what the workload was cued to must be done.
    Turn,
    /// The same before the last ones, which again all make.
    End,
}

/// A workload that goes on as it began.
pub fn by_root(name: &str) -> Result<Vec<Said>, Skipped> {
    Ok(watch(&mut Workload::start(name)?, name, |_, _| ()))
}

/// The one that does something at each cue.
pub fn out_of_order() -> Result<Vec<Said>, Skipped> {
    if let Err(error) = fs::read(LAST_PID).and_then(|pid| fs::write(LAST_PID, pid)) {
        support::skip(&format!("pids cannot be made to wrap, since {LAST_PID} cannot be written: {error}"));
        return Err(Skipped);
    }
    let (name, _) = OUT_OF_ORDER;
    Ok(watch(&mut Workload::start(name)?, name, |workload, moment| {
        if moment != Moment::Begin {
            assert_eq!(workload.line(), "done");
        }
    }))
}

/// The one whose series are named by what its processes call themselves.
pub fn renamed() -> Result<Vec<Said>, Skipped> {
    let (name, _) = RENAMED;
    let mut workload = Workload::start(name)?;
    let target = Target { name: String::new(), selector: format!("pattern = \"^t{}-\"", workload.root) };
    Ok(measure(&mut workload, name, target, |_, _| ()))
}

/// Has a workload watched by its root.
pub fn watch(workload: &mut Workload, name: &str, at: impl FnMut(&mut Workload, Moment)) -> Vec<Said> {
    let target = Target { name: name.into(), selector: format!("pid = {}", workload.root) };
    measure(workload, name, target, at)
}

/// Standard for a watcher. A chain of thousands that exits while it is read is the one thing that is less exact: which reaped time has
/// which life is uncertain then, and single gathers were seen to report up to 6 % too little or 5 % too much of a run. Where thousands exit
/// one right after the other, the kernel charges no process for the last 10 to 20 µs of each, so that each way has a percent or two less.
fn standard(name: &str) -> Standard {
    let shares = match name {
        "chains_out_of_order" => [0.98, 1.01],
        "chains_of_shells" | "chains_of_vforks" => [0.93, 1.06],
        _ => [0.99, 1.01],
    };
    Standard { shares, ..Standard::least(0.99) }
}

/// Has one target watched in each way at each pace. Of each watcher at most 101 % is asked, but for 20 ms.
fn measure(
    workload: &mut Workload,
    name: &str,
    target: Target,
    mut at: impl FnMut(&mut Workload, Moment),
) -> Vec<Said> {
    let public = PublicBinary::new();
    let (ways, targets) = (Way::possible(), [target]);
    let all = PACES.into_iter().flat_map(|pace| ways.iter().map(move |way| (pace, *way)));
    let start = |(pace, way)| (pace, Watcher::start(way, &targets, &["psstat"], &public));
    let mut watchers: Vec<_> = all.map(start).collect();
    for (_, watcher) in &mut watchers {
        watcher.read(|| vec![workload.cgroup.usage()]);
    }
    let (mut step, mut turn_begun) = (0, Instant::now());
    loop {
        // Between gathers, not from the begin of one to that of the next: whoever watches thousands may take that long.
        std::thread::sleep(STEP);
        let is_turn = step % TURN == 0;
        let is_last = step == TURNS * TURN;
        if is_turn && step > 0 {
            at(workload, if is_last { Moment::End } else { Moment::Turn });
        }
        for (_, watcher) in watchers.iter_mut().filter(|(pace, _)| is_last || step % pace == 0) {
            watcher.read(|| vec![workload.cgroup.usage()]);
        }
        if is_last {
            break;
        }
        if step == 0 {
            at(workload, Moment::Begin);
        }
        if is_turn {
            workload.cue();
            turn_begun = Instant::now();
        }
        step += 1;
        if turn_begun.elapsed() > LONG_TURN {
            step = step.next_multiple_of(TURN);
        }
    }
    assert!(workload.process.try_wait().unwrap().is_none(), "the workload ended by itself");
    let mut said = Vec::new();
    for (pace, watcher) in &watchers {
        let every = STEP.as_secs_f64() * *pace as f64;
        let title = format!("{name}, {}, every {every} s", watcher.way.title());
        let readings = &watcher.readings[0];
        let standard = standard(name);
        let mut verdict = Verdict::on(&readings[1..], &standard, title.clone());
        if verdict.is_faultless() {
            // The very first answer may be long in coming, so that this says less, but it must hold as well.
            let from_the_first = Verdict::on(readings, &standard, format!("{title}, from the very first"));
            verdict = if from_the_first.is_faultless() { verdict } else { from_the_first };
        }
        said.push(if verdict.is_faultless() { Ok(verdict.to_string()) } else { Err(verdict.to_string()) });
        said.push(watcher.accounting());
    }
    said
}
