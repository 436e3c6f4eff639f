//! The system calls under the sockets, one function each: no waiting, no policy. Together with the poller they are what a
//! simulated network takes the place of.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketFlags,
    SocketType, ipproto, sockopt,
};

use super::addr::canonical;

const BIRTH: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// A TCP socket of the family of `addr`.
pub(super) fn socket(addr: &SocketAddr) -> io::Result<OwnedFd> {
    let family = match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    Ok(rustix::net::socket_with(family, SocketType::STREAM, BIRTH, Some(ipproto::TCP))?)
}

pub(super) fn bind(fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
    Ok(rustix::net::bind(fd, addr)?)
}

/// The kernel cuts the backlog down to its own limit, `net.core.somaxconn`.
pub(super) fn listen(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::listen(fd, i32::MAX)?)
}

pub(super) fn connect(fd: BorrowedFd<'_>, addr: &SocketAddr) -> Result<(), Errno> {
    rustix::net::connect(fd, addr)
}

pub(super) fn accept(fd: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddr>), Errno> {
    let (fd, peer) = rustix::net::acceptfrom_with(fd, BIRTH)?;
    Ok((fd, peer.and_then(internet)))
}

/// Whether `accept` would find something, be it an error.
pub(super) fn has_queued(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now))? > 0)
}

pub(super) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, Errno> {
    Ok(rustix::net::recv(fd, buf, RecvFlags::DONTWAIT)?.1)
}

pub(super) fn peek(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, Errno> {
    Ok(rustix::net::recv(fd, buf, RecvFlags::DONTWAIT | RecvFlags::PEEK)?.1)
}

pub(super) fn recv_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> Result<usize, Errno> {
    Ok(rustix::net::recvmsg(fd, bufs, &mut RecvAncillaryBuffer::default(), RecvFlags::DONTWAIT)?.bytes)
}

pub(super) fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(fd, buf, SEND)
}

pub(super) fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> Result<usize, Errno> {
    rustix::net::sendmsg(fd, bufs, &mut SendAncillaryBuffer::default(), SEND)
}

/// IOV_MAX, the most buffers of one call.
pub(super) const MAX_VECTORED: usize = 1024;

pub(super) fn shutdown(fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => rustix::net::Shutdown::Read,
        Shutdown::Write => rustix::net::Shutdown::Write,
        Shutdown::Both => rustix::net::Shutdown::Both,
    };
    Ok(rustix::net::shutdown(fd, how)?)
}

pub(super) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    internet(rustix::net::getsockname(fd)?).ok_or_else(not_internet)
}

pub(super) fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    rustix::net::getpeername(fd)?.and_then(internet).ok_or_else(not_internet)
}

fn internet(addr: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(addr).ok().map(canonical)
}

fn not_internet() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the socket's address is not an internet address")
}

/// What the kernel knows a socket by. What it has no answer to is `None`: a listener has no peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
    /// SO_COOKIE, socket(7).
    pub(crate) cookie: Option<u64>,
}

/// Asks who is at either end of what has this number at the moment, which may be something else a moment later.
pub(crate) fn ends(number: RawFd) -> Ends {
    if number < 0 {
        return Ends::default();
    }
    // SAFETY: the calls only ask. Whatever the number means by now, and if it means nothing, nobody is harmed by that.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    Ends { local: local_addr(fd).ok(), peer: peer_addr(fd).ok(), cookie: sockopt::socket_cookie(fd).ok() }
}

/// The error that is pending on the socket, which this clears.
pub(super) fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    Ok(sockopt::socket_error(fd)?.err().map(io::Error::from))
}

pub(super) fn is_tcp(fd: BorrowedFd<'_>) -> bool {
    sockopt::socket_protocol(fd).is_ok_and(|protocol| protocol == Some(ipproto::TCP))
}

pub(super) fn set_reuse_address(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_socket_reuseaddr(fd, true)?)
}

pub(super) fn set_reuse_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_socket_reuseport(fd, true)?)
}

pub(super) fn reuse_port(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_reuseport(fd)?)
}

/// Whether an IPv6 socket takes IPv4 peers as well.
pub(super) fn set_dual_stack(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sockopt::set_ipv6_v6only(fd, false)?)
}

pub(super) fn set_nodelay(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    Ok(sockopt::set_tcp_nodelay(fd, on)?)
}

pub(super) fn nodelay(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::tcp_nodelay(fd)?)
}

pub(super) fn set_ttl(fd: BorrowedFd<'_>, ttl: u32) -> io::Result<()> {
    Ok(sockopt::set_ip_ttl(fd, ttl)?)
}

pub(super) fn ttl(fd: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(sockopt::ip_ttl(fd)?)
}

pub(super) fn set_linger(fd: BorrowedFd<'_>, linger: Option<Duration>) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(fd, linger)?)
}

pub(super) fn linger(fd: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    Ok(sockopt::socket_linger(fd)?)
}

pub(super) fn is_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

pub(super) fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, on)?)
}

/// Closes what the descriptor refers to and keeps its number, which then refers to nothing that can be read or written:
/// every call on it answers EBADF.
///
/// Whoever still holds the number, as a handle or as a `BorrowedFd`, can do no harm to a later file of the same number.
pub(super) fn close_keeping_number(fd: BorrowedFd<'_>) -> io::Result<()> {
    let nothing = nothing()?;
    loop {
        // SAFETY: the number belongs to whoever lent us `fd` and goes on doing so; what it refers to changes as a whole.
        let result = unsafe { libc::dup3(nothing.as_fd().as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // EBUSY: dup2(2) met another thread's open(2) half way.
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) {
            return Err(error);
        }
    }
}

/// A descriptor that nothing can be read from or written to. Opened with the first socket, while there are descriptors.
pub(super) fn nothing() -> io::Result<&'static OwnedFd> {
    static NOTHING: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(nothing) = NOTHING.get() {
        return Ok(nothing);
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(NOTHING.get_or_init(|| root))
}
