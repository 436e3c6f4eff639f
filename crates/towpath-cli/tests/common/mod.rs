//! Programs under test, as somebody at a keyboard sees them: lines come, lines are typed, it exits.
//!
//! Nothing here waits for a time to pass. Everything waits for a line or an exit, and gives up after [`PATIENCE`] with
//! what it waited for and all that was printed so far.

#![allow(dead_code, reason = "each test file is compiled with the whole of it, and uses its part")]

pub(crate) mod terminal;

use std::ffi::OsStr;
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Pid, Signal, kill_process};
use towpath_diag::{Diag, Filter, Want};

/// After this a test has failed. Long, for machines that are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A listener at a port that no earlier connection still has: they stay in TIME-WAIT for a minute, and would be seen.
pub(crate) fn fresh_listener(address: &str) -> TcpListener {
    loop {
        let listener = TcpListener::bind(address).unwrap();
        let port = Filter::new().port(listener.local_addr().unwrap().port());
        if Diag::open().unwrap().sockets(&port, Want::empty()).unwrap().len() == 1 {
            return listener;
        }
    }
}

/// The binary under test.
pub(crate) const TOWPATH: &str = env!("CARGO_BIN_EXE_towpath");

/// The binary under test, copied to `path`. By a process of its own: a descriptor that is written by, and that a child of
/// another test has for a moment, would keep everybody from running the copy.
pub(crate) fn copy_to(path: &Path) {
    let copied = Command::new("cp").arg(TOWPATH).arg(path).status().unwrap();
    assert!(copied.success(), "{}: {copied}", path.display());
}

/// A program that runs.
pub(crate) struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    pieces: Receiver<(Stream, Vec<u8>)>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// What `wait_for` has not looked at yet: both streams, line by line.
    unread: Vec<(Stream, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// A finished program.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `towpath` with `arguments`, in an environment that does not depend on the tester's.
pub(crate) fn towpath<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(TOWPATH);
    command.args(arguments);
    settle(&mut command);
    command
}

/// `sh -c script`, in which `$TOWPATH` is the binary under test.
pub(crate) fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("TOWPATH", TOWPATH);
    settle(&mut command);
    command
}

pub(crate) fn settle(command: &mut Command) {
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env_remove("NO_COLOR");
}

/// Runs `towpath` to its end, with nothing to read.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Finished {
    let mut running = Running::start(towpath(arguments));
    running.end_input();
    running.finish()
}

/// `towpath serve` at a port of this machine that the system chose.
pub(crate) fn serve(options: &[&str]) -> (Running, SocketAddr) {
    let mut server = Running::start(towpath(["serve", "127.0.0.1:0"].iter().chain(options)));
    let addr = server.address();
    (server, addr)
}

/// `towpath dial` to `addr`.
pub(crate) fn dial(addr: SocketAddr, options: &[&str]) -> Running {
    let addr = addr.to_string();
    Running::start(towpath(["dial", &addr].iter().chain(options)))
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let name = format!("{:?} {:?}", command.get_program(), command.get_args().collect::<Vec<_>>());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let (send, pieces) = channel();
        forward(Stream::Stdout, child.stdout.take().unwrap(), send.clone());
        forward(Stream::Stderr, child.stderr.take().unwrap(), send);
        let stdin = child.stdin.take();
        Running { name, child, stdin, pieces, stdout: vec![], stderr: vec![], unread: vec![] }
    }

    /// The address that `serve` says it listens at.
    pub(crate) fn address(&mut self) -> SocketAddr {
        let line = self.wait_for("listening on ");
        let after = line.split("listening on ").nth(1).unwrap();
        after.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The next line with `text` in it, from either stream. Lines before it on that stream are passed over for good; of
    /// two streams nobody knows which line came first.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.unread.iter().position(|(_, line)| line.contains(text)) {
                let (stream, line) = self.unread.remove(at);
                let mut later = self.unread.split_off(at);
                self.unread.retain(|(other, _)| *other != stream);
                self.unread.append(&mut later);
                return line;
            }
            if !self.receive(deadline) {
                self.give_up(format_args!("a line with {text:?}"));
            }
        }
    }

    /// Types `text`.
    #[track_caller]
    pub(crate) fn type_in(&mut self, text: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("the input was ended");
        stdin.write_all(text.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
    }

    /// Ctrl-D.
    pub(crate) fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs, or nobody has waited for it");
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has exited.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the exit, with stdin as it is: open, unless it was ended.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE;
        while self.receive(deadline) {}
        // Both streams are at their end, so the exit is all but there.
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => self.give_up(format_args!("its exit")),
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        Finished {
            code: status.code(),
            signal: status.signal(),
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
        }
    }

    /// What it wrote to stdout so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What was printed in all, as far as it was waited for.
    pub(crate) fn everything(&self) -> String {
        format!("{}{}", self.stdout(), String::from_utf8_lossy(&self.stderr))
    }

    /// The same, with what has come meanwhile.
    pub(crate) fn everything_by_now(&mut self) -> String {
        while let Ok(piece) = self.pieces.try_recv() {
            self.keep(piece);
        }
        self.everything()
    }

    /// One more line; false at the end of both streams, or at the deadline.
    #[track_caller]
    fn receive(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.pieces.recv_timeout(left) {
            Ok(piece) => {
                self.keep(piece);
                true
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => false,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => self.give_up(format_args!("more output")),
        }
    }

    fn keep(&mut self, (stream, line): (Stream, Vec<u8>)) {
        self.unread.push((stream, String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()));
        match stream {
            Stream::Stdout => self.stdout.extend(line),
            Stream::Stderr => self.stderr.extend(line),
        }
    }

    #[track_caller]
    fn give_up(&mut self, what: std::fmt::Arguments<'_>) -> ! {
        let _ = self.child.kill();
        let status = self.child.wait();
        panic!(
            "{}: waited for {what}\n--- stdout\n{}--- stderr\n{}--- {status:?}",
            self.name,
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr),
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on what a program prints, line by line; also a last one without an end.
fn forward(stream: Stream, from: impl Read + Send + 'static, to: Sender<(Stream, Vec<u8>)>) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let mut line = Vec::new();
            match from.read_until(b'\n', &mut line) {
                Ok(1..) if to.send((stream, line)).is_ok() => {}
                _ => return,
            }
        }
    });
}

impl Finished {
    /// That it exited with `code`, saying what it said if not.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Finished {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}

/// That `text` has `part` in it.
#[track_caller]
pub(crate) fn assert_has(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in:\n{text}");
}

/// Runs `f` on a thread and waits for it no longer than [`PATIENCE`]: the other side of a conversation.
#[track_caller]
pub(crate) fn within_patience<T: Send + Debug + 'static>(what: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = channel();
    thread::spawn(move || send.send(f()));
    match receive.recv_timeout(PATIENCE) {
        Ok(value) => value,
        Err(e) => panic!("waited for {what}: {e}"),
    }
}

/// Connections to a listener, on and on until it is dropped: opened, and reset by the client, so that nothing of them stays.
pub(crate) struct Bustle {
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Bustle {
    pub(crate) fn at(listener: &TcpListener) -> Bustle {
        let over = Arc::new(AtomicBool::new(false));
        let threads = [(); 3].map(|()| {
            let (over, listener) = (Arc::clone(&over), listener.try_clone().unwrap());
            thread::spawn(move || {
                let addr = listener.local_addr().unwrap();
                while !over.load(Ordering::Relaxed) {
                    let client = TcpStream::connect(addr).unwrap();
                    // Somebody's: there are as many as there are clients.
                    drop(listener.accept().unwrap());
                    set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
                    // The kernel tells whoever watches other ports of some of this too: so much that it may lose what it is for.
                    thread::sleep(Duration::from_micros(200));
                }
            })
        });
        Bustle { over, threads: threads.into() }
    }
}

impl Drop for Bustle {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Whether a tool that a test needs is missing. Says so; and where nothing may be skipped, fails.
#[track_caller]
pub(crate) fn skipped(missing: Option<&str>) -> bool {
    let Some(why) = missing else { return false };
    assert!(std::env::var_os("TOWPATH_NO_SKIP").is_none(), "nothing may be skipped, but {why}");
    println!("skipped: {why}");
    true
}

/// Why `tool` cannot be used: it is not there.
pub(crate) fn missing(tool: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    (!found).then(|| format!("{tool} is not installed"))
}
