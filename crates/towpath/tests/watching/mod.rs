//! What the tests of tasks and channels look at from outside: what a task waits in, and the process's threads and memory
//! as proc(5) has them. Relies on `common` for waiting.

#![allow(dead_code, reason = "each test file is compiled with the whole of it, and uses its part")]

use std::fs;

use towpath::task::{self, JoinHandle};

use crate::common::until;

/// Waits until the task waits in that operation, as the task dump of the calling task's runtime names it (of the default
/// one's on a plain thread).
pub(crate) fn until_parked<T>(task: &JoinHandle<T>, operation: &str) {
    let id = task.task().id();
    until(|| {
        assert!(!task.is_finished(), "the task was to wait in {operation}, and has ended");
        task::dump().tasks().iter().any(|task| task.id() == id && task.operation() == Some(operation))
    });
}

/// How many threads of this process have a name that begins like this.
pub(crate) fn threads_named(beginning: &str) -> usize {
    loop {
        // A thread may end while we look, and then the listing may leave out another one.
        let threads: Vec<_> = fs::read_dir("/proc/self/task").unwrap().flatten().collect();
        let names: Vec<_> = threads.iter().map(|thread| fs::read_to_string(thread.path().join("comm"))).collect();
        if names.iter().all(Result::is_ok) && names.len() == row("Threads").parse().unwrap() {
            return names.iter().flatten().filter(|name| name.starts_with(beginning)).count();
        }
    }
}

/// A figure of this process in KiB: `VmRSS`, `VmSize`, … (proc(5), `status`).
pub(crate) fn memory(figure: &str) -> usize {
    row(figure).strip_suffix(" kB").unwrap().parse().unwrap()
}

fn row(figure: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let row = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
    row.unwrap_or_else(|| panic!("proc(5) has no {figure}")).trim().to_owned()
}
