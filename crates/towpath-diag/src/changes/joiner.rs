//! Puts what the kernel tells of one socket together, and gives each life a key. Two things are missing from what it tells: when
//! a connection is asked for, its port, which is chosen a moment later; and a name for a socket but the place where it is kept,
//! which is another socket's after the close. A record that lacks a port waits, and those after it, until the next of the same
//! socket tells it; a little while at most. Pure.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::Key;
use super::format::Record;
use crate::State;

/// How long a record waits for a port. A handshake on this machine is complete after a fiftieth of that.
const GRACE: Duration = Duration::from_millis(5);

#[derive(Default, Debug)]
pub(crate) struct Joiner {
    queue: VecDeque<Record>,
    /// How many have left the queue.
    left: u64,
    /// The sockets of records that wait for a port, and how many had come before that.
    waiting: HashMap<u64, u64>,
    /// By the place where the kernel keeps the socket.
    lives: HashMap<u64, Life>,
    keys: u64,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    key: Key,
    ends: (SocketAddr, SocketAddr),
}

/// What there is to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// A record, and the key of the life that it belongs to.
    Record(Record, Key),
    /// Nothing before this time.
    At(Duration),
    /// The next record has waited long enough: [`Joiner::resolve`] it.
    Unresolved,
    Nothing,
}

/// Whether the kernel had no port for it yet.
fn lacks_port(record: &Record) -> bool {
    record.new == State::SynSent && record.local.port() == 0
        || record.new == State::SynReceived && record.peer.port() == 0
}

fn begins_life(record: &Record) -> bool {
    record.old == State::Closed || record.old == State::Listen && record.new == State::SynReceived
}

impl Joiner {
    /// Takes records in the order of their times.
    pub(crate) fn push(&mut self, record: Record) {
        if lacks_port(&record) {
            self.waiting.insert(record.socket, self.left + self.queue.len() as u64);
        } else if let Some(position) = self.waiting.remove(&record.socket) {
            // One that has left the queue meanwhile did so without.
            let earlier = position.checked_sub(self.left).and_then(|index| self.queue.get_mut(index as usize));
            if let Some(earlier) = earlier.filter(|earlier| earlier.new == record.old) {
                (earlier.local, earlier.peer) = (record.local, record.peer);
            }
        }
        self.queue.push_back(record);
    }

    pub(crate) fn next(&mut self, now: Duration) -> Next {
        match self.queue.front() {
            None => return Next::Nothing,
            Some(first) if lacks_port(first) && self.waiting.contains_key(&first.socket) => {
                let end = first.at + GRACE;
                return if now < end { Next::At(end) } else { Next::Unresolved };
            }
            Some(_) => {}
        }
        let Some(record) = self.queue.pop_front() else { return Next::Nothing };
        self.left += 1;
        Next::Record(record, self.key(&record))
    }

    fn key(&mut self, record: &Record) -> Key {
        let known = self.lives.get(&record.socket).filter(|_| !begins_life(record));
        let key = known.map_or(Key(self.keys), |life| life.key);
        self.keys += u64::from(known.is_none());
        if record.new == State::Closed {
            self.lives.remove(&record.socket);
        } else {
            self.lives.insert(record.socket, Life { key, ends: (record.local, record.peer) });
        }
        key
    }

    /// The addresses here and there of sockets that are connecting now: one that none but a waiting record can be about tells
    /// its port. Records that wait after this do so no more.
    pub(crate) fn resolve(&mut self, connecting: &[(SocketAddr, SocketAddr)]) {
        let taken =
            |ends: &(SocketAddr, SocketAddr), lives: &HashMap<u64, Life>| lives.values().any(|life| life.ends == *ends);
        for record in self.queue.iter_mut().filter(|record| lacks_port(record)) {
            let fits =
                |(local, peer): &&(SocketAddr, SocketAddr)| local.ip() == record.local.ip() && *peer == record.peer;
            let mut candidates = connecting.iter().filter(fits).filter(|ends| !taken(ends, &self.lives));
            if let (Some((local, _)), None) = (candidates.next(), candidates.next()) {
                record.local = *local;
            }
        }
        self.waiting.clear();
    }
}
