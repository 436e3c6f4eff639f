//! [`spawn`] and its kin, and [`Builder`], which names a task and sizes its stack.

use std::io;
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::Arc;

use super::JoinHandle;
use crate::runtime::origin::Origin;
use crate::runtime::record::{Job, Record};
use crate::runtime::worker::{self, Remote};
use crate::runtime::{self, Shared, blocking};

/// Spawns a task: `f` runs on a stack of its own, whenever a worker gets to it.
///
/// From a task it joins that task's runtime, from a plain thread the default one. A panic in it reaches [`join`] and
/// touches nothing else.
///
/// ```
/// let handles: Vec<_> = (0..10).map(|i| towpath::spawn(move || i * i)).collect();
/// let sum: i32 = handles.into_iter().map(|handle| handle.join().unwrap()).sum();
/// assert_eq!(sum, 285);
/// ```
///
/// # Panics
/// If the default runtime is needed and cannot start.
///
/// [`join`]: JoinHandle::join
#[track_caller]
pub fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let [task, record] = Record::new(f, Origin::plain(Location::caller()));
    runtime::place(task);
    JoinHandle::new(record)
}

/// Spawns a task on the worker of the calling task, from which it never moves: neither `f` nor its value need be `Send`.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
///
/// towpath::spawn(|| {
///     let count = Rc::new(Cell::new(0));
///     let shared = count.clone();
///     towpath::task::spawn_local(move || shared.set(1)).join().unwrap();
///     assert_eq!(count.get(), 1);
/// })
/// .join()
/// .unwrap();
/// ```
///
/// # Panics
/// Outside a task, and if there is no memory for a stack.
#[track_caller]
pub fn spawn_local<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    Builder::new().spawn_local(f).unwrap_or_else(|error| panic!("failed to spawn a task: {error}"))
}

/// Runs `f` on a thread of the blocking pool: for calls that would hold up a worker, such as reading files, waiting for a
/// child process, or a long computation.
///
/// At most 64 such threads run at once; what comes beyond that waits for one.
///
/// # Panics
/// If no thread can be started.
#[track_caller]
pub fn spawn_blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (job, record) = Job::new(f, Origin::plain(Location::caller()));
    let spawned = blocking::spawn(Box::new(|| job.run()));
    spawned.unwrap_or_else(|error| panic!("failed to start a thread for blocking work: {error}"));
    JoinHandle::new(record)
}

/// Runs `f` on a thread of the blocking pool and waits for its value: the task parks, its worker goes on. On a plain
/// thread `f` simply runs.
///
/// ```
/// let text = towpath::task::unblock(|| std::fs::read_to_string("Cargo.toml"));
/// # text.unwrap();
/// ```
///
/// # Panics
/// If `f` panics, with its panic; if no thread can be started. While its task is panicking, `f` runs where it is.
#[track_caller]
pub fn unblock<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    if worker::current().is_none() || std::thread::panicking() {
        return f();
    }
    spawn_blocking(f).join().unwrap_or_else(|error| error.resume())
}

/// A task's name and stack, as `std::thread::Builder` has them for threads.
///
/// ```
/// let handle = towpath::task::Builder::new().name("reader".to_owned()).stack_size(64 * 1024).spawn(|| ())?;
/// assert_eq!(handle.task().name(), Some("reader"));
/// handle.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
}

impl Builder {
    /// A builder for a task with no name and the runtime's stack size.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// The task's name, for panics, dumps and the message of a stack overflow.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// The address space of the task's stack in bytes, guard included: at least 32 KiB, rounded up to whole pages.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// Spawns the task; see [`spawn`].
    ///
    /// # Errors
    /// `InvalidInput` for a stack size out of range.
    #[track_caller]
    pub fn spawn<T: Send + 'static>(self, f: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
        self.check()?;
        Ok(self.spawn_on(&runtime::current(), f))
    }

    /// Spawns the task on the worker of the calling task; see [`spawn_local`].
    ///
    /// # Errors
    /// `InvalidInput` for a stack size out of range; what mmap(2) answered, if there is no memory for a stack.
    ///
    /// # Panics
    /// Outside a task.
    #[track_caller]
    pub fn spawn_local<T: 'static>(self, f: impl FnOnce() -> T + 'static) -> io::Result<JoinHandle<T>> {
        self.check()?;
        let worker =
            worker::current().expect("spawn_local is for tasks: on a plain thread there is no worker to stay on");
        let [task, record] = Record::new(f, self.origin());
        worker.spawn_local(task)?;
        Ok(JoinHandle::new(record))
    }

    #[track_caller]
    pub(crate) fn spawn_on<T: Send + 'static>(
        self,
        runtime: &Arc<Shared>,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let [task, record] = Record::new(f, self.origin());
        runtime.place(task);
        JoinHandle::new(record)
    }

    /// Spawns the task on that worker of the runtime, where it stays. `None` if the runtime is stopping.
    #[track_caller]
    pub(crate) fn spawn_staying<T: Send + 'static>(
        self,
        runtime: &Shared,
        remote: &Arc<Remote>,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        let [task, record] = Record::new(f, self.origin());
        runtime.place_on(remote, task).then(|| JoinHandle::new(record))
    }

    fn check(&self) -> io::Result<()> {
        let checked = self.stack_size.map(runtime::check_stack_size).transpose();
        checked.map(drop).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why.to_string()))
    }

    #[track_caller]
    fn origin(self) -> Origin {
        let stack_size = self.stack_size.and_then(NonZeroUsize::new);
        Origin::built(Location::caller(), self.name.map(String::into_boxed_str), stack_size)
    }
}
