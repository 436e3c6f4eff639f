//! Parking: the only way to wait. A task parks by leaving its fiber, a plain thread by blocking on a condition variable,
//! and [`Unparker`] ends either.
//!
//! An unpark is remembered until the next park, which then returns at once; several before it count as one. So whoever
//! parks looks at what it waits for again each time `park` returns, and no wake-up is lost between the look and the park.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::task::Task;
use super::worker;
use crate::time::Instant;

#[cfg(towpath_loom)]
use loom::sync::{Condvar, Mutex};
#[cfg(not(towpath_loom))]
use std::sync::{Condvar, Mutex};

/// A handle that ends the park of one task or thread. Counted: it may outlive both.
#[derive(Clone, Debug)]
pub(crate) enum Unparker {
    Task(Arc<Task>),
    Thread(Arc<ThreadParker>),
}

impl Unparker {
    /// Parks the caller, whose own handle this is.
    pub(crate) fn park(&self, wait: Wait, deadline: Option<Instant>) -> Result<Parked, Cancelled> {
        match self {
            Unparker::Task(_) => park(wait, deadline),
            Unparker::Thread(thread) => thread.park(deadline),
        }
    }

    pub(crate) fn unpark(&self) {
        match self {
            Unparker::Task(task) => task.unpark(),
            Unparker::Thread(thread) => thread.unpark(),
        }
    }
}

/// What ended a park.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parked {
    /// Somebody called `unpark`, or nobody did: look again.
    Unparked,
    /// The deadline has passed.
    TimedOut,
}

/// What a parked task waits for, for the task dump: an operation, and the descriptor if it is one on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) op: Op,
    pub(crate) fd: Option<RawFd>,
}

impl From<Op> for Wait {
    fn from(op: Op) -> Wait {
        Wait { op, fd: None }
    }
}

/// An operation that can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Op {
    Sleep = 1,
    Read,
    Write,
    WriteTurn,
    Accept,
    Connect,
    Receive,
    Send,
    Select,
    Join,
    Shutdown,
}

impl Op {
    pub(crate) const ALL: [Op; 11] = {
        use Op::*;
        [Sleep, Read, Write, WriteTurn, Accept, Connect, Receive, Send, Select, Join, Shutdown]
    };

    pub(crate) fn name(self) -> &'static str {
        match self {
            Op::Sleep => "sleep",
            Op::Read => "read",
            Op::Write => "write",
            Op::WriteTurn => "write (another write first)",
            Op::Accept => "accept",
            Op::Connect => "connect",
            Op::Receive => "recv",
            Op::Send => "send",
            Op::Select => "select",
            Op::Join => "join",
            Op::Shutdown => "shutdown",
        }
    }
}

/// The handle that ends the caller's own next park.
pub(crate) fn current() -> Unparker {
    match worker::current() {
        Some(worker) => Unparker::Task(worker.running_task()),
        None => Unparker::Thread(ThreadParker::current()),
    }
}

/// Parks the caller until it is unparked or `deadline` has passed.
pub(crate) fn park(wait: Wait, deadline: Option<Instant>) -> Result<Parked, Cancelled> {
    match worker::current() {
        Some(worker) => worker.park(wait, deadline),
        None => ThreadParker::current().park(deadline),
    }
}

/// Counts a call that did not have to wait; after a number of them in a row the task lets others run first.
pub(crate) fn spend() {
    if let Some(worker) = worker::current() {
        worker.spend();
    }
}

/// Refuses to wait where waiting would be wrong: a caller checks this before it changes anything for the wait's sake.
pub(crate) fn may_wait() -> Result<(), Cancelled> {
    if worker::current().is_some() && std::thread::panicking() {
        return Err(Cancelled { reason: Reason::Panicking });
    }
    fork::check()
}

/// The error of a call that would have had to wait and was not allowed to.
///
/// It is not a time-out: nothing was late. The call did nothing, and handed back what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled {
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The task unwinds: parked now, it would make other tasks of its thread look panicking.
    Panicking,
    /// A child made by a bare fork(2) has none of its parent's threads.
    Forked { child: u32 },
}

impl Cancelled {
    /// Whether the call was refused because its task is panicking: a destructor that runs while a task unwinds may do
    /// what need not wait, and nothing else.
    pub fn is_panicking(&self) -> bool {
        self.reason == Reason::Panicking
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Panicking => f.write_str("the call would have to wait, and its task is panicking"),
            Reason::Forked { child } => write!(
                f,
                "the call would have to wait, and process {child} is a forked child without its parent's workers; \
                 call exec, or use the library before any fork only in the parent"
            ),
        }
    }
}

impl std::error::Error for Cancelled {}

impl From<Cancelled> for io::Error {
    fn from(cancelled: Cancelled) -> io::Error {
        match cancelled.reason {
            Reason::Panicking => io::Error::from_raw_os_error(libc::ECANCELED),
            Reason::Forked { .. } => io::Error::other(cancelled),
        }
    }
}

/// Whether an I/O error says that the call was cancelled: std has no [`io::ErrorKind`] for it.
///
/// ```
/// let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
/// assert!(!towpath::is_cancelled(&late));
/// ```
pub fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED) || error.get_ref().is_some_and(|inner| inner.is::<Cancelled>())
}

/// How a plain thread parks.
#[derive(Debug)]
pub(crate) struct ThreadParker {
    /// An unpark has come and no park has taken it.
    unparked: Mutex<bool>,
    changed: Condvar,
}

impl ThreadParker {
    fn new() -> Arc<ThreadParker> {
        Arc::new(ThreadParker { unparked: Mutex::new(false), changed: Condvar::new() })
    }

    #[cfg(not(towpath_loom))]
    fn current() -> Arc<ThreadParker> {
        thread_local!(static PARKER: Arc<ThreadParker> = ThreadParker::new());
        // A destructor of a thread-local may run after ours: then a parker for this one wait does as well.
        PARKER.try_with(Arc::clone).unwrap_or_else(|_| ThreadParker::new())
    }

    #[cfg(towpath_loom)]
    fn current() -> Arc<ThreadParker> {
        loom::thread_local!(static PARKER: Arc<ThreadParker> = ThreadParker::new());
        PARKER.with(Arc::clone)
    }

    fn unpark(&self) {
        *self.unparked.lock().expect("no code of the user's runs under this lock") = true;
        self.changed.notify_one();
    }

    fn park(&self, deadline: Option<Instant>) -> Result<Parked, Cancelled> {
        fork::check()?;
        let mut unparked = self.unparked.lock().expect("no code of the user's runs under this lock");
        loop {
            if std::mem::take(&mut *unparked) {
                return Ok(Parked::Unparked);
            }
            unparked = match deadline.map(|d| d.duration_since(Instant::now())) {
                None => self.changed.wait(unparked).expect("as above"),
                Some(Duration::ZERO) => return Ok(Parked::TimedOut),
                Some(left) => self.changed.wait_timeout(unparked, left).expect("as above").0,
            };
        }
    }
}

/// Knowing a forked child for what it is: fork(2) copies the thread that calls it and no other.
pub(crate) mod fork {
    use super::*;

    /// The process id of the child, once this is one; 0 where no fork has happened since the first runtime started.
    static CHILD: AtomicU32 = AtomicU32::new(0);

    /// Has the C library tell every later child of this process what it is. Called when a runtime starts.
    pub(crate) fn watch() {
        static ONCE: std::sync::Once = std::sync::Once::new();
        extern "C" fn in_child() {
            CHILD.store(std::process::id(), Ordering::Relaxed);
        }
        ONCE.call_once(|| {
            // SAFETY: the handler stores to an atomic and asks for the process id, both allowed in a forked child.
            let status = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
            if status != 0 {
                log::warn!("towpath cannot tell forked children apart: {}", io::Error::from_raw_os_error(status));
            }
        });
    }

    pub(crate) fn check() -> Result<(), Cancelled> {
        match CHILD.load(Ordering::Relaxed) {
            0 => Ok(()),
            child => Err(Cancelled { reason: Reason::Forked { child } }),
        }
    }
}
