//! Ladders to the letter, of connections made up here.

use std::net::SocketAddr;

use towpath_capture::Timestamp;
use towpath_capture::flow::Flows;
use towpath_capture::segment::{Flags, Options, Segment};

use super::*;

const PLAIN: Look = Look { color: false, ascii: false };
const ASCII: Look = Look { color: false, ascii: true };

const SYN_OPTIONS: [u8; 20] = [2, 4, 0xff, 0xd7, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 10];

/// What is drawn, segment by segment.
struct Scene {
    flows: Flows,
    ladder: Ladder,
    width: usize,
    look: Look,
    client: SocketAddr,
    server: SocketAddr,
    drawn: String,
}

impl Scene {
    fn new(width: usize, look: Look) -> Scene {
        Scene {
            flows: Flows::new(),
            ladder: Ladder::new(look, true),
            width,
            look,
            client: "127.0.0.1:39792".parse().unwrap(),
            server: "127.0.0.1:8330".parse().unwrap(),
            drawn: String::new(),
        }
    }

    /// The client (`from_client`) or the server sends; numbers count from 100 there and 900 here, as a SYN's.
    fn send(&mut self, from: Side, micros: u64, seq: u32, ack: u32, flags: Flags, payload: &[u8]) -> &mut Scene {
        let (seq, ack) = if from == Side::Client { (seq + 100, ack + 900) } else { (seq + 900, ack + 100) };
        let (from, to) = if from == Side::Client { (self.client, self.server) } else { (self.server, self.client) };
        let time = Timestamp::from_nanos(1_000_000_000 + micros * 1_000);
        let ack = if flags.contains(Flags::ACK) { ack } else { 0 };
        let mut segment = Segment::new(time, from, to, seq, ack, flags);
        segment.window = 64_000;
        segment.payload = payload;
        segment.payload_len = payload.len() as u32;
        if flags.contains(Flags::SYN) {
            segment.options = Options::read(&SYN_OPTIONS);
        }
        self.show(&segment, "")
    }

    fn show(&mut self, segment: &Segment<'_>, comment: &str) -> &mut Scene {
        let step = self.flows.push(segment);
        let told = Told { segment, step: &step, comment };
        self.ladder.segment(&mut self.drawn, &told, &Ends::numeric(), self.width);
        if step.verdict.is_some() {
            let flow = self.flows.flow(step.flow).unwrap();
            self.ladder.ended(&mut self.drawn, flow, Some(0), &Ends::numeric(), self.width);
        }
        self
    }

    fn handshake(&mut self) -> &mut Scene {
        self.send(Side::Client, 0, 0, 0, Flags::SYN, b"")
            .send(Side::Server, 14, 0, 1, Flags::SYN | Flags::ACK, b"")
            .send(Side::Client, 34, 1, 1, Flags::ACK, b"")
    }

    fn talk(&mut self) -> &mut Scene {
        self.send(Side::Server, 183, 1, 1, Flags::ACK | Flags::PSH, TIME).send(
            Side::Client,
            400_400,
            1,
            36,
            Flags::ACK | Flags::PSH,
            b"hello towpath\n",
        )
    }

    fn farewell(&mut self) -> &mut Scene {
        self.send(Side::Server, 400_500, 36, 15, Flags::FIN | Flags::ACK, b"")
            .send(Side::Client, 400_600, 15, 37, Flags::FIN | Flags::ACK, b"")
            .send(Side::Server, 400_610, 37, 16, Flags::ACK, b"")
    }

    #[track_caller]
    fn is(&self, expected: &str) {
        assert!(self.drawn == expected.trim_start_matches('\n'), "\n{}", self.drawn);
        let widest = self.drawn.lines().map(fit::width).max();
        assert!(widest.unwrap() <= self.width, "{widest:?} columns");
        assert!(!self.look.ascii || self.drawn.is_ascii());
    }
}

const TIME: &[u8] = b"2026-11-22 06:58:39.123456789 +0000";

#[test]
fn a_whole_life_as_the_manual_shows_it() {
    let mut scene = Scene::new(100, PLAIN);
    scene.ladder.data = false;
    scene.handshake().talk().farewell().is("
#1         127.0.0.1:39792                                                            127.0.0.1:8330
           CLOSED                                                                         LISTEN
+0 µs      SYN-SENT   ──────────────── SYN seq 0 mss 65495 ws 10 sack ts ───────────────▶ SYN-RECV
+14 µs     ESTAB      ◀────────── SYN,ACK seq 0 ack 1 mss 65495 ws 10 sack ts ───────────
+34 µs                ────────────────────────────── ACK 1 ─────────────────────────────▶ ESTAB
+183 µs               ◀───────────────────── 35 B seq 1..36 ack 1 ───────────────────────
+400.4 ms             ────────────────────── 14 B seq 1..15 ack 36 ─────────────────────▶
+400.5 ms  CLOSE-WAIT ◀─────────────────────── FIN seq 36 ack 15 ──────────────────────── FIN-WAIT-1
+400.6 ms  LAST-ACK   ──────────────────────── FIN seq 15 ack 37 ───────────────────────▶ TIME-WAIT
+400.6 ms  CLOSED     ◀──────────────────────────── ACK 16 ──────────────────────────────
    handshake 34 µs · 49 B data · closed first by :8330 · clean · 0 retransmitted · 0 dropped
");
}

#[test]
fn eighty_columns_hold_a_handshake() {
    Scene::new(80, ASCII).handshake().talk().farewell().is("
#1         127.0.0.1:39792                                        127.0.0.1:8330
           CLOSED                                                     LISTEN
+0 us      SYN-SENT   ------ SYN seq 0 mss 65495 ws 10 sack ts -----> SYN-RECV
+14 us     ESTAB      < SYN,ACK seq 0 ack 1 mss 65495 ws 10 sack ts -
+34 us                -------------------- ACK 1 -------------------> ESTAB
+183 us               <----------- 35 B seq 1..36 ack 1 -------------
                       | 2026-11-22 06:58:39.123456789 +0000
+400.4 ms             ------------ 14 B seq 1..15 ack 36 ----------->
                       | hello towpath
+400.5 ms  CLOSE-WAIT <------------- FIN seq 36 ack 15 -------------- FIN-WAIT-1
+400.6 ms  LAST-ACK   -------------- FIN seq 15 ack 37 -------------> TIME-WAIT
+400.6 ms  CLOSED     <------------------ ACK 16 --------------------
    handshake 34 us - 49 B data - closed first by :8330 - clean
    0 retransmitted - 0 dropped
");
}

#[test]
fn without_room_for_arrows_the_same_is_said_in_words() {
    Scene::new(40, PLAIN).handshake().talk().farewell().is("
#1 127.0.0.1:39792 ▶ 127.0.0.1:8330
+0 µs ▶ SYN seq 0 mss 65495 ws 10 sack
  ts · client SYN-SENT · server SYN-RECV
+14 µs ◀ SYN,ACK seq 0 ack 1 mss 65495
  ws 10 sack ts · client ESTAB
+34 µs ▶ ACK 1 · server ESTAB
+183 µs ◀ 35 B seq 1..36 ack 1
  │ 2026-11-22 06:58:39.123456789 +0000
+400.4 ms ▶ 14 B seq 1..15 ack 36
  │ hello towpath
+400.5 ms ◀ FIN seq 36 ack 15
  · client CLOSE-WAIT
  · server FIN-WAIT-1
+400.6 ms ▶ FIN seq 15 ack 37
  · client LAST-ACK · server TIME-WAIT
+400.6 ms ◀ ACK 16 · client CLOSED
  handshake 34 µs · 49 B data
  closed first by :8330 · clean
  0 retransmitted · 0 dropped
");
}

#[test]
fn trouble_is_said_on_the_segment_and_below_it_where_the_arrow_is_too_short() {
    let mut scene = Scene::new(80, PLAIN);
    scene.ladder.data = false;
    scene
        .handshake()
        .send(Side::Client, 1_000, 1, 1, Flags::ACK | Flags::PSH, b"0123456789")
        .send(Side::Client, 203_000, 1, 1, Flags::ACK | Flags::PSH, b"0123456789")
        .send(Side::Server, 203_020, 1, 11, Flags::ACK, b"")
        .send(Side::Server, 203_400, 1, 0, Flags::RST, b"")
        .is("
#1         127.0.0.1:39792                                        127.0.0.1:8330
           CLOSED                                                     LISTEN
+0 µs      SYN-SENT   ────── SYN seq 0 mss 65495 ws 10 sack ts ─────▶ SYN-RECV
+14 µs     ESTAB      ◀ SYN,ACK seq 0 ack 1 mss 65495 ws 10 sack ts ─
+34 µs                ──────────────────── ACK 1 ───────────────────▶ ESTAB
+1.0 ms               ──────────── 10 B seq 1..11 ack 1 ────────────▶
+203.0 ms             ──────────── 10 B seq 1..11 ack 1 ────────────▶
                             · retransmission after a timeout
+203.0 ms             ◀────────────────── ACK 11 ────────────────────
+203.4 ms  CLOSED     ◀───────────────── RST seq 1 ────────────────── CLOSED
    handshake 34 µs · 10 B data · closed first by :8330
    half-open: :8330 is gone · 1 retransmitted · 0 dropped
");
}

#[test]
fn two_connections_take_turns_under_their_headings() {
    let mut scene = Scene::new(80, PLAIN);
    scene.handshake();
    let first = scene.client;
    scene.client = "127.0.0.1:40000".parse().unwrap();
    scene.send(Side::Client, 40, 0, 0, Flags::SYN, b"").send(Side::Server, 50, 0, 1, Flags::RST | Flags::ACK, b"");
    scene.client = first;
    scene.send(Side::Client, 60, 1, 1, Flags::ACK, b"ping").is("
#1         127.0.0.1:39792                                        127.0.0.1:8330
           CLOSED                                                     LISTEN
+0 µs      SYN-SENT   ────── SYN seq 0 mss 65495 ws 10 sack ts ─────▶ SYN-RECV
+14 µs     ESTAB      ◀ SYN,ACK seq 0 ack 1 mss 65495 ws 10 sack ts ─
+34 µs                ──────────────────── ACK 1 ───────────────────▶ ESTAB

#2         127.0.0.1:40000                                        127.0.0.1:8330
           CLOSED                                                     LISTEN
+0 µs      SYN-SENT   ────── SYN seq 0 mss 65495 ws 10 sack ts ─────▶ SYN-RECV
+10 µs     CLOSED     ◀──────────── RST,ACK seq 1 ack 1 ───────────── CLOSED
    0 B data · closed first by :8330 · refused (RST) · 0 retransmitted
    0 dropped

#1         127.0.0.1:39792                                        127.0.0.1:8330
+60 µs                ───────────── 4 B seq 1..5 ack 1 ─────────────▶
                       │ ping
");
}

#[test]
fn long_addresses_have_a_line_each() {
    let mut scene = Scene::new(76, PLAIN);
    scene.client = "[2001:db8:1111:2222:3333:4444:5555:6666]:39792".parse().unwrap();
    scene.server = "[2001:db8:1111:2222:3333:4444:5555:7777]:8330".parse().unwrap();
    scene.handshake().is("
#1         [2001:db8:1111:2222:3333:4444:5555:6666]:39792
                               [2001:db8:1111:2222:3333:4444:5555:7777]:8330
           CLOSED                                                 LISTEN
+0 µs      SYN-SENT   ──── SYN seq 0 mss 65495 ws 10 sack ts ───▶ SYN-RECV
+14 µs     ESTAB      ◀── SYN,ACK seq 0 ack 1 mss 65495 ws 10 ───
                                        sack ts
+34 µs                ────────────────── ACK 1 ─────────────────▶ ESTAB
");
}

#[test]
fn a_comment_stands_below_its_segment_and_steers_no_terminal() {
    let mut scene = Scene::new(80, PLAIN);
    let time = Timestamp::from_nanos(1);
    let segment = Segment::new(time, scene.client, scene.server, 5, 0, Flags::SYN);
    scene.show(&segment, "client \x1b[2Jdemo 8852/3, server demo 8808/4 task #7 read").is("
#1         127.0.0.1:39792                                        127.0.0.1:8330
           CLOSED                                                     LISTEN
+0 µs      SYN-SENT   ────────────────── SYN seq 0 ─────────────────▶ SYN-RECV
                       client \\u{1b}[2Jdemo 8852/3, server demo 8808/4 task #7
                       read
");
}

#[test]
fn no_width_breaks_it() {
    for width in 0..200 {
        for look in [PLAIN, ASCII] {
            let mut scene = Scene::new(width, look);
            scene.handshake().talk().farewell();
            let words = |text: &str| text.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>();
            if (1..NARROWEST).contains(&width) {
                let mut other = Scene::new(NARROWEST - 1, look);
                other.handshake().talk().farewell();
                assert_eq!(words(&scene.drawn), words(&other.drawn), "{width}");
            }
            let widest = scene.drawn.lines().map(fit::width).max().unwrap();
            assert!(widest <= width.max(24), "{widest} of {width}:\n{}", scene.drawn);
        }
    }
}
