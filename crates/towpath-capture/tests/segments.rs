//! Frames by hand, and the segments that they carry.

#![forbid(unsafe_code)]

use std::net::IpAddr;

use towpath_capture::segment::{self, Ecn, Flags, Options, ParseError, Segment, TcpTimestamps};
use towpath_capture::{Frame, LinkType, Timestamp};

/// A TCP header from port 39792 to 8330 with these options, filled up to whole words.
fn tcp(options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let words = 5 + options.len() as u8 / 4;
    let mut bytes = vec![0x9b, 0x70, 0x20, 0x8a, 0, 0, 0, 7, 0, 0, 1, 0, words << 4, 0x18, 0x12, 0x34, 0, 0, 0, 5];
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}

/// The same within IPv4, with options that make its header four bytes longer.
fn ipv4(total: u16, fragment: u16, tcp: &[u8]) -> Vec<u8> {
    let [high, low] = total.to_be_bytes();
    let [fragment_high, fragment_low] = fragment.to_be_bytes();
    let mut bytes = vec![0x46, 0x03, high, low, 0xab, 0xcd, fragment_high, fragment_low, 63, 6, 0, 0];
    bytes.extend([10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 1, 0]);
    bytes.extend(tcp);
    bytes
}

fn ipv6(payload_length: u16, next: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = payload_length.to_be_bytes();
    let mut bytes = vec![0x60, 0x20, 0, 0, high, low, next, 62];
    bytes.extend([0; 15].into_iter().chain([1]));
    bytes.extend([0; 15].into_iter().chain([2]));
    bytes.extend(payload);
    bytes
}

fn whole_ipv4() -> Vec<u8> {
    ipv4(24 + 20 + 5, 0x4000, &tcp(&[], b"hello"))
}

fn parse(link: LinkType, frame: &[u8]) -> Result<Option<Segment<'_>>, ParseError> {
    segment::parse(link, Timestamp::from_nanos(5), frame, frame.len() as u32)
}

#[track_caller]
fn assert_hello(segment: Result<Option<Segment<'_>>, ParseError>) {
    let segment = segment.unwrap().expect("it is TCP");
    assert_eq!((segment.payload, segment.payload_len, segment.is_cut()), (&b"hello"[..], 5, false));
    assert_eq!((segment.from.port(), segment.to.port()), (39792, 8330));
}

#[test]
fn every_field_is_read() {
    let frame = whole_ipv4();
    let segment = parse(LinkType::RAW, &frame).unwrap().unwrap();
    assert_eq!(segment.from.to_string(), "10.0.0.1:39792");
    assert_eq!(segment.to.to_string(), "10.0.0.2:8330");
    assert_eq!((segment.seq, segment.ack, segment.window, segment.urgent), (7, 256, 0x1234, 5));
    assert_eq!(segment.flags, Flags::PSH | Flags::ACK);
    assert_eq!((segment.ecn, segment.ttl, segment.ip_id), (Ecn::Congested, 63, Some(0xabcd)));
    assert_eq!((segment.vlan, segment.interface, segment.time.as_nanos()), (None, None, 5));
    assert_eq!(segment.seq_len(), 5);
    assert_hello(Ok(Some(segment)));
}

#[test]
fn all_flags_are_named() {
    let mut frame = whole_ipv4();
    (frame[24 + 12], frame[24 + 13]) = (0x51, 0xff);
    let segment = parse(LinkType::RAW, &frame).unwrap().unwrap();
    assert_eq!(segment.flags, Flags::all());
    assert_eq!(segment.flags.to_string(), "SYN,FIN,RST,PSH,ACK,URG,ECE,CWR,AE");
    assert_eq!(segment.seq_len(), 7);
    assert_eq!(Flags::empty().to_string(), "-");
}

#[test]
fn every_link_that_linux_captures_is_understood() {
    let ip = whole_ipv4();
    let with = |header: &[u8]| [header, &ip].concat();
    assert_hello(parse(LinkType::IPV4, &ip));
    assert_hello(parse(LinkType::ETHERNET, &with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0])));
    assert_hello(parse(LinkType::NULL, &with(&[2, 0, 0, 0])));
    assert_hello(parse(LinkType::NULL, &with(&[0, 0, 0, 2])));
    assert_hello(parse(LinkType::LOOP, &with(&[0, 0, 0, 2])));
    assert_hello(parse(LinkType::LINUX_SLL, &with(&[0, 0, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0])));
    let sll2 = with(&[8, 0, 0, 0, 0, 0, 0, 9, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(parse(LinkType::LINUX_SLL2, &sll2).unwrap().unwrap().interface, Some(9));
    assert_hello(parse(LinkType::LINUX_SLL2, &sll2));
    assert_eq!(parse(LinkType(147), &ip), Err(ParseError::UnknownLink(LinkType(147))));
}

#[test]
fn vlan_tags_are_passed_and_the_outermost_is_kept() {
    let mut frame = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0xa8, 0x20, 100, 0x81, 0, 0, 7, 8, 0];
    frame.extend(whole_ipv4());
    assert_eq!(parse(LinkType::ETHERNET, &frame).unwrap().unwrap().vlan, Some(100));
    assert_hello(parse(LinkType::ETHERNET, &frame));
}

#[test]
fn what_fills_up_a_short_frame_is_no_payload() {
    let mut frame = vec![0; 12];
    frame.extend([8, 0]);
    frame.extend(whole_ipv4());
    frame.extend([0; 20]);
    assert_hello(parse(LinkType::ETHERNET, &frame));
}

#[test]
fn a_cut_capture_says_how_much_there_was() {
    let frame = whole_ipv4();
    let cut = &frame[..frame.len() - 3];
    let segment = segment::parse(LinkType::RAW, Timestamp::default(), cut, frame.len() as u32).unwrap().unwrap();
    assert_eq!((segment.payload, segment.payload_len, segment.is_cut()), (&b"he"[..], 5, true));
}

#[test]
fn a_capture_cut_within_a_header_says_which() {
    let frame = whole_ipv4();
    for len in 0..frame.len() {
        let outcome = segment::parse(LinkType::RAW, Timestamp::default(), &frame[..len], frame.len() as u32);
        match len {
            0..24 => assert_eq!(outcome, Err(ParseError::Cut("IP")), "at {len}"),
            24..44 => assert_eq!(outcome, Err(ParseError::Cut("TCP")), "at {len}"),
            _ => assert_eq!(outcome.unwrap().unwrap().payload.len(), len - 44),
        }
    }
    assert_eq!(parse(LinkType::ETHERNET, &[0; 13]), Err(ParseError::Cut("Ethernet")));
    assert_eq!(parse(LinkType::LINUX_SLL, &[0; 15]), Err(ParseError::Cut("LINUX_SLL")));
    assert_eq!(parse(LinkType::LINUX_SLL2, &[0; 19]), Err(ParseError::Cut("LINUX_SLL2")));
    assert_eq!(parse(LinkType::NULL, &[0; 3]), Err(ParseError::Cut("loopback")));
}

#[test]
fn headers_that_contradict_themselves_are_told() {
    assert_eq!(parse(LinkType::RAW, &[0x50; 60]), Err(ParseError::Malformed("IP")));
    assert_eq!(parse(LinkType::RAW, &ipv4(10, 0, &tcp(&[], b""))), Err(ParseError::Malformed("IPv4")));
    let mut frame = whole_ipv4();
    frame[24 + 12] = 0x40;
    assert_eq!(parse(LinkType::RAW, &frame), Err(ParseError::Malformed("TCP")), "a header of 16 bytes");
    frame[24 + 12] = 0xf0;
    assert_eq!(parse(LinkType::RAW, &frame), Err(ParseError::Malformed("TCP")), "a header longer than the packet");
    let error = ParseError::Malformed("TCP").to_string();
    assert_eq!(error, "the TCP header contradicts itself");
}

#[test]
fn what_is_not_tcp_is_nothing() {
    let mut udp = whole_ipv4();
    udp[9] = 17;
    assert_eq!(parse(LinkType::RAW, &udp), Ok(None));
    let arp = [&[0; 12][..], &[8, 6], &[0, 1, 8, 0, 6, 4, 0, 1], &[0; 20]].concat();
    assert_eq!(parse(LinkType::ETHERNET, &arp), Ok(None));
    assert_eq!(parse(LinkType::ETHERNET, &arp[..20]), Ok(None), "cut");
    assert_eq!(parse(LinkType::NULL, &[7, 0, 0, 0, 1, 2, 3]), Ok(None));
    assert_eq!(parse(LinkType::RAW, &ipv6(8, 58, &[0; 8])), Ok(None));
    let mut fragment = ipv4(24 + 20 + 5, 0x2000, &tcp(&[], b"hello"));
    fragment[9] = 17;
    assert_eq!(parse(LinkType::RAW, &fragment), Ok(None), "a fragment of UDP");
}

#[test]
fn fragments_of_tcp_are_told_and_not_read() {
    assert_eq!(parse(LinkType::RAW, &ipv4(49, 0x2000, &tcp(&[], b"hello"))), Err(ParseError::Fragment), "the first");
    assert_eq!(parse(LinkType::RAW, &ipv4(49, 0x0003, &tcp(&[], b"hello"))), Err(ParseError::Fragment), "the last");
    let header = |offset: u16| {
        let [high, low] = offset.to_be_bytes();
        [&[6, 0, high, low, 0, 0, 0, 1][..], &tcp(&[], b"hello")].concat()
    };
    assert_eq!(parse(LinkType::RAW, &ipv6(33, 44, &header(1))), Err(ParseError::Fragment));
    assert_eq!(parse(LinkType::RAW, &ipv6(33, 44, &header(8 << 3))), Err(ParseError::Fragment));
    // RFC 6946: a fragment that is the whole packet.
    assert_hello(parse(LinkType::RAW, &ipv6(33, 44, &header(0))));
}

#[test]
fn ipv6_is_read_through_its_extensions() {
    let frame = ipv6(25, 6, &tcp(&[], b"hello"));
    let segment = parse(LinkType::IPV6, &frame).unwrap().unwrap();
    assert_eq!(segment.from.ip(), "::1".parse::<IpAddr>().unwrap());
    assert_eq!((segment.ecn, segment.ttl, segment.ip_id), (Ecn::Capable0, 62, None));
    assert_hello(Ok(Some(segment)));
    let hop_by_hop = [&[6, 0, 1, 4, 0, 0, 0, 0][..], &tcp(&[], b"hello")].concat();
    assert_hello(parse(LinkType::RAW, &ipv6(33, 0, &hop_by_hop)));
    assert_eq!(parse(LinkType::RAW, &ipv6(33, 0, &hop_by_hop)[..44]), Err(ParseError::Cut("IP extension")));
}

#[test]
fn a_length_of_zero_means_all_there_is() {
    let payload = vec![7; 150_000];
    let frame = ipv4(0, 0x4000, &tcp(&[], &payload));
    let segment = parse(LinkType::RAW, &frame).unwrap().unwrap();
    assert_eq!((segment.payload_len, segment.payload.len()), (150_000, 150_000));
    let frame = ipv6(0, 6, &tcp(&[], &payload));
    let cut = segment::parse(LinkType::RAW, Timestamp::default(), &frame[..100], frame.len() as u32);
    let cut = cut.unwrap().unwrap();
    assert_eq!((cut.payload_len, cut.payload.len()), (150_000, 40));
    // RFC 2675: the length in a hop-by-hop option.
    let jumbo = [&[6, 0, 0xc2, 4, 0, 2, 0x49, 0xf0][..], &tcp(&[], &payload)].concat();
    assert_eq!(parse(LinkType::RAW, &ipv6(0, 0, &jumbo)).unwrap().unwrap().payload_len, 150_000);
}

#[test]
fn a_frame_knows_its_interface_unless_the_link_does() {
    let bytes = whole_ipv4();
    let mut frame = Frame {
        time: Timestamp::default(),
        link: LinkType::RAW,
        interface: 4,
        data: &bytes,
        original_len: bytes.len() as u32,
        comment: "",
    };
    assert_eq!(frame.segment().unwrap().unwrap().interface, Some(4));
    let sll2 = [&[8, 0, 0, 0, 0, 0, 0, 9, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0][..], &bytes].concat();
    (frame.link, frame.data) = (LinkType::LINUX_SLL2, &sll2);
    assert_eq!(frame.segment().unwrap().unwrap().interface, Some(9));
}

#[test]
fn options_of_every_kind_are_read() {
    let options = [
        &[1, 1, 254, 4, 0, 0][..],
        &[2, 4, 0xff, 0xd7],
        &[3, 3, 10],
        &[4, 2],
        &[8, 10, 0, 0, 1, 0, 0, 0, 2, 0],
        &[30, 4, 0x10, 0],
        &[34, 2],
        &[0, 2, 4, 0, 0],
    ]
    .concat();
    let options = Options::read(&options);
    assert_eq!((options.mss, options.window_scale, options.sack_permitted), (Some(65495), Some(10), true));
    assert_eq!(options.timestamps, Some(TcpTimestamps { value: 256, echo: 512 }));
    assert_eq!((options.mptcp, options.fast_open, options.others), (Some(1), Some(0), 1));
    assert!(!options.malformed, "what follows the end does not count");
    assert_eq!(options.to_string(), "mss 65495 ws 10 sack ts fast-open mptcp");
    assert_eq!(Options::read(&[254, 8, 0xf9, 0x89, 1, 2, 3, 4]).fast_open, Some(4));
    assert_eq!(Options::default().to_string(), "");
}

#[test]
fn selective_acks_are_read() {
    let block = |from: u32, to: u32| [from.to_be_bytes(), to.to_be_bytes()].concat();
    let options = [&[1, 1, 5, 18][..], &block(1, 2), &block(u32::MAX, 4)].concat();
    assert_eq!(*Options::read(&options).sack, [(1, 2), (u32::MAX, 4)]);
    let five = [&[5, 42][..], &block(1, 2).repeat(5)].concat();
    assert!(Options::read(&five).malformed && Options::read(&five).sack.is_empty());
    assert!(Options::read(&[5, 9, 0, 0, 0, 0, 0, 0, 0]).malformed);
}

#[test]
fn broken_options_are_told_and_what_came_before_is_kept() {
    for broken in [&[2, 4, 5, 0xb4, 3][..], &[2, 4, 5, 0xb4, 3, 0], &[2, 4, 5, 0xb4, 3, 1], &[2, 4, 5, 0xb4, 3, 9, 1]] {
        let options = Options::read(broken);
        assert!(options.malformed, "{broken:?}");
        assert_eq!(options.mss, Some(1460), "{broken:?}");
    }
    assert!(Options::read(&[2, 3, 5]).malformed, "a length that the kind cannot have");
    assert!(!Options::read(&[1, 1, 0, 0]).malformed);
}

#[test]
fn options_reach_the_segment() {
    let options = [2, 4, 5, 0xb4, 3, 3, 7];
    let frame = ipv4(24 + 28, 0, &tcp(&options, b""));
    assert_eq!(parse(LinkType::RAW, &frame).unwrap().unwrap().options.to_string(), "mss 1460 ws 7");
}

/// Whatever the bytes are, nothing panics and nothing is read past; with a fixed seed.
#[test]
fn any_bytes_are_survived() {
    let mut seed = 99_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let hop_by_hop = [&[44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 1][..], &tcp(&[2, 4, 1, 1], b"hello")].concat();
    let seeds = [whole_ipv4(), ipv6(45, 0, &hop_by_hop), vec![0; 64]];
    let links = [0, 1, 101, 108, 113, 228, 229, 276, 5].map(LinkType);
    for _ in 0..200_000 {
        let mut frame = seeds[random() % seeds.len()].clone();
        let header = [0, 14, 16, 20, 4][random() % 5];
        frame.splice(0..0, vec![0; header]);
        for _ in 0..random() % 4 {
            let at = random() % frame.len();
            frame[at] = random() as u8;
        }
        frame.truncate(random() % (frame.len() + 1));
        let original = random() as u32 % 200;
        let link = links[random() % links.len()];
        if let Ok(Some(segment)) = segment::parse(link, Timestamp::default(), &frame, original) {
            assert!(segment.payload.len() <= segment.payload_len as usize);
        }
    }
}
