//! One direction of a connection: what its sender has sent, and what the peer has said about it.

#![forbid(unsafe_code)]

use super::seen::Seen;
use crate::Timestamp;
use crate::segment::{Flags, Segment};

/// What a side waits to have answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Probe {
    #[default]
    None,
    KeepAlive,
    Window,
}

/// What one side has sent. Sequence numbers are relative to its SYN, and do not wrap around.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// The sequence number on the wire that is 0 here; none before anything tells.
    base: Option<u32>,
    /// Its SYN said so.
    pub(super) synced: bool,
    /// One after the last that was sent.
    pub(super) next: i64,
    /// What has been seen of it; its low end is what the peer has to have received.
    pub(super) seen: Seen,
    /// When the sender last sent something new.
    pub(super) advanced: Timestamp,
    /// Its FIN's number.
    pub(super) fin: Option<i64>,
    /// The peer has its FIN, and all before it.
    pub(super) fin_delivered: bool,
    /// What the peer has acknowledged: the first that it has not.
    pub(super) acked: i64,
    /// How often in a row the peer has repeated that although there was more.
    pub(super) duplicates: u32,
    /// The end of the last that the peer has acknowledged selectively.
    pub(super) sacked: i64,
    /// The first that the peer has no room for.
    pub(super) edge: Option<i64>,
    /// The acknowledgement that this side sent last.
    pub(super) last_ack: Option<i64>,
    /// The window that it sent last, as on the wire.
    pub(super) last_window: u16,
    /// By how much its windows are to be shifted, if its SYN was seen.
    pub(super) scale: Option<u8>,
    /// What it has asked last, and had no answer to.
    pub(super) probe: Probe,
    /// How often in a row it has asked or sent again without hearing anything of the peer.
    pub(super) unanswered: u32,
    /// The latest segments, for recognising copies of them.
    recent: [u64; 4],
    /// Where the first was seen.
    home: Option<u32>,
}

impl Track {
    /// Takes the segment's sequence number as the start, if there is none, or none that counts any more.
    pub(super) fn learn(&mut self, segment: &Segment<'_>, opening: bool) {
        if segment.flags.contains(Flags::SYN) {
            let other = self.base != Some(segment.seq);
            if !self.synced || (opening && other) {
                self.base = Some(segment.seq);
                self.synced = true;
                self.next = 0;
                self.seen = Seen::below(0);
            }
        } else if self.base.is_none() {
            self.start(segment.seq.wrapping_sub(1));
        }
    }

    /// Takes what the peer acknowledges as the start, if there is none.
    pub(super) fn learn_from_ack(&mut self, ack: u32) {
        if self.base.is_none() {
            self.start(ack.wrapping_sub(1));
            self.acked = 1;
        }
    }

    /// Begins after a SYN that nobody saw.
    fn start(&mut self, base: u32) {
        self.base = Some(base);
        self.next = 1;
        self.seen = Seen::below(1);
    }

    /// Something is known of it.
    pub(super) fn is_known(&self) -> bool {
        self.base.is_some()
    }

    /// Its SYN has this number on the wire.
    pub(super) fn begins_with(&self, seq: u32) -> bool {
        self.synced && self.base == Some(seq)
    }

    /// The number here for a number on the wire. Of the candidates, 2³² apart, it takes the one that is at most 2³⁰ behind
    /// what was sent last: no window is larger (RFC 7323, 2.2), while a capture may lose any amount.
    pub(super) fn relative(&self, wire: u32) -> i64 {
        let ahead = wire.wrapping_sub(self.base.unwrap_or(wire).wrapping_add(self.next as u32));
        let back = if ahead >= 3 << 30 { 1 << 32 } else { 0 };
        self.next + i64::from(ahead) - back
    }

    /// True if the segment has been seen on another interface already; else it is remembered.
    pub(super) fn is_copy(&mut self, segment: &Segment<'_>) -> bool {
        let Some(interface) = segment.interface else { return false };
        let parts = [
            u64::from(segment.seq) << 32 | u64::from(segment.ack),
            u64::from(segment.payload_len) << 32 | u64::from(segment.flags.bits()) << 16 | u64::from(segment.window),
            u64::from(segment.ip_id.unwrap_or(0)) << 32
                | u64::from(segment.options.timestamps.map_or(0, |ts| ts.value)),
        ];
        let mix = |mixed: u64, part: u64| (mixed.rotate_left(5) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let print = parts.into_iter().fold(1, mix);
        if *self.home.get_or_insert(interface) != interface && self.recent.contains(&print) {
            return true;
        }
        self.recent.rotate_right(1);
        self.recent[0] = print;
        false
    }
}
