//! One direction of a socket: whether it may be ready, who waits for that, and until when. The loop that every blocking
//! call goes through is [`Direction::operate`]: try, note, park, retry.
//!
//! ```text
//! state   epoch │ FORCED STICKY CLOSED WAITING READY        one atomic word
//! ```
//!
//! * **READY** says that the next call may succeed. It starts out set, a report sets it, and a call that found nothing
//!   clears it — but only if the *epoch*, which each report raises, still is what it was before the call. Otherwise a
//!   report that came in between would be wiped out, and whoever waits next would wait for ever.
//! * **STICKY** (the peer has finished or has sent urgent data, or the connection is over) never goes away: each new call
//!   tries, and a short read does not count as "empty now". **FORCED** (an error is pending) does the same until a call
//!   finds nothing.
//! * **WAITING** says that the queue is not empty. It changes under the queue's lock only.
//! * **CLOSED** is final.
//!
//! A report wakes one waiter. Whoever leaves, for whatever reason, wakes the next if READY is still set: so one edge is
//! enough for any number of waiters. Nothing here knows fibers, workers or descriptors; its `model` explores it with
//! loom.

use std::io;

use rustix::io::Errno;

use super::error::{closed, timed_out};
use crate::runtime::wait::Wait;
use crate::runtime::wait_queue::{Ended, Node, WaitQueue, Waiter};
use crate::shim::{AtomicU64, AtomicUsize, Mutex, Ordering, lock};
use crate::time::{Duration, Instant};

const READY: usize = 1;
const WAITING: usize = 2;
const CLOSED: usize = 4;
const STICKY: usize = 8;
const FORCED: usize = 16;
const EPOCH: usize = 32;

/// How a report is published: who sees it sees what it reported.
const REPORT: Ordering = if cfg!(towpath_fault = "relaxed_report") { Ordering::Relaxed } else { Ordering::AcqRel };

#[derive(Debug)]
pub(super) struct Direction {
    state: AtomicUsize,
    waiting: Mutex<WaitQueue<()>>,
    /// When calls fail, by [`Instant::as_nanos`]; 0 for never.
    deadline: AtomicU64,
    /// How many nanoseconds one call may wait; 0 for as long as it takes.
    timeout: AtomicU64,
}

/// How a call came out that did not fail.
pub(super) enum Progress<T> {
    Done(T),
    /// Done, and it has taken all there was: the next call would find nothing.
    Drained(T),
}

/// What a report says beside "ready".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    Nothing,
    /// Calls try, and short reads count for nothing, until one finds nothing.
    Once,
    /// The same from now on.
    Always,
}

/// Whether a call that finds nothing waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Wait,
    /// It fails with WouldBlock, as the user asked by `set_nonblocking`.
    Fail,
}

impl Direction {
    /// A direction of a socket of which nothing is known: the first call tries.
    pub(super) fn new() -> Direction {
        Direction {
            state: AtomicUsize::new(READY),
            waiting: Mutex::new(WaitQueue::default()),
            deadline: AtomicU64::new(0),
            timeout: AtomicU64::new(0),
        }
    }

    /// Does `attempt` until it comes to something, and waits each time that it finds nothing. `register` sees to it,
    /// before each wait, that reports will come: at once if the socket is ready by then. `limit` is this call's own
    /// deadline; without one the direction's timeout counts from the first wait on.
    #[inline]
    pub(super) fn operate<T>(
        &self,
        wait: Wait<'_>,
        mode: Mode,
        limit: Option<Instant>,
        register: impl FnMut() -> io::Result<()>,
        attempt: impl FnMut() -> Result<Progress<T>, Errno>,
    ) -> io::Result<T> {
        let result = self.attempts(wait, mode, limit, register, attempt);
        if cfg!(not(towpath_fault = "no_pass_on")) {
            self.pass_on();
        }
        result
    }

    #[inline]
    fn attempts<T>(
        &self,
        wait: Wait<'_>,
        mode: Mode,
        mut limit: Option<Instant>,
        mut register: impl FnMut() -> io::Result<()>,
        mut attempt: impl FnMut() -> Result<Progress<T>, Errno>,
    ) -> io::Result<T> {
        // What is known before the attempt: a report that comes during it raises the epoch, and then it may not be noted.
        let mut seen = self.look();
        let mut try_now = seen & (READY | STICKY) != 0 || mode == Mode::Fail;
        let mut is_late = false;
        loop {
            if seen & CLOSED != 0 {
                return Err(closed());
            }
            self.check_deadline()?;
            if try_now {
                let result = attempt();
                #[cfg(towpath_fault = "late_epoch")]
                let seen = self.look();
                match result {
                    Ok(Progress::Done(value)) => return Ok(value),
                    Ok(Progress::Drained(value)) => {
                        if seen & (STICKY | FORCED) == 0 {
                            self.clear(seen);
                        }
                        return Ok(value);
                    }
                    Err(Errno::INTR) => continue,
                    Err(Errno::AGAIN) if mode == Mode::Fail => return Err(Errno::AGAIN.into()),
                    Err(Errno::AGAIN) if is_late => return Err(timed_out()),
                    Err(Errno::AGAIN) => self.clear(seen),
                    // The descriptor means something else once the socket is closed; the error is that it was.
                    Err(_) if self.look() & CLOSED != 0 => return Err(closed()),
                    Err(error) => return Err(error.into()),
                }
            }
            limit = limit.or_else(|| self.timeout().map(Instant::after));
            is_late = self.wait(wait, limit, &mut register)?;
            seen = self.look();
            // What came in time is not late: its report may lie in the poller of a worker that was busy for too long.
            try_now = is_late || seen & READY != 0;
        }
    }

    /// Waits until there may be something to find. Returns early as it likes, and true when `limit` has passed.
    fn wait(
        &self,
        wait: Wait<'_>,
        limit: Option<Instant>,
        register: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<bool> {
        let waiter = Waiter::new()?;
        // Before we are queued, for it may fail: a report that comes in between shows when we are.
        register()?;
        #[cfg(towpath_fault = "early_deadline")]
        let deadline = self.deadline();
        let node = Node::new(&waiter, 0, ());
        // SAFETY: `delist` takes the node out below, unless a claim did.
        if !unsafe { self.enlist(&node) } {
            return Ok(false);
        }
        // The deadline is read once we are queued: whoever moves it earlier after that wakes us.
        #[cfg(not(towpath_fault = "early_deadline"))]
        let deadline = self.deadline();
        if waiter.wait(wait, earlier(limit, deadline)) == Ended::TimedOut {
            // SAFETY: it was enlisted here.
            unsafe { self.delist(&node) };
            // If not by this call's own limit, then late by a deadline that may have been moved: the caller looks again.
            return Ok(limit.is_some_and(|limit| limit <= Instant::now()));
        }
        Ok(false)
    }

    #[inline]
    fn look(&self) -> usize {
        const LOOK: Ordering = if cfg!(towpath_fault = "relaxed_look") { Ordering::Relaxed } else { Ordering::Acquire };
        // Acquire pairs with the report: what it reported is there for the attempt to find.
        self.state.load(LOOK)
    }

    /// Notes that there was nothing (more) to find, unless there has been a report since `seen`.
    #[inline]
    fn clear(&self, seen: usize) {
        _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            (state / EPOCH == seen / EPOCH).then_some(state & !(READY | FORCED))
        });
    }

    /// Takes READY for the caller alone, where it means that something is free to be taken.
    pub(super) fn take(&self) -> bool {
        const TAKE: Ordering = if cfg!(towpath_fault = "relaxed_take") { Ordering::Relaxed } else { Ordering::AcqRel };
        let before = self.state.fetch_and(!READY, TAKE);
        before & (READY | CLOSED) == READY
    }

    /// Ends a turn that [`take`](Self::take) has begun: what was taken is free again.
    #[inline]
    pub(super) fn give_back(&self) {
        // READY is not set while it is taken, so that one addition sets it and raises the epoch.
        let before = self.state.fetch_add(EPOCH | READY, REPORT);
        debug_assert!(before & READY == 0, "given back twice");
        if before & WAITING != 0 {
            self.wake_one();
        }
    }

    /// Queues a node, unless there may be something to find already or the direction is closed.
    ///
    /// # Safety
    /// As [`WaitQueue::push`]: `delist` it before it ends, unless it was claimed.
    unsafe fn enlist(&self, node: &Node<()>) -> bool {
        let mut waiting = lock(&self.waiting);
        // SAFETY: the caller's promise; the lock is this queue's.
        unsafe { waiting.push(node) };
        let before = self.state.fetch_or(WAITING, Ordering::AcqRel);
        let stays = before & (READY | CLOSED) == 0 || cfg!(towpath_fault = "no_recheck");
        if !stays {
            // SAFETY: it was pushed above.
            unsafe { waiting.remove(node) };
            self.settle(&waiting);
        }
        stays
    }

    /// # Safety
    /// As [`WaitQueue::remove`].
    unsafe fn delist(&self, node: &Node<()>) {
        let mut waiting = lock(&self.waiting);
        // SAFETY: the caller's promise.
        unsafe { waiting.remove(node) };
        self.settle(&waiting);
    }

    /// Keeps WAITING true to the queue.
    #[inline]
    fn settle(&self, waiting: &WaitQueue<()>) {
        if waiting.is_empty() {
            self.state.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }

    /// Takes note that the direction may be ready, and wakes who has waited longest.
    #[inline]
    pub(super) fn report(&self, force: Force) {
        let force = match force {
            Force::Nothing => 0,
            Force::Once => FORCED,
            Force::Always => STICKY,
        };
        let raised = |state: usize| Some(state.wrapping_add(EPOCH) | READY | force);
        let before = self.state.fetch_update(REPORT, Ordering::Relaxed, raised);
        if before.is_ok_and(|state| state & WAITING != 0) {
            #[cfg(towpath_fault = "drop_wake")]
            if fault::drop_this_one() {
                return;
            }
            self.wake_one();
        }
    }

    /// Wakes the next waiter if there still may be something for it.
    #[inline]
    fn pass_on(&self) {
        if self.look() & (READY | WAITING) == READY | WAITING {
            self.wake_one();
        }
    }

    fn wake_one(&self) {
        let unparker = {
            let mut waiting = lock(&self.waiting);
            let unparker = waiting.claim(|()| ());
            self.settle(&waiting);
            unparker
        };
        if let Some(unparker) = unparker {
            unparker.unpark();
        }
    }

    /// Wakes all who wait now, to look again.
    fn wake_all(&self) {
        let now_waiting = self.waiters();
        (0..now_waiting).for_each(|_| self.wake_one());
    }

    /// How many wait.
    pub(super) fn waiters(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Ends the direction: calls that wait and all later ones fail. False if it had ended already.
    pub(super) fn close(&self) -> bool {
        let before = self.state.fetch_or(CLOSED, Ordering::AcqRel);
        self.wake_all();
        before & CLOSED == 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.look() & CLOSED != 0
    }

    /// Says that nothing is known any more: all who wait try again, and register anew if they still find nothing.
    pub(super) fn forget(&self) {
        self.report(Force::Nothing);
        self.wake_all();
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let nanos = self.deadline.load(Ordering::Acquire);
        (nanos != 0).then(|| Instant::from_nanos(nanos))
    }

    /// Sets when calls fail. Waiting calls take note: at once of an earlier deadline, and of a later one when the old
    /// one would have ended them.
    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        let nanos = deadline.map_or(0, Instant::as_nanos);
        let old = self.deadline.swap(nanos, Ordering::AcqRel);
        if nanos != 0 && (old == 0 || nanos < old) {
            self.wake_all();
        }
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        let nanos = self.timeout.load(Ordering::Relaxed);
        (nanos != 0).then(|| Duration::from_nanos(nanos))
    }

    /// Sets how long each later call may wait. Not zero.
    pub(super) fn set_timeout(&self, timeout: Option<Duration>) {
        let nanos = timeout.map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        self.timeout.store(nanos, Ordering::Relaxed);
    }

    #[inline]
    fn check_deadline(&self) -> io::Result<()> {
        match self.deadline() {
            Some(deadline) if deadline <= Instant::now() => Err(timed_out()),
            _ => Ok(()),
        }
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

/// A wake-up lost on purpose, for the stress to find.
#[cfg(towpath_fault = "drop_wake")]
mod fault {
    use std::sync::atomic::{AtomicU32, Ordering};

    pub(super) fn drop_this_one() -> bool {
        static REPORTS: AtomicU32 = AtomicU32::new(0);
        REPORTS.fetch_add(1, Ordering::Relaxed) % 10_000 == 9_999
    }
}

#[cfg(all(test, towpath_loom))]
#[path = "readiness_model.rs"]
mod model;
