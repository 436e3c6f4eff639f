//! A lock that is held for a few instructions, in which nothing waits and none of the user's code runs.
//!
//! Taking it is one compare-and-swap and letting go of it one store: half of what a mutex costs that has to know whether
//! somebody sleeps on it. Who finds it taken lets others run until it is free; the holder may have been preempted, so after
//! a while that is by sleeping, or a thread of a higher priority would never let the holder run. A panic while it is held
//! leaves no mark on it: there is no state that could be left half changed.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// So often a thread looks again before it lets others run.
const LOOKS: u32 = 64;
/// So often it lets others run before it sleeps.
const YIELDS: u32 = 256;
const NAP: Duration = Duration::from_micros(50);

#[derive(Default)]
pub(crate) struct Mutex<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time reaches the value, which may be sent from one to the next.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> RefUnwindSafe for Mutex<T> {}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }
}

/// Takes the lock.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    if mutex.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
        wait_for(&mutex.held);
    }
    MutexGuard(mutex)
}

#[cold]
fn wait_for(held: &AtomicBool) {
    let mut tries = 0;
    while held.load(Ordering::Relaxed) || held.swap(true, Ordering::Acquire) {
        match tries {
            0..LOOKS => std::hint::spin_loop(),
            LOOKS..YIELDS => thread::yield_now(),
            _ => thread::sleep(NAP),
        }
        tries += 1;
    }
}

/// The lock, until this is dropped.
pub(crate) struct MutexGuard<'a, T>(&'a Mutex<T>);

// SAFETY: it gives a reference to the value to those who have one to the guard.
unsafe impl<T: Sync> Sync for MutexGuard<'_, T> {}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: we have the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: we have the lock, and the guard is borrowed alone.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.held.store(false, Ordering::Release);
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_at_a_time_has_it() {
        const EACH: usize = 100_000;
        let count = Mutex::new(0_usize);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        let mut count = lock(&count);
                        let before = *count;
                        std::hint::black_box(&count);
                        *count = before + 1;
                    }
                });
            }
        });
        assert_eq!(*lock(&count), 4 * EACH);
    }

    #[test]
    fn a_holder_that_sleeps_is_waited_for() {
        let mutex = Mutex::new(1);
        let held = lock(&mutex);
        thread::scope(|scope| {
            let waits = scope.spawn(|| *lock(&mutex));
            thread::sleep(20 * NAP);
            assert!(!waits.is_finished());
            drop(held);
            assert_eq!(waits.join().unwrap(), 1);
        });
    }

    #[test]
    fn a_panic_lets_go_of_it() {
        let mutex = Mutex::new(1);
        let panicked = std::panic::catch_unwind(|| {
            let _held = lock(&mutex);
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
        assert_eq!(*lock(&mutex), 1);
    }
}
