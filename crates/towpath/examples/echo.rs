//! Echoes what each client sends: `cargo run --release --example echo -- ADDR`. It prints its address and nothing else.

use std::io::{self, Read, Write};

use towpath::net::{Server, TcpListener};

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| ":8330".to_owned());
    let listener = TcpListener::bind(addr.as_str())?;
    println!("listening {}", listener.local_addr()?);
    Server::new(listener).serve(|mut conn, _peer| {
        let mut buf = [0; 1024];
        while let Ok(n @ 1..) = conn.read(&mut buf) {
            if conn.write_all(&buf[..n]).is_err() {
                return;
            }
        }
    })
}
