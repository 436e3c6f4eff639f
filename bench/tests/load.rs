//! The load generator notices a server that answers wrongly, in each of its modes, and prints no figures then.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

fn load(addr: SocketAddr, arguments: &str) -> Output {
    let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
    load.args(["--addr", &addr.to_string()]).args(arguments.split(' ')).output().unwrap()
}

/// A server that gives every request of so many bytes its `answer`, except the one with this number, counted over all
/// connections: that one it gives what `spoil` makes of the answer, and ends the connection.
fn server(request: usize, answer: fn(&[u8]) -> Vec<u8>, wrong: usize, spoil: fn(&mut Vec<u8>)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for conn in listener.incoming() {
            let (mut conn, count) = (conn.unwrap(), count.clone());
            thread::spawn(move || {
                let mut bytes = vec![0; request];
                while conn.read_exact(&mut bytes).is_ok() {
                    let mut answer = answer(&bytes);
                    let spoilt = count.fetch_add(1, Ordering::Relaxed) == wrong;
                    if spoilt {
                        spoil(&mut answer);
                    }
                    if conn.write_all(&answer).is_err() || spoilt {
                        break;
                    }
                }
                // Reading on avoids a reset, which could overtake the answer.
                let _ = conn.shutdown(Shutdown::Write);
                let _ = io::copy(&mut conn, &mut io::sink());
            });
        }
    });
    addr
}

fn echo(wrong: usize, spoil: fn(&mut Vec<u8>)) -> SocketAddr {
    server(64, <[u8]>::to_vec, wrong, spoil)
}

/// What the load complains of.
fn complaint(addr: SocketAddr, arguments: &str) -> String {
    let output = load(addr, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments}");
    assert!(output.stdout.is_empty(), "no figures for wrong answers: {arguments}");
    String::from_utf8(output.stderr).unwrap()
}

/// Each mode asks more than eight requests before it ends, the first of each connection while it opens them.
const MODES: [&str; 5] = [
    "--conns 1 --requests 20",
    "--conns 3 --requests 20",
    "--conns 1 --pipeline 4 --requests 20",
    "--conns 1 --rate 2000 --seconds 0.5",
    "--conns 1 --churn --requests 20",
];

#[test]
fn a_wrong_byte_is_found_in_each_mode() {
    for mode in MODES {
        let text = complaint(echo(7, |bytes| bytes[63] ^= 1), mode);
        assert!(text.contains("byte 63 of the echo differs"), "{mode}: {text}");
    }
}

#[test]
fn an_echo_of_something_else_is_found_in_each_mode() {
    for mode in MODES {
        let text = complaint(echo(7, |bytes| bytes.fill(0)), mode);
        assert!(text.contains("of the echo differs"), "{mode}: {text}");
    }
}

#[test]
fn a_closed_connection_is_found_in_each_mode() {
    for mode in MODES {
        let text = complaint(echo(7, |bytes| bytes.truncate(32)), mode);
        assert!(text.contains("closed by the server after 32 of 64 bytes"), "{mode}: {text}");
    }
}

#[test]
fn a_byte_too_many_is_found() {
    let text = complaint(echo(0, |bytes| bytes.push(0)), "--conns 1 --requests 1");
    assert!(text.contains("longer than what was sent"), "{text}");
}

#[test]
fn a_sink_that_missed_something_is_found() {
    let short = server(8 + 100_000, |request| request[..8].to_vec(), 2, |length| length[1] ^= 1);
    let text = complaint(short, "--kind sink --size 100000 --conns 1 --requests 5");
    assert!(text.contains("byte 1 of the echo differs"), "{text}");
}

#[test]
fn a_source_that_sends_something_else_is_found() {
    let right = |_: &[u8]| towpath_bench::service::pattern().repeat(2)[..100_000].to_vec();
    let wrong = server(8, right, 2, |bytes| bytes[70_000] ^= 1);
    let text = complaint(wrong, "--kind source --size 100000 --conns 1 --requests 5");
    assert!(text.contains("byte 70000 of the echo differs"), "{text}");
}

#[test]
fn right_answers_become_figures_in_each_mode() {
    for mode in MODES {
        let output = load(echo(usize::MAX, |_| {}), mode);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect(mode);
        let requests = if mode.contains("--rate") { 1_000 } else { 20 };
        assert_eq!(report["requests"], requests, "{mode}");
        assert!(report["p99_us"].as_f64() > Some(0.0), "{mode}");
    }
}

#[test]
fn it_goes_to_loopback_only() {
    let output = load("192.0.2.1:1".parse().unwrap(), "--conns 1 --requests 1");
    assert_eq!(output.status.code(), Some(1));
}
