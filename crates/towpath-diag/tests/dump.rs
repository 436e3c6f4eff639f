//! A dump tells what real sockets are doing, of both families.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown as How, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{PLACES, Pair, cookie, inode, is_root, look, unprivileged, until};
use rustix::net::sockopt;
use towpath_diag::{Diag, Family, Filter, Shutdown, Socket, State, States, TimerKind, Want};

fn of_port(port: u16) -> Vec<Socket> {
    Diag::open().unwrap().sockets(&Filter::new().port(port), Want::all()).unwrap()
}

fn listening(listener: &TcpListener) -> Socket {
    let sockets = of_port(listener.local_addr().unwrap().port());
    sockets.into_iter().find(|socket| socket.cookie == cookie(listener)).expect("it listens")
}

fn by_local(sockets: &[Socket], stream: &TcpStream) -> Socket {
    let local = stream.local_addr().unwrap();
    let found = sockets.iter().find(|socket| socket.local.port() == local.port() && socket.state != State::Listen);
    found.unwrap_or_else(|| panic!("{local} is in {sockets:?}")).clone()
}

#[test]
fn a_connection_is_told_from_both_ends() {
    for place in PLACES {
        let pair = Pair::at(place);
        let sockets = pair.own(of_port(pair.port()));
        assert_eq!(sockets.len(), 3, "{sockets:?}");
        for stream in [&pair.client, &pair.server] {
            let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
            let ends = |socket: &Socket| (socket.local.ip(), socket.peer.map(|peer| peer.ip()));
            let socket = by_local(&sockets, stream);
            assert_eq!(socket.state, State::Established);
            assert_eq!(ends(&socket), (local.ip().to_canonical(), Some(peer.ip().to_canonical())));
            assert_eq!(socket.peer.unwrap().port(), peer.port());
            assert_eq!((socket.inode, socket.cookie), (Some(inode(stream)), cookie(stream)));
            assert_eq!(socket.uid, rustix::process::geteuid().as_raw());
        }
    }
}

#[test]
fn ipv4_on_an_ipv6_socket_is_shown_as_ipv4() {
    let pair = Pair::at(PLACES[2]);
    let socket = by_local(&of_port(pair.port()), &pair.server);
    assert_eq!(socket.family, Family::V6);
    assert_eq!(socket.local.to_string(), format!("127.0.0.1:{}", pair.port()));
}

#[test]
fn a_listener_tells_its_accept_queue() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 7).unwrap();
    let here = listener.local_addr().unwrap();
    let _clients = [(); 2].map(|()| TcpStream::connect(here).unwrap());
    let sockets = until("both connections to be queued", || {
        let sockets = of_port(here.port());
        sockets.iter().any(|socket| socket.state == State::Listen && socket.receive_queue == 2).then_some(sockets)
    });
    let listening = sockets.iter().find(|socket| socket.state == State::Listen).unwrap();
    assert_eq!((listening.send_queue, listening.peer), (7, None));
    assert_eq!((listening.v6only, listening.inode), (None, Some(inode(&listener))));
    let queued: Vec<_> = sockets.iter().filter(|socket| socket.peer.is_some() && socket.local == here).collect();
    assert_eq!(queued.len(), 2);
    assert!(
        queued
            .iter()
            .all(|socket| socket.state == State::Established && socket.inode.is_none() && socket.info.is_some())
    );
}

#[test]
fn a_listener_of_ipv6_tells_whether_it_takes_nothing_else() {
    let both = TcpListener::bind("[::]:0").unwrap();
    assert_eq!(listening(&both).v6only, Some(false));
    let only = rustix::net::socket(rustix::net::AddressFamily::INET6, rustix::net::SocketType::STREAM, None).unwrap();
    sockopt::set_ipv6_v6only(&only, true).unwrap();
    rustix::net::bind(&only, &std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    rustix::net::listen(&only, 1).unwrap();
    let only = TcpListener::from(only);
    assert_eq!(listening(&only).v6only, Some(true));
}

#[test]
fn queues_hold_what_was_not_read_and_not_acknowledged() {
    let mut pair = Pair::new();
    pair.client.write_all(b"hello").unwrap();
    pair.server.peek(&mut [0; 5]).unwrap();
    assert_eq!(look(&pair.server).receive_queue, 5);
    // Until the peer takes no more.
    pair.client.set_nonblocking(true).unwrap();
    while pair.client.write(&[0; 1 << 16]).is_ok() {}
    let stuck = until("a full send queue", || Some(look(&pair.client)).filter(|socket| socket.send_queue > 0));
    assert!(stuck.memory.unwrap().send_queued >= stuck.send_queue, "{stuck:?}");
}

#[test]
fn a_half_closed_connection_says_which_half() {
    let mut pair = Pair::new();
    let of = |stream: &TcpStream| (look(stream).state, look(stream).shutdown.unwrap());
    assert_eq!(of(&pair.client), (State::Established, Shutdown::empty()));
    pair.client.shutdown(How::Write).unwrap();
    assert_eq!(pair.server.read(&mut [0]).unwrap(), 0);
    until("the FIN to be acknowledged", || (of(&pair.client) == (State::FinWait2, Shutdown::SEND)).then_some(()));
    assert_eq!(of(&pair.server), (State::CloseWait, Shutdown::RECEIVE));
}

#[test]
fn time_wait_has_blanks_and_a_timer() {
    for place in PLACES {
        let mut pair = Pair::at(place);
        let (local, port) = (pair.client.local_addr().unwrap(), pair.port());
        pair.client.shutdown(How::Write).unwrap();
        assert_eq!(pair.server.read(&mut [0]).unwrap(), 0);
        drop(pair.server);
        assert_eq!(pair.client.read(&mut [0]).unwrap(), 0);
        let rest = of_port(port)
            .into_iter()
            .find(|socket| socket.state == State::TimeWait && socket.local.port() == local.port())
            .unwrap();
        assert_eq!((rest.local.port(), rest.peer.unwrap().port()), (local.port(), port));
        assert_eq!(
            (rest.inode, rest.info, rest.memory, rest.congestion, rest.shutdown),
            (None, None, None, None, None)
        );
        let timer = rest.timer.unwrap();
        assert_eq!(timer.kind, TimerKind::TimeWait);
        assert!((50..=60).contains(&timer.expires.as_secs()), "{timer:?}");
    }
}

#[test]
fn a_handshake_that_is_not_complete_has_blanks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // To the kernel, the handshake is not complete before there is data.
    common::set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 30);
    let here = listener.local_addr().unwrap();
    let client = TcpStream::connect(here).unwrap();
    let half = of_port(here.port()).into_iter().find(|socket| socket.state == State::SynReceived).unwrap();
    assert_eq!((half.local, half.peer), (here, Some(client.local_addr().unwrap())));
    assert_eq!((half.inode, half.info, half.memory), (None, None, None));
    assert_eq!(half.timer.unwrap().kind, TimerKind::Retransmit);
}

#[test]
fn a_bound_socket_is_told_if_wanted() {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&fd, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let here = std::net::SocketAddr::try_from(getsockname(&fd).unwrap()).unwrap();
    let told = |sockets: Vec<Socket>| sockets.into_iter().find(|socket| socket.cookie == cookie(&fd));
    assert_eq!(told(of_port(here.port())), None);
    let bound = Filter::new().port(here.port()).states(States::BOUND);
    let socket = told(Diag::open().unwrap().sockets(&bound, Want::empty()).unwrap()).unwrap();
    assert_eq!((socket.state, socket.local, socket.peer), (State::Closed, here, None));
}

#[test]
fn what_is_not_wanted_is_not_told() {
    let pair = Pair::new();
    let filter = Filter::new().port(pair.port()).states(State::Established);
    for socket in Diag::open().unwrap().sockets(&filter, Want::empty()).unwrap() {
        assert_eq!((socket.info, socket.memory, socket.congestion, socket.tos), (None, None, None, None));
    }
    for socket in Diag::open().unwrap().sockets(&filter, Want::all()).unwrap() {
        assert!(
            socket.info.is_some() && socket.memory.is_some() && socket.congestion.is_some() && socket.tos.is_some()
        );
    }
}

#[test]
fn what_was_set_is_told() {
    let pair = Pair::new();
    sockopt::set_ip_tos(&pair.client, 0x48).unwrap();
    sockopt::set_tcp_congestion(&pair.client, "reno").unwrap();
    sockopt::set_socket_keepalive(&pair.client, true).unwrap();
    let socket = look(&pair.client);
    assert_eq!((socket.tos, socket.congestion.as_deref()), (Some(0x48), Some("reno")));
    let timer = socket.timer.unwrap();
    assert_eq!((timer.kind, timer.retransmits), (TimerKind::Keepalive, 0));
    assert!(timer.expires.as_secs() > 7000, "{timer:?}");

    let pair = Pair::at(PLACES[1]);
    sockopt::set_ipv6_tclass(&pair.client, 0x28).unwrap();
    assert_eq!(look(&pair.client).traffic_class, Some(0x28));
}

#[test]
fn memory_limits_are_those_of_the_options() {
    let pair = Pair::new();
    sockopt::set_socket_send_buffer_size(&pair.client, 40_000).unwrap();
    let memory = look(&pair.client).memory.unwrap();
    assert_eq!(memory.send_limit as usize, sockopt::socket_send_buffer_size(pair.client.as_fd()).unwrap());
    assert_eq!(memory.receive_limit as usize, sockopt::socket_recv_buffer_size(pair.client.as_fd()).unwrap());
    assert_eq!(memory.drops, Some(0));
}

#[test]
fn the_mark_is_told_to_root_only() {
    let pair = Pair::new();
    assert_eq!(unprivileged(|| look(&pair.client).mark), None);
    if is_root("the_mark_is_told_to_root_only") {
        common::set_option(&pair.client, libc::SOL_SOCKET, libc::SO_MARK, 42);
        assert_eq!(look(&pair.client).mark, Some(42));
    }
}

#[test]
fn the_cgroup_is_the_inode_of_its_folder() {
    use std::os::unix::fs::MetadataExt;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let Some(mount) = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|line| line[2] == "cgroup2")
    else {
        return println!("the_cgroup_is_the_inode_of_its_folder: left out, needs cgroup2");
    };
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    let folder = std::fs::metadata(format!("{}{path}", mount[1])).unwrap();
    assert_eq!(look(&Pair::new().client).cgroup, Some(folder.ino()));
}

#[test]
fn a_dump_that_is_left_midway_spoils_nothing() {
    let pairs: Vec<_> = (0..200).map(|_| Pair::new()).collect();
    let mut diag = Diag::open().unwrap();
    let left = catch_unwind(AssertUnwindSafe(|| diag.dump(&Filter::new(), Want::all(), |_| panic!("enough"))));
    assert!(left.is_err());
    for pair in [&pairs[0], &pairs[199]] {
        let filter = Filter::new().port(pair.port());
        assert_eq!(pair.own(diag.sockets(&filter, Want::all()).unwrap()).len(), 3);
        let (local, peer) = (pair.client.local_addr().unwrap(), pair.client.peer_addr().unwrap());
        assert!(diag.find(local, peer, Want::all()).unwrap().is_some());
    }
}

#[test]
fn a_dump_needs_no_privilege() {
    let pair = Pair::new();
    assert_eq!(pair.own(unprivileged(|| of_port(pair.port()))).len(), 3);
}
