//! Runs the examples for real, as somebody with several terminals would, and checks what they print. `cargo test` builds
//! them beside the tests. `echo` is run by whoever measures.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use common::{refused, reset, until, watchdog};

/// An example that runs. It ends with the test.
struct Running {
    child: Child,
    /// `None` once it has been closed.
    stdin: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

fn path(name: &str) -> PathBuf {
    // target/debug/deps/examples-0123456789abcdef, and beside `deps` there is `examples`.
    let this = std::env::current_exe().unwrap();
    let path = this.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build -p towpath --examples`", path.display());
    path
}

fn run(name: &str, addr: &str) -> Running {
    let mut command = Command::new(path(name));
    command.arg(addr);
    start(command)
}

fn start(mut command: Command) -> Running {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    Running { child, stdin, lines }
}

impl Running {
    /// The next line that it prints.
    fn line(&mut self) -> String {
        self.lines.next().expect("it prints another line").unwrap()
    }

    /// The address that it says it listens at.
    fn addr(&mut self) -> SocketAddr {
        let line = self.line();
        line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).parse().unwrap()
    }

    fn types(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// What it prints until it ends, and how that was.
    fn end(&mut self) -> (Vec<String>, ExitStatus) {
        let lines = self.lines.by_ref().map(Result::unwrap).collect();
        (lines, self.child.wait().unwrap())
    }

    /// How many descriptors it has open.
    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill(); // an error says that it has ended
        _ = self.child.wait();
    }
}

#[test]
fn listen_has_a_task_for_each_connection() {
    let _watchdog = watchdog();
    let mut listen = run("listen", "127.0.0.1:0");
    let addr = listen.addr();
    let streams = [TcpStream::connect(addr).unwrap(), TcpStream::connect(addr).unwrap()];
    let local = |stream: &TcpStream| stream.local_addr().unwrap();
    let mut lines = [listen.line(), listen.line()];
    lines.sort();
    let mut expected = streams.each_ref().map(|stream| format!("accept {}", local(stream)));
    expected.sort();
    assert_eq!(lines, expected);
    // The later one goes first: neither waits for the other.
    let [first, second] = streams;
    let gone = local(&second);
    drop(second);
    assert_eq!(listen.line(), format!("closed {gone}"));
    reset(first);
    assert_eq!(listen.line(), "read err: Connection reset by peer (os error 104)");
    let third = TcpStream::connect(addr).unwrap();
    assert_eq!(listen.line(), format!("accept {}", local(&third)));
}

#[test]
fn listen_goes_on_after_an_error_of_accept() {
    let _watchdog = watchdog();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 24 && exec \"$0\" 127.0.0.1:0"]).arg(path("listen"));
    let mut listen = start(command);
    let addr = listen.addr();
    let mut streams: Vec<TcpStream> = (0..24).map(|_| TcpStream::connect(addr).unwrap()).collect();
    while listen.line() != "accept err: Too many open files (os error 24)" {}
    let last = streams.pop().unwrap();
    drop(streams);
    let accepted = format!("accept {}", last.local_addr().unwrap());
    while listen.line() != accepted {}
}

#[test]
fn dial_stays_connected_until_the_server_closes() {
    let _watchdog = watchdog();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut dial = run("dial", &addr.to_string());
    let (mut stream, peer) = listener.accept().unwrap();
    assert_eq!(dial.line(), format!("connected {peer} → {addr}"));
    stream.write_all(b"nobody looks at this").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // Only now: it had not closed before.
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    let (lines, status) = dial.end();
    assert_eq!((lines, status.code()), (vec!["server closed".to_owned()], Some(0)));
}

#[test]
fn dial_says_which_step_failed() {
    let _watchdog = watchdog();
    let refused = refused();
    for (addr, said) in [
        ("nonsense".to_owned(), "resolve err: address nonsense: missing port in address"),
        ("127.0.0.1:70000".to_owned(), "resolve err: address 127.0.0.1:70000: port out of range: 70000"),
        (refused.addr.to_string(), "dial err: Connection refused (os error 111)"),
    ] {
        let (lines, status) = run("dial", &addr).end();
        assert_eq!((lines, status.code()), (vec![said.to_owned()], Some(1)));
    }
}

#[test]
fn server_and_client_hold_a_conversation() {
    let _watchdog = watchdog();
    let mut server = run("server", "127.0.0.1:0");
    let mut client = run("client", &server.addr().to_string());
    let sent = server.line();
    let time = sent.strip_prefix("send data: ").unwrap_or_else(|| panic!("{sent}"));
    assert_eq!(client.line(), format!("read data {} : {time}", time.len()));
    client.types("hello towpath\n");
    assert_eq!(server.line(), "read data 14 : hello towpath");
    client.types("grüße\n");
    assert_eq!(server.line(), "read data 8 : grüße");

    server.child.kill().unwrap();
    let (lines, status) = client.end();
    assert_eq!((lines, status.code()), (vec!["server closed".to_owned()], Some(0)));
}

#[test]
fn a_client_with_no_more_to_say_hears_the_server_close() {
    let _watchdog = watchdog();
    let mut server = run("server", "127.0.0.1:0");
    let mut client = run("client", &server.addr().to_string());
    assert!(client.line().starts_with("read data "));
    assert!(server.line().starts_with("send data: "));
    client.stdin.take();
    assert_eq!(server.line(), "closed");
    let (lines, status) = client.end();
    assert_eq!((lines, status.code()), (vec!["server closed".to_owned()], Some(0)));
}

#[test]
fn a_client_whose_connection_breaks_says_so_and_ends() {
    let _watchdog = watchdog();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = run("client", &listener.local_addr().unwrap().to_string());
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"half a line").unwrap();
    client.types("x\n");
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 2);
    reset(stream);
    let (lines, status) = client.end();
    assert_eq!(lines, ["read err: Connection reset by peer (os error 104)"]);
    assert_eq!(status.code(), Some(0));
}

#[test]
fn server_puts_together_a_character_that_two_reads_cut_apart() {
    let _watchdog = watchdog();
    let mut server = run("server", "127.0.0.1:0");
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream.set_nodelay(true).unwrap();
    assert!(server.line().starts_with("send data: "));
    for (sent, printed) in [
        (&b"hello\n"[..], "read data 6 : hello"),
        (b"h\xc3", "read data 2 : h"),
        (b"\xa9\n", "read data 2 : é"),
        (b"\xff\n", "read data 2 : \u{fffd}"),
    ] {
        stream.write_all(sent).unwrap();
        assert_eq!(server.line(), printed);
    }
    stream.write_all(&[b'.'; 1500]).unwrap();
    let lengths = [1024, 476].map(|n| format!("read data {n} : {}", ".".repeat(n)));
    assert_eq!([server.line(), server.line()], lengths);
}

#[test]
fn server_closes_each_connection_however_it_ends() {
    let _watchdog = watchdog();
    let mut server = run("server", "127.0.0.1:0");
    let addr = server.addr();
    // The first connection has the runtime start, and leaves what that needs.
    let mut before = None;
    for n in 0..6 {
        let mut stream = TcpStream::connect(addr).unwrap();
        let mut greeting = [0; 36]; // all of it, or closing resets the connection
        stream.read_exact(&mut greeting).unwrap();
        assert!(server.line().starts_with("send data: "));
        if n % 2 == 0 {
            drop(stream);
            assert_eq!(server.line(), "closed");
        } else {
            reset(stream);
            assert_eq!(server.line(), "read err: Connection reset by peer (os error 104)");
        }
        match before {
            None => before = Some(server.descriptors()),
            Some(before) => until(|| server.descriptors() <= before),
        }
    }
}

#[test]
fn server_stops_once_its_listener_is_closed() {
    let _watchdog = watchdog();
    let mut server = run("server", "127.0.0.1:0");
    let mut client = run("client", &server.addr().to_string());
    assert!(client.line().starts_with("read data "));
    assert!(server.line().starts_with("send data: "));
    server.types("\n");
    let (lines, status) = server.end();
    assert_eq!((lines, status.code()), (vec![], Some(0)));
    assert_eq!(client.end().0, ["server closed"]);
}

#[test]
fn buffers_fill_and_the_writer_parks_until_the_peer_reads_on() {
    let _watchdog = watchdog();
    let mut command = Command::new(path("buffers"));
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");

    let all = 512 << 10;
    let took = |text: &str| -> usize {
        let writes = text.lines().filter_map(|line| line.strip_prefix("write took ")?.split_once(" of "));
        writes.map(|(n, rest)| (n.parse::<usize>().unwrap(), rest.parse::<usize>().unwrap())).fold(
            0,
            |sum, (n, rest)| {
                assert_eq!(rest, all - sum, "{text}");
                sum + n
            },
        )
    };
    let (before, after) = text.split_once("the writer is parked\n").expect("it parks");
    let before = took(before);
    assert!(0 < before && before < all, "{text}");
    let (queues, _) = after.split_once("the peer reads on\n").expect("it reads on");
    let row = |name: &str| -> Vec<usize> {
        let row = queues.lines().find_map(|line| line.strip_prefix(name));
        row.expect("each end has a row").split_whitespace().map(|n| n.parse().unwrap()).collect()
    };
    // All that was written is in the one's send queue and in the other's receive queue.
    assert_eq!((row("writer")[0], row("reader")[1]), (0, 0), "{text}");
    assert!(row("writer")[1] > 0 && row("reader")[0] > 0, "{text}");
    assert_eq!(row("writer")[1] + row("reader")[0], before, "{text}");
    assert_eq!(took(&text), all);
    assert_eq!(text.lines().last(), Some("the peer has read 524288 bytes"));
}
