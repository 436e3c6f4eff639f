//! The one wait queue: who waits, and how exactly one wake-up reaches exactly one of them.
//!
//! Sockets, channels, joins and whatever is built later keep a [`WaitQueue`] inside a lock of their own. Tasks and plain
//! threads wait in it alike. A wait is a [`Waiter`] with a [`Node`] in each queue that may end it (one, or one for each arm
//! of a `select!`), all of them on the waiting stack: nothing is allocated.
//!
//! ```text
//! Waiter.state   WAITING ──claim──▶ CLAIMED(case) ──finish──▶ DONE(case)      by whoever ends the wait
//!                   └─────abort────▶ ABORTED                                  by the waiter: late, or cancelled
//! ```
//!
//! Both arrows out of WAITING are one compare-and-swap, so a wait is ended once. Whoever claims does so under the queue's
//! lock, takes the node out, moves the payload, and says DONE last: from then on the node may be gone. The payload thus
//! has one owner at a time: the waiter until CLAIMED, the claimer until DONE, then the waiter again.
//!
//! Nothing here knows fibers or sockets; its `model` explores it with loom.

use std::marker::PhantomPinned;
use std::ptr;

use super::park::{self, Cancelled, Parked, Unparker, Wait};
use crate::shim::{AtomicUsize, Ordering, UnsafeCell, relax};
use crate::time::Instant;

const WAITING: usize = 0;
const ABORTED: usize = 1;
/// CLAIMED(case) and DONE(case) follow: two values for each case.
const FIRST: usize = 2;

/// One wait of one task or thread.
pub(crate) struct Waiter {
    state: AtomicUsize,
    unparker: Unparker,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Somebody claimed the node with this case number; its payload is as they left it.
    Woken(usize),
    TimedOut,
    Refused(Cancelled),
}

impl Waiter {
    /// A wait of the caller's.
    pub(crate) fn new() -> Waiter {
        Waiter { state: AtomicUsize::new(WAITING), unparker: park::current() }
    }

    /// Waits until a node of this waiter is claimed, the deadline has passed, or the caller may not wait.
    /// After `TimedOut` and `Refused` nobody can claim it any more; its nodes may still be in their queues.
    pub(crate) fn wait(&self, wait: Wait, deadline: Option<Instant>) -> Ended {
        loop {
            // Acquire pairs with `finish`: what the claimer left in the payload is ours again.
            match self.state.load(Ordering::Acquire) {
                WAITING => {}
                state if state % 2 == FIRST % 2 => {
                    relax(); // claimed: its claimer is a few instructions from done
                    continue;
                }
                state => return Ended::Woken((state - FIRST) / 2),
            }
            let ended = match self.unparker.park(wait, deadline) {
                Ok(Parked::Unparked) => continue,
                Ok(Parked::TimedOut) => Ended::TimedOut,
                Err(cancelled) => Ended::Refused(cancelled),
            };
            if self.abort() {
                return ended;
            }
        }
    }

    /// Ends the wait from inside, so that nobody else can; false if somebody already has.
    pub(crate) fn abort(&self) -> bool {
        self.state.compare_exchange(WAITING, ABORTED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn claim(&self, case: usize) -> bool {
        let claimed = FIRST + 2 * case;
        #[cfg(towpath_fault = "torn_claim")]
        if self.state.load(Ordering::Acquire) == WAITING {
            self.state.store(claimed, Ordering::Release);
            return true;
        }
        self.state.compare_exchange(WAITING, claimed, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The last that a claimer does. It borrows the word alone: the waiter may be gone before this returns, and what an
    /// argument refers to must stay until then, atomics excepted.
    fn finish(state: &AtomicUsize, case: usize) {
        const DONE: Ordering =
            if cfg!(towpath_fault = "relaxed_finish") { Ordering::Relaxed } else { Ordering::Release };
        state.store(FIRST + 2 * case + 1, DONE);
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").finish_non_exhaustive()
    }
}

/// A waiter's place in one queue, with what passes between the waiter and whoever claims it.
pub(crate) struct Node<P> {
    waiter: *const Waiter,
    case: usize,
    links: UnsafeCell<Links<P>>,
    payload: UnsafeCell<P>,
    _pinned: PhantomPinned,
}

/// Guarded by the lock of the queue.
struct Links<P> {
    prev: *const Node<P>,
    next: *const Node<P>,
    linked: bool,
}

impl<P> Node<P> {
    /// A node for `waiter`, whose claim it will report as `case`.
    pub(crate) fn new(waiter: &Waiter, case: usize, payload: P) -> Node<P> {
        let links = Links { prev: ptr::null(), next: ptr::null(), linked: false };
        Node { waiter, case, links: UnsafeCell::new(links), payload: UnsafeCell::new(payload), _pinned: PhantomPinned }
    }

    /// The payload, once the node is in no queue and its wait has ended.
    pub(crate) fn into_payload(self) -> P {
        self.payload.into_inner()
    }

    /// The links of a node in a queue.
    ///
    /// # Safety
    /// The caller holds the lock of the queue, `node` is linked in it or about to be, and no reference from an earlier
    /// call is left.
    unsafe fn links<'a>(node: *const Node<P>) -> &'a mut Links<P> {
        // SAFETY: a linked node is alive: whoever pushed it has promised to.
        let node = unsafe { &*node };
        // SAFETY: the lock of the queue makes it exclusive.
        node.links.with_mut(|links| unsafe { &mut *links })
    }
}

impl<P> std::fmt::Debug for Node<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("case", &self.case).finish_non_exhaustive()
    }
}

/// Who waits, first come first served: an intrusive list of nodes. Its owner keeps it inside a lock.
pub(crate) struct WaitQueue<P> {
    head: *const Node<P>,
    tail: *const Node<P>,
    len: usize,
}

// SAFETY: the queue reaches nodes on other stacks only through `&mut self`, which its owner's lock gives to one thread at
// a time; what crosses threads is the payload, which is Send, and waiters, which are atomics and counted handles.
unsafe impl<P: Send> Send for WaitQueue<P> {}

impl<P> Default for WaitQueue<P> {
    fn default() -> Self {
        WaitQueue { head: ptr::null(), tail: ptr::null(), len: 0 }
    }
}

impl<P> WaitQueue<P> {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether somebody other than `waiter` is queued.
    pub(crate) fn has_other(&self, waiter: &Waiter) -> bool {
        let mut node = self.head;
        while !node.is_null() {
            // SAFETY: a linked node is alive, and our `&self` under the owner's lock keeps it linked.
            let linked = unsafe { &*node };
            if !ptr::eq(linked.waiter, waiter) {
                return true;
            }
            // SAFETY: under the lock, and the reference ends with this line.
            node = unsafe { Node::links(node) }.next;
        }
        false
    }

    /// Puts `node` at the end.
    ///
    /// # Safety
    /// Until a `claim` of this queue has taken it or `remove` has been called, the node and its waiter neither move nor
    /// end. All calls with this node are made under the one lock that guards this queue.
    pub(crate) unsafe fn push(&mut self, node: &Node<P>) {
        // SAFETY: we hold the queue's lock, as its `&mut` shows.
        let links = unsafe { Node::links(node) };
        debug_assert!(!links.linked, "a node is in one queue once");
        *links = Links { prev: self.tail, next: ptr::null(), linked: true };
        match self.tail.is_null() {
            true => self.head = node,
            // SAFETY: a linked node is alive (the promise made to `push`), and its links are ours under the lock.
            false => unsafe { Node::links(self.tail) }.next = node,
        }
        self.tail = node;
        self.len += 1;
    }

    /// Takes `node` out if it is still here.
    ///
    /// # Safety
    /// `node` was given to `push` of this queue and of no other, or never pushed.
    pub(crate) unsafe fn remove(&mut self, node: &Node<P>) {
        // SAFETY: we hold the queue's lock, as its `&mut` shows.
        let Links { prev, next, linked } = *unsafe { Node::links(node) };
        if !linked {
            return;
        }
        match prev.is_null() {
            true => self.head = next,
            // SAFETY: a linked node's neighbour is linked, hence alive; the lock makes its links ours.
            false => unsafe { Node::links(prev) }.next = next,
        }
        match next.is_null() {
            true => self.tail = prev,
            // SAFETY: as above.
            false => unsafe { Node::links(next) }.prev = prev,
        }
        // SAFETY: under the lock, and the copies above hold no reference.
        unsafe { Node::links(node) }.linked = false;
        self.len -= 1;
    }

    /// Ends the first wait that can still be ended, lets `hand_over` move the payload, and returns who must be unparked,
    /// which the caller does once it has let go of the lock. `None` if nobody waits.
    #[must_use]
    pub(crate) fn claim(&mut self, hand_over: impl FnOnce(&mut P)) -> Option<Unparker> {
        loop {
            if self.head.is_null() {
                return None;
            }
            // SAFETY: a linked node is alive until this lock is let go of or its waiter is DONE; neither has happened.
            let node = unsafe { &*self.head };
            // SAFETY: it was linked by `push` of this queue.
            unsafe { self.remove(node) };
            // SAFETY: the waiter lives as long as its node.
            let waiter = unsafe { &*node.waiter };
            if !waiter.claim(node.case) {
                continue; // it has ended otherwise, and its owner is about to leave the queue
            }
            // SAFETY: between CLAIMED and DONE the payload is the claimer's.
            node.payload.with_mut(|payload| hand_over(unsafe { &mut *payload }));
            let unparker = waiter.unparker.clone();
            Waiter::finish(&waiter.state, node.case);
            return Some(unparker);
        }
    }
}

impl<P> std::fmt::Debug for WaitQueue<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitQueue").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(all(test, towpath_loom))]
#[path = "wait_queue_model.rs"]
mod model;
