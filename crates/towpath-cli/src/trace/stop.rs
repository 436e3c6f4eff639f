//! The order to stop, for a thread that waits for packets or for a pipe: a flag, and a descriptor that becomes readable
//! with it, so that nothing need be looked at again and again.

#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// Clones are one order.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<Order>);

#[derive(Debug)]
struct Order {
    given: AtomicBool,
    /// Readable from then on.
    bell: OwnedFd,
}

impl Stop {
    /// Not given yet.
    pub(crate) fn new() -> io::Result<Stop> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stop(Arc::new(Order { given: AtomicBool::new(false), bell })))
    }

    /// Gives the order.
    pub(crate) fn raise(&self) {
        self.0.given.store(true, Ordering::Release);
        // It can only fail when it was given very many times before.
        let _ = rustix::io::write(&self.0.bell, &1_u64.to_ne_bytes());
    }

    /// Whether it was given.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.given.load(Ordering::Acquire)
    }

    /// Waits until `fd` is readable, at most for `timeout`; false if the order came.
    pub(crate) fn wait_readable(&self, fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
        Stop::poll(
            &mut [PollFd::new(&self.0.bell, PollFlags::IN), PollFd::from_borrowed_fd(fd, PollFlags::IN)],
            timeout,
        )
    }

    /// Waits for so long; false if the order came.
    pub(crate) fn wait(&self, time: Duration) -> io::Result<bool> {
        Stop::poll(&mut [PollFd::new(&self.0.bell, PollFlags::IN)], Some(time))
    }

    /// Waits for one of these, of which the bell is the first.
    fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        loop {
            match poll(fds, timeout.as_ref()) {
                Ok(_) => return Ok(fds[0].revents().is_empty()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Reads from a pipe until the order comes; then it fails.
#[derive(Debug)]
pub(super) struct Stoppable<R> {
    pub(super) input: R,
    pub(super) stop: Stop,
}

impl<R: Read + AsFd> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.stop.wait_readable(self.input.as_fd(), None)? {
            return Err(io::Error::other("stopped"));
        }
        self.input.read(buffer)
    }
}
