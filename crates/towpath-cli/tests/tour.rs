//! `towpath tour`: every step is really seen, without privilege; and where that cannot be, it says so.
//!
//! Each run has a network namespace of its own, so that any number may run at once. As root the tests run it as nobody,
//! by a copy of the binary that nobody can reach.

mod common;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs, io, process};

use common::terminal::OnTerminal;
use common::{Finished, Running, TOWPATH, assert_has, missing, run, settle, shell, skipped};
use rustix::process::{Signal, geteuid};
use serde_json::Value;

/// The binary under test, where everybody can run it.
static REACHABLE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = env::temp_dir().join(format!("towpath-tour-{}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    let binary = folder.join("towpath");
    common::copy_to(&binary);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    binary
});

const NOBODY: [&str; 5] = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];

/// `towpath tour` without privilege.
fn tour(options: &[&str]) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(NOBODY).arg(&*REACHABLE);
        command
    } else {
        Command::new(TOWPATH)
    };
    command.arg("tour").args(options);
    settle(&mut command);
    command
}

fn finish(command: Command) -> Finished {
    let mut running = Running::start(command);
    running.end_input();
    running.finish()
}

/// The same where nobody is given a user namespace any more, with these capabilities: in one in which that is forbidden.
fn forbidden(capabilities: &str, network: bool, options: &[&str]) -> Command {
    let own = if network { "ip link set lo up && " } else { "" };
    let script = format!(
        "{own}echo 0 >/proc/sys/user/max_user_namespaces && \
         exec setpriv --bounding-set=-all{capabilities} --inh-caps=-all \"$@\""
    );
    let mut command = Command::new("unshare");
    command.arg(if network { "-Urn" } else { "-Ur" }).args(["sh", "-c", &script, "sh", TOWPATH, "tour"]).args(options);
    settle(&mut command);
    command
}

/// Why there are no user namespaces here.
fn no_namespaces() -> Option<String> {
    if geteuid().is_root() {
        let root = missing("setpriv");
        if root.is_some() {
            return root;
        }
    }
    let mut command = Command::new("unshare");
    if geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(NOBODY).arg("unshare");
    }
    match command.args(["-Urn", "true"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("no user namespaces: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(e) => Some(format!("unshare: {e}")),
    }
}

fn objects(done: &Finished) -> Vec<Value> {
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// The objects from one step's beginning to the next's.
fn steps(objects: &[Value]) -> Vec<(&str, &[Value])> {
    let begins = |object: &Value| object["ev"] == "step";
    let starts: Vec<usize> = (0..objects.len()).filter(|&at| begins(&objects[at])).collect();
    let ends = starts.iter().skip(1).copied().chain([objects.len()]);
    starts.iter().zip(ends).map(|(&at, end)| (objects[at]["name"].as_str().unwrap(), &objects[at..end])).collect()
}

/// What the segments of a step were, as `side flags client-state server-state`.
fn segments(step: &[Value]) -> Vec<String> {
    let segments = step.iter().filter(|object| object["ev"] == "segment");
    let told = segments.map(|segment| {
        let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let states = &segment["states"];
        format!(
            "{} {} {} {}",
            word(&segment["side"]),
            word(&segment["flags"]),
            word(&states["client"]),
            word(&states["server"])
        )
    });
    told.collect()
}

/// The states in a step's table, sorted.
fn states(step: &[Value]) -> Vec<&str> {
    let sockets = step.iter().filter(|object| object["ev"] == "socket");
    let mut states: Vec<_> = sockets.filter_map(|socket| socket["state"].as_str()).collect();
    states.sort_unstable();
    states
}

/// The tables of the steps that have one.
const TABLES: [(&str, &[&str]); 7] = [
    ("listen", &["LISTEN"]),
    ("dial", &["ESTABLISHED", "ESTABLISHED", "LISTEN"]),
    ("talk", &["ESTABLISHED", "ESTABLISHED", "LISTEN"]),
    ("buffers fill", &["ESTABLISHED", "ESTABLISHED", "LISTEN"]),
    ("buffers drain", &["ESTABLISHED", "ESTABLISHED", "LISTEN"]),
    ("the server closes", &["CLOSE-WAIT", "FIN-WAIT-2", "LISTEN"]),
    ("the client closes", &["LISTEN", "TIME-WAIT"]),
];

#[track_caller]
fn assert_tables(objects: &[Value]) {
    let steps = steps(objects);
    let names: Vec<_> = steps.iter().map(|(name, _)| *name).collect();
    let expected: Vec<_> = TABLES.iter().map(|(name, _)| *name).chain(["refused"]).collect();
    assert_eq!(names, expected);
    for ((name, step), (_, table)) in steps.iter().zip(TABLES) {
        assert_eq!(states(step), table, "the table of {name}");
    }
}

/// That the writer was found where it cannot go on, between two queues that are full.
#[track_caller]
fn assert_stuck(step: &[Value]) {
    let parked = step.iter().find(|object| object["ev"] == "parked").expect("a parked task");
    assert_eq!((&parked["name"], &parked["op"]), (&"server writer".into(), &"write".into()));
    // Its own end is the one with a peer; a listener has its address too.
    let end = |side: &str| {
        let is_it = |object: &&Value| object["ev"] == "socket" && object["local"] == parked[side];
        let socket = step.iter().find(|object| is_it(object) && object["peer"].is_string());
        socket.unwrap_or_else(|| panic!("no socket at {side} in {step:#?}"))
    };
    assert!(end("local")["send_queue_bytes"].as_u64() > Some(0), "{:#}", end("local"));
    assert!(end("peer")["recv_queue_bytes"].as_u64() > Some(0), "{:#}", end("peer"));
    let tasks = end("local")["tasks"].as_array().unwrap();
    let ops: Vec<_> = tasks.iter().map(|task| task["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["read", "write"], "two tasks on one connection");
}

#[test]
fn each_step_is_seen_without_privilege() {
    if skipped(no_namespaces().as_deref()) {
        return;
    }
    let done = finish(tour(&["--json"])).expect_code(0);
    assert_eq!(done.stderr, "");
    let objects = objects(&done);
    assert_eq!(objects[0]["ev"], "touring");
    assert_eq!((&objects[0]["own_network"], &objects[0]["segments"]), (&true.into(), &true.into()));
    assert_tables(&objects);
    let steps = steps(&objects);
    let step = |name: &str| steps.iter().find(|(other, _)| *other == name).unwrap().1;

    assert_eq!(segments(step("listen")), [""; 0]);
    assert_eq!(
        segments(step("dial")),
        [
            "client SYN SYN-SENT SYN-RECEIVED",
            "server SYN,ACK ESTABLISHED SYN-RECEIVED",
            "client ACK ESTABLISHED ESTABLISHED"
        ]
    );
    let fill = step("buffers fill");
    assert_stuck(fill);
    let zero =
        |segment: &&Value| segment["notes"].as_array().is_some_and(|notes| notes.contains(&"zero window".into()));
    assert!(fill.iter().any(|segment| zero(&segment)), "{fill:#?}");
    let close = segments(step("the server closes"));
    assert_eq!(close, ["server FIN,ACK CLOSE-WAIT FIN-WAIT-1", "client ACK CLOSE-WAIT FIN-WAIT-2"]);
    let close = segments(step("the client closes"));
    assert_eq!(close, ["client FIN,ACK LAST-ACK TIME-WAIT", "server ACK CLOSED TIME-WAIT"]);
    let refused = segments(step("refused"));
    assert_eq!((refused.len(), &*refused[0]), (2, "client SYN SYN-SENT SYN-RECEIVED"));
    assert!(refused[1].starts_with("server RST,ACK CLOSED"), "{refused:?}");

    let verdicts: Vec<_> =
        objects.iter().filter(|object| object["ev"] == "connection").map(|it| &it["verdict"]).collect();
    assert_eq!(verdicts, ["clean", "refused"]);
    let sent = objects.iter().filter(|object| object["ev"] == "segment").count();
    assert_eq!(objects.last().unwrap()["segments"], sent, "each segment is an object");
}

#[test]
fn what_was_sent_is_what_was_read() {
    if skipped(no_namespaces().as_deref()) {
        return;
    }
    let done = finish(tour(&["--json"])).expect_code(0);
    let objects = objects(&done);
    let sum = |writer: &str, reader: &str| {
        let deeds = |name: &str, did: &[&str]| {
            let deeds = objects.iter().filter(|it| it["ev"] == "deed" && it["name"] == name);
            let deeds = deeds.filter(|it| did.contains(&it["did"].as_str().unwrap()));
            deeds.map(|it| it["bytes"].as_u64().unwrap()).sum::<u64>()
        };
        (deeds(writer, &["wrote"]), deeds(reader, &["read", "read-on"]))
    };
    let (sent, read) = sum("server writer", "client reader");
    assert_eq!(sent, read);
    assert!(sent > 256 * 1024, "{sent}");
    assert_eq!(sum("client", "server reader"), (5, 5), "hello");
    let connection = objects.iter().find(|it| it["ev"] == "connection").unwrap();
    assert_eq!(connection["bytes"], sent + 5, "and on the wire");
}

#[test]
fn where_user_namespaces_are_forbidden_it_says_so_and_shows_what_it_can() {
    let missing = no_namespaces().or_else(|| missing("setpriv"));
    if skipped(missing.as_deref()) {
        return;
    }
    let done = finish(forbidden("", false, &[])).expect_code(77);
    assert_has(&done.stderr, "on the loopback interface of this machine; there will be no segments to see");
    assert_has(&done.stderr, "user.max_user_namespaces is 0");
    assert_has(&done.stderr, "sudo sysctl user.max_user_namespaces=");
    assert_has(&done.stderr, "sudo towpath tour");
    for (number, (name, _)) in (1..).zip(TABLES) {
        assert_has(&done.stdout, &format!("{number}  {name}\n"));
    }
    assert_has(&done.stdout, "8  refused\n");
    for state in ["LISTEN", "ESTAB", "CLOSE-WAIT", "FIN-WAIT-2", "TIME-WAIT"] {
        assert!(done.stdout.lines().any(|line| line.starts_with(&format!("  {state} "))), "{state}:\n{}", done.stdout);
    }
    assert!(!done.stdout.contains("▶"), "no ladder:\n{}", done.stdout);

    let done = finish(forbidden("", false, &["--json"])).expect_code(77);
    assert_eq!(done.stderr, "");
    let objects = objects(&done);
    assert_eq!((&objects[0]["own_network"], &objects[0]["segments"]), (&false.into(), &false.into()));
    assert_tables(&objects);
    assert_stuck(steps(&objects)[3].1);
    assert_eq!(objects.last().unwrap()["ev"], "error");
    assert!(!objects.iter().any(|object| object["ev"] == "segment"));
}

#[test]
fn where_the_system_gives_no_reason_the_hint_is_for_containers_too() {
    if skipped(no_namespaces().as_deref()) {
        return;
    }
    // Who is nobody in a user namespace may make none below it: EPERM, as a container's filter says it.
    let mut command = Command::new("unshare");
    command.args(["-U", TOWPATH, "tour"]);
    settle(&mut command);
    let done = finish(command).expect_code(77);
    assert_has(&done.stderr, "make a user and network namespace: operation not permitted");
    assert_has(&done.stderr, "docker run");
    assert_has(&done.stdout, "8  refused\n");
}

#[test]
fn on_a_common_loopback_the_capability_is_enough_to_see_segments() {
    let missing = no_namespaces().or_else(|| missing("setpriv")).or_else(|| missing("ip"));
    if skipped(missing.as_deref()) {
        return;
    }
    let done = finish(forbidden(",+net_raw", true, &["--json"])).expect_code(0);
    let objects = objects(&done);
    assert_eq!((&objects[0]["own_network"], &objects[0]["segments"]), (&false.into(), &true.into()));
    assert_tables(&objects);
    assert_eq!(segments(steps(&objects)[1].1).len(), 3, "the handshake");
}

#[test]
fn nobody_else_on_this_machine_notices() {
    if skipped(no_namespaces().as_deref()) {
        return;
    }
    // Who has the port may be somebody else, and then it is theirs that would notice.
    let ours = TcpListener::bind("127.0.0.1:8330").ok();
    let done = finish(tour(&[])).expect_code(0);
    assert_has(&done.stdout, "listen 127.0.0.1:8330\n");
    if let Some(ours) = ours {
        ours.set_nonblocking(true).unwrap();
        assert_eq!(ours.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_person_sees_ladders_tables_and_words() {
    if skipped(no_namespaces().as_deref()) {
        return;
    }
    let done = finish(tour(&[])).expect_code(0);
    for part in [
        "1  listen\n",
        "SYN-SENT   ──",
        "SYN-SENT lasted ",
        "send data 5 : hello\n",
        "read data 5 : hello\n",
        "zero window",
        "server writer  waits in write on 127.0.0.1:8330 → 127.0.0.1:",
        "learns over a channel that the server has closed",
        "read returned an error: another task has closed the connection",
        "closed first by :8330 · clean",
        "dial tcp 127.0.0.1:8331: connect: connection refused\n",
        "refused (RST)",
        "towpath serve 8330",
    ] {
        assert_has(&done.stdout, part);
    }
    assert_has(&done.stderr, "in a network namespace of its own");
    assert!(!done.stdout.contains('\x1b'), "no colour in a pipe");
    assert!(done.stdout.lines().all(|line| line == line.trim_end()), "nothing blank at the end of a line");
}

#[test]
fn ascii_is_ascii_and_a_narrow_terminal_is_enough() {
    if skipped(no_namespaces().as_deref()) {
        return;
    }
    let mut command = tour(&["--ascii", "--color", "always"]);
    command.env("COLUMNS", "40");
    let done = finish(command).expect_code(0);
    assert!(done.stdout.is_ascii() && done.stderr.is_ascii(), "{}", done.stdout);
    let plain = anstyle_free(&done.stdout);
    let wide: Vec<_> = plain.lines().filter(|line| line.len() > 40).collect();
    assert_eq!(wide, [""; 0]);
}

/// `text` without the escapes that colour it.
fn anstyle_free(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    if skipped(no_namespaces().as_deref()) {
        return;
    }
    let mut running = Running::start(shell("{ \"$TOWPATH\" tour; echo \"exit $?\" >&2; } | head -n 1"));
    running.end_input();
    let done = running.finish();
    assert_eq!(done.stdout, "1  listen\n");
    assert_has(&done.stderr, "exit 0\n");
    assert!(!done.stderr.contains("panic"), "{}", done.stderr);
}

fn stepping() -> OnTerminal {
    OnTerminal::start(&["tour", "--step"], (110, 60), |_| {})
}

#[test]
fn a_key_leads_to_the_next_step() {
    if skipped(no_namespaces().as_deref()) {
        return;
    }
    let mut terminal = stepping();
    let names = TABLES.iter().map(|(name, _)| *name).chain(["refused"]).skip(1);
    for (number, name) in (2..).zip(names) {
        let screen = terminal.wait_for(&format!("-- any key: {name}; q: the end --"));
        assert!(!screen.contains(&format!("{number}  {name}\n")), "not before the key:\n{screen}");
        // An arrow is several bytes, and one key.
        terminal.press(if number % 2 == 0 { " " } else { "\x1b[B" });
        terminal.wait_for(&format!("{number}  {name}\n"));
    }
    terminal.wait_for("To go on");
    let (status, _) = terminal.finish();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn q_and_ctrl_c_end_it_and_the_terminal_is_as_it_was() {
    if skipped(no_namespaces().as_deref()) {
        return;
    }
    for (keys, code) in [("q", 0), ("\x03", 130)] {
        let mut terminal = stepping();
        terminal.wait_for("-- any key: dial");
        terminal.press(keys);
        let (status, screen) = terminal.finish();
        assert_eq!(status.code(), Some(code), "{screen}");
        assert!(!screen.contains("2  dial\n"), "{screen}");
    }
    let mut terminal = stepping();
    terminal.wait_for("-- any key: dial");
    terminal.signal(Signal::TERM);
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(terminal.finish().0.signal(), Some(15), "as whoever sent it expects");
}

#[test]
fn step_without_a_terminal_is_refused() {
    let done = run(["tour", "--step"]).expect_code(2);
    assert_eq!(done.stdout, "");
    assert_has(&done.stderr, "--step: stdin is no terminal");
    assert_has(&done.stderr, "towpath tour");
}
