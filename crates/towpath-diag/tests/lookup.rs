//! One socket is found by its addresses, without a walk over all of them.

mod common;

use std::net::{SocketAddr, TcpListener};

use common::{PLACES, Pair, cookie};
use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};
use towpath_diag::{Diag, State, Want};

#[test]
fn each_end_of_a_connection_is_found() {
    let mut diag = Diag::open().unwrap();
    for place in PLACES {
        let pair = Pair::at(place);
        for stream in [&pair.client, &pair.server] {
            let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let found = diag.find(local, peer, Want::all()).unwrap().unwrap();
            assert_eq!(
                (found.cookie, found.local.port(), found.state),
                (cookie(stream), local.port(), State::Established)
            );
            assert!(found.info.is_some());
            // By the address as it is shown, too.
            let (local, peer) = (found.local, found.peer);
            assert_eq!(diag.find(local, peer, Want::empty()).unwrap().unwrap().cookie, cookie(stream));
        }
    }
}

#[test]
fn a_listener_is_found_where_there_is_no_peer() {
    let mut diag = Diag::open().unwrap();
    for place in PLACES {
        let pair = Pair::at(place);
        let here = pair.listener.local_addr().unwrap();
        let found = diag.find(here, None, Want::empty()).unwrap().unwrap();
        assert_eq!((found.cookie, found.state, found.local), (cookie(&pair.listener), State::Listen, here));
    }
}

#[test]
fn the_listener_that_would_take_a_connection_is_not_that_connection() {
    let pair = Pair::new();
    let here = pair.listener.local_addr().unwrap();
    let nobody: SocketAddr = "127.0.0.9:9".parse().unwrap();
    assert_eq!(Diag::open().unwrap().find(here, nobody, Want::empty()).unwrap(), None);
    // Nor is a listener of every address one of this address.
    let every = Pair::at(PLACES[2]);
    let here = SocketAddr::from(([127, 0, 0, 1], every.port()));
    assert_eq!(Diag::open().unwrap().find(here, None, Want::empty()).unwrap(), None);
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut diag = Diag::open().unwrap();
    assert_eq!(diag.find(unused, None, Want::all()).unwrap(), None);
    assert_eq!(diag.find("[::1]:1".parse().unwrap(), unused, Want::all()).unwrap(), None);
}

#[test]
fn the_same_socket_is_found_again_and_no_other() {
    let mut diag = Diag::open().unwrap();
    let pair = Pair::new();
    let (local, peer) = (pair.client.local_addr().unwrap(), pair.client.peer_addr().unwrap());
    let mut found = diag.find(local, peer, Want::empty()).unwrap().unwrap();
    assert_eq!(diag.again(&found, Want::INFO).unwrap().unwrap().cookie, found.cookie);
    found.cookie += 1;
    assert_eq!(diag.again(&found, Want::INFO).unwrap(), None);
}

#[test]
fn a_socket_that_is_gone_is_not_found_again() {
    let mut diag = Diag::open().unwrap();
    let pair = Pair::new();
    let (local, peer) = (pair.client.local_addr().unwrap(), pair.client.peer_addr().unwrap());
    let found = diag.find(local, peer, Want::empty()).unwrap().unwrap();
    sockopt::set_socket_linger(&pair.client, Some(std::time::Duration::ZERO)).unwrap();
    drop(pair.client);
    assert_eq!(diag.again(&found, Want::empty()).unwrap(), None);
}

#[test]
fn each_of_several_listeners_on_one_address_is_found_again() {
    let mut here = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners = [(); 4].map(|()| {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_reuseport(&fd, true).unwrap();
        bind(&fd, &here).unwrap();
        listen(&fd, 1).unwrap();
        let listener = TcpListener::from(fd);
        here = listener.local_addr().unwrap();
        listener
    });
    let mut diag = Diag::open().unwrap();
    let mut filter = towpath_diag::Filter::new().states(State::Listen);
    filter.local.ports = vec![here.port()];
    let sockets = diag.sockets(&filter, Want::empty()).unwrap();
    for listener in &listeners {
        let socket = sockets.iter().find(|socket| socket.cookie == cookie(listener)).unwrap();
        assert_eq!(diag.again(socket, Want::empty()).unwrap().unwrap().cookie, cookie(listener));
    }
}

#[test]
fn what_is_left_in_time_wait_is_the_same_socket() {
    use std::io::Read;
    let mut pair = Pair::new();
    let (local, peer) = (pair.client.local_addr().unwrap(), pair.client.peer_addr().unwrap());
    let mut diag = Diag::open().unwrap();
    let found = diag.find(local, peer, Want::empty()).unwrap().unwrap();
    pair.client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(pair.server.read(&mut [0]).unwrap(), 0);
    drop(pair.server);
    assert_eq!(pair.client.read(&mut [0]).unwrap(), 0);
    let left = diag.find(local, peer, Want::empty()).unwrap().unwrap();
    assert_eq!((left.state, left.inode), (State::TimeWait, None));
    assert_eq!(diag.again(&found, Want::empty()).unwrap().map(|socket| socket.state), Some(State::TimeWait));
}
