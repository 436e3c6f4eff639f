//! One load for every server, by one thread with epoll.
//!
//! In a closed loop each connection has one request under way at a time, or as many as `--pipeline` says; when an
//! answer is complete, every byte of it compared, the next request leaves. With `--rate` requests leave when they are
//! due, whatever has been answered, and each one's latency counts from then. With `--churn` each request has a
//! connection of its own. Each echo differs from every other, so one that went to the wrong connection or came late is
//! found. Anything unexpected (a wrong byte, a byte too many, a connection closed, ten seconds without any progress)
//! ends the run with exit status 1: a figure is printed only for answers that were all right.
//!
//! It connects to loopback addresses only, in groups that the accept queue holds, and by turns from 127.0.0.1 to
//! 127.0.0.64, so that no address runs out of ports.

mod connection;
mod messages;

use clap::Parser;
use connection::{Buffers, Connection};
use hdrhistogram::Histogram;
use messages::{Kind, Messages};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use serde_json::{Value, json};
use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::{Duration, Instant};
use towpath_bench::process::pin_this_thread;

/// Connections opened before the first of them has to answer.
const GROUP: usize = 64;
/// How long nothing may arrive before the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Parser)]
struct Args {
    /// The server: an address in 127.0.0.0/8
    #[arg(long)]
    addr: SocketAddrV4,
    /// What to ask for
    #[arg(long, value_enum, default_value_t = Kind::Echo)]
    kind: Kind,
    /// Connections at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=19_500))]
    conns: u32,
    /// Bytes in a message, or to sink or source in one request
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    size: u32,
    /// Requests under way at once on each connection
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pipeline: u32,
    /// Requests per second on all connections together, sent when they are due
    #[arg(long, conflicts_with_all = ["pipeline", "requests"])]
    rate: Option<f64>,
    /// A new connection for each request
    #[arg(long, conflicts_with_all = ["pipeline", "rate"])]
    churn: bool,
    /// Measure for so long
    #[arg(long, default_value_t = 3.0, conflicts_with = "requests")]
    seconds: f64,
    /// Measure so many requests, instead
    #[arg(long)]
    requests: Option<u64>,
    /// Ask for so long before measuring, in seconds
    #[arg(long, default_value_t = 0.0)]
    warmup: f64,
    /// Print `ready` when warm; measure once for each line read from stdin, until it ends
    #[arg(long)]
    gate: bool,
    /// One request on each connection, then hold them all until stdin ends
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
    let mut load = Load::new(&args)?;
    load.open(args.conns as usize)?;
    if args.idle {
        say(&json!({ "connections": args.conns, "idle": true }))?;
        while next_line()? {}
        return Ok(());
    }

    let all = 0..load.connections.len();
    let warmup = Duration::from_secs_f64(args.warmup);
    if !warmup.is_zero() {
        load.run(all.clone(), Until::After(warmup))?;
    }
    let until = match (args.requests, args.rate) {
        (Some(count), _) => Until::Requests(count),
        (None, Some(rate)) => Until::Due { rate, count: (rate * args.seconds) as u64 },
        (None, None) => Until::After(Duration::from_secs_f64(args.seconds)),
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

/// When a run stops asking. What is under way then is still waited for.
#[derive(Clone, Copy)]
enum Until {
    /// Closed loop: after so many requests.
    Requests(u64),
    /// Closed loop: after so long.
    After(Duration),
    /// Open loop: when all have been sent that were due.
    Due { rate: f64, count: u64 },
}

struct Outcome {
    requests: u64,
    took: Duration,
    /// Nanoseconds from when a request was to leave to when its answer's last byte was compared.
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

struct Load {
    addr: SocketAddrV4,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    messages: Messages,
    pipeline: u32,
    /// With churn: how many connections there have been.
    churned: Option<usize>,
    buffers: Buffers,
}

/// A run under way.
struct Run {
    begin: Instant,
    until: Until,
    started: u64,
    outcome: Outcome,
}

impl Run {
    /// Whether a closed loop goes on with one more request.
    fn may_start(&self, now: Instant) -> bool {
        match self.until {
            Until::Requests(count) => self.started < count,
            Until::After(time) => now.duration_since(self.begin) < time,
            Until::Due { .. } => false,
        }
    }

    /// In an open loop: when the next request has to leave.
    fn next_due(&self) -> Option<Instant> {
        match self.until {
            Until::Due { rate, count } if self.started < count => {
                Some(self.begin + Duration::from_secs_f64(self.started as f64 / rate))
            }
            _ => None,
        }
    }
}

impl Load {
    fn new(args: &Args) -> Result<Load> {
        Ok(Load {
            addr: args.addr,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            messages: Messages::new(args.kind, args.size as usize),
            pipeline: args.pipeline,
            churned: args.churn.then_some(0),
            buffers: Buffers::new(),
        })
    }

    /// Opens `count` connections and has each answer once: a connection in the accept queue is none yet.
    fn open(&mut self, count: usize) -> Result<()> {
        while self.connections.len() < count {
            let first = self.connections.len();
            let end = count.min(first + GROUP);
            for index in first..end {
                self.connections.push(Connection::open(index, self.addr)?);
                self.watch(index)?;
            }
            self.run(first..end, Until::Requests((end - first) as u64))?;
        }
        Ok(())
    }

    fn watch(&self, index: usize) -> Result<()> {
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let socket = self.connections[index].socket();
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(index as u64), interest)?)
    }

    /// Asks on these connections; returns when no request is under way any more.
    fn run(&mut self, range: Range<usize>, until: Until) -> Result<Outcome> {
        let begin = Instant::now();
        let outcome = Outcome { requests: 0, took: Duration::ZERO, latency: Histogram::new(3)? };
        let mut run = Run { begin, until, started: 0, outcome };
        for _ in 0..self.pipeline {
            for index in range.clone() {
                if run.may_start(begin) {
                    self.start(&mut run, index, Instant::now())?;
                }
            }
        }
        for index in range.clone() {
            self.connections[index].send(&self.messages, &mut self.buffers)?;
        }

        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 256];
        let mut progress = begin;
        loop {
            let now = Instant::now();
            while let Some(due) = run.next_due().filter(|due| *due <= now) {
                let index = range.start + (run.started % range.len() as u64) as usize;
                self.start(&mut run, index, due)?;
                self.connections[index].send(&self.messages, &mut self.buffers)?;
            }
            let under_way = run.started - run.outcome.requests;
            if under_way == 0 && run.next_due().is_none() {
                break;
            }
            let wait = run.next_due().map_or(PATIENCE, |due| nap(due.saturating_duration_since(Instant::now())));
            let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
            let count = match epoll::wait(&self.epoll, &mut events, Some(&wait)) {
                Ok(0) if under_way > 0 && progress.elapsed() >= PATIENCE => {
                    let seconds = PATIENCE.as_secs();
                    let text = format!("stuck: {under_way} messages under way and nothing arrived for {seconds} s");
                    return Err(text.into());
                }
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            for event in &events[..count] {
                self.handle(&mut run, event.data.u64() as usize, event.flags)?;
            }
            if count > 0 {
                progress = Instant::now();
            }
        }
        run.outcome.took = begin.elapsed();
        Ok(run.outcome)
    }

    fn handle(&mut self, run: &mut Run, index: usize, flags: EventFlags) -> Result<()> {
        let connection = &mut self.connections[index];
        if flags.contains(EventFlags::OUT) {
            connection.send(&self.messages, &mut self.buffers)?;
        }
        let ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if !ending && !flags.contains(EventFlags::IN) {
            return Ok(());
        }
        let latency = &mut run.outcome.latency;
        let answered = connection.receive(&self.messages, &mut self.buffers, ending, latency)?;
        if answered > 0 {
            run.outcome.requests += answered;
            let now = Instant::now();
            for _ in 0..answered {
                if run.may_start(now) {
                    self.start(run, index, now)?;
                }
            }
            self.connections[index].send(&self.messages, &mut self.buffers)?;
        }
        Ok(())
    }

    /// One more request on this connection, or with churn on a new one in its place.
    fn start(&mut self, run: &mut Run, index: usize, when: Instant) -> Result<()> {
        if let Some(churned) = &mut self.churned
            && !self.connections[index].is_new()
        {
            *churned += 1;
            self.connections[index].reopen(self.addr, *churned)?;
            self.watch(index)?;
        }
        self.connections[index].start(when);
        run.started += 1;
        Ok(())
    }
}

/// How long to sleep before something is due: not at all for the last stretch, since epoll counts in milliseconds and
/// a wake-up takes its time. With a CPU of its own, looking all the time disturbs nobody.
fn nap(left: Duration) -> Duration {
    Duration::from_millis(left.saturating_sub(Duration::from_millis(1)).as_millis() as u64)
}
