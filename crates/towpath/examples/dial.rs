//! Dials, and stays connected until the server closes: `cargo run --example dial [ADDR]`, `:8330` unless given.
//!
//! `cargo run --example listen` is there to be dialled.

use std::io;
use std::process::ExitCode;

use towpath::net::{SocketAddr, TcpStream, ToSocketAddrs};

fn main() -> ExitCode {
    let addr = std::env::args().nth(1).unwrap_or_else(|| ":8330".to_owned());
    // `TcpStream::connect(addr)` would do both steps; apart, each can say that it was the one that failed.
    // To dial, an address without a host is this host.
    let addrs: Vec<SocketAddr> = match addr.to_socket_addrs() {
        Ok(addrs) => addrs.collect(),
        Err(e) => {
            println!("resolve err: {e}");
            return ExitCode::FAILURE;
        }
    };
    // The connection lives as long as its name: `let _ = …` in this place would close it at once.
    let mut conn = match TcpStream::connect(&addrs[..]) {
        Ok(conn) => conn,
        Err(e) => {
            println!("dial err: {e}");
            return ExitCode::FAILURE;
        }
    };
    match stay(&mut conn) {
        Ok(()) => {
            println!("server closed");
            ExitCode::SUCCESS
        }
        Err(e) => {
            println!("read err: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Reads, and throws away, until the server has no more to send.
fn stay(conn: &mut TcpStream) -> io::Result<()> {
    println!("connected {} → {}", conn.local_addr()?, conn.peer_addr()?);
    io::copy(conn, &mut io::sink()).map(drop)
}
