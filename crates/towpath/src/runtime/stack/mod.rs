//! The memory that tasks run on: one slot of address space each, with a guard at its low end.
//!
//! ```text
//!  limit()         guard().end                                        base()  bounds().end
//!    │  guard, 16 KiB  │                                                  │     │
//!    ├─────────────────┼───────────────────────────────┬──────────────────┼─────┤
//!    │  any access     │  no memory until touched;     │  top 16 KiB:     │head │
//!    │  faults         │  given back by trim           │  kept while warm │     │
//!    └─────────────────┴───────────────────────────────┴──────────────────┴─────┘
//!    low                                     the stack grows this way ◄──       high
//! ```
//!
//! The head is no stack: it is there for what belongs to the task that runs below it, in a page that is paid for anyway.
//!
//! A worker's [`Pool`] cuts the slots from a few great mappings (`pool`; the system calls are in `memory`), for mappings are
//! what the kernel counts: `vm.max_map_count` allows 65,530. On Linux 6.13 and later a guard is a mark in the page table
//! (`guards`) and a million stacks are some thirty mappings. On older kernels each guard is a mapping of its own, and about
//! 32,750 stacks are all a process can have.
//!
//! This relies on demand paging (a page costs nothing until it is touched) and on code that touches each page of a great
//! frame, as rustc's does: a C function whose frame is larger than the guard can step over it. Who runs on a stack is
//! `fiber`'s business, and what a hit guard means is told by `overflow`. When to trim is for the worker to say.

mod guards;
mod memory;
mod pool;

use std::ops::Range;
use std::sync::LazyLock;

use corosensei::stack::StackPointer;

pub(super) use memory::discard_within;
pub(crate) use pool::Pool;

/// A slot's size where nobody asked for another.
pub(crate) const DEFAULT_SIZE: usize = 256 * KIB;

/// The smallest slot. Half of it is guard.
pub(crate) const MIN_SIZE: usize = 2 * GUARD;

/// The largest slot, and the most one chunk maps.
pub(crate) const MAX_SIZE: usize = 1 << 30;

/// The size of a stack's head.
pub(super) const HEAD: usize = 256;

const KIB: usize = 1024;

/// The guard's size, where pages are not larger still.
const GUARD: usize = 16 * KIB;

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
    /// Usable bytes, guard and head together.
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

    /// The address of the head: `HEAD` bytes that are whoever's the stack is, on a boundary of as many.
    pub(super) fn head(&self) -> usize {
        self.bounds().end - HEAD
    }
}

// SAFETY: `Pool` makes a `Stack` only for a slot that is mapped, guarded at its low end, owned by
// nobody else, and at least `MIN_SIZE` long, of which at least half, 16 KiB, is usable, less the head. The low end lies
// on a page boundary, the base on one of `HEAD`. Nothing unmaps or trims the slot before `Pool::give` gets the `Stack` back.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.head()).expect("a stack ends at address 0")
    }

    fn limit(&self) -> StackPointer {
        StackPointer::new(self.low).expect("a stack begins at address 0")
    }
}

pub(super) fn page_size() -> usize {
    // Kept, for the C library takes a hundred instructions to say it.
    static SIZE: LazyLock<usize> = LazyLock::new(rustix::param::page_size);
    *SIZE
}

/// At least a page: some arm64 kernels have pages of 64 KiB.
fn guard_size() -> usize {
    GUARD.max(page_size())
}
