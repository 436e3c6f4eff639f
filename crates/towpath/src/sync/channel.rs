//! Channels with many senders and many receivers: [`bounded`], where `bounded(0)` is a rendezvous, and [`unbounded`].
//!
//! ```
//! use towpath::sync::channel;
//!
//! let (sender, receiver) = channel::bounded(0);
//! let task = towpath::spawn(move || sender.send("hello"));
//! assert_eq!(receiver.recv(), Ok("hello"));
//! task.join().unwrap().unwrap();
//! ```
//!
//! A message goes straight to whoever has waited longest, if somebody does, and into the buffer otherwise: messages are
//! received in the order in which they were sent, and each by one receiver.

use std::collections::VecDeque;
use std::fmt;
use std::ptr;
use std::sync::Arc;

mod error;
mod iter;

pub use error::{RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError};
pub use iter::{IntoIter, Iter, TryIter};

use crate::runtime::park::{self, Unparker};
use crate::runtime::wait::{Describe, Fill, On, Op, Subject, Wait};
use crate::runtime::wait_queue::{Ended, Node, WaitQueue, Waiter};
use crate::shim::{Mutex, lock};
use crate::time::{Duration, Instant};

/// A channel that holds up to `capacity` messages; a send beyond that waits. With 0 it holds none: a send waits for the
/// receive that takes its message.
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    channel(Some(capacity))
}

/// A channel that holds as many messages as memory does: a send never waits.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(None)
}

fn channel<T>(capacity: Option<usize>) -> (Sender<T>, Receiver<T>) {
    let state = State {
        buffer: VecDeque::new(),
        capacity,
        senders: 1,
        receivers: 1,
        sending: WaitQueue::default(),
        receiving: WaitQueue::default(),
    };
    let core = Arc::new(Core { subject: Subject::of::<Core<T>>(), state: Mutex::new(state) });
    (Sender { core: core.clone() }, Receiver { core })
}

/// The sending half of a channel. Clone it for more senders; when the last is dropped, receivers get what is left and
/// then [`RecvError::Disconnected`].
pub struct Sender<T> {
    pub(super) core: Arc<Core<T>>,
}

/// The receiving half of a channel. Clone it for more receivers; when the last is dropped, what is left in the buffer is
/// dropped, and senders get their messages back in [`SendError::Disconnected`].
pub struct Receiver<T> {
    pub(super) core: Arc<Core<T>>,
}

#[repr(C)]
pub(super) struct Core<T> {
    subject: Subject,
    pub(super) state: Mutex<State<T>>,
}

/// While somebody waits in `receiving` the buffer is empty; while somebody waits in `sending` it is full.
pub(super) struct State<T> {
    buffer: VecDeque<T>,
    /// `None`: unbounded.
    capacity: Option<usize>,
    senders: usize,
    receivers: usize,
    /// Who waits to send. The payload is the message; whoever claims the node takes it, or leaves it to say
    /// "disconnected".
    pub(super) sending: WaitQueue<Option<T>>,
    /// Who waits to receive. The payload is empty; whoever claims the node fills it, or leaves it to say "disconnected".
    pub(super) receiving: WaitQueue<Option<T>>,
}

/// A call that would have to wait.
pub(super) struct MustWait<T>(pub(super) T);

impl<T> State<T> {
    /// Sends without waiting. `Ok(Err(message))`: nobody will ever receive it.
    pub(super) fn send(&mut self, message: T) -> Result<Result<Option<Unparker>, T>, MustWait<T>> {
        if self.receivers == 0 {
            return Ok(Err(message));
        }
        let mut message = Some(message);
        if let Some(unparker) = self.receiving.claim(|slot| *slot = message.take()) {
            return Ok(Ok(Some(unparker)));
        }
        let message = message.expect("nobody took it");
        if self.capacity.is_some_and(|capacity| self.buffer.len() >= capacity) {
            return Err(MustWait(message));
        }
        self.buffer.push_back(message);
        Ok(Ok(None))
    }

    /// Receives without waiting. `Ok(None)`: nobody will ever send.
    pub(super) fn receive(&mut self) -> Result<Option<(T, Option<Unparker>)>, MustWait<()>> {
        let mut sent = None;
        let unparker = self.sending.claim(|message| sent = message.take());
        match self.buffer.pop_front() {
            Some(message) => {
                self.buffer.extend(sent);
                Ok(Some((message, unparker)))
            }
            None => match sent {
                Some(message) => Ok(Some((message, unparker))),
                None if self.senders == 0 => Ok(None),
                None => Err(MustWait(())),
            },
        }
    }
}

impl<T> State<T> {
    /// Whether a send by `waiter`, which may be queued here to receive, could go ahead.
    pub(super) fn can_send(&self, waiter: &Waiter) -> bool {
        self.receivers == 0
            || self.capacity.is_none_or(|capacity| self.buffer.len() < capacity)
            || self.receiving.has_other(waiter)
    }

    /// Whether a receive by `waiter`, which may be queued here to send, could go ahead.
    pub(super) fn can_receive(&self, waiter: &Waiter) -> bool {
        self.senders == 0 || !self.buffer.is_empty() || self.sending.has_other(waiter)
    }
}

impl<T> Core<T> {
    fn send(&self, message: T, deadline: Option<Instant>) -> Result<(), SendTimeoutError<T>> {
        let mut state = lock(&self.state);
        let message = match state.send(message) {
            Ok(Ok(unparker)) => {
                drop(state);
                wake(unparker);
                park::spend();
                return Ok(());
            }
            Ok(Err(message)) => return Err(SendTimeoutError::Disconnected(message)),
            Err(MustWait(message)) => message,
        };
        let waiter = match Waiter::new() {
            Ok(waiter) => waiter,
            Err(cancelled) => return Err(SendTimeoutError::Cancelled(message, cancelled)),
        };
        let node = Node::new(&waiter, 0, Some(message));
        // SAFETY: unless it was claimed, the node is removed below before it moves.
        unsafe { state.sending.push(&node) };
        drop(state);
        let ended = waiter.wait(Wait::on_subject(Op::Send, self), deadline);
        if ended == Ended::TimedOut {
            // SAFETY: it was pushed to this queue.
            unsafe { lock(&self.state).sending.remove(&node) };
        }
        match (node.into_payload(), ended) {
            (None, _) => Ok(()),
            (Some(message), Ended::Woken(_)) => Err(SendTimeoutError::Disconnected(message)),
            (Some(message), Ended::TimedOut) => Err(SendTimeoutError::Timeout(message)),
        }
    }

    fn receive(&self, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
        let mut state = lock(&self.state);
        match state.receive() {
            Ok(Some((message, unparker))) => {
                drop(state);
                wake(unparker);
                park::spend();
                return Ok(message);
            }
            Ok(None) => return Err(RecvTimeoutError::Disconnected),
            Err(MustWait(())) => {}
        }
        let waiter = Waiter::new().map_err(RecvTimeoutError::Cancelled)?;
        let node = Node::new(&waiter, 0, None);
        // SAFETY: unless it was claimed, the node is removed below before it moves.
        unsafe { state.receiving.push(&node) };
        drop(state);
        let ended = waiter.wait(Wait::on_subject(Op::Receive, self), deadline);
        if ended == Ended::TimedOut {
            // SAFETY: it was pushed to this queue.
            unsafe { lock(&self.state).receiving.remove(&node) };
        }
        match (node.into_payload(), ended) {
            (Some(message), _) => Ok(message),
            (None, Ended::Woken(_)) => Err(RecvTimeoutError::Disconnected),
            (None, Ended::TimedOut) => Err(RecvTimeoutError::Timeout),
        }
    }
}

// SAFETY: it is `repr(C)`, and begins with a `Subject` of it.
unsafe impl<T> Describe for Core<T> {
    fn describe(&self) -> On {
        let state = lock(&self.state);
        let fill = Fill { len: state.buffer.len(), capacity: state.capacity };
        On::Channel { id: ptr::from_ref(self).addr() as u64, fill: Some(fill) }
    }
}

/// Unparks the other side of a message that has just passed.
#[inline]
pub(super) fn wake(unparker: Option<Unparker>) {
    if let Some(unparker) = unparker {
        unparker.unpark();
    }
}

impl<T> Sender<T> {
    /// Sends a message, and waits for room, or in a rendezvous for a receiver.
    ///
    /// # Errors
    /// The message again: [`SendError::Disconnected`] if all receivers are gone, [`SendError::Cancelled`] if the caller
    /// may not wait.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.core.send(message, None).map_err(|error| match error {
            SendTimeoutError::Disconnected(message) => SendError::Disconnected(message),
            SendTimeoutError::Cancelled(message, cancelled) => SendError::Cancelled(message, cancelled),
            SendTimeoutError::Timeout(_) => unreachable!("a wait without a deadline does not time out"),
        })
    }

    /// Sends a message if that needs no waiting.
    ///
    /// # Errors
    /// The message again: [`TrySendError::Full`], or [`TrySendError::Disconnected`].
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let sent = lock(&self.core.state).send(message);
        match sent {
            Ok(Ok(unparker)) => {
                wake(unparker);
                Ok(())
            }
            Ok(Err(message)) => Err(TrySendError::Disconnected(message)),
            Err(MustWait(message)) => Err(TrySendError::Full(message)),
        }
    }

    /// Sends a message, and waits up to `timeout` for room.
    ///
    /// # Errors
    /// As [`send`](Sender::send), or [`SendTimeoutError::Timeout`], with the message.
    pub fn send_timeout(&self, message: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.core.send(message, Some(Instant::after(timeout)))
    }

    /// Sends a message, and waits until `deadline` for room.
    ///
    /// # Errors
    /// As [`send_timeout`](Sender::send_timeout).
    pub fn send_deadline(&self, message: T, deadline: Instant) -> Result<(), SendTimeoutError<T>> {
        self.core.send(message, Some(deadline))
    }
}

impl<T> Receiver<T> {
    /// Receives a message, and waits for one.
    ///
    /// # Errors
    /// [`RecvError::Disconnected`] once nothing is left and all senders are gone, [`RecvError::Cancelled`] if the caller
    /// may not wait.
    pub fn recv(&self) -> Result<T, RecvError> {
        self.core.receive(None).map_err(|error| match error {
            RecvTimeoutError::Disconnected => RecvError::Disconnected,
            RecvTimeoutError::Cancelled(cancelled) => RecvError::Cancelled(cancelled),
            RecvTimeoutError::Timeout => unreachable!("a wait without a deadline does not time out"),
        })
    }

    /// Receives a message if there is one.
    ///
    /// # Errors
    /// [`TryRecvError::Empty`], or [`TryRecvError::Disconnected`].
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let received = lock(&self.core.state).receive();
        match received {
            Ok(Some((message, unparker))) => {
                wake(unparker);
                Ok(message)
            }
            Ok(None) => Err(TryRecvError::Disconnected),
            Err(MustWait(())) => Err(TryRecvError::Empty),
        }
    }

    /// Receives a message, and waits up to `timeout` for one.
    ///
    /// # Errors
    /// As [`recv`](Receiver::recv), or [`RecvTimeoutError::Timeout`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.core.receive(Some(Instant::after(timeout)))
    }

    /// Receives a message, and waits until `deadline` for one.
    ///
    /// # Errors
    /// As [`recv_timeout`](Receiver::recv_timeout).
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.core.receive(Some(deadline))
    }
}

/// What both halves can tell of their channel.
macro_rules! observers {
    ($half:ident) => {
        impl<T> $half<T> {
            /// How many messages are in the buffer.
            pub fn len(&self) -> usize {
                lock(&self.core.state).buffer.len()
            }

            /// Whether the buffer is empty; that of a rendezvous always is.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// How many messages the buffer can hold; `None` for as many as memory can.
            pub fn capacity(&self) -> Option<usize> {
                lock(&self.core.state).capacity
            }

            /// Whether both are halves of the same channel.
            pub fn same_channel(&self, other: &$half<T>) -> bool {
                Arc::ptr_eq(&self.core, &other.core)
            }
        }

        impl<T> fmt::Debug for $half<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($half)).field("len", &self.len()).finish_non_exhaustive()
            }
        }
    };
}

observers!(Sender);
observers!(Receiver);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        lock(&self.core.state).senders += 1;
        Sender { core: self.core.clone() }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        lock(&self.core.state).receivers += 1;
        Receiver { core: self.core.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.core.state);
        state.senders -= 1;
        while state.senders == 0 {
            let Some(unparker) = state.receiving.claim(|_| ()) else { break };
            drop(state);
            unparker.unpark();
            state = lock(&self.core.state);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.core.state);
        state.receivers -= 1;
        if state.receivers > 0 {
            return;
        }
        let left = std::mem::take(&mut state.buffer);
        while let Some(unparker) = state.sending.claim(|_| ()) {
            drop(state);
            unparker.unpark();
            state = lock(&self.core.state);
        }
        drop(state);
        drop(left); // whose destructors may use this very channel
    }
}
