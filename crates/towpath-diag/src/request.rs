//! What sock_diag is asked (`struct inet_diag_req_v2` in `linux/inet_diag.h`). Pure.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use crate::netlink::message;
use crate::{States, Want, row};

/// SOCK_DIAG_BY_FAMILY: the type of what is asked, and of each row of the answer.
pub(crate) const SOCKETS: u16 = 20;

/// TCPDIAG_GETSOCK, the type of the same of old.
pub(crate) const SOCKETS_OF_OLD: u16 = 18;

const TCP: u8 = 6;

/// The attribute that holds a filter's program (INET_DIAG_REQ_BYTECODE).
const PROGRAM: u16 = 1;

/// One socket, as far as it is known.
#[derive(Default)]
pub(crate) struct Id {
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) interface: u32,
    pub(crate) cookie: Option<u64>,
}

impl Id {
    /// Any socket.
    pub(crate) const ANY: Id = Id { local: None, peer: None, interface: 0, cookie: None };

    pub(crate) fn ends(&self) -> impl Iterator<Item = SocketAddr> {
        [self.local, self.peer].into_iter().flatten()
    }
}

/// Asks for the sockets of one family: that of `id`, or all that pass. Begins with room for the header of its message.
pub(crate) fn of_family(to: &mut Vec<u8>, family: u8, want: Want, states: States, id: &Id, program: Option<&[u8]>) {
    to.clear();
    to.resize(message::HEADER, 0);
    to.extend([family, TCP, extensions(want), 0]);
    to.extend(states.bits().to_ne_bytes());
    identity(to, family, id);
    filter(to, program);
}

/// Asks for all that pass, of both families, in one walk over the kernel's tables where [`of_family`] takes two: the request of
/// old (`struct inet_diag_req`, of type [`SOCKETS_OF_OLD`]), from before it named a family.
pub(crate) fn of_both(to: &mut Vec<u8>, want: Want, states: States, program: Option<&[u8]>) {
    to.clear();
    to.resize(message::HEADER, 0);
    to.extend([0, 0, 0, extensions(want)]);
    identity(to, row::AF_INET, &Id::ANY);
    to.extend(states.bits().to_ne_bytes());
    to.extend([0; 4]);
    filter(to, program);
}

/// `struct inet_diag_sockid`.
fn identity(to: &mut Vec<u8>, family: u8, id: &Id) {
    for end in [id.local, id.peer] {
        to.extend(end.map_or(0, |end| end.port()).to_be_bytes());
    }
    for end in [id.local, id.peer] {
        to.extend(address(family, end));
    }
    to.extend(id.interface.to_ne_bytes());
    // INET_DIAG_NOCOOKIE, twice.
    let cookie = id.cookie.unwrap_or(u64::MAX);
    to.extend((cookie as u32).to_ne_bytes());
    to.extend(((cookie >> 32) as u32).to_ne_bytes());
}

fn filter(to: &mut Vec<u8>, program: Option<&[u8]>) {
    if let Some(program) = program {
        to.extend((4 + program.len() as u16).to_ne_bytes());
        to.extend(PROGRAM.to_ne_bytes());
        to.extend(program);
    }
}

/// A bit for each attribute wanted, the first for number 1. Those from 9 on come unasked, or with others.
fn extensions(want: Want) -> u8 {
    let of = |wanted, attributes: &[u16]| {
        let bits = attributes.iter().map(|attribute| 1 << (attribute - 1)).sum::<u8>();
        if want.contains(wanted) { bits } else { 0 }
    };
    of(Want::INFO, &[row::INFO])
        | of(Want::MEMORY, &[row::SK_MEMORY])
        // All that an algorithm may tell of itself is asked for as that of Vegas.
        | of(Want::CONGESTION, &[row::CONGESTION, row::VEGAS])
        | of(Want::TOS, &[row::TOS, row::TRAFFIC_CLASS])
}

fn address(family: u8, end: Option<SocketAddr>) -> [u8; 16] {
    let mut bytes = [0; 16];
    match end.map(|end| end.ip()) {
        Some(IpAddr::V4(ip)) if family == row::AF_INET => bytes[..4].copy_from_slice(&ip.octets()),
        Some(IpAddr::V4(ip)) => bytes = ip.to_ipv6_mapped().octets(),
        Some(IpAddr::V6(ip)) => bytes = ip.octets(),
        None => {}
    }
    bytes
}
