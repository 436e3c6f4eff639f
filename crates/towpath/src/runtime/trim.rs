//! Memory that comes back: a worker now and then gives back what its stacks hold and nobody needs.
//!
//! * Stacks that have been free for a second: see [`Pool::trim`](super::stack::Pool::trim).
//! * Stacks of tasks that have been parked for two seconds: what calls deeper than the present one have left there. Every
//!   two seconds in which tasks have run, a sweep looks at all of them; so such memory is back after four.
//!
//! Each turn of the worker does a bounded part of it, and one that has nothing to trim sleeps undisturbed.

use std::time::Duration;

use super::task::TaskRef;
use super::worker::Worker;
use crate::time::Instant;

/// How long pages that deep calls touched stay with a stack that has been given back.
const FREE_FOR: Duration = Duration::from_secs(1);
/// And with one whose task is parked.
const PARKED_FOR: Duration = Duration::from_secs(2);
/// How often parked tasks are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// Tasks that one turn looks at.
const BATCH: usize = 256;

/// When there will be something to trim.
#[derive(Debug, Default)]
pub(super) struct Trimming {
    free_at: Option<Instant>,
    sweep_at: Option<Instant>,
    /// Where the sweep that has begun goes on.
    next_slot: usize,
    /// It has met tasks that have not been parked for long enough.
    met_others: bool,
    /// The steps that the worker had taken when the last sweep began.
    swept: u32,
}

impl Trimming {
    /// When to look again.
    pub(super) fn due(&self) -> impl Iterator<Item = Instant> {
        self.free_at.into_iter().chain(self.sweep_at)
    }
}

impl Worker {
    /// Trims what is due.
    pub(super) fn trim(&self, trimming: &mut Trimming) {
        let now = self.now.get();
        self.trim_free(&mut trimming.free_at, now);
        match trimming.sweep_at {
            None if trimming.swept != self.remote.idle.steps() => trimming.sweep_at = Some(now + SWEEP_EVERY),
            Some(at) if at <= now => self.sweep(trimming, now),
            _ => {}
        }
    }

    fn trim_free(&self, trim_at: &mut Option<Instant>, now: Instant) {
        let mut stacks = self.stacks.borrow_mut();
        if !stacks.needs_trim() {
            *trim_at = None; // tasks have taken the stacks again
            return;
        }
        match *trim_at {
            None => *trim_at = Some(now + FREE_FOR),
            Some(at) if at <= now => {
                stacks.trim();
                if !stacks.needs_trim() {
                    *trim_at = None;
                }
            }
            Some(_) => {}
        }
    }

    /// Looks at the next tasks, and ends the sweep with the last.
    fn sweep(&self, trimming: &mut Trimming, now: Instant) {
        if trimming.next_slot == 0 {
            trimming.swept = self.remote.idle.steps(); // what parks from here on, the next sweep is for
        }
        let slots = self.remote.lock().live.slots();
        let end = slots.min(trimming.next_slot + BATCH);
        for slot in trimming.next_slot..end {
            let Some((task, since)) = self.parked_in(slot) else { continue };
            // SAFETY: the task is on this worker, whose thread this is.
            let resident = unsafe { task.settled() };
            if resident.trimmed.get() == since.as_nanos() {
                continue;
            }
            if since + PARKED_FOR > now {
                trimming.met_others = true;
                continue;
            }
            resident.trimmed.set(since.as_nanos());
            // SAFETY: no task runs now, and nothing else reaches a fiber.
            let (fiber, _) = unsafe { &*resident.fiber.get() };
            fiber.trim();
        }
        trimming.next_slot = end;
        if end == slots {
            trimming.next_slot = 0;
            trimming.sweep_at = std::mem::take(&mut trimming.met_others).then(|| now + SWEEP_EVERY);
        }
    }

    /// The task in a slot, if it is parked, and since when.
    fn parked_in(&self, slot: usize) -> Option<(TaskRef, Instant)> {
        let tasks = self.remote.lock();
        let task = tasks.live.get(slot)?;
        // Asked under the lock: another worker may take one that has not started, and have it park, as soon as we let go.
        let (_, since, _) = task.waiting()?;
        // SAFETY: it has been placed, and started here, so that it stays; nothing ends it while this thread sweeps.
        Some((unsafe { TaskRef::new(task) }, since))
    }
}
