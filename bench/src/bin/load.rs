//! One load for every server: a closed loop of echoes on many connections, by one thread with epoll.
//!
//! Each connection has one message under way at a time; when its echo is complete, every byte of it compared, the
//! next one leaves. Each message differs from every other, so an echo that went to the wrong connection or came
//! late is found. Anything unexpected (a wrong byte, a byte too many, a connection closed, ten seconds without
//! any progress) ends the run with exit status 1: a figure is printed only for echoes that were all right.
//!
//! It connects to loopback addresses only, in groups that the accept queue holds, and by turns from 127.0.0.1 to
//! 127.0.0.8, so that no address runs out of ports.

use clap::Parser;
use hdrhistogram::Histogram;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, sockopt};
use serde_json::{Value, json};
use std::error::Error;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};
use towpath_bench::process::pin_this_thread;

/// Connections opened before the first of them has to answer.
const GROUP: usize = 64;
/// Source addresses taken by turns.
const SOURCES: usize = 8;
/// How long nothing may arrive before the run counts as stuck.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Parser)]
struct Args {
    /// The server: an address in 127.0.0.0/8
    #[arg(long)]
    addr: SocketAddrV4,
    /// Connections at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    conns: u32,
    /// Bytes in a message
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// Measure for so long
    #[arg(long, default_value_t = 3.0, conflicts_with = "requests")]
    seconds: f64,
    /// Measure so many requests, instead
    #[arg(long)]
    requests: Option<u64>,
    /// Echo for so long before measuring, in seconds
    #[arg(long, default_value_t = 0.0)]
    warmup: f64,
    /// Print `ready` when warm; measure once for each line read from stdin, until it ends
    #[arg(long)]
    gate: bool,
    /// One echo on each connection, then hold them all until stdin ends
    #[arg(long, conflicts_with_all = ["requests", "seconds", "gate"])]
    idle: bool,
    /// Run on this CPU only
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if !args.addr.ip().is_loopback() {
        return Err(format!("{} is not a loopback address", args.addr.ip()).into());
    }
    if let Some(cpu) = args.cpu {
        pin_this_thread(cpu)?;
    }
    let mut load = Load::new(args.size as usize)?;
    load.open(args.addr, args.conns as usize)?;
    if args.idle {
        say(&json!({ "connections": args.conns, "idle": true }))?;
        while next_line()? {}
        return Ok(());
    }

    let all = 0..load.connections.len();
    if args.warmup > 0.0 {
        load.run(all.clone(), Until::After(Duration::from_secs_f64(args.warmup)))?;
    }
    let until = match args.requests {
        Some(count) => Until::Requests(count),
        None => Until::After(Duration::from_secs_f64(args.seconds)),
    };
    if !args.gate {
        return say(&load.run(all, until)?.as_json(&args));
    }
    say(&"ready")?;
    while next_line()? {
        say(&load.run(all.clone(), until)?.as_json(&args))?;
    }
    Ok(())
}

/// Writes one line, at once.
fn say(line: &impl std::fmt::Display) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Waits for a line on stdin; false when it has ended.
fn next_line() -> Result<bool> {
    Ok(io::stdin().read_line(&mut String::new())? != 0)
}

/// When a run stops sending. What is under way then is still waited for.
#[derive(Clone, Copy)]
enum Until {
    Requests(u64),
    After(Duration),
}

struct Outcome {
    requests: u64,
    took: Duration,
    /// Nanoseconds from a message's first byte sent to its echo's last byte compared.
    latency: Histogram<u64>,
}

impl Outcome {
    fn as_json(&self, args: &Args) -> Value {
        let us = |nanoseconds: u64| (nanoseconds as f64 / 100.0).round() / 10.0;
        let at = |quantile: f64| us(self.latency.value_at_quantile(quantile));
        json!({
            "connections": args.conns,
            "size": args.size,
            "requests": self.requests,
            "seconds": self.took.as_secs_f64(),
            "p50_us": at(0.50),
            "p99_us": at(0.99),
            "p99_9_us": at(0.999),
            "max_us": us(self.latency.max()),
        })
    }
}

struct Connection {
    socket: OwnedFd,
    /// Which message of this connection is under way.
    message: u64,
    sent: usize,
    received: usize,
    started: Instant,
}

struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    size: usize,
    /// The message that is being sent or compared.
    expected: Vec<u8>,
    /// One byte longer than a message, to notice an echo of more than was sent.
    arrived: Vec<u8>,
}

impl Load {
    fn new(size: usize) -> Result<Load> {
        Ok(Load {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            size,
            expected: vec![0; size.next_multiple_of(8)],
            arrived: vec![0; size + 1],
        })
    }

    /// Opens `count` connections and has each answer once: a connection in the accept queue is none yet.
    fn open(&mut self, addr: SocketAddrV4, count: usize) -> Result<()> {
        while self.connections.len() < count {
            let first = self.connections.len();
            let end = count.min(first + GROUP);
            for index in first..end {
                let socket = connect(index, addr).map_err(|e| format!("connection {index}: {e}"))?;
                let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), interest)?;
                let started = Instant::now();
                self.connections.push(Connection { socket, message: 0, sent: 0, received: 0, started });
            }
            self.run(first..end, Until::Requests((end - first) as u64))?;
        }
        Ok(())
    }

    /// Echoes on these connections; returns when no message is under way any more.
    fn run(&mut self, range: Range<usize>, until: Until) -> Result<Outcome> {
        let begin = Instant::now();
        let may_start = |started: u64, now: Instant| match until {
            Until::Requests(count) => started < count,
            Until::After(time) => now.duration_since(begin) < time,
        };
        let mut outcome = Outcome { requests: 0, took: Duration::ZERO, latency: Histogram::new(3)? };
        let mut started = 0;
        for index in range {
            if may_start(started, begin) {
                self.start(index, Instant::now())?;
                started += 1;
            }
        }

        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 256];
        while outcome.requests < started {
            let count = match epoll::wait(&self.epoll, &mut events, Some(&PATIENCE)) {
                Ok(0) => return Err(stuck(started - outcome.requests)),
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            for event in &events[..count] {
                let index = event.data.u64() as usize;
                let flags = event.flags; // A copy: the struct is packed.
                if flags.contains(EventFlags::OUT) {
                    self.send(index)?;
                }
                if self.receive(index)? {
                    let now = Instant::now();
                    outcome.latency.record(now.duration_since(self.connections[index].started).as_nanos() as u64)?;
                    outcome.requests += 1;
                    if may_start(started, now) {
                        self.start(index, now)?;
                        started += 1;
                    }
                }
            }
        }
        outcome.took = begin.elapsed();
        Ok(outcome)
    }

    fn start(&mut self, index: usize, now: Instant) -> Result<()> {
        let connection = &mut self.connections[index];
        connection.message += 1;
        connection.sent = 0;
        connection.received = 0;
        connection.started = now;
        self.send(index)
    }

    /// Sends what is left of the message, as far as there is room.
    fn send(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        if connection.message == 0 || connection.sent == self.size {
            return Ok(());
        }
        write_message(&mut self.expected, index, connection.message);
        while connection.sent < self.size {
            match send(&connection.socket, &self.expected[connection.sent..self.size], SendFlags::NOSIGNAL) {
                Ok(count) => connection.sent += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(e) => return Err(format!("connection {index}: send: {e}").into()),
            }
        }
        Ok(())
    }

    /// Compares what has arrived; true when that completes the echo of the message under way.
    fn receive(&mut self, index: usize) -> Result<bool> {
        let connection = &mut self.connections[index];
        let fail = |text: String| Err(format!("connection {index}, message {}: {text}", connection.message).into());
        loop {
            let received = connection.received;
            // Room for one byte more than may come.
            let room = self.size - received + 1;
            let count = match recv(&connection.socket, &mut self.arrived[..room], RecvFlags::empty()) {
                Ok((_, 0)) => {
                    return fail(format!("closed by the server after {received} of {} bytes", self.size));
                }
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => continue,
                Err(e) => return fail(format!("recv: {e}")),
            };
            if received + count > connection.sent {
                return fail("the echo is longer than what was sent".into());
            }
            write_message(&mut self.expected, index, connection.message);
            let wanted = &self.expected[received..received + count];
            if let Some(at) = wanted.iter().zip(&self.arrived).position(|(a, b)| a != b) {
                return fail(format!("byte {} of the echo differs", received + at));
            }
            connection.received += count;
            if connection.received == self.size {
                return Ok(true);
            }
        }
    }
}

fn stuck(under_way: u64) -> Box<dyn Error> {
    format!("stuck: {under_way} messages under way and nothing arrived for {} s", PATIENCE.tv_sec).into()
}

fn connect(index: usize, addr: SocketAddrV4) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let source = Ipv4Addr::new(127, 0, 0, 1 + (index % SOURCES) as u8);
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    rustix::net::connect(&socket, &addr)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// Fills `message` with bytes that no other message of any connection has: splitmix64 from a seed of its own.
fn write_message(message: &mut [u8], connection: usize, number: u64) {
    let mut state = ((connection as u64) << 40 | number).wrapping_mul(0xd134_2543_de82_ef95);
    for word in message.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
}
