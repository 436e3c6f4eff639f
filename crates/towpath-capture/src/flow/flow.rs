//! What is known of one connection.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Counts, Side, Sides, State, Verdict};
use crate::Timestamp;
use crate::segment::Options;

/// The number of a connection, from 1 on in the order of their first segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

impl fmt::Display for FlowId {
    /// `#1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One side of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct End {
    /// Its address.
    pub addr: SocketAddr,
    /// Its state.
    pub state: State,
    /// The options of its SYN; none if that was not seen.
    pub offered: Option<Options>,
    /// What it has sent.
    pub sent: Counts,
}

/// What is known of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flow {
    /// Its number.
    pub id: FlowId,
    /// Its sides.
    pub ends: Sides<End>,
    /// When its first segment passed.
    pub began: Timestamp,
    /// When its latest segment passed.
    pub latest: Timestamp,
    /// When it ended: then the verdict is final.
    pub ended: Option<Timestamp>,
    /// Its first segment was no SYN: who is client and who server is a guess by their ports.
    pub from_middle: bool,
    /// From the first SYN until both sides were open.
    pub handshake: Option<Duration>,
    /// Who first sent FIN or RST.
    pub closed_first: Option<Side>,
    /// Both sent a SYN before either had the other's (RFC 9293, 3.5).
    pub simultaneous_open: bool,
    /// Both sent FIN before either had the other's (RFC 9293, 3.6).
    pub simultaneous_close: bool,
    /// How it ended, or where it stands.
    pub verdict: Verdict,
}

impl Flow {
    /// Bytes of data, both ways, each counted once.
    pub fn bytes(&self) -> u64 {
        self.ends.client.sent.bytes + self.ends.server.sent.bytes
    }

    /// Segments of which something had been sent before, both ways.
    pub fn retransmissions(&self) -> u64 {
        self.ends.client.sent.retransmissions + self.ends.server.sent.retransmissions
    }
}
