//! What an address means to `bind` and to `connect`. The parser has tests of its own beside it; these are about the
//! sockets that come of it, and about what a caller is told of a wrong address.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use common::{
    Refused, alone, alone_in_a_network, on_both_families, on_each_poller, on_tasks_and_threads, refused, skip, traced,
};
use rustix::net::sockopt;
use towpath::net::{Dialer, TcpListener, TcpStream, ToSocketAddrs};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Connects to the port on one family and checks that both ends show the addresses of that family.
fn meet(listener: &TcpListener, ip: IpAddr) {
    let port = listener.local_addr().unwrap().port();
    let connected = TcpStream::connect((ip, port)).unwrap();
    let (accepted, peer) = listener.accept().unwrap();
    assert_eq!(peer, connected.local_addr().unwrap());
    assert_eq!(accepted.peer_addr().unwrap(), peer);
    assert_eq!(accepted.local_addr().unwrap(), SocketAddr::new(ip, port));
    assert_eq!(peer.ip(), ip);
    assert_eq!(peer.is_ipv4(), ip.is_ipv4());
}

#[test]
fn listening_without_a_host_is_one_socket_for_both_families() {
    on_tasks_and_threads(|| {
        for typed in [":0", "[::]:0"] {
            let listener = TcpListener::bind(typed).unwrap();
            assert_eq!(listener.local_addr().unwrap().ip(), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
            assert!(!sockopt::ipv6_v6only(&listener).unwrap());
            meet(&listener, V4);
            meet(&listener, V6);
        }
    });
}

#[test]
fn an_ipv4_peer_of_a_dual_stack_socket_shows_as_ipv4() {
    on_tasks_and_threads(|| {
        let listener = TcpListener::bind(":0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connected = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        let expected = format!("127.0.0.1:{}", connected.local_addr().unwrap().port());
        assert_eq!(peer.to_string(), expected);
        assert_eq!(accepted.peer_addr().unwrap().to_string(), expected);
        assert_eq!(accepted.local_addr().unwrap().to_string(), format!("127.0.0.1:{port}"));
    });
}

#[test]
fn listening_takes_both_families_also_where_the_system_would_separate_them() {
    alone_in_a_network("listening_takes_both_families_also_where_the_system_would_separate_them", || {
        fs::write("/proc/sys/net/ipv6/bindv6only", "1").unwrap();
        let listener = TcpListener::bind(":0").unwrap();
        meet(&listener, V4);
        meet(&listener, V6);
    });
}

#[test]
fn where_there_is_no_ipv6_listening_without_a_host_is_ipv4() {
    let no_ipv6 = ["-e", "trace=socket", "-e", "inject=socket:error=EAFNOSUPPORT:when=1"];
    let trace = traced("where_there_is_no_ipv6_listening_without_a_host_is_ipv4", &no_ipv6, || {
        let listener = TcpListener::bind(":0").unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        meet(&listener, V4);
    });
    let Some(trace) = trace else { return };
    let refused = trace.lines().find(|line| line.contains("(INJECTED)")).expect("strace did as it was told");
    assert!(refused.contains("AF_INET6"), "{refused}");
}

#[test]
fn dialing_without_a_host_is_this_host() {
    on_tasks_and_threads(|| {
        let every = TcpListener::bind(":0").unwrap();
        let port = every.local_addr().unwrap().port();
        for typed in [format!(":{port}"), format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
            let dialed = Dialer::new().dial(&typed).unwrap();
            let connected = TcpStream::connect(&typed).unwrap();
            for stream in [dialed, connected] {
                let peer = stream.peer_addr().unwrap();
                assert!(peer.ip().is_loopback() && peer.port() == port, "{typed}: {peer}");
            }
        }
        let unspecified: SocketAddr = (Ipv4Addr::UNSPECIFIED, port).into();
        let stream = TcpStream::connect_timeout(&unspecified, common::PATIENCE).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), SocketAddr::new(V4, port));
    });
}

#[test]
fn dialing_without_a_host_finds_a_server_of_either_family() {
    on_tasks_and_threads(|| {
        let listen = |ip, port| TcpListener::bind(SocketAddr::new(ip, port));
        let (server, _refused) = on_both_families(listen, Refused::at);
        let addr = server.local_addr().unwrap();
        let typed = format!(":{}", addr.port());
        assert_eq!(TcpStream::connect(typed).unwrap().peer_addr().unwrap(), addr);

        let (_refused, server) = on_both_families(Refused::at, listen);
        let addr = server.local_addr().unwrap();
        for typed in [format!(":{}", addr.port()), format!("[::]:{}", addr.port())] {
            assert_eq!(TcpStream::connect(typed).unwrap().peer_addr().unwrap(), addr);
        }
        let every = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), addr.port());
        assert_eq!(TcpStream::connect(every).unwrap().peer_addr().unwrap(), addr);
    });
}

#[test]
fn everything_that_std_takes_binds_and_connects() {
    fn check(addr: impl ToSocketAddrs, dial: impl ToSocketAddrs) {
        let listener = TcpListener::bind(addr).unwrap();
        drop(listener);
        TcpStream::connect(dial).unwrap();
    }
    on_tasks_and_threads(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let port = addr.port();
        check(SocketAddr::new(V4, 0), addr);
        check(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        check((V4, 0), (V4, port));
        check((Ipv4Addr::LOCALHOST, 0), (Ipv4Addr::LOCALHOST, port));
        check(("127.0.0.1", 0), ("127.0.0.1", port));
        check(("127.0.0.1".to_owned(), 0), ("127.0.0.1".to_owned(), port));
        check("127.0.0.1:0", format!("127.0.0.1:{port}").as_str());
        check("127.0.0.1:0".to_owned(), format!("127.0.0.1:{port}"));
        check(&[SocketAddr::new(V4, 0)][..], &[addr][..]);
        check("localhost:0", format!("localhost:{port}"));
        drop(listener);

        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let on_loopback = |port| SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0);
        check(on_loopback(0), on_loopback(port));
        check((Ipv6Addr::LOCALHOST, 0), (Ipv6Addr::LOCALHOST, port));
        check("[::1%lo]:0", format!("[::1%lo]:{port}"));
    });
}

#[test]
fn a_service_may_stand_for_its_port() {
    if !fs::exists("/etc/services").unwrap() {
        return skip("there is no /etc/services");
    }
    alone_in_a_network("a_service_may_stand_for_its_port", || {
        for typed in [":http", "localhost:http", "127.0.0.1:http", "[::1%lo]:http"] {
            let listener = TcpListener::bind(typed).unwrap();
            assert_eq!(listener.local_addr().unwrap().port(), 80, "{typed}");
            let mut stream = TcpStream::connect(typed).unwrap();
            assert_eq!(stream.peer_addr().unwrap().port(), 80, "{typed}");
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.write_all(b"hello").unwrap();
            drop(accepted);
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        }
    });
}

#[test]
fn a_wrong_address_names_its_wrong_part() {
    on_tasks_and_threads(|| {
        for (typed, wrong) in [
            ("localhost", "missing port"),
            ("127.0.0.1", "missing port"),
            ("::1:80", "too many colons"),
            ("1:2:3", "too many colons"),
            (":htttp", "unknown service: htttp"),
            ("127.0.0.1:65536", "port out of range"),
        ] {
            let dialed = Dialer::new().dial(typed).unwrap_err();
            let connected = TcpStream::connect(typed).unwrap_err();
            let bound = TcpListener::bind(typed).unwrap_err();
            for error in [dialed, connected, bound] {
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{typed}: {error}");
                let text = error.to_string();
                assert!(text.contains(wrong) && text.contains(typed), "{typed}: {text}");
            }
        }
        let none: &[SocketAddr] = &[];
        assert_eq!(TcpListener::bind(none).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(TcpStream::connect(none).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn of_several_addresses_bind_takes_the_first_that_can_be_had() {
    on_tasks_and_threads(|| {
        let taken = refused();
        let free = SocketAddr::new(V4, 0);
        let listener = TcpListener::bind(&[taken.addr, free][..]).unwrap();
        assert_ne!(listener.local_addr().unwrap().port(), taken.addr.port());
        let error = TcpListener::bind(&[free_of_nobody(), taken.addr][..]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "the last one's: {error}");
    });
}

/// An address that no interface has (RFC 5737).
fn free_of_nobody() -> SocketAddr {
    ([192, 0, 2, 1], 0).into()
}

#[test]
fn names_are_looked_up_off_the_workers() {
    alone("names_are_looked_up_off_the_workers", || {
        let lookup_threads = || {
            let tasks = fs::read_dir("/proc/self/task").unwrap();
            // Some end while we look.
            let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
            names.filter(|name| name.starts_with("towpath-lookup")).count()
        };
        on_each_poller(move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            TcpStream::connect(("127.0.0.1", port)).unwrap();
        });
        assert_eq!(lookup_threads(), 0, "there was nothing to look up");
        on_each_poller(move || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            TcpStream::connect(("localhost", port)).unwrap();
        });
        assert!(lookup_threads() > 0);
    });
}
