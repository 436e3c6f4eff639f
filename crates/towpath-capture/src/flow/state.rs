//! The states of RFC 9293, and what sending and receiving does to them.

#![forbid(unsafe_code)]

use std::fmt;

use crate::segment::Flags;

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

impl State {
    /// What sending a segment with these flags says of the sender.
    pub(super) fn after_sending(self, flags: Flags) -> State {
        use State::*;
        if flags.contains(Flags::RST) {
            return Closed;
        }
        if flags.contains(Flags::SYN) {
            return match (self, flags.contains(Flags::ACK)) {
                (Unknown | Closed | Listen, true) => SynReceived,
                (Unknown | Closed | Listen, false) => SynSent,
                (other, _) => other,
            };
        }
        // Only an open connection sends anything else; what led there was not seen.
        let open = if matches!(self, Unknown | SynSent) { Established } else { self };
        match open {
            SynReceived | Established if flags.contains(Flags::FIN) => FinWait1,
            CloseWait if flags.contains(Flags::FIN) => LastAck,
            other => other,
        }
    }

    /// What receiving a segment with these flags does, but for its FIN, which counts when all before it is there.
    /// `acks_syn` and `acks_fin`: it acknowledges the receiver's own.
    pub(super) fn after_receiving(self, flags: Flags, acks_syn: bool, acks_fin: bool) -> State {
        use State::*;
        if flags.contains(Flags::RST) {
            return Closed;
        }
        if flags.contains(Flags::SYN) {
            match (self, flags.contains(Flags::ACK)) {
                (Unknown | Closed | Listen | SynSent, false) => return SynReceived,
                (Unknown, true) => return Established,
                _ => {}
            }
        }
        match self {
            SynSent | SynReceived if acks_syn => Established,
            FinWait1 if acks_fin => FinWait2,
            Closing if acks_fin => TimeWait,
            LastAck if acks_fin => Closed,
            other => other,
        }
    }

    /// What the peer's FIN does, once all before it has been received.
    pub(super) fn after_fin(self) -> State {
        use State::*;
        match self {
            Unknown | SynReceived | Established => CloseWait,
            FinWait1 => Closing,
            FinWait2 => TimeWait,
            other => other,
        }
    }
}
