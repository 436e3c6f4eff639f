//! How the command ends: the exit codes, and the failure that leads to one.
//!
//! A [`Failure`] is what a person is told when something did not work: what was tried and what came back, then what to
//! type next. Relies on the kinds that `towpath::net` gives its errors; `output` prints what is made here.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::Duration;

use towpath::net::{Op, OpError};

use crate::output::units;

/// The exit codes, the same for every subcommand. Scripts rely on them: a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The work is done. Also: a drained `serve`, and a reader of our output that has read enough.
    Done = 0,
    /// Anything that has no code of its own.
    Other = 1,
    /// The command line or the environment says something that cannot be meant.
    Usage = 2,
    /// Nothing listens at the address.
    Refused = 3,
    /// No answer within the time that was given, or that the kernel gives.
    TimedOut = 4,
    /// There is no way to the address.
    Unreachable = 5,
    /// The peer broke the connection off.
    Reset = 6,
    /// The name has no address.
    NameNotFound = 7,
    /// Another socket has the address.
    AddressInUse = 8,
    /// A check that was asked for (`--expect`) failed.
    CheckFailed = 9,
    /// The system forbids it.
    NoPermission = 77,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// The code for an error of the network's.
    pub(crate) fn of(error: &io::Error) -> Exit {
        let lookup = op_error(error).is_some_and(|e| e.op() == Op::Lookup);
        match error.kind() {
            ErrorKind::InvalidInput => Exit::Usage,
            ErrorKind::TimedOut => Exit::TimedOut,
            _ if lookup => Exit::NameNotFound,
            ErrorKind::ConnectionRefused => Exit::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => Exit::Unreachable,
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Exit::Reset,
            ErrorKind::AddrInUse => Exit::AddressInUse,
            ErrorKind::PermissionDenied => Exit::NoPermission,
            _ => Exit::Other,
        }
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What was tried, and what came back: no capital, no full stop.
    pub(crate) what: String,
    /// What to type next, as a sentence; nothing where we know nothing better.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Failure {
        Failure { exit, what: what.into(), hint: None }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }

    /// `towpath dial` could not connect to `addr` within `wait`.
    pub(crate) fn dial(addr: &str, wait: Duration, error: &io::Error) -> Failure {
        let failure = Failure::new(Exit::of(error), reason(error));
        let (host, port) = split(addr);
        match failure.exit {
            Exit::Usage if host.starts_with("[fe80:") && !host.contains('%') => failure.hint(format!(
                "An address of one link needs its interface, as {}%eth0]:{port}; to see which there are: ip -6 addr",
                host.trim_end_matches(']')
            )),
            Exit::Usage => failure.hint(address_hint(addr)),
            Exit::Refused if port == "0" => failure.hint("Nobody listens at port 0; name the one that is meant"),
            Exit::Refused if !is_here(host) => {
                failure.hint(format!("Nothing listens at port {port} there, or something on the way forbids it"))
            }
            Exit::Refused => failure.hint(format!("Nothing listens there; try: towpath serve {port}")),
            Exit::TimedOut => failure.hint(format!(
                "Nothing came back within {}: no such host, or something drops what we send; \
                 try: towpath dial -w 30s {addr}",
                units::option(wait)
            )),
            Exit::Unreachable => {
                failure.hint(format!("No way leads there; try: ip route get {}", host.trim_matches(['[', ']'])))
            }
            Exit::NameNotFound => failure.hint(format!("Ask the resolver itself; try: getent hosts {host}")),
            _ => failure,
        }
    }

    /// `towpath serve` could not listen at `addr`.
    pub(crate) fn listen(addr: &str, error: io::Error) -> Failure {
        let exit = Exit::of(&error);
        let not_available = error.kind() == ErrorKind::AddrNotAvailable;
        // A wrong address or an unknown name says by itself what was tried.
        let says_it = matches!(exit, Exit::Usage | Exit::NameNotFound);
        let what = if says_it || op_error(&error).is_some() {
            reason(&error)
        } else {
            OpError::new(Op::Listen, addr, Some("bind"), error).to_string()
        };
        let failure = Failure::new(exit, what);
        let (host, port) = split(addr);
        match exit {
            Exit::Usage => failure.hint(address_hint(addr)),
            _ if not_available => failure.hint("No interface has this address; to see which there are: ip addr"),
            Exit::AddressInUse => failure.hint(format!(
                "To see who has it: towpath watch {port}, or ss -ltnp 'sport = :{port}'; to take any free port: towpath serve {host}:0"
            )),
            Exit::NoPermission => {
                failure.hint(format!("Ports below 1024 are for the privileged; try: towpath serve {host}:8330"))
            }
            Exit::NameNotFound => failure.hint(format!("Ask the resolver itself; try: getent hosts {host}")),
            _ => failure,
        }
    }

    /// The connection `path` broke while we were at `op`: "read" or "write".
    pub(crate) fn talk(op: &str, path: &str, error: &io::Error) -> Failure {
        let exit = Exit::of(error);
        let failure = Failure::new(exit, format!("{op} tcp {path}: {}", reason(error)));
        match exit {
            Exit::Reset => {
                failure.hint("The peer died, or closed with bytes of ours unread: look into the peer's own log")
            }
            Exit::TimedOut => failure.hint("The peer stopped answering: is its host up? try dialling again"),
            _ => failure,
        }
    }
}

/// What an address may look like, for those who wrote another.
const ADDRESS_FORMS: &str = "An address is 8330, :8330, localhost:8330, 192.0.2.1:http or [::1]:8330";

/// What to write instead of an address that is none. A URL has one in it.
fn address_hint(addr: &str) -> String {
    let Some((scheme, rest)) = addr.split_once("://") else { return ADDRESS_FORMS.to_owned() };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    match (host, has_port) {
        ("", _) => ADDRESS_FORMS.to_owned(),
        (host, true) => format!("Without scheme and path it is an address; try {host}"),
        (host, false) => format!("Without scheme and path it is an address; try {host}:{scheme}"),
    }
}

/// Whether a host is this machine, as far as its name tells.
fn is_here(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.is_empty() || host == "localhost" || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// An error's text as part of a sentence: the system's without its number and its capital.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let Some(number) = error.raw_os_error() else {
        return text;
    };
    let text = text.trim_end_matches(&format!(" (os error {number})"));
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        // "I/O error" and "RPC …" keep their capitals.
        (Some(first), Some(second)) if second.is_lowercase() || second == ' ' => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// Host and port as they were typed; what is not there is empty.
fn split(addr: &str) -> (&str, &str) {
    addr.rsplit_once(':').unwrap_or((addr, ""))
}

fn op_error(error: &io::Error) -> Option<&OpError> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn every_kind_of_trouble_has_its_code() {
        let lookup = |kind| io::Error::from(OpError::new(Op::Lookup, "x", None, io::Error::from(kind)));
        for (error, exit) in [
            (os(libc::ECONNREFUSED), Exit::Refused),
            (os(libc::ETIMEDOUT), Exit::TimedOut),
            (ErrorKind::TimedOut.into(), Exit::TimedOut),
            (os(libc::EHOSTUNREACH), Exit::Unreachable),
            (os(libc::ENETUNREACH), Exit::Unreachable),
            (os(libc::ENETDOWN), Exit::Unreachable),
            (os(libc::ECONNRESET), Exit::Reset),
            (os(libc::EPIPE), Exit::Reset),
            (lookup(ErrorKind::NotFound), Exit::NameNotFound),
            (lookup(ErrorKind::Other), Exit::NameNotFound),
            (lookup(ErrorKind::TimedOut), Exit::TimedOut),
            (os(libc::EADDRINUSE), Exit::AddressInUse),
            (os(libc::EACCES), Exit::NoPermission),
            (ErrorKind::InvalidInput.into(), Exit::Usage),
            (os(libc::EMFILE), Exit::Other),
        ] {
            assert_eq!(Exit::of(&error), exit, "{error}");
            let dialled: io::Error = OpError::new(Op::Dial, "h:1", Some("connect"), error.kind().into()).into();
            if exit != Exit::NameNotFound && exit != Exit::Other {
                assert_eq!(Exit::of(&dialled), exit, "{dialled}");
            }
        }
    }

    #[test]
    fn a_failure_to_listen_says_what_was_tried_and_what_to_type() {
        let failure = Failure::listen("127.0.0.1:8330", os(libc::EADDRINUSE));
        assert_eq!(failure.what, "listen tcp 127.0.0.1:8330: bind: address already in use");
        assert!(failure.hint.unwrap().ends_with("towpath serve 127.0.0.1:0"));
    }

    #[test]
    fn a_refused_dial_is_told_what_may_help_where_it_went() {
        let hint = |addr: &str, errno| Failure::dial(addr, Duration::ZERO, &os(errno)).hint.unwrap();
        for here in [":80", "localhost:80", "127.1.2.3:80", "[::1]:80", "0.0.0.0:80"] {
            assert!(hint(here, libc::ECONNREFUSED).ends_with("try: towpath serve 80"), "{here}");
        }
        for there in ["192.0.2.1:80", "[2001:db8::1]:80", "example.org:80"] {
            assert!(hint(there, libc::ECONNREFUSED).starts_with("Nothing listens at port 80 there, or"), "{there}");
        }
        let scoped = Failure::dial("[fe80::1]:80", Duration::ZERO, &os(libc::EINVAL)).hint.unwrap();
        assert!(scoped.contains("[fe80::1%eth0]:80"), "{scoped}");
    }

    #[test]
    fn an_address_is_made_of_a_url() {
        for (url, address) in [
            ("http://localhost:8330/", "localhost:8330"),
            ("https://me@example.org/a:b?c", "example.org:https"),
            ("http://[::1]", "[::1]:http"),
            ("tcp://[::1]:80#x", "[::1]:80"),
        ] {
            assert!(address_hint(url).ends_with(&format!("; try {address}")), "{}", address_hint(url));
        }
        assert_eq!(address_hint("http://"), ADDRESS_FORMS);
        assert_eq!(address_hint("localhost"), ADDRESS_FORMS);
    }

    #[test]
    fn an_address_of_another_machine_is_told_with_where_to_look() {
        let failure = Failure::listen("10.9.9.9:8330", os(libc::EADDRNOTAVAIL));
        assert_eq!((failure.exit, failure.hint.unwrap().ends_with(": ip addr")), (Exit::Other, true));
    }

    #[test]
    fn a_reason_reads_as_part_of_a_sentence() {
        assert_eq!(reason(&os(libc::ECONNRESET)), "connection reset by peer");
        assert_eq!(reason(&io::Error::other("As It Is")), "As It Is");
    }
}
