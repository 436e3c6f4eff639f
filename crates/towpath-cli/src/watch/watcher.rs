//! What one who watches knows: the sockets that pass the filter, in their order, with all that belongs to them. The views
//! show it; this file brings it together and keeps it up to date.

#![forbid(unsafe_code)]

use std::collections::HashMap;

use towpath_diag::{Event, Socket, State, Want, monotonic};

use super::check::{Check, Figures};
use super::columns::Whole;
use super::filter::{Filter, Subject};
use super::lives::{Lives, Step};
use super::names::Names;
use super::order::Order;
use super::source::Source;
use super::table::{Ends, Looked, Moment, Row, Seen, Since, Table};
use super::tasks::Tasks;
use crate::args::Watch;
use crate::exit::{Exit, Failure, reason};

/// Sockets and what belongs to them.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) filter: Filter,
    pub(crate) order: Order,
    pub(crate) hides_time_wait: bool,
    pub(crate) lives: Lives,
    pub(crate) tasks: Tasks,
    pub(crate) names: Option<Names>,
    checks: Vec<Check>,
    source: Source,
    table: Table,
    /// All rows in their order.
    ranked: Vec<u32>,
    /// Those that are shown, in their order.
    shown: Vec<u32>,
    /// When we last looked.
    now: Moment,
}

impl Watcher {
    pub(crate) fn new(options: &Watch) -> Result<Watcher, Failure> {
        let names = options.resolve.then(Names::start).transpose();
        let names = names.map_err(|e| Failure::new(Exit::Other, format!("start to resolve names: {}", reason(&e))))?;
        Ok(Watcher {
            filter: options.filter.clone(),
            order: Order::default(),
            hides_time_wait: false,
            lives: Lives::default(),
            tasks: Tasks::default(),
            names,
            checks: options.checks.clone(),
            source: Source::open()?,
            table: Table::new(options.cumulative),
            ranked: vec![],
            shown: vec![],
            now: monotonic(),
        })
    }

    /// Looks at the sockets, as cheaply as the order of the rows allows. How their segments fare is asked later, of those
    /// that are visible (`look_closer`).
    pub(crate) fn look(&mut self) -> Result<Looked, Failure> {
        let want = if self.order.needs_paths() { Want::INFO } else { Want::empty() };
        self.now = monotonic();
        let looked = self.source.look(&self.filter, want, &mut self.table)?;
        self.settle(&looked);
        Ok(looked)
    }

    /// Looks at the sockets with all that there is to know, and returns them as the kernel told of them.
    pub(crate) fn look_at_all(&mut self, want: Want) -> Result<HashMap<u64, Socket>, Failure> {
        self.now = monotonic();
        let sockets = self.source.sockets(&self.filter, want)?;
        let ended = monotonic();
        self.table.begin(self.now);
        for socket in &sockets {
            self.table.see(&Seen::from(socket), self.now);
        }
        let looked = self.table.end(ended, true);
        self.settle(&looked);
        self.learn_owners(&self.shown.clone());
        Ok(sockets.into_iter().map(|socket| (socket.cookie, socket)).collect())
    }

    /// Takes in what came of a look.
    fn settle(&mut self, looked: &Looked) {
        self.keep_times();
        self.lives.forget_ended(self.now);
        if looked.removed {
            self.ranked.retain(|&number| self.table.row(number).is_some());
        }
        self.ranked.extend(&looked.new);
        if self.filter.needs_owners() || self.checks.iter().any(Check::needs_owners) {
            let all = || self.table.rows().filter_map(|(_, row)| row.inode);
            self.source.learn_owners(all(), all());
        }
        self.arrange(!looked.new.is_empty());
    }

    /// What the lives know of the rows' states stays known until these change, whatever happens to the lives meanwhile.
    fn keep_times(&mut self) {
        self.table.keep_times(|row| told(&self.lives, row));
    }

    /// Puts the rows in order anew, after the order or what is shown was changed.
    pub(crate) fn rearrange(&mut self) {
        self.arrange(true);
    }

    fn arrange(&mut self, moved: bool) {
        let (table, lives, order) = (&self.table, &self.lives, self.order);
        if moved || !order.is_fixed() {
            let listeners = table.rows().filter(|(_, row)| row.state == State::Listen);
            let served = listeners.map(|(_, row)| row.local.port()).collect();
            self.ranked.sort_by(|&a, &b| match (table.row(a), table.row(b)) {
                (Some(a), Some(b)) => order.compare(a, b, |row| since(lives, row), &served),
                (a, b) => a.is_none().cmp(&b.is_none()),
            });
        }
        let mut shown = std::mem::take(&mut self.shown);
        shown.clear();
        shown.extend(self.ranked.iter().copied().filter(|&number| self.is_shown(number)));
        self.shown = shown;
    }

    fn is_shown(&self, number: u32) -> bool {
        let Some(row) = self.table.row(number) else { return false };
        !(self.hides_time_wait && row.state == State::TimeWait)
            && (self.filter.is_empty() || self.filter.passes(&self.subject(row)))
    }

    fn subject<'a>(&'a self, row: &Row) -> Subject<'a> {
        Subject { state: row.state, local: row.local, peer: row.peer, owners: self.source.owners(row.inode) }
    }

    /// Sees to it that the owners of these rows are known.
    fn learn_owners(&mut self, rows: &[u32]) {
        let needed = rows.iter().filter_map(|&number| self.table.row(number)?.inode);
        self.source.learn_owners(needed, self.table.rows().filter_map(|(_, row)| row.inode));
    }

    /// Asks what the table shows of these rows beyond a look: how their segments fare, and who has them.
    pub(crate) fn look_closer(&mut self, rows: &[u32]) {
        for &number in rows {
            if !self.table.lacks_path(number) {
                continue;
            }
            let Some(row) = self.table.row(number) else { continue };
            if matches!(row.state, State::Listen | State::TimeWait) {
                continue;
            }
            // One that is gone, or cannot be asked now, keeps what it had.
            let found = self.source.ask(row, Want::INFO).ok().flatten();
            self.table.take_path(number, found.as_ref().and_then(|socket| socket.info.as_ref()));
        }
        self.learn_owners(rows);
        if let Some(names) = &mut self.names {
            let rows = rows.iter().filter_map(|&number| self.table.row(number));
            names.ask(rows.flat_map(|row| std::iter::once(row.local).chain(row.peer)).map(|end| end.ip()));
        }
    }

    /// All that the kernel tells of one socket now.
    pub(crate) fn ask(&mut self, number: u32) -> Option<Socket> {
        let row = self.table.row(number)?;
        self.source.ask(row, Want::all()).ok().flatten()
    }

    /// The inode of the socket of these addresses, as long as a program has it.
    pub(crate) fn inode_of(&mut self, ends: &Ends) -> Option<u32> {
        self.source.find(ends, Want::empty()).ok().flatten()?.inode
    }

    /// Sees to it that the owners of the sockets `needed` are known; those of `kept` stay known, as do those of the rows.
    pub(crate) fn learn_owners_of(&mut self, needed: &[u32], kept: impl Iterator<Item = u32>) {
        let rows = self.table.rows().filter_map(|(_, row)| row.inode);
        self.source.learn_owners(needed.iter().copied(), needed.iter().copied().chain(kept).chain(rows));
    }

    /// Whether one of the owners that are known of this socket is one that the filter names.
    pub(crate) fn has_wanted_owner(&self, inode: u32) -> bool {
        self.filter.passes_by_process(self.source.owners(Some(inode)))
    }

    /// Takes in what happened, and returns the changes of state that pass the filter.
    pub(crate) fn hear(&mut self, event: &Event) -> Option<Step> {
        match event {
            Event::Change(change) => {
                let subject = Subject { state: change.new, local: change.local, peer: change.peer, owners: &[] };
                self.filter.passes_by_address(&subject).then(|| self.lives.note(change))
            }
            _ => {
                self.keep_times();
                self.lives.distrust();
                None
            }
        }
    }

    /// What a condition that holds says; then the check has failed.
    pub(crate) fn failed_check(&self) -> Option<String> {
        self.checks.iter().find_map(|check| {
            let mut checking = check.begin();
            for &number in &self.shown {
                let Some(row) = self.table.row(number).filter(|row| row.gone.is_none()) else { continue };
                checking.see(&Figures {
                    subject: self.subject(row),
                    age: self.now.saturating_sub(since(&self.lives, row).at),
                    recv_queue: row.receive_queue,
                    send_queue: row.send_queue,
                });
            }
            checking.failed()
        })
    }

    /// The rows that are shown, in their order, by number.
    pub(crate) fn shown(&self) -> &[u32] {
        &self.shown
    }

    /// A row with what belongs to it.
    pub(crate) fn whole(&self, number: u32) -> Option<Whole<'_>> {
        let row = self.table.row(number)?;
        let owners = self.source.owners(row.inode);
        let tasks = self.tasks.of(row.cookie, row.uid, owners);
        Some(Whole { row, since: since(&self.lives, row), owners, tasks })
    }

    /// The number of the row with this cookie.
    pub(crate) fn find(&self, cookie: u64) -> Option<u32> {
        self.table.find(cookie)
    }

    /// How many sockets that are shown are there.
    pub(crate) fn present(&self) -> usize {
        self.shown.iter().filter(|&&number| self.table.row(number).is_some_and(|row| row.gone.is_none())).count()
    }

    /// What is to be said where no row is shown.
    pub(crate) fn nothing(&self) -> String {
        match self.filter.is_empty() {
            true => "no TCP socket".to_owned(),
            false => format!("no socket passes {}", self.filter),
        }
    }

    /// When we last looked.
    pub(crate) fn now(&self) -> Moment {
        self.now
    }

    /// Looks at other sockets from now on.
    pub(crate) fn turn_to(&mut self, filter: Filter) {
        self.filter = filter;
        self.table.clear();
        self.lives.clear();
        self.ranked.clear();
        self.shown.clear();
    }
}

/// When `row` came into its state: as it was seen to happen, or else as looks tell.
fn since(lives: &Lives, row: &Row) -> Since {
    if row.told { row.since } else { told(lives, row).unwrap_or(row.since) }
}

/// When `row` was seen to come into its state.
fn told(lives: &Lives, row: &Row) -> Option<Since> {
    lives.since(&row.ends(), row.state, row.after..=row.by)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::args::View;

    #[test]
    fn a_row_keeps_its_time_until_the_next_look_whatever_happens_meanwhile() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (interval, view) = (Duration::from_secs(1), View::Screen);
        let (limit, checks, cumulative, resolve) = (None, vec![], false, false);
        let filter = addr.to_string().parse().unwrap();
        let options = Watch { filter, interval, view, limit, checks, cumulative, resolve };
        let mut watcher = Watcher::new(&options).unwrap();
        watcher.look().unwrap();
        let stream = TcpStream::connect(addr).unwrap();
        let ends = (stream.local_addr().unwrap(), Some(addr));
        let step = |old, new| Step { at: monotonic(), exact: true, ends, old, new, since: None };
        let began = watcher.lives.add(step(State::SynSent, State::Established)).at;
        std::thread::sleep(Duration::from_millis(5));
        watcher.look().unwrap();
        let number = watcher.shown().iter().copied().find(|&number| watcher.whole(number).unwrap().row.ends() == ends);
        let since = |watcher: &Watcher| watcher.whole(number.unwrap()).unwrap().since;
        assert_eq!(since(&watcher), Since { at: began, known: true });
        for (old, new) in [(State::Established, State::Closed), (State::Closed, State::Established)] {
            watcher.lives.add(step(old, new));
            assert_eq!(since(&watcher).at, began);
        }
        watcher.hear(&Event::Lost(1));
        assert_eq!(since(&watcher).at, began);
    }
}
