//! What a row says in each column, and which columns fit: the same for the terminal and for a pipe.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use towpath_diag::{Owner, State};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::names::Names;
use super::table::{Cells, Moment, Row, Since};
use super::tasks::{Task, Users};
use crate::output::text::escape;
use crate::output::units;

/// After so long, that a program has not closed what its peer has closed is its fault.
const PATIENCE: Duration = Duration::from_secs(5);

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Column {
    State,
    For,
    Queues,
    Local,
    Peer,
    Rtt,
    Cwnd,
    Retrans,
    Owner,
    Task,
}

/// All columns as they stand.
pub(crate) const ALL: [Column; 10] = [
    Column::State,
    Column::For,
    Column::Queues,
    Column::Local,
    Column::Peer,
    Column::Rtt,
    Column::Cwnd,
    Column::Retrans,
    Column::Owner,
    Column::Task,
];

/// What has to go first where there is no room.
const DISPENSABLE: [Column; 8] = [
    Column::Cwnd,
    Column::Retrans,
    Column::Rtt,
    Column::Task,
    Column::Owner,
    Column::For,
    Column::Queues,
    Column::Peer,
];

/// Between two columns.
pub(crate) const GAP: usize = 2;

/// How a cell looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    /// It is not what one looks for.
    Aside,
    /// It is not as it was.
    Changed,
    /// It is not as it should be.
    Alarm,
}

/// What stands in one column of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

/// A row with all that is known about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole<'a> {
    pub(crate) row: &'a Row,
    pub(crate) since: Since,
    pub(crate) owners: &'a [Owner],
    pub(crate) tasks: Users<'a>,
}

/// How rows are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style<'a> {
    pub(crate) now: Moment,
    pub(crate) ascii: bool,
    pub(crate) names: Option<&'a Names>,
}

impl Column {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Column::State => "STATE",
            Column::For => "FOR",
            Column::Queues => "RQ SQ",
            Column::Local => "LOCAL",
            Column::Peer => "PEER",
            Column::Rtt => "RTT",
            Column::Cwnd => "CWND",
            Column::Retrans => "RETR",
            Column::Owner => "OWNER",
            Column::Task => "TASK",
        }
    }

    /// The cell of `whole` in this column.
    pub(crate) fn cell(self, whole: &Whole<'_>, style: Style<'_>) -> Cell {
        Cell { text: self.text(whole, style), tone: self.tone(whole, style.now) }
    }

    fn text(self, whole: &Whole<'_>, style: Style<'_>) -> String {
        let row = whole.row;
        let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        match self {
            Column::State => row.state.short().to_owned(),
            Column::For => lasted(whole, style),
            Column::Queues => queues(row),
            Column::Local => address(row.local, style),
            Column::Peer => row.peer.map_or_else(|| "*".to_owned(), |peer| address(peer, style)),
            Column::Rtt => {
                let rtt = row.path.and_then(|path| path.rtt);
                rtt.map(|rtt| units::short_time(rtt, style.ascii)).unwrap_or_default()
            }
            // A listener has numbers there too, which mean nothing.
            Column::Cwnd | Column::Retrans if row.state == State::Listen => String::new(),
            Column::Cwnd => number(row.path.and_then(|path| path.cwnd)),
            Column::Retrans => number(row.path.and_then(|path| path.retrans)),
            Column::Owner => owner(whole, style.ascii),
            Column::Task => task(whole, style),
        }
    }

    fn tone(self, whole: &Whole<'_>, now: Moment) -> Tone {
        let row = whole.row;
        let neglected = row.state == State::CloseWait && now.saturating_sub(whole.since.at) > PATIENCE;
        let cells = match self {
            Column::State => Cells::STATE,
            Column::Queues => Cells::RECEIVE_QUEUE | Cells::SEND_QUEUE,
            Column::Rtt => Cells::RTT,
            Column::Cwnd => Cells::CWND,
            Column::Retrans => Cells::RETRANS,
            _ => Cells::empty(),
        };
        match self {
            Column::State | Column::For if neglected => Tone::Alarm,
            Column::Queues if row.is_full() => Tone::Alarm,
            _ if row.changed.intersects(cells) => Tone::Changed,
            _ if row.gone.is_some() => Tone::Aside,
            _ => Tone::Plain,
        }
    }
}

/// How long it has been in its state; `>` if it was before we came.
fn lasted(whole: &Whole<'_>, style: Style<'_>) -> String {
    let time = style.now.saturating_sub(whole.since.at);
    if time.is_zero() && !whole.since.known {
        return String::new();
    }
    let sign = if whole.since.known { "" } else { ">" };
    format!("{sign}{}", units::short_time(time, style.ascii))
}

/// The queues in bytes; a listener's in connections, of how many.
fn queues(row: &Row) -> String {
    let (received, sent) = (row.receive_queue, row.send_queue);
    match row.state {
        State::Listen if row.is_full() => format!("{received}/{sent} FULL"),
        State::Listen => format!("{received}/{sent}"),
        State::TimeWait => String::new(),
        _ if row.gone.is_some() => String::new(),
        _ => format!("{received:>2} {sent:>2}"),
    }
}

fn address(address: SocketAddr, style: Style<'_>) -> String {
    match style.names.and_then(|names| names.of(address.ip())) {
        Some(name) => format!("{}:{}", escape(name.as_bytes(), style.ascii), address.port()),
        None => address.to_string(),
    }
}

/// Command, number and descriptor of the first process that has it, and how many more have.
fn owner(whole: &Whole<'_>, ascii: bool) -> String {
    let Some(owner) = whole.owners.first() else {
        let queued = matches!(whole.row.state, State::Established | State::CloseWait) && whole.row.inode.is_none();
        return if queued && whole.row.gone.is_none() { "(not accepted)".to_owned() } else { String::new() };
    };
    // A process names itself.
    let text = format!("{} {}/{}", escape(owner.command.as_bytes(), ascii), owner.pid, owner.fd);
    match whole.owners.len() {
        1 => text,
        count => format!("{text} +{}", count - 1),
    }
}

/// Who uses it inside a program, and what for: `#7 read 2.0s`.
fn task(whole: &Whole<'_>, style: Style<'_>) -> String {
    let one = |task: &Task| {
        let doing = task.op.as_deref().unwrap_or(&task.state);
        let time = units::short_time(style.now.saturating_sub(task.since), style.ascii);
        format!("#{} {} {time}", task.id, escape(doing.as_bytes(), style.ascii))
    };
    whole.tasks.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// How many cells of a terminal `text` takes.
pub(crate) fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// Which of `columns` fit into `room`, and how wide each is, given how wide each would be. The last may be cut, and where
/// even the dearest do not fit, they share what there is.
pub(crate) fn fit(columns: &[(Column, usize)], room: usize) -> Vec<(Column, usize)> {
    let mut fitting = columns.to_vec();
    let needed = |columns: &[(Column, usize)]| {
        columns.iter().map(|(_, width)| width).sum::<usize>() + GAP * columns.len().saturating_sub(1)
    };
    for column in DISPENSABLE {
        if needed(&fitting) <= room {
            break;
        }
        // Two addresses that are cut tell more than one that is whole.
        if column == Column::Peer && room >= 30 {
            break;
        }
        fitting.retain(|(other, _)| *other != column);
    }
    let mut excess = needed(&fitting).saturating_sub(room);
    for at in (0..fitting.len()).rev() {
        let keep = if at == 0 { 0 } else { 8 };
        // The addresses share, later columns give first.
        let share = if fitting[at].0 == Column::Peer { excess.div_ceil(2) } else { excess };
        let give = share.min(fitting[at].1.saturating_sub(keep));
        fitting[at].1 -= give;
        excess -= give;
    }
    // On a terminal of hardly a column there is the state, or what fits of it.
    while needed(&fitting) > room && fitting.len() > 1 {
        fitting.pop();
    }
    fitting
}

/// `text` in at most `room` cells; where it does not fit, its middle is left out, for both ends of an address say more.
pub(crate) fn cut(text: &str, room: usize, ascii: bool) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let Some(left) = room.checked_sub(1) else { return String::new() };
    let head = ends_within(text.char_indices(), left / 2).map_or(0, |(at, c)| at + c.len_utf8());
    let tail = ends_within(text.char_indices().rev(), left - left / 2).map_or(text.len(), |(at, _)| at);
    format!("{}{}{}", &text[..head], if ascii { '~' } else { '…' }, &text[tail..])
}

/// The last of the characters that together take at most `room` cells.
fn ends_within(characters: impl Iterator<Item = (usize, char)>, room: usize) -> Option<(usize, char)> {
    let mut used = 0;
    let fits = |(_, c): &(usize, char)| {
        used += c.width().unwrap_or(0);
        used <= room
    };
    characters.take_while(fits).last()
}

#[cfg(test)]
mod tests;
