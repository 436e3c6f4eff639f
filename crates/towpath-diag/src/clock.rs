//! The clock that the times of changes and closures are on.
#![forbid(unsafe_code)]

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time of `CLOCK_MONOTONIC`, which [`Change::at`](crate::Change::at) and [`Closed::at`](crate::Closed::at) are on
/// (clock_gettime(2)). The time since a change is the difference of the two.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is negative on this clock.
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
