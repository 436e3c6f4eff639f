//! The kernel lets through what a filter admits, and nothing else.

mod common;

use std::collections::HashMap;
use std::io;
use std::net::{TcpListener, TcpStream};

use common::{PLACES, Pair};
use towpath_diag::{Diag, End, Filter, Prefix, Socket, State, States, Want};

/// The cookies of what the kernel lets through.
fn told(filter: &Filter) -> HashMap<u64, Socket> {
    let sockets = Diag::open().unwrap().sockets(filter, Want::empty()).unwrap();
    sockets.into_iter().map(|socket| (socket.cookie, socket)).collect()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// How many of a pair's three sockets pass.
fn of_pair(pair: &Pair, filter: &Filter) -> usize {
    pair.own(told(filter).into_values().collect()).len()
}

#[test]
fn a_port_is_that_of_either_end() {
    for place in PLACES {
        let pair = Pair::at(place);
        let told = told(&Filter::new().port(pair.port()));
        assert!(told.values().all(|socket| {
            let ends = [Some(socket.local), socket.peer];
            ends.into_iter().flatten().any(|end| end.port() == pair.port())
        }));
        assert_eq!(pair.own(told.into_values().collect()).len(), 3);
    }
}

#[test]
fn an_end_may_be_asked_for() {
    let pair = Pair::new();
    let here = || vec![pair.port()];
    let mut local = Filter::new();
    local.local.ports = here();
    assert_eq!(of_pair(&pair, &local), 2, "the listener and the server's end");
    let mut peer = Filter::new();
    peer.peer.ports = here();
    assert_eq!(of_pair(&pair, &peer), 1, "the client's end");
}

#[test]
fn any_of_several_ports_will_do() {
    let pairs = [(); 3].map(|()| Pair::new());
    let filter = Filter::new().port(pairs[0].port()).port(pairs[2].port());
    assert_eq!(pairs.iter().map(|pair| of_pair(pair, &filter)).collect::<Vec<_>>(), [3, 0, 3]);
}

#[test]
fn a_state_is_told_alone() {
    let pair = Pair::new();
    for (states, count) in [
        (States::LISTEN, 1),
        (States::ESTABLISHED, 2),
        (States::LISTEN | States::ESTABLISHED, 3),
        (States::all() - States::LISTEN - States::ESTABLISHED, 0),
        (States::empty(), 0),
    ] {
        assert_eq!(of_pair(&pair, &Filter::new().port(pair.port()).states(states)), count, "{states:?}");
    }
    let listening = told(&Filter::new().states(State::Listen));
    assert!(listening.values().all(|socket| socket.state == State::Listen));
}

#[test]
fn a_prefix_of_ipv4_admits_ipv4_on_ipv6_sockets() {
    let pair = Pair::at(PLACES[2]);
    let filter = |text| Filter::new().port(pair.port()).address(prefix(text));
    // The listener's address is ::, which is IPv6.
    assert_eq!(of_pair(&pair, &filter("127.0.0.0/8")), 2);
    assert_eq!(of_pair(&pair, &filter("::ffff:127.0.0.1")), 2);
    assert_eq!(of_pair(&pair, &filter("127.0.0.1/32")), 2);
    assert_eq!(of_pair(&pair, &filter("126.0.0.0/8")), 0);
    assert_eq!(of_pair(&pair, &filter("::/0")), 1, "the listener");
    assert_eq!(of_pair(&pair, &filter("0.0.0.0/0")), 2);
}

#[test]
fn a_prefix_of_ipv6_admits_ipv6() {
    let pair = Pair::at(PLACES[1]);
    let filter = |text| Filter::new().port(pair.port()).address(prefix(text));
    assert_eq!(of_pair(&pair, &filter("::1")), 3);
    assert_eq!(of_pair(&pair, &filter("::/0")), 3);
    assert_eq!(of_pair(&pair, &filter("::/127")), 3);
    assert_eq!(of_pair(&pair, &filter("::/128")), 0);
    assert_eq!(of_pair(&pair, &filter("0.0.0.0/0")), 0);
}

#[test]
fn a_listener_has_no_peer_that_an_address_would_admit() {
    for place in PLACES {
        let pair = Pair::at(place);
        let mut filter = Filter::new().port(pair.port());
        filter.peer.addresses = vec![prefix("0.0.0.0/0"), prefix("::/0")];
        assert_eq!(of_pair(&pair, &filter), 2);
    }
}

/// Over all sockets of this machine, and so over those of the other tests.
#[test]
fn the_kernel_and_matches_agree() {
    let pairs: Vec<_> = PLACES.into_iter().chain(PLACES).map(Pair::at).collect();
    let all: Vec<Socket> =
        pairs.iter().flat_map(|pair| pair.own(told(&Filter::new()).into_values().collect())).collect();
    let ports: Vec<u16> = all.iter().map(|socket| socket.local.port()).collect();
    let addresses =
        ["127.0.0.1", "::1", "::", "0.0.0.0/0", "::/0", "127.0.0.0/8", "::/96", "::fffe:0:0/95", "10.0.0.0/9"];
    let end = |seed: usize| {
        let mut end = End::default();
        end.ports.extend(ports.iter().skip(seed % 5).step_by(1 + seed % 3).take(seed % 4));
        end.addresses.extend(addresses.iter().skip(seed % 7).take(seed / 4 % 3).map(|text| prefix(text)));
        end
    };
    for seed in 0..200 {
        let mut filter = Filter::new();
        let either = end(seed);
        (filter.ports, filter.addresses) = (either.ports, either.addresses);
        (filter.local, filter.peer) = (end(seed / 3), if seed % 2 == 0 { End::default() } else { end(seed / 5) });
        let told = told(&filter);
        for socket in &all {
            assert_eq!(told.contains_key(&socket.cookie), filter.matches(socket), "{filter:?} {socket:?}");
        }
    }
}

#[test]
fn many_ports_are_filtered_and_too_many_refused() {
    let pair = Pair::new();
    let filter = |count: u16| {
        let mut filter = Filter::new().port(pair.port());
        filter.ports.extend(1..count);
        filter
    };
    assert_eq!(of_pair(&pair, &filter(2000)), 3);
    let error = Diag::open().unwrap().sockets(&filter(3000), Want::empty()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("too many ports"), "{error}");
}

#[test]
fn a_prefix_is_read_and_written() {
    for (text, shown) in [
        ("10.1.2.3", "10.1.2.3/32"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("::1", "::1/128"),
        ("fe80::/10", "fe80::/10"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
    ] {
        assert_eq!(prefix(text).to_string(), shown);
    }
    for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "10.0.0.0/-1", "localhost"] {
        assert!(text.parse::<Prefix>().is_err(), "{text}");
    }
}

#[test]
fn bits_behind_a_prefix_mean_nothing() {
    assert!(prefix("10.255.0.1/8").contains("10.1.2.3".parse().unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let filter = Filter::new().port(client.local_addr().unwrap().port()).address(prefix("127.255.255.255/8"));
    assert!(told(&filter).contains_key(&common::cookie(&client)));
}
