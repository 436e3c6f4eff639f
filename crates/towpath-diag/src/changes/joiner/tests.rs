//! Records in, records out: what waits, what is filled in, which life it belongs to.

use std::net::SocketAddr;
use std::time::Duration;

use super::{GRACE, Joiner, Next};
use crate::Family;
use crate::State::{self, CloseWait, Closed, Established, Listen, SynReceived, SynSent};
use crate::changes::Key;
use crate::changes::format::Record;

const SOON: Duration = Duration::from_micros(10);

fn end(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn record(at: Duration, socket: u64, (old, new): (State, State), local: u16, peer: u16) -> Record {
    Record { at, socket, old, new, family: Family::V4, local: end(local), peer: end(peer) }
}

fn take(joiner: &mut Joiner, now: Duration) -> (Record, Key) {
    match joiner.next(now) {
        Next::Record(record, key) => (record, key),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_port_comes_from_the_next_record_of_the_socket() {
    let mut joiner = Joiner::default();
    joiner.push(record(SOON, 7, (Closed, SynSent), 0, 80));
    joiner.push(record(2 * SOON, 8, (Closed, Listen), 99, 0));
    assert_eq!(joiner.next(3 * SOON), Next::At(SOON + GRACE), "it may still be told");
    joiner.push(record(4 * SOON, 7, (SynSent, Established), 4000, 80));
    assert_eq!(take(&mut joiner, 4 * SOON).0.local, end(4000));
    assert_eq!(take(&mut joiner, 4 * SOON).0.local, end(99), "in the order of their times");
    assert_eq!(take(&mut joiner, 4 * SOON).0.local, end(4000));
    assert_eq!(joiner.next(4 * SOON), Next::Nothing);
}

#[test]
fn another_life_at_the_same_place_tells_nothing() {
    let mut joiner = Joiner::default();
    joiner.push(record(SOON, 7, (Closed, SynSent), 0, 80));
    joiner.push(record(2 * SOON, 7, (Closed, Listen), 99, 0));
    assert_eq!(take(&mut joiner, 2 * SOON).0.local, end(0));
}

#[test]
fn a_record_that_waited_long_enough_is_resolved_by_what_is_there() {
    let mut joiner = Joiner::default();
    joiner.push(record(SOON, 7, (Closed, SynSent), 0, 80));
    joiner.push(record(SOON, 8, (Closed, SynSent), 0, 81));
    let late = SOON + GRACE;
    assert_eq!(joiner.next(late), Next::Unresolved);
    joiner.resolve(&[(end(4000), end(80)), (end(4001), end(81)), (end(4002), end(81))]);
    assert_eq!(take(&mut joiner, late).0.local, end(4000));
    assert_eq!(take(&mut joiner, late).0.local, end(0), "it may be either");
    // Of these two, one is known by now.
    joiner.push(record(late, 9, (Closed, SynSent), 0, 80));
    assert_eq!(joiner.next(late + GRACE), Next::Unresolved);
    joiner.resolve(&[(end(4000), end(80)), (end(4003), end(80))]);
    assert_eq!(take(&mut joiner, late + GRACE).0.local, end(4003));
}

#[test]
fn a_life_has_one_key_and_the_next_another() {
    let mut joiner = Joiner::default();
    for (at, step) in [(Listen, SynReceived), (SynReceived, Established), (Established, CloseWait), (CloseWait, Closed)]
        .into_iter()
        .chain([(Listen, SynReceived), (SynReceived, Established)])
        .enumerate()
    {
        joiner.push(record(SOON * at as u32, 7, step, 80, 4000));
    }
    let keys: Vec<_> = (0..6).map(|_| take(&mut joiner, SOON * 9).1).collect();
    assert!(keys[..4].iter().all(|key| *key == keys[0]), "{keys:?}");
    assert!(keys[4] != keys[0] && keys[5] == keys[4], "{keys:?}");
}

#[test]
fn a_socket_that_was_there_before_has_a_key_too() {
    let mut joiner = Joiner::default();
    joiner.push(record(SOON, 7, (Established, CloseWait), 80, 4000));
    joiner.push(record(SOON, 8, (Established, CloseWait), 80, 4001));
    joiner.push(record(SOON, 7, (CloseWait, Closed), 80, 4000));
    let keys = [(); 3].map(|()| take(&mut joiner, SOON).1);
    assert!(keys[0] == keys[2] && keys[0] != keys[1], "{keys:?}");
}

/// If its close was lost, the place is somebody else's without notice.
#[test]
fn a_beginning_ends_the_life_before_it() {
    let mut joiner = Joiner::default();
    joiner.push(record(SOON, 7, (SynReceived, Established), 80, 4000));
    joiner.push(record(SOON, 7, (Listen, SynReceived), 81, 4001));
    let keys = [(); 2].map(|()| take(&mut joiner, SOON).1);
    assert_ne!(keys[0], keys[1]);
}
