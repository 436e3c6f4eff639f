//! Listening and accepting: what the socket is set to, who may share its port, and which failures `accept` keeps to
//! itself. What closing and deadlines do to it is in `close.rs` and `deadlines.rs`.

mod common;

use std::cell::Cell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;

use common::{
    CALLERS, alone, descriptors, has_event, limit_descriptors, listen_again, on_each_poller, on_tasks_and_threads,
    reset, traced, until,
};
use rustix::fs::OFlags;
use rustix::io::FdFlags;
use rustix::net::sockopt;
use towpath::net::{ListenOptions, TcpListener, TcpStream};
use towpath::sync::channel;

fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[test]
fn an_address_is_reused_and_its_port_is_not_shared() {
    on_tasks_and_threads(|| {
        let (listener, _) = listen();
        assert!(sockopt::socket_reuseaddr(&listener).unwrap());
        assert!(!sockopt::socket_reuseport(&listener).unwrap());
    });
}

#[test]
fn a_second_listener_at_the_port_is_an_error() {
    on_tasks_and_threads(|| {
        let (_listener, addr) = listen();
        let error = TcpListener::bind(addr).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
        assert!(std::net::TcpListener::bind(addr).is_err());

        let every = TcpListener::bind(":0").unwrap();
        let port = every.local_addr().unwrap().port();
        for typed in [format!(":{port}"), format!("0.0.0.0:{port}")] {
            assert_eq!(TcpListener::bind(&typed).unwrap_err().kind(), ErrorKind::AddrInUse, "{typed}");
        }
    });
}

#[test]
fn listeners_that_all_reuse_a_port_share_it() {
    on_tasks_and_threads(|| {
        let (shared, own) = (ListenOptions::new().reuse_port(true), ListenOptions::new());
        for addr in ["127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0", ":0"] {
            let first = shared.bind(addr).unwrap();
            assert!(sockopt::socket_reuseport(&first).unwrap() && sockopt::socket_reuseaddr(&first).unwrap());
            let at = first.local_addr().unwrap();
            let second = shared.bind(at).unwrap();
            assert_eq!(second.local_addr().unwrap(), at);
            // All or none.
            assert_eq!(own.bind(at).unwrap_err().kind(), ErrorKind::AddrInUse, "{addr}");
            drop((first, second));
            let _alone = listen_again(at);
            assert_eq!(shared.bind(at).unwrap_err().kind(), ErrorKind::AddrInUse, "{addr}");
        }
    });
}

#[test]
fn connections_are_spread_over_those_that_share_a_port() {
    on_tasks_and_threads(|| {
        let shared = ListenOptions::new().reuse_port(true);
        let first = shared.bind("127.0.0.1:0").unwrap();
        let addr = first.local_addr().unwrap();
        let second = shared.bind(addr).unwrap();
        let _clients: Vec<_> = (0..100).map(|_| TcpStream::connect(addr).unwrap()).collect();
        until(|| has_event(&first) && has_event(&second));
        let queued = |listener: &TcpListener| {
            let mut accepted = Vec::new();
            while has_event(listener) {
                accepted.push(listener.accept().unwrap());
            }
            accepted.len()
        };
        let (at_first, at_second) = (Cell::new(0), Cell::new(0));
        until(|| {
            at_first.set(at_first.get() + queued(&first));
            at_second.set(at_second.get() + queued(&second));
            at_first.get() + at_second.get() == 100
        });
        assert!(at_first.get() > 0 && at_second.get() > 0);
    });
}

#[test]
fn a_port_whose_connections_linger_in_time_wait_can_be_had_again() {
    on_tasks_and_threads(|| {
        let (listener, addr) = listen();
        let mut client = TcpStream::connect(addr).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        // Whoever closes first is left in TIME-WAIT, at the listener's port.
        drop((accepted, listener));
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        let again = listen_again(addr);
        TcpStream::connect(addr).unwrap();
        again.accept().unwrap();
    });
}

#[test]
fn errors_of_bind_are_the_kernels() {
    on_tasks_and_threads(|| {
        let error = TcpListener::bind("192.0.2.1:0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn the_queue_is_as_long_as_the_system_allows() {
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let (listener, _) = listen();
    // Of a listener, tcp_info has the queue's limit where it has a connection's `sacked` (tcp(7) is silent on it, ss(8)
    // prints it as Send-Q).
    assert_eq!(tcp_info(&listener).tcpi_sacked, somaxconn.trim().parse().unwrap());
}

fn tcp_info(socket: &impl std::os::fd::AsRawFd) -> libc::tcp_info {
    // SAFETY: it is made of numbers alone.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let into = (&raw mut info).cast();
    // SAFETY: the kernel writes no more than `len` bytes, which is what there are.
    let status = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut len) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    info
}

#[test]
fn nodelay_is_left_as_the_kernel_has_it() {
    on_tasks_and_threads(|| {
        let (listener, addr) = listen();
        let connected = TcpStream::connect(addr).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(!connected.nodelay().unwrap());
        assert!(!accepted.nodelay().unwrap());
    });
}

#[test]
fn sockets_never_block_and_are_not_inherited_from_birth() {
    let names = "socket,accept4,fcntl,ioctl";
    let trace =
        traced("sockets_never_block_and_are_not_inherited_from_birth", &["-e", &format!("trace={names}")], || {
            let (listener, addr) = listen();
            let connected = TcpStream::connect(addr).unwrap();
            while !common::has_event(&listener) {} // or it asks twice
            let (accepted, _) = listener.accept().unwrap();
            for fd in [listener.as_fd(), connected.as_fd(), accepted.as_fd()] {
                assert!(rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK));
                assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
            }
        });
    let Some(trace) = trace else { return };
    let births: Vec<_> = trace.lines().filter(|l| l.contains("socket(AF_INET") || l.contains("accept4(")).collect();
    assert_eq!(births.len(), 3, "{trace}");
    for birth in births {
        assert!(birth.contains("SOCK_CLOEXEC") && birth.contains("SOCK_NONBLOCK"), "{birth}");
    }
}

#[test]
fn each_connection_is_accepted_once_whoever_accepts() {
    on_tasks_and_threads(|| {
        const CONNECTIONS: u8 = 60;
        let (listener, addr) = listen();
        let (found, finds) = channel::unbounded();
        let acceptors: Vec<_> = [CALLERS, CALLERS]
            .concat()
            .into_iter()
            .map(|caller| {
                let (listener, found) = (listener.try_clone().unwrap(), found.clone());
                caller.run(move || {
                    for stream in listener.incoming() {
                        let mut byte = [0];
                        stream.unwrap().read_exact(&mut byte).unwrap();
                        found.send(byte[0]).unwrap();
                    }
                })
            })
            .collect();
        drop(found);
        for i in 0..CONNECTIONS {
            TcpStream::connect(addr).unwrap().write_all(&[i]).unwrap();
        }
        let mut seen: Vec<u8> = (0..CONNECTIONS).map(|_| finds.recv().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..CONNECTIONS).collect::<Vec<_>>());
        listener.close().unwrap();
        acceptors.into_iter().for_each(|acceptor| acceptor.join().unwrap());
        assert!(finds.recv().is_err());
    });
}

#[test]
fn a_nonblocking_accept_that_finds_nothing_would_block() {
    on_tasks_and_threads(|| {
        let (listener, addr) = listen();
        listener.set_nonblocking(true).unwrap();
        let clone = listener.try_clone().unwrap();
        for listener in [&listener, &clone] {
            assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        let connected = TcpStream::connect(addr).unwrap();
        until(|| has_event(&listener));
        let (accepted, _) = listener.accept().unwrap();
        // The connection is another socket, with a mode of its own.
        let reader = towpath::spawn(move || (&accepted).read(&mut [0]).unwrap());
        listener.set_nonblocking(false).unwrap();
        drop(connected);
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn a_connection_that_was_reset_before_it_is_accepted_harms_no_other() {
    on_tasks_and_threads(|| {
        let (listener, addr) = listen();
        reset(std::net::TcpStream::connect(addr).unwrap());
        let next = TcpStream::connect(addr).unwrap();
        // Linux hands the dead one out, and its first read says what became of it.
        let (mut dead, _) = listener.accept().unwrap();
        assert_eq!(dead.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, next.local_addr().unwrap());
    });
}

#[test]
fn accept_passes_over_aborted_connections_and_interruptions() {
    for error in ["ECONNABORTED", "EINTR"] {
        let inject = format!("inject=accept4:error={error}:when=1..3");
        let trace = traced(
            "accept_passes_over_aborted_connections_and_interruptions",
            &["-e", "trace=accept4", "-e", &inject],
            || {
                on_tasks_and_threads(|| {
                    let (listener, addr) = listen();
                    let connected = TcpStream::connect(addr).unwrap();
                    let (_, peer) = listener.accept().unwrap();
                    assert_eq!(peer, connected.local_addr().unwrap());
                });
            },
        );
        let Some(trace) = trace else { return };
        let injected = trace.lines().filter(|line| line.contains("(INJECTED)")).count();
        assert_eq!(injected % 3, 0, "{trace}");
        assert!(injected >= 9, "one, two workers and a thread had three each:\n{trace}");
    }
}

#[test]
fn a_lack_of_resources_is_reported_as_it_is() {
    let errors =
        [("EMFILE", libc::EMFILE), ("ENFILE", libc::ENFILE), ("ENOBUFS", libc::ENOBUFS), ("ENOMEM", libc::ENOMEM)];
    for (error, number) in errors {
        let inject = format!("inject=accept4:error={error}:when=1..2");
        let options = ["-E", &format!("NUMBER={number}"), "-e", "trace=accept4", "-e", &inject];
        let trace = traced("a_lack_of_resources_is_reported_as_it_is", &options, || {
            let number = std::env::var("NUMBER").unwrap().parse().unwrap();
            on_each_poller(move || {
                let (listener, addr) = listen();
                let connected = TcpStream::connect(addr).unwrap();
                // The limit counts for a worker: whoever accepts here does so on one.
                let mut failures = 0;
                let peer = loop {
                    match listener.accept() {
                        Ok((_, peer)) => break peer,
                        Err(error) => assert_eq!(error.raw_os_error(), Some(number)),
                    }
                    failures += 1;
                };
                assert_eq!(failures, 2, "each call reports, and none is lost");
                assert_eq!(peer, connected.local_addr().unwrap());
            });
        });
        if trace.is_none() {
            return;
        }
    }
}

#[test]
fn without_descriptors_accept_fails_and_leaves_the_connection_queued() {
    alone("without_descriptors_accept_fails_and_leaves_the_connection_queued", || {
        on_tasks_and_threads(|| {
            let (listener, addr) = listen();
            let mut connected = TcpStream::connect(addr).unwrap();
            connected.write_all(b"hello").unwrap();
            until(|| has_event(&listener));

            let used = descriptors().last().unwrap() + 1;
            limit_descriptors(used as u64);
            let hog: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            for _ in 0..3 {
                let error = listener.accept().unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
            }
            assert!(has_event(&listener), "it is still there");
            drop(hog);
            limit_descriptors(1024);

            let (mut accepted, peer) = listener.accept().unwrap();
            assert_eq!(peer, connected.local_addr().unwrap());
            drop(connected);
            let mut text = String::new();
            accepted.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello");
        });
    });
}

#[test]
fn incoming_yields_connections_until_the_listener_is_closed() {
    on_tasks_and_threads(|| {
        let (listener, addr) = listen();
        let clone = listener.try_clone().unwrap();
        let server = towpath::spawn(move || listener.into_incoming().map(|stream| drop(stream.unwrap())).count());
        for _ in 0..3 {
            assert_eq!(TcpStream::connect(addr).unwrap().read(&mut [0]).unwrap(), 0);
        }
        clone.close().unwrap();
        assert_eq!(server.join().unwrap(), 3);
        assert_eq!(clone.incoming().count(), 0);
    });
}
