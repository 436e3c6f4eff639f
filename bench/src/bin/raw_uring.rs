//! The limits of io_uring: a hand-written echo loop on one thread, in two ways.
//!
//! With `--mode operations` each connection has one operation under way, a receive or a send, and a whole batch of them
//! goes to the kernel with the call that waits for the next results. With `--mode poll` the ring only says, by one poll
//! for each connection that stays armed, which sockets have become ready; receiving and sending are system calls, as in
//! `raw_epoll`.

use clap::{Parser, ValueEnum};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::PollFlags;
use rustix::fd::{FromRawFd as _, OwnedFd};
use rustix::net::sockopt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use towpath_bench::edge::Connection;
use towpath_bench::process::pin_this_thread;
use towpath_bench::service::{BUFFER, announce};

/// Operations that wait to be given to the kernel; results may be four times as many.
const ENTRIES: u32 = 4096;
/// The accepting operation's token.
const LISTENER: u64 = u64::MAX;
/// The token of what nobody waits for.
const NOBODY: u64 = u64::MAX - 1;
const IORING_RECVSEND_POLL_FIRST: u16 = 1;

#[derive(Parser)]
struct Args {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: SocketAddr,
    /// What goes through the ring
    #[arg(long, value_enum, default_value_t = Mode::Operations)]
    mode: Mode,
    /// Run on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
enum Mode {
    /// Receiving and sending
    Operations,
    /// Only that a socket is ready
    Poll,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    args.cpu.map_or(Ok(()), pin_this_thread)?;
    let listener = TcpListener::bind(args.addr)?;
    sockopt::set_tcp_nodelay(&listener, true)?; // Accepted sockets have it from here.
    let ring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(ENTRIES * 4).build(ENTRIES)?;
    announce(listener.local_addr()?)?;
    match args.mode {
        Mode::Operations => Server::<Operating>::new(ring, listener).run(),
        Mode::Poll => Server::<Polled>::new(ring, listener).run(),
    }
}

struct Server<C> {
    ring: IoUring,
    listener: TcpListener,
    /// By descriptor.
    connections: Vec<Option<C>>,
    /// How many were accepted: tells a connection's results from those of an earlier one with its descriptor.
    accepted: u32,
}

/// What one way needs of a connection.
trait Served: Sized {
    /// The flags for accepting.
    const ACCEPT: i32;
    /// A connection just accepted, and its first operation.
    fn start(socket: OwnedFd, token: u64) -> (Self, squeue::Entry);
    fn token(&self) -> u64;
    /// Takes a result, and says what to do next.
    fn goes_on(&mut self, result: i32, more: bool) -> Next;
}

enum Next {
    /// Give this to the kernel.
    Submit(squeue::Entry),
    /// What is armed stays so.
    Wait,
    /// Close it; if something is armed, disarm it first.
    Close { armed: bool },
}

impl<C: Served> Server<C> {
    fn new(ring: IoUring, listener: TcpListener) -> Server<C> {
        Server { ring, listener, connections: Vec::new(), accepted: 0 }
    }

    fn run(mut self) -> io::Result<()> {
        self.accept()?;
        let mut results: Vec<cqueue::Entry> = Vec::new();
        loop {
            match self.ring.submit_and_wait(1) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => results.extend(self.ring.completion()),
            }
            for result in results.drain(..) {
                let more = cqueue::more(result.flags());
                match result.user_data() {
                    NOBODY => {}
                    LISTENER => {
                        if result.result() >= 0 {
                            self.accepted(result.result())?;
                        }
                        if !more {
                            self.accept()?;
                        }
                    }
                    token => self.served(token, result.result(), more)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd())).flags(C::ACCEPT);
        self.push(accept.build().user_data(LISTENER))
    }

    fn accepted(&mut self, fd: i32) -> io::Result<()> {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // One bit short of what would make the reserved tokens.
        self.accepted = (self.accepted + 1) & (u32::MAX >> 1);
        let (connection, first) = C::start(socket, u64::from(self.accepted) << 32 | fd as u64);
        if self.connections.len() <= fd as usize {
            self.connections.resize_with(fd as usize + 1, || None);
        }
        self.connections[fd as usize] = Some(connection);
        self.push(first)
    }

    fn served(&mut self, token: u64, result: i32, more: bool) -> io::Result<()> {
        let slot = &mut self.connections[token as u32 as usize];
        let Some(connection) = slot.as_mut().filter(|connection| connection.token() == token) else { return Ok(()) };
        match connection.goes_on(result, more) {
            Next::Submit(entry) => self.push(entry),
            Next::Wait => Ok(()),
            Next::Close { armed } => {
                *slot = None;
                // What is armed holds the socket open.
                if armed { self.push(opcode::PollRemove::new(token).build().user_data(NOBODY)) } else { Ok(()) }
            }
        }
    }

    /// Puts an operation into the queue, which goes to the kernel before the next wait, or now if it is full.
    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: an entry's buffer, if it has one, is its connection's `buf`, which is boxed, and dropped only
            // when no operation is under way: see `Operating`.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}

/// A connection with one operation under way at all times, so that its end is always the result of one: what the
/// operation points at outlives it.
struct Operating {
    socket: OwnedFd,
    token: u64,
    buf: Box<[u8; BUFFER]>,
    /// What is received and not yet sent; empty while a receive is under way.
    unsent: std::ops::Range<usize>,
}

impl Operating {
    /// The next operation: a send as long as there is something unsent.
    fn next(&mut self) -> squeue::Entry {
        let fd = types::Fd(self.socket.as_raw_fd());
        let entry = if self.unsent.is_empty() {
            // Its peer has to see the echo first: trying at once would be for nothing.
            let receive = opcode::Recv::new(fd, self.buf.as_mut_ptr(), BUFFER as u32);
            receive.ioprio(IORING_RECVSEND_POLL_FIRST).build()
        } else {
            let bytes = &self.buf[self.unsent.clone()];
            opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32).flags(NOSIGNAL).build()
        };
        entry.user_data(self.token)
    }
}

const NOSIGNAL: i32 = rustix::net::SendFlags::NOSIGNAL.bits() as i32;

impl Served for Operating {
    const ACCEPT: i32 = rustix::net::SocketFlags::CLOEXEC.bits() as i32;

    fn start(socket: OwnedFd, token: u64) -> (Operating, squeue::Entry) {
        let mut connection = Operating { socket, token, buf: Box::new([0; BUFFER]), unsent: 0..0 };
        let first = connection.next();
        (connection, first)
    }

    fn token(&self) -> u64 {
        self.token
    }

    fn goes_on(&mut self, result: i32, _more: bool) -> Next {
        if result <= 0 {
            return Next::Close { armed: false };
        }
        match self.unsent.is_empty() {
            true => self.unsent = 0..result as usize,
            false => self.unsent.start += result as usize,
        }
        Next::Submit(self.next())
    }
}

/// A connection of which the ring says when it is ready.
struct Polled {
    connection: Connection,
    token: u64,
}

impl Polled {
    fn arm(&self) -> squeue::Entry {
        let interest = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP;
        let fd = types::Fd(self.connection.socket().as_raw_fd());
        opcode::PollAdd::new(fd, interest.bits().into()).multi(true).build().user_data(self.token)
    }
}

impl Served for Polled {
    const ACCEPT: i32 = Operating::ACCEPT | rustix::net::SocketFlags::NONBLOCK.bits() as i32;

    fn start(socket: OwnedFd, token: u64) -> (Polled, squeue::Entry) {
        let polled = Polled { connection: Connection::new(socket), token };
        let first = polled.arm();
        (polled, first)
    }

    fn token(&self) -> u64 {
        self.token
    }

    fn goes_on(&mut self, result: i32, more: bool) -> Next {
        let flags = PollFlags::from_bits_retain(result as u16);
        let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        self.connection.report(flags.contains(PollFlags::IN), result < 0 || flags.intersects(ends));
        match self.connection.echo(&mut [0; BUFFER]) {
            Err(_) => Next::Close { armed: more },
            Ok(()) if more => Next::Wait,
            Ok(()) => Next::Submit(self.arm()),
        }
    }
}
