//! The system calls that make and give back the memory of stacks.

use std::io;
use std::ops::Range;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags};

use super::page_size;

/// New memory, readable and writable, none of it present yet.
pub(super) fn map(len: usize) -> io::Result<Range<usize>> {
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
pub(super) unsafe fn unmap(range: Range<usize>) {
    let low = ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the caller's promise.
    let unmapped = unsafe { rustix::mm::munmap(low, range.len()) };
    if let Err(error) = unmapped {
        // It would have made two mappings of one, and there are as many as there may be (`vm.max_map_count`).
        debug_assert!(error == rustix::io::Errno::NOMEM, "munmap of a stack: {error}");
        // SAFETY: the caller's promise.
        unsafe { discard(range) };
    }
}

/// Gives the pages of `range` back to the kernel; the next access finds zeroes. Guards inside it
/// stay: zapping pages leaves marks in place, and permissions are not pages.
///
/// # Safety
///
/// `range` is the caller's, in whole pages, and nothing refers to what is in it.
pub(super) unsafe fn discard(range: Range<usize>) {
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
pub(in super::super) unsafe fn discard_within(range: Range<usize>) {
    let pages = range.start.next_multiple_of(page_size())..range.end / page_size() * page_size();
    // SAFETY: the caller's promise.
    unsafe { discard(pages) };
}
