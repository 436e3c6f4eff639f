//! What a capture holds, before anything is made of it.

#![forbid(unsafe_code)]

use std::fmt;

use crate::Timestamp;
use crate::segment::{self, ParseError, Segment};

/// The header that a frame begins with, by its number in the [registry] that pcap and pcapng share.
///
/// [registry]: https://www.tcpdump.org/linktypes.html
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: the address family, in the byte order of the machine that captured.
    pub const NULL: LinkType = LinkType(0);
    /// Ethernet.
    pub const ETHERNET: LinkType = LinkType(1);
    /// An IPv4 or IPv6 header, without anything before it.
    pub const RAW: LinkType = LinkType(101);
    /// OpenBSD loopback: the address family, in network byte order.
    pub const LOOP: LinkType = LinkType(108);
    /// What Linux captures on `any`, in its first form.
    pub const LINUX_SLL: LinkType = LinkType(113);
    /// An IPv4 header.
    pub const IPV4: LinkType = LinkType(228);
    /// An IPv6 header.
    pub const IPV6: LinkType = LinkType(229);
    /// What Linux captures on `any`, in its second form, with the number of the interface.
    pub const LINUX_SLL2: LinkType = LinkType(276);
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            LinkType::NULL => "NULL",
            LinkType::ETHERNET => "ETHERNET",
            LinkType::RAW => "RAW",
            LinkType::LOOP => "LOOP",
            LinkType::LINUX_SLL => "LINUX_SLL",
            LinkType::IPV4 => "IPV4",
            LinkType::IPV6 => "IPV6",
            LinkType::LINUX_SLL2 => "LINUX_SLL2",
            LinkType(number) => return write!(f, "link type {number}"),
        };
        f.write_str(name)
    }
}

/// One frame as it was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When it passed.
    pub time: Timestamp,
    /// The header that `data` begins with.
    pub link: LinkType,
    /// The interface it passed: the kernel's index for a live capture, the interface's place in a file.
    pub interface: u32,
    /// What was kept of it, from the link's header on.
    pub data: &'a [u8],
    /// Its length in bytes when it passed, of which `data` may be only the beginning.
    pub original_len: u32,
    /// What the file says about it; empty for a live capture. A frame's comment in a pcapng file.
    pub comment: &'a str,
}

impl<'a> Frame<'a> {
    /// The TCP segment in this frame, or none if it carries something else.
    ///
    /// # Errors
    ///
    /// As [`segment::parse`].
    pub fn segment(&self) -> Result<Option<Segment<'a>>, ParseError> {
        let mut segment = segment::parse(self.link, self.time, self.data, self.original_len)?;
        if let Some(segment) = &mut segment {
            segment.interface.get_or_insert(self.interface);
        }
        Ok(segment)
    }
}
