//! The record of a task: a small counted allocation, apart from its stack, for all who may outlive or wake it.
//!
//! ```text
//! state   RUNNING ──park──▶ PARKED ──unpark──▶ NOTIFIED ──▶ on its worker's queue ──▶ RUNNING
//!            └────unpark───▶ NOTIFIED: the next park returns at once
//! ```
//!
//! Whoever takes a task from PARKED to NOTIFIED puts it on its worker's queue, and nobody else does: a task is queued
//! once. Its worker resumes it only after it has left its fiber, for both happen on the one thread it is pinned to.

use std::any::Any;
use std::panic::Location;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::park::{Cancelled, Op, Wait};
use super::wait_queue::{Ended, Node, WaitQueue, Waiter};
use super::worker::{self, Remote};
use crate::shim;
use crate::time::Instant;

/// What a task runs. It catches its own panics and ends by calling [`Completion::finish`].
pub(crate) type Job = Box<dyn FnOnce(&Arc<Task>) + Send>;

const RUNNING: u8 = 0;
const PARKED: u8 = 1;
const NOTIFIED: u8 = 2;

pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) name: Option<Box<str>>,
    pub(crate) spawned_at: &'static Location<'static>,
    /// The size of its stack in bytes, where it is not the runtime's own.
    pub(crate) stack_size: Option<usize>,
    pub(crate) completion: Completion,
    state: AtomicU8,
    /// What to run, until it starts.
    job: Mutex<Option<Job>>,
    /// The worker that it was placed on and its slot there.
    home: OnceLock<(Arc<Remote>, usize)>,
    waiting: Waiting,
}

/// What a parked task waits for, as its worker wrote it down: read by the task dump, at any time, from any thread.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// An [`Op`], or 0 while the task runs or is about to.
    what: AtomicU8,
    /// The descriptor that it waits on, or -1.
    fd: AtomicI32,
    /// When it began, by [`Instant::as_nanos`].
    since: AtomicU64,
}

impl Task {
    pub(crate) fn new(name: Option<String>, stack_size: Option<usize>, at: &'static Location<'static>) -> Task {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Task {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.map(String::into_boxed_str),
            spawned_at: at,
            stack_size,
            completion: Completion::default(),
            state: AtomicU8::new(RUNNING),
            job: Mutex::new(None),
            home: OnceLock::new(),
            waiting: Waiting::default(),
        }
    }

    /// Gives a task that has not been placed yet what it will run.
    pub(crate) fn set_job(&self, job: Job) {
        *self.job.lock().expect("no code of the user's runs under this lock") = Some(job);
    }

    pub(crate) fn take_job(&self) -> Option<Job> {
        self.job.lock().expect("no code of the user's runs under this lock").take()
    }

    /// Places the task: from here on it is that worker's. Once.
    pub(crate) fn place(&self, remote: Arc<Remote>, slot: usize) {
        let placed = self.home.set((remote, slot));
        assert!(placed.is_ok(), "a task is placed once");
    }

    pub(crate) fn remote(&self) -> &Arc<Remote> {
        &self.home.get().expect("a task runs only after it was placed").0
    }

    pub(crate) fn slot(&self) -> usize {
        self.home.get().expect("a task runs only after it was placed").1
    }

    /// Makes the task's current or next park return.
    pub(crate) fn unpark(self: &Arc<Task>) {
        // Release: what the caller did before is seen by whoever returns from the park.
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == PARKED {
            worker::enqueue(self.clone());
        }
    }

    /// Says that the task is about to leave its fiber. False if it must not, for somebody has unparked it already.
    pub(super) fn begin_park(&self, wait: Wait, now: Instant) -> bool {
        self.waiting.what.store(wait.op as u8, Ordering::Relaxed);
        self.waiting.fd.store(wait.fd.unwrap_or(-1), Ordering::Relaxed);
        self.waiting.since.store(now.as_nanos(), Ordering::Relaxed);
        self.state.compare_exchange(RUNNING, PARKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Says that the task runs on; pairs with `begin_park`, whatever that said.
    pub(super) fn end_park(&self) {
        self.state.swap(RUNNING, Ordering::AcqRel);
        self.waiting.what.store(0, Ordering::Relaxed);
    }

    /// What the task waits for, and since when.
    pub(crate) fn waiting(&self) -> Option<(Wait, Instant)> {
        let what = self.waiting.what.load(Ordering::Relaxed);
        let op = Op::ALL.into_iter().find(|op| *op as u8 == what)?;
        let fd = self.waiting.fd.load(Ordering::Relaxed);
        let since = Instant::from_nanos(self.waiting.since.load(Ordering::Relaxed));
        Some((Wait { op, fd: (fd >= 0).then_some(fd) }, since))
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
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

    /// Waits until the task has finished.
    pub(crate) fn wait(&self) -> Result<(), Cancelled> {
        let waiter = Waiter::new();
        let node = Node::new(&waiter, 0, ());
        // SAFETY: `node` is taken out below, however the wait ends, before it goes.
        if !unsafe { self.enlist(&node) } {
            return Ok(());
        }
        let ended = waiter.wait(Op::Join.into(), None);
        // SAFETY: it was enlisted here.
        unsafe { self.delist(&node) };
        match ended {
            Ended::Refused(cancelled) => Err(cancelled),
            Ended::Woken(_) | Ended::TimedOut => Ok(()),
        }
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
