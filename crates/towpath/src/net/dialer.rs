//! [`Dialer`]: connecting with a timeout, to a name with several addresses, and errors that say what was tried.

#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::addr::{dial_addrs, this_host};
use super::error::closed;
use super::socket::Handle;
use super::{Op, OpError, SocketAddr, TcpStream, ToSocketAddrs, sys};
use crate::is_cancelled;
use crate::runtime;
use crate::sync::channel::{self, Receiver, RecvTimeoutError, Sender};
use crate::time::{Duration, Instant};

/// How long the first family has for itself (RFC 8305, Connection Attempt Delay).
const SECOND_FAMILY_AFTER: Duration = Duration::from_millis(250);
/// The least time for each of several addresses, as long as there is that much.
const LEAST: Duration = Duration::from_secs(2);
/// Connections made again, at most, because the one made was to itself or found no local port.
const AGAIN: usize = 2;

/// Connects, within a timeout over everything, and names in its errors what was tried.
///
/// Its connections have TCP_NODELAY on: what is written is sent at once.
///
/// ```
/// use towpath::net::Dialer;
/// use towpath::time::Duration;
///
/// # let bound = towpath::net::TcpListener::bind("127.0.0.1:0")?;
/// # let addr = bound.local_addr()?.to_string();
/// let stream = Dialer::new().timeout(Duration::from_secs(5)).dial(&addr)?;
/// # drop((stream, bound));
/// let error = Dialer::new().dial(&addr).unwrap_err();
/// assert_eq!(error.to_string(), format!("dial tcp {addr}: connect: connection refused"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Dialer {
    timeout: Option<Duration>,
    nodelay: bool,
}

impl Default for Dialer {
    fn default() -> Dialer {
        Dialer { timeout: None, nodelay: true }
    }
}

impl Dialer {
    /// A dialer without a timeout: the system's own is about two minutes an address (tcp(7), tcp_syn_retries).
    pub fn new() -> Dialer {
        Dialer::default()
    }

    /// What connects as [`TcpStream::connect`] does.
    pub(super) fn plain() -> Dialer {
        Dialer { timeout: None, nodelay: false }
    }

    /// Sets the time for everything together: the lookup and each address that is tried.
    #[must_use = "a dialer does nothing until `dial`"]
    pub fn timeout(mut self, timeout: Duration) -> Dialer {
        self.timeout = Some(timeout);
        self
    }

    /// Connects to the first of the addresses that answers: both families are tried, the second 250 ms after the first or
    /// as soon as that has failed, and the loser is closed (RFC 8305).
    ///
    /// # Errors
    /// An [`OpError`] inside an `io::Error` of the same kind: what was tried, at which address, and what the first address
    /// of the first family gave; `TimedOut` when the time was over first. `InvalidInput` for what is no address.
    pub fn dial(&self, addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        self.connect(addr).map_err(Failure::named)
    }

    pub(super) fn connect(&self, addr: impl ToSocketAddrs) -> Result<TcpStream, Failure> {
        let deadline = self.timeout.map(Instant::after);
        let addrs = dial_addrs(addr, deadline).map_err(Failure::of_lookup)?;
        let first_is_v4 = addrs[0].is_ipv4();
        let (first, second): (Vec<_>, Vec<_>) = addrs.into_iter().partition(|addr| addr.is_ipv4() == first_is_v4);
        let stream = match second.is_empty() {
            true => connect_in_turn(&first, deadline, None)?,
            false => race(first, second, deadline)?,
        };
        if self.nodelay {
            _ = stream.set_nodelay(true); // the connection is as good without
        }
        Ok(stream)
    }
}

/// What a connection came to nothing by.
#[derive(Debug)]
pub(super) struct Failure {
    /// What was tried and the step that failed; `None` if the error says so itself.
    at: Option<(SocketAddr, &'static str)>,
    source: io::Error,
}

impl Failure {
    fn of_lookup(source: io::Error) -> Failure {
        Failure { at: None, source }
    }

    /// The error as the kernel gave it.
    pub(super) fn into_source(self) -> io::Error {
        self.source
    }

    fn named(self) -> io::Error {
        match self.at {
            Some(_) if is_cancelled(&self.source) => self.source,
            Some((addr, step)) => OpError::new(Op::Dial, addr, Some(step), self.source).into(),
            None => self.source,
        }
    }
}

/// A socket that connects, for another task to call off.
#[derive(Debug, Default)]
struct Attempt {
    state: Mutex<(bool, Option<Handle>)>,
}

impl Attempt {
    /// Takes note of the socket. Fails if the attempt has been called off.
    fn begin(&self, socket: &Handle) -> io::Result<()> {
        let (called_off, current) = &mut *self.state.lock().expect("no code of the user's runs under this lock");
        if *called_off {
            return Err(closed());
        }
        *current = Some(socket.clone());
        Ok(())
    }

    /// Lets go of the socket: it is connected, or has failed.
    fn end(&self) {
        self.state.lock().expect("no code of the user's runs under this lock").1 = None;
    }

    fn call_off(&self) {
        let mut state = self.state.lock().expect("no code of the user's runs under this lock");
        state.0 = true;
        let socket = state.1.take();
        drop(state);
        if let Some(socket) = socket {
            _ = socket.close(); // it may have failed by itself
        }
    }
}

type Report = (bool, Result<TcpStream, Failure>);

/// Tries both families, the second when the first has had its time or has failed.
fn race(first: Vec<SocketAddr>, second: Vec<SocketAddr>, deadline: Option<Instant>) -> Result<TcpStream, Failure> {
    let named = first[0];
    runtime::ensure().map_err(|source| Failure { at: None, source })?;
    let (report, reports) = channel::bounded(2);
    let attempts = [Arc::new(Attempt::default()), Arc::new(Attempt::default())];
    start(true, first, deadline, &attempts[0], report.clone());
    let early = reports.recv_timeout(SECOND_FAMILY_AFTER);
    let result = match early {
        Ok((_, Ok(stream))) => Ok(stream),
        Err(RecvTimeoutError::Cancelled(cancelled)) => {
            Err(Failure { at: Some((named, "connect")), source: cancelled.into() })
        }
        Ok((_, Err(failure))) => {
            start(false, second, deadline, &attempts[1], report);
            settle(&reports, Some(failure), 1, named)
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            start(false, second, deadline, &attempts[1], report);
            settle(&reports, None, 2, named)
        }
    };
    attempts.iter().for_each(|attempt| attempt.call_off());
    result
}

fn start(
    is_first: bool,
    addrs: Vec<SocketAddr>,
    deadline: Option<Instant>,
    attempt: &Arc<Attempt>,
    report: Sender<Report>,
) {
    let attempt = attempt.clone();
    drop(crate::spawn(move || {
        let result = connect_in_turn(&addrs, deadline, Some(&attempt));
        _ = report.send((is_first, result)); // nobody listens once the other family has won; then the connection closes
    }));
}

/// Takes the first success of the families that are still trying, or the failure of the first family.
fn settle(
    reports: &Receiver<Report>,
    mut failure: Option<Failure>,
    trying: usize,
    named: SocketAddr,
) -> Result<TcpStream, Failure> {
    for _ in 0..trying {
        match reports.recv() {
            Ok((_, Ok(stream))) => return Ok(stream),
            Ok((is_first, Err(error))) if is_first || failure.is_none() => failure = Some(error),
            Ok(_) => {}
            Err(error) => return Err(Failure { at: Some((named, "connect")), source: io::Error::other(error) }),
        }
    }
    Err(failure.expect("a family that does not connect says why"))
}

/// Tries one address after the other; the error is the first one's.
fn connect_in_turn(
    addrs: &[SocketAddr],
    deadline: Option<Instant>,
    attempt: Option<&Attempt>,
) -> Result<TcpStream, Failure> {
    let mut first_failure = None;
    for (i, addr) in addrs.iter().enumerate() {
        let limit = deadline.map(|deadline| share(deadline, addrs.len() - i));
        match try_one(addr, limit, attempt) {
            Ok(stream) => return Ok(stream),
            Err(failure) => first_failure.get_or_insert(failure),
        };
    }
    Err(first_failure.expect("there is an address, or looking for them has failed"))
}

/// When to give up the first of `left` addresses: each gets an equal part of the time, but not too little.
fn share(deadline: Instant, left: usize) -> Instant {
    let now = Instant::now();
    let part = deadline.duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
    deadline.min(now + part.max(LEAST))
}

/// Connects to one address, or to this host where it is the unspecified one.
pub(super) fn connect_to(addr: &SocketAddr, limit: Option<Instant>) -> io::Result<TcpStream> {
    let addrs: Vec<_> = this_host(*addr).collect();
    connect_in_turn(&addrs, limit, None).map_err(Failure::into_source)
}

fn try_one(addr: &SocketAddr, limit: Option<Instant>, attempt: Option<&Attempt>) -> Result<TcpStream, Failure> {
    let at = |step| move |source| Failure { at: Some((*addr, step)), source };
    let mut left = AGAIN;
    loop {
        let socket = Handle::new(sys::socket(addr).map_err(at("socket"))?);
        if let Some(attempt) = attempt {
            attempt.begin(&socket).map_err(at("connect"))?;
        }
        let connected = socket.connect(addr, limit);
        if let Some(attempt) = attempt {
            attempt.end();
        }
        // The kernel picked the local port: it may have picked the very one we connect to, or one that was just taken.
        let again = match &connected {
            Ok(()) => is_self_connected(&socket),
            Err(error) => Errno::from_io_error(error) == Some(Errno::ADDRNOTAVAIL),
        };
        if !again || left == 0 {
            return connected.map(|()| TcpStream::from_handle(socket)).map_err(at("connect"));
        }
        left -= 1;
    }
}

fn is_self_connected(socket: &Handle) -> bool {
    match (sys::local_addr(socket.fd()), sys::peer_addr(socket.fd())) {
        (Ok(local), Ok(peer)) => local == peer,
        _ => false,
    }
}
