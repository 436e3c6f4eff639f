//! What a task dump asks of a runtime: each task, and how it stands.
//!
//! ```text
//! asker                                   each worker, between two turns
//! Inquiry ── Message::Look ─────────────▶ tells of its tasks, for a quarter of a millisecond at most,
//!    ▲                                    then runs others, then goes on: Message::Look to itself
//!    └────────────── a batch ◀──────────── …
//! ```
//!
//! A worker can tell all of its tasks, for none of them runs meanwhile: what lies on a parked stack, where that ends, what
//! called what. Of one that does not answer, because a task of its does not let go of it, the records are read from
//! outside: they say what each task waits for and until when. Locks are held for a part of the tasks at a time.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::frames::Frames;
use super::park::may_wait;
use super::record::Record;
use super::table::Placed;
use super::wait::{On, Op, What};
use super::wait_queue::{Node, WaitQueue, Waiter};
use super::worker::{self, Message, Remote, Worker};
use crate::shim;
use crate::time::Instant;

/// How long a worker may show no sign of life until it is given up.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a worker tells of its tasks before it goes back to running them.
const SPELL: Duration = Duration::from_micros(250);
/// Tasks that are counted under one lock: a few microseconds.
const BATCH: usize = 64;
/// The same where frames are taken down, which takes some ten microseconds a task.
const FRAMES_BATCH: usize = 8;

/// A task as it was found.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) task: Record,
    /// Its worker's.
    pub(crate) remote: Arc<Remote>,
    pub(crate) state: State,
    /// The usable part of its stack, where its worker has told it.
    pub(crate) stack: Option<Range<usize>>,
    /// The lowest address of that which is in use.
    pub(crate) stack_pointer: Option<usize>,
    pub(crate) frames: Option<Frames>,
}

#[derive(Debug)]
pub(crate) enum State {
    Running,
    /// It is queued, or has yet to start.
    Ready,
    Waiting {
        what: What,
        on: On,
        since: Instant,
        deadline: Option<Instant>,
    },
}

/// All tasks of a runtime, and the names of the workers that did not answer.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    pub(crate) seen: Vec<Seen>,
    pub(crate) silent: Vec<Arc<str>>,
}

/// A question to the workers of one runtime.
#[derive(Debug)]
pub(crate) struct Inquiry {
    frames: bool,
    stage: shim::Mutex<Stage>,
}

#[derive(Debug, Default)]
struct Stage {
    batches: Vec<Vec<Seen>>,
    /// The workers that have not come to their end, by their ids.
    left: Vec<u32>,
    /// Nobody waits for answers any more.
    over: bool,
    waiting: WaitQueue<()>,
}

impl Shared {
    /// Looks at all tasks; with `frames`, also at what has called what in those that are suspended.
    pub(crate) fn look(&self, frames: bool) -> Sight {
        let own = worker::current().filter(|worker| std::ptr::eq(&*worker.runtime, self));
        let others = || self.remotes().iter().filter(|remote| own.is_none_or(|own| own.remote.id != remote.id));
        let inquiry = Arc::new(Inquiry { frames, stage: shim::Mutex::default() });
        let may_ask = may_wait().is_ok();
        for remote in others().filter(|_| may_ask) {
            shim::lock(&inquiry.stage).left.push(remote.id);
            if remote.send(Message::Look(inquiry.clone(), 0)).is_err() {
                inquiry.tell(remote.id, Vec::new(), true); // it has gone, with its last task
            }
        }
        let mut sight = Sight::default();
        if let Some(own) = own {
            own.look_at_all(frames, &mut sight.seen);
        }
        let (batches, left) = inquiry.answers();
        sight.seen.extend(batches.into_iter().flatten());
        for remote in others().filter(|remote| !may_ask || left.contains(&remote.id)) {
            remote.look_from_outside(&mut sight.seen);
            sight.silent.extend(may_ask.then(|| remote.name.clone()));
        }
        // A task that had yet to start may have been found with two workers.
        sight.seen.sort_by_key(|seen| seen.task.id);
        sight.seen.dedup_by_key(|seen| seen.task.id);
        sight
    }
}

impl Inquiry {
    /// Adds what a worker has found, and whether that is all. False if nobody wants it.
    fn tell(&self, worker: u32, batch: Vec<Seen>, all: bool) -> bool {
        let mut stage = shim::lock(&self.stage);
        if stage.over {
            return false; // `batch` is dropped after the lock: it was there before
        }
        stage.batches.push(batch);
        if all {
            stage.left.retain(|left| *left != worker);
        }
        while stage.left.is_empty() {
            let Some(unparker) = stage.waiting.claim(|()| ()) else { break };
            drop(stage);
            unparker.unpark();
            stage = shim::lock(&self.stage);
        }
        true
    }

    /// Waits for all answers, or until no worker has given one for a while. Besides, who has not told all.
    fn answers(&self) -> (Vec<Vec<Seen>>, Vec<u32>) {
        let mut told = None;
        loop {
            let waiter = Waiter::new().ok(); // who may not wait takes what there is
            let node = waiter.as_ref().map(|waiter| Node::new(waiter, 0, ()));
            let mut stage = shim::lock(&self.stage);
            let silence = told.replace(stage.batches.len()) == Some(stage.batches.len());
            let (Some(waiter), Some(node), false) = (&waiter, &node, silence || stage.left.is_empty()) else {
                stage.over = true;
                return (std::mem::take(&mut stage.batches), std::mem::take(&mut stage.left));
            };
            // SAFETY: it is removed below, before it goes.
            unsafe { stage.waiting.push(node) };
            drop(stage);
            waiter.wait(Op::Dump.into(), Some(Instant::after(PATIENCE)));
            // SAFETY: it was pushed here.
            unsafe { shim::lock(&self.stage).waiting.remove(node) };
        }
    }
}

impl Worker {
    /// Tells of the tasks from a slot on, and later of the rest.
    pub(super) fn answer(&self, inquiry: Arc<Inquiry>, slot: usize) {
        let mut batch = Vec::new();
        let rest = self.look_at_some(inquiry.frames, slot, &mut batch);
        let wanted = inquiry.tell(self.remote.id, batch, rest.is_none());
        if let Some(slot) = rest.filter(|_| wanted) {
            _ = self.remote.send(Message::Look(inquiry, slot)); // a worker has not gone while it works
        }
    }

    /// Looks at all tasks of this worker, one of which calls this, and lets others run now and then.
    fn look_at_all(&self, frames: bool, seen: &mut Vec<Seen>) {
        let mut slot = Some(0);
        while let Some(from) = slot {
            slot = self.look_at_some(frames, from, seen);
            if slot.is_some() {
                self.yield_now();
            }
        }
    }

    /// Looks at the tasks from a slot on. Returns the next slot if time ran out.
    fn look_at_some(&self, frames: bool, from: usize, seen: &mut Vec<Seen>) -> Option<usize> {
        let begun = Instant::now();
        let size = if frames { FRAMES_BATCH } else { BATCH };
        let mut batch = Vec::with_capacity(size);
        let mut slot = from;
        loop {
            let slots = self.collect(slot..slot + size, &mut batch);
            seen.extend(batch.drain(..).map(|(seen, suspended)| self.look_at(seen, suspended, frames)));
            slot += size;
            if slot >= slots {
                return None;
            }
            if begun.elapsed() >= SPELL {
                return Some(slot);
            }
        }
    }

    /// The tasks in these slots, and whether each has a fiber that is suspended. Returns how many slots there are.
    fn collect(&self, slots: Range<usize>, batch: &mut Vec<(Seen, bool)>) -> usize {
        let tasks = self.remote.lock();
        for task in slots.filter_map(|slot| tasks.live.get(slot)) {
            let suspended = task.has_started() && !self.remote.runs(task);
            batch.push((Seen::from_outside(task, &self.remote), suspended));
        }
        tasks.live.slots()
    }

    /// Adds what only its worker can tell of a task. One that has started stays here, and ends only while it runs.
    fn look_at(&self, mut seen: Seen, suspended: bool, frames: bool) -> Seen {
        if !suspended {
            return seen;
        }
        if let State::Waiting { what, on, .. } = &mut seen.state {
            // SAFETY: the task is parked, and would have to run on this thread to be so no more.
            *on = unsafe { what.describe() };
        }
        // SAFETY: the task has a fiber and so stays on this worker, whose thread this is, and it does not run.
        let resident = unsafe { seen.task.resident() }.expect("it has a fiber, and has not run since");
        // SAFETY: it is suspended, so that no `step` holds on to its fiber, and nothing else in here does.
        let (fiber, running) = unsafe { &mut *resident.fiber.get() };
        let stack = running.usable();
        seen.stack_pointer = fiber.suspended_at();
        if frames {
            seen.frames = fiber.look(stack.end);
            fiber.trim(); // what that took of the stack's memory
        }
        seen.stack = Some(stack);
        seen
    }
}

impl Remote {
    /// Whether the task is the one that runs here.
    fn runs(&self, task: &Record) -> bool {
        self.running.load(Ordering::Relaxed) == task.as_ptr().as_ptr()
    }

    /// Adds what can be told of the tasks without the worker.
    fn look_from_outside(self: &Arc<Remote>, seen: &mut Vec<Seen>) {
        for slot in (0..).step_by(BATCH) {
            let tasks = self.lock();
            let batch = (slot..slot + BATCH).filter_map(|slot| tasks.live.get(slot));
            seen.extend(batch.map(|task| Seen::from_outside(task, self)));
            if slot + BATCH >= tasks.live.slots() {
                return;
            }
        }
    }
}

impl Seen {
    fn from_outside(task: &Placed, remote: &Arc<Remote>) -> Seen {
        let state = match task.waiting() {
            Some((what, since, deadline)) => State::Waiting { what, on: what.on(), since, deadline },
            None if remote.runs(task) => State::Running,
            None => State::Ready,
        };
        let (task, remote) = (task.record(), remote.clone());
        Seen { task, remote, state, stack: None, stack_pointer: None, frames: None }
    }

    /// Whether the task is still in the wait that it was found in.
    pub(crate) fn still_waits(&self) -> bool {
        match self.state {
            State::Waiting { what, since, .. } => {
                let tasks = self.remote.lock();
                let placed = tasks.live.get(self.task.slot()).filter(|placed| placed.is(&self.task));
                let waiting = placed.and_then(Placed::waiting);
                waiting.is_some_and(|(now, from, _)| (now, from) == (what, since))
            }
            State::Running | State::Ready => false,
        }
    }
}
