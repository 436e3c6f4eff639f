//! One connection of the hand-written loops, which `raw_epoll` and `raw_uring` share: what to do once an edge was
//! reported. It relies on its owner to report each one, and to ask for readable, writable, and the ends.

use crate::service::BUFFER;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

/// A connection, and what is known of its socket.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// False while nothing can be there to read: only an event sets it again.
    readable: bool,
    /// The peer has closed its side, or the connection failed: a short read no longer means that nothing follows.
    ending: bool,
    /// What the peer's window did not take yet. Nothing more is read before it is gone.
    unsent: Vec<u8>,
}

/// The connection is over, whatever the reason.
#[derive(Debug)]
pub struct Over;

impl Connection {
    /// A connection of which nothing is known yet.
    pub fn new(socket: OwnedFd) -> Connection {
        Connection { socket, readable: false, ending: false, unsent: Vec::new() }
    }

    /// Its descriptor.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// An event has come: there is something to read, or the peer or the connection has ended.
    pub fn report(&mut self, readable: bool, ending: bool) {
        self.ending |= ending;
        self.readable |= readable || self.ending;
    }

    /// Echoes until the socket has nothing more to read or no room to write.
    ///
    /// # Errors
    /// When there is nothing more to come.
    pub fn echo(&mut self, buf: &mut [u8; BUFFER]) -> Result<(), Over> {
        loop {
            if !self.unsent.is_empty() {
                let sent = self.try_send(&self.unsent)?;
                self.unsent.drain(..sent);
                if !self.unsent.is_empty() {
                    return Ok(());
                }
            }
            if !self.readable {
                return Ok(());
            }
            let count = match recv(&self.socket, &mut buf[..], RecvFlags::empty()) {
                Ok((_, 0)) => return Err(Over),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    return Ok(());
                }
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Over),
            };
            if count < BUFFER && !self.ending {
                self.readable = false;
            }
            let sent = self.try_send(&buf[..count])?;
            self.unsent.extend_from_slice(&buf[sent..count]);
        }
    }

    /// How much of `bytes` the kernel took: nothing when there is no room.
    fn try_send(&self, bytes: &[u8]) -> Result<usize, Over> {
        loop {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Over),
            }
        }
    }
}
