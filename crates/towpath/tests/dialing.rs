//! Connecting: one timeout over everything, both families at once and what becomes of the loser, which error is told,
//! and what is tried again. What the addresses mean is in `addresses.rs`.

mod common;

use std::cell::Cell;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::vec;

use common::{
    PATIENCE, Refused, Silent, alone_in_a_network, has_event, on_each_poller, on_tasks_and_threads, pollers, refused,
    traced, until, watchdog,
};
use towpath::Runtime;
use towpath::net::{Dialer, Op, OpError, TcpListener, TcpStream, ToSocketAddrs};
use towpath::time::{Duration, Instant, sleep_until};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// How long the first family has for itself (RFC 8305, section 5, recommends it).
const DELAY: Duration = Duration::from_millis(250);

fn listen(ip: IpAddr) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[test]
fn errors_of_connect_are_the_kernels_and_those_of_the_dialer_say_what_was_tried() {
    on_tasks_and_threads(|| {
        let refused = refused();
        let timeout = PATIENCE;
        for error in [TcpStream::connect(refused.addr), TcpStream::connect_timeout(&refused.addr, timeout)] {
            let error = error.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        }
        let error = Dialer::new().dial(refused.addr).unwrap_err();
        assert_eq!(error.to_string(), format!("dial tcp {}: connect: connection refused", refused.addr));
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let error: OpError = error.downcast().unwrap();
        assert_eq!((error.op(), error.step()), (Op::Dial, Some("connect")));
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
    });
}

#[test]
fn the_dialer_turns_nodelay_on() {
    on_tasks_and_threads(|| {
        let (_listener, addr) = listen(V4);
        assert!(Dialer::new().dial(addr).unwrap().nodelay().unwrap());
        assert!(!TcpStream::connect(addr).unwrap().nodelay().unwrap());
    });
}

#[test]
fn a_connection_that_is_not_answered_times_out() {
    on_tasks_and_threads(|| {
        let silent = Silent::at(V4, 0).unwrap();
        let timeout = Duration::from_millis(20);
        let start = Instant::now();
        let error = TcpStream::connect_timeout(&silent.addr, timeout).unwrap_err();
        assert!(start.elapsed() >= timeout, "not before its time");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.raw_os_error(), None, "it is not the kernel's");
        until(|| silent.asking() == 0); // what was tried is closed

        let error = Dialer::new().timeout(timeout).dial(silent.addr).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.to_string(), format!("dial tcp {}: connect: timed out", silent.addr));
        until(|| silent.asking() == 0); // what was tried is closed
    });
}

#[test]
fn a_timeout_of_zero_is_invalid() {
    on_tasks_and_threads(|| {
        let (_listener, addr) = listen(V4);
        let error = TcpStream::connect_timeout(&addr, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn one_timeout_covers_all_addresses_together() {
    on_tasks_and_threads(|| {
        let silent: Vec<Silent> = (0..15).map(|_| Silent::at(V4, 0).unwrap()).collect();
        let also: Vec<Silent> = (0..5).map(|_| Silent::at(V6, 0).unwrap()).collect();
        let timeout = Duration::from_millis(300);
        let v4: Vec<SocketAddr> = silent.iter().map(|silent| silent.addr).collect();
        let v6 = also.iter().map(|silent| silent.addr).collect();
        for addrs in [v4.clone(), [v4, v6].concat()] {
            let start = Instant::now();
            let error = Dialer::new().timeout(timeout).dial(&addrs[..]).unwrap_err();
            let elapsed = start.elapsed();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(elapsed >= timeout);
            assert!(elapsed < timeout * 15, "each address has had the whole time: {elapsed:?}");
        }
    });
}

/// An address whose lookup takes until the deadline that the dialer gives it, and which tells when it came to its end.
struct Slow(SocketAddr, Cell<Option<Instant>>);

impl ToSocketAddrs for Slow {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        panic!("the dialer has a deadline to give");
    }

    fn to_socket_addrs_until(&self, deadline: Option<Instant>) -> io::Result<Self::Iter> {
        sleep_until(deadline.expect("the dialer has a timeout"))?;
        self.1.set(Some(Instant::now()));
        Ok(vec![self.0].into_iter())
    }
}

#[test]
fn the_timeout_covers_the_lookup_as_well() {
    on_tasks_and_threads(|| {
        let silent = Silent::at(V4, 0).unwrap();
        // Any one attempt may be held up by the machine; not all of them.
        let at_once = (0..5).any(|_| {
            let slow = Slow(silent.addr, Cell::new(None));
            let timeout = Duration::from_millis(500);
            let error = Dialer::new().timeout(timeout).dial(&slow).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            slow.1.get().expect("it was asked").elapsed() < timeout
        });
        assert!(at_once, "the attempt has a timeout of its own");

        let error = Dialer::new().timeout(Duration::from_nanos(1)).dial("localhost:http").unwrap_err();
        assert_eq!(error.to_string(), "lookup localhost: timed out");
    });
}

#[test]
fn of_several_addresses_of_one_family_the_first_that_answers_is_taken() {
    on_tasks_and_threads(|| {
        let refused = refused();
        let (first, second) = (listen(V4), listen(V4));
        let addrs = [refused.addr, first.1, second.1];
        let stream = TcpStream::connect(&addrs[..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), first.1);
        assert!(!has_event(&second.0), "the next one was not asked");
    });
}

#[test]
fn the_second_family_is_not_asked_when_the_first_answers() {
    on_tasks_and_threads(|| {
        for (first, second) in [(V6, V4), (V4, V6)] {
            // A machine that takes longer than that over it has no say.
            let in_time = |_: &u32| {
                let (first, second) = (listen(first), listen(second));
                let start = Instant::now();
                let stream = TcpStream::connect(&[first.1, second.1][..]).unwrap();
                let in_time = start.elapsed() < DELAY;
                if in_time {
                    assert_eq!(stream.peer_addr().unwrap(), first.1);
                    assert!(!has_event(&second.0));
                }
                in_time
            };
            assert!((0..50).find(in_time).is_some());
        }
    });
}

#[test]
fn the_second_family_starts_a_quarter_of_a_second_after_one_that_does_not_answer() {
    on_tasks_and_threads(|| {
        for (first, second) in [(V6, V4), (V4, V6)] {
            let silent = Silent::at(first, 0).unwrap();
            let (_listener, addr) = listen(second);
            let start = Instant::now();
            let stream = TcpStream::connect(&[silent.addr, addr][..]).unwrap();
            assert!(start.elapsed() >= DELAY, "the first family has that long for itself");
            assert_eq!(stream.peer_addr().unwrap(), addr);
            until(|| silent.asking() == 0); // the loser is closed
        }
    });
}

#[test]
fn both_families_ask_at_once_in_their_order_and_the_loser_is_closed() {
    on_tasks_and_threads(|| {
        let (v6, v4) = (Silent::at(V6, 0).unwrap(), Silent::at(V4, 0).unwrap());
        let addrs = [v6.addr, v4.addr];
        let dial = towpath::spawn(move || Dialer::new().dial(&addrs[..]));
        until(|| {
            // In this order: the second family may begin between the two looks, the first must have begun by then.
            let second = v4.asking();
            // The kernel's table may lack a row: one look of two has it.
            let first = v6.asking().max(v6.asking());
            assert!(second <= first, "the second family was asked first");
            second == 1
        });
        until(|| v6.asking() == 1); // the first family is still being asked
        let server = v4.speak();
        let stream = dial.join().unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), server.local_addr().unwrap());
        until(|| v6.asking() == 0); // the loser is closed
    });
}

#[test]
fn a_loser_that_connects_as_well_is_closed() {
    let _watchdog = watchdog();
    let runtime = Runtime::builder().workers(1).build().unwrap();
    runtime.run(|| {
        let (v6, v4) = (Silent::at(V6, 0).unwrap(), Silent::at(V4, 0).unwrap());
        let addrs = [v6.addr, v4.addr];
        let dial = towpath::spawn(move || TcpStream::connect(&addrs[..]));
        until(|| v4.asking() == 1 && v6.asking() == 1);
        // The one worker is held up until the kernel has connected both, about a second after it first asked.
        let servers = [v6.speak(), v4.speak()];
        while !servers.iter().all(has_event) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let stream = dial.join().unwrap().unwrap();
        let winner = stream.peer_addr().unwrap();
        for server in servers.map(TcpListener::from) {
            let (mut accepted, _) = server.accept().unwrap();
            if server.local_addr().unwrap() == winner {
                accepted.set_nonblocking(true).unwrap();
                assert_eq!(accepted.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            } else {
                assert_eq!(accepted.read(&mut [0]).unwrap_or(0), 0);
            }
        }
    });
}

#[test]
fn the_second_family_starts_at_once_when_the_first_has_failed() {
    on_tasks_and_threads(|| {
        let refused = Refused::at(V6, 0).unwrap();
        let (_listener, addr) = listen(V4);
        // Any one attempt may be held up by the machine; not all of them.
        let fast = (0..50).any(|_| {
            let start = Instant::now();
            let stream = TcpStream::connect(&[refused.addr, addr][..]).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), addr);
            start.elapsed() < DELAY
        });
        assert!(fast, "it waits although there is nothing to wait for");
    });
}

#[test]
fn the_error_is_the_first_familys_first() {
    on_tasks_and_threads(|| {
        // This fails as well, and differently (with which error depends on the network).
        let broadcast: SocketAddr = (Ipv4Addr::BROADCAST, 1).into();
        let other = std::net::TcpStream::connect(broadcast).unwrap_err();
        assert_ne!(other.raw_os_error(), Some(libc::ECONNREFUSED));

        let (v6, v4) = (Refused::at(V6, 0).unwrap(), Refused::at(V4, 0).unwrap());
        for (addrs, error) in [
            (vec![v6.addr, broadcast], libc::ECONNREFUSED),
            (vec![broadcast, v6.addr], other.raw_os_error().unwrap()),
            (vec![broadcast, v4.addr, v6.addr], other.raw_os_error().unwrap()),
            (vec![v4.addr, broadcast, v6.addr], libc::ECONNREFUSED),
            (vec![v4.addr, v6.addr, broadcast], libc::ECONNREFUSED),
        ] {
            let told = TcpStream::connect(&addrs[..]).unwrap_err();
            assert_eq!(told.raw_os_error(), Some(error), "{addrs:?}");
            let named = Dialer::new().dial(&addrs[..]).unwrap_err().to_string();
            assert!(named.starts_with(&format!("dial tcp {}: connect: ", addrs[0])), "{addrs:?}: {named}");
        }
    });
}

#[test]
fn the_error_is_the_first_familys_also_when_the_second_fails_before_it() {
    on_tasks_and_threads(|| {
        let silent = Silent::at(V6, 0).unwrap();
        let refused = refused();
        let dialer = Dialer::new().timeout(DELAY * 2);
        let error = dialer.dial(&[silent.addr, refused.addr][..]).unwrap_err();
        assert_eq!(error.to_string(), format!("dial tcp {}: connect: timed out", silent.addr));
    });
}

#[test]
fn a_connection_is_confirmed_by_its_error_and_its_peer() {
    let names = "trace=connect,getsockopt,getpeername";
    let trace = traced("a_connection_is_confirmed_by_its_error_and_its_peer", &["-e", names], || {
        on_each_poller(|| {
            let (_listener, addr) = listen(V4);
            TcpStream::connect(addr).unwrap();
        });
    });
    let Some(trace) = trace else { return };
    let after = trace.split_once("connect(").expect("it has connected").1;
    let asked_error = after.find("SO_ERROR").expect("for its error");
    assert!(after.find("getpeername(").expect("for its peer") > asked_error, "{trace}");
}

#[test]
fn a_connection_to_itself_is_not_taken_for_one() {
    alone_in_a_network("a_connection_to_itself_is_not_taken_for_one", || {
        // Of the two ports that it may choose from, the kernel takes the first, for connect(2) tries those of its parity
        // first; and a socket that connects to its own address is connected. A port in TIME-WAIT it passes over, so
        // each dial needs two of its own.
        static NEXT: AtomicU16 = AtomicU16::new(40000);
        let trap = || -> SocketAddr {
            let port = NEXT.fetch_add(2, Ordering::Relaxed);
            fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{port} {}", port + 1)).unwrap();
            (Ipv4Addr::LOCALHOST, port).into()
        };
        let caught = std::net::TcpStream::connect(trap()).expect("so it goes with who does not look");
        assert_eq!(caught.local_addr().unwrap(), caught.peer_addr().unwrap());

        on_tasks_and_threads(move || {
            let error = TcpStream::connect(trap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            let error = Dialer::new().dial(trap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        });
    });
}

#[test]
fn a_local_port_that_was_not_to_be_had_is_asked_for_twice_more() {
    for (failures, outcome) in [("1..2", "connected"), ("1+", "failed")] {
        let inject = format!("inject=connect:error=EADDRNOTAVAIL:when={failures}");
        let options = ["-E", &format!("OUTCOME={outcome}"), "-e", "trace=connect", "-e", &inject];
        let trace = traced("a_local_port_that_was_not_to_be_had_is_asked_for_twice_more", &options, || {
            on_each_poller(|| {
                let (_listener, addr) = listen(V4);
                let connected = TcpStream::connect(addr);
                match std::env::var("OUTCOME").unwrap().as_str() {
                    "connected" => assert_eq!(connected.unwrap().peer_addr().unwrap(), addr),
                    _ => assert_eq!(connected.unwrap_err().raw_os_error(), Some(libc::EADDRNOTAVAIL)),
                }
            });
        });
        let Some(trace) = trace else { return };
        // Two runtimes for each poller, three calls each.
        let calls = trace.lines().filter(|line| line.contains("connect(")).count();
        assert_eq!(calls, pollers().len() * 2 * 3, "{trace}");
    }
}
