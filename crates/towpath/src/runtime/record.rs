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

/// The largest closure and the largest value, in bytes, that lie in the record itself: it stays as large as it is made for as
/// long as the task lives. What is larger lies in a box, which is there when it is.
const LARGE: usize = 32;

#[repr(C)]
struct Whole<F, V> {
    task: Task,
    body: UnsafeCell<Body<F, V>>,
}

/// How a value lies in the record.
trait Kept {
    type Value;
    fn keep(value: Self::Value) -> Self;
    fn into_value(self) -> Self::Value;
}

struct Inline<T>(T);

impl<T> Kept for Inline<T> {
    type Value = T;

    fn keep(value: T) -> Self {
        Inline(value)
    }

    fn into_value(self) -> T {
        self.0
    }
}

impl<T> Kept for Box<T> {
    type Value = T;

    fn keep(value: T) -> Self {
        Box::new(value)
    }

    fn into_value(self) -> T {
        *self
    }
}

/// Room for any of these, each of which begins where it begins.
#[repr(C)]
union Body<F, V> {
    job: ManuallyDrop<F>,
    value: ManuallyDrop<V>,
    panic: ManuallyDrop<Panic>,
}

/// What can be done with a record whose types nobody knows any more. Each takes a pointer to the record.
pub(super) struct Kind {
    /// Runs the closure, once, and leaves what comes of it.
    run: unsafe fn(NonNull<Task>),
    /// Drops the closure.
    drop_job: unsafe fn(NonNull<Task>),
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

impl<F: FnOnce() -> V::Value, V: Kept> Whole<F, V> {
    const KIND: Kind = Kind {
        run: Self::run,
        drop_job: Self::drop_job,
        clear: Self::clear,
        take: Self::take,
        leave: Self::leave,
        take_panic: Self::take_panic,
        free: Self::free,
    };

    fn body(task: NonNull<Task>) -> *mut Body<F, V> {
        let whole = task.cast::<Self>().as_ptr();
        // SAFETY: a record of this kind, of which this takes an address and reads nothing.
        UnsafeCell::raw_get(unsafe { &raw const (*whole).body })
    }

    unsafe fn run(task: NonNull<Task>) {
        let body = Self::body(task);
        // SAFETY: the caller has the body to itself, and the closure is in it.
        let job = unsafe { body.cast::<F>().read() };
        let phase = match catch_unwind(AssertUnwindSafe(|| V::keep(job()))) {
            Ok(value) => {
                // SAFETY: the closure has moved out, and nobody looks for an outcome yet.
                unsafe { body.cast::<V>().write(value) };
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

    unsafe fn drop_job(task: NonNull<Task>) {
        // SAFETY: the caller has the body to itself, and the closure is in it.
        unsafe { Self::body(task).cast::<F>().drop_in_place() };
    }

    unsafe fn clear(task: NonNull<Task>) {
        let body = Self::body(task);
        // SAFETY: the caller has a reference.
        let phase = unsafe { task.as_ref() }.completion.empty();
        match phase {
            // SAFETY: the caller has the body to itself, and what the phase says is in it.
            Phase::Pending => unsafe { body.cast::<F>().drop_in_place() },
            // SAFETY: as above.
            Phase::Returned => unsafe { body.cast::<V>().drop_in_place() },
            // SAFETY: as above.
            Phase::Panicked => unsafe { body.cast::<Panic>().drop_in_place() },
            Phase::Started | Phase::Empty => {}
        }
    }

    unsafe fn take(task: NonNull<Task>, to: NonNull<()>) {
        // SAFETY: the caller has seen that the value is there, for it alone.
        let value = unsafe { Self::body(task).cast::<V>().read() };
        // SAFETY: the caller has room for it there.
        unsafe { to.cast::<V::Value>().write(value.into_value()) };
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
        match size_of::<T>() > LARGE {
            true => Record::keeping::<F, Box<T>>(job, origin),
            false => Record::keeping::<F, Inline<T>>(job, origin),
        }
    }

    fn keeping<F: FnOnce() -> V::Value, V: Kept>(job: F, origin: Origin) -> [Record; 2] {
        if size_of::<F>() <= LARGE {
            return Record::with::<F, V>(job, origin);
        }
        let boxed = Box::new(job);
        let job = move || {
            let job = { *{ boxed } }; // the box goes with this line, and not after the call
            job()
        };
        Record::with::<_, V>(job, origin)
    }

    fn with<F: FnOnce() -> V::Value, V: Kept>(job: F, origin: Origin) -> [Record; 2] {
        let body = UnsafeCell::new(Body::<F, V> { job: ManuallyDrop::new(job) });
        let whole = Box::new(Whole { task: Task::new(2, &Whole::<F, V>::KIND, origin), body });
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
        self.completion.start(); // and not `empty`, which would say that it has finished
        // SAFETY: the record is of its own kind; the caller's promise.
        unsafe { (self.kind.drop_job)(self.0) };
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

#[cfg(all(test, not(towpath_loom)))]
mod tests {
    use std::panic::Location;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often it is dropped.
    struct Counted<const SIZE: usize>(Arc<AtomicUsize>, [u8; SIZE]);

    impl<const SIZE: usize> Drop for Counted<SIZE> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Ending {
        Taken,
        DetachedBefore,
        DetachedAfter,
        NeverRun,
        Panicked,
        GivenUp,
    }

    /// Has a record of a closure of CLOSURE bytes, or more, and a value of VALUE come to an end, and counts drops.
    fn ends<const CLOSURE: usize, const VALUE: usize>(ending: Ending) {
        let drops = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let captured = Counted(drops[0].clone(), [1; CLOSURE]);
        let value = drops[1].clone();
        let job = move || {
            let captured = captured;
            assert!(captured.1.iter().all(|&byte| byte == 1));
            if ending == Ending::Panicked {
                std::panic::resume_unwind(Box::new("meant"));
            }
            Counted(value, [7; VALUE])
        };
        let [task, handle] = Record::new(job, Origin::plain(Location::caller()));
        let count = || drops.each_ref().map(|drops| drops.load(Ordering::Relaxed));
        // SAFETY: once.
        let run = || unsafe { Record::run(task.0) };
        // SAFETY: it is what the closure returns.
        let take = || unsafe { handle.take::<Counted<VALUE>>() };
        match ending {
            Ending::NeverRun => assert_eq!(count(), [0, 0]),
            Ending::Taken => {
                run();
                assert_eq!(count(), [1, 0]);
                let value = take().unwrap().ok().unwrap();
                assert_eq!(value.1, [7; VALUE]);
                drop(value);
                assert!(take().is_none());
            }
            Ending::DetachedBefore => {
                handle.detach();
                run();
                assert_eq!(count(), [1, 1]);
            }
            Ending::DetachedAfter => {
                run();
                handle.detach();
                assert_eq!(count(), [1, 1]);
            }
            Ending::Panicked => {
                run();
                let panic = take().unwrap().err().unwrap();
                assert_eq!(panic.downcast_ref(), Some(&"meant"));
            }
            Ending::GivenUp => {
                // SAFETY: instead of running it.
                unsafe { task.drop_job() };
                assert_eq!(count(), [1, 0]);
                assert!(!task.completion.is_finished(), "who joins it now would find nothing");
                // SAFETY: as above.
                unsafe { task.fail(Box::new("no stack")) };
                assert!(task.completion.is_finished());
                assert!(take().unwrap().is_err());
            }
        }
        drop(handle);
        drop(task);
        let values = usize::from(!matches!(ending, Ending::NeverRun | Ending::Panicked | Ending::GivenUp));
        assert_eq!(count(), [1, values], "{ending:?}, {CLOSURE} and {VALUE} bytes");
        assert!(drops.iter().all(|drops| Arc::strong_count(drops) == 1), "something was never dropped");
    }

    #[test]
    fn closure_and_value_are_dropped_once_whatever_becomes_of_the_task() {
        use Ending::*;
        for ending in [Taken, DetachedBefore, DetachedAfter, NeverRun, Panicked, GivenUp] {
            ends::<0, 0>(ending);
            ends::<0, 1000>(ending);
            ends::<1000, 0>(ending);
            ends::<1000, 1000>(ending);
        }
    }

    #[test]
    fn no_record_is_larger_than_a_small_closure_makes_it() {
        // In malloc's 96 and 80.
        assert!(size_of::<Whole<[u64; LARGE / 8], Inline<[u64; LARGE / 8]>>>() <= 88);
        assert!(size_of::<Whole<(), Inline<()>>>() <= 72);
    }
}
