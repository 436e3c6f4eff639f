//! `dial`'s connection as its two tasks use it, one reading and one writing at the same time.

#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use regex::bytes::Regex;
use towpath::net::{Shutdown, TcpStream};
use towpath::time::{Duration, Instant};

use super::expect::Expectation;
use super::input::{Crlf, Input};
use crate::counted;
use crate::output::Output;
use crate::output::text::Characters;

/// What is read at once.
const BLOCK: usize = 16 * 1024;
/// How long the server may take to close once we have heard what we wanted to.
const FAREWELL: Duration = Duration::from_millis(500);

/// The connection and its counts.
pub(super) struct Line {
    stream: TcpStream,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// There is something from stdin that the kernel has not taken yet.
    writing: AtomicBool,
}

/// Why there is no more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The server's FIN.
    EndOfFile,
    /// What was expected.
    Expected,
}

/// Why not everything was sent.
#[derive(Debug)]
pub(super) enum SayError {
    /// Stdin cannot be read.
    Input(io::Error),
    /// The connection takes no more.
    Write(io::Error),
}

impl Line {
    pub(super) fn new(stream: TcpStream) -> Line {
        Line { stream, bytes_in: AtomicU64::new(0), bytes_out: AtomicU64::new(0), writing: AtomicBool::new(false) }
    }

    /// Has a read fail to which nothing comes for `idle`.
    pub(super) fn set_idle(&self, idle: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(idle)
    }

    /// Prints what arrives until the server's FIN, or what is expected.
    pub(super) fn listen(&self, out: &Output, hex: bool, expect: Option<Regex>) -> io::Result<Heard> {
        let mut expect = expect.map(Expectation::new);
        let mut characters = Characters::default();
        let mut buffer = vec![0; BLOCK];
        let heard = loop {
            let chunk = match (&self.stream).read(&mut buffer) {
                Ok(0) => break Ok(Heard::EndOfFile),
                Ok(n) => &buffer[..n],
                Err(e) => break Err(e),
            };
            let offset = self.bytes_in.fetch_add(chunk.len() as u64, Relaxed);
            out.received(chunk, hex.then_some(offset), &mut characters);
            if expect.as_mut().is_some_and(|e| e.is_met_by(chunk)) {
                break Ok(Heard::Expected);
            }
        };
        out.received_rest(&mut characters);
        heard
    }

    /// Sends what `input` has, and at its end FIN if `half_close`.
    pub(super) fn say(&self, input: &Input, crlf: bool, half_close: bool) -> Result<(), SayError> {
        let mut crlf = crlf.then(Crlf::default);
        while let Ok(chunk) = input.chunks.recv() {
            let mut chunk = chunk.map_err(SayError::Input)?;
            if let Some(crlf) = &mut crlf {
                chunk = crlf.convert(&chunk);
            }
            self.writing.store(true, Relaxed);
            self.write(&chunk).map_err(SayError::Write)?;
            self.writing.store(false, Relaxed);
        }
        if half_close {
            // ENOTCONN: the server has reset the connection, which the reading side tells better.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        counted::write_all(&mut &self.stream, bytes, &self.bytes_out)
    }

    pub(super) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    pub(super) fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing.load(Relaxed)
    }

    /// Sends FIN and waits a moment for the server's: to close with something unread is a reset, which might cost the
    /// server what it has not read yet.
    pub(super) fn see_off(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.set_read_timeout(None);
        let _ = self.stream.set_read_deadline(Some(Instant::now() + FAREWELL));
        let mut buffer = vec![0; BLOCK];
        while let Ok(1..) = (&self.stream).read(&mut buffer) {}
    }

    /// Ends the connection for both tasks.
    pub(super) fn close(&self) {
        let _ = self.stream.close();
    }
}
