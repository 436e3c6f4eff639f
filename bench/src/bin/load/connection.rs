//! One connection: what it still has to send, and what it still has to see come back.

use crate::Result;
use crate::messages::Messages;
use hdrhistogram::Histogram;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, sockopt};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

/// Source addresses taken by turns: a closed connection keeps its port for a minute.
const SOURCES: usize = 64;
/// Bytes sent or received at once, at most.
const CHUNK: usize = 64 << 10;

/// Buffers that all connections share.
pub(crate) struct Buffers {
    /// What is sent, or has to arrive.
    right: Vec<u8>,
    arrived: Vec<u8>,
}

impl Buffers {
    pub(crate) fn new() -> Buffers {
        Buffers { right: vec![0; CHUNK], arrived: vec![0; CHUNK] }
    }
}

pub(crate) struct Connection {
    index: usize,
    socket: OwnedFd,
    /// When each request under way was to start, the oldest first.
    started: VecDeque<Instant>,
    /// How many requests are to be sent, in all.
    wanted: u64,
    /// How many are sent as a whole, and how much of the next one.
    sent: (u64, usize),
    /// How many are answered as a whole, and how much of the next one.
    answered: (u64, usize),
}

impl Connection {
    pub(crate) fn open(index: usize, addr: SocketAddrV4) -> Result<Connection> {
        let socket = connect(index, addr).map_err(|e| format!("connection {index}: {e}"))?;
        Ok(Connection { index, socket, started: VecDeque::new(), wanted: 0, sent: (0, 0), answered: (0, 0) })
    }

    /// Closes the socket and takes a new one; messages are counted on, so that none comes again.
    pub(crate) fn reopen(&mut self, addr: SocketAddrV4, turn: usize) -> Result<()> {
        self.socket = connect(turn, addr).map_err(|e| format!("connection {}: {e}", self.index))?;
        Ok(())
    }

    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether it has been asked for anything yet.
    pub(crate) fn is_new(&self) -> bool {
        self.wanted == 0
    }

    /// One more request is to be sent, and counts from `when`.
    pub(crate) fn start(&mut self, when: Instant) {
        self.started.push_back(when);
        self.wanted += 1;
    }

    /// Sends what there is to send, as far as there is room, several requests at once.
    pub(crate) fn send(&mut self, messages: &Messages, buffers: &mut Buffers) -> Result<()> {
        while self.sent.0 < self.wanted {
            let (mut number, mut at) = self.sent;
            let mut filled = 0;
            while number < self.wanted && filled < CHUNK {
                let count = (messages.request_len() - at).min(CHUNK - filled);
                messages.fill_request(self.index, number, at, &mut buffers.right[filled..filled + count]);
                filled += count;
                (number, at) = (number + 1, 0);
            }
            match send(&self.socket, &buffers.right[..filled], SendFlags::NOSIGNAL) {
                Ok(count) => advance(&mut self.sent, count, messages.request_len()),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(format!("connection {}: send: {e}", self.index).into()),
            }
        }
        Ok(())
    }

    /// Compares what has arrived, and counts the answers that are complete; the number of them.
    ///
    /// It reads until nothing more can have come: a short read has emptied the socket, unless it is `ending`.
    pub(crate) fn receive(
        &mut self,
        messages: &Messages,
        buffers: &mut Buffers,
        ending: bool,
        latency: &mut Histogram<u64>,
    ) -> Result<u64> {
        let (before, index) = (self.answered.0, self.index);
        let fail =
            |number: u64, text: String| Err::<u64, _>(format!("connection {index}, message {number}: {text}").into());
        loop {
            let (number, at) = self.answered;
            let answer_len = messages.answer_len();
            let received = number * answer_len as u64 + at as u64;
            let may_come = messages.answerable(self.sent.0, self.sent.1) - received;
            if may_come == 0 && !ending && self.answered.0 > before {
                return Ok(number - before);
            }
            // Room for one byte more than may come.
            let room = (may_come + 1).min(CHUNK as u64) as usize;
            let count = match recv(&self.socket, &mut buffers.arrived[..room], RecvFlags::empty()) {
                Ok((_, 0)) => {
                    return fail(number, format!("closed by the server after {at} of {answer_len} bytes"));
                }
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return Ok(number - before),
                Err(Errno::INTR) => continue,
                Err(e) => return fail(number, format!("recv: {e}")),
            };
            if count as u64 > may_come {
                return fail(number, "the echo is longer than what was sent".into());
            }
            self.compare(messages, buffers, count)?;
            let done = self.answered.0 - number;
            if done > 0 {
                let now = Instant::now();
                for started in self.started.drain(..done as usize) {
                    latency.record(now.saturating_duration_since(started).as_nanos() as u64)?;
                }
            }
            if count < room && !ending && may_come > count as u64 {
                return Ok(self.answered.0 - before);
            }
        }
    }

    /// Compares the first `count` bytes that arrived with what has to.
    fn compare(&mut self, messages: &Messages, buffers: &mut Buffers, count: usize) -> Result<()> {
        let (mut from, len) = (0, messages.answer_len());
        while from < count {
            let (number, at) = self.answered;
            let part = (len - at).min(count - from);
            let right = &mut buffers.right[..part];
            messages.fill_answer(self.index, number, at, right);
            let arrived = &buffers.arrived[from..from + part];
            if right != arrived {
                let differs = right.iter().zip(arrived).take_while(|(a, b)| a == b).count();
                let text = format!("byte {} of the echo differs", at + differs);
                return Err(format!("connection {}, message {number}: {text}", self.index).into());
            }
            from += part;
            advance(&mut self.answered, part, len);
        }
        Ok(())
    }
}

/// Moves a place in a stream of messages of `len` bytes on by `count`.
fn advance(place: &mut (u64, usize), count: usize, len: usize) {
    let at = place.1 + count;
    *place = (place.0 + (at / len) as u64, at % len);
}

fn connect(turn: usize, addr: SocketAddrV4) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let source = Ipv4Addr::new(127, 0, 0, 1 + (turn % SOURCES) as u8);
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    rustix::net::connect(&socket, &addr)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}
