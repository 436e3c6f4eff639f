//! Changes found by looking: a dump every interval, and what differs from the last one. A socket is known again by its cookie, and
//! what is left of it in TIME-WAIT by its addresses.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::{Change, Event, Key};
use crate::clock::{Alarm, monotonic};
use crate::{Diag, Filter, Socket, State, States, Want};

/// Sockets that a dump did not tell are looked for one by one, since it may miss some that are there; not if there are more
/// than this, and it says that it is whole.
const SINGLE: usize = 1000;

#[derive(Debug)]
pub(super) struct Sampled {
    diag: Diag,
    /// Of the addresses; states are for what is told, since one may come from any and go to any.
    ends: Filter,
    states: States,
    interval: Duration,
    next: Duration,
    alarm: Alarm,
    known: Known,
    ready: VecDeque<Event>,
}

impl Sampled {
    pub(super) fn open(filter: &Filter, interval: Duration) -> io::Result<Sampled> {
        let ends = Filter { states: States::default(), ..filter.clone() };
        let (diag, alarm, next) = (Diag::open()?, Alarm::new()?, monotonic() + interval);
        let (known, ready) = Default::default();
        let mut sampled = Sampled { diag, ends, states: filter.states, interval, next, alarm, known, ready };
        sampled.look()?;
        sampled.ready.clear();
        sampled.alarm.set(Some(sampled.next))?;
        Ok(sampled)
    }

    /// The next event, if there is one now. If not, the descriptor will be readable when there may be.
    pub(super) fn take(&mut self) -> io::Result<Option<Event>> {
        let now = monotonic();
        if self.ready.is_empty() && now >= self.next {
            self.look()?;
            // Looks that were missed are not made up for.
            self.next = (self.next + self.interval).max(monotonic());
            self.alarm.set(Some(self.next))?;
        }
        Ok(self.ready.pop_front())
    }

    fn look(&mut self) -> io::Result<()> {
        self.known.round += 1;
        let (known, mut unknown) = (&mut self.known, Vec::new());
        let (states, ready) = (self.states, &mut self.ready);
        let mut tell = |change: Change| {
            if states.has(change.old) || states.has(change.new) {
                ready.push_back(Event::Change(change));
            }
        };
        let dumped = self.diag.dump(&self.ends, Want::empty(), |socket| {
            if let Some(socket) = known.see(socket, &mut tell) {
                unknown.push(socket);
            }
        })?;
        let mut missing = self.known.missing();
        if dumped.interrupted || missing.len() <= SINGLE {
            for cookie in std::mem::take(&mut missing) {
                let Some(seen) = self.known.seen.get(&cookie) else { continue };
                match self.diag.again(&seen.socket, Want::empty())? {
                    Some(socket) => drop(self.known.see(socket, &mut tell)),
                    None => missing.push(cookie),
                }
            }
        }
        self.known.replace(&missing, unknown, &mut tell);
        Ok(())
    }
}

impl AsFd for Sampled {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.alarm.as_fd()
    }
}

/// The sockets as of the last look, by cookie.
#[derive(Default, Debug)]
struct Known {
    seen: HashMap<u64, Seen>,
    round: u64,
    keys: u64,
}

#[derive(Debug)]
struct Seen {
    socket: Socket,
    key: Key,
    round: u64,
}

impl Known {
    /// Compares a socket with what is known of it, or gives it back if nothing is.
    fn see(&mut self, socket: Socket, tell: &mut dyn FnMut(Change)) -> Option<Socket> {
        let Some(seen) = self.seen.get_mut(&socket.cookie) else { return Some(socket) };
        if seen.socket.state != socket.state {
            tell(change(&socket, seen.key, seen.socket.state, socket.state));
        }
        (seen.socket, seen.round) = (socket, self.round);
        None
    }

    /// The cookies of those that were not seen in this round.
    fn missing(&self) -> Vec<u64> {
        self.seen.iter().filter(|(_, seen)| seen.round != self.round).map(|(&cookie, _)| cookie).collect()
    }

    /// Puts those that have come in the place of those that are gone, where these have left something, and tells of all.
    fn replace(&mut self, gone: &[u64], come: Vec<Socket>, tell: &mut dyn FnMut(Change)) {
        let gone = gone.iter().filter_map(|cookie| self.seen.remove(cookie));
        let mut gone: HashMap<(SocketAddr, Option<SocketAddr>), Seen> =
            gone.map(|seen| ((seen.socket.local, seen.socket.peer), seen)).collect();
        let mut begun = Vec::new();
        for socket in come {
            let is_remnant = socket.inode.is_none() && matches!(socket.state, State::TimeWait | State::FinWait2);
            match gone.remove(&(socket.local, socket.peer)) {
                Some(last) if is_remnant => {
                    if last.socket.state != socket.state {
                        tell(change(&socket, last.key, last.socket.state, socket.state));
                    }
                    self.insert(socket, last.key);
                }
                last => {
                    if let Some(last) = last {
                        tell(change(&last.socket, last.key, last.socket.state, State::Closed));
                    }
                    begun.push(socket);
                }
            }
        }
        for last in gone.values() {
            tell(change(&last.socket, last.key, last.socket.state, State::Closed));
        }
        for socket in begun {
            let key = Key(self.keys);
            self.keys += 1;
            tell(change(&socket, key, State::Closed, socket.state));
            self.insert(socket, key);
        }
    }

    fn insert(&mut self, socket: Socket, key: Key) {
        self.seen.insert(socket.cookie, Seen { socket, key, round: self.round });
    }
}

fn change(socket: &Socket, key: Key, old: State, new: State) -> Change {
    let Socket { family, local, peer, .. } = *socket;
    Change { at: monotonic(), exact: false, key, family, local, peer, old, new }
}
