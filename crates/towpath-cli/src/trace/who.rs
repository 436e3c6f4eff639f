//! Whose a connection is: the process and, of programs that let themselves be asked, the task at either end that is on this
//! machine. A thread of its own asks the kernel and the programs, for that takes time that no packet has; what it finds is
//! said with the connection's next segment. Where nothing is found, nothing is said.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use towpath_capture::flow::{FlowId, Sides};
use towpath_diag::{Diag, Owner, Owners, Socket, Want};

use crate::tasks::endpoint::{Room, Task, endpoint_of};

/// How many connections may wait to be looked up; of more, nothing is said.
const MOST: usize = 4_096;
/// From one look to the next, at least. Each may go through all processes, and ask programs.
const PAUSE: Duration = Duration::from_millis(25);
/// How often a connection is looked up until all is known: it may not be accepted yet, or its task be busy. Each time it
/// is left alone for twice as long as before, from 50 ms up to 6 s.
const TRIES: u32 = 9;
/// An end that this many looks do not find is elsewhere.
const TRIES_WITHOUT_SOCKET: u32 = 4;
/// When the owner of a socket that nobody seemed to have is looked for again: it was just being accepted.
const SECOND_WALK: u32 = 2;
/// How long a program may take to tell its tasks, and how long they are relied on.
const PATIENCE: Duration = Duration::from_millis(200);
const FRESH: Duration = Duration::from_millis(300);
/// What the tasks of one program may take in memory.
const ROOM: usize = 256 << 20;

/// The addresses of both ends.
type Ends = Sides<SocketAddr>;

/// Asks, and hears what was found.
#[derive(Debug)]
pub(super) struct Clerk {
    ask: SyncSender<(FlowId, Ends)>,
    found: Receiver<(FlowId, String)>,
    /// What is to be said with the next segment.
    news: HashMap<FlowId, String>,
}

impl Clerk {
    /// Starts the thread. None where the kernel does not answer such questions.
    pub(super) fn start() -> Option<Clerk> {
        let diag = Diag::open().ok()?;
        let (ask, asked) = sync_channel(MOST);
        let (find, found) = sync_channel(MOST);
        let desk = Desk { diag, owners: Owners::new(), programs: HashMap::new() };
        thread::Builder::new().name("who".into()).spawn(move || desk.run(&asked, &find)).ok()?;
        Some(Clerk { ask, found, news: HashMap::new() })
    }

    /// What is to be said of a connection with this segment of it, which is its `first` or not.
    pub(super) fn comment(&mut self, flow: FlowId, first: bool, ends: Ends) -> Option<String> {
        if first {
            let _ = self.ask.try_send((flow, ends));
        }
        self.news.extend(self.found.try_iter());
        // Connections that have said their last word.
        if self.news.len() > MOST {
            self.news.clear();
        }
        if self.news.is_empty() { None } else { self.news.remove(&flow) }
    }
}

/// A connection that is not known yet.
struct Case {
    flow: FlowId,
    ends: Ends,
    /// Those of both ends, as they were at the last look.
    sockets: Sides<Option<Socket>>,
    tries: u32,
    /// When it is to be looked up again.
    due: Instant,
    said: String,
}

/// The side that looks.
struct Desk {
    diag: Diag,
    owners: Owners,
    /// The tasks that programs told of as waiting on sockets, and when; nothing, if they cannot be asked.
    programs: HashMap<u32, (Instant, Option<Vec<Task>>)>,
}

impl Desk {
    /// Looks up what is asked until nobody asks any more.
    fn run(mut self, asked: &Receiver<(FlowId, Ends)>, find: &SyncSender<(FlowId, String)>) {
        let mut cases: Vec<Case> = Vec::new();
        loop {
            let next = if cases.is_empty() {
                asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                let due = cases.iter().map(|case| case.due).min();
                asked.recv_timeout(due.map_or(PAUSE, |due| due.saturating_duration_since(Instant::now())))
            };
            match next {
                Ok(case) => cases.extend(std::iter::once(case).chain(asked.try_iter()).map(Case::new)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Of too many, the oldest have had the most looks.
            cases.drain(..cases.len().saturating_sub(MOST));
            let begun = Instant::now();
            self.look(&mut cases, find);
            // A stream of new connections is looked up in parts.
            thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
        }
    }

    /// Looks up those that are due, and keeps what may be known better later.
    fn look(&mut self, cases: &mut Vec<Case>, find: &SyncSender<(FlowId, String)>) {
        let now = Instant::now();
        for case in cases.iter_mut().filter(|case| case.due <= now) {
            case.sockets = self.sockets(case.ends);
        }
        let is_unowned = |case: &Case| case.inodes().any(|inode| self.owners.of(inode).is_empty());
        if cases.iter().any(|case| case.due <= now && case.tries == SECOND_WALK && is_unowned(case)) {
            self.owners = Owners::new();
        }
        self.owners.update(cases.iter().flat_map(Case::inodes));
        cases.retain_mut(|case| {
            if case.due > now {
                return true;
            }
            let (text, complete) = self.describe(&case.sockets, case.tries + 1 < TRIES_WITHOUT_SOCKET);
            if !text.is_empty() && text != case.said {
                let _ = find.try_send((case.flow, text.clone()));
                case.said = text;
            }
            case.due = Instant::now() + PAUSE * (2 << case.tries);
            case.tries += 1;
            !complete && case.tries < TRIES
        });
    }

    /// The sockets of both ends, as far as they are here.
    fn sockets(&mut self, ends: Ends) -> Sides<Option<Socket>> {
        let mut find = |local, peer| self.diag.find(local, Some(peer), Want::empty()).ok().flatten();
        let (client, server) = (find(ends.client, ends.server), find(ends.server, ends.client));
        // Until it is accepted, it is its listener's. One that listens at every address is meant only if there is a socket
        // here, for the server may be elsewhere.
        let port = ends.server.port();
        let anywhere =
            [SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))];
        let anywhere = if server.is_some() { &anywhere[..] } else { &[] };
        let server = server.filter(|socket| socket.inode.is_some()).or_else(|| {
            let mut places = std::iter::once(&ends.server).chain(anywhere);
            places.find_map(|&place| self.diag.find(place, None, Want::empty()).ok().flatten())
        });
        Sides { client, server }
    }

    /// Both ends in words, and whether that is all there will be to know. An end without a socket may still get one if it is
    /// `early`.
    fn describe(&mut self, sockets: &Sides<Option<Socket>>, early: bool) -> (String, bool) {
        let mut complete = true;
        let mut parts = Vec::new();
        for (side, socket) in [("client", &sockets.client), ("server", &sockets.server)] {
            let Some(socket) = socket else {
                complete &= !early;
                continue;
            };
            let owner = socket.inode.and_then(|inode| self.owners.of(inode).first().cloned());
            let Some(Owner { pid, command, fd, .. }) = owner else {
                complete = false;
                continue;
            };
            let mut text = format!("{side} {command} {pid}/{fd}");
            let tasks = self.tasks(pid, socket.cookie);
            for task in tasks.iter().flatten() {
                text += &format!(" task #{}", task.id);
                if let Some(name) = &task.name {
                    text += &format!(" {name:?}");
                }
            }
            complete &= socket.peer.is_some() && tasks.is_none_or(|tasks| !tasks.is_empty());
            parts.push(text);
        }
        (parts.join(", "), complete)
    }

    /// The tasks of this process that wait on the socket with this cookie; none if it does not tell of tasks.
    fn tasks(&mut self, pid: u32, cookie: u64) -> Option<Vec<Task>> {
        let fresh = self.programs.get(&pid).is_some_and(|(when, _)| when.elapsed() < FRESH);
        if !fresh {
            self.programs.retain(|_, (when, _)| when.elapsed() < FRESH);
            let until = Instant::now() + PATIENCE;
            let dump = endpoint_of(pid).and_then(|endpoint| endpoint.ask_for_sockets(until, &Room::new(ROOM)).ok());
            self.programs.insert(pid, (Instant::now(), dump.map(|dump| dump.tasks)));
        }
        let tasks = self.programs.get(&pid).and_then(|(_, tasks)| tasks.as_ref())?;
        Some(tasks.iter().filter(|task| task.cookie == Some(cookie)).cloned().collect())
    }
}

impl Case {
    fn new((flow, ends): (FlowId, Ends)) -> Case {
        Case { flow, ends, sockets: Sides::default(), tries: 0, due: Instant::now(), said: String::new() }
    }

    fn inodes(&self) -> impl Iterator<Item = u32> {
        [&self.sockets.client, &self.sockets.server].into_iter().flatten().filter_map(|socket| socket.inode)
    }
}
