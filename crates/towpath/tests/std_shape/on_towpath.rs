//! `towpath::net` with tasks on each poller, and with plain threads: what it has in place of what differs in std.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

pub(crate) use towpath::net;
pub(crate) use towpath::spawn;

pub(crate) use crate::common::{on_tasks_and_threads as run, until_waiting};

#[path = "body.rs"]
mod body;

/// What a read or a write past its timeout fails with.
pub(crate) const LATE: ErrorKind = ErrorKind::TimedOut;

/// Which of several addresses' errors `connect` reports.
pub(crate) fn reported(first: ErrorKind, _last: ErrorKind) -> ErrorKind {
    first
}

/// How the address of an IPv4 peer is shown by a socket for both families.
pub(crate) fn shown(peer: SocketAddr) -> SocketAddr {
    peer
}

/// Gives a descriptor away: `TryFrom` for ours, which refuse while clones are alive.
pub(crate) fn into_fd(socket: impl TryInto<OwnedFd, Error = io::Error>) -> io::Result<OwnedFd> {
    socket.try_into()
}
