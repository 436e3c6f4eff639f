//! Reads either format, whichever it is. The framing is done here, so that every error has its place in the file and a
//! pipe is as good as a file; `pcap-parser` knows what is within a block.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::{error, fmt};

use super::block::Section;
use super::record::Records;
use super::{Interface, block};
use crate::Frame;

/// Why no more can be read. All before `offset` was read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// It begins like neither format, but as said.
    NotACapture(&'static str),
    /// It ends within what begins at this byte.
    Truncated {
        /// Bytes from the start of the file.
        offset: u64,
    },
    /// What begins at this byte makes no sense.
    Corrupt {
        /// Bytes from the start of the file.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Reading failed.
    Io {
        /// Bytes from the start of the file.
        offset: u64,
        /// How.
        source: io::Error,
    },
}

impl ReadError {
    /// How many bytes were read before what could not be, and all that they hold was handed out.
    pub fn offset(&self) -> u64 {
        match self {
            ReadError::NotACapture(_) => 0,
            ReadError::Truncated { offset } | ReadError::Corrupt { offset, .. } | ReadError::Io { offset, .. } => {
                *offset
            }
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NotACapture(what) => write!(f, "neither pcap nor pcapng: {what}"),
            ReadError::Truncated { offset } => write!(f, "it ends within what begins at byte {offset}"),
            ReadError::Corrupt { offset, what } => write!(f, "at byte {offset}: {what}"),
            ReadError::Io { offset, source } => write!(f, "after byte {offset}: {source}"),
        }
    }
}

impl error::Error for ReadError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            ReadError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Reads frames from a capture file, or from a pipe that one comes through.
#[derive(Debug)]
pub struct Reader<R> {
    input: Input<R>,
    format: Format,
    interfaces: Vec<Interface>,
    /// Nothing more is to be had.
    done: bool,
}

#[derive(Debug)]
enum Format {
    Pcap(Records),
    Pcapng(Section),
}

impl Reader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// That the file cannot be opened, as [`ReadError::Io`] at byte 0; and those of [`Reader::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Io { offset: 0, source })?;
        Reader::new(BufReader::with_capacity(1 << 16, file))
    }
}

impl<R: Read> Reader<R> {
    /// Reads the beginning, to see which format it is. `input` should be buffered.
    ///
    /// # Errors
    ///
    /// [`NotACapture`](ReadError::NotACapture) for anything else, and what goes wrong within the first header.
    pub fn new(input: R) -> Result<Reader<R>, ReadError> {
        let mut input = Input { input, offset: 0, bytes: Vec::new() };
        if !input.take(4)? {
            return Err(ReadError::NotACapture("it is empty"));
        }
        let mut interfaces = Vec::new();
        let format = match input.bytes[..] {
            [0x0a, 0x0d, 0x0d, 0x0a] => Format::Pcapng(Section::new(&mut input)?),
            [0xa1, 0xb2, 0xc3 | 0x3c | 0xcd, _] | [_, 0xc3 | 0x3c | 0xcd, 0xb2, 0xa1] => {
                Format::Pcap(Records::new(&mut input, &mut interfaces)?)
            }
            [0x1f, 0x8b, ..] => return Err(ReadError::NotACapture("it is compressed by gzip; unpack it first")),
            [0x28, 0xb5, 0x2f, 0xfd] => {
                return Err(ReadError::NotACapture("it is compressed by zstd; unpack it first"));
            }
            _ => return Err(ReadError::NotACapture("its first bytes are those of something else")),
        };
        Ok(Reader { input, format, interfaces, done: false })
    }

    /// The next frame; none at the end, and after an error.
    ///
    /// # Errors
    ///
    /// As [`ReadError`]: it names the byte up to which all was well.
    pub fn read_frame(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        if self.done {
            return Ok(None);
        }
        // Only what has come to its end in every respect will be read on from.
        self.done = true;
        let there = match &mut self.format {
            Format::Pcap(records) => records.advance(&mut self.input)?,
            Format::Pcapng(section) => section.advance(&mut self.input, &mut self.interfaces)?,
        };
        if !there {
            return Ok(None);
        }
        let frame = match &self.format {
            Format::Pcap(records) => records.frame(&self.input.bytes, &self.interfaces[0]),
            Format::Pcapng(section) => {
                let frame = block::frame(&self.input.bytes, section, &self.interfaces);
                frame.map_err(|what| ReadError::Corrupt { offset: self.input.offset, what })?
            }
        };
        self.done = false;
        Ok(Some(frame))
    }

    /// The interfaces described so far; [`Frame::interface`] is a place among them. All sections of a file share it.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }
}

/// The bytes of a file, one block or record at a time.
#[derive(Debug)]
pub(super) struct Input<R> {
    input: R,
    /// Where `bytes` begin.
    pub(super) offset: u64,
    /// The present block or record.
    pub(super) bytes: Vec<u8>,
}

impl<R: Read> Input<R> {
    /// Longer than any frame, and than any block that is not a mistake.
    pub(super) const MOST: usize = 32 << 20;

    /// Begins the next block or record.
    pub(super) fn begin(&mut self) {
        self.offset += self.bytes.len() as u64;
        self.bytes.clear();
    }

    /// Reads until the block has this length. False if the file ends where the block would have begun.
    pub(super) fn take(&mut self, len: usize) -> Result<bool, ReadError> {
        // Grows as bytes come: a length that lies costs no memory.
        let left = (len - self.bytes.len().min(len)) as u64;
        if let Err(source) = self.input.by_ref().take(left).read_to_end(&mut self.bytes) {
            return Err(ReadError::Io { offset: self.offset, source });
        }
        match self.bytes.len() {
            there if there >= len => Ok(true),
            0 => Ok(false),
            _ => Err(ReadError::Truncated { offset: self.offset }),
        }
    }

    pub(super) fn corrupt<T>(&self, what: &'static str) -> Result<T, ReadError> {
        Err(ReadError::Corrupt { offset: self.offset, what })
    }
}
