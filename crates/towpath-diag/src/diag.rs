//! Asking the kernel for sockets.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;

use crate::{Filter, Socket};

bitflags::bitflags! {
    /// What to ask of each socket beyond what the kernel says unasked. Each costs the kernel time.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
    pub struct Want: u8 {
        /// [`Socket::info`].
        const INFO = 1;
        /// [`Socket::memory`].
        const MEMORY = 2;
        /// [`Socket::congestion`] and [`Socket::model`].
        const CONGESTION = 4;
        /// [`Socket::tos`], [`Socket::traffic_class`] and [`Socket::class`].
        const TOS = 8;
    }
}

/// How a dump went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[must_use]
pub struct Dumped {
    /// Sockets came or went in such a way that some may have been left out or told twice (NLM_F_DUMP_INTR of netlink(7)); a
    /// further dump may be whole.
    pub interrupted: bool,
}

/// A way to ask the kernel for TCP sockets (sock_diag(7)): those of the network namespace it was opened in. Keeps its socket and
/// buffers from call to call.
#[derive(Debug)]
pub struct Diag {}

impl Diag {
    /// Opens the way, which takes no privilege.
    pub fn open() -> io::Result<Diag> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Calls `each` with every TCP socket that passes the filter, of both families, in no particular order.
    pub fn dump(&mut self, filter: &Filter, want: Want, each: impl FnMut(Socket)) -> io::Result<Dumped> {
        let _ = (filter, want, each);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Every TCP socket that passes the filter, of both families, in no particular order. A dump that was interrupted is
    /// repeated a few times, and then taken as it is.
    pub fn sockets(&mut self, filter: &Filter, want: Want) -> io::Result<Vec<Socket>> {
        let _ = (filter, want);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The socket of these two addresses, without a walk over all of them; the listener of `local` if there is no peer.
    pub fn find(
        &mut self,
        local: SocketAddr,
        peer: impl Into<Option<SocketAddr>>,
        want: Want,
    ) -> io::Result<Option<Socket>> {
        let _ = (local, peer.into(), want);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The same socket again, or none if it is gone.
    pub fn again(&mut self, socket: &Socket, want: Want) -> io::Result<Option<Socket>> {
        let _ = (socket, want);
        Err(io::ErrorKind::Unsupported.into())
    }
}
