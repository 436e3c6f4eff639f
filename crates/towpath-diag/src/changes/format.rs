//! How the kernel lays out what it traces: the `format` file of an event and `events/header_page`, which are the same text.
//! Fields are found by name, since their offsets are the running kernel's. Pure.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::{Family, State, bytes, row};

/// Where a number or an address is in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Field {
    pub(super) offset: usize,
    pub(super) size: usize,
}

impl Field {
    fn number(self, record: &[u8]) -> Option<u64> {
        match self.size {
            1 => bytes::u8(record, self.offset).map(u64::from),
            2 => bytes::u16(record, self.offset).map(u64::from),
            4 => bytes::u32(record, self.offset).map(u64::from),
            8 => bytes::u64(record, self.offset),
            _ => None,
        }
    }
}

/// The field of this name: `field:TYPE NAME; offset:N; size:N; …`, where NAME may end in `[N]`.
pub(super) fn field(text: &str, name: &str) -> Option<Field> {
    text.lines().find_map(|line| {
        let mut parts = line.trim().split(';').map(str::trim);
        let declared = parts.next()?.strip_prefix("field:")?.rsplit([' ', '*']).next()?;
        if declared.split('[').next() != Some(name) {
            return None;
        }
        let offset = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
        let size = parts.next()?.strip_prefix("size:")?.parse().ok()?;
        Some(Field { offset, size })
    })
}

/// The layout of `sock:inet_sock_set_state` on this kernel.
#[derive(Debug)]
pub(super) struct Format {
    id: u16,
    kind: Field,
    socket: Field,
    old: Field,
    new: Field,
    local_port: Field,
    peer_port: Field,
    family: Field,
    /// Kernels before 4.17 tell of TCP only.
    protocol: Option<Field>,
    local: Field,
    peer: Field,
}

/// What the kernel tells of one change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) at: Duration,
    /// Where the kernel keeps the socket: the same until it is closed, and another's afterwards.
    pub(crate) socket: u64,
    pub(crate) old: State,
    pub(crate) new: State,
    pub(crate) family: Family,
    pub(crate) local: SocketAddr,
    /// Of port 0 if there is none.
    pub(crate) peer: SocketAddr,
}

impl Format {
    /// Reads a `format` file; the error is the name of what it does not have.
    pub(super) fn parse(text: &str) -> Result<Format, &'static str> {
        let get = |name: &'static str| field(text, name).ok_or(name);
        let id = text.lines().find_map(|line| line.strip_prefix("ID:")?.trim().parse().ok()).ok_or("ID")?;
        Ok(Format {
            id,
            kind: get("common_type")?,
            socket: get("skaddr")?,
            old: get("oldstate")?,
            new: get("newstate")?,
            local_port: get("sport")?,
            peer_port: get("dport")?,
            family: get("family")?,
            protocol: field(text, "protocol"),
            local: get("saddr_v6")?,
            peer: get("daddr_v6")?,
        })
    }

    pub(super) fn tells_protocol(&self) -> bool {
        self.protocol.is_some()
    }

    /// A record of a ring; none if it is of another event, or not of TCP, or cut off.
    pub(super) fn read(&self, at: Duration, record: &[u8]) -> Option<Record> {
        const TCP: u64 = 6;
        if self.kind.number(record)? != u64::from(self.id) {
            return None;
        }
        if let Some(protocol) = self.protocol
            && protocol.number(record)? != TCP
        {
            return None;
        }
        let family = match u8::try_from(self.family.number(record)?).ok()? {
            row::AF_INET => Family::V4,
            row::AF_INET6 => Family::V6,
            _ => return None,
        };
        // The fields for IPv6 hold IPv4 as well, as ::ffff:a.b.c.d; those for IPv4 hold anything if the socket is not of it.
        let end = |address: Field, port: Field| {
            let octets = bytes::array::<16>(record, address.offset)?;
            let ip = match Ipv6Addr::from(octets).to_canonical() {
                IpAddr::V6(ip) if family == Family::V4 && ip.is_unspecified() => [0; 4].into(),
                ip => ip,
            };
            Some(SocketAddr::new(ip, port.number(record)? as u16))
        };
        Some(Record {
            at,
            socket: self.socket.number(record)?,
            old: State::from_number(self.old.number(record)? as u8),
            new: State::from_number(self.new.number(record)? as u8),
            family,
            local: end(self.local, self.local_port)?,
            peer: end(self.peer, self.peer_port)?,
        })
    }
}
