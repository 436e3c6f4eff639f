//! Pollers: they tell a worker which sockets became ready. They know descriptors and tokens, never tasks or sockets.
//!
//! # The contract
//! Each worker makes one poller, on its own thread, and uses it from that thread only; the [`Waker`] alone is used
//! from others.
//!
//! * [`add`](Poller::add) starts reports for a descriptor. If it is ready at that moment, the next `wait` says so.
//! * From then on every *change* towards ready is reported at least once (edge-triggered). A report may be spurious or
//!   repeated; it may say more than is true, never less. Nothing is reported again because nobody reacted.
//! * No operation of a poller points into a task's stack: pollers report readiness, the task moves the bytes itself.
//! * [`remove`](Poller::remove) ends the reports. Closing the descriptor does as well. Reports that were under way, or
//!   come because a duplicate of a closed descriptor lives on, may still be returned: the worker's tokens carry a
//!   generation, and it drops those.
//! * `wait` returns after the timeout, after at least one event, or after a wake; with no timeout, only after the others.
//!   It may return early. It never reports an interrupted call (EINTR).
//! * A wake from another thread, before or during a `wait`, makes that `wait` return. Wakes before it count as one.

mod os;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::str::FromStr;
use std::time::Duration;

bitflags::bitflags! {
    /// What a report says of a descriptor.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Ready: u8 {
        const READABLE = 1;
        const WRITABLE = 2;
        /// The peer will send no more (EPOLLRDHUP).
        const READ_CLOSED = 4;
        /// Both directions are over (EPOLLHUP).
        const HANGUP = 8;
        /// An error is pending (EPOLLERR).
        const ERROR = 16;
        /// There is urgent data (EPOLLPRI).
        const URGENT = 32;
    }
}

/// What a worker calls a registration: an index and a generation, so that a late report is told from a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// One report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) token: Token,
    pub(crate) ready: Ready,
}

/// Which poller a runtime's workers wait on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PollerKind {
    /// The operating system's readiness interface: epoll(7) on Linux.
    #[default]
    Os,
}

impl fmt::Display for PollerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PollerKind::Os => "os",
        })
    }
}

impl FromStr for PollerKind {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<PollerKind> {
        match name {
            "os" => Ok(PollerKind::Os),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("unknown poller {name:?}: the one there is is \"os\""),
            )),
        }
    }
}

/// A poller of one of the kinds.
#[derive(Debug)]
pub(crate) enum Poller {
    Os(os::Os),
}

/// Makes the `wait` of one poller return, from any thread.
#[derive(Clone, Debug)]
pub(crate) enum Waker {
    Os(os::Waker),
}

impl Poller {
    pub(crate) fn new(kind: PollerKind) -> io::Result<(Poller, Waker)> {
        match kind {
            PollerKind::Os => os::Os::new().map(|(poller, waker)| (Poller::Os(poller), Waker::Os(waker))),
        }
    }

    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        match self {
            Poller::Os(os) => os.add(fd, token),
        }
    }

    pub(crate) fn remove(&mut self, fd: BorrowedFd<'_>) {
        match self {
            Poller::Os(os) => os.remove(fd),
        }
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        match self {
            Poller::Os(os) => os.wait(timeout, events),
        }
    }
}

impl Waker {
    pub(crate) fn wake(&self) {
        match self {
            Waker::Os(waker) => waker.wake(),
        }
    }
}
