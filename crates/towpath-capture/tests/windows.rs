//! Windows: what they grant, when they are full or closed, and who asks whether they have opened.

#![forbid(unsafe_code)]

mod common;

use common::*;
use towpath_capture::flow::{Notes, Side};

/// Both offer a scale: the client's windows are worth four times what they say, the server's 256 times.
fn scaled() -> Script {
    let mut script = Script::new();
    script.client_with(|syn| syn.options.window_scale = Some(2), (SYN, 0, 0, 0));
    script.server_with(|syn| syn.options.window_scale = Some(8), (SYN | ACK, 0, 1, 0));
    script.client(ACK, 1, 1, 0);
    script
}

#[test]
fn windows_are_scaled_but_for_a_syns() {
    let mut script = Script::new();
    let syn = script.client_with(|syn| syn.options.window_scale = Some(2), (SYN, 0, 0, 0));
    assert_eq!(syn.window, Some(1000));
    let syn = script.server_with(|syn| syn.options.window_scale = Some(8), (SYN | ACK, 0, 1, 0));
    assert_eq!(syn.window, Some(1000));
    assert_eq!(script.client(ACK, 1, 1, 0).window, Some(4000));
    assert_eq!(script.server(ACK, 1, 1, 0).window, Some(256_000));
    assert_eq!(script.flow().ends.server.offered.unwrap().window_scale, Some(8));
}

#[test]
fn a_scale_that_only_one_offers_does_not_count() {
    let mut script = Script::new();
    script.client_with(|syn| syn.options.window_scale = Some(7), (SYN, 0, 0, 0));
    script.server(SYN | ACK, 0, 1, 0);
    assert_eq!(script.client(ACK, 1, 1, 0).window, Some(1000));
}

#[test]
fn a_scale_beyond_the_limit_counts_as_the_limit() {
    let mut script = Script::new();
    script.client_with(|syn| syn.options.window_scale = Some(200), (SYN, 0, 0, 0));
    script.server_with(|syn| syn.options.window_scale = Some(0), (SYN | ACK, 0, 1, 0));
    assert_eq!(script.client(ACK, 1, 1, 0).window, Some(1000 << 14));
}

#[test]
fn from_the_middle_nobody_knows_the_scale() {
    let mut script = Script::new();
    assert_eq!(script.client(ACK, 700, 500, 10).window, None);
    let closed = script.server_with(|segment| segment.window = 0, (ACK, 500, 710, 0));
    assert_eq!(closed.window, Some(0), "zero is zero");
    assert_notes(&closed, Notes::ZERO_WINDOW);
}

#[test]
fn the_segment_that_fills_the_window_is_told() {
    let mut script = scaled();
    script.client(ACK, 1, 1, 0);
    assert_notes(&script.server(PSH, 1, 1, 3999), Notes::empty());
    assert_notes(&script.server(PSH, 4000, 1, 1), Notes::WINDOW_FULL);
    assert_eq!(script.flow().ends.server.sent.window_fulls, 1);
}

#[test]
fn a_closed_window_is_probed_the_way_of_linux() {
    let mut script = scaled();
    script.server(PSH, 1, 1, 4000);
    let closed = script.client_with(|segment| segment.window = 0, (ACK, 1, 4001, 0));
    assert_notes(&closed, Notes::ZERO_WINDOW);
    for _ in 0..2 {
        assert_notes(&script.server(ACK, 4000, 1, 0), Notes::WINDOW_PROBE);
        let still = script.client_with(|segment| segment.window = 0, (ACK, 1, 4001, 0));
        assert_notes(&still, Notes::ZERO_WINDOW | Notes::WINDOW_PROBE_ACK);
    }
    assert_notes(&script.client(ACK, 1, 4001, 0), Notes::WINDOW_UPDATE);
    let (client, server) = (script.flow().ends.client.sent, script.flow().ends.server.sent);
    assert_eq!((client.zero_windows, server.window_probes, server.keep_alives), (3, 2, 0));
    assert_eq!((client.duplicate_acks, server.retransmissions), (0, 0));
}

#[test]
fn a_closed_window_is_probed_by_a_byte() {
    let mut script = scaled();
    script.server(PSH, 1, 1, 4000);
    script.client_with(|segment| segment.window = 0, (ACK, 1, 4001, 0));
    assert_notes(&script.server(ACK, 4001, 1, 1), Notes::WINDOW_PROBE);
    script.client_with(|segment| segment.window = 0, (ACK, 1, 4001, 0));
    assert_notes(&script.server(ACK, 4001, 1, 1), Notes::WINDOW_PROBE);
    assert_eq!(script.flow().ends.server.sent.window_probes, 2);
    assert_eq!(script.flow().ends.server.sent.bytes, 4001);
}

#[test]
fn keep_alives_are_no_retransmissions() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 10);
    script.server(ACK, 1, 11, 0);
    assert_notes(&script.client(ACK, 10, 1, 0), Notes::KEEP_ALIVE);
    assert_notes(&script.server(ACK, 1, 11, 0), Notes::KEEP_ALIVE_ACK);
    assert_notes(&script.client(ACK, 10, 1, 1), Notes::KEEP_ALIVE);
    assert_notes(&script.server(ACK, 1, 11, 0), Notes::KEEP_ALIVE_ACK);
    let sent = script.flow().ends.client.sent;
    assert_eq!((sent.keep_alives, sent.bytes, sent.retransmissions), (2, 10, 0));
}

#[test]
fn a_last_byte_that_was_not_acknowledged_is_sent_again_and_keeps_nothing_alive() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 1);
    assert_notes(&script.client(PSH, 1, 1, 1), Notes::RETRANSMISSION | Notes::TIMEOUT);
    assert_eq!(script.flow().ends.client.sent.keep_alives, 0);
}

#[test]
fn a_closed_window_repeated_is_no_duplicate_ack() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 500);
    script.server_with(|segment| segment.window = 0, (ACK, 1, 1, 0));
    for _ in 0..4 {
        assert_notes(&script.client(PSH, 1, 1, 500), Notes::RETRANSMISSION | Notes::TIMEOUT);
        let closed = script.server_with(|segment| segment.window = 0, (ACK, 1, 1, 0));
        assert_notes(&closed, Notes::ZERO_WINDOW);
    }
}

#[test]
fn a_window_that_moves_along_is_not_full() {
    let mut script = Script::open();
    for seq in (1..5000).step_by(500) {
        assert_notes(&script.client(PSH, seq, 1, 500), Notes::empty());
        script.server(ACK, 1, seq + 500, 0);
    }
    assert_eq!(script.flow().ends[Side::Client].sent.bytes, 5000);
}
