//! Whose a socket is: the processes that have a descriptor for its inode. That takes a walk through `/proc/PID/fd` of every
//! process, the dearest thing in this library (2 µs a descriptor), so that one is made only when a socket comes into sight that
//! nobody is known for, once for all of those. What was found is kept while its process lives.
#![forbid(unsafe_code)]

mod proc;

use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proc::Stat;

/// How long nobody is looked for again for a socket that was looked for in vain: that of another user's process, or one
/// that the kernel itself has.
const RETRY: Duration = Duration::from_secs(5);

/// How long what was found is relied on. A process may have passed its descriptor on, or closed it while another has the
/// socket too, which only a walk shows.
const FRESH: Duration = Duration::from_secs(30);

/// Where nothing has changed that one knows of, walks take at most one part in so many of the time.
const SELDOM: u32 = 100;

/// A process that has a socket.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Owner {
    /// The process, by its number.
    pub pid: u32,
    /// The name of its program, at most 15 bytes: `/proc/PID/comm`.
    pub command: Arc<str>,
    /// The descriptor.
    pub fd: u32,
}

/// Knows which processes have which sockets, and looks again only when it must.
///
/// Without privilege, that is known of one's own processes only. Whatever cannot be looked at, or is gone by then, is passed
/// over.
///
/// ```
/// use towpath_diag::{Diag, Filter, Owners, Want};
///
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let sockets = Diag::open()?.sockets(&Filter::new(), Want::empty())?;
///
/// let mut owners = Owners::new();
/// owners.update(sockets.iter().filter_map(|socket| socket.inode));
/// for socket in &sockets {
///     println!("{} {:?}", socket.local, socket.inode.map(|inode| owners.of(inode)));
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default, Debug)]
pub struct Owners {
    sockets: HashMap<u32, Entry>,
    /// The processes that occur among the sockets' owners.
    processes: BTreeMap<u32, Process>,
    /// Counts updates.
    round: u64,
    /// When the last walk ended, how long it took, and how many there were.
    walked: Option<Instant>,
    took: Duration,
    walks: u64,
}

#[derive(Default, Debug)]
struct Entry {
    owners: Vec<Owner>,
    /// The last round in which it was in sight.
    round: u64,
    /// Whether a walk looked for it.
    looked_for: bool,
}

#[derive(Debug)]
struct Process {
    /// When it started, in ticks since the machine did: another time means another process of the same number.
    started: u64,
    command: Arc<str>,
}

impl Owners {
    /// Knows nothing yet.
    pub fn new() -> Owners {
        Owners::default()
    }

    /// Says which sockets are in sight now, by their inodes, all of them. Looks through `/proc`, once at most, if there are
    /// some that it does not know, also if that was long ago, or some seconds for those that nobody has; forgets those that
    /// are not in sight any more, and processes that are gone.
    pub fn update(&mut self, inodes: impl IntoIterator<Item = u32>) {
        self.round += 1;
        self.check_processes();
        for inode in inodes {
            // An accept queue holds sockets that have none.
            if inode != 0 {
                self.sockets.entry(inode).or_default().round = self.round;
            }
        }
        let round = self.round;
        self.sockets.retain(|_, entry| entry.round == round);
        self.walk_if_needed();
    }

    /// Whose this socket is, as of the last update: each descriptor of each process, in the order of their numbers.
    pub fn of(&self, inode: u32) -> &[Owner] {
        self.sockets.get(&inode).map_or(&[], |entry| &entry.owners)
    }

    /// Whose this socket is, be it in sight or not. Looks through `/proc` unless that is known.
    pub fn find(&mut self, inode: u32) -> &[Owner] {
        if inode != 0 {
            self.check_processes();
            self.sockets.entry(inode).or_default().round = self.round;
            self.walk_if_needed();
        }
        self.of(inode)
    }

    fn walk_if_needed(&mut self) {
        let age = self.walked.map_or(Duration::MAX, |then| then.elapsed());
        let is_over = |patience: Duration| age >= patience.max(self.took * SELDOM);
        let (retry, stale) = (is_over(RETRY), is_over(FRESH));
        let wanting = |entry: &Entry| !entry.looked_for || (entry.owners.is_empty() && retry);
        if !self.sockets.is_empty() && (stale || self.sockets.values().any(wanting)) {
            self.walk();
        }
    }

    /// Looks for the owners of every socket in sight.
    fn walk(&mut self) {
        let begun = Instant::now();
        for entry in self.sockets.values_mut() {
            entry.owners.clear();
            entry.looked_for = true;
        }
        self.processes.clear();
        let (sockets, processes) = (&mut self.sockets, &mut self.processes);
        proc::for_each_socket(|pid, fd, inode| {
            let Some(entry) = sockets.get_mut(&inode) else { return };
            let process = match processes.entry(pid) {
                Occupied(known) => known.into_mut(),
                Vacant(new) => {
                    // Gone by now: then it has no socket.
                    let Some(Stat { started, command }) = proc::stat(pid) else { return };
                    new.insert(Process { started, command: command.into() })
                }
            };
            entry.owners.push(Owner { pid, command: process.command.clone(), fd });
        });
        for entry in self.sockets.values_mut().filter(|entry| entry.owners.len() > 1) {
            entry.owners.sort_by_key(|owner| (owner.pid, owner.fd));
        }
        let ended = Instant::now();
        (self.walked, self.took) = (Some(ended), ended - begun);
        self.walks += 1;
    }

    /// Forgets what is known of processes that are gone, or run another program now: a walk tells what has become of their
    /// sockets.
    fn check_processes(&mut self) {
        let before = self.processes.len();
        self.processes.retain(|&pid, process| {
            proc::stat(pid).is_some_and(|now| now.started == process.started && *now.command == *process.command)
        });
        if self.processes.len() == before {
            return;
        }
        for entry in self.sockets.values_mut() {
            let known = entry.owners.len();
            entry.owners.retain(|owner| self.processes.contains_key(&owner.pid));
            entry.looked_for &= entry.owners.len() == known;
        }
    }
}

/// As `fuzzing.rs` shows it.
pub(crate) fn read_stat(bytes: &[u8]) -> Option<(u64, String)> {
    proc::parse(bytes).map(|Stat { started, command }| (started, command))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::Owners;

    fn inode(fd: impl AsFd) -> u32 {
        u32::try_from(rustix::fs::fstat(fd).unwrap().st_ino).unwrap()
    }

    #[test]
    fn a_known_socket_costs_no_walk() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut owners = Owners::new();
        for _ in 0..3 {
            owners.update([inode(&listener)]);
            assert_eq!(owners.of(inode(&listener))[0].pid, std::process::id());
        }
        assert_eq!(owners.walks, 1);
    }

    #[test]
    fn one_walk_serves_all_that_are_new() {
        let listeners = [(); 9].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let mut owners = Owners::new();
        owners.update(listeners.iter().map(inode));
        assert!(listeners.iter().all(|listener| owners.of(inode(listener)).len() == 1));
        assert_eq!(owners.walks, 1);
    }

    #[test]
    fn what_nobody_has_is_not_looked_for_again_at_once() {
        let mut owners = Owners::new();
        for _ in 0..3 {
            owners.update([u32::MAX]);
            assert!(owners.of(u32::MAX).is_empty());
        }
        assert_eq!(owners.walks, 1);
    }

    #[test]
    fn no_inode_is_looked_for_by_nobody() {
        let mut owners = Owners::new();
        owners.update([0]);
        assert!(owners.find(0).is_empty());
        assert_eq!(owners.walks, 0);
    }

    #[test]
    fn a_socket_out_of_sight_is_forgotten() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut owners = Owners::new();
        owners.update([inode(&listener)]);
        owners.update([]);
        assert!(owners.sockets.is_empty() && owners.of(inode(&listener)).is_empty());
    }

    /// What a process that was there before and another of its number have in common is the number.
    #[test]
    fn a_process_that_started_at_another_time_is_another() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut owners = Owners::new();
        owners.update([inode(&listener)]);
        owners.processes.get_mut(&std::process::id()).unwrap().started -= 1;
        owners.update([inode(&listener)]);
        assert_eq!(owners.walks, 2);
        assert_eq!(owners.of(inode(&listener)).len(), 1);
    }
}
