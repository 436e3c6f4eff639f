//! The parsers, for those who feed them anything: fuzz targets, and the tests of odd messages. No part of what this crate
//! promises.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::netlink::message::{Content, Messages};
use crate::{Filter, Socket, State, bytecode, changes, owners, request, row};

/// What a datagram of sock_diag says, message by message.
#[derive(Debug)]
pub enum Said {
    /// A socket, if the row is whole.
    Socket(Option<Box<Socket>>),
    /// The end of an answer, or an error.
    End(io::Result<()>),
    /// Anything else.
    Other,
}

/// Reads a datagram of netlink to its end, or to what is wrong with it.
pub fn datagram(bytes: &[u8]) -> Vec<io::Result<Said>> {
    let said = |content| match content {
        Content::Data(request::SOCKETS | request::SOCKETS_OF_OLD, row) => Said::Socket(row::parse(row).map(Box::new)),
        Content::End(outcome) => Said::End(outcome.result()),
        Content::Data(..) | Content::Overrun | Content::Nothing => Said::Other,
    };
    Messages::new(bytes).map(|message| Ok(said(message?.content))).collect()
}

/// A change as the kernel traced it: when, from, to, here, there.
pub type Traced = (Duration, State, State, SocketAddr, SocketAddr);

/// Reads a page of the kernel's ring buffer, laid out as `events/header_page` and the event's `format` say: how many were lost
/// before, and the changes. None if these texts are not understood, or the page has no header.
pub fn page(page: &[u8], header_page: &str, format: &str) -> Option<(u64, Vec<Traced>)> {
    changes::read_page(page, header_page, format)
}

/// The filter's program; none if it has none, or one that is too long.
pub fn program(filter: &Filter) -> Option<Vec<u8>> {
    bytecode::compile(filter).ok().flatten()
}

/// Reads `/proc/PID/stat`: when the process started, and the name of its program.
pub fn stat(bytes: &[u8]) -> Option<(u64, String)> {
    owners::read_stat(bytes)
}
