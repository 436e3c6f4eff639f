//! What sock_diag says of one socket (`struct inet_diag_msg` and INET_DIAG_* in `linux/inet_diag.h`), read into a [`Socket`].
//! Pure: a row that is too short is none, an attribute that is too short says nothing, one that is unknown is passed over.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use crate::bytes;
use crate::netlink::message::{Attributes, align};
use crate::{Algorithm, Family, Memory, Model, Shutdown, Socket, State, TcpInfo, Timer, TimerKind};

/// The length of `struct inet_diag_msg`.
const FIXED: usize = 72;

pub(crate) const AF_INET: u8 = 2;
pub(crate) const AF_INET6: u8 = 10;

// INET_DIAG_*: what an attribute is of.
pub(crate) const INFO: u16 = 2;
pub(crate) const VEGAS: u16 = 3;
pub(crate) const CONGESTION: u16 = 4;
pub(crate) const TOS: u16 = 5;
pub(crate) const TRAFFIC_CLASS: u16 = 6;
pub(crate) const SK_MEMORY: u16 = 7;
const SHUTDOWN: u16 = 8;
const DCTCP: u16 = 9;
const V6ONLY: u16 = 11;
const MARK: u16 = 15;
const BBR: u16 = 16;
const CLASS: u16 = 17;
const CGROUP: u16 = 21;

/// The socket that a message is about; none if it is not whole, or of no family of the internet.
pub(crate) fn parse(message: &[u8]) -> Option<Socket> {
    let fixed: &[u8; FIXED] = message.first_chunk()?;
    let family = match fixed[0] {
        AF_INET => Family::V4,
        AF_INET6 => Family::V6,
        _ => return None,
    };
    let word = |at| bytes::u32(fixed, at).unwrap_or_default();
    let interface = word(40);
    let peer = end(fixed, family, 6, 24, interface);
    let mut socket = Socket {
        state: State::from_number(fixed[1]),
        family,
        local: end(fixed, family, 4, 8, interface),
        peer: (peer.port() != 0).then_some(peer),
        interface,
        cookie: u64::from(word(44)) | u64::from(word(48)) << 32,
        inode: Some(word(68)).filter(|&inode| inode != 0),
        uid: word(64),
        receive_queue: word(56),
        send_queue: word(60),
        timer: timer(fixed[2], word(52), fixed[3]),
        info: None,
        memory: None,
        congestion: None,
        model: None,
        tos: None,
        traffic_class: None,
        class: None,
        shutdown: None,
        v6only: None,
        mark: None,
        cgroup: None,
    };
    for (kind, value) in Attributes::new(&message[align(FIXED)..]) {
        attribute(&mut socket, kind, value);
    }
    Some(socket)
}

fn attribute(socket: &mut Socket, kind: u16, value: &[u8]) {
    match kind {
        INFO => socket.info = Some(TcpInfo::new(value)).filter(|info| !info.as_bytes().is_empty()),
        SK_MEMORY => socket.memory = memory(value),
        CONGESTION => socket.congestion = Algorithm::parse(value),
        VEGAS => socket.model = vegas(value),
        DCTCP => socket.model = dctcp(value),
        BBR => socket.model = bbr(value),
        TOS => socket.tos = bytes::u8(value, 0),
        TRAFFIC_CLASS => socket.traffic_class = bytes::u8(value, 0),
        CLASS => socket.class = bytes::u32(value, 0),
        SHUTDOWN => socket.shutdown = bytes::u8(value, 0).map(Shutdown::from_bits_truncate),
        V6ONLY => socket.v6only = bytes::u8(value, 0).map(|octet| octet != 0),
        MARK => socket.mark = bytes::u32(value, 0),
        CGROUP => socket.cgroup = bytes::u64(value, 0),
        _ => {}
    }
}

/// The address of one end. What an IPv6 socket has of IPv4 is shown as IPv4; an address that means something on one link only
/// bears the interface.
fn end(fixed: &[u8; FIXED], family: Family, port: usize, address: usize, interface: u32) -> SocketAddr {
    let port = bytes::array(fixed, port).map_or(0, u16::from_be_bytes);
    let octets = bytes::array::<16>(fixed, address).unwrap_or_default();
    let ip = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
        Family::V6 => Ipv6Addr::from(octets).to_canonical(),
    };
    match ip {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, port, 0, interface).into(),
        ip => SocketAddr::new(ip, port),
    }
}

fn timer(kind: u8, millis: u32, retransmits: u8) -> Option<Timer> {
    let kind = match kind {
        0 => return None,
        1 => TimerKind::Retransmit,
        2 => TimerKind::Keepalive,
        3 => TimerKind::TimeWait,
        4 => TimerKind::Probe,
        other => TimerKind::Other(other),
    };
    Some(Timer { kind, expires: Duration::from_millis(millis.into()), retransmits })
}

/// SK_MEMINFO_* of `linux/sock_diag.h`, each a word.
fn memory(value: &[u8]) -> Option<Memory> {
    let word = |index: usize| bytes::u32(value, 4 * index);
    Some(Memory {
        receive_allocated: word(0)?,
        receive_limit: word(1)?,
        send_allocated: word(2)?,
        send_limit: word(3)?,
        forward_allocated: word(4)?,
        send_queued: word(5)?,
        option_memory: word(6)?,
        backlog: word(7)?,
        drops: word(8),
    })
}

fn vegas(value: &[u8]) -> Option<Model> {
    let word = |index: usize| bytes::u32(value, 4 * index);
    let micros = |index| word(index).map(|micros| Duration::from_micros(micros.into()));
    Some(Model::Vegas { enabled: word(0)? != 0, rtt_count: word(1)?, rtt: micros(2)?, min_rtt: micros(3)? })
}

fn dctcp(value: &[u8]) -> Option<Model> {
    Some(Model::Dctcp {
        enabled: bytes::u16(value, 0)? != 0,
        ce_state: bytes::u16(value, 2)? != 0,
        alpha: bytes::u32(value, 4)?,
        acked_marked: bytes::u32(value, 8)?,
        acked: bytes::u32(value, 12)?,
    })
}

fn bbr(value: &[u8]) -> Option<Model> {
    let word = |index: usize| bytes::u32(value, 4 * index);
    Some(Model::Bbr {
        bandwidth: u64::from(word(0)?) | u64::from(word(1)?) << 32,
        min_rtt: Duration::from_micros(word(2)?.into()),
        pacing_gain: word(3)?,
        cwnd_gain: word(4)?,
    })
}
