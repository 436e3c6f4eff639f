//! [`dump`]: every live task, what it waits for, and since when.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use super::{Task, TaskId};
use crate::runtime;
use crate::time::Instant;

/// The tasks of one runtime at one moment: `Display` prints a line for each.
#[derive(Clone, Debug)]
pub struct TaskDump {
    tasks: Vec<TaskInfo>,
}

/// What a dump says of one task.
#[derive(Clone, Debug)]
pub struct TaskInfo {
    task: Task,
    waiting: Option<Waiting>,
}

#[derive(Clone, Debug)]
struct Waiting {
    operation: &'static str,
    fd: Option<i32>,
    since: Duration,
}

/// Lists the live tasks of the calling task's runtime; on a plain thread, of the default one. It stops no worker: each line
/// is true of a moment of its own.
///
/// ```
/// let handle = towpath::spawn(|| println!("{}", towpath::task::dump()));
/// handle.join().unwrap();
/// ```
pub fn dump() -> TaskDump {
    runtime::current().dump()
}

impl runtime::Shared {
    pub(crate) fn dump(&self) -> TaskDump {
        let now = Instant::now();
        let mut tasks = Vec::new();
        for remote in self.remotes() {
            tasks.extend(remote.lock().live.iter().map(|task| TaskInfo {
                task: Task::new(task.record()),
                waiting: task.waiting().map(|(wait, since)| Waiting {
                    operation: wait.op.name(),
                    fd: wait.fd,
                    since: now.duration_since(since),
                }),
            }));
        }
        tasks.sort_by_key(TaskInfo::id);
        TaskDump { tasks }
    }
}

impl TaskDump {
    /// The tasks, by number.
    pub fn tasks(&self) -> &[TaskInfo] {
        &self.tasks
    }
}

impl TaskInfo {
    /// The task's number.
    pub fn id(&self) -> TaskId {
        self.task.id()
    }

    /// The task's name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.task.name()
    }

    /// The operation that the task waits in (`read`, `accept`, `recv`, `sleep`, …), or `None` while it runs or is ready to.
    pub fn operation(&self) -> Option<&'static str> {
        self.waiting.as_ref().map(|waiting| waiting.operation)
    }

    /// The number of the descriptor that the task waits on, if the operation has one.
    pub fn fd(&self) -> Option<i32> {
        self.waiting.as_ref()?.fd
    }

    /// How long the task has waited.
    pub fn waiting_for(&self) -> Option<Duration> {
        self.waiting.as_ref().map(|waiting| waiting.since)
    }

    /// Where the task was spawned.
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.task.record.spawned_at()
    }
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id(), self.name().unwrap_or("-"))?;
        match &self.waiting {
            None => write!(f, " running")?,
            Some(waiting) => {
                write!(f, " {}", waiting.operation)?;
                if let Some(fd) = waiting.fd {
                    write!(f, " fd {fd}")?;
                }
                write!(f, " {:.1?}", waiting.since)?;
            }
        }
        write!(f, " at {}", self.spawned_at())
    }
}

impl fmt::Display for TaskDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tasks.iter().try_for_each(|task| writeln!(f, "{task}"))
    }
}
