//! Host names for addresses (`--resolve`). The resolver may take seconds for one, so a few threads ask it, and an address
//! is shown as it is until its name is there.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use std::{io, thread};

use signal_hook::consts::SIGTERM;
use towpath::sync::channel::{self, Receiver, Sender};
use towpath::time::Instant;

/// How many lookups go on at once.
const THREADS: usize = 4;
/// How many names are kept; beyond that, addresses stay what they are.
const MOST: usize = 10_000;

/// An address, and its name if the resolver knows one.
type Found = (IpAddr, Option<String>);

/// Names of addresses, as far as they are known by now.
#[derive(Debug)]
pub(crate) struct Names {
    /// `None`: the resolver knows no name, or has not said so yet.
    known: HashMap<IpAddr, Option<String>>,
    /// How many it has not said yet.
    pending: usize,
    asked: Sender<IpAddr>,
    found: Receiver<Found>,
}

impl Names {
    /// Knows none, and can ask.
    pub(crate) fn start() -> io::Result<Names> {
        let (asked, asks) = channel::unbounded();
        let (tell, found) = channel::unbounded();
        for _ in 0..THREADS {
            let (asks, tell) = (asks.clone(), tell.clone());
            thread::Builder::new().name("names".into()).spawn(move || look_up(&asks, &tell))?;
        }
        Ok(Names { known: HashMap::new(), pending: 0, asked, found })
    }

    /// The name of `address`, if it is known and has one.
    pub(crate) fn of(&self, address: IpAddr) -> Option<&str> {
        self.known.get(&address)?.as_deref()
    }

    /// Asks for those of `addresses` that were never asked for, and says whether there are any; takes in what was found
    /// meanwhile.
    pub(crate) fn ask(&mut self, addresses: impl IntoIterator<Item = IpAddr>) -> bool {
        while let Ok(found) = self.found.try_recv() {
            self.take(found);
        }
        let mut any = false;
        for address in addresses {
            let is_new = self.known.len() < MOST && !address.is_unspecified() && !self.known.contains_key(&address);
            if is_new && self.asked.send(address).is_ok() {
                self.known.insert(address, None);
                self.pending += 1;
                any = true;
            }
        }
        any
    }

    /// Waits until all that was asked for is found, or for `patience`; or returns the signal that comes first.
    pub(crate) fn wait(&mut self, patience: Duration, stop: &Receiver<i32>) -> Option<i32> {
        let deadline = Instant::now() + patience;
        while self.pending > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            let found = towpath::select! {
                recv(self.found) -> found => found.ok(),
                recv(stop) -> signal => return Some(signal.unwrap_or(SIGTERM)),
                timeout(left) => None,
            };
            self.take(found?);
        }
        None
    }

    fn take(&mut self, (address, name): Found) {
        self.known.insert(address, name);
        self.pending -= 1;
    }
}

/// Looks up what is asked for, until nobody asks any more.
fn look_up(asks: &Receiver<IpAddr>, tell: &Sender<Found>) {
    for address in asks.iter() {
        // Where there is no name, getnameinfo(3) gives the address again.
        let name = dns_lookup::lookup_addr(&address).ok().filter(|name| *name != address.to_string());
        if tell.send((address, name)).is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_this_machine_is_found_where_the_resolver_has_one() {
        let loopback = IpAddr::from([127, 0, 0, 1]);
        let mut names = Names::start().unwrap();
        assert_eq!(names.of(loopback), None);
        let (_signal, stop) = channel::bounded(1);
        assert!(names.ask([loopback, loopback, [0, 0, 0, 0].into()]));
        assert!(!names.ask([loopback]));
        assert_eq!(names.wait(Duration::from_secs(30), &stop), None);
        let direct = dns_lookup::lookup_addr(&loopback).ok().filter(|name| name != "127.0.0.1");
        assert_eq!(names.of(loopback), direct.as_deref());
    }
}
