//! What one segment meant to its connection.

#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use bitflags::bitflags;

use super::{Flow, FlowId, Side, Sides, State, Verdict};

bitflags! {
    /// What is worth saying of a segment beyond its headers. More than one may hold.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Notes: u32 {
        /// Some of its sequence numbers had been sent before.
        const RETRANSMISSION = 1 << 0;
        /// A retransmission that the receiver asked for, by three duplicate or by selective acknowledgements.
        const FAST = 1 << 1;
        /// A retransmission that nobody asked for: a timer of the sender's ran out (RFC 6298, or the tail loss probe
        /// of RFC 8985).
        const TIMEOUT = 1 << 2;
        /// A retransmission in vain: all of it had been acknowledged.
        const SPURIOUS = 1 << 3;
        /// It fills a gap too soon to have been sent again: the network, or the capture, swapped it with a later one.
        const OUT_OF_ORDER = 1 << 4;
        /// Something of the sender's before it has not been seen: lost on the way, or by the capture.
        const GAP = 1 << 5;
        /// It acknowledges what was not seen: the capture lost it.
        const UNSEEN_ACKED = 1 << 6;
        /// It repeats an acknowledgement although there is more to acknowledge (RFC 5681, 2).
        const DUPLICATE_ACK = 1 << 7;
        /// It reports data received out of order (RFC 2018).
        const SACK = 1 << 8;
        /// It reports data received twice (RFC 2883).
        const DUPLICATE_SACK = 1 << 9;
        /// Asks whether the peer is still there (RFC 9293, 3.8.4).
        const KEEP_ALIVE = 1 << 10;
        /// The answer to that.
        const KEEP_ALIVE_ACK = 1 << 11;
        /// The sender of this segment takes no more data for now.
        const ZERO_WINDOW = 1 << 12;
        /// Asks whether a zero window has opened (RFC 9293, 3.8.6.1).
        const WINDOW_PROBE = 1 << 13;
        /// The answer to that.
        const WINDOW_PROBE_ACK = 1 << 14;
        /// It fills the receiver's window to the last byte.
        const WINDOW_FULL = 1 << 15;
        /// All that it says is that the window has grown.
        const WINDOW_UPDATE = 1 << 16;
        /// It does not belong into the connection as it stands: an RST outside the window, or an acknowledgement of
        /// what was never sent. It has changed nothing.
        const STRAY = 1 << 17;
        /// It begins a new connection between addresses whose last one had been seen too.
        const PORT_REUSED = 1 << 18;
        /// The same segment had been seen on another interface, and was counted there.
        const COPY = 1 << 19;
    }
}

impl Notes {
    /// The words for what holds, each as [`Display`](fmt::Display) has them.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        // A retransmission's kind takes its place, and a segment that brings the window to zero is no mere update.
        let kinds = Notes::FAST | Notes::TIMEOUT | Notes::SPURIOUS;
        let words = [
            (Notes::PORT_REUSED, "port reused"),
            (Notes::RETRANSMISSION, if self.intersects(kinds) { "" } else { "retransmission" }),
            (Notes::FAST, "fast retransmission"),
            (Notes::TIMEOUT, "retransmission after a timeout"),
            (Notes::SPURIOUS, "spurious retransmission"),
            (Notes::OUT_OF_ORDER, "out of order"),
            (Notes::GAP, "gap before it"),
            (Notes::UNSEEN_ACKED, "acknowledges what was not captured"),
            (Notes::DUPLICATE_ACK, "duplicate ack"),
            (Notes::SACK, "sack"),
            (Notes::DUPLICATE_SACK, "duplicate sack"),
            (Notes::KEEP_ALIVE, "keep-alive"),
            (Notes::KEEP_ALIVE_ACK, "keep-alive ack"),
            (Notes::ZERO_WINDOW, "zero window"),
            (Notes::WINDOW_PROBE, "window probe"),
            (Notes::WINDOW_PROBE_ACK, "window probe ack"),
            (Notes::WINDOW_FULL, "window full"),
            (Notes::WINDOW_UPDATE, "window update"),
            (Notes::STRAY, "stray"),
            (Notes::COPY, "seen on another interface"),
        ];
        words.into_iter().filter(move |(note, word)| self.contains(*note) && !word.is_empty()).map(|(_, word)| word)
    }
}

impl fmt::Display for Notes {
    /// `spurious retransmission, window full`; nothing for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for word in self.words() {
            write!(f, "{comma}{word}")?;
            comma = ", ";
        }
        Ok(())
    }
}

/// What one segment meant to its connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Step {
    /// The connection it belongs to.
    pub flow: FlowId,
    /// It is the first of that.
    pub first: bool,
    /// Who sent it.
    pub from: Side,
    /// The time since the connection's first segment.
    pub since: Duration,
    /// Its sequence number, counted from the sender's SYN, which is 0, so that the first byte of data is 1. Where no
    /// SYN was seen, the first byte seen is 1. Earlier ones are below.
    pub seq: i64,
    /// Its acknowledgement, counted in the same way from the peer's SYN; none without ACK.
    pub ack: Option<i64>,
    /// How many bytes of data it carried.
    pub len: u32,
    /// The window it grants, in bytes; none where the scale was agreed before the capture.
    pub window: Option<u32>,
    /// Each side's state until now.
    pub before: Sides<State>,
    /// Each side's state from now on.
    pub after: Sides<State>,
    /// What else is worth saying.
    pub notes: Notes,
    /// How the connection ended, if it did by this segment. It is kept for a while nevertheless, for stragglers.
    pub verdict: Option<Verdict>,
    /// The connections that are forgotten from now on: their addresses were used again, they ended long enough ago,
    /// or there are more than the [limits](super::Limits) allow.
    pub retired: Vec<Flow>,
}
