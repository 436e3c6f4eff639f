//! Capture files in either format: what is written is read, and what is broken says where.

#![forbid(unsafe_code)]

use std::io::{self, Cursor, Read, Write};
use std::process::Command;

use towpath_capture::file::{About, Interface, ReadError, Reader, Writer};
use towpath_capture::{Frame, LinkType, Timestamp};

/// A frame as it can be kept and compared.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    nanos: u64,
    link: LinkType,
    interface: u32,
    data: Vec<u8>,
    original_len: u32,
    comment: String,
}

impl Kept {
    fn of(frame: &Frame<'_>) -> Kept {
        Kept {
            nanos: frame.time.as_nanos(),
            link: frame.link,
            interface: frame.interface,
            data: frame.data.to_vec(),
            original_len: frame.original_len,
            comment: frame.comment.to_owned(),
        }
    }

    fn frame(&self) -> Frame<'_> {
        Frame {
            time: Timestamp::from_nanos(self.nanos),
            link: self.link,
            interface: self.interface,
            data: &self.data,
            original_len: self.original_len,
            comment: &self.comment,
        }
    }
}

/// All frames, and the error that ended them.
fn read_all(file: impl Read) -> (Vec<Kept>, Option<ReadError>) {
    let mut frames = Vec::new();
    let mut reader = match Reader::new(file) {
        Ok(reader) => reader,
        Err(error) => return (frames, Some(error)),
    };
    loop {
        match reader.read_frame() {
            Ok(Some(frame)) => frames.push(Kept::of(&frame)),
            Ok(None) => return (frames, None),
            Err(error) => {
                assert!(matches!(reader.read_frame(), Ok(None)), "after an error there is nothing more");
                return (frames, Some(error));
            }
        }
    }
}

fn packet(number: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 41, 0, number, 0x40, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
    packet.extend([0x9b, 0x70, 0x20, 0x8a, 0, 0, 0, number, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0, number]);
    packet
}

fn frames() -> Vec<Kept> {
    (0..5)
        .map(|number| Kept {
            nanos: 1_700_000_000_123_456_789 + u64::from(number),
            link: LinkType::RAW,
            interface: u32::from(number % 2),
            data: packet(number),
            original_len: 41,
            comment: if number == 3 { "demo 8852, task 7: → ünïcode".to_owned() } else { String::new() },
        })
        .collect()
}

fn written(frames: &[Kept]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &About::here("towpath 0.1.0")).unwrap();
    writer.add_interface(0, &Interface::new(LinkType::RAW).named("lo")).unwrap();
    writer.add_interface(1, &Interface::new(LinkType::RAW).named("eth0").snapped(256)).unwrap();
    for frame in frames {
        writer.write(&frame.frame()).unwrap();
    }
    let (began, now) =
        (Timestamp::from_nanos(1_700_000_000_000_000_000), Timestamp::from_nanos(1_700_000_001_000_000_000));
    writer.add_statistics(0, began, now, 5, 2).unwrap();
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read() {
    let file = written(&frames());
    let (read, error) = read_all(file.as_slice());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(read, frames());

    let mut reader = Reader::new(file.as_slice()).unwrap();
    while reader.read_frame().unwrap().is_some() {}
    let [lo, eth0] = reader.interfaces() else { panic!("{:?}", reader.interfaces()) };
    assert_eq!((lo.name.as_deref(), lo.link, lo.dropped), (Some("lo"), LinkType::RAW, Some(2)));
    assert_eq!((eth0.name.as_deref(), eth0.snap_len, eth0.dropped), (Some("eth0"), 256, None));
}

#[test]
fn an_interface_that_nobody_described_has_frames_all_the_same() {
    let mut writer = Writer::new(Vec::new(), &About::default()).unwrap();
    let frame = Kept { interface: 77, ..frames()[0].clone() };
    writer.write(&frame.frame()).unwrap();
    assert_eq!(
        writer.add_statistics(3, Timestamp::default(), Timestamp::default(), 0, 0).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    let (read, error) = read_all(writer.finish().unwrap().as_slice());
    assert!(error.is_none());
    assert_eq!(read, [Kept { interface: 0, ..frame }]);
}

#[test]
fn a_comment_too_long_is_cut_between_characters() {
    let comment = "ü".repeat(40_000);
    let frame = Kept { comment, ..frames()[0].clone() };
    let (read, error) = read_all(written(&[frame]).as_slice());
    assert!(error.is_none(), "{error:?}");
    assert_eq!(read[0].comment, "ü".repeat(32_767));
}

/// Each cut gives every frame that is whole, then the byte where the next one begins.
fn check_cuts(file: &[u8], what: &str) {
    let (all, error) = read_all(file);
    assert!(error.is_none() && !all.is_empty(), "{what}: {error:?}");
    let mut ends = Vec::new();
    for len in 0..file.len() {
        let (read, error) = read_all(&file[..len]);
        assert_eq!(read, all[..read.len()], "{what} cut at {len}");
        match error {
            None => ends.push((len as u64, read.len())),
            Some(ReadError::NotACapture(_)) => assert_eq!(len, 0, "{what}"),
            Some(ReadError::Truncated { offset }) => {
                let before = ends.last().copied().unwrap_or((0, 0));
                assert_eq!((offset, read.len()), before, "{what} cut at {len}");
            }
            Some(other) => panic!("{what} cut at {len}: {other}"),
        }
    }
    // Before each frame, and in pcapng also before both interfaces and the statistics.
    assert_eq!(ends.len(), all.len() + if what == "pcapng" { 3 } else { 0 }, "{what}: {ends:?}");
}

#[test]
fn a_file_cut_anywhere_gives_what_is_whole_and_says_where_the_rest_began() {
    check_cuts(&written(&frames()), "pcapng");
    check_cuts(&old(Order::Little, false, 16), "pcap");
}

#[test]
fn a_cut_file_says_so_in_words() {
    let file = written(&frames());
    let (_, error) = read_all(&file[..file.len() - 1]);
    let error = error.unwrap();
    let text = error.to_string();
    assert_eq!(text, format!("it ends within what begins at byte {}", error.offset()));
    assert!(error.offset() > 500);
}

#[derive(Clone, Copy)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn long(self, number: u32) -> [u8; 4] {
        match self {
            Order::Big => number.to_be_bytes(),
            Order::Little => number.to_le_bytes(),
        }
    }

    fn short(self, number: u16) -> [u8; 2] {
        match self {
            Order::Big => number.to_be_bytes(),
            Order::Little => number.to_le_bytes(),
        }
    }

    /// A block of the new format.
    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let mut body = body.to_vec();
        body.resize(padded, 0);
        let len = self.long(padded as u32 + 12);
        [&self.long(kind)[..], &len, &body, &len].concat()
    }

    fn section(self) -> Vec<u8> {
        let body = [&self.long(0x1a2b_3c4d)[..], &self.short(1), &self.short(0), &[0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(self, link: u16, snap_len: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = [&self.short(link)[..], &[0, 0], &self.long(snap_len)].concat();
        for (code, value) in options {
            body.extend(self.short(*code));
            body.extend(self.short(value.len() as u16));
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(1, &body)
    }

    fn packet(self, interface: u32, ticks: u64, captured: u32, original: u32, data: &[u8]) -> Vec<u8> {
        let numbers = [interface, (ticks >> 32) as u32, ticks as u32, captured, original];
        let body: Vec<u8> =
            numbers.into_iter().flat_map(|number| self.long(number)).chain(data.iter().copied()).collect();
        self.block(6, &body)
    }
}

/// Two frames in the old format.
fn old(order: Order, nanos: bool, header: usize) -> Vec<u8> {
    let magic = match (nanos, header) {
        (true, _) => 0xa1b2_3c4d,
        (false, 24) => 0xa1b2_cd34,
        (false, _) => 0xa1b2_c3d4,
    };
    let mut file = [&order.long(magic)[..], &order.short(2), &order.short(4), &[0; 8]].concat();
    file.extend(order.long(65_535));
    // An Ethernet checksum of four bytes follows: of no interest.
    file.extend(order.long(101 | 0x5000_0000));
    for number in 0..2 {
        let data = packet(number);
        for field in [1_700_000_000, 999_999, 41, 41 + u32::from(number)] {
            file.extend(order.long(field));
        }
        file.resize(file.len() + header - 16, 0);
        file.extend(data);
    }
    file
}

#[test]
fn the_old_format_is_read_in_all_its_forms() {
    for (order, nanos, header) in [
        (Order::Little, false, 16),
        (Order::Big, false, 16),
        (Order::Little, true, 16),
        (Order::Big, true, 16),
        (Order::Little, false, 24),
    ] {
        let (read, error) = read_all(old(order, nanos, header).as_slice());
        assert!(error.is_none(), "{error:?}");
        assert_eq!(read.len(), 2);
        let fraction = if nanos { 999_999 } else { 999_999_000 };
        assert_eq!(read[1].nanos, 1_700_000_000_000_000_000 + fraction);
        assert_eq!((read[1].link, read[1].original_len, &read[1].data), (LinkType::RAW, 42, &packet(1)));
    }
}

#[test]
fn blocks_of_both_byte_orders_and_every_kind_are_read_or_passed_over() {
    for order in [Order::Little, Order::Big] {
        let data = packet(9);
        let numbers = [1 << if matches!(order, Order::Big) { 16 } else { 0 }, 0x0005_0000, 7, 41, 50];
        let old: Vec<u8> = numbers.into_iter().flat_map(|number| order.long(number)).chain(data.clone()).collect();
        let offset = match order {
            Order::Little => 10_i64.to_le_bytes(),
            Order::Big => 10_i64.to_be_bytes(),
        };
        let file = [
            order.section(),
            order.interface(101, 0, &[(9, &[9]), (14, &offset)]),
            order.block(0x0bad, &[1, 2, 3, 4, 5, 6, 7, 8]),
            order.interface(1, 0, &[(2, b"eth0"), (9, &[0x80 | 20]), (0, b"")]),
            order.block(0x7777_7777, &[1; 13]),
            order.packet(0, 5_000_000_001, 41, 41, &data),
            order.packet(1, 3 << 19, 41, 41, &data),
            order.block(2, &old),
            order.block(3, &[&order.long(41)[..], &data].concat()),
            order.block(4, &[0; 4]),
        ]
        .concat();
        let (read, error) = read_all(file.as_slice());
        assert!(error.is_none(), "{error:?}");
        let seen: Vec<_> =
            read.iter().map(|frame| (frame.nanos, frame.link.0, frame.interface, frame.original_len)).collect();
        let old_nanos = ((u128::from(0x0005_0000_0000_0007_u64) * 1_000_000_000) >> 20) as u64;
        assert_eq!(
            seen,
            [(15_000_000_001, 101, 0, 41), (1_500_000_000, 1, 1, 41), (old_nanos, 1, 1, 50), (0, 101, 0, 41)]
        );
        assert!(read.iter().all(|frame| frame.data == data));
    }
}

#[test]
fn a_new_section_has_its_own_byte_order_and_interfaces() {
    let file = [
        Order::Little.section(),
        Order::Little.interface(101, 0, &[]),
        Order::Little.packet(0, 1, 41, 41, &packet(1)),
        Order::Big.section(),
        Order::Big.interface(1, 0, &[]),
        Order::Big.packet(0, 2, 41, 41, &packet(2)),
    ]
    .concat();
    let (read, error) = read_all(file.as_slice());
    assert!(error.is_none(), "{error:?}");
    let seen: Vec<_> = read.iter().map(|frame| (frame.interface, frame.link, frame.nanos)).collect();
    assert_eq!(seen, [(0, LinkType::RAW, 1000), (1, LinkType::ETHERNET, 2000)]);
}

#[test]
fn a_simple_packet_is_as_long_as_the_interface_lets_it() {
    let data = &packet(1)[..24];
    let order = Order::Little;
    let file = [order.section(), order.interface(101, 22, &[]), order.block(3, &[&order.long(41)[..], data].concat())]
        .concat();
    let (read, _) = read_all(file.as_slice());
    assert_eq!((read[0].data.len(), read[0].original_len), (22, 41));
}

#[test]
fn what_makes_no_sense_is_told_with_its_place() {
    let order = Order::Little;
    let start = [order.section(), order.interface(101, 0, &[]), order.packet(0, 1, 41, 41, &packet(1))].concat();
    let mut lengths = order.packet(0, 1, 41, 41, &packet(1));
    *lengths.last_mut().unwrap() = 1;
    let mut odd = order.block(6, &[0; 20]);
    odd[4] = 33;
    let mut long = order.block(6, &[0; 20]);
    long[7] = 0x7f;
    let mut unordered = order.section();
    unordered[8] = 0;
    for (bad, what) in [
        (order.packet(1, 1, 41, 41, &packet(1)), "it belongs to an interface that was not described"),
        (order.packet(0, 1, 400, 400, &packet(1)), "a packet that is not as one should be"),
        (order.packet(0, 1, u32::MAX, 400, &packet(1)), "a packet that is not as one should be"),
        (order.block(6, &[0; 8]), "a packet that is not as one should be"),
        (order.block(2, &[0; 8]), "a packet is longer than its block"),
        (order.block(2, &[&[0; 12][..], &[99, 0, 0, 0, 99, 0, 0, 0]].concat()), "a packet is longer than its block"),
        (order.block(1, &[0; 4]), "an interface that is not described as one should be"),
        (order.block(5, &[9; 12]), "it belongs to an interface that was not described"),
        (lengths, "a block whose two lengths differ"),
        (odd, "a block of an impossible length"),
        (long, "a block longer than any can be"),
        (vec![6, 0, 0, 0, 8, 0, 0, 0], "a block of an impossible length"),
        (unordered, "a section of no known byte order"),
    ] {
        let (read, error) = read_all([&start[..], &bad].concat().as_slice());
        assert_eq!(read.len(), 1, "{what}");
        match error.expect(what) {
            ReadError::Corrupt { offset, what: found } => assert_eq!((offset, found), (start.len() as u64, what)),
            other => panic!("{what}: {other:?}"),
        }
    }
    let mut record = old(order, false, 16);
    let second = 24 + 16 + 41;
    record[second + 11] = 0x40;
    let (read, error) = read_all(record.as_slice());
    assert_eq!(
        (read.len(), error.unwrap().to_string()),
        (1, format!("at byte {second}: a frame is longer than any can be"))
    );
}

#[test]
fn other_files_are_told_what_they_are() {
    let says = |bytes: &[u8]| read_all(bytes).1.unwrap().to_string();
    assert_eq!(says(b""), "neither pcap nor pcapng: it is empty");
    assert_eq!(says(&[0x1f, 0x8b, 8, 0, 0]), "neither pcap nor pcapng: it is compressed by gzip; unpack it first");
    assert_eq!(says(b"GET / HTTP/1.0"), "neither pcap nor pcapng: its first bytes are those of something else");
    assert_eq!(
        says(b"\xa1\xb2\xc3\x00 and then some more text"),
        "neither pcap nor pcapng: its first bytes are almost those of pcap"
    );
    assert_eq!(says(b"\xa1\xb2"), "it ends within what begins at byte 0");
}

/// Whatever the bytes are, nothing panics; with a fixed seed.
#[test]
fn any_bytes_are_survived() {
    let mut seed = 3_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    let order = Order::Big;
    let seeds = [
        written(&frames()),
        old(Order::Big, true, 16),
        [order.section(), order.interface(101, 0, &[(9, &[7])]), order.block(2, &[0; 24]), order.block(5, &[0; 40])]
            .concat(),
    ];
    for _ in 0..50_000 {
        let mut file = seeds[random() % seeds.len()].clone();
        for _ in 0..1 + random() % 4 {
            let at = random() % file.len();
            file[at] = if random() % 2 == 0 { random() as u8 } else { 0xff };
        }
        read_all(file.as_slice());
    }
}

/// Gives a byte at a time, and is interrupted in between.
struct Drip<R>(R, bool);

impl<R: Read> Read for Drip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        let len = buffer.len().min(1);
        if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(&mut buffer[..len]) }
    }
}

#[test]
fn a_pipe_is_as_good_as_a_file() {
    let (read, error) = read_all(Drip(written(&frames()).as_slice(), false));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(read, frames());

    let (output, mut input) = io::pipe().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&old(Order::Big, false, 16)));
    assert_eq!(read_all(output).0.len(), 2);
    writer.join().unwrap().unwrap();
}

#[test]
fn a_read_that_fails_says_after_which_byte() {
    let file = written(&frames());
    let broken = Cursor::new(file.clone()).chain(Failing);
    let (read, error) = read_all(broken);
    assert_eq!(read, frames());
    let error = error.unwrap();
    assert!(matches!(&error, ReadError::Io { offset, .. } if *offset == file.len() as u64), "{error:?}");
    assert_eq!(error.to_string(), format!("after byte {}: the tape tore", file.len()));
    assert!(std::error::Error::source(&error).is_some());
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("the tape tore"))
    }
}

#[test]
fn a_full_disk_is_told_with_the_files_name() {
    let mut writer = Writer::create("/dev/full", &About::default()).unwrap();
    writer.write(&frames()[0].frame()).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert!(error.to_string().starts_with("/dev/full: "), "{error}");
    let error = Writer::create("/nowhere/at/all.pcapng", &About::default()).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/at/all.pcapng: "), "{error}");
    assert!(matches!(Reader::open("/nowhere/at/all"), Err(ReadError::Io { offset: 0, .. })));
}

/// Runs a tool of Wireshark's on what is written, where it is installed.
fn wireshark(tool: &str, arguments: &[&str]) -> Option<String> {
    let path = std::env::temp_dir().join(format!("towpath-capture-{}-{tool}.pcapng", std::process::id()));
    std::fs::write(&path, written(&frames())).unwrap();
    let output = Command::new(tool).args(arguments).arg(&path).output();
    std::fs::remove_file(&path).unwrap();
    let output = match output {
        Ok(output) => output,
        Err(error) if std::env::var_os("TOWPATH_NO_SKIP").is_none() => {
            println!("skipped: {tool}: {error}");
            return None;
        }
        Err(error) => panic!("{tool}: {error}"),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    // It warns of root, whatever the file.
    let complaints: Vec<_> = errors.lines().filter(|line| !line.contains("Running as user \"root\"")).collect();
    assert!(output.status.success() && complaints.is_empty(), "{tool}: {complaints:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn wireshark_reads_what_is_written() {
    if let Some(report) = wireshark("capinfos", &[]) {
        for line in [
            "Number of packets:   5",
            "Capture application: towpath 0.1.0",
            "Name = lo",
            "Name = eth0",
            "Number of stat entries = 1",
        ] {
            let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(squeezed(&report).contains(&squeezed(line)), "{line}: {report}");
        }
    }
    let fields = [
        "-T",
        "fields",
        "-e",
        "frame.time_epoch",
        "-e",
        "frame.interface_name",
        "-e",
        "frame.comment",
        "-e",
        "tcp.seq_raw",
        "-r",
    ];
    if let Some(report) = wireshark("tshark", &fields) {
        let fourth = report.lines().nth(3).unwrap();
        assert_eq!(fourth, "1700000000.123456792\teth0\tdemo 8852, task 7: → ünïcode\t3", "{report}");
    }
}
