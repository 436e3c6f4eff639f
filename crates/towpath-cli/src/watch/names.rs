//! Host names for addresses (`--resolve`). The resolver may take seconds for one, so a few threads ask it, and an address
//! is shown as it is until its name is there.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many lookups go on at once.
const THREADS: usize = 4;
/// How many names are kept; beyond that, addresses stay what they are.
const MOST: usize = 10_000;

/// Names of addresses, as far as they are known by now.
#[derive(Debug)]
pub(crate) struct Names {
    /// `None`: the resolver knows no name.
    known: HashMap<IpAddr, Option<String>>,
    desk: Arc<Desk>,
}

#[derive(Debug, Default)]
struct Desk {
    papers: Mutex<Papers>,
    /// Something was asked, or found.
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Papers {
    asked: Vec<IpAddr>,
    found: Vec<(IpAddr, Option<String>)>,
    /// How many are being looked up.
    pending: usize,
}

impl Names {
    /// Knows none, and can ask.
    pub(crate) fn start() -> io::Result<Names> {
        let desk = Arc::new(Desk::default());
        for _ in 0..THREADS {
            let desk = Arc::clone(&desk);
            thread::Builder::new().name("names".into()).spawn(move || desk.look_up())?;
        }
        Ok(Names { known: HashMap::new(), desk })
    }

    /// The name of `address`, if it is known and has one.
    pub(crate) fn of(&self, address: IpAddr) -> Option<&str> {
        self.known.get(&address)?.as_deref()
    }

    /// Asks for those of `addresses` that were never asked for, and takes in what was found meanwhile.
    pub(crate) fn ask(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut papers = self.desk.papers();
        for (address, name) in papers.found.drain(..) {
            self.known.insert(address, name);
        }
        for address in addresses {
            if self.known.len() < MOST && !address.is_unspecified() && !self.known.contains_key(&address) {
                self.known.insert(address, None);
                papers.asked.push(address);
                papers.pending += 1;
            }
        }
        drop(papers);
        self.desk.moved.notify_all();
    }

    /// Waits until all that was asked for is found, or for `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut papers = self.desk.papers();
        while papers.pending > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            papers = self.desk.moved.wait_timeout(papers, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(papers);
        self.ask([]);
    }
}

impl Desk {
    fn papers(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up what is asked for, as long as the process runs.
    fn look_up(&self) {
        let mut papers = self.papers();
        loop {
            let Some(address) = papers.asked.pop() else {
                papers = self.moved.wait(papers).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(papers);
            // Where there is no name, getnameinfo(3) gives the address again.
            let name = dns_lookup::lookup_addr(&address).ok().filter(|name| *name != address.to_string());
            papers = self.papers();
            papers.found.push((address, name));
            papers.pending -= 1;
            self.moved.notify_all();
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
        names.ask([loopback, loopback, [0, 0, 0, 0].into()]);
        names.wait(Duration::from_secs(30));
        let direct = dns_lookup::lookup_addr(&loopback).ok().filter(|name| name != "127.0.0.1");
        assert_eq!(names.of(loopback), direct.as_deref());
    }
}
