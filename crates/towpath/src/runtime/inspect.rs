//! What a task dump asks of a runtime: each task, and how it stands.
//!
//! ```text
//! asker                                   each worker, between two turns
//! Inquiry ── Message::Look ─────────────▶ tells of its tasks, for a quarter of a millisecond at most,
//!    ▲                                    then runs others, then goes on: Message::Look to itself
//!    └────────────── a batch ◀──────────── …
//!            and once more for the tasks that have changed their worker meanwhile (`moves`)
//! ```
//!
//! A worker can tell all of its tasks, for none of them runs meanwhile: what lies on a parked stack, where that ends, what
//! called what. Of one that does not answer, because a task of its does not let go of it, the records are read from
//! outside: they say what each task waits for and until when. Locks are held for a part of the tasks at a time.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::frames::Frames;
use super::park::{fork, may_wait};
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

/// Which tasks of a worker are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Which {
    /// None for all.
    these: Option<Arc<[Record]>>,
    /// So many of these, or so many slots, have been looked at.
    done: usize,
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
        let mut sight = Sight::default();
        if fork::check().is_err() {
            return sight; // the tasks are the parent's, and who held a lock here may have stayed behind
        }
        let watched = self.moves.watch();
        let by_id = |(task, remote): (Record, Arc<Remote>)| (task.id, (task, remote));
        self.ask(frames, self.remotes().iter().map(|remote| (remote.clone(), Which::default())), &mut sight);
        let mut moved: HashMap<_, _> = watched.take().into_iter().map(by_id).collect();
        moved.retain(|&id, _| sight.lacks(id));
        if !moved.is_empty() {
            let mut asked = HashMap::new();
            for (task, remote) in moved.values().filter(|(_, remote)| !sight.silent.contains(&remote.name)) {
                asked.entry(remote.id).or_insert_with(|| (remote.clone(), Vec::new())).1.push(task.clone());
            }
            let these = |tasks: Vec<_>| Which { these: Some(tasks.into()), done: 0 };
            self.ask(frames, asked.into_values().map(|(remote, tasks)| (remote, these(tasks))), &mut sight);
        }
        // One that was not told even so is with a worker that is silent, or has ended, or has been taken once more since.
        let missed_of = |moved: &HashMap<_, (Record, Arc<Remote>)>| -> Vec<Seen> {
            let missed = moved.iter().filter(|&(&id, _)| sight.lacks(id));
            missed.filter_map(|(_, (task, remote))| Seen::at(task, remote)).collect()
        };
        watched.hold_still(|| ()); // what was on its way has arrived
        let mut missed = missed_of(&moved);
        let mut last = HashMap::new();
        watched.hold_still(|| {
            last.extend(watched.take().into_iter().map(by_id));
            missed.extend(missed_of(&last));
        });
        sight.add(missed);
        sight
    }

    /// Asks workers for tasks of theirs, and adds them. Those of a worker that does not answer are looked at from outside.
    fn ask(&self, frames: bool, workers: impl Iterator<Item = (Arc<Remote>, Which)>, sight: &mut Sight) {
        let own = worker::current().filter(|worker| std::ptr::eq(&*worker.runtime, self));
        let inquiry = Arc::new(Inquiry { frames, stage: shim::Mutex::default() });
        let may_ask = may_wait().is_ok();
        let (mut of_own, mut others) = (None, Vec::new());
        for (remote, which) in workers {
            if own.is_some_and(|own| own.remote.id == remote.id) {
                of_own = Some(which);
                continue;
            }
            if may_ask {
                shim::lock(&inquiry.stage).left.push(remote.id);
                if remote.send(Message::Look(inquiry.clone(), which.clone())).is_err() {
                    inquiry.tell(remote.id, Vec::new(), true); // it has gone, with its last task
                }
            }
            others.push((remote, which));
        }
        let mut seen = Vec::new();
        if let Some((own, which)) = own.zip(of_own) {
            own.look_at_own(frames, which, &mut seen);
        }
        let (batches, left) = inquiry.answers();
        seen.extend(batches.into_iter().flatten());
        for (remote, mut which) in others.into_iter().filter(|(remote, _)| !may_ask || left.contains(&remote.id)) {
            while remote.look_at(&mut which, BATCH, |task| seen.push(Seen::from_outside(task, &remote))) {}
            sight.silent.extend(may_ask.then(|| remote.name.clone()));
        }
        sight.add(seen);
    }
}

impl Sight {
    /// Adds tasks, but for those that are there: what changes its worker may be found with both.
    fn add(&mut self, seen: Vec<Seen>) {
        self.seen.extend(seen);
        self.seen.sort_by_key(|seen| seen.task.id);
        self.seen.dedup_by_key(|seen| seen.task.id);
    }

    fn lacks(&self, id: u64) -> bool {
        self.seen.binary_search_by_key(&id, |seen| seen.task.id).is_err()
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
    /// Tells of tasks here: of as many as there is time for, and later of the rest.
    pub(super) fn answer(&self, inquiry: Arc<Inquiry>, which: Which) {
        if shim::lock(&inquiry.stage).over {
            return; // who asked has given us up
        }
        if self.has_looked.replace(true) {
            _ = self.remote.send(Message::Look(inquiry, which)); // one a turn
            return;
        }
        let mut batch = Vec::new();
        let rest = self.look_at_some(inquiry.frames, which, &mut batch);
        let wanted = inquiry.tell(self.remote.id, batch, rest.is_none());
        if let Some(which) = rest.filter(|_| wanted) {
            _ = self.remote.send(Message::Look(inquiry, which)); // a worker has not gone while it works
        }
    }

    /// Looks at tasks of this worker, one of which calls this, and lets others run now and then.
    fn look_at_own(&self, frames: bool, which: Which, seen: &mut Vec<Seen>) {
        let mut which = Some(which);
        while let Some(some) = which {
            which = self.look_at_some(frames, some, seen);
            if which.is_some() {
                self.yield_now();
            }
        }
    }

    /// Looks at tasks here. Returns those that are left if time runs out.
    fn look_at_some(&self, frames: bool, mut which: Which, seen: &mut Vec<Seen>) -> Option<Which> {
        let begun = Instant::now();
        let size = if frames { FRAMES_BATCH } else { BATCH };
        let mut batch = Vec::with_capacity(size);
        loop {
            let more = self.remote.look_at(&mut which, size, |task| {
                let suspended = task.has_started() && !self.remote.runs(task);
                batch.push((Seen::from_outside(task, &self.remote), suspended));
            });
            seen.extend(batch.drain(..).map(|(seen, suspended)| self.look_at(seen, suspended, frames)));
            if !more {
                return None;
            }
            if begun.elapsed() >= SPELL {
                return Some(which);
            }
        }
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

    /// Calls `look` with the next tasks, so many at most, under the lock. False if these were the last.
    fn look_at(&self, which: &mut Which, size: usize, look: impl FnMut(&Placed)) -> bool {
        let tasks = self.lock();
        let next = which.done..which.done + size;
        which.done = next.end;
        match &which.these {
            None => {
                next.filter_map(|slot| tasks.live.get(slot)).for_each(look);
                which.done < tasks.live.slots()
            }
            Some(these) => {
                let next = &these[next.start..next.end.min(these.len())];
                next.iter().filter_map(|task| tasks.live.find(task)).for_each(look);
                which.done < these.len()
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

    /// The task as that worker has it, which took it from another; none if it has ended, or has been taken again.
    fn at(task: &Record, remote: &Arc<Remote>) -> Option<Seen> {
        let tasks = remote.lock();
        tasks.live.find(task).map(|task| Seen::from_outside(task, remote))
    }

    /// Whether the task is still in the wait that it was found in.
    pub(crate) fn still_waits(&self) -> bool {
        match self.state {
            State::Waiting { what, since, .. } => {
                let now = Seen::at(&self.task, &self.remote).map(|seen| seen.state);
                matches!(now, Some(State::Waiting { what: now, since: from, .. }) if (now, from) == (what, since))
            }
            State::Running | State::Ready => false,
        }
    }
}
