//! The hand-written server echoes whatever is sent to it, and the load generator notices a server that does not.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;
use towpath_bench::process::Server;

fn raw_epoll() -> Server {
    Server::start(&[env!("CARGO_BIN_EXE_raw_epoll").into()], None).unwrap()
}

fn load(addr: SocketAddr, arguments: &str) -> Output {
    let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
    load.args(["--addr", &addr.to_string()]).args(arguments.split(' ')).output().unwrap()
}

/// A server for one connection, which answers the first bytes it reads with what `answer` makes of them.
fn wrong_server(answer: fn(&mut Vec<u8>)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut conn, _) = listener.accept().unwrap();
        let mut bytes = vec![0; 64];
        conn.read_exact(&mut bytes).unwrap();
        answer(&mut bytes);
        conn.write_all(&bytes).unwrap();
    });
    addr
}

fn complaint(answer: fn(&mut Vec<u8>)) -> String {
    let output = load(wrong_server(answer), "--conns 1 --requests 1");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "no figures for wrong echoes");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn load_finds_a_wrong_byte() {
    let text = complaint(|bytes| bytes[63] ^= 1);
    assert!(text.contains("byte 63 of the echo differs"), "{text}");
}

#[test]
fn load_finds_a_byte_too_many() {
    let text = complaint(|bytes| bytes.push(0));
    assert!(text.contains("longer than what was sent"), "{text}");
}

#[test]
fn load_finds_a_closed_connection() {
    let text = complaint(|bytes| bytes.truncate(32));
    assert!(text.contains("closed by the server after 32 of 64 bytes"), "{text}");
}

#[test]
fn load_goes_to_loopback_only() {
    let output = load("192.0.2.1:1".parse().unwrap(), "--conns 1 --requests 1");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn raw_epoll_echoes_on_many_connections() {
    let server = raw_epoll();
    for arguments in ["--conns 200 --requests 5000", "--conns 3 --requests 20 --size 300000"] {
        let output = load(server.addr(), arguments);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let requests = arguments.split(' ').nth(3).unwrap();
        assert_eq!(report["requests"].to_string(), requests);
    }
}

#[test]
fn raw_epoll_sends_what_the_peer_did_not_take_at_first_and_then_closes() {
    let server = raw_epoll();
    let mut conn = TcpStream::connect(server.addr()).unwrap();
    let sent: Vec<u8> = (0..16 << 20).map(|i| (i % 251) as u8).collect();
    let mut writer = conn.try_clone().unwrap();
    let copy = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // A byte comes back, but 16 MiB fit into no socket's buffers: soon the server can send no more.
    conn.peek(&mut [0]).unwrap();
    thread::sleep(Duration::from_millis(100));
    let mut echoed = Vec::new();
    conn.read_to_end(&mut echoed).unwrap();
    writing.join().unwrap();
    assert!(echoed == sent);
}

#[test]
fn measure_prints_a_table() {
    let measure = Path::new(env!("CARGO_BIN_EXE_measure"));
    let arguments = "echo --server raw=raw_epoll --conns 4 --seconds 0.05 --rounds 2 --no-wrappers --unpinned";
    let output = Command::new(measure).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["rounds"].as_array().unwrap().len(), 2);
    assert!(line["best"]["cpu_us"].as_f64().unwrap() > 0.0);
    assert!(text.contains("CPU µs"));
}
