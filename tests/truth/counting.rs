//! What is counted besides CPU, of processes that nobody sees.

use crate::counted::{NAPPERS, TURNS};
use crate::running::Workload;
use crate::support::PublicBinary;
use crate::watcher::{Target, Watcher, Way};
use crate::{Said, Skipped};

/// `started`, `exited` and `n_zombie` are exact for whoever is told of births, whatever becomes of the dead.
pub fn births_and_deaths() -> Result<Vec<Said>, Skipped> {
    let mut workload = Workload::start("lives")?;
    let public = PublicBinary::new();
    let targets = [Target { name: "lives".into(), selector: format!("pid = {}", workload.root) }];
    let start = |way| Watcher::start(way, &targets, &["psstat"], &public);
    let ways = Way::possible().into_iter().filter(|way| *way != Way::Scan);
    let mut watchers: Vec<_> = ways.map(start).collect();
    let counts = |watcher: &mut Watcher| {
        let answer = watcher.gather();
        ["started", "exited", "n_zombie", "n_proc"].map(|field| answer.number("psstat", "lives", field))
    };
    let before: Vec<_> = watchers.iter_mut().map(counts).collect();
    let (mut said, mut born, mut gone) = (Vec::new(), 0, 0);
    for turn in &TURNS {
        workload.cue();
        assert_eq!(workload.line(), "done");
        workload.await_orphans();
        born += turn.lives;
        gone += turn.lives - turn.zombies + turn.reaped;
        for (watcher, before) in watchers.iter_mut().zip(&before) {
            let now = counts(watcher);
            let [started, exited, zombies, alive] = [now[0] - before[0], now[1] - before[1], now[2], now[3]];
            // Whether a zombie has exited is left open; when it is reaped, it has.
            let exits = f64::from(gone)..=f64::from(gone + turn.zombies);
            let is_right = started == f64::from(born)
                && exits.contains(&exited)
                && zombies == f64::from(turn.zombies)
                && alive == 1.0;
            let so_far = format!("started {started}, exited {exited}, n_zombie {zombies}, n_proc {alive}");
            let text = format!("{}, {}: {so_far}", turn.what, watcher.way.title());
            let wrong = format!("{text}; IT WERE {born}, {gone}, {} AND 1", turn.zombies);
            let must_be_right = watcher.way == Way::Events || watcher.knows_births();
            said.push(if is_right || !must_be_right { Ok(text) } else { Err(wrong) });
        }
    }
    said.extend(watchers.iter().map(Watcher::accounting));
    Ok(said)
}

/// How often the unseen were switched from is known from their exit records; they say themselves how often that was. After
/// that each is switched from once or twice more, which may be in the record or not, and its first time on a CPU
/// is none of those.
pub fn switches_of_the_unseen() -> Result<Vec<Said>, Skipped> {
    let mut workload = Workload::start("naps")?;
    let public = PublicBinary::new();
    let targets = [Target { name: "naps".into(), selector: format!("pid = {}", workload.root) }];
    let ways = Way::possible().into_iter().filter(|way| *way == Way::Events);
    let mut said = Vec::new();
    for way in ways {
        let mut watcher = Watcher::start(way, &targets, &["psstat", "taskstat"], &public);
        let mut counts = || {
            let answer = watcher.gather();
            ["nvcsw", "nivcsw", "cpu_count"].map(|field| answer.number("taskstat", "naps", field))
        };
        let before = counts();
        workload.cue();
        let line = workload.line();
        workload.await_orphans();
        let now = counts();
        let [nvcsw, nivcsw, cpu_count] = [0, 1, 2].map(|index: usize| now[index] - before[index]);
        let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let [voluntary, not] = numbers[..] else { panic!("not two numbers: {line}") };
        // An orphan comes with a parent that leaves it.
        let slack = 2.0 * f64::from(3 * NAPPERS);
        let checks = [("nvcsw", nvcsw, voluntary), ("cpu_count", cpu_count, voluntary + not)];
        for (field, counted, right) in checks {
            let text = format!("{field}, {}: {counted}, of {right} that they say themselves", way.title());
            let is_right = (counted - right).abs() <= slack;
            said.push(if is_right { Ok(text) } else { Err(format!("{text}; MORE THAN {slack} FROM THAT")) });
        }
        let text = format!("nivcsw, {}: {nivcsw}, of {not}", way.title());
        said.push(if nivcsw <= not + slack { Ok(text) } else { Err(format!("{text}; TOO MANY")) });
        said.push(watcher.accounting());
    }
    Ok(said)
}
