//! The forms in which `towpath trace -r` tells of a capture, and what of it is told.

mod common;

use std::process::Stdio;

use common::{Finished, Running, assert_has, run, shell, towpath};
use serde_json::Value;

fn capture(name: &str) -> String {
    format!("{}/tests/captures/{name}.pcapng", env!("CARGO_MANIFEST_DIR"))
}

fn trace(options: &[&str], name: &str, columns: &str) -> Finished {
    let mut command = towpath(["trace", "-r", &capture(name)].iter().chain(options));
    command.env("COLUMNS", columns);
    Running::start(command).finish().expect_code(0)
}

/// With what differs from one making of a capture to the next: times, and the client's port.
fn settled(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let mut words = Vec::new();
        for word in line.split(' ') {
            let port = word.strip_prefix("127.0.0.1:").or_else(|| word.strip_prefix(':'));
            words.push(match port {
                Some(port) if port != "8330" => word.replace(port, "PORT"),
                _ => word.to_owned(),
            });
        }
        lines += &words.join(" ");
        lines.push('\n');
    }
    lines
}

#[test]
fn a_refusal_as_a_ladder_to_the_letter() {
    let done = trace(&["--ascii"], "refused", "80");
    let rows: Vec<_> = done.stdout.lines().map(|line| line.get(11..).unwrap_or(line)).collect();
    let ladder = rows[..4].join("\n");
    let expected = "\
127.0.0.1:PORT                                        127.0.0.1:8330
CLOSED                                                     LISTEN
SYN-SENT   ------- SYN seq 0 mss 1460 ws 10 sack ts -----> SYN-RECV
CLOSED     <----------- RST,ACK seq 1 ack 1 ------------- CLOSED";
    let unspaced = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('-', "");
    assert_eq!(unspaced(&settled(&ladder)), unspaced(expected));
    assert!(done.stdout.lines().all(|line| line.len() <= 80), "{}", done.stdout);
    assert_has(&done.stdout, "    0 B data - closed first by :8330 - refused (RST) - 0 retransmitted\n");
    assert_has(&done.stderr, "2 segments of 1 connection");
}

#[test]
fn trouble_is_said_in_words() {
    for (name, words) in [
        ("retransmission", "retransmission after a timeout"),
        ("fast-retransmission", "fast retransmission"),
        ("fast-retransmission", "duplicate ack"),
        ("zero-window", "zero window"),
        ("zero-window", "window probe"),
        ("keep-alive", "keep-alive ack"),
        ("reset", "RST,ACK"),
        ("no-answer", "no answer (SYN x3)"),
        ("half-open", "half-open: :8330 is gone"),
        ("simultaneous-close", "closed by both at once"),
        ("data-missed", "acknowledges what was not captured"),
        ("from-the-middle", "clean"),
    ] {
        assert_has(&trace(&["--ascii"], name, "100").stdout, words);
        assert_has(&trace(&["--ascii", "--lines"], name, "100").stdout, words);
    }
}

#[test]
fn the_same_life_is_told_at_every_width() {
    let words = |text: &str| {
        let mut words: Vec<_> =
            text.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).collect();
        words.sort_unstable();
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let wide = trace(&[], "half-closed", "200").stdout;
    for columns in ["72", "80", "120"] {
        let other = trace(&[], "half-closed", columns).stdout;
        assert_eq!(words(&other), words(&wide), "{columns}");
        let widest = other.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns.parse().unwrap(), "{widest} of {columns}");
    }
    let narrow = trace(&[], "half-closed", "40").stdout;
    assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
    assert_has(&narrow, "· client FIN-WAIT-1");
    assert_has(&narrow, "handshake ");
}

#[test]
fn what_is_said_is_shown_where_it_is_asked_for() {
    let shown = trace(&["--data"], "closed-by-server", "100").stdout;
    assert_has(&shown, "│ hello towpath\n");
    assert!(!trace(&[], "closed-by-server", "100").stdout.contains("hello"));
    let cut = trace(&["--data"], "half-closed", "100").stdout;
    assert_has(&cut, "│ GET / HTTP/1.0\n");
    assert_has(&cut, "B that were not captured");
    let object = trace(&["--data", "--json"], "closed-by-server", "100").stdout;
    assert_has(&object, r#""payload":{"bytes":14,"text":"hello towpath\n"}"#);
}

#[test]
fn a_filter_chooses_by_port_and_address_of_either_end() {
    let count = |filter: &[&str]| {
        let done = run(["trace", "--json", "-r", &capture("several")].iter().chain(filter)).expect_code(0);
        done.stdout.lines().filter(|line| line.contains("\"ev\":\"segment\"")).count()
    };
    let all = count(&[]);
    let first = trace(&["--json", "-c", "1"], "several", "80").stdout;
    let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    let client = first["from"].as_str().unwrap();
    let port = client.rsplit(':').next().unwrap();
    let one = count(&["--conn", "1"]);
    assert!(one > 0 && one < all);
    assert_eq!(count(&[port]), one);
    assert_eq!(count(&[client]), one);
    assert_eq!(count(&[&format!("port:{port}"), "addr:127.0.0.0/8"]), one);
    assert_eq!(count(&["8330"]), all);
    assert_eq!(count(&["addr:10.0.0.0/8"]), 0);
    assert_eq!(count(&["addr:[::1]"]), 0);
}

#[test]
fn one_connection_is_told_alone_under_its_number() {
    let done = trace(&["--conn", "2"], "several", "100");
    assert!(done.stdout.starts_with("#2 "), "{}", done.stdout);
    assert!(!done.stdout.contains("#1") && !done.stdout.contains("#3"), "{}", done.stdout);
    assert_has(&done.stdout, "clean");
    assert_has(&done.stderr, " of 1 connection");
    let none = run(["trace", "-r", &capture("several"), "--conn", "9"]).expect_code(1);
    assert_eq!(none.stdout, "");
    assert_has(&none.stderr, ": there is no connection 9. There are 1 to ");
}

#[test]
fn it_ends_after_as_many_segments_as_it_was_told() {
    let done = trace(&["-c", "4", "--lines"], "several", "100");
    let segments = done.stdout.lines().filter(|line| line.contains("127.0.0.1:")).count();
    assert_eq!(segments, 4, "{}", done.stdout);
    assert_has(&done.stderr, "4 segments of ");
    // And says how those stand that were begun.
    assert_has(&done.stdout, "still open");
}

/// The numbers of connections in the order of their headings.
fn headings(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix('#')?.split(' ').next()).collect()
}

#[test]
fn a_file_has_one_ladder_after_the_other_and_a_pipe_as_it_comes() {
    let file = trace(&[], "several", "100").stdout;
    assert_eq!(headings(&file), ["1", "2", "3"], "{file}");
    let mut piped = shell(r#"cat "$CAPTURE" | "$TOWPATH" trace -r -"#);
    piped.env("CAPTURE", capture("several"));
    let piped = Running::start(piped).finish().expect_code(0).stdout;
    assert!(headings(&piped).len() > 3, "{piped}");
    // The same is said in another order.
    let rungs = |text: &str| {
        let mut rungs: Vec<_> = text.lines().filter(|line| line.starts_with('+')).map(str::to_owned).collect();
        rungs.sort();
        rungs
    };
    assert_eq!(rungs(&piped), rungs(&file));
}

#[test]
fn a_pipe_is_followed_as_it_grows() {
    let bytes = std::fs::read(capture("closed-by-server")).unwrap();
    let mut command = towpath(["trace", "-r", "-", "--lines"]);
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    running.type_in(&bytes[..600]);
    running.wait_for("SYN,ACK seq 0");
    running.type_in(&bytes[600..]);
    running.end_input();
    let done = running.finish().expect_code(0);
    assert_has(&done.stdout, "clean");
}

#[test]
fn every_object_has_its_version_and_the_time_of_its_segment() {
    let done = trace(&["--json"], "ipv6", "100");
    assert_eq!(done.stderr, "");
    let objects: Vec<Value> = done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, all) = objects.split_last().unwrap();
    assert_eq!((&last["ev"], &last["segments"]), (&"traced".into(), &(all.len() as u64 - 1).into()));
    let times: Vec<_> = all.iter().map(|object| object["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(all.iter().all(|object| object["v"] == 1));
    assert!(all[0]["from"].as_str().unwrap().starts_with("[::1]:"), "{}", all[0]);
    let connection = all.iter().find(|object| object["ev"] == "connection").unwrap();
    assert_eq!(connection["sent"]["client"]["bytes"], 14);
}

#[test]
fn a_copy_of_a_capture_says_the_same() {
    let copy = std::env::temp_dir().join(format!("towpath-copy-{}.pcapng", std::process::id()));
    let first = run(["trace", "-r", &capture("several"), "-w", copy.to_str().unwrap()]).expect_code(0);
    assert_has(&first.stderr, &format!("written to {}", copy.display()));
    let second = run(["trace", "-r", copy.to_str().unwrap()]).expect_code(0);
    // The copy does not say how many packets the first had lost.
    assert_eq!(first.stdout.replace(" · 0 dropped", ""), second.stdout);

    // One connection of it, under a number of its own.
    run(["trace", "-r", &capture("several"), "--conn", "3", "-w", copy.to_str().unwrap()]).expect_code(0);
    let third = run(["trace", "-r", copy.to_str().unwrap()]).expect_code(0);
    assert_eq!(headings(&third.stdout), ["1"]);
    assert_has(&third.stdout, "reset by ");
    std::fs::remove_file(copy).unwrap();
}

#[test]
fn names_are_shown_where_they_are_asked_for() {
    let done = trace(&["--resolve", "--lines"], "closed-by-server", "100");
    // Whatever this machine calls itself, it is no number.
    let from = done.stdout.split(' ').find(|word| word.contains(':')).unwrap();
    assert!(from.starts_with(|c: char| c.is_ascii_alphabetic()), "{from}");
}

#[test]
fn colour_is_for_trouble_and_not_for_pipes() {
    assert!(!trace(&[], "retransmission", "100").stdout.contains('\x1b'));
    let painted = trace(&["--color", "always"], "retransmission", "100").stdout;
    let trouble: Vec<_> = painted.lines().filter(|line| line.contains("\x1b[1m\x1b[31m")).collect();
    assert_eq!(trouble.len(), 2, "the segment, and the summary: {painted}");
}

#[test]
fn an_output_that_nobody_reads_ends_it_quietly() {
    // More than a pipe holds.
    let many = r#"for n in $(seq 100); do cat "$CAPTURE"; done"#;
    let mut head = shell(&format!(r#"{many} | {{ "$TOWPATH" trace --lines -r -; echo "exit $?" >&2; }} | head -2"#));
    head.env("CAPTURE", capture("much"));
    let done = Running::start(head).finish();
    assert_eq!(done.stdout.lines().count(), 2, "{done:?}");
    // What cannot write to us either is no matter of ours.
    let stderr: Vec<_> = done.stderr.lines().filter(|line| !line.starts_with("cat:")).collect();
    assert_eq!(stderr, ["exit 0"]);
}

#[test]
fn stdin_that_is_closed_early_is_told_as_such() {
    let mut running = Running::start(towpath(["trace", "-r", "-"]));
    running.type_in(b"\x0a\x0d\x0d\x0a");
    running.end_input();
    assert_has(&running.finish().expect_code(1).stderr, "read stdin: it ends within what begins at byte 0");
}
