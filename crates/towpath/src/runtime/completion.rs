//! How a task's end is told: the phase that its record is in, and who waits for the last one.
//!
//! The outcome itself lies in the record. It belongs to the task until `finish`, then to the handle, and to the task again
//! if the handle has gone by then: `finish` and `detach` are ordered by a lock, and one of them finds the other done. An
//! outcome that is not Send comes from `spawn_local` alone, whose handle is not Send either: so it is on its own thread
//! wherever it is taken or dropped.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU8, Ordering};

use super::park::Cancelled;
use super::wait::{Op, Wait};
use super::wait_queue::{Node, WaitQueue, Waiter};
use crate::shim::{Mutex, MutexGuard, lock};

/// What a task's record holds beside the record itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The closure.
    Pending,
    /// Nothing: it runs.
    Started,
    /// What it returned.
    Returned,
    /// What it panicked with.
    Panicked,
    /// Nothing: the outcome has been taken, or dropped.
    Empty,
}

#[derive(Debug)]
pub(crate) struct Completion {
    /// A [`Phase`]. After STARTED it changes under the lock, or when one reference is left.
    phase: AtomicU8,
    /// Whether the handle has gone: nobody will ask for the outcome.
    detached: Mutex<bool>,
    /// Guarded by the same lock.
    joining: UnsafeCell<WaitQueue<()>>,
}

// SAFETY: the queue is reached under the lock, and is Send.
unsafe impl Sync for Completion {}

impl Completion {
    pub(super) fn new() -> Completion {
        Completion {
            phase: AtomicU8::new(Phase::Pending as u8),
            detached: Mutex::new(false),
            joining: UnsafeCell::new(WaitQueue::default()),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        const PHASES: [Phase; 5] = [Phase::Pending, Phase::Started, Phase::Returned, Phase::Panicked, Phase::Empty];
        // Acquire: who sees the task returned sees what it left.
        PHASES[usize::from(self.phase.load(Ordering::Acquire))]
    }

    fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Says that the closure has gone to run.
    pub(super) fn start(&self) {
        self.set(Phase::Started);
    }

    /// Says that the record's body is empty, and what was in it: for the one that moves or drops that. The body is the
    /// caller's alone.
    pub(super) fn empty(&self) -> Phase {
        let before = self.phase();
        self.set(Phase::Empty);
        before
    }

    fn lock(&self) -> Locked<'_> {
        Locked { detached: lock(&self.detached), joining: &self.joining }
    }

    /// Wakes who waits for the outcome, which has been left. False if there will be nobody: it is the caller's to drop.
    pub(super) fn finish(&self, phase: Phase) -> bool {
        let mut locked = self.lock();
        self.set(phase);
        let wanted = !*locked.detached;
        // One at most: the handle is not shared, and `enlist` is called through it.
        let joiner = locked.joining().claim(|()| ());
        debug_assert!(locked.joining().is_empty(), "a handle waits once at a time");
        drop(locked);
        if let Some(unparker) = joiner {
            unparker.unpark();
        }
        wanted
    }

    pub(crate) fn is_finished(&self) -> bool {
        !matches!(self.phase(), Phase::Pending | Phase::Started)
    }

    /// Says that nobody will ask for the outcome any more. True if it is there: it is the caller's to drop.
    pub(super) fn detach(&self) -> bool {
        if self.phase() == Phase::Empty {
            return false; // it has taken the outcome itself
        }
        let mut detached = lock(&self.detached);
        *detached = true;
        matches!(self.phase(), Phase::Returned | Phase::Panicked)
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
        let mut locked = self.lock();
        let finished = self.is_finished();
        if !finished {
            // SAFETY: the caller's promise; the lock is this queue's.
            unsafe { locked.joining().push(node) };
        }
        !finished
    }

    /// # Safety
    /// As [`WaitQueue::remove`].
    pub(crate) unsafe fn delist(&self, node: &Node<()>) {
        // SAFETY: the caller's promise.
        unsafe { self.lock().joining().remove(node) };
    }
}

/// What the lock guards, while it is held.
struct Locked<'a> {
    detached: MutexGuard<'a, bool>,
    joining: &'a UnsafeCell<WaitQueue<()>>,
}

impl Locked<'_> {
    fn joining(&mut self) -> &mut WaitQueue<()> {
        // SAFETY: the lock is ours, and we are borrowed alone.
        unsafe { &mut *self.joining.get() }
    }
}
