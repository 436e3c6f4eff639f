//! Blocking-looking TCP at the price of an event loop.
//!
//! Code reads like `std::net` with threads; underneath, each task is a stackful coroutine pinned to a worker thread, and
//! every wait parks the task, not the thread. A program needs no `async` and no set-up: the runtime starts by itself.
//!
//! ```
//! use std::io::{Read, Write};
//! use towpath::net::{TcpListener, TcpStream};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//! let server = towpath::spawn(move || -> std::io::Result<()> {
//!     let (mut conn, _peer) = listener.accept()?; // parks this task until somebody connects
//!     let mut buf = [0; 1024];
//!     let n = conn.read(&mut buf)?;
//!     conn.write_all(&buf[..n])
//! });
//! let mut conn = TcpStream::connect(addr)?;
//! conn.write_all(b"hello")?;
//! let mut text = String::new();
//! conn.read_to_string(&mut text)?;
//! assert_eq!(text, "hello");
//! server.join().unwrap()?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Where to look
//!
//! * [`spawn`] and [`task`]: tasks, their handles, names and stacks; [`task::unblock`] for what would block a worker.
//! * [`net`]: [`TcpListener`](net::TcpListener), [`TcpStream`](net::TcpStream), [`Dialer`](net::Dialer),
//!   [`Server`](net::Server).
//! * [`sync::channel`] and [`select!`]: between tasks, and between tasks and threads.
//! * [`time`]: [`sleep`](time::sleep), and the [`Instant`](time::Instant) that deadlines are.
//! * [`Runtime`]: its size, if the default one's does not fit (`TOWPATH_WORKERS`, `TOWPATH_STACK`, `TOWPATH_POLLER`).
//!
//! Every call may also be made from a plain thread, which it blocks, on the same sockets and channels as tasks use at the
//! same time. What tasks share with the thread they run on, and what follows from that, is in the README's *Rules of the
//! road*.

mod inspect;
#[cfg(not(towpath_loom))]
mod lock;
pub mod net;
mod poller;
mod runtime;
mod shim;
pub mod sync;
pub mod task;
pub mod time;

pub use poller::PollerKind;
pub use runtime::park::{Cancelled, is_cancelled};
pub use runtime::{Builder, Runtime, StillRunning};
#[doc(inline)]
pub use task::spawn;
