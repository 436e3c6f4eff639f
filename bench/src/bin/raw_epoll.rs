//! The limit to compare with: a hand-written, edge-triggered epoll echo server on one thread.
//!
//! A connection is registered once, for everything, and never touched in epoll again. After a read that did not
//! fill the buffer the next one waits for an event instead of finding EAGAIN: on a stream socket a short read has
//! emptied the queue (epoll(7), "Questions and answers" 9). After RDHUP, HUP or ERR no further edge may come, so
//! from then on it reads to the end. Urgent data, which also shortens reads, is outside what this server is for.

use clap::Parser;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use towpath_bench::process::pin_this_thread;

/// Events fetched by one `epoll_wait`.
const BATCH: usize = 1024;
/// Bytes read at once: as much as the other servers' tasks have on their stacks.
const BUFFER: usize = 1024;
/// The listener's token; a connection's is its descriptor, which is never this.
const LISTENER: u64 = u64::MAX;

#[derive(Parser)]
struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: SocketAddr,
    /// Run on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    if let Some(cpu) = args.cpu {
        pin_this_thread(cpu)?;
    }
    let listener = TcpListener::bind(args.addr)?;
    listener.set_nonblocking(true)?;
    println!("listening {}", listener.local_addr()?);
    io::stdout().flush()?;
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
            self.connections[fd] = Some(Connection { socket, readable: false, ending: false, unsent: Vec::new() });
        }
    }

    fn serve(&mut self, fd: usize, flags: EventFlags, buf: &mut [u8; BUFFER]) {
        let slot = &mut self.connections[fd];
        let Some(connection) = slot else { return };
        if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            connection.ending = true;
        }
        if connection.ending || flags.contains(EventFlags::IN) {
            connection.readable = true;
        }
        if connection.echo(buf).is_err() {
            *slot = None; // Closes it, which takes it out of epoll.
        }
    }
}

struct Connection {
    socket: OwnedFd,
    /// False while nothing can be there to read: only an event sets it again.
    readable: bool,
    /// The peer has closed its side, or the connection failed: a short read no longer means that nothing follows.
    ending: bool,
    /// What the peer's window did not take yet. Nothing more is read before it is gone.
    unsent: Vec<u8>,
}

/// The connection is over, whatever the reason.
struct Over;

impl Connection {
    /// Echoes until the socket has nothing more to read or no room to write.
    fn echo(&mut self, buf: &mut [u8; BUFFER]) -> Result<(), Over> {
        loop {
            if !self.unsent.is_empty() {
                let sent = self.try_send(&self.unsent)?;
                self.unsent.drain(..sent);
                if !self.unsent.is_empty() {
                    return Ok(());
                }
            }
            if !self.readable {
                return Ok(());
            }
            let count = match recv(&self.socket, &mut buf[..], RecvFlags::empty()) {
                Ok((_, 0)) => return Err(Over),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    return Ok(());
                }
                Err(Errno::INTR) => continue,
                Err(_) => return Err(Over),
            };
            if count < BUFFER && !self.ending {
                self.readable = false;
            }
            let sent = self.try_send(&buf[..count])?;
            self.unsent.extend_from_slice(&buf[sent..count]);
        }
    }

    /// How much of `bytes` the kernel took: nothing when there is no room.
    fn try_send(&self, bytes: &[u8]) -> Result<usize, Over> {
        loop {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => return Ok(sent),
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Over),
            }
        }
    }
}
