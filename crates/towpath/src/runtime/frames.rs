//! The return addresses on the present stack, without names: what a fiber takes down of itself when it is looked at.
//!
//! It must be quick and take no lock, for a worker does it between its tasks, and it must not need much of the stack, for
//! that is a task's. Names are found later and elsewhere, by `task::backtrace`.

/// Frames that are taken down, at most; those nearest to the wait.
const MOST: usize = 128;

/// What a capture needs of the stack it runs on, with room to spare: the unwinder's own frames take under 4 KiB.
pub(super) const ROOM: usize = 8 * 1024;

/// Return addresses, innermost first.
pub(crate) type Frames = Vec<usize>;

/// An empty list that a capture will not have to grow.
pub(super) fn with_room() -> Frames {
    Frames::with_capacity(MOST)
}

/// Takes down the callers of the caller's, up to the frame that lies at `base` or above it.
pub(super) fn capture(frames: &mut Frames, base: usize) {
    let each = |frame: &backtrace::Frame| {
        let goes_on = frame.sp().addr() < base && frames.len() < frames.capacity();
        if goes_on {
            frames.push(frame.ip().addr());
        }
        goes_on
    };
    // SAFETY: what must not run at the same time elsewhere is `dbghelp`, on Windows; other unwinders need no lock.
    unsafe { backtrace::trace_unsynchronized(each) };
}
