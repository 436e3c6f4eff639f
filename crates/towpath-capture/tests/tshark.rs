//! The same capture, read here and by Wireshark: each number and each mark of every segment is the same.

#![forbid(unsafe_code)]

mod namespace;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use namespace::in_namespace;
use rustix::net::sockopt;
use towpath_capture::file::{About, Reader, Writer};
use towpath_capture::flow::{Flows, Notes, Verdict};
use towpath_capture::live::{Capture, Event};

/// Nothing here takes this long.
const WATCHDOG: Duration = Duration::from_secs(20);

fn open() -> (TcpStream, TcpStream) {
    connect_to(&TcpListener::bind("127.0.0.1:0").unwrap())
}

fn connect_to(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Reads all that comes until the other side closes.
fn drain(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).unwrap() > 0 {}
}

/// Closes one, then the other.
fn close(first: TcpStream, mut second: TcpStream) {
    drop(first);
    drain(&mut second);
}

/// The server takes no more data until it has been asked twice whether it does.
fn fill_the_window() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    sockopt::set_socket_recv_buffer_size(&listener, 8192).unwrap();
    let (mut client, mut server) = connect_to(&listener);
    let mut capture = Capture::builder().interface("lo").port(client.local_addr().unwrap().port()).open().unwrap();
    let writer = std::thread::spawn(move || {
        client.write_all(&[1; 6_000_000]).unwrap();
        client
    });
    let mut flows = Flows::new();
    let (mut probes, began) = (0, Instant::now());
    while probes < 2 {
        assert!(began.elapsed() < WATCHDOG, "nobody asks: {:?}", flows.finish());
        let Some(Event::Frame(frame)) = capture.read(Some(WATCHDOG)).unwrap() else { continue };
        let step = flows.push(&frame.segment().unwrap().unwrap());
        probes += usize::from(step.notes.contains(Notes::WINDOW_PROBE));
    }
    let reader = std::thread::spawn(move || {
        let mut left = 6_000_000;
        let mut buffer = vec![0; 65_536];
        while left > 0 {
            left -= server.read(&mut buffer).unwrap();
        }
        server
    });
    close(writer.join().unwrap(), reader.join().unwrap());
}

/// What the client says is lost until it has said it twice again; false where nftables are not installed.
fn lose_some() -> bool {
    if let Err(error) = Command::new("nft").arg("--version").output() {
        assert!(std::env::var_os("TOWPATH_NO_SKIP").is_none(), "nft: {error}");
        println!("skipped: a loss: nft: {error}");
        return false;
    }
    let (mut client, mut server) = open();
    let port = server.local_addr().unwrap().port();
    let nft = |rules: &str| {
        let status = Command::new("nft").arg(rules).status().unwrap();
        assert!(status.success(), "nft {rules}");
    };
    nft(&format!("table ip lose {{ chain in {{ type filter hook input priority 0; tcp dport {port} drop; }}; }}"));
    let mut capture = Capture::builder().interface("lo").port(port).open().unwrap();
    client.write_all(b"hello").unwrap();
    let mut times = 0;
    while times < 3 {
        let frame = capture.read(Some(WATCHDOG)).unwrap().expect("it is sent again");
        times += usize::from(matches!(frame, Event::Frame(_)));
    }
    nft("delete table ip lose");
    server.read_exact(&mut [0; 5]).unwrap();
    close(client, server);
    true
}

/// What tshark says of each segment: its connection, numbers, and marks.
fn tshark(path: &std::path::Path) -> Option<Vec<String>> {
    let fields = ["stream", "seq", "ack", "len", "window_size"].map(|field| format!("tcp.{field}"));
    let marks = ["retransmission", "zero_window", "window_full"].map(|mark| format!("tcp.analysis.{mark}"));
    let fields = fields.iter().chain(&marks).flat_map(|field| ["-e", field]);
    let output =
        Command::new("tshark").args(["-T", "fields", "-E", "separator=,"]).args(fields).arg("-r").arg(path).output();
    match output {
        Ok(output) => Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("TOWPATH_NO_SKIP").is_none() => {
            println!("skipped: tshark: {error}");
            None
        }
        Err(error) => panic!("tshark: {error}"),
    }
}

#[test]
fn both_say_the_same_of_every_segment() {
    if !in_namespace("both_say_the_same_of_every_segment") {
        return;
    }
    let mut capture = Capture::builder().interface("lo").snap_len(200).open().unwrap();

    let (client, server) = open();
    close(client, server);
    let (mut client, mut server) = open();
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    server.write_all(&[7; 100_000]).unwrap();
    client.read_exact(&mut [0; 100_000]).unwrap();
    close(server, client);
    assert_eq!(TcpStream::connect("127.0.0.1:1").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let (client, mut server) = open();
    sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(server.read(&mut [0; 5]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    fill_the_window();
    let lost = lose_some();

    let path = std::env::temp_dir().join(format!("towpath-capture-both-{}.pcapng", std::process::id()));
    let mut writer = Writer::create(&path, &About::here("test")).unwrap();
    while let Some(event) = capture.read(Some(Duration::ZERO)).unwrap() {
        if let Event::Frame(frame) = event {
            writer.write(&frame).unwrap();
        }
    }
    writer.finish().unwrap();
    assert_eq!(capture.stats().unwrap().dropped, 0);

    let mut ours = Vec::new();
    let mut flows = Flows::new();
    let mut reader = Reader::open(&path).unwrap();
    while let Some(frame) = reader.read_frame().unwrap() {
        let step = flows.push(&frame.segment().unwrap().unwrap());
        let mark = |note| if step.notes.contains(note) { "1" } else { "" };
        ours.push(format!(
            "{},{},{},{},{},{},{},{}",
            step.flow.0 - 1,
            step.seq,
            step.ack.unwrap_or(0),
            step.len,
            step.window.unwrap(),
            mark(Notes::RETRANSMISSION),
            mark(Notes::ZERO_WINDOW),
            mark(Notes::WINDOW_FULL),
        ));
    }
    let theirs = tshark(&path);
    fs::remove_file(&path).unwrap();
    if let Some(theirs) = theirs {
        assert_eq!(ours.len(), theirs.len());
        for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert_eq!(ours, theirs, "segment {}", at + 1);
        }
    }
    let flows = flows.finish();
    let verdicts: Vec<_> = flows.iter().map(|flow| flow.verdict.to_string()).collect();
    assert_eq!(verdicts[..5], ["clean", "clean", "refused (RST)", "reset", "clean"]);
    assert!(flows[4].ends.client.sent.window_probes >= 2 && flows[4].ends.server.sent.zero_windows >= 2);
    if lost {
        assert_eq!(verdicts[5], "clean");
        assert!(flows[5].ends.client.sent.timeout_retransmissions >= 2);
    }
    assert!(flows.iter().all(|flow| flow.verdict != Verdict::StillOpen));
}
