//! The new format: blocks, each with a kind and its length at both ends, in sections with a byte order of their own.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::io::Read;

use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, OptionCode, PcapNGOption};

use super::Interface;
use super::interface::Clock;
use super::reader::{Input, ReadError};
use super::record::link_type;
use crate::{Frame, Timestamp};

pub(super) const SECTION: u32 = 0x0a0d_0d0a;
pub(super) const BYTE_ORDER: u32 = 0x1a2b_3c4d;
pub(super) const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
pub(super) const STATISTICS: u32 = 5;
pub(super) const PACKET: u32 = 6;

/// What holds until the next section begins.
#[derive(Debug)]
pub(super) struct Section {
    big_endian: bool,
    /// Where its interfaces begin among all of the file.
    first_interface: usize,
}

impl Section {
    /// Reads the first block, of which the first four bytes are there.
    pub(super) fn new<R: Read>(input: &mut Input<R>) -> Result<Section, ReadError> {
        let mut section = Section { big_endian: false, first_interface: 0 };
        section.read_block(input)?;
        Ok(section)
    }

    /// Reads on to the next block with a packet; false at the end.
    pub(super) fn advance<R: Read>(
        &mut self,
        input: &mut Input<R>,
        interfaces: &mut Vec<Interface>,
    ) -> Result<bool, ReadError> {
        loop {
            input.begin();
            if !self.read_block(input)? {
                return Ok(false);
            }
            let outcome = match self.kind(&input.bytes) {
                SECTION => {
                    self.first_interface = interfaces.len();
                    Ok(())
                }
                INTERFACE => self.describe(&input.bytes).map(|interface| interfaces.push(interface)),
                STATISTICS => self.note_drops(&input.bytes, &mut interfaces[self.first_interface..]),
                PACKET | SIMPLE_PACKET | OLD_PACKET => return Ok(true),
                // Names, secrets, custom blocks, and what is yet to be invented.
                _ => Ok(()),
            };
            outcome.or_else(|what| input.corrupt(what))?;
        }
    }

    /// Reads one whole block; false at the end.
    fn read_block<R: Read>(&mut self, input: &mut Input<R>) -> Result<bool, ReadError> {
        if !input.take(8)? {
            return Ok(false);
        }
        // This kind reads the same in either order; the order comes after the length.
        if self.kind(&input.bytes) == SECTION {
            input.take(12)?;
            self.big_endian = match input.bytes[8..12] {
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                _ => return input.corrupt("a section of no known byte order"),
            };
        }
        let len = self.number(&input.bytes, 4) as usize;
        if len < 12 || !len.is_multiple_of(4) {
            return input.corrupt("a block of an impossible length");
        }
        if len > Input::<R>::MOST {
            return input.corrupt("a block longer than any can be");
        }
        input.take(len)?;
        if self.number(&input.bytes, len - 4) as usize != len {
            return input.corrupt("a block whose two lengths differ");
        }
        Ok(true)
    }

    fn kind(&self, block: &[u8]) -> u32 {
        self.number(block, 0)
    }

    /// Four bytes of a block that are known to be there.
    fn number(&self, block: &[u8], at: usize) -> u32 {
        let bytes = block[at..at + 4].try_into().expect("four bytes");
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn parse<'a>(&self, block: &'a [u8]) -> Option<Block<'a>> {
        let parse = if self.big_endian { pcap_parser::parse_block_be } else { pcap_parser::parse_block_le };
        parse(block).ok().map(|(_, block)| block)
    }

    fn describe(&self, block: &[u8]) -> Result<Interface, &'static str> {
        let Some(Block::InterfaceDescription(block)) = self.parse(block) else {
            return Err("an interface that is not described as one should be");
        };
        let mut interface = Interface::new(link_type(block.linktype.0)).snapped(block.snaplen);
        interface.name = block.if_name().and_then(Result::ok).map(str::to_owned);
        interface.clock = Clock {
            resolution: Clock::resolution(block.if_tsresol),
            offset: self.long(&block.options, OptionCode::IfTsoffset).unwrap_or(0) as i64,
        };
        Ok(interface)
    }

    fn note_drops(&self, block: &[u8], interfaces: &mut [Interface]) -> Result<(), &'static str> {
        let Some(Block::InterfaceStatistics(block)) = self.parse(block) else {
            return Err("statistics that are not as they should be");
        };
        let interface = interfaces.get_mut(block.if_id as usize).ok_or(UNKNOWN_INTERFACE)?;
        // What the interface dropped and what the system did. The later block counts, for they count from the start.
        let drops = [OptionCode::IsbIfDrop, OptionCode::IsbOsDrop].map(|code| self.long(&block.options, code));
        if drops.iter().any(Option::is_some) {
            interface.dropped = Some(drops.into_iter().flatten().fold(0, u64::saturating_add));
        }
        Ok(())
    }

    /// An option's eight bytes.
    fn long(&self, options: &[PcapNGOption<'_>], code: OptionCode) -> Option<u64> {
        let option = options.iter().find(|option| option.code == code)?;
        let bytes = option.as_bytes().ok()?.try_into().ok()?;
        Some(if self.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }
}

const UNKNOWN_INTERFACE: &str = "it belongs to an interface that was not described";
const PACKET_LIES: &str = "a packet is longer than its block";

/// The frame in a block that [`Section::advance`] has stopped at.
pub(super) fn frame<'a>(
    block: &'a [u8],
    section: &Section,
    interfaces: &[Interface],
) -> Result<Frame<'a>, &'static str> {
    let interface_at = |index: u32| {
        let place = section.first_interface + index as usize;
        Ok((place as u32, interfaces.get(place).ok_or(UNKNOWN_INTERFACE)?))
    };
    if section.kind(block) == OLD_PACKET {
        return old_frame(block, section, interface_at);
    }
    match section.parse(block).ok_or("a packet that is not as one should be")? {
        Block::EnhancedPacket(packet) => {
            let (place, interface) = interface_at(packet.if_id)?;
            let data = packet.data.get(..packet.caplen as usize).ok_or(PACKET_LIES)?;
            let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            let comment = packet.options.into_iter().find(|option| option.code == OptionCode::Comment);
            Ok(Frame {
                time: interface.clock.time(ticks),
                link: interface.link,
                interface: place,
                data,
                original_len: packet.origlen.max(packet.caplen),
                comment: comment.map_or("", text),
            })
        }
        Block::SimplePacket(packet) => {
            let (place, interface) = interface_at(0)?;
            // How much was captured is said nowhere but in these two.
            let limit = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
            let len = (packet.origlen.min(limit) as usize).min(packet.data.len());
            Ok(Frame {
                time: Timestamp::default(),
                link: interface.link,
                interface: place,
                data: &packet.data[..len],
                original_len: packet.orig_len(),
                comment: "",
            })
        }
        _ => Err("a packet that is none"),
    }
}

/// The block that the enhanced one has replaced, which `pcap-parser` does not know.
fn old_frame<'a, 'i>(
    block: &'a [u8],
    section: &Section,
    interface_at: impl FnOnce(u32) -> Result<(u32, &'i Interface), &'static str>,
) -> Result<Frame<'a>, &'static str> {
    if block.len() < 32 {
        return Err(PACKET_LIES);
    }
    // Two halves: the interface, and how many were dropped before it.
    let halves = section.number(block, 8);
    let index = if section.big_endian { halves >> 16 } else { halves & 0xffff };
    let (place, interface) = interface_at(index)?;
    let captured = section.number(block, 20);
    let data = block[28..block.len() - 4].get(..captured as usize).ok_or(PACKET_LIES)?;
    Ok(Frame {
        time: interface.clock.time(u64::from(section.number(block, 12)) << 32 | u64::from(section.number(block, 16))),
        link: interface.link,
        interface: place,
        data,
        original_len: section.number(block, 24).max(captured),
        comment: "",
    })
}

/// A comment, or nothing if it is no text.
fn text(option: PcapNGOption<'_>) -> &str {
    match option.value {
        Cow::Borrowed(value) => {
            let value = value.get(..usize::from(option.len)).unwrap_or(value);
            std::str::from_utf8(value).unwrap_or("")
        }
        Cow::Owned(_) => "",
    }
}
