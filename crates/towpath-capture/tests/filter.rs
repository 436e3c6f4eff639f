//! The filter's program, run by an interpreter of its own on packets by hand.

#![forbid(unsafe_code)]

use std::net::IpAddr;

use towpath_capture::live::Filter;
use towpath_capture::live::bpf::{About, Op, Program};

/// A packet from the IP header on, and what the kernel knows of it beside.
#[derive(Clone)]
struct Packet {
    bytes: Vec<u8>,
    protocol: u32,
    direction: u32,
    hardware: u32,
}

/// What the kernel's machine does: a load past the end ends the program, and nothing is kept.
fn run(program: &Program, packet: &Packet) -> u32 {
    let ops = program.ops();
    let load = |at: u32, len: usize| {
        let bytes = packet.bytes.get(at as usize..at as usize + len)?;
        Some(bytes.iter().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    };
    let (mut a, mut x, mut at) = (0_u32, 0_u32, 0);
    loop {
        let op = ops[at];
        at += 1;
        let loaded = match op {
            Op::LoadAbout(About::Protocol) => Some(packet.protocol),
            Op::LoadAbout(About::Direction) => Some(packet.direction),
            Op::LoadAbout(About::HardwareType) => Some(packet.hardware),
            Op::LoadByte(offset) => load(offset, 1),
            Op::LoadHalf(offset) => load(offset, 2),
            Op::LoadWord(offset) => load(offset, 4),
            Op::LoadHalfAtX(offset) => load(offset + x, 2),
            Op::LoadXHeaderLen(offset) => {
                let Some(byte) = load(offset, 1) else { return 0 };
                x = 4 * (byte & 0xf);
                continue;
            }
            Op::SetX(value) => {
                x = value;
                continue;
            }
            Op::MoveToX => {
                x = a;
                continue;
            }
            Op::And(bits) => Some(a & bits),
            Op::Add(value) => Some(a.wrapping_add(value)),
            Op::ShiftLeft(bits) => Some(a << bits),
            Op::SkipIfEqual(value) => {
                at += usize::from(a == value);
                continue;
            }
            Op::SkipUnlessEqual(value) => {
                at += usize::from(a != value);
                continue;
            }
            Op::SkipUnlessAny(bits) => {
                at += usize::from(a & bits == 0);
                continue;
            }
            Op::Jump(distance) => {
                at += distance as usize;
                continue;
            }
            Op::Return(len) => return len,
        };
        let Some(loaded) = loaded else { return 0 };
        a = loaded;
    }
}

/// From 10.0.0.1:1000 to 10.0.0.2:2000, with so many words of options before TCP.
fn ipv4(words: u8) -> Packet {
    let mut bytes = vec![0x45 + words, 0, 0, 40 + 4 * words, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    bytes.resize(20 + 4 * usize::from(words), 1);
    bytes.extend(tcp());
    Packet { bytes, protocol: 0x0800, direction: 0, hardware: 1 }
}

fn tcp() -> [u8; 20] {
    [3, 0xe8, 7, 0xd0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]
}

/// From 2001:db8::1 to 2001:db8::2, with these extensions before TCP.
fn ipv6(next: u8, extensions: &[u8]) -> Packet {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 20 + extensions.len() as u8, next, 64];
    for last in [1, 2] {
        bytes.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    bytes.extend(extensions);
    bytes.extend(tcp());
    Packet { bytes, protocol: 0x86dd, direction: 0, hardware: 1 }
}

fn filter(ports: &[u16], hosts: &[&str]) -> Filter {
    let hosts = hosts.iter().map(|host| host.parse::<IpAddr>().unwrap()).collect();
    Filter { ports: ports.to_vec(), hosts }
}

#[track_caller]
fn assert_takes(filter: &Filter, packet: &Packet, wanted: bool) {
    let program = filter.program(200).unwrap();
    assert_eq!(run(&program, packet), if wanted { 200 } else { 0 }, "{filter:?}\n{program}");
}

#[test]
fn without_ports_and_hosts_all_tcp_is_wanted_and_nothing_else() {
    let all = filter(&[], &[]);
    assert_takes(&all, &ipv4(0), true);
    assert_takes(&all, &ipv6(6, &[]), true);
    let mut udp = ipv4(0);
    udp.bytes[9] = 17;
    assert_takes(&all, &udp, false);
    assert_takes(&all, &ipv6(17, &[]), false);
    assert_takes(&all, &Packet { protocol: 0x0806, ..ipv4(0) }, false);
    assert_takes(&all, &Packet { bytes: vec![], ..ipv4(0) }, false);
}

#[test]
fn a_port_is_found_at_either_end_wherever_the_header_ends() {
    for words in [0, 1, 10] {
        for (port, wanted) in [(1000, true), (2000, true), (1001, false), (0, false)] {
            assert_takes(&filter(&[port], &[]), &ipv4(words), wanted);
            assert_takes(&filter(&[7, port, 9], &[]), &ipv4(words), wanted);
        }
    }
    for (port, wanted) in [(1000, true), (2000, true), (3, false)] {
        assert_takes(&filter(&[port], &[]), &ipv6(6, &[]), wanted);
    }
}

#[test]
fn ports_are_found_behind_one_extension_of_ipv6() {
    // The jumbo option, and a longer one.
    let short = [6, 0, 0xc2, 4, 0, 2, 0, 0];
    let long = [&[6, 2][..], &[0; 22]].concat();
    for next in [0, 43, 60] {
        for extension in [&short[..], &long] {
            assert_takes(&filter(&[2000], &[]), &ipv6(next, extension), true);
            assert_takes(&filter(&[2001], &[]), &ipv6(next, extension), false);
        }
    }
    let udp = [17, 0, 0, 0, 0, 0, 0, 0];
    assert_takes(&filter(&[2000], &[]), &ipv6(0, &udp), false);
}

#[test]
fn of_fragments_the_first_has_the_ports() {
    let port = filter(&[2000], &[]);
    let mut fragment = ipv4(0);
    fragment.bytes[6] = 0x20;
    assert_takes(&port, &fragment, true);
    fragment.bytes[7] = 1;
    assert_takes(&port, &fragment, false);
    assert_takes(&filter(&[], &["10.0.0.1"]), &fragment, true);
    assert_takes(&port, &ipv6(44, &[6, 0, 0, 1, 0, 0, 0, 1]), true);
    assert_takes(&port, &ipv6(44, &[6, 0, 0, 8, 0, 0, 0, 1]), false);
    assert_takes(&filter(&[], &[]), &ipv6(44, &[6, 0, 0, 8, 0, 0, 0, 1]), true);
    assert_takes(&filter(&[], &[]), &ipv6(44, &[17, 0, 0, 8, 0, 0, 0, 1]), false);
}

#[test]
fn a_host_is_found_at_either_end() {
    for (host, wanted) in [("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.3", false), ("10.0.1.1", false)] {
        assert_takes(&filter(&[], &[host]), &ipv4(0), wanted);
        assert_takes(&filter(&[], &["10.9.9.9", host]), &ipv4(0), wanted);
        assert_takes(&filter(&[], &[host]), &ipv6(6, &[]), false);
    }
    for (host, wanted) in
        [("2001:db8::1", true), ("2001:db8::2", true), ("2001:db8::1:1", false), ("2001:db8:1::1", false)]
    {
        assert_takes(&filter(&[], &[host]), &ipv6(6, &[]), wanted);
        assert_takes(&filter(&[], &["::1", host]), &ipv6(6, &[]), wanted);
        assert_takes(&filter(&[], &[host]), &ipv4(0), false);
    }
}

#[test]
fn with_both_both_must_hold() {
    for (port, host, wanted) in
        [(1000, "10.0.0.2", true), (1000, "10.0.0.3", false), (5, "10.0.0.2", false), (5, "10.0.0.3", false)]
    {
        assert_takes(&filter(&[port], &[host]), &ipv4(0), wanted);
    }
    assert_takes(&filter(&[1000], &["2001:db8::2"]), &ipv6(6, &[]), true);
    assert_takes(&filter(&[1001], &["2001:db8::2"]), &ipv6(6, &[]), false);
}

#[test]
fn loopback_is_taken_as_it_is_received_and_others_both_ways() {
    let all = filter(&[], &[]);
    assert_takes(&all, &Packet { hardware: 772, direction: 4, ..ipv4(0) }, false);
    assert_takes(&all, &Packet { hardware: 772, direction: 0, ..ipv4(0) }, true);
    assert_takes(&all, &Packet { hardware: 1, direction: 4, ..ipv4(0) }, true);
}

#[test]
fn a_tag_that_was_left_on_is_passed() {
    for (tag, packet) in [(0x8100, ipv4(1)), (0x88a8, ipv6(6, &[]))] {
        let [high, low] = (packet.protocol as u16).to_be_bytes();
        let tagged = |protocol| Packet {
            bytes: [&[0x40, 100, high, low][..], &packet.bytes].concat(),
            protocol,
            ..packet.clone()
        };
        assert_takes(&filter(&[2000], &["10.0.0.1", "2001:db8::1"]), &tagged(tag), true);
        assert_takes(&filter(&[2001], &["10.0.0.1", "2001:db8::1"]), &tagged(tag), false);
        assert_takes(&filter(&[2000], &[]), &tagged(0x9999), false);
        let behind = Packet { protocol: tag, ..packet.clone() };
        assert_takes(&filter(&[2000], &[]), &behind, true);
        assert_takes(&filter(&[2001], &[]), &behind, false);
    }
}

#[test]
fn packets_cut_anywhere_are_survived() {
    let filter = filter(&[2000], &["10.0.0.1", "2001:db8::1"]);
    for whole in [ipv4(3), ipv6(0, &[6, 0, 0, 0, 0, 0, 0, 0]), ipv6(6, &[])] {
        let needed = whole.bytes.len() - 16;
        for len in 0..=whole.bytes.len() {
            assert_takes(&filter, &Packet { bytes: whole.bytes[..len].to_vec(), ..whole.clone() }, len >= needed);
        }
    }
}

#[test]
fn many_ports_and_hosts_fit_and_too_many_are_refused() {
    let ports: Vec<u16> = (1..=120).collect();
    let hosts: Vec<String> =
        (0..40).map(|host| format!("10.1.0.{host}")).chain((0..10).map(|host| format!("2001:db8:1::{host}"))).collect();
    let mut hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    assert_takes(&filter(&ports, &hosts), &ipv4(0), false);
    hosts.push("10.0.0.2");
    assert_takes(&filter(&ports, &hosts), &ipv4(0), false);
    assert_takes(&filter(&[&ports[..], &[2000]].concat(), &hosts), &ipv4(0), true);
    let program = filter(&ports, &hosts).program(1).unwrap();
    assert!(program.ops().len() > 1000, "jumps go further than 255 here");
    assert_eq!(filter(&(1..=2000).collect::<Vec<_>>(), &[]).program(1), None);
}

#[test]
fn the_program_reads_as_expected() {
    let program = filter(&[8330], &["127.0.0.1"]).program(200).unwrap();
    let text = program.to_string();
    let head = "\
(000) ld       #hatype
(001) jeq      #0x304  jt 3  jf 2
(002) ja       6
(003) ld       #type
(004) jeq      #0x4  jt 5  jf 6
(005) ja       LAST
(006) ld       #proto
(007) jeq      #0x86dd  jt 8  jf 9
";
    let last = program.ops().len() - 1;
    let head = head.replace("LAST", &last.to_string());
    assert!(text.starts_with(&head), "{text}");
    assert!(text.contains("ldxb     4*([0]&0xf)\n"), "{text}");
    assert!(text.contains("ldh      [x + 2]\n"), "{text}");
    assert!(text.ends_with(&format!("ret      #200\n({last:03}) ret      #0\n")), "{text}");
}

#[test]
fn the_kernels_form_is_that_of_its_header() {
    let program = filter(&[8330], &[]).program(262_144).unwrap();
    let code: Vec<_> = program.code().map(|code| (code.code, code.jt, code.jf, code.k)).collect();
    assert_eq!(code[0], (0x20, 0, 0, 0xffff_f01c), "ld [SKF_AD_OFF + SKF_AD_HATYPE]");
    assert_eq!(code[1], (0x15, 1, 0, 772), "jeq #772, 1, 0");
    assert_eq!(code[4], (0x15, 0, 1, 4), "jeq #4, 0, 1");
    assert_eq!(code[2].0, 0x05, "ja");
    assert_eq!(*code.last().unwrap(), (0x06, 0, 0, 0), "ret #0");
    assert!(code.contains(&(0xb1, 0, 0, 0)), "ldxb 4*([0]&0xf)");
    assert!(code.contains(&(0x48, 0, 0, 2)), "ldh [x + 2]");
    assert!(code.contains(&(0x45, 0, 1, 0x1fff)), "jset #0x1fff, 0, 1");
}
