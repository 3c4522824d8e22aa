//! What a guard says of a kill: the one line that an operator has when the keeper is gone. Pure, but for the time of day.

use std::path::Path;

use stolon::{model::Moment, task::clock};

use super::core::Armed;
use crate::pg::{Killed, ProcessId};

/// The line about a kill, in the form of the keeper's log, which is where it goes.
pub(super) fn obituary(
    dir: &Path,
    postmaster: Option<ProcessId>,
    armed: Option<Armed>,
    prolonged: Option<Moment>,
    began: Moment,
    killed: Killed,
) -> String {
    let due = armed.filter(|armed| began >= armed.until);
    let why = match (due, armed) {
        (Some(Armed { epoch, .. }), _) => {
            let since = prolonged.map(|at| format!(" (last prolonged {})", clock::rfc3339_at(at))).unwrap_or_default();
            format!("no authority any more for epoch {epoch}{since}")
        }
        (None, Some(Armed { epoch, .. })) => {
            format!("the primary of epoch {epoch} has lost its postmaster, and no keeper is there")
        }
        (None, None) => "the primary has lost its postmaster, and no keeper is there".to_owned(),
    };
    let at = clock::rfc3339_at(clock::now());
    let pid = postmaster.map(|id| format!(" postmaster={}", id.pid)).unwrap_or_default();
    let late = due.map(|due| format!(" after_deadline_ms={}", (began + killed.took).since(due.until).as_millis()));
    let Killed { processes, took, lingering } = killed;
    format!(
        "{at} ERROR stolon_keeper::guard: {why}: PostgreSQL was killed data_dir={}{pid} processes={processes} \
         lingering={lingering} took_ms={}{}",
        dir.display(),
        took.as_millis(),
        late.unwrap_or_default()
    )
}
