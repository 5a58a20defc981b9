//! Who is there while one thread takes another's place.

use std::fs;
use std::path::Path;

use telegraf_taskstats::kernel::procfs::Proc;

use crate::running::Workload;
use crate::{Said, Skipped, support};

/// How often /proc has to show a process as one that is being released, which it is not. What we read ourselves must then have
/// met that, too, as often as not.
const GLIMPSES: u32 = 10;

/// So often it is looked for. Where a glimpse of it is rarer than one in a hundred thousand, there may be none: on one CPU.
const READINGS: u32 = 10_000_000;

/// A process of which another thread than the leader execs is there all the time.
pub fn there_while_another_leads() -> Result<Vec<Said>, Skipped> {
    let workload = Workload::start("execs_from_thread")?;
    let mut proc = Proc::open(Path::new("/proc")).unwrap();
    let (mut glimpses, mut readings, mut missed) = (0, 0, 0);
    while glimpses < GLIMPSES {
        if readings == READINGS {
            support::skip(&format!(
                "a process that execs was seen as being released only {glimpses} times of {readings}"
            ));
            break;
        }
        readings += 1;
        missed += u32::from(proc.find(workload.root).unwrap().is_none());
        glimpses += u32::from(seems_released(workload.root));
    }
    let text = format!("seen as being released {glimpses} times, missed {missed} times of {readings}");
    Ok(vec![if missed == 0 { Ok(text) } else { Err(text) }])
}

fn seems_released(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the workload goes on");
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('X'))
}
