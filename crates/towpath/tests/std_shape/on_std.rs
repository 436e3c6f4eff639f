//! `std::net` with threads: what it has in place of what differs in ours.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

pub(crate) use std::net;
pub(crate) use std::thread::spawn;

use crate::common;

#[path = "body.rs"]
mod body;

/// Runs a test of the body.
pub(crate) fn run(body: impl Fn() + Send + Sync + 'static) {
    let _watchdog = common::watchdog();
    body();
}

/// What a read or a write past its timeout fails with.
pub(crate) const LATE: ErrorKind = ErrorKind::WouldBlock;

/// Which of several addresses' errors `connect` reports.
pub(crate) fn reported(_first: ErrorKind, last: ErrorKind) -> ErrorKind {
    last
}

/// How the address of an IPv4 peer is shown by a socket for both families.
pub(crate) fn shown(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        SocketAddr::V6(_) => peer,
    }
}

/// Gives a descriptor away: `From` for std's types.
pub(crate) fn into_fd(socket: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    Ok(socket.into())
}

/// Waits until a thread is in that operation on the socket, by whichever of its clones' descriptors.
pub(crate) fn until_waiting(operation: &str, socket: &impl AsFd) {
    let number = match operation {
        "read" => libc::SYS_recvfrom,
        "accept" => libc::SYS_accept4,
        _ => unreachable!("the body waits for no {operation}"),
    };
    let inode = |fd: RawFd| fs::read_link(format!("/proc/self/fd/{fd}")).ok();
    let awaited = inode(socket.as_fd().as_raw_fd());
    // proc(5): the call's number and its arguments.
    let call = format!("{number} 0x");
    let is_in_call = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("syscall")).ok()?;
        let (fd, _) = text.strip_prefix(&call)?.split_once(' ')?;
        RawFd::from_str_radix(fd, 16).ok().filter(|&fd| inode(fd) == awaited)
    };
    let threads = || fs::read_dir("/proc/self/task").unwrap();
    common::until(|| threads().flatten().any(|thread| is_in_call(thread).is_some()));
}
