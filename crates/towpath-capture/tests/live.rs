//! What passes on the wire, captured: each test in a network namespace of its own, where nothing else passes.

#![forbid(unsafe_code)]

mod namespace;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use namespace::{in_namespace, ip};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use towpath_capture::LinkType;
use towpath_capture::file::{About, Interface, Reader, Writer};
use towpath_capture::flow::{Flows, Notes, Side, Verdict};
use towpath_capture::live::{Builder, Capture, Event, OpenError, interface_name};

/// Nothing here takes this long.
const WATCHDOG: Duration = Duration::from_secs(20);

/// A connection over which the client says `hello`, is answered, and closes first.
fn talk(listener: &TcpListener) -> SocketAddr {
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, peer) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    let mut said = [0; 5];
    server.read_exact(&mut said).unwrap();
    server.write_all(b"good day").unwrap();
    client.read_exact(&mut [0; 8]).unwrap();
    drop(client);
    assert_eq!(server.read(&mut said).unwrap(), 0);
    peer
}

/// All frames until a connection has ended so often, as `each` sees them.
fn read_until_ended(
    capture: &mut Capture,
    mut ends: usize,
    mut each: impl FnMut(&towpath_capture::Frame<'_>),
) -> Flows {
    let mut flows = Flows::new();
    let began = Instant::now();
    while ends > 0 {
        assert!(began.elapsed() < WATCHDOG, "{ends} connections have not ended: {:?}", flows.finish());
        let Some(Event::Frame(frame)) = capture.read(Some(Duration::from_millis(100))).unwrap() else { continue };
        each(&frame);
        let segment = frame.segment().unwrap().expect("only TCP comes through the filter");
        ends -= usize::from(flows.push(&segment).verdict.is_some());
    }
    flows
}

#[test]
fn a_connection_is_seen_whole_and_each_segment_once() {
    if !in_namespace("a_connection_is_seen_whole_and_each_segment_once") {
        return;
    }
    for (address, interface) in [("127.0.0.1:0", Some("lo")), ("[::1]:0", Some("lo")), ("127.0.0.1:0", None)] {
        let listener = TcpListener::bind(address).unwrap();
        let server = listener.local_addr().unwrap();
        let other = TcpListener::bind(address).unwrap();
        let mut builder = Capture::builder().port(server.port());
        if let Some(name) = interface {
            builder = builder.interface(name);
        }
        let mut capture = builder.open().unwrap();
        talk(&other);
        let client = talk(&listener);
        talk(&other);

        let mut payloads = Vec::new();
        let flows = read_until_ended(&mut capture, 1, |frame| {
            assert_eq!(frame.link, LinkType::LINUX_SLL2);
            let segment = frame.segment().unwrap().unwrap();
            assert_eq!(segment.interface, Some(frame.interface));
            assert_eq!(interface_name(frame.interface).unwrap(), "lo");
            if segment.payload_len > 0 {
                payloads.push(segment.payload.to_vec());
            }
        });
        assert_eq!(payloads, [&b"hello"[..], b"good day"]);
        let flows = flows.finish();
        let [flow] = &flows[..] else { panic!("the other port's came too: {flows:?}") };
        assert_eq!((flow.ends.client.addr, flow.ends.server.addr), (client, server));
        assert_eq!((flow.verdict, flow.closed_first), (Verdict::Clean, Some(Side::Client)));
        assert_eq!((flow.bytes(), flow.retransmissions(), flow.ends.client.sent.copies), (13, 0, 0), "each once");
        assert!(flow.handshake.unwrap() < WATCHDOG && flow.handshake.unwrap() > Duration::ZERO);
        assert!(flow.ends.client.offered.unwrap().mss.is_some());
        assert_eq!(capture.stats().unwrap().dropped, 0);
    }
}

#[test]
fn hosts_choose_too() {
    if !in_namespace("hosts_choose_too") {
        return;
    }
    ip("addr add 10.8.0.1/32 dev lo");
    let wanted = TcpListener::bind("10.8.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let host: IpAddr = "10.8.0.1".parse().unwrap();
    let mut capture = Capture::builder().host(host).open().unwrap();
    talk(&other);
    talk(&wanted);
    let flows = read_until_ended(&mut capture, 1, |_| {}).finish();
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].ends.server.addr.ip(), host);
}

#[test]
fn a_file_gives_the_same_as_the_wire() {
    if !in_namespace("a_file_gives_the_same_as_the_wire") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut capture = Capture::builder().interface("lo").open().unwrap();
    for _ in 0..3 {
        talk(&listener);
    }
    assert_eq!(TcpStream::connect("127.0.0.1:1").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let mut writer = Writer::new(Vec::new(), &About::here("test")).unwrap();
    let mut described = false;
    let wire = read_until_ended(&mut capture, 4, |frame| {
        if !described {
            let name = interface_name(frame.interface).unwrap();
            writer.add_interface(frame.interface, &Interface::new(frame.link).named(name)).unwrap();
            described = true;
        }
        writer.write(frame).unwrap();
    });
    let file = writer.finish().unwrap();
    let mut reader = Reader::new(file.as_slice()).unwrap();
    let mut flows = Flows::new();
    while let Some(frame) = reader.read_frame().unwrap() {
        flows.push(&frame.segment().unwrap().unwrap());
    }
    let (file, wire) = (flows.finish(), wire.finish());
    assert_eq!(file, wire);
    assert_eq!(file.iter().filter(|flow| flow.verdict == Verdict::Clean).count(), 3);
    assert_eq!(file[3].verdict, Verdict::Refused);
}

/// Sends so many bytes over a connection of its own, in pieces of so many.
fn send(bytes: usize, piece: usize) {
    send_to("127.0.0.1:0", bytes, piece);
}

fn send_to(address: &str, bytes: usize, piece: usize) {
    let listener = TcpListener::bind(address).unwrap();
    let addr = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || {
        let mut client = TcpStream::connect(addr).unwrap();
        client.set_nodelay(true).unwrap();
        let piece = vec![7; piece];
        for _ in 0..bytes / piece.len() {
            client.write_all(&piece).unwrap();
        }
    });
    let mut received = Vec::new();
    listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), bytes);
    client.join().unwrap();
}

#[test]
fn long_segments_come_whole_or_cut_as_asked() {
    if !in_namespace("long_segments_come_whole_or_cut_as_asked") {
        return;
    }
    for (snap_len, cut) in [(262_144, false), (100, true)] {
        let mut capture = Capture::builder().interface("lo").snap_len(snap_len).open().unwrap();
        send(1_000_000, 1_000_000);
        let mut longest = 0;
        let flows = read_until_ended(&mut capture, 1, |frame| {
            let segment = frame.segment().unwrap().unwrap();
            longest = longest.max(segment.payload_len);
            assert_eq!(segment.is_cut(), cut && segment.payload_len > 100, "{segment:?}");
            assert!(!cut || frame.data.len() <= 124);
            assert!(segment.payload.iter().all(|&byte| byte == 7));
        });
        assert!(longest > 10_000, "loopback does not cut up what the network card would: {longest}");
        assert_eq!(flows.finish()[0].bytes(), 1_000_000);
    }
}

#[test]
fn segments_too_long_for_their_length_field_are_read() {
    if !in_namespace("segments_too_long_for_their_length_field_are_read") {
        return;
    }
    // BIG TCP, since Linux 5.19.
    ip("link set lo gso_max_size 180000 gro_max_size 180000");
    let mut capture = Capture::builder().interface("lo").snap_len(100).open().unwrap();
    send_to("[::1]:0", 4_000_000, 4_000_000);
    let mut longest = 0;
    let flows = read_until_ended(&mut capture, 1, |frame| {
        longest = longest.max(frame.segment().unwrap().unwrap().payload_len);
    });
    assert!(longest > 70_000, "{longest}");
    let flow = &flows.finish()[0];
    assert_eq!((flow.bytes(), flow.ends.client.sent.gaps), (4_000_000, 0));
}

#[test]
fn what_finds_no_room_is_counted() {
    if !in_namespace("what_finds_no_room_is_counted") {
        return;
    }
    let mut capture = Capture::builder().interface("lo").buffer(20_000).open().unwrap();
    send(1_000_000, 100);
    let stats = capture.stats().unwrap();
    assert!(stats.dropped > 0 && stats.received > 0, "{stats:?}");
    let mut read = 0;
    while capture.read(Some(Duration::ZERO)).unwrap().is_some() {
        read += 1;
    }
    assert_eq!(read, stats.received);
    assert_eq!(capture.stats().unwrap(), stats, "they add up, and nothing has come since");
}

#[test]
fn a_read_waits_no_longer_than_told() {
    if !in_namespace("a_read_waits_no_longer_than_told") {
        return;
    }
    let mut capture = Capture::builder().interface("lo").open().unwrap();
    let began = Instant::now();
    assert_eq!(capture.read(Some(Duration::from_millis(50))).unwrap(), None);
    assert!(began.elapsed() >= Duration::from_millis(50) && began.elapsed() < WATCHDOG);
    assert_eq!(capture.read(Some(Duration::ZERO)).unwrap(), None);
}

#[test]
fn its_descriptor_says_when_there_is_something() {
    if !in_namespace("its_descriptor_says_when_there_is_something") {
        return;
    }
    let mut capture = Capture::builder().interface("lo").open().unwrap();
    let ready = |capture: &Capture, wait: Duration| {
        let wait = Timespec::try_from(wait).unwrap();
        poll(&mut [PollFd::new(capture, PollFlags::IN)], Some(&wait)).unwrap() > 0
    };
    assert!(!ready(&capture, Duration::ZERO));
    talk(&TcpListener::bind("127.0.0.1:0").unwrap());
    assert!(ready(&capture, WATCHDOG));
    while capture.read(Some(Duration::ZERO)).unwrap().is_some() {}
    assert!(!ready(&capture, Duration::ZERO));
}

#[test]
fn what_has_passed_when_it_is_stopped_is_read_and_nothing_else() {
    if !in_namespace("what_has_passed_when_it_is_stopped_is_read_and_nothing_else") {
        return;
    }
    let mut capture = Capture::builder().interface("lo").open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let before = [talk(&listener), talk(&listener)];
    capture.stop().unwrap();
    talk(&listener);
    let flows = read_until_ended(&mut capture, 2, |_| {}).finish();
    assert_eq!(flows.iter().map(|flow| flow.ends.client.addr).collect::<Vec<_>>(), before);
    assert!(flows.iter().all(|flow| flow.verdict == Verdict::Clean), "{flows:?}");
    assert_eq!(capture.read(Some(Duration::ZERO)).unwrap(), None);
}

#[test]
fn it_goes_on_when_the_interface_comes_back() {
    if !in_namespace("it_goes_on_when_the_interface_comes_back") {
        return;
    }
    let mut capture = Capture::builder().interface("lo").open().unwrap();
    ip("link set lo down");
    assert_eq!(capture.read(Some(WATCHDOG)).unwrap(), Some(Event::Down));
    assert_eq!(capture.read(Some(Duration::ZERO)).unwrap(), None, "it says so once");
    ip("link set lo up");
    talk(&TcpListener::bind("127.0.0.1:0").unwrap());
    assert_eq!(read_until_ended(&mut capture, 1, |_| {}).finish()[0].verdict, Verdict::Clean);
}

#[test]
fn an_interface_that_is_down_from_the_start_is_told() {
    if !in_namespace("an_interface_that_is_down_from_the_start_is_told") {
        return;
    }
    ip("link set lo down");
    let mut capture = Capture::builder().interface("lo").open().unwrap();
    assert_eq!(capture.read(Some(WATCHDOG)).unwrap(), Some(Event::Down));
}

#[test]
fn an_interface_that_is_deleted_ends_it() {
    if !in_namespace("an_interface_that_is_deleted_ends_it") {
        return;
    }
    pair();
    let mut capture = Capture::builder().interface("left").open().unwrap();
    ip("link delete left");
    let error = capture.read(Some(WATCHDOG)).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::NotFound, "the interface left has been deleted".into()));
}

/// Two interfaces: what is sent on one is received on the other.
fn pair() {
    ip("link add left type veth peer name right");
    ip("link set left up");
    ip("link set right up");
}

/// Puts a frame on the wire between the two, by socat; false where that is not installed.
fn put(frame: &[u8]) -> bool {
    let socat = Command::new("socat").args(["-u", "-", "INTERFACE:right"]).stdin(Stdio::piped()).spawn();
    let mut socat = match socat {
        Ok(socat) => socat,
        Err(error) if std::env::var_os("TOWPATH_NO_SKIP").is_none() => {
            println!("skipped: socat: {error}");
            return false;
        }
        Err(error) => panic!("socat: {error}"),
    };
    socat.stdin.take().unwrap().write_all(frame).unwrap();
    assert!(socat.wait().unwrap().success());
    true
}

/// A SYN from 10.7.0.1 to port 8330 of 10.7.0.2 in an Ethernet frame with these tags, filled up to 60 bytes.
fn tagged_syn(tags: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend(tags);
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2]);
    frame.extend([3, 0xe8, 0x20, 0x8a, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 2, 3, 0xe8, 0, 0, 0, 0]);
    frame.resize(frame.len().max(60), 0);
    frame
}

#[test]
fn tags_of_vlans_are_kept() {
    if !in_namespace("tags_of_vlans_are_kept") {
        return;
    }
    pair();
    let mut capture = Capture::builder().interface("left").port(8330).open().unwrap();
    for (tags, vlan) in [
        (&[][..], None),
        (&[0x81, 0, 0, 100], Some(100)),
        (&[0x88, 0xa8, 0, 9, 0x81, 0, 0, 100], Some(9)),
        (&[0x81, 0, 0, 8, 0x81, 0, 0x40, 100], Some(8)),
    ] {
        if !put(&tagged_syn(tags)) {
            return;
        }
        let Some(Event::Frame(frame)) = capture.read(Some(WATCHDOG)).unwrap() else { panic!("no frame: {tags:?}") };
        let syn = frame.segment().unwrap().unwrap();
        assert_eq!((syn.vlan, syn.to.to_string()), (vlan, "10.7.0.2:8330".to_owned()), "{tags:?}: {:02x?}", frame.data);
        assert_eq!((syn.payload_len, syn.seq), (0, 7), "what fills up a frame is no payload");
    }
}

#[test]
fn a_segment_that_passes_two_interfaces_counts_once() {
    if !in_namespace("a_segment_that_passes_two_interfaces_counts_once") {
        return;
    }
    pair();
    let mut capture = Capture::builder().port(8330).open().unwrap();
    if !put(&tagged_syn(&[])) {
        return;
    }
    let mut flows = Flows::new();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let Some(Event::Frame(frame)) = capture.read(Some(WATCHDOG)).unwrap() else {
            panic!("no frame after {seen:?}")
        };
        let name = interface_name(frame.interface).unwrap();
        seen.push((name, flows.push(&frame.segment().unwrap().unwrap()).notes));
    }
    assert_eq!(seen, [("right".to_owned(), Notes::empty()), ("left".to_owned(), Notes::COPY)]);
    assert_eq!(flows.finish()[0].verdict, Verdict::NoAnswer { syns: 1 });
}

#[test]
fn what_cannot_be_opened_says_why() {
    if !in_namespace("what_cannot_be_opened_says_why") {
        return;
    }
    let error = Capture::builder().interface("nowhere0").open().unwrap_err();
    assert!(matches!(&error, OpenError::NoInterface(name) if name == "nowhere0"), "{error:?}");
    assert_eq!(error.to_string(), "there is no interface nowhere0");
    let many = (1..=5000).fold(Capture::builder(), Builder::port);
    assert!(matches!(many.open(), Err(OpenError::TooManyAddresses)));
}

/// A namespace of users has all privileges but none in the network namespace outside.
#[test]
fn without_the_capability_it_says_so() {
    if std::env::var_os("TOWPATH_TEST_NAMESPACE").is_some() {
        let error = Capture::builder().interface("lo").open().unwrap_err();
        assert!(matches!(error, OpenError::NotPermitted(_)), "{error:?}");
        assert!(error.to_string().starts_with("capturing needs CAP_NET_RAW: "), "{error}");
        return;
    }
    let output = Command::new("unshare")
        .arg("--user")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "without_the_capability_it_says_so", "--nocapture"])
        .env("TOWPATH_TEST_NAMESPACE", "1")
        .output()
        .unwrap();
    if !output.status.success() && output.stdout.is_empty() && std::env::var_os("TOWPATH_NO_SKIP").is_none() {
        println!("skipped: no namespace of users: {output:?}");
        return;
    }
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}
