//! Which task uses a socket: what programs tell that let themselves be inspected, by the socket's cookie.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use super::table::Moment;

/// A task, as far as a socket is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) pid: u32,
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    /// `running`, `ready` or `waiting`.
    pub(crate) state: String,
    /// What it waits in, such as `read`.
    pub(crate) op: Option<String>,
    /// Since when.
    pub(crate) since: Moment,
    /// `file:line`.
    pub(crate) spawned_at: String,
}

/// All tasks that use a socket.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    by_cookie: HashMap<u64, Vec<Task>>,
}

impl Tasks {
    /// Those that use the socket with this cookie.
    pub(crate) fn of(&self, cookie: u64) -> &[Task] {
        self.by_cookie.get(&cookie).map_or(&[], Vec::as_slice)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_cookie.is_empty()
    }

    /// Adds one.
    pub(crate) fn add(&mut self, cookie: u64, task: Task) {
        self.by_cookie.entry(cookie).or_default().push(task);
    }
}
