//! The record of a task: a small counted allocation, apart from its stack, for all who may outlive or wake it.
//!
//! ```text
//! spawned ──▶ queued ──▶ running ──park──▶ parked
//!                ▲                           │
//!                └──────────unpark───────────┘  by the one who claimed its waiter, or by its timer
//! ```
//!
//! A task is in one place at a time, and whoever moves it on is alone in that: each park is ended by one unpark. An unpark
//! that comes while the task is still on its way out of its fiber only queues it: the queue's worker is the one that it is
//! leaving, and looks at the queue afterwards.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::panic::{Location, RefUnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fiber::Fiber;
use super::overflow::Running;
use super::park::Cancelled;
use super::wait::{Op, Wait, What};
use super::wait_queue::{Node, WaitQueue, Waiter};
use super::worker::Remote;
use crate::shim;
use crate::time::Instant;

/// What a task runs. It catches its own panics and ends by calling [`Completion::finish`].
pub(crate) type Job = Box<dyn FnOnce(&Task) + Send>;

pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) name: Option<Box<str>>,
    pub(crate) spawned_at: &'static Location<'static>,
    /// The size of its stack in bytes, where it is not the runtime's own.
    pub(crate) stack_size: Option<NonZeroUsize>,
    pub(crate) completion: Completion,
    waiting: Waiting,
    /// The worker that it was placed on and its slot there. Written by whoever places it, before it is queued there.
    home: UnsafeCell<Option<(Arc<Remote>, usize)>>,
    resident: Resident,
}

/// What only one thread touches at a time: whoever places the task, until it is queued; from then on its worker.
pub(super) struct Resident {
    /// What to run, until it starts.
    pub(super) job: Cell<Option<Job>>,
    /// Its fiber, from its start to its end, and what to say should it overflow.
    pub(super) fiber: UnsafeCell<Option<(Fiber, Running)>>,
    /// Of its present park: the waiter, and the deadline by [`Instant::as_nanos`], 0 for none, which others may read.
    pub(super) waiter: Cell<*const Waiter>,
    pub(super) deadline: AtomicU64,
    /// When the park began in which its stack was last trimmed, by [`Instant::as_nanos`]; 0 before that.
    pub(super) trimmed: Cell<u64>,
}

// SAFETY: `home` and `resident` are touched by one thread at a time, as they say, and passed on through the lock of an
// inbox; others read `home` only to unpark the task, which has been placed long before. The rest is Sync by itself.
unsafe impl Sync for Task {}
// SAFETY: as above. What the fiber holds may not be Send, but it is never touched, nor dropped, but on its worker: a task
// whose fiber has not ended is leaked.
unsafe impl Send for Task {}

/// What a parked task waits for, as its worker wrote it down: read by the task dump, at any time, from any thread.
#[derive(Debug, Default)]
struct Waiting {
    /// A [`What`], or 0 while the task runs or is about to.
    what: AtomicU64,
    /// When it began, by [`Instant::as_nanos`].
    since: AtomicU64,
}

// No code of the user's runs while a record is changed, so that a panic finds it whole.
impl RefUnwindSafe for Task {}

impl Task {
    pub(crate) fn new(name: Option<String>, stack_size: Option<NonZeroUsize>, at: &'static Location<'static>) -> Task {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Task {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.map(String::into_boxed_str),
            spawned_at: at,
            stack_size,
            completion: Completion::default(),
            waiting: Waiting::default(),
            home: UnsafeCell::new(None),
            resident: Resident {
                job: Cell::new(None),
                fiber: UnsafeCell::new(None),
                waiter: Cell::new(ptr::null()),
                deadline: AtomicU64::new(0),
                trimmed: Cell::new(0),
            },
        }
    }

    /// What it will run.
    pub(crate) fn with_job(mut self, job: Job) -> Task {
        *self.resident.job.get_mut() = Some(job);
        self
    }

    /// Says which worker the task is on, and its slot there.
    ///
    /// # Safety
    /// The task has not started, and is the caller's alone to place.
    pub(super) unsafe fn place(&self, remote: Arc<Remote>, slot: usize) {
        // SAFETY: nobody else looks at it before it is queued.
        unsafe { *self.home.get() = Some((remote, slot)) };
    }

    fn home(&self) -> &(Arc<Remote>, usize) {
        // SAFETY: it is written before the task is queued, which is before anybody can ask.
        unsafe { &*self.home.get() }.as_ref().expect("a task runs only after it was placed")
    }

    #[inline]
    pub(crate) fn remote(&self) -> &Arc<Remote> {
        &self.home().0
    }

    #[inline]
    pub(crate) fn slot(&self) -> usize {
        self.home().1
    }

    /// # Safety
    /// The caller places the task, or is on its worker's thread.
    #[inline]
    pub(super) unsafe fn resident(&self) -> &Resident {
        &self.resident
    }

    /// Writes down that the task is about to leave its fiber, and what for.
    #[inline]
    pub(super) fn begin_park(&self, what: What, now: Instant) {
        self.waiting.what.store(what.bits(), Ordering::Relaxed);
        self.waiting.since.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Writes down that the task runs on.
    #[inline]
    pub(super) fn end_park(&self) {
        self.waiting.what.store(0, Ordering::Relaxed);
    }

    /// What the task waits for, and since when.
    pub(crate) fn waiting(&self) -> Option<(What, Instant)> {
        let what = What::from_bits(self.waiting.what.load(Ordering::Relaxed))?;
        Some((what, Instant::from_nanos(self.waiting.since.load(Ordering::Relaxed))))
    }

    /// Until when it waits.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let nanos = self.resident.deadline.load(Ordering::Relaxed);
        (nanos != 0).then(|| Instant::from_nanos(nanos))
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A task that has not ended, by its address: its worker holds it for as long.
///
/// Nothing is counted. Whoever has one is the task's worker, or its waiter, or is about to unpark it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskRef(NonNull<Task>);

// SAFETY: a reference to a Task, which is Sync.
unsafe impl Send for TaskRef {}
// SAFETY: as above.
unsafe impl Sync for TaskRef {}

impl TaskRef {
    /// # Safety
    /// The task has been placed. The reference is not used once it has ended.
    pub(super) unsafe fn new(task: &Arc<Task>) -> TaskRef {
        TaskRef(NonNull::new(Arc::as_ptr(task).cast_mut()).expect("an allocation's address"))
    }

    /// # Safety
    /// As for `new`; it is what [`as_ptr`](Self::as_ptr) gave.
    #[inline]
    pub(super) unsafe fn from_raw(task: NonNull<Task>) -> TaskRef {
        TaskRef(task)
    }

    #[inline]
    pub(super) fn as_ptr(self) -> *mut Task {
        self.0.as_ptr()
    }

    /// A counted reference.
    pub(crate) fn to_arc(self) -> Arc<Task> {
        let task = self.0.as_ptr().cast_const();
        // SAFETY: `new` had it from an Arc, and that of its worker's is still there.
        unsafe { Arc::increment_strong_count(task) };
        // SAFETY: the count is ours.
        unsafe { Arc::from_raw(task) }
    }
}

impl Deref for TaskRef {
    type Target = Task;

    #[inline]
    fn deref(&self) -> &Task {
        // SAFETY: it has not ended, as `new` was promised, and its worker holds it.
        unsafe { self.0.as_ref() }
    }
}

/// How a task ended: the value it returned, in a box whose type its handle knows, or the panic that ended it.
pub(crate) type Outcome = Result<Box<dyn Any>, Box<dyn Any + Send>>;

/// Where a task leaves its outcome and its handle finds it.
#[derive(Debug, Default)]
pub(crate) struct Completion {
    stage: shim::Mutex<Stage>,
}

#[derive(Debug, Default)]
struct Stage {
    finished: bool,
    /// The handle is gone: nobody will ask for the outcome.
    detached: bool,
    outcome: Option<Carried>,
    joining: WaitQueue<()>,
}

#[derive(Debug)]
struct Carried(Outcome);

// SAFETY: an outcome that is not Send comes from `spawn_local` alone, whose `JoinHandle<T>` is not Send either, for it
// holds a `PhantomData<T>`. The outcome leaves the stage only through that handle, by `take` or by `detach`, or, with the
// handle gone, in `finish`, which the task calls: each on the worker's own thread. A `Task` never drops one: see `finish`
// and `detach`, of which one finds the other done.
unsafe impl Send for Carried {}

impl Completion {
    /// Leaves the outcome and wakes who waits for it. Called by the task, on its own stack, last of all.
    pub(crate) fn finish(&self, outcome: Outcome) {
        let mut stage = shim::lock(&self.stage);
        stage.finished = true;
        if stage.detached {
            drop(stage); // the value's destructor may do anything, also wait: not under the lock
            drop(outcome);
            return;
        }
        stage.outcome = Some(Carried(outcome));
        while let Some(unparker) = stage.joining.claim(|()| ()) {
            drop(stage);
            unparker.unpark();
            stage = shim::lock(&self.stage);
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        shim::lock(&self.stage).finished
    }

    /// Takes the outcome if the task has finished. For the handle only, once.
    pub(crate) fn take(&self) -> Option<Outcome> {
        shim::lock(&self.stage).outcome.take().map(|carried| carried.0)
    }

    /// Says that nobody will ask for the outcome any more. For the handle only.
    pub(crate) fn detach(&self) {
        let outcome = {
            let mut stage = shim::lock(&self.stage);
            stage.detached = true;
            stage.outcome.take()
        };
        drop(outcome);
    }

    /// Waits until the task has finished, whose number is `id`.
    pub(crate) fn wait(&self, id: u64) -> Result<(), Cancelled> {
        let waiter = match Waiter::new() {
            Ok(waiter) => waiter,
            Err(_) if self.is_finished() => return Ok(()),
            Err(cancelled) => return Err(cancelled),
        };
        let node = Node::new(&waiter, 0, ());
        // SAFETY: only a claim ends the wait, and it takes the node out.
        if unsafe { self.enlist(&node) } {
            waiter.wait(Wait::on_task(Op::Join, id), None);
        }
        Ok(())
    }

    /// Queues a node to be claimed when the task finishes; false, and not queued, if it has.
    ///
    /// # Safety
    /// As [`WaitQueue::push`]: `delist` it before it moves or ends.
    pub(crate) unsafe fn enlist(&self, node: &Node<()>) -> bool {
        let mut stage = shim::lock(&self.stage);
        if !stage.finished {
            // SAFETY: the caller's promise; the lock is this stage's.
            unsafe { stage.joining.push(node) };
        }
        !stage.finished
    }

    /// # Safety
    /// As [`WaitQueue::remove`].
    pub(crate) unsafe fn delist(&self, node: &Node<()>) {
        // SAFETY: the caller's promise.
        unsafe { shim::lock(&self.stage).joining.remove(node) };
    }
}
