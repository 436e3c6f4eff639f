//! [`JoinHandle`]: a task's owner, its result, and how waiting for it can fail.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;

use super::Task;
use crate::runtime::completion::Completion;
use crate::runtime::park::Cancelled;
use crate::runtime::record::Record;
use crate::runtime::resume_panic;

/// The right to wait for a task and to have what it returned. Dropping it lets the task run on alone.
///
/// ```
/// let handle = towpath::spawn(|| 6 * 7);
/// assert_eq!(handle.join().unwrap(), 42);
/// ```
///
/// What [`spawn`](super::spawn) is given and what it returns may both cross to another thread:
///
/// ```compile_fail,E0277
/// let mine = std::rc::Rc::new(1);
/// drop(towpath::spawn(move || drop(mine)));
/// ```
/// ```compile_fail,E0277
/// drop(towpath::spawn(|| std::rc::Rc::new(1)));
/// ```
///
/// A value that may not stays on its thread, and so does its handle; only [`spawn_local`](super::spawn_local) makes one:
///
/// ```compile_fail,E0277
/// drop(towpath::spawn(|| {
///     let handle = towpath::task::spawn_local(|| std::rc::Rc::new(1));
///     std::thread::spawn(move || drop(handle));
/// }));
/// ```
#[must_use = "a handle that is dropped at once leaves nobody to see the task's panic; say `drop(spawn(…))` if that is meant"]
pub struct JoinHandle<T> {
    task: Task,
    /// The outcome has this type. It is what keeps the handle of a task whose result is not `Send` on its thread.
    result: PhantomData<T>,
}

/// Why [`JoinHandle::join`] has no value to return.
pub enum JoinError<T> {
    /// The task panicked, with this payload.
    Panicked(Box<dyn Any + Send>),
    /// The caller may not wait. The task goes on, and here is its handle again.
    Cancelled(Cancelled, JoinHandle<T>),
}

impl<T: 'static> JoinHandle<T> {
    pub(super) fn new(record: Record) -> JoinHandle<T> {
        JoinHandle { task: Task::new(record), result: PhantomData }
    }

    /// Waits for the task to end and returns its value.
    ///
    /// # Errors
    /// [`JoinError::Panicked`] if the task panicked; [`JoinError::Cancelled`] if the caller may not wait.
    pub fn join(self) -> Result<T, JoinError<T>> {
        match self.completion().wait(self.task.record.id) {
            Ok(()) => self.outcome(),
            Err(cancelled) => Err(JoinError::Cancelled(cancelled, self)),
        }
    }

    /// What the task left. It has finished.
    fn outcome(&self) -> Result<T, JoinError<T>> {
        // SAFETY: `new` was given a record whose closure returns a `T`; and a handle whose `T` is not Send is on the thread
        // that the task ran on, for it cannot leave it.
        let outcome = unsafe { self.task.record.take() };
        outcome.expect("the outcome is taken once").map_err(JoinError::Panicked)
    }
}

impl<T> JoinHandle<T> {
    /// Whether the task has ended, so that `join` would not wait.
    pub fn is_finished(&self) -> bool {
        self.completion().is_finished()
    }

    pub(crate) fn completion(&self) -> &Completion {
        &self.task.record.completion
    }

    /// The task.
    pub fn task(&self) -> &Task {
        &self.task
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        self.task.record.detach();
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("task", &self.task).finish()
    }
}

impl<T> JoinError<T> {
    /// The payload of the task's panic.
    ///
    /// # Panics
    /// If the join was cancelled.
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        match self {
            JoinError::Panicked(panic) => panic,
            JoinError::Cancelled(cancelled, _) => panic!("the join was cancelled: {cancelled}"),
        }
    }

    /// Goes on with the task's panic here, or panics because the join was cancelled.
    pub(crate) fn resume(self) -> ! {
        resume_panic(self.into_panic())
    }

    fn message(&self) -> Option<&str> {
        let JoinError::Panicked(panic) = self else { return None };
        let text = panic.downcast_ref::<&'static str>().copied();
        text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
    }
}

impl<T> fmt::Debug for JoinError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked(_) => f.debug_tuple("Panicked").field(&self.message().unwrap_or("…")).finish(),
            JoinError::Cancelled(cancelled, handle) => {
                f.debug_tuple("Cancelled").field(cancelled).field(handle).finish()
            }
        }
    }
}

impl<T> fmt::Display for JoinError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.message()) {
            (JoinError::Cancelled(cancelled, _), _) => cancelled.fmt(f),
            (_, Some(message)) => write!(f, "the task panicked: {message}"),
            _ => f.write_str("the task panicked"),
        }
    }
}

impl<T> std::error::Error for JoinError<T> {}
