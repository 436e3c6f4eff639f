//! Asking the kernel for sockets: all of them that a filter admits, or one by its addresses. What is asked is written by
//! `request.rs`, what is answered is read by `row.rs`, and `netlink/` carries both.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::netlink::{Link, message};
use crate::request::{self, Id};
use crate::row::{AF_INET, AF_INET6};
use crate::{Filter, Socket, States, bytecode, row};

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
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use towpath_diag::{Diag, Want};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
///
/// let mut diag = Diag::open()?;
/// let socket = diag.find(client.local_addr()?, client.peer_addr()?, Want::INFO)?.expect("it is connected");
/// let info = socket.info.expect("it was wanted");
/// println!("{} {:?} rtt {:?}", socket.state, socket.peer, info.rtt());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Diag {
    link: Link,
    request: Vec<u8>,
    /// Whether the kernel knows the request that has it walk over its tables once. All do, by 6.18.
    both_at_once: bool,
}

impl Diag {
    /// Opens the way, which takes no privilege.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> io::Result<Diag> {
        Ok(Diag { link: Link::open(0)?, request: Vec::new(), both_at_once: true })
    }

    /// Calls `each` with every TCP socket that passes the filter, of both families, in no particular order. The kernel does the
    /// filtering.
    ///
    /// # Errors
    /// What the kernel has to say, such as `NotFound` where it has no `tcp_diag`; `InvalidInput` if the filter has more ports
    /// and addresses than the kernel takes, which is some two thousand at either end.
    pub fn dump(&mut self, filter: &Filter, want: Want, mut each: impl FnMut(Socket)) -> io::Result<Dumped> {
        let program = bytecode::compile(filter).map_err(too_long)?;
        let program = program.as_deref();
        if self.both_at_once {
            request::of_both(&mut self.request, want, filter.states, program);
            match self.walk(request::SOCKETS_OF_OLD, &mut each) {
                Err(error) if is_refusal(&error) => self.both_at_once = false,
                answer => return answer.map(|interrupted| Dumped { interrupted }),
            }
        }
        let mut interrupted = false;
        for family in [AF_INET, AF_INET6] {
            request::of_family(&mut self.request, family, want, filter.states, &Id::ANY, program);
            interrupted |= self.walk(request::SOCKETS, &mut each).map_err(explain)?;
        }
        Ok(Dumped { interrupted })
    }

    /// Calls `each` with every socket of the answer.
    fn walk(&mut self, kind: u16, each: &mut impl FnMut(Socket)) -> io::Result<bool> {
        self.link.ask(&mut self.request, kind, message::REQUEST | message::DUMP, |of, row| {
            if of == kind {
                each(row::parse(row).ok_or_else(|| too_short(row))?);
            }
            Ok(())
        })
    }

    /// Every TCP socket that passes the filter, of both families, in no particular order. A dump that was interrupted is
    /// repeated a few times, and then taken as it is.
    ///
    /// # Errors
    /// As for [`dump`](Diag::dump).
    pub fn sockets(&mut self, filter: &Filter, want: Want) -> io::Result<Vec<Socket>> {
        let mut sockets = Vec::new();
        for _ in 0..TRIES {
            sockets.clear();
            if !self.dump(filter, want, |socket| sockets.push(socket))?.interrupted {
                break;
            }
        }
        Ok(sockets)
    }

    /// The socket of these two addresses, without a walk over all of them; without a peer, a listener of that local address.
    ///
    /// Of a connection within this machine, that is the end whose local address is `local`. An address that means something
    /// on one link only needs its interface (`scope_id`); for sockets that are bound to an interface, see
    /// [`again`](Diag::again).
    ///
    /// # Errors
    /// What the kernel has to say; that there is no such socket is none.
    pub fn find(
        &mut self,
        local: SocketAddr,
        peer: impl Into<Option<SocketAddr>>,
        want: Want,
    ) -> io::Result<Option<Socket>> {
        let (local, peer) = (canonical(local), peer.into().map(canonical));
        let id = Id { local: Some(local), peer, interface: scope(local).max(peer.map_or(0, scope)), cookie: None };
        // Where there is no such connection, the kernel finds the listener that would take it.
        Ok(self.one(&id, want)?.filter(|socket| same(socket.local, local) && socket.peer.is_some() == peer.is_some()))
    }

    /// The same socket again, and as it is now, be it what is left of it in TIME-WAIT; none if it is gone.
    ///
    /// # Errors
    /// What the kernel has to say; that it is gone is none.
    pub fn again(&mut self, socket: &Socket, want: Want) -> io::Result<Option<Socket>> {
        let Socket { local, peer, interface, cookie, .. } = *socket;
        let found = self.one(&Id { local: Some(local), peer, interface, cookie: Some(cookie) }, want)?;
        if found.is_some() || peer.is_some() {
            return Ok(found);
        }
        // Of several listeners on one address, a lookup finds any.
        let mut filter = Filter::new();
        filter.local.ports = vec![local.port()];
        let mut found = None;
        let _ = self.dump(&filter, want, |other| {
            if other.cookie == cookie {
                found = Some(other);
            }
        })?;
        Ok(found)
    }

    fn one(&mut self, id: &Id, want: Want) -> io::Result<Option<Socket>> {
        let family = if id.ends().any(|end| end.is_ipv6()) { AF_INET6 } else { AF_INET };
        request::of_family(&mut self.request, family, want, States::all(), id, None);
        let mut found = None;
        let answer = self.link.ask(&mut self.request, request::SOCKETS, message::REQUEST, |_, row| {
            found = Some(row::parse(row).ok_or_else(|| too_short(row))?);
            Ok(())
        });
        match answer {
            Ok(_) => Ok(found),
            // Another socket has those addresses now (ESTALE).
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// How often [`Diag::sockets`] tries to have a dump in one go.
const TRIES: usize = 4;

fn canonical(end: SocketAddr) -> SocketAddr {
    match end.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, end.port()),
        IpAddr::V6(_) => end,
    }
}

fn scope(end: SocketAddr) -> u32 {
    match end {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(end) => end.scope_id(),
    }
}

/// Whatever the interface, which the kernel has compared.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip() == other.ip() && one.port() == other.port()
}

fn too_short(row: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("sock_diag: {} bytes are not a TCP socket", row.len()))
}

fn too_long(length: usize) -> io::Error {
    let text = format!(
        "the filter has too many ports and addresses: {length} bytes of program, where the kernel takes 65 thousand"
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Whether the kernel does not take this kind of request, rather than failed to answer it.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound | io::ErrorKind::Unsupported)
}

fn explain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(error.kind(), "the kernel has no tcp_diag (CONFIG_INET_TCP_DIAG); try: modprobe tcp_diag")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{Diag, Filter, Want};
    use crate::State;

    #[test]
    fn two_walks_tell_what_one_does() {
        let listeners = ["127.0.0.1:0", "[::1]:0"].map(|here| TcpListener::bind(here).unwrap());
        let mut filter = Filter::new().states(State::Listen);
        filter.local.ports = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let told = |both_at_once| {
            let mut diag = Diag { both_at_once, ..Diag::open().unwrap() };
            let mut cookies: Vec<_> =
                diag.sockets(&filter, Want::all()).unwrap().iter().map(|socket| socket.cookie).collect();
            assert_eq!(diag.both_at_once, both_at_once, "the kernel takes both kinds of request");
            cookies.sort_unstable();
            cookies
        };
        assert_eq!(told(true), told(false));
        assert_eq!(told(true).len(), 2);
    }
}
