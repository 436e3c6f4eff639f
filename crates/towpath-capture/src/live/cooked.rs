//! The header that a captured packet is given: LINUX_SLL2, which says what the kernel knows of it and the packet does not.

#![forbid(unsafe_code)]

use super::sys::Meta;

/// Room for the header, and for a VLAN's tag after it.
pub(super) const ROOM: usize = 24;
const HEADER: usize = 20;
const TAG: usize = 4;

/// Writes the header into the room before the packet, and says where it begins. A VLAN's tag that the kernel has taken off
/// comes back between the two, where every reader looks for it.
///
/// ```text
///  0         2        4           8         10        11        12          20
///  protocol  reserved interface   hardware  direction addr len  address     [VLAN  protocol]  packet
/// ```
pub(super) fn write(room: &mut [u8; ROOM], meta: &Meta) -> usize {
    let start = if meta.vlan.is_some() { 0 } else { TAG };
    let (header, tag) = room[start..].split_at_mut(HEADER);
    let outer = meta.vlan.map_or(meta.protocol, |vlan| vlan.protocol);
    header[0..2].copy_from_slice(&outer.to_be_bytes());
    header[2..4].fill(0);
    header[4..8].copy_from_slice(&meta.interface.to_be_bytes());
    header[8..10].copy_from_slice(&meta.hardware.to_be_bytes());
    header[10] = meta.direction;
    header[11] = meta.addr_len;
    header[12..20].copy_from_slice(&meta.addr);
    if let Some(vlan) = meta.vlan {
        tag[0..2].copy_from_slice(&vlan.tag.to_be_bytes());
        tag[2..4].copy_from_slice(&meta.protocol.to_be_bytes());
    }
    start
}

#[cfg(test)]
mod tests {
    use super::super::sys::Vlan;
    use super::*;
    use crate::{LinkType, Timestamp, segment};

    fn parsed(vlan: Option<Vlan>) -> (Option<u16>, Option<u32>, usize) {
        let meta = Meta { interface: 9, protocol: 0x0800, hardware: 1, direction: 4, vlan, ..Meta::default() };
        let mut room = [0xee; ROOM];
        let start = write(&mut room, &meta);
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
}
