//! What the Linux kernel knows of TCP sockets, without a shell or a parser between: every socket and what its connection is
//! doing ([`Diag`]), whose it is ([`Owners`]), how its state changes ([`Changes`]), and what it had come to when it was closed
//! ([`Closures`]). A library of its own, synchronous, that knows nothing of towpath's runtime; it opens sockets and files of
//! `/proc` and tracefs, starts no thread and runs no program.
//!
//! Dumps, lookups and closures need no privilege. Changes are exact for root, and sampled for others; owners are known of
//! one's own processes, and for root of all.
//!
//! ```
//! use std::net::TcpListener;
//! use towpath_diag::{Diag, Filter, State, Want};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let port = listener.local_addr()?.port();
//!
//! let sockets = Diag::open()?.sockets(&Filter::new().port(port), Want::all())?;
//! assert_eq!(sockets[0].state, State::Listen);
//! # Ok::<(), std::io::Error>(())
//! ```

mod bytecode;
mod bytes;
mod changes;
mod clock;
mod closures;
mod congestion;
mod diag;
mod filter;
#[doc(hidden)]
pub mod fuzzing;
mod netlink;
mod owners;
mod request;
mod row;
mod socket;
mod state;
mod sys;
mod tcp_info;

pub use changes::{Change, Changes, Event, Key, Source};
pub use clock::monotonic;
pub use closures::{Closed, Closures};
pub use congestion::{Algorithm, Model};
pub use diag::{Diag, Dumped, Want};
pub use filter::{End, Filter, Prefix, PrefixError};
pub use owners::{Owner, Owners};
pub use socket::{Family, Memory, Shutdown, Socket, Timer, TimerKind};
pub use state::{State, States};
pub use tcp_info::{CaState, Options, TcpInfo, Value};

/// The example of the README is one that runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
