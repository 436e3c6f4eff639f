//! The header that a captured packet is given: LINUX_SLL2, which says what the kernel knows of it and the packet does not.

#![forbid(unsafe_code)]

use super::sys::Meta;

/// Room for the header, and for a VLAN's tag after it.
pub(super) const ROOM: usize = 24;
const HEADER: usize = 20;
const TAG: usize = 4;

/// Writes the header into the room before the packet, which begins as `protocol` says, and says where the header begins. A VLAN's tag that the kernel has taken off
/// comes back between the two, where every reader looks for it.
///
/// ```text
///  0         2        4           8         10        11        12          20
///  protocol  reserved interface   hardware  direction addr len  address     [VLAN  protocol]  packet
/// ```
pub(super) fn write(room: &mut [u8; ROOM], meta: &Meta, protocol: u16) -> usize {
    let start = if meta.vlan.is_some() { 0 } else { TAG };
    let (header, tag) = room[start..].split_at_mut(HEADER);
    let outer = meta.vlan.map_or(protocol, |vlan| vlan.protocol);
    header[0..2].copy_from_slice(&outer.to_be_bytes());
    header[2..4].fill(0);
    header[4..8].copy_from_slice(&meta.interface.to_be_bytes());
    header[8..10].copy_from_slice(&meta.hardware.to_be_bytes());
    header[10] = meta.direction;
    header[11] = meta.addr_len;
    header[12..20].copy_from_slice(&meta.addr);
    if let Some(vlan) = meta.vlan {
        tag[0..2].copy_from_slice(&vlan.tag.to_be_bytes());
        tag[2..4].copy_from_slice(&protocol.to_be_bytes());
    }
    start
}

/// What the packet begins with, an EtherType. The kernel names what is behind the tags where one of two is left on
/// (since Linux 6.10), and the tag where what is sent begins behind it (before that).
pub(super) fn protocol(meta: &Meta, packet: &[u8]) -> u16 {
    const TAG: u16 = 0x8100;
    let said = meta.protocol;
    let ip = ip_version(packet, meta.original_len);
    let tagged = packet.get(2..4).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    match (said, ip) {
        (IPV4 | IPV6, None) if tagged == Some(said) => TAG,
        (0x8100 | 0x88a8, Some(ip)) if !matches!(tagged, Some(IPV4 | IPV6)) => ip,
        _ => said,
    }
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Which IP header the packet begins with, if its length bears it out.
fn ip_version(packet: &[u8], original_len: u32) -> Option<u16> {
    let length = |at: usize| packet.get(at..at + 2).map(|bytes| u32::from(u16::from_be_bytes([bytes[0], bytes[1]])));
    let (version, length) = match packet.first()? >> 4 {
        4 => (IPV4, length(2)?),
        6 => (IPV6, length(4)?.checked_add(40).filter(|&length| length > 40).unwrap_or(0)),
        _ => return None,
    };
    // Zero is what is too long for the field; a short frame is filled up behind the packet.
    (length == 0 || (length <= original_len && original_len - length < 64)).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::super::sys::Vlan;
    use super::*;
    use crate::{LinkType, Timestamp, segment};

    fn parsed(vlan: Option<Vlan>) -> (Option<u16>, Option<u32>, usize) {
        let meta = Meta { interface: 9, protocol: 0x0800, hardware: 1, direction: 4, vlan, ..Meta::default() };
        let mut room = [0xee; ROOM];
        let start = write(&mut room, &meta, 0x0800);
        let mut frame = room[start..].to_vec();
        frame.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
        frame.extend([0, 1, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
        let found =
            segment::parse(LinkType::LINUX_SLL2, Timestamp::default(), &frame, frame.len() as u32).unwrap().unwrap();
        (found.vlan, found.interface, start)
    }

    #[test]
    fn the_header_is_read_as_it_is_written() {
        assert_eq!(parsed(None), (None, Some(9), 4));
    }

    #[test]
    fn a_tag_that_was_taken_off_is_back() {
        assert_eq!(parsed(Some(Vlan { protocol: 0x8100, tag: 0x2064 })), (Some(100), Some(9), 0));
    }

    /// What is made of a packet that begins so, the kernel having said this; all packets are 60 bytes long.
    fn begins(said: u16, bytes: &[u8]) -> u16 {
        protocol(&Meta { protocol: said, original_len: 60, ..Meta::default() }, bytes)
    }

    #[test]
    fn a_tag_that_was_left_on_is_found_behind_what_the_kernel_says() {
        assert_eq!(begins(0x0800, &[0, 100, 8, 0, 0x45, 0, 0, 56]), 0x8100);
        assert_eq!(
            begins(0x0800, &[0x45, 100, 8, 0, 0x45, 0, 0, 56]),
            0x8100,
            "no packet of 2,048 bytes is this short"
        );
        assert_eq!(begins(0x86dd, &[0x60, 100, 0x86, 0xdd, 0x60, 0, 0, 0]), 0x8100);
        assert_eq!(begins(0x8100, &[0, 100, 8, 0, 0x45, 0, 0, 56]), 0x8100, "older kernels say so themselves");
    }

    #[test]
    fn a_tag_that_is_not_there_is_not_believed() {
        assert_eq!(begins(0x8100, &[0x45, 0, 0, 60, 0, 0]), 0x0800);
        assert_eq!(begins(0x88a8, &[0x60, 0, 0, 0, 0, 20]), 0x86dd);
    }

    #[test]
    fn what_is_said_of_other_packets_is_believed() {
        assert_eq!(begins(0x0800, &[0x45, 0, 0, 60, 8, 0]), 0x0800);
        assert_eq!(begins(0x0800, &[0x45, 0, 0, 46, 8, 0]), 0x0800, "filled up");
        assert_eq!(begins(0x0800, &[0x45, 0, 0, 0, 8, 0]), 0x0800, "too long for its field");
        assert_eq!(begins(0x86dd, &[0x60, 0, 0x86, 0xdd, 0, 20]), 0x86dd, "a flow label like a protocol");
        assert_eq!(begins(0x0806, &[0, 1, 8, 0]), 0x0806);
        assert_eq!(begins(0x0800, &[]), 0x0800);
    }
}
