//! What was sent again, and why; what came out of order, or was never seen.

#![forbid(unsafe_code)]

mod common;

use std::time::Duration;

use common::*;
use towpath_capture::flow::{Notes, Side};
use towpath_capture::segment::Ecn;

#[test]
fn without_a_word_from_the_peer_a_timer_ran_out() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 100);
    script.wait(Duration::from_millis(200));
    assert_notes(&script.client(PSH, 1, 1, 100), Notes::RETRANSMISSION | Notes::TIMEOUT);
    let sent = script.flow().ends.client.sent;
    assert_eq!((sent.bytes, sent.retransmissions, sent.retransmitted_bytes), (100, 1, 100));
    assert_eq!((sent.timeout_retransmissions, sent.fast_retransmissions), (1, 0));
}

#[test]
fn three_duplicate_acks_ask_for_it() {
    let mut script = Script::open();
    for seq in [1, 101, 201, 301, 401] {
        script.client(PSH, seq, 1, 100);
    }
    script.server(ACK, 1, 101, 0);
    for _ in 0..3 {
        assert_notes(&script.server(ACK, 1, 101, 0), Notes::DUPLICATE_ACK);
    }
    assert_notes(&script.client(PSH, 101, 1, 100), Notes::RETRANSMISSION | Notes::FAST);
    script.server(ACK, 1, 501, 0);
    assert_eq!(script.flow().ends.server.sent.duplicate_acks, 3);
    assert_eq!(script.flow().ends.client.sent.bytes, 500);
}

#[test]
fn selective_acks_ask_for_it_too() {
    let mut script = Script::open();
    for seq in [1, 101, 201] {
        script.client(PSH, seq, 1, 100);
    }
    let block = script.sack(Side::Client, 101, 301);
    let sack = script.server_with(|segment| segment.options.sack = [block].into_iter().collect(), (ACK, 1, 1, 0));
    assert_notes(&sack, Notes::SACK | Notes::DUPLICATE_ACK);
    assert_notes(&script.client(PSH, 1, 1, 100), Notes::RETRANSMISSION | Notes::FAST);
    assert_eq!(script.flow().ends.server.sent.sacks, 1);
}

#[test]
fn what_had_been_acknowledged_was_sent_in_vain() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 100);
    script.server(ACK, 1, 101, 0);
    assert_notes(&script.client(PSH, 1, 1, 100), Notes::RETRANSMISSION | Notes::SPURIOUS);
    let block = script.sack(Side::Client, 1, 101);
    let dsack = script.server_with(|segment| segment.options.sack = [block].into_iter().collect(), (ACK, 1, 101, 0));
    assert_notes(&dsack, Notes::DUPLICATE_SACK);
    assert_eq!(script.flow().ends.client.sent.spurious_retransmissions, 1);
    assert_eq!(script.flow().ends.server.sent.duplicate_sacks, 1);
}

#[test]
fn a_duplicate_within_the_second_block_is_told_beside_what_is_missing() {
    let mut script = Script::open();
    for seq in [1, 101, 201] {
        script.client(PSH, seq, 1, 100);
    }
    let blocks = [script.sack(Side::Client, 201, 301), script.sack(Side::Client, 101, 301)];
    let both = script.server_with(|segment| segment.options.sack = blocks.into_iter().collect(), (ACK, 1, 1, 0));
    assert_notes(&both, Notes::SACK | Notes::DUPLICATE_SACK | Notes::DUPLICATE_ACK);
}

#[test]
fn what_fills_a_gap_at_once_came_out_of_order() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 100);
    assert_notes(&script.client(PSH, 201, 1, 100), Notes::GAP);
    assert_notes(&script.client(PSH, 101, 1, 100), Notes::OUT_OF_ORDER);
    let sent = script.flow().ends.client.sent;
    assert_eq!((sent.bytes, sent.out_of_order, sent.gaps, sent.retransmissions), (300, 1, 1, 0));
}

#[test]
fn what_fills_a_gap_after_a_round_trip_was_sent_again() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 100);
    script.client(PSH, 201, 1, 100);
    script.wait(Duration::from_millis(200));
    assert_notes(&script.client(PSH, 101, 1, 100), Notes::RETRANSMISSION | Notes::TIMEOUT);
    assert_eq!(script.flow().ends.client.sent.bytes, 300, "its bytes had not been seen before");
}

#[test]
fn a_segment_may_repeat_old_bytes_and_bring_new_ones() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 100);
    script.wait(Duration::from_millis(200));
    assert_notes(&script.client(PSH, 51, 1, 100), Notes::RETRANSMISSION | Notes::TIMEOUT);
    let sent = script.flow().ends.client.sent;
    assert_eq!((sent.bytes, sent.retransmitted_bytes), (150, 50));
}

#[test]
fn syn_and_fin_are_sent_again_as_well() {
    let mut script = Script::new();
    script.client(SYN, 0, 0, 0);
    script.wait(Duration::from_secs(1));
    assert_notes(&script.client(SYN, 0, 0, 0), Notes::RETRANSMISSION | Notes::TIMEOUT);
    script.server(SYN | ACK, 0, 1, 0);
    script.client(ACK, 1, 1, 0);
    assert_notes(&script.server(SYN | ACK, 0, 1, 0), Notes::RETRANSMISSION | Notes::SPURIOUS);
    script.client(FIN, 1, 1, 0);
    script.wait(Duration::from_secs(1));
    assert_notes(&script.client(FIN, 1, 1, 0), Notes::RETRANSMISSION | Notes::TIMEOUT);
    assert_eq!((script.flow().ends.client.sent.syns, script.flow().ends.client.sent.fins), (2, 2));
    assert_eq!(script.flow().retransmissions(), 3);
}

#[test]
fn what_is_acknowledged_unseen_was_lost_by_the_capture() {
    let mut script = Script::open();
    assert_notes(&script.server(ACK, 1, 501, 0), Notes::UNSEEN_ACKED);
    assert_notes(&script.client(PSH, 501, 1, 100), Notes::empty());
    assert_eq!(script.flow().ends.client.sent.bytes, 100);
}

#[test]
fn gigabytes_lost_by_the_capture_do_not_turn_time_back() {
    let mut script = Script::open();
    let far = 3_000_000_000;
    let data = script.client(PSH, far, 1, 100);
    assert_eq!(data.seq, far);
    assert_notes(&data, Notes::GAP);
    assert_notes(&script.server(ACK, 1, far + 100, 0), Notes::empty());
}

#[test]
fn an_ack_repeated_with_nothing_outstanding_is_no_duplicate() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 100);
    script.server(ACK, 1, 101, 0);
    assert_notes(&script.server(ACK, 1, 101, 0), Notes::empty());
}

#[test]
fn marks_of_congestion_are_counted_but_not_those_of_the_handshake() {
    let mut script = Script::new();
    use towpath_capture::segment::Flags;
    script.client(SYN | Flags::ECE | Flags::CWR, 0, 0, 0);
    script.server(SYN | ACK | Flags::ECE, 0, 1, 0);
    script.client(ACK, 1, 1, 0);
    script.client_with(|segment| segment.ecn = Ecn::Congested, (PSH, 1, 1, 100));
    script.server(ACK | Flags::ECE, 1, 101, 0);
    script.client(ACK | Flags::CWR | Flags::URG, 101, 1, 10);
    let (client, server) = (script.flow().ends.client.sent, script.flow().ends.server.sent);
    assert_eq!((client.congestion_marks, server.congestion_echoes, client.congestion_reductions), (1, 1, 1));
    assert_eq!((client.pushes, client.urgents), (1, 1));
}

#[test]
fn the_same_segment_on_another_interface_is_a_copy() {
    let mut script = Script::open();
    let mut data = script.segment(Side::Client, PSH, 1, 1, 100);
    (data.interface, data.ip_id) = (Some(3), Some(77));
    assert_notes(&script.push(&data), Notes::empty());
    data.interface = Some(4);
    assert_notes(&script.push(&data), Notes::COPY);
    data.interface = Some(3);
    assert_notes(&script.push(&data), Notes::RETRANSMISSION | Notes::TIMEOUT);
    let sent = script.flow().ends.client.sent;
    assert_eq!((sent.copies, sent.bytes, sent.retransmissions), (1, 100, 1));
}
