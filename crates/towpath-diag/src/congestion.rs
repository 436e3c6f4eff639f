//! What governs the sending rate of a socket: the name of its algorithm, and what some algorithms tell of themselves.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

/// The most bytes in a name: TCP_CA_NAME_MAX less the zero at the end.
const NAME_MAX: usize = 15;

/// The name of a congestion control algorithm, such as `cubic`; a short `str` that needs no allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Algorithm {
    bytes: [u8; NAME_MAX],
    len: u8,
}

impl Algorithm {
    /// The name as the kernel sends it: to the first zero byte. Not one if it is too long, empty or not UTF-8.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Algorithm> {
        let name = bytes.split(|&byte| byte == 0).next()?;
        if name.is_empty() || name.len() > NAME_MAX || std::str::from_utf8(name).is_err() {
            return None;
        }
        let mut bytes = [0; NAME_MAX];
        bytes[..name.len()].copy_from_slice(name);
        Some(Algorithm { bytes, len: name.len() as u8 })
    }
}

impl Deref for Algorithm {
    type Target = str;

    fn deref(&self) -> &str {
        // `parse` made sure that it is UTF-8.
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// What an algorithm tells of itself (`union tcp_cc_info` in `linux/inet_diag.h`). Most tell nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Model {
    /// Of TCP Vegas.
    Vegas {
        /// Whether it is in force.
        enabled: bool,
        /// How many round trips were measured in this one.
        rtt_count: u32,
        /// The round-trip time.
        rtt: Duration,
        /// The least round-trip time.
        min_rtt: Duration,
    },
    /// Of Data Center TCP (RFC 8257).
    Dctcp {
        /// Whether it is in force, which takes ECN on both sides.
        enabled: bool,
        /// Whether the last segment was marked as having met congestion.
        ce_state: bool,
        /// The estimate of the fraction of bytes marked, in 1/1024.
        alpha: u32,
        /// Bytes acknowledged with the mark.
        acked_marked: u32,
        /// Bytes acknowledged in all.
        acked: u32,
    },
    /// Of BBR.
    Bbr {
        /// The bandwidth estimate, in bytes a second.
        bandwidth: u64,
        /// The least round-trip time.
        min_rtt: Duration,
        /// The factor of the pacing rate, in 1/256.
        pacing_gain: u32,
        /// The factor of the congestion window, in 1/256.
        cwnd_gain: u32,
    },
}
