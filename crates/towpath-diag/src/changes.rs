//! How the states of sockets change.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::{Family, Filter, State};

/// A socket went from one state to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Change {
    /// When, on the clock of [`monotonic`](crate::monotonic).
    pub at: Duration,
    /// Whether that is the very moment. Otherwise it was seen then, and happened at most an interval before.
    pub exact: bool,
    /// The same in all changes of one socket's life.
    pub key: Key,
    /// The family it was made with.
    pub family: Family,
    /// The address here. Its port is 0 if the kernel had given it none by then, and no later change told it in time.
    pub local: SocketAddr,
    /// The address of the other side; none for a listener.
    pub peer: Option<SocketAddr>,
    /// What it was doing.
    pub old: State,
    /// What it does now.
    pub new: State,
}

/// What tells sockets apart: one key means one socket until that is [`State::Closed`], and may mean another then.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Key {
    /// Where the kernel keeps it, of changes that are exact.
    Address(u64),
    /// Its cookie, of changes that are sampled.
    Cookie(u64),
}

/// What there is to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A socket went from one state to another.
    Change(Change),
    /// So many changes, at least, are not told, since they came faster than they were taken.
    Lost(u64),
}

/// Where changes come from.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Source {
    /// The kernel tells each one (the tracepoint `sock:inet_sock_set_state`).
    Exact,
    /// The sockets are looked at again and again. What lies between two looks is not seen: a handshake, or a whole connection.
    Sampled {
        /// How long from one look to the next.
        interval: Duration,
        /// Why it is not exact, and what would make it so.
        why: String,
    },
}

/// Changes of the states of sockets, as they happen.
#[derive(Debug)]
pub struct Changes {
    source: Source,
    fd: OwnedFd,
}

impl Changes {
    /// How often sockets are looked at, where that must be, unless said otherwise.
    pub const INTERVAL: Duration = Duration::from_millis(200);

    /// Watches for changes of sockets with these addresses, to or from these states: exactly where that is allowed, or else by
    /// looking at all of them every `interval`.
    pub fn open(filter: &Filter, interval: Duration) -> io::Result<Changes> {
        let _ = (filter, interval);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Where they come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The next one; none if the time is over. Without a time, waits for one.
    pub fn next(&mut self, timeout: Option<Duration>) -> io::Result<Option<Event>> {
        let _ = timeout;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Readable when [`next`](Changes::next) with a time of zero may have something to tell.
impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
