//! The poller on io_uring (Linux 6.1 or later): readiness by poll requests. Nothing else goes through the ring.
//!
//! ```text
//!   add ──▶ queue ──▶ ring ── armed once ──▶ completions: (token, what it is ready for, F_MORE)
//!                       ▲                        │
//!                       └── without F_MORE: ─────┤ the completion queue was full: armed anew, which reports
//!                                                │ what is ready by then
//!   remove ── cancel, entered at once            └── of an older generation: dropped
//! ```
//!
//! Each descriptor has one multishot request, which reports edges as EPOLLET does (no IORING_POLL_ADD_LEVEL). The ring is
//! its worker's alone (SINGLE_ISSUER), and the kernel makes completions only when the worker enters it (DEFER_TASKRUN); a
//! flag in shared memory (TASKRUN_FLAG) tells a busy worker whether that is worth a system call.
//!
//! A request holds the *file*: a descriptor that is closed stays open below until its request is cancelled, and its peer
//! sees no end. Hence `remove` waits for nothing, but has let go of the file when it returns.
//!
//! The waker is an eventfd that is written and never read, as in `os.rs`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};
use rustix::event::EventfdFlags;

use super::{Event, Ready, Token};

/// Requests that go to the kernel in one system call.
const SUBMISSIONS: u32 = 256;
/// Completions that the kernel can hand over between two waits; past them it ends requests, and we arm them anew.
const COMPLETIONS: u32 = 4096;
/// As many reports a wait asks for, if there are, as tasks that a worker runs before it looks at the clock again. Recent
/// kernels (6.13) make some twenty completions in one system call unless told to wait for more.
const BATCH: usize = 256;
/// What a descriptor is polled for. The kernel adds the end of the peer, errors and hang-up.
const INTEREST: i16 = libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP;
/// The kernel adds a timeout to its clock without a look at overflow. A wait may end early.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The waker's own request, and what tells of cancels that found nothing. No registration's generation is even.
const WAKE: Token = Token { index: 0, generation: 0 };
const CANCEL: Token = Token { index: u32::MAX, generation: 0 };

pub(crate) struct Uring {
    ring: IoUring,
    waker: Waker,
    /// What has yet to go into the ring's own, bounded queue.
    queue: VecDeque<squeue::Entry>,
    /// Whose requests the kernel has ended, and are to be armed anew.
    ended: Vec<Token>,
    /// There may be registrations with two requests; see [`Uring::begin_again`].
    doubled: bool,
    /// The registrations, by index.
    slots: Vec<Slot>,
    /// Kept for its memory; see [`Uring::confirm_urgent`].
    suspects: Vec<libc::pollfd>,
}

/// A registration; none, if the generation is even.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    generation: u32,
    fd: RawFd,
}

#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Uring {
    /// A poller for the calling thread, and no other.
    pub(crate) fn new() -> io::Result<(Uring, Waker)> {
        Uring::with_sizes(SUBMISSIONS, COMPLETIONS).map_err(explain)
    }

    fn with_sizes(submissions: u32, completions: u32) -> io::Result<(Uring, Waker)> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_cqsize(completions)
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(submissions)?;
        let waker = Waker(Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        let mut uring = Uring {
            ring,
            waker: waker.clone(),
            queue: VecDeque::new(),
            ended: Vec::new(),
            doubled: false,
            slots: Vec::new(),
            suspects: Vec::new(),
        };
        uring.arm(WAKE, waker.0.as_raw_fd());
        uring.submit()?; // a filter may allow the one system call and not the other
        Ok((uring, waker))
    }

    pub(crate) fn add(&mut self, fd: BorrowedFd<'_>, token: Token) {
        let index = token.index as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, Slot::default());
        }
        self.slots[index] = Slot { generation: token.generation, fd: fd.as_raw_fd() };
        self.arm(token, fd.as_raw_fd());
        if self.queue.len() >= SUBMISSIONS as usize {
            _ = self.submit(); // what it could not submit, the next wait will, or tells why
        }
    }

    pub(crate) fn remove(&mut self, token: Token) {
        let Some(slot) = self.slots.get_mut(token.index as usize).filter(|slot| slot.generation == token.generation)
        else {
            return;
        };
        *slot = Slot::default();
        let requests = CancelBuilder::user_data(pack(token));
        self.cancel(if self.doubled { requests.all() } else { requests });
        _ = self.submit().and_then(|()| self.enter_for_more(usize::MAX)); // else the next wait does it
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        if let Err(error) = self.submit_and_wait(timeout).and_then(|()| self.enter_for_more(BATCH)) {
            match error.raw_os_error() {
                // EAGAIN: no memory for a request. It stays in the queue.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                Some(libc::EBADR) => self.begin_again(),
                _ => return Err(error),
            }
        }
        let first = events.len();
        self.reap(events);
        self.confirm_urgent(&mut events[first..]);
        Ok(())
    }

    fn submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        while !self.fill() {
            self.enter()?;
        }
        let timeout = if self.ring.completion().is_empty() { timeout } else { Some(Duration::ZERO) };
        match timeout {
            None => self.ring.submit_and_wait(1).map(drop),
            Some(Duration::ZERO) => {
                let submissions = self.ring.submission();
                if submissions.is_empty() && !submissions.taskrun() && !submissions.cq_overflow() {
                    return Ok(());
                }
                drop(submissions);
                self.enter()
            }
            Some(timeout) => {
                let timeout = Timespec::from(timeout.min(LONGEST));
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)).map(drop)
            }
        }
    }

    /// Takes the completions out of the ring.
    fn reap(&mut self, events: &mut Vec<Event>) {
        let Uring { ring, slots, ended, .. } = self;
        for completion in ring.completion() {
            let token = unpack(completion.user_data());
            let registered = slots.get(token.index as usize).is_some_and(|slot| slot.generation == token.generation);
            if token != WAKE && !registered {
                continue; // removed meanwhile, or a cancel that found nothing
            }
            let result = completion.result();
            if token != WAKE && result >= 0 {
                events.push(Event { token, ready: Ready::from_bits_truncate(result as u32) });
            }
            // EBADF: closed before it could be armed. ECANCELED: by `begin_again`, which has armed it anew.
            if !cqueue::more(completion.flags()) && !matches!(-result, libc::EBADF | libc::ECANCELED) {
                ended.push(token);
            }
        }
        // As long as the kernel has completions for which there was no room, each request would end as soon as it is
        // armed, and leave one more.
        if !self.ended.is_empty() && !self.ring.submission().cq_overflow() {
            for token in std::mem::take(&mut self.ended) {
                match self.slots.get(token.index as usize) {
                    _ if token == WAKE => self.arm(WAKE, self.waker.0.as_raw_fd()),
                    Some(slot) if slot.generation == token.generation => self.arm(token, slot.fd),
                    _ => {}
                }
            }
        }
    }

    /// Takes back what reports say of urgent data where there is none. A TCP socket wakes who polls it with one and the
    /// same word for data and for urgent data, and a completion repeats the word without a look at the socket; but
    /// urgent data has sockets be read to EAGAIN from then on. One system call looks at all of them.
    fn confirm_urgent(&mut self, events: &mut [Event]) {
        self.suspects.clear();
        let suspects = events.iter().filter(|event| event.ready.contains(Ready::URGENT));
        self.suspects.extend(suspects.map(|event| {
            let fd = self.slots[event.token.index as usize].fd;
            libc::pollfd { fd, events: libc::POLLPRI, revents: 0 }
        }));
        if self.suspects.is_empty() {
            return;
        }
        let (first, len) = (self.suspects.as_mut_ptr(), self.suspects.len());
        // SAFETY: the call writes to the first `len` elements of the vector, which has as many, and returns at once.
        if unsafe { libc::poll(first, len as libc::nfds_t, 0) } < 0 {
            return; // a report may say too much
        }
        let events = events.iter_mut().filter(|event| event.ready.contains(Ready::URGENT));
        for (event, suspect) in events.zip(&self.suspects) {
            event.ready.set(Ready::URGENT, suspect.revents & libc::POLLPRI != 0);
        }
    }

    /// Arms all requests anew: the kernel has lost completions, for it found no memory to keep them in (EBADR).
    fn begin_again(&mut self) {
        self.doubled = true; // one that is ending by now is armed anew for that as well
        self.cancel(CancelBuilder::any());
        self.arm(WAKE, self.waker.0.as_raw_fd());
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.generation % 2 == 1) {
            self.queue.push_back(poll(Token { index: index as u32, generation: slot.generation }, slot.fd));
        }
    }

    fn arm(&mut self, token: Token, fd: RawFd) {
        self.queue.push_back(poll(token, fd));
    }

    /// Cancels requests: not by POLL_REMOVE, which fails with EALREADY where one is about to report.
    fn cancel(&mut self, which: CancelBuilder) {
        let cancel = opcode::AsyncCancel2::new(which).build();
        self.queue.push_back(cancel.flags(squeue::Flags::SKIP_SUCCESS).user_data(pack(CANCEL)));
    }

    /// Moves what is queued into the ring's own queue; false if that is full first.
    fn fill(&mut self) -> bool {
        let Uring { ring, queue, .. } = self;
        let mut submissions = ring.submission();
        while let Some(entry) = queue.front() {
            // SAFETY: the requests that are made here name a descriptor and point nowhere.
            if unsafe { submissions.push(entry) }.is_err() {
                return false;
            }
            queue.pop_front();
        }
        true
    }

    /// Has the kernel begin all that is queued and make completions of what has become ready, and does not wait.
    fn submit(&mut self) -> io::Result<()> {
        loop {
            let all = self.fill();
            self.enter()?;
            if all {
                return Ok(());
            }
        }
    }

    /// Has the kernel make completions of what else has become ready, which it does in order and in portions, until
    /// there are `enough`. Its flag may say that there is more when there is not: another core sets it a moment after it
    /// has left something, which may have been taken by then, and it stays set. So this goes on as long as it helps.
    fn enter_for_more(&mut self, enough: usize) -> io::Result<()> {
        let mut had = 0;
        loop {
            let has = self.ring.completion().len();
            if has <= had || has >= enough || !self.ring.submission().taskrun() {
                return Ok(());
            }
            had = has;
            self.enter()?;
        }
    }

    fn enter(&mut self) -> io::Result<()> {
        let submissions = self.ring.submission().len() as u32;
        // SAFETY: nothing is waited for, and there is no argument.
        unsafe { self.ring.submitter().enter::<()>(submissions, 0, EnterFlags::GETEVENTS.bits(), None) }.map(drop)
    }
}

impl Drop for Uring {
    /// Lets go of the files at once: the kernel itself ends the requests of a ring that is closed, but some time later.
    fn drop(&mut self) {
        self.queue.clear();
        self.cancel(CancelBuilder::any());
        while self.submit().is_ok() && self.ring.completion().count() > 0 {}
    }
}

impl Waker {
    pub(crate) fn wake(&self) {
        // The counter is never read, and is full after 2⁶⁴ - 2 wakes.
        rustix::io::write(self.0.as_fd(), &1_u64.to_ne_bytes()).expect("writing to the eventfd of a poller");
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").finish_non_exhaustive()
    }
}

fn poll(token: Token, fd: RawFd) -> squeue::Entry {
    opcode::PollAdd::new(Fd(fd), INTEREST as u32).multi(true).build().user_data(pack(token))
}

fn pack(token: Token) -> u64 {
    u64::from(token.generation) << 32 | u64::from(token.index)
}

fn unpack(user_data: u64) -> Token {
    Token { index: user_data as u32, generation: (user_data >> 32) as u32 }
}

/// Says what an operator can do about a ring that cannot be had.
fn explain(error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::EPERM) => "forbidden here, by kernel.io_uring_disabled or by a container's seccomp filter",
        Some(libc::EACCES) => "forbidden here, by a security module",
        Some(libc::ENOSYS) => "unknown to this kernel, or hidden by a seccomp filter",
        Some(libc::EINVAL) => {
            "this kernel lacks what is needed, which is there from Linux 6.1 on (IORING_SETUP_DEFER_TASKRUN)"
        }
        Some(libc::ENOMEM) => "no memory for a ring; see `ulimit -l`",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{why}: {error}"))
}

#[cfg(all(test, not(towpath_loom)))]
mod tests {
    use std::collections::HashSet;
    use std::io::Write;

    use super::super::contract::pair;
    use super::*;

    fn small() -> Option<(Uring, Waker)> {
        let made = Uring::with_sizes(4, 8);
        assert!(made.is_ok() || std::env::var_os("TOWPATH_NO_SKIP").is_none(), "{made:?}");
        made.ok()
    }

    fn token(index: u32) -> Token {
        Token { index, generation: 1 }
    }

    /// Waits until all of `count` registrations have been reported as ready for `wanted`.
    fn until_reported(uring: &mut Uring, count: u32, wanted: Ready) {
        let (mut events, mut reported) = (Vec::new(), HashSet::new());
        while reported.len() < count as usize {
            uring.wait(Some(Duration::from_secs(20)), &mut events).expect("a wait");
            assert!(
                !events.is_empty() || !uring.queue.is_empty() || !uring.ended.is_empty(),
                "{} of {count} in 20 seconds",
                reported.len()
            );
            let events = events.drain(..).filter(|event| event.ready.contains(wanted));
            reported.extend(events.map(|event| event.token.index));
        }
    }

    #[test]
    fn more_is_added_and_reported_than_the_ring_holds() {
        let Some((mut uring, _waker)) = small() else { return };
        let (stream, mut peer) = pair();
        (0..10_000).for_each(|index| uring.add(stream.as_fd(), token(index)));
        until_reported(&mut uring, 10_000, Ready::WRITABLE);
        for _ in 0..3 {
            // One byte, and more completions than there is room for: requests end and are armed anew.
            peer.write_all(b"!").expect("room");
            until_reported(&mut uring, 10_000, Ready::READABLE);
        }
        (0..10_000).for_each(|index| uring.remove(token(index)));
        let mut events = Vec::new();
        peer.write_all(b"!").expect("room");
        uring.wait(Some(Duration::from_millis(1)), &mut events).expect("a wait");
        assert!(events.is_empty(), "{events:?}");
    }

    #[test]
    fn what_the_kernel_lost_is_reported_again() {
        let Some((mut uring, waker)) = small() else { return };
        let (stream, mut peer) = pair();
        (0..100).for_each(|index| uring.add(stream.as_fd(), token(index)));
        until_reported(&mut uring, 100, Ready::WRITABLE);
        for _ in 0..3 {
            uring.begin_again();
            until_reported(&mut uring, 100, Ready::WRITABLE);
            let mut events = Vec::new();
            while !uring.queue.is_empty() || !uring.ended.is_empty() || !events.is_empty() {
                events.clear();
                uring.wait(Some(Duration::from_millis(1)), &mut events).expect("a wait");
            }
            peer.write_all(b"!").expect("room");
            until_reported(&mut uring, 100, Ready::READABLE);
            waker.wake();
            uring.wait(None, &mut events).expect("a wait");
        }
    }
}
