//! [`TcpStream`]: std's, with deadlines, `close`, and halves of its own.

#![deny(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::dialer::{Failure, connect_to};
use super::socket::{Companion, Handle, WeakHandle};
use super::{Dialer, OwnedReadHalf, OwnedWriteHalf, Shutdown, SocketAddr, ToSocketAddrs, halves, sys};
use crate::time::{Duration, Instant};

/// A TCP connection.
///
/// Reading and writing go through `Read` and `Write`, of which there are implementations for `&TcpStream` as well: any
/// number of tasks and threads may use one connection at once. Dropping the last handle closes it.
///
/// ```
/// use std::io::{Read, Write};
/// use towpath::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let addr = listener.local_addr()?;
/// let server = towpath::spawn(move || -> std::io::Result<()> {
///     let (mut stream, _) = listener.accept()?;
///     stream.write_all(b"hello")
/// });
/// let mut text = String::new();
/// TcpStream::connect(addr)?.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// server.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpStream {
    socket: Handle,
}

impl TcpStream {
    pub(super) fn from_handle(socket: Handle) -> TcpStream {
        TcpStream { socket }
    }

    /// Connects to an address. Of several, the first that answers: both families are tried, the second 250 ms after the
    /// first or as soon as that has failed (RFC 8305).
    ///
    /// # Errors
    /// `InvalidInput` for what is no address; what the lookup of a name gave; what the first address of the first family
    /// gave: `ConnectionRefused`, `HostUnreachable`, …; see connect(2). [`Dialer`] says what was tried as well.
    pub fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        Dialer::plain().connect(addr).map_err(Failure::into_source)
    }

    /// Connects to one address, and gives up after `timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); `TimedOut` when the time is over, `InvalidInput` if it is zero.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            return Err(zero_timeout());
        }
        connect_to(addr, Some(Instant::after(timeout)))
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed), or what getpeername(2) gave: `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        sys::peer_addr(self.socket.open_fd()?)
    }

    /// The address of this end.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed), or what getsockname(2) gave.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        sys::local_addr(self.socket.open_fd()?)
    }

    /// Ends one direction or both. After `Write` the peer reads end of file, and later writes here fail with `BrokenPipe`;
    /// after `Read` whoever waits to read here gets `Ok(0)`.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed), or what shutdown(2) gave: `NotConnected`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    /// Another handle on the same connection; its options, deadlines and end are shared.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed).
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        self.socket.open_fd()?;
        Ok(TcpStream { socket: self.socket.clone() })
    }

    /// Closes the connection in all its clones. Whoever waits in a call, task or thread, gets an error that
    /// [`is_closed`](super::is_closed) knows, as do later calls.
    ///
    /// Data that was received and not read makes Linux send a reset in place of a FIN: read to the end, or shut down
    /// `Write` and wait for the peer, if it is to have the last bytes.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed) if it was closed already; what close(2) gave.
    pub fn close(&self) -> io::Result<()> {
        self.socket.close()
    }

    /// The two directions as handles of their own, for two tasks to own.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        halves::split(self)
    }

    /// Reads without taking: the next read finds the same bytes again.
    ///
    /// # Errors
    /// As a read.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.peek(buf)
    }

    /// Sets how long each later read may wait before it fails with `TimedOut`; `None` for as long as it takes.
    ///
    /// # Errors
    /// `InvalidInput` for zero; [`is_closed`](super::is_closed).
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.check_timeout(timeout)?;
        self.socket.read.set_timeout(timeout);
        Ok(())
    }

    /// Sets how long each later write may wait before it fails with `TimedOut`; `None` for as long as it takes.
    ///
    /// # Errors
    /// `InvalidInput` for zero; [`is_closed`](super::is_closed).
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.check_timeout(timeout)?;
        self.socket.write.set_timeout(timeout);
        Ok(())
    }

    fn check_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.open_fd()?;
        match timeout {
            Some(Duration::ZERO) => Err(zero_timeout()),
            _ => Ok(()),
        }
    }

    /// How long a read may wait.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed).
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.open_fd()?;
        Ok(self.socket.read.timeout())
    }

    /// How long a write may wait.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed).
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.open_fd()?;
        Ok(self.socket.write.timeout())
    }

    /// Sets when reads and writes fail with `TimedOut`; see [`set_read_deadline`](Self::set_read_deadline).
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed).
    pub fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.set_read_deadline(deadline)?;
        self.set_write_deadline(deadline)
    }

    /// Sets when reads fail with `TimedOut`: all from then on, until it is changed, even if data waits, and also those that
    /// wait now. It can be moved both ways at any time, by any task. Nothing is lost by it: with the deadline cleared, the
    /// next read finds what came meanwhile.
    ///
    /// ```
    /// # use std::io::{ErrorKind, Read};
    /// # use towpath::{net::{TcpListener, TcpStream}, time::Instant};
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let mut stream = TcpStream::connect(listener.local_addr()?)?;
    /// stream.set_read_deadline(Some(Instant::now()))?;
    /// assert_eq!(stream.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::TimedOut);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed).
    pub fn set_read_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.socket.open_fd()?;
        self.socket.set_read_deadline(deadline);
        Ok(())
    }

    /// Sets when writes fail with `TimedOut`; see [`set_read_deadline`](Self::set_read_deadline).
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed).
    pub fn set_write_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.socket.open_fd()?;
        self.socket.set_write_deadline(deadline);
        Ok(())
    }

    /// With `true`, small writes are sent at once and not held back for an acknowledgement (tcp(7), TCP_NODELAY).
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed), or what setsockopt(2) gave.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        sys::set_nodelay(self.socket.open_fd()?, nodelay)
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed), or what getsockopt(2) gave.
    pub fn nodelay(&self) -> io::Result<bool> {
        sys::nodelay(self.socket.open_fd()?)
    }

    /// Sets the time to live of the packets that this connection sends, in hops (ip(7), IP_TTL).
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed), or what setsockopt(2) gave.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        sys::set_ttl(self.socket.open_fd()?, ttl)
    }

    /// The time to live of the packets that this connection sends, in hops.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed), or what getsockopt(2) gave.
    pub fn ttl(&self) -> io::Result<u32> {
        sys::ttl(self.socket.open_fd()?)
    }

    /// Sets what closing does with data that the peer has not acknowledged (socket(7), SO_LINGER). `None`: it is sent in
    /// the background. Zero: it is thrown away, and the peer gets a reset. Longer: it is sent in the background, for that
    /// long at most, in whole seconds; the closing call does not wait for it.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed), or what setsockopt(2) gave.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        self.socket.set_linger(linger)
    }

    /// What closing does with data that the peer has not acknowledged.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed), or what getsockopt(2) gave.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        sys::linger(self.socket.open_fd()?)
    }

    /// The error that is pending on the socket, which this clears (socket(7), SO_ERROR).
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed), or what getsockopt(2) gave.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        sys::take_error(self.socket.open_fd()?)
    }

    /// With `true`, reads and writes fail with `WouldBlock` where they would wait, in all clones.
    ///
    /// # Errors
    /// [`is_closed`](super::is_closed).
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.open_fd()?;
        self.socket.set_nonblocking(nonblocking);
        Ok(())
    }

    /// The connection as one of std's, blocking unless it was set otherwise. Timeouts and deadlines stay behind.
    ///
    /// # Errors
    /// `ResourceBusy` while clones are alive, and the connection then stays theirs; [`is_closed`](super::is_closed).
    pub fn into_std(self) -> io::Result<std::net::TcpStream> {
        self.socket.into_fd().map(Into::into)
    }

    /// The connection, for whoever must not keep it open.
    pub(super) fn downgrade(&self) -> WeakHandle {
        self.socket.downgrade()
    }

    /// Has `companion` dropped when the connection goes.
    pub(super) fn accompany(&self, companion: Companion) {
        self.socket.accompany(companion);
    }
}

fn zero_timeout() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "a timeout of zero is none: it must be longer, or `None`")
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.socket.read_vectored(bufs)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket.write_vectored(bufs)
    }

    /// Nothing is buffered on this side of the kernel.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Writes all of it, and lets no other write in between.
    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.socket.write_all(buf)
    }

    /// Writes the whole text in one go, and lets no other write in between.
    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        match text.as_str() {
            Some(text) => self.socket.write_all(text.as_bytes()),
            None => self.socket.write_all(text.to_string().as_bytes()),
        }
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        (&*self).write_all(buf)
    }

    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        (&*self).write_fmt(text)
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpStream");
        if let Ok(addr) = self.local_addr() {
            debug.field("addr", &addr);
        }
        if let Ok(peer) = self.peer_addr() {
            debug.field("peer", &peer);
        }
        debug.field("fd", &self.as_raw_fd()).finish()
    }
}

impl AsFd for TcpStream {
    /// The descriptor, for options that this library has no method for. After a `close` it refers to nothing.
    ///
    /// Do not take urgent data through it (recv(2), MSG_OOB) while others read: the kernel then no longer tells that there
    /// is more behind it, and a read may wait although there is. Have it among the rest instead (SO_OOBINLINE).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl From<std::net::TcpStream> for TcpStream {
    fn from(stream: std::net::TcpStream) -> TcpStream {
        OwnedFd::from(stream).into()
    }
}

impl From<OwnedFd> for TcpStream {
    fn from(fd: OwnedFd) -> TcpStream {
        TcpStream { socket: Handle::adopt(fd) }
    }
}

impl FromRawFd for TcpStream {
    #[allow(unsafe_code, reason = "the trait asks for it, and the caller's promise is passed on")]
    unsafe fn from_raw_fd(fd: RawFd) -> TcpStream {
        // SAFETY: the caller's promise.
        unsafe { OwnedFd::from_raw_fd(fd) }.into()
    }
}

impl TryFrom<TcpStream> for std::net::TcpStream {
    type Error = io::Error;

    fn try_from(stream: TcpStream) -> io::Result<std::net::TcpStream> {
        stream.into_std()
    }
}

impl TryFrom<TcpStream> for OwnedFd {
    type Error = io::Error;

    fn try_from(stream: TcpStream) -> io::Result<OwnedFd> {
        stream.socket.into_fd()
    }
}
