//! `towpath trace` on an interface, in a network namespace of its own: it shows what happens, and writes it down.

mod apart;
mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use apart::{apart, connect, do_it, has_tracepoints, listen, objects, scratch, silent_resolver, trace};
use common::{PATIENCE, Running, assert_has, missing, run, skipped, towpath};
use rustix::process::Signal;

/// The client has no more to say, the server answers, and both are done.
fn talk(listener: &TcpListener) {
    let (mut client, mut server) = connect(listener);
    client.write_all(b"hello towpath\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    server.read_to_end(&mut Vec::new()).unwrap();
    server.write_all(b"hello client\n").unwrap();
    drop(server);
    client.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn trace_shows_the_life_that_watch_shows() {
    apart("trace_shows_the_life_that_watch_shows", || {
        if skipped((!has_tracepoints()).then_some("the kernel's tracepoints are not to be had")) {
            return;
        }
        let (listener, addr) = listen();
        let port = addr.port().to_string();
        let mut trace = trace(&["--json", &port]);
        let mut watch = Running::start(towpath(["watch", "--json", "--events", &port]));
        assert_has(&watch.wait_for("watching"), "exact");

        // Step by step, so that no segment says two things at once.
        let (mut client, mut server) = connect(&listener);
        client.shutdown(Shutdown::Write).unwrap();
        server.read_to_end(&mut Vec::new()).unwrap();
        trace.wait_for("FIN-WAIT-2");
        drop(server);
        client.read_to_end(&mut Vec::new()).unwrap();
        drop(client);

        trace.wait_for(r#""ev":"connection""#);
        watch.wait_for(r#""new":"CLOSED""#);
        trace.signal(Signal::INT);
        watch.signal(Signal::INT);
        let traced = objects(&trace.finish().expect_code(130).stdout);
        let watched = objects(&watch.finish().expect_code(130).stdout);

        let mut from_trace: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for segment in traced.iter().filter(|object| object["ev"] == "segment") {
            for side in ["client", "server"] {
                let states = from_trace.entry(side).or_default();
                let state = segment["states"][side].as_str().unwrap();
                if states.last() != Some(&state) {
                    states.push(state);
                }
            }
        }
        let mut from_watch: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for event in watched.iter().filter(|object| object["ev"] == "state") {
            let side = if event["local"] == addr.to_string().as_str() { "server" } else { "client" };
            from_watch.entry(side).or_default().push(event["new"].as_str().unwrap());
        }
        assert_eq!(from_trace, from_watch);
        assert_eq!(from_trace["client"], ["SYN-SENT", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT"]);
        assert_eq!(from_trace["server"], ["SYN-RECEIVED", "ESTABLISHED", "CLOSE-WAIT", "LAST-ACK", "CLOSED"]);
    });
}

#[test]
fn what_has_passed_by_then_is_shown_when_it_is_stopped() {
    apart("what_has_passed_by_then_is_shown_when_it_is_stopped", || {
        for _ in 0..20 {
            let (listener, addr) = listen();
            let trace = trace(&["--lines", &addr.port().to_string()]);
            (0..3).for_each(|_| talk(&listener));
            trace.signal(Signal::INT);
            let done = trace.finish().expect_code(130);
            for number in ["#1", "#2", "#3"] {
                assert_has(&done.stdout, &format!("{number} handshake "));
            }
            assert_eq!(done.stdout.matches(" clean ").count(), 3, "{}", done.stdout);
        }
    });
}

#[test]
fn a_signal_need_not_wait_for_names() {
    apart("a_signal_need_not_wait_for_names", || {
        let resolver = silent_resolver();
        let asked = || resolver.recv(&mut [0; 512]).unwrap();
        let (listener, addr) = listen();
        let port = addr.port().to_string();
        let trace = trace(&["--lines", "--resolve", &port]);
        for _ in 0..100 {
            talk(&listener);
        }
        asked();
        trace.signal(Signal::INT);
        let done = trace.finish().expect_code(130);
        assert_has(&done.stdout, "#100 handshake ");
        assert_has(&done.stdout, &addr.to_string());

        let watch = Running::start(towpath(["watch", "--once", "--resolve", &port]));
        asked();
        watch.signal(Signal::INT);
        assert_eq!(watch.finish().expect_code(130).stdout, "");
    });
}

#[test]
fn what_is_written_says_the_same_when_it_is_read() {
    apart("what_is_written_says_the_same_when_it_is_read", || {
        let file = scratch("written.pcapng");
        let (listener, addr) = listen();
        let mut trace = trace(&["-w", file.to_str().unwrap(), &addr.port().to_string()]);
        talk(&listener);
        trace.wait_for(" clean ");
        trace.signal(Signal::INT);
        let live = trace.finish().expect_code(130);
        assert_has(&live.stderr, &format!("written to {}", file.display()));
        assert_has(&live.stderr, " of 1 connection; 0 dropped by the kernel");

        let read = run(["trace", "-r", file.to_str().unwrap()]).expect_code(0);
        assert_eq!(live.stdout.replace(" · 0 dropped", ""), read.stdout);
        assert_has(&read.stderr, "0 dropped by the kernel");

        for tool in ["tshark", "capinfos"] {
            if skipped(missing(tool).as_deref()) {
                continue;
            }
            let mut command = Command::new(tool);
            if tool == "tshark" {
                command.args(["-n", "-T", "fields", "-e", "tcp.seq", "-r"]);
            }
            let done = command.arg(&file).output().unwrap();
            let complaints = String::from_utf8_lossy(&done.stderr);
            let complaints: Vec<_> = complaints.lines().filter(|line| !line.starts_with("Running as user")).collect();
            assert!(done.status.success() && complaints.is_empty(), "{tool}: {complaints:?}");
            let said = String::from_utf8_lossy(&done.stdout);
            match tool {
                "tshark" => {
                    let rungs = live.stdout.lines().filter(|line| line.starts_with('+')).count();
                    assert_eq!(said.lines().count(), rungs);
                }
                _ => {
                    assert_has(&said, "Name = lo\n");
                    assert_has(&said, "Capture application: towpath ");
                }
            }
        }
        std::fs::remove_file(file).unwrap();
    });
}

#[test]
fn comments_say_which_process_and_task_has_a_connection() {
    apart("comments_say_which_process_and_task_has_a_connection", || {
        let folder = scratch("runtime");
        std::fs::create_dir_all(&folder).unwrap();
        let here = |mut command: Command| {
            command.env("XDG_RUNTIME_DIR", &folder);
            Running::start(command)
        };
        let mut server = here(towpath(["serve", "127.0.0.1:0", "--echo"]));
        let addr = server.address();
        let file = scratch("owned.pcapng");
        let port = addr.port().to_string();
        let mut trace = here(towpath(["trace", "-i", "lo", "--lines", "-w", file.to_str().unwrap(), &port]));
        trace.wait_for("tracing");

        let mut client = TcpStream::connect(addr).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        // It is said with the next segment once it is known.
        let begun = Instant::now();
        while !trace.everything_by_now().contains(" task #") {
            assert!(begun.elapsed() < PATIENCE, "{}", trace.everything());
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        drop(client);
        trace.wait_for(" clean ");
        trace.signal(Signal::INT);
        let live = trace.finish().expect_code(130);
        let comment = live.stdout.lines().find(|line| line.contains(" task #")).unwrap();
        let own = format!("{}/", std::process::id());
        let comment = comment.split(" · client ").nth(1).unwrap();
        assert!(comment.split_whitespace().nth(1).unwrap().starts_with(&own), "{comment}");
        assert_has(comment, ", server towpath ");

        let read = run(["trace", "-r", file.to_str().unwrap(), "--lines"]).expect_code(0);
        assert_eq!(live.stdout.replace(" · 0 dropped", ""), read.stdout);
        if !skipped(missing("tshark").as_deref()) {
            let mut tshark = Command::new("tshark");
            let done = tshark.args(["-n", "-T", "fields", "-e", "frame.comment", "-r"]).arg(&file).output().unwrap();
            assert_has(&String::from_utf8_lossy(&done.stdout), &format!("client {comment}"));
        }
        std::fs::remove_file(file).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    });
}

#[test]
fn a_server_that_accepts_late_is_named_all_the_same() {
    apart("a_server_that_accepts_late_is_named_all_the_same", || {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut trace = trace(&["--lines", &port.to_string()]);
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut wait_for = |text: &str| {
            let begun = Instant::now();
            while !trace.everything_by_now().contains(text) {
                assert!(begun.elapsed() < PATIENCE, "no {text:?} in {}", trace.everything());
                client.write_all(b"x").unwrap();
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let command = std::fs::read_to_string("/proc/self/comm").unwrap();
        let server = format!(", server {} {}/", command.trim_end(), std::process::id());
        // It is its listener's until then.
        wait_for(&format!("{server}{}\n", listener.as_raw_fd()));
        let accepted = listener.accept().unwrap().0;
        wait_for(&format!("{server}{}\n", accepted.as_raw_fd()));
    });
}

#[test]
fn the_kernel_chooses_as_a_file_is_chosen_from() {
    apart("the_kernel_chooses_as_a_file_is_chosen_from", || {
        let file = scratch("all.pcapng");
        let mut all = trace(&["--json", "-w", file.to_str().unwrap()]);
        let ((one, addr), (other, other_addr)) = (listen(), listen());
        let six = TcpListener::bind("[::1]:0").unwrap();
        let range = format!("port:{}-{}", addr.port(), addr.port());
        let filters = [
            vec![addr.port().to_string()],
            vec![addr.to_string()],
            vec!["addr:127.0.0.0/8".to_owned(), range],
            vec!["addr:[::1]".to_owned()],
            vec![format!("port:{},{}", addr.port(), other_addr.port())],
        ];
        let chosen: Vec<_> = filters
            .iter()
            .map(|filter| {
                let options: Vec<_> = ["--json"].into_iter().chain(filter.iter().map(String::as_str)).collect();
                trace(&options)
            })
            .collect();
        for listener in [&one, &other, &six] {
            talk(listener);
        }
        let ended = |running: &mut Running, times: usize| {
            for _ in 0..times {
                running.wait_for(r#""ev":"connection""#);
            }
        };
        ended(&mut all, 3);
        all.signal(Signal::INT);
        all.finish().expect_code(130);
        for (filter, (mut live, times)) in filters.iter().zip(chosen.into_iter().zip([1, 1, 1, 1, 2])) {
            ended(&mut live, times);
            live.signal(Signal::INT);
            let live = live.finish().expect_code(130);
            let options = ["trace", "--json", "-r", file.to_str().unwrap()];
            let read = run(options.into_iter().chain(filter.iter().map(String::as_str))).expect_code(0);
            let settled = |text: &str| {
                let mut objects = objects(text);
                objects.retain(|object| object["ev"] == "segment" || object["ev"] == "connection");
                for object in &mut objects {
                    let fields = object.as_object_mut().unwrap();
                    // What each capture knows by itself, and when the kernel stamped it for which of them.
                    for own in ["dropped", "interface", "time", "since_us", "lasted_us", "handshake_us", "comment"] {
                        fields.remove(own);
                    }
                }
                objects
            };
            assert_eq!(settled(&live.stdout), settled(&read.stdout), "{filter:?}");
        }
        std::fs::remove_file(file).unwrap();
    });
}

#[test]
fn loopback_is_seen_once_on_any() {
    apart("loopback_is_seen_once_on_any", || {
        let (listener, addr) = listen();
        let mut trace = Running::start(towpath(["trace", "--lines", &addr.port().to_string()]));
        assert_has(&trace.wait_for("tracing"), " on any");
        talk(&listener);
        trace.wait_for(" clean ");
        trace.signal(Signal::INT);
        let done = trace.finish().expect_code(130);
        assert!(!done.stdout.contains("another interface"), "{}", done.stdout);
        assert_eq!(done.stdout.matches(" SYN seq 0 ").count(), 1, "{}", done.stdout);
        assert_has(&done.stdout, "27 B data");
    });
}

#[test]
fn ctrl_c_says_how_open_connections_stand() {
    apart("ctrl_c_says_how_open_connections_stand", || {
        let (listener, addr) = listen();
        let mut trace = trace(&[&addr.port().to_string()]);
        let _ends = connect(&listener);
        trace.wait_for("ACK 1");
        trace.signal(Signal::INT);
        let done = trace.finish().expect_code(130);
        assert_has(&done.stdout, " · 0 B data · still open · 0 retransmitted · 0 dropped\n");
        assert_has(&done.stderr, "3 segments of 1 connection; 0 dropped by the kernel\n");
    });
}

#[test]
fn it_ends_after_its_time_or_its_segments() {
    apart("it_ends_after_its_time_or_its_segments", || {
        assert_has(&trace(&["--for", "50ms"]).finish().expect_code(0).stderr, "0 segments of 0 connections");
        let (listener, addr) = listen();
        let trace = trace(&["-c", "2", "--for", "1h", &addr.port().to_string()]);
        let _ends = connect(&listener);
        let done = trace.finish().expect_code(0);
        assert_has(&done.stdout, "SYN,ACK");
        assert!(!done.stdout.contains("ACK 1 "), "{}", done.stdout);
    });
}

#[test]
fn an_interface_that_goes_down_is_told_and_waited_for() {
    apart("an_interface_that_goes_down_is_told_and_waited_for", || {
        let ip = |words| do_it("ip", words);
        let (listener, addr) = listen();
        let mut trace = trace(&["--lines", &addr.port().to_string()]);
        ip("link set lo down");
        trace.wait_for("the interface is down");
        ip("link set lo up");
        talk(&listener);
        trace.wait_for(" clean ");
        trace.signal(Signal::INT);
        trace.finish().expect_code(130);

        ip("link add here type veth peer name there");
        ip("link set here up");
        let mut trace = Running::start(towpath(["trace", "-i", "here"]));
        trace.wait_for("tracing");
        ip("link del here");
        assert_has(&trace.finish().expect_code(1).stderr, "has been deleted");
    });
}
