//! The services as users of may would write them: a coroutine for each connection.

use may::net::{TcpListener, TcpStream};
use std::io;
use std::net::{Shutdown, SocketAddr};
use towpath_bench::blocking::{echo, sink, source};
use towpath_bench::service::{Args, BUFFER, LARGE_BUFFER, Service, announce, not_offered};

fn main() -> io::Result<()> {
    let args = Args::from_command_line()?;
    if args.service == Service::Shared {
        return Err(not_offered(args.service));
    }
    may::config().set_workers(args.workers);
    let listener = TcpListener::bind(args.addr)?;
    announce(listener.local_addr()?)?;
    for conn in listener.incoming() {
        match conn {
            Ok(conn) => {
                let args = args.clone();
                may::go!(move || serve(conn, &args));
            }
            Err(e) => eprintln!("accept: {e}"),
        }
    }
    Ok(())
}

fn serve(mut conn: TcpStream, args: &Args) -> io::Result<()> {
    conn.set_nodelay(true)?;
    match args.service {
        Service::Echo => echo(&mut conn, &mut [0; BUFFER]),
        Service::Echo16k => echo(&mut conn, &mut vec![0; LARGE_BUFFER]),
        Service::Sink => sink(&mut conn),
        Service::Source => source(&mut conn),
        Service::Proxy => proxy(conn, args.to()),
        Service::Shared => Err(not_offered(args.service)),
    }
}

fn proxy(mut client: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(to)?;
    server.set_nodelay(true)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = may::go!(move || {
        io::copy(&mut from_server, &mut to_client)?;
        to_client.shutdown(Shutdown::Write)
    });
    io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Write)?;
    back.join().map_err(|_| io::Error::other("the copying coroutine panicked"))?
}
