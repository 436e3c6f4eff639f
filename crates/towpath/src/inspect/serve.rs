//! The thread that answers at the endpoint, whoever connects and whatever is sent.
//!
//! ```text
//! accept ──▶ is it our user, or root? ──▶ a thread for it: reads a line, makes a dump, writes it, closes
//! ```
//!
//! Nobody can hold it up: a request is short and comes soon or never, an answer is read as it is written or ends, and of the
//! few connections that are served at once, the one that has not moved for longest makes room for a new one.

#![forbid(unsafe_code)]

use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use tinyjson::JsonValue;

use super::{lock, peer};
use crate::runtime::{Shared, block_signals};
use crate::task::{JSON_VERSION, TaskDump};

/// Connections that are served at once.
const MOST: usize = 16;
/// A request's bytes, at most.
const REQUEST: usize = 4096;
/// How long a request may take to come, and a reader to make room for more of the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer may take to be read.
const ANSWER: Duration = Duration::from_secs(60);
/// How long to let be after no descriptor or thread was to be had.
const BACK_OFF: Duration = Duration::from_millis(100);

pub(super) struct Server {
    listener: UnixListener,
    runtimes: Arc<Mutex<Vec<Weak<Shared>>>>,
    over: AtomicBool,
    served: Mutex<Vec<Arc<Connection>>>,
    /// One of `served` has gone.
    gone: Condvar,
    /// One dump at a time, whatever is asked.
    dumping: Mutex<()>,
}

struct Connection {
    stream: UnixStream,
    /// When something last came of it.
    moved: Mutex<Instant>,
}

impl Server {
    pub(super) fn start(listener: UnixListener, runtimes: Arc<Mutex<Vec<Weak<Shared>>>>) -> io::Result<Arc<Server>> {
        let server = Arc::new(Server {
            listener,
            runtimes,
            over: AtomicBool::new(false),
            served: Mutex::default(),
            gone: Condvar::new(),
            dumping: Mutex::default(),
        });
        let own = server.clone();
        thread::Builder::new().name("towpath-inspect".to_owned()).spawn(move || own.run())?;
        Ok(server)
    }

    /// Ends it all, also for those who share the sockets by a fork(2).
    pub(super) fn stop(&self) {
        self.over.store(true, Ordering::Release);
        _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        lock(&self.served).iter().for_each(|connection| connection.end());
        self.gone.notify_all();
    }

    fn run(self: Arc<Self>) {
        block_signals();
        while !self.over.load(Ordering::Acquire) {
            match self.listener.accept() {
                Ok((stream, _)) if admitted(&stream) => self.serve(stream),
                Ok((stream, _)) => refuse(&stream),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(_) if self.over.load(Ordering::Acquire) => {}
                Err(_) => thread::sleep(BACK_OFF), // of descriptors or memory there may be more by then
            }
        }
    }

    /// Serves a connection on a thread of its own, once there is room for one more.
    fn serve(self: &Arc<Self>, stream: UnixStream) {
        let connection = Arc::new(Connection { stream, moved: Mutex::new(Instant::now()) });
        let mut served = lock(&self.served);
        while served.len() >= MOST && !self.over.load(Ordering::Acquire) {
            let stillest = served.iter().min_by_key(|connection| *lock(&connection.moved));
            stillest.into_iter().for_each(|connection| connection.end());
            // One that makes a dump ends when that is done; by then another may have.
            let waited = self.gone.wait_timeout(served, BACK_OFF).unwrap_or_else(PoisonError::into_inner);
            served = waited.0;
        }
        served.push(connection.clone());
        drop(served);
        let (server, own) = (self.clone(), connection.clone());
        let thread = thread::Builder::new().name("towpath-inspect".to_owned()).spawn(move || {
            block_signals();
            _ = server.answer(&own); // whoever asked has gone, or does not read
            server.release(&own);
        });
        if thread.is_err() {
            self.release(&connection);
            thread::sleep(BACK_OFF);
        }
    }

    fn release(&self, connection: &Arc<Connection>) {
        connection.end();
        lock(&self.served).retain(|other| !Arc::ptr_eq(other, connection));
        self.gone.notify_all();
    }

    fn answer(&self, connection: &Connection) -> io::Result<()> {
        let backtraces = match connection.request()? {
            Ok(backtraces) => backtraces,
            Err(wrong) => return connection.say(&wrong),
        };
        connection.has_moved();
        let dump = {
            let _one_at_a_time = lock(&self.dumping);
            let runtimes = lock(&self.runtimes).iter().filter_map(Weak::upgrade).collect();
            let dump = TaskDump::take(runtimes);
            if backtraces { dump.with_backtraces() } else { dump }
        };
        connection.has_moved();
        connection.stream.set_write_timeout(Some(PATIENCE))?;
        let answer = Answer { connection, until: Instant::now() + ANSWER };
        let mut answer = BufWriter::with_capacity(64 << 10, answer);
        dump.write_json(&mut answer)?;
        answer.flush()
    }
}

/// The folder lets nobody else in; this holds also where somebody has opened it to others.
fn admitted(stream: &UnixStream) -> bool {
    peer::user(stream).is_ok_and(|user| user == 0 || user == geteuid().as_raw())
}

fn refuse(stream: &UnixStream) {
    _ = stream.set_nonblocking(true); // the line fits into an empty buffer
    _ = write!(&*stream, "{}", error_line("only the user of this program and root may ask"));
    // What was asked is taken, or the end would be told as a reset; of who goes on talking, no more than this.
    _ = (&*stream).read(&mut [0; 4096]);
}

fn error_line(wrong: &str) -> String {
    format!(
        "{{\"v\":{JSON_VERSION},\"error\":{}}}\n",
        JsonValue::from(wrong.to_owned()).stringify().unwrap_or_default()
    )
}

/// What is asked: whether backtraces are wanted. What is not known is not looked at, so that there may be more to ask for.
fn parse(line: &[u8]) -> Result<bool, String> {
    let text = std::str::from_utf8(line).map_err(|_| "the request is not UTF-8".to_owned())?;
    let request: JsonValue = text.parse().map_err(|_| "the request is not JSON".to_owned())?;
    let field = |of: &JsonValue, name: &str| of.get::<std::collections::HashMap<_, _>>()?.get(name).cloned();
    let version = field(&request, "v").and_then(|v| v.get::<f64>().copied());
    if version != Some(f64::from(JSON_VERSION)) {
        return Err(format!("the request is not of version {JSON_VERSION}, which is all that is spoken here"));
    }
    let dump = field(&request, "dump").ok_or("the request asks for nothing that is known here: it has no \"dump\"")?;
    Ok(field(&dump, "backtrace").and_then(|wanted| wanted.get::<bool>().copied()).unwrap_or(false))
}

impl Connection {
    /// The request, or what is wrong with it.
    fn request(&self) -> io::Result<Result<bool, String>> {
        let until = Instant::now() + PATIENCE;
        let mut buffer = [0; REQUEST];
        let mut len = 0;
        let line = loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Err("no request came".to_owned()));
            }
            self.stream.set_read_timeout(Some(left))?;
            match (&self.stream).read(&mut buffer[len..]) {
                Ok(0) => break &buffer[..len],
                Ok(n) => {
                    let new = &buffer[len..len + n];
                    if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
                        break &buffer[..len + end];
                    }
                    len += n;
                }
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
            if len == REQUEST {
                return Ok(Err(format!("the request is longer than {REQUEST} bytes")));
            }
        };
        Ok(parse(line))
    }

    fn say(&self, wrong: &str) -> io::Result<()> {
        self.stream.set_write_timeout(Some(PATIENCE))?;
        (&self.stream).write_all(error_line(wrong).as_bytes())
    }

    fn has_moved(&self) {
        *lock(&self.moved) = Instant::now();
    }

    /// Wakes whoever reads or writes here. Not by closing: a fork(2) may have copied the descriptor.
    fn end(&self) {
        _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// An answer on its way.
struct Answer<'a> {
    connection: &'a Connection,
    until: Instant,
}

impl Write for Answer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if Instant::now() >= self.until {
            return Err(ErrorKind::TimedOut.into());
        }
        let written = (&self.connection.stream).write(bytes)?;
        self.connection.has_moved();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_have_more_in_it_than_is_known_here() {
        assert_eq!(parse(br#"{"v":1,"dump":{}}"#), Ok(false));
        assert_eq!(parse(br#" {"dump":{"backtrace":true,"ids":[1,2]},"v":1,"who":null}"#), Ok(true));
        assert_eq!(parse(br#"{"v":1,"dump":true}"#), Ok(false));
    }

    #[test]
    fn a_request_that_is_none_is_told_why() {
        for (request, why) in [
            (&b"\xff"[..], "not UTF-8"),
            (b"", "not JSON"),
            (b"GET / HTTP/1.0\r", "not JSON"),
            (b"[1]", "not of version 1"),
            (b"{\"v\":2,\"dump\":{}}", "not of version 1"),
            (b"{\"v\":1,\"kill\":{}}", "no \"dump\""),
        ] {
            let told = parse(request).expect_err("no request");
            assert!(told.contains(why), "{told}");
        }
        let deep = "[".repeat(REQUEST);
        assert!(parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn an_error_is_a_line_of_json() {
        let line = error_line("a \"quoted\" word");
        assert_eq!(line, "{\"v\":1,\"error\":\"a \\\"quoted\\\" word\"}\n");
    }
}
