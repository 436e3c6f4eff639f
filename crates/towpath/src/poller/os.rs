//! The poller of the operating system: epoll(7).
//!
//! A descriptor is registered once, edge-triggered, for reading and urgent data, and at most once more, for writing as
//! well; nothing is ever re-armed. The waker is an eventfd that is written and never read: each write is an edge of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use super::{Event, Interest, Ready, Token};

/// At most this many reports in one wait: as many tasks as a worker runs before it looks at the clock again.
const BATCH: usize = 256;
/// epoll_wait(2) takes an `int` of milliseconds. A wait may end early.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The waker's own token, which no registration gets: its generation is even, and those of registrations are odd.
const WAKE: Token = Token { index: 0, generation: 0 };

pub(crate) struct Os {
    epoll: OwnedFd,
    /// What the last wait has brought and has not been taken yet.
    reports: Vec<epoll::Event>,
}

#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Os {
    pub(crate) fn new() -> io::Result<(Os, Waker)> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let waker = Waker(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        epoll::add(&epoll, &waker.0, pack(WAKE), EventFlags::IN | EventFlags::ET)?;
        Ok((Os { epoll, reports: Vec::with_capacity(BATCH) }, waker))
    }

    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, pack(token), flags(interest))?)
    }

    pub(crate) fn add_writing(&mut self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, pack(token), flags(Interest::Both))?)
    }

    pub(crate) fn remove(&mut self, fd: BorrowedFd<'_>) {
        // It fails only where there is nothing to remove, and that is what was asked for.
        _ = epoll::delete(&self.epoll, fd);
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| whole_millis(timeout.min(LONGEST)));
        match epoll::wait(&self.epoll, spare_capacity(&mut self.reports), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    #[inline]
    pub(crate) fn take(&mut self, mut report: impl FnMut(Event)) {
        for event in self.reports.drain(..) {
            let (token, flags) = (unpack(event.data), event.flags);
            if token != WAKE {
                report(Event { token, ready: Ready::from_bits_truncate(flags.bits()) });
            }
        }
    }
}

impl Waker {
    pub(crate) fn wake(&self) {
        // The counter is never read, and is full after 2⁶⁴ - 2 wakes.
        rustix::io::write(self.0.as_fd(), &1_u64.to_ne_bytes()).expect("writing to the eventfd of a poller");
    }
}

impl std::fmt::Debug for Os {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Os").finish_non_exhaustive()
    }
}

/// The kernel adds errors and hang-up.
fn flags(interest: Interest) -> EventFlags {
    let reading = EventFlags::IN | EventFlags::PRI | EventFlags::RDHUP | EventFlags::ET;
    match interest {
        Interest::Reading => reading,
        Interest::Both => reading | EventFlags::OUT,
    }
}

/// Rounded up: it is a wait of `timeout` at least. Of a finer one, rustix makes epoll_pwait2(2), which is of Linux 5.11.
fn whole_millis(timeout: Duration) -> Timespec {
    let millis = timeout.as_micros().div_ceil(1000) as i64;
    Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 }
}

fn pack(token: Token) -> EventData {
    EventData::new_u64(u64::from(token.generation) << 32 | u64::from(token.index))
}

#[inline]
fn unpack(data: EventData) -> Token {
    let data = data.u64();
    Token { index: data as u32, generation: (data >> 32) as u32 }
}
