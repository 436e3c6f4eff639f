//! Pages of the kernel's ring buffer are read as its texts lay them out, and whatever they hold does no harm.

use std::time::Duration;

use towpath_diag::State::{Closed, Established, SynSent};
use towpath_diag::fuzzing::{Traced, page};

const HEADER: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
";

/// As Linux 6.18 has it, less what is not read.
const FORMAT: &str = "name: inet_sock_set_state
ID: 2287
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;
\tfield:int oldstate;\toffset:16;\tsize:4;\tsigned:1;
\tfield:int newstate;\toffset:20;\tsize:4;\tsigned:1;
\tfield:__u16 sport;\toffset:24;\tsize:2;\tsigned:0;
\tfield:__u16 dport;\toffset:26;\tsize:2;\tsigned:0;
\tfield:__u16 family;\toffset:28;\tsize:2;\tsigned:0;
\tfield:__u16 protocol;\toffset:30;\tsize:2;\tsigned:0;
\tfield:__u8 saddr[4];\toffset:32;\tsize:4;\tsigned:0;
\tfield:__u8 daddr[4];\toffset:36;\tsize:4;\tsigned:0;
\tfield:__u8 saddr_v6[16];\toffset:40;\tsize:16;\tsigned:0;
\tfield:__u8 daddr_v6[16];\toffset:56;\tsize:16;\tsigned:0;

print fmt: \"family=%s\", __print_symbolic(REC->family, { 2, \"AF_INET\" })
";

const START: u64 = 1_000_000_000;

fn record(protocol: u16) -> Vec<u8> {
    let mut record = vec![0; 72];
    record[0..2].copy_from_slice(&2287_u16.to_ne_bytes());
    record[8..16].copy_from_slice(&0xffff_8881_0000_0000_u64.to_ne_bytes());
    record[16..20].copy_from_slice(&7_u32.to_ne_bytes());
    record[20..24].copy_from_slice(&2_u32.to_ne_bytes());
    record[24..26].copy_from_slice(&4000_u16.to_ne_bytes());
    record[26..28].copy_from_slice(&80_u16.to_ne_bytes());
    record[28..30].copy_from_slice(&2_u16.to_ne_bytes());
    record[30..32].copy_from_slice(&protocol.to_ne_bytes());
    for at in [40, 56] {
        record[at..at + 16].copy_from_slice(&"::ffff:127.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    }
    record
}

/// The head of an entry, with what the type says in the next word.
fn head(kind: u32, passed: u32, word: Option<u32>) -> Vec<u8> {
    let head = if cfg!(target_endian = "little") { kind | passed << 5 } else { kind << 27 | passed };
    [head].into_iter().chain(word).flat_map(u32::to_ne_bytes).collect()
}

fn entry(passed: u32, record: &[u8]) -> Vec<u8> {
    [head(record.len() as u32 / 4, passed, None), record.to_vec()].concat()
}

fn whole(flags: u32, entries: &[u8]) -> Vec<u8> {
    let used = entries.len() as u32 | flags;
    let mut page = [&START.to_ne_bytes()[..], &used.to_ne_bytes(), &[0; 4], entries].concat();
    page.resize(4096, 0);
    page
}

fn read(page_bytes: &[u8]) -> (u64, Vec<Traced>) {
    page(page_bytes, HEADER, FORMAT).expect("the texts are understood")
}

fn times(entries: &[u8]) -> Vec<u64> {
    read(&whole(0, entries)).1.iter().map(|traced| traced.0.as_nanos() as u64 - START).collect()
}

#[test]
fn a_record_is_read_by_the_offsets_of_its_format() {
    let (lost, traced) = read(&whole(0, &entry(5, &record(6))));
    let (local, peer) = ("127.0.0.1:4000".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
    assert_eq!(traced, [(Duration::from_nanos(START + 5), Closed, SynSent, local, peer)]);
    assert_eq!(lost, 0);
    // The same with another offset: the field is where the text says.
    let moved = FORMAT.replace("newstate;\toffset:20", "newstate;\toffset:4");
    let mut other = record(6);
    other[4..8].copy_from_slice(&1_u32.to_ne_bytes());
    assert_eq!(page(&whole(0, &entry(0, &other)), HEADER, &moved).unwrap().1[0].2, Established);
}

#[test]
fn other_events_and_protocols_are_passed_over() {
    let mut other = record(6);
    other[0] ^= 1;
    let entries = [entry(1, &other), entry(1, &record(132)), entry(1, &record(6)), entry(1, &[0; 4])].concat();
    assert_eq!(times(&entries), [3]);
}

#[test]
fn time_goes_on_with_every_kind_of_entry() {
    let upper = 3;
    let entries = [
        entry(5, &record(6)),
        // A record that gives its length in a word.
        head(0, 7, Some(76)),
        record(6),
        // One that was thrown away.
        head(29, 1, Some(12)),
        vec![0; 8],
        entry(2, &record(6)),
        // More time than an entry has bits for.
        head(30, 9, Some(upper)),
        entry(0, &record(6)),
        // The time itself.
        head(31, 77, Some(((START + 1_000_000_000_000) >> 27) as u32)),
        entry(0, &record(6)),
    ]
    .concat();
    let long = (u64::from(upper) << 27) + 9;
    let stamp = (((START + 1_000_000_000_000) >> 27) << 27) + 77 - START;
    assert_eq!(times(&entries), [5, 12, 15, 15 + long, stamp]);
}

#[test]
fn padding_ends_a_page() {
    assert_eq!(times(&[entry(5, &record(6)), head(29, 0, None), entry(5, &record(6))].concat()), [5]);
}

#[test]
fn what_was_lost_is_counted() {
    let entries = entry(5, &record(6));
    assert_eq!(read(&whole(1 << 31, &entries)).0, 1, "the kernel says that there were some");
    let mut counted = whole(1 << 31 | 1 << 30, &entries);
    counted[16 + entries.len()..][..8].copy_from_slice(&1234_u64.to_ne_bytes());
    let (lost, traced) = read(&counted);
    assert_eq!((lost, traced.len()), (1234, 1));
}

#[test]
fn a_page_may_end_anywhere_and_hold_anything() {
    let entries = [entry(5, &record(6)), head(0, 7, Some(76)), record(6), head(30, 9, Some(1))].concat();
    let good = whole(0, &entries);
    for length in 0..good.len() {
        assert_eq!(page(&good[..length], HEADER, FORMAT).is_some(), length >= 16, "{length}");
    }
    let mut state = 3_u64;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..4 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            bytes[(state >> 33) as usize % (16 + entries.len())] = (state >> 24) as u8;
        }
        read(&bytes);
    }
    // Entries that say that they have a length of nothing, or of all there could be.
    for length in [0, 1, 3, 4, u32::MAX] {
        for kind in [0, 29] {
            read(&whole(0, &head(kind, 1, Some(length))));
        }
    }
}

#[test]
fn texts_that_are_not_understood_are_refused() {
    let some = whole(0, &[]);
    assert!(page(&some, HEADER, FORMAT).is_some());
    assert!(page(&some, "", FORMAT).is_none() && page(&some, HEADER, "").is_none());
    assert!(page(&some, HEADER, &FORMAT.replace("skaddr", "address")).is_none());
    assert!(page(&some, &HEADER.replace("size:4080", "size:x"), FORMAT).is_none());
    assert!(page(&some, HEADER, &FORMAT.replace("ID: 2287", "ID: 99999999")).is_none());
    let huge = format!("offset:{}", usize::MAX);
    assert!(page(&some, HEADER, &FORMAT.replace("offset:20", &huge)).unwrap().1.is_empty());
    assert!(page(&some, &HEADER.replace("offset:16", &huge), FORMAT).is_none());
}
