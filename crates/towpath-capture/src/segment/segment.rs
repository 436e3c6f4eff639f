//! A TCP segment, as its headers tell it: nothing here is relative to a connection.

#![forbid(unsafe_code)]

use std::fmt;
use std::net::SocketAddr;

use bitflags::bitflags;

use super::Options;
use crate::Timestamp;

bitflags! {
    /// The flags of a TCP header ([RFC 9293], 3.1), in their places there.
    ///
    /// [RFC 9293]: https://www.rfc-editor.org/rfc/rfc9293
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Flags: u16 {
        /// The sender has no more data.
        const FIN = 0x01;
        /// The first of a connection: synchronises sequence numbers.
        const SYN = 0x02;
        /// The connection is no more.
        const RST = 0x04;
        /// The receiver should hand over what it has.
        const PSH = 0x08;
        /// The acknowledgement number counts.
        const ACK = 0x10;
        /// The urgent pointer counts.
        const URG = 0x20;
        /// Congestion was seen on the way here (RFC 3168); in a SYN: ECN is understood.
        const ECE = 0x40;
        /// The sender has slowed down (RFC 3168).
        const CWR = 0x80;
        /// Accurate ECN (RFC 9768), once the nonce sum.
        const AE = 0x100;
    }
}

impl fmt::Display for Flags {
    /// `SYN,ACK`; `-` for none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        // What opens and closes comes first: `SYN,ACK`, `FIN,ACK`.
        let order = [
            (Flags::SYN, "SYN"),
            (Flags::FIN, "FIN"),
            (Flags::RST, "RST"),
            (Flags::PSH, "PSH"),
            (Flags::ACK, "ACK"),
            (Flags::URG, "URG"),
            (Flags::ECE, "ECE"),
            (Flags::CWR, "CWR"),
            (Flags::AE, "AE"),
        ];
        let mut comma = "";
        for (flag, name) in order {
            if self.contains(flag) {
                write!(f, "{comma}{name}")?;
                comma = ",";
            }
        }
        Ok(())
    }
}

/// What the IP header says about congestion (RFC 3168).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ecn {
    /// Routers are to drop it, not to mark it.
    #[default]
    NotCapable,
    /// May be marked: ECT(0).
    Capable0,
    /// May be marked: ECT(1).
    Capable1,
    /// A router was congested.
    Congested,
}

/// One TCP segment. Large ones are usual on loopback, where the sender's 64 KB (or, with BIG TCP, more) are never cut
/// up; and checksums are not looked at, for there and on offloading cards they are filled in late or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment<'a> {
    /// When it passed.
    pub time: Timestamp,
    /// Who sent it.
    pub from: SocketAddr,
    /// Whom it is for.
    pub to: SocketAddr,
    /// The sequence number of its first byte, or of its SYN.
    pub seq: u32,
    /// The next sequence number that its sender expects, if [`Flags::ACK`] is set.
    pub ack: u32,
    /// The header's flags.
    pub flags: Flags,
    /// The window in the header, which the connection's scale may multiply.
    pub window: u16,
    /// The urgent pointer: how many bytes after `seq` urgent data ends, if [`Flags::URG`] is set.
    pub urgent: u16,
    /// The header's options.
    pub options: Options,
    /// How many bytes of data it carried, whether or not they were captured.
    pub payload_len: u32,
    /// The data, as far as it was captured.
    pub payload: &'a [u8],
    /// What the IP header says about congestion.
    pub ecn: Ecn,
    /// The IP header's time to live, or hop limit.
    pub ttl: u8,
    /// The identification in an IPv4 header; none in IPv6.
    pub ip_id: Option<u16>,
    /// The outermost VLAN it was tagged with.
    pub vlan: Option<u16>,
    /// The interface it passed, where that is known (see [`Frame::interface`](crate::Frame::interface)).
    pub interface: Option<u32>,
}

impl<'a> Segment<'a> {
    /// A segment without data, options or anything said by its IP header.
    pub fn new(time: Timestamp, from: SocketAddr, to: SocketAddr, seq: u32, ack: u32, flags: Flags) -> Segment<'a> {
        Segment {
            time,
            from,
            to,
            seq,
            ack,
            flags,
            window: 0,
            urgent: 0,
            options: Options::default(),
            payload_len: 0,
            payload: &[],
            ecn: Ecn::NotCapable,
            ttl: 0,
            ip_id: None,
            vlan: None,
            interface: None,
        }
    }

    /// How many sequence numbers it takes: its data, and one each for SYN and FIN.
    pub fn seq_len(&self) -> u32 {
        let marks = u32::from(self.flags.contains(Flags::SYN)) + u32::from(self.flags.contains(Flags::FIN));
        self.payload_len.wrapping_add(marks)
    }

    /// Some of its data was not captured.
    pub fn is_cut(&self) -> bool {
        self.payload.len() < self.payload_len as usize
    }
}
