use towpath_diag::{Diag, Filter, Owners, Want, monotonic};

use super::super::table::{Seen, Table};
use super::*;

const NOW: Moment = Duration::from_secs(1_000);

/// A row of a socket with these queues, which came into its state so many milliseconds ago.
fn rows(state: State, queues: (u32, u32), ago: u64) -> (Table, Since) {
    let seen = Seen {
        cookie: 1,
        state,
        local: ([127, 0, 0, 1], 8330).into(),
        peer: (state != State::Listen).then(|| ([127, 0, 0, 1], 39792).into()),
        inode: Some(1),
        uid: 0,
        receive_queue: queues.0,
        send_queue: queues.1,
        time_wait: None,
        info: None,
    };
    let mut table = Table::new(false);
    table.begin(NOW);
    table.see(&seen, NOW);
    table.end(NOW, true);
    (table, Since { at: NOW - Duration::from_millis(ago), known: true })
}

fn cell(column: Column, state: State, queues: (u32, u32), ago: u64) -> (String, Tone) {
    let (table, since) = rows(state, queues, ago);
    let whole = Whole { row: table.row(0).unwrap(), since, owners: &[], tasks: Users::default() };
    let cell = column.cell(&whole, Style { now: NOW, ascii: false, names: None });
    (cell.text, cell.tone)
}

fn text(column: Column, state: State, queues: (u32, u32)) -> String {
    cell(column, state, queues, 0).0
}

#[test]
fn queues_are_bytes_and_a_listeners_are_connections() {
    assert_eq!(text(Column::Queues, State::Established, (0, 0)), " 0  0");
    assert_eq!(text(Column::Queues, State::Established, (14, 65_536)), "14 65536");
    assert_eq!(text(Column::Queues, State::Listen, (0, 128)), "0/128");
    assert_eq!(cell(Column::Queues, State::Listen, (3, 2), 0), ("3/2 FULL".to_owned(), Tone::Alarm));
    assert_eq!(cell(Column::Queues, State::Listen, (2, 2), 0), ("2/2".to_owned(), Tone::Plain));
    assert_eq!(text(Column::Queues, State::TimeWait, (0, 0)), "", "blanks, not zeros");
}

#[test]
fn what_a_program_has_not_closed_for_five_seconds_is_an_alarm() {
    for (state, ago, tone) in [
        (State::CloseWait, 5_000, Tone::Plain),
        (State::CloseWait, 5_001, Tone::Alarm),
        (State::Established, 60_000, Tone::Plain),
    ] {
        assert_eq!(cell(Column::State, state, (0, 0), ago).1, tone, "{state} {ago}");
        assert_eq!(cell(Column::For, state, (0, 0), ago).1, tone, "{state} {ago}");
        assert_eq!(cell(Column::Local, state, (0, 0), ago).1, Tone::Plain);
    }
}

#[test]
fn a_time_that_began_before_us_has_a_sign() {
    let (table, since) = rows(State::Listen, (0, 0), 62_000);
    let style = Style { now: NOW, ascii: false, names: None };
    let lasted = |since| {
        let whole = Whole { row: table.row(0).unwrap(), since, owners: &[], tasks: Users::default() };
        Column::For.cell(&whole, style).text
    };
    assert_eq!(lasted(since), "1m02s");
    assert_eq!(lasted(Since { known: false, ..since }), ">1m02s");
    assert_eq!(lasted(Since { at: NOW, known: false }), "", "one look does not tell");
}

#[test]
fn a_listener_has_no_peer_and_no_window() {
    assert_eq!(text(Column::Peer, State::Listen, (0, 0)), "*");
    assert_eq!(text(Column::Cwnd, State::Listen, (0, 0)), "");
    assert_eq!(text(Column::Rtt, State::Listen, (0, 0)), "");
    assert_eq!(text(Column::Local, State::Listen, (0, 0)), "127.0.0.1:8330");
}

#[test]
fn a_task_is_its_number_and_what_it_does_for_how_long() {
    let (table, since) = rows(State::Established, (0, 0), 0);
    let task = |id, op: Option<&str>| Task {
        pid: 1,
        uid: Some(0),
        id,
        name: None,
        state: "running".to_owned(),
        op: op.map(str::to_owned),
        since: NOW - Duration::from_secs(2),
        spawned_at: String::new(),
    };
    let tasks = [task(7, Some("read")), task(9, None)];
    let whole = Whole { row: table.row(0).unwrap(), since, owners: &[], tasks: Users::among(&tasks, 0, &[]) };
    let cell = Column::Task.cell(&whole, Style { now: NOW, ascii: false, names: None });
    assert_eq!(cell.text, "#7 read 2.0s, #9 running 2.0s");
}

#[test]
fn an_owner_is_its_command_its_number_and_the_descriptor() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let sockets = Diag::open().unwrap().sockets(&Filter::new().port(port), Want::empty()).unwrap();
    let mut owners = Owners::new();
    let owners = owners.find(sockets[0].inode.unwrap());
    let mut table = Table::new(false);
    table.begin(monotonic());
    table.see(&Seen::from(&sockets[0]), monotonic());
    table.end(monotonic(), true);
    let whole =
        Whole { row: table.row(0).unwrap(), since: table.row(0).unwrap().since, owners, tasks: Users::default() };
    let cell = Column::Owner.cell(&whole, Style { now: NOW, ascii: false, names: None });
    let us = format!(" {}/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&listener));
    assert!(cell.text.ends_with(&us), "{:?} ends with {us:?}", cell.text);
}

const WIDTHS: [(Column, usize); 10] = [
    (Column::State, 10),
    (Column::For, 6),
    (Column::Queues, 8),
    (Column::Local, 15),
    (Column::Peer, 15),
    (Column::Rtt, 5),
    (Column::Cwnd, 4),
    (Column::Retrans, 4),
    (Column::Owner, 12),
    (Column::Task, 12),
];

fn taken(fitting: &[(Column, usize)]) -> usize {
    fitting.iter().map(|(_, width)| width).sum::<usize>() + GAP * fitting.len().saturating_sub(1)
}

#[test]
fn all_columns_are_there_where_there_is_room() {
    assert_eq!(fit(&WIDTHS, taken(&WIDTHS)), WIDTHS);
    assert_eq!(fit(&WIDTHS, 1_000), WIDTHS);
}

#[test]
fn what_fits_into_forty_cells_is_the_state_and_both_ends() {
    let columns: Vec<_> = fit(&WIDTHS, 40).into_iter().map(|(column, _)| column).collect();
    assert_eq!(columns, [Column::State, Column::Local, Column::Peer]);
}

#[test]
fn nothing_is_ever_wider_than_there_is_room() {
    let wide = WIDTHS.map(|(column, width)| (column, width * 4));
    for widths in [&WIDTHS[..], &wide, &WIDTHS[3..4], &[]] {
        for room in 0..200 {
            let fitting = fit(widths, room);
            assert!(taken(&fitting) <= room, "{room}: {fitting:?}");
            assert_eq!(fitting.is_empty(), widths.is_empty());
        }
    }
}

#[test]
fn a_text_is_cut_in_its_middle() {
    assert_eq!(cut("127.0.0.1:39792", 15, false), "127.0.0.1:39792");
    assert_eq!(cut("127.0.0.1:39792", 9, false), "127.…9792");
    assert_eq!(cut("127.0.0.1:39792", 9, true), "127.~9792");
    assert_eq!((cut("abc", 1, false), cut("abc", 0, false)), ("…".to_owned(), String::new()));
    for room in 0..8 {
        assert!(width(&cut("日本語のプロセス", room, false)) <= room);
    }
}
