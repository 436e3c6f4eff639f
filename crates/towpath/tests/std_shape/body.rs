//! The body of `std_shape.rs`: each test is compiled and run for either side.

#![allow(clippy::needless_borrows_for_generic_args, clippy::unbuffered_bytes, reason = "every form is what is tested")]

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::iter::FusedIterator;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use rustix::net::sockopt;

use super::net::{Incoming, Shutdown, TcpListener, TcpStream};
use super::{LATE, into_fd, reported, run, shown, spawn, until_waiting};
use crate::common::{Silent, has_event, refused, until};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// The end that connected and the end that was accepted.
fn pair() -> (TcpStream, TcpStream) {
    let (listener, addr) = listen();
    let connected = TcpStream::connect(addr).unwrap();
    (connected, listener.accept().unwrap().0)
}

fn read_some(mut stream: impl Read, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    let n = stream.read(&mut buf).unwrap();
    buf.truncate(n);
    buf
}

/// Writes until that fails, and returns how.
fn write_until_refused(mut stream: &TcpStream) -> ErrorKind {
    loop {
        if let Err(error) = stream.write(&[b'.'; 1 << 16]) {
            return error.kind();
        }
    }
}

#[test]
fn every_form_of_address_is_listened_at() {
    run(|| {
        fn is_bound(listener: io::Result<TcpListener>) {
            let addr = listener.unwrap().local_addr().unwrap();
            assert_eq!(addr.ip(), LOCALHOST);
            assert_ne!(addr.port(), 0);
        }
        is_bound(TcpListener::bind("127.0.0.1:0"));
        is_bound(TcpListener::bind("127.0.0.1:0".to_owned()));
        is_bound(TcpListener::bind(("127.0.0.1", 0)));
        is_bound(TcpListener::bind((LOCALHOST, 0)));
        is_bound(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        is_bound(TcpListener::bind(SocketAddr::new(LOCALHOST, 0)));
        is_bound(TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)));
        is_bound(TcpListener::bind(&[SocketAddr::new(LOCALHOST, 0)][..]));
        let v6 = TcpListener::bind(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0)).unwrap();
        assert_eq!(v6.local_addr().unwrap().ip(), Ipv6Addr::LOCALHOST);
    });
}

#[test]
fn every_form_of_address_is_connected_to() {
    run(|| {
        let (listener, addr) = listen();
        let SocketAddr::V4(v4) = addr else { panic!("bound to {addr}") };
        let is_connected = |stream: io::Result<TcpStream>| {
            let stream = stream.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), addr);
            let (accepted, peer) = listener.accept().unwrap();
            assert_eq!(peer, stream.local_addr().unwrap());
            assert_eq!(accepted.peer_addr().unwrap(), peer);
            assert_eq!(accepted.local_addr().unwrap(), addr);
        };
        is_connected(TcpStream::connect(addr));
        is_connected(TcpStream::connect(&addr));
        is_connected(TcpStream::connect(v4));
        is_connected(TcpStream::connect(addr.to_string()));
        is_connected(TcpStream::connect(addr.to_string().as_str()));
        is_connected(TcpStream::connect((LOCALHOST, addr.port())));
        is_connected(TcpStream::connect((Ipv4Addr::LOCALHOST, addr.port())));
        is_connected(TcpStream::connect(("127.0.0.1", addr.port())));
        is_connected(TcpStream::connect(&[addr][..]));
        is_connected(TcpStream::connect_timeout(&addr, Duration::from_secs(20)));
    });
}

#[test]
fn ipv6_is_as_good() {
    run(|| {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
        assert_eq!(accepted.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!(peer.ip(), Ipv6Addr::LOCALHOST);
    });
}

#[test]
fn an_ipv4_peer_comes_in_on_a_socket_for_both_families() {
    run(|| {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect((LOCALHOST, port)).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer, shown(stream.local_addr().unwrap()));
        assert_eq!(accepted.peer_addr().unwrap(), peer);
    });
}

#[test]
fn of_several_addresses_the_first_that_can_be_had_is_taken() {
    run(|| {
        let (listener, addr) = listen();
        let refused = refused();
        let stream = TcpStream::connect(&[refused.addr, addr][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addr);
        assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());

        let other = TcpListener::bind(&[addr, SocketAddr::new(LOCALHOST, 0)][..]).unwrap();
        assert_ne!(other.local_addr().unwrap(), addr);
    });
}

#[test]
fn a_connection_that_cannot_be_made_is_the_kernels_error() {
    run(|| {
        let refused = refused();
        for error in [
            TcpStream::connect(refused.addr).unwrap_err(),
            TcpStream::connect_timeout(&refused.addr, Duration::from_secs(20)).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        }
        // A stream cannot be multicast.
        let multicast = SocketAddr::from(([224, 0, 0, 1], 1));
        let unreachable = TcpStream::connect(multicast).unwrap_err();
        assert_ne!(unreachable.kind(), ErrorKind::ConnectionRefused);
        let both = TcpStream::connect(&[refused.addr, multicast][..]).unwrap_err();
        assert_eq!(both.kind(), reported(ErrorKind::ConnectionRefused, unreachable.kind()));
    });
}

#[test]
fn a_connection_that_takes_too_long_is_timed_out() {
    run(|| {
        let silent = Silent::at(LOCALHOST, 0).unwrap();
        let error = TcpStream::connect_timeout(&silent.addr, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let error = TcpStream::connect_timeout(&silent.addr, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn what_is_no_address_is_invalid_input() {
    run(|| {
        for text in ["127.0.0.1", "127.0.0.1:port:", "127.0.0.1:65536"] {
            assert_eq!(TcpStream::connect(text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
            assert_eq!(TcpListener::bind(text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
        }
        let none: &[SocketAddr] = &[];
        assert_eq!(TcpStream::connect(none).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(TcpListener::bind(none).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn an_address_that_cannot_be_had_is_the_kernels_error() {
    run(|| {
        let (_listener, addr) = listen();
        let error = TcpListener::bind(addr).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::AddrInUse, Some(libc::EADDRINUSE)));
        // RFC 5737: an address for documentation, which no machine has.
        let error = TcpListener::bind("192.0.2.1:0").unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::AddrNotAvailable, Some(libc::EADDRNOTAVAIL)));
    });
}

#[test]
fn sockets_are_born_as_stds_are() {
    run(|| {
        let (listener, addr) = listen();
        assert!(sockopt::socket_reuseaddr(&listener).unwrap());
        assert!(!sockopt::socket_reuseport(&listener).unwrap());
        let stream = TcpStream::connect(addr).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        for socket in [listener.as_fd(), stream.as_fd(), accepted.as_fd()] {
            assert!(rustix::io::fcntl_getfd(socket).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
        for stream in [stream, accepted] {
            assert!(!stream.nodelay().unwrap());
            assert_eq!(stream.read_timeout().unwrap(), None);
            assert_eq!(stream.write_timeout().unwrap(), None);
        }
    });
}

#[test]
fn accept_waits_for_a_connection() {
    run(|| {
        let (listener, addr) = listen();
        let clone = listener.try_clone().unwrap();
        let accepting = spawn(move || clone.accept().unwrap());
        until_waiting("accept", &listener);
        let stream = TcpStream::connect(addr).unwrap();
        let (accepted, peer) = accepting.join().unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
        (&stream).write_all(b"x").unwrap();
        assert_eq!(read_some(&accepted, 8), b"x");
    });
}

#[test]
fn clones_of_a_listener_are_one_listener() {
    run(|| {
        let (listener, addr) = listen();
        let clone = listener.try_clone().unwrap();
        assert_eq!(clone.local_addr().unwrap(), addr);
        let streams = [TcpStream::connect(addr).unwrap(), TcpStream::connect(addr).unwrap()];
        assert_eq!(clone.accept().unwrap().1, streams[0].local_addr().unwrap());
        drop(clone);
        assert_eq!(listener.accept().unwrap().1, streams[1].local_addr().unwrap());
    });
}

#[test]
fn incoming_yields_each_connection() {
    fn is_fused(_: &impl FusedIterator) {}
    run(|| {
        let (listener, addr) = listen();
        let mut incoming: Incoming<'_> = listener.incoming();
        is_fused(&incoming);
        assert!(format!("{incoming:?}").starts_with("Incoming {"), "{incoming:?}");
        for _ in 0..3 {
            let stream = TcpStream::connect(addr).unwrap();
            let accepted = incoming.next().unwrap().unwrap();
            assert_eq!(accepted.peer_addr().unwrap(), stream.local_addr().unwrap());
        }
    });
}

#[test]
fn a_listener_that_may_not_block_would_block() {
    run(|| {
        let (listener, addr) = listen();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(listener.incoming().next().unwrap().unwrap_err().kind(), ErrorKind::WouldBlock);
        let stream = TcpStream::connect(addr).unwrap();
        let accepted = listener.accept().unwrap().0;
        // What is accepted has a mode of its own.
        let reader = spawn(move || read_some(accepted, 8));
        (&stream).write_all(b"late").unwrap();
        assert_eq!(reader.join().unwrap(), b"late");
        listener.set_nonblocking(false).unwrap();
        let accepting = spawn(move || listener.accept().map(drop));
        let _stream = TcpStream::connect(addr).unwrap();
        accepting.join().unwrap().unwrap();
    });
}

#[test]
fn a_time_to_live_is_set_and_read() {
    run(|| {
        let (listener, addr) = listen();
        let stream = TcpStream::connect(addr).unwrap();
        assert_eq!(stream.ttl().unwrap(), listener.ttl().unwrap());
        listener.set_ttl(41).unwrap();
        stream.set_ttl(42).unwrap();
        assert_eq!((listener.ttl().unwrap(), stream.ttl().unwrap()), (41, 42));
        assert_eq!(stream.try_clone().unwrap().ttl().unwrap(), 42);
        assert_eq!(listener.set_ttl(256).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(stream.set_ttl(256).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn no_delay_is_set_and_read() {
    run(|| {
        let (stream, _peer) = pair();
        stream.set_nodelay(true).unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(stream.try_clone().unwrap().nodelay().unwrap());
        stream.set_nodelay(false).unwrap();
        assert!(!stream.nodelay().unwrap());
    });
}

#[test]
fn a_pending_error_is_taken_once() {
    run(|| {
        let (listener, addr) = listen();
        assert!(listener.take_error().unwrap().is_none());
        let stream = TcpStream::connect(addr).unwrap();
        assert!(stream.take_error().unwrap().is_none());
        let (peer, _) = listener.accept().unwrap();
        sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
        until(|| has_event(&stream));
        let error = stream.take_error().unwrap().expect("the reset is pending");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        assert!(stream.take_error().unwrap().is_none());
    });
}

#[test]
fn a_read_takes_what_is_there_and_a_peek_leaves_it() {
    run(|| {
        let (mut stream, mut peer) = pair();
        peer.write_all(b"hello").unwrap();
        let mut buf = [0; 16];
        assert_eq!(stream.peek(&mut buf[..2]).unwrap(), 2);
        assert_eq!(stream.peek(&mut buf).unwrap(), 5);
        assert_eq!(&buf[..5], b"hello");
        assert_eq!(stream.read(&mut buf[..3]).unwrap(), 3);
        assert_eq!(stream.read(&mut buf).unwrap(), 2);
        assert_eq!(&buf[..2], b"lo");
        drop(peer);
        assert_eq!(stream.peek(&mut buf).unwrap(), 0);
        assert_eq!(stream.read(&mut buf).unwrap(), 0);
        assert_eq!(stream.read(&mut buf).unwrap(), 0);
    });
}

#[test]
fn a_read_and_a_peek_wait_for_data() {
    run(|| {
        let (stream, mut peer) = pair();
        for peeks in [true, false] {
            let clone = stream.try_clone().unwrap();
            let reading = spawn(move || {
                let mut buf = [0; 16];
                let n = if peeks { clone.peek(&mut buf) } else { (&clone).read(&mut buf) };
                buf[..n.unwrap()].to_vec()
            });
            until_waiting("read", &stream);
            if peeks {
                peer.write_all(b"late").unwrap();
                assert_eq!(reading.join().unwrap(), b"late");
                assert_eq!(read_some(&stream, 16), b"late");
            } else {
                peer.write_all(b"later").unwrap();
                assert_eq!(reading.join().unwrap(), b"later");
            }
        }
    });
}

#[test]
fn a_call_with_no_buffer_moves_nothing() {
    run(|| {
        let (mut stream, mut peer) = pair();
        peer.write_all(b"data").unwrap();
        until(|| has_event(&stream));
        assert_eq!(stream.read(&mut []).unwrap(), 0);
        assert_eq!(stream.read_vectored(&mut []).unwrap(), 0);
        assert_eq!(read_some(&stream, 16), b"data");
        assert_eq!(stream.write(&[]).unwrap(), 0);
        assert_eq!(stream.write_vectored(&[]).unwrap(), 0);
    });
}

#[test]
fn vectored_calls_go_through_the_buffers_in_order() {
    run(|| {
        let (mut stream, mut peer) = pair();
        let sent = [&b"ab"[..], b"", b"cdef"].map(IoSlice::new);
        assert_eq!(stream.write_vectored(&sent).unwrap(), 6);
        assert_eq!((&stream).write_vectored(&sent[..1]).unwrap(), 2);
        let (mut a, mut b, mut c) = ([0; 1], [0; 3], [0; 16]);
        let n = peer.read_vectored(&mut [&mut a[..], &mut b, &mut c].map(IoSliceMut::new)).unwrap();
        assert_eq!((n, &a, &b, &c[..4]), (8, b"a", b"bcd", &b"efab"[..]));
        stream.write_all(b"xyz").unwrap();
        let n = (&peer).read_vectored(&mut [&mut a[..], &mut b].map(IoSliceMut::new)).unwrap();
        assert_eq!((n, &a, &b[..2]), (3, b"x", &b"yz"[..]));
    });
}

#[test]
fn the_provided_methods_of_read_and_write_are_there() {
    run(|| {
        let (mut stream, mut peer) = pair();
        write!(stream, "{}-{}", 1, 2).unwrap();
        Write::by_ref(&mut stream).write_all(b"345678").unwrap();
        stream.flush().unwrap();
        let mut exact = [0; 3];
        peer.read_exact(&mut exact).unwrap();
        assert_eq!(&exact, b"1-2");
        assert_eq!(Read::by_ref(&mut peer).bytes().next().unwrap().unwrap(), b'3');
        let mut two = String::new();
        Read::by_ref(&mut peer).take(2).read_to_string(&mut two).unwrap();
        assert_eq!(two, "45");
        drop(stream);
        let mut rest = Vec::new();
        peer.chain(&b"9"[..]).read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"6789");
    });
}

#[test]
fn a_shared_stream_reads_and_writes_as_an_owned_one() {
    run(|| {
        let (stream, peer) = pair();
        let (mut stream, mut peer) = (&stream, &peer);
        write!(stream, "{}-{}", 1, 2).unwrap();
        stream.write_all(b"345").unwrap();
        assert_eq!(stream.write(b"6").unwrap(), 1);
        stream.flush().unwrap();
        let mut exact = [0; 3];
        peer.read_exact(&mut exact).unwrap();
        assert_eq!(&exact, b"1-2");
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        peer.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "3456");
        assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 0);
    });
}

#[test]
fn two_use_one_stream_at_once() {
    run(|| {
        let (stream, mut peer) = pair();
        let clone = stream.try_clone().unwrap();
        let reading = spawn(move || read_some(&clone, 16));
        until_waiting("read", &stream);
        (&stream).write_all(b"question").unwrap();
        assert_eq!(read_some(&peer, 16), b"question");
        peer.write_all(b"answer").unwrap();
        assert_eq!(reading.join().unwrap(), b"answer");
    });
}

#[test]
fn clones_of_a_stream_are_one_connection() {
    run(|| {
        let (stream, mut peer) = pair();
        let clone = stream.try_clone().unwrap();
        assert_eq!(clone.local_addr().unwrap(), stream.local_addr().unwrap());
        clone.set_read_timeout(Some(Duration::from_secs(7))).unwrap();
        assert_eq!(stream.read_timeout().unwrap(), Some(Duration::from_secs(7)));
        drop(stream);
        peer.write_all(b"still").unwrap();
        assert_eq!(read_some(&clone, 16), b"still");
        drop(clone);
        assert_eq!(peer.read(&mut [0; 16]).unwrap(), 0);
    });
}

#[test]
fn a_timeout_is_set_and_read() {
    run(|| {
        let (stream, _peer) = pair();
        let second = Some(Duration::from_secs(1));
        stream.set_read_timeout(second).unwrap();
        assert_eq!((stream.read_timeout().unwrap(), stream.write_timeout().unwrap()), (second, None));
        stream.set_write_timeout(second).unwrap();
        stream.set_read_timeout(None).unwrap();
        assert_eq!((stream.read_timeout().unwrap(), stream.write_timeout().unwrap()), (None, second));
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            assert_eq!(set(&stream, Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(stream.write_timeout().unwrap(), second);
    });
}

#[test]
fn a_late_call_fails_and_loses_nothing() {
    run(|| {
        let (mut stream, mut peer) = pair();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap_err().kind(), LATE);
        assert_eq!(stream.peek(&mut [0; 16]).unwrap_err().kind(), LATE);
        peer.write_all(b"late").unwrap();
        until(|| has_event(&stream));
        assert_eq!(read_some(&stream, 16), b"late");

        peer.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
        assert_eq!(write_until_refused(&peer), LATE);
    });
}

#[test]
fn a_stream_that_may_not_block_would_block() {
    run(|| {
        let (mut stream, mut peer) = pair();
        stream.set_nonblocking(true).unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(stream.peek(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
        peer.write_all(b"now").unwrap();
        until(|| has_event(&stream));
        assert_eq!(read_some(&stream, 16), b"now");
        assert_eq!(write_until_refused(&stream), ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        let clone = stream.try_clone().unwrap();
        let reading = spawn(move || read_some(&clone, 16));
        until_waiting("read", &stream);
        peer.write_all(b"then").unwrap();
        assert_eq!(reading.join().unwrap(), b"then");
    });
}

#[test]
fn shutting_down_writing_ends_the_peers_reads_and_nothing_else() {
    run(|| {
        let (mut stream, mut peer) = pair();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(peer.read(&mut [0; 16]).unwrap(), 0);
        assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        peer.write_all(b"answer").unwrap();
        assert_eq!(read_some(&stream, 16), b"answer");
    });
}

#[test]
fn shutting_down_reading_wakes_a_reader() {
    run(|| {
        let (stream, mut peer) = pair();
        for how in [Shutdown::Read, Shutdown::Both] {
            let clone = stream.try_clone().unwrap();
            let reading = spawn(move || (&clone).read(&mut [0; 16]));
            if how == Shutdown::Read {
                until_waiting("read", &stream);
            }
            stream.shutdown(how).unwrap();
            assert_eq!(reading.join().unwrap().unwrap(), 0);
        }
        assert_eq!(peer.read(&mut [0; 16]).unwrap(), 0);
    });
}

#[test]
fn dropping_a_stream_ends_the_peers_reads() {
    run(|| {
        let (mut stream, mut peer) = pair();
        stream.write_all(b"last").unwrap();
        drop(stream);
        let mut text = String::new();
        peer.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last");
        // The first write after the FIN is answered by a reset; the next finds the connection gone, without a signal.
        peer.write_all(b"x").unwrap();
        until(|| (&peer).write(b"x").is_err());
        assert_eq!(peer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn dropping_a_stream_with_data_unread_resets_the_connection() {
    run(|| {
        let (stream, mut peer) = pair();
        peer.write_all(b"unread").unwrap();
        until(|| has_event(&stream));
        drop(stream);
        until(|| has_event(&peer));
        assert_eq!(peer.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn an_unconnected_socket_says_so() {
    run(|| {
        let (listener, _) = listen();
        let stream = TcpStream::from(into_fd(listener).unwrap());
        assert_eq!(stream.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!((&stream).read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

#[test]
fn descriptors_are_lent() {
    run(|| {
        let (listener, addr) = listen();
        assert_eq!(listener.as_fd().as_raw_fd(), listener.as_raw_fd());
        assert_eq!(SocketAddr::try_from(rustix::net::getsockname(&listener).unwrap()).unwrap(), addr);
        let stream = TcpStream::connect(addr).unwrap();
        assert_eq!(stream.as_fd().as_raw_fd(), stream.as_raw_fd());
        assert_eq!(SocketAddr::try_from(rustix::net::getpeername(&stream).unwrap().unwrap()).unwrap(), addr);
    });
}

#[test]
fn descriptors_are_given_and_taken() {
    run(|| {
        let (listener, addr) = listen();
        let number = listener.as_raw_fd();
        let fd: OwnedFd = into_fd(listener).unwrap();
        assert_eq!(fd.as_raw_fd(), number);
        let listener = TcpListener::from(fd);
        // SAFETY: the number is an open descriptor that nobody else owns.
        let listener = unsafe { TcpListener::from_raw_fd(into_fd(listener).unwrap().into_raw_fd()) };
        assert_eq!(listener.local_addr().unwrap(), addr);

        let mut stream = TcpStream::connect(addr).unwrap();
        let mut peer = listener.accept().unwrap().0;
        stream.write_all(b"hello").unwrap();
        let peer_fd: OwnedFd = into_fd(peer).unwrap();
        peer = TcpStream::from(peer_fd);
        // SAFETY: the number is an open descriptor that nobody else owns.
        peer = unsafe { TcpStream::from_raw_fd(into_fd(peer).unwrap().into_raw_fd()) };
        assert_eq!(read_some(&peer, 16), b"hello");
    });
}

#[test]
fn a_descriptor_is_given_in_the_mode_that_was_set() {
    run(|| {
        for nonblocking in [false, true] {
            let (stream, _peer) = pair();
            stream.set_nonblocking(nonblocking).unwrap();
            let fd = into_fd(stream).unwrap();
            let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
            assert_eq!(flags.contains(rustix::fs::OFlags::NONBLOCK), nonblocking);
            let mut stream = TcpStream::from(fd);
            if nonblocking {
                assert_eq!(stream.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
            }
        }
    });
}

#[test]
fn debug_shows_addresses_and_descriptor() {
    run(|| {
        let (listener, addr) = listen();
        let fd = listener.as_raw_fd();
        assert_eq!(format!("{listener:?}"), format!("TcpListener {{ addr: {addr}, fd: {fd} }}"));
        let stream = TcpStream::connect(addr).unwrap();
        let (local, fd) = (stream.local_addr().unwrap(), stream.as_raw_fd());
        assert_eq!(format!("{stream:?}"), format!("TcpStream {{ addr: {local}, peer: {addr}, fd: {fd} }}"));
    });
}

#[test]
fn the_types_may_go_wherever_stds_go() {
    fn anywhere<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    anywhere::<TcpListener>();
    anywhere::<TcpStream>();
    anywhere::<Incoming<'_>>();
}
