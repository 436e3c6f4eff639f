//! Parking: the only way to wait. A task parks by leaving its fiber, a plain thread by blocking on a condition variable,
//! and an [`Unparker`] ends either.
//!
//! Each park is ended by exactly one unpark, which may come before it: by whoever claims the waiter (`wait_queue`), or by
//! the deadline, which claims it as well. So nobody wakes up in vain, and what belongs to the wait may lie on the waiting
//! stack until then.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::task::TaskRef;
use super::wait::Wait;
use super::wait_queue::Waiter;
use super::worker;
use crate::time::Instant;

#[cfg(towpath_loom)]
use loom::sync::{Condvar, Mutex};
#[cfg(not(towpath_loom))]
use std::sync::{Condvar, Mutex};

/// Who waits: the task or the thread that made it, which is the one that parks with it.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    Task(TaskRef),
    Thread(Arc<ThreadParker>),
}

impl Owner {
    #[inline]
    pub(super) fn current() -> Owner {
        match worker::current() {
            Some(worker) => Owner::Task(worker.running_task()),
            None => Owner::Thread(ThreadParker::current()),
        }
    }

    /// Parks the caller, whose own `waiter` this is part of, until somebody has claimed that and unparked it, or until
    /// the deadline has passed and nobody can claim it any more.
    #[inline]
    pub(super) fn park(&self, waiter: &Waiter, wait: Wait<'_>, deadline: Option<Instant>) {
        match self {
            Owner::Task(_) => worker::current().expect("a task waits on its worker").park(waiter, wait, deadline),
            Owner::Thread(thread) => thread.park(waiter, deadline),
        }
    }
}

/// The duty to end one park, for whoever has claimed its waiter. Until it is done the waiting task cannot go on: its
/// stack stays as it is.
#[derive(Debug)]
#[must_use = "whoever has been claimed waits for ever unless it is unparked"]
pub(crate) struct Unparker(Owner);

impl Unparker {
    pub(super) fn new(owner: &Owner) -> Unparker {
        Unparker(owner.clone())
    }

    #[inline]
    pub(crate) fn unpark(self) {
        match self.0 {
            Owner::Task(task) => worker::enqueue(task),
            Owner::Thread(thread) => thread.unpark(),
        }
    }
}

/// Counts a call that did not have to wait; after a number of them in a row the task lets others run first.
#[inline]
pub(crate) fn spend() {
    if let Some(worker) = worker::current() {
        worker.spend();
    }
}

/// Refuses to wait where waiting would be wrong: a caller checks this before it changes anything for the wait's sake.
#[inline]
pub(crate) fn may_wait() -> Result<(), Cancelled> {
    if std::thread::panicking() && worker::current().is_some() {
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
    /// The unpark that its thread's park waits for has come.
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

    #[cold]
    fn unpark(&self) {
        *self.unparked.lock().expect("no code of the user's runs under this lock") = true;
        self.changed.notify_one();
    }

    #[cold]
    fn park(&self, waiter: &Waiter, mut deadline: Option<Instant>) {
        let mut unparked = self.unparked.lock().expect("no code of the user's runs under this lock");
        while !std::mem::take(&mut *unparked) {
            unparked = match deadline.map(|d| d.duration_since(Instant::now())) {
                None => self.changed.wait(unparked).expect("as above"),
                Some(Duration::ZERO) if waiter.abort() || cfg!(towpath_fault = "hasty_end") => return,
                Some(Duration::ZERO) => {
                    deadline = None; // whoever has claimed it is about to unpark us
                    unparked
                }
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
            crate::inspect::in_child();
        }
        ONCE.call_once(|| {
            // SAFETY: the handler stores to atomics, asks for the process id and closes a descriptor, all allowed in a forked
            // child.
            let status = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
            if status != 0 {
                log::warn!("towpath cannot tell forked children apart: {}", io::Error::from_raw_os_error(status));
            }
        });
    }

    #[inline]
    pub(crate) fn check() -> Result<(), Cancelled> {
        match CHILD.load(Ordering::Relaxed) {
            0 => Ok(()),
            child => Err(Cancelled { reason: Reason::Forked { child } }),
        }
    }
}
