//! Addresses: the trait by which a call takes one or the text of one, and what those mean to listen and to dial.
//!
//! `host_port.rs` takes the text apart and `lookup.rs` finds what it stands for; to try one address after the other is
//! left to `bind` and the dialer.

#![forbid(unsafe_code)]

use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::option;
use std::slice;
use std::vec;

use super::host_port::HostPort;
use super::lookup::{each_once, lookup};
use crate::time::Instant;

/// What a socket can be bound to or connected to: an address, several, or the text of one.
///
/// It is `std::net::ToSocketAddrs` for everything that implements that, and takes Go's forms as well: `":8330"`,
/// `"localhost:http"`, `"[fe80::1%eth0]:80"`. An address without a host is read differently by the two sides that use
/// it, so the trait knows which one asks: to listen it is every address of this machine, to dial it is this machine.
///
/// ```
/// use std::net::SocketAddr;
/// use towpath::net::ToSocketAddrs;
///
/// let dial: Vec<SocketAddr> = ":8330".to_socket_addrs()?.collect();
/// assert_eq!(dial, ["127.0.0.1:8330".parse().unwrap(), "[::1]:8330".parse().unwrap()]);
///
/// let listen: Vec<SocketAddr> = ":8330".to_listen_addrs()?.collect();
/// assert_eq!(listen, ["[::]:8330".parse().unwrap(), "0.0.0.0:8330".parse().unwrap()]);
///
/// let error = "8330".to_socket_addrs().unwrap_err();
/// assert_eq!(error.to_string(), "address 8330: missing port in address");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// A type of your own needs the first method alone:
///
/// ```
/// use std::{io, net::SocketAddr, vec};
/// use towpath::net::ToSocketAddrs;
///
/// struct Replicas(Vec<SocketAddr>);
///
/// impl ToSocketAddrs for Replicas {
///     type Iter = vec::IntoIter<SocketAddr>;
///
///     fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
///         Ok(self.0.clone().into_iter())
///     }
/// }
/// ```
pub trait ToSocketAddrs {
    /// The addresses, in the order in which they are to be tried.
    type Iter: Iterator<Item = SocketAddr>;

    /// The addresses to dial, after a lookup if a name has to be looked up; the caller parks meanwhile.
    ///
    /// # Errors
    /// InvalidInput if the text is no address, naming the part that is wrong; an [`OpError`](super::OpError) if the
    /// name has no address or could not be looked up.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;

    /// The addresses to listen at, the same unless a type says otherwise.
    ///
    /// # Errors
    /// As [`to_socket_addrs`](Self::to_socket_addrs).
    fn to_listen_addrs(&self) -> io::Result<Self::Iter> {
        self.to_socket_addrs()
    }

    /// The addresses to dial, given up when `deadline` passes first; a type that never waits may ignore it.
    ///
    /// ```
    /// use towpath::net::ToSocketAddrs;
    /// use towpath::time::Instant;
    ///
    /// let error = "localhost:http".to_socket_addrs_until(Some(Instant::now())).unwrap_err();
    /// assert_eq!(error.to_string(), "lookup localhost: timed out");
    /// ```
    ///
    /// # Errors
    /// As [`to_socket_addrs`](Self::to_socket_addrs), and TimedOut.
    fn to_socket_addrs_until(&self, deadline: Option<Instant>) -> io::Result<Self::Iter> {
        let _ = deadline;
        self.to_socket_addrs()
    }
}

/// What is an address already means the same to both sides, and takes no waiting.
macro_rules! already_an_address {
    ($($this:ty),*) => {$(
        impl ToSocketAddrs for $this {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                Ok(Some(SocketAddr::from(*self)).into_iter())
            }
        }
    )*};
}

already_an_address!(SocketAddr, SocketAddrV4, SocketAddrV6);
already_an_address!((IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

/// What was typed is taken apart, and then looked up as far as that is needed.
macro_rules! typed {
    ($($this:ty: |$typed:ident| $host_port:expr;)*) => {$(
        impl ToSocketAddrs for $this {
            type Iter = vec::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                self.to_socket_addrs_until(None)
            }

            fn to_listen_addrs(&self) -> io::Result<Self::Iter> {
                let $typed = self;
                Ok(lookup($host_port?, &EVERY_ADDRESS, None)?.into_iter())
            }

            fn to_socket_addrs_until(&self, deadline: Option<Instant>) -> io::Result<Self::Iter> {
                let $typed = self;
                Ok(lookup($host_port?, &THIS_HOST, deadline)?.into_iter())
            }
        }
    )*};
}

typed! {
    str: |text| text.parse::<HostPort>();
    String: |text| text.parse::<HostPort>();
    (&str, u16): |pair| HostPort::from_parts(pair.0, pair.1);
    (String, u16): |pair| HostPort::from_parts(&pair.0, pair.1);
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = iter::Copied<slice::Iter<'a, SocketAddr>>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().copied())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (**self).to_socket_addrs()
    }

    fn to_listen_addrs(&self) -> io::Result<Self::Iter> {
        (**self).to_listen_addrs()
    }

    fn to_socket_addrs_until(&self, deadline: Option<Instant>) -> io::Result<Self::Iter> {
        (**self).to_socket_addrs_until(deadline)
    }
}

/// What an address without a host means to whoever listens: one IPv6 socket that takes both families, and where the
/// kernel has no IPv6 (EAFNOSUPPORT), an IPv4 one in its stead.
const EVERY_ADDRESS: [IpAddr; 2] = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];

/// What it means to whoever dials. IPv4 comes first: a server that listens at one family alone more often has that one.
const THIS_HOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// The addresses at which to listen, at least one, in the order in which to try them.
pub(crate) fn listen_addrs(addr: impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    not_empty(addr.to_listen_addrs()?.collect())
}

/// The addresses to dial, at least one and none twice, in the order in which to try them.
pub(crate) fn dial_addrs(addr: impl ToSocketAddrs, deadline: Option<Instant>) -> io::Result<Vec<SocketAddr>> {
    let addrs = addr.to_socket_addrs_until(deadline)?;
    not_empty(each_once(addrs.flat_map(this_host)))
}

fn not_empty(addrs: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    match addrs.is_empty() {
        false => Ok(addrs),
        true => Err(io::Error::new(io::ErrorKind::InvalidInput, "the list of addresses is empty")),
    }
}

/// What to connect to for `addr`: the unspecified addresses are where a server on this host said that it listens.
///
/// Linux connects those to the loopback of their own family, other systems refuse them, so the library decides. Behind
/// `[::]` there is a server for ::1 at least, and most likely for 127.0.0.1 as well, which is the one that works where
/// the loopback interface has no IPv6. Behind `0.0.0.0` there is none for ::1.
pub(crate) fn this_host(addr: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let [v4, v6] = THIS_HOST.map(|ip| SocketAddr::new(ip, addr.port()));
    let (first, second) = match addr.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => (v4, None),
        IpAddr::V6(ip) if ip.is_unspecified() => (v6, Some(v4)),
        _ => (addr, None),
    };
    iter::once(first).chain(second)
}

/// `addr` as a peer is shown: as IPv4 if that is what came in on a socket for both families (`::ffff:127.0.0.1`).
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, addr.port())),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("the tests write addresses")
    }

    #[test]
    fn everything_that_stds_trait_takes_ours_takes() {
        fn first(addr: impl ToSocketAddrs) -> SocketAddr {
            let mut found = addr.to_socket_addrs().expect("nothing is looked up");
            found.next().expect("there is one")
        }
        let v4 = addr("127.0.0.1:80");
        let v6 = addr("[::1]:80");
        let both = [v4, v6];
        assert_eq!(first(v4), v4);
        assert_eq!(first(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80)), v4);
        assert_eq!(first(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, 0)), v6);
        assert_eq!(first((v4.ip(), 80)), v4);
        assert_eq!(first((Ipv4Addr::LOCALHOST, 80)), v4);
        assert_eq!(first((Ipv6Addr::LOCALHOST, 80)), v6);
        assert_eq!(first(("::1", 80)), v6);
        assert_eq!(first(("::1".to_owned(), 80)), v6);
        assert_eq!(first("[::1]:80"), v6);
        assert_eq!(first("[::1]:80".to_owned()), v6);
        assert_eq!(first(&both[..]), v4);
        let twice_borrowed: &&str = &"127.0.0.1:80";
        assert_eq!(first(twice_borrowed), v4);
        let unsized_one: &dyn ToSocketAddrs<Iter = option::IntoIter<SocketAddr>> = &v4;
        assert_eq!(first(unsized_one), v4);
    }

    #[test]
    fn to_listen_an_address_without_a_host_is_every_address() {
        let every = [addr("[::]:8330"), addr("0.0.0.0:8330")];
        assert_eq!(listen_addrs(":8330").unwrap(), every);
        assert_eq!(listen_addrs(":8330".to_owned()).unwrap(), every);
        let borrowed: &&str = &":8330";
        assert_eq!(listen_addrs(borrowed).unwrap(), every);
        assert_eq!(listen_addrs(("", 8330)).unwrap(), every);
        assert_eq!(listen_addrs((String::new(), 8330)).unwrap(), every);
        assert_eq!(listen_addrs("0.0.0.0:8330").unwrap(), [every[1]]);
        assert_eq!(listen_addrs(every[0]).unwrap(), [every[0]]);
    }

    #[test]
    fn to_dial_it_is_this_host_and_so_are_the_unspecified_addresses() {
        let v4 = addr("127.0.0.1:8330");
        let v6 = addr("[::1]:8330");
        let dial = |text: &str| dial_addrs(text, None).expect("nothing is looked up");
        assert_eq!(dial(":8330"), [v4, v6]);
        assert_eq!(dial("0.0.0.0:8330"), [v4]);
        assert_eq!(dial("[::]:8330"), [v6, v4]);
        assert_eq!(dial("[::ffff:0.0.0.0]:8330"), [v4]);
        assert_eq!(dial("10.0.0.1:8330"), [addr("10.0.0.1:8330")]);

        let typed = |text| dial_addrs(addr(text), None).expect("nothing is looked up");
        assert_eq!(typed("0.0.0.0:8330"), [v4]);
        assert_eq!(typed("[::]:8330"), [v6, v4]);
        assert_eq!(dial_addrs(("", 8330), None).unwrap(), [v4, v6]);
        assert_eq!(dial_addrs(&[addr("[::]:8330"), v6, v4][..], None).unwrap(), [v6, v4]);
    }

    #[test]
    fn no_address_at_all_is_an_error() {
        let none: &[SocketAddr] = &[];
        for error in [listen_addrs(none), dial_addrs(none, None)].map(Result::unwrap_err) {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(error.to_string(), "the list of addresses is empty");
        }
    }

    #[test]
    fn a_type_that_says_how_to_dial_has_said_how_to_listen() {
        struct Fixed;
        impl ToSocketAddrs for Fixed {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                Ok(Some(addr("127.0.0.1:8330")).into_iter())
            }
        }
        assert_eq!(listen_addrs(Fixed).unwrap(), [addr("127.0.0.1:8330")]);
        assert_eq!(dial_addrs(&Fixed, None).unwrap(), [addr("127.0.0.1:8330")]);
    }

    #[test]
    fn a_peer_shows_as_the_family_it_came_by() {
        for (seen, shown) in [
            ("[::ffff:127.0.0.1]:8330", "127.0.0.1:8330"),
            ("127.0.0.1:8330", "127.0.0.1:8330"),
            ("[::1]:8330", "[::1]:8330"),
            ("[fe80::1%2]:8330", "[fe80::1%2]:8330"),
            ("[::127.0.0.1]:8330", "[::7f00:1]:8330"),
        ] {
            assert_eq!(canonical(addr(seen)).to_string(), shown);
        }
    }
}
