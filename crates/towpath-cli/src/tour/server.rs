//! The server of the tour: one task accepts, and each connection has two, of which one reads and one does what it is told.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use jiff::Zoned;
use rustix::net::sockopt;
use towpath::net::{TcpListener, TcpStream, is_closed};
use towpath::sync::channel::Receiver;
use towpath::task;
use towpath::time::Instant;

use super::told::{Deed, Teller};

/// The name of the task that accepts.
pub(super) const SERVER: &str = "server";
/// Of the one that writes to the connection.
pub(super) const WRITER: &str = "server writer";
/// Of the one that reads from it.
pub(super) const READER: &str = "server reader";

/// What the writing task is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Send the current time.
    SendTime,
    /// Send so many bytes, whatever they are, with a send buffer of this size.
    SendBulk {
        bytes: usize,
        buffer: usize,
    },
    Close,
}

/// Starts the server, which listens at `addr`.
pub(super) fn start(addr: SocketAddr, teller: Teller, orders: Receiver<Order>) -> io::Result<()> {
    spawn(SERVER, move || accept_all(addr, &teller, &orders))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    task::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn accept_all(addr: SocketAddr, teller: &Teller, orders: &Receiver<Order>) {
    let listener = match TcpListener::bind(addr) {
        Ok(listener) => listener,
        Err(e) => return teller.failed("listen", &e),
    };
    match listener.local_addr() {
        Ok(addr) => teller.tell(Deed::Listening { addr }),
        Err(e) => return teller.failed("listen", &e),
    }
    loop {
        match listener.accept() {
            Ok((conn, peer)) => {
                teller.tell(Deed::Accepted { peer });
                if let Err(e) = converse(conn, teller, orders) {
                    teller.failed("serve", &e);
                }
            }
            Err(e) => return teller.failed("accept", &e),
        }
    }
}

/// Two tasks share the connection: one waits for what comes while the other sends.
fn converse(conn: TcpStream, teller: &Teller, orders: &Receiver<Order>) -> io::Result<()> {
    let reader = conn.try_clone()?;
    let told = teller.clone();
    spawn(READER, move || read_all(reader, &told))?;
    let (teller, orders) = (teller.clone(), orders.clone());
    spawn(WRITER, move || {
        if let Err(e) = obey(conn, &teller, &orders) {
            teller.failed("write", &e);
        }
    })
}

fn obey(mut conn: TcpStream, teller: &Teller, orders: &Receiver<Order>) -> io::Result<()> {
    for order in orders {
        match order {
            Order::SendTime => {
                let time = format!("{}\n", Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.9f %z"));
                write_all(&mut conn, time.as_bytes(), teller)?;
            }
            Order::SendBulk { bytes, buffer } => {
                sockopt::set_socket_send_buffer_size(&conn, buffer)?;
                write_all(&mut conn, &vec![b'.'; bytes], teller)?;
            }
            Order::Close => {
                let at = Instant::now();
                conn.close()?;
                teller.tell_of(at, Deed::Closed);
                return Ok(());
            }
        }
    }
    Ok(())
}

/// As `write_all` of `std::io::Write`, but tells of each write.
fn write_all(conn: &mut TcpStream, mut rest: &[u8], teller: &Teller) -> io::Result<()> {
    while !rest.is_empty() {
        let at = Instant::now();
        let written = conn.write(rest)?;
        teller.tell_of(at, Deed::wrote(written, rest));
        rest = &rest[written..];
    }
    Ok(())
}

/// Reads up to 1,024 bytes at a time, and tells of each read.
fn read_all(mut conn: TcpStream, teller: &Teller) {
    let mut buffer = [0; 1024];
    loop {
        match conn.read(&mut buffer) {
            Ok(0) => return teller.tell(Deed::EndOfFile),
            Ok(read) => teller.tell(Deed::read(&buffer[..read])),
            Err(e) if is_closed(&e) => return teller.tell(Deed::ClosedUnderIt),
            Err(e) => return teller.failed("read", &e),
        }
    }
}
