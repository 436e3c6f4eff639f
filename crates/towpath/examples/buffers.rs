//! What is between a write and the read that gets it: the kernel's send buffer at one end, its receive buffer at the
//! other. `cargo run --example buffers` makes a connection to itself and ends by itself. Linux only: it reads the table
//! that netstat prints.
//!
//! ```text
//!   write() ──▶ send buffer ──── network ────▶ receive buffer ──▶ read()
//!               Send-Q                         Recv-Q                       as netstat calls what is in them
//! ```
//!
//! A write copies as much as the send buffer has room for, and says how much that was. While the peer does not read, both
//! buffers fill, and the writer parks. When it reads on, the writer resumes and writes the rest.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::net::sockopt;
use towpath::net::{TcpListener, TcpStream};
use towpath::time::{Duration, sleep};

/// What one buffer is to hold, and all that is to pass: more than both hold together.
const BUFFER: usize = 32 << 10;
const ALL: usize = 512 << 10;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // Connections inherit it. It is set before there is one, for the handshake tells the peer what to expect.
    sockopt::set_socket_recv_buffer_size(&listener, BUFFER)?;
    let writer = TcpStream::connect(listener.local_addr()?)?;
    let (mut reader, _) = listener.accept()?;
    sockopt::set_socket_send_buffer_size(&writer, BUFFER)?;
    // The kernel doubles what it is asked for, to have room for its own records (socket(7)).
    println!("SO_SNDBUF of the writer: {}", sockopt::socket_send_buffer_size(&writer)?);
    println!("SO_RCVBUF of the reader: {}", sockopt::socket_recv_buffer_size(&reader)?);

    println!("the writer has {ALL} bytes to write, the peer does not read");
    let written = Arc::new(AtomicUsize::new(0));
    let handle = towpath::task::Builder::new().name("writer".to_owned()).spawn({
        let (conn, written) = (writer.try_clone()?, written.clone());
        move || write_all(conn, &written)
    })?;
    wait_until_parked(&writer, &reader, &written)?;
    println!("the writer is parked");
    println!("        Recv-Q Send-Q");
    for (name, (recv_q, send_q)) in [("writer", queues(&writer)?), ("reader", queues(&reader)?)] {
        println!("{name} {recv_q:7} {send_q:6}");
    }

    println!("the peer reads on");
    let (mut buf, mut read) = (vec![0; BUFFER], 0);
    while read < ALL {
        read += reader.read(&mut buf)?;
    }
    handle.join().expect("the writer does not panic")?;
    println!("the peer has read {read} bytes");
    Ok(())
}

/// What `write_all` of `std::io::Write` does as well, but says each step.
fn write_all(mut conn: TcpStream, written: &AtomicUsize) -> io::Result<()> {
    let all = vec![b'.'; ALL];
    let mut rest = &all[..];
    while !rest.is_empty() {
        let n = conn.write(rest)?; // parks while there is no room at all
        println!("write took {n} of {}", rest.len());
        written.fetch_add(n, Ordering::Relaxed);
        rest = &rest[n..];
    }
    Ok(())
}

/// Waits until the task waits in `write`, and nothing moves between the kernel's buffers any more: what has arrived and is not
/// acknowledged yet is in both.
fn wait_until_parked(writer: &TcpStream, reader: &TcpStream, written: &AtomicUsize) -> io::Result<()> {
    let mut before = None;
    loop {
        let now = (queues(writer)?, queues(reader)?);
        let ((_, sending), (received, _)) = now;
        let acknowledged = sending + received == written.load(Ordering::Relaxed);
        let dump = towpath::task::dump();
        let parked = dump.tasks().iter().any(|task| task.name() == Some("writer") && task.operation() == Some("write"));
        if parked && acknowledged && before == Some(now) {
            return Ok(());
        }
        before = Some(now);
        sleep(Duration::from_millis(50))?;
    }
}

/// The bytes in a connection's receive queue and in its send queue.
fn queues(conn: &TcpStream) -> io::Result<(usize, usize)> {
    // Addresses are in hexadecimal: 0100007F:208A is 127.0.0.1:8330.
    let local = format!(":{:04X}", conn.local_addr()?.port());
    let peer = format!(":{:04X}", conn.peer_addr()?.port());
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1].ends_with(&local) && row[2].ends_with(&peer));
    let queues = row.as_ref().and_then(|row| row[4].split_once(':'));
    let (send_q, recv_q) = queues.ok_or_else(|| io::Error::other("the connection is not in /proc/net/tcp"))?;
    let number = |hex| usize::from_str_radix(hex, 16).map_err(io::Error::other);
    Ok((number(recv_q)?, number(send_q)?))
}
