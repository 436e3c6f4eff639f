//! The atomics, locks and cells that modelled code is written with: std's, or loom's while the models run.
//!
//! Files that a model explores (`sync/waiter.rs`, `net/readiness.rs`, `runtime/inbox.rs`) take these names from here and
//! from nowhere else. `--cfg towpath_loom` is set by the model runs of `.ci/run` alone.

#[cfg(not(towpath_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

#[cfg(towpath_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

pub(crate) use std::sync::atomic::Ordering;

/// Locks a mutex whose holders run none of the user's code: there is no state that a panic could leave half changed,
/// so a poisoned lock is taken as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Lets another thread run while this one waits for it to finish a few instructions.
pub(crate) fn relax() {
    #[cfg(not(towpath_loom))]
    std::thread::yield_now();
    #[cfg(towpath_loom)]
    loom::thread::yield_now();
}

#[cfg(towpath_loom)]
pub(crate) use loom::cell::UnsafeCell;

/// `std::cell::UnsafeCell` with the interface of loom's, which lets the model see who reads and who writes.
#[cfg(not(towpath_loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(towpath_loom))]
impl<T> UnsafeCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}
