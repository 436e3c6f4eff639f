//! The wait queue as loom explores it: waiters and wakers on loom's threads, which park as plain threads do.
//!
//! A wait that nobody ends is a deadlock, and loom reports it. Each wait ends by [`bury`], which asks loom whether others
//! are through with the node and the waiter; in the library they are gone from there on.

use std::collections::VecDeque;
use std::sync::Arc;

use loom::thread;

use super::*;
use crate::runtime::wait::Op;
use crate::shim::{Mutex, explore, lock};

/// A wait queue as a channel has one: who comes for a message finds it in the buffer, or waits to be handed it.
#[derive(Default)]
struct Place {
    buffer: VecDeque<u32>,
    waiting: WaitQueue<Option<u32>>,
    /// How many have come to receive.
    comers: u32,
}

type Shared = Arc<Mutex<Place>>;

fn send(place: &Mutex<Place>, message: u32) {
    let unparker = {
        let mut place = lock(place);
        let mut message = Some(message);
        let unparker = place.waiting.claim(|payload| {
            let before = std::mem::replace(payload, message.take());
            assert_eq!(before, None, "a node is handed one message");
        });
        place.buffer.extend(message);
        unparker
    };
    if let Some(unparker) = unparker {
        unparker.unpark();
    }
}

/// What was received, and how many had come to receive before.
fn receive(place: &Mutex<Place>, deadline: Option<Instant>) -> (Option<u32>, u32) {
    let waiter = Waiter::new().unwrap();
    let node = Node::new(&waiter, 0, None);
    let rank = {
        let mut place = lock(place);
        let rank = place.comers;
        place.comers += 1;
        if let Some(message) = place.buffer.pop_front() {
            return (Some(message), rank);
        }
        // SAFETY: it is removed below, unless it was claimed.
        unsafe { place.waiting.push(&node) };
        rank
    };
    let ended = waiter.wait(Op::Dump.into(), deadline);
    if ended == Ended::TimedOut {
        // SAFETY: it was pushed to this queue.
        unsafe { lock(place).waiting.remove(&node) };
    }
    let [message] = bury(waiter, [node]);
    match ended {
        Ended::Woken(0) => assert!(message.is_some(), "woken with nothing"),
        Ended::TimedOut => assert_eq!(message, None, "late, and handed a message all the same"),
        Ended::Woken(_) => panic!("ended by {ended:?}"),
    }
    (message, rank)
}

/// Receives from either of two places, the way of `select!`.
fn select(places: &[Shared; 2]) -> (usize, u32) {
    loop {
        let waiter = Waiter::new().unwrap();
        let nodes = [Node::new(&waiter, 0, None), Node::new(&waiter, 1, None)];
        let enlist = |(place, node): (&Shared, &Node<_>)| {
            let mut place = lock(place);
            let waits = place.buffer.is_empty();
            if waits {
                // SAFETY: it is removed below.
                unsafe { place.waiting.push(node) };
            }
            waits
        };
        let queued = places.iter().zip(&nodes).take_while(|both| enlist(*both)).count();
        let again = queued < nodes.len() && waiter.abort();
        let ended = if again { Ended::TimedOut } else { waiter.wait(Op::Dump.into(), None) };
        for (place, node) in places.iter().zip(&nodes).take(queued) {
            // SAFETY: it was pushed to this queue.
            unsafe { lock(place).waiting.remove(node) };
        }
        let messages = bury(waiter, nodes);
        match (ended, messages) {
            (Ended::Woken(0), [Some(message), None]) => return (0, message),
            (Ended::Woken(1), [None, Some(message)]) => return (1, message),
            (Ended::TimedOut, [None, None]) if again => {}
            other => panic!("ended by {other:?}"),
        }
        if let Some(message) = lock(&places[queued]).buffer.pop_front() {
            return (queued, message);
        }
    }
}

/// Ends a wait and its nodes. Whatever another thread does with them must be ordered before this, or loom fails the model.
fn bury<P, const N: usize>(mut waiter: Waiter, nodes: [Node<P>; N]) -> [P; N] {
    waiter.state.with_mut(|_| ());
    nodes.map(|node| {
        node.links.with_mut(|_| ());
        node.into_payload()
    })
}

/// A time that is over: a wait with this deadline ends at once, unless somebody is quicker.
fn over() -> Option<Instant> {
    Some(Instant::from_nanos(1))
}

#[test]
fn a_message_reaches_who_waits_for_it() {
    explore(None, || {
        let place = Shared::default();
        let sender = thread::spawn({
            let place = place.clone();
            move || send(&place, 7)
        });
        assert_eq!(receive(&place, None), (Some(7), 0));
        sender.join().unwrap();
    });
}

#[test]
fn a_select_ends_by_one_arm_and_leaves_the_other_alone() {
    explore(Some(4), || {
        let places = [Shared::default(), Shared::default()];
        let senders = [0, 1].map(|arm| {
            let place = places[arm].clone();
            thread::spawn(move || send(&place, 7 + arm as u32))
        });
        let (arm, message) = select(&places);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(message, 7 + arm as u32);
        assert_eq!(lock(&places[arm]).buffer, []);
        assert_eq!(lock(&places[1 - arm]).buffer, [7 + (1 - arm) as u32], "neither lost nor taken twice");
    });
}

#[test]
fn a_late_wait_has_the_message_or_leaves_it() {
    explore(None, || {
        let place = Shared::default();
        let sender = thread::spawn({
            let place = place.clone();
            move || send(&place, 7)
        });
        let (received, _) = receive(&place, over());
        sender.join().unwrap();
        let left = lock(&place).buffer.pop_front();
        assert!(matches!((received, left), (Some(7), None) | (None, Some(7))), "{received:?}, {left:?}");
    });
}

#[test]
fn a_message_passes_by_those_who_have_left() {
    explore(Some(4), || {
        let place = Shared::default();
        let [late, patient] = [over(), None].map(|deadline| {
            let place = place.clone();
            thread::spawn(move || receive(&place, deadline).0)
        });
        send(&place, 7);
        let rest = match late.join().unwrap() {
            None => 7,
            Some(received) => {
                assert_eq!(received, 7);
                send(&place, 8);
                8
            }
        };
        assert_eq!(patient.join().unwrap(), Some(rest));
    });
}

#[test]
fn who_came_first_is_served_first() {
    explore(Some(4), || {
        let place = Shared::default();
        let receivers = [(); 2].map(|()| {
            let place = place.clone();
            thread::spawn(move || receive(&place, None))
        });
        send(&place, 7);
        send(&place, 8);
        for receiver in receivers {
            let (received, rank) = receiver.join().unwrap();
            assert_eq!(received, Some(7 + rank));
        }
    });
}
