//! A worker's stacks: slots cut from chunks, taken and given back, and what they hold given back to the kernel.

use std::io;
use std::ops::Range;

use super::guards::Guards;
use super::memory::{self, discard, unmap};
use super::{KIB, MAX_SIZE, MIN_SIZE, Stack, check_size, guard_size, page_size};

/// What `trim` leaves at the top of a stack that will soon run again: nearly every task touches it.
const KEPT: usize = 16 * KIB;

/// So many of the stacks last given back keep their top pages, whatever `trim` does.
const WARM: usize = 64;

/// The most slots that one `trim` empties, so that it holds its worker up for well under a
/// millisecond.
const TRIM_BATCH: usize = 256;

/// The slots in a pool's first chunk. Each later chunk doubles the last, up to `MAX_SIZE`.
const FIRST_CHUNK: usize = 16;

/// One worker's stacks. No locks: a task that has started never leaves its worker.
#[derive(Debug)]
pub(crate) struct Pool {
    slot_size: usize,
    /// All mappings that slots were cut from, oldest first.
    chunks: Vec<Range<usize>>,
    /// What is left of the newest chunk: slots that nobody has used.
    fresh: Range<usize>,
    /// How many of them, from the low end, have their guard.
    guarded: usize,
    /// Slots that ever had one made.
    made: usize,
    /// The low ends of the slots given back, in the order they came. The last is the warmest, and
    /// the next to be taken.
    ///
    /// ```text
    ///   0         empty         shallow          len
    ///   │ no pages  │ top 16 KiB   │ anything      │
    /// ```
    ///
    /// `trim` moves both marks up; a `take` that reaches one takes it down along.
    free: Vec<usize>,
    empty: usize,
    shallow: usize,
    /// Slots taken and not given back.
    out: usize,
    /// The slots that the next chunk will have.
    chunk_slots: usize,
    guards: Guards,
}

impl Pool {
    /// A pool of slots of `slot_size`, as [`check_size`] rounds it; one out of bounds is brought
    /// within them. Makes no system call.
    pub(crate) fn new(slot_size: usize) -> Self {
        Self::with_guards(slot_size, Guards::default())
    }

    fn with_guards(slot_size: usize, guards: Guards) -> Self {
        let slot_size = check_size(slot_size.clamp(MIN_SIZE, MAX_SIZE)).expect("a size within bounds passes");
        Self {
            slot_size,
            chunks: Vec::new(),
            fresh: 0..0,
            guarded: 0,
            made: 0,
            free: Vec::new(),
            empty: 0,
            shallow: 0,
            out: 0,
            chunk_slots: FIRST_CHUNK,
            guards,
        }
    }

    /// The warmest free stack, or a new one.
    ///
    /// # Errors
    ///
    /// The address space, the mappings or the memory for page tables ran out; the message names the
    /// knob.
    pub(crate) fn take(&mut self) -> io::Result<Stack> {
        let low = match self.free.pop() {
            Some(low) => low,
            None => self.fresh_slot()?,
        };
        self.empty = self.empty.min(self.free.len());
        self.shallow = self.shallow.min(self.free.len());
        self.out += 1;
        Ok(Stack { low, size: self.slot_size })
    }

    /// A stack of `size`, rounded as [`check_size`] does it and brought within its bounds. One that
    /// differs from the pool's slots has a mapping of its own, which costs several microseconds
    /// each time, and counts against `vm.max_map_count`.
    ///
    /// # Errors
    ///
    /// As for [`Pool::take`].
    pub(crate) fn take_sized(&mut self, size: usize) -> io::Result<Stack> {
        let size = check_size(size.clamp(MIN_SIZE, MAX_SIZE)).expect("a size within bounds passes");
        if size == self.slot_size {
            return self.take();
        }
        let slot = memory::map(size).map_err(|error| cannot_map(size, &error))?;
        // SAFETY: mapped just above, and nobody else has seen it.
        if let Err(error) = unsafe { self.guards.make(slot.start, size, 1) } {
            // SAFETY: as above.
            unsafe { unmap(slot) };
            return Err(error);
        }
        Ok(Stack { low: slot.start, size })
    }

    /// Takes a stack back. Nothing may run on it or borrow from it any more: `corosensei` sees to
    /// that, which lets go of a stack only when its coroutine is done.
    pub(crate) fn give(&mut self, stack: Stack) {
        if stack.size != self.slot_size {
            // SAFETY: a stack of another size is a mapping of its own, and its owner let go of it.
            unsafe { unmap(stack.bounds()) };
            return;
        }
        debug_assert!(
            self.chunks.iter().any(|chunk| chunk.contains(&stack.low)),
            "a stack was given to a pool that it does not come from"
        );
        self.out -= 1;
        self.free.push(stack.low);
    }

    /// Whether [`Pool::trim`] would find anything to do.
    pub(crate) fn needs_trim(&self) -> bool {
        self.shallow < self.free.len() || self.empty < self.cold()
    }

    /// Gives memory back that free stacks hold: all of it beyond the `WARM` last given back, and of
    /// those what lies below the top 16 KiB, where a deep call left it. A stack is looked at once
    /// after each use. Does at most `TRIM_BATCH` cold slots; `needs_trim` says whether more is left.
    ///
    /// What was given back has to be faulted in again: trim when idle or once a second, not on
    /// each [`Pool::give`].
    pub(crate) fn trim(&mut self) {
        let cold = self.cold();
        let end = cold.min(self.empty + TRIM_BATCH);
        if self.empty < end {
            // Cold slots may trade places. Neighbours go in one call, which matters: each call that
            // frees a page interrupts every other core that runs this process.
            let batch = &mut self.free[self.empty..end];
            batch.sort_unstable();
            for run in batch.chunk_by(|low, next| low + self.slot_size == *next) {
                let bounds = run[0]..run[0] + run.len() * self.slot_size;
                // SAFETY: all slots of the run are free, so nobody needs what is in them. Their
                // guards stay: neither kind is undone by `discard`.
                unsafe { discard(bounds.start + guard_size()..bounds.end) };
            }
            self.empty = end;
            self.shallow = self.shallow.max(end);
        }
        if end < cold {
            return;
        }
        for low in &self.free[self.shallow..] {
            let below = low + guard_size()..low + self.slot_size - KEPT.max(page_size());
            // SAFETY: the slot is free, so nobody needs what is in it.
            unsafe { discard(below) };
        }
        self.shallow = self.free.len();
    }

    /// How many free slots, from the bottom, are to have no pages.
    fn cold(&self) -> usize {
        self.free.len().saturating_sub(WARM)
    }

    #[cold]
    fn fresh_slot(&mut self) -> io::Result<usize> {
        if self.fresh.is_empty() {
            self.grow()?;
        }
        if self.guarded == 0 {
            // Not for the whole chunk at once: a guard has memory for its page table, and the first task of a small program
            // need not wait for those of others. A quarter of what there is already costs little if it is never used.
            let slots = (self.fresh.len() / self.slot_size).min((self.made / 4).max(1));
            // SAFETY: the slots belong to this pool, and nobody uses them yet.
            self.guarded = unsafe { self.guards.make(self.fresh.start, self.slot_size, slots) }?;
            self.made += self.guarded;
        }
        let low = self.fresh.start;
        self.guarded -= 1;
        self.fresh.start += self.slot_size;
        Ok(low)
    }

    /// Maps the next chunk. Where the address space is short (`ulimit -v`, strict overcommit), a
    /// smaller one will do, down to a single slot.
    fn grow(&mut self) -> io::Result<()> {
        let most = MAX_SIZE / self.slot_size;
        let mut slots = self.chunk_slots.min(most);
        let chunk = loop {
            let len = slots * self.slot_size;
            match memory::map(len) {
                Ok(chunk) => break chunk,
                Err(error) if slots == 1 => return Err(cannot_map(len, &error)),
                Err(_) => slots /= 2,
            }
        };
        self.chunk_slots = slots * 2;
        self.chunks.push(chunk.clone());
        self.fresh = chunk;
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A task that refused to end keeps its stack, and others may borrow from what lies on it.
        // So while a single slot is out all chunks stay mapped for the rest of the process: on
        // purpose. (The leak is bounded: it happens when a runtime ends, not while it runs.)
        if self.out > 0 {
            return;
        }
        for chunk in self.chunks.drain(..) {
            // SAFETY: this pool mapped the chunk, and all its slots are back.
            unsafe { unmap(chunk) };
        }
    }
}

fn cannot_map(len: usize, error: &io::Error) -> io::Error {
    let len = len / KIB;
    let text = format!(
        "mmap of {len} KiB for task stacks: {error} (see vm.max_map_count, vm.overcommit_memory and \
         ulimit -v)"
    );
    io::Error::new(error.kind(), text)
}

#[cfg(all(test, target_os = "linux"))]
#[path = "tests.rs"]
mod tests;
