//! A test in namespaces of its own, where nobody else's segments pass, interfaces are its to take down and file systems its to
//! mount: the test starts itself again there. It needs root, or a system that lets people have user namespaces.

#![allow(dead_code, reason = "each test file is compiled with the whole of it, and uses its part")]

use std::env;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::{PATIENCE, Running, missing, skipped, towpath};

/// Runs `test`, whose name is `name`, apart from all other traffic, with its loopback up.
pub(crate) fn apart(name: &str, test: impl FnOnce()) {
    if env::var_os("TOWPATH_APART").is_some() {
        return test();
    }
    let why = ["unshare", "ip"].into_iter().find_map(missing).or_else(|| {
        let tried = unshare().arg("true").output().unwrap();
        (!tried.status.success()).then(|| format!("no namespace: {}", String::from_utf8_lossy(&tried.stderr).trim()))
    });
    if skipped(why.as_deref()) {
        return;
    }
    let script = r#"ip link set lo up && exec "$0" "$@""#;
    let test = env::current_exe().unwrap();
    let mut inside = unshare();
    inside.args(["sh", "-c", script]).arg(test).args(["--exact", name, "--nocapture", "--test-threads=1"]);
    let done = inside.env("TOWPATH_APART", "1").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{err}");
    // A name that no test has would pass by doing nothing.
    assert!(out.contains("1 passed"), "{out}{err}");
    print!(
        "{}",
        out.lines().filter(|line| line.contains("skipped:")).map(|line| format!("{line}\n")).collect::<String>()
    );
}

/// Root stays root, who may use the kernel's tracepoints; others become it in a user namespace.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount"]);
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare
}

/// Whether the test may use the tracepoints of the kernel that everybody shares.
pub(crate) fn has_tracepoints() -> bool {
    std::path::Path::new("/sys/kernel/tracing/events/sock/inet_sock_set_state").exists()
}

/// A trace of loopback that has begun.
pub(crate) fn trace(options: &[&str]) -> Running {
    let mut trace = Running::start(towpath(["trace", "-i", "lo"].iter().chain(options)));
    trace.wait_for("tracing");
    trace
}

/// A listener of this machine's, and where it is.
pub(crate) fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Both ends of a new connection: the client's, the server's.
pub(crate) fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (client, server)
}

/// The objects of a trace with `--json`.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A file of this test's.
pub(crate) fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("towpath-{}-{name}", std::process::id()))
}

/// Runs a command that has to work.
pub(crate) fn do_it(command: &str, words: &str) {
    let done = Command::new(command).args(words.split(' ')).output().unwrap();
    assert!(done.status.success(), "{command} {words}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Has the resolver ask somebody who never answers: the socket that it asks.
pub(crate) fn silent_resolver() -> UdpSocket {
    let etc = scratch("etc");
    std::fs::create_dir_all(&etc).unwrap();
    std::fs::write(etc.join("nsswitch.conf"), "hosts: dns\n").unwrap();
    std::fs::write(etc.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n").unwrap();
    do_it("mount", &format!("--bind {} /etc", etc.display()));
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
