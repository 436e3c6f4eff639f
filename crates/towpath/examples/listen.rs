//! Listens, and gives each connection a task of its own: `cargo run --example listen [ADDR]`, `:8330` unless given.
//!
//! While it runs, `netstat -nat | grep 8330` shows the LISTEN row, and two ESTABLISHED rows for each connection that
//! `cargo run --example dial` makes on this machine: one per end.

use std::io;

use towpath::net::{SocketAddr, TcpListener, TcpStream};
use towpath::time::{Duration, sleep};

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| ":8330".to_owned());
    // An address without a host is every address of this machine, IPv4 and IPv6.
    let listener = TcpListener::bind(addr)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        match listener.accept() {
            // A task costs a page of memory: have one for each connection. Its handle is not needed, and to drop it
            // lets the task run on alone.
            Ok((conn, peer)) => drop(towpath::spawn(move || hold(conn, peer))),
            Err(e) => {
                println!("accept err: {e}");
                // The connection is still in the kernel's queue. If descriptors have run out, some will be free soon.
                sleep(Duration::from_millis(5))?;
            }
        }
    }
}

/// Keeps a connection until the peer closes it, or breaks it.
fn hold(mut conn: TcpStream, peer: SocketAddr) {
    println!("accept {peer}");
    // This looks as if it blocked a thread. It parks the task, and the thread runs the other ones.
    match io::copy(&mut conn, &mut io::sink()) {
        Ok(_) => println!("closed {peer}"),
        Err(e) => println!("read err: {e}"),
    }
    // Dropped here, the connection closes on this side too.
}
