//! From names to addresses. getaddrinfo(3) may read files and wait for a name server for seconds, so it runs on threads
//! of its own while the caller parks; what is numeric throughout is answered at once, on the caller's thread.
//!
//! Takes an address that `host_port.rs` has taken apart, and returns each address once, in the C library's order
//! (RFC 6724); the choice among them is left to the caller.

#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use dns_lookup::{AddrInfo, AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};

use super::error::{self, Op, OpError};
use super::host_port::{AddrError, Host, HostPort, Port, Wrong};
use crate::runtime::blocking::Pool;
use crate::runtime::park;
use crate::sync::channel::{self, RecvError, RecvTimeoutError};
use crate::time::Instant;

/// How many lookups run at once; the rest wait for their turn, up to their deadlines. A name server that is down holds
/// each for ten seconds and more, so there are many; each is a thread, so there are not 500 as in Go.
static LOOKUPS: Pool = Pool::new("towpath-lookup", 32);

/// The addresses that `typed` stands for, where `no_host` is what it means without a host.
///
/// # Errors
/// InvalidInput naming the service or zone that there is not. Otherwise an [`OpError`] of [`Op::Lookup`]: NotFound if
/// the name has no address; TimedOut once `deadline` has passed, and then the lookup's thread ends by itself; or what
/// else went wrong. A caller that may not wait gets the error of `Cancelled`.
pub(crate) fn lookup(
    typed: HostPort,
    no_host: &'static [IpAddr],
    deadline: Option<Instant>,
) -> io::Result<Vec<SocketAddr>> {
    if let (Host::None | Host::Ip(_) | Host::Zoned(..), Port::Number(_)) = (&typed.host, &typed.port) {
        return resolve(&typed, no_host);
    }
    let what = match &typed.host {
        Host::Name(name) => name.clone(),
        _ => typed.to_string(),
    };
    match on_pool(&LOOKUPS, move || resolve(&typed, no_host), deadline) {
        Waited::Done(result) => result,
        Waited::Failed(e) => Err(OpError::new(Op::Lookup, what, None, e).into()),
        Waited::Cancelled(e) => Err(e),
    }
}

/// What came of waiting for a lookup.
enum Waited<T> {
    Done(T),
    Failed(io::Error),
    /// Not to be wrapped: `is_cancelled` would not know it any more.
    Cancelled(io::Error),
}

fn on_pool<T: Send + 'static>(
    pool: &'static Pool,
    job: impl FnOnce() -> T + Send + 'static,
    deadline: Option<Instant>,
) -> Waited<T> {
    if let Err(c) = park::may_wait() {
        return Waited::Cancelled(c.into());
    }
    if deadline.is_some_and(|d| d <= Instant::now()) {
        return Waited::Failed(error::timed_out());
    }
    let (sender, receiver) = channel::bounded(1);
    // Gone once nobody waits: a lookup whose turn comes later than that need not start.
    let wanted = Arc::new(());
    let still_wanted = Arc::downgrade(&wanted);
    let job = Box::new(move || {
        if still_wanted.strong_count() > 0 {
            // There is room for it; that nobody receives it any more is no error.
            let _ = sender.try_send(job());
        }
    });
    if let Err(e) = pool.spawn(job) {
        return Waited::Failed(e);
    }
    let received = match deadline {
        Some(deadline) => receiver.recv_deadline(deadline),
        None => receiver.recv().map_err(|e| match e {
            RecvError::Disconnected => RecvTimeoutError::Disconnected,
            RecvError::Cancelled(c) => RecvTimeoutError::Cancelled(c),
        }),
    };
    match received {
        Ok(result) => Waited::Done(result),
        Err(RecvTimeoutError::Timeout) => Waited::Failed(error::timed_out()),
        Err(RecvTimeoutError::Cancelled(c)) => Waited::Cancelled(c.into()),
        Err(RecvTimeoutError::Disconnected) => Waited::Failed(io::Error::other("the lookup panicked")),
    }
}

/// The lookup itself, on whichever thread may wait for it.
fn resolve(typed: &HostPort, no_host: &[IpAddr]) -> io::Result<Vec<SocketAddr>> {
    let port = || match &typed.port {
        Port::Number(port) => Ok(*port),
        Port::Service(name) => service(name, typed),
    };
    match &typed.host {
        Host::Name(name) => named(name, typed),
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port()?)]),
        Host::Zoned(ip, zone) => {
            let (port, scope) = (port()?, scope_id(zone, typed)?);
            Ok(vec![SocketAddrV6::new(*ip, port, 0, scope).into()])
        }
        Host::None => {
            let port = port()?;
            Ok(no_host.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
        }
    }
}

/// The addresses of a name, with the port that `typed` asks for.
fn named(name: &str, typed: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let failed = |e| io::Error::from(OpError::new(Op::Lookup, name, None, e));
    let (service, number) = match &typed.port {
        Port::Service(service) => (Some(service.as_str()), None),
        Port::Number(number) => (None, Some(*number)),
    };
    let found = getaddrinfo(Some(name), service, hints(0)).map_err(|e| match (e.kind(), service) {
        (LookupErrorKind::Service, Some(service)) => unknown_service(service, typed),
        _ => failed(reason(e)),
    })?;
    let addrs = each_once(found.filter_map(Result::ok).map(|info| {
        let mut addr = info.sockaddr;
        if let Some(number) = number {
            addr.set_port(number);
        }
        addr
    }));
    match addrs.is_empty() {
        false => Ok(addrs),
        true => Err(failed(no_such_host())),
    }
}

/// The addresses without their repetitions: where /etc/hosts has both of localhost's, glibc says 127.0.0.1 twice.
pub(super) fn each_once(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addrs = Vec::new();
    for addr in found {
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs
}

/// The port of a service by services(5).
fn service(name: &str, typed: &HostPort) -> io::Result<u16> {
    match first(getaddrinfo(None, Some(name), hints(0))) {
        Ok(Some(addr)) => Ok(addr.port()),
        Ok(None) => Err(unknown_service(name, typed)),
        Err(e) => Err(match e.kind() {
            // No host was asked for: some C libraries say of the service that there is no such name.
            LookupErrorKind::Service | LookupErrorKind::NoName => unknown_service(name, typed),
            _ => OpError::new(Op::Lookup, typed, None, reason(e)).into(),
        }),
    }
}

/// The number of an interface.
///
/// if_nametoindex(3) under a safe function: getaddrinfo(3) asks it for the zone of a link-local address, though not
/// for that of others such as ::1, so a link-local one stands in for any. Nothing waits here: the flag has it refuse
/// what is not numeric.
fn scope_id(zone: &str, typed: &HostPort) -> io::Result<u32> {
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let host = format!("{link_local}%{zone}");
    match first(getaddrinfo(Some(&host), None, hints(libc::AI_NUMERICHOST))) {
        Ok(Some(SocketAddr::V6(addr))) => Ok(addr.scope_id()),
        _ => Err(AddrError::new(typed, Wrong::UnknownZone(zone.to_owned())).into()),
    }
}

fn first(
    found: Result<impl Iterator<Item = io::Result<AddrInfo>>, LookupError>,
) -> Result<Option<SocketAddr>, LookupError> {
    Ok(found?.find_map(Result::ok).map(|info| info.sockaddr))
}

fn hints(flags: i32) -> Option<AddrInfoHints> {
    // Without a type of socket, each address comes back three times.
    let socktype = SockType::Stream.into();
    Some(AddrInfoHints { flags, socktype, ..AddrInfoHints::default() })
}

fn unknown_service(name: &str, typed: &HostPort) -> io::Error {
    AddrError::new(typed, Wrong::UnknownService(name.to_owned())).into()
}

fn no_such_host() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such host")
}

/// getaddrinfo(3)'s failure as a system call's would read, and of a kind by which "there is no such name" can be told
/// from "nobody answered".
fn reason(error: LookupError) -> io::Error {
    match error.kind() {
        LookupErrorKind::NoName | LookupErrorKind::NoData => no_such_host(),
        LookupErrorKind::Again => io::Error::other("temporary failure in name resolution"),
        LookupErrorKind::Fail => io::Error::other("non-recoverable failure in name resolution"),
        LookupErrorKind::Memory => io::ErrorKind::OutOfMemory.into(),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::Ipv4Addr;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    const NO_HOST: [IpAddr; 2] = [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];

    fn find(typed: &str) -> io::Result<Vec<SocketAddr>> {
        lookup(typed.parse().expect("the tests type addresses"), &NO_HOST, None)
    }

    fn find_one(typed: &str) -> String {
        let found = find(typed).unwrap_or_else(|e| panic!("{typed}: {e}"));
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].to_string()
    }

    #[test]
    fn numeric_addresses_are_what_they_say() {
        assert_eq!(find_one("127.0.0.1:8330"), "127.0.0.1:8330");
        assert_eq!(find_one("[::1]:8330"), "[::1]:8330");
        assert_eq!(find_one("[fe80::1%7]:8330"), "[fe80::1%7]:8330");
    }

    #[test]
    fn a_service_is_known_by_its_name() {
        assert_eq!(find_one("127.0.0.1:http"), "127.0.0.1:80");
        assert_eq!(find_one("[::1]:http"), "[::1]:80");
    }

    #[test]
    fn without_a_host_the_caller_says_what_is_meant() {
        let found = |port| NO_HOST.map(|ip| SocketAddr::new(ip, port)).to_vec();
        assert_eq!(find(":8330").unwrap(), found(8330));
        assert_eq!(find(":http").unwrap(), found(80));
    }

    #[test]
    fn localhost_is_this_host_and_comes_once_for_each_family() {
        let found = find("localhost:http").unwrap();
        assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 80), "{found:?}");
        assert!(found.contains(&"127.0.0.1:80".parse().unwrap()), "{found:?}");
        for (i, addr) in found.iter().enumerate() {
            assert!(!found[..i].contains(addr), "{found:?}");
        }
        assert_eq!(find("localhost:80").unwrap(), found);
    }

    #[test]
    fn of_addresses_that_come_twice_the_first_remains() {
        let addrs = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let found = addrs(&["[::1]:80", "127.0.0.1:80", "[::1]:80", "127.0.0.1:80", "127.0.0.1:81"]);
        let once = addrs(&["[::1]:80", "127.0.0.1:80", "127.0.0.1:81"]);
        assert_eq!(each_once(found.into_iter()), once);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_zone_is_an_interface_by_name_or_number() {
        let index = std::fs::read_to_string("/sys/class/net/lo/ifindex");
        let index: u32 = index.map_or(1, |text| text.trim().parse().expect("a number"));
        for ip in ["::1", "fe80::1", "ff02::1", "2001:db8::1"] {
            for zone in ["lo", &index.to_string()] {
                for port in ["80", "http"] {
                    let expected = format!("[{ip}%{index}]:80");
                    assert_eq!(find_one(&format!("[{ip}%{zone}]:{port}")), expected);
                }
            }
        }
    }

    #[test]
    fn an_unknown_service_or_zone_is_a_fault_of_the_address() {
        for (typed, text) in [
            (":htttp", "address :htttp: unknown service: htttp"),
            ("127.0.0.1:htttp", "address 127.0.0.1:htttp: unknown service: htttp"),
            ("localhost:htttp", "address localhost:htttp: unknown service: htttp"),
            ("nosuch.invalid:-", "address nosuch.invalid:-: unknown service: -"),
            ("[::1%nosuch0]:80", "address [::1%nosuch0]:80: unknown zone: nosuch0"),
            ("[fe80::1%nosuch0]:80", "address [fe80::1%nosuch0]:80: unknown zone: nosuch0"),
        ] {
            let error = find(typed).unwrap_err();
            assert_eq!(error.to_string(), text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn an_unknown_host_is_a_failed_lookup() {
        let error = find("nosuch.invalid:80").unwrap_err();
        let (kind, text) = (error.kind(), error.to_string());
        let failed: OpError = error.downcast().expect("a lookup's error is an OpError");
        assert_eq!((failed.op(), failed.addr()), (Op::Lookup, "nosuch.invalid"));
        // Which of the two depends on whether there is a name server to say no.
        match kind {
            ErrorKind::NotFound => assert_eq!(text, "lookup nosuch.invalid: no such host"),
            _ => assert_eq!(text, "lookup nosuch.invalid: temporary failure in name resolution"),
        }
    }

    #[test]
    fn a_lookup_is_given_up_at_its_deadline_and_ends_by_itself() {
        // One that has not begun by its deadline never does: on a busy machine a longer one may be needed.
        let has_begun = [20, 200, 2_000, 20_000].into_iter().any(|patience| {
            let (release, gate) = mpsc::channel::<()>();
            let (tell, told) = mpsc::channel();
            let (finished, end) = mpsc::channel();
            let deadline = Instant::now() + Duration::from_millis(patience);
            let slow = move || {
                tell.send(()).expect("the test looks at it");
                let released = gate.recv();
                finished.send(released).expect("the test waits for it");
            };
            match on_pool(&LOOKUPS, slow, Some(deadline)) {
                Waited::Failed(e) => assert_eq!(e.kind(), ErrorKind::TimedOut),
                _ => panic!("it cannot have finished"),
            }
            assert!(Instant::now() >= deadline);
            let has_begun = told.recv().is_ok();
            if has_begun {
                release.send(()).expect("it still runs");
                assert_eq!(end.recv(), Ok(Ok(())));
            }
            has_begun
        });
        assert!(has_begun);
    }

    #[test]
    fn a_lookup_that_nobody_waits_for_any_more_does_not_start() {
        static ONE: Pool = Pool::new("towpath-test", 1);
        let (release, gate) = mpsc::channel::<()>();
        let hold = move || gate.recv().expect("the test lets it go");
        ONE.spawn(Box::new(hold)).expect("a thread starts");

        let (started, start) = mpsc::channel::<()>();
        let late = move || started.send(()).expect("the test looks at it");
        let deadline = Instant::now() + Duration::from_millis(5);
        assert!(matches!(on_pool(&ONE, late, Some(deadline)), Waited::Failed(_)));

        release.send(()).expect("the thread is held");
        assert!(matches!(on_pool(&ONE, || (), None), Waited::Done(())));
        assert_eq!(start.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn past_its_deadline_a_lookup_fails_at_once_unless_there_is_nothing_to_look_up() {
        let past = Some(Instant::now());
        let typed: HostPort = "localhost:80".parse().unwrap();
        let error = lookup(typed, &NO_HOST, past).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "lookup localhost: timed out");

        let typed: HostPort = "127.0.0.1:80".parse().unwrap();
        assert_eq!(lookup(typed, &NO_HOST, past).unwrap().len(), 1);
    }

    #[test]
    fn what_waits_runs_off_the_callers_thread_and_its_panic_is_an_error() {
        match on_pool(&LOOKUPS, || thread::current().id(), None) {
            Waited::Done(id) => assert_ne!(id, thread::current().id()),
            _ => panic!("nothing keeps it from running"),
        }
        let panics = || std::panic::resume_unwind(Box::new(()));
        match on_pool::<()>(&LOOKUPS, panics, None) {
            Waited::Failed(e) => assert_eq!(e.to_string(), "the lookup panicked"),
            _ => panic!("it had nothing to return"),
        }
    }
}
