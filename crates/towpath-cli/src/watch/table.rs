//! The table: a row a socket, from one look at the kernel to the next.
//!
//! A look is `begin`, `see` for each socket, `end`. Between them the table learns which cells changed, how long a state
//! has lasted, and which sockets are gone; those are kept a while. It knows neither clocks nor the kernel: times are
//! given to it. With ten thousand sockets and a look every two seconds this file is where the time goes, so a socket
//! that is as it was costs one lookup and a few comparisons, and allocates nothing.
//!
//! A [`Moment`] is one on the clock that the kernel's events are on.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use bitflags::bitflags;
use towpath_diag::{Socket, State, TcpInfo, TimerKind};

/// How long a socket that is gone keeps its row.
pub(crate) const KEPT: Duration = Duration::from_secs(10);

/// How long Linux keeps a socket in TIME-WAIT (TCP_TIMEWAIT_LEN): its timer tells since when it is there.
pub(crate) const TIME_WAIT: Duration = Duration::from_secs(60);

/// A time on CLOCK_MONOTONIC, as [`towpath_diag::monotonic`] has it.
pub(crate) type Moment = Duration;

/// The two ends of a socket, ours first. A listener has one.
pub(crate) type Ends = (SocketAddr, Option<SocketAddr>);

bitflags! {
    /// Cells of a row.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct Cells: u8 {
        const STATE = 1;
        const RECEIVE_QUEUE = 1 << 1;
        const SEND_QUEUE = 1 << 2;
        const RTT = 1 << 3;
        const CWND = 1 << 4;
        const RETRANS = 1 << 5;
    }
}

/// What the table takes in of a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) cookie: u64,
    pub(crate) state: State,
    pub(crate) local: SocketAddr,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) inode: Option<u32>,
    /// The user whose it is.
    pub(crate) uid: u32,
    pub(crate) receive_queue: u32,
    pub(crate) send_queue: u32,
    /// How long it will stay in TIME-WAIT.
    pub(crate) time_wait: Option<Duration>,
    pub(crate) info: Option<&'a TcpInfo>,
}

/// A socket that is there, or was until lately.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) cookie: u64,
    pub(crate) state: State,
    pub(crate) local: SocketAddr,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) inode: Option<u32>,
    /// The user whose it is.
    pub(crate) uid: u32,
    /// Bytes that the program has not read; of a listener, connections that wait for accept.
    pub(crate) receive_queue: u32,
    /// Bytes that the peer has not acknowledged; of a listener, how many connections may wait.
    pub(crate) send_queue: u32,
    /// How its segments fare, if that was asked for.
    pub(crate) path: Option<Path>,
    /// What changed with the last look, or ever, as the table was made.
    pub(crate) changed: Cells,
    /// When it came into its state.
    pub(crate) since: Since,
    /// Whether `since` is when it was seen to happen.
    pub(crate) told: bool,
    /// It did so after this, when the look began that it was not yet seen by in that state (zero: nobody had looked), ...
    pub(crate) after: Moment,
    /// ... and by this, when the look had ended that it was.
    pub(crate) by: Moment,
    /// When it was found to be gone.
    pub(crate) gone: Option<Moment>,
    /// The last look that saw it.
    seen: u32,
    /// The last look for which `path` was asked.
    path_seen: u32,
}

/// How the segments of a connection fare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) rtt: Option<Duration>,
    /// In segments.
    pub(crate) cwnd: Option<u32>,
    /// How many segments were sent again.
    pub(crate) retrans: Option<u32>,
}

/// When a state began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since {
    pub(crate) at: Moment,
    /// False: it had begun when we first looked.
    pub(crate) known: bool,
}

/// All rows. The number of a row stays the same as long as there is the row.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Option<Row>>,
    free: Vec<u32>,
    by_cookie: HashMap<u64, u32, BuildHasherDefault<CookieHasher>>,
    /// The number of the present look; the first is 1.
    look: u32,
    /// When the present look began.
    began: Moment,
    /// When the last whole look before it did.
    before: Moment,
    /// The rows that came with the present look.
    new: Vec<u32>,
    cumulative: bool,
}

/// What a look came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Rows that came, by number.
    pub(crate) new: Vec<u32>,
    /// Rows that went, so that their numbers mean nothing any more.
    pub(crate) removed: bool,
    /// Sockets that go on under another cookie, as they do when they enter TIME-WAIT: old and new.
    pub(crate) renamed: Vec<(u64, u64)>,
}

impl Table {
    /// An empty table. If `cumulative`, a cell that has changed once stays marked.
    pub(crate) fn new(cumulative: bool) -> Table {
        let (began, before) = (Moment::ZERO, Moment::ZERO);
        Table {
            rows: vec![],
            free: vec![],
            by_cookie: HashMap::default(),
            look: 0,
            began,
            before,
            new: vec![],
            cumulative,
        }
    }

    /// Begins a look.
    pub(crate) fn begin(&mut self, now: Moment) {
        self.look += 1;
        self.began = now;
        self.new.clear();
    }

    /// Takes in `socket`, which is there `now`.
    pub(crate) fn see(&mut self, socket: &Seen<'_>, now: Moment) {
        let row = match self.by_cookie.get(&socket.cookie) {
            Some(&number) => self.rows[number as usize].as_mut().expect("a cookie leads to a row"),
            None => return self.add(socket, now),
        };
        let mut changed = Cells::empty();
        if row.state != socket.state {
            changed |= Cells::STATE;
            row.state = socket.state;
            (row.since, row.told) = (Since { at: now, known: true }, false);
            (row.after, row.by) = (self.before, Moment::MAX);
        }
        changed.set(Cells::RECEIVE_QUEUE, row.receive_queue != socket.receive_queue);
        changed.set(Cells::SEND_QUEUE, row.send_queue != socket.send_queue);
        (row.receive_queue, row.send_queue) = (socket.receive_queue, socket.send_queue);
        // A socket that is accepted gets its inode, and one that is closed loses it.
        (row.inode, row.uid) = (socket.inode, socket.uid);
        row.peer = socket.peer;
        row.gone = None;
        row.seen = self.look;
        row.changed = if self.cumulative { row.changed | changed } else { changed };
        match socket.info {
            Some(info) => row.take(info, self.look),
            // There is nothing left of how its segments fared.
            None if row.state == State::TimeWait => row.path = None,
            None => {}
        }
    }

    /// Ends the look, which had seen everything by `now`. If it was `whole`, what it has not seen is gone.
    pub(crate) fn end(&mut self, now: Moment, whole: bool) -> Looked {
        let mut looked = Looked { new: std::mem::take(&mut self.new), ..Looked::default() };
        let mut heirs: Option<HashMap<Ends, u32>> = None;
        for number in 0..self.rows.len() as u32 {
            let Some(row) = &mut self.rows[number as usize] else { continue };
            if row.seen == self.look {
                if row.by == Moment::MAX {
                    row.by = now;
                }
                continue;
            }
            let (cookie, ends, state) = (row.cookie, row.ends(), row.state);
            if row.gone.is_none() {
                if !whole {
                    continue;
                }
                let heirs = heirs.get_or_insert_with(|| self.heirs(&looked.new));
                if let Some(&heir) = heirs.get(&ends) {
                    looked.renamed.push((cookie, self.inherit(heir, number)));
                } else if state != State::TimeWait {
                    self.bury(number, now);
                    continue;
                }
            } else if row.gone.is_some_and(|gone| now.saturating_sub(gone) < KEPT) {
                let row = self.rows[number as usize].as_mut().expect("it was there above");
                row.changed = if self.cumulative { row.changed } else { Cells::empty() };
                continue;
            }
            self.remove(number);
            looked.removed = true;
        }
        if whole {
            self.before = self.began;
        }
        looked
    }

    /// Takes in how the segments of row `number` fare, which was asked for this row alone.
    pub(crate) fn take_path(&mut self, number: u32, info: Option<&TcpInfo>) {
        let look = self.look;
        if let Some(row) = self.rows[number as usize].as_mut() {
            row.path_seen = look;
            if let Some(info) = info {
                row.take(info, look);
            }
        }
    }

    /// Whether row `number` is there, and how its segments fare was not asked since the last look.
    pub(crate) fn lacks_path(&self, number: u32) -> bool {
        self.row(number).is_some_and(|row| row.gone.is_none() && row.path_seen != self.look)
    }

    pub(crate) fn row(&self, number: u32) -> Option<&Row> {
        self.rows.get(number as usize)?.as_ref()
    }

    /// Keeps of each row that came into its state since we look when that was seen to happen, if `seen` says so.
    pub(crate) fn keep_times(&mut self, seen: impl Fn(&Row) -> Option<Since>) {
        for row in self.rows.iter_mut().flatten().filter(|row| row.since.known && !row.told) {
            if let Some(since) = seen(row) {
                (row.since, row.told) = (since, true);
            }
        }
    }

    /// The row of the socket with this cookie, by number.
    pub(crate) fn find(&self, cookie: u64) -> Option<u32> {
        self.by_cookie.get(&cookie).copied()
    }

    /// All rows, with their numbers.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u32, &Row)> {
        (0..).zip(&self.rows).filter_map(|(number, row)| Some((number, row.as_ref()?)))
    }

    /// Forgets everything, as when other sockets are to be looked at.
    pub(crate) fn clear(&mut self) {
        *self = Table::new(self.cumulative);
    }

    fn add(&mut self, socket: &Seen<'_>, now: Moment) {
        let first = self.look == 1;
        let since = match socket.time_wait {
            Some(left) => Since { at: now.saturating_sub(TIME_WAIT.saturating_sub(left)), known: true },
            None => Since { at: now, known: !first },
        };
        let mut row = Row {
            cookie: socket.cookie,
            state: socket.state,
            local: socket.local,
            peer: socket.peer,
            inode: socket.inode,
            uid: socket.uid,
            receive_queue: socket.receive_queue,
            send_queue: socket.send_queue,
            path: None,
            // All of it is new, unless everything is.
            changed: if first { Cells::empty() } else { Cells::all() },
            since,
            told: false,
            after: self.before,
            by: Moment::MAX,
            gone: None,
            seen: self.look,
            path_seen: 0,
        };
        if let Some(info) = socket.info {
            row.path = Some(Path::of(info));
            row.path_seen = self.look;
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            self.rows.len() as u32 - 1
        });
        self.rows[number as usize] = Some(row);
        self.by_cookie.insert(socket.cookie, number);
        self.new.push(number);
    }

    /// Those of the rows `new` that may be what became of another.
    fn heirs(&self, new: &[u32]) -> HashMap<Ends, u32> {
        let rows = new.iter().filter_map(|&number| Some((number, self.row(number)?)));
        let connections = rows.filter(|(_, row)| row.peer.is_some());
        connections.map(|(number, row)| (row.ends(), number)).collect()
    }

    /// Has row `heir` go on for row `number`, and returns its cookie: it is the same connection to everybody who looks.
    fn inherit(&mut self, heir: u32, number: u32) -> u64 {
        let old = self.rows[number as usize].as_ref().map(|row| (row.state, (row.since, row.told, row.after, row.by)));
        let row = self.rows[heir as usize].as_mut().expect("a new row is there");
        row.changed = Cells::empty();
        match old {
            Some((state, began)) if state == row.state => (row.since, row.told, row.after, row.by) = began,
            _ => row.changed = Cells::STATE,
        }
        row.cookie
    }

    fn bury(&mut self, number: u32, now: Moment) {
        let before = self.before;
        let row = self.rows[number as usize].as_mut().expect("a row that is there");
        row.state = State::Closed;
        (row.since, row.told) = (Since { at: now, known: true }, false);
        (row.after, row.by) = (before, now);
        row.gone = Some(now);
        row.changed = Cells::STATE;
    }

    fn remove(&mut self, number: u32) {
        let row = self.rows[number as usize].take().expect("a row that is there");
        self.by_cookie.remove(&row.cookie);
        self.free.push(number);
    }
}

impl Row {
    pub(crate) fn ends(&self) -> Ends {
        (self.local, self.peer)
    }

    /// Whether connections wait in this listener's queue as many as it takes: the kernel admits one more than it says.
    pub(crate) fn is_full(&self) -> bool {
        self.state == State::Listen && self.receive_queue > self.send_queue
    }

    fn take(&mut self, info: &TcpInfo, look: u32) {
        let path = Path::of(info);
        if let Some(before) = self.path {
            self.changed.set(Cells::RTT, before.rtt != path.rtt || self.changed.contains(Cells::RTT));
            self.changed.set(Cells::CWND, before.cwnd != path.cwnd || self.changed.contains(Cells::CWND));
            self.changed.set(Cells::RETRANS, before.retrans != path.retrans || self.changed.contains(Cells::RETRANS));
        }
        self.path = Some(path);
        self.path_seen = look;
    }
}

impl Path {
    fn of(info: &TcpInfo) -> Path {
        Path { rtt: info.rtt(), cwnd: info.snd_cwnd(), retrans: info.total_retrans() }
    }
}

impl<'a> From<&'a Socket> for Seen<'a> {
    fn from(socket: &'a Socket) -> Seen<'a> {
        let timer = socket.timer.filter(|timer| timer.kind == TimerKind::TimeWait && socket.state == State::TimeWait);
        Seen {
            cookie: socket.cookie,
            state: socket.state,
            local: socket.local,
            peer: socket.peer,
            inode: socket.inode,
            uid: socket.uid,
            receive_queue: socket.receive_queue,
            send_queue: socket.send_queue,
            time_wait: timer.map(|timer| timer.expires),
            info: socket.info.as_ref(),
        }
    }
}

/// Cookies are numbers that the kernel counts up: nobody chooses them, and one multiplication spreads them.
#[derive(Debug, Default)]
pub(crate) struct CookieHasher(u64);

impl Hasher for CookieHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte.into());
        }
    }

    fn write_u64(&mut self, cookie: u64) {
        // 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, volume 3, 6.4).
        self.0 = (self.0 ^ cookie).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests;
