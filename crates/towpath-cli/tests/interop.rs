//! The same conversations with nc (OpenBSD's), ncat and socat at either end. Where one of them is not installed its test
//! says so and passes; with TOWPATH_NO_SKIP set it fails.

mod common;

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{PATIENCE, Running, assert_has, dial, missing, serve, skipped};
use rustix::process::Signal;

/// Another program that talks TCP, and how it is told to.
struct Tool {
    name: &'static str,
    /// To connect, with `HOST` and `PORT`, and to send FIN at the end of its input.
    connect: &'static str,
    /// To listen at `HOST` and `PORT`, and say so.
    listen: &'static str,
    /// It goes on sending when we have sent FIN; the others take it for the end.
    outlives_our_fin: bool,
}

const NC: Tool = Tool { name: "nc", connect: "nc -N HOST PORT", listen: "nc -nlv HOST PORT", outlives_our_fin: false };
const NCAT: Tool =
    Tool { name: "ncat", connect: "ncat HOST PORT", listen: "ncat -nlv HOST PORT", outlives_our_fin: false };
const SOCAT: Tool = Tool {
    name: "socat",
    connect: "socat - TCP:HOST:PORT",
    listen: "socat -t 60 -d -d TCP-LISTEN:PORT,bind=HOST,reuseaddr -",
    outlives_our_fin: true,
};

impl Tool {
    fn start(&self, words: &str, addr: SocketAddr) -> Running {
        let words = words.replace("HOST", &addr.ip().to_string()).replace("PORT", &addr.port().to_string());
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        Running::start(command)
    }

    /// The tool as a server, at a port that was free a moment ago: none of them can choose one and say which. If somebody
    /// else has taken it by then, at another.
    fn server(&self) -> (Running, SocketAddr) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut server = self.start(self.listen, addr);
            let listens = |said: &str| {
                said.lines().any(|line| line.contains("istening on") && line.contains(&addr.port().to_string()))
            };
            while !server.has_ended() {
                if listens(&server.everything_by_now()) {
                    return (server, addr);
                }
                assert!(Instant::now() < deadline, "{}", server.everything_by_now());
                thread::sleep(Duration::from_millis(1));
            }
            assert_has(&server.finish().stderr, "ddress already in use");
        }
    }

    fn talks_to_serve(&self) {
        if skipped(missing(self.name).as_deref()) {
            return;
        }
        let (mut server, addr) = serve(&[]);
        let mut client = self.start(self.connect, addr);
        let time = client.wait_for(" +0000");
        assert_has(&server.wait_for("#1 send data"), &time);
        client.type_in("hello towpath\n");
        assert_eq!(server.wait_for("#1 read data"), "#1 read data 14 : hello towpath");
        client.end_input();
        assert_has(&server.wait_for("#1 closed by peer"), "in 14 B  out 36 B");
        client.finish().expect_code(0);

        let (_server, addr) = serve(&["--echo"]);
        let mut client = self.start(self.connect, addr);
        client.type_in("once more\n");
        client.wait_for("once more");
    }

    fn is_seen_off_when_serve_stops(&self) {
        if skipped(missing(self.name).as_deref()) {
            return;
        }
        let (mut server, addr) = serve(&["--drain", "1h"]);
        let mut client = self.start(self.connect, addr);
        client.wait_for(" +0000");
        server.wait_for("#1 send data");
        server.signal(Signal::TERM);
        server.wait_for("stopping; 1 conversation");
        // nc and ncat ignore the server's FIN while their input is open (a second one may find socat gone).
        client.end_input();
        client.finish().expect_code(0);
        assert_has(&server.finish().expect_code(0).stderr, "stopped; 1 finished, 0 cut");
    }

    fn answers_dial(&self) {
        if skipped(missing(self.name).as_deref()) {
            return;
        }
        let (mut server, addr) = self.server();
        let mut dial = dial(addr, &[]);
        dial.wait_for("connected");
        dial.type_in("from dial\n");
        server.wait_for("from dial");
        server.type_in("from the server\n");
        dial.wait_for("from the server");
        dial.end_input();
        if self.outlives_our_fin {
            server.type_in("and a late answer\n");
            dial.wait_for("and a late answer");
            server.end_input();
        }
        let done = dial.finish().expect_code(0);
        assert_has(&done.stderr, "server closed");
        server.finish().expect_code(0);
    }

    fn ends_dial_by_its_own_end(&self) {
        if skipped(missing(self.name).as_deref()) {
            return;
        }
        let (mut server, addr) = self.server();
        let mut dial = dial(addr, &[]);
        dial.type_in("hello\n");
        server.wait_for("hello");
        server.signal(Signal::TERM);
        // With its stdin still open.
        assert_has(&dial.finish().expect_code(0).stderr, "server closed");
    }
}

#[test]
fn nc_talks_to_serve() {
    NC.talks_to_serve();
}

#[test]
fn ncat_talks_to_serve() {
    NCAT.talks_to_serve();
}

#[test]
fn socat_talks_to_serve() {
    SOCAT.talks_to_serve();
}

#[test]
fn nc_is_seen_off_when_serve_stops() {
    NC.is_seen_off_when_serve_stops();
}

#[test]
fn ncat_is_seen_off_when_serve_stops() {
    NCAT.is_seen_off_when_serve_stops();
}

#[test]
fn socat_is_seen_off_when_serve_stops() {
    SOCAT.is_seen_off_when_serve_stops();
}

#[test]
fn nc_answers_dial() {
    NC.answers_dial();
}

#[test]
fn ncat_answers_dial() {
    NCAT.answers_dial();
}

#[test]
fn socat_answers_dial() {
    SOCAT.answers_dial();
}

#[test]
fn nc_ends_dial_by_its_own_end() {
    NC.ends_dial_by_its_own_end();
}

#[test]
fn ncat_ends_dial_by_its_own_end() {
    NCAT.ends_dial_by_its_own_end();
}

#[test]
fn socat_ends_dial_by_its_own_end() {
    SOCAT.ends_dial_by_its_own_end();
}
