//! Frames from the wire, of any link type, and the connections that are made of them.
//!
//! The input is frames in a row, each with three bytes before it: the link type, the time since the one before in
//! milliseconds, and how many bytes it has.

#![no_main]

use libfuzzer_sys::fuzz_target;
use towpath_capture::flow::{Flows, Limits};
use towpath_capture::segment::parse;
use towpath_capture::{LinkType, Timestamp};

const LINKS: [LinkType; 8] = [
    LinkType::IPV4,
    LinkType::RAW,
    LinkType::ETHERNET,
    LinkType::NULL,
    LinkType::LOOP,
    LinkType::LINUX_SLL,
    LinkType::LINUX_SLL2,
    LinkType::IPV6,
];

fuzz_target!(|input: &[u8]| {
    let mut limits = Limits::default();
    (limits.open, limits.ended) = (8, 8);
    let mut flows = Flows::with_limits(limits);
    let (mut now, mut rest) = (0, input);
    while let [link, later, length, tail @ ..] = rest {
        let (frame, after) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = after;
        now += u64::from(*later) * 1_000_000;
        let link = LINKS[usize::from(*link) % LINKS.len()];
        if let Ok(Some(segment)) = parse(link, Timestamp::from_nanos(now), frame, frame.len() as u32) {
            assert!(segment.payload.len() <= frame.len());
            let step = flows.push(&segment);
            assert!(flows.iter().count() <= 16, "{step:?}");
        }
    }
    for flow in flows.finish() {
        assert!(!flow.verdict.to_string().is_empty());
    }
});
