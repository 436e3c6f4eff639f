//! `towpath serve`: what it says, what it prints, and that no client harms another.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Instant;

use common::{PATIENCE, Running, assert_has, dial, serve, shell, towpath, within_patience};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{SendFlags, send};
use rustix::process::Signal;

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A connection that an echo server has accepted: it said something and heard it again.
fn echoed(addr: SocketAddr) -> TcpStream {
    let mut stream = connect(addr);
    assert_echoes(&mut stream);
    stream
}

fn assert_echoes(stream: &mut TcpStream) {
    stream.write_all(b"echo?").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"echo?");
}

/// A whole conversation: all is said, FIN, and what is answered is read to its end.
fn say(addr: SocketAddr, text: &[u8]) -> String {
    let mut stream = connect(addr);
    stream.write_all(text).unwrap();
    finish(stream)
}

/// FIN, and what the server has still to say. To drop a connection with something unread would be a reset.
fn finish(mut stream: TcpStream) -> String {
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_conversation_with_dial_from_the_first_line_to_the_last() {
    let (mut server, addr) = serve(&[]);
    let mut dial = dial(addr, &[]);
    let connected = dial.wait_for("connected 127.0.0.1:");
    let local = connected.split_whitespace().nth(1).unwrap().to_owned();
    let time = dial.wait_for(" +0000");

    assert_has(&server.wait_for("#1 "), &format!("#1 {local} connected    syn: mss "));
    assert_eq!(server.wait_for("#1 send data"), format!("#1 send data : {time}"));
    dial.type_in("hello towpath\n");
    assert_eq!(server.wait_for("#1 read data"), "#1 read data 14 : hello towpath");
    dial.type_in("\n");
    assert_eq!(server.wait_for("#1 read data"), "#1 read data 1 : ");

    dial.end_input();
    let closed = server.wait_for("#1 closed by peer after ");
    assert_has(&closed, "  in 15 B  out 36 B  rtt ");
    assert_has(&closed, "  retrans 0");
    let done = dial.finish().expect_code(0);
    assert_eq!(done.stdout, time + "\n");
    assert_has(&done.stderr, "server closed                        36 B in, 15 B out, ");
}

#[test]
fn when_it_stops_dial_says_so_and_ends_well() {
    let (mut server, addr) = serve(&[]);
    let mut dial = dial(addr, &[]);
    dial.wait_for(" +0000");
    server.wait_for("#1 send data");
    server.signal(Signal::INT);
    assert_has(&dial.finish().expect_code(0).stderr, "server closed");
    server.finish().expect_code(0);
}

#[test]
fn the_time_has_nanoseconds_and_the_local_offset() {
    let mut command = towpath(["serve", "127.0.0.1:0"]);
    command.env("TZ", "XYZ-05:30");
    let mut server = Running::start(command);
    let time = say(server.address(), b"");
    let pattern = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9} \+0530\n$";
    assert!(regex::Regex::new(pattern).unwrap().is_match(&time), "{time:?}");
}

#[test]
fn it_reads_at_most_1024_bytes_at_once() {
    let (mut server, addr) = serve(&[]);
    say(addr, &[b'x'; 2500]);
    server.wait_for("#1 closed by peer");
    let reads: Vec<_> =
        server.stdout().lines().filter_map(|l| l.split("read data ").nth(1).map(str::to_owned)).collect();
    let sizes: Vec<usize> = reads.iter().map(|r| r.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(sizes.iter().all(|&n| n <= 1024), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 2500);
}

#[test]
fn text_split_between_reads_and_bytes_that_are_none_are_shown() {
    let (mut server, addr) = serve(&[]);
    let mut client = connect(addr);
    client.write_all(b"gr\xc3").unwrap();
    server.wait_for("#1 read data 3 : gr");
    client.write_all(b"\xbcn \x1b[31m \xff\r\n").unwrap();
    assert_eq!(server.wait_for("#1 read"), r"#1 read data 12 : ün \u{1b}[31m \xff\r");
    client.write_all(b"\xe2\x82").unwrap();
    finish(client);
    server.wait_for(r"#1 read data 2 : ");
    assert_eq!(server.wait_for("#1 read"), r"#1 read data 0 : \xe2\x82");
    server.wait_for("#1 closed by peer");
}

#[test]
fn in_hex_it_dumps_what_arrives() {
    let (mut server, addr) = serve(&["--hex", "--discard"]);
    let mut client = connect(addr);
    client.write_all(b"hello").unwrap();
    server.wait_for("#1 read data 5 : ");
    assert_eq!(server.wait_for("00000000"), "    00000000  68 65 6c 6c 6f                                    |hello|");
    client.write_all(b"!").unwrap();
    server.wait_for("    00000005  21 ");
}

#[test]
fn echo_discard_and_chargen_do_what_their_rfcs_say() {
    let (_server, addr) = serve(&["--echo"]);
    drop(echoed(addr));

    let (mut server, addr) = serve(&["--discard"]);
    assert_eq!(say(addr, b"nobody listens"), "");
    assert_has(&server.wait_for("#1 closed by peer"), "  in 14 B  out 0 B");

    let (mut server, addr) = serve(&["--chargen"]);
    let mut client = connect(addr);
    // An end of file is no reason to stop: only the other direction has ended.
    client.shutdown(Shutdown::Write).unwrap();
    let mut text = vec![0; 96 * 74];
    client.read_exact(&mut text).unwrap();
    let lines: Vec<_> = text.chunks(74).collect();
    assert!(lines[0].starts_with(b" !\"#$") && lines[0].ends_with(b"efg\r\n"));
    assert!(lines[1].starts_with(b"!\"#$%") && lines[1].ends_with(b"fgh\r\n"));
    assert_eq!(lines[95], lines[0]);
    drop(client);
    server.wait_for("#1 ");
}

#[test]
fn no_more_than_max_are_served_at_once_and_the_rest_wait() {
    let (mut server, addr) = serve(&["--echo", "--max", "2"]);
    let first = echoed(addr);
    let _second = echoed(addr);
    let mut third = connect(addr);
    third.write_all(b"echo?").unwrap();
    // The second goes on to be served while the third waits: nothing has come for it when the first leaves.
    third.set_nonblocking(true).unwrap();
    assert!(third.read(&mut [0]).is_err());
    third.set_nonblocking(false).unwrap();
    drop(first);
    let mut answer = [0; 5];
    third.read_exact(&mut answer).unwrap();

    server.wait_for("#3 ");
    let lines = server.everything();
    let (closed, connected) = (lines.find("#1 closed").unwrap(), lines.find("#3 ").unwrap());
    assert!(closed < connected, "{lines}");
}

#[test]
fn a_silent_connection_is_closed_when_it_was_idle() {
    let (mut server, addr) = serve(&["--idle", "200ms"]);
    let begun = Instant::now();
    let mut client = connect(addr);
    let mut time = String::new();
    client.read_to_string(&mut time).expect("the time, then FIN and no reset");
    let closed = begun.elapsed();
    assert_eq!(time.len(), 36);
    // It was over when we were told so, however long we then take to close as well.
    let told = server.wait_for("#1 closed by us (idle) after ");
    let words: Vec<_> = told.split(" after ").nth(1).unwrap().split_whitespace().collect();
    let unit = if words[1] == "ms" { 1e-3 } else { 1.0 };
    let after = words[0].parse::<f64>().unwrap() * unit;
    assert!(after <= closed.as_secs_f64() * 1.05, "{told}, and by our clock {closed:?}");
    drop(client);
}

#[test]
fn a_client_that_resets_harms_no_other() {
    let (mut server, addr) = serve(&["--echo"]);
    let mut other = echoed(addr);
    let reset = echoed(addr);
    set_socket_linger(&reset, Some(std::time::Duration::ZERO)).unwrap();
    drop(reset);
    server.wait_for("#2 reset by peer after ");
    assert_echoes(&mut other);
}

#[test]
fn a_reset_before_anything_was_said_is_no_reason_to_stop() {
    let (server, addr) = serve(&[]);
    for _ in 0..20 {
        let reset = connect(addr);
        set_socket_linger(&reset, Some(std::time::Duration::ZERO)).unwrap();
    }
    let mut dial = dial(addr, &[]);
    dial.end_input();
    assert_eq!(dial.finish().expect_code(0).stdout.len(), 36);
    server.signal(Signal::TERM);
    let done = server.finish().expect_code(0);
    assert_has(&done.stderr, ", 0 cut");
    assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
}

#[test]
fn clients_that_half_close_or_say_nothing_harm_no_other() {
    let (mut server, addr) = serve(&["--echo"]);
    let _silent = connect(addr);
    assert_eq!(say(addr, b"the end"), "the end");
    drop(echoed(addr));
    server.wait_for("closed by peer");
}

#[test]
fn an_urgent_byte_harms_nobody_and_hides_nothing() {
    let (mut server, addr) = serve(&["--echo"]);
    let mut other = echoed(addr);
    let mut urgent = connect(addr);
    urgent.write_all(b"aaa").unwrap();
    send(&urgent, b"!", SendFlags::OOB).unwrap();
    urgent.write_all(b"ccc").unwrap();
    let mut answer = [0; 6];
    urgent.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"aaaccc", "an urgent byte is not part of the stream");
    drop(urgent);
    assert_has(&server.wait_for("#2 closed by peer"), "  in 6 B  out 6 B");
    assert_echoes(&mut other);
}

#[test]
fn a_gigabyte_that_nobody_reads_back_harms_no_other() {
    let (_server, addr) = serve(&["--echo"]);
    let mut greedy = connect(addr);
    // As much of a gigabyte as goes in: the echo stops reading when its answers are not read.
    greedy.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    let block = vec![b'x'; 1 << 20];
    let sent = (0..1024).take_while(|_| greedy.write_all(&block).is_ok()).count();
    assert!(sent < 1024, "the server keeps what nobody reads: {sent} MiB");
    drop(echoed(addr));
}

#[test]
fn a_gigabyte_that_is_discarded_is_counted() {
    let (mut server, addr) = serve(&["--discard"]);
    let mut greedy = connect(addr);
    within_patience("a gigabyte to be taken", move || {
        let block = vec![b'x'; 1 << 20];
        (0..1024).for_each(|_| greedy.write_all(&block).unwrap());
    });
    assert_has(&server.wait_for("#1 closed by peer"), "  in 1.0 GiB  out 0 B");
}

#[test]
fn with_64_descriptors_it_serves_200_clients_as_they_come_and_go() {
    let mut server = Running::start(shell("ulimit -n 64; exec \"$TOWPATH\" serve 127.0.0.1:0 --echo"));
    let addr = server.address();
    let mut clients: Vec<_> = (0..200).map(|_| connect(addr)).collect();
    for client in &mut clients {
        client.write_all(b"echo?").unwrap();
    }
    server.wait_for("accept: too many open files; trying again in 5ms");
    // In the order in which they came; each leaves room for the next that waits.
    for mut client in clients {
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"echo?");
    }
    server.wait_for("#200 closed by peer");
    drop(echoed(addr));
    server.signal(Signal::TERM);
    let done = server.finish().expect_code(0);
    assert_has(&done.stderr, "stopped;");
    assert_eq!(done.stdout.matches(" connected").count(), 201);
    assert_eq!(done.stdout.matches("reset").count(), 0);
}

#[test]
fn it_ends_quietly_when_nobody_reads_its_lines() {
    let script = "{ \"$TOWPATH\" serve 127.0.0.1:0; echo \"exit $?\" >&2; } | head -1";
    let mut pipeline = Running::start(shell(script));
    let addr = pipeline.address();
    let _client = connect(addr);
    pipeline.wait_for("#1 ");
    pipeline.wait_for("exit 0");
}

#[test]
fn as_json_every_line_is_an_object() {
    let mut server = Running::start(towpath(["serve", "127.0.0.1:0", "--json"]));
    let listening = server.wait_for(r#""ev":"listening""#);
    let listening: serde_json::Value = serde_json::from_str(&listening).unwrap();
    assert_eq!(listening["mode"], "time");
    let addr: SocketAddr = listening["addr"].as_str().unwrap().parse().unwrap();
    say(addr, b"hi\n");
    server.wait_for(r#""ev":"closed""#);
    server.signal(Signal::TERM);
    let done = server.finish().expect_code(0);
    assert_eq!(done.stderr, "");

    let events: Vec<serde_json::Value> = done.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(events.iter().all(|e| e["v"] == 1 && e["time"].is_string()));
    let of = |ev: &str| events.iter().find(|e| e["ev"] == ev).unwrap_or_else(|| panic!("no {ev}: {events:?}"));
    assert!(of("connected")["syn"]["mss"].is_u64());
    assert_eq!((&of("read")["text"], &of("read")["bytes"]), (&"hi\n".into(), &3.into()));
    assert_eq!(of("send")["bytes"], 36);
    assert_eq!(of("closed")["in_bytes"], 3);
    assert_eq!(of("drained")["cut"], 0);
}
