//! Work for idle workers: a worker with nothing to run takes tasks that have not started from those that have more.
//!
//! ```text
//! idle worker                         spawning worker
//! says that it is idle                queues the task as unstarted
//! looks at the others' unstarted      looks whether somebody is idle: wakes one
//! ```
//!
//! Each says its own before it looks at the other's, so that one of them sees the other: no task is left waiting beside a
//! worker that sleeps. A task that has started stays; what is taken is a closure that no stack has been given to.
//!
//! A worker that has as many tasks as the other leaves them there, or long-lived connections would all come to whoever was
//! idle first. Only if the other has not moved on by a second look, because a task computes or blocks, are they taken all
//! the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use super::Shared;
use super::record::Record;
use super::worker::{Message, Remote, Worker};
use crate::time::Instant;

/// How long a worker is given to start a task itself.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// What a worker tells the others.
#[derive(Debug, Default)]
pub(super) struct State {
    /// It has nothing to run and may be asleep.
    idle: AtomicBool,
    /// Its tasks that have not started. Changed under the lock of the tasks.
    unstarted: AtomicUsize,
    /// Counts the steps that it takes, so that others see whether it takes any.
    steps: AtomicU32,
}

impl State {
    /// Says how many tasks have not started.
    #[inline]
    pub(super) fn says(&self, unstarted: usize) {
        self.unstarted.store(unstarted, Ordering::SeqCst);
    }

    /// How many steps it has taken.
    pub(super) fn steps(&self) -> u32 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Counts a step. Its own worker alone does.
    #[inline]
    pub(super) fn step(&self) {
        self.steps.store(self.steps().wrapping_add(1), Ordering::Relaxed);
    }
}

/// What a look at the other workers came to.
pub(super) enum Idle {
    /// Tasks have been taken, and queued.
    Taken,
    /// There are some that were left where they are: look again then.
    Left(Instant),
    Nothing,
}

impl Idle {
    pub(super) fn look_again(self) -> Option<Instant> {
        match self {
            Idle::Left(then) => Some(then),
            Idle::Taken | Idle::Nothing => None,
        }
    }
}

/// A worker that was seen with tasks that it might have started, how far it was, and when to look again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    worker: u32,
    steps: u32,
    then: Instant,
}

impl Worker {
    /// Says that this worker is idle, and looks whether others have tasks that it can start.
    pub(super) fn look_around(&self) -> Idle {
        let state = &self.remote.idle;
        // Counted first: whoever finds it idle takes it off the count. It was not idle: see `run`.
        self.runtime.idle.fetch_add(1, Ordering::SeqCst);
        state.idle.store(true, Ordering::SeqCst);
        let Some(workers) = self.runtime.remotes.get() else { return Idle::Nothing }; // the runtime is about to start
        let others = workers.iter().filter(|remote| !Arc::ptr_eq(remote, &self.remote));
        let mut left = None;
        for other in others.filter(|other| other.idle.unstarted.load(Ordering::SeqCst) > 0) {
            if self.take_from(other, &mut left) {
                return Idle::Taken;
            }
        }
        self.seen.set(left);
        left.map_or(Idle::Nothing, |seen| Idle::Left(seen.then))
    }

    /// Takes tasks from `other`, unless they are left to it. False if none were taken.
    fn take_from(&self, other: &Arc<Remote>, left: &mut Option<Seen>) -> bool {
        let live = |remote: &Remote| remote.live.load(Ordering::Relaxed);
        let most = match live(other).saturating_sub(live(&self.remote)) / 2 {
            0 if self.has_moved(other, left) => return false,
            0 => usize::MAX,
            uneven => uneven,
        };
        let count = self.runtime.moves.moving(&self.remote, |moved| {
            let taken = self.take_out(other, most);
            taken.iter().for_each(moved);
            let count = taken.len();
            self.remote.take_in(taken);
            count
        });
        (0..count).for_each(|_| self.start_one());
        other.live.fetch_sub(count, Ordering::SeqCst);
        if self.runtime.is_stopping() {
            _ = other.send(Message::Stop); // it may have waited for these tasks alone; one that has gone is no loss
        }
        count > 0
    }

    /// Takes the half, and no more than `most`, of the tasks that `other` has not started out of its hands.
    fn take_out(&self, other: &Remote, most: usize) -> Vec<Record> {
        let mut tasks = other.lock();
        let count = tasks.unstarted.len().div_ceil(2).min(most);
        // Counted here before they are no longer counted there: neither worker ends meanwhile.
        self.remote.live.fetch_add(count, Ordering::SeqCst);
        let taken: Vec<_> = tasks.unstarted.drain(..count).collect();
        other.idle.says(tasks.unstarted.len());
        taken.into_iter().map(|task| tasks.live.remove(task.slot())).collect()
    }

    /// Whether `other` has taken a step since an earlier look, or may yet take one until the next.
    fn has_moved(&self, other: &Remote, left: &mut Option<Seen>) -> bool {
        let (steps, now) = (other.idle.steps(), Instant::now());
        let seen = self.seen.get().filter(|seen| seen.worker == other.id && seen.steps == steps);
        if seen.is_some_and(|seen| seen.then <= now) {
            return false;
        }
        *left = seen.or(Some(Seen { worker: other.id, steps, then: now + SECOND_LOOK }));
        true
    }
}

impl Shared {
    /// Wakes a worker that is idle, if there is one: a task has been queued that it might start.
    #[inline]
    pub(super) fn wake_idle(&self) {
        if self.idle.load(Ordering::SeqCst) > 0 {
            self.wake_one_idle();
        }
    }

    #[cold]
    fn wake_one_idle(&self) {
        let mut idle = self.remotes().iter().filter(|remote| remote.idle.idle.load(Ordering::SeqCst));
        if let Some(remote) = idle.find(|remote| self.busy(remote)) {
            remote.wake();
        }
    }

    /// Says that a worker is not idle any more; whether it was.
    pub(super) fn busy(&self, remote: &Remote) -> bool {
        let was_idle = remote.idle.idle.load(Ordering::Relaxed) && remote.idle.idle.swap(false, Ordering::SeqCst);
        if was_idle {
            self.idle.fetch_sub(1, Ordering::SeqCst);
        }
        was_idle
    }
}
