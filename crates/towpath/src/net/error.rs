//! What network errors say: [`OpError`] names what was tried, and [`is_closed`] knows our own `close` from the kernel's
//! errors.
//!
//! The std-shaped calls return errors as the kernel gave them; `Dialer`, the lookup and the command line wrap them in
//! an `OpError`. The error of a call that may not wait comes from `runtime/park.rs` and is never wrapped, so that
//! `is_cancelled` knows it.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::io;

/// A failed operation on the network: what was tried, at which address, which step failed, and how.
///
/// ```
/// use towpath::net::{Dialer, Op, OpError};
///
/// let error = Dialer::new().dial("127.0.0.1:1").unwrap_err();
/// assert_eq!(error.to_string(), "dial tcp 127.0.0.1:1: connect: connection refused");
/// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
///
/// let failed: OpError = error.downcast()?;
/// assert_eq!((failed.op(), failed.addr()), (Op::Dial, "127.0.0.1:1"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct OpError {
    op: Op,
    addr: String,
    step: Option<&'static str>,
    source: io::Error,
}

/// What was tried when an [`OpError`] came back.
///
/// ```
/// use towpath::net::Op;
///
/// assert_eq!(Op::Dial.to_string(), "dial");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// To connect to a peer.
    Dial,
    /// To open a socket for connections to come to.
    Listen,
    /// To find a name's addresses.
    Lookup,
}

impl OpError {
    /// Says of `source` that it came out of `step`, the system call or other part of `op` that failed.
    ///
    /// ```
    /// use std::io;
    /// use towpath::net::{Op, OpError, TcpListener};
    ///
    /// fn listen(addr: &str) -> io::Result<TcpListener> {
    ///     TcpListener::bind(addr).map_err(|e| OpError::new(Op::Listen, addr, Some("bind"), e).into())
    /// }
    ///
    /// let first = listen("127.0.0.1:0")?;
    /// let addr = first.local_addr()?.to_string();
    /// let error = listen(&addr).unwrap_err();
    /// assert_eq!(error.to_string(), format!("listen tcp {addr}: bind: address already in use"));
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn new(op: Op, addr: impl fmt::Display, step: Option<&'static str>, source: io::Error) -> Self {
        let addr = addr.to_string();
        OpError { op, addr, step, source }
    }

    /// What was tried.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The address or name it was tried with.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// The step that failed, where there are several: `"connect"`, `"bind"`, `"socket"`.
    pub fn step(&self) -> Option<&'static str> {
        self.step
    }

    /// The kind of the error that the step returned, which is also that of an [`io::Error`] made from this.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The error number, if the step was a system call. An [`io::Error`] made from this shows none: ask here.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = if self.op == Op::Lookup { "" } else { " tcp" };
        write!(f, "{}{network} {}: ", self.op, self.addr)?;
        if let Some(step) = self.step {
            write!(f, "{step}: ")?;
        }
        f.write_str(&plain_text(&self.source))
    }
}

impl Error for OpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

impl From<OpError> for io::Error {
    fn from(error: OpError) -> io::Error {
        io::Error::new(error.kind(), error)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Dial => "dial",
            Op::Listen => "listen",
            Op::Lookup => "lookup",
        })
    }
}

/// Whether `error` came back because this side closed the socket, by any clone, before the call or while it waited.
///
/// ```
/// use towpath::net::{TcpListener, is_closed};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let _ = listener.close();
/// assert!(is_closed(&listener.accept().unwrap_err()));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn is_closed(error: &io::Error) -> bool {
    let Some(inner) = error.get_ref() else {
        return false;
    };
    inner.is::<Closed>() || inner.downcast_ref::<OpError>().is_some_and(|e| is_closed(&e.source))
}

/// The error of a call on a socket that this side has closed.
///
/// Its kind is NotConnected, as for a shutdown after the peer is gone, which callers of `shutdown` already put up with.
/// It is not BrokenPipe, which says that the *peer* left and which programs take for the quiet end of a pipe.
pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, Closed)
}

/// The error of a call whose deadline passed: the kind and no number, so that the kernel's own ETIMEDOUT (a peer that
/// does not answer) remains distinguishable. Allocates nothing.
pub(crate) fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("use of closed network connection")
    }
}

impl Error for Closed {}

/// The system's text for an error number, as part of a sentence: without the number and without a capital letter.
/// Texts that did not come from the system remain as they are.
fn plain_text(error: &io::Error) -> String {
    let mut text = error.to_string();
    let Some(number) = error.raw_os_error() else {
        return text;
    };
    if let Some(bare) = text.strip_suffix(&format!(" (os error {number})")) {
        text.truncate(bare.len());
    }
    // "I/O error" and "RPC …" keep their capitals.
    if let &[b'A'..=b'Z', b'a'..=b'z' | b' ', ..] = text.as_bytes() {
        text[..1].make_ascii_lowercase();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    fn os(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn an_error_reads_as_what_was_tried_where_and_what_came_back() {
        let no_such_host = io::Error::new(ErrorKind::NotFound, "no such host");
        for (op, addr, step, source, text) in [
            (
                Op::Dial,
                "127.0.0.1:1",
                Some("connect"),
                os(libc::ECONNREFUSED),
                "dial tcp 127.0.0.1:1: connect: connection refused",
            ),
            (
                Op::Dial,
                "10.0.0.1:1",
                Some("connect"),
                os(libc::ETIMEDOUT),
                "dial tcp 10.0.0.1:1: connect: connection timed out",
            ),
            (Op::Dial, "10.0.0.1:1", Some("connect"), timed_out(), "dial tcp 10.0.0.1:1: connect: timed out"),
            (
                Op::Dial,
                "[fe80::1]:1",
                Some("socket"),
                os(libc::EMFILE),
                "dial tcp [fe80::1]:1: socket: too many open files",
            ),
            (
                Op::Listen,
                "127.0.0.1:8330",
                Some("bind"),
                os(libc::EADDRINUSE),
                "listen tcp 127.0.0.1:8330: bind: address already in use",
            ),
            (Op::Listen, ":8330", None, closed(), "listen tcp :8330: use of closed network connection"),
            (Op::Lookup, "nosuch.example", None, no_such_host, "lookup nosuch.example: no such host"),
        ] {
            assert_eq!(OpError::new(op, addr, step, source).to_string(), text);
        }
    }

    #[test]
    fn an_io_error_made_from_it_keeps_the_kind_and_holds_the_rest() {
        let refused = OpError::new(Op::Dial, "h:1", Some("connect"), os(libc::ECONNREFUSED));
        let error = io::Error::from(refused);
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(error.raw_os_error(), None);

        let source = error.get_ref().expect("it is a wrapped error").source();
        let source: &io::Error = source.and_then(|s| s.downcast_ref()).expect("an io::Error");
        assert_eq!(source.raw_os_error(), Some(libc::ECONNREFUSED));

        let inner: OpError = error.downcast().expect("an OpError");
        assert_eq!(inner.op(), Op::Dial);
        assert_eq!(inner.addr(), "h:1");
        assert_eq!(inner.step(), Some("connect"));
        assert_eq!(inner.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(inner.raw_os_error(), Some(libc::ECONNREFUSED));
    }

    #[test]
    fn system_texts_lose_their_number_and_their_capital_and_others_remain() {
        assert_eq!(plain_text(&os(libc::EHOSTUNREACH)), "no route to host");
        assert_eq!(plain_text(&os(libc::EADDRNOTAVAIL)), "cannot assign requested address");
        assert_eq!(plain_text(&os(99_999)), "unknown error 99999");
        assert_eq!(plain_text(&io::Error::other("TLS said no (os error 1)")), "TLS said no (os error 1)");
        assert_eq!(plain_text(&ErrorKind::ConnectionReset.into()), "connection reset");
    }

    #[test]
    fn only_our_own_close_is_closed() {
        assert!(is_closed(&closed()));
        assert!(is_closed(&OpError::new(Op::Listen, ":1", None, closed()).into()));

        assert!(!is_closed(&ErrorKind::NotConnected.into()));
        assert!(!is_closed(&os(libc::EBADF)));
        assert!(!is_closed(&os(libc::ENOTCONN)));
        assert!(!is_closed(&OpError::new(Op::Dial, ":1", None, timed_out()).into()));
    }

    #[test]
    fn the_kinds_of_closed_and_timed_out_are_what_callers_match_on() {
        assert_eq!(closed().kind(), ErrorKind::NotConnected);
        assert_eq!(timed_out().kind(), ErrorKind::TimedOut);
        assert_eq!(timed_out().raw_os_error(), None);
    }
}
