//! Whatever comes, what can be read is read, and nothing panics: messages and structures that are shorter or longer than they
//! should be, that lie about their length, or that mean nothing.

use std::io::ErrorKind;
use std::time::Duration;

use towpath_diag::fuzzing::{self, Said};
use towpath_diag::{Shutdown, Socket, State, TimerKind};

/// SOCK_DIAG_BY_FAMILY.
const SOCKETS: u16 = 20;

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = 16 + payload.len() as u32;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], payload].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len() as u16;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// 127.0.0.1:80, connected to 127.0.0.2:4000, of inode 9, whose cookie has two words.
fn row() -> Vec<u8> {
    let mut row = vec![0; 72];
    (row[0], row[1], row[2], row[3]) = (2, 1, 1, 3);
    row[4..8].copy_from_slice(&[0, 80, 4000_u16.to_be_bytes()[0], 4000_u16.to_be_bytes()[1]]);
    row[8..12].copy_from_slice(&[127, 0, 0, 1]);
    row[24..28].copy_from_slice(&[127, 0, 0, 2]);
    row[44..48].copy_from_slice(&5_u32.to_ne_bytes());
    row[48..52].copy_from_slice(&1_u32.to_ne_bytes());
    row[52..56].copy_from_slice(&250_u32.to_ne_bytes());
    row[68..72].copy_from_slice(&9_u32.to_ne_bytes());
    row
}

fn socket(payload: &[u8]) -> Option<Socket> {
    match fuzzing::datagram(&message(SOCKETS, 0, payload)).pop() {
        Some(Ok(Said::Socket(socket))) => socket.map(|socket| *socket),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_row_is_read() {
    let socket = socket(&[row(), attribute(8, &[3]), attribute(4, b"cubic\0")].concat()).unwrap();
    assert_eq!((socket.state, socket.inode, socket.cookie), (State::Established, Some(9), 1 << 32 | 5));
    assert_eq!(
        (socket.local.to_string(), socket.peer.unwrap().to_string()),
        ("127.0.0.1:80".into(), "127.0.0.2:4000".into())
    );
    let timer = socket.timer.unwrap();
    assert_eq!((timer.kind, timer.expires, timer.retransmits), (TimerKind::Retransmit, Duration::from_millis(250), 3));
    assert_eq!((socket.shutdown, socket.congestion.as_deref()), (Some(Shutdown::all()), Some("cubic")));
}

#[test]
fn a_row_that_is_cut_off_is_none() {
    for length in 0..72 {
        assert_eq!(socket(&row()[..length]), None, "{length}");
    }
    assert!(socket(&row()).is_some());
}

#[test]
fn a_row_of_another_family_or_state_is_not_taken_for_one_we_know() {
    let mut other = row();
    other[0] = 1;
    assert_eq!(socket(&other), None);
    let mut other = row();
    (other[1], other[2]) = (200, 200);
    let other = socket(&other).unwrap();
    assert_eq!((other.state, other.timer.unwrap().kind), (State::Other(200), TimerKind::Other(200)));
    assert_eq!((other.state.to_string(), other.state.short()), ("STATE-200".into(), "?"));
}

#[test]
fn an_attribute_that_is_too_short_says_nothing_and_one_that_is_longer_says_the_same() {
    for (kind, whole) in
        [(7, 36), (3, 16), (9, 16), (16, 20), (8, 1), (11, 1), (15, 4), (17, 4), (21, 8), (5, 1), (6, 1), (4, 2)]
    {
        let read = |length: usize| socket(&[row(), attribute(kind, &vec![b'a'; length])].concat()).unwrap();
        // SK_MEMINFO_DROPS came later than the rest.
        let least = if kind == 7 { 32 } else { whole };
        for length in 0..least.min(whole) {
            let (cut, blank) = (read(length), socket(&row()).unwrap());
            assert!(cut == blank || kind == 4, "attribute {kind} of {length} bytes: {cut:?}");
        }
        assert_ne!(read(whole), socket(&row()).unwrap(), "attribute {kind}");
        assert!(read(whole + 8) == read(whole) || kind == 4, "attribute {kind}");
    }
    let memory = socket(&[row(), attribute(7, &[1; 32])].concat()).unwrap().memory.unwrap();
    assert_eq!((memory.backlog, memory.drops), (0x0101_0101, None));
}

#[test]
fn an_algorithms_name_is_short_text_or_none() {
    let name =
        |bytes: &[u8]| socket(&[row(), attribute(4, bytes)].concat()).unwrap().congestion.map(|name| name.to_string());
    assert_eq!(name(b"fifteen-letters\0"), Some("fifteen-letters".into()));
    assert_eq!(name(b"sixteen--letters"), None);
    assert_eq!(name(b"\0"), None);
    assert_eq!(name(&[0xff, 0]), None);
    assert_eq!(name(b"bbr"), Some("bbr".into()));
}

#[test]
fn unknown_attributes_are_passed_over() {
    let socket = socket(&[row(), attribute(99, &[1; 40]), attribute(0x8000 | 8, &[1])].concat()).unwrap();
    assert_eq!(socket.shutdown, Some(Shutdown::RECEIVE));
}

#[test]
fn an_attribute_that_does_not_fit_ends_them() {
    let mut bytes = [row(), attribute(8, &[3]), attribute(15, &[7; 4])].concat();
    // The one in the middle says that it is longer than all that is left.
    bytes[72..74].copy_from_slice(&200_u16.to_ne_bytes());
    let cut = socket(&bytes).unwrap();
    assert_eq!((cut.shutdown, cut.mark), (None, None));
    // One without room for its own header leads nowhere.
    bytes[72..74].copy_from_slice(&1_u16.to_ne_bytes());
    assert_eq!(socket(&bytes).unwrap().mark, None);
}

#[test]
fn a_message_that_lies_about_its_length_ends_the_datagram() {
    for length in [0_u32, 1, 15, 1000, u32::MAX, u32::MAX - 2] {
        let mut bytes = [message(SOCKETS, 0, &row()), message(SOCKETS, 0, &row())].concat();
        bytes[88..92].copy_from_slice(&length.to_ne_bytes());
        let said = fuzzing::datagram(&bytes);
        assert!(
            matches!(&said[..], [Ok(Said::Socket(Some(_))), Err(error)] if error.kind() == ErrorKind::InvalidData),
            "{said:?}"
        );
    }
}

#[test]
fn a_datagram_may_end_anywhere() {
    let whole = [message(SOCKETS, 0, &row()), message(3, 2, &[0; 4])].concat();
    for length in 0..whole.len() {
        let said = fuzzing::datagram(&whole[..length]);
        assert!(said.len() <= 2 && (length < 88 || matches!(said[0], Ok(Said::Socket(Some(_))))), "{length}: {said:?}");
    }
    assert!(matches!(fuzzing::datagram(&whole)[..], [_, Ok(Said::End(Ok(())))]));
}

#[test]
fn an_error_has_the_kernels_number_and_words() {
    let asked = message(SOCKETS, 0x301, &[0; 20]);
    let error = |flags, tail: &[u8]| {
        let payload = [&(-22_i32).to_ne_bytes()[..], &asked, tail].concat();
        match fuzzing::datagram(&message(2, flags, &payload)).pop() {
            Some(Ok(Said::End(Err(error)))) => error,
            other => panic!("{other:?}"),
        }
    };
    let plain = error(0, &[]);
    assert_eq!((plain.raw_os_error(), plain.kind()), (Some(22), ErrorKind::InvalidInput));
    let words = attribute(1, b"no such thing\0");
    let explained = error(0x200, &words);
    assert_eq!((explained.kind(), explained.to_string()), (ErrorKind::InvalidInput, format!("{plain}: no such thing")));
    // Words that are no text, or cut off, are none.
    assert_eq!(error(0x200, &attribute(1, &[0xff])).to_string(), plain.to_string());
    assert_eq!(error(0x200, &words[..6]).to_string(), plain.to_string());
    // What was asked is left out but for its header (NLM_F_CAPPED).
    let capped = [&(-22_i32).to_ne_bytes()[..], &asked[..16], &words].concat();
    let said = fuzzing::datagram(&message(2, 0x300, &capped)).pop();
    assert!(
        matches!(&said, Some(Ok(Said::End(Err(error)))) if error.to_string().ends_with("no such thing")),
        "{said:?}"
    );
}

#[test]
fn the_end_of_a_dump_may_be_an_error() {
    let end = |payload: &[u8]| match fuzzing::datagram(&message(3, 2, payload)).pop() {
        Some(Ok(Said::End(result))) => result,
        other => panic!("{other:?}"),
    };
    assert!(end(&[]).is_ok() && end(&0_i32.to_ne_bytes()).is_ok() && end(&1_i32.to_ne_bytes()).is_ok());
    assert_eq!(end(&(-2_i32).to_ne_bytes()).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(end(&i32::MIN.to_ne_bytes()).is_err());
    let error = end(&[&(-1_i32).to_ne_bytes()[..], &attribute(1, b"not you\0")].concat()).unwrap_err();
    assert!(error.to_string().ends_with("not you"), "{error}");
}

#[test]
fn anything_at_all_does_no_harm() {
    let mut state = 7_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    let good =
        [message(SOCKETS, 0, &[row(), attribute(2, &[9; 280]), attribute(7, &[9; 36])].concat()), message(3, 0, &[])]
            .concat();
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random() % 6 {
            let at = usize::from(u16::from_ne_bytes([random(), random()])) % bytes.len();
            bytes[at] = random();
        }
        for said in fuzzing::datagram(&bytes) {
            if let Ok(Said::Socket(Some(socket))) = said {
                assert!(!format!("{socket:?}").is_empty());
            }
        }
    }
}
