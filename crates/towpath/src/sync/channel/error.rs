//! The errors of channels. Those of sends hand the message back.

use std::fmt;

use crate::runtime::park::Cancelled;

/// The error of [`Sender::send`](super::Sender::send), with the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// All receivers are gone.
    Disconnected(T),
    /// The caller may not wait.
    Cancelled(T, Cancelled),
}

/// The error of [`Sender::try_send`](super::Sender::try_send), with the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The buffer is full, or in a rendezvous nobody waits to receive.
    Full(T),
    /// All receivers are gone.
    Disconnected(T),
}

/// The error of [`Sender::send_timeout`](super::Sender::send_timeout), with the message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// There was no room in time.
    Timeout(T),
    /// All receivers are gone.
    Disconnected(T),
    /// The caller may not wait.
    Cancelled(T, Cancelled),
}

/// The error of [`Receiver::recv`](super::Receiver::recv).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// Nothing is left and all senders are gone.
    Disconnected,
    /// The caller may not wait.
    Cancelled(Cancelled),
}

/// The error of [`Receiver::try_recv`](super::Receiver::try_recv).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is no message now.
    Empty,
    /// Nothing is left and all senders are gone.
    Disconnected,
}

/// The error of [`Receiver::recv_timeout`](super::Receiver::recv_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvTimeoutError {
    /// No message came in time.
    Timeout,
    /// Nothing is left and all senders are gone.
    Disconnected,
    /// The caller may not wait.
    Cancelled(Cancelled),
}

const NO_RECEIVERS: &str = "sending on a channel whose receivers are gone";
const NO_SENDERS: &str = "receiving on a channel that is empty and whose senders are gone";

impl<T> SendError<T> {
    /// The message.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Disconnected(message) | SendError::Cancelled(message, _) => message,
        }
    }
}

impl<T> TrySendError<T> {
    /// The message.
    pub fn into_inner(self) -> T {
        match self {
            TrySendError::Full(message) | TrySendError::Disconnected(message) => message,
        }
    }
}

impl<T> SendTimeoutError<T> {
    /// The message.
    pub fn into_inner(self) -> T {
        match self {
            SendTimeoutError::Timeout(message)
            | SendTimeoutError::Disconnected(message)
            | SendTimeoutError::Cancelled(message, _) => message,
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Disconnected(_) => f.write_str(NO_RECEIVERS),
            SendError::Cancelled(_, cancelled) => cancelled.fmt(f),
        }
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "sending on a full channel",
            TrySendError::Disconnected(_) => NO_RECEIVERS,
        })
    }
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendTimeoutError::Timeout(_) => f.write_str("sending on a channel that stayed full"),
            SendTimeoutError::Disconnected(_) => f.write_str(NO_RECEIVERS),
            SendTimeoutError::Cancelled(_, cancelled) => cancelled.fmt(f),
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Disconnected => f.write_str(NO_SENDERS),
            RecvError::Cancelled(cancelled) => cancelled.fmt(f),
        }
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryRecvError::Empty => "receiving on an empty channel",
            TryRecvError::Disconnected => NO_SENDERS,
        })
    }
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvTimeoutError::Timeout => f.write_str("receiving on a channel that stayed empty"),
            RecvTimeoutError::Disconnected => f.write_str(NO_SENDERS),
            RecvTimeoutError::Cancelled(cancelled) => cancelled.fmt(f),
        }
    }
}

/// Errors that carry a message are shown without it: it need not be `Debug`.
macro_rules! debug_without_message {
    ($($error:ident { $($variant:ident),* })*) => {$(
        impl<T> fmt::Debug for $error<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $($error::$variant { .. } => concat!(stringify!($variant), "(..)"),)*
                })
            }
        }

        impl<T> std::error::Error for $error<T> {}
    )*};
}

debug_without_message! {
    SendError { Disconnected, Cancelled }
    TrySendError { Full, Disconnected }
    SendTimeoutError { Timeout, Disconnected, Cancelled }
}

impl std::error::Error for RecvError {}
impl std::error::Error for TryRecvError {}
impl std::error::Error for RecvTimeoutError {}
