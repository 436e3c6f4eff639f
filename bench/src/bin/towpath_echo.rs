//! The echo server as users of towpath would write it: accept, spawn, read, write.

use clap::Parser;
use std::io::{self, Read as _, Write as _};
use towpath::Runtime;
use towpath::net::{TcpListener, TcpStream};
use towpath_bench::process::pin_this_thread;

#[derive(Parser)]
struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: String,
    /// Threads that run tasks
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Run on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    if let Some(cpu) = args.cpu {
        pin_this_thread(cpu)?; // The workers start later and inherit it.
    }
    let runtime = Runtime::builder().workers(args.workers).build()?;
    runtime.run(move || serve(&args.addr))
}

fn serve(addr: &str) -> io::Result<()> {
    let listener = TcpListener::bind(addr)?;
    println!("listening {}", listener.local_addr()?);
    io::stdout().flush()?;
    loop {
        match listener.accept() {
            Ok((conn, _)) => drop(towpath::spawn(move || echo(conn))),
            Err(e) => eprintln!("accept: {e}"),
        }
    }
}

fn echo(mut conn: TcpStream) -> io::Result<()> {
    let mut buf = [0; 1024];
    loop {
        match conn.read(&mut buf)? {
            0 => return Ok(()),
            n => conn.write_all(&buf[..n])?,
        }
    }
}
