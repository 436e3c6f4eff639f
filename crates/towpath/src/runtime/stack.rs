//! The memory that tasks run on: one slot of address space each, with a guard at its low end.
//!
//! ```text
//!  limit()         guard().end                                          base()
//!    │  guard, 16 KiB  │                                                  │
//!    ├─────────────────┼───────────────────────────────┬──────────────────┤
//!    │  any access     │  no memory until touched;     │  top 16 KiB:     │
//!    │  faults         │  given back by trim           │  kept while warm │
//!    └─────────────────┴───────────────────────────────┴──────────────────┘
//!    low                                     the stack grows this way ◄── high
//! ```
//!
//! A worker's [`Pool`] cuts the slots from a few great mappings (chunks), for mappings are what the
//! kernel counts: `vm.max_map_count` allows 65,530. On Linux 6.13 and later a guard is a mark in
//! the page table and a million stacks are some thirty mappings. On older kernels each guard is a
//! mapping of its own, and about 32,750 stacks are all a process can have.
//!
//! This relies on demand paging (a page costs nothing until it is touched) and on code that touches
//! each page of a great frame, as rustc's does: a C function whose frame is larger than the guard
//! can step over it. Who runs on a stack is `fiber`'s business, and what a hit guard means is
//! told by `overflow`. When to trim is for the worker to say.

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Once;

use corosensei::stack::StackPointer;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::blocking;

/// A slot's size where nobody asked for another.
pub(crate) const DEFAULT_SIZE: usize = 256 * KIB;

/// The smallest slot. Half of it is guard.
pub(crate) const MIN_SIZE: usize = 2 * GUARD;

/// The largest slot, and the most one chunk maps.
pub(crate) const MAX_SIZE: usize = 1 << 30;

const KIB: usize = 1024;

/// The guard's size, where pages are not larger still.
const GUARD: usize = 16 * KIB;

/// What `trim` leaves at the top of a stack that will soon run again: nearly every task touches it.
const KEPT: usize = 16 * KIB;

/// So many of the stacks last given back keep their top pages, whatever `trim` does.
const WARM: usize = 64;

/// The most slots that one `trim` empties, so that it holds its worker up for well under a
/// millisecond.
const TRIM_BATCH: usize = 256;

/// The slots in a pool's first chunk. Each later chunk doubles the last, up to `MAX_SIZE`.
const FIRST_CHUNK: usize = 16;

/// The size a slot gets when `bytes` are asked for: whole pages. Says what is wrong if it cannot be.
pub(crate) fn check_size(bytes: usize) -> Result<usize, String> {
    if bytes < MIN_SIZE {
        let least = MIN_SIZE / KIB;
        return Err(format!("a stack of {bytes} bytes is too small: the least is {least} KiB"));
    }
    if bytes > MAX_SIZE {
        let most = MAX_SIZE / KIB / KIB;
        return Err(format!("a stack of {bytes} bytes is too large: the most is {most} MiB"));
    }
    Ok(bytes.next_multiple_of(page_size()).max(2 * guard_size()))
}

/// A slot, in use. Only [`Pool::give`] recycles it: one that is dropped or forgotten instead stays
/// mapped for good, which is never wrong, only wasteful.
#[derive(Debug)]
pub(crate) struct Stack {
    low: usize,
    size: usize,
}

impl Stack {
    /// Usable bytes and guard together.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Where an access means that the stack has overflowed.
    pub(crate) fn guard(&self) -> Range<usize> {
        self.low..self.low + guard_size()
    }

    /// The whole slot, guard included.
    pub(crate) fn bounds(&self) -> Range<usize> {
        self.low..self.low + self.size
    }
}

// SAFETY: `Pool` makes a `Stack` only for a slot that is mapped, guarded at its low end, owned by
// nobody else, and at least `MIN_SIZE` long, of which at least half, 16 KiB, is usable. Both ends lie
// on page boundaries. Nothing unmaps or trims the slot before `Pool::give` gets the `Stack` back.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.bounds().end).expect("a stack ends at address 0")
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.low).expect("a stack begins at address 0")
    }
}

/// One worker's stacks. No locks: a task that has started never leaves its worker.
#[derive(Debug)]
pub(crate) struct Pool {
    slot_size: usize,
    /// All mappings that slots were cut from, oldest first.
    chunks: Vec<Range<usize>>,
    /// What is left of the newest chunk: slots that nobody has used, and that have no guard yet.
    fresh: Range<usize>,
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

/// How this pool makes guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guards {
    /// Marks in the page table, until the kernel refuses one.
    Marked,
    /// `mprotect`, which splits the mapping.
    Protected,
}

impl Pool {
    /// A pool of slots of `slot_size`, as [`check_size`] rounds it; one out of bounds is brought
    /// within them. Makes no system call.
    pub(crate) fn new(slot_size: usize) -> Self {
        Self::with_guards(slot_size, Guards::Marked)
    }

    fn with_guards(slot_size: usize, guards: Guards) -> Self {
        let slot_size = check_size(slot_size.clamp(MIN_SIZE, MAX_SIZE)).expect("a size within bounds passes");
        Self {
            slot_size,
            chunks: Vec::new(),
            fresh: 0..0,
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
        let slot = map(size).map_err(|error| cannot_map(size, &error))?;
        if let Err(error) = self.guard(slot.start) {
            // SAFETY: mapped just above, and nobody else has seen it.
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
        let low = self.fresh.start;
        // Now, not with the chunk: one call a slot either way, and the first task of a small program
        // does not wait for the guards of fifteen others.
        self.guard(low)?;
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
            match map(len) {
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

    /// Makes the low end of the unused slot at `low` fault.
    fn guard(&mut self, low: usize) -> io::Result<()> {
        let guard = low..low + guard_size();
        if self.guards == Guards::Marked {
            // SAFETY: the slot belongs to this pool, and nobody uses it yet.
            match unsafe { mark(guard.clone()) } {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.guards = Guards::Protected;
                    warn_of_protected_guards();
                }
                Err(error) => return Err(cannot_guard("madvise(MADV_GUARD_INSTALL)", &error)),
                Ok(()) => return Ok(()),
            }
        }
        // SAFETY: the slot belongs to this pool, and nobody uses it yet.
        unsafe { protect(guard) }.map_err(|error| cannot_guard("mprotect", &error))
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

fn cannot_guard(call: &str, error: &io::Error) -> io::Error {
    let mut text = format!("{call} for the guard of a task's stack: {error}");
    if call == "mprotect" && error.kind() == io::ErrorKind::OutOfMemory {
        // mprotect(2): "would result in the total number of mappings exceeding the allowed maximum".
        text += " (such a guard splits a mapping: raise vm.max_map_count, which allows half as many \
                 stacks, or use Linux 6.13 or later, where guards need no mapping)";
    }
    io::Error::new(error.kind(), text)
}

fn warn_of_protected_guards() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A logger is the user's code: it runs where it may do anything, which is not on a worker's own stack.
        _ = blocking::spawn(Box::new(|| {
            log::warn!(
                "stacks are guarded by mprotect, for the kernel refused MADV_GUARD_INSTALL (it is older than Linux 6.13, \
                 or the memory is locked): vm.max_map_count bounds the number of tasks, about 32,750 where it is 65,530"
            );
        }));
    });
}

pub(super) fn page_size() -> usize {
    rustix::param::page_size()
}

/// At least a page: some arm64 kernels have pages of 64 KiB.
fn guard_size() -> usize {
    GUARD.max(page_size())
}

/// New memory, readable and writable, none of it present yet.
fn map(len: usize) -> io::Result<Range<usize>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    #[cfg(target_os = "linux")]
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
    #[cfg(not(target_os = "linux"))]
    let flags = MapFlags::PRIVATE;
    // SAFETY: without an address to keep to, the kernel chooses one where nothing is mapped.
    let low = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, access, flags) }?;
    // corosensei and the kernel speak of addresses; the memory is reached through them from here on.
    let low = low.expose_provenance();
    #[cfg(target_os = "linux")]
    refuse_huge_pages(low..low + len);
    Ok(low..low + len)
}

/// Linux only. A huge page would make the first touch of a stack cost 2 MiB. (`MAP_STACK` says the
/// same, from Linux 6.7 on.) A kernel that has no huge pages refuses, and is right.
#[cfg(target_os = "linux")]
fn refuse_huge_pages(range: Range<usize>) {
    let advice = rustix::mm::Advice::LinuxNoHugepage;
    let low = ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: this advice changes how memory is provided and never what is in it.
    let _ = unsafe { rustix::mm::madvise(low, range.len(), advice) };
}

/// # Safety
///
/// `range` is one that `map` returned, and nothing refers to it any more.
unsafe fn unmap(range: Range<usize>) {
    let low = ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the caller's promise.
    let unmapped = unsafe { rustix::mm::munmap(low, range.len()) };
    debug_assert!(unmapped.is_ok(), "munmap of a stack: {unmapped:?}");
}

/// Makes each access fault by a mark in the page table, Linux's `MADV_GUARD_INSTALL`: EINVAL before
/// 6.13, and for locked memory (`mlockall`).
///
/// # Safety
///
/// `range` is the caller's, in whole pages, and nothing refers to what is in it.
#[cfg(target_os = "linux")]
unsafe fn mark(range: Range<usize>) -> io::Result<()> {
    /// Neither libc nor rustix has it yet; linux/mman-common.h, 6.13.
    const MADV_GUARD_INSTALL: libc::c_int = 102;
    let low = ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the caller's promise.
    match unsafe { libc::madvise(low, range.len(), MADV_GUARD_INSTALL) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
unsafe fn mark(_: Range<usize>) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

/// Makes each access fault by taking the permission away.
///
/// # Safety
///
/// As for `mark`.
unsafe fn protect(range: Range<usize>) -> io::Result<()> {
    let low = ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the caller's promise.
    unsafe { rustix::mm::mprotect(low, range.len(), MprotectFlags::empty()) }?;
    Ok(())
}

/// Gives the pages of `range` back to the kernel; the next access finds zeroes. Guards inside it
/// stay: zapping pages leaves marks in place, and permissions are not pages.
///
/// # Safety
///
/// `range` is the caller's, in whole pages, and nothing refers to what is in it.
unsafe fn discard(range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    // Elsewhere than on Linux DONTNEED may keep the pages; until somebody tries, they stay.
    #[cfg(target_os = "linux")]
    {
        let low = ptr::with_exposed_provenance_mut(range.start);
        let advice = rustix::mm::Advice::LinuxDontNeed;
        // Locked memory is refused and stays, which costs memory and harms nothing else.
        // SAFETY: the caller's promise.
        let _ = unsafe { rustix::mm::madvise(low, range.len(), advice) };
    }
}

/// Gives back the whole pages within a part of a stack.
///
/// # Safety
///
/// As for `discard`, but for the pages.
pub(super) unsafe fn discard_within(range: Range<usize>) {
    let pages = range.start.next_multiple_of(page_size())..range.end / page_size() * page_size();
    // SAFETY: the caller's promise.
    unsafe { discard(pages) };
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Output};
    use std::{env, fs, process};

    use super::*;

    const BOTH: [Guards; 2] = [Guards::Marked, Guards::Protected];

    #[test]
    fn the_stack_given_back_last_is_taken_first() {
        let mut pool = Pool::new(DEFAULT_SIZE);
        let [a, b] = [pool.take().unwrap(), pool.take().unwrap()];
        let [low_a, low_b] = [a.low, b.low];
        assert!(low_a != low_b);
        pool.give(b);
        pool.give(a);
        let [first, second] = [pool.take().unwrap(), pool.take().unwrap()];
        assert_eq!([first.low, second.low], [low_a, low_b]);
        pool.give(first);
        pool.give(second);
    }

    #[test]
    fn a_stack_is_writable_from_its_base_down_to_its_guard() {
        let mut pool = Pool::new(MIN_SIZE);
        for _ in 0..3 * FIRST_CHUNK {
            let stack = pool.take().unwrap();
            touch(stack.guard().end..stack.bounds().end);
            assert_eq!(resident(&stack), stack.size() - stack.guard().len());
        }
    }

    #[test]
    fn a_pool_that_misses_a_stack_keeps_it_mapped() {
        let mut pool = Pool::new(DEFAULT_SIZE);
        let stack = pool.take().unwrap();
        drop(pool);
        touch(stack.guard().end..stack.bounds().end);
    }

    #[test]
    fn a_pool_that_has_all_its_stacks_unmaps_them() {
        // In a process of its own: here another test might map something at the same place.
        passes("a_pool_that_has_all_its_stacks_unmaps_them", || {
            let mut pool = Pool::new(DEFAULT_SIZE);
            let stack = pool.take().unwrap();
            let chunk = pool.chunks[0].clone();
            pool.give(stack);
            assert!(mincore(chunk.clone()).is_some());
            drop(pool);
            assert!(mincore(chunk).is_none());
        });
    }

    #[test]
    fn sizes_are_rounded_to_pages_and_refused_out_of_bounds() {
        assert_eq!(check_size(MIN_SIZE), Ok(MIN_SIZE.max(2 * guard_size())));
        let odd = check_size(DEFAULT_SIZE - 1).unwrap();
        assert_eq!(odd % page_size(), 0);
        assert!(odd >= DEFAULT_SIZE - 1);
        assert!(check_size(MIN_SIZE - 1).unwrap_err().contains("the least is 32 KiB"));
        assert!(check_size(usize::MAX).unwrap_err().contains("the most is 1024 MiB"));
        assert_eq!(Pool::new(0).slot_size, check_size(MIN_SIZE).unwrap());
        assert_eq!(Pool::new(usize::MAX).slot_size, MAX_SIZE);
    }

    #[test]
    fn a_stack_of_another_size_is_mapped_alone_and_unmapped_when_given_back() {
        passes("a_stack_of_another_size_is_mapped_alone_and_unmapped_when_given_back", || {
            let mut pool = Pool::new(DEFAULT_SIZE);
            let stack = pool.take_sized(1 << 20).unwrap();
            assert_eq!(stack.size(), 1 << 20);
            let bounds = stack.bounds();
            touch(stack.guard().end..bounds.end);
            pool.give(stack);
            assert!(mincore(bounds).is_none());
            assert!(pool.chunks.is_empty());
        });
    }

    #[test]
    fn a_stack_of_the_pool_s_own_size_comes_from_the_pool() {
        let mut pool = Pool::new(DEFAULT_SIZE);
        let stack = pool.take_sized(DEFAULT_SIZE - 1).unwrap();
        assert_eq!((stack.size(), pool.out), (DEFAULT_SIZE, 1));
        pool.give(stack);
        assert_eq!((pool.free.len(), pool.out), (1, 0));
    }

    #[test]
    fn trim_leaves_a_warm_stack_its_top_and_a_cold_one_nothing() {
        for guards in BOTH {
            let mut pool = Pool::with_guards(DEFAULT_SIZE, guards);
            let stacks: Vec<_> = (0..WARM + 40).map(|_| pool.take().unwrap()).collect();
            assert!(!pool.needs_trim());
            let lows: Vec<_> = stacks.iter().map(|stack| stack.low).collect();
            for stack in stacks {
                touch(stack.guard().end..stack.bounds().end);
                pool.give(stack);
            }
            trim_all(&mut pool);
            let size = pool.slot_size;
            let kept: Vec<_> = lows.iter().map(|&low| resident(&Stack { low, size })).collect();
            assert_eq!(kept[..40], [0; 40]);
            assert_eq!(kept[40..], [KEPT; WARM]);
        }
    }

    #[test]
    fn trim_looks_at_a_stack_once_after_each_use() {
        let mut pool = Pool::new(DEFAULT_SIZE);
        let stacks: Vec<_> = (0..WARM + 2).map(|_| pool.take().unwrap()).collect();
        stacks.into_iter().for_each(|stack| pool.give(stack));
        assert!(pool.needs_trim());
        trim_all(&mut pool);
        assert_eq!((pool.empty, pool.shallow), (2, WARM + 2));

        let stack = pool.take().unwrap();
        assert!(!pool.needs_trim());
        touch(stack.guard().end..stack.bounds().end);
        pool.give(stack);
        assert!(pool.needs_trim());
        assert_eq!((pool.empty, pool.shallow), (2, WARM + 1));
        trim_all(&mut pool);

        // Down among the cold ones and back: they count as used.
        let stacks: Vec<_> = (0..WARM + 1).map(|_| pool.take().unwrap()).collect();
        assert_eq!((pool.empty, pool.shallow), (1, 1));
        stacks.into_iter().for_each(|stack| pool.give(stack));
        trim_all(&mut pool);
        assert_eq!((pool.empty, pool.shallow), (2, WARM + 2));
    }

    #[test]
    fn trim_empties_many_stacks_a_batch_at_a_time() {
        let mut pool = Pool::new(MIN_SIZE);
        let count = WARM + 2 * TRIM_BATCH + 1;
        let stacks: Vec<_> = (0..count).map(|_| pool.take().unwrap()).collect();
        stacks.into_iter().for_each(|stack| pool.give(stack));
        assert_eq!(trim_all(&mut pool), 3);
    }

    #[test]
    fn five_thousand_stacks_are_few_mappings() {
        let mut pool = Pool::new(DEFAULT_SIZE);
        let stacks: Vec<_> = (0..5_000).map(|_| pool.take().unwrap()).collect();
        if pool.guards == Guards::Protected {
            eprintln!("skipped: this kernel has no MADV_GUARD_INSTALL");
            return;
        }
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let address = |text| usize::from_str_radix(text, 16).unwrap();
        let ours = maps.lines().filter(|line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let (start, end) = (address(start), address(end));
            pool.chunks.iter().any(|chunk| chunk.start < end && start < chunk.end)
        });
        assert!(ours.count() <= pool.chunks.len());
        assert!(pool.chunks.len() <= 10);
        stacks.into_iter().for_each(|stack| pool.give(stack));
    }

    #[test]
    fn the_guard_faults_at_both_its_ends() {
        for (guards, name) in [(Guards::Marked, "marked"), (Guards::Protected, "protected")] {
            for (place, at) in [("first", 0), ("last", guard_size() - 1)] {
                faults("the_guard_faults_at_both_its_ends", &format!("{name} {place}"), || {
                    let mut pool = Pool::with_guards(DEFAULT_SIZE, guards);
                    let _below = pool.take().unwrap();
                    let stack = pool.take().unwrap();
                    stack.low + at
                });
            }
        }
    }

    #[test]
    fn the_guard_of_a_stack_of_another_size_faults() {
        faults("the_guard_of_a_stack_of_another_size_faults", "sized", || {
            let stack = Pool::new(DEFAULT_SIZE).take_sized(MIN_SIZE).unwrap();
            stack.guard().end - 1
        });
    }

    #[test]
    fn the_guard_faults_after_trim() {
        for (guards, name) in [(Guards::Marked, "marked"), (Guards::Protected, "protected")] {
            // The warmest, a cold one between two others, and the last of a run.
            for index in [0, WARM + 10, WARM + 19] {
                faults("the_guard_faults_after_trim", &format!("{name} {index}"), || {
                    let mut pool = Pool::with_guards(MIN_SIZE, guards);
                    let stacks: Vec<_> = (0..WARM + 20).map(|_| pool.take().unwrap()).collect();
                    for stack in stacks {
                        touch(stack.guard().end..stack.bounds().end);
                        pool.give(stack);
                    }
                    trim_all(&mut pool);
                    let again: Vec<_> = (0..WARM + 20).map(|_| pool.take().unwrap()).collect();
                    again[index].guard().end - 1
                });
            }
        }
    }

    #[test]
    fn running_out_of_mappings_is_an_error_that_names_the_knob() {
        let most = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
        let most: usize = most.trim().parse().unwrap();
        if most > 100_000 {
            eprintln!("skipped: vm.max_map_count is {most}, which takes long to fill");
            return;
        }
        // In a process of its own, for it leaves no mapping to anybody else.
        passes("running_out_of_mappings_is_an_error_that_names_the_knob", || {
            let mut pool = Pool::with_guards(MIN_SIZE, Guards::Protected);
            let mut stacks = Vec::with_capacity(most);
            let error = loop {
                match pool.take() {
                    Ok(stack) => stacks.push(stack),
                    Err(error) => break error,
                }
            };
            let again = pool.take().unwrap_err();
            // One given back can be had again, even now.
            pool.give(stacks.pop().unwrap());
            stacks.push(pool.take().unwrap());
            // Nothing works without mappings, the checks below neither.
            stacks.into_iter().for_each(|stack| pool.give(stack));
            drop(pool);
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            let text = error.to_string();
            assert!(text.starts_with("mprotect for the guard"), "{text}");
            assert!(text.contains("raise vm.max_map_count"), "{text}");
            assert!(text.contains("Linux 6.13"), "{text}");
            assert_eq!(again.to_string(), text);
        });
    }

    /// Trims until nothing is left to do, and says how often that was.
    fn trim_all(pool: &mut Pool) -> usize {
        let mut times = 0;
        while pool.needs_trim() {
            pool.trim();
            times += 1;
        }
        times
    }

    /// Writes to each page, and to the first and last byte.
    fn touch(range: Range<usize>) {
        for address in range.clone().step_by(page_size()).chain([range.end - 1]) {
            write(address);
        }
    }

    fn write(address: usize) {
        let byte = ptr::with_exposed_provenance_mut::<u8>(address);
        // SAFETY: in a stack that the test has taken, or in a guard where it is meant to fault.
        unsafe { byte.write_volatile(7) };
    }

    /// The bytes of `stack` above its guard that have memory.
    fn resident(stack: &Stack) -> usize {
        let pages = mincore(stack.guard().end..stack.bounds().end).unwrap();
        pages.iter().filter(|&page| page & 1 == 1).count() * page_size()
    }

    /// Which pages are present, or `None` where something is not mapped.
    fn mincore(range: Range<usize>) -> Option<Vec<u8>> {
        let mut pages = vec![0; range.len() / page_size()];
        let low = ptr::with_exposed_provenance_mut(range.start);
        // SAFETY: `pages` has a byte for each page.
        let status = unsafe { libc::mincore(low, range.len(), pages.as_mut_ptr()) };
        (status == 0).then_some(pages)
    }

    /// Asserts that `body` ends well in a process of its own.
    fn passes(test: &str, body: impl FnOnce()) {
        if let Some(output) = in_child(test, "", body) {
            assert!(output.status.success(), "{output:?}");
        }
    }

    /// Asserts that a write to where `prepare` says ends its process by SIGSEGV.
    fn faults(test: &str, case: &str, prepare: impl FnOnce() -> usize) {
        let output = in_child(test, case, || {
            let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
            rustix::process::setrlimit(rustix::process::Resource::Core, none).unwrap();
            let address = prepare();
            println!("prepared");
            write(address);
        });
        if let Some(output) = output {
            assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{case}: {output:?}");
            assert!(String::from_utf8_lossy(&output.stdout).contains("prepared"), "{output:?}");
        }
    }

    /// Runs `body` in a process of its own: this program again, with nothing to do but `test`, which
    /// comes back here. In that process, the cases that are not meant give `None`.
    fn in_child(test: &str, case: &str, body: impl FnOnce()) -> Option<Output> {
        const CASE: &str = "TOWPATH_TEST_CASE";
        match env::var(CASE) {
            Ok(wanted) if wanted == case => {
                body();
                process::exit(0);
            }
            Ok(_) => return None,
            Err(_) => {}
        }
        let (_, module) = module_path!().split_once("::").unwrap();
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", &format!("{module}::{test}")])
            .env(CASE, case)
            .output();
        Some(output.unwrap())
    }
}
