//! The inbox as loom explores it: a worker that sleeps when it has nothing to do, and threads that leave it messages.
//!
//! A message that is left with the worker asleep and nobody about to wake it is a deadlock, and loom reports it.

use std::sync::Arc;

use loom::sync::Condvar;
use loom::thread;

use super::*;
use crate::shim::explore;

/// A worker's inbox, and what it sleeps on: a wake before the wait counts, as with an eventfd.
struct Remote {
    inbox: Inbox<u32>,
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Remote {
    fn new() -> Arc<Remote> {
        Arc::new(Remote { inbox: Inbox::new(), woken: Mutex::new(false), changed: Condvar::new() })
    }

    /// Leaves a message and wakes the worker if it must; false if that has gone.
    fn send(&self, message: u32) -> bool {
        match self.inbox.send(message) {
            Sent::Seen => true,
            Sent::Wake => {
                self.wake();
                true
            }
            Sent::Gone(returned) => {
                assert_eq!(returned, message);
                false
            }
        }
    }

    fn wake(&self) {
        *lock(&self.woken) = true;
        self.changed.notify_one();
    }

    fn sleep(&self) {
        let mut woken = lock(&self.woken);
        while !std::mem::take(&mut *woken) {
            woken = self.changed.wait(woken).unwrap();
        }
    }

    /// One turn of a worker with nothing else to do.
    fn turn(&self, seen: &mut Vec<u32>) {
        let mut messages = Vec::new();
        self.inbox.take(&mut messages);
        if !messages.is_empty() {
            seen.append(&mut messages);
        } else if self.inbox.fall_asleep() {
            self.sleep();
            self.inbox.wake_up();
        }
    }
}

#[test]
fn no_message_is_left_with_a_worker_asleep() {
    explore(None, || {
        let remote = Remote::new();
        let sender = thread::spawn({
            let remote = remote.clone();
            move || assert!(remote.send(1) && remote.send(2))
        });
        let mut seen = Vec::new();
        while seen.len() < 2 {
            remote.turn(&mut seen);
        }
        sender.join().unwrap();
        assert_eq!(seen, [1, 2]);
    });
}

#[test]
fn two_senders_wake_the_worker_between_them() {
    explore(Some(4), || {
        let remote = Remote::new();
        let senders = [1, 2].map(|message| {
            let remote = remote.clone();
            thread::spawn(move || assert!(remote.send(message)))
        });
        let mut seen = Vec::new();
        while seen.len() < 2 {
            remote.turn(&mut seen);
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(seen.iter().sum::<u32>(), 3);
    });
}

#[test]
fn a_worker_woken_by_something_else_is_woken_for_the_next_message_as_well() {
    explore(Some(4), || {
        let remote = Remote::new();
        let sender = thread::spawn({
            let remote = remote.clone();
            move || assert!(remote.send(1))
        });
        let socket = thread::spawn({
            let remote = remote.clone();
            move || remote.wake()
        });
        let mut seen = Vec::new();
        while seen.is_empty() {
            remote.turn(&mut seen);
        }
        sender.join().unwrap();
        socket.join().unwrap();
        assert_eq!(seen, [1]);
    });
}

#[test]
fn a_worker_that_ends_has_every_message_it_did_not_hand_back() {
    explore(None, || {
        let remote = Remote::new();
        let sender = thread::spawn({
            let remote = remote.clone();
            move || [1, 2].map(|message| remote.send(message))
        });
        let (mut seen, mut messages) = (Vec::new(), Vec::new());
        while !remote.inbox.close() {
            remote.inbox.take(&mut messages);
            seen.append(&mut messages);
        }
        let taken = sender.join().unwrap();
        let kept: Vec<_> =
            [1, 2].into_iter().zip(taken).filter_map(|(message, taken)| taken.then_some(message)).collect();
        assert_eq!(seen, kept);
    });
}
