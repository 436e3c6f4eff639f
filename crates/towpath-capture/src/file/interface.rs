//! What a file says of an interface.

#![forbid(unsafe_code)]

use crate::{LinkType, Timestamp};

/// An interface whose frames are in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// The header that its frames begin with.
    pub link: LinkType,
    /// Its name, such as `lo`.
    pub name: Option<String>,
    /// How many bytes of each frame were kept at most; 0 for all.
    pub snap_len: u32,
    /// How many frames the capture missed there, where the file tells.
    pub dropped: Option<u64>,
    pub(super) clock: Clock,
}

impl Interface {
    /// A nameless interface of which all is kept.
    pub fn new(link: LinkType) -> Interface {
        Interface { link, name: None, snap_len: 0, dropped: None, clock: Clock::MICROS }
    }

    /// The same with a name.
    pub fn named(mut self, name: impl Into<String>) -> Interface {
        self.name = Some(name.into());
        self
    }

    /// The same with a limit to how many bytes of each frame are kept.
    pub fn snapped(mut self, len: u32) -> Interface {
        self.snap_len = len;
        self
    }
}

/// How a file's numbers become times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    /// Ticks a second.
    pub(super) resolution: u128,
    /// Seconds to be added.
    pub(super) offset: i64,
}

impl Clock {
    pub(super) const MICROS: Clock = Clock { resolution: 1_000_000, offset: 0 };
    pub(super) const NANOS: Clock = Clock { resolution: 1_000_000_000, offset: 0 };

    /// The resolution in pcapng's form: a power of ten, or of two with the highest bit set.
    pub(super) fn resolution(exponent: u8) -> u128 {
        match exponent {
            // More ticks than any counter of 64 bits has need of: all times are the first nanoseconds of the epoch.
            0x80..=0xff => 1 << (exponent & 0x7f),
            _ => 10_u128.saturating_pow(exponent.into()),
        }
    }

    /// The time at so many ticks. What does not fit becomes the first or the last time there is.
    pub(super) fn time(&self, ticks: u64) -> Timestamp {
        let seconds = u128::from(ticks) / self.resolution;
        let rest = u128::from(ticks) % self.resolution;
        // The rest is below 2⁶⁴, as ticks is, so that the product fits.
        let nanos = seconds * 1_000_000_000 + rest * 1_000_000_000 / self.resolution;
        let offset = i128::from(self.offset) * 1_000_000_000;
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX).saturating_add(offset).max(0);
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_every_size_become_nanoseconds() {
        let time =
            |exponent, ticks| Clock { resolution: Clock::resolution(exponent), offset: 0 }.time(ticks).as_nanos();
        assert_eq!(time(6, 1_700_000_000_123_456), 1_700_000_000_123_456_000);
        assert_eq!(time(9, 1_700_000_000_123_456_789), 1_700_000_000_123_456_789);
        assert_eq!(time(3, 1_700_000_000_123), 1_700_000_000_123_000_000);
        assert_eq!(time(0x80 | 10, 1536), 1_500_000_000);
        assert_eq!(time(12, 1_500), 1);
        assert_eq!(time(0, u64::MAX), u64::MAX);
        assert_eq!(time(0xff, u64::MAX), 0);
        assert_eq!(time(0x7f, u64::MAX), 0);
    }

    #[test]
    fn an_offset_moves_times_both_ways() {
        let clock = Clock { resolution: 1_000_000, offset: -1 };
        assert_eq!(clock.time(3_000_000).as_nanos(), 2_000_000_000);
        assert_eq!(clock.time(500_000).as_nanos(), 0);
        assert_eq!(Clock { offset: i64::MAX, ..clock }.time(0).as_nanos(), u64::MAX);
    }
}
