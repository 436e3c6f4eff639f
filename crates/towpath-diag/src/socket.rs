//! One TCP socket as a dump tells it.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::time::Duration;

use crate::{Algorithm, Model, State, TcpInfo};

/// A TCP socket at the moment that the kernel wrote it down. Rows of one dump are of slightly different moments.
///
/// Where the kernel has nothing to say, there is nothing: a socket in TIME-WAIT has no inode and no
/// [`info`](Socket::info), and so has a handshake that no program has accepted yet.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Socket {
    /// What it is doing.
    pub state: State,
    /// The family it was made with. One of IPv6 may carry IPv4, and then its addresses here are IPv4's.
    pub family: Family,
    /// The address here. A listener's may be unspecified.
    pub local: SocketAddr,
    /// The address of the other side; none for a listener and before a connection.
    pub peer: Option<SocketAddr>,
    /// The index of the interface that it is bound to (SO_BINDTODEVICE), or 0.
    pub interface: u32,
    /// The number that means this socket and no other until the machine is restarted: SO_COOKIE of getsockopt(2).
    pub cookie: u64,
    /// The number that its descriptors show in `/proc/PID/fd`, which [`Owners`](crate::Owners) looks for. None while no
    /// program has it: before accept(2), and after close(2).
    pub inode: Option<u32>,
    /// The user who made it.
    pub uid: u32,
    /// Bytes that the program has not read; of a listener, connections that it has not accepted.
    pub receive_queue: u32,
    /// Bytes that the peer has not acknowledged, or that were not sent; of a listener, how many connections may wait
    /// for accept(2): one more than this do.
    pub send_queue: u32,
    /// The timer that is set, if any.
    pub timer: Option<Timer>,
    /// What the connection is doing, with [`Want::INFO`](crate::Want::INFO).
    pub info: Option<TcpInfo>,
    /// What it takes of the kernel's memory, with [`Want::MEMORY`](crate::Want::MEMORY).
    pub memory: Option<Memory>,
    /// What governs its sending rate, with [`Want::CONGESTION`](crate::Want::CONGESTION).
    pub congestion: Option<Algorithm>,
    /// What that algorithm tells of itself, with [`Want::CONGESTION`](crate::Want::CONGESTION).
    pub model: Option<Model>,
    /// The type of service, an octet, with [`Want::TOS`](crate::Want::TOS).
    pub tos: Option<u8>,
    /// The IPv6 traffic class, an octet, with [`Want::TOS`](crate::Want::TOS).
    pub traffic_class: Option<u8>,
    /// The traffic control class or priority (SO_PRIORITY, net_cls), with [`Want::TOS`](crate::Want::TOS).
    pub class: Option<u32>,
    /// Which directions the program has shut down, or the peer has ended.
    pub shutdown: Option<Shutdown>,
    /// Whether an IPv6 listener takes IPv6 only.
    pub v6only: Option<bool>,
    /// The mark (SO_MARK). The kernel tells only those with `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
    /// The id of its cgroup of version 2: the inode number of the group's folder.
    pub cgroup: Option<u64>,
}

/// The family of addresses that a socket was made with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// AF_INET.
    V4,
    /// AF_INET6.
    V6,
}

/// A timer of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Timer {
    /// What happens when it fires.
    pub kind: TimerKind,
    /// How long until then.
    pub expires: Duration,
    /// How often it has fired since the peer last answered.
    pub retransmits: u8,
}

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TimerKind {
    /// Sends again what was not acknowledged: `on` in `ss`.
    Retransmit,
    /// Asks an idle peer whether it is there, or ends a socket that no program has.
    Keepalive,
    /// Ends TIME-WAIT.
    TimeWait,
    /// Asks a peer whose window is closed whether it has opened: `persist` in `ss`.
    Probe,
    /// One that this library has no name for, by the kernel's number.
    Other(u8),
}

bitflags::bitflags! {
    /// Directions that are ended (shutdown(2)).
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    pub struct Shutdown: u8 {
        /// Nothing more is received.
        const RECEIVE = 1;
        /// Nothing more is sent.
        const SEND = 2;
    }
}

/// What a socket takes of the kernel's memory, in bytes (sock_diag(7), SK_MEMINFO): `skmem` in `ss`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Memory {
    /// Taken by what was received: `r`.
    pub receive_allocated: u32,
    /// The most of that (SO_RCVBUF, or what the kernel made of it): `rb`.
    pub receive_limit: u32,
    /// Taken by what is on its way out: `t`.
    pub send_allocated: u32,
    /// The most that may be queued for sending (SO_SNDBUF, or what the kernel made of it): `tb`.
    pub send_limit: u32,
    /// Set aside for this socket, and not used now: `f`.
    pub forward_allocated: u32,
    /// Taken by what is queued for sending: `w`.
    pub send_queued: u32,
    /// Taken by options and filters: `o`.
    pub option_memory: u32,
    /// Received while the program was in a call on the socket, to be looked at after it: `bl`.
    pub backlog: u32,
    /// Segments dropped for want of memory, a count: `d`. Since Linux 4.7.
    pub drops: Option<u32>,
}
