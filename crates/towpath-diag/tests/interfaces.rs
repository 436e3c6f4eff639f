//! Sockets whose addresses mean something on one link only, or that are bound to an interface. In a network namespace of its own,
//! which has a link.

mod common;

use std::net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::process::Command;

use common::{cookie, is_root, set_option};
use towpath_diag::{Diag, Filter, Want};

#[test]
fn a_link_local_address_bears_its_interface() {
    alone("link_local", "a_link_local_address_bears_its_interface");
}

#[test]
fn a_socket_bound_to_an_interface_is_found_again() {
    alone("bound_to_an_interface", "a_socket_bound_to_an_interface_is_found_again");
}

#[test]
#[ignore = "run by another test, in a network namespace of its own"]
fn link_local() {
    let here = SocketAddrV6::new("fe80::5".parse().unwrap(), 0, 0, link());
    let listener = TcpListener::bind(here).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    let mut diag = Diag::open().unwrap();
    for stream in [&client, &server] {
        let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let found = diag.find(local, peer, Want::empty()).unwrap().unwrap();
        assert_eq!((found.cookie, found.local, found.peer), (cookie(stream), local, Some(peer)));
        assert_eq!(diag.again(&found, Want::empty()).unwrap(), Some(found));
    }
    let found = diag.find(listener.local_addr().unwrap(), None, Want::empty()).unwrap().unwrap();
    assert_eq!((found.local, found.interface), (listener.local_addr().unwrap(), link()));
    // Without its interface, the address means nothing.
    let SocketAddr::V6(mut nowhere) = listener.local_addr().unwrap() else { unreachable!() };
    nowhere.set_scope_id(0);
    assert_eq!(diag.find(nowhere.into(), None, Want::empty()).unwrap(), None);
}

#[test]
#[ignore = "run by another test, in a network namespace of its own"]
fn bound_to_an_interface() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    set_option(&listener, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, link().try_into().unwrap());
    let filter = Filter::new().port(listener.local_addr().unwrap().port());
    let mut diag = Diag::open().unwrap();
    let socket = diag.sockets(&filter, Want::empty()).unwrap().remove(0);
    assert_eq!((socket.cookie, socket.interface), (cookie(&listener), link()));
    assert_eq!(diag.again(&socket, Want::empty()).unwrap(), Some(socket));
}

/// The number of the link.
fn link() -> u32 {
    std::fs::read_to_string("/sys/class/net/link0/ifindex").unwrap().trim().parse().unwrap()
}

/// Runs one test of this file in a network namespace of its own, with a link between two interfaces.
fn alone(test: &str, by: &str) {
    if !is_root(by) {
        return;
    }
    let shell = "mount -t sysfs none /sys && ip link set lo up && ip link add link0 type veth peer name link1 && \
        ip link set link1 up && ip link set link0 up && ip -6 address add fe80::5/64 dev link0 nodad && exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "sh", "-c", shell])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", test])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
