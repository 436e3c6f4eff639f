//! The one wait queue: who waits, and how exactly one wake-up reaches exactly one of them.
//!
//! Sockets, channels, joins and whatever is built later keep a [`WaitQueue`] inside a lock of their own. Tasks and plain
//! threads wait in it alike. A wait is a [`Waiter`] with a [`Node`] in each queue that may end it (one, or one for each arm
//! of a `select!`), all of them on the waiting stack: nothing is allocated.
//!
//! ```text
//! Waiter.state   WAITING ──claim──▶ CLAIMED(case)      by whoever ends the wait, who then unparks the waiter
//!                   └────abort────▶ ABORTED            by the waiter, or for it when its deadline has passed
//! ```
//!
//! Both arrows are one compare-and-swap, so a wait is ended once. Whoever claims does so under the queue's lock, takes the
//! node out and moves the payload; the waiter stays parked until it is unparked, which comes after that. The payload thus
//! has one owner at a time: the waiter until CLAIMED, the claimer until the unpark, then the waiter again.
//!
//! Nothing here knows fibers or sockets; its `model` explores it with loom.

use std::marker::PhantomPinned;
use std::ptr;

use super::park::{self, Cancelled, Owner, Unparker};
use super::wait::Wait;
use crate::shim::{AtomicUsize, Ordering, UnsafeCell};
use crate::time::Instant;

const WAITING: usize = 0;
const ABORTED: usize = 1;
/// CLAIMED(0); those of the other cases follow.
const CLAIMED: usize = 2;

/// One wait of one task or thread. Once a node of it has been queued, only `abort` or `wait` ends it.
pub(crate) struct Waiter {
    state: AtomicUsize,
    owner: Owner,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Somebody claimed the node with this case number; its payload is as they left it.
    Woken(usize),
    TimedOut,
}

impl Waiter {
    /// A wait of the caller's, unless it may not wait.
    #[inline]
    pub(crate) fn new() -> Result<Waiter, Cancelled> {
        park::may_wait()?;
        Ok(Waiter { state: AtomicUsize::new(WAITING), owner: Owner::current() })
    }

    /// Waits until a node of this waiter is claimed or the deadline has passed.
    /// After `TimedOut` nobody can claim it any more; its nodes may still be in their queues.
    #[inline]
    pub(crate) fn wait(&self, wait: Wait<'_>, deadline: Option<Instant>) -> Ended {
        self.owner.park(self, wait, deadline);
        // Relaxed: the unpark has ordered what the claimer did before this, and nobody else changes it any more.
        match self.state.load(Ordering::Relaxed) {
            ABORTED => Ended::TimedOut,
            claimed => Ended::Woken(claimed - CLAIMED),
        }
    }

    /// Ends the wait, so that nobody can claim it; false if somebody already has, and then `wait` must be called.
    pub(crate) fn abort(&self) -> bool {
        self.state.compare_exchange(WAITING, ABORTED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    #[inline]
    fn claim(&self, case: usize) -> bool {
        let claimed = CLAIMED + case;
        #[cfg(towpath_fault = "torn_claim")]
        if self.state.load(Ordering::Acquire) == WAITING {
            self.state.store(claimed, Ordering::Release);
            return true;
        }
        self.state.compare_exchange(WAITING, claimed, Ordering::AcqRel, Ordering::Acquire).is_ok()
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

/// Guarded by the lock of the queue. The first node's `prev` is the last, whose `next` is the first.
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

/// Who waits, first come first served: an intrusive ring of nodes. Its owner keeps it inside a lock. It is no more than a
/// pointer, for each socket has three of them and each task one.
pub(crate) struct WaitQueue<P> {
    /// The node that came last; null if nobody waits.
    last: *const Node<P>,
}

// SAFETY: the queue reaches nodes on other stacks only through `&mut self`, which its owner's lock gives to one thread at
// a time; what crosses threads is the payload, which is Send, and waiters, which are atomics and counted handles.
unsafe impl<P: Send> Send for WaitQueue<P> {}

impl<P> Default for WaitQueue<P> {
    fn default() -> Self {
        WaitQueue { last: ptr::null() }
    }
}

impl<P> WaitQueue<P> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_null()
    }

    /// How many wait: it counts them.
    pub(crate) fn len(&self) -> usize {
        self.nodes().count()
    }

    /// Whether somebody other than `waiter` is queued.
    pub(crate) fn has_other(&self, waiter: &Waiter) -> bool {
        self.nodes().any(|node| !ptr::eq(node.waiter, waiter))
    }

    fn nodes(&self) -> impl Iterator<Item = &Node<P>> {
        let mut before = self.last;
        let mut ended = before.is_null();
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            // SAFETY: under the lock, and the reference ends with this line.
            before = unsafe { Node::links(before) }.next;
            ended = ptr::eq(before, self.last);
            // SAFETY: a linked node is alive, and our `&self` under the owner's lock keeps it linked.
            Some(unsafe { &*before })
        })
    }

    /// Puts `node` at the end.
    ///
    /// # Safety
    /// Until a `claim` of this queue has taken it or `remove` has been called, the node and its waiter neither move nor
    /// end. All calls with this node are made under the one lock that guards this queue.
    #[inline]
    pub(crate) unsafe fn push(&mut self, node: &Node<P>) {
        let node = ptr::from_ref(node);
        let (prev, next) = match self.last.is_null() {
            true => (node, node),
            // SAFETY: a linked node is alive (the promise made to `push`), and its links are ours under the lock.
            false => (self.last, unsafe { Node::links(self.last) }.next),
        };
        // SAFETY: we hold the queue's lock, as its `&mut` shows.
        let links = unsafe { Node::links(node) };
        debug_assert!(!links.linked, "a node is in one queue once");
        *links = Links { prev, next, linked: true };
        if !self.last.is_null() {
            // SAFETY: as for the last one's above.
            unsafe { Node::links(prev) }.next = node;
            // SAFETY: as above.
            unsafe { Node::links(next) }.prev = node;
        }
        self.last = node;
    }

    /// Takes `node` out if it is still here.
    ///
    /// # Safety
    /// `node` was given to `push` of this queue and of no other, or never pushed.
    pub(crate) unsafe fn remove(&mut self, node: &Node<P>) {
        // SAFETY: we hold the queue's lock, as its `&mut` shows.
        if unsafe { Node::links(node) }.linked {
            self.unlink(node);
        }
    }

    /// Takes out a node that is here.
    #[inline]
    fn unlink(&mut self, node: &Node<P>) {
        // SAFETY: we hold the queue's lock, as its `&mut` shows.
        let links = unsafe { Node::links(node) };
        links.linked = false;
        let (prev, next) = (links.prev, links.next);
        if ptr::eq(next, node) {
            self.last = ptr::null();
            return;
        }
        // SAFETY: a linked node's neighbour is linked, hence alive; the lock makes its links ours.
        unsafe { Node::links(prev) }.next = next;
        // SAFETY: as above.
        unsafe { Node::links(next) }.prev = prev;
        if ptr::eq(self.last, node) {
            self.last = prev;
        }
    }

    /// Ends the first wait that can still be ended, lets `hand_over` move the payload, and returns who must be unparked,
    /// which the caller does once it has let go of the lock. `None` if nobody waits.
    #[must_use]
    pub(crate) fn claim(&mut self, hand_over: impl FnOnce(&mut P)) -> Option<Unparker> {
        loop {
            if self.last.is_null() {
                return None;
            }
            // SAFETY: a linked node is alive until this lock is let go of; once claimed, until its waiter is unparked.
            let last = unsafe { Node::links(self.last) };
            // SAFETY: as above.
            let node = unsafe { &*last.next };
            self.unlink(node);
            // SAFETY: the waiter lives as long as its node.
            let waiter = unsafe { &*node.waiter };
            if !waiter.claim(node.case) {
                continue; // it has ended otherwise, and its owner is about to leave the queue
            }
            // SAFETY: between the claim and the unpark the payload is the claimer's.
            node.payload.with_mut(|payload| hand_over(unsafe { &mut *payload }));
            return Some(Unparker::new(&waiter.owner));
        }
    }
}

impl<P> std::fmt::Debug for WaitQueue<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WaitQueue").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, towpath_loom))]
#[path = "wait_queue_model.rs"]
mod model;
