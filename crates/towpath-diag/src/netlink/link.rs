//! A NETLINK_SOCK_DIAG socket. The kernel answers within the call that asks, and makes the next part of a dump within the call
//! that takes the last one, so that nothing here ever waits for an answer: one that is not there will not come.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{self, Content, Message, Messages};
use crate::sys;

/// The most that the kernel puts into a datagram of a dump, and it does so for those who have room.
const ROOM: usize = 32 << 10;

/// How often the kernel may be out of memory within one dump.
const PATIENCE: usize = 16;

#[derive(Debug)]
pub(crate) struct Link {
    fd: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
    /// True from a request until the end of its answer: what is left of that must be taken before the next request,
    /// which the kernel refuses during a dump.
    unfinished: bool,
}

/// What came.
pub(crate) enum Received<'a> {
    /// A datagram; the flag says that it is whole.
    Datagram(&'a [u8], bool),
    /// Something was lost (ENOBUFS).
    Overrun,
    /// Nothing.
    Nothing,
}

impl Link {
    /// A socket that belongs to these multicast groups, a set of bits, of the network namespace that the caller is in.
    pub(crate) fn open(groups: u32) -> io::Result<Link> {
        let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::SOCK_DIAG))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        // Of those who send to this socket alone, this admits the kernel only.
        rustix::net::connect(&fd, &SocketAddrNetlink::new(0, 0))?;
        // Kernels before 4.12 have no words for their errors.
        let _ = sys::explain_errors(fd.as_fd());
        Ok(Link { fd, buffer: vec![0; ROOM], sequence: 0, unfinished: false })
    }

    /// Asks, and calls `each` with every message of the answer, by type. The request begins with room for its header. Says
    /// whether something may be missing.
    pub(crate) fn ask(
        &mut self,
        request: &mut [u8],
        kind: u16,
        flags: u16,
        mut each: impl FnMut(u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        self.finish()?;
        self.sequence = self.sequence.wrapping_add(1);
        message::head(request, kind, flags, self.sequence);
        rustix::net::send(&self.fd, request, SendFlags::empty())?;
        self.unfinished = true;
        let (mut interrupted, mut overruns) = (false, 0);
        loop {
            let (datagram, whole) = match receive(&self.fd, &mut self.buffer)? {
                Received::Datagram(datagram, whole) => (datagram, whole),
                Received::Overrun if overruns < PATIENCE => {
                    (overruns, interrupted) = (overruns + 1, true);
                    continue;
                }
                Received::Overrun => return Err(Errno::NOBUFS.into()),
                Received::Nothing => {
                    self.unfinished = false;
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "netlink: the kernel's answer has no end",
                    ));
                }
            };
            interrupted |= !whole;
            for message in Messages::new(datagram) {
                let message = match message {
                    Ok(message) => message,
                    // What was cut off.
                    Err(_) if !whole => break,
                    Err(malformed) => return Err(malformed.into()),
                };
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.interrupted;
                match message.content {
                    Content::Data(kind, payload) => each(kind, payload)?,
                    Content::End(outcome) => {
                        self.unfinished = false;
                        return outcome.result().map(|()| interrupted);
                    }
                    Content::Overrun => interrupted = true,
                    Content::Nothing => {}
                }
                // The answer to anything else is one message.
                if flags & message::DUMP == 0 {
                    self.unfinished = false;
                    return Ok(interrupted);
                }
            }
        }
    }

    /// Takes what is left of the last answer.
    fn finish(&mut self) -> io::Result<()> {
        while self.unfinished {
            let ended = match receive(&self.fd, &mut self.buffer)? {
                Received::Datagram(datagram, _) => {
                    let is_end = |message| matches!(message, Ok(Message { content: Content::End(_), .. }));
                    Messages::new(datagram).any(is_end)
                }
                Received::Overrun => false,
                Received::Nothing => true,
            };
            self.unfinished = !ended;
        }
        Ok(())
    }

    /// What has come to a socket that asks nothing.
    pub(crate) fn receive(&mut self) -> io::Result<Received<'_>> {
        receive(&self.fd, &mut self.buffer)
    }
}

/// What has come. A datagram that does not fit is cut off, and room made for the next one like it.
fn receive<'a>(fd: &OwnedFd, buffer: &'a mut Vec<u8>) -> io::Result<Received<'a>> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    let length = loop {
        match rustix::net::recv(fd, buffer.as_mut_slice(), flags) {
            Ok((_, length)) => break length,
            Err(Errno::INTR) => {}
            Err(Errno::NOBUFS) => return Ok(Received::Overrun),
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(error) => return Err(error.into()),
        }
    };
    let room = buffer.len();
    if length > room {
        buffer.resize(length.next_power_of_two(), 0);
    }
    Ok(Received::Datagram(&buffer[..length.min(room)], length <= room))
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{Link, message};
    use crate::request::{SOCKETS_OF_OLD, of_both};
    use crate::{States, Want};

    #[test]
    fn what_is_cut_off_is_told_and_has_room_the_next_time() {
        let _listeners: Vec<_> = (0..50).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut link = Link { buffer: vec![0; 1000], ..Link::open(0).unwrap() };
        let mut dump = || {
            let (mut request, mut rows) = (Vec::new(), 0);
            of_both(&mut request, Want::all(), States::LISTEN, None);
            let interrupted = link.ask(&mut request, SOCKETS_OF_OLD, message::REQUEST | message::DUMP, |_, row| {
                rows += 1;
                assert!(row.len() >= 72);
                Ok(())
            });
            (interrupted.unwrap(), rows)
        };
        let (interrupted, some) = dump();
        assert!(interrupted && some > 0);
        let (interrupted, all) = dump();
        assert!(!interrupted && all >= 50 && all > some, "{some}, then {all}");
    }
}
