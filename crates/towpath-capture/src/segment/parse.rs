//! From a link's header to the end of TCP's. `etherparse` knows the headers; what it falls back to where a length field
//! cannot be right, or bytes are missing, is decided again here: a capture may be cut, and a length of zero is usual
//! for what the network card is to cut up later.

#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::{error, fmt};

use etherparse::err::tcp::HeaderSliceError;
use etherparse::{EtherType, IpNumber, LaxNetSlice, LaxSlicedPacket, TcpSlice};

use super::{Ecn, Flags, Options, Segment};
use crate::{LinkType, Timestamp};

/// Why a frame could not be read as far as needed to say what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// The link type is none of those that [`LinkType`] names.
    UnknownLink(LinkType),
    /// The capture ends within a header, which it names.
    Cut(&'static str),
    /// A header, which it names, contradicts itself.
    Malformed(&'static str),
    /// It is a fragment of a TCP segment; fragments are not put together here.
    Fragment,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::UnknownLink(link) => write!(f, "{link} is not understood"),
            ParseError::Cut(header) => write!(f, "the capture ends within the {header} header"),
            ParseError::Malformed(header) => write!(f, "the {header} header contradicts itself"),
            ParseError::Fragment => f.write_str("an IP fragment of a TCP segment"),
        }
    }
}

impl error::Error for ParseError {}

/// The TCP segment that `frame` carries, or none if it carries something else. `original_len` is the length in bytes
/// that it had when it passed, where `frame` may be only the beginning.
///
/// # Errors
///
/// As [`ParseError`] says. A capture that is cut after TCP's header is no error: see [`Segment::is_cut`].
pub fn parse(
    link: LinkType,
    time: Timestamp,
    frame: &[u8],
    original_len: u32,
) -> Result<Option<Segment<'_>>, ParseError> {
    let Some(link) = Link::read(link, frame)? else { return Ok(None) };
    let Some(network) = Network::read(&link.packet, frame, original_len)? else { return Ok(None) };

    // What is there of TCP, without what may follow the packet to fill a short frame.
    let whole = network.end.saturating_sub(network.start);
    let bytes = frame.get(network.start..network.end.min(frame.len())).unwrap_or_default();
    let tcp = TcpSlice::from_slice(bytes).map_err(|error| match error {
        HeaderSliceError::Len(error) if error.required_len <= whole => ParseError::Cut("TCP"),
        HeaderSliceError::Len(_) | HeaderSliceError::Content(_) => ParseError::Malformed("TCP"),
    })?;
    Ok(Some(Segment {
        time,
        from: SocketAddr::new(network.from, tcp.source_port()),
        to: SocketAddr::new(network.to, tcp.destination_port()),
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        flags: flags(&tcp),
        window: tcp.window_size(),
        urgent: tcp.urgent_pointer(),
        options: Options::read(&tcp.header_slice()[TCP_FIXED..]),
        payload_len: u32::try_from(whole - tcp.header_slice().len()).unwrap_or(u32::MAX),
        payload: &bytes[tcp.header_slice().len()..],
        ecn: network.ecn,
        ttl: network.ttl,
        ip_id: network.id,
        vlan: link.vlan,
        interface: link.interface,
    }))
}

/// The length of a TCP header without options.
const TCP_FIXED: usize = 20;

/// What lies before the IP header, and what etherparse makes of the rest.
struct Link<'a> {
    packet: LaxSlicedPacket<'a>,
    vlan: Option<u16>,
    interface: Option<u32>,
}

impl<'a> Link<'a> {
    /// Nothing for what is not IP.
    fn read(link: LinkType, frame: &'a [u8]) -> Result<Option<Link<'a>>, ParseError> {
        let mut interface = None;
        let packet = match link {
            LinkType::ETHERNET => LaxSlicedPacket::from_ethernet(frame).map_err(|_| ParseError::Cut("Ethernet"))?,
            LinkType::LINUX_SLL => {
                let (header, rest) = frame.split_first_chunk::<16>().ok_or(ParseError::Cut("LINUX_SLL"))?;
                LaxSlicedPacket::from_ether_type(EtherType(u16::from_be_bytes([header[14], header[15]])), rest)
            }
            LinkType::LINUX_SLL2 => {
                let (header, rest) = frame.split_first_chunk::<20>().ok_or(ParseError::Cut("LINUX_SLL2"))?;
                interface = Some(u32::from_be_bytes([header[4], header[5], header[6], header[7]]));
                LaxSlicedPacket::from_ether_type(EtherType(u16::from_be_bytes([header[0], header[1]])), rest)
            }
            LinkType::NULL | LinkType::LOOP => {
                let (family, rest) = frame.split_first_chunk::<4>().ok_or(ParseError::Cut("loopback"))?;
                // Written in the order of whichever machine captured; AF_INET6 is not the same number everywhere.
                let family = u32::from_le_bytes(*family).min(u32::from_be_bytes(*family));
                if !matches!(family, 2 | 10 | 24 | 28 | 30) {
                    return Ok(None);
                }
                from_ip(rest)?
            }
            LinkType::RAW | LinkType::IPV4 | LinkType::IPV6 => from_ip(frame)?,
            other => return Err(ParseError::UnknownLink(other)),
        };
        let vlan = packet.vlan_ids().first().map(|id| id.value());
        Ok(Some(Link { packet, vlan, interface }))
    }
}

/// The packet that begins with an IP header of either version.
fn from_ip(bytes: &[u8]) -> Result<LaxSlicedPacket<'_>, ParseError> {
    let ether_type = match bytes.first().ok_or(ParseError::Cut("IP"))? >> 4 {
        4 => EtherType::IPV4,
        6 => EtherType::IPV6,
        _ => return Err(ParseError::Malformed("IP")),
    };
    Ok(LaxSlicedPacket::from_ether_type(ether_type, bytes))
}

/// What the IP headers say of the segment within.
struct Network {
    from: IpAddr,
    to: IpAddr,
    ecn: Ecn,
    ttl: u8,
    id: Option<u16>,
    /// Where TCP begins in the frame.
    start: usize,
    /// Where the packet ended, which may be after the end of what was captured.
    end: usize,
}

impl Network {
    /// Nothing for what is not TCP.
    fn read(packet: &LaxSlicedPacket<'_>, frame: &[u8], original_len: u32) -> Result<Option<Network>, ParseError> {
        // A file may say anything of the original length.
        let frame_end = frame.len().max(original_len as usize);
        let offset = |part: &[u8]| part.as_ptr().addr().saturating_sub(frame.as_ptr().addr());
        let (network, payload) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let ip_start = offset(header.slice());
                let end = match usize::from(header.total_len()) {
                    // Longer than the field can say: a card, or the loopback's receiver, is to look at the buffer.
                    0 => frame_end,
                    total if total < header.slice().len() => return Err(ParseError::Malformed("IPv4")),
                    total => frame_end.min(ip_start + total),
                };
                let network = Network {
                    from: header.source_addr().into(),
                    to: header.destination_addr().into(),
                    ecn: ecn(header.ecn().value()),
                    ttl: header.ttl(),
                    id: Some(header.identification()),
                    start: offset(ip.payload().payload),
                    end,
                };
                (network, ip.payload())
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let ip_end = offset(header.slice()) + header.slice().len();
                let network = Network {
                    from: header.source_addr().into(),
                    to: header.destination_addr().into(),
                    ecn: ecn(header.ecn().value()),
                    ttl: header.hop_limit(),
                    id: None,
                    start: offset(ip.payload().payload),
                    end: match usize::from(header.payload_length()) {
                        // A jumbogram (RFC 2675), or as above.
                        0 => frame_end,
                        payload => frame_end.min(ip_end + payload),
                    },
                };
                (network, ip.payload())
            }
            Some(LaxNetSlice::Arp(_)) | None => return refuse(packet),
        };
        if payload.ip_number != IpNumber::TCP {
            return refuse(packet);
        }
        if payload.fragmented {
            return Err(ParseError::Fragment);
        }
        Ok(Some(network))
    }
}

/// Tells what is no TCP from what can not be told, because a header before it is cut or makes no sense.
fn refuse<T>(packet: &LaxSlicedPacket<'_>) -> Result<Option<T>, ParseError> {
    use etherparse::err::{Layer, packet::SliceError};
    let Some((error, layer)) = &packet.stop_err else { return Ok(None) };
    let header = match layer {
        Layer::VlanHeader => "VLAN",
        Layer::IpHeader => "IP",
        Layer::Ipv4Header => "IPv4",
        Layer::Ipv6Header => "IPv6",
        Layer::IpAuthHeader
        | Layer::Ipv6ExtHeader
        | Layer::Ipv6HopByHopHeader
        | Layer::Ipv6DestOptionsHeader
        | Layer::Ipv6RouteHeader
        | Layer::Ipv6FragHeader => "IP extension",
        // Whatever is wrong there is not TCP's.
        _ => return Ok(None),
    };
    Err(match error {
        SliceError::Len(_) => ParseError::Cut(header),
        _ => ParseError::Malformed(header),
    })
}

fn ecn(bits: u8) -> Ecn {
    match bits {
        0 => Ecn::NotCapable,
        1 => Ecn::Capable1,
        2 => Ecn::Capable0,
        _ => Ecn::Congested,
    }
}

fn flags(tcp: &TcpSlice<'_>) -> Flags {
    // The two bytes after the acknowledgement: four bits of length, three reserved, nine flags.
    let header = tcp.header_slice();
    Flags::from_bits_truncate(u16::from_be_bytes([header[12], header[13]]))
}
