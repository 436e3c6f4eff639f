//! [`ListenOptions`]: binding a socket and listening at it, with what has to be set before.

#![forbid(unsafe_code)]

use std::io;

use rustix::io::Errno;

use super::addr::listen_addrs;
use super::socket::Handle;
use super::{SocketAddr, TcpListener, ToSocketAddrs, sys};

/// What is set on a socket before it is bound; [`TcpListener::bind`] sets none of it.
///
/// ```
/// use towpath::net::ListenOptions;
///
/// let options = ListenOptions::new().reuse_port(true);
/// let first = options.bind("127.0.0.1:0")?;
/// let second = options.bind(first.local_addr()?)?;
/// assert_eq!(first.local_addr()?, second.local_addr()?);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until `bind`"]
pub struct ListenOptions {
    reuse_port: bool,
}

impl ListenOptions {
    /// What [`TcpListener::bind`] listens with.
    pub fn new() -> ListenOptions {
        ListenOptions::default()
    }

    /// With `true`, other listeners of the same user may listen at the same address and port, if they say so too
    /// (socket(7), SO_REUSEPORT).
    ///
    /// The kernel then picks one of them for each connection, by a hash over both addresses and ports, and the connection
    /// is queued there: also if whoever accepts at that one is held up, and lost (reset) if that one is closed.
    pub fn reuse_port(mut self, reuse: bool) -> ListenOptions {
        self.reuse_port = reuse;
        self
    }

    /// Binds a socket to an address and listens there, as [`TcpListener::bind`] does. Port 0 is a port of its own each
    /// time: to share one, bind the others to the first one's [`local_addr`](TcpListener::local_addr).
    ///
    /// # Errors
    /// As [`TcpListener::bind`]: also `AddrInUse` if one of those that listen there does not reuse the port, or belongs to
    /// another user.
    pub fn bind(&self, addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = None;
        let addrs = listen_addrs(addr)?;
        for (i, addr) in addrs.iter().enumerate() {
            match self.listen(addr) {
                Ok(listener) => return Ok(listener),
                // Every address of both families stands in for itself only where there is no IPv6: were it taken there,
                // listening on IPv4 alone would be half of what was asked for.
                Err(error) if is_every_address(addrs.get(i..i + 2)) && !is_no_ipv6(&error) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there is an address, or looking for them has failed"))
    }

    fn listen(&self, addr: &SocketAddr) -> io::Result<TcpListener> {
        let socket = Handle::new(sys::socket(addr)?);
        let fd = socket.fd();
        sys::set_reuse_address(fd)?;
        if self.reuse_port {
            sys::set_reuse_port(fd)?;
        }
        if addr.is_ipv6() && addr.ip().is_unspecified() {
            sys::set_dual_stack(fd)?;
        }
        sys::bind(fd, addr)?;
        sys::listen(fd)?;
        Ok(TcpListener::from_handle(socket))
    }
}

/// Whether these two are `":port"`: `[::]` and, behind it, `0.0.0.0` with the same port.
fn is_every_address(pair: Option<&[SocketAddr]>) -> bool {
    let Some([SocketAddr::V6(v6), SocketAddr::V4(v4)]) = pair else { return false };
    v6.ip().is_unspecified() && v4.ip().is_unspecified() && v6.port() == v4.port()
}

fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}
