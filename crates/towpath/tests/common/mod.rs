//! What the tests share: a body is run as a task on every poller and as a plain thread, under a watchdog that says what
//! everybody waits for before it ends the process; and the sockets and peers that most bodies begin with.
//!
//! Nothing here waits for a time to pass: [`until`] waits for a condition that no event tells of, and whatever waits
//! for ever ends with the watchdog. The peers are std's where the kernel's own answer is wanted.

#![allow(dead_code, reason = "each test file is compiled with the whole of it, and uses its part")]

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use towpath::net::{TcpListener, TcpStream};
use towpath::sync::channel;
use towpath::task::{self, JoinHandle};
use towpath::{PollerKind, Runtime};

/// After this a test has failed. Long, for machines that are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The pollers that bodies run on: the one that the environment names, else all.
pub(crate) fn pollers() -> Vec<PollerKind> {
    match env::var("TOWPATH_POLLER") {
        Ok(name) => vec![name.parse().expect("TOWPATH_POLLER names a poller")],
        Err(_) => vec![PollerKind::Os, PollerKind::Uring],
    }
}

/// Runs `body` as a task of a fresh runtime, for each poller with one worker and with two, and has it leave no task
/// behind.
pub(crate) fn on_each_poller(body: impl Fn() + Send + Sync + 'static) {
    let body = Arc::new(body);
    for poller in pollers() {
        for workers in [1, 2] {
            let built = Runtime::builder().workers(workers).poller(poller).build();
            let runtime = Arc::new(built.expect("the system has threads and pollers"));
            if runtime.poller() != poller {
                skip(&format!("this system has no poller \"{poller}\""));
                continue;
            }
            let watchdog = Watchdog::over(format!("poller {poller}, workers {workers}"), Some(runtime.clone()));
            let body = body.clone();
            runtime.run(move || body());
            runtime.run(|| until(|| task::dump().tasks().len() == 1));
            drop(watchdog);
            let runtime = Arc::into_inner(runtime).expect("the watchdog was the only other owner");
            runtime.shutdown(PATIENCE).expect("no task is left");
        }
    }
}

/// Runs `body` as [`on_each_poller`] does, and then on a plain thread: what it spawns there are tasks of the default
/// runtime.
pub(crate) fn on_tasks_and_threads(body: impl Fn() + Send + Sync + 'static) {
    let body = Arc::new(body);
    on_each_poller({
        let body = body.clone();
        move || body()
    });
    let _watchdog = watchdog();
    body();
}

/// Ends the process after [`PATIENCE`] with a list of what the default runtime's tasks wait for, unless it is dropped
/// before.
pub(crate) fn watchdog() -> Watchdog {
    Watchdog::over("plain thread".to_owned(), None)
}

/// What ends a test that waits for ever; see [`watchdog`].
#[must_use = "a watchdog watches until it is dropped"]
pub(crate) struct Watchdog {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watchdog {
    /// Over the tasks of `runtime`, or of the default one.
    fn over(what: String, runtime: Option<Arc<Runtime>>) -> Watchdog {
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            if stopped.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                bark(&format!("{test} ({what})"), runtime.as_deref());
            }
        });
        Watchdog { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.take();
        let ended = self.thread.take().expect("joined here only").join();
        assert!(ended.is_ok(), "a watchdog does not panic");
    }
}

/// Says what everybody waits for, past the test harness, and aborts.
fn bark(test: &str, runtime: Option<&Runtime>) -> ! {
    say(&format!("{test}: still not done after {PATIENCE:?}. Its threads:"));
    threads().iter().for_each(|line| say(line));
    // Of a worker that a task holds up, this says so, and which task it is.
    let dump = runtime.map_or_else(task::dump, Runtime::dump);
    say(&format!("Its tasks:\n{dump}"));
    std::process::abort();
}

fn say(line: &str) {
    // Not `eprintln!`, which the harness keeps to itself until a test has ended.
    _ = writeln!(io::stderr(), "{line}");
}

/// The threads of this process: name, state, and the call that each is in (proc(5), `syscall`).
fn threads() -> Vec<String> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let about = |path: std::path::PathBuf| {
        let read = |name| fs::read_to_string(path.join(name)).unwrap_or_default().trim().to_owned();
        format!("  {} {}: {}", path.file_name()?.to_string_lossy(), read("comm"), read("syscall")).into()
    };
    threads.flatten().filter_map(|entry| about(entry.path())).collect()
}

/// Waits for something that no event tells of.
pub(crate) fn until(condition: impl Fn() -> bool) {
    while !condition() {
        towpath::time::sleep(Duration::from_millis(1)).expect("a test that panics does not wait");
    }
}

/// Waits until a task of this runtime (of the default one on a plain thread) waits for `operation`, as the task dump
/// names it, on the descriptor of `socket`.
pub(crate) fn until_waiting(operation: &str, socket: &impl AsFd) {
    until_waiters(1, operation, socket);
}

/// Waits until that many tasks do.
pub(crate) fn until_waiters(count: usize, operation: &str, socket: &impl AsFd) {
    let fd = socket.as_fd().as_raw_fd();
    let waits = |t: &&task::TaskInfo| t.operation() == Some(operation) && t.fd() == Some(fd);
    until(|| task::dump().tasks().iter().filter(waits).count() >= count);
}

/// Waits until the thread is blocked on a lock or a condition variable, as whoever parks a plain thread has it.
pub(crate) fn until_blocked(thread: ThreadId) {
    let path = format!("/proc/self/task/{}/syscall", thread.0);
    let futex = format!("{} ", libc::SYS_futex);
    until(|| fs::read_to_string(&path).is_ok_and(|call| call.starts_with(&futex)));
}

/// The kernel's number for a thread; see [`until_blocked`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadId(libc::pid_t);

/// Listens at an address whose listener has just been closed. A process that another test starts may hold that for a
/// moment more, until it calls exec: so try again, though not for as long as a port stays in TIME-WAIT.
pub(crate) fn listen_again(addr: SocketAddr) -> TcpListener {
    let listener = std::cell::OnceCell::new();
    until(|| match TcpListener::bind(addr) {
        Ok(bound) => listener.set(bound).is_ok(),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            false
        }
    });
    listener.into_inner().expect("it was set")
}

/// The calling thread's number.
pub(crate) fn this_thread() -> ThreadId {
    // SAFETY: the call takes nothing and only answers.
    ThreadId(unsafe { libc::gettid() })
}

/// Runs `f` on a plain thread; the handle is joined as a task's is, and the caller parks.
pub(crate) fn on_thread<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    task::spawn_blocking(f)
}

/// Who makes a call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Task,
    Thread,
}

/// Both kinds of callers.
pub(crate) const CALLERS: [Caller; 2] = [Caller::Task, Caller::Thread];

impl Caller {
    /// Has this kind of caller run `f`.
    pub(crate) fn run<T: Send + 'static>(self, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self {
            Caller::Task => towpath::spawn(f),
            Caller::Thread => on_thread(f),
        }
    }

    /// Has this kind of caller run `f`, and returns once it waits in it: a task for `operation` on the descriptor of
    /// `socket`, a thread for anything.
    pub(crate) fn wait_in<T: Send + 'static>(
        self,
        operation: &str,
        socket: &impl AsFd,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let call = self.wait_or_end_in(operation, socket, f);
        assert!(!call.is_finished(), "it was to wait in {operation}, and has ended");
        call
    }

    /// The same, for an operation on no socket.
    pub(crate) fn wait_at<T: Send + 'static>(
        self,
        operation: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let call = self.wait_or_end_at(operation, f);
        assert!(!call.is_finished(), "it was to wait in {operation}, and has ended");
        call
    }

    /// The same, for what may also have ended by then.
    pub(crate) fn wait_or_end_at<T: Send + 'static>(
        self,
        operation: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.start(operation, None, f)
    }

    /// The same, for what may also have ended by then.
    pub(crate) fn wait_or_end_in<T: Send + 'static>(
        self,
        operation: &str,
        socket: &impl AsFd,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.start(operation, Some(socket.as_fd().as_raw_fd()), f)
    }

    fn start<T: Send + 'static>(
        self,
        operation: &str,
        fd: Option<RawFd>,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        match self {
            Caller::Task => {
                let task = towpath::spawn(f);
                let id = task.task().id();
                let waits = |t: &task::TaskInfo| t.id() == id && t.operation() == Some(operation) && t.fd() == fd;
                until(|| task.is_finished() || task::dump().tasks().iter().any(waits));
                task
            }
            Caller::Thread => {
                towpath::spawn(|| ()).join().unwrap(); // the first who waits is blocked by the runtime's start as well
                let (tell, told) = channel::bounded(1);
                let thread = on_thread(move || {
                    tell.send(this_thread()).unwrap();
                    f()
                });
                until_blocked(told.recv().unwrap()); // a thread of the pool that has ended its job waits for another
                thread
            }
        }
    }
}

/// The two ends of a connection over 127.0.0.1: the one that connected, and the one that was accepted.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    assert_eq!(peer, connected.local_addr().unwrap());
    (connected, accepted)
}

/// A connection whose other end is std's. Its calls block their thread: for what is known not to wait.
pub(crate) fn pair_with_std() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (connected, listener.accept().unwrap().0)
}

/// A connection that holds little: a write of a hundred kilobytes or more does not fit in, however long the peer does
/// not read. First the end whose writes block.
pub(crate) fn narrow_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    sockopt::set_socket_send_buffer_size(&connected, 4096).unwrap();
    (connected, listener.accept().unwrap().0)
}

/// Fills up a [`narrow_pair`] until the kernel takes no more, and says how much that was. It may take some more a while
/// later, when it sends again what the peer's kernel had no room for.
pub(crate) fn fill(stream: &TcpStream) -> usize {
    let mut sent = 0;
    stream.set_nonblocking(true).unwrap();
    loop {
        match (&mut &*stream).write(&[b'.'; 1024]) {
            Ok(n) => sent += n,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                stream.set_nonblocking(false).unwrap();
                return sent;
            }
        }
    }
}

/// An address that refuses connections as long as this lives: it is bound, so nobody else gets it, and does not listen.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) addr: SocketAddr,
    _bound: OwnedFd,
}

/// A refused address on 127.0.0.1.
pub(crate) fn refused() -> Refused {
    Refused::at(Ipv4Addr::LOCALHOST.into(), 0).unwrap()
}

impl Refused {
    /// An error if the address is taken.
    pub(crate) fn at(ip: IpAddr, port: u16) -> io::Result<Refused> {
        let (bound, addr) = bound(SocketAddr::new(ip, port))?;
        Ok(Refused { addr, _bound: bound })
    }
}

fn bound(addr: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&fd, &addr)?;
    let addr = rustix::net::getsockname(&fd)?.try_into()?;
    Ok((fd, addr))
}

/// An address that does not answer: a listener whose queue is full, so that the kernel drops what asks to connect.
#[derive(Debug)]
pub(crate) struct Silent {
    pub(crate) addr: SocketAddr,
    listener: std::net::TcpListener,
    _queued: std::net::TcpStream,
}

impl Silent {
    /// An address of 127.0.0.1 or ::1; an error if the port is taken.
    pub(crate) fn at(ip: IpAddr, port: u16) -> io::Result<Silent> {
        let (fd, addr) = bound(SocketAddr::new(ip, port))?;
        rustix::net::listen(&fd, 0)?; // one connection fits a queue of none
        let queued = std::net::TcpStream::connect(addr)?;
        let listener = std::net::TcpListener::from(fd);
        until(|| has_event(&listener));
        Ok(Silent { addr, listener, _queued: queued })
    }

    /// How many connect to the address at this moment and have no answer (proc(5), `net/tcp`: state SYN_SENT). A socket that
    /// was closed may live on for a moment, in a process that another test starts and that has yet to call exec.
    pub(crate) fn asking(&self) -> usize {
        connections_to(self.addr, "02")
    }

    /// Makes room in the queue: whoever asks gets an answer when its kernel asks again, a second after the first time.
    pub(crate) fn speak(self) -> std::net::TcpListener {
        self.listener.accept().unwrap();
        self.listener
    }
}

/// How many sockets of this machine have that peer and state, by the numbers of proc(5)'s `net/tcp`. A row may be there twice,
/// or not at all, when others come and go.
fn connections_to(peer: SocketAddr, state: &str) -> usize {
    let table = fs::read_to_string(if peer.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" }).unwrap();
    let bytes = match peer.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().expect("four")));
    let peer = format!("{}:{:04X}", words.map(|word| format!("{word:08X}")).collect::<String>(), peer.port());
    let local = |line: &'_ str| -> Option<String> {
        let columns: Vec<_> = line.split_ascii_whitespace().collect();
        (columns.get(2..4)? == [&*peer, state]).then(|| columns[1].to_owned())
    };
    table.lines().filter_map(local).collect::<HashSet<_>>().len()
}

/// Whether the kernel has something for whoever reads or accepts on the descriptor: asked without taking it.
pub(crate) fn has_event(fd: &impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0
}

/// Something at ::1 and something at 127.0.0.1, of the same port.
pub(crate) fn on_both_families<A, B>(
    first: impl Fn(IpAddr, u16) -> io::Result<A>,
    second: impl Fn(IpAddr, u16) -> io::Result<B>,
) -> (A, B) {
    let (v6, v4) = (IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST));
    loop {
        let port = Refused::at(v6, 0).unwrap().addr.port();
        if let (Ok(a), Ok(b)) = (first(v6, port), second(v4, port)) {
            return (a, b);
        }
    }
}

/// The variable that tells a child of [`alone`] which test it is.
const ALONE: &str = "TOWPATH_TEST_ALONE";

/// Runs `body` in a process of its own, for tests of what all threads of a process share: limits, signals, the table
/// of descriptors. `name` is the test's, whose first and only act this is.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if is_alone(name) {
        let _watchdog = watchdog();
        return body();
    }
    must_pass(child(name, &[]));
}

/// Whether this process was started for the test of that name alone.
pub(crate) fn is_alone(name: &str) -> bool {
    env::var_os(ALONE).is_some_and(|alone| alone == name)
}

/// The command that runs the test of that name alone, as arguments of `under` if that is not empty.
pub(crate) fn child(name: &str, under: &[&str]) -> Command {
    let this = env::current_exe().unwrap();
    let mut command = match under {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(ALONE, name).stdin(Stdio::null());
    command
}

/// Runs a [`child`] to its end and returns what it printed.
pub(crate) fn must_pass(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    assert!(text.contains("1 passed"), "{command:?} ran no test:\n{text}");
    text
}

/// Runs `body` alone in a process that strace watches with `options`, and returns what strace wrote; `None` if the caller
/// is that process and has run it, or there is no strace.
pub(crate) fn traced(name: &str, options: &[&str], body: impl FnOnce()) -> Option<String> {
    if is_alone(name) {
        let _watchdog = watchdog();
        body();
        return None;
    }
    if !has_strace() {
        return None;
    }
    let trace = format!("{}/{name}.{}.strace", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let mut under = vec!["strace", "-f", "-qq", "-o", &trace];
    under.extend(options);
    must_pass(child(name, &under));
    let text = fs::read_to_string(&trace).unwrap();
    fs::remove_file(&trace).unwrap();
    Some(text)
}

/// Runs `body` alone in a process with a network of its own, which has nothing but a loopback interface and whose
/// settings under `/proc/sys/net` may be changed.
pub(crate) fn alone_in_a_network(name: &str, body: impl FnOnce()) {
    if is_alone(name) {
        let _watchdog = watchdog();
        loopback_up();
        return body();
    }
    let own_network = ["unshare", "--map-root-user", "--net"];
    let works = Command::new(own_network[0]).args(&own_network[1..]).arg("true").output();
    match works {
        Ok(output) if output.status.success() => drop(must_pass(child(name, &own_network))),
        Ok(_) => skip("this system gives no network namespaces"),
        Err(error) => skip(&format!("unshare does not start: {error}")),
    }
}

/// What `ip link set lo up` does.
fn loopback_up() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut name = [0; libc::IFNAMSIZ];
    name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    let up = libc::__c_anonymous_ifr_ifru { ifru_flags: libc::IFF_UP as libc::c_short };
    let request = libc::ifreq { ifr_name: name, ifr_ifru: up };
    // SAFETY: the request names an interface and its flags, as netdevice(7) has it, and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Says that a test cannot be made on this machine, and fails where no skip is allowed.
pub(crate) fn skip(why: &str) {
    say(&format!("skipped: {why}"));
    assert!(env::var_os("TOWPATH_NO_SKIP").is_none(), "TOWPATH_NO_SKIP is set, and {why}");
}

/// Whether strace works here; says so if not, as [`skip`] does.
pub(crate) fn has_strace() -> bool {
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    match traced {
        Err(error) if error.kind() == io::ErrorKind::NotFound => skip("strace is not installed"),
        Err(error) => skip(&format!("strace does not start: {error}")),
        Ok(output) if !output.status.success() => skip("strace may not trace here"),
        Ok(_) => return true,
    }
    false
}

/// The open descriptors of this process.
pub(crate) fn descriptors() -> Vec<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().parse().unwrap());
    let mut numbers: Vec<RawFd> = numbers.collect();
    // One of them was the directory's own.
    numbers.retain(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    numbers.sort_unstable();
    numbers
}

/// Sets how many descriptors this process may have: only in a test that is [`alone`].
pub(crate) fn limit_descriptors(limit: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum }).unwrap();
}

/// `recv` into a buffer of `len` bytes, on a descriptor that is not ours, without waiting.
pub(crate) fn recv_now(socket: &impl AsFd, len: usize) -> io::Result<Vec<u8>> {
    let mut buf = vec![0; len];
    let (_, received) = rustix::net::recv(socket, &mut buf[..], rustix::net::RecvFlags::DONTWAIT)?;
    buf.truncate(received);
    Ok(buf)
}

/// Ends the connection by a reset in place of a FIN: what a peer that vanishes leaves behind.
pub(crate) fn reset(stream: std::net::TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// The text `n` times over, for streams whose bytes can be told apart.
pub(crate) fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8).wrapping_add(seed)).collect()
}
