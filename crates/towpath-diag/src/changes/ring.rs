//! A page of the kernel's ring buffer, as `trace_pipe_raw` gives it (`events/header_page` and `events/header_event` of tracefs;
//! `linux/ring_buffer.h`):
//!
//! ```text
//!     page:   time, 64 bits │ how much of it is used, and flags │ entries …
//!     entry:  5 bits of type, 27 bits of time since the last entry │ what the type says
//!
//!     type 1–28   a record of 4 × type bytes
//!     type 0      a word with its own length and the record's; the record
//!     type 29     padding: a word with its length; or none if no time has passed, to the end of the page
//!     type 30     a word with the upper bits of the time that has passed
//!     type 31     a word with the upper bits of the time itself
//! ```
//!
//! Pure: whatever the bytes are, nothing panics and nothing is read beyond them.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::format::{self, Field};
use crate::bytes;

/// The kernel makes no larger pages (`buffer_subbuf_size_kb`).
const LARGEST: usize = 1 << 20;

/// Where things are in a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    used: usize,
    entries: usize,
    /// The length of a page.
    pub(super) page: usize,
}

impl Layout {
    /// Reads `events/header_page`.
    pub(super) fn parse(text: &str) -> Option<Layout> {
        let Field { offset: used, .. } = format::field(text, "commit")?;
        let Field { offset: entries, size } = format::field(text, "data")?;
        let page = entries.checked_add(size).filter(|&page| page <= LARGEST)?;
        Some(Layout { used, entries, page })
    }
}

/// A page taken apart.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    rest: &'a [u8],
    time: u64,
    /// How many entries were lost before this page: at least one if the kernel does not say.
    pub(crate) lost: u64,
}

const LOST: u32 = 1 << 31;
/// The number of those lost is behind the last entry.
const LOST_COUNTED: u32 = 1 << 30;
const USED: u32 = (1 << 27) - 1;

const PADDING: u32 = 29;
const TIME_EXTEND: u32 = 30;
const TIME_STAMP: u32 = 31;

impl<'a> Page<'a> {
    /// None if the page is too short for its own header.
    pub(crate) fn new(page: &'a [u8], layout: Layout) -> Option<Page<'a>> {
        let time = bytes::u64(page, 0)?;
        let flags = bytes::u32(page, layout.used)?;
        let entries = page.get(layout.entries..)?;
        let used = (flags & USED) as usize;
        let lost = match (flags & LOST != 0, flags & LOST_COUNTED != 0) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => bytes::u64(entries, used).unwrap_or(1).max(1),
        };
        Some(Page { rest: &entries[..used.min(entries.len())], time, lost })
    }

    /// The next word.
    fn word(&mut self) -> Option<u32> {
        let word = bytes::u32(self.rest, 0)?;
        self.rest = &self.rest[4..];
        Some(word)
    }

    /// So many bytes, and whatever comes behind them up to the next word.
    fn record(&mut self, length: usize) -> Option<&'a [u8]> {
        let record = self.rest.get(..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(record)
    }
}

impl<'a> Iterator for Page<'a> {
    /// The time, on the trace's clock, and the record.
    type Item = (Duration, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let head = self.word()?;
            let (kind, passed) =
                if cfg!(target_endian = "little") { (head & 31, head >> 5) } else { (head >> 27, head & USED) };
            match kind {
                PADDING if passed == 0 => return None,
                PADDING => {
                    // Its length counts the word that it stands in, and time goes on meanwhile.
                    let length = self.word()? as usize;
                    self.record(length.checked_sub(4)?)?;
                    self.time = self.time.wrapping_add(passed.into());
                }
                TIME_EXTEND => {
                    let upper = u64::from(self.word()?) << 27;
                    self.time = self.time.wrapping_add(upper + u64::from(passed));
                }
                TIME_STAMP => {
                    // Has 59 bits: the five above them are as they were.
                    let lower = u64::from(self.word()?) << 27 | u64::from(passed);
                    self.time = self.time & !(u64::MAX >> 5) | lower & (u64::MAX >> 5);
                }
                small => {
                    self.time = self.time.wrapping_add(passed.into());
                    let length = match small {
                        0 => (self.word()? as usize).checked_sub(4)?,
                        words => 4 * words as usize,
                    };
                    return Some((Duration::from_nanos(self.time), self.record(length)?));
                }
            }
        }
    }
}
