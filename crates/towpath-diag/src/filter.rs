//! Which sockets are wanted. The kernel sorts them out itself, from bytes that `bytecode.rs` makes of this; where there is no
//! dump to filter, [`Filter::matches`] says the same.
#![forbid(unsafe_code)]

use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::{Socket, States};

/// Which sockets are wanted: those of one of the states, and that each list that is not empty has something for.
///
/// ```
/// use towpath_diag::{Filter, State};
///
/// let stuck = Filter::new().states(State::CloseWait).port(8330).address("127.0.0.0/8".parse()?);
/// # Ok::<(), towpath_diag::PrefixError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Filter {
    /// What the sockets are doing; by default, anything but being merely bound.
    pub states: States,
    /// Ports, of which one end must have one.
    pub ports: Vec<u16>,
    /// Addresses, of which one end must have one.
    pub addresses: Vec<Prefix>,
    /// What must hold of the end here.
    pub local: End,
    /// What must hold of the other end.
    pub peer: End,
}

/// What must hold of one end of a connection.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct End {
    /// Ports, of which it must have one.
    pub ports: Vec<u16>,
    /// Addresses, of which it must have one.
    pub addresses: Vec<Prefix>,
}

impl Filter {
    /// Every TCP socket but those that are merely bound.
    pub fn new() -> Filter {
        Filter::default()
    }

    /// Also this port, at either end.
    pub fn port(mut self, port: u16) -> Filter {
        self.ports.push(port);
        self
    }

    /// Also these addresses, at either end.
    pub fn address(mut self, addresses: Prefix) -> Filter {
        self.addresses.push(addresses);
        self
    }

    /// In these states only.
    pub fn states(mut self, states: impl Into<States>) -> Filter {
        self.states = states.into();
        self
    }

    /// Whether this socket is wanted.
    pub fn matches(&self, socket: &Socket) -> bool {
        self.states.has(socket.state) && self.wants_ends(socket.local, socket.peer)
    }

    /// Whether a socket of these addresses is wanted, whatever it is doing.
    pub(crate) fn wants_ends(&self, local: SocketAddr, peer: Option<SocketAddr>) -> bool {
        let ends = || [Some(local), peer].into_iter().flatten();
        any(&self.ports, |&port| ends().any(|end| end.port() == port))
            && any(&self.addresses, |prefix| ends().any(|end| prefix.contains(end.ip())))
            && self.local.admits(Some(local))
            && self.peer.admits(peer)
    }
}

impl End {
    /// An end that is not there has no port and no address.
    fn admits(&self, end: Option<SocketAddr>) -> bool {
        any(&self.ports, |&port| end.is_some_and(|end| end.port() == port))
            && any(&self.addresses, |prefix| end.is_some_and(|end| prefix.contains(end.ip())))
    }
}

/// Whether the list has one of which it holds, or is empty.
fn any<T>(list: &[T], holds: impl Fn(&T) -> bool) -> bool {
    list.is_empty() || list.iter().any(holds)
}

/// The addresses that begin alike: `10.0.0.0/8`, `::1`, `fe80::/10`.
///
/// Those of IPv4 are also the addresses of IPv6 sockets that carry IPv4 (`::ffff:10.0.0.0/104`), which are always shown as
/// IPv4 here; those of IPv6 are never.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    pub(crate) const EVERY_V4: Prefix = Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 };

    /// The addresses that have their first `length` bits in common with this one; further bits of it mean nothing.
    ///
    /// # Errors
    /// If an address has fewer bits than that: 32 in IPv4, 128 in IPv6.
    pub fn new(address: IpAddr, length: u8) -> Result<Prefix, PrefixError> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if length > bits {
            return Err(PrefixError::Length);
        }
        Ok(match address.to_canonical() {
            IpAddr::V4(v4) if address.is_ipv6() && length >= 96 => Prefix { address: v4.into(), length: length - 96 },
            _ => Prefix { address, length },
        })
    }

    /// The address that was given.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits count.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether this address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => {
                let differ = ours.to_bits() ^ other.to_bits();
                differ.leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V6(ours), IpAddr::V6(other)) => {
                let differ = ours.to_bits() ^ other.to_bits();
                differ.leading_zeros() >= u32::from(self.length)
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Prefix {
        let address = address.to_canonical();
        Prefix { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        match text.split_once('/') {
            None => Ok(text.parse::<IpAddr>().map_err(PrefixError::Address)?.into()),
            Some((address, length)) => Prefix::new(
                address.parse().map_err(PrefixError::Address)?,
                length.parse().map_err(|_| PrefixError::Length)?,
            ),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Why a text is no [`Prefix`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PrefixError {
    /// What stands before the slash is no address.
    Address(AddrParseError),
    /// What stands after it is no number of bits that the address has.
    Length,
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrefixError::Address(error) => error.fmt(f),
            PrefixError::Length => f.write_str("a prefix is at most 32 bits long in IPv4 and 128 in IPv6"),
        }
    }
}

impl std::error::Error for PrefixError {}
