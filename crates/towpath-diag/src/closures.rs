//! What connections had come to when they were closed, as the kernel tells those who listen (sock_diag(7), groups of
//! `linux/sock_diag.h`; since Linux 4.3).
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::clock::{Waited, is_past, monotonic, wait_readable};
use crate::netlink::message::{Content, Messages};
use crate::netlink::{Link, Received};
use crate::{Filter, Socket, request, row};

/// What there is to tell of sockets that were closed.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Closed {
    /// The kernel has done away with this one.
    Socket {
        /// When that was told, on the clock of [`monotonic`](crate::monotonic).
        at: Duration,
        /// As it was at the end, with [`info`](Socket::info). Nothing else that is told on request.
        socket: Box<Socket>,
    },
    /// Some before this are not told, since they came faster than they were taken (ENOBUFS of netlink(7)).
    Lost,
}

impl Closed {
    /// When it was told; not known of what is lost.
    pub fn at(&self) -> Option<Duration> {
        match self {
            Closed::Socket { at, .. } => Some(*at),
            Closed::Lost => None,
        }
    }
}

/// Sockets as they are closed, each with its last [`TcpInfo`](crate::TcpInfo).
///
/// The kernel tells of a connection when it does away with its socket: that is, when TIME-WAIT begins or the connection is
/// over. Listeners are told of too; a connection that no program has accepted is not always.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use std::time::Duration;
/// use towpath_diag::{Closed, Closures, Filter};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let here = listener.local_addr()?;
/// let mut closures = Closures::open(&Filter::new().port(here.port()))?;
///
/// drop((TcpStream::connect(here)?, listener));
/// while let Some(closed) = closures.next(Some(Duration::from_secs(5)))? {
///     let Closed::Socket { socket, .. } = closed else { continue };
///     println!("{} {:?}", socket.local, socket.info.and_then(|info| info.segs_out()));
///     if socket.peer.is_none() {
///         break;
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Closures {
    link: Link,
    filter: Filter,
    ready: VecDeque<Closed>,
}

impl Closures {
    /// Listens for the closes of sockets that pass the filter, of the network namespace that the caller is in. Their states mean
    /// nothing here: all are closed.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2). No privilege is needed.
    pub fn open(filter: &Filter) -> io::Result<Closures> {
        let link = Link::open(TCP_DESTROY | TCP6_DESTROY)?;
        Ok(Closures { link, filter: filter.clone(), ready: VecDeque::new() })
    }

    /// The next one; none if the time is over or a signal was handled. Without a time, waits for one of these. What is there
    /// already is taken in first, for a tenth of a second at most.
    ///
    /// # Errors
    /// What the kernel has to say.
    pub fn next(&mut self, timeout: Option<Duration>) -> io::Result<Option<Closed>> {
        let now = monotonic();
        let until = timeout.and_then(|timeout| now.checked_add(timeout));
        // All that is there is taken in, unless more comes all the time and none of it is wanted.
        let patience = until.map(|until| until.max(now + MOMENT));
        loop {
            while self.ready.is_empty() && !is_past(patience) {
                match self.link.receive()? {
                    Received::Datagram(datagram, _) => read(datagram, &self.filter, &mut self.ready),
                    Received::Overrun => self.ready.push_back(Closed::Lost),
                    Received::Nothing => break,
                }
            }
            let closed = self.ready.pop_front();
            if closed.is_some() || is_past(patience) || wait_readable(self.as_fd(), until)? == Waited::InVain {
                return Ok(closed);
            }
        }
    }
}

/// Readable when there may be something to tell, once [`next`](Closures::next) with a time of zero has told all there was.
impl AsFd for Closures {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// How long is given to what is there already.
const MOMENT: Duration = Duration::from_millis(100);

/// SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY of `linux/sock_diag.h`, as bits.
const TCP_DESTROY: u32 = 1 << 0;
const TCP6_DESTROY: u32 = 1 << 2;

fn read(datagram: &[u8], filter: &Filter, ready: &mut VecDeque<Closed>) {
    for message in Messages::new(datagram) {
        match message.map(|message| message.content) {
            Ok(Content::Data(request::SOCKETS, payload)) => {
                let socket = row::parse(payload).filter(|socket| filter.wants_ends(socket.local, socket.peer));
                ready.extend(socket.map(|socket| Closed::Socket { at: monotonic(), socket: Box::new(socket) }));
            }
            Ok(Content::Overrun) | Err(_) => ready.push_back(Closed::Lost),
            Ok(_) => {}
        }
    }
}
