//! What one side has sent, in numbers.

#![forbid(unsafe_code)]

use super::Notes;
use crate::segment::{Ecn, Flags, Segment};

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

impl Counts {
    /// Counts one more segment, but for itself, and whether it was a stray or a copy.
    pub(super) fn add(&mut self, segment: &Segment<'_>, notes: Notes, new_bytes: u64) {
        self.bytes += new_bytes;
        if notes.contains(Notes::RETRANSMISSION) {
            self.retransmitted_bytes += u64::from(segment.payload_len) - new_bytes;
        }
        let opens = segment.flags.contains(Flags::SYN);
        let tallies = [
            (&mut self.retransmissions, notes.contains(Notes::RETRANSMISSION)),
            (&mut self.fast_retransmissions, notes.contains(Notes::FAST)),
            (&mut self.timeout_retransmissions, notes.contains(Notes::TIMEOUT)),
            (&mut self.spurious_retransmissions, notes.contains(Notes::SPURIOUS)),
            (&mut self.out_of_order, notes.contains(Notes::OUT_OF_ORDER)),
            (&mut self.gaps, notes.contains(Notes::GAP)),
            (&mut self.unseen_acked, notes.contains(Notes::UNSEEN_ACKED)),
            (&mut self.duplicate_acks, notes.contains(Notes::DUPLICATE_ACK)),
            (&mut self.sacks, notes.contains(Notes::SACK)),
            (&mut self.duplicate_sacks, notes.contains(Notes::DUPLICATE_SACK)),
            (&mut self.keep_alives, notes.contains(Notes::KEEP_ALIVE)),
            (&mut self.zero_windows, notes.contains(Notes::ZERO_WINDOW)),
            (&mut self.window_probes, notes.contains(Notes::WINDOW_PROBE)),
            (&mut self.window_fulls, notes.contains(Notes::WINDOW_FULL)),
            (&mut self.congestion_marks, segment.ecn == Ecn::Congested),
            // In a SYN these two ask for ECN.
            (&mut self.congestion_echoes, segment.flags.contains(Flags::ECE) && !opens),
            (&mut self.congestion_reductions, segment.flags.contains(Flags::CWR) && !opens),
            (&mut self.pushes, segment.flags.contains(Flags::PSH)),
            (&mut self.urgents, segment.flags.contains(Flags::URG)),
            (&mut self.syns, opens),
            (&mut self.fins, segment.flags.contains(Flags::FIN)),
            (&mut self.resets, segment.flags.contains(Flags::RST)),
        ];
        for (tally, holds) in tallies {
            *tally += u64::from(holds);
        }
    }
}
