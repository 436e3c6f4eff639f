//! A socket: the one place that waits for the network. What is public in this folder is a thin cover over it.
//!
//! ```text
//! Handle ──▶ Socket { fd, read, write, turn, home }
//! Handle ──┘            ▲
//!                       └── the worker whose poller reports on it, its home
//! ```
//!
//! Every call goes through [`Direction::operate`](super::readiness::Direction::operate) of its direction. The socket
//! registers when somebody first has to wait, with the poller of that task's worker, and that worker is its home from then
//! on (`home.rs`). Waiters elsewhere (tasks of other workers, plain threads) are in the same queues and are unparked across
//! threads.
//!
//! `close` ends every call and closes the connection at once; the descriptor's *number* is given back when the last handle
//! goes, so no handle can ever reach somebody else's file.

use std::fmt::Debug;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::io::Errno;

use super::error::closed;
use super::home::Home;
use super::readiness::{Direction, Mode, Progress};
use super::sys;
use crate::runtime::blocking;
use crate::runtime::park;
use crate::runtime::wait::{Op, Wait};
use crate::shim::{Mutex, lock};
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Socket {
    /// The descriptor, [`GONE`] once the last handle has gone. Others than handles use it under the lock of `home` and only
    /// while that is not closed.
    fd: AtomicI32,
    pub(super) read: Direction,
    pub(super) write: Direction,
    /// Whose turn it is to write: ready while nobody writes. It keeps the bytes of one call together.
    turn: Direction,
    /// A short read means that the socket is empty. True of TCP, unless data is urgent; not of Unix sockets, for one.
    drains: bool,
    /// The user's own mode; the descriptor itself never blocks.
    nonblocking: AtomicBool,
    /// Closing may block, so it is not done here (socket(7), SO_LINGER).
    lingers: AtomicBool,
    /// Handles that are alive.
    handles: AtomicU32,
    pub(super) home: Home,
    /// What goes when the connection goes. Boxed twice, for few sockets have one.
    companion: Mutex<Option<Box<Companion>>>,
}

// As much as an idle connection costs beside its task and its place with the poller: see docs/performance.md.
#[cfg(all(target_pointer_width = "64", not(towpath_loom)))]
const _: () = assert!(size_of::<Socket>() <= 216);

/// Handles that one socket may have.
const MOST_HANDLES: u32 = u32::MAX / 2;

const GONE: RawFd = -1;

/// Where sockets are closed that linger: each may take as long as its SO_LINGER says.
static LINGERING: blocking::Pool = blocking::Pool::new("towpath-linger", 64);

/// Dropped together with a socket. As std's sockets, ours may cross a `catch_unwind`.
pub(super) type Companion = Box<dyn Debug + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// A counted handle on a socket. When the last one goes, the socket closes.
#[derive(Debug)]
pub(super) struct Handle(Arc<Socket>);

impl Handle {
    /// A socket of our own making: non-blocking, and TCP.
    pub(super) fn new(fd: OwnedFd) -> Handle {
        Handle::with(fd, true, false, false)
    }

    /// A socket that was made elsewhere: what it is and how it is set is asked of it.
    pub(super) fn adopt(fd: OwnedFd) -> Handle {
        let nonblocking = sys::is_nonblocking(fd.as_fd()).unwrap_or(false);
        if !nonblocking {
            // Where this fails, MSG_DONTWAIT still keeps reads and writes from blocking.
            _ = sys::set_nonblocking(fd.as_fd(), true);
        }
        let lingers = sys::linger(fd.as_fd()).is_ok_and(|linger| linger.is_some_and(|time| !time.is_zero()));
        let drains = sys::is_tcp(fd.as_fd());
        Handle::with(fd, drains, nonblocking, lingers)
    }

    fn with(fd: OwnedFd, drains: bool, nonblocking: bool, lingers: bool) -> Handle {
        _ = sys::nothing(); // tried again when it is needed
        Handle(Arc::new(Socket {
            fd: AtomicI32::new(fd.into_raw_fd()),
            read: Direction::new(),
            write: Direction::new(),
            turn: Direction::new(),
            drains,
            nonblocking: AtomicBool::new(nonblocking),
            lingers: AtomicBool::new(lingers),
            handles: AtomicU32::new(1),
            home: Home::default(),
            companion: Mutex::new(None),
        }))
    }

    pub(super) fn downgrade(&self) -> WeakHandle {
        WeakHandle(Arc::downgrade(&self.0))
    }

    /// Gives up the socket, in the mode that the user had set, if this is its only handle.
    pub(super) fn into_fd(self) -> io::Result<OwnedFd> {
        if self.read.is_closed() {
            return Err(closed());
        }
        let shared = || {
            let what = "a socket with clones cannot be given away: drop them first";
            io::Error::new(io::ErrorKind::ResourceBusy, what)
        };
        if self.handles.load(Ordering::Acquire) > 1 {
            return Err(shared());
        }
        self.detach()?;
        sys::set_nonblocking(self.fd(), self.nonblocking.load(Ordering::Relaxed))?;
        // From here on nobody can make another handle.
        if self.handles.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Err(shared());
        }
        self.let_companion_go();
        match (self.take_fd(), self.read.is_closed()) {
            (Some(fd), false) => Ok(fd),
            _ => Err(closed()),
        }
    }
}

/// A socket that may have gone.
#[derive(Clone, Debug)]
pub(super) struct WeakHandle(Weak<Socket>);

impl WeakHandle {
    pub(super) fn upgrade(&self) -> Option<Handle> {
        let socket = self.0.upgrade()?;
        let one_more = |handles: u32| (handles > 0).then_some(handles + 1);
        socket.handles.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Handle(socket))
    }
}

impl Clone for Handle {
    fn clone(&self) -> Handle {
        self.another_handle()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // `into_fd` leaves none. Otherwise, AcqRel: what others did with theirs comes before the end.
        let one_less = |handles: u32| handles.checked_sub(1);
        if self.handles.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_less) == Ok(1) {
            self.hang_up();
        }
    }
}

impl Deref for Handle {
    type Target = Arc<Socket>;

    fn deref(&self) -> &Arc<Socket> {
        &self.0
    }
}

impl Socket {
    /// For a caller that has one.
    fn another_handle(self: &Arc<Self>) -> Handle {
        if self.handles.fetch_add(1, Ordering::Relaxed) > MOST_HANDLES {
            process::abort(); // as std's Arc: a program that leaks two billion of them is beyond help
        }
        Handle(self.clone())
    }

    /// Has `companion` dropped with the socket. Once.
    pub(super) fn accompany(&self, companion: Companion) {
        let before = lock(&self.companion).replace(Box::new(companion));
        assert!(before.is_none(), "a socket has one companion");
    }

    fn let_companion_go(&self) {
        let companion = lock(&self.companion).take();
        drop(companion);
    }

    #[inline]
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        let fd = self.fd.load(Ordering::Relaxed);
        debug_assert_ne!(fd, GONE, "a socket is used through its handles");
        // SAFETY: whoever calls this has a handle, or the lock of an open `home`: the descriptor is there and stays.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    fn take_fd(&self) -> Option<OwnedFd> {
        match self.fd.swap(GONE, Ordering::Relaxed) {
            GONE => None,
            // SAFETY: it was ours alone, and from here on it is the caller's.
            fd => Some(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    }

    /// The descriptor, unless the socket is closed.
    pub(super) fn open_fd(&self) -> io::Result<BorrowedFd<'_>> {
        match self.read.is_closed() {
            false => Ok(self.fd()),
            true => Err(closed()),
        }
    }

    #[inline]
    fn operate<T>(
        self: &Arc<Self>,
        direction: &Direction,
        op: Op,
        limit: Option<Instant>,
        mut attempt: impl FnMut(BorrowedFd<'_>) -> Result<Progress<T>, Errno>,
    ) -> io::Result<T> {
        direction.operate(self.wait(op), self.mode(), limit, move || self.register(op), || attempt(self.fd()))
    }

    #[inline]
    pub(super) fn wait(&self, op: Op) -> Wait<'static> {
        Wait::on_descriptor(op, self.fd().as_raw_fd())
    }

    #[inline]
    fn mode(&self) -> Mode {
        match self.nonblocking.load(Ordering::Relaxed) {
            false => Mode::Wait,
            true => Mode::Fail,
        }
    }

    pub(super) fn read(self: &Arc<Self>, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len();
        self.receive(len, |fd| sys::recv(fd, buf))
    }

    pub(super) fn read_vectored(self: &Arc<Self>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let count = bufs.len().min(sys::MAX_VECTORED);
        let bufs = &mut bufs[..count];
        let len = bufs.iter().map(|buf| buf.len()).sum();
        self.receive(len, |fd| sys::recv_vectored(fd, bufs))
    }

    fn receive(
        self: &Arc<Self>,
        len: usize,
        mut recv: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> io::Result<usize> {
        if len == 0 {
            return Ok(0);
        }
        let drains = self.drains;
        let received = self.operate(&self.read, Op::Read, None, |fd| match recv(fd)? {
            n if drains && 0 < n && n < len => Ok(Progress::Drained(n)),
            n => Ok(Progress::Done(n)),
        });
        park::spend();
        received
    }

    /// Reads without taking: it never tells that the socket is empty.
    pub(super) fn peek(self: &Arc<Self>, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let peeked = self.operate(&self.read, Op::Read, None, |fd| sys::peek(fd, buf).map(Progress::Done));
        park::spend();
        peeked
    }

    pub(super) fn write(self: &Arc<Self>, buf: &[u8]) -> io::Result<usize> {
        self.in_turn(|| self.send(|fd| sys::send(fd, buf)))
    }

    pub(super) fn write_vectored(self: &Arc<Self>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let bufs = &bufs[..bufs.len().min(sys::MAX_VECTORED)];
        self.in_turn(|| self.send(|fd| sys::send_vectored(fd, bufs)))
    }

    /// Writes all of `buf`, and lets no other write in between.
    pub(super) fn write_all(self: &Arc<Self>, mut buf: &[u8]) -> io::Result<()> {
        self.in_turn(|| {
            while !buf.is_empty() {
                match self.send(|fd| sys::send(fd, buf))? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    n => buf = &buf[n..],
                }
            }
            Ok(())
        })
    }

    /// Does `write` while nobody else writes. Others run only once the turn is over, or they would find it taken each time.
    fn in_turn<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let turn = self.take_turn()?;
        let written = write();
        drop(turn);
        park::spend();
        written
    }

    fn send(self: &Arc<Self>, mut send: impl FnMut(BorrowedFd<'_>) -> Result<usize, Errno>) -> io::Result<usize> {
        self.operate(&self.write, Op::Write, None, |fd| send(fd).map(Progress::Done))
    }

    #[inline]
    fn take_turn(&self) -> io::Result<Turn<'_>> {
        if !self.turn.take() {
            self.wait_for_turn()?;
        }
        Ok(Turn(&self.turn))
    }

    #[cold]
    fn wait_for_turn(&self) -> io::Result<()> {
        let limit = self.write.timeout().map(Instant::after);
        let take = || if self.turn.take() { Ok(Progress::Done(())) } else { Err(Errno::AGAIN) };
        self.turn.operate(self.wait(Op::WriteTurn), self.mode(), limit, || Ok(()), take)
    }

    pub(super) fn accept(self: &Arc<Self>) -> io::Result<(Handle, SocketAddr)> {
        self.accept_in(self.mode())
    }

    /// Accepts a connection if one is queued, else fails with WouldBlock.
    pub(super) fn accept_queued(self: &Arc<Self>) -> io::Result<(Handle, SocketAddr)> {
        self.accept_in(Mode::Fail)
    }

    /// Waits until a connection is queued, and leaves it there.
    pub(super) fn wait_for_one(self: &Arc<Self>) -> io::Result<()> {
        self.operate(&self.read, Op::Accept, None, |fd| match sys::has_queued(fd)? {
            true => Ok(Progress::Done(())),
            false => Err(Errno::AGAIN),
        })
    }

    #[inline]
    fn accept_in(self: &Arc<Self>, mode: Mode) -> io::Result<(Handle, SocketAddr)> {
        let attempt = || {
            loop {
                match sys::accept(self.fd()) {
                    Err(Errno::CONNABORTED | Errno::INTR) => {}
                    result => return result.map(Progress::Done),
                }
            }
        };
        let (fd, peer) = self.read.operate(self.wait(Op::Accept), mode, None, || self.register(Op::Accept), attempt)?;
        park::spend();
        // What the listener is, and how it lingers, its connections inherit.
        let handle = Handle::with(fd, self.drains, false, self.lingers.load(Ordering::Relaxed));
        // A peer that has gone by now leaves its address unknown to accept(2) on some systems; getpeername(2) knows no more.
        let peer = peer.map_or_else(|| sys::peer_addr(handle.fd()), Ok)?;
        Ok((handle, peer))
    }

    /// Connects, within `limit`.
    pub(super) fn connect(self: &Arc<Self>, addr: &SocketAddr, limit: Option<Instant>) -> io::Result<()> {
        match sys::connect(self.fd(), addr) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // SO_ERROR alone does not tell "connected" from "not yet".
        let attempt = || match sys::take_error(self.fd()) {
            Ok(None) => match sys::peer_addr(self.fd()) {
                Ok(_) => Ok(Progress::Done(())),
                Err(_) => Err(Errno::AGAIN),
            },
            Ok(Some(error)) | Err(error) => Err(errno(&error)),
        };
        self.write.operate(self.wait(Op::Connect), Mode::Wait, limit, || self.register(Op::Connect), attempt)
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        sys::shutdown(self.open_fd()?, how)
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    pub(super) fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        sys::set_linger(self.open_fd()?, linger)?;
        self.lingers.store(linger.is_some_and(|time| !time.is_zero()), Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.read.set_deadline(deadline);
    }

    pub(super) fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.turn.set_deadline(deadline);
        self.write.set_deadline(deadline);
    }

    /// Ends every call on the socket, waiting or to come, and closes the connection.
    pub(super) fn close(self: &Arc<Self>) -> io::Result<()> {
        if !self.read.close() {
            return Err(closed());
        }
        self.write.close();
        self.turn.close();
        let lingers = self.lingers.load(Ordering::Relaxed);
        let retired = self.retire(lingers);
        if lingers {
            let socket = self.another_handle(); // the number is not to be given back before
            return LINGERING.spawn(Box::new(move || {
                retired.wait();
                _ = socket.release();
            }));
        }
        self.release()
    }

    /// Closes the connection, and keeps the descriptor's number for the handles that are left.
    fn release(&self) -> io::Result<()> {
        // With no descriptor left to put in its place, ending both directions comes as near as can be.
        sys::close_keeping_number(self.fd()).or_else(|_| sys::shutdown(self.fd(), Shutdown::Both))
    }

    /// Closes the connection, for its last handle has gone.
    fn hang_up(&self) {
        let lingers = self.lingers.load(Ordering::Relaxed) && !self.read.is_closed();
        let retired = self.retire(lingers);
        self.let_companion_go();
        let fd = self.take_fd();
        if lingers {
            // If no thread can be had, the closure is dropped, and the descriptor closed, right here.
            _ = LINGERING.spawn(Box::new(move || {
                retired.wait();
                drop(fd);
            }));
        }
    }
}

/// The right to write: while it lives, nobody else does.
struct Turn<'a>(&'a Direction);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
