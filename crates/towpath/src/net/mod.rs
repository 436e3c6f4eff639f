//! TCP as `std::net` has it, on tasks: [`TcpListener`], [`TcpStream`], and what goes beyond std: [`Dialer`], [`Server`],
//! [`ListenOptions`], deadlines, `close`, owned halves, Go's address forms.
//!
//! Every call is made from tasks and from plain threads alike, also on the same socket at the same time. Where std and
//! this module differ:
//!
//! * a call that is late fails with [`TimedOut`](std::io::ErrorKind::TimedOut) (std's says WouldBlock on Unix);
//! * [`TcpStream::connect`] to a name with several addresses tries both families at once, the second one a quarter of a
//!   second later, and reports the first error of the first family (RFC 8305; std tries one after the other);
//! * `write_all` and `write!` on a stream that others write to keep their bytes together;
//! * addresses may be `":8330"` and `"localhost:http"`; `[::]` is every address of both families, whatever the system's
//!   `net.ipv6.bindv6only` says; an IPv4 peer of such a listener is shown as one (`127.0.0.1`, not `::ffff:127.0.0.1`);
//! * a read or a peek into an empty buffer returns 0 at once (std's waits for data);
//! * a descriptor is given away by `into_std` or `TryFrom`, which refuse while clones are alive; std's `From` and
//!   `IntoRawFd` could not. Also left out is what std has deprecated: `TcpListener::{only_v6, set_only_v6}`.

mod addr;
mod dialer;
mod error;
mod halves;
mod home;
mod host_port;
mod listen_options;
mod lookup;
mod readiness;
mod server;
mod socket;
pub(crate) mod sys;
mod tcp_listener;
mod tcp_stream;

pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use addr::ToSocketAddrs;
pub use dialer::Dialer;
pub use error::{Op, OpError, is_closed};
pub use halves::{OwnedReadHalf, OwnedWriteHalf, ReuniteError};
pub use listen_options::ListenOptions;
pub use server::{Drained, Server, Stopper};
pub use tcp_listener::{Incoming, IntoIncoming, TcpListener};
pub use tcp_stream::TcpStream;
