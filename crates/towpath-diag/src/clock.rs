//! The clock that the times of changes and closures are on, and an alarm set by it.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use std::{fs, io};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};

/// The time of `CLOCK_MONOTONIC`, which the times of [`Change`](crate::Change) and [`Closed`](crate::Closed) are on
/// (clock_gettime(2)). How long ago something was is the difference of the two.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is negative on this clock.
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Whether this clock differs from the kernel's own, by which it stamps what it traces (time_namespaces(7)). The file is of
/// our children's clock, which is ours unless somebody has unshared it and not forked.
pub(crate) fn is_shifted() -> bool {
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    let shift = offsets.lines().find_map(|line| line.strip_prefix("monotonic"));
    shift.is_some_and(|shift| shift.split_whitespace().any(|number| number != "0"))
}

/// Whether this time has come.
pub(crate) fn is_past(until: Option<Duration>) -> bool {
    until.is_some_and(|until| monotonic() >= until)
}

/// A descriptor that is readable from some time on (timerfd_create(2)).
#[derive(Debug)]
pub(crate) struct Alarm {
    fd: OwnedFd,
    set: Option<Duration>,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Alarm> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Alarm { fd, set: None })
    }

    /// Readable from this time on, or never; not before, whatever it was set to.
    pub(crate) fn set(&mut self, at: Option<Duration>) -> io::Result<()> {
        if self.set != at {
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            // A time of zero would mean never.
            let value = at.map_or(zero, |at| timespec(at.max(Duration::from_nanos(1))));
            timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: zero, it_value: value })?;
            self.set = at;
        }
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until the descriptor is readable, or this time has come, or a signal was handled.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, until: Option<Duration>) -> io::Result<Waited> {
    let left = until.map(|until| timespec(until.saturating_sub(monotonic())));
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], left.as_ref()) {
        Ok(0) => Ok(Waited::InVain),
        Ok(_) => Ok(Waited::Readable),
        Err(Errno::INTR) => Ok(Waited::InVain),
        Err(error) => Err(error.into()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waited {
    Readable,
    InVain,
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}
