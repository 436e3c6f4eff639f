//! [`TcpListener`]: std's, with deadlines and `close`.

#![deny(unsafe_code)]

use std::io;
use std::iter::FusedIterator;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::socket::Handle;
use super::{ListenOptions, SocketAddr, TcpStream, ToSocketAddrs, is_closed, sys};
use crate::time::Instant;

/// A socket that listens for TCP connections.
///
/// ```no_run
/// use towpath::net::TcpListener;
///
/// let listener = TcpListener::bind(":8330")?;
/// loop {
///     let (stream, peer) = listener.accept()?;
///     drop(towpath::spawn(move || println!("{peer}: {stream:?}")));
/// }
/// # #[allow(unreachable_code)] Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener {
    socket: Handle,
}

/// Connections as they come; see [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

/// Connections as they come, with the listener in it; see [`TcpListener::into_incoming`].
#[derive(Debug)]
pub struct IntoIncoming {
    listener: TcpListener,
}

impl TcpListener {
    /// Binds a socket to an address and listens there. Of several addresses, the first that can be had.
    ///
    /// `":8330"` is every address of this machine, IPv4 and IPv6 on one socket, and port 0 is one that the system picks.
    /// The socket reuses an address in TIME-WAIT (SO_REUSEADDR) and shares it with no other listener: for that there is
    /// [`ListenOptions`]. Its backlog is the system's (`net.core.somaxconn`).
    ///
    /// # Errors
    /// `InvalidInput` for what is no address, or what the last address that was tried gave: `AddrInUse`, `AddrNotAvailable`,
    /// `PermissionDenied`, …; see bind(2).
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        ListenOptions::new().bind(addr)
    }

    pub(super) fn from_handle(socket: Handle) -> TcpListener {
        TcpListener { socket }
    }

    /// Waits for a connection and accepts it.
    ///
    /// A connection that has come to an end before it was accepted is passed over.
    ///
    /// # Errors
    /// With no descriptors or no memory left (EMFILE, ENFILE, ENOBUFS, ENOMEM) the connection stays queued and later calls
    /// may succeed: wait before the next, as [`Server`](super::Server) does. [`is_closed`] if the listener was closed,
    /// `TimedOut` past its deadline, `WouldBlock` only after [`set_nonblocking`](Self::set_nonblocking).
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, peer) = self.socket.accept()?;
        Ok((TcpStream::from_handle(socket), peer))
    }

    /// Waits until a connection is queued, and leaves it there.
    pub(super) fn wait_for_one(&self) -> io::Result<()> {
        self.socket.wait_for_one()
    }

    /// Accepts a connection if one is queued.
    pub(super) fn accept_queued(&self) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        match self.socket.accept_queued() {
            Ok((socket, peer)) => Ok(Some((TcpStream::from_handle(socket), peer))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether others may listen at its address.
    pub(super) fn reuses_port(&self) -> io::Result<bool> {
        sys::reuse_port(self.socket.open_fd()?)
    }

    /// Each connection as it comes: as calling [`accept`](Self::accept) in a loop, and ends once the listener is closed.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// The same, with the listener in the iterator.
    pub fn into_incoming(self) -> IntoIncoming {
        IntoIncoming { listener: self }
    }

    /// The address that the listener is bound to.
    ///
    /// # Errors
    /// [`is_closed`], or what getsockname(2) gave.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.socket.open_fd()?)
    }

    /// Another handle on the same socket; its options, deadline and end are shared.
    ///
    /// # Errors
    /// [`is_closed`].
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        self.socket.open_fd()?;
        Ok(TcpListener { socket: self.socket.clone() })
    }

    /// Closes the socket in all its clones. Whoever waits in `accept`, task or thread, gets an error that [`is_closed`]
    /// knows; connections that nobody has accepted are reset.
    ///
    /// # Errors
    /// [`is_closed`] if it was closed already.
    pub fn close(&self) -> io::Result<()> {
        self.socket.close()
    }

    /// Sets when `accept` gives up with `TimedOut`, those that wait now included; `None` for never.
    ///
    /// # Errors
    /// [`is_closed`].
    pub fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.socket.open_fd()?;
        self.socket.set_read_deadline(deadline);
        Ok(())
    }

    /// Sets the time to live of the packets that accepted connections send, in hops (ip(7), IP_TTL).
    ///
    /// # Errors
    /// [`is_closed`], or what setsockopt(2) gave.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        sys::set_ttl(self.socket.open_fd()?, ttl)
    }

    /// The time to live set by [`set_ttl`](Self::set_ttl), in hops.
    ///
    /// # Errors
    /// [`is_closed`], or what getsockopt(2) gave.
    pub fn ttl(&self) -> io::Result<u32> {
        sys::ttl(self.socket.open_fd()?)
    }

    /// The error that is pending on the socket, which this clears (socket(7), SO_ERROR).
    ///
    /// # Errors
    /// [`is_closed`], or what getsockopt(2) gave.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        sys::take_error(self.socket.open_fd()?)
    }

    /// With `true`, `accept` fails with `WouldBlock` where it would wait, in all clones.
    ///
    /// # Errors
    /// [`is_closed`].
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.open_fd()?;
        self.socket.set_nonblocking(nonblocking);
        Ok(())
    }

    /// The listener as one of std's, blocking unless it was set otherwise.
    ///
    /// # Errors
    /// `ResourceBusy` while clones are alive, and the socket then stays theirs; [`is_closed`].
    pub fn into_std(self) -> io::Result<std::net::TcpListener> {
        self.socket.into_fd().map(Into::into)
    }
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        next(self.listener)
    }
}

impl Iterator for IntoIncoming {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        next(&self.listener)
    }
}

fn next(listener: &TcpListener) -> Option<io::Result<TcpStream>> {
    match listener.accept() {
        Err(error) if is_closed(&error) => None,
        accepted => Some(accepted.map(|(stream, _)| stream)),
    }
}

impl FusedIterator for Incoming<'_> {}
impl FusedIterator for IntoIncoming {}

impl std::fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("TcpListener");
        if let Ok(addr) = self.local_addr() {
            debug.field("addr", &addr);
        }
        debug.field("fd", &self.as_raw_fd()).finish()
    }
}

impl AsFd for TcpListener {
    /// The descriptor, for options that this library has no method for. After a `close` it refers to nothing.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl From<std::net::TcpListener> for TcpListener {
    fn from(listener: std::net::TcpListener) -> TcpListener {
        OwnedFd::from(listener).into()
    }
}

impl From<OwnedFd> for TcpListener {
    fn from(fd: OwnedFd) -> TcpListener {
        TcpListener { socket: Handle::adopt(fd) }
    }
}

impl FromRawFd for TcpListener {
    #[allow(unsafe_code, reason = "the trait asks for it, and the caller's promise is passed on")]
    unsafe fn from_raw_fd(fd: RawFd) -> TcpListener {
        // SAFETY: the caller's promise.
        unsafe { OwnedFd::from_raw_fd(fd) }.into()
    }
}

impl TryFrom<TcpListener> for std::net::TcpListener {
    type Error = io::Error;

    fn try_from(listener: TcpListener) -> io::Result<std::net::TcpListener> {
        listener.into_std()
    }
}

impl TryFrom<TcpListener> for OwnedFd {
    type Error = io::Error;

    fn try_from(listener: TcpListener) -> io::Result<OwnedFd> {
        listener.socket.into_fd()
    }
}
