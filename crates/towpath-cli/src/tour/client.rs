//! The client of the tour: one task reads when it is told to, and the other waits for whatever comes first, an order or
//! the news that the server has closed.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use towpath::net::{Dialer, TcpStream};
use towpath::sync::channel::{self, Receiver, Sender};
use towpath::task;
use towpath::time::Instant;

use super::told::{Deed, Teller};

/// The name of the task that dials, writes and closes.
pub(super) const CLIENT: &str = "client";
/// Of the one that reads.
pub(super) const READER: &str = "client reader";

/// How long a dial may take: on one machine it is answered at once or not at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// Its receive buffer, which the kernel doubles (socket(7)).
const BUFFER: usize = 64 << 10;

/// What the client is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Send this.
    Say(&'static str),
    /// Wait in `read` for what comes next.
    Read,
    /// Read so many bytes, however many reads that takes.
    ReadOn {
        bytes: usize,
    },
    Close,
}

/// What the reading task is told to do.
enum Reading {
    Once,
    On { bytes: usize },
}

/// Starts a client, which dials `addr`.
pub(super) fn start(addr: SocketAddr, teller: Teller, orders: Receiver<Order>) -> io::Result<()> {
    spawn(CLIENT, move || {
        let begin = Instant::now();
        let conn = match Dialer::new().timeout(PATIENCE).dial(addr) {
            Ok(conn) => conn,
            Err(e) => return teller.tell(Deed::Refused { error: e.to_string() }),
        };
        let took = begin.elapsed();
        // Of this size and no other from now on: the kernel would let it grow (tcp(7)).
        if let Err(e) = sockopt::set_socket_recv_buffer_size(&conn, BUFFER) {
            return teller.failed("dial", &e.into());
        }
        let (local, peer) = match conn.local_addr().and_then(|local| Ok((local, conn.peer_addr()?))) {
            Ok(ends) => ends,
            Err(e) => return teller.failed("dial", &e),
        };
        teller.tell_of(begin, Deed::Connected { local, peer, took });
        if let Err(e) = converse(conn, &teller, &orders) {
            teller.failed("client", &e);
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    task::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn converse(mut conn: TcpStream, teller: &Teller, orders: &Receiver<Order>) -> io::Result<()> {
    let (read, to_read) = channel::unbounded();
    let (ended, end) = channel::bounded(1);
    let (reader, told) = (conn.try_clone()?, teller.clone());
    spawn(READER, move || read_as_told(reader, &told, &to_read, ended))?;
    let mut open = true;
    loop {
        let order = if open {
            towpath::select! {
                recv(orders) -> order => order,
                recv(end) -> _ => {
                    teller.tell(Deed::Noticed);
                    open = false;
                    continue;
                }
            }
        } else {
            orders.recv()
        };
        match order {
            Ok(Order::Say(text)) => {
                let at = Instant::now();
                conn.write_all(text.as_bytes())?;
                teller.tell_of(at, Deed::wrote(text.len(), text.as_bytes()));
            }
            // The task may have ended, and then there is nothing to read.
            Ok(Order::Read) => drop(read.send(Reading::Once)),
            Ok(Order::ReadOn { bytes }) => drop(read.send(Reading::On { bytes })),
            Ok(Order::Close) => {
                let at = Instant::now();
                conn.close()?;
                teller.tell_of(at, Deed::Closed);
            }
            // The tour is over.
            Err(_) => return Ok(()),
        }
    }
}

/// Reads only when it is told to: that is how a peer is slow. Its end is told by `ended`, which is dropped then.
fn read_as_told(mut conn: TcpStream, teller: &Teller, orders: &Receiver<Reading>, ended: Sender<()>) {
    let mut buffer = vec![0; 64 << 10];
    for order in orders {
        let read = match order {
            Reading::Once => conn.read(&mut buffer[..1024]).map(|read| match read {
                0 => Deed::EndOfFile,
                read => Deed::read(&buffer[..read]),
            }),
            Reading::On { bytes } => read_on(&mut conn, &mut buffer, bytes),
        };
        match read {
            Ok(Deed::EndOfFile) => {
                teller.tell(Deed::EndOfFile);
                break;
            }
            Ok(deed) => teller.tell(deed),
            Err(e) => {
                teller.failed("read", &e);
                break;
            }
        }
    }
    drop(ended);
}

fn read_on(conn: &mut TcpStream, buffer: &mut [u8], bytes: usize) -> io::Result<Deed> {
    let (mut left, mut reads) = (bytes, 0);
    while left > 0 {
        let room = buffer.len().min(left);
        let read = conn.read(&mut buffer[..room])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (left, reads) = (left - read, reads + 1);
    }
    Ok(Deed::ReadOn { bytes, reads })
}
