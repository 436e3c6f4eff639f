//! The states of both sides after every segment, as RFC 9293 has them.

#![forbid(unsafe_code)]

mod common;

use std::time::Duration;

use common::*;
use towpath_capture::flow::{Side, State::*, Verdict};

#[test]
fn a_life_is_the_ladder_of_the_rfc() {
    let mut script = Script::new();
    let syn = script.client(SYN, 0, 0, 0);
    assert_eq!((syn.before.client, syn.before.server), (Closed, Listen));
    assert_eq!(states(&syn), (SynSent, SynReceived));
    assert!(syn.first);
    assert_eq!((syn.seq, syn.ack, syn.since), (0, None, Duration::ZERO));
    let answer = script.server(SYN | ACK, 0, 1, 0);
    assert_eq!(states(&answer), (Established, SynReceived));
    assert_eq!((answer.seq, answer.ack, answer.from), (0, Some(1), Side::Server));
    assert_eq!(states(&script.client(ACK, 1, 1, 0)), (Established, Established));
    let data = script.server(PSH, 1, 1, 35);
    assert_eq!((states(&data), data.seq, data.len), ((Established, Established), 1, 35));
    script.client(PSH, 1, 36, 14);
    assert_eq!(states(&script.server(FIN, 36, 15, 0)), (CloseWait, FinWait1));
    assert_eq!(states(&script.client(FIN, 15, 37, 0)), (LastAck, TimeWait));
    let last = script.server(ACK, 37, 16, 0);
    assert_eq!((states(&last), last.verdict), ((Closed, TimeWait), Some(Verdict::Clean)));

    let flow = script.flow();
    assert_eq!(flow.handshake, Some(Duration::from_micros(20)));
    assert_eq!((flow.bytes(), flow.ends.client.sent.bytes, flow.ends.server.sent.bytes), (49, 14, 35));
    assert_eq!((flow.closed_first, flow.retransmissions()), (Some(Side::Server), 0));
    assert_eq!((flow.ends.client.sent.segments, flow.ends.server.sent.segments), (4, 4));
    assert!(!flow.simultaneous_close && !flow.simultaneous_open && !flow.from_middle);
}

#[test]
fn half_closed_the_other_side_goes_on() {
    let mut script = Script::open();
    assert_eq!(states(&script.client(FIN, 1, 1, 0)), (FinWait1, CloseWait));
    assert_eq!(states(&script.server(ACK, 1, 2, 0)), (FinWait2, CloseWait));
    let data = script.server(PSH, 1, 2, 100);
    assert_eq!((states(&data), data.verdict), ((FinWait2, CloseWait), None));
    script.client(ACK, 2, 101, 0);
    assert_eq!(states(&script.server(FIN, 101, 2, 0)), (TimeWait, LastAck));
    let last = script.client(ACK, 2, 102, 0);
    assert_eq!((states(&last), last.verdict), ((TimeWait, Closed), Some(Verdict::Clean)));
    assert_eq!(script.flow().closed_first, Some(Side::Client));
}

#[test]
fn a_fin_counts_once_all_before_it_is_there() {
    let mut script = Script::open();
    let fin = script.client(FIN, 101, 1, 0);
    assert_eq!(states(&fin), (FinWait1, Established), "bytes 1..101 are missing");
    assert_eq!(states(&script.client(PSH, 1, 1, 100)), (FinWait1, CloseWait));
}

#[test]
fn who_acknowledges_a_fin_has_it_although_the_capture_missed_data_before_it() {
    let mut script = Script::open();
    assert_eq!(states(&script.client(FIN, 101, 1, 0)), (FinWait1, Established));
    assert_eq!(states(&script.server(ACK, 1, 102, 0)), (FinWait2, CloseWait));
}

#[test]
fn fins_that_cross_close_both_at_once() {
    let mut script = Script::open();
    script.client(FIN, 1, 1, 0);
    assert_eq!(states(&script.server(FIN, 1, 1, 0)), (Closing, Closing));
    assert_eq!(states(&script.client(ACK, 2, 2, 0)), (Closing, TimeWait));
    let last = script.server(ACK, 2, 2, 0);
    assert_eq!((states(&last), last.verdict), ((TimeWait, TimeWait), Some(Verdict::Clean)));
    assert!(script.flow().simultaneous_close);
}

#[test]
fn syns_that_cross_open_once() {
    let mut script = Script::new();
    script.client(SYN, 0, 0, 0);
    let crossing = script.server(SYN, 0, 0, 0);
    assert_eq!((states(&crossing), crossing.flow.0), ((SynReceived, SynReceived), 1));
    assert_eq!(states(&script.client(SYN | ACK, 0, 1, 0)), (SynReceived, Established));
    assert_eq!(states(&script.server(SYN | ACK, 0, 1, 0)), (Established, Established));
    assert!(script.flow().simultaneous_open);
    assert_eq!(script.flow().retransmissions(), 0, "the second SYN is another answer, not the same");
    assert_eq!(script.flow().handshake, Some(Duration::from_micros(30)));
}

#[test]
fn a_socket_that_connects_to_itself_is_one_connection() {
    let mut script = Script::new();
    script.server = script.client;
    script.isn.1 = script.isn.0;
    assert_eq!(states(&script.client(SYN, 0, 0, 0)), (SynReceived, SynReceived));
    assert_eq!(states(&script.client(SYN | ACK, 0, 1, 0)), (Established, Established));
    script.client(PSH, 1, 1, 5);
    script.client(ACK, 6, 6, 0);
    assert_eq!(states(&script.client(FIN, 6, 6, 0)), (Closing, Closing));
    let last = script.client(ACK, 7, 7, 0);
    assert_eq!((states(&last), last.verdict), ((TimeWait, TimeWait), Some(Verdict::Clean)));
    assert_eq!((script.flow().bytes(), script.flow().retransmissions()), (5, 0));
}

#[test]
fn where_nothing_answers_nothing_is_known() {
    let mut script = Script::new();
    script.client(SYN, 0, 0, 0);
    script.wait(Duration::from_secs(1));
    assert_eq!(states(&script.client(SYN, 0, 0, 0)), (SynSent, Unknown));
    assert_eq!(states(&script.server(SYN | ACK, 0, 1, 0)), (Established, SynReceived), "it has answered after all");
}

#[test]
fn what_the_capture_missed_is_inferred() {
    let mut script = Script::new();
    script.client(SYN, 0, 0, 0);
    let ack = script.client(ACK, 1, 1, 0);
    assert_eq!(states(&ack), (Established, Established), "nobody acknowledges a SYN that never came");
    script.server(PSH, 1, 1, 10);
    assert_eq!(script.flow().bytes(), 10);
}

#[test]
fn numbers_go_on_where_they_wrap_around() {
    let mut script = Script::new();
    script.isn = (u32::MAX - 10, u32::MAX);
    script.shake();
    let mut ack = 1;
    for seq in (1..3_000_000_000_i64).step_by(500_000_000) {
        let data = script.client(PSH, seq, 1, 500_000_000);
        assert_eq!((data.seq, data.notes.is_empty()), (seq, true));
        ack = seq + 500_000_000;
        assert_eq!(script.server(ACK, 1, ack, 0).ack, Some(ack));
    }
    assert_eq!(script.client(PSH, ack, 1, 1_500_000_000).seq, 3_000_000_001);
    let beyond = script.client(FIN, 4_500_000_001, 1, 0);
    assert_eq!((beyond.seq, script.flow().bytes()), (4_500_000_001, 4_500_000_000));
    assert_eq!(states(&script.server(ACK, 1, 4_500_000_002, 0)), (FinWait2, CloseWait));
}
