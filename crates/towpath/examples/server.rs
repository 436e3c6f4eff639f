//! Sends each newcomer the time, and prints all that it sends: `cargo run --example server [ADDR]`, `:8330` unless given.
//! Enter stops it.
//!
//! Talk to it with `cargo run --example client`.

use std::io::{self, Read, Write};

use towpath::net::{TcpListener, TcpStream};
use towpath::task::spawn_blocking;
use towpath::time::{Duration, sleep};

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| ":8330".to_owned());
    let listener = TcpListener::bind(addr)?;
    println!("listening on {}", listener.local_addr()?);

    // Waiting for a key blocks the thread, so it has one of its own. To close a clone is to close the listener.
    let door = listener.try_clone()?;
    drop(spawn_blocking(move || {
        if io::stdin().read_line(&mut String::new()).is_ok_and(|n| n > 0) {
            _ = door.close(); // an error says that it is closed
        }
    }));

    // This ends once the listener is closed; any other error leaves it open.
    for accepted in listener.incoming() {
        match accepted {
            Ok(conn) => drop(towpath::spawn(move || greet(conn))),
            Err(e) => {
                println!("accept err: {e}");
                sleep(Duration::from_millis(5))?; // perhaps descriptors have run out, and will be free soon
            }
        }
    }
    Ok(())
}

/// Sends the time, while a second task reads: two tasks use one connection at once. This one may end first, and the
/// connection stays: it closes when the last handle on it goes, whichever way that comes about.
fn greet(mut conn: TcpStream) {
    match conn.try_clone() {
        Ok(conn) => drop(towpath::spawn(move || print_all(conn))),
        Err(e) => return println!("clone err: {e}"),
    }
    let time = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.9f %z").to_string();
    match conn.write_all(format!("{time}\n").as_bytes()) {
        Ok(()) => println!("send data: {time}"),
        Err(e) => println!("send err: {e}"),
    }
}

/// Prints what comes, up to 1,024 bytes a read.
fn print_all(mut conn: TcpStream) {
    let mut buf = [0; 1024];
    let mut text = Vec::new();
    loop {
        match conn.read(&mut buf) {
            Ok(0) => return println!("closed"),
            Ok(n) => {
                // Not the whole buffer: what is behind the first `n` bytes has nothing to do with this read.
                text.extend_from_slice(&buf[..n]);
                println!("read data {n} : {}", take_text(&mut text).trim_end());
            }
            Err(e) => return println!("read err: {e}"),
        }
    }
}

/// Takes the text out of `bytes`. TCP is a stream of bytes and may cut a character in two: the beginning of one whose
/// end has not come stays for the next time.
fn take_text(bytes: &mut Vec<u8>) -> String {
    let begun = bytes.utf8_chunks().last().map_or(0, |chunk| match std::str::from_utf8(chunk.invalid()) {
        Err(e) if e.error_len().is_none() => chunk.invalid().len(), // not wrong, only too short
        _ => 0,
    });
    let rest = bytes.split_off(bytes.len() - begun);
    let text = String::from_utf8_lossy(bytes).into_owned();
    *bytes = rest;
    text
}
