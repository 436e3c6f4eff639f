//! Whose a connection is: the process and, of programs that let themselves be asked, the task at either end that is on this
//! machine. A thread of its own asks the kernel and the programs, for that takes time that no packet has; what it finds is
//! said with the connection's next segment. Where nothing is found, nothing is said.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use towpath_capture::flow::{FlowId, Sides};
use towpath_diag::{Diag, Owner, Owners, Socket, Want};

use crate::tasks::endpoint::{Room, Task, endpoint_of};

/// How many connections may wait to be looked up; of more, nothing is said.
const MOST: usize = 4_096;
/// From one look to the next. Each may go through all processes, and ask programs.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a connection is looked up until all is known: it may not be accepted yet, or its task be busy.
const TRIES: u32 = 10;
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
    tries: u32,
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
                asked.recv_timeout(PAUSE)
            };
            match next {
                Ok(case) => cases.extend(std::iter::once(case).chain(asked.try_iter()).map(Case::new)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            cases.truncate(MOST);
            let begun = Instant::now();
            self.look(&mut cases, find);
            // A stream of new connections is looked up in parts.
            thread::sleep((PAUSE / 4).saturating_sub(begun.elapsed()));
        }
    }

    /// Looks all of them up once, and keeps those that may be known better later.
    fn look(&mut self, cases: &mut Vec<Case>, find: &SyncSender<(FlowId, String)>) {
        let sockets: Vec<_> = cases.iter().map(|case| self.sockets(case.ends)).collect();
        let inodes = sockets.iter().flat_map(|pair| [&pair.client, &pair.server]).flatten();
        self.owners.update(inodes.filter_map(|socket| socket.inode));
        let mut sockets = sockets.into_iter();
        cases.retain_mut(|case| {
            let pair = sockets.next().unwrap_or_default();
            let (text, complete) = self.describe(&pair);
            if !text.is_empty() && text != case.said {
                let _ = find.try_send((case.flow, text.clone()));
                case.said = text;
            }
            case.tries += 1;
            !complete && case.tries < TRIES
        });
    }

    /// The sockets of both ends, as far as they are here.
    fn sockets(&mut self, ends: Ends) -> Sides<Option<Socket>> {
        let mut find = |local, peer| self.diag.find(local, Some(peer), Want::empty()).ok().flatten();
        let (client, server) = (find(ends.client, ends.server), find(ends.server, ends.client));
        // Until it is accepted, it is its listener's.
        let listener = |diag: &mut Diag| diag.find(ends.server, None, Want::empty()).ok().flatten();
        let server = server.filter(|socket| socket.inode.is_some()).or_else(|| listener(&mut self.diag));
        Sides { client, server }
    }

    /// Both ends in words, and whether more of them may be known later.
    fn describe(&mut self, sockets: &Sides<Option<Socket>>) -> (String, bool) {
        let mut complete = true;
        let mut parts = Vec::new();
        for (side, socket) in [("client", &sockets.client), ("server", &sockets.server)] {
            let Some(socket) = socket else { continue };
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
        Case { flow, ends, tries: 0, said: String::new() }
    }
}
