//! Changes found by looking: a dump every interval, and what differs from the last one. A socket is known again by its cookie, and
//! what is left of it in TIME-WAIT by that or, where the kernel gives it another, by its addresses.
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
        let (diag, alarm, next) = (Diag::open()?, Alarm::new()?, monotonic().saturating_add(interval));
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
            self.next = self.next.saturating_add(self.interval).max(monotonic());
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

    /// Puts those that have come in the place of those that are gone, where they are what these have left, and tells of all.
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Change, Known, Socket};
    use crate::State::{self, Closed, Established, TimeWait};
    use crate::row;

    /// 127.0.0.1:80 with 127.0.0.2:4000.
    fn socket(cookie: u8, state: State, inode: u8) -> Socket {
        let mut bytes = [0; 72];
        (bytes[0], bytes[1], bytes[5], bytes[6], bytes[7]) = (row::AF_INET, state.number(), 80, 15, 160);
        (bytes[8], bytes[11], bytes[24], bytes[27]) = (127, 1, 127, 2);
        (bytes[44], bytes[if cfg!(target_endian = "little") { 68 } else { 71 }]) = (cookie, inode);
        let socket = row::parse(&bytes).unwrap();
        assert_eq!(socket.peer, Some(SocketAddr::from(([127, 0, 0, 2], 4000))));
        socket
    }

    /// One look after another: what each tells.
    fn looks(looks: &[Vec<Socket>]) -> Vec<Change> {
        let (mut known, mut told) = (Known::default(), Vec::new());
        for sockets in looks {
            known.round += 1;
            let tell = &mut |change| told.push(change);
            let unknown = sockets.iter().filter_map(|socket| known.see(socket.clone(), tell)).collect();
            let missing = known.missing();
            known.replace(&missing, unknown, tell);
        }
        told
    }

    fn steps(told: &[Change]) -> Vec<(State, State)> {
        told.iter().map(|change| (change.old, change.new)).collect()
    }

    #[test]
    fn what_is_left_under_another_cookie_goes_on_with_the_life() {
        let told = looks(&[vec![socket(1, Established, 9)], vec![socket(2, TimeWait, 0)], vec![]]);
        assert_eq!(steps(&told), [(Closed, Established), (Established, TimeWait), (TimeWait, Closed)]);
        assert!(told.iter().all(|change| change.key == told[0].key));
    }

    #[test]
    fn another_socket_of_the_same_addresses_has_a_life_of_its_own() {
        let told = looks(&[vec![socket(1, Established, 9)], vec![socket(2, Established, 10)]]);
        assert_eq!(steps(&told), [(Closed, Established), (Established, Closed), (Closed, Established)]);
        assert!(told[0].key == told[1].key && told[1].key != told[2].key);
    }

    #[test]
    fn what_stays_as_it_is_is_not_told() {
        let same = || vec![socket(1, Established, 9)];
        assert_eq!(looks(&[same(), same(), same()]).len(), 1);
    }
}
