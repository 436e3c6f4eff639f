//! Every exit code with the text that goes with it: what was tried, what came back, what to type next.

mod common;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{Finished, PATIENCE, Running, assert_has, dial, run, serve, shell, skipped, towpath, within_patience};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with};
use rustix::process::Signal;

/// A socket that has a port of this machine and listens only if it is told to.
fn bound() -> (OwnedFd, SocketAddr) {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    let addr = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
    (socket, addr)
}

/// A listener whose queue is full: it answers no further SYN.
fn full() -> (OwnedFd, Vec<TcpStream>, SocketAddr) {
    let (socket, addr) = bound();
    listen(&socket, 0).unwrap();
    let connect = || TcpStream::connect_timeout(&addr, Duration::from_millis(200));
    let queued: Vec<_> = std::iter::from_fn(|| connect().ok()).collect();
    (socket, queued, addr)
}

#[track_caller]
fn says(done: Finished, code: i32, text: &str) {
    let done = done.expect_code(code);
    assert_eq!(done.stderr, format!("{text}\n"));
    assert_eq!(done.stdout, "");
}

#[test]
fn without_arguments_it_explains_itself_and_exits_2() {
    let done = run::<&str>([]).expect_code(2);
    assert_has(&done.stderr, "Usage: towpath");
    assert_has(&done.stderr, "serve");
    assert_has(&done.stderr, "dial");
}

#[test]
fn help_has_every_exit_code_and_goes_to_stdout() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["dial", "--help"], &["watch", "--help"]] {
        let done = run(arguments).expect_code(0);
        for code in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "77", "130"] {
            assert_has(&done.stdout, &format!("\n{code:>5}  "));
        }
        assert_has(&done.stdout, "Examples:");
        assert_eq!(done.stderr, "");
    }
}

#[test]
fn a_wrong_address_names_its_wrong_part() {
    for (address, part) in [
        ("localhost", "missing port"),
        ("127.0.0.1:1:2", "too many colons"),
        ("localhost:99999", "99999"),
        ("99999", "99999"),
        ("localhost:nosuchservice", "nosuchservice"),
    ] {
        for command in ["dial", "serve"] {
            let done = run([command, address]).expect_code(2);
            assert_has(&done.stderr, part);
            assert_has(&done.stderr, ". An address is 8330, ");
            assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
        }
    }
}

#[test]
fn host_and_port_apart_are_put_together() {
    for (arguments, address) in [
        (&["dial", "127.0.0.1", "8330"][..], "127.0.0.1:8330"),
        (&["dial", "--hex", "::1", "http"], "[::1]:http"),
        (&["serve", "localhost", "8330"], "localhost:8330"),
    ] {
        assert_has(&run(arguments).expect_code(2).stderr, &format!("tip: try {address}\n"));
        let json = run([&["--json"], arguments].concat()).expect_code(2).stdout;
        assert_has(&json, &format!("\"hint\":\"Try {address}\""));
    }
    assert!(!run(["dial", "127.0.0.1:80", "8330"]).expect_code(2).stderr.contains("tip: try"));
    let done = run(["dial", "http://localhost:8330/"]).expect_code(2);
    assert_has(&done.stderr, "; try localhost:8330\n");
}

#[test]
fn help_is_also_a_word() {
    for (word, option) in [(&["help"][..], &["--help"][..]), (&["help", "serve"], &["serve", "--help"])] {
        assert_eq!(run(word).expect_code(0).stdout, run(option).expect_code(0).stdout);
    }
    assert_has(&run(["help", "nosuch"]).expect_code(2).stderr, "unrecognized subcommand");
}

#[test]
fn no_times_are_refused_in_words() {
    let done = run(["dial", "1", "--repeat", "0"]).expect_code(2);
    assert_has(&done.stderr, "invalid value '0' for '--repeat <N>': it must be at least 1\n");
    assert_has(&run(["serve", "--max", "many"]).expect_code(2).stderr, ": it is no whole number\n");
}

#[test]
fn a_wrong_option_exits_2() {
    for arguments in [
        &["dial"][..],
        &["dial", "1", "--idle", "5"],
        &["dial", "1", "--nosuch"],
        &["serve", "--echo", "--discard"],
        &["nosuch"],
        &["watch", "nonsense"],
        &["watch", "--fail-if", "close-wait>5"],
    ] {
        assert_has(&run(arguments).expect_code(2).stderr, "error: ");
    }
    let done = run(["dial", "1", "--expect", "("]).expect_code(2);
    assert_has(&done.stderr, "--expect (: unclosed group");
}

#[test]
fn a_wrong_environment_exits_2_and_names_the_variable() {
    for variable in ["TOWPATH_WORKERS", "TOWPATH_POLLER", "TOWPATH_STACK", "TOWPATH_INSPECT"] {
        let mut command = towpath(["serve", "127.0.0.1:0"]);
        command.env(variable, "nonsense");
        let done = Running::start(command).finish().expect_code(2);
        assert_has(&done.stderr, variable);
        assert_has(&done.stderr, "nonsense");
    }
}

#[test]
fn refused_exits_3() {
    let (_socket, addr) = bound();
    let port = addr.port();
    let text =
        format!("dial tcp {addr}: connect: connection refused. Nothing listens there; try: towpath serve {port}");
    says(run(["dial", &addr.to_string()]), 3, &text);
    assert_has(&run(["dial", ":0"]).expect_code(3).stderr, "Nobody listens at port 0");
}

#[test]
fn no_answer_in_time_exits_4() {
    let (_socket, _queued, addr) = full();
    let done = run(["dial", &addr.to_string(), "-w", "300ms"]).expect_code(4);
    assert_has(&done.stderr, &format!("dial tcp {addr}: connect: timed out. Nothing came back within 300ms"));
    assert_has(&done.stderr, &format!("try: towpath dial -w 30s {addr}\n"));
}

#[test]
fn nothing_heard_for_the_idle_time_exits_4() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dial = dial(listener.local_addr().unwrap(), &["--idle", "100ms"]);
    let done = dial.finish().expect_code(4);
    assert_has(&done.stderr, ": nothing came for 100ms. To wait as long as it takes, leave out --idle\n");
}

#[test]
fn no_way_there_exits_5() {
    // Linux has no way to a broadcast address over TCP, whatever its routes are.
    let text = "dial tcp 255.255.255.255:80: connect: network is unreachable. \
                No way leads there; try: ip route get 255.255.255.255";
    says(run(["dial", "255.255.255.255:80"]), 5, text);
}

#[test]
fn a_reset_exits_6() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut dial = dial(addr, &[]);
    dial.wait_for("connected");
    let (mut server, _) = within_patience("a connection", move || listener.accept().unwrap());
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    dial.type_in("x");
    server.read_exact(&mut [0]).unwrap();
    set_socket_linger(&server, Some(Duration::ZERO)).unwrap();
    drop(server);
    let done = dial.finish().expect_code(6);
    assert_has(&done.stderr, &format!("->{addr}: connection reset by peer. The peer died, or closed"));
}

#[test]
fn an_unknown_name_exits_7() {
    // A label is at most 63 bytes long (RFC 1035), so no resolver has to be asked.
    let name = format!("{}.invalid", "x".repeat(64));
    for command in ["dial", "serve"] {
        let done = run([command, &format!("{name}:80")]).expect_code(7);
        assert_has(&done.stderr, &format!("lookup {name}: "));
        assert_has(&done.stderr, &format!("try: getent hosts {name}\n"));
    }
}

#[test]
fn an_address_in_use_exits_8() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let port = addr.port();
    let text = format!(
        "listen tcp {addr}: bind: address already in use. \
         To see who has it: towpath watch {port}, or ss -ltnp 'sport = :{port}'; to take any free port: towpath serve 127.0.0.1:0"
    );
    says(run(["serve", &addr.to_string()]), 8, &text);
}

#[test]
fn no_permission_exits_77() {
    let lowest = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    let open = lowest.trim().parse().is_ok_and(|port: u16| port <= 81);
    if skipped(open.then_some("every port is for everybody here")) {
        return;
    }
    // As nobody, who may not be able to reach the binary where it was built.
    let copy = std::env::temp_dir().join(format!("towpath-cli-77-{}", std::process::id()));
    common::copy_to(&copy);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        nobody
    } else {
        Command::new(&copy)
    };
    command.args(["serve", "127.0.0.1:81"]);
    let done = Running::start(command).finish();
    std::fs::remove_file(&copy).unwrap();
    let text = "listen tcp 127.0.0.1:81: bind: permission denied. \
                Ports below 1024 are for the privileged; try: towpath serve 127.0.0.1:8330";
    says(done, 77, text);
}

#[test]
fn ctrl_c_while_connecting_exits_130() {
    let (_socket, _queued, addr) = full();
    let dial = dial(addr, &["-w", "1h"]);
    // It has its handler before it sends the SYN that we look for.
    let waiting = format!(":{:04X} 02 ", addr.port());
    within_patience("a SYN", move || {
        while !std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&waiting) {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    dial.signal(Signal::INT);
    dial.finish().expect_code(130);
}

#[test]
fn stdout_that_takes_no_more_exits_1() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut script = shell("\"$TOWPATH\" dial \"$ADDR\" > /dev/full");
    script.env("ADDR", listener.local_addr().unwrap().to_string());
    let dial = Running::start(script);
    let (mut server, _) = within_patience("a connection", move || listener.accept().unwrap());
    std::io::Write::write_all(&mut server, b"hello\n").unwrap();
    assert_has(&dial.finish().expect_code(1).stderr, "write stdout: no space left on device\n");
}

#[test]
fn a_table_that_cannot_be_written_exits_1() {
    let (server, addr) = serve(&[]);
    let (addr, pid) = (addr.to_string(), server.id().to_string());
    for arguments in ["watch \"$ADDR\"", "watch --once --json \"$ADDR\"", "tasks \"$PID\"", "tasks --json \"$PID\""] {
        let mut script = shell(&format!("\"$TOWPATH\" {arguments} > /dev/full"));
        script.env("ADDR", &addr).env("PID", &pid);
        let done = Running::start(script).finish().expect_code(1);
        let json = arguments.contains("--json"); // and then there is nowhere to say it
        assert!(json || done.stderr.contains("write stdout: no space left on device\n"), "{arguments}: {done:?}");
    }
}

#[test]
fn a_signal_need_not_wait_for_the_end_of_stdin() {
    let (_socket, addr) = bound();
    let dial = dial(addr, &["--repeat", "9", "--every", "1ms"]);
    let reads = || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", dial.id())).unwrap();
        let calls = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("syscall")).ok());
        calls.filter(|call| call.starts_with("0 0x0 ")).count() == 1 // read(2) of stdin
    };
    let deadline = Instant::now() + PATIENCE;
    while !reads() {
        assert!(Instant::now() < deadline, "it does not read");
        thread::sleep(Duration::from_millis(1));
    }
    dial.signal(Signal::INT);
    dial.finish().expect_code(130);
}

#[test]
fn stdin_that_cannot_be_read_exits_1() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut script = shell("\"$TOWPATH\" dial \"$ADDR\" < /");
    script.env("ADDR", listener.local_addr().unwrap().to_string());
    let done = Running::start(script).finish().expect_code(1);
    assert_has(&done.stderr, "read stdin: is a directory\n");
}

#[test]
fn as_json_an_error_is_an_object_too() {
    let (_socket, addr) = bound();
    for (arguments, code) in [
        (vec!["--json", "dial", &addr.to_string()], 3),
        (vec!["dial", "--json", "localhost"], 2),
        (vec!["dial", "--json"], 2),
        (vec!["--json", "serve", "--idle", "soon"], 2),
        (vec!["--json", "nosuch"], 2),
    ] {
        let done = run(arguments).expect_code(code);
        assert_eq!(done.stderr, "");
        let object: serde_json::Value = serde_json::from_str(&done.stdout).expect("one object");
        assert_eq!((&object["v"], &object["ev"]), (&1.into(), &"error".into()));
        assert_eq!(object["exit"], code);
        assert!(object["error"].is_string() && object["hint"].is_string(), "{object}");
    }
    let done = run(["--json", "dial"]).expect_code(2);
    assert_has(&done.stdout, "required arguments were not provided: <ADDR>\"");
    assert_has(&done.stdout, "\"For the options: towpath dial --help\"");
}
