//! All connections of a capture: whose segment is this, and whom to forget.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::{Flow, FlowId, Notes, Side, Sides, State, Step};
use crate::Timestamp;
use crate::segment::Segment;

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many connections that have not ended are kept: 65,536. Of more, those are forgotten first whose handshake is
    /// not complete, then those that have been quiet for longest, many at once.
    pub open: usize,
    /// How many connections that have ended are kept for stragglers: 4,096.
    pub ended: usize,
    /// How long they are kept for them: 60 s, as long as Linux keeps TIME-WAIT.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { open: 65_536, ended: 4_096, linger: Duration::from_secs(60) }
    }
}

/// The connections of a capture.
#[derive(Debug, Default)]
pub struct Flows {
    limits: Limits,
}

impl Flows {
    /// No connections yet, with the default [`Limits`].
    pub fn new() -> Flows {
        Flows::default()
    }

    /// No connections yet.
    pub fn with_limits(limits: Limits) -> Flows {
        Flows { limits }
    }

    /// Takes in the next segment. Never fails, whatever the segment says.
    pub fn push(&mut self, segment: &Segment<'_>) -> Step {
        Step {
            flow: FlowId(1),
            first: false,
            from: Side::Client,
            since: Duration::ZERO,
            seq: 0,
            ack: None,
            len: segment.payload_len,
            window: None,
            before: Sides { client: State::Unknown, server: State::Unknown },
            after: Sides { client: State::Unknown, server: State::Unknown },
            notes: Notes::empty(),
            verdict: None,
            retired: Vec::new(),
        }
    }

    /// A connection that has not been retired.
    pub fn flow(&self, id: FlowId) -> Option<&Flow> {
        let _ = id;
        None
    }

    /// All connections that have not been retired, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        std::iter::empty()
    }

    /// Forgets the connections that ended long enough before `now`, without waiting for the next segment.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Flow> {
        let _ = (now, self.limits);
        Vec::new()
    }

    /// All that have not been retired, by number, each with its last verdict.
    pub fn finish(self) -> Vec<Flow> {
        Vec::new()
    }
}
