//! The options of a TCP header, whatever kinds they are: an unknown one is counted and passed over.

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Deref;

/// The options of one header. `None`, `false` and empty: the option was not there.
///
/// ```
/// use towpath_capture::segment::Options;
///
/// let linux = Options::read(&[2, 4, 0xff, 0xd7, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 10]);
/// assert_eq!(linux.to_string(), "mss 65495 ws 10 sack ts");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Options {
    /// The longest segment that the sender takes, in bytes.
    pub mss: Option<u16>,
    /// The power of two by which its windows are to be multiplied (RFC 7323); 14 is the most that counts.
    pub window_scale: Option<u8>,
    /// It understands selective acknowledgements (RFC 2018).
    pub sack_permitted: bool,
    /// What it has received out of order (RFC 2018), or twice (RFC 2883).
    pub sack: SackBlocks,
    /// Its clock, and the peer's clock sent back (RFC 7323).
    pub timestamps: Option<TcpTimestamps>,
    /// It asks for, or sends back, a fast-open cookie of so many bytes (RFC 7413).
    pub fast_open: Option<u8>,
    /// The subtype of a Multipath TCP option (RFC 8684); 0 is MP_CAPABLE.
    pub mptcp: Option<u8>,
    /// How many options of other kinds there were.
    pub others: u8,
    /// The options end amid one of them, or one has a length that its kind cannot have; what could be read is here.
    pub malformed: bool,
}

/// The timestamps option: the sender's clock, and what it last saw of the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpTimestamps {
    /// The sender's clock, TSval.
    pub value: u32,
    /// The peer's clock as the sender last saw it, TSecr; it counts if ACK is set.
    pub echo: u32,
}

/// Up to four ranges of sequence numbers, from the first received to the first that is not.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [(u32, u32); 4],
    len: u8,
}

impl Options {
    /// Reads what follows the fixed part of a TCP header. Never fails: see [`malformed`](Options::malformed).
    pub fn read(bytes: &[u8]) -> Options {
        let mut found = Options::default();
        // RFC 9293, 3.1: a kind; then, but for the end (0) and the filler (1), a length that counts both, and the value.
        let mut rest = bytes;
        while let [kind, ref tail @ ..] = *rest {
            match kind {
                0 => break,
                1 => rest = tail,
                _ => {
                    let length = tail.first().map_or(0, |&length| usize::from(length));
                    let Some(value) = rest.get(2..length) else {
                        found.malformed = true;
                        break;
                    };
                    found.note(kind, value);
                    rest = &rest[length..];
                }
            }
        }
        found
    }

    /// Takes in one option; the kinds are IANA's.
    fn note(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (2, &[high, low]) => self.mss = Some(u16::from_be_bytes([high, low])),
            (3, &[shift]) => self.window_scale = Some(shift),
            (4, []) => self.sack_permitted = true,
            (5, blocks) if !blocks.is_empty() && blocks.len() % 8 == 0 && blocks.len() <= 32 => {
                self.sack = SackBlocks::read(blocks);
            }
            (8, &[a, b, c, d, e, f, g, h]) => {
                let value = u32::from_be_bytes([a, b, c, d]);
                self.timestamps = Some(TcpTimestamps { value, echo: u32::from_be_bytes([e, f, g, h]) });
            }
            (30, &[subtype, ..]) => self.mptcp = Some(subtype >> 4),
            (34, cookie) => self.fast_open = Some(cookie.len() as u8),
            // The experimental form of fast open, which Linux still answers (RFC 6994).
            (254, &[0xf9, 0x89, ref cookie @ ..]) => self.fast_open = Some(cookie.len() as u8),
            (2..=5 | 8 | 30, _) => self.malformed = true,
            _ => self.others = self.others.saturating_add(1),
        }
    }
}

impl SackBlocks {
    /// The blocks in an option's value, whose length is a multiple of eight; the fifth and further are left out.
    fn read(value: &[u8]) -> SackBlocks {
        let mut found = SackBlocks::default();
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte));
        for (place, block) in found.blocks.iter_mut().zip(value.chunks_exact(8)) {
            *place = (number(&block[..4]), number(&block[4..]));
            found.len += 1;
        }
        found
    }
}

impl FromIterator<(u32, u32)> for SackBlocks {
    /// The first four of them.
    fn from_iter<I: IntoIterator<Item = (u32, u32)>>(blocks: I) -> SackBlocks {
        let mut found = SackBlocks::default();
        for (place, block) in found.blocks.iter_mut().zip(blocks) {
            *place = block;
            found.len += 1;
        }
        found
    }
}

impl Deref for SackBlocks {
    type Target = [(u32, u32)];

    fn deref(&self) -> &[(u32, u32)] {
        &self.blocks[..usize::from(self.len)]
    }
}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Display for Options {
    /// `mss 65495 ws 10 sack ts`; nothing if there are none. Selective acknowledgements are not listed, for their
    /// numbers mean nothing without a connection.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        let mut word = |f: &mut fmt::Formatter<'_>, word: fmt::Arguments<'_>| {
            f.write_str(space)?;
            space = " ";
            f.write_fmt(word)
        };
        if let Some(mss) = self.mss {
            word(f, format_args!("mss {mss}"))?;
        }
        if let Some(shift) = self.window_scale {
            word(f, format_args!("ws {shift}"))?;
        }
        if self.sack_permitted {
            word(f, format_args!("sack"))?;
        }
        if self.timestamps.is_some() {
            word(f, format_args!("ts"))?;
        }
        if self.fast_open.is_some() {
            word(f, format_args!("fast-open"))?;
        }
        if self.mptcp.is_some() {
            word(f, format_args!("mptcp"))?;
        }
        if self.malformed {
            word(f, format_args!("malformed"))?;
        }
        Ok(())
    }
}
