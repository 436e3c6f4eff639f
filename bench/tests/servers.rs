//! Every server answers rightly, whatever the service; what is not built here is skipped by name.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;
use towpath_bench::process::Server;

const LIMITS: [&str; 3] = ["raw_epoll", "raw_uring --mode operations", "raw_uring --mode poll"];
const PEERS: [&str; 6] = ["towpath_echo", "tokio_echo", "may_echo", "monoio_echo", "threads_echo", "go_echo"];
/// Those in which one connection may have two tasks.
const SHARING: [&str; 4] = ["towpath_echo", "tokio_echo", "threads_echo", "go_echo"];

/// Starts a server with arguments; none, with a word about it, if it is not built.
fn start(command: &str, more: &str) -> Option<Server> {
    let mut words: Vec<_> = command.split(' ').chain(more.split_whitespace()).map(String::from).collect();
    let here = Path::new(env!("CARGO_BIN_EXE_load"));
    // `bench/run` builds the one in Go, beside the release build.
    let places = [here.with_file_name(&words[0]), here.ancestors().nth(2).unwrap().join("release").join(&words[0])];
    let Some(program) = places.iter().find(|place| place.is_file()) else {
        println!("skipped: {command} is not built");
        return None;
    };
    words[0] = program.display().to_string();
    Some(Server::start(&words, None).unwrap_or_else(|e| panic!("{command} {more}: {e}")))
}

/// So many requests, all answered rightly.
fn check(server: &Server, who: &str, arguments: &str, requests: u64) {
    let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
    load.args(["--addr", &server.addr().to_string(), "--requests", &requests.to_string()]);
    let output = load.args(arguments.split_whitespace()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{who}: {arguments}: {text}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["requests"], requests, "{who}: {arguments}");
}

#[test]
fn every_server_echoes() {
    for command in LIMITS.iter().chain(&PEERS) {
        let Some(server) = start(command, "") else { continue };
        check(&server, command, "--conns 200", 5_000);
        check(&server, command, "--conns 3 --size 300000", 20);
        check(&server, command, "--conns 8 --pipeline 16", 5_000);
        check(&server, command, "--conns 8 --churn", 500);
    }
}

#[test]
fn every_peer_echoes_on_two_workers_and_with_a_large_buffer() {
    for command in PEERS {
        let Some(server) = start(command, "--workers 2 --service echo16k") else { continue };
        check(&server, command, "--conns 50 --size 16384", 2_000);
        check(&server, command, "--conns 8 --churn", 500);
    }
}

#[test]
fn every_peer_sinks_and_sources() {
    for command in PEERS {
        for kind in ["sink", "source"] {
            let Some(server) = start(command, &format!("--service {kind}")) else { continue };
            check(&server, command, &format!("--kind {kind} --conns 3 --size 1000000"), 20);
            check(&server, command, &format!("--kind {kind} --conns 3 --size 1"), 20);
        }
    }
}

#[test]
fn every_peer_is_a_proxy() {
    let behind = start("raw_epoll", "").unwrap();
    for command in PEERS {
        let Some(server) = start(command, &format!("--service proxy --to {}", behind.addr())) else { continue };
        check(&server, command, "--conns 50", 2_000);
        check(&server, command, "--conns 3 --size 300000", 20);
        check(&server, command, "--conns 8 --churn", 200);
        everything_comes_back(command, server.addr());
    }
}

#[test]
fn two_tasks_share_a_connection() {
    for command in SHARING {
        let Some(server) = start(command, "--workers 2 --service shared") else { continue };
        check(&server, command, "--conns 1 --pipeline 16", 5_000);
        check(&server, command, "--conns 8 --size 100000", 50);
        check(&server, command, "--conns 8 --churn", 200);
    }
}

#[test]
fn what_the_peer_did_not_take_at_first_is_sent_before_the_close() {
    for command in LIMITS.iter().chain(&PEERS) {
        let Some(server) = start(command, "") else { continue };
        everything_comes_back(command, server.addr());
    }
}

/// Sends more than fits into any socket's buffers, ends its side, and only then begins to read.
fn everything_comes_back(who: &str, addr: SocketAddr) {
    let mut conn = TcpStream::connect(addr).unwrap();
    let sent: Vec<u8> = (0..16 << 20).map(|i| (i % 251) as u8).collect();
    let mut writer = conn.try_clone().unwrap();
    let copy = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // A byte comes back, but soon the server can send no more.
    conn.peek(&mut [0]).unwrap();
    thread::sleep(Duration::from_millis(50));
    conn.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut echoed = Vec::new();
    conn.read_to_end(&mut echoed).unwrap_or_else(|e| panic!("{who}: {} bytes came back, then: {e}", echoed.len()));
    writing.join().unwrap();
    assert!(echoed == sent, "{who}");
}
