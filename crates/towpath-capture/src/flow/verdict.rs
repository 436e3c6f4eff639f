//! How a connection ended, in a word.

#![forbid(unsafe_code)]

use std::fmt;

use super::Side;

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
