use super::*;

const SERVER: u16 = 8330;

fn end(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn socket(cookie: u64, state: State, client: u16) -> Seen<'static> {
    Seen {
        cookie,
        state,
        local: end(SERVER),
        peer: (state != State::Listen).then(|| end(client)),
        inode: Some(1),
        uid: 0,
        receive_queue: 0,
        send_queue: 0,
        time_wait: None,
        info: None,
    }
}

fn at(seconds: u64) -> Moment {
    Duration::from_secs(1_000 + seconds)
}

fn look(table: &mut Table, seconds: u64, sockets: &[Seen<'_>]) -> Looked {
    table.begin(at(seconds));
    for socket in sockets {
        table.see(socket, at(seconds));
    }
    table.end(at(seconds), true)
}

#[test]
fn a_time_that_was_told_is_kept_as_long_as_the_state() {
    let mut table = Table::new(false);
    look(&mut table, 0, &[socket(1, State::Established, 1)]);
    look(&mut table, 2, &[socket(1, State::Established, 1), socket(2, State::Established, 2)]);
    let since = |seconds| Since { at: at(seconds), known: true };
    for told in [1, 2] {
        table.keep_times(|_| Some(since(told)));
        assert_eq!((row(&table, 1).since.known, row(&table, 2).since), (false, since(1)), "the first is kept");
    }
    look(&mut table, 4, &[socket(1, State::Established, 1), socket(2, State::CloseWait, 2)]);
    assert_eq!(row(&table, 2).since, since(4));
    table.keep_times(|_| Some(since(3)));
    assert_eq!(row(&table, 2).since, since(3));
}

fn row(table: &Table, cookie: u64) -> &Row {
    table.row(table.find(cookie).expect("there is a row")).unwrap()
}

/// A `tcp_info` in which these fields are set, by offset in `linux/tcp.h`.
fn info(rtt: u32, cwnd: u32, retrans: u32) -> TcpInfo {
    let mut bytes = [0; 232];
    for (offset, value) in [(68, rtt), (80, cwnd), (100, retrans)] {
        bytes[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    TcpInfo::new(&bytes)
}

#[test]
fn a_cell_is_marked_from_the_look_that_changed_it_to_the_next() {
    let mut table = Table::new(false);
    let quiet = socket(1, State::Established, 1);
    look(&mut table, 0, &[quiet]);
    assert_eq!(row(&table, 1).changed, Cells::empty(), "all is new in the first look");
    look(&mut table, 2, &[Seen { receive_queue: 14, ..quiet }]);
    assert_eq!(row(&table, 1).changed, Cells::RECEIVE_QUEUE);
    assert_eq!(row(&table, 1).receive_queue, 14);
    look(&mut table, 4, &[Seen { receive_queue: 14, state: State::CloseWait, ..quiet }]);
    assert_eq!(row(&table, 1).changed, Cells::STATE);
    look(&mut table, 6, &[Seen { receive_queue: 14, state: State::CloseWait, ..quiet }]);
    assert_eq!(row(&table, 1).changed, Cells::empty());
}

#[test]
fn cumulative_marks_stay() {
    let mut table = Table::new(true);
    let quiet = socket(1, State::Established, 1);
    look(&mut table, 0, &[quiet]);
    look(&mut table, 2, &[Seen { send_queue: 1, ..quiet }]);
    look(&mut table, 4, &[quiet]);
    look(&mut table, 6, &[quiet]);
    assert_eq!(row(&table, 1).changed, Cells::SEND_QUEUE);
}

#[test]
fn a_state_lasts_from_the_look_that_saw_it_first() {
    let mut table = Table::new(false);
    look(&mut table, 0, &[socket(1, State::Established, 1)]);
    assert_eq!(row(&table, 1).since, Since { at: at(0), known: false });
    let looked = look(&mut table, 2, &[socket(1, State::Established, 1), socket(2, State::SynSent, 2)]);
    assert_eq!(row(&table, 1).since, Since { at: at(0), known: false });
    assert_eq!(row(&table, 2).since, Since { at: at(2), known: true });
    assert_eq!(row(&table, 2).changed, Cells::all());
    assert_eq!(looked.new, [table.find(2).unwrap()]);
    look(&mut table, 4, &[socket(1, State::CloseWait, 1), socket(2, State::SynSent, 2)]);
    assert_eq!(row(&table, 1).since, Since { at: at(4), known: true });
    assert_eq!(row(&table, 2).since.at, at(2));
}

#[test]
fn the_timer_of_time_wait_tells_since_when() {
    let mut table = Table::new(false);
    let waits = Seen { time_wait: Some(Duration::from_secs(45)), ..socket(1, State::TimeWait, 1) };
    look(&mut table, 20, &[waits]);
    assert_eq!(row(&table, 1).since, Since { at: at(5), known: true });
}

#[test]
fn what_is_gone_is_kept_a_while_as_closed() {
    let mut table = Table::new(false);
    look(&mut table, 0, &[socket(1, State::Established, 1)]);
    let looked = look(&mut table, 2, &[]);
    assert!(!looked.removed);
    let gone = row(&table, 1);
    assert_eq!((gone.state, gone.gone, gone.changed), (State::Closed, Some(at(2)), Cells::STATE));
    look(&mut table, 4, &[]);
    assert_eq!(row(&table, 1).changed, Cells::empty());
    assert_eq!(row(&table, 1).since.at, at(2));
    assert!(look(&mut table, 12, &[]).removed);
    assert_eq!(table.find(1), None);
    assert_eq!(table.rows().count(), 0);
}

#[test]
fn time_wait_that_is_over_is_no_news() {
    let mut table = Table::new(false);
    look(&mut table, 0, &[socket(1, State::TimeWait, 1)]);
    assert!(look(&mut table, 2, &[]).removed);
    assert_eq!(table.find(1), None);
}

#[test]
fn a_connection_keeps_its_row_when_time_wait_gives_it_another_cookie() {
    let mut table = Table::new(false);
    look(&mut table, 0, &[socket(1, State::FinWait2, 1), socket(9, State::Established, 9)]);
    let looked = look(&mut table, 2, &[socket(2, State::TimeWait, 1), socket(9, State::Established, 9)]);
    assert_eq!(looked.renamed, [(1, 2)]);
    assert_eq!(table.find(1), None);
    assert_eq!(row(&table, 2).changed, Cells::STATE);
    assert_eq!(table.rows().count(), 2);
}

#[test]
fn in_time_wait_nothing_is_known_of_segments() {
    let mut table = Table::new(false);
    let info = info(39, 11, 0);
    look(&mut table, 0, &[Seen { info: Some(&info), ..socket(1, State::FinWait2, 1) }]);
    assert!(row(&table, 1).path.is_some());
    look(&mut table, 2, &[socket(1, State::TimeWait, 1)]);
    assert_eq!(row(&table, 1).path, None);
}

#[test]
fn a_state_began_between_the_look_that_saw_another_and_the_one_that_saw_it() {
    let mut table = Table::new(false);
    let began = |table: &Table, cookie| (row(table, cookie).after, row(table, cookie).by);
    look(&mut table, 0, &[socket(1, State::Established, 1)]);
    assert_eq!(began(&table, 1), (Moment::ZERO, at(0)), "nobody had looked before");
    look(&mut table, 2, &[socket(1, State::Established, 1), socket(2, State::Established, 2)]);
    assert_eq!(began(&table, 1), (Moment::ZERO, at(0)));
    assert_eq!(began(&table, 2), (at(0), at(2)));
    // A look that was not whole may have missed what it has not seen; and it lasts.
    table.begin(at(4));
    table.see(&socket(1, State::CloseWait, 1), at(4));
    table.end(at(5), false);
    assert_eq!(began(&table, 1), (at(2), at(5)));
    look(&mut table, 6, &[socket(3, State::Established, 3)]);
    assert_eq!(began(&table, 3), (at(2), at(6)));
    assert_eq!((row(&table, 1).state, began(&table, 1)), (State::Closed, (at(2), at(6))));
}

#[test]
fn a_mini_socket_in_the_same_state_keeps_its_age() {
    let mut table = Table::new(false);
    look(&mut table, 0, &[socket(1, State::Established, 1)]);
    look(&mut table, 2, &[socket(1, State::FinWait2, 1)]);
    look(&mut table, 4, &[socket(2, State::FinWait2, 1)]);
    assert_eq!(row(&table, 2).since, Since { at: at(2), known: true });
}

#[test]
fn a_look_that_was_not_whole_takes_nobody_for_gone() {
    let mut table = Table::new(false);
    look(&mut table, 0, &[socket(1, State::Established, 1)]);
    table.begin(at(2));
    assert_eq!(table.end(at(2), false), Looked::default());
    assert_eq!(row(&table, 1).gone, None);
    look(&mut table, 4, &[socket(1, State::Established, 1)]);
    assert_eq!(row(&table, 1).since.at, at(0));
}

#[test]
fn a_number_is_used_again_after_its_row() {
    let mut table = Table::new(false);
    look(&mut table, 0, &[socket(1, State::Established, 1), socket(2, State::Established, 2)]);
    let number = table.find(1).unwrap();
    look(&mut table, 2, &[socket(2, State::Established, 2)]);
    look(&mut table, 20, &[socket(2, State::Established, 2)]);
    assert!(table.row(number).is_none());
    let looked = look(&mut table, 22, &[socket(2, State::Established, 2), socket(3, State::Established, 3)]);
    assert_eq!((looked.new, table.find(3)), (vec![number], Some(number)));
}

#[test]
fn how_segments_fare_is_marked_when_it_is_asked_again() {
    let mut table = Table::new(false);
    let quiet = socket(1, State::Established, 1);
    look(&mut table, 0, &[quiet]);
    let number = table.find(1).unwrap();
    assert!(table.lacks_path(number));
    table.take_path(number, Some(&info(39, 11, 0)));
    assert!(!table.lacks_path(number));
    assert_eq!(row(&table, 1).changed, Cells::empty(), "nothing was known before");
    look(&mut table, 2, &[quiet]);
    assert!(table.lacks_path(number));
    table.take_path(number, Some(&info(39, 7, 2)));
    assert_eq!(row(&table, 1).changed, Cells::CWND | Cells::RETRANS);
    let path = row(&table, 1).path.unwrap();
    assert_eq!((path.rtt, path.cwnd, path.retrans), (Some(Duration::from_micros(39)), Some(7), Some(2)));
    table.take_path(number, None);
    assert!(row(&table, 1).path.is_some(), "what was known stays");
}

#[test]
fn a_queue_is_full_when_it_holds_one_more_than_it_says() {
    let mut table = Table::new(false);
    let listener = Seen { receive_queue: 3, send_queue: 2, ..socket(1, State::Listen, 0) };
    look(&mut table, 0, &[listener]);
    assert!(row(&table, 1).is_full());
    look(&mut table, 2, &[Seen { receive_queue: 2, ..listener }]);
    assert!(!row(&table, 1).is_full());
}
