//! `watch` without a screen: tables, objects and changes of state of real connections.

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{
    Bustle, Finished, PATIENCE, Running, assert_has, dial, fresh_listener, missing, run, serve, settle, shell, skipped,
    towpath,
};
use rustix::process::Signal;
use serde_json::Value;

/// What `watch --once --json` says of what is at this address: others may have the same port at another.
fn objects(addr: SocketAddr, more: &[&str]) -> Vec<Value> {
    let addr = addr.to_string();
    let done = run(["watch", "--once", "--json", &addr].iter().chain(more)).expect_code(0);
    assert_eq!(done.stderr, "");
    done.stdout.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

/// The object whose local end has this port, and whose state is this.
#[track_caller]
fn object<'a>(objects: &'a [Value], state: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["state"] == state);
    found.unwrap_or_else(|| panic!("no {state} in {objects:#?}"))
}

/// A listener with a short queue, and what it accepted.
struct House {
    listener: TcpListener,
    addr: SocketAddr,
}

impl House {
    fn new(address: &str) -> House {
        let listener = fresh_listener(address);
        let addr = listener.local_addr().unwrap();
        House { listener, addr }
    }

    /// A connection: the client's end, and the server's.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.addr).unwrap();
        (client, self.listener.accept().unwrap().0)
    }
}

/// Waits until `watch` sees this many sockets in this state at this address.
#[track_caller]
fn wait_for_state(addr: SocketAddr, state: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = objects(addr, &[]);
        if seen.iter().filter(|object| object["state"] == state).count() == count {
            return seen;
        }
        assert!(Instant::now() < deadline, "never saw {count} {state}: {seen:#?}");
    }
}

/// One row of `ss`: its words by name.
type Row = HashMap<String, String>;

/// What `ss` says of this address, by local and remote address.
fn ss(addr: SocketAddr) -> HashMap<(String, String), Row> {
    let filter = format!("( src {addr} or dst {addr} )");
    let output = Command::new("ss").args(["-tinmOaHoe", &filter]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(row_of_ss).collect()
}

fn row_of_ss(line: &str) -> ((String, String), Row) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [state, received, sent, local, peer, rest @ ..] = &words[..] else { panic!("{line}") };
    let mut row: Row = [("state", state), ("recvq", received), ("sendq", sent)]
        .map(|(name, value)| (name.to_owned(), (*value).to_owned()))
        .into();
    let mut words = rest.iter().peekable();
    while let Some(word) = words.next() {
        if matches!(*word, "pacing_rate" | "delivery_rate" | "send") {
            row.insert((*word).to_owned(), words.next().unwrap().trim_end_matches("bps").to_owned());
        } else if let Some((name, value)) = word.split_once(':') {
            row.insert(name.to_owned(), value.trim_matches(['(', ')']).to_owned());
        } else {
            row.insert((*word).to_owned(), String::new());
        }
    }
    // "rwnd_limited:584ms(100.0%)"
    for value in row.values_mut() {
        if let Some((time, _)) = value.split_once("ms(") {
            *value = time.to_owned();
        }
    }
    // "retrans:0/1", "rtt:0.5/0.2", "wscale:10,10", and skmem, whose parts have a letter or two each.
    for (whole, parts, sign) in [
        ("retrans", ["retrans.now", "retrans.ever"], '/'),
        ("rtt", ["rtt.mean", "rtt.var"], '/'),
        ("wscale", ["wscale.snd", "wscale.rcv"], ','),
    ] {
        if let Some((a, b)) = row
            .remove(whole)
            .and_then(|value| Some((value.split_once(sign)?.0.to_owned(), value.split_once(sign)?.1.to_owned())))
        {
            row.insert(parts[0].to_owned(), a);
            row.insert(parts[1].to_owned(), b);
        }
    }
    for part in row.remove("skmem").unwrap_or_default().split(',').filter(|part| !part.is_empty()) {
        let digits = part.find(|c: char| c.is_ascii_digit()).unwrap();
        row.insert(format!("skmem.{}", &part[..digits]), part[digits..].to_owned());
    }
    let peer = if peer.ends_with(":*") { "" } else { peer };
    (((*local).to_owned(), peer.to_owned()), row)
}

/// Each word of `ss`, where our objects have it, and how many of our units are one of its. A word that is not here is
/// none that `ss` prints for these sockets, or is derived (`send`), or says what is compared otherwise.
const WORDS: [(&str, &str, f64); 49] = [
    ("ino", "/inode", 1.0),
    ("skmem.r", "/memory/receive_allocated", 1.0),
    ("skmem.rb", "/memory/receive_limit", 1.0),
    ("skmem.t", "/memory/send_allocated", 1.0),
    ("skmem.tb", "/memory/send_limit", 1.0),
    ("skmem.f", "/memory/forward_allocated", 1.0),
    ("skmem.w", "/memory/send_queued", 1.0),
    ("skmem.o", "/memory/option_memory", 1.0),
    ("skmem.bl", "/memory/backlog", 1.0),
    ("skmem.d", "/memory/drops", 1.0),
    ("wscale.snd", "/info/snd_wscale", 1.0),
    ("wscale.rcv", "/info/rcv_wscale", 1.0),
    ("rto", "/info/rto_us", 1000.0),
    ("backoff", "/info/backoff", 1.0),
    ("rtt.mean", "/info/rtt_us", 1000.0),
    ("rtt.var", "/info/rttvar_us", 1000.0),
    ("ato", "/info/ato_us", 1000.0),
    ("mss", "/info/snd_mss", 1.0),
    ("pmtu", "/info/pmtu", 1.0),
    ("rcvmss", "/info/rcv_mss", 1.0),
    ("advmss", "/info/advmss", 1.0),
    ("cwnd", "/info/snd_cwnd", 1.0),
    ("ssthresh", "/info/snd_ssthresh", 1.0),
    ("bytes_sent", "/info/bytes_sent", 1.0),
    ("bytes_retrans", "/info/bytes_retrans", 1.0),
    ("bytes_acked", "/info/bytes_acked", 1.0),
    ("bytes_received", "/info/bytes_received", 1.0),
    ("segs_out", "/info/segs_out", 1.0),
    ("segs_in", "/info/segs_in", 1.0),
    ("data_segs_out", "/info/data_segs_out", 1.0),
    ("data_segs_in", "/info/data_segs_in", 1.0),
    ("lastsnd", "/info/last_data_sent_us", 1000.0),
    ("lastrcv", "/info/last_data_recv_us", 1000.0),
    ("lastack", "/info/last_ack_recv_us", 1000.0),
    ("pacing_rate", "/info/pacing_rate", 0.125),
    ("delivery_rate", "/info/delivery_rate", 0.125),
    ("delivered", "/info/delivered", 1.0),
    ("busy", "/info/busy_time_us", 1000.0),
    ("rwnd_limited", "/info/rwnd_limited_us", 1000.0),
    ("sndbuf_limited", "/info/sndbuf_limited_us", 1000.0),
    ("unacked", "/info/unacked", 1.0),
    ("retrans.now", "/info/retrans", 1.0),
    ("retrans.ever", "/info/total_retrans", 1.0),
    ("dsack_dups", "/info/dsack_dups", 1.0),
    ("reordering", "/info/reordering", 1.0),
    ("rcv_rtt", "/info/rcv_rtt_us", 1000.0),
    ("rcv_space", "/info/rcv_space", 1.0),
    ("rcv_ssthresh", "/info/rcv_ssthresh", 1.0),
    ("notsent", "/info/notsent_bytes", 1.0),
];

/// More of them: those that older versions of `ss` do not know, and those of text.
const LATER: [(&str, &str, f64); 3] = [
    ("minrtt", "/info/min_rtt_us", 1000.0),
    ("snd_wnd", "/info/snd_wnd", 1.0),
    ("rcv_ooopack", "/info/rcv_ooopack", 1.0),
];

/// What differs between an object and the row of `ss` before it and after it. Counters run on meanwhile: a value between
/// the two is right.
fn differences(object: &Value, before: &Row, after: &Row) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut compared = 0;
    let listens = object["state"] == "LISTEN";
    for (word, pointer, units) in WORDS.into_iter().chain(LATER) {
        let (Some(before), Some(after)) = (before.get(word), after.get(word)) else { continue };
        if word == "ino" && before == "0" {
            if object.get("inode").is_some() {
                wrong.push("inode: is there, and is none".into());
            }
            continue;
        }
        // A listener has a window of no meaning, and its queue under another name.
        if listens && matches!(word, "cwnd" | "unacked") {
            continue;
        }
        let parse = |text: &String| {
            text.trim_end_matches("ms").parse::<f64>().unwrap_or_else(|e| panic!("{word}:{text}: {e}")) * units
        };
        let (before, after) = (parse(before), parse(after));
        let Some(ours) = object.pointer(pointer).and_then(Value::as_f64) else {
            wrong.push(format!("{pointer}: missing; ss: {word}:{before}"));
            continue;
        };
        // ss rounds: to six figures, and to whole milliseconds or bits.
        let slack = units.max(1.0) * 0.51 + before.abs().max(after.abs()) * 1e-5;
        if ours < before.min(after) - slack || ours > before.max(after) + slack {
            wrong.push(format!("{pointer}: {ours}; ss: {word}:{before} and {after}"));
        }
        compared += 1;
    }
    let time_wait = object["state"] == "TIME-WAIT";
    if compared < if time_wait || listens { 0 } else { 25 } {
        wrong.push(format!("only {compared} values to compare: {before:?}"));
    }
    wrong.extend(texts(object, after));
    wrong
}

/// What is no number.
fn texts(object: &Value, row: &Row) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut same = |what: &str, ours: Value, theirs: Value| {
        if ours != theirs {
            wrong.push(format!("{what}: {ours}; ss: {theirs}"));
        }
    };
    let short = |state: &Value| state.as_str().unwrap().replace("ESTABLISHED", "ESTAB").replace("RECEIVED", "RECV");
    same("state", short(&object["state"]).into(), row["state"].clone().into());
    let cookie = row.get("sk").map(|sk| u64::from_str_radix(sk.split('-').next().unwrap(), 16).unwrap());
    same("cookie", object["cookie"].clone(), cookie.into());
    let number = |name: &str| Value::from(row[name].parse::<u64>().unwrap());
    match object["state"].as_str().unwrap() {
        "LISTEN" => {
            same("accept queue", object["accept_queue"].clone(), number("recvq"));
            same("backlog", object["backlog"].clone(), number("sendq"));
        }
        "TIME-WAIT" => {
            let blanks = ["inode", "uid", "info", "memory", "recv_queue_bytes", "send_queue_bytes"];
            let there: Vec<_> = blanks.iter().filter(|name| object.get(**name).is_some()).collect();
            same("blanks", format!("{there:?}").into(), "[]".into());
            same(
                "timer",
                object["timer"]["kind"].clone(),
                row["timer"].starts_with("timewait").then_some("time-wait").into(),
            );
            return wrong;
        }
        _ => {
            same("received", object["recv_queue_bytes"].clone(), number("recvq"));
            same("sent", object["send_queue_bytes"].clone(), number("sendq"));
            let options = object["info"]["options"].as_array().unwrap();
            for (ours, theirs) in [("ts", "ts"), ("sack", "sack")] {
                same(theirs, options.contains(&ours.into()).into(), row.contains_key(theirs).into());
            }
            let limited = object["info"]["delivery_rate_app_limited"].clone();
            same("app_limited", limited, row.contains_key("app_limited").into());
        }
    }
    let congestion = object["congestion"].as_str().unwrap_or_default();
    same("congestion control", congestion.into(), row.keys().find(|word| *word == congestion).cloned().into());
    wrong
}

/// That every object is as `ss` has it. What moves on by itself is looked at again, for what is wrong stays so.
#[track_caller]
fn assert_as_ss(addr: SocketAddr, states: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (before, objects, after) = (ss(addr), objects(addr, &[]), ss(addr));
        let seen: Vec<&str> = objects.iter().map(|object| object["state"].as_str().unwrap()).collect();
        let mut wrong: Vec<String> = states
            .iter()
            .filter(|state| !seen.contains(*state))
            .map(|state| format!("no {state} in {seen:?}"))
            .collect();
        if before.len() != objects.len() {
            wrong.push(format!("{} sockets; ss: {}", objects.len(), before.len()));
        }
        for object in &objects {
            let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
            let ends = (text("local"), text("peer"));
            let differ = match (before.get(&ends), after.get(&ends)) {
                (Some(before), Some(after)) => differences(object, before, after),
                _ => vec!["not in ss".to_owned()],
            };
            wrong.extend(differ.into_iter().map(|what| format!("{} {ends:?}: {what}", object["state"])));
        }
        if wrong.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{}", wrong.join("\n"));
    }
}

#[test]
fn every_field_is_as_ss_has_it() {
    if skipped(missing("ss").as_deref()) {
        return;
    }
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let house = House::new(address);
        // Data that nobody reads fills both buffers.
        let (_unread, mut writer) = house.connect();
        writer.set_nonblocking(true).unwrap();
        while writer.write(&[b'x'; 65_536]).is_ok() {}
        // The client has closed one direction, and the server none.
        let (half_closed, _neglected) = house.connect();
        half_closed.shutdown(std::net::Shutdown::Write).unwrap();
        // Both have closed, the client first.
        let (first, second) = house.connect();
        drop(first);
        wait_for_state(house.addr, "CLOSE-WAIT", 2);
        drop(second);
        // One waits to be accepted.
        let _waiting = TcpStream::connect(house.addr).unwrap();
        assert_as_ss(house.addr, &["LISTEN", "ESTABLISHED", "CLOSE-WAIT", "FIN-WAIT-2", "TIME-WAIT"]);
    }
}

#[test]
fn a_socket_names_its_owner() {
    let house = House::new("127.0.0.1:0");
    let (client, _server) = house.connect();
    let seen = objects(house.addr, &[]);
    // A program that another test has begun to start has it too, for a moment.
    let own = |object: &Value| -> Value {
        let owners = object["owners"].as_array().unwrap();
        owners.iter().find(|owner| owner["pid"] == std::process::id()).unwrap_or_else(|| panic!("{object}")).clone()
    };
    let owner = own(object(&seen, "LISTEN"));
    assert_eq!(owner["fd"], house.listener.as_raw_fd());
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(owner["command"], comm.trim());
    let local = client.local_addr().unwrap().to_string();
    let ours = seen.iter().find(|object| object["local"] == local).unwrap();
    assert_eq!(own(ours)["fd"], client.as_raw_fd());
}

#[test]
fn a_table_has_a_row_a_socket_also_into_a_pipe() {
    let house = House::new("127.0.0.1:0");
    let (client, _server) = house.connect();
    let (addr, client) = (house.addr.to_string(), client.local_addr().unwrap().to_string());
    for arguments in [&["watch", &addr][..], &["watch", "--once", &addr]] {
        let done = run(arguments).expect_code(0);
        assert_eq!(done.stderr, "");
        let lines: Vec<&str> = done.stdout.lines().collect();
        assert_eq!(lines.len(), 4, "{}", done.stdout);
        assert!(lines[0].starts_with("STATE  ") && lines[0].ends_with("  TASK"), "{}", lines[0]);
        assert!(lines[1].starts_with("LISTEN "), "{}", lines[1]);
        assert_has(lines[1], &format!(" {}  * ", house.addr));
        assert!(lines[2].starts_with("ESTAB "), "{}", lines[2]);
        assert_has(lines[2], &format!(" {client}  {} ", house.addr));
        assert_has(lines[3], &format!(" {}  {client} ", house.addr));
    }
}

#[test]
fn that_nothing_is_found_is_said_to_people_beside_the_table() {
    // Nobody has this address.
    let nobody = "127.9.9.9:1";
    let done = run(["watch", "--once", nobody]).expect_code(0);
    assert_eq!(done.stdout.lines().count(), 1, "{}", done.stdout);
    assert_eq!(done.stderr, format!("no socket passes {nobody}\n"));
    let done = run(["watch", "--once", "--json", nobody]).expect_code(0);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", ""));
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_can() {
    for (arguments, why) in [
        (&["watch", "localhost:8330"][..], "names of hosts are not looked up: write the address, as 127.0.0.1:8330"),
        (&["watch", "http"], "write its number, or process:http for a program"),
        (&["watch", "process:"], "process: which process?"),
        (&["watch", "-n", "0"], "it must be more than nothing; write 200ms, 2s or 1m"),
        (&["watch", "-n", "5"], "it has no unit; try 5s"),
    ] {
        let done = run(arguments).expect_code(2);
        assert_has(&done.stderr, why);
        assert!(!done.stderr.contains("0s"), "{}", done.stderr);
    }
}

#[test]
fn a_filter_picks_by_state_address_and_process() {
    let house = House::new("127.0.0.1:0");
    let (client, _server) = house.connect();
    let count = |more: &[&str]| objects(house.addr, more).len();
    assert_eq!(count(&[]), 3);
    assert_eq!(count(&["state:listen"]), 1);
    assert_eq!(count(&["state:listen,established"]), 3);
    assert_eq!(count(&["state:close-wait"]), 0);
    assert_eq!(count(&["addr:127.0.0.1"]), 3);
    assert_eq!(count(&["addr:127.0.0.2"]), 0);
    assert_eq!(count(&["addr:127.0.0.0/8", "state:established"]), 2);
    assert_eq!(objects(client.local_addr().unwrap(), &["state:established"]).len(), 2);
    assert_eq!(count(&["state:listen,established", &client.local_addr().unwrap().to_string()]), 3, "a choice of two");
    let pid = std::process::id();
    assert_eq!(count(&[&format!("process:{pid}")]), 3);
    assert_eq!(count(&["process:/^nosuchprocess$/"]), 0);
    assert_eq!(count(&["process:1"]), 0);
}

#[test]
fn a_listener_at_every_address_has_each() {
    let Ok(listener) = TcpListener::bind("[::]:0") else { return };
    let port = listener.local_addr().unwrap().port();
    assert_eq!(objects(SocketAddr::from(([127, 0, 0, 1], port)), &["state:listen"]).len(), 1);
    assert_eq!(objects(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)), &["state:listen"]).len(), 1);
    let done = run(["watch", &port.to_string(), "addr:127.0.0.1", "state:listen"]).expect_code(0);
    assert_eq!(done.stdout.lines().count(), 2, "{}", done.stdout);
}

#[test]
fn names_are_shown_when_asked_for() {
    let known = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let localhost = known.lines().any(|line| line.split_whitespace().take(2).eq(["127.0.0.1", "localhost"]));
    if skipped((!localhost).then_some("/etc/hosts does not call 127.0.0.1 localhost")) {
        return;
    }
    let house = House::new("127.0.0.1:0");
    let addr = house.addr.to_string();
    assert_has(
        &run(["watch", "--resolve", &addr]).expect_code(0).stdout,
        &format!(" localhost:{} ", house.addr.port()),
    );
    assert_has(&run(["watch", &addr]).expect_code(0).stdout, &format!(" 127.0.0.1:{} ", house.addr.port()));
}

#[test]
fn a_condition_that_holds_exits_9_and_says_what_it_found() {
    let house = House::new("127.0.0.1:0");
    let addr = house.addr.to_string();
    let done = run(["watch", "--once", &addr, "--fail-if", "count(state:listen)>0"]).expect_code(9);
    assert_has(&done.stdout, "LISTEN");
    assert_eq!(done.stderr, "--fail-if 'count(state:listen)>0': 1 socket\n");
    run(["watch", "--once", &addr, "--fail-if", "count(state:close-wait)>0"]).expect_code(0);
}

#[test]
fn a_state_that_lasts_too_long_exits_9_as_soon_as_it_does() {
    let house = House::new("127.0.0.1:0");
    let (client, server) = house.connect();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let addr = house.addr.to_string();
    for more in [&["--events"][..], &[]] {
        let arguments = ["watch", "-n", "20ms", "--for", "1h", &addr, "--fail-if", "close-wait>100ms"];
        let done = run(arguments.iter().chain(more)).expect_code(9);
        let (server, client) = (server.local_addr().unwrap(), client.local_addr().unwrap());
        // How long it was by then is up to the machine.
        assert_has(&done.stderr, "--fail-if 'close-wait>100ms': ");
        assert_has(&done.stderr, &format!("s (CLOSE-WAIT {server} with {client})\n"));
    }
    let looks = ["watch", "-n", "20ms", "--for", "1h", &addr, "--fail-if", "close-wait>1h"];
    let mut watch = Running::start(towpath(looks));
    (0..3).for_each(|_| drop(watch.wait_for("STATE"))); // a table with each look
    watch.signal(Signal::INT);
    watch.finish().expect_code(130);
}

/// What a life of both ends looks like from outside: who it is, and what it went through.
fn lives(events: &str, client: SocketAddr) -> (Vec<String>, Vec<String>) {
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object a line"));
    let (mut clients, mut servers) = (vec![], vec![]);
    for event in events.filter(|event| event["ev"] == "state") {
        // No tracepoint tells of TIME-WAIT, which is another kind of socket; it is looked for.
        assert_eq!(event["exact"], event["new"] != "TIME-WAIT", "{event}");
        assert!(event["at"].is_string(), "{event}");
        let step = format!("{} {}", event["old"].as_str().unwrap(), event["new"].as_str().unwrap());
        if event["local"] == client.to_string() {
            clients.push(step);
        } else if event["peer"] == client.to_string() {
            servers.push(step);
        }
    }
    (clients, servers)
}

fn not_root() -> Option<&'static str> {
    (!rustix::process::geteuid().is_root()).then_some("only root may use the tracepoint")
}

#[test]
fn events_tell_each_state_of_a_connections_life_on_both_ends() {
    if skipped(not_root()) {
        return;
    }
    let house = House::new("127.0.0.1:0");
    let addr = house.addr.to_string();
    let mut watch = Running::start(towpath(["watch", "--events", "--json", &addr]));
    assert_has(&watch.wait_for("watching"), "\"source\":\"exact\"");
    let (client, server) = house.connect();
    let addr = client.local_addr().unwrap();
    drop(client);
    wait_for_state(house.addr, "CLOSE-WAIT", 1);
    drop(server);
    // Which end is told of first is not said.
    let ends = ["\"new\":\"TIME-WAIT\"", "\"old\":\"LAST-ACK\",\"new\":\"CLOSED\""];
    while let Some(end) = ends.iter().find(|end| !watch.stdout().contains(**end)) {
        watch.wait_for(end);
    }
    watch.signal(Signal::INT);
    let done = watch.finish().expect_code(130);
    let (client, server) = lives(&done.stdout, addr);
    assert_eq!(
        client,
        [
            "CLOSED SYN-SENT",
            "SYN-SENT ESTABLISHED",
            "ESTABLISHED FIN-WAIT-1",
            "FIN-WAIT-1 FIN-WAIT-2",
            "FIN-WAIT-2 TIME-WAIT"
        ]
    );
    let begun = server.iter().position(|step| step == "SYN-RECEIVED ESTABLISHED").expect("it came to be");
    assert_eq!(server[begun + 1..], ["ESTABLISHED CLOSE-WAIT", "CLOSE-WAIT LAST-ACK", "LAST-ACK CLOSED"]);
}

#[test]
fn events_are_a_line_each_for_people() {
    if skipped(not_root()) {
        return;
    }
    let house = House::new("127.0.0.1:0");
    let addr = house.addr.to_string();
    let mut watch = Running::start(towpath(["watch", "--events", &addr]));
    assert_has(&watch.wait_for("watching"), "events: exact (tracepoint)");
    let (client, _server) = house.connect();
    let line = watch.wait_for("SYN-SENT → ESTAB");
    let client = client.local_addr().unwrap().to_string();
    assert_has(&line, &format!("  {client:<21}  {}", house.addr));
    assert_has(&line, "  after ");
    watch.signal(Signal::TERM);
    assert_eq!(watch.finish().signal, Some(Signal::TERM.as_raw()), "it ends as it was told to");
}

/// `towpath` as nobody, who may not be able to reach the binary where it was built.
fn as_nobody(arguments: &[&str]) -> Command {
    if !rustix::process::geteuid().is_root() {
        return towpath(arguments);
    }
    static COPY: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let copy = COPY.get_or_init(|| {
        let copy = std::env::temp_dir().join(format!("towpath-watch-{}", std::process::id()));
        common::copy_to(&copy);
        copy
    });
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(copy).args(arguments);
    settle(&mut nobody);
    nobody
}

/// Removes what `as_nobody` made; the last test to need it may be any.
struct RemoveCopy;

impl Drop for RemoveCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(std::env::temp_dir().join(format!("towpath-watch-{}", std::process::id())));
    }
}

#[test]
fn without_privilege_everything_is_seen_but_what_is_quick() {
    let _remove = RemoveCopy;
    let house = House::new("127.0.0.1:0");
    let (client, _server) = house.connect();
    let addr = house.addr.to_string();
    let done = Running::start(as_nobody(&["watch", "--once", "--json", &addr])).finish().expect_code(0);
    assert_eq!(done.stdout.lines().count(), 3, "{}", done.stdout);
    assert_has(&done.stdout, "\"info\":{");

    let mut watch = Running::start(as_nobody(&["watch", "--events", "--json", &addr]));
    let first: Value = serde_json::from_str(&watch.wait_for("watching")).unwrap();
    assert_eq!(first["source"], "sampled");
    assert_eq!(first["interval_us"], 200_000);
    assert!(first["why"].is_string(), "{first}");
    // What is seen first, and then changes, is seen to change.
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let left: Value = serde_json::from_str(&watch.wait_for("\"new\":\"CLOSE-WAIT\"")).unwrap();
    assert_eq!((&left["old"], &left["exact"]), (&"ESTABLISHED".into(), &false.into()));
    watch.signal(Signal::INT);
    watch.finish().expect_code(130);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    for arguments in ["--events", "--for 1h -n 10ms", "--for 1h -n 10ms --json"] {
        let house = House::new("127.0.0.1:0");
        let mut script =
            shell(&format!("{{ \"$TOWPATH\" watch {arguments} \"$ADDR\"; echo \"exit $?\" >&2; }} | head -n 0"));
        script.env("ADDR", house.addr.to_string());
        let done = Running::start(script).finish().expect_code(0);
        assert_has(&done.stderr, "exit 0\n");
        assert!(!done.stderr.contains("pipe"), "{}", done.stderr);
    }
}

#[test]
fn for_ends_it_and_ctrl_c_too() {
    run(["watch", "--events", "--for", "50ms", "1"]).expect_code(0);
    let mut watch = Running::start(towpath(["watch", "--for", "1h", "-n", "1h", "1"]));
    watch.wait_for("STATE");
    watch.signal(Signal::INT);
    watch.finish().expect_code(130);
}

#[test]
fn for_ends_it_also_while_something_always_happens() {
    let house = House::new("127.0.0.1:0");
    let _bustle = Bustle::at(&house.listener);
    let addr = house.addr.to_string();
    for more in
        [&["--events"][..], &["-n", "20ms"], &["-n", "1ns"], &["-n", "1ns", "--events", "--fail-if", "count()<1"]]
    {
        run(["watch", "--for", "500ms", &addr].iter().chain(more)).expect_code(0);
    }
}

#[test]
fn a_process_that_vanishes_is_no_trouble() {
    let (mut server, addr) = serve(&[]);
    let mut watch = Running::start(towpath(["watch", "--for", "1h", "-n", "20ms", "--json", &addr.to_string()]));
    watch.wait_for("\"state\":\"LISTEN\"");
    let mut client = dial(addr, &["--hold"]);
    server.wait_for("connected");
    watch.wait_for("\"state\":\"ESTABLISHED\"");
    server.signal(Signal::KILL);
    // The client's end is left, and says so for as long as it stays.
    watch.wait_for("\"state\":\"CLOSE-WAIT\"");
    client.end_input();
    drop(server);
    watch.signal(Signal::INT);
    watch.finish().expect_code(130);
}

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_row_has_the_task_that_tasks_has() {
    let runtime = folder("watch-tasks");
    let with_endpoint = |arguments: &[&str]| -> Command {
        let mut command = towpath(arguments);
        command.env("XDG_RUNTIME_DIR", &runtime);
        command
    };
    let mut server = Running::start(with_endpoint(&["serve", "127.0.0.1:0"]));
    let addr = server.address();
    let mut clients: Vec<Running> = (0..3).map(|_| dial(addr, &[])).collect();
    for client in &mut clients {
        client.wait_for("connected");
    }
    for _ in 0..3 {
        server.wait_for("send data");
    }
    // Root's own look finds other programs too.
    let endpoints: Vec<_> =
        std::fs::read_dir(runtime.join("towpath")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [endpoint] = &endpoints[..] else { panic!("{endpoints:?}") };
    let objects = |done: Finished| -> Vec<Value> {
        let done = done.expect_code(0);
        done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tasks = objects(Running::start(with_endpoint(&["tasks", "--json", endpoint.to_str().unwrap()])).finish());
        let rows = with_endpoint(&["watch", "--once", "--json", &addr.to_string()]);
        let rows = objects(Running::start(rows).finish());
        let reads = tasks.iter().filter(|task| task["op"] == "read" && task["cookie"].is_number());
        let told: Vec<(u64, u64)> =
            reads.map(|task| (task["cookie"].as_u64().unwrap(), task["id"].as_u64().unwrap())).collect();
        let shown: Vec<(u64, u64)> = rows
            .iter()
            .flat_map(|row| {
                let reads = row["tasks"].as_array().into_iter().flatten().filter(|task| task["op"] == "read");
                reads.map(|task| (row["cookie"].as_u64().unwrap(), task["id"].as_u64().unwrap())).collect::<Vec<_>>()
            })
            .collect();
        let sorted = |mut pairs: Vec<(u64, u64)>| {
            pairs.sort_unstable();
            pairs
        };
        if told.len() == 3 && sorted(told.clone()) == sorted(shown.clone()) {
            break;
        }
        assert!(Instant::now() < deadline, "tasks: {told:?}; watch: {shown:?}\n{tasks:#?}\n{rows:#?}");
    }
    // Whoever does not answer in time is left out.
    loop {
        let done = Running::start(with_endpoint(&["watch", &addr.to_string()])).finish().expect_code(0);
        let listens = done.stdout.lines().find(|line| line.starts_with("LISTEN")).unwrap();
        if listens.contains(" accept ") {
            break;
        }
        assert!(Instant::now() < deadline, "{}", done.stdout);
    }
    drop(server);
    std::fs::remove_dir_all(&runtime).unwrap();
}

/// A socket named after process `pid` in `runtime`, at which this process listens.
fn listen_as(runtime: &Path, pid: u32) -> UnixListener {
    let folder = runtime.join("towpath");
    _ = std::fs::DirBuilder::new().mode(0o700).create(&folder);
    UnixListener::bind(folder.join(format!("{pid}.sock"))).unwrap()
}

#[test]
fn a_task_that_another_program_tells_of_is_not_shown() {
    // The name of a socket's path may not be long.
    let runtime = PathBuf::from(format!("/tmp/tpw-{}-spoof", std::process::id()));
    let temporary = runtime.join("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let here = |arguments: &[&str]| -> Command {
        let mut command = towpath(arguments);
        command.env("XDG_RUNTIME_DIR", runtime.join("me")).env("TMPDIR", &temporary).env("TOWPATH_INSPECT", "0");
        command
    };
    std::fs::create_dir_all(runtime.join("me")).unwrap();
    let mut server = Running::start(here(&["serve", "127.0.0.1:0"]));
    let addr = server.address().to_string();
    let rows = |arguments: &[&str]| -> Vec<Value> {
        let done = Running::start(here(arguments)).finish().expect_code(0);
        done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let watch = ["watch", "--once", "--json", &addr];
    let cookie = rows(&watch)[0]["cookie"].as_u64().unwrap();

    // Both names of ours tell of the server's listener, one as ourselves and one as the server.
    let own = std::process::id();
    let (told, asked) = std::sync::mpsc::channel();
    for pid in [own, server.id()] {
        let (listener, claimed, told) = (listen_as(&runtime.join("me"), pid), server.id(), told.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // One that is not asked is hung up on.
                if BufReader::new(&stream).read_line(&mut String::new()).is_ok_and(|length| length > 0) {
                    let head = format!("{{\"v\":1,\"pid\":{claimed},\"program\":\"p\",\"workers\":1,\"tasks\":1}}");
                    let task = format!("{{\"id\":666,\"state\":\"waiting\",\"op\":\"accept\",\"cookie\":{cookie}}}");
                    _ = told.send(pid);
                    _ = write!(stream, "{head}\n{task}\n");
                }
            }
        });
    }
    // Only the one that may answer is asked, as soon as there is time for it.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = rows(&watch);
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert_eq!(shown[0]["tasks"].as_array().map_or(0, Vec::len), 0, "{shown:?}");
        let asked: Vec<_> = asked.try_iter().collect();
        assert!(asked.iter().all(|&pid| pid == own), "{asked:?}");
        if !asked.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "nobody was asked");
    }
    std::fs::remove_dir_all(&runtime).unwrap();
}

#[test]
fn sockets_that_never_answer_do_not_hold_it_up() {
    let runtime = PathBuf::from(format!("/tmp/tpw-{}-silent", std::process::id()));
    std::fs::create_dir_all(runtime.join("me")).unwrap();
    let watch = || -> Command {
        let mut command = towpath(["watch", "--once", "127.0.0.1:1"]);
        command.env("XDG_RUNTIME_DIR", runtime.join("me")).env("TMPDIR", &runtime);
        command
    };
    let _left: Vec<_> = (0..200).map(|number| listen_as(&runtime.join("me"), 1_000_000_000 + number)).collect();
    Running::start(watch()).finish().expect_code(0);

    // While a program is asked, a signal ends it. The time for that is short, so it may have to be tried again.
    let silent = listen_as(&runtime.join("me"), std::process::id());
    silent.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut watch = Running::start(watch());
        let asked = loop {
            match silent.accept() {
                Ok(asked) => break Some(asked),
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock, "{e}"),
            }
            // On a busy machine the time is over before it comes to that.
            if watch.has_ended() {
                break None;
            }
            assert!(Instant::now() < deadline, "it does not ask: {}", watch.everything_by_now());
            std::thread::sleep(Duration::from_millis(1));
        };
        if asked.is_some() {
            watch.signal(Signal::INT);
        }
        let done = watch.finish();
        if done.code == Some(130) {
            break;
        }
        assert!(done.code == Some(0) && Instant::now() < deadline, "{done:?}");
    }
    std::fs::remove_dir_all(&runtime).unwrap();
}
