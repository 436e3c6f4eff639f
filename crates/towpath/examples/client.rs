//! Prints what the server sends, sends what is typed, and notices when the server closes:
//! `cargo run --example client [ADDR]`, `:8330` unless given. Ctrl-D says that there is no more to send.
//!
//! It talks to `cargo run --example server`.

use std::io::{self, BufRead, BufReader, Write};

use towpath::net::{Shutdown, TcpStream};
use towpath::sync::channel;
use towpath::task::spawn_blocking;

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| ":8330".to_owned());
    let mut conn = TcpStream::connect(addr)?;

    // A task reads, and tells over a channel how that ended. Whatever the end, the channel tells of it: the sender goes
    // with the task, also if it panics, and to wait for it is never in vain.
    let (ended, reading) = channel::bounded(1);
    let reader = conn.try_clone()?;
    drop(towpath::spawn(move || _ = ended.send(print_all(reader))));

    // Waiting for a key blocks the thread, so it has one of its own.
    let (typed, lines) = channel::bounded(0);
    drop(spawn_blocking(move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| typed.send(line))));

    let end = loop {
        towpath::select! {
            recv(reading) -> end => break end,
            recv(lines) -> line => match line {
                Ok(line) => conn.write_all(format!("{line}\n").as_bytes()).unwrap_or_else(|e| println!("send err: {e}")),
                // The server reads end of file, and may still send: closing ends one direction only.
                Err(_) => {
                    _ = conn.shutdown(Shutdown::Write); // an error says that there is no connection, and `end` will too
                    break reading.recv();
                }
            },
        }
    };
    match end {
        Ok(Ok(())) => println!("server closed"),
        Ok(Err(e)) => println!("read err: {e}"),
        Err(_) => println!("the reading task panicked"),
    }
    Ok(())
}

/// Prints what comes, until the end of file. A line may need several reads, and one read may bring several lines:
/// `BufReader` puts together what belongs together.
fn print_all(conn: TcpStream) -> io::Result<()> {
    for line in BufReader::new(conn).lines() {
        let line = line?;
        println!("read data {} : {line}", line.len());
    }
    Ok(())
}
