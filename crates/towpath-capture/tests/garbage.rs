//! Segments that make no sense: nothing panics, nothing grows without end, and what is counted adds up.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use rustix::time::{ClockId, clock_gettime};
use towpath_capture::flow::{Flows, Limits};
use towpath_capture::segment::{Ecn, Flags, Segment};
use towpath_capture::{LinkType, Timestamp, segment};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Mostly near a corner, where mistakes are.
    fn number(&mut self) -> u32 {
        let corner = [0, 1, 1 << 30, 1 << 31, 3 << 30, u32::MAX][self.below(6) as usize];
        match self.below(4) {
            0 => self.below(1 << 31) as u32,
            _ => corner.wrapping_add(self.below(9) as u32).wrapping_sub(4),
        }
    }
}

#[test]
fn any_segments_are_survived() {
    let mut random = Random(5);
    let addrs: Vec<SocketAddr> =
        ["1.1.1.1:1", "1.1.1.1:40000", "2.2.2.2:80", "[::1]:1"].iter().map(|addr| addr.parse().unwrap()).collect();
    let mut limits = Limits::default();
    (limits.open, limits.ended) = (5, 3);
    let mut flows = Flows::with_limits(limits);
    let (mut retired, mut pushed, mut counted) = (0, 0_u64, 0);
    let mut count = |flow: &towpath_capture::flow::Flow| {
        retired += 1;
        let (client, server) = (&flow.ends.client.sent, &flow.ends.server.sent);
        counted += client.segments + server.segments + client.copies + server.copies;
        assert!(!flow.verdict.to_string().is_empty());
    };
    for _ in 0..300_000 {
        let mut pick = |count| random.below(count) as usize;
        let (from, to) = (addrs[pick(4)], addrs[pick(4)]);
        let flags = if pick(3) == 0 { Flags::from_bits_truncate(pick(512) as u16) } else { Flags::ACK };
        let time = Timestamp::from_nanos(random.below(1 << 40));
        let mut segment = Segment::new(time, from, to, random.number(), random.number(), flags);
        segment.payload_len = if random.below(2) == 0 { random.below(3) as u32 } else { random.number() };
        segment.window = random.below(3) as u16 * 32_767;
        segment.ecn = if random.below(9) == 0 { Ecn::Congested } else { Ecn::Capable0 };
        segment.interface = [None, Some(1), Some(2)][random.below(3) as usize];
        segment.options.window_scale = [None, Some(random.below(256) as u8)][random.below(2) as usize];
        segment.options.sack = (0..random.below(5)).map(|_| (random.number(), random.number())).collect();
        let step = flows.push(&segment);
        pushed += 1;
        assert!(step.notes.to_string().len() < 1000);
        step.retired.iter().for_each(&mut count);
        assert!(flows.iter().count() <= 5 + 4, "more are kept than the limits allow");
    }
    flows.finish().iter().for_each(&mut count);
    assert_eq!(counted, pushed, "each segment belongs to one connection");
    assert!(retired > 1000);
}

#[test]
fn a_segment_costs_far_less_than_ten_microseconds() {
    // What passes at 100,000 a second must not cost more, on one slow core and with receiving it.
    const COUNT: u32 = 300_000;
    let mut frame = vec![8, 0, 0, 0, 0, 0, 0, 1, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0];
    frame.extend([0x45, 0, 0, 62, 0, 1, 0x40, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
    frame.extend([0x9c, 0x40, 0x20, 0x8a, 0, 0, 0, 7, 0, 0, 1, 0, 0x80, 0x18, 2, 0, 0, 0, 0, 0]);
    frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    frame.extend([7; 10]);
    let processor_time = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let mut round = || {
        let began = processor_time();
        let mut flows = Flows::new();
        for at in 0..COUNT {
            frame[44..48].copy_from_slice(&(at * 10).to_be_bytes());
            // A hundred connections.
            frame[41] = (at % 100) as u8;
            let time = Timestamp::from_nanos(u64::from(at) * 1000);
            let segment = segment::parse(LinkType::LINUX_SLL2, time, &frame, frame.len() as u32).unwrap().unwrap();
            flows.push(&segment);
        }
        let micros = (processor_time() - began) / f64::from(COUNT) * 1e6;
        assert_eq!(flows.iter().count(), 100);
        micros
    };
    // A machine of several guests is slow now and then, and counts that as ours.
    let micros = [round(), round(), round()].into_iter().fold(f64::MAX, f64::min);
    println!("{micros:.2} µs of processor time a segment");
    assert!(micros < 6.0, "{micros} µs");
}

#[test]
fn notes_read_as_words() {
    use towpath_capture::flow::Notes;
    let say = |notes: Notes| notes.to_string();
    assert_eq!(say(Notes::empty()), "");
    assert_eq!(
        say(Notes::RETRANSMISSION | Notes::TIMEOUT | Notes::WINDOW_FULL),
        "retransmission after a timeout, window full"
    );
    assert_eq!(say(Notes::RETRANSMISSION), "retransmission");
    assert_eq!(Notes::all().words().count(), 19, "all but the one that its kinds stand for");
}
