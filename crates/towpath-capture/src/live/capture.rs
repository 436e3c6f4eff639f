//! A running capture: opening it, and reading from it.

#![forbid(unsafe_code)]

use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{error, fmt, io};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{self, AddressFamily, SocketType, netdevice};

use super::filter::Filter;
use super::sys::{self, BATCH, Meta};
use super::{bpf, cooked};
use crate::{Frame, LinkType};

/// What to capture, and how.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    interface: Option<String>,
    filter: Filter,
    snap_len: u32,
    buffer: usize,
}

/// Why a capture could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// CAP_NET_RAW is missing.
    NotPermitted(io::Error),
    /// There is no interface of this name.
    NoInterface(String),
    /// The kernel takes no filter for so many ports and hosts.
    TooManyAddresses,
    /// A system call failed, which it names.
    Io(&'static str, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NotPermitted(error) => write!(f, "capturing needs CAP_NET_RAW: {error}"),
            OpenError::NoInterface(name) => write!(f, "there is no interface {name}"),
            OpenError::TooManyAddresses => f.write_str("too many ports and hosts for one filter"),
            OpenError::Io(call, error) => write!(f, "{call}: {error}"),
        }
    }
}

impl error::Error for OpenError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            OpenError::NotPermitted(error) | OpenError::Io(_, error) => Some(error),
            OpenError::NoInterface(_) | OpenError::TooManyAddresses => None,
        }
    }
}

impl Builder {
    /// An interface by name; all of them if none is named.
    pub fn interface(mut self, name: impl Into<String>) -> Builder {
        self.interface = Some(name.into());
        self
    }

    /// Segments to or from this port, beside those of other ports named.
    pub fn port(mut self, port: u16) -> Builder {
        self.filter.ports.push(port);
        self
    }

    /// Segments to or from this host, beside those of other hosts named.
    pub fn host(mut self, host: IpAddr) -> Builder {
        self.filter.hosts.push(host);
        self
    }

    /// Segments that this filter wants.
    pub fn filter(mut self, filter: Filter) -> Builder {
        self.filter = filter;
        self
    }

    /// How many bytes of each packet to keep, from the IP header on: by default 262,144, which is all but the largest of
    /// BIG TCP. 200 is enough for headers.
    pub fn snap_len(mut self, bytes: u32) -> Builder {
        self.snap_len = bytes.clamp(1, Builder::MOST);
        self
    }

    /// How many bytes of packets the kernel keeps before it drops any: by default 32 MiB. The kernel counts what it needs for a
    /// packet, which is about 1 KiB for a small one. Without CAP_NET_ADMIN the sysctl net.core.rmem_max is the limit.
    pub fn buffer(mut self, bytes: usize) -> Builder {
        self.buffer = bytes;
        self
    }

    const MOST: u32 = 262_144;

    /// Begins. All that passes from now on and is wanted will be read, or counted as dropped.
    ///
    /// # Errors
    ///
    /// As [`OpenError`] says.
    pub fn open(self) -> Result<Capture, OpenError> {
        let failed = |call: &'static str| move |error| OpenError::Io(call, error);
        let program = self.filter.program(self.snap_len).ok_or(OpenError::TooManyAddresses)?;
        let socket = sys::socket().map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => OpenError::NotPermitted(error),
            _ => OpenError::Io("socket", error),
        })?;
        let index = self.interface.as_ref().map_or(Ok(0), |name| {
            netdevice::name_to_index(&socket, name).map_err(|_| OpenError::NoInterface(name.clone()))
        })?;
        // The socket's protocol is zero until it is bound: nothing comes before the filter is there, and nothing else
        // than what it wants.
        sys::attach(socket.as_fd(), program.code()).map_err(failed("SO_ATTACH_FILTER"))?;
        sys::ask_for_details(socket.as_fd()).map_err(failed("PACKET_AUXDATA"))?;
        sys::set_buffer(socket.as_fd(), self.buffer).map_err(failed("SO_RCVBUF"))?;
        sys::bind(socket.as_fd(), index).map_err(|error| match (error.raw_os_error(), &self.interface) {
            (Some(libc::ENODEV), Some(name)) => OpenError::NoInterface(name.clone()),
            _ => OpenError::Io("bind", error),
        })?;
        let (_, hardware) = sys::bound_to(socket.as_fd()).map_err(failed("getsockname"))?;
        if hardware == libc::ARPHRD_LOOPBACK {
            // The filter drops the first of the two that each packet is here; older kernels leave it at that.
            drop(sys::ignore_outgoing(socket.as_fd()));
        }
        // Each its own allocation of zeroes: pages that no packet needs are never touched.
        let slot = || vec![0; cooked::ROOM + self.snap_len as usize].into_boxed_slice();
        Ok(Capture {
            socket,
            interface: self.interface,
            program,
            slots: std::iter::repeat_with(slot).take(BATCH).collect(),
            metas: [Meta::default(); BATCH],
            ready: 0..0,
            stats: Stats::default(),
        })
    }
}

/// What comes of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A frame passed.
    Frame(Frame<'a>),
    /// The interface has been taken down. If it comes up again, the capture goes on.
    Down,
}

/// What a capture has missed, and what not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Frames that were wanted and for which there was room.
    pub received: u64,
    /// Frames that were wanted and lost, because the buffer was full: read faster, or give the builder a larger
    /// [`buffer`](Builder::buffer).
    pub dropped: u64,
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    interface: Option<String>,
    program: bpf::Program,
    slots: Vec<Box<[u8]>>,
    metas: [Meta; BATCH],
    /// The slots that have not been handed out.
    ready: std::ops::Range<usize>,
    stats: Stats,
}

impl Capture {
    /// All TCP on all interfaces, unless told otherwise.
    pub fn builder() -> Builder {
        Builder { interface: None, filter: Filter::default(), snap_len: Builder::MOST, buffer: 32 << 20 }
    }

    /// The next event, or none if nothing comes within the timeout; without one, it waits for ever.
    ///
    /// To wait for other things too, read with a timeout of zero until there is nothing, then poll [the
    /// socket](#impl-AsFd-for-Capture) for reading.
    ///
    /// # Errors
    ///
    /// As recvmmsg(2) and poll(2); and `NotFound` once the interface has been deleted, after which nothing more comes.
    pub fn read(&mut self, timeout: Option<Duration>) -> io::Result<Option<Event<'_>>> {
        if self.ready.is_empty() {
            match self.receive(timeout)? {
                Received::Frames => {}
                Received::Nothing => return Ok(None),
                Received::Down => return Ok(Some(Event::Down)),
            }
        }
        let index = self.ready.start;
        self.ready.start += 1;
        let meta = &self.metas[index];
        let slot = &mut self.slots[index];
        let (room, packet) = slot.split_first_chunk_mut().expect("a slot begins with room for a header");
        let protocol = cooked::protocol(meta, &packet[..meta.len]);
        let start = cooked::write(room, meta, protocol);
        let header = (cooked::ROOM - start) as u32;
        Ok(Some(Event::Frame(Frame {
            time: meta.time,
            link: LinkType::LINUX_SLL2,
            interface: meta.interface,
            data: &slot[start..cooked::ROOM + meta.len],
            original_len: meta.original_len.max(meta.len as u32).saturating_add(header),
            comment: "",
        })))
    }

    /// Fills the slots.
    fn receive(&mut self, timeout: Option<Duration>) -> io::Result<Received> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            match sys::receive(self.socket.as_fd(), &mut self.slots, cooked::ROOM, &mut self.metas) {
                Ok(count) => {
                    self.ready = 0..count;
                    return Ok(Received::Frames);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => return self.down(),
                Err(error) => return Err(error),
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(Received::Nothing);
            }
            // A timeout too long for the kernel is as good as none.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells an interface that is down from one that is no more, to which the kernel says the same.
    fn down(&self) -> io::Result<Received> {
        let (index, _) = sys::bound_to(self.socket.as_fd())?;
        match &self.interface {
            Some(name) if index < 0 => {
                Err(io::Error::new(ErrorKind::NotFound, format!("the interface {name} has been deleted")))
            }
            _ => Ok(Received::Down),
        }
    }

    /// Ends it: what passes from now on is not captured. What has passed by now can still be read, until there is no more.
    ///
    /// # Errors
    ///
    /// As setsockopt(2) for SO_ATTACH_FILTER.
    pub fn stop(&mut self) -> io::Result<()> {
        sys::attach(self.socket.as_fd(), bpf::Program::nothing().code())
    }

    /// What has been received and dropped since the beginning.
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn stats(&mut self) -> io::Result<Stats> {
        // The kernel forgets them as it tells them.
        let (wanted, dropped) = sys::statistics(self.socket.as_fd())?;
        self.stats.received += u64::from(wanted.saturating_sub(dropped));
        self.stats.dropped += u64::from(dropped);
        Ok(self.stats)
    }

    /// The program that the kernel runs on each packet.
    pub fn program(&self) -> &bpf::Program {
        &self.program
    }
}

/// The name of the interface that is [`Frame::interface`] of a captured frame, while it exists.
///
/// # Errors
///
/// As netdevice(7) for SIOCGIFNAME.
pub fn interface_name(index: u32) -> io::Result<String> {
    let socket = net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    Ok(netdevice::index_to_name(socket, index)?)
}

enum Received {
    Frames,
    Nothing,
    Down,
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
