//! What `towpath trace` says when it cannot: what was tried, what came back, what to type next.

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::{Finished, Running, TOWPATH, assert_has, missing, run, skipped};
use rustix::process::geteuid;

fn capture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/captures/{name}.pcapng", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What is said of a file with these bytes.
fn traced(name: &str, bytes: &[u8]) -> (Finished, PathBuf) {
    let path = std::env::temp_dir().join(format!("towpath-{}-{name}", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    let done = run(["trace", "--lines", "-r", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    (done, path)
}

/// The last line is the error.
#[track_caller]
fn fails(done: Finished, code: i32, error: &str) -> Finished {
    let done = done.expect_code(code);
    assert_eq!(done.stderr.lines().last(), Some(error), "{done:#?}");
    done
}

#[test]
fn without_the_privilege_there_are_three_ways_on() {
    let mut command;
    if geteuid().is_root() {
        if skipped(missing("setpriv").as_deref()) {
            return;
        }
        command = Command::new("setpriv");
        command.args(["--bounding-set", "-net_raw", TOWPATH]);
    } else {
        command = Command::new(TOWPATH);
    }
    command.args(["trace", "-i", "lo", "8330"]).env("LC_ALL", "C.UTF-8");
    let text = format!(
        "trace lo: listening needs CAP_NET_RAW. Three ways on: sudo towpath trace -i lo 8330; or once and for all: sudo \
         setcap cap_net_raw+ep {TOWPATH}; or without privilege: towpath tour"
    );
    fails(Running::start(command).finish(), 77, &text);
}

#[test]
fn an_interface_that_is_not_there_is_told_with_those_that_are() {
    let done = run(["trace", "-i", "nosuch0"]);
    if done.code == Some(77) {
        assert!(!geteuid().is_root(), "{done:#?}");
        return;
    }
    let done = done.expect_code(2);
    assert_has(&done.stderr, "trace nosuch0: there is no such interface. There are any, ");
    assert_has(&done.stderr, "lo");
}

#[test]
fn a_file_that_is_not_there_or_no_file_is_told() {
    let hint = "To make one: sudo towpath trace --for 10s -w a.pcapng";
    let text = format!("read /nonexistent/a.pcap: no such file or directory. {hint}");
    fails(run(["trace", "-r", "/nonexistent/a.pcap"]), 1, &text);
    fails(run(["trace", "-r", "/"]), 1, "read /: is a directory");
}

#[test]
fn a_connection_that_is_not_there_is_told_with_those_that_are() {
    let path = format!("{}/tests/captures/refused.pcapng", env!("CARGO_MANIFEST_DIR"));
    let shown = run(["trace", "-r", &path]).expect_code(0).stderr;
    let there = shown.split(" of ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(there, "1", "{shown}");
    let text = format!("read {path}: there is no connection 9. There is 1 only; try: --conn 1");
    let done = fails(run(["trace", "-r", &path, "--conn", "9"]), 1, &text);
    assert_eq!(done.stdout, "");
    let text = format!("read {path}: there is no connection 1. There is none that passes the filter");
    fails(run(["trace", "-r", &path, "--conn", "1", "addr:192.0.2.77"]), 1, &text);
}

#[test]
fn what_is_no_capture_is_told_with_what_it_looks_like() {
    for (bytes, looks) in [
        (&b""[..], "it is empty"),
        (b"GET / HTTP/1.0\r\n\r\n", "its first bytes are those of something else"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "it is compressed by gzip; unpack it first"),
    ] {
        let (done, path) = traced("other", bytes);
        let path = path.display();
        let text = format!("read {path}: neither pcap nor pcapng: {looks}. To see what it is: file {path}");
        let done = fails(done, 2, &text);
        assert_eq!(done.stdout, "");
    }
}

#[test]
fn of_a_file_that_is_cut_all_is_shown_that_is_there_and_then_the_byte() {
    let whole = capture("closed-by-server");
    let (done, path) = traced("cut", &whole[..whole.len() - 100]);
    let done = done.expect_code(1);
    assert_has(&done.stdout, " 36 B seq 1..37 ");
    let error = done.stderr.lines().last().unwrap();
    let byte: usize = error.split(" byte ").nth(1).unwrap().split('.').next().unwrap().parse().unwrap();
    assert_eq!(
        error,
        format!("read {}: it ends within what begins at byte {byte}. All before that was read", path.display())
    );
    // The block that is cut begins there: all up to it is a good file.
    let (good, _) = traced("good", &whole[..byte]);
    assert_eq!(good.expect_code(0).stdout, done.stdout);
}

#[test]
fn of_a_corrupt_file_all_before_that_is_shown_and_then_the_byte() {
    let mut bytes = capture("closed-by-server");
    let (good, _) = traced("before", &bytes);
    let at = bytes.len() - 200;
    let at = at - at % 4;
    bytes[at..].fill(0xff);
    let (done, _) = traced("corrupt", &bytes);
    let done = done.expect_code(1);
    assert_has(&done.stderr, ": at byte ");
    assert_has(&done.stderr, ". All before that was read");
    let segments: Vec<_> = done.stdout.lines().filter(|line| line.contains("→")).collect();
    assert!(segments.len() > 3 && good.stdout.starts_with(&(segments.join("\n") + "\n")), "{done:#?}");
    // And how the connection stands by then.
    assert_has(done.stdout.lines().last().unwrap(), "#1 handshake ");
}

#[test]
fn the_file_that_is_read_is_not_written_over() {
    let path = std::env::temp_dir().join(format!("towpath-{}-same.pcapng", std::process::id()));
    let bytes = capture("refused");
    std::fs::write(&path, &bytes).unwrap();
    let name = path.to_str().unwrap();
    let text = format!("-w {name}: it is the file that is read. Name another file");
    fails(run(["trace", "-r", name, "-w", name]), 2, &text);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let path = format!("{}/tests/captures/refused.pcapng", env!("CARGO_MANIFEST_DIR"));
    let text = "write /nonexistent/a.pcapng: no such file or directory. Name a file that you may write to: -w FILE";
    fails(run(["trace", "-r", &path, "-w", "/nonexistent/a.pcapng"]), 1, text);
    let done = run(["trace", "-r", &path, "-w", "/dev/full"]).expect_code(1);
    assert_has(&done.stderr, "write /dev/full: no space left on device");
    assert_has(&done.stdout, "refused (RST)");
}

#[test]
fn what_cannot_be_chosen_by_is_told() {
    let text =
        "filter state:listen: segments are chosen by port: and addr: alone. For states and processes: towpath watch";
    fails(run(["trace", "state:listen"]), 2, text);
    assert_has(&run(["trace", "-r", "x", "--for", "1s"]).expect_code(2).stderr, "cannot be used with");
    assert_has(&run(["trace", "-r", "x", "-i", "lo"]).expect_code(2).stderr, "cannot be used with");
    assert_has(&run(["trace", "--conn", "0"]).expect_code(2).stderr, "--conn");
    assert_has(&run(["trace", "-w", "-"]).expect_code(2).stderr, "stdout is for the trace itself");
    let done = run(["trace", "http"]).expect_code(2);
    assert!(done.stderr.contains("is no port") && !done.stderr.contains("process:"), "{}", done.stderr);
}
