//! The poller of the operating system, through mio: epoll on Linux. Other Unixes come by it too and are untested.
//!
//! A descriptor is registered once, edge-triggered, for both directions and urgent data; nothing is ever re-armed.
//! The waker is an eventfd that is written and never read: each write is an edge of its own.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest};

use super::{Event, Ready, Token};

/// At most this many reports in one wait: as many tasks as a worker runs before it looks at the clock again.
const BATCH: usize = 256;

/// The waker's own token, which no registration gets: its generation is even, and those of registrations are odd.
const WAKE: mio::Token = mio::Token(0);

pub(crate) struct Os {
    poll: mio::Poll,
    events: Events,
}

#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<mio::Waker>);

impl Os {
    pub(crate) fn new() -> io::Result<(Os, Waker)> {
        let poll = mio::Poll::new()?;
        let waker = Waker(Arc::new(mio::Waker::new(poll.registry(), WAKE)?));
        Ok((Os { poll, events: Events::with_capacity(BATCH) }, waker))
    }

    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let interest = interest | Interest::PRIORITY;
        self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), pack(token), interest)
    }

    pub(crate) fn remove(&mut self, fd: BorrowedFd<'_>) {
        // It fails only where there is nothing to remove, and that is what was asked for.
        _ = self.poll.registry().deregister(&mut SourceFd(&fd.as_raw_fd()));
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e),
        }
        let reports = self.events.iter().filter(|event| event.token() != WAKE);
        events.extend(reports.map(|event| Event { token: unpack(event.token()), ready: ready(event) }));
        Ok(())
    }
}

impl Waker {
    pub(crate) fn wake(&self) {
        // An eventfd of ours can be written as long as it is open, and it is open as long as this waker lives.
        self.0.wake().expect("writing to the eventfd of a poller");
    }
}

impl std::fmt::Debug for Os {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Os").finish_non_exhaustive()
    }
}

fn pack(token: Token) -> mio::Token {
    const { assert!(usize::BITS == 64, "a token fills 64 bits") };
    mio::Token((token.generation as usize) << 32 | token.index as usize)
}

fn unpack(token: mio::Token) -> Token {
    Token { index: token.0 as u32, generation: (token.0 >> 32) as u32 }
}

fn ready(event: &mio::event::Event) -> Ready {
    let mut ready = Ready::empty();
    ready.set(Ready::READABLE, event.is_readable());
    ready.set(Ready::WRITABLE, event.is_writable());
    ready.set(Ready::READ_CLOSED, event.is_read_closed());
    ready.set(Ready::HANGUP, event.is_read_closed() && event.is_write_closed());
    ready.set(Ready::ERROR, event.is_error());
    ready.set(Ready::URGENT, event.is_priority());
    ready
}
