//! What is left of connections that the kernel says are closed. When one enters TIME-WAIT, or has been in FIN-WAIT-2 without a
//! program for a while, the socket is done away with and a small record takes its place, which the kernel tells nothing of. So
//! these are looked up, when the socket closes and then as long as they are there: one in TIME-WAIT when it is due to end, one in
//! FIN-WAIT-2 every interval.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Change, Key};
use crate::{Diag, Family, Socket, State, Want};

/// More are not followed: their end is told at once, as the kernel does.
const MOST: usize = 16_384;

/// Behind a time that has come and gone, look again after so long.
const AGAIN: Duration = Duration::from_millis(20);

pub(super) type Ends = (SocketAddr, SocketAddr);

#[derive(Debug)]
pub(super) struct Remnants {
    diag: Diag,
    interval: Duration,
    by_ends: HashMap<Ends, Remnant>,
    /// When to look at which.
    due: BTreeSet<(Duration, Ends)>,
}

#[derive(Clone, Copy, Debug)]
struct Remnant {
    key: Key,
    family: Family,
    state: State,
    due: Duration,
}

impl Remnants {
    pub(super) fn new(interval: Duration) -> io::Result<Remnants> {
        Ok(Remnants { diag: Diag::open()?, interval, by_ends: HashMap::new(), due: BTreeSet::new() })
    }

    pub(super) fn diag(&mut self) -> &mut Diag {
        &mut self.diag
    }

    /// What the close of a socket really was: the change to what is left of it, or nothing yet, or the close.
    pub(super) fn close(&mut self, close: Change, now: Duration) -> Option<Change> {
        let leaves_something = matches!(close.old, State::FinWait2 | State::Closing);
        let Some(peer) = close.peer.filter(|_| leaves_something && self.by_ends.len() < MOST) else {
            return Some(close);
        };
        let ends = (close.local, peer);
        let Some(found) = self.look(ends) else { return Some(close) };
        let remnant = Remnant { key: close.key, family: close.family, state: found.state, due: self.due(&found, now) };
        self.insert(ends, remnant);
        // If nothing has changed by this, there is nothing to tell.
        (found.state != close.old).then_some(Change { exact: false, new: found.state, ..close })
    }

    /// A socket begins to use these addresses: what is left of the last one is gone.
    pub(super) fn supersede(&mut self, ends: Ends, at: Duration) -> Option<Change> {
        if self.by_ends.is_empty() {
            return None;
        }
        let remnant = self.remove(ends)?;
        Some(change(ends, remnant, State::Closed, at))
    }

    /// When to look next.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Looks at those that are due.
    pub(super) fn look_at_due(&mut self, now: Duration, mut tell: impl FnMut(Change)) {
        while let Some(&(due, ends)) = self.due.first()
            && due <= now
        {
            let found = self.look(ends);
            let Some(mut remnant) = self.remove(ends) else { continue };
            let state = found.as_ref().map_or(State::Closed, |found| found.state);
            if state != remnant.state {
                tell(change(ends, remnant, state, now));
            }
            if let Some(found) = found {
                (remnant.state, remnant.due) = (state, self.due(&found, now));
                self.insert(ends, remnant);
            }
        }
    }

    /// What is there of these addresses, if it is no more than a remnant. What the kernel cannot say now is not there.
    fn look(&mut self, (local, peer): Ends) -> Option<Socket> {
        let found = self.diag.find(local, peer, Want::empty()).ok()??;
        (found.inode.is_none() && matches!(found.state, State::TimeWait | State::FinWait2)).then_some(found)
    }

    fn due(&self, found: &Socket, now: Duration) -> Duration {
        let rest = match (found.state, found.timer) {
            (State::TimeWait, Some(timer)) => timer.expires,
            _ => self.interval,
        };
        now.saturating_add(rest.max(AGAIN))
    }

    fn insert(&mut self, ends: Ends, remnant: Remnant) {
        self.remove(ends);
        self.by_ends.insert(ends, remnant);
        self.due.insert((remnant.due, ends));
    }

    fn remove(&mut self, ends: Ends) -> Option<Remnant> {
        let remnant = self.by_ends.remove(&ends)?;
        self.due.remove(&(remnant.due, ends));
        Some(remnant)
    }
}

fn change((local, peer): Ends, remnant: Remnant, new: State, at: Duration) -> Change {
    let Remnant { key, family, state: old, .. } = remnant;
    Change { at, exact: false, key, family, local, peer: Some(peer), old, new }
}
