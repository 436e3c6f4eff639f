//! Ctrl-C and SIGTERM: `serve` drains, and stops at once when asked twice.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use common::{PATIENCE, assert_has, dial, serve};
use rustix::process::Signal;

fn connect(addr: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn with_nobody_there_it_stops_at_once() {
    for signal in [Signal::INT, Signal::TERM] {
        let (mut server, addr) = serve(&[]);
        server.signal(signal);
        server.wait_for("stopping; no conversation is open");
        let done = server.finish().expect_code(0);
        assert_has(&done.stderr, "stopped; 0 finished, 0 cut");
        assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
    }
}

#[test]
fn open_conversations_get_a_fin_and_finish() {
    let (mut server, addr) = serve(&["--drain", "1h"]);
    let mut dial = dial(addr, &[]);
    dial.wait_for("+0");
    server.wait_for("#1 send data : ");
    server.signal(Signal::TERM);
    server.wait_for("stopping; 1 conversation has 1h to finish");
    let done = dial.finish().expect_code(0);
    assert_has(&done.stderr, "server closed");
    let done = server.finish().expect_code(0);
    assert_has(&done.stdout, "#1 closed by us (drain) after ");
    assert_has(&done.stderr, "stopped; 1 finished, 0 cut");
}

#[test]
fn an_echo_is_served_on_until_it_is_done() {
    let (mut server, addr) = serve(&["--echo", "--drain", "1h"]);
    let mut client = connect(addr);
    server.wait_for("#1 127.0.0.1");
    server.signal(Signal::INT);
    server.wait_for("stopping; 1 conversation has");
    // It accepts no more: on epoll from then on, on io_uring once the listener's worker has let go of it.
    let start = Instant::now();
    while TcpStream::connect(addr).is_ok() {
        assert!(start.elapsed() < PATIENCE, "it still listens");
    }
    client.write_all(b"still there?").unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still there?");
    drop(client);
    assert_has(&server.finish().expect_code(0).stderr, "stopped; 1 finished, 0 cut");
}

#[test]
fn what_does_not_finish_in_time_is_cut_and_counted() {
    let (mut server, addr) = serve(&["--echo", "--drain", "100ms"]);
    let mut clients: Vec<_> = (0..3).map(|_| connect(addr)).collect();
    for _ in 0..3 {
        server.wait_for(" connected");
    }
    drop(clients.pop());
    server.wait_for("closed by peer");
    server.signal(Signal::TERM);
    server.wait_for("stopped; 0 finished, 2 cut");
    let done = server.finish().expect_code(0);
    assert_eq!(done.stdout.matches("closed by us (cut)").count(), 2, "{}", done.stdout);
    for mut client in clients {
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "a FIN, not a reset");
    }
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let (mut server, addr) = serve(&["--echo", "--drain", "1h"]);
    let _client = connect(addr);
    server.wait_for(" connected");
    server.signal(Signal::INT);
    server.wait_for("stopping; 1 conversation has");
    server.signal(Signal::INT);
    server.finish().expect_code(130);
}

#[test]
fn a_client_that_answers_the_fin_with_data_is_still_heard() {
    let (mut server, addr) = serve(&["--drain", "1h"]);
    let mut client = connect(addr);
    server.wait_for("#1 send data : ");
    server.signal(Signal::TERM);
    let mut time = String::new();
    client.read_to_string(&mut time).expect("the time, then FIN");
    assert_eq!(time.len(), 36, "{time:?}");
    client.write_all(b"last words\n").unwrap();
    drop(client);
    let done = server.finish().expect_code(0);
    assert_has(&done.stdout, "#1 read data 11 : last words\n");
}
