//! A connection written down as a script: who sends what, and what flows makes of it.

#![forbid(unsafe_code)]
#![allow(dead_code, reason = "not every test file needs all of it")]

use std::net::SocketAddr;
use std::time::Duration;

use towpath_capture::Timestamp;
use towpath_capture::flow::{Flow, FlowId, Flows, Limits, Notes, Side, State, Step};
use towpath_capture::segment::{Flags, Segment};

pub(crate) const SYN: Flags = Flags::SYN;
pub(crate) const ACK: Flags = Flags::ACK;
pub(crate) const FIN: Flags = Flags::FIN.union(Flags::ACK);
pub(crate) const RST: Flags = Flags::RST;
pub(crate) const PSH: Flags = Flags::PSH.union(Flags::ACK);

/// What both sides send, in sequence numbers that begin at 0 with the SYN.
pub(crate) struct Script {
    pub(crate) flows: Flows,
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    /// The first sequence numbers on the wire.
    pub(crate) isn: (u32, u32),
    pub(crate) now: Duration,
    pub(crate) id: FlowId,
}

impl Script {
    pub(crate) fn new() -> Script {
        Script::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Script {
        Script {
            flows: Flows::with_limits(limits),
            client: "127.0.0.1:39792".parse().unwrap(),
            server: "127.0.0.1:8330".parse().unwrap(),
            isn: (1_000_000, 77),
            now: Duration::from_secs(1_000_000),
            id: FlowId(1),
        }
    }

    /// A connection that is open, after a handshake of 20 µs with windows of 1 000 bytes, unscaled.
    pub(crate) fn open() -> Script {
        let mut script = Script::new();
        script.shake();
        script
    }

    pub(crate) fn shake(&mut self) {
        self.client(SYN, 0, 0, 0);
        self.server(SYN | ACK, 0, 1, 0);
        self.client(ACK, 1, 1, 0);
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    pub(crate) fn segment(&mut self, from: Side, flags: Flags, seq: i64, ack: i64, len: u32) -> Segment<'static> {
        self.now += Duration::from_micros(10);
        let time = Timestamp::from_nanos(self.now.as_nanos() as u64);
        let (client, server) = ((self.client, self.isn.0), (self.server, self.isn.1));
        let (from, to) = if from == Side::Client { (client, server) } else { (server, client) };
        let wire = |isn: u32, relative: i64| isn.wrapping_add(relative as u32);
        let ack = if flags.contains(ACK) { wire(to.1, ack) } else { 0 };
        let mut segment = Segment::new(time, from.0, to.0, wire(from.1, seq), ack, flags);
        segment.payload_len = len;
        segment.window = 1000;
        segment
    }

    pub(crate) fn push(&mut self, segment: &Segment<'_>) -> Step {
        let step = self.flows.push(segment);
        self.id = step.flow;
        step
    }

    pub(crate) fn client(&mut self, flags: Flags, seq: i64, ack: i64, len: u32) -> Step {
        let segment = self.segment(Side::Client, flags, seq, ack, len);
        self.push(&segment)
    }

    pub(crate) fn server(&mut self, flags: Flags, seq: i64, ack: i64, len: u32) -> Step {
        let segment = self.segment(Side::Server, flags, seq, ack, len);
        self.push(&segment)
    }

    /// As `client`, with changes to the segment before it is sent.
    pub(crate) fn client_with(
        &mut self,
        change: impl FnOnce(&mut Segment<'static>),
        at: (Flags, i64, i64, u32),
    ) -> Step {
        let mut segment = self.segment(Side::Client, at.0, at.1, at.2, at.3);
        change(&mut segment);
        self.push(&segment)
    }

    /// As `server`, with changes to the segment before it is sent.
    pub(crate) fn server_with(
        &mut self,
        change: impl FnOnce(&mut Segment<'static>),
        at: (Flags, i64, i64, u32),
    ) -> Step {
        let mut segment = self.segment(Side::Server, at.0, at.1, at.2, at.3);
        change(&mut segment);
        self.push(&segment)
    }

    /// The connection that the last segment belonged to.
    pub(crate) fn flow(&self) -> &Flow {
        self.flows.flow(self.id).expect("the flow is kept")
    }

    pub(crate) fn sack(&self, of: Side, from: i64, to: i64) -> (u32, u32) {
        let isn = if of == Side::Client { self.isn.0 } else { self.isn.1 };
        (isn.wrapping_add(from as u32), isn.wrapping_add(to as u32))
    }
}

/// The states after a step, client first.
pub(crate) fn states(step: &Step) -> (State, State) {
    (step.after.client, step.after.server)
}

/// The step is as expected, and says nothing more.
#[track_caller]
pub(crate) fn assert_notes(step: &Step, notes: Notes) {
    assert_eq!(step.notes, notes, "\n  is \"{}\", not \"{notes}\"", step.notes);
}
