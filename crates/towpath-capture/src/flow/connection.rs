//! One connection: what its next segment means to both of its sides.

#![forbid(unsafe_code)]

use super::analysis;
use super::flow::End;
use super::track::Track;
use super::{Counts, Flow, FlowId, Notes, Side, Sides, State, Step, Verdict};
use crate::segment::{Flags, Segment};

/// A connection and what is needed to read its next segment.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) flow: Flow,
    tracks: Sides<Track>,
    /// Both ends are the same socket, which has connected to itself: all it sends, it receives.
    itself: bool,
}

impl Connection {
    /// How many retransmissions or probes without an answer say that the peer is gone.
    const GONE: u32 = 3;

    /// The connection that this segment is the first of, as far as it was seen.
    pub(super) fn new(id: FlowId, segment: &Segment<'_>) -> Connection {
        let from = first_sender(segment);
        let begins = segment.flags & (Flags::SYN | Flags::ACK) == Flags::SYN;
        let end = |side: Side, state| End {
            addr: if side == from { segment.from } else { segment.to },
            state: if begins { state } else { State::Unknown },
            offered: None,
            sent: Counts::default(),
        };
        Connection {
            flow: Flow {
                id,
                ends: Sides { client: end(Side::Client, State::Closed), server: end(Side::Server, State::Listen) },
                began: segment.time,
                latest: segment.time,
                ended: None,
                from_middle: !begins,
                handshake: None,
                closed_first: None,
                simultaneous_open: false,
                simultaneous_close: false,
                verdict: Verdict::StillOpen,
            },
            tracks: Sides::default(),
            itself: segment.from == segment.to,
        }
    }

    /// The side that sent this.
    pub(super) fn sender(&self, segment: &Segment<'_>) -> Side {
        if segment.from == self.flow.ends.client.addr { Side::Client } else { Side::Server }
    }

    /// The segment begins another connection between the same addresses.
    pub(super) fn is_succeeded_by(&self, segment: &Segment<'_>) -> bool {
        let from = self.sender(segment);
        if !segment.flags.contains(Flags::SYN) || self.tracks[from].begins_with(segment.seq) {
            return false;
        }
        if self.flow.ended.is_some() {
            return true;
        }
        // A SYN across the client's own is a simultaneous open, not a new beginning.
        let crosses = from == Side::Server && self.flow.ends.client.state == State::SynSent;
        !segment.flags.contains(Flags::ACK) && !crosses
    }

    /// Takes in the next segment.
    pub(super) fn push(&mut self, segment: &Segment<'_>) -> Step {
        let from = self.sender(segment);
        let to = if self.itself { from } else { from.other() };
        let flags = segment.flags;
        let opening = self.flow.handshake.is_none() && !self.flow.from_middle;
        self.flow.latest = self.flow.latest.max(segment.time);

        let copy = self.tracks[from].is_copy(segment);
        if !copy {
            self.tracks[from].learn(segment, opening);
        }
        if flags.contains(Flags::ACK) && !copy {
            self.tracks[to].learn_from_ack(segment.ack);
        }
        let seq = self.tracks[from].relative(segment.seq);
        let ack = flags.contains(Flags::ACK).then(|| self.tracks[to].relative(segment.ack));
        let states = self.states();
        let had_ended = self.flow.ended.is_some();
        let mut step = Step {
            flow: self.flow.id,
            first: false,
            from,
            since: segment.time.since(self.flow.began),
            seq,
            ack,
            len: segment.payload_len,
            window: self.window(segment, from),
            before: states,
            after: states,
            notes: Notes::empty(),
            verdict: None,
            retired: Vec::new(),
        };
        if copy {
            step.notes = Notes::COPY;
            self.flow.ends[from].sent.copies += 1;
            return step;
        }
        self.flow.ends[from].sent.segments += 1;
        if self.is_stray(segment, to, seq, ack) {
            step.notes = Notes::STRAY;
            self.flow.ends[from].sent.strays += 1;
            return step;
        }

        self.offer(segment, from);
        let before = analysis::Before { seq, ack, states, handshake: self.flow.handshake, window: step.window };
        let (notes, new_bytes) = analysis::read(segment, &before, &mut self.tracks, (from, to));
        step.notes = notes;
        self.flow.ends[from].sent.add(segment, notes, new_bytes);
        if segment.flags.intersects(Flags::FIN | Flags::RST) {
            self.flow.closed_first.get_or_insert(from);
        }
        self.move_states(segment, (from, to), ack);
        self.judge(segment, (from, to), states);
        step.after = self.states();
        step.verdict = (self.flow.ended.is_some() && !had_ended).then_some(self.flow.verdict);
        step
    }

    fn states(&self) -> Sides<State> {
        self.flow.ends.map(|end| end.state)
    }

    /// Keeps what a SYN offers: the scale counts only if both offer one (RFC 7323, 2.2).
    fn offer(&mut self, segment: &Segment<'_>, from: Side) {
        if !segment.flags.contains(Flags::SYN) {
            return;
        }
        self.flow.ends[from].offered = Some(segment.options);
        let offers = self.flow.ends.map(|end| end.offered);
        let (Some(client), Some(server)) = (offers.client, offers.server.or(self.itself.then_some(segment.options)))
        else {
            return;
        };
        let both = client.window_scale.zip(server.window_scale);
        self.tracks.client.scale = Some(both.map_or(0, |scales| scales.0.min(14)));
        self.tracks.server.scale = Some(both.map_or(0, |scales| scales.1.min(14)));
    }

    /// The window that the segment grants, where its scale is known. In a SYN it has none.
    fn window(&self, segment: &Segment<'_>, from: Side) -> Option<u32> {
        match self.tracks[from].scale {
            _ if segment.flags.contains(Flags::SYN) || segment.window == 0 => Some(segment.window.into()),
            scale => Some(u32::from(segment.window) << scale?),
        }
    }

    /// The segment has nothing to do with the connection as it stands, and its receiver takes it for what it is.
    fn is_stray(&self, segment: &Segment<'_>, to: Side, seq: i64, ack: Option<i64>) -> bool {
        let receiver = self.flow.ends[to].state;
        let sent = &self.tracks[to];
        if receiver == State::SynSent && !self.itself {
            // RFC 9293, 3.10.7.3: an acknowledgement of anything but the SYN is out of place, and an RST needs a good one.
            return match ack {
                Some(ack) => ack < 1 || ack > sent.next,
                None => segment.flags.contains(Flags::RST),
            };
        }
        if !segment.flags.contains(Flags::RST) || receiver.is_over() || receiver == State::Unknown {
            return false;
        }
        // RFC 9293, 3.10.7.4, but for keep-alives, which are answered with the number before.
        let came = &self.tracks[if self.itself { to } else { to.other() }];
        // Before the peer has granted a window nothing is larger than a SYN can say; later, what RFC 7323 allows.
        let most = if self.flow.handshake.is_none() && !self.flow.from_middle { 0xffff } else { 1 << 30 };
        let end = came.edge.unwrap_or(came.next + most).max(came.next);
        came.synced && (seq < came.seen.low() - 1 || seq > end)
    }

    /// What sending does to the sender's state, and receiving to the receiver's.
    fn move_states(&mut self, segment: &Segment<'_>, (from, to): (Side, Side), ack: Option<i64>) {
        let flags = segment.flags;
        // The sender has what it acknowledges, even if the capture has missed some of it.
        self.deliver_fin(to, from);
        let had_fin = self.tracks[to].fin.is_none_or(|fin| ack.is_some_and(|ack| ack > fin));

        let sender = &mut self.flow.ends[from].state;
        let before = *sender;
        *sender = before.after_sending(flags);
        if *sender == State::LastAck && before == State::CloseWait && !had_fin {
            // Its FIN left before the other's arrived.
            *sender = State::Closing;
            self.flow.simultaneous_close = true;
        }

        let acks_syn = ack.is_some_and(|ack| ack >= 1);
        let acks_fin = self.tracks[to].fin.is_some_and(|fin| ack.is_some_and(|ack| ack > fin));
        let receiver = &mut self.flow.ends[to].state;
        if *receiver == State::SynSent && flags & (Flags::SYN | Flags::ACK) == Flags::SYN {
            self.flow.simultaneous_open = true;
        }
        *receiver = receiver.after_receiving(flags, acks_syn, acks_fin);
        self.deliver_fin(from, to);

        // Whether a SYN without an answer has arrived, nobody knows.
        if self.flow.ends[from].sent.syns > 1 && !self.tracks[to].is_known() && flags.contains(Flags::SYN) {
            self.flow.ends[to].state = State::Unknown;
        }
        if self.itself {
            self.flow.ends.server.state = self.flow.ends.client.state;
        }
    }

    /// Tells `to` of `from`'s FIN, once all before it is there.
    fn deliver_fin(&mut self, from: Side, to: Side) {
        let track = &mut self.tracks[from];
        if !track.fin_delivered && track.fin.is_some_and(|fin| track.seen.low() > fin) {
            track.fin_delivered = true;
            self.flow.ends[to].state = self.flow.ends[to].state.after_fin();
        }
    }

    /// Decides how it ended, if it has, or where it stands.
    fn judge(&mut self, segment: &Segment<'_>, sides: (Side, Side), before: Sides<State>) {
        let states = self.states();
        if self.flow.handshake.is_none()
            && !self.flow.from_middle
            && states.client >= State::Established
            && states.server >= State::Established
        {
            self.flow.handshake = Some(segment.time.since(self.flow.began));
        }
        if self.flow.ended.is_some() {
            return;
        }
        if states.client.is_over() && states.server.is_over() {
            self.flow.ended = Some(segment.time);
            self.flow.verdict = self.end(segment, sides, before);
        } else {
            self.flow.verdict = self.standing();
        }
    }

    /// How it ended, by its last segment.
    fn end(&self, segment: &Segment<'_>, (from, to): (Side, Side), before: Sides<State>) -> Verdict {
        if !segment.flags.contains(Flags::RST) {
            // One of the two may have been reset before, and the other not have taken it.
            let resets = self.flow.ends.map(|end| end.sent.resets > 0);
            return match (resets.client, resets.server) {
                (true, _) => Verdict::Reset { by: Side::Client },
                (_, true) => Verdict::Reset { by: Side::Server },
                _ => Verdict::Clean,
            };
        }
        if before[to] == State::SynSent {
            return Verdict::Refused;
        }
        // RFC 9293, 3.10.7.1: whoever knows nothing of a connection answers with the number that the segment
        // acknowledged, and without ACK; whoever breaks one off, acknowledges what it has.
        let knows = segment.flags.contains(Flags::ACK) || self.flow.ends[from].sent.fins > 0;
        let was_open = self.flow.handshake.is_some() || self.flow.from_middle;
        if !knows && was_open && before[to] != State::Unknown {
            return Verdict::HalfOpen { gone: from };
        }
        if self.tracks[from].unanswered >= Connection::GONE {
            return Verdict::HalfOpen { gone: to };
        }
        Verdict::Reset { by: from }
    }

    /// Where it stands without having ended.
    fn standing(&self) -> Verdict {
        if !self.flow.from_middle && self.flow.handshake.is_none() {
            let client = &self.flow.ends.client;
            if client.state == State::SynSent {
                return Verdict::NoAnswer { syns: u32::try_from(client.sent.syns).unwrap_or(u32::MAX) };
            }
            return Verdict::Unfinished;
        }
        for side in [Side::Client, Side::Server] {
            if self.tracks[side].unanswered >= Connection::GONE {
                return Verdict::HalfOpen { gone: side.other() };
            }
        }
        if self.flow.from_middle { Verdict::Middle } else { Verdict::StillOpen }
    }
}

/// Which side sent the first segment that was seen. Without a SYN it is a guess: a server's port is one that a system
/// does not give out by itself (on Linux from 32,768 on), or else the lower one.
fn first_sender(segment: &Segment<'_>) -> Side {
    if segment.flags.contains(Flags::SYN) {
        return if segment.flags.contains(Flags::ACK) { Side::Server } else { Side::Client };
    }
    let rank = |port: u16| (port >= 32_768, port >= 1024, port);
    if rank(segment.from.port()) < rank(segment.to.port()) { Side::Server } else { Side::Client }
}
