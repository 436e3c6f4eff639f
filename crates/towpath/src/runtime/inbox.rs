//! What other threads have for a worker: a locked queue, and the flag that says whether it must be woken to look.
//!
//! Its `model` explores it with loom.

use crate::shim::{AtomicBool, Mutex, Ordering, lock};

/// A worker's queue of messages from other threads.
#[derive(Debug)]
pub(crate) struct Inbox<M> {
    /// `None` once the worker has gone.
    messages: Mutex<Option<Vec<M>>>,
    /// False while the worker will look at `messages` again before it sleeps.
    /// The worker sets it with its last look, under one lock; a sender that sets it back owes the worker one wake-up.
    asleep: AtomicBool,
}

/// What a sender has to do after [`Inbox::send`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Sent<M> {
    /// Nothing: the worker will look.
    Seen,
    /// Wake the worker's poller.
    Wake,
    /// The worker has gone; here is the message again.
    Gone(M),
}

impl<M> Inbox<M> {
    pub(crate) fn new() -> Inbox<M> {
        Inbox { messages: Mutex::new(Some(Vec::new())), asleep: AtomicBool::new(false) }
    }

    /// Leaves a message. From any thread.
    pub(crate) fn send(&self, message: M) -> Sent<M> {
        let mut messages = lock(&self.messages);
        match &mut *messages {
            Some(messages) => messages.push(message),
            None => return Sent::Gone(message),
        }
        // The lock orders this after the worker's last look, if that look missed the message: then we see `asleep`.
        if self.asleep.load(Ordering::Relaxed) {
            self.asleep.store(false, Ordering::Relaxed);
            return Sent::Wake;
        }
        Sent::Seen
    }

    /// Moves what has come to `into`, which must be empty. The worker's own.
    pub(crate) fn take(&self, into: &mut Vec<M>) {
        debug_assert!(into.is_empty());
        if let Some(messages) = &mut *lock(&self.messages) {
            std::mem::swap(messages, into);
        }
    }

    /// Says that the worker is about to sleep. False, and nothing said, if there is a message to take first.
    pub(crate) fn fall_asleep(&self) -> bool {
        let messages = lock(&self.messages);
        let nothing = messages.as_ref().is_none_or(Vec::is_empty) || cfg!(towpath_fault = "no_last_look");
        if nothing {
            self.asleep.store(true, Ordering::Relaxed);
        }
        nothing
    }

    /// Says that the worker is up again.
    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Takes no more messages, if there are none left to take. False, and nothing done, otherwise.
    pub(crate) fn close(&self) -> bool {
        let mut messages = lock(&self.messages);
        let empty = messages.as_ref().is_none_or(Vec::is_empty) || cfg!(towpath_fault = "hasty_close");
        if empty {
            *messages = None;
        }
        empty
    }
}

#[cfg(all(test, towpath_loom))]
#[path = "inbox_model.rs"]
mod model;
