//! How connections end, and which of them are remembered.

#![forbid(unsafe_code)]

mod common;

use std::time::Duration;

use common::*;
use towpath_capture::flow::{Flow, Limits, Notes, Side, State, Verdict};

fn finish(script: Script) -> Flow {
    let mut flows = script.flows.finish();
    assert_eq!(flows.len(), 1);
    flows.remove(0)
}

#[test]
fn an_rst_to_the_syn_is_a_refusal() {
    let mut script = Script::new();
    script.client(SYN, 0, 0, 0);
    let rst = script.server(RST | ACK, 0, 1, 0);
    assert_eq!(rst.verdict, Some(Verdict::Refused));
    assert_eq!(states(&rst), (State::Closed, State::Closed));
    assert_eq!(script.flow().verdict.to_string(), "refused (RST)");
    assert!(script.flow().ended.is_some());
}

#[test]
fn an_rst_that_acknowledges_no_syn_refuses_nothing() {
    let mut script = Script::new();
    script.client(SYN, 0, 0, 0);
    let rst = script.server(RST | ACK, 0, 5, 0);
    assert_eq!((rst.notes, rst.verdict), (Notes::STRAY, None));
    let rst = script.server(RST, 0, 0, 0);
    assert_eq!((rst.notes, rst.verdict), (Notes::STRAY, None));
    assert_eq!(rst.after.client, State::SynSent);
    script.server(SYN | ACK, 0, 1, 0);
    script.client(ACK, 1, 1, 0);
    assert_eq!(script.flow().verdict, Verdict::StillOpen);
}

#[test]
fn syns_without_an_answer_are_counted() {
    let mut script = Script::new();
    for wait in [0, 1, 2] {
        script.wait(Duration::from_secs(wait));
        script.client(SYN, 0, 0, 0);
    }
    let flow = finish(script);
    assert_eq!(flow.verdict, Verdict::NoAnswer { syns: 3 });
    assert_eq!(flow.verdict.to_string(), "no answer (SYN ×3)");
    assert_eq!(flow.retransmissions(), 2);
}

#[test]
fn a_handshake_that_stops_halfway_is_unfinished() {
    let mut script = Script::new();
    script.client(SYN, 0, 0, 0);
    script.server(SYN | ACK, 0, 1, 0);
    assert_eq!(finish(script).verdict, Verdict::Unfinished);
}

#[test]
fn whoever_breaks_off_resets() {
    let mut script = Script::open();
    script.server(PSH, 1, 1, 10);
    let rst = script.client(RST | ACK, 1, 1, 0);
    assert_eq!(rst.verdict, Some(Verdict::Reset { by: Side::Client }));
    assert_eq!(states(&rst), (State::Closed, State::Closed));
    assert_eq!(script.flow().closed_first, Some(Side::Client));
    assert_eq!(script.flow().verdict.to_string(), "reset");
}

#[test]
fn data_to_a_side_that_has_closed_is_reset() {
    let mut script = Script::open();
    script.server(FIN, 1, 1, 0);
    script.client(PSH, 1, 2, 10);
    let rst = script.server(RST, 2, 0, 0);
    assert_eq!(rst.verdict, Some(Verdict::Reset { by: Side::Server }));
    assert_eq!(script.flow().closed_first, Some(Side::Server), "its FIN came first");
}

#[test]
fn an_rst_from_who_knows_of_no_connection_shows_it_half_open() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 10);
    let rst = script.server(RST, 1, 0, 0);
    assert_eq!(rst.verdict, Some(Verdict::HalfOpen { gone: Side::Server }));
    assert_eq!(script.flow().verdict.to_string(), "half-open");
}

#[test]
fn data_that_nobody_acknowledges_shows_it_half_open() {
    let mut script = Script::open();
    script.client(PSH, 1, 1, 10);
    for wait in [1, 2] {
        script.wait(Duration::from_secs(wait));
        script.client(PSH, 1, 1, 10);
        assert_eq!(script.flow().verdict, Verdict::StillOpen);
    }
    script.wait(Duration::from_secs(4));
    let third = script.client(PSH, 1, 1, 10);
    assert_eq!(third.verdict, None, "an answer may come yet");
    assert_eq!(script.flow().verdict, Verdict::HalfOpen { gone: Side::Server });
    script.server(ACK, 1, 11, 0);
    assert_eq!(script.flow().verdict, Verdict::StillOpen, "and here it is");
}

#[test]
fn keep_alives_that_nobody_answers_end_half_open() {
    let mut script = Script::open();
    for _ in 0..3 {
        script.wait(Duration::from_secs(5));
        assert_notes(&script.server(ACK, 0, 1, 0), Notes::KEEP_ALIVE);
    }
    let rst = script.server(RST | ACK, 1, 1, 0);
    assert_eq!(rst.verdict, Some(Verdict::HalfOpen { gone: Side::Client }));
}

#[test]
fn an_rst_outside_the_window_changes_nothing() {
    let mut script = Script::open();
    script.server(PSH, 1, 1, 100);
    for seq in [-500, 99, 100_000] {
        let rst = script.server(RST | ACK, seq, 1, 0);
        assert_eq!((rst.notes, rst.verdict), (Notes::STRAY, None), "at {seq}");
    }
    assert_eq!(script.flow().ends.server.state, State::Established);
    assert_eq!(script.flow().ends.server.sent.strays, 3);
    assert_eq!(script.flow().closed_first, None);
    assert!(script.server(RST | ACK, 101, 1, 0).verdict.is_some());
}

#[test]
fn without_a_handshake_it_is_seen_from_the_middle() {
    let mut script = Script::new();
    let first = script.server(PSH, 500, 700, 10);
    assert_eq!((first.seq, first.ack, first.from), (1, Some(1), Side::Server), "the lower port serves");
    assert_eq!(states(&first), (State::Unknown, State::Established));
    assert_eq!(states(&script.client(ACK, 700, 510, 0)), (State::Established, State::Established));
    assert_eq!(script.flow().verdict, Verdict::Middle);
    assert_eq!(script.flow().verdict.to_string(), "seen from the middle");
    assert!(script.flow().from_middle && script.flow().handshake.is_none());
    // It may end as any other.
    script.server(FIN, 510, 700, 0);
    script.client(FIN, 700, 511, 0);
    assert_eq!(script.server(ACK, 511, 701, 0).verdict, Some(Verdict::Clean));
    assert_eq!(script.flow().bytes(), 10);
}

#[test]
fn a_syn_ack_tells_the_sides_although_the_syn_was_missed() {
    let mut script = Script::new();
    let first = script.server(SYN | ACK, 0, 1, 0);
    assert_eq!((first.from, first.seq, first.ack), (Side::Server, 0, Some(1)));
    assert_eq!(states(&first), (State::Established, State::SynReceived));
    assert_eq!(states(&script.client(ACK, 1, 1, 0)), (State::Established, State::Established));
}

#[test]
fn ports_used_again_are_a_new_connection() {
    let mut script = Script::open();
    script.client(FIN, 1, 1, 0);
    script.server(FIN, 1, 2, 0);
    script.client(ACK, 2, 2, 0);
    script.isn = (5_000_000, 9_000);
    let again = script.client(SYN, 0, 0, 0);
    assert_eq!((again.flow.0, again.first, again.seq), (2, true, 0));
    assert_notes(&again, Notes::PORT_REUSED);
    assert_eq!(again.retired.len(), 1);
    assert_eq!((again.retired[0].id.0, again.retired[0].verdict), (1, Verdict::Clean));
    script.server(SYN | ACK, 0, 1, 0);
    script.client(ACK, 1, 1, 0);
    assert_eq!(script.flow().verdict, Verdict::StillOpen);
}

#[test]
fn a_syn_sent_again_is_the_same_connection_and_another_one_is_not() {
    let mut script = Script::new();
    script.client(SYN, 0, 0, 0);
    assert_eq!(script.client(SYN, 0, 0, 0).flow.0, 1);
    script.isn.0 += 64_000;
    let other = script.client(SYN, 0, 0, 0);
    assert_eq!((other.flow.0, other.retired[0].verdict), (2, Verdict::NoAnswer { syns: 2 }));
}

#[test]
fn a_client_that_came_back_makes_the_old_connection_answer_and_dies_of_nothing() {
    // RFC 9293, 3.5.1, figure 8: the old end acknowledges what the new SYN knows nothing of, and is reset for it.
    let mut script = Script::open();
    script.server(PSH, 1, 1, 100);
    let old = script.isn;
    script.isn.0 = 400;
    assert_eq!(script.client(SYN, 0, 0, 0).flow.0, 2);
    script.isn = old;
    let challenge = script.server(ACK, 101, 1, 0);
    assert_eq!((challenge.flow.0, challenge.notes), (2, Notes::STRAY));
    script.isn.0 = 400;
    let rst = script.client_with(|segment| segment.seq = old.0.wrapping_add(1), (RST, 0, 0, 0));
    assert_eq!((rst.flow.0, rst.notes, rst.verdict), (2, Notes::STRAY, None));
    script.isn.1 = 3;
    script.client(SYN, 0, 0, 0);
    script.server(SYN | ACK, 0, 1, 0);
    script.client(ACK, 1, 1, 0);
    assert_eq!((script.flow().id.0, script.flow().verdict), (2, Verdict::StillOpen));
}

#[test]
fn stragglers_after_the_end_belong_to_it() {
    let mut script = Script::open();
    script.client(FIN, 1, 1, 0);
    script.server(FIN, 1, 2, 0);
    assert!(script.client(ACK, 2, 2, 0).verdict.is_some());
    let straggler = script.server(FIN, 1, 2, 0);
    assert_eq!((straggler.flow.0, straggler.verdict), (1, None), "the verdict is given once");
    assert!(straggler.notes.contains(Notes::RETRANSMISSION));
    assert_eq!(script.flow().verdict, Verdict::Clean);
}

#[test]
fn what_ended_is_handed_out_after_a_minute() {
    let mut script = Script::new();
    script.client(SYN, 0, 0, 0);
    script.server(RST | ACK, 0, 1, 0);
    script.client.set_port(40_000);
    script.wait(Duration::from_secs(59));
    assert!(script.client(SYN, 0, 0, 0).retired.is_empty());
    script.wait(Duration::from_secs(2));
    let retired = script.client(SYN, 0, 0, 0).retired;
    assert_eq!((retired.len(), retired[0].verdict), (1, Verdict::Refused));
    assert_eq!(script.flows.iter().count(), 1);
}

#[test]
fn what_ended_is_handed_out_without_a_segment_too() {
    let mut script = Script::new();
    script.client(SYN, 0, 0, 0);
    script.server(RST | ACK, 0, 1, 0);
    let now = script.flow().latest;
    assert!(script.flows.expire(now).is_empty());
    let later = towpath_capture::Timestamp::from_nanos(now.as_nanos() + 61_000_000_000);
    assert_eq!(script.flows.expire(later).len(), 1);
    assert_eq!(script.flows.iter().count(), 0);
}

#[test]
fn more_ended_ones_than_the_limit_are_handed_out_at_once() {
    let mut limits = Limits::default();
    limits.ended = 10;
    let mut script = Script::with(limits);
    let mut retired = 0;
    for port in 1..=1000 {
        script.client.set_port(port);
        retired += script.client(SYN, 0, 0, 0).retired.len();
        retired += script.server(RST | ACK, 0, 1, 0).retired.len();
    }
    let kept = script.flows.iter().count();
    assert!(kept <= 11, "{kept} are kept");
    assert_eq!(retired + kept, 1000, "none is lost");
}

#[test]
fn a_flood_of_syns_is_bounded_and_spares_who_is_open() {
    let mut limits = Limits::default();
    limits.open = 160;
    let mut script = Script::with(limits);
    script.shake();
    let open = script.id;
    let mut retired = 0;
    for flood in 0..10_000_u32 {
        script.client.set_ip(std::net::Ipv4Addr::from(flood + 1).into());
        retired += script.client(SYN, 0, 0, 0).retired.len();
        assert!(script.flows.iter().count() <= 160);
    }
    assert_eq!(retired + script.flows.iter().count(), 10_001, "none is lost");
    assert!(script.flows.flow(open).is_some());
}
