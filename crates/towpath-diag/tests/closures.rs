//! The kernel tells of a socket when it does away with it.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::{PLACES, Pair, WATCHDOG, cookie, unprivileged};
use rustix::net::sockopt;
use towpath_diag::{Closed, Closures, Filter, Socket, monotonic};

/// Waits for the close of this socket.
fn until_closed(closures: &mut Closures, cookie: u64) -> Socket {
    let started = Instant::now();
    loop {
        let left = WATCHDOG.checked_sub(started.elapsed()).expect("it was closed");
        match closures.next(Some(left)).unwrap() {
            Some(Closed::Socket { at, socket }) if socket.cookie == cookie => {
                assert!(at <= monotonic());
                return *socket;
            }
            _ => {}
        }
    }
}

#[test]
fn each_end_is_told_with_what_it_had_come_to() {
    for place in PLACES {
        let mut pair = Pair::at(place);
        let mut closures = Closures::open(&Filter::new().port(pair.port())).unwrap();
        pair.client.write_all(b"hello").unwrap();
        pair.server.read_exact(&mut [0; 5]).unwrap();
        let (client, server) = (cookie(&pair.client), cookie(&pair.server));
        let local = pair.client.local_addr().unwrap();
        drop(pair.client);
        assert_eq!(pair.server.read(&mut [0]).unwrap(), 0);
        drop(pair.server);

        let closed = until_closed(&mut closures, client);
        assert_eq!((closed.local.port(), closed.local.ip()), (local.port(), local.ip().to_canonical()));
        assert_eq!(closed.info.unwrap().bytes_sent(), Some(5));
        let closed = until_closed(&mut closures, server);
        // The FIN counts.
        assert_eq!(closed.info.unwrap().bytes_received(), Some(6));
    }
}

#[test]
fn only_what_the_filter_admits_is_told() {
    let (ours, other) = (Pair::new(), Pair::new());
    let mut closures = Closures::open(&Filter::new().port(ours.port())).unwrap();
    drop(other);
    let (port, listener) = (ours.port(), cookie(&ours.listener));
    drop((ours.client, ours.server));
    drop(ours.listener);
    let started = Instant::now();
    loop {
        let Some(Closed::Socket { socket, .. }) = closures.next(Some(WATCHDOG)).unwrap() else {
            panic!("nothing was told")
        };
        assert!(socket.local.port() == port || socket.peer.is_some_and(|peer| peer.port() == port), "{socket:?}");
        if socket.cookie == listener {
            break;
        }
        assert!(started.elapsed() < WATCHDOG);
    }
}

#[test]
fn no_privilege_is_needed() {
    let pair = Pair::new();
    let (port, client) = (pair.port(), cookie(&pair.client));
    let mut closures = unprivileged(|| Closures::open(&Filter::new().port(port)).unwrap());
    drop(pair);
    assert!(until_closed(&mut closures, client).info.is_some());
}

#[test]
fn what_comes_too_fast_is_said_to_be_lost_and_more_follows() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap();
    let open = || Closures::open(&Filter::new().port(here.port())).unwrap();
    let (mut slow, mut quick) = (open(), open());
    for _ in 0..2000 {
        let client = TcpStream::connect(here).unwrap();
        sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop((client, listener.accept().unwrap()));
        while quick.next(Some(Duration::ZERO)).unwrap().is_some() {}
    }
    // The kernel tells them one after the other, and of the last one last.
    let (client, server) = (TcpStream::connect(here).unwrap(), listener.accept().unwrap());
    let last = cookie(&client);
    drop((client, server));
    until_closed(&mut quick, last);

    let (mut told, mut lost) = (0, 0);
    while let Some(closed) = slow.next(Some(Duration::ZERO)).unwrap() {
        match closed {
            Closed::Socket { .. } => told += 1,
            Closed::Lost => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(told > 0 && lost > 0, "{told} told, lost {lost} times");
    let last = cookie(&listener);
    drop(listener);
    until_closed(&mut slow, last);
}
