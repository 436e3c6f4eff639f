//! Clock and sleeping: [`Instant`], [`Duration`], [`sleep`] and [`sleep_until`].
//!
//! Deadlines throughout the library are this module's [`Instant`], which converts from std's. It is a number of
//! nanoseconds on a monotonic clock (`clock_gettime(2)`, CLOCK_MONOTONIC), so that it fits an atomic and so that a
//! runtime on a virtual clock can hand out its own.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::OnceLock;

pub use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::runtime::park::Cancelled;
use crate::runtime::wait::Op;
use crate::runtime::wait_queue::Waiter;

/// A point in time on the monotonic clock, as `std::time::Instant`, in nanoseconds.
///
/// ```
/// use towpath::time::{Duration, Instant};
///
/// let start = Instant::now();
/// assert!(start + Duration::from_secs(1) > start);
/// assert_eq!(Instant::from(std::time::Instant::now()).duration_since(start).as_secs(), 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Instant {
    nanos: u64,
}

/// Where the count stands when the clock starts: far from both ends, so that instants before it exist as well.
const ORIGIN: u64 = 1 << 62;
const NANOS_PER_SEC: u64 = 1_000_000_000;

impl Instant {
    /// The present moment.
    #[inline]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        // Neither is negative: the clock starts with the system, and its nanoseconds are less than a second.
        Instant { nanos: ORIGIN + now.tv_sec as u64 * NANOS_PER_SEC + now.tv_nsec as u64 }
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn duration_since(&self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// How long after `earlier` this is, or `None` if it is before it.
    pub fn checked_duration_since(&self, earlier: Instant) -> Option<Duration> {
        self.nanos.checked_sub(earlier.nanos).map(Duration::from_nanos)
    }

    /// The same as [`duration_since`](Self::duration_since), under the name that std gives the explicit form.
    pub fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }

    /// How long ago this was; zero if it is yet to come.
    pub fn elapsed(&self) -> Duration {
        Instant::now().duration_since(*self)
    }

    /// This instant moved into the future, or `None` where the clock cannot represent that (about 430 years).
    pub fn checked_add(&self, duration: Duration) -> Option<Instant> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        Some(Instant { nanos: self.nanos.checked_add(nanos)? })
    }

    /// This instant moved into the past, or `None` where the clock cannot represent that.
    pub fn checked_sub(&self, duration: Duration) -> Option<Instant> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        Some(Instant { nanos: self.nanos.checked_sub(nanos)? })
    }

    /// The end of `timeout` from now: the far end of the clock where it is longer than the clock can tell.
    pub(crate) fn after(timeout: Duration) -> Instant {
        Instant::now().checked_add(timeout).unwrap_or(Instant { nanos: u64::MAX })
    }

    /// The count itself, never 0, for atomics that use 0 to say "none".
    #[inline]
    pub(crate) fn as_nanos(self) -> u64 {
        self.nanos.max(1)
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Instant { nanos }
    }
}

impl From<std::time::Instant> for Instant {
    fn from(instant: std::time::Instant) -> Self {
        // The same moment by both clocks, ours read last: what is converted may be late by as much, and is never early.
        static BOTH: OnceLock<(std::time::Instant, Instant)> = OnceLock::new();
        let (theirs, ours) = *BOTH.get_or_init(|| (std::time::Instant::now(), Instant::now()));
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Instant {
            nanos: match instant.checked_duration_since(theirs) {
                Some(after) => ours.nanos.saturating_add(nanos(after)),
                None => ours.nanos.saturating_sub(nanos(theirs.duration_since(instant))),
            },
        }
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// # Panics
    /// If the clock cannot represent the sum; see [`Instant::checked_add`].
    fn add(self, duration: Duration) -> Instant {
        self.checked_add(duration).expect("overflow when adding duration to instant")
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// # Panics
    /// If the clock cannot represent the difference; see [`Instant::checked_sub`].
    fn sub(self, duration: Duration) -> Instant {
        self.checked_sub(duration).expect("overflow when subtracting duration from instant")
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.duration_since(earlier)
    }
}

/// Parks the calling task, or blocks the calling thread, for at least `duration`.
///
/// ```
/// use towpath::time::{Duration, sleep};
///
/// sleep(Duration::from_millis(1))?;
/// # Ok::<(), towpath::Cancelled>(())
/// ```
///
/// # Errors
/// [`Cancelled`] if the task may not wait: a loop that sleeps would otherwise spin. The poller's clock ticks in
/// milliseconds, so a sleep may be up to one longer than asked for; it is never shorter.
pub fn sleep(duration: Duration) -> Result<(), Cancelled> {
    sleep_until(Instant::after(duration))
}

/// Parks the calling task, or blocks the calling thread, until `deadline`.
///
/// # Errors
/// As [`sleep`].
pub fn sleep_until(deadline: Instant) -> Result<(), Cancelled> {
    Waiter::new()?.wait(Op::Sleep.into(), Some(deadline));
    Ok(())
}
