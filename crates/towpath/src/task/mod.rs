//! Tasks: [`spawn`], [`JoinHandle`], [`Builder`], and what a running task may ask of its worker.
//!
//! A task is what a thread is to `std::thread`, at the price of a few hundred nanoseconds and one page of memory. Once it
//! has started it stays on its worker, so addresses of thread-locals stay valid in it, and `spawn` can be safe.

mod builder;
mod dump;
mod join;

use std::fmt;
use std::num::NonZeroU64;

pub use builder::{Builder, spawn, spawn_blocking, spawn_local, unblock};
pub(crate) use dump::JSON_VERSION;
pub use dump::{Arm, Backtrace, ChannelInfo, SocketInfo, StackInfo, TaskDump, TaskInfo, TaskState, WaitsOn, dump};
pub use join::{JoinError, JoinHandle};

use crate::runtime::record::Record;
use crate::runtime::worker;

/// A task as others know it: the counterpart of `std::thread::Thread`.
#[derive(Clone)]
pub struct Task {
    record: Record,
}

/// A number that names one task among all of the process, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(NonZeroU64);

impl Task {
    fn new(record: Record) -> Task {
        Task { record }
    }

    /// The task's number.
    pub fn id(&self) -> TaskId {
        TaskId(NonZeroU64::new(self.record.id).expect("task numbers start at 1"))
    }

    /// The name given to [`Builder::name`], if any.
    pub fn name(&self) -> Option<&str> {
        self.record.name()
    }
}

impl TaskId {
    pub(crate) fn number(self) -> u64 {
        self.0.get()
    }

    fn from_number(number: u64) -> Option<TaskId> {
        NonZeroU64::new(number).map(TaskId)
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("id", &self.id()).field("name", &self.name()).finish()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The task that calls this; `None` on a plain thread.
///
/// ```
/// assert!(towpath::task::current().is_none());
/// let id = towpath::spawn(|| towpath::task::current().map(|task| task.id()));
/// let expected = id.task().id();
/// assert_eq!(id.join().unwrap(), Some(expected));
/// ```
pub fn current() -> Option<Task> {
    worker::current().map(|worker| Task::new(worker.running_task().to_record()))
}

/// Lets other ready tasks of this worker run before this one goes on. On a plain thread, `std::thread::yield_now`.
///
/// A task that waits now and then need not call this; a long computation should, every millisecond or so.
pub fn yield_now() {
    match worker::current() {
        Some(worker) => worker.yield_now(),
        None => std::thread::yield_now(),
    }
}
