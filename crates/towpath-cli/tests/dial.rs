//! `towpath dial`: what is sent, what is printed, and when it ends.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::{PATIENCE, Running, assert_has, dial, serve, shell, towpath, within_patience};
use rustix::process::Signal;

/// A server that the test itself plays.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let listener = listener.try_clone().unwrap();
    let stream = within_patience("a connection", move || listener.accept().unwrap().0);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn read_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).expect("more of the line"), 1, "{line:?}");
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

#[test]
fn the_servers_close_ends_it_while_stdin_is_open() {
    let (listener, addr) = listener();
    let dial = dial(addr, &[]);
    let mut server = accept(&listener);
    server.write_all(b"goodbye\n").unwrap();
    drop(server);

    let done = dial.finish().expect_code(0);
    assert_eq!(done.stdout, "goodbye\n");
    assert_has(&done.stderr, "server closed");
    assert_has(&done.stderr, " 8 B in, 0 B out, ");
}

#[test]
fn an_answer_that_comes_long_after_end_of_file_is_printed() {
    let (listener, addr) = listener();
    let mut dial = dial(addr, &[]);
    dial.type_in("hello");
    dial.end_input();

    let mut server = accept(&listener);
    let mut question = String::new();
    server.read_to_string(&mut question).expect("FIN after the end of stdin");
    assert_eq!(question, "hello");
    // Longer than socat waits. Nothing is measured: what counts is that the answer comes after the end of file.
    thread::sleep(Duration::from_secs(1));
    server.write_all(b"answer").unwrap();
    drop(server);

    let done = dial.finish().expect_code(0);
    assert_eq!(done.stdout, "answer");
    assert_has(&done.stderr, "server closed");
}

#[test]
fn it_sends_what_is_typed_when_it_is_typed() {
    let (listener, addr) = listener();
    let mut dial = dial(addr, &[]);
    dial.wait_for(&format!("→ {addr} in "));
    let mut server = accept(&listener);
    for line in ["one\n", "two\n"] {
        dial.type_in(line);
        assert_eq!(read_line(&mut server), line);
        server.write_all(line.to_uppercase().as_bytes()).unwrap();
        dial.wait_for(line.to_uppercase().trim());
    }
}

#[test]
fn without_half_close_the_end_of_stdin_sends_nothing() {
    let (listener, addr) = listener();
    let mut dial = dial(addr, &["--no-half-close"]);
    dial.type_in("hello\n");
    dial.end_input();
    let mut server = accept(&listener);
    assert_eq!(read_line(&mut server), "hello\n");
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let silence = server.read(&mut [0]).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::WouldBlock, "neither FIN nor a byte");
    server.write_all(b"late\n").unwrap();
    drop(server);
    assert_eq!(dial.finish().expect_code(0).stdout, "late\n");
}

#[test]
fn holding_it_stays_in_close_wait_and_goes_on_sending() {
    let (listener, addr) = listener();
    let mut dial = dial(addr, &["--hold"]);
    let mut server = accept(&listener);
    server.shutdown(Shutdown::Write).unwrap();
    dial.wait_for("server closed; holding on");
    dial.type_in("still here\n");
    assert_eq!(read_line(&mut server), "still here\n");
    dial.end_input();
    assert_eq!(server.read(&mut [0]).unwrap(), 0, "FIN at the end of stdin");
    assert_has(&dial.finish().expect_code(0).stderr, "end of input");
}

#[test]
fn line_ends_become_cr_lf_when_asked_for() {
    let (listener, addr) = listener();
    let mut dial = dial(addr, &["--crlf"]);
    dial.type_in("a\nb\r\n");
    dial.end_input();
    let mut sent = String::new();
    accept(&listener).read_to_string(&mut sent).unwrap();
    assert_eq!(sent, "a\r\nb\r\n");
    dial.finish().expect_code(0);
}

#[test]
fn a_dump_counts_from_the_first_byte() {
    let (listener, addr) = listener();
    let mut dial = dial(addr, &["--hex"]);
    let mut server = accept(&listener);
    server.write_all(b"hello\n").unwrap();
    dial.wait_for("00000000  68 65 6c 6c 6f 0a ");
    server.write_all(b"\xff").unwrap();
    dial.wait_for("00000006  ff ");
    drop(server);
    let done = dial.finish().expect_code(0);
    assert_has(&done.stdout, "|hello.|\n");
}

#[test]
fn it_ends_well_as_soon_as_what_it_expects_has_come() {
    let (listener, addr) = listener();
    let dial = dial(addr, &["--expect", "^220 ready"]);
    let mut server = accept(&listener);
    server.write_all(b"welcome\n220 re").unwrap();
    server.write_all(b"ady\n").unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0, "FIN, not a reset");
    drop(server);
    assert_has(&dial.finish().expect_code(0).stderr, "matched");
}

#[test]
fn what_it_expects_and_does_not_get_is_a_failed_check() {
    let (listener, addr) = listener();
    let first = dial(addr, &["--expect", "^220"]);
    accept(&listener).write_all(b"421 busy\n").unwrap();
    let done = first.finish().expect_code(9);
    assert_has(&done.stderr, "--expect ^220: not found in 9 B when the server closed\n");
    assert_eq!(done.stdout, "421 busy\n");

    let second = dial(addr, &["--expect", "^220", "--idle", "100ms"]);
    let _silent = accept(&listener);
    let done = second.finish().expect_code(9);
    assert_has(&done.stderr, "not found in 0 B when nothing more came for 100ms");
}

#[test]
fn repeated_it_sends_the_same_each_time() {
    let (listener, addr) = listener();
    let mut dial = dial(addr, &["--repeat", "3", "--every", "0s"]);
    dial.type_in("ping");
    dial.end_input();
    for round in 1..=3 {
        let mut server = accept(&listener);
        let mut sent = String::new();
        server.read_to_string(&mut sent).unwrap();
        assert_eq!(sent, "ping", "round {round}");
        writeln!(server, "pong {round}").unwrap();
    }
    let done = dial.finish().expect_code(0);
    assert_eq!(done.stdout, "pong 1\npong 2\npong 3\n");
    assert_has(&done.stderr, "3 dials: 3 good, 0 failed\n");
}

#[test]
fn repeated_the_first_failure_decides() {
    let (listener, addr) = listener();
    let mut dial = dial(addr, &["--repeat", "2", "--every", "0s", "--expect", "yes"]);
    dial.end_input();
    accept(&listener).write_all(b"no").unwrap();
    accept(&listener).write_all(b"yes").unwrap();
    assert_has(&dial.finish().expect_code(9).stderr, "2 dials: 1 good, 1 failed\n");
}

#[test]
fn it_ends_quietly_when_its_reader_has_read_enough() {
    let status = "{ \"$TOWPATH\" dial \"$ADDR\"; echo \"exit $?\" >&2; } | head -1";
    for mode in ["--time", "--chargen"] {
        // After the time comes nothing more: dial must notice without a write.
        let (_server, addr) = serve(&[mode]);
        let mut script = shell(status);
        script.env("ADDR", addr.to_string());
        let mut pipeline = Running::start(script);
        pipeline.wait_for("exit 0");
        let done = pipeline.finish().expect_code(0);
        assert_eq!(done.stdout.lines().count(), 1, "{mode}: {done:?}");
        let lines: Vec<_> = done.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{mode}: connected and the exit code, no complaint: {lines:?}");
    }
}

#[test]
fn an_upload_under_way_outlives_the_reader_of_its_output() {
    let (listener, addr) = listener();
    let script = "{ \"$TOWPATH\" dial \"$ADDR\"; echo \"exit $?\" >&2; } | true";
    let mut script = shell(script);
    script.env("ADDR", addr.to_string());
    let upload = vec![b'x'; 32 << 20];
    let mut pipeline = Running::start(script);
    let reader = thread::spawn(move || {
        let mut server = accept(&listener);
        // Late, so that the upload is still stuck in the kernel's buffers when the reader has long gone.
        thread::sleep(Duration::from_secs(2));
        let mut sent = Vec::new();
        server.read_to_end(&mut sent).map(|_| sent.len())
    });
    pipeline.type_in(&upload);
    pipeline.end_input();
    assert_eq!(reader.join().unwrap().unwrap(), upload.len());
    pipeline.wait_for("exit 0");
}

#[test]
fn any_bytes_pass_both_ways_unchanged() {
    let (_server, addr) = serve(&["--echo"]);
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let bytes: Vec<u8> = (0..3 << 20).map(|_| random()).collect();
    let folder = std::env::temp_dir().join(format!("towpath-cli-bytes-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("in"), &bytes).unwrap();
    let mut script = shell("\"$TOWPATH\" dial \"$ADDR\" < \"$DIR/in\" > \"$DIR/out\"");
    script.env("ADDR", addr.to_string()).env("DIR", &folder);
    let done = Running::start(script).finish().expect_code(0);
    assert_has(&done.stderr, "3.0 MiB in, 3.0 MiB out");
    assert!(std::fs::read(folder.join("out")).unwrap() == bytes, "the bytes differ");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn as_json_every_line_is_an_object_and_stderr_is_empty() {
    let (listener, addr) = listener();
    let dial = dial(addr, &["--json"]);
    let mut server = accept(&listener);
    server.write_all("é\n".as_bytes()).unwrap();
    server.write_all(b"\xff").unwrap();
    drop(server);
    let done = dial.finish().expect_code(0);
    assert_eq!(done.stderr, "");
    let events: Vec<serde_json::Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|e| e["v"] == 1 && e["time"].is_string()), "{events:?}");
    assert_eq!(events.first().unwrap()["ev"], "connected");
    assert_eq!(events.first().unwrap()["peer"], addr.to_string());
    let last = events.last().unwrap();
    assert_eq!((&last["ev"], &last["in_bytes"]), (&"server-closed".into(), &4.into()));
    let received: u64 = events.iter().filter(|e| e["ev"] == "data").map(|e| e["bytes"].as_u64().unwrap()).sum();
    assert_eq!(received, 4);
}

#[test]
fn it_speaks_ascii_where_the_locale_does() {
    let (listener, addr) = listener();
    let mut command = towpath(["dial", &addr.to_string()]);
    command.env("LC_ALL", "C");
    let dial = Running::start(command);
    drop(accept(&listener));
    let done = dial.finish().expect_code(0);
    assert_has(&done.stderr, &format!("-> {addr} in "));
    assert!(done.stderr.is_ascii(), "{}", done.stderr);
}

#[test]
fn ctrl_c_ends_it_with_130() {
    let (listener, addr) = listener();
    let mut dial = dial(addr, &[]);
    let _server = accept(&listener);
    dial.wait_for("connected");
    dial.signal(Signal::INT);
    assert_has(&dial.finish().expect_code(130).stderr, "interrupted");
}
