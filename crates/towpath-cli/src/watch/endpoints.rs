//! Asking programs for their tasks: every program that lets itself be inspected and admits us.

#![forbid(unsafe_code)]

use std::time::Duration;

use towpath_diag::monotonic;

use super::tasks::{Task, Tasks};
use crate::tasks::endpoint::{self, endpoints};

/// How long a program may take. One that is stopped holds up the others for so long; the table does not wait.
const PATIENCE: Duration = Duration::from_millis(500);

/// The tasks of all of them that wait on a socket. Who does not answer has none.
pub(super) fn ask() -> Tasks {
    let mut tasks = Tasks::default();
    for endpoint in endpoints() {
        let Ok(dump) = endpoint.ask(false, PATIENCE) else { continue };
        for task in dump.tasks {
            if let Some(cookie) = task.cookie {
                tasks.add(cookie, known(dump.pid, task));
            }
        }
    }
    tasks
}

fn known(pid: u32, task: endpoint::Task) -> Task {
    let waited = task.since_us.map(Duration::from_micros).unwrap_or_default();
    Task {
        pid,
        id: task.id,
        name: task.name,
        state: task.state,
        op: task.op,
        since: monotonic().saturating_sub(waited),
        spawned_at: task.spawned_at,
    }
}
