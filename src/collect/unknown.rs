//! What is said of fields of stat that are not numbers that they can have.

use std::collections::BTreeMap;

use super::Look;
use crate::kernel::stat::{Identity, Stat, Unknown};
use crate::log::Trouble;

/// What was said of each process. The text of a field may be another at each gather: what was said first is said again, which
/// the log takes for the same.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeMap<(Identity, Unknown), String>);

impl Said {
    /// Says what is unknown of these processes now.
    pub(super) fn complain(&mut self, stats: &[&Stat], look: &mut Look) {
        let mut before = std::mem::take(&mut self.0);
        for stat in stats.iter().filter(|stat| !stat.unknown.is_empty()) {
            let key = (stat.id, stat.unknown);
            let message = before.remove(&key).unwrap_or_else(|| message(stat, look));
            look.complaints.add(Trouble::Failed, message.clone());
            self.0.insert(key, message);
        }
    }
}

/// Names the process and the fields. They are read once more, since what is kept of them is that they are unknown.
fn message(stat: &Stat, look: &mut Look) -> String {
    let fields = look.proc.unknown_fields(stat.id.pid).unwrap_or_default();
    let fields = fields.into_iter().map(|(field, text)| {
        let (number, name) = field.number_and_name();
        format!("field {number}, {name}, is {text:?}")
    });
    let fields: Vec<_> = fields.collect();
    let which = if fields.is_empty() { "some fields are no numbers".to_owned() } else { fields.join("; ") };
    let (pid, comm) = (stat.id.pid, stat.comm.to_text());
    format!(
        "Of the stat of process {pid} ({comm}) {which}: that is unknown until the kernel says a number, the rest counts"
    )
}
