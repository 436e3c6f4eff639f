//! The old format: a header, then records of a time, two lengths and a frame.

#![forbid(unsafe_code)]

use std::io::Read;

use super::Interface;
use super::interface::Clock;
use super::reader::{Input, ReadError};
use crate::{Frame, LinkType};

/// The way that a file's records are written.
#[derive(Debug)]
pub(super) struct Records {
    big_endian: bool,
    /// A record's header has 16 bytes, or 24 in Kuznetsov's form.
    header_len: usize,
}

impl Records {
    /// Reads the file's header, of which the first four bytes are there.
    pub(super) fn new<R: Read>(input: &mut Input<R>, interfaces: &mut Vec<Interface>) -> Result<Records, ReadError> {
        input.take(24)?;
        let Ok((_, header)) = pcap_parser::parse_pcap_header(&input.bytes) else {
            return Err(ReadError::NotACapture("its first bytes are almost those of pcap"));
        };
        let mut interface = Interface::new(link_type(header.network.0)).snapped(header.snaplen);
        interface.clock = if header.is_nanosecond_precision() { Clock::NANOS } else { Clock::MICROS };
        interfaces.push(interface);
        Ok(Records { big_endian: header.is_bigendian(), header_len: if header.is_modified_format() { 24 } else { 16 } })
    }

    /// Reads the next record; false at the end.
    pub(super) fn advance<R: Read>(&self, input: &mut Input<R>) -> Result<bool, ReadError> {
        input.begin();
        if !input.take(self.header_len)? {
            return Ok(false);
        }
        let captured = self.number(&input.bytes, 8) as usize;
        if captured > Input::<R>::MOST {
            return input.corrupt("a frame is longer than any can be");
        }
        input.take(self.header_len + captured)
    }

    /// The frame in a whole record.
    pub(super) fn frame<'a>(&self, record: &'a [u8], interface: &Interface) -> Frame<'a> {
        let data = &record[self.header_len..];
        let clock = interface.clock;
        // A fraction of more than a second is taken at its word.
        let ticks = u64::from(self.number(record, 0)) * clock.resolution as u64 + u64::from(self.number(record, 4));
        Frame {
            time: clock.time(ticks),
            link: interface.link,
            interface: 0,
            data,
            original_len: self.number(record, 12).max(data.len() as u32),
            comment: "",
        }
    }

    fn number(&self, record: &[u8], at: usize) -> u32 {
        let bytes = record[at..at + 4].try_into().expect("four bytes");
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// The link type in a header's field, of which the upper half says something else.
pub(super) fn link_type(field: i32) -> LinkType {
    match field as u16 {
        // What BSDs call RAW, which some have written as it is.
        12 | 14 => LinkType::RAW,
        number => LinkType(number),
    }
}
