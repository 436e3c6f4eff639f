//! The allocation of a task's record: one a task, counted, with room for what it runs and, in the same place, for what
//! comes of it.
//!
//! ```text
//! Record ──▶ ┌────────────────────┐
//! TaskRef ─▶ │ Task               │
//!            ├────────────────────┤  phase
//!            │ the closure        │  PENDING    nobody has run it yet
//!            │ nothing            │  STARTED    it has moved to the stack that it runs on
//!            │ its value or panic │  RETURNED, PANICKED
//!            │ nothing            │  EMPTY      the handle has taken it, or nobody will
//!            └────────────────────┘
//! ```
//!
//! Pointers to it are thin: what depends on the types of closure and value is reached through [`Kind`]. Who may do what and
//! when is for `task` and `completion` to know.

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use super::completion::Phase;
use super::origin::Origin;
use super::task::Task;

/// What a task runs has panicked with this.
pub(crate) type Panic = Box<dyn Any + Send>;

/// A counted reference to a task's record.
pub(crate) struct Record(NonNull<Task>);

// SAFETY: a reference to a Task, which is Send and Sync; and what is beside it is, or is kept to its thread, as `task` says.
unsafe impl Send for Record {}
// SAFETY: as above.
unsafe impl Sync for Record {}

/// References that one record may have. What comes beyond that leaks them.
const MOST: u32 = u32::MAX / 2;

/// The largest closure, in bytes, that lies in the record though its value would need less room.
const LARGE: usize = 32;

#[repr(C)]
struct Whole<F, T> {
    task: Task,
    body: UnsafeCell<Body<F, T>>,
}

/// Room for any of these, each of which begins where it begins.
#[repr(C)]
union Body<F, T> {
    job: ManuallyDrop<F>,
    value: ManuallyDrop<T>,
    panic: ManuallyDrop<Panic>,
}

/// What can be done with a record whose types nobody knows any more. Each takes a pointer to the record.
pub(super) struct Kind {
    /// Runs the closure, once, and leaves what comes of it.
    run: unsafe fn(NonNull<Task>),
    /// Drops what is in the body, which is empty afterwards.
    clear: unsafe fn(NonNull<Task>),
    /// Moves a value out to where the second pointer says.
    take: unsafe fn(NonNull<Task>, NonNull<()>),
    /// Puts a panic into an empty body.
    leave: unsafe fn(NonNull<Task>, Panic),
    /// And takes it out again.
    take_panic: unsafe fn(NonNull<Task>) -> Panic,
    /// Frees the record, whose body is empty.
    free: unsafe fn(NonNull<Task>),
}

impl<F: FnOnce() -> T, T> Whole<F, T> {
    const KIND: Kind = Kind {
        run: Self::run,
        clear: Self::clear,
        take: Self::take,
        leave: Self::leave,
        take_panic: Self::take_panic,
        free: Self::free,
    };

    fn body(task: NonNull<Task>) -> *mut Body<F, T> {
        let whole = task.cast::<Self>().as_ptr();
        // SAFETY: a record of this kind, of which this takes an address and reads nothing.
        UnsafeCell::raw_get(unsafe { &raw const (*whole).body })
    }

    unsafe fn run(task: NonNull<Task>) {
        let body = Self::body(task);
        // SAFETY: the caller has the body to itself, and the closure is in it.
        let job = unsafe { body.cast::<F>().read() };
        let phase = match catch_unwind(AssertUnwindSafe(job)) {
            Ok(value) => {
                // SAFETY: the closure has moved out, and nobody looks for an outcome yet.
                unsafe { body.cast::<T>().write(value) };
                Phase::Returned
            }
            Err(panic) => {
                // SAFETY: as above.
                unsafe { body.cast::<Panic>().write(panic) };
                Phase::Panicked
            }
        };
        // SAFETY: the record lives as long as the task runs.
        let wanted = unsafe { task.as_ref() }.completion.finish(phase);
        if !wanted {
            // The handle has gone, so the outcome's destructor runs here, and it is the user's code as well.
            // SAFETY: nobody else will look at it.
            let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { Self::clear(task) }));
            if let Err(panic) = dropped {
                std::mem::forget(panic); // whose own destructor might panic again; the message has been printed
            }
        }
    }

    unsafe fn clear(task: NonNull<Task>) {
        let body = Self::body(task);
        // SAFETY: the caller has a reference.
        let phase = unsafe { task.as_ref() }.completion.empty();
        match phase {
            // SAFETY: the caller has the body to itself, and what the phase says is in it.
            Phase::Pending => unsafe { body.cast::<F>().drop_in_place() },
            // SAFETY: as above.
            Phase::Returned => unsafe { body.cast::<T>().drop_in_place() },
            // SAFETY: as above.
            Phase::Panicked => unsafe { body.cast::<Panic>().drop_in_place() },
            Phase::Started | Phase::Empty => {}
        }
    }

    unsafe fn take(task: NonNull<Task>, to: NonNull<()>) {
        // SAFETY: the caller has seen that the value is there, for it alone.
        let value = unsafe { Self::body(task).cast::<T>().read() };
        // SAFETY: the caller has room for it there.
        unsafe { to.cast::<T>().write(value) };
    }

    unsafe fn leave(task: NonNull<Task>, panic: Panic) {
        // SAFETY: the caller has the body to itself, and it is empty.
        unsafe { Self::body(task).cast::<Panic>().write(panic) };
    }

    unsafe fn take_panic(task: NonNull<Task>) -> Panic {
        // SAFETY: the caller has seen that the panic is there, for it alone.
        unsafe { Self::body(task).cast::<Panic>().read() }
    }

    unsafe fn free(task: NonNull<Task>) {
        // SAFETY: `new` made it by a box, and the last reference has gone.
        drop(unsafe { Box::from_raw(task.cast::<Self>().as_ptr()) });
    }
}

impl Record {
    /// A record for a task that will run `job`, and two references: for the one who places it, and for its handle.
    pub(crate) fn new<F: FnOnce() -> T, T>(job: F, origin: Origin) -> [Record; 2] {
        // The record stays as large as it is made, while a large closure moves to the stack when it starts: then its box goes.
        if size_of::<F>() > LARGE.max(size_of::<T>()) {
            let boxed = Box::new(job);
            let job = move || {
                let job = { *{ boxed } };
                job()
            };
            return Record::with(job, origin);
        }
        Record::with(job, origin)
    }

    fn with<F: FnOnce() -> T, T>(job: F, origin: Origin) -> [Record; 2] {
        let body = UnsafeCell::new(Body::<F, T> { job: ManuallyDrop::new(job) });
        let whole = Box::new(Whole { task: Task::new(2, &Whole::<F, T>::KIND, origin), body });
        let task = NonNull::from(Box::leak(whole)).cast();
        [Record(task), Record(task)]
    }

    pub(super) fn as_ptr(&self) -> NonNull<Task> {
        self.0
    }

    /// One more reference to the task at `task`.
    ///
    /// # Safety
    /// It came from [`as_ptr`](Self::as_ptr), and somebody has a reference meanwhile.
    pub(super) unsafe fn another(task: NonNull<Task>) -> Record {
        // SAFETY: the caller's promise.
        let before = unsafe { task.as_ref() }.references.fetch_add(1, Ordering::Relaxed);
        if before > MOST {
            process::abort(); // as std's Arc: a program that leaks two billion of them is beyond help
        }
        Record(task)
    }

    /// Runs the closure and leaves its outcome.
    ///
    /// # Safety
    /// Once, by the one thread that the task was placed for; with [`drop_job`](Self::drop_job), one of the two. What is not
    /// Send stays on its thread.
    pub(super) unsafe fn run(task: NonNull<Task>) {
        // SAFETY: the caller's promise; the task is alive, as it has not run.
        let this = unsafe { task.as_ref() };
        this.completion.start();
        // SAFETY: the record is of its own kind, and the closure is there.
        unsafe { (this.kind.run)(task) };
    }

    /// Drops the closure of a task that will never run.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    pub(super) unsafe fn drop_job(&self) {
        // SAFETY: the record is of its own kind; the caller's promise.
        unsafe { (self.kind.clear)(self.0) };
    }

    /// Ends a task that has not run with a panic. If its closure is still there, that leaks.
    ///
    /// # Safety
    /// As for [`run`](Self::run), but for `drop_job`, which may have come before.
    pub(super) unsafe fn fail(&self, panic: Panic) {
        self.completion.start();
        // SAFETY: the record is of its own kind, and nobody looks for an outcome yet.
        unsafe { (self.kind.leave)(self.0, panic) };
        if !self.completion.finish(Phase::Panicked) {
            // SAFETY: the handle has gone.
            unsafe { (self.kind.clear)(self.0) };
        }
    }

    /// Takes the outcome, which the task has left. `None` if it was taken before. For the handle.
    ///
    /// # Safety
    /// `T` is what the closure returns. An outcome that is not Send is taken on its own thread.
    pub(crate) unsafe fn take<T>(&self) -> Option<Result<T, Panic>> {
        match self.completion.empty() {
            Phase::Returned => {
                let mut value = std::mem::MaybeUninit::<T>::uninit();
                let to = NonNull::from(&mut value).cast();
                // SAFETY: the value is there, of the type that the caller has named, and the phase gave it to us alone.
                unsafe { (self.kind.take)(self.0, to) };
                // SAFETY: it has just been moved there.
                Some(Ok(unsafe { value.assume_init() }))
            }
            // SAFETY: the panic is there, and the phase gave it to us alone.
            Phase::Panicked => Some(Err(unsafe { (self.kind.take_panic)(self.0) })),
            _ => None,
        }
    }

    /// Says that nobody will ask for the outcome any more, and drops it if it is there. For the handle.
    pub(crate) fn detach(&self) {
        if self.completion.detach() {
            // SAFETY: the task has left it, and will not look any more. The handle is on the outcome's own thread.
            unsafe { (self.kind.clear)(self.0) };
        }
    }
}

/// The right to run what a record was made for, on a plain thread: for what has no worker.
pub(crate) struct Job(Record);

impl Job {
    /// And the reference for its handle.
    pub(crate) fn new<F: FnOnce() -> T + Send, T: Send>(job: F, origin: Origin) -> (Job, Record) {
        let [task, handle] = Record::new(job, origin);
        (Job(task), handle)
    }

    pub(crate) fn run(self) {
        // SAFETY: there is one `Job`, which ends here.
        unsafe { Record::run(self.0.0) };
    }
}

impl Clone for Record {
    fn clone(&self) -> Record {
        // SAFETY: this is one.
        unsafe { Record::another(self.0) }
    }
}

impl Drop for Record {
    #[inline]
    fn drop(&mut self) {
        if self.references.fetch_sub(1, Ordering::Release) == 1 {
            self.last_has_gone();
        }
    }
}

impl Record {
    fn last_has_gone(&mut self) {
        fence(Ordering::Acquire); // what the others did comes before the end
        let kind = self.kind;
        if self.completion.phase() != Phase::Empty {
            // SAFETY: nobody else has a reference. An outcome that is not Send has gone before: see `completion`.
            unsafe { (kind.clear)(self.0) };
        }
        // SAFETY: as above; the body is empty.
        unsafe { (kind.free)(self.0) };
    }
}

impl Deref for Record {
    type Target = Task;

    #[inline]
    fn deref(&self) -> &Task {
        // SAFETY: it is counted.
        unsafe { self.0.as_ref() }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
