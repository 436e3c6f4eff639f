//! The limit to compare with: a hand-written, edge-triggered epoll echo server on one thread.
//!
//! A connection is registered once, for everything, and never touched in epoll again. After a read that did not
//! fill the buffer the next one waits for an event instead of finding EAGAIN: on a stream socket a short read has
//! emptied the queue (epoll(7), "Questions and answers" 9). After RDHUP, HUP or ERR no further edge may come, so
//! from then on it reads to the end. Urgent data, which also shortens reads, is outside what this server is for.

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, sockopt};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use towpath_bench::edge::Connection;
use towpath_bench::service::{Args, BUFFER, Service, announce, not_offered};

/// Events fetched by one `epoll_wait`.
const BATCH: usize = 1024;
/// The listener's token; a connection's is its descriptor, which is never this.
const LISTENER: u64 = u64::MAX;

fn main() -> io::Result<()> {
    let args = Args::from_command_line()?;
    if args.service != Service::Echo {
        return Err(not_offered(args.service));
    }
    let listener = TcpListener::bind(args.addr)?;
    listener.set_nonblocking(true)?;
    sockopt::set_tcp_nodelay(&listener, true)?; // Accepted sockets have it from here.
    announce(listener.local_addr()?)?;
    Server::new(listener)?.run()
}

struct Server {
    epoll: OwnedFd,
    listener: TcpListener,
    /// By descriptor. A closed one's number may be given out again within a batch of events, but not seen there
    /// again: a batch has at most one event for each.
    connections: Vec<Option<Connection>>,
}

impl Server {
    fn new(listener: TcpListener) -> io::Result<Server> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN | EventFlags::ET)?;
        Ok(Server { epoll, listener, connections: Vec::new() })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; BATCH];
        let mut buf = [0; BUFFER];
        loop {
            let count = match epoll::wait(&self.epoll, &mut events, None) {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            for event in &events[..count] {
                match event.data.u64() {
                    LISTENER => self.accept_all()?,
                    fd => self.serve(fd as usize, event.flags, &mut buf),
                }
            }
        }
    }

    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            let socket = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(e) => return Err(e.into()),
            };
            let fd = socket.as_raw_fd() as usize;
            let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &socket, EventData::new_u64(fd as u64), interest)?;
            if self.connections.len() <= fd {
                self.connections.resize_with(fd + 1, || None);
            }
            self.connections[fd] = Some(Connection::new(socket));
        }
    }

    fn serve(&mut self, fd: usize, flags: EventFlags, buf: &mut [u8; BUFFER]) {
        let slot = &mut self.connections[fd];
        let Some(connection) = slot else { return };
        connection.report(
            flags.contains(EventFlags::IN),
            flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
        );
        if connection.echo(buf).is_err() {
            *slot = None; // Closes it, which takes it out of epoll.
        }
    }
}
