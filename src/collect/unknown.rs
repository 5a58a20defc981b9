//! Complaints about fields of stat whose text is not a number that they can have.

use std::collections::BTreeMap;

use super::Look;
use crate::kernel::stat::{Identity, Stat, Unknown};
use crate::log::Trouble;

/// First message about each process. The text of a field may differ at each gather; the first message is repeated, so
/// that the log takes it for the same.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeMap<(Identity, Unknown), String>);

impl Said {
    /// Complains about the unknown fields of some processes.
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

/// Formats a message with the process and its fields. The stat is read again, since the table does not keep the text.
fn message(stat: &Stat, look: &mut Look) -> String {
    let fields = look.proc.unknown_fields(stat.id.pid).unwrap_or_default();
    let fields = fields.into_iter().map(|(field, text)| {
        let (number, name) = field.number_and_name();
        format!("field {number}, {name}, is {text:?}")
    });
    let fields: Vec<_> = fields.collect();
    let which = if fields.is_empty() { "some fields are no numbers".to_owned() } else { fields.join("; ") };
    let (pid, comm) = (stat.id.pid, stat.comm.to_text());
    format!("Stat of process {pid} ({comm}): {which}; unknown until it is a number again, the rest counts")
}
