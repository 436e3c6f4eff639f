//! Guards: the low end of a slot, made so that any access faults.
//!
//! ```text
//! Batched ──▶ Marked ──▶ Protected      each step when the kernel refuses, and for good
//! ```
//!
//! A mark is in the page table (`MADV_GUARD_INSTALL`, Linux 6.13), and marks for many slots can be made in one system call
//! (`process_madvise` on the caller itself, Linux 6.14). Older kernels take permission away (`mprotect`), which splits the
//! mapping.

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Once;

use rustix::mm::MprotectFlags;

use super::guard_size;
use crate::runtime::blocking;

/// How a pool makes guards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Guards {
    /// Marks in the page table, of many slots at once.
    #[default]
    Batched,
    /// Marks in the page table, one by one.
    Marked,
    /// `mprotect`, which splits the mapping.
    Protected,
}

impl Guards {
    /// Makes the low ends of up to `slots` slots fault, which lie side by side from `low` on, and says of how many: of one
    /// at least.
    ///
    /// # Errors
    ///
    /// There is no memory for page tables, or no mapping is left; the message names the knob.
    ///
    /// # Safety
    ///
    /// The slots are the caller's, and nothing refers to what is in them.
    pub(super) unsafe fn make(&mut self, low: usize, slot_size: usize, slots: usize) -> io::Result<usize> {
        if *self == Guards::Batched && slots > 1 {
            // SAFETY: the caller's promise.
            match unsafe { mark_many(low, slot_size, slots) } {
                Some(made) => return Ok(made),
                None => *self = Guards::Marked,
            }
        }
        let guard = low..low + guard_size();
        if *self != Guards::Protected {
            // SAFETY: the caller's promise.
            match unsafe { mark(guard.clone()) } {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    *self = Guards::Protected;
                    warn_of_protected_guards();
                }
                Err(error) => return Err(cannot_guard("madvise(MADV_GUARD_INSTALL)", &error)),
                Ok(()) => return Ok(1),
            }
        }
        // SAFETY: the caller's promise.
        unsafe { protect(guard) }.map_err(|error| cannot_guard("mprotect", &error))?;
        Ok(1)
    }
}

/// Neither libc nor rustix has it yet; linux/mman-common.h, 6.13.
#[cfg(target_os = "linux")]
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// Marks the low ends of up to [`BATCH`] slots, and says of how many. `None` if the kernel does not do that: it knows no
/// PIDFD_SELF before 6.14 and no guards before 6.13, a filter may forbid the call. There is no file descriptor, which after
/// a fork would mean the parent.
///
/// # Safety
///
/// As for `mark`.
#[cfg(target_os = "linux")]
unsafe fn mark_many(low: usize, slot_size: usize, slots: usize) -> Option<usize> {
    /// What one call takes (UIO_MAXIOV).
    const BATCH: usize = 1024;
    /// The calling process; linux/pidfd.h, 6.14.
    const PIDFD_SELF: libc::c_int = -10_000;
    let guard = |slot| libc::iovec {
        iov_base: ptr::with_exposed_provenance_mut(low + slot * slot_size),
        iov_len: guard_size(),
    };
    let guards: Vec<_> = (0..slots.min(BATCH)).map(guard).collect(); // not on the stack, which may be a small one
    // SAFETY: as the caller has promised for all of the slots; the kernel reads as many places as there are.
    let marked = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            PIDFD_SELF,
            guards.as_ptr(),
            guards.len(),
            MADV_GUARD_INSTALL,
            0 as libc::c_uint,
        )
    };
    // process_madvise(2): the bytes that it got to. A guard that was begun is made again.
    let made = usize::try_from(marked).ok()? / guard_size();
    (made > 0).then_some(made)
}

#[cfg(not(target_os = "linux"))]
unsafe fn mark_many(_: usize, _: usize, _: usize) -> Option<usize> {
    None
}

/// Makes each access fault by a mark in the page table, Linux's `MADV_GUARD_INSTALL`: EINVAL before
/// 6.13, and for locked memory (`mlockall`).
///
/// # Safety
///
/// `range` is the caller's, in whole pages, and nothing refers to what is in it.
#[cfg(target_os = "linux")]
unsafe fn mark(range: Range<usize>) -> io::Result<()> {
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
