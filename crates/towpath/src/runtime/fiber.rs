//! A fiber: a stack and the registers of what runs on it. The only file that knows corosensei.
//!
//! ```text
//! worker's stack                      fiber's stack
//! resume() ──────── switch ─────────▶ entry(), or where suspend() was called
//!          ◀─────── switch ────────── suspend(), or the end of entry()
//! ```
//!
//! A suspended fiber can also be looked at: resumed so that `suspend` takes down where it is and goes back, and its task
//! never knows.
//!
//! A fiber belongs to the thread that first resumed it. It is never unwound and never dropped while suspended: others
//! may hold pointers into its stack, so a fiber that is given up in the middle is leaked, stack and all.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ptr;

use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::frames::{self, Frames};
use super::stack::{self, Stack};

/// A computation with a stack of its own, which can stop in the middle.
pub(crate) struct Fiber {
    coroutine: ManuallyDrop<Coroutine<Resumed, usize, (), Stack>>,
    /// Where its stack ends, guard excluded.
    floor: usize,
    /// An address in the frame of the `suspend` that it is in; 0 before the first.
    suspended_at: usize,
}

/// What a switch may store below the frame of `suspend`: registers, and in debug builds a frame or two.
const BELOW_SUSPEND: usize = 2048;

/// What a suspended fiber is resumed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resumed {
    /// To take down its frames, and suspend again.
    ToLook,
    ToRun,
}

/// What a fiber did when it switched back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Suspended,
    Finished,
}

thread_local! {
    /// The way out of the fiber that this thread runs; null while it runs none.
    static WAY_OUT: Cell<*const Yielder<Resumed, usize>> = const { Cell::new(ptr::null()) };
    /// While a fiber is looked at: where its frames go, and where its stack ends.
    static LOOK: Cell<(*mut Frames, usize)> = const { Cell::new((ptr::null_mut(), 0)) };
}

impl Fiber {
    /// A fiber that will run `entry` on `stack` when first resumed. `entry` must not panic: there is nothing above it.
    pub(crate) fn new(stack: Stack, entry: impl FnOnce() + 'static) -> Fiber {
        let floor = stack.guard().end;
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<Resumed, usize>, _| {
            WAY_OUT.set(yielder);
            entry();
        });
        Fiber { coroutine: ManuallyDrop::new(coroutine), floor, suspended_at: 0 }
    }

    /// Runs the fiber until it suspends or ends.
    #[inline]
    pub(crate) fn resume(&mut self) -> Step {
        let outer = WAY_OUT.get();
        let result = self.coroutine.resume(Resumed::ToRun);
        WAY_OUT.set(outer);
        match result {
            CoroutineResult::Yield(suspended_at) => {
                self.suspended_at = suspended_at;
                Step::Suspended
            }
            CoroutineResult::Return(()) => Step::Finished,
        }
    }

    /// The lowest address of its stack that is in use, while it is suspended; `None` before its first suspension.
    pub(super) fn suspended_at(&self) -> Option<usize> {
        (self.suspended_at != 0).then_some(self.suspended_at)
    }

    /// The frames of a suspended fiber, whose stack ends at `base`. `None` before its first suspension, and if what is left
    /// of its stack would not do for finding out.
    pub(super) fn look(&mut self, base: usize) -> Option<Frames> {
        let room = self.suspended_at()?.saturating_sub(BELOW_SUSPEND + self.floor);
        if room < frames::ROOM {
            return None;
        }
        let mut frames = frames::with_room();
        LOOK.set((&raw mut frames, base));
        let result = self.coroutine.resume(Resumed::ToLook);
        debug_assert!(matches!(result, CoroutineResult::Yield(_)), "a fiber that is looked at does not end");
        Some(frames)
    }

    /// Gives back the memory of what calls deeper than the present one have left on the stack of a suspended fiber.
    pub(crate) fn trim(&self) {
        let dead = self.floor..self.suspended_at.saturating_sub(BELOW_SUSPEND);
        // SAFETY: between the floor and what the frame of `suspend` has called, nothing is alive until the fiber runs on.
        unsafe { stack::discard_within(dead) };
    }

    /// The stack again, of a fiber that has come to its end.
    pub(crate) fn into_stack(self) -> Stack {
        ManuallyDrop::into_inner(self.coroutine).into_stack()
    }
}

impl std::fmt::Debug for Fiber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fiber").field("started", &self.coroutine.started()).finish()
    }
}

/// Leaves the running fiber for the worker's stack; returns when the worker resumes it.
///
/// # Panics
/// If this thread runs no fiber.
#[inline(never)] // so that its frame is the last: nothing of its callers' lies below it
pub(crate) fn suspend() {
    let way_out = WAY_OUT.get();
    assert!(!way_out.is_null(), "suspend was called outside a fiber");
    // SAFETY: the yielder lives at the base of the running fiber's stack from its first switch to its last, and
    // `WAY_OUT` holds it only while that fiber runs: `resume` puts back the outer one, the line below puts back ours.
    let yielder = unsafe { &*way_out };
    while yielder.suspend((&raw const way_out).addr()) == Resumed::ToLook {
        look_around();
    }
    WAY_OUT.set(way_out);
}

/// Takes down the frames of the running fiber, for [`Fiber::look`].
#[cold]
#[inline(never)]
fn look_around() {
    let (frames, base) = LOOK.get();
    // SAFETY: `look` has put it there, and waits for us to come back.
    frames::capture(unsafe { &mut *frames }, base);
}
