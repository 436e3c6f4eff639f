//! The services as users of towpath would write them: accept, spawn, read, write.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use towpath::Runtime;
use towpath::net::{TcpListener, TcpStream};
use towpath::sync::channel;
use towpath::time::Duration;
use towpath_bench::blocking::{echo, sink, source};
use towpath_bench::service::{Args, BACKLOG, BUFFER, LARGE_BUFFER, Service, announce};

fn main() -> io::Result<()> {
    let args = Args::from_command_line()?;
    let runtime = Runtime::builder().workers(args.workers).build()?;
    runtime.run(move || listen(args))
}

fn listen(args: Args) -> io::Result<()> {
    let listener = TcpListener::bind(args.addr)?;
    announce(listener.local_addr()?)?;
    loop {
        match listener.accept() {
            Ok((conn, _)) => {
                let args = args.clone();
                drop(towpath::spawn(move || serve(conn, &args)));
            }
            Err(e) => eprintln!("accept: {e}"),
        }
    }
}

fn serve(mut conn: TcpStream, args: &Args) -> io::Result<()> {
    conn.set_nodelay(true)?;
    conn.set_read_timeout(args.read_timeout.map(Duration::from_secs))?;
    match args.service {
        Service::Echo => echo(&mut conn, &mut [0; BUFFER]),
        Service::Echo16k => echo(&mut conn, &mut vec![0; LARGE_BUFFER]),
        Service::Sink => sink(&mut conn),
        Service::Source => source(&mut conn),
        Service::Shared => shared(conn),
        Service::Proxy => proxy(conn, args.to()),
    }
}

fn shared(conn: TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = conn.into_split();
    let (pieces, arriving) = channel::bounded::<Vec<u8>>(BACKLOG);
    let writing = towpath::spawn(move || arriving.iter().try_for_each(|piece| writer.write_all(&piece)));
    let mut buf = [0; BUFFER];
    loop {
        let n = reader.read(&mut buf)?;
        if n == 0 || pieces.send(buf[..n].to_vec()).is_err() {
            break;
        }
    }
    drop(pieces);
    writing.join().map_err(|_| io::Error::other("the writing task panicked"))?
}

fn proxy(mut client: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(to)?;
    server.set_nodelay(true)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = towpath::spawn(move || {
        io::copy(&mut from_server, &mut to_client)?;
        to_client.shutdown(Shutdown::Write)
    });
    io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Write)?;
    back.join().map_err(|_| io::Error::other("the copying task panicked"))?
}
