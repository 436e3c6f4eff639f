//! `towpath trace` and more segments than can be shown, kept or written: what is missing is counted, and nothing else is
//! missing. `of_a_flood_every_segment_is_shown_or_counted -- --nocapture`, in its namespace, tells what a segment costs.

mod apart;
mod common;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use apart::{apart, connect, do_it, listen, objects, scratch, trace};
use common::{PATIENCE, assert_has, run, towpath};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How many packets have passed on loopback, which here are all segments.
fn passed() -> u64 {
    let text = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    let lo = text.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap();
    lo.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends a byte to and fro so many times over a new connection, and closes it: two segments each time. One thread does it
/// all, for loopback delivers before a call returns, and nobody need be waited for.
fn flood(listener: &TcpListener, times: usize) {
    let (mut client, mut server) = connect(listener);
    for end in [&client, &server] {
        end.set_nodelay(true).unwrap();
    }
    let mut byte = [b'x'];
    for _ in 0..times {
        client.write_all(&byte).unwrap();
        server.read_exact(&mut byte).unwrap();
        server.write_all(&byte).unwrap();
        client.read_exact(&mut byte).unwrap();
    }
}

/// The CPU time that a process has taken, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// `what` of the last object that `trace --json` prints.
fn told(objects: &[Value], what: &str) -> u64 {
    objects.last().unwrap()[what].as_u64().unwrap_or(0)
}

#[test]
fn a_file_that_can_take_no_more_is_named_and_ends_it() {
    apart("a_file_that_can_take_no_more_is_named_and_ends_it", || {
        let folder = scratch("small");
        std::fs::create_dir_all(&folder).unwrap();
        do_it("mount", &format!("-t tmpfs -o size=64k tmpfs {}", folder.display()));
        let file = folder.join("full.pcapng");
        let (listener, addr) = listen();
        let trace = trace(&["--lines", "-w", file.to_str().unwrap(), &addr.port().to_string()]);
        // Less than what passes before it is noticed; then nobody reads.
        flood(&listener, 500);
        let done = trace.finish().expect_code(1);
        assert_has(&done.stderr, &format!("write {}: no space left on device. All before that is", file.display()));
        assert!(!done.stderr.contains("written to"), "{}", done.stderr);
        // And how far the connection had come.
        assert_has(&done.stdout, "#1 handshake ");
        // What is in the file can be read.
        let read = run(["trace", "--lines", "-r", file.to_str().unwrap()]);
        assert_has(&read.stdout, "SYN,ACK");
        do_it("umount", folder.to_str().unwrap());
        std::fs::remove_dir(folder).unwrap();
    });
}

#[test]
fn of_a_flood_every_segment_is_shown_or_counted() {
    apart("of_a_flood_every_segment_is_shown_or_counted", || {
        let (listener, addr) = listen();
        let options = ["trace", "-i", "lo", "--json", &addr.port().to_string()];
        let mut trace = towpath(options).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(trace.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_has(&lines.next().unwrap(), "tracing");
        let reader = std::thread::spawn(move || {
            let mut told = Vec::new();
            while !told.last().is_some_and(|line: &String| line.contains(r#""ev":"connection""#)) {
                told.push(lines.next().expect("the connection ends"));
            }
            (told, lines)
        });
        let (before, ticks_before) = (passed(), ticks(trace.id()));
        flood(&listener, TIMES);
        let (mut told_lines, rest) = reader.join().unwrap();
        let sent = passed() - before;
        let ticks = ticks(trace.id()) - ticks_before;
        kill_process(Pid::from_child(&trace), Signal::INT).unwrap();
        told_lines.extend(rest);
        assert_eq!(trace.wait().unwrap().code(), Some(130));
        let objects = objects(&told_lines.join("\n"));
        let (segments, dropped) = (told(&objects, "segments"), told(&objects, "dropped"));
        println!("{sent} segments, {dropped} dropped, {} ns of CPU each", ticks * 10_000_000 / segments);
        assert_eq!(segments + dropped, sent);
        let shown = objects.iter().filter(|object| object["ev"] == "segment").count() as u64;
        assert_eq!(shown + told(&objects, "not_shown"), segments);
    });
}

/// Enough for the queues to be full, of what segments carry too.
const TIMES: usize = 15_000;

#[test]
fn a_slow_reader_costs_lines_and_no_verdict() {
    apart("a_slow_reader_costs_lines_and_no_verdict", || {
        let file = scratch("slow.pcapng");
        let (listener, addr) = listen();
        let options = ["trace", "-i", "lo", "--json", "--data", "-w", file.to_str().unwrap(), &addr.port().to_string()];
        let mut trace = towpath(options).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(trace.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        let before = passed();
        // Of its output nothing is read for now.
        flood(&listener, TIMES);
        let sent = passed() - before;
        // It flushes the file when nothing more comes, and then all is in it.
        let begun = Instant::now();
        let in_file = || {
            let read = run(["trace", "--json", "-r", file.to_str().unwrap()]);
            if read.code == Some(0) { told(&objects(&read.stdout), "segments") } else { 0 }
        };
        while in_file() < sent {
            assert!(begun.elapsed() < PATIENCE, "{} of {sent} written", in_file());
        }
        kill_process(Pid::from_child(&trace), Signal::INT).unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(trace.wait().unwrap().code(), Some(130));

        let objects = objects(&rest);
        let of = |event: &str| objects.iter().filter(|object| object["ev"] == event).cloned().collect::<Vec<_>>();
        assert_eq!((told(&objects, "segments"), told(&objects, "dropped")), (sent, 0));
        let left_out = told(&objects, "not_shown");
        assert!(left_out > 0, "{sent} segments fit into the queue and the pipe");
        assert_eq!(of("segment").len() as u64 + left_out, sent);
        let gaps: u64 = of("not-shown").iter().map(|gap| gap["segments"].as_u64().unwrap()).sum();
        assert!(gaps <= left_out, "what was left out at the very end is in the sum alone");
        for connection in of("connection") {
            assert_eq!((&connection["verdict"], &connection["bytes"]), (&"clean".into(), &(2 * TIMES).into()));
        }
        assert_eq!(of("connection").len(), 1);
        std::fs::remove_file(file).unwrap();
    });
}

#[test]
fn what_the_kernel_drops_is_counted() {
    apart("what_the_kernel_drops_is_counted", || {
        let (listener, addr) = listen();
        let mut trace = trace(&["--json", &addr.port().to_string()]);
        let before = passed();
        // Meanwhile nobody takes what the kernel keeps for it, and large segments soon fill that.
        trace.signal(Signal::STOP);
        let (mut client, mut server) = connect(&listener);
        let reader = std::thread::spawn(move || std::io::copy(&mut server, &mut std::io::sink()).unwrap());
        for _ in 0..2_000 {
            client.write_all(&[b'x'; 64 << 10]).unwrap();
        }
        drop(client);
        reader.join().unwrap();
        trace.signal(Signal::CONT);
        // Once it has caught up, it tells of a connection from its beginning to its end.
        let begun = Instant::now();
        while !trace.everything_by_now().contains(r#""verdict":"clean","handshake_us""#) {
            assert!(begun.elapsed() < PATIENCE, "{}", trace.everything());
            drop(connect(&listener));
            // Or its port may come round again before `trace` has come to it.
            std::thread::sleep(Duration::from_millis(1));
        }
        // Those of the last few may be on their way yet.
        let last = connect(&listener).0.local_addr().unwrap();
        trace.wait_for(&format!(r#""client":"{last}""#));
        let sent = passed() - before;
        trace.signal(Signal::INT);
        let objects = objects(&trace.finish().expect_code(130).stdout);
        let (segments, dropped) = (told(&objects, "segments"), told(&objects, "dropped"));
        assert!(dropped > 0, "{sent} segments fit into the kernel's buffer");
        assert_eq!(segments + dropped, sent);
        let clean = objects.iter().rfind(|object| object["verdict"] == "clean").unwrap();
        assert_eq!(clean["dropped"], dropped, "{clean}");
    });
}
