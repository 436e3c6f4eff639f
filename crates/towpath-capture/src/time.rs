//! When a frame passed: nanoseconds since the Unix epoch, as the kernel or a file says.

#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, in nanoseconds since 1970-01-01 00:00:00 UTC; it reaches to the year 2554.
///
/// ```
/// use std::time::Duration;
/// use towpath_capture::Timestamp;
///
/// let syn = Timestamp::from_nanos(1_000_000_000);
/// let ack = Timestamp::from_nanos(1_000_034_000);
/// assert_eq!(ack.since(syn), Duration::from_micros(34));
/// assert_eq!(syn.since(ack), Duration::ZERO);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time so many nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Timestamp {
        Timestamp(nanos)
    }

    /// The nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long before this time `earlier` was; zero if it was not, for captures do run backwards.
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(time.0)
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before the epoch become the epoch, those after 2554 the last there is.
    fn from(time: SystemTime) -> Timestamp {
        let nanos = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        Timestamp(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
