//! A program's tasks as people read them: a table whose columns align, and under a task its backtrace.
//!
//! What is shown is what another program says of itself: it is escaped, so that nothing in it acts on the terminal.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::endpoint::{Arm, Channel, Dump, Task};
use crate::output::look::Look;
use crate::output::{text, units};
use crate::trace::fit::{parts, width};
use crate::watch::columns::cut;

const COLUMNS: [&str; 12] =
    ["TASK", "NAME", "STATE", "OP", "FD", "ON", "COOKIE", "SINCE", "LIMIT", "STACK", "WORKER", "SPAWNED AT"];

const HEADER: Style = Style::new().bold();
const ASIDE: Style = Style::new().dimmed();
const TROUBLE: Style = AnsiColor::Red.on_default().bold();

/// What a task waits on, and how much of it is kept while there are columns to its right that can go.
const ON: usize = 5;
const ON_AT_LEAST: usize = 28;
/// Between columns.
const GAP: &str = "  ";

/// The table, with a line about the program before it. Rows are no longer than `room`, if there is such a bound.
pub(super) fn text(dump: &Dump, look: Look, room: Option<usize>) -> String {
    let escaped = |s: &str| text::escape(s.as_bytes(), look.ascii);
    let rows: Vec<_> = dump.tasks.iter().map(|task| cells(task, look)).collect();
    let mut widths = COLUMNS.map(str::len);
    for (cell, column) in rows.iter().flat_map(|row| row.iter().zip(0..)) {
        widths[column] = widths[column].max(width(cell));
    }
    let widths = fitting(&widths, room.unwrap_or(usize::MAX));
    let (tasks, workers) = (dump.tasks.len(), dump.workers);
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut table = format!(
        "{} {}: {}, {}\n",
        escaped(&dump.program),
        dump.pid,
        counted(tasks, "task"),
        counted(workers, "worker")
    );
    for worker in &dump.silent {
        let aside = "does not answer: the task that it runs holds it up, or the machine is too busy";
        _ = writeln!(table, "{} {aside}", look.paint(TROUBLE, &escaped(worker)));
    }
    let header = COLUMNS.map(str::to_owned);
    _ = writeln!(table, "{}", look.paint(HEADER, &line(&header, &widths, look)));
    for (row, task) in rows.iter().zip(&dump.tasks) {
        _ = writeln!(table, "{}", line(row, &widths, look));
        for frame in task.backtrace.iter().flatten() {
            _ = writeln!(table, "      {}", look.paint(ASIDE, &escaped(frame)));
        }
    }
    table
}

/// How wide the columns are that rows of at most `room` have: what a task waits on is cut, then columns are left out from
/// the right.
fn fitting(widths: &[usize], room: usize) -> Vec<usize> {
    let mut fitting = widths.to_vec();
    let needed = |widths: &[usize]| widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
    loop {
        let excess = needed(&fitting).saturating_sub(room);
        let last = fitting.len() - 1;
        let least = match last {
            _ if excess == 0 => return fitting,
            // There is no more to leave out.
            0 => {
                fitting[0] = room;
                return fitting;
            }
            ON => COLUMNS[ON].len(),
            _ => ON_AT_LEAST,
        };
        if last >= ON && fitting[ON].saturating_sub(excess) >= least {
            fitting[ON] -= excess;
            return fitting;
        }
        // Of a long name, what fits.
        if last == 1 && fitting[1].saturating_sub(excess) >= COLUMNS[1].len() {
            fitting[1] -= excess;
            return fitting;
        }
        fitting.pop();
    }
}

fn line(cells: &[String], widths: &[usize], look: Look) -> String {
    let mut line = String::new();
    for (cell, &room) in cells.iter().zip(widths) {
        let cell = shortened(cell, room, look);
        line += &cell;
        line.extend(std::iter::repeat_n(' ', room.saturating_sub(width(&cell))));
        line += GAP;
    }
    line.truncate(line.trim_end().len());
    line
}

/// `cell` in at most `room` columns. Of a list the beginning is kept; of addresses both ends say more.
fn shortened(cell: &str, room: usize, look: Look) -> String {
    if !cell.contains(", ") || width(cell) <= room || room < 4 {
        return cut(cell, room, look.ascii);
    }
    format!("{}{}", parts(cell, room - 1)[0], if look.ascii { '~' } else { '…' })
}

fn cells(task: &Task, look: Look) -> [String; COLUMNS.len()] {
    let escaped = |s: &str| text::escape(s.as_bytes(), look.ascii);
    let or_none = |cell: Option<String>| cell.unwrap_or_else(|| "-".to_owned());
    let time = |us: u64| units::time(Duration::from_micros(us), look.ascii);
    [
        format!("#{}", task.id),
        or_none(task.name.as_deref().map(escaped)),
        escaped(&task.state),
        or_none(task.op.as_deref().map(escaped)),
        or_none(task.fd.map(|fd| fd.to_string())),
        or_none(on(task, look)),
        or_none(task.cookie.map(|cookie| cookie.to_string())),
        or_none(task.since_us.map(time)),
        or_none(task.deadline_us.map(|us| format!("in {}", time(us)))),
        stack(task),
        escaped(&task.worker),
        escaped(&task.spawned_at),
    ]
}

/// What a task waits on.
fn on(task: &Task, look: Look) -> Option<String> {
    let escaped = |s: &str| text::escape(s.as_bytes(), look.ascii);
    let local = task.local.as_deref().map(escaped);
    if let Some(peer) = task.peer.as_deref().map(escaped) {
        let arrow = if look.ascii { "->" } else { "→" };
        return Some(format!("{} {arrow} {peer}", local.unwrap_or_default()));
    }
    if let Some(arms) = &task.select {
        let arm = |Arm { op, channel: of, join }: &Arm| {
            let on = of.as_ref().map(channel).or(join.map(|id| format!("#{id}")));
            format!("{} {}", escaped(op), on.unwrap_or_default()).trim_end().to_owned()
        };
        return Some(arms.iter().map(arm).collect::<Vec<_>>().join(", "));
    }
    local.or(task.channel.as_ref().map(channel)).or(task.join.map(|id| format!("#{id}")))
}

/// A channel, and how many messages are in it.
fn channel(channel: &Channel) -> String {
    let id = format!("channel {:x}", channel.id);
    match (channel.len, channel.capacity) {
        (Some(len), Some(capacity)) => format!("{id} ({len} of {capacity})"),
        (Some(len), None) => format!("{id} ({len})"),
        _ => id,
    }
}

/// In KiB: in use, high water, size.
fn stack(task: &Task) -> String {
    let kib = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| bytes.div_ceil(1024).to_string());
    format!("{}/{}/{}K", kib(task.stack_in_use), kib(task.stack_high_water), kib(task.stack_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { color: false, ascii: true };

    fn dump(tasks: Vec<Task>) -> Dump {
        Dump { pid: 7, program: "demo".into(), workers: 2, silent: vec![], tasks }
    }

    #[test]
    fn columns_align_whatever_is_in_them() {
        let reads = Task {
            id: 3,
            state: "waiting".into(),
            op: Some("read".into()),
            fd: Some(9),
            local: Some("127.0.0.1:8330".into()),
            peer: Some("127.0.0.1:39792".into()),
            cookie: Some(4097),
            since_us: Some(2_100_000),
            spawned_at: "src/main.rs:7".into(),
            worker: "towpath-0".into(),
            stack_size: Some(262_144),
            stack_in_use: Some(1_100),
            stack_high_water: Some(8_192),
            ..Task::default()
        };
        let receives = Task {
            id: 12,
            name: Some("sums".into()),
            state: "waiting".into(),
            op: Some("recv".into()),
            channel: Some(Channel { id: 0xab, len: Some(0), capacity: Some(8) }),
            deadline_us: Some(500),
            ..Task::default()
        };
        let expected = "\
demo 7: 2 tasks, 2 workers
TASK  NAME  STATE    OP    FD  ON                                 COOKIE  SINCE  LIMIT      STACK     WORKER     SPAWNED AT
#3    -     waiting  read  9   127.0.0.1:8330 -> 127.0.0.1:39792  4097    2.1 s  -          2/8/256K  towpath-0  src/main.rs:7
#12   sums  waiting  recv  -   channel ab (0 of 8)                -       -      in 500 us  -/-/-K
";
        assert_eq!(text(&dump(vec![reads, receives]), PLAIN, None), expected);
    }

    #[test]
    fn what_a_program_says_of_itself_does_not_act_on_the_terminal() {
        let evil = "\x1b[2J\u{202e}".to_owned();
        let arm = Arm { op: evil.clone(), ..Arm::default() };
        let fields = |task: &mut Task| {
            task.name = Some(evil.clone());
            task.state = evil.clone();
            task.op = Some(evil.clone());
            task.spawned_at = evil.clone();
            task.worker = evil.clone();
            task.backtrace = Some(vec![evil.clone()]);
        };
        let mut tasks = vec![
            Task { peer: Some(evil.clone()), local: Some(evil.clone()), ..Task::default() },
            Task { select: Some(vec![arm]), ..Task::default() },
        ];
        tasks.iter_mut().for_each(fields);
        let dump = Dump { program: evil.clone(), silent: vec![evil.clone()], ..dump(tasks) };
        for ascii in [true, false] {
            let shown = text(&dump, Look { color: false, ascii }, None);
            assert!(!shown.contains(['\x1b', '\u{202e}']), "{shown:?}");
        }
    }

    #[test]
    fn rows_fit_the_terminal() {
        let reads = |peer: &str| Task {
            id: 3,
            name: Some("日本".into()),
            state: "waiting".into(),
            op: Some("read".into()),
            fd: Some(9),
            local: Some("127.0.0.1:8330".into()),
            peer: Some(peer.into()),
            cookie: Some(4097),
            since_us: Some(2_100_000),
            worker: "towpath-0".into(),
            ..Task::default()
        };
        let long = "[2001:db8:1234:5678:9abc:def0:1234:5678]:39792";
        let dump = dump(vec![reads("127.0.0.1:39792"), reads(long)]);
        let look = Look { ascii: false, ..PLAIN };
        for room in 1..200 {
            for row in text(&dump, look, Some(room)).lines().skip(1) {
                assert!(width(row) <= room, "{room}: {row:?}");
            }
        }
        let row = |room| text(&dump, look, Some(room)).lines().last().unwrap().to_owned();
        assert_eq!(row(80), "#3    日本  waiting  read  9   127.0.0.1:8330 →…:1234:5678]:39792  4097    2.1 s");
        assert_eq!(row(40), "#3    日本  waiting  read  9   127.…9792");
        assert_eq!(row(12), "#3    日本");
        assert_eq!(shortened("recv channel ab (0 of 1), join #5", 14, PLAIN), "recv channel ~");
        let whole = text(&dump, look, None);
        assert!(whole.contains(long) && whole == text(&dump, look, Some(200)), "{whole}");
    }

    #[test]
    fn a_select_shows_its_arms() {
        let arms = vec![
            Arm { op: "recv".into(), channel: Some(Channel { id: 1, len: Some(2), capacity: None }), join: None },
            Arm { op: "join".into(), channel: None, join: Some(5) },
            Arm { op: "later".into(), ..Arm::default() },
        ];
        let task = Task { select: Some(arms), ..Task::default() };
        assert_eq!(on(&task, PLAIN).as_deref(), Some("recv channel 1 (2), join #5, later"));
    }
}
