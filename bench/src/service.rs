//! What every server of the comparison does, and the arguments that all of them take.
//!
//! Each serves every connection in the same way, until the peer closes it:
//!
//! - `echo`: sends back what comes, with a buffer of 1 KiB; `echo16k`: of 16 KiB;
//! - `sink`: reads a length (8 bytes, little endian) and so many bytes, sends the length back, and goes on so;
//! - `source`: reads a length and sends so many bytes of [`pattern`], again and again;
//! - `shared`: an echo by two tasks: one reads, and hands every piece to the other, which writes;
//! - `proxy`: dials `--to` and copies both ways.

use crate::process::pin_this_thread;
use clap::{Parser, ValueEnum};
use std::io::{self, Write as _};
use std::net::SocketAddr;

/// Bytes that `echo` reads at once.
pub const BUFFER: usize = 1 << 10;
/// Bytes that `echo16k` reads at once.
pub const LARGE_BUFFER: usize = 16 << 10;
/// Bytes that `sink` and `source` move at once; a `proxy` takes what its library has for copying.
pub const CHUNK: usize = 64 << 10;
/// Pieces that may wait between the two tasks of `shared`.
pub const BACKLOG: usize = 16;

/// The arguments of a server.
#[derive(Clone, Debug, Parser)]
pub struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub addr: SocketAddr,
    /// What to do with a connection
    #[arg(long, value_enum, default_value_t = Service::Echo)]
    pub service: Service,
    /// Where the proxy goes
    #[arg(long, required_if_eq("service", "proxy"))]
    pub to: Option<SocketAddr>,
    /// Threads that serve, where their number is a setting
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// Give up a read that waits for so many seconds, where the server can (towpath_echo)
    #[arg(long)]
    pub read_timeout: Option<u64>,
    /// Run on this CPU only
    #[arg(long)]
    pub cpu: Option<usize>,
}

/// What a server does with a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Service {
    /// Send back what comes
    Echo,
    /// The same with a larger buffer
    Echo16k,
    /// Read as much as announced, and say so
    Sink,
    /// Send as much as asked for
    Source,
    /// An echo by two tasks
    Shared,
    /// Copy to and from another server
    Proxy,
}

impl Args {
    /// What the command line says; threads started later run on its CPU, too.
    ///
    /// # Errors
    /// When the machine has no such CPU.
    pub fn from_command_line() -> io::Result<Args> {
        let args = Args::parse();
        args.cpu.map_or(Ok(()), pin_this_thread)?;
        Ok(args)
    }

    /// Where the proxy goes.
    ///
    /// # Panics
    /// When the service is another one.
    pub fn to(&self) -> SocketAddr {
        self.to.expect("clap demands it of a proxy")
    }
}

/// Says where the server listens, which is what others wait for.
///
/// # Errors
/// When nobody reads it.
pub fn announce(addr: SocketAddr) -> io::Result<()> {
    println!("listening {addr}");
    io::stdout().flush()
}

/// What a server answers that does not offer a service.
pub fn not_offered(service: Service) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this server does not offer {service:?}"))
}

/// What `source` sends, over and over: [`CHUNK`] bytes.
pub fn pattern() -> Vec<u8> {
    (0..CHUNK).map(|at| (at % 251) as u8).collect()
}
