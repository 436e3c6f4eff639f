//! The atomics, locks and cells that modelled code is written with: std's and our own lock, or loom's while the models run.
//!
//! Files that a model explores (`runtime/wait_queue.rs`, `runtime/inbox.rs`, `net/readiness.rs`; the models lie beside
//! them) take these names from here and from nowhere else. `--cfg towpath_loom` is set by `.ci/models` alone.

#[cfg(not(towpath_loom))]
pub(crate) use {
    crate::lock::{Mutex, MutexGuard, lock},
    std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

#[cfg(towpath_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64},
};

pub(crate) use std::sync::atomic::Ordering;

#[cfg(towpath_loom)]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Runs `model` once for each way in which its threads can interleave, and for each value that the orderings in use let a
/// load see. Deadlocks, data races and panics fail it. `preemptions` bounds how often a run switches away from a thread
/// that could go on: with three threads, each more of them multiplies the runs, and few errors need many.
#[cfg(all(test, towpath_loom))]
pub(crate) fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions); // LOOM_MAX_PREEMPTIONS goes before ours
    builder.check({
        let runs = runs.clone();
        move || {
            runs.fetch_add(1, Ordering::Relaxed);
            model();
        }
    });
    println!("{}: {} runs", std::thread::current().name().unwrap_or("a model"), runs.load(Ordering::Relaxed));
}

/// loom's `AtomicUsize`, and what makes loom try every order of its uses. By itself it takes it that a thread's store can
/// only come ahead of others' loads if its own last load does: it would never see another thread's load come between a
/// load and a store of one thread (`fetch_update` is such a pair). So each load is an exchange on `loads` as well, which
/// changes nothing and tells nobody anything, but cannot change places with another unnoticed.
#[cfg(towpath_loom)]
#[derive(Debug)]
pub(crate) struct AtomicUsize {
    value: loom::sync::atomic::AtomicUsize,
    loads: loom::sync::atomic::AtomicBool,
}

#[cfg(towpath_loom)]
impl AtomicUsize {
    #[track_caller]
    pub(crate) fn new(value: usize) -> Self {
        let loads = loom::sync::atomic::AtomicBool::new(false);
        Self { value: loom::sync::atomic::AtomicUsize::new(value), loads }
    }

    #[track_caller]
    pub(crate) fn load(&self, order: Ordering) -> usize {
        self.about_to_load();
        self.value.load(order)
    }

    #[track_caller]
    pub(crate) fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        update: impl FnMut(usize) -> Option<usize>,
    ) -> Result<usize, usize> {
        self.about_to_load();
        self.value.fetch_update(set, fetch, update)
    }

    #[track_caller]
    fn about_to_load(&self) {
        let unchanged = self.loads.compare_exchange(true, true, Ordering::Relaxed, Ordering::Relaxed);
        assert_eq!(unchanged, Err(false));
    }

    /// Uses the value while no other thread may.
    #[cfg(test)]
    #[track_caller]
    pub(crate) fn with_mut<R>(&mut self, f: impl FnOnce(&mut usize) -> R) -> R {
        self.value.with_mut(f)
    }
}

#[cfg(towpath_loom)]
impl std::ops::Deref for AtomicUsize {
    type Target = loom::sync::atomic::AtomicUsize;

    fn deref(&self) -> &Self::Target {
        &self.value
    }
}

/// loom's `UnsafeCell`, which also looks at who takes the value out: that must come after every other use.
#[cfg(towpath_loom)]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(loom::cell::UnsafeCell<T>);

#[cfg(towpath_loom)]
impl<T> UnsafeCell<T> {
    #[track_caller]
    pub(crate) fn new(value: T) -> Self {
        Self(loom::cell::UnsafeCell::new(value))
    }

    #[track_caller]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        self.0.with_mut(f)
    }

    #[track_caller]
    pub(crate) fn into_inner(self) -> T {
        self.0.with_mut(|_| ());
        self.0.into_inner()
    }
}

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
