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
//! * [`remove`](Poller::remove) ends the reports on a descriptor that lives on. For one that is about to be closed, or has
//!   been, there is [`forget`](Poller::forget). Both let go of the file before they return, and neither may be left out:
//!   closing a descriptor ends its reports with epoll, but io_uring holds the file and so keeps it open, and the peer is
//!   told of no end, until it is asked to forget it. So whoever closes sees to it that the poller forgets at once; and if
//!   closing may block (SO_LINGER), that it has forgotten first, or the poller's own thread would be what blocks.
//! * Dropping a poller lets go of all files.
//! * Reports that were under way, or come because a duplicate of a closed descriptor lives on, may still be returned: the
//!   worker's tokens carry a generation, and it drops those.
//! * Of writing, reports need tell only if that was asked for, by `add` or later by [`add_writing`](Poller::add_writing):
//!   if the descriptor is ready for it at that moment, the next `wait` says so. They may tell anyway.
//! * `wait` returns after the timeout, after at least one event, or after a wake; with no timeout, only after the others.
//!   It may return early. It never reports an interrupted call (EINTR).
//! * A wake from another thread, before or during a `wait`, makes that `wait` return. Wakes before it count as one.

mod os;
#[cfg(target_os = "linux")]
mod uring;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::str::FromStr;
use std::time::Duration;

bitflags::bitflags! {
    /// What a report says of a descriptor, in the bits of poll(2) and epoll(7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Ready: u32 {
        const READABLE = libc::POLLIN as u32;
        const WRITABLE = libc::POLLOUT as u32;
        /// The peer will send no more.
        const READ_CLOSED = libc::POLLRDHUP as u32;
        /// Both directions are over.
        const HANGUP = libc::POLLHUP as u32;
        /// An error is pending.
        const ERROR = libc::POLLERR as u32;
        /// There is urgent data.
        const URGENT = libc::POLLPRI as u32;
    }
}

/// What a registration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Reading, and with it the ends of the connection. Most sockets wait for nothing else.
    Reading,
    Both,
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
    /// io_uring(7), on Linux 6.1 or later. Many containers forbid it: a runtime that cannot have it uses
    /// [`Os`](PollerKind::Os), and logs why.
    Uring,
}

impl fmt::Display for PollerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PollerKind::Os => "os",
            PollerKind::Uring => "uring",
        })
    }
}

impl FromStr for PollerKind {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<PollerKind> {
        match name {
            "os" => Ok(PollerKind::Os),
            "uring" => Ok(PollerKind::Uring),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("unknown poller {name:?}: there are \"os\" and \"uring\""),
            )),
        }
    }
}

/// The kind that a runtime can have which wishes for `kind`, and why that is another one, if it is.
pub(crate) fn available(kind: PollerKind) -> (PollerKind, Option<io::Error>) {
    match kind {
        PollerKind::Os => (kind, None),
        PollerKind::Uring => match Poller::new(kind) {
            Ok(_) => (kind, None),
            Err(error) => (PollerKind::Os, Some(error)),
        },
    }
}

/// A poller of one of the kinds.
#[derive(Debug)]
pub(crate) enum Poller {
    Os(os::Os),
    /// With what the last wait has brought.
    #[cfg(target_os = "linux")]
    Uring(Box<uring::Uring>, Vec<Event>),
}

/// Makes the `wait` of one poller return, from any thread.
#[derive(Clone, Debug)]
pub(crate) enum Waker {
    Os(os::Waker),
    #[cfg(target_os = "linux")]
    Uring(uring::Waker),
}

impl Poller {
    pub(crate) fn new(kind: PollerKind) -> io::Result<(Poller, Waker)> {
        match kind {
            PollerKind::Os => os::Os::new().map(|(poller, waker)| (Poller::Os(poller), Waker::Os(waker))),
            #[cfg(target_os = "linux")]
            PollerKind::Uring => {
                let (poller, waker) = uring::Uring::new()?;
                Ok((Poller::Uring(Box::new(poller), Vec::new()), Waker::Uring(waker)))
            }
            #[cfg(not(target_os = "linux"))]
            PollerKind::Uring => Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring is Linux's own")),
        }
    }

    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Poller::Os(os) => os.add(fd, token, interest),
            #[cfg(target_os = "linux")]
            Poller::Uring(uring, _) => {
                uring.add(fd, token); // for both
                Ok(())
            }
        }
    }

    /// Has reports on a descriptor that was added for reading tell of writing as well.
    pub(crate) fn add_writing(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        match self {
            Poller::Os(os) => os.add_writing(fd, token),
            #[cfg(target_os = "linux")]
            Poller::Uring(..) => Ok(()), // they have from the start
        }
    }

    pub(crate) fn remove(&mut self, fd: BorrowedFd<'_>, token: Token) {
        match self {
            Poller::Os(os) => os.remove(fd),
            #[cfg(target_os = "linux")]
            Poller::Uring(..) => self.forget(token),
        }
    }

    /// Does nothing where nothing is registered by that token.
    pub(crate) fn forget(&mut self, token: Token) {
        match self {
            Poller::Os(_) => _ = token, // closing ends the registration
            #[cfg(target_os = "linux")]
            Poller::Uring(uring, _) => uring.remove(token),
        }
    }

    /// Waits for reports, which are then to be taken.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Poller::Os(os) => os.wait(timeout),
            #[cfg(target_os = "linux")]
            Poller::Uring(uring, reports) => uring.wait(timeout, reports),
        }
    }

    /// Hands out what the last wait has brought.
    #[inline]
    pub(crate) fn take(&mut self, report: impl FnMut(Event)) {
        match self {
            Poller::Os(os) => os.take(report),
            #[cfg(target_os = "linux")]
            Poller::Uring(_, reports) => reports.drain(..).for_each(report),
        }
    }
}

impl Waker {
    pub(crate) fn wake(&self) {
        match self {
            Waker::Os(waker) => waker.wake(),
            #[cfg(target_os = "linux")]
            Waker::Uring(waker) => waker.wake(),
        }
    }
}

#[cfg(all(test, not(towpath_loom)))]
mod contract;
