//! The services with a thread for each connection, and nothing but std.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use towpath_bench::blocking::{echo, sink, source};
use towpath_bench::service::{Args, BACKLOG, BUFFER, LARGE_BUFFER, Service, announce};

fn main() -> io::Result<()> {
    let args = Args::from_command_line()?;
    let listener = TcpListener::bind(args.addr)?;
    announce(listener.local_addr()?)?;
    loop {
        match listener.accept() {
            Ok((conn, _)) => {
                let args = args.clone();
                thread::Builder::new().spawn(move || serve(conn, &args))?;
            }
            Err(e) => eprintln!("accept: {e}"),
        }
    }
}

fn serve(mut conn: TcpStream, args: &Args) -> io::Result<()> {
    conn.set_nodelay(true)?;
    match args.service {
        Service::Echo => echo(&mut conn, &mut [0; BUFFER]),
        Service::Echo16k => echo(&mut conn, &mut vec![0; LARGE_BUFFER]),
        Service::Sink => sink(&mut conn),
        Service::Source => source(&mut conn),
        Service::Shared => shared(conn),
        Service::Proxy => proxy(conn, args.to()),
    }
}

fn shared(mut reader: TcpStream) -> io::Result<()> {
    let mut writer = reader.try_clone()?;
    let (pieces, arriving) = mpsc::sync_channel::<Vec<u8>>(BACKLOG);
    let writing = thread::spawn(move || arriving.iter().try_for_each(|piece| writer.write_all(&piece)));
    let mut buf = [0; BUFFER];
    loop {
        let n = reader.read(&mut buf)?;
        if n == 0 || pieces.send(buf[..n].to_vec()).is_err() {
            break;
        }
    }
    drop(pieces);
    writing.join().map_err(|_| io::Error::other("the writing thread panicked"))?
}

fn proxy(mut client: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(to)?;
    server.set_nodelay(true)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        io::copy(&mut from_server, &mut to_client)?;
        to_client.shutdown(Shutdown::Write)
    });
    io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Write)?;
    back.join().map_err(|_| io::Error::other("the copying thread panicked"))?
}
