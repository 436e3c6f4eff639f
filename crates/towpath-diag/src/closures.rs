//! What connections had come to when they were closed.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::{Filter, Socket};

/// What there is to tell of sockets that were closed.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Closed {
    /// The kernel has done away with this one.
    Socket {
        /// When that was told, on the clock of [`monotonic`](crate::monotonic).
        at: Duration,
        /// As it was at the end, with [`info`](Socket::info). Nothing else that is told on request.
        socket: Box<Socket>,
    },
    /// Some are not told, since they came faster than they were taken (ENOBUFS of netlink(7)).
    Lost,
}

impl Closed {
    /// When it was told; not known of what is lost.
    pub fn at(&self) -> Option<Duration> {
        match self {
            Closed::Socket { at, .. } => Some(*at),
            Closed::Lost => None,
        }
    }
}

/// Sockets as they are closed, each with its last [`TcpInfo`](crate::TcpInfo).
#[derive(Debug)]
pub struct Closures {
    fd: OwnedFd,
}

impl Closures {
    /// Listens for them, of the network namespace that the caller is in.
    ///
    /// # Errors
    /// `PermissionDenied` without `CAP_NET_ADMIN` in the namespace's owner.
    pub fn open(filter: &Filter) -> io::Result<Closures> {
        let _ = filter;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The next one; none if the time is over. Without a time, waits for one.
    pub fn next(&mut self, timeout: Option<Duration>) -> io::Result<Option<Closed>> {
        let _ = timeout;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Readable when [`next`](Closures::next) with a time of zero may have something to tell.
impl AsFd for Closures {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
