//! What is known of one connection.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Side, Sides, State};
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

/// How a connection ended, or where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Both sides sent FIN, and both were acknowledged.
    Clean,
    /// The SYN was answered by an RST: nobody listens there, or somebody forbids it.
    Refused,
    /// No SYN was answered.
    NoAnswer {
        /// How many were sent.
        syns: u32,
    },
    /// The handshake began, and has not been completed.
    Unfinished,
    /// One side knows nothing of the connection any more, or is gone: it answered by an RST as to an unknown
    /// connection, or did not answer three retransmissions or probes in a row.
    HalfOpen {
        /// Which side that is.
        gone: Side,
    },
    /// It was broken off by an RST.
    Reset {
        /// By whom.
        by: Side,
    },
    /// It is open.
    StillOpen,
    /// Its beginning was not seen, and its end neither.
    Middle,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Clean => f.write_str("clean"),
            Verdict::Refused => f.write_str("refused (RST)"),
            Verdict::NoAnswer { syns } => write!(f, "no answer (SYN ×{syns})"),
            Verdict::Unfinished => f.write_str("handshake unfinished"),
            Verdict::HalfOpen { .. } => f.write_str("half-open"),
            Verdict::Reset { .. } => f.write_str("reset"),
            Verdict::StillOpen => f.write_str("still open"),
            Verdict::Middle => f.write_str("seen from the middle"),
        }
    }
}

/// What one side of a connection has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Segments, whatever they carried.
    pub segments: u64,
    /// Bytes of data, each counted once however often it was sent.
    pub bytes: u64,
    /// Segments of which something had been sent before, SYN and FIN included.
    pub retransmissions: u64,
    /// Bytes of data that were sent again.
    pub retransmitted_bytes: u64,
    /// Retransmissions that the peer asked for.
    pub fast_retransmissions: u64,
    /// Retransmissions after a timeout.
    pub timeout_retransmissions: u64,
    /// Retransmissions of what had been acknowledged.
    pub spurious_retransmissions: u64,
    /// Segments that fill a gap without having been sent again.
    pub out_of_order: u64,
    /// Segments with something unseen before them.
    pub gaps: u64,
    /// Acknowledgements of what was not captured.
    pub unseen_acked: u64,
    /// Duplicate acknowledgements.
    pub duplicate_acks: u64,
    /// Acknowledgements that report data received out of order.
    pub sacks: u64,
    /// Acknowledgements that report data received twice.
    pub duplicate_sacks: u64,
    /// Keep-alives.
    pub keep_alives: u64,
    /// Segments that close this side's window.
    pub zero_windows: u64,
    /// Probes of the peer's closed window.
    pub window_probes: u64,
    /// Segments that fill the peer's window.
    pub window_fulls: u64,
    /// Segments that a router marked on the way.
    pub congestion_marks: u64,
    /// Segments that tell the peer of such marks.
    pub congestion_echoes: u64,
    /// Segments that say that this side has slowed down.
    pub congestion_reductions: u64,
    /// Segments with PSH.
    pub pushes: u64,
    /// Segments with URG.
    pub urgents: u64,
    /// SYNs, repeated ones included.
    pub syns: u64,
    /// FINs, repeated ones included.
    pub fins: u64,
    /// RSTs.
    pub resets: u64,
    /// Segments that do not belong into the connection.
    pub strays: u64,
    /// Segments seen on another interface as well.
    pub copies: u64,
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
