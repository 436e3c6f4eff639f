//! The services as users of monoio would write them: a thread with a runtime and a listener of its own for each worker,
//! a task for each connection. The kernel spreads connections over the listeners.

use monoio::buf::IoBuf as _;
use monoio::io::{
    AsyncReadRent as _, AsyncReadRentExt as _, AsyncWriteRent as _, AsyncWriteRentExt as _, Splitable as _, copy,
};
use monoio::net::{TcpListener, TcpStream};
use monoio::{FusionDriver, RuntimeBuilder};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use towpath_bench::service::{Args, BUFFER, CHUNK, LARGE_BUFFER, Service, announce, not_offered, pattern};

fn main() -> io::Result<()> {
    let args = Args::from_command_line()?;
    if args.service == Service::Shared {
        return Err(not_offered(args.service));
    }
    let (bound, addresses) = mpsc::channel();
    let mut addr = args.addr;
    let mut threads = Vec::new();
    for _ in 0..args.workers {
        let (args, bound) = (Args { addr, ..args.clone() }, bound.clone());
        threads.push(thread::spawn(move || {
            let mut runtime = RuntimeBuilder::<FusionDriver>::new().build()?;
            runtime.block_on(listen(args, bound))
        }));
        // The first one finds a port; the others listen there, too.
        addr = addresses.recv().map_err(|_| io::Error::other("a worker does not listen"))?;
    }
    announce(addr)?;
    threads.into_iter().try_for_each(|thread| thread.join().expect("a worker does not panic"))
}

async fn listen(args: Args, bound: mpsc::Sender<SocketAddr>) -> io::Result<()> {
    let listener = TcpListener::bind(args.addr)?;
    let _ = bound.send(listener.local_addr()?);
    loop {
        match listener.accept().await {
            Ok((conn, _)) => start(conn, &args),
            Err(e) => eprintln!("accept: {e}"),
        }
    }
}

/// Spawns what a connection needs: not one task for all services, which would be as large as the largest.
fn start(conn: TcpStream, args: &Args) {
    match args.service {
        Service::Echo => drop(monoio::spawn(echo(conn, BUFFER))),
        Service::Echo16k => drop(monoio::spawn(echo(conn, LARGE_BUFFER))),
        Service::Sink => drop(monoio::spawn(sink(conn))),
        Service::Source => drop(monoio::spawn(source(conn))),
        Service::Proxy => drop(monoio::spawn(proxy(conn, args.to()))),
        Service::Shared => unreachable!("main refuses it"),
    }
}

async fn echo(mut conn: TcpStream, size: usize) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut buf = Vec::with_capacity(size);
    loop {
        let (read, filled) = conn.read(buf).await;
        if read? == 0 {
            return Ok(());
        }
        let (written, emptied) = conn.write_all(filled).await;
        written?;
        buf = emptied;
    }
}

async fn sink(mut conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut buf = Vec::with_capacity(CHUNK);
    loop {
        let length = conn.read_u64_le().await?;
        let mut left = length;
        while left > 0 {
            // The peer sends no more than announced before it has the answer.
            let (read, filled) = conn.read(buf).await;
            buf = filled;
            match read? as u64 {
                0 => return Ok(()),
                n => left = left.checked_sub(n).ok_or(io::ErrorKind::InvalidData)?,
            }
        }
        conn.write_all(length.to_le_bytes().to_vec()).await.0?;
    }
}

async fn source(mut conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut pattern = pattern();
    loop {
        let mut left = conn.read_u64_le().await?;
        while left > 0 {
            let count = left.min(CHUNK as u64);
            let (written, slice) = conn.write_all(pattern.slice(..count as usize)).await;
            written?;
            pattern = slice.into_inner();
            left -= count;
        }
    }
}

async fn proxy(client: TcpStream, to: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect_addr(to).await?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = monoio::spawn(async move {
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    });
    copy(&mut from_client, &mut to_server).await?;
    to_server.shutdown().await?;
    back.await
}
