//! A task: what all who may outlive or wake it share, in a small counted record (`record`), and its resident, which is in
//! the head of its stack for as long as it has one.
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

use std::cell::{Cell, UnsafeCell};
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::panic::{Location, RefUnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::completion::Completion;
use super::fiber::Fiber;
use super::origin::Origin;
use super::overflow::Running;
use super::record::{Kind, Record};
use super::stack::{HEAD, Stack};
use super::wait::What;
use super::wait_queue::Waiter;
use super::worker::Remote;
use crate::time::Instant;

pub(crate) struct Task {
    /// How many [`Record`]s there are of it.
    pub(super) references: AtomicU32,
    /// Its slot on the worker that it was placed on. Written by whoever places it, before it is queued there.
    slot: AtomicU32,
    pub(super) kind: &'static Kind,
    pub(crate) id: u64,
    origin: Origin,
    /// Null until it starts. After its end it means nothing any more.
    resident: AtomicPtr<Resident>,
    pub(crate) completion: Completion,
}

// As much as a connection or a task that waits costs beside its stack: see docs/performance.md.
#[cfg(all(target_pointer_width = "64", not(towpath_loom)))]
const _: () = assert!(size_of::<Task>() <= 56);

/// What only its worker touches, but for what a task dump reads.
pub(super) struct Resident {
    /// Its fiber, until its end, and what to say should it overflow.
    pub(super) fiber: UnsafeCell<(Fiber, Running)>,
    /// Its worker's, which is there as long as the task is.
    remote: NonNull<Remote>,
    /// Of its present park: the waiter, and the deadline by [`Instant::as_nanos`], 0 for none, which others may read.
    pub(super) waiter: Cell<*const Waiter>,
    pub(super) deadline: AtomicU64,
    /// When the park began in which its stack was last trimmed, by [`Instant::as_nanos`]; 0 before that.
    pub(super) trimmed: Cell<u64>,
    waiting: Waiting,
}

const _: () = assert!(size_of::<Resident>() <= HEAD && HEAD.is_multiple_of(align_of::<Resident>()));

// SAFETY: `resident` is touched by one thread alone, its worker's, but for the atomics in it and for `remote`, which does
// not change. The rest is Sync by itself.
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
    pub(super) fn new(references: u32, kind: &'static Kind, origin: Origin) -> Task {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Task {
            references: AtomicU32::new(references),
            slot: AtomicU32::new(0),
            kind,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            origin,
            resident: AtomicPtr::new(ptr::null_mut()),
            completion: Completion::new(),
        }
    }

    pub(crate) fn spawned_at(&self) -> &'static Location<'static> {
        self.origin.spawned_at()
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.origin.name()
    }

    /// The size of its stack in bytes, where it is not the runtime's own.
    pub(crate) fn stack_size(&self) -> Option<NonZeroUsize> {
        self.origin.stack_size()
    }

    /// Says which slot the task has on the worker that it is placed on.
    pub(super) fn place(&self, slot: usize) {
        self.slot.store(slot as u32, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn slot(&self) -> usize {
        self.slot.load(Ordering::Relaxed) as usize
    }

    /// The resident of a task that has started and not ended.
    ///
    /// # Safety
    /// The task is on the caller's stack or parked, or the caller has the lock of the tasks that it is among: it cannot end
    /// while the reference is used. Only its worker touches what is no atomic.
    #[inline]
    pub(super) unsafe fn resident(&self) -> Option<&Resident> {
        // Acquire: it was written before it was put here.
        let resident = self.resident.load(Ordering::Acquire);
        // SAFETY: it lies on the task's own stack, which is not given back before the task has ended.
        unsafe { resident.as_ref() }
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("id", &self.id).field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Resident {
    #[inline]
    pub(super) fn remote(&self) -> &Remote {
        // SAFETY: a worker stays until the last of its tasks has ended.
        unsafe { self.remote.as_ref() }
    }

    /// A counted reference to the same.
    pub(super) fn remote_counted(&self) -> Arc<Remote> {
        let remote = self.remote.as_ptr().cast_const();
        // SAFETY: `settle` had it from an Arc, of which the worker has one still.
        unsafe { Arc::increment_strong_count(remote) };
        // SAFETY: the count is ours.
        unsafe { Arc::from_raw(remote) }
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
    pub(super) fn waiting(&self) -> Option<(What, Instant)> {
        let what = What::from_bits(self.waiting.what.load(Ordering::Relaxed))?;
        Some((what, Instant::from_nanos(self.waiting.since.load(Ordering::Relaxed))))
    }

    /// Until when it waits.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let nanos = self.deadline.load(Ordering::Relaxed);
        (nanos != 0).then(|| Instant::from_nanos(nanos))
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
    pub(super) unsafe fn new(task: &Record) -> TaskRef {
        TaskRef(task.as_ptr())
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
    pub(crate) fn to_record(self) -> Record {
        // SAFETY: `new` had it from one, and that of its worker's is still there.
        unsafe { Record::another(self.0) }
    }

    /// The resident, for whoever is the task, or keeps it parked: its waiter's claimer, or its worker.
    ///
    /// # Safety
    /// The task has started. Only its worker touches what is no atomic.
    #[inline]
    pub(super) unsafe fn settled(&self) -> &Resident {
        // SAFETY: it has not ended, as `new` was promised.
        let resident = unsafe { self.resident() };
        debug_assert!(resident.is_some(), "it has started");
        // SAFETY: the caller's promise.
        unsafe { resident.unwrap_unchecked() }
    }

    /// Gives the task its stack, on which it will run when its fiber is first resumed.
    ///
    /// # Safety
    /// The task has not started, and the caller is on the thread of the worker that it was placed on, whose `remote` this
    /// is.
    pub(super) unsafe fn settle(self, stack: Stack, remote: &Arc<Remote>) {
        let running = Running::new(&stack, self.id, self.name());
        let head: *mut Resident = ptr::with_exposed_provenance_mut(stack.head());
        // SAFETY: the fiber is resumed once from its beginning, by its worker, and the job is its alone.
        let fiber = Fiber::new(stack, move || unsafe { Record::run(self.0) });
        let resident = Resident {
            fiber: UnsafeCell::new((fiber, running)),
            remote: NonNull::new(Arc::as_ptr(remote).cast_mut()).expect("an allocation's address"),
            waiter: Cell::new(ptr::null()),
            deadline: AtomicU64::new(0),
            trimmed: Cell::new(0),
            waiting: Waiting::default(),
        };
        // SAFETY: the head is as large as it need be, and the stack's owner's, which is the task.
        unsafe { head.write(resident) };
        self.resident.store(head, Ordering::Release);
    }

    /// Takes the stack of a task again whose fiber has ended. It is to be given back only when nobody can find the task
    /// among its worker's any more.
    ///
    /// # Safety
    /// The caller is on its worker's thread, and no reference to the resident is left there.
    pub(super) unsafe fn leave(self) -> Stack {
        // SAFETY: the caller's promise.
        let fiber = unsafe { self.settled() }.fiber.get();
        // SAFETY: nobody looks at it any more.
        let (fiber, _) = unsafe { fiber.read() };
        fiber.into_stack()
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
