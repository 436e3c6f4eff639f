//! All connections of a capture: whose segment is this, and whom to forget.

#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::connection::Connection;
use super::{Flow, FlowId, Notes, Step};
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
///
/// Time is what the segments say; the latest that was seen is now.
#[derive(Debug, Default)]
pub struct Flows {
    limits: Limits,
    /// How many there have been.
    count: u64,
    /// How many of those that are kept have not ended.
    open: usize,
    connections: HashMap<FlowId, Box<Connection>>,
    /// The latest connection between two addresses, which are in order.
    between: HashMap<(SocketAddr, SocketAddr), FlowId>,
    /// Those that have ended, and when, in that order. Some of them have been forgotten already.
    ended: VecDeque<(FlowId, Timestamp)>,
    now: Timestamp,
}

impl Flows {
    /// No connections yet, with the default [`Limits`].
    pub fn new() -> Flows {
        Flows::default()
    }

    /// No connections yet.
    pub fn with_limits(limits: Limits) -> Flows {
        Flows { limits, ..Flows::default() }
    }

    /// Takes in the next segment. Never fails, whatever the segment says.
    pub fn push(&mut self, segment: &Segment<'_>) -> Step {
        self.now = self.now.max(segment.time);
        let mut retired = self.expire(self.now);

        let key = (segment.from.min(segment.to), segment.from.max(segment.to));
        let mut reused = false;
        let known = self.between.get(&key).copied().filter(|id| {
            reused = self.connections.get(id).is_some_and(|connection| connection.is_succeeded_by(segment));
            !reused
        });
        let (id, first) = match known {
            Some(id) => (id, false),
            None => {
                self.make_room(&mut retired);
                self.count += 1;
                self.open += 1;
                let id = FlowId(self.count);
                if let Some(predecessor) = self.between.insert(key, id) {
                    retired.extend(self.forget(predecessor));
                }
                self.connections.insert(id, Box::new(Connection::new(id, segment)));
                (id, true)
            }
        };
        let connection = self.connections.get_mut(&id).expect("`between` names connections that are kept");
        let mut step = connection.push(segment);
        step.first = first;
        step.notes.set(Notes::PORT_REUSED, reused);
        step.retired = retired;
        if step.verdict.is_some() {
            self.open -= 1;
            self.ended.push_back((id, self.now));
        }
        step
    }

    /// A connection that has not been retired.
    pub fn flow(&self, id: FlowId) -> Option<&Flow> {
        self.connections.get(&id).map(|connection| &connection.flow)
    }

    /// All connections that have not been retired, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.connections.values().map(|connection| &connection.flow)
    }

    /// Forgets the connections that ended long enough before `now`, without waiting for the next segment.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Flow> {
        let mut retired = Vec::new();
        while let Some(&(id, since)) = self.ended.front() {
            if self.ended.len() <= self.limits.ended && now.since(since) < self.limits.linger {
                break;
            }
            self.ended.pop_front();
            retired.extend(self.forget(id));
        }
        retired
    }

    /// All that have not been retired, by number, each with its last verdict.
    pub fn finish(self) -> Vec<Flow> {
        let mut flows: Vec<_> = self.connections.into_values().map(|connection| connection.flow).collect();
        flows.sort_unstable_by_key(|flow| flow.id);
        flows
    }

    /// Forgets a sixteenth of the open connections if there are too many of them, so that looking at all of them is rare.
    fn make_room(&mut self, retired: &mut Vec<Flow>) {
        if self.open < self.limits.open {
            return;
        }
        let open = self.connections.values().filter(|connection| connection.flow.ended.is_none());
        let mut order: Vec<_> = open
            .map(|connection| {
                let flow = &connection.flow;
                let shaken = flow.handshake.is_some() || flow.from_middle;
                (shaken, flow.latest, flow.id)
            })
            .collect();
        order.sort_unstable();
        let many = (self.limits.open / 16).max(1);
        for &(_, _, id) in order.iter().take(many) {
            retired.extend(self.forget(id));
        }
    }

    fn forget(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.connections.remove(&id)?.flow;
        self.open -= usize::from(flow.ended.is_none());
        let (client, server) = (flow.ends.client.addr, flow.ends.server.addr);
        let key = (client.min(server), client.max(server));
        // Its addresses may have a successor by now.
        if self.between.get(&key) == Some(&id) {
            self.between.remove(&key);
        }
        Some(flow)
    }
}
