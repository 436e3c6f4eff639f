//! [`dump`]: every live task, what it waits for, until when and since when; on request, by which calls it came there.
//!
//! [`TaskDump::take`] asks the workers (`runtime::inspect`), then the kernel about what they told: which sockets the
//! descriptors are, how deep the stacks have been. `table` and `json` write it down, `backtrace` finds names for addresses.

#![forbid(unsafe_code)]

mod backtrace;
mod json;
mod table;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

pub use backtrace::Backtrace;
pub(crate) use json::VERSION as JSON_VERSION;

use super::{Task, TaskId};
use crate::net::sys;
use crate::runtime::inspect::{Seen, Sight, State};
use crate::runtime::wait::{On, Op};
use crate::runtime::{self, Shared, resident};
use crate::time::Instant;

/// The tasks of a runtime, each as it was at a moment of its own. `Display` prints a table with a line for each.
#[derive(Clone, Debug)]
pub struct TaskDump {
    tasks: Vec<TaskInfo>,
    workers: usize,
    silent: Vec<Arc<str>>,
    of: Vec<Arc<Shared>>,
}

/// What a dump says of one task.
#[derive(Clone, Debug)]
pub struct TaskInfo {
    task: Task,
    worker: Arc<str>,
    state: TaskState,
    waiting: Option<Waiting>,
    stack: StackInfo,
    backtrace: Option<Backtrace>,
}

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskState {
    /// It is on its worker's thread.
    Running,
    /// It could go on and has not been given its turn, or has yet to start.
    Ready,
    /// It is parked.
    Waiting,
}

#[derive(Clone, Debug)]
struct Waiting {
    op: Op,
    on: Option<WaitsOn>,
    since: Instant,
    lasted: Duration,
    deadline: Option<Instant>,
}

/// What a waiting task waits on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitsOn {
    /// A socket.
    Socket(SocketInfo),
    /// A channel.
    Channel(ChannelInfo),
    /// The end of another task. One that was spawned with [`spawn_blocking`](super::spawn_blocking), as
    /// [`unblock`](super::unblock) does, is on a thread of its own and in no dump.
    Task(TaskId),
    /// The first of several: the arms of a [`select!`](crate::select) that can still go ahead.
    Select(Vec<Arm>),
}

/// A socket that a task waits on.
///
/// The addresses and the cookie are the kernel's answers, and are there only if the task was still in the same wait when
/// they had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketInfo {
    /// Its descriptor.
    pub fd: i32,
    /// Its own address, if it is an internet address.
    pub local: Option<SocketAddr>,
    /// The other end's. A listener has none.
    pub peer: Option<SocketAddr>,
    /// The kernel's number for it (SO_COOKIE, socket(7)), as `ss -e` and sock_diag(7) give it.
    pub cookie: Option<u64>,
}

/// A channel that a task waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// The same for all who wait on the same channel: its address.
    pub id: u64,
    /// The messages in its buffer; `None` if the worker did not answer.
    pub len: Option<usize>,
    /// How many it can hold; `None` if it is unbounded, or the worker did not answer.
    pub capacity: Option<usize>,
}

/// An arm of a select that a task waits in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arm {
    /// What it would do: `recv`, `send`, `join`.
    pub operation: &'static str,
    /// And on what.
    pub on: Option<WaitsOn>,
}

/// A task's stack, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackInfo {
    /// Its address space, guard included, as in [`Builder::stack_size`](super::Builder::stack_size).
    pub size: usize,
    /// What is in use, while the task is suspended; `None` while it runs and before its first suspension.
    pub in_use: Option<usize>,
    /// How deep it has been, in whole pages: down to the lowest that holds memory. What is given back after some seconds
    /// in a wait is not counted, and what earlier tasks left there is. `None` while the task runs and before its start.
    pub high_water: Option<usize>,
}

/// Lists the live tasks of the calling task's runtime; on a plain thread, of the default one.
///
/// No worker is stopped: each tells of its tasks between two of them, and goes back to running them after a quarter of a
/// millisecond. A worker that has not answered for half a second, because a task holds it up, is told by
/// [`TaskDump::silent`]; of its tasks the dump knows nothing but what they wait for, and which of them runs.
///
/// A call from a task may let other tasks run first, as every call may that can wait. In a forked child, which has none of
/// its parent's workers, there are no tasks to tell of.
///
/// ```
/// let handle = towpath::spawn(|| println!("{}", towpath::task::dump()));
/// handle.join().unwrap();
/// ```
///
/// # Panics
/// If the default runtime is needed and cannot start.
pub fn dump() -> TaskDump {
    TaskDump::take(vec![runtime::current()])
}

impl TaskDump {
    pub(crate) fn take(of: Vec<Arc<Shared>>) -> TaskDump {
        let mut dump = TaskDump { tasks: Vec::new(), workers: 0, silent: Vec::new(), of };
        for runtime in &dump.of {
            let Sight { seen, silent } = runtime.look(false);
            dump.workers += runtime.remotes().len();
            dump.silent.extend(silent);
            dump.tasks.extend(describe(seen, runtime.stack_size));
        }
        dump.tasks.sort_by_key(TaskInfo::id);
        dump
    }

    /// Asks the workers once more, for the backtraces of the tasks that are still in the wait that they were found in.
    ///
    /// A task does not notice: its worker resumes it just far enough that it takes down the addresses of its callers. That
    /// takes some ten microseconds a task; names are found on the calling thread when the backtrace is printed. A task with
    /// less than 8 KiB of stack left has no backtrace.
    pub fn with_backtraces(mut self) -> TaskDump {
        let mut frames = HashMap::new();
        for runtime in &self.of {
            let Sight { seen, silent } = runtime.look(true);
            frames.extend(seen.into_iter().map(|seen| (seen.task.id, (since(&seen), seen.frames))));
            self.silent.extend(silent);
        }
        self.silent.sort_unstable();
        self.silent.dedup();
        for task in &mut self.tasks {
            let found = frames.remove(&task.id().number());
            let same = found.filter(|(since, _)| *since == task.waiting.as_ref().map(|waiting| waiting.since));
            task.backtrace = same.and_then(|(_, frames)| frames).map(Backtrace::new);
        }
        self
    }

    /// The tasks, by number.
    pub fn tasks(&self) -> &[TaskInfo] {
        &self.tasks
    }

    /// How many workers the runtime has.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The workers that did not answer, by the names of their threads: each is held up by the task that it runs, or is given no
    /// processor.
    pub fn silent(&self) -> impl Iterator<Item = &str> {
        self.silent.iter().map(|name| &**name)
    }
}

/// When the wait began that a task was found in.
fn since(seen: &Seen) -> Option<Instant> {
    match seen.state {
        State::Waiting { since, .. } => Some(since),
        State::Running | State::Ready => None,
    }
}

/// Adds what the kernel knows.
fn describe(seen: Vec<Seen>, stack_size: usize) -> impl Iterator<Item = TaskInfo> {
    let sockets: Vec<_> = seen.iter().map(socket).collect();
    let stacks: Vec<_> = seen.iter().map(|seen| seen.stack.clone().unwrap_or_default()).collect();
    let depths = resident::depths(&stacks);
    let now = Instant::now();
    seen.into_iter().zip(sockets).zip(depths).map(move |((seen, socket), depth)| {
        let size = seen.task.stack_size().map_or(stack_size, usize::from);
        let in_use = seen.stack.as_ref().zip(seen.stack_pointer).map(|(stack, pointer)| stack.end - pointer);
        let high_water = depth.filter(|_| seen.stack.is_some()).max(in_use);
        let (state, waiting) = match seen.state {
            State::Running => (TaskState::Running, None),
            State::Ready => (TaskState::Ready, None),
            State::Waiting { what, on, since, deadline } => {
                let on = socket.map(WaitsOn::Socket).or_else(|| WaitsOn::from(on));
                let waiting = Waiting { op: what.op(), on, since, lasted: now.duration_since(since), deadline };
                (TaskState::Waiting, Some(waiting))
            }
        };
        let stack = StackInfo { size, in_use, high_water };
        TaskInfo {
            task: Task::new(seen.task),
            worker: seen.remote.name.clone(),
            state,
            waiting,
            stack,
            backtrace: None,
        }
    })
}

/// The socket that a task waits on. The kernel is asked by the descriptor's number, which means the same socket for as long
/// as the task waits on it: so what it says counts only if that wait is not over.
fn socket(seen: &Seen) -> Option<SocketInfo> {
    let State::Waiting { on: On::Descriptor(fd), .. } = seen.state else { return None };
    let ends = sys::ends(fd);
    fence(Ordering::Acquire); // the look at the task comes after the answers
    let sys::Ends { local, peer, cookie } = if seen.still_waits() { ends } else { sys::Ends::default() };
    Some(SocketInfo { fd, local, peer, cookie })
}

impl WaitsOn {
    fn from(on: On) -> Option<WaitsOn> {
        match on {
            On::Nothing => None,
            On::Descriptor(fd) => Some(WaitsOn::Socket(SocketInfo { fd, local: None, peer: None, cookie: None })),
            On::Channel { id, fill } => {
                let (len, capacity) = (fill.map(|fill| fill.len), fill.and_then(|fill| fill.capacity));
                Some(WaitsOn::Channel(ChannelInfo { id, len, capacity }))
            }
            On::Task(id) => TaskId::from_number(id).map(WaitsOn::Task),
            On::Arms(arms) => {
                let arm = |(op, on): (Op, On)| Arm { operation: op.name(), on: WaitsOn::from(on) };
                Some(WaitsOn::Select(arms.into_iter().map(arm).collect()))
            }
        }
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

    /// What the task does.
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// The operation that the task waits in (`read`, `accept`, `recv`, `sleep`, …), or `None` while it runs or is ready to.
    pub fn operation(&self) -> Option<&'static str> {
        self.waiting.as_ref().map(|waiting| waiting.op.name())
    }

    /// What the task waits on, if the operation is on something.
    pub fn waits_on(&self) -> Option<&WaitsOn> {
        self.waiting.as_ref()?.on.as_ref()
    }

    /// The number of the descriptor that the task waits on, if the operation has one.
    pub fn fd(&self) -> Option<i32> {
        match self.waits_on()? {
            WaitsOn::Socket(socket) => Some(socket.fd),
            _ => None,
        }
    }

    /// How long the task has waited.
    pub fn waiting_for(&self) -> Option<Duration> {
        self.waiting.as_ref().map(|waiting| waiting.lasted)
    }

    /// When the wait will end by itself, if it has a deadline: a sleep's end, for one. One of a socket's that was moved to
    /// a later time shows when the earlier one is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.as_ref()?.deadline
    }

    /// Where the task was spawned.
    pub fn spawned_at(&self) -> &'static Location<'static> {
        self.task.record.spawned_at()
    }

    /// The name of the thread of the task's worker. One that has not started may yet start on another.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// The task's stack.
    pub fn stack(&self) -> StackInfo {
        self.stack
    }

    /// By which calls the task came to where it is; see [`TaskDump::with_backtraces`].
    pub fn backtrace(&self) -> Option<&Backtrace> {
        self.backtrace.as_ref()
    }
}
