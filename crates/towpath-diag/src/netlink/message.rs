//! How netlink frames what it says (netlink(7), `linux/netlink.h`): messages in a datagram, attributes in a message, errors with
//! the kernel's own words. Pure functions over bytes: whatever these are, nothing panics and nothing is read beyond them.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use crate::bytes;

/// The length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

pub(crate) const REQUEST: u16 = 1;
/// NLM_F_ROOT and NLM_F_MATCH.
pub(crate) const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const HAS_ATTRIBUTES: u16 = 0x200;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;

/// The kernel's own words for an error (NLMSGERR_ATTR_MSG).
const ERROR_TEXT: u16 = 1;

/// Writes the header of a request into the room at its beginning.
pub(crate) fn head(request: &mut [u8], kind: u16, flags: u16, sequence: u32) {
    let length = request.len() as u32;
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[8..12].copy_from_slice(&sequence.to_ne_bytes());
    request[12..HEADER].fill(0);
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) sequence: u32,
    /// Something changed under the dump that this belongs to.
    pub(crate) interrupted: bool,
    pub(crate) content: Content<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Content<'a> {
    /// One of the subsystem's, of this type.
    Data(u16, &'a [u8]),
    /// The end of a dump, or the answer to a request that has no other.
    End(Outcome<'a>),
    /// Messages were lost before this one.
    Overrun,
    /// One that says nothing.
    Nothing,
}

/// How a request went, in the kernel's number and, for some errors, words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome<'a> {
    errno: i32,
    text: Option<&'a str>,
}

/// The messages of a datagram, in order. What is wrong ends it.
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    pub(crate) fn new(datagram: &'a [u8]) -> Messages<'a> {
        Messages { rest: datagram }
    }

    fn take(&mut self) -> Option<Message<'a>> {
        let length = bytes::u32(self.rest, 0)? as usize;
        let kind = bytes::u16(self.rest, 4)?;
        let flags = bytes::u16(self.rest, 6)?;
        let sequence = bytes::u32(self.rest, 8)?;
        let payload = self.rest.get(HEADER..length)?;
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        let content = match kind {
            ERROR => Content::End(Outcome::of_error(payload, flags)?),
            DONE => Content::End(Outcome::of_end(payload)),
            OVERRUN => Content::Overrun,
            // NLMSG_NOOP, and what is reserved for netlink itself.
            0..16 => Content::Nothing,
            _ => Content::Data(kind, payload),
        };
        Some(Message { sequence, interrupted: flags & DUMP_INTERRUPTED != 0, content })
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let (left, claimed) = (self.rest.len(), bytes::u32(self.rest, 0).unwrap_or(0));
        let message = self.take().ok_or(Malformed { left, claimed });
        if message.is_err() {
            self.rest = &[];
        }
        Some(message)
    }
}

impl<'a> Outcome<'a> {
    /// `struct nlmsgerr`: the number, what was asked (its header alone if capped), and attributes.
    fn of_error(payload: &'a [u8], flags: u16) -> Option<Outcome<'a>> {
        let errno = bytes::u32(payload, 0)? as i32;
        let asked =
            if flags & CAPPED != 0 { HEADER } else { bytes::u32(payload, 4).map_or(HEADER, |length| length as usize) };
        let attributes = payload.get(4..)?.get(align(asked)..).filter(|_| flags & HAS_ATTRIBUTES != 0);
        Some(Outcome { errno, text: attributes.and_then(text) })
    }

    /// The end of a dump: the number, and attributes. Old kernels send nothing here, which means that all went well.
    fn of_end(payload: &'a [u8]) -> Outcome<'a> {
        Outcome { errno: bytes::u32(payload, 0).unwrap_or(0) as i32, text: payload.get(4..).and_then(text) }
    }

    pub(crate) fn result(self) -> io::Result<()> {
        // The kernel's errors are negative. Anything else is no error: the end of a dump may bear its length.
        match (self.errno, self.text) {
            (0.., _) => Ok(()),
            (errno, None) => Err(io::Error::from_raw_os_error(errno.saturating_neg())),
            (errno, Some(text)) => {
                let error = io::Error::from_raw_os_error(errno.saturating_neg());
                Err(io::Error::new(error.kind(), Explained { error, text: text.into() }))
            }
        }
    }
}

fn text(attributes: &[u8]) -> Option<&str> {
    let (_, text) = Attributes::new(attributes).find(|(kind, _)| *kind == ERROR_TEXT)?;
    let text = std::str::from_utf8(text).ok()?.trim_end_matches('\0');
    (!text.is_empty()).then_some(text)
}

/// An error with the kernel's words for it.
#[derive(Debug)]
struct Explained {
    error: io::Error,
    text: Box<str>,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.text)
    }
}

impl std::error::Error for Explained {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// A message is not as long as it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed {
    left: usize,
    claimed: u32,
}

impl From<Malformed> for io::Error {
    fn from(Malformed { left, claimed }: Malformed) -> io::Error {
        let text = format!("netlink: a message says that it is {claimed} bytes long, where {left} are left");
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

/// The attributes of a message (`struct nlattr`): each its type, and its bytes. Ends where one does not fit.
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Attributes<'a> {
        Attributes { rest }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(bytes::u16(self.rest, 0)?);
        // The two upper bits say that it is nested, or in network order.
        let kind = bytes::u16(self.rest, 2)? & 0x3fff;
        let payload = self.rest.get(4..length)?;
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// Messages and attributes begin at multiples of four.
pub(crate) fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}
