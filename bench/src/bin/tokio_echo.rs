//! The services as users of tokio would write them: a task for each connection. One worker is the current-thread
//! runtime, more are the multi-thread one.

use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use towpath_bench::service::{Args, BACKLOG, BUFFER, CHUNK, LARGE_BUFFER, Service, announce, pattern};

fn main() -> io::Result<()> {
    let args = Args::from_command_line()?;
    let runtime = match args.workers {
        1 => Builder::new_current_thread().enable_io().build()?,
        workers => Builder::new_multi_thread().worker_threads(workers).enable_io().build()?,
    };
    // Under the multi-thread runtime the thread of `block_on` is no worker: accept in a task, too.
    runtime.block_on(async { tokio::spawn(listen(args)).await.map_err(io::Error::other)? })
}

async fn listen(args: Args) -> io::Result<()> {
    let listener = TcpListener::bind(args.addr).await?;
    announce(listener.local_addr()?)?;
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
        Service::Echo => drop(tokio::spawn(echo(conn))),
        Service::Echo16k => drop(tokio::spawn(echo_large(conn))),
        Service::Sink => drop(tokio::spawn(sink(conn))),
        Service::Source => drop(tokio::spawn(source(conn))),
        Service::Shared => drop(tokio::spawn(shared(conn))),
        Service::Proxy => drop(tokio::spawn(proxy(conn, args.to()))),
    }
}

async fn echo(mut conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut buf = [0; BUFFER];
    loop {
        match conn.read(&mut buf).await? {
            0 => return Ok(()),
            n => conn.write_all(&buf[..n]).await?,
        }
    }
}

async fn echo_large(mut conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut buf = vec![0; LARGE_BUFFER];
    loop {
        match conn.read(&mut buf).await? {
            0 => return Ok(()),
            n => conn.write_all(&buf[..n]).await?,
        }
    }
}

async fn sink(mut conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut buf = vec![0; CHUNK];
    loop {
        let length = conn.read_u64_le().await?;
        let mut left = length;
        while left > 0 {
            let room = left.min(CHUNK as u64) as usize;
            match conn.read(&mut buf[..room]).await? {
                0 => return Ok(()),
                n => left -= n as u64,
            }
        }
        conn.write_u64_le(length).await?;
    }
}

async fn source(mut conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let pattern = pattern();
    loop {
        let mut left = conn.read_u64_le().await?;
        while left > 0 {
            let count = left.min(CHUNK as u64);
            conn.write_all(&pattern[..count as usize]).await?;
            left -= count;
        }
    }
}

async fn shared(conn: TcpStream) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let (mut reader, mut writer) = conn.into_split();
    let (pieces, mut arriving) = mpsc::channel::<Vec<u8>>(BACKLOG);
    let writing = tokio::spawn(async move {
        while let Some(piece) = arriving.recv().await {
            writer.write_all(&piece).await?;
        }
        io::Result::Ok(())
    });
    let mut buf = [0; BUFFER];
    loop {
        let n = reader.read(&mut buf).await?;
        if n == 0 || pieces.send(buf[..n].to_vec()).await.is_err() {
            break;
        }
    }
    drop(pieces);
    writing.await.map_err(io::Error::other)?
}

async fn proxy(mut client: TcpStream, to: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut server = TcpStream::connect(to).await?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
