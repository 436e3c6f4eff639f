//! The states of RFC 9293, and what sending and receiving does to them.

#![forbid(unsafe_code)]

use std::fmt;

/// The state of one side of a connection, as far as the segments tell (RFC 9293, 3.3.2). A side changes its state when
/// it sends and when it receives, and every segment seen is taken to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum State {
    /// Nothing has been seen of it that would tell.
    #[default]
    Unknown,
    /// No connection.
    Closed,
    /// Waits for a SYN.
    Listen,
    /// Has sent a SYN.
    SynSent,
    /// Has received a SYN.
    SynReceived,
    /// Open: data may flow.
    Established,
    /// Has sent FIN.
    FinWait1,
    /// Its FIN is acknowledged; the peer may go on sending.
    FinWait2,
    /// The peer has sent FIN; it may go on sending.
    CloseWait,
    /// Both have sent FIN at once.
    Closing,
    /// Has sent FIN after the peer's.
    LastAck,
    /// Both are done; it waits for stragglers.
    TimeWait,
}

impl State {
    /// The state's name, as short as a ladder needs it: `SYN-RECV`, `ESTAB`.
    pub const fn name(self) -> &'static str {
        match self {
            State::Unknown => "?",
            State::Closed => "CLOSED",
            State::Listen => "LISTEN",
            State::SynSent => "SYN-SENT",
            State::SynReceived => "SYN-RECV",
            State::Established => "ESTAB",
            State::FinWait1 => "FIN-WAIT-1",
            State::FinWait2 => "FIN-WAIT-2",
            State::CloseWait => "CLOSE-WAIT",
            State::Closing => "CLOSING",
            State::LastAck => "LAST-ACK",
            State::TimeWait => "TIME-WAIT",
        }
    }

    /// Nothing more is to come of it but answers to stragglers.
    pub const fn is_over(self) -> bool {
        matches!(self, State::Closed | State::TimeWait)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
