//! What a segment says beyond its headers: sent again, out of order, a probe, a duplicate acknowledgement.
//!
//! All of it is told from one place on the way, where a segment may have been lost before or after. Where nothing tells
//! a case for certain, the rule is at its line.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::track::{Probe, Track};
use super::{Notes, Side, Sides, State};
use crate::segment::{Flags, Segment};

/// What is known of a segment and its connection before it is read.
pub(super) struct Before {
    pub(super) seq: i64,
    pub(super) ack: Option<i64>,
    pub(super) states: Sides<State>,
    pub(super) handshake: Option<Duration>,
    /// The window that it grants.
    pub(super) window: Option<u32>,
}

/// Reads one segment into the tracks of its sender and of its receiver: what it says, and how many bytes of its data are new.
pub(super) fn read(
    segment: &Segment<'_>,
    before: &Before,
    tracks: &mut Sides<Track>,
    (from, to): (Side, Side),
) -> (Notes, u64) {
    let probe = probe(segment, before, tracks, (from, to));
    let mut notes = match probe {
        Probe::None => retransmission(segment, before, &tracks[from]),
        Probe::KeepAlive => Notes::KEEP_ALIVE,
        Probe::Window => Notes::WINDOW_PROBE,
    };
    let data_end = before.seq + i64::from(segment.flags.contains(Flags::SYN)) + i64::from(segment.payload_len);
    if segment.payload_len > 0 && probe == Probe::None && tracks[from].edge == Some(data_end) {
        notes |= Notes::WINDOW_FULL;
    }
    if segment.window == 0 && !segment.flags.intersects(Flags::SYN | Flags::FIN | Flags::RST) {
        notes |= Notes::ZERO_WINDOW;
    }
    if let Some(ack) = before.ack
        && !segment.flags.contains(Flags::RST)
    {
        notes |= acknowledgement(segment, ack, probe, tracks, (from, to));
        grant(segment, ack, before.window, tracks, (from, to));
    }
    let new_bytes =
        if probe == Probe::KeepAlive { 0 } else { advance(segment, before.seq, data_end, &mut tracks[from]) };

    tracks[to].unanswered = 0;
    let track = &mut tracks[from];
    if probe != Probe::None {
        track.probe = probe;
    }
    if notes.intersects(Notes::RETRANSMISSION | Notes::KEEP_ALIVE | Notes::WINDOW_PROBE) {
        track.unanswered = track.unanswered.saturating_add(1);
    }
    (notes, new_bytes)
}

/// Tells probes from data. Linux sends both kinds without data, one before what has been acknowledged; others send a byte.
fn probe(segment: &Segment<'_>, before: &Before, tracks: &Sides<Track>, (from, to): (Side, Side)) -> Probe {
    let track = &tracks[from];
    let open = before.states[from] >= State::Established || before.states[from] == State::Unknown;
    if !open || segment.payload_len > 1 || segment.flags.intersects(Flags::SYN | Flags::FIN | Flags::RST) {
        return Probe::None;
    }
    // Both ends' windows: the peer's is what the probe is about.
    let closed = tracks[to].last_ack.is_some() && tracks[to].last_window == 0;
    let before_last = before.seq == track.next - 1;
    match segment.payload_len {
        0 if before_last || before.seq == track.acked - 1 => {
            if closed {
                Probe::Window
            } else {
                Probe::KeepAlive
            }
        }
        1 if closed && (before_last || before.seq == track.next) => Probe::Window,
        // One byte that the peer has: garbage that asks for an answer. One that it has not is sent again.
        1 if before_last && track.acked >= track.next => Probe::KeepAlive,
        _ => Probe::None,
    }
}

/// Where the segment stands among those of its sender.
fn retransmission(segment: &Segment<'_>, before: &Before, track: &Track) -> Notes {
    let (from, to) = (before.seq, before.seq + i64::from(segment.seq_len()));
    if segment.flags.contains(Flags::RST) {
        return Notes::empty();
    }
    if from > track.next {
        return Notes::GAP;
    }
    // Whoever has sent a SYN and gets the peer's answers with the same number again, now acknowledging (RFC 9293, 3.5).
    let crossed = segment.flags.contains(Flags::SYN | Flags::ACK) && track.last_ack.is_none();
    if from == to || from >= track.next || crossed {
        return Notes::empty();
    }
    if to <= track.acked {
        return Notes::RETRANSMISSION | Notes::SPURIOUS;
    }
    let asked_for = (track.duplicates >= 3 && from == track.acked) || track.sacked > from;
    if track.seen.overlap(from, to) == 0 {
        // Never seen, yet later ones have been. Swapped, the two are less than a round trip apart; to be sent again
        // takes one at least. Without a handshake to tell how long that is, 3 ms.
        let round_trip = before.handshake.unwrap_or(Duration::from_millis(3));
        if track.duplicates < 3 && segment.time.since(track.advanced) < round_trip {
            return Notes::OUT_OF_ORDER;
        }
    }
    Notes::RETRANSMISSION | if asked_for { Notes::FAST } else { Notes::TIMEOUT }
}

/// What the segment acknowledges.
fn acknowledgement(
    segment: &Segment<'_>,
    ack: i64,
    probe: Probe,
    tracks: &mut Sides<Track>,
    (from, to): (Side, Side),
) -> Notes {
    let repeated = tracks[from].last_ack == Some(ack);
    let same_window = tracks[from].last_window == segment.window;
    let grown = segment.window > tracks[from].last_window;
    let bare = segment.seq_len() == 0 && probe == Probe::None;
    // What repeats itself with a closed window has no room, and misses nothing.
    let open = segment.window > 0;
    let track = &mut tracks[to];

    let mut notes = Notes::empty();
    if ack > track.next {
        notes |= Notes::UNSEEN_ACKED;
        track.next = ack;
    }
    let (sacks, duplicate_sacks) = selective(segment, ack, track);
    notes.set(Notes::SACK, sacks);
    notes.set(Notes::DUPLICATE_SACK, duplicate_sacks);
    if bare && repeated {
        notes |= match track.probe {
            Probe::KeepAlive => Notes::KEEP_ALIVE_ACK,
            Probe::Window => Notes::WINDOW_PROBE_ACK,
            Probe::None if ack < track.next && ack >= track.acked && open && (same_window || sacks) => {
                Notes::DUPLICATE_ACK
            }
            Probe::None if grown => Notes::WINDOW_UPDATE,
            Probe::None => Notes::empty(),
        };
    }
    // Whatever came from there is an answer.
    track.probe = Probe::None;
    if notes.contains(Notes::DUPLICATE_ACK) {
        track.duplicates = track.duplicates.saturating_add(1);
    }
    if ack > track.acked {
        track.acked = ack;
        track.duplicates = 0;
        track.seen.reach(ack);
    }
    notes
}

/// Reads selective acknowledgements: whether any is of data received out of order, and whether one is of data received twice.
fn selective(segment: &Segment<'_>, ack: i64, track: &mut Track) -> (bool, bool) {
    let mut blocks = segment.options.sack.iter().map(|block| (track.relative(block.0), track.relative(block.1)));
    let Some(first) = blocks.next() else { return (false, false) };
    let mut end = blocks.clone().map(|block| block.1).max();
    // RFC 2883, 4: the first block tells of a duplicate if it is acknowledged, or lies within the second.
    let duplicate = first.1 <= ack || blocks.next().is_some_and(|next| next.0 <= first.0 && first.1 <= next.1);
    if !duplicate {
        end = end.max(Some(first.1));
    }
    let sacks = end.is_some();
    track.sacked = track.sacked.max(end.unwrap_or(0));
    (sacks, duplicate)
}

/// Keeps what the segment lets the peer send.
fn grant(segment: &Segment<'_>, ack: i64, window: Option<u32>, tracks: &mut Sides<Track>, (from, to): (Side, Side)) {
    if tracks[from].last_ack.is_none_or(|last| ack >= last) {
        tracks[from].last_ack = Some(ack);
        tracks[from].last_window = segment.window;
        tracks[to].edge = window.map(|window| ack + i64::from(window));
    }
}

/// Keeps what has been sent, and says how many bytes of data are new.
fn advance(segment: &Segment<'_>, seq: i64, data_end: i64, track: &mut Track) -> u64 {
    if segment.flags.contains(Flags::RST) {
        return 0;
    }
    let data = data_end - i64::from(segment.payload_len);
    track.seen.add(seq, data);
    let new = track.seen.add(data, data_end);
    let mut end = data_end;
    if segment.flags.contains(Flags::FIN) {
        track.fin.get_or_insert(data_end);
        track.seen.add(data_end, data_end + 1);
        end += 1;
    }
    if end > track.next {
        track.next = end;
        track.advanced = segment.time;
    }
    new.unsigned_abs()
}
