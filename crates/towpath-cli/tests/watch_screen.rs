//! `watch` on a terminal: every key, every size, every way to end.

mod common;

use std::net::{Shutdown, TcpListener, TcpStream};

use common::terminal::{OnTerminal, on_terminal};
use common::{Bustle, Running, assert_has, fresh_listener, missing, shell, skipped};
use regex::Regex;
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;

const USUAL: (u16, u16) = (110, 24);

/// Two connections to a listener, one of which the client has half closed.
struct House {
    listener: TcpListener,
    kept: Vec<TcpStream>,
}

impl House {
    fn new() -> House {
        let listener = fresh_listener("127.0.0.1:0");
        let mut house = House { listener, kept: vec![] };
        house.connect();
        house
    }

    fn connect(&mut self) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        self.kept.extend([client, self.listener.accept().unwrap().0]);
    }

    fn port(&self) -> String {
        self.listener.local_addr().unwrap().port().to_string()
    }

    /// The filter for what belongs to it: others may have the same port at other addresses.
    fn filter(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    fn watch(&self, more: &[&str], size: (u16, u16)) -> OnTerminal {
        let filter = self.filter();
        let arguments: Vec<&str> = ["watch", "-n", "50ms", &filter].iter().chain(more).copied().collect();
        on_terminal(&arguments, size)
    }
}

/// A screen without what differs from run to run: ports, times, processes. Spaces count as one, for those have widths.
fn normal(screen: &str, house: &House) -> String {
    let mut screen = screen.replace(&house.port(), "SERVER");
    if let Some(client) = house.kept.first() {
        screen = screen.replace(&client.local_addr().unwrap().port().to_string(), "CLIENT");
    }
    for (pattern, word) in [
        (r"\d\d:\d\d:\d\d(\.\d+)?", "TIME"),
        (r">?\b\d+(\.\d)?(µs|ms|s)\b", "LONG"),
        (r">?\d+m\d\ds", "LONG"),
        // A program that another test has begun to start has what we have, for a moment.
        (r"watch_screen-\S* \d+/\d+( \+\d+)?", "OWNER PID/FD"),
        (r"(LONG) +\d+ +0 +OWNER", "$1 CWND 0 OWNER"),
        (r"0/\d+", "0/MOST"),
        (r"events: (exact|sampled).*", "events: SOURCE"),
        (r"every LONG", "every 50ms"),
        (" +", " "),
        (" \n", "\n"),
    ] {
        screen = Regex::new(pattern).unwrap().replace_all(&screen, word).into_owned();
    }
    screen
}

/// That the screen, without what differs, is the one that is kept under this name. `TOWPATH_KEEP_SCREENS=1` keeps it as
/// it is now.
#[track_caller]
fn assert_screen(name: &str, screen: &str, house: &House) {
    let screen = normal(screen, house);
    let file = format!("{}/tests/screens/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("TOWPATH_KEEP_SCREENS").is_some() {
        std::fs::write(&file, &screen).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(screen, kept, "{file} is another:\n{screen}");
}

const DOWN: &str = "\x1b[B";
const UP: &str = "\x1b[A";
const ESC: &str = "\x1b";

#[test]
fn the_table_is_there_at_once_and_q_gives_the_terminal_back() {
    let house = House::new();
    let mut watch = house.watch(&[], USUAL);
    watch.wait_until_taken(true);
    // From the second look on, each says for how long at least.
    let screen = watch
        .wait_until("both ends", |screen| screen.matches("ESTAB").count() == 2 && screen.matches('>').count() == 3);
    assert_screen("live-table", &screen, &house);
    watch.press("q");
    let (status, left) = watch.finish();
    assert_eq!(status.code(), Some(0));
    assert_eq!(left.trim(), "", "nothing is left behind");
}

#[test]
fn every_key_does_what_the_help_says() {
    let house = House::new();
    let mut watch = house.watch(&[], USUAL);
    watch.wait_for("▶ LISTEN");
    watch.wait_until("both ends", |screen| screen.matches("ESTAB").count() == 2);

    // Choosing a row.
    watch.press(DOWN);
    watch.wait_for("▶ ESTAB");
    watch.press(UP);
    watch.wait_for("▶ LISTEN");
    watch.press("\x1b[F");
    let at_end = |screen: &str| screen.lines().nth(4).is_some_and(|line| line.starts_with('▶'));
    watch.wait_until("the last row", at_end);
    watch.press("\x1b[H");
    watch.wait_for("▶ LISTEN");
    watch.press("\x1b[6~");
    watch.wait_until("the last row", at_end);
    watch.press("\x1b[5~");
    watch.wait_for("▶ LISTEN");
    watch.press("j");
    watch.wait_for("▶ ESTAB");
    watch.press("k");
    watch.wait_for("▶ LISTEN");

    // All about it.
    watch.press("j\r");
    let detail = watch.wait_for("tcp_info");
    for part in ["state", "ESTABLISHED", "ends", "owner", "socket", "queues", "memory", "limit", "times", "windows"] {
        assert_has(&detail, part);
    }
    assert_has(&detail, "the program: it has nothing to send");
    watch.press("\x1b[F");
    let turned = watch.wait_for("history");
    assert!(!turned.contains("tcp_info"), "{turned}");
    watch.press(ESC);
    watch.wait_for("▶ ESTAB");

    // The help has every key.
    watch.press("?");
    let help = watch.wait_for("towpath watch: keys and columns");
    assert_screen("live-help", &help, &house);
    watch.press("q");
    watch.wait_for("▶ ESTAB");

    // The filter, right and wrong.
    watch.press("/ state:close-wait");
    watch.wait_until("what is typed, and nothing wrong with it", |screen| {
        screen.trim_end().ends_with("/127.0.0.1:SERVER state:close-wait".replace("SERVER", &house.port()).as_str())
    });
    watch.press("\x7f\x7f\x7f\x7f\x7fx");
    watch.wait_for("state:closex: no state is called closex");
    watch.press("\r");
    watch.press("\x7f\x7f\x7f\x7f\x7f\x7flisten");
    watch.wait_for("state:listen");
    watch.press("\r");
    let filtered = watch.wait_for("1 socket ");
    assert_has(&filtered, &format!("towpath watch {} state:listen", house.filter()));
    watch.press("/garbage");
    watch.wait_for("garbage");
    watch.press(ESC);
    watch.wait_for("1 socket ");
    watch.press(&format!("/\x15{}\r", house.filter()));
    watch.wait_for("3 sockets");

    // The order.
    watch.press("s");
    watch.wait_for("by state ");
    watch.press("S");
    watch.wait_for("by state, reversed");
    for order in ["for", "receive queue", "send queue", "local", "peer", "rtt", "retransmitted"] {
        watch.press("s");
        watch.wait_for(&format!("by {order} "));
    }
    watch.press("s");
    watch.wait_until("the first order", |screen| !screen.contains("   by "));

    // Standing still.
    watch.press(" ");
    watch.wait_for("PAUSED");
    watch.press(" ");
    watch.wait_until("it to go on", |screen| !screen.contains("PAUSED"));

    // What is shown.
    watch.press("e");
    watch.wait_until("no history", |screen| !screen.contains("── events"));
    watch.press("e");
    watch.wait_for("── events");
    watch.press("T");
    watch.wait_until("no tasks", |screen| !screen.lines().nth(1).unwrap().contains("TASK"));
    watch.press("T");
    watch.wait_until("tasks", |screen| screen.lines().nth(1).unwrap().contains("TASK"));
    watch.press("t");
    watch.wait_for("TIME-WAIT is hidden");
    watch.press("t");
    watch.wait_for("TIME-WAIT is shown");

    // Keys that mean nothing, and pieces of some.
    watch.press("\x1b[200~x\x1b[201~\x00Ω\x1b[99;99;99~");
    watch.wait_for("q quit");
    watch.press("\x0c");
    watch.press("q");
    assert_eq!(watch.finish().0.code(), Some(0));
}

#[test]
fn what_happens_is_seen_as_it_happens() {
    let mut house = House::new();
    let mut watch = house.watch(&["--cumulative"], (110, 30));
    watch.wait_until("both ends", |screen| screen.matches("ESTAB").count() == 2);
    house.kept[0].shutdown(Shutdown::Write).unwrap();
    watch.wait_until("the close", |screen| screen.contains("CLOSE-WAIT") && screen.contains("FIN-WAIT-2"));
    watch.wait_until("its history", |screen| screen.contains("ESTAB → CLOSE-WAIT"));
    house.connect();
    watch.wait_for("5 sockets");
    house.kept.truncate(2);
    watch.wait_until("what is gone to be kept", |screen| screen.contains("  CLOSED ") || screen.contains("TIME-WAIT"));
    watch.press("q");
    watch.finish();
}

#[test]
fn no_size_is_too_small_and_none_too_large() {
    let house = House::new();
    let mut watch = house.watch(&[], USUAL);
    watch.wait_for("▶ LISTEN");
    for size in [(40, 10), (24, 5), (200, 60), (80, 24)] {
        watch.resize(size);
        watch.wait_until(&format!("{size:?}"), |screen| {
            screen.lines().count() <= size.1.into() && screen.contains("LISTEN") && screen.contains("ESTAB")
        });
    }
    // There is nothing to read, and nothing must break: every page at every size.
    for (open, shown) in
        [("", "q quit"), ("\r", "wait to be accepted"), ("?", "keys and columns"), ("/x", "no key is called")]
    {
        watch.press(open);
        watch.wait_for(shown);
        for _ in 0..5 {
            for size in [(1, 1), (2, 1), (1, 2), (5, 3), (9, 4), (19, 2)] {
                watch.resize(size);
            }
        }
        watch.resize(USUAL);
        watch.wait_for(shown);
        watch.press(ESC);
        watch.wait_for("q quit");
    }
    watch.resize((40, 10));
    let whole = |screen: &str| {
        screen.lines().count() == 10 && screen.contains("3 sockets") && screen.matches("ESTAB").count() == 2
    };
    let screen = watch.wait_until("the small screen", whole);
    assert_screen("live-40x10", &screen, &house);
    watch.press("q");
    watch.finish();
}

#[test]
fn a_terminal_that_begins_with_one_cell_is_taken_too() {
    let house = House::new();
    let mut watch = house.watch(&[], (1, 1));
    watch.wait_until_taken(true);
    watch.resize(USUAL);
    watch.wait_for("▶ LISTEN");
    watch.press("q");
    watch.finish();
}

#[test]
fn a_terminal_without_a_size_is_taken_for_a_usual_one() {
    let house = House::new();
    let script = "stty cols 0 rows 0; exec \"$TOWPATH\" watch -n 50ms \"$FILTER\"";
    let mut watch = OnTerminal::run("sh", &["-c", script], (80, 24), |command| {
        command.env("TOWPATH", common::TOWPATH).env("FILTER", house.filter());
    });
    let whole = |screen: &str| screen.matches("ESTAB").count() == 2 && screen.lines().count() == 24;
    watch.wait_until("the whole table", whole);
    watch.resize(USUAL);
    watch.wait_until("all the columns", |screen| screen.contains("TASK"));
    watch.press("q");
    assert_eq!(watch.finish().0.code(), Some(0));
}

#[test]
fn what_happens_between_two_looks_has_its_own_times() {
    let root = rustix::process::geteuid().is_root();
    if skipped((!root).then_some("only root may use the tracepoint")) {
        return;
    }
    let mut house = House::new();
    house.kept.clear();
    let filter = house.filter();
    let mut watch = on_terminal(&["watch", "-n", "3s", &filter], (110, 30));
    watch.wait_for("▶ LISTEN");
    house.connect();
    watch.wait_until("a look at it", |screen| screen.matches("  ESTAB ").count() == 2);
    house.kept[0].shutdown(Shutdown::Write).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    house.kept.clear();
    std::thread::sleep(std::time::Duration::from_millis(50));
    // Draws, and does not look.
    watch.press("j");
    let screen = watch.wait_for("CLOSE-WAIT → LAST-ACK");
    let time = |change: &str| screen.lines().find(|line| line.contains(change)).map(|line| &line[..15]);
    assert_ne!(time("ESTAB → CLOSE-WAIT"), time("CLOSE-WAIT → LAST-ACK"), "{screen}");
    assert!(!screen.lines().any(|line| line.contains("ESTAB ") && line.contains(" 0µs ")), "{screen}");
    watch.press("q");
    watch.finish();
}

#[test]
fn whose_sockets_cannot_be_seen_is_told_in_the_last_line() {
    let root = rustix::process::geteuid().is_root();
    let tool = missing("setpriv");
    if skipped((!root).then_some("only root can be somebody else").or(tool.as_deref())) {
        return;
    }
    let house = House::new();
    // Others may not be able to reach it where it was built.
    let copy = std::env::temp_dir().join(format!("towpath-watch-screen-{}", std::process::id()));
    common::copy_to(&copy);
    let (filter, path) = (house.filter(), copy.display().to_string());
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let arguments: Vec<&str> = nobody.into_iter().chain([path.as_str(), "watch", "-n", "50ms", &filter]).collect();
    let mut watch = OnTerminal::run("setpriv", &arguments, (80, 24), |_| {});
    let screen = watch.wait_for("owners: your own only (sudo for all)");
    assert!(screen.lines().last().unwrap().starts_with("owners: "), "{screen}");
    watch.press("w");
    watch.wait_for("w needs root: sudo towpath watch");
    watch.press("q");
    assert_eq!(watch.finish().0.code(), Some(0));
    std::fs::remove_file(copy).unwrap();
}

#[test]
fn a_signal_ends_it_and_the_terminal_is_given_back() {
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::TERM, None), (Signal::HUP, None)] {
        let house = House::new();
        let mut watch = house.watch(&[], USUAL);
        watch.wait_for("▶ LISTEN");
        watch.signal(signal);
        let (status, _) = watch.finish();
        assert_eq!(status.code(), code, "{signal:?}");
        assert_eq!(status.signal(), code.is_none().then_some(signal.as_raw()));
    }
}

#[test]
fn ctrl_c_ends_it() {
    let house = House::new();
    let mut watch = house.watch(&[], USUAL);
    watch.wait_for("▶ LISTEN");
    watch.press("\x03");
    assert_eq!(watch.finish().0.code(), Some(130));
}

#[test]
fn stopped_it_gives_the_terminal_back_and_going_on_takes_it_again() {
    let house = House::new();
    let mut watch = house.watch(&[], USUAL);
    watch.wait_for("▶ LISTEN");
    for _ in 0..2 {
        watch.signal(Signal::TSTP);
        watch.wait_until_stopped();
        watch.wait_until_taken(false);
        watch.assert_as_before();
        watch.signal(Signal::CONT);
        watch.wait_until_taken(true);
        watch.wait_for("▶ LISTEN");
    }
    // Stopped by what cannot be caught, after which a shell takes its terminal back.
    watch.signal(Signal::STOP);
    watch.wait_until_stopped();
    watch.reset();
    watch.signal(Signal::CONT);
    watch.wait_until_raw();
    watch.press("j");
    watch.wait_for("▶ ESTAB");
    watch.press("q");
    assert_eq!(watch.finish().0.code(), Some(0));
}

#[test]
fn ctrl_z_stops_it_only_where_a_shell_takes_over() {
    let house = House::new();
    let mut watch = house.watch(&[], USUAL);
    watch.wait_for("▶ LISTEN");
    watch.press("\x1a");
    watch.wait_for("there is no shell here");
    watch.press("q");
    assert_eq!(watch.finish().0.code(), Some(0));

    // A shell with job control: it says so, and takes over.
    let script =
        format!("set -m; \"$TOWPATH\" watch {}; echo \"back: $?\"; read -r; fg; echo \"end: $?\"", house.filter());
    let mut shell = OnTerminal::run("bash", &["-c", &script], USUAL, |command| {
        command.env("TOWPATH", common::TOWPATH);
    });
    shell.wait_for("▶ LISTEN");
    shell.press("\x1a");
    shell.wait_for("back: 14");
    shell.press("\r");
    shell.wait_until_taken(true);
    shell.wait_for("▶ LISTEN");
    shell.press("q");
    let (status, left) = shell.finish();
    assert_has(&left, "end: 0");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_limit_and_a_condition_end_it_with_their_codes() {
    let house = House::new();
    let watch = house.watch(&["--for", "300ms"], USUAL);
    assert_eq!(watch.finish().0.code(), Some(0));

    let mut watch = house.watch(&["--fail-if", "count(state:close-wait)>0"], (160, 24));
    watch.wait_for("▶ LISTEN");
    house.kept[0].shutdown(Shutdown::Write).unwrap();
    let (status, left) = watch.finish();
    assert_eq!(status.code(), Some(9));
    assert_has(&left, "--fail-if 'count(state:close-wait)>0': 1 socket");
}

#[test]
fn a_limit_and_a_signal_end_it_also_while_something_always_happens() {
    let house = House::new();
    let _bustle = Bustle::at(&house.listener);
    let watch = house.watch(&["--for", "500ms"], USUAL);
    assert_eq!(watch.finish().0.code(), Some(0));

    // Looks that are always due hold nothing up, either.
    let filter = house.filter();
    let mut watch = on_terminal(&["watch", "-n", "1ns", &filter], USUAL);
    watch.wait_for("LISTEN");
    watch.press("?");
    watch.wait_for("keys and columns");
    watch.signal(Signal::INT);
    assert_eq!(watch.finish().0.code(), Some(130));
}

#[test]
fn a_listener_elsewhere_with_the_same_address_is_another() {
    let root = rustix::process::geteuid().is_root();
    let tools = ["unshare", "ip"].into_iter().find_map(missing);
    if skipped((!root).then_some("only root may use the tracepoint").or(tools.as_deref())) {
        return;
    }
    let house = House::new();
    let mut watch = house.watch(&[], USUAL);
    watch.wait_until("how long at least", |screen| screen.matches('>').count() == 3);
    let mut command = shell("exec unshare -n sh -c 'ip link set lo up && exec \"$TOWPATH\" serve \"$ADDR\"'");
    command.env("ADDR", house.filter());
    let mut elsewhere = Running::start(command);
    elsewhere.wait_for("listening on ");
    let screen = watch.wait_for("CLOSED → LISTEN");
    let row = |screen: &str| screen.lines().find(|line| line.contains("▶ LISTEN")).unwrap().to_owned();
    assert_has(&row(&screen), ">");
    drop(elsewhere);
    let screen = watch.wait_for("LISTEN → CLOSED");
    assert_has(&row(&screen), ">");
    watch.press("q");
    assert_eq!(watch.finish().0.code(), Some(0));
}

#[test]
fn without_colour_and_in_ascii_there_is_neither() {
    let house = House::new();
    let filter = house.filter();
    let mut watch = OnTerminal::start(&["watch", "-n", "50ms", &filter], USUAL, |command| {
        command.env("NO_COLOR", "1").env("LC_ALL", "C");
    });
    let screen = watch.wait_until("both ends", |screen| screen.matches("ESTAB").count() == 2);
    assert!(screen.is_ascii(), "{screen}");
    assert_has(&screen, "> LISTEN");
    watch.press("q");
    watch.finish();
}

#[test]
fn w_and_q_end_it_also_while_segments_keep_coming() {
    let root = rustix::process::geteuid().is_root();
    if skipped((!root).then_some("only root may capture")) {
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("watch-wq-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let house = House::new();
    let _bustle = Bustle::at(&house.listener);
    let filter = house.filter();
    let mut watch = OnTerminal::start(&["watch", "-n", "50ms", &filter], (160, 24), |command| {
        command.current_dir(&folder);
    });
    watch.wait_for("LISTEN");
    watch.press("\x1b[Hw");
    watch.wait_for("writing towpath-");
    watch.press("w");
    watch.wait_for("segments are in towpath-");
    watch.press("w");
    watch.wait_for("writing towpath-");
    watch.press("q");
    assert_eq!(watch.finish().0.code(), Some(0));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn w_writes_the_segments_of_the_chosen_connection() {
    let root = rustix::process::geteuid().is_root();
    if skipped((!root).then_some("only root may capture")) {
        return;
    }
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("watch-w-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut house = House::new();
    let filter = house.filter();
    let mut watch = OnTerminal::start(&["watch", "-n", "50ms", &filter], (160, 24), |command| {
        command.current_dir(&folder);
    });
    watch.wait_for("▶ LISTEN");
    watch.press("jw");
    watch.wait_for("writing towpath-");
    std::io::Write::write_all(&mut house.kept[0], b"hello").unwrap();
    // Data, and its acknowledgement.
    watch.wait_for(".pcapng (2)");
    watch.press("w");
    watch.wait_for("2 segments are in towpath-");
    watch.press("q");
    let (status, left) = watch.finish();
    assert_eq!(status.code(), Some(0));
    assert_has(&left, "2 segments are in towpath-");
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let mut reader = towpath_capture::file::Reader::open(&files[0]).unwrap();
    let mut payloads = vec![];
    while let Some(frame) = reader.read_frame().unwrap() {
        if payloads.is_empty() {
            assert_has(frame.comment, &format!(" {}/", std::process::id()));
        }
        payloads.push(frame.segment().unwrap().unwrap().payload.to_vec());
    }
    assert_eq!(payloads, [b"hello".to_vec(), vec![]]);
    std::fs::remove_dir_all(&folder).unwrap();
}
